"""What is installed on this machine, what each part is for, and what would not work. Knows nothing of images.

Versions are read from metadata. What has to be loaded to be known, torch and the binary part for ITK, is loaded by a
second process: it takes seconds, and one that crashes or hangs must not take this one with it.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, TypeVar

import semreg
from semreg.runtime.memory import available_bytes
from semreg.runtime.threads import usable_cores

PROBE_SECONDS = 5.0
"""How long a part may take to load before it is called slow, if nothing else is asked for."""

MARK = "semreg-facts:"
"""What the line starts with that a second process answers with: what is loaded may print before and after it."""

MOST_WORDS = 600
"""Characters of an error that are shown."""

State = Literal["ok", "missing", "slow", "broken"]


@dataclass(frozen=True)
class Package:
    """A package that semreg works with, and the versions it accepts."""

    name: str
    """Of its distribution."""
    purpose: str
    least: str
    """The first version that is accepted."""
    below: str = ""
    """The first version that is not accepted any more; empty: there is no such."""
    needed: bool = False
    """Whether semreg is broken without it."""

    @property
    def requirement(self) -> str:
        """Name and versions, as pip takes them."""
        return f"'{self.name}>={self.least}{f',<{self.below}' if self.below else ''}'"


PACKAGES = (
    Package("torch", "computes features, similarities and fields", "2.6", "3", needed=True),
    Package("numpy", "matrices, and arrays at the doors", "1.26", needed=True),
    Package("scipy", "the alignment, and masks of the body", "1.11.1", needed=True),
    Package("lazy_loader", "the public names", "0.5", needed=True),
    Package("jaxtyping", "shapes in signatures", "0.2.34", needed=True),
    Package("psutil", "how much memory there is and is held", "6", needed=True),
    Package("filelock", "one batch or service at a time in a folder", "4", needed=True),
    Package("msgspec", "settings", "0.19", needed=True),
    Package("h5py", "transforms in HDF5", "3.10", needed=True),
    Package("pydicom", "series of DICOM folders, and DICOM that is written", "3.0.1", "4", needed=True),
    Package("SimpleITK", "reads and writes images and transforms", "2.5.4", needed=True),
    Package("semreg-kernels", "speed on CPUs; without it torch computes the same", "0.1.dev0"),
    Package("itk", "images of the itk package, and ITK's own registration", "5.4.3", "5.5"),
    Package("nibabel", "images of FreeSurfer, AFNI, MINC, Philips, and NIfTI-2", "5"),
    Package("zarr", "images of OME-Zarr", "3", "4"),
    Package("ome-zarr", "images that are written as OME-Zarr", "0.18"),
    Package("tifffile", "whole slides", "2026.3"),
    Package("fastapi", "registrations over HTTP", "0.115", "1"),
    Package("uvicorn", "the server of semreg serve", "0.30", "1"),
    Package("python-multipart", "forms that semreg serve is sent", "0.0.18", "1"),
    Package("huggingface_hub", "fetches pretrained models", "1.2"),
)
"""What is looked for, and the bounds that the package's own metadata state."""


@dataclass(frozen=True)
class Finding:
    """One part of the environment."""

    name: str
    state: State
    """``missing`` is no fault: the part is wanted only for what it is for. ``slow``: it was not waited for to its end.
    ``broken`` would make something fail."""
    found: str
    """Its version, or what it is; empty if it is missing."""
    purpose: str
    advice: str = ""
    """What to do, in one line; empty if nothing has to be done."""


@dataclass(frozen=True)
class TorchFacts:
    """What only a loaded torch knows: its devices, and with it the models that are there."""

    devices: dict[str, str]
    """Name and description."""
    folder: str
    models: int

    @classmethod
    def found(cls) -> TorchFacts:
        """Those of this process. For ``probe``."""
        import torch

        from semreg.features.catalogue import entries
        from semreg.features.catalogue.folders import default_folder

        found = {"cpu": f"{platform.machine()}, {torch.get_num_threads()} threads"}
        for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            properties = torch.cuda.get_device_properties(number)
            found[f"cuda:{number}"] = f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB"
        if torch.backends.mps.is_available():
            found["mps"] = f"Apple GPU, shares {torch.mps.recommended_max_memory() / 2**30:.1f} GiB"
        folder = default_folder()
        paths = {place for entry in entries() for place in (folder / entry.path, folder / Path(entry.path).name)}
        return cls(found, str(folder), sum(path.is_file() for path in paths))


@dataclass(frozen=True)
class BridgeFacts:
    """For which itk the binary part is built, and why it does not load; one of them is empty."""

    itk: str
    trouble: str

    @classmethod
    def found(cls) -> BridgeFacts:
        """Those of this process. For ``probe``."""
        try:
            bridge = import_module("semreg_itkv4")
            bridge.check()
        except ImportError as error:
            return cls("", " ".join(str(error).split()))
        return cls(str(bridge.SUPPORTED), "")


Facts = TypeVar("Facts", TorchFacts, BridgeFacts)


@dataclass(frozen=True)
class Trouble:
    """Why a process did not tell what it was asked."""

    state: State
    words: str


def examine(*, seconds: float = PROBE_SECONDS) -> list[Finding]:
    """All parts of the environment, in the order in which they are shown; ``seconds``: for each part to load."""
    with ThreadPoolExecutor() as both:
        bridge = both.submit(examine_bridge, seconds)
        torch = probe(TorchFacts, seconds)
    return [
        Finding("semreg", "ok", semreg.__version__, "this package"),
        Finding("Python", "ok", platform.python_version(), sys.executable),
        Finding("platform", "ok", platform.platform(), "the system"),
        *[
            examine_package(package, torch if package.name == "torch" and isinstance(torch, Trouble) else None)
            for package in PACKAGES
        ],
        bridge.result(),
        examine_itk_impact(),
        *devices(torch),
        Finding("cores", "ok", str(usable_cores()), "processors that this process may use"),
        Finding("memory", "ok", f"{available_bytes() / 2**30:.1f} GiB", "what is free for this process now"),
        models(torch),
    ]


def examine_package(package: Package, trouble: Trouble | None = None) -> Finding:
    """Whether a package is there, of a version that is accepted, and, where it was loaded, without ``trouble``."""
    found = installed(package.name)
    if not found:
        state: State = "broken" if package.needed else "missing"
        return Finding(package.name, state, "", package.purpose, f"pip install {package.requirement}")
    number = _number(found)
    if number < _number(package.least) or (package.below and number >= _number(package.below)):
        wanted = f"{package.least} or later" + (f", below {package.below}" if package.below else "")
        advice = f"expected {wanted}, got {found}: pip install {package.requirement}"
        return Finding(package.name, "broken", found, package.purpose, advice)
    if trouble is not None:
        said = trouble.words if trouble.state == "slow" else f"it does not load: {trouble.words}"
        return Finding(package.name, trouble.state, found, package.purpose, said)
    return Finding(package.name, "ok", found, package.purpose)


def examine_bridge(seconds: float) -> Finding:
    """Whether the binary part for ITK's v4 registration is there and loads with the itk that is installed."""
    name, purpose = "semreg-itkv4", "metrics inside itk.ImageRegistrationMethodv4"
    found = installed(name)
    if not found:
        return Finding(name, "missing", "", purpose, "pip install semreg-itkv4, or build it: make native")
    facts = probe(BridgeFacts, seconds)
    if isinstance(facts, Trouble):
        return Finding(name, facts.state, found, purpose, facts.words)
    if facts.trouble:
        return Finding(name, "broken", found, purpose, facts.trouble)
    return Finding(name, "ok", f"{found}, for itk {facts.itk}", purpose)


def examine_itk_impact() -> Finding:
    """Whether another package has the class names that ``semreg.itk.api`` gives to ``itk``."""
    found, purpose = installed("itk-impact"), "scripts with the ITK-style classes of IMPACT"
    if not found:
        return Finding("itk-impact", "missing", "", purpose, "not needed: import semreg.itk.api in such scripts")
    return Finding("itk-impact", "ok", found, f"{purpose}, which semreg.itk.api replaces where it is imported")


def devices(torch: TorchFacts | Trouble) -> list[Finding]:
    """What torch can compute on; nothing if torch does not load."""
    found = {} if isinstance(torch, Trouble) else torch.devices
    return [Finding(name, "ok", what, "--device " + name) for name, what in found.items()]


def models(torch: TorchFacts | Trouble) -> Finding:
    """How many pretrained models the default folder holds."""
    purpose = "pretrained networks"
    if isinstance(torch, Trouble):
        return Finding("models", torch.state, "", purpose, "they cannot be counted while torch has not loaded")
    if not torch.models:
        advice = f"none in {torch.folder}: semreg models list, semreg models fetch"
        return Finding("models", "missing", "", purpose, advice)
    return Finding("models", "ok", f"{torch.models} in {torch.folder}", purpose)


def installed(name: str) -> str:
    """The version of a distribution, from its metadata; empty if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def probe(kind: type[Facts], seconds: float) -> Facts | Trouble:
    """The facts of this ``kind`` as a process of its own finds them, or what went wrong there."""
    code = f"import semreg.cli.environment as e; e.answer(e.{kind.__name__}.found())"
    try:
        done = subprocess.run(  # noqa: S603 - our own Python and our own words
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            cwd=Path(semreg.__file__).parents[1],  # a file named torch.py where the user stands must not count
        )
    except subprocess.TimeoutExpired:
        return Trouble("slow", f"it has not loaded within {seconds:g} s: --wait 120 waits longer")
    except OSError as error:
        return Trouble("broken", f"expected Python at {sys.executable!r} to start, it did not: {error}")
    if done.returncode < 0:
        return Trouble("broken", f"expected it to load, it was ended by signal {-done.returncode}: install it again")
    if done.returncode:
        return Trouble("broken", f"expected it to load, got {last_error(done.stderr)}: install it again")
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    try:
        return kind(**json.loads(lines[-1].removeprefix(MARK)))
    except (LookupError, ValueError, TypeError):
        return Trouble("broken", "expected it to load and answer, it ended without an answer: install it again")


def answer(facts: TorchFacts | BridgeFacts) -> None:
    """Write what was found to standard output, on a line of its own. For ``probe``."""
    sys.stdout.write(f"\n{MARK}{json.dumps(asdict(facts))}\n")


def last_error(output: str) -> str:
    """The error that ended a Python process, with all lines of its message as one; the last line if it is none."""
    lines = output.strip().splitlines() or ["no word why"]
    heads = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    after = range(heads[-1] + 1, len(lines)) if heads else range(0)
    start = next((number for number in after if not lines[number].startswith(" ")), len(lines) - 1)
    return textwrap.shorten(" ".join(lines[start:]), MOST_WORDS, placeholder=" …")


def _number(text: str) -> tuple[int, ...]:
    """The numbers a version starts with: (2, 13, 0) of ``2.13.0+cpu``, (3,) of ``3.0``: without zeros at the end."""
    release = re.match(r"\d+(\.\d+)*", text)
    numbers = [int(part) for part in release.group().split(".")] if release else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
