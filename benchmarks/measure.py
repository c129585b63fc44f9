"""Measures a process: CPU seconds, wall seconds, peak memory. Knows nothing of registration.

Linux counts the memory of the process that starts another one into the peak of the started one. So the command is
started by a small Python process that has imported next to nothing: this file, run as a script.
"""

from __future__ import annotations

import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in one unit of ``ru_maxrss``."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a process took, from its start to its end."""

    cpu_seconds: float
    """User and system time of all its threads and children."""
    wall_seconds: float
    """Time on the clock."""
    peak_bytes: int
    """Largest resident memory."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a process ended, and what it took."""

    exit_code: int
    """Negative: the number of the signal that ended it."""
    usage: Usage


def measure(command: Sequence[str | Path], *, threads: int | None, log: Path) -> Usage:
    """Run ``command`` with ``threads`` threads (all if None); its output goes to ``log``. RuntimeError if it fails."""
    outcome = attempt(command, threads=threads, log=log)
    if outcome.exit_code:
        raise RuntimeError("\n".join([f"failed: {' '.join(map(str, command))}", *last_lines(log)]))
    return outcome.usage


def attempt(
    command: Sequence[str | Path], *, threads: int | None, log: Path, cpu_limit: float | None = None
) -> Outcome:
    """The same with failures as results. A process that takes more than ``cpu_limit`` CPU seconds is ended."""
    log.parent.mkdir(parents=True, exist_ok=True)
    limit = "" if cpu_limit is None else str(math.ceil(cpu_limit))
    starter = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(log), limit, *map(str, command)]
    done = subprocess.run(starter, capture_output=True, text=True, check=False, env=environment(threads))
    if done.returncode:
        raise RuntimeError(f"could not start: {' '.join(map(str, command))}\n{done.stderr.strip()}")
    figures = json.loads(done.stdout)
    return Outcome(exit_code=figures.pop("exit_code"), usage=Usage(**figures))


def last_lines(log: Path, count: int = 5) -> list[str]:
    """The end of what a process said."""
    return log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-count:] if log.exists() else []


def environment(threads: int | None) -> dict[str, str]:
    """The environment of this process with the number of threads fixed."""
    names = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
    found = dict(os.environ)
    if threads is not None:
        found |= {f"{name}_NUM_THREADS": str(threads) for name in names}
        found["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)
    return found


def median(usages: Sequence[Usage]) -> Usage:
    """The median of each figure."""
    return Usage(
        cpu_seconds=statistics.median(u.cpu_seconds for u in usages),
        wall_seconds=statistics.median(u.wall_seconds for u in usages),
        peak_bytes=int(statistics.median(u.peak_bytes for u in usages)),
    )


def start() -> None:
    """As a script: run the command of the arguments, print as JSON how it ended and what it took."""
    log, limit, *command = sys.argv[1:]
    if limit:  # the started process inherits it
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
    with Path(log).open("w", encoding="utf-8") as said:
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    figures = {
        "exit_code": process.returncode,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "wall_seconds": wall,
        "peak_bytes": usage.ru_maxrss * RSS_UNIT,
    }
    sys.stdout.write(json.dumps(figures))


if __name__ == "__main__":
    start()
