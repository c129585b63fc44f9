"""How many threads a process may compute in, and how they wait. Loads none of the libraries that compute."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path


def sleep_when_idle() -> None:
    """From now on threads of OpenMP that have nothing to do sleep, where the user has not said otherwise.

    For the command line alone, before torch is loaded. By default they spin until the next piece of work: on a machine
    that others use too, two threads then take several times the processor time of one, and as much longer.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def usable_cores() -> int:
    """The processors that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def openmp_threads() -> int | None:
    """The threads that torch's OpenMP would take here, which follows OMP_NUM_THREADS; None where it cannot be asked."""
    import ctypes  # for this alone

    found = find_spec("torch")
    for folder in map(Path, (found and found.submodule_search_locations) or ()):
        for path in (*folder.glob("lib/libgomp*"), *folder.parent.glob("torch.libs/libgomp*")):
            with suppress(OSError, AttributeError):
                return max(1, int(ctypes.CDLL(str(path)).omp_get_max_threads()))
    return None
