"""How cost grows with size: phantom pairs of several sizes with the command, one thread, each a process of its own.

    python sizes.py [--sizes 64 96 128 192 256 320] [--threads 1] [--report]

CPU seconds and peak memory, what of them is beyond the imports of torch and SimpleITK, and that for each million voxels
of one image. Leaves with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import sys

import scoring
import tools
from measure import measure
from phantoms import phantom_pair

import report

BAR_GB = 1.2
"""What a pair of 256³ voxels is to stay below, the peak of the whole process."""
LINEAR = 1.5
"""How many times as much a voxel of the largest pair may cost as one of the cheapest."""
IMPORTS = "import torch, SimpleITK"


def main() -> int:
    """Run, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 128, 192, 256, 320], help="voxels an axis")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="write the tables to results/sizes.md")
    given = parser.parse_args()
    facts = report.machine(given.threads) | {
        "semreg": report.versions_line(tools.semreg_versions()),
        "command": f"`python benchmarks/sizes.py --sizes {' '.join(map(str, given.sizes))} --report`",
    }
    bare = measure([sys.executable, "-c", IMPORTS], threads=given.threads, log=tools.OUT / "imports.txt")
    rows, shares, peaks = [], [], {}
    for size in given.sizes:
        pair, output = phantom_pair(size), tools.OUT / f"size-{size}"
        command = tools.semreg_command(pair / "fixed.nii.gz", pair / "moving.nii.gz", output, given.threads)
        usage = measure(command, threads=given.threads, log=output.with_suffix(".txt"))
        seconds, peak = usage.cpu_seconds - bare.cpu_seconds, usage.peak_bytes / 1e9
        shares.append(seconds / (size**3 / 1e6))
        peaks[size] = peak
        scores = scoring.score_phantom(output, pair)
        rows.append(
            [
                f"{size}³", f"{usage.cpu_seconds:.1f}", f"{seconds:.1f}", f"{shares[-1]:.2f}", f"{peak:.2f}",
                f"{peak - bare.peak_bytes / 1e9:.2f}", f"{scores[scoring.TRE_MEAN]:.2f}",
                f"{scores[scoring.FOLDED]:g}",
            ]
        )  # fmt: skip
        print(rows[-1], flush=True)
    times = shares[-1] / min(shares)
    what = f"CPU of a voxel of {given.sizes[-1]}³ at most {LINEAR:g} times that of the cheapest"
    bars = [[what, f"{times:.2f}", report.holds(times <= LINEAR)]]
    if 256 in peaks:
        bars.append([f"peak at 256³ below {BAR_GB:g} GB", f"{peaks[256]:.2f}", report.holds(peaks[256] < BAR_GB)])
    header = [
        "size",
        "CPU s",
        "beyond imports",
        "for 10⁶ voxels",
        "peak, GB",
        "beyond imports, GB",
        "error, mm",
        "folded, %",
    ]
    text = (
        f"# Cost over size\n\n{report.bullets(facts)}\n"
        f"Bare imports: {bare.cpu_seconds:.1f} CPU s, {bare.peak_bytes / 1e9:.2f} GB.\n\n"
        f"{report.markdown_table(header, rows)}\n{report.markdown_table(['bar', 'seen', ''], bars)}"
    )
    print(text)
    if given.report:
        (tools.RESULTS / "sizes.md").write_text(text, encoding="utf-8")
    return 0 if "MISSED" not in text else 1


if __name__ == "__main__":
    sys.exit(main())
