"""Run the tests of the compiled kernels with a build that has the address and undefined-behaviour sanitizers.

    python kernels/sanitize.py

Needs g++ with its sanitizers, and what the tests need. Ends with 0, and says so, where there is no g++.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHILD = """
import functools, pathlib, sys
import pytest, semreg_kernels
semreg_kernels.load = functools.partial(semreg_kernels.load, pathlib.Path(sys.argv[1]))
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "tests/core/test_kernels.py", "-k", "native or threads"]))
"""
"""The library must be replaced before anything of semreg takes it."""


def main() -> int:
    """Build, then test."""
    compiler = shutil.which("g++")
    if compiler is None:
        print("no g++: the kernels are not tested with sanitizers")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "libsemreg_kernels.so"
        flags = ["-std=c++17", "-O1", "-g", "-fPIC", "-shared", "-pthread", "-fsanitize=address,undefined"]
        flags += ["-fno-sanitize-recover=all", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
        sources = [HERE / "src/variant.cpp", HERE / "src/exports.cpp"]
        subprocess.run([compiler, *flags, "-DSEMREG_VARIANT=plain", *sources, "-o", library], check=True)
        # what throws, the last of these, must be known to the first
        runtime = [
            subprocess.run([compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True).stdout
            for name in (
                "libasan.so",
                "libubsan.so",
                "libstdc++.so.6",
            )
        ]
        told = {
            "LD_PRELOAD": " ".join(name.strip() for name in runtime),
            "ASAN_OPTIONS": "detect_leaks=0",  # Python and torch keep what they have until they end
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "OMP_NUM_THREADS": "1",
        }
        words = [sys.executable, "-c", CHILD, library]
        return subprocess.run(words, cwd=HERE.parent, env={**os.environ, **told}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
