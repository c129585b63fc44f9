"""Measures a process: CPU seconds, wall seconds, peak memory. Knows nothing of registration.

Linux counts the memory of the process that starts another one into the peak of the started one. So the command is
started by a small Python process that has imported next to nothing: this file, run as a script.
"""

from __future__ import annotations

import json
import os
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


def measure(command: Sequence[str | Path], *, threads: int | None, log: Path) -> Usage:
    """Run ``command`` with ``threads`` threads (all if None); its output goes to ``log``. RuntimeError if it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command]
    starter = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(log), *words]
    done = subprocess.run(starter, capture_output=True, text=True, check=False, env=environment(threads))
    if done.returncode:
        tail = log.read_text(errors="replace").strip().splitlines()[-5:] if log.exists() else []
        raise RuntimeError("\n".join([f"failed: {' '.join(words)}", *tail, done.stderr.strip()]))
    return Usage(**json.loads(done.stdout))


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
    """As a script: run the command of the arguments, print its usage as JSON, leave with its exit code."""
    with Path(sys.argv[1]).open("w") as log:
        begun = time.perf_counter()
        process = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    figures = {
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "wall_seconds": wall,
        "peak_bytes": usage.ru_maxrss * RSS_UNIT,
    }
    sys.stdout.write(json.dumps(figures))
    sys.exit(0 if process.returncode == 0 else 1)


if __name__ == "__main__":
    start()
