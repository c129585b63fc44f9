"""Registers one pair of 256 × 256 × 256 voxels with the command and prints its peak memory and CPU seconds.

    python big.py [--size 256] [--threads N]

Leaves with 1 if it takes 6 GB or more.
"""

from __future__ import annotations

import argparse
import sys

import scoring
import tools
from measure import measure
from phantoms import phantom_pair

import report

BAR_GB = 6.0


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="voxels an axis")
    parser.add_argument("--threads", type=int, help="all by default")
    given = parser.parse_args()
    pair, output = phantom_pair(given.size), tools.OUT / f"big-{given.size}"
    command = tools.semreg_command(pair / "fixed.nii.gz", pair / "moving.nii.gz", output, given.threads)
    usage = measure(command, threads=given.threads, log=output.with_suffix(".txt"))
    peak, before = usage.peak_bytes / 1e9, scoring.score_before(pair)
    rows = [
        ["peak, GB", report.number(peak), f"< {BAR_GB:g}: {report.holds(peak < BAR_GB)}"],
        ["CPU s", report.number(usage.cpu_seconds, 1), ""],
        ["wall s", report.number(usage.wall_seconds, 1), ""],
    ]
    for name, value in scoring.score_phantom(output, pair).items():
        rows.append([name, report.number(value), f"{before[name]:.3f} before" if name in before else ""])
    print(report.bullets(report.machine(given.threads)))
    print(report.markdown_table([f"{given.size}³ voxels", "semreg", "bar"], rows))
    sys.exit(0 if peak < BAR_GB else 1)


if __name__ == "__main__":
    main()
