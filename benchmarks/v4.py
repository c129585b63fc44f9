"""The v4 metric beside itk-impact's: one evaluation of value and derivative, the same script in both environments.

python benchmarks/v4.py [--runs 3] [--venv DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools import RESULTS, ROOT, default_venv, peer_python

from report import holds, machine, markdown_table, number

BARS = {"Static": 20.0, "Jacobian": 5.0}
"""How many times faster an evaluation is to be."""
CASES = [(mode, distance) for mode in BARS for distance in ("L2", "NCC")]
POINTS = (500, 5000)
"""Of Jacobian: with ten times the points the memory must stay."""
MORE_BYTES = 50e6
"""By which it may grow: the points themselves and their features."""


def main() -> int:
    """Measure in turn, print, keep; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="of each, in turn; medians are taken")
    parser.add_argument("--venv", type=Path, default=default_venv("impact"), help="the environment of itk-impact")
    given = parser.parse_args()
    peer = peer_python("impact", given.venv)
    own = Path(sys.executable)
    theirs, ours, built_in = [], [], []
    for turn in range(given.runs):
        print(f"run {turn + 1} of {given.runs}", flush=True)
        theirs.append(run(peer, []))
        ours.append(run(own, []))
        built_in.append(run(own, ["--built-in"]))
    memory = [run(own, ["--only", "Jacobian", "--points", str(count)])["peak_bytes"] for count in POINTS]
    figures = [[us_a_point(runs, case) for case in CASES] for runs in (theirs, ours, built_in)]
    text = report(figures, memory, theirs[0]["environment"], ours[0]["environment"])
    print(text)
    (RESULTS / "v4.md").write_text(text, encoding="utf-8")
    return 0 if "MISSED" not in text else 1


def run(python: Path, options: Sequence[str]) -> dict[str, Any]:
    """What the script prints in an environment, one thread."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    command = [python, ROOT / "benchmarks" / "run_v4.py", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ) | threads)
    if done.returncode:
        raise SystemExit(f"{python} failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def us_a_point(runs: Sequence[dict[str, Any]], case: tuple[str, str]) -> float:
    """CPU microseconds of an evaluation for each point, the median of the runs."""
    found = [
        entry["evaluation_us_a_point"] for each in runs for entry in each["runs"]
        if (entry["mode"], entry["distance"]) == case
    ]  # fmt: skip
    return statistics.median(found)


def report(figures: Sequence[Sequence[float]], memory: Sequence[int], peer: dict[str, str], own: dict[str, str]) -> str:
    """Tables and bars."""
    rows, bars = [], []
    for (mode, distance), theirs, ours, built_in in zip(CASES, *figures, strict=True):
        name = f"{mode}, {distance}"
        rows.append([name, *(number(value, 2) for value in (theirs, ours, theirs / ours, built_in, theirs / built_in))])
        bar = BARS[mode]
        bars.append([f"{name}: the same network, at least {bar:g} times faster", f"{theirs / ours:.1f}",
                     holds(theirs / ours >= bar)])  # fmt: skip
        if mode == "Jacobian":
            bars.append([f"{name}: the formula in place of the network, at least {bar:g} times faster",
                         f"{theirs / built_in:.1f}", holds(theirs / built_in >= bar)])  # fmt: skip
    growth = memory[1] - memory[0]
    bars.append([f"Jacobian: {POINTS[1]} points take at most {MORE_BYTES / 1e6:g} MB more than {POINTS[0]}",
                 f"{growth / 1e6:.0f} MB", holds(growth <= MORE_BYTES)])  # fmt: skip
    header = ["CPU µs a point", "itk-impact", "semreg", "ratio", "semreg, formula", "ratio"]
    head = machine(1) | {name: ", ".join(f"{k} {v}" for k, v in versions.items()) for name, versions in
                         (("itk-impact's environment", peer), ("semreg's environment", own))}  # fmt: skip
    peak = (
        f"Peak memory of semreg's process, Jacobian: {memory[0] / 1e9:.2f} GB with {POINTS[0]} points, "
        f"{memory[1] / 1e9:.2f} GB with {POINTS[1]}.\n"
    )
    return "\n".join([
        "# One evaluation of the v4 metric, value and derivative\n",
        *(f"* {name}: {value}" for name, value in head.items()),
        "",
        markdown_table(header, rows),
        peak,
        markdown_table(["bar", "figure", ""], bars),
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
