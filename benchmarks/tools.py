"""The two tools that are compared: their commands, their versions, and convexAdam's own virtual environment."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "out"
RESULTS = ROOT / "benchmarks" / "results"
SHARED = ROOT.parent / "shared"
"""Where pairs of real images and their scorer may lie, beside the repository."""
REFERENCE_VENV = OUT / "convexadam-venv"
REFERENCE = "convexAdam==0.2.0"
REFERENCE_PACKAGES = ("convexAdam", "torch", "SimpleITK", "numpy")


def semreg_command(
    fixed: Path, moving: Path, output: Path, threads: int | None, settings: Sequence[str] = ()
) -> list[str | Path]:
    """What registers one pair with semreg on the CPU; ``settings`` as ``name=value``, none by default."""
    changed = [word for setting in settings for word in ("--set", setting)]
    given = [*changed, *_threads(threads), "--device", "cpu", "--quiet"]
    return [sys.executable, "-m", "semreg", "register", fixed, moving, "-o", output, *given]


def semreg_versions() -> dict[str, str]:
    """Versions of semreg and of what it builds on."""
    done = subprocess.run([sys.executable, "-m", "semreg", "version"], capture_output=True, text=True, check=True)
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())


def reference_python(venv: Path) -> Path:
    """The Python of convexAdam's environment ``venv``, which is made if it is absent."""
    python = venv.absolute() / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        print(f"making {venv} with {REFERENCE}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    if subprocess.run([python, "-c", "import convexAdam"], capture_output=True, check=False).returncode:
        pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
        for requirement in ("torch", REFERENCE):  # the pinned torch first: else convexAdam brings any
            subprocess.run([*pip, requirement], check=True)
    return python


def reference_command(python: Path, fixed: Path, moving: Path, output: Path, threads: int | None) -> list[str | Path]:
    """What registers one pair with convexAdam."""
    script = ROOT / "benchmarks" / "run_convexadam.py"
    return [python, script, fixed, moving, "-o", output, *_threads(threads)]


def reference_versions(python: Path) -> dict[str, str]:
    """Versions of convexAdam and of what it builds on."""
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    done = subprocess.run([python, "-c", code, *REFERENCE_PACKAGES], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def _threads(threads: int | None) -> list[str]:
    return [] if threads is None else ["--threads", str(threads)]
