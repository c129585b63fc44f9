"""The tools that are compared: how each is installed and run, and in what configuration. All on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "out"
RESULTS = ROOT / "benchmarks" / "results"
SHARED = ROOT.parent / "shared"
"""Where pairs of real images and their scorer may lie, beside the repository."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A tool with an environment of its own."""

    title: str
    script: str
    """What registers one pair: ``script FIXED MOVING -o OUT``, with the other flags of ``command``."""
    requirements: tuple[str, ...]
    """Installed one after the other, within ``constraints.txt`` if ``constrained``."""
    check: str
    """A line of Python that runs where the tool is installed."""
    packages: tuple[str, ...]
    """Whose versions are told; the first one is the tool."""
    configuration: str
    constrained: bool = True
    dimensions: tuple[int, ...] = (2, 3)
    takes_threads: bool = False
    """Whether the script has ``--threads``; the others read ITK's number from the environment."""
    network: bool = False
    """Whether it needs a descriptor as a network."""


PEERS = {
    "convexadam": Peer(
        title="convexAdam",
        script="run_convexadam.py",
        requirements=("torch", "convexAdam==0.2.0"),  # the pinned torch first: else convexAdam brings any
        check="import convexAdam",
        packages=("convexAdam", "torch", "SimpleITK", "numpy"),
        configuration="`convex_adam_pt` at its defaults (MIND-SSC), on an isotropic grid over the fixed image with its "
        "smallest spacing, made by the package's own functions",
        dimensions=(3,),
        takes_threads=True,
    ),
    "ants": Peer(
        title="ANTs SyN",
        script="run_ants.py",
        requirements=("antspyx==0.6.3",),
        check="import ants",
        packages=("antspyx", "numpy"),
        configuration="antspyx, `ants.registration` with `type_of_transform='SyN'`, its default: centres of mass, "
        "affine, SyN, mutual information; none of its steps is at full resolution, which is its default too",
        constrained=False,
    ),
    "elastix": Peer(
        title="elastix",
        script="run_elastix.py",
        requirements=("itk-elastix==0.25.4",),
        check="import itk; itk.ElastixRegistrationMethod",
        packages=("itk-elastix", "itk-core", "numpy"),
        configuration="itk-elastix, `itk.elastix_registration_method` without parameters: translation, affine and "
        "B-spline, four resolutions each, mutual information on 2048 random samples an iteration",
        constrained=False,
    ),
    "greedy": Peer(
        title="greedy",
        script="run_greedy.py",
        requirements=("picsl-greedy==1.4.0.3",),
        check="import picsl_greedy",
        packages=("picsl-greedy", "SimpleITK", "numpy"),
        configuration="picsl-greedy: centres of the images, affine, then deformable, both `-m WNCC 2x2x2 -n 100x50x10`",
        constrained=False,
        takes_threads=True,
    ),
    "impact": Peer(
        title="itk-impact",
        script="run_impact.py",
        requirements=("torch==2.12.*", "itk-impact==0.1.6", "itk>=5.4,<5.5"),
        check="import torch, itk; itk.ImpactFineRegistration",
        packages=("itk-impact", "torch", "itk-core", "numpy"),
        configuration="the two stages of its `ImpactConvexAdamExample`, coarse and fine at their defaults, features of "
        "one network at 2 mm: MIND-SSC with a dilation of 2, made by `mind_network.py`; "
        "in 2-D the same with 4 channels",
        constrained=False,
        takes_threads=True,
        network=True,
    ),
}


def semreg_command(
    fixed: Path, moving: Path, output: Path, threads: int | None, settings: Sequence[str] = ()
) -> list[str | Path]:
    """What registers one pair with semreg; ``settings`` as ``name=value``, none by default."""
    changed = [word for setting in settings for word in ("--set", setting)]
    given = [*changed, *_threads(threads), "--device", "cpu", "--quiet"]
    return [sys.executable, "-m", "semreg", "register", fixed, moving, "-o", output, *given]


def semreg_versions() -> dict[str, str]:
    """Versions of semreg and of what it builds on."""
    done = subprocess.run([sys.executable, "-m", "semreg", "version"], capture_output=True, text=True, check=True)
    versions = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    return versions | {"semreg": f"{versions['semreg']} ({commit()})"}


def commit() -> str:
    """Which state of the project this is, as git names it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def default_venv(name: str) -> Path:
    """Where the environment of a peer is made if nothing else is said."""
    return OUT / f"{PEERS[name].packages[0].lower()}-venv"


def peer_python(name: str, venv: Path) -> Path:
    """The Python of a peer's environment, which is made if it is absent. CalledProcessError if pip fails."""
    peer, python = PEERS[name], venv.absolute() / "bin" / "python"
    if not python.exists():
        print(f"making {venv} with {' '.join(peer.requirements)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    if subprocess.run([python, "-c", peer.check], capture_output=True, check=False).returncode:
        limits: list[str | Path] = ["--constraint", ROOT / "constraints.txt"] if peer.constrained else []
        for requirement in peer.requirements:
            subprocess.run([python, "-m", "pip", "install", "--quiet", *limits, requirement], check=True)
        subprocess.run([python, "-c", peer.check], check=True)
    return python


def peer_command(
    name: str, python: Path, fixed: Path, moving: Path, output: Path, threads: int | None
) -> list[str | Path]:
    """What registers one pair with a peer."""
    flags = _threads(threads) if PEERS[name].takes_threads else []
    return [python, ROOT / "benchmarks" / PEERS[name].script, fixed, moving, "-o", output, *flags]


def peer_versions(name: str, python: Path) -> dict[str, str]:
    """Versions of a peer and of what it builds on."""
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    done = subprocess.run([python, "-c", code, *PEERS[name].packages], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def _threads(threads: int | None) -> list[str]:
    return [] if threads is None else ["--threads", str(threads)]
