"""Run the tests of the compiled kernels, and damaged files, with a build that has the address and undefined-behaviour
sanitizers.

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
REPLACE = """
import functools, os, pathlib, semreg_kernels
semreg_kernels.load = functools.partial(semreg_kernels.load, pathlib.Path({library!r}))
try:
    semreg_kernels.load()
except Exception as error:
    print(error)
    os._exit(1)
"""
"""What every Python that is started imports of its own accord (sitecustomize), before anything of semreg."""
TESTS = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/core/test_kernels.py", "-k", "native or threads")
FUZZ = ("tests/fuzz/fuzz.py", "--kind", "transforms", "--kind", "points", "--kind", "images", "--cases", "300")
"""Damaged files of the kinds that reach the kernels: fields that are joined, inverted, applied and measured."""


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
        (Path(folder) / "sitecustomize.py").write_text(REPLACE.format(library=str(library)), encoding="utf-8")
        told["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, str(HERE), os.environ.get("PYTHONPATH"))))
        codes = [
            subprocess.run(
                [sys.executable, *words], cwd=HERE.parent, env={**os.environ, **told}, check=False
            ).returncode
            for words in (TESTS, FUZZ)
        ]
        return max(codes)


if __name__ == "__main__":
    sys.exit(main())
