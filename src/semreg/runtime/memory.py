"""How much memory this process holds, may hold, and has held; and how a limit is written. Knows nothing of images."""

from __future__ import annotations

import ctypes
import math
import os
import re
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from semreg.errors import ConfigError

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
SHARE = 0.8
"""Of the memory that is available, what is used where no limit is given."""

MAPPED_FROM = 1 << 22
"""Bytes of the blocks that ``return_freed_memory`` has mapped by themselves."""

NO_MEMORY = (
    "out of memory", "allocate memory", "failed to allocate", "unable to allocate", "not enough memory", "bad_alloc",
    "defaultcpuallocator", "failed to map segment", "start new thread",
)  # fmt: skip
"""How libraries say that there is none."""
CONTROL_GROUP = Path("/sys/fs/cgroup")
"""Where a container's limits are."""
_STATUS = Path("/proc/self/status")


def parse_bytes(text: str) -> int:
    """Bytes of ``3GB``, ``512 MiB`` or ``2e9``. Raises ConfigError."""
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*([a-z]*)\s*", text, flags=re.IGNORECASE)
    unit = found.group(2).upper() if found else ""
    amount = float(found.group(1)) * UNITS[unit] if found and unit in UNITS else 0.0
    if not 1 <= amount < math.inf:
        raise ConfigError(f"expected an amount of memory such as 3GB or 512MiB, got {text!r}")
    return int(amount)


def held_bytes() -> int:
    """What the process holds now, its resident set."""
    return int(_process(os.getpid()).memory_info().rss)


def peak_bytes() -> int:
    """The most the process has held so far."""
    # psutil has no peak; getrusage counts what the parent held before it started this process
    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@cache  # to make one takes twice as long as to ask it
def _process(number: int) -> Any:
    import psutil  # not for ``semreg --help``

    return psutil.Process(number)


@contextmanager
def watched_peak() -> Iterator[Callable[[], int]]:
    """Look at what the process holds a thousand times a second; the function tells the most that was seen.

    The system's own mark of the peak is left as it is, for whoever measures from outside.
    """
    peak, ended = held_bytes(), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.001):
            peak = max(peak, held_bytes())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: peak
    finally:
        ended.set()
        thread.join()


def return_freed_memory() -> None:
    """From now on what is freed goes back to the system at once: for work that must stay below a limit.

    For the command line alone, because it is the whole process that is set: blocks of 4 MiB and more are mapped by
    themselves, not kept for reuse. glibc alone has such a choice.
    """
    try:
        choose = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    choose(-3, MAPPED_FROM)  # M_MMAP_THRESHOLD of malloc.h


def available_bytes() -> int:
    """What the machine, the container by its control group, and the limits of the process still let it have."""
    import psutil  # as above

    free = int(psutil.virtual_memory().available)
    limit, used = (_number(CONTROL_GROUP / f"memory.{name}") for name in ("max", "current"))
    if limit is not None and used is not None:
        free = min(free, limit - used)
    addresses = resource.getrlimit(resource.RLIMIT_AS)[0]  # ulimit -v
    if addresses != resource.RLIM_INFINITY:
        free = min(free, addresses - int(_process(os.getpid()).memory_info().vms))
    return max(0, free)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on whichever device."""
    text = str(error).lower()
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(words in text for words in NO_MEMORY)


def give_back_memory() -> None:
    """Return freed memory to the system: glibc keeps it, and what comes next would come on top."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library
        return
    trim(0)


def _status(name: str) -> int:
    lines = _STATUS.read_text(encoding="utf-8").splitlines() if _STATUS.exists() else []
    found = [line for line in lines if line.startswith(f"{name}:")]
    return int(found[0].split()[1]) * 1024 if found else 0


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
