"""Make wheels for Linux that a package index takes: of manylinux_2_28, which auditwheel judges.

In the images of manylinux nothing is needed but auditwheel (wheels.yml beside this file). Elsewhere the compiler calls
newer run times than glibc 2.28 and the libstdc++ of GCC 8; ``older.cpp`` says these few calls with what those have.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

POLICY = "manylinux_2_28"
"""The level of the wheels of itk."""
BESIDE = "_ITK*Python*.so"
"""Libraries of the itk wheels, which are found beside the package and not copied into it."""


def flags(folder: Path) -> dict[str, str]:
    """What a build's environment is to hold, so that what it links runs on older systems; files go into ``folder``."""
    compiler = shutil.which("g++")
    if compiler is None:
        sys.exit("expected g++ to build wheels for Linux with, found none: install it, or use cibuildwheel")
    made = folder / "older.o"
    source = Path(__file__).with_name("older.cpp")
    subprocess.run([compiler, "-std=c++17", "-O2", "-fPIC", "-Wall", "-Wextra", "-c", source, "-o", made], check=True)
    return {"CXX": compiler, "LDFLAGS": str(made)}


def repaired(wheel: Path) -> Path:
    """The wheel under the name that auditwheel grants, in place of the one that was built; SystemExit if it refuses."""
    policy = f"{POLICY}_{platform.machine()}"
    words = ["--plat", policy, "--only-plat", "--exclude", BESIDE, "--wheel-dir", str(wheel.parent / "repaired")]
    done = subprocess.run(
        [sys.executable, "-m", "auditwheel", "repair", *words, str(wheel)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"expected {wheel.name} to be fit for {policy}, auditwheel says:\n{done.stdout}{done.stderr}")
    (made,) = (wheel.parent / "repaired").iterdir()
    wheel.unlink()
    result = made.rename(wheel.parent / made.name)
    result.parent.joinpath("repaired").rmdir()
    return result
