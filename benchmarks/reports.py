"""What the page costs: CPU time and memory beside the registration, and its size.

    python reports.py [--size 128] [--large 256] [--repeats 3] [--report FILE]

The same pair of phantoms is registered by ``semreg register`` with and without ``--no-report``, in turn, each in a
process of its own; the medians are compared. The size is that of the pages of a large pair of phantoms, of noise, which
compresses worst, and of all three maps.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import measure
import torch

from report import bullets, machine, markdown_table, versions_line
from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.io.bridge import to_labels
from semreg.io.files import write_image
from semreg.io.records import versions
from semreg.phantom import make_pair
from semreg.report import Case, write_report

THREADS = 1
SHARE, EXTRA_BYTES, PAGE_BYTES = 0.10, 500e6, 15e6
"""What the page may take: of the registration's CPU time, of memory beside it, on the disk."""


def main() -> int:
    """Measure, print, and say by the exit status whether the page stays within its limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="voxels an axis of the pair that is registered")
    parser.add_argument("--large", type=int, default=256, help="voxels an axis of the pages that are weighed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as name:
        usages = costs(Path(name), options.size, options.repeats)
        pages = dict(sizes(Path(name), options.large))
    text, within = written(usages, pages, options)
    print(text)
    if options.report:
        options.report.write_text(text, encoding="utf-8")
    return 0 if within else 1


def costs(folder: Path, size: int, repeats: int) -> dict[str, measure.Usage]:
    """What ``semreg register`` takes without and with the page, medians."""
    pair = make_pair(size=size)
    write_image(cube(pair.fixed, size), folder / "fixed.nii.gz", "int16")
    write_image(cube(pair.moving, size), folder / "moving.nii.gz", "uint16")
    found: dict[str, list[measure.Usage]] = {"--no-report": [], "--report": []}
    for number in range(repeats):
        for flag, usages in found.items():
            command = [
                sys.executable, "-m", "semreg", "register", folder / "fixed.nii.gz", folder / "moving.nii.gz",
                "-o", folder / f"out{number}{flag}", "--device", "cpu", flag, "-q",
            ]  # fmt: skip
            usages.append(measure.measure(command, threads=THREADS, log=folder / "log.txt"))
    return {flag: measure.median(usages) for flag, usages in found.items()}


def cube(volume: Volume, size: int) -> Volume:
    """The same box with ``size`` voxels along every axis."""
    steps = [n / size for n in volume.grid.shape]
    return volume.on(volume.grid.lattice([(step - 1) / 2 for step in steps], steps, [size] * len(steps)))


def sizes(folder: Path, size: int) -> Iterator[tuple[str, tuple[int, float]]]:
    """Bytes and CPU seconds of the pages of large pairs."""
    pair = make_pair(size=size)
    fixed, moving = cube(pair.fixed, size), cube(pair.moving, size)
    yield "phantoms", weighed(folder, fixed, moving)
    grid, draw = Grid.of_shape((size,) * 3), torch.Generator().manual_seed(0)
    noise = [Volume(torch.rand((1, *grid.shape), generator=draw), grid) for _ in range(2)]
    yield "noise", weighed(folder, *noise)


def weighed(folder: Path, fixed: Volume, moving: Volume) -> tuple[int, float]:
    """One page with all maps, of a rough field."""
    grid = fixed.grid
    draw = torch.Generator().manual_seed(1)
    rough = torch.randn((3, *[max(2, n // 8) for n in grid.shape]), generator=draw) * 2
    vox = torch.nn.functional.interpolate(rough[None], size=grid.shape, mode="trilinear")[0]
    uncertainty = Volume(torch.rand((1, *grid.shape), generator=draw), grid)
    labels = [to_labels(Volume((each.data > each.data.mean()).float(), each.grid)) for each in (fixed, moving)]
    case = Case(
        fixed=fixed, moving=moving, field=Field(vox, grid), uncertainty=uncertainty, fixed_labels=labels[0],
        moving_labels=labels[1],
    )  # fmt: skip
    started = time.process_time()
    write_report(case, folder / "page.html")
    return (folder / "page.html").stat().st_size, time.process_time() - started


def written(
    usages: dict[str, measure.Usage], pages: dict[str, tuple[int, float]], options: argparse.Namespace
) -> tuple[str, bool]:
    """The results as Markdown, and whether all limits hold."""
    without, beside = usages["--no-report"], usages["--report"]
    seconds, more = beside.cpu_seconds - without.cpu_seconds, beside.peak_bytes - without.peak_bytes
    rows = [
        [name, f"{usage.cpu_seconds:.2f}", f"{usage.peak_bytes / 1e6:.0f}"]
        for name, usage in (("semreg register --no-report", without), ("semreg register", beside))
    ]
    rows.append(["the page", f"{seconds:.2f} ({100 * seconds / without.cpu_seconds:.1f} %)", f"{more / 1e6:+.0f}"])
    weights = [[name, f"{size / 1e6:.2f}", f"{spent:.2f}"] for name, (size, spent) in pages.items()]
    within = (
        seconds < SHARE * without.cpu_seconds
        and more < EXTRA_BYTES
        and all(size < PAGE_BYTES for size, _ in pages.values())
    )
    command = f"python reports.py --size {options.size} --large {options.large} --repeats {options.repeats}"
    limits = f"{100 * SHARE:.0f} % of the CPU time and {EXTRA_BYTES / 1e6:.0f} MB"
    lines = [
        "# What the page costs",
        "",
        bullets({**machine(THREADS), "versions": versions_line(versions()), "command": f"`{command}`"}),
        f"A pair of {options.size}³ voxels, medians of {options.repeats} runs. The page may take {limits} more.",
        "",
        markdown_table(["", "CPU s", "peak memory, MB"], rows),
        f"Pages of {options.large}³ voxels with all maps, labels and a rough field, at most {PAGE_BYTES / 1e6:.0f} MB:",
        "",
        markdown_table(["images", "file, MB", "CPU s"], weights),
    ]
    return "\n".join(lines), within


if __name__ == "__main__":
    sys.exit(main())
