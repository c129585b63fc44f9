"""Runs all pairs of a list through ``semreg batch``, kills it half-way, resumes it, and compares with a run in one go.

    python batch.py PAIRS.toml RESULTS [--kill-after N] [--jobs N] [--report FILE.md] [-- FLAGS OF semreg batch]

RESULTS gets two outputs: ``resumed``, whose process group is killed with SIGKILL while pair N + 1 runs, and ``one-go``.
Leaves with 1 if a field differs in a bit, or if the log shows that a finished pair was computed again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

COMPARED = ("field.nii.gz", "warped.nii.gz")
"""Files without a date inside; the HDF5 of transform.h5 holds the same numbers as the field."""


def main() -> None:
    """Run, kill, resume, run again, compare, print."""
    given = arguments()
    resumed, one_go = given.results / "resumed", given.results / "one-go"
    wanted = command(given, resumed)
    killed = kill_half_way(wanted, resumed, given.kill_after)
    second = run(wanted)
    third = run(wanted)
    reference = run(command(given, one_go))
    lines = [
        f"`semreg {' '.join(_shown(wanted[3:], given))}`",
        "",
        *table(
            [
                ("killed while these ran", ", ".join(killed["running"])),
                ("finished before it was killed", ", ".join(killed["finished"])),
                ("resumed", seconds_of(second)),
                ("a third time", seconds_of(third)),
                ("in one go", seconds_of(reference)),
            ]
        ),
        "",
    ]
    again = computed_again(resumed)
    different, compared = differences(resumed, one_go)
    lines += [
        f"Events of `batch.log`: {events(resumed)}.",
        f"Pairs that were computed after they were finished: {', '.join(again) or 'none'}.",
        f"Files compared bit by bit with the run in one go: {compared}; different: {', '.join(different) or 'none'}.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if given.report is not None:
        given.report.write_text(f"# A batch, killed half-way and resumed\n\n{text}", encoding="utf-8")
    sys.exit(1 if again or different else 0)


def arguments() -> argparse.Namespace:
    """The command line; what follows ``--`` is for ``semreg batch``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--kill-after", type=int, default=7, help="pairs that are finished when it is killed")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--report", type=Path)
    own, _, flags = " ".join(sys.argv[1:]).partition(" -- ")
    given = parser.parse_args(own.split())
    given.flags = flags.split()
    return given


def _shown(words: list[str], given: argparse.Namespace) -> list[str]:
    """The command with names in place of this machine's paths."""
    return [
        word.replace(str(given.pairs.resolve()), "PAIRS.toml").replace(str(given.pairs), "PAIRS.toml")
        .replace(str(given.results), "RESULTS") for word in words
    ]  # fmt: skip


def command(given: argparse.Namespace, output: Path) -> list[str]:
    """The batch as a command of this Python."""
    fixed = ["batch", str(given.pairs), "-o", str(output), "--jobs", str(given.jobs)]
    return [sys.executable, "-m", "semreg", *fixed, *given.flags]


def kill_half_way(wanted: list[str], output: Path, count: int) -> dict[str, list[str]]:
    """Kill the process group once ``count`` pairs are finished and another one runs; what stood then."""
    process = subprocess.Popen(wanted, start_new_session=True)
    while process.poll() is None:
        lines = log_of(output)
        finished = [line["pair"] for line in lines if line["event"] == "finished"]
        ended = {line["pair"] for line in lines if line["event"] in {"finished", "failed"}}
        running = [line["pair"] for line in lines if line["event"] == "started" and line["pair"] not in ended]
        if len(finished) >= count and running:
            time.sleep(1.0)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return {"finished": finished, "running": running}
        time.sleep(0.1)
    sys.exit(f"the batch ended with {process.returncode} before {count} pairs were finished: choose fewer")


def run(wanted: list[str]) -> dict[str, Any]:
    """Run to the end; exit code and wall time."""
    started = time.perf_counter()
    code = subprocess.run(wanted, check=False).returncode
    return {"code": code, "seconds": time.perf_counter() - started}


def log_of(output: Path) -> list[dict[str, Any]]:
    """The whole lines of ``batch.log``."""
    path = output / "batch.log"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def computed_again(output: Path) -> list[str]:
    """Pairs with a start after their end."""
    finished: set[str] = set()
    again = []
    for line in log_of(output):
        if line["event"] == "finished":
            finished.add(line["pair"])
        elif line["event"] == "started" and line["pair"] in finished:
            again.append(line["pair"])
    return again


def differences(one: Path, other: Path) -> tuple[list[str], int]:
    """Files that differ in a bit or are missing on one side, and how many were compared."""
    names = {
        f"{path.parent.name}/{path.name}" for root in (one, other) for path in root.glob("*/*") if path.name in COMPARED
    }
    return [name for name in sorted(names) if digest(one / name) != digest(other / name)], len(names)


def digest(path: Path) -> str | None:
    """SHA-256, None without a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def events(output: Path) -> str:
    """How often each kind of event happened."""
    counted = Counter(line["event"] for line in log_of(output))
    return ", ".join(f"{count} × {event}" for event, count in sorted(counted.items()))


def seconds_of(result: dict[str, Any]) -> str:
    """Wall time and exit code in words."""
    return f"{result['seconds']:.0f} s, exit code {result['code']}"


def table(rows: list[tuple[str, str]]) -> list[str]:
    """Two columns in Markdown."""
    return ["| | |", "|---|---|", *[f"| {name} | {value} |" for name, value in rows]]


if __name__ == "__main__":
    main()
