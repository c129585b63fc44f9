"""Are volumes beyond memory registered as well as smaller ones in one piece, in little memory, whatever the blocks are?

A phantom of any size is made block by block as OME-Zarr: an abdomen in CT, deformed by up to 11 mm, with noise. It is
registered in blocks of two sizes by two processes that are held to few GB; in the first run one of them is killed in
the middle. Beside it the same phantom is registered whole at half size. Errors are distances in mm from the true map at
points all over the body.

    python benchmarks/large.py                                   # 320 × 320 × 160 voxels
    python benchmarks/large.py --size 2048 2048 512 --report     # 17 GB of images, as much again of features
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import tools
import torch

import report
from semreg.config import RegistrationConfig
from semreg.core.geometry import Grid
from semreg.io.ngff.opening import open_pyramid
from semreg.io.ngff.writing import Box, PyramidWriter
from semreg.phantom.anatomy import CENTRE_MM, make_anatomy
from semreg.phantom.pair import PhantomPair, Recipe, pair_of, render
from semreg.registration.blocks.plan import Input, Options
from semreg.registration.blocks.record import LargeRecord
from semreg.registration.blocks.run import Pair, register_large
from semreg.registration.blocks.workers import Processes
from semreg.registration.pipeline import register
from semreg.runtime.memory import parse_bytes, peak_bytes

SHIFT_MM = (1.3, -2.1, 0.7)
"""Of the moving image's box, so that no samples of both lie on each other."""
NOISE_HU = 12.0
POINTS = 20_000
BAR = 1.05
"""Of the error of the phantom registered whole at half size, what that in blocks may have."""


def main() -> None:
    """Make, register, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=[320, 320, 160], help="voxels along x, y, z")
    parser.add_argument("--blocks", type=int, nargs=2, default=[128, 96], help="two sizes of blocks")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--memory", default="4GB", help="of each process")
    parser.add_argument("--coarse", type=int, default=2, help="the part in one piece is so many times coarser")
    parser.add_argument("--folder", type=Path, help="where to work; else a temporary folder, removed at the end")
    parser.add_argument("--report", action="store_true", help="write the tables to results/large.md")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="semreg-large-"))
    torch.set_num_threads(1)
    text = measured(given, folder)
    print(text)
    if given.report:
        (tools.RESULTS / "large.md").write_text(text, encoding="utf-8")
    if given.folder is None:
        shutil.rmtree(folder)


def measured(given: argparse.Namespace, folder: Path) -> str:
    """The page."""
    size = tuple(given.size)
    grids = make(folder, size, given.jobs)
    rows, transforms = [], []
    half = whole_at_half(folder, given)
    rows.append(["whole, at half size", "–", *half.cells()])
    print(rows[-1], flush=True)
    for number, block in enumerate(given.blocks):
        found = in_blocks(folder, given, block, given.coarse, kill=number == 0)
        transforms.append(found.transform)
        rows.append([f"blocks of {block}" + (", one process killed" if number == 0 else ""), *found.cells_of_blocks()])
        print(rows[-1], flush=True)
    further = in_blocks(folder, given, given.blocks[0], 2 * given.coarse)
    less = [f"blocks of {given.blocks[0]}, from {2 * given.coarse} times coarser", *further.cells_of_blocks()]
    points = inner_points(grids[0])
    apart = np.linalg.norm(mapped(transforms[0], points) - mapped(transforms[1], points), axis=0)
    voxel = min(grids[0].spacing)
    facts = report.machine(given.jobs) | {"semreg": report.versions_line(tools.semreg_versions())}
    errors = [float(row[3]) for row in rows]
    near = report.holds(max(errors[1:]) <= BAR * errors[0])
    far = report.holds(further.errors.mean() <= BAR * errors[0])
    same = report.holds(apart.max() < 0.01 * voxel)
    between = f"{apart.mean() / voxel:.2g} voxels apart in the mean, {apart.max() / voxel:.2g} at most"
    bars = (
        f"* The error in blocks is within 5 % of that whole at half size: {near}.\n"
        f"* The same where the part in one piece is twice as coarse: {far}.\n"
        f"* Blocks of two sizes: {between}; below a hundredth everywhere: {same}.\n"
    )
    header = ["", "blocks", "seconds", "mean error, mm", "95 %, mm", "GB, most of a process", "least Jacobian"]
    said = (
        f"{' × '.join(map(str, size))} voxels of {voxel:.3g} mm, int16, {2 * 2 * np.prod(size) / 1e9:.2f} GB for both; "
        f"{given.jobs} processes with one thread each and the one that descends. "
        f"In one piece: {given.coarse} times coarser. The machine had other work meanwhile."
    )
    numbers = [" ".join(map(str, each)) for each in (size, given.blocks)]
    command = f"`python benchmarks/large.py --size {numbers[0]} --blocks {numbers[1]}`"
    table = report.markdown_table(header, [*rows, less])
    return f"# Volumes beyond memory\n\n{report.bullets(facts)}\n\n{command}\n\n{said}\n\n{table}\n{bars}"


@dataclass(frozen=True)
class Outcome:
    """What one way reached."""

    seconds: float
    errors: np.ndarray
    peak: float
    transform: sitk.Transform
    blocks: int = 0
    jacobian: float = 0.0

    def cells(self) -> list[str]:
        """For the table."""
        error = [f"{self.errors.mean():.4f}", f"{np.percentile(self.errors, 95):.3f}"]
        return [f"{self.seconds:.0f}", *error, f"{self.peak / 1e9:.2f}", f"{self.jacobian:.2f}"]

    def cells_of_blocks(self) -> list[str]:
        """The same with the number of blocks."""
        return [str(self.blocks), *self.cells()]


def whole_at_half(folder: Path, given: argparse.Namespace) -> Outcome:
    """Registered in one piece at half the resolution, in a process of its own."""
    del given
    with ProcessPoolExecutor(1) as pool:
        return pool.submit(_whole, folder).result()


def _whole(folder: Path) -> Outcome:
    torch.set_num_threads(2)
    began = time.perf_counter()
    fixed, moving = (open_pyramid(folder / f"{name}.ome.zarr").levels[1].whole() for name in ("fixed", "moving"))
    found = register(fixed, moving)
    transform = found.transform()
    seconds = time.perf_counter() - began
    errors = errors_of(transform, fixed.grid)
    return Outcome(seconds, errors, peak_bytes(), None, jacobian=found.record.jacobian.minimum)


def in_blocks(folder: Path, given: argparse.Namespace, block: int, coarse: int, *, kill: bool = False) -> Outcome:
    """Registered in blocks; with ``kill`` one of the processes is killed at the third step of the finest resolution."""
    began, killed = time.perf_counter(), list[int]()
    processes = Processes(given.jobs, 1)
    fixed, moving = (Input(str(folder / f"{name}.ome.zarr")) for name in ("fixed", "moving"))
    voxels = fixed.open().finest.grid.voxels
    memory = parse_bytes(given.memory)
    options = Options(memory_bytes=memory, block=block, coarse_voxels=int(voxels / (coarse * 0.99) ** 3))

    def say(line: str) -> None:
        print(f"{time.perf_counter() - began:7.0f} s {line}", flush=True)
        finest = line.startswith(fixed.open().finest.grid.sentence)
        if kill and finest and "step 3" in line and not killed:
            killed.append(next(iter(processes.numbers)))
            os.kill(killed[0], signal.SIGKILL)
            print(f"killed {killed[0]}", flush=True)

    try:
        record: LargeRecord = register_large(
            Pair(fixed, moving), folder / f"out-{block}-{coarse}", config=RegistrationConfig(), options=options,
            workers=processes, say=say,
        )  # fmt: skip
    finally:
        processes.close()
    print(json.dumps([level.to_dict() for level in record.levels]), flush=True)
    transform = sitk.ReadTransform(str(folder / f"out-{block}-{coarse}" / "transform.h5"))
    errors = errors_of(transform, fixed.open().finest.grid)
    blocks = record.levels[-1].blocks
    peak = record.peak_memory_bytes
    return Outcome(time.perf_counter() - began, errors, peak, transform, blocks, record.jacobian.minimum)


def errors_of(transform: sitk.Transform, grid: Grid) -> np.ndarray:
    """How far in mm points of the fixed image are led from where they belong."""
    points = inner_points(grid)
    truth = phantom().true_map(torch.from_numpy(points)).numpy()
    return np.linalg.norm(mapped(transform, points) - truth, axis=0)


def mapped(transform: sitk.Transform, points: np.ndarray) -> np.ndarray:
    """Points (3, N) after a transform."""
    return np.array([transform.TransformPoint(point) for point in points.T.tolist()]).T


def inner_points(grid: Grid) -> np.ndarray:
    """Points (3, N) in mm all over the body, inside the image; the same for all resolutions."""
    box = np.array([[c - 0.45 * e, c + 0.45 * e] for c, e in zip(CENTRE_MM, extent(grid.size_xyz), strict=True)])
    points = box[:, :1] + np.random.default_rng(5).uniform(size=(3, POINTS)) * (box[:, 1:] - box[:, :1])
    return points[:, make_anatomy(0).region.share(points) < 0.92]


def extent(size: tuple[int, ...]) -> tuple[float, ...]:
    """Of the box in mm: 192 along the longest axis, cubic voxels."""
    return tuple(192.0 * n / max(size) for n in size)


def grid_of(size: tuple[int, ...], shift: tuple[float, ...]) -> Grid:
    """So many voxels around the middle of the body."""
    whole = extent(size)
    spacing = tuple(e / n for e, n in zip(whole, size, strict=True))
    origin = tuple(c + d - e / 2 + s / 2 for c, d, e, s in zip(CENTRE_MM, shift, whole, spacing, strict=True))
    return Grid(size, spacing, origin, ((1, 0, 0), (0, 1, 0), (0, 0, 1)))


def phantom() -> PhantomPair:
    """The body and its deformation: functions of points, whatever the size of an image."""
    small = grid_of((24, 24, 24), (0.0, 0.0, 0.0))
    return pair_of(make_anatomy(0), (small, small), Recipe(("ct", "ct"), 11.0, 10, 0))


def make(folder: Path, size: tuple[int, ...], jobs: int) -> tuple[Grid, Grid]:
    """Write both images block by block; what is there already stays."""
    grids = grid_of(size, (0.0, 0.0, 0.0)), grid_of(size, SHIFT_MM)
    with ProcessPoolExecutor(jobs) as pool:
        for number, (name, grid) in enumerate(zip(("fixed", "moving"), grids, strict=True)):
            writer = PyramidWriter(folder / f"{name}.ome.zarr", grid, "int16", chunk=64)
            if (writer.path / "zarr.json").exists():
                continue
            writer.create()
            list(pool.map(_block, [(writer, box, number) for box in writer.boxes()], chunksize=8))
            for level in range(1, len(writer.grids)):
                list(pool.map(_coarser, [(writer, level, box) for box in writer.boxes(level)], chunksize=8))
    return grids


def _block(task: tuple[PyramidWriter, Box, int]) -> None:
    """One block of an image, with noise of its own."""
    writer, box, number = task
    torch.set_num_threads(1)
    made = phantom() if _KEPT.get("pair") is None else _KEPT["pair"]
    _KEPT["pair"] = made
    grid = writer.grid.part([a for a, _ in box], [b for _, b in box])
    origin = made.true_map.inverse if number else None
    values = render(made.anatomy, grid, "ct", origin_of=origin).data[0]
    generator = torch.Generator().manual_seed(1 + number + 2 * sum(a * 4096**n for n, (a, _) in enumerate(box)))
    values += NOISE_HU * torch.randn(values.shape, generator=generator)
    writer.write(box, values.clamp_(-1024, 3000).round_().numpy().astype(np.int16))


def _coarser(task: tuple[PyramidWriter, int, Box]) -> None:
    writer, level, box = task
    writer.coarsen(level, box)


_KEPT: dict[str, PhantomPair] = {}

if __name__ == "__main__":
    main()
