"""How many threads a process may compute in, as the machine and the OpenMP of torch say. Loads no torch."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path


def usable_cores() -> int:
    """The processors that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def openmp_threads() -> int | None:
    """The threads that torch's OpenMP would take here, which follows OMP_NUM_THREADS; None where it cannot be asked."""
    found = find_spec("torch")
    for folder in map(Path, (found and found.submodule_search_locations) or ()):
        for path in (*folder.glob("lib/libgomp*"), *folder.parent.glob("torch.libs/libgomp*")):
            with suppress(OSError, AttributeError):
                return max(1, int(ctypes.CDLL(str(path)).omp_get_max_threads()))
    return None
