"""What a blockwise registration leaves: the spline as a file of ITK, the warped image as OME-Zarr, block by block."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from semreg.core.fields import Field, apply_linear, jacobian_determinant, reorder_tensor
from semreg.core.geometry import AxisOrder, Grid, reorder
from semreg.io.bridge import transform_of, with_sitk_header
from semreg.io.files import write_sitk_transform
from semreg.io.ngff.writing import Box as Span
from semreg.io.ngff.writing import PyramidWriter
from semreg.io.transform_files.building import spline_transform
from semreg.registration.blocks.boxes import Box
from semreg.registration.blocks.objective import run_all
from semreg.registration.blocks.pipeline import Found, Large
from semreg.registration.blocks.plan import Input
from semreg.registration.blocks.sides import Source
from semreg.registration.blocks.store import Store
from semreg.registration.result import Folding
from semreg.transforms.bspline import LatticePart, Spline, SplineLattice
from semreg.transforms.streamed import pixels, warped

WARPED = "warped.ome.zarr"
COEFFICIENTS = "coefficients.npy"


@dataclass(frozen=True)
class StoredSpline:
    """The spline whose control points are in a file: a process reads those that its block sees."""

    folder: str
    lattice: SplineLattice
    matrix: tuple[tuple[float, ...], ...]
    axes: AxisOrder
    """From the axes of the fixed image to those of the spline."""

    def seen(self, ordered: Grid) -> Spline:
        """What a grid along the axes of the spline sees of it."""
        part = LatticePart.of(self.lattice, ordered)
        found = Store(Path(self.folder)).part(COEFFICIENTS, (slice(None), *part.seen))
        return Spline(part, found, np.asarray(self.matrix))

    def index(self, grid: Grid, target: Grid) -> Float[Tensor, "d *s"]:
        """Where the samples of a part of the fixed image are read in the moving one, (D, *S)."""
        ordered = reorder(grid, self.axes)
        found = self.seen(ordered).index(ordered, target, like=torch.empty(0, dtype=torch.float64))
        return reorder_tensor(found, self.axes.inverse)

    def determinants(self, grid: Grid, box: Box) -> Float[Tensor, "*s"]:
        """Of the whole map at the samples of a box of a grid, but for its outermost ones; along the spline's axes."""
        outer = box.grown(1, grid.shape)
        field = self.seen(ordered := reorder(outer.of(grid), self.axes)).field(ordered)
        found = jacobian_determinant(Field(field.vox, ordered)) * float(np.linalg.det(np.asarray(self.matrix)))
        inner = []
        for axis, n in zip(self.axes.order, found.shape, strict=True):
            start, stop = max(box.start[axis], 1), min(box.stop[axis], grid.shape[axis] - 1)
            low, high = start - outer.start[axis], stop - outer.start[axis]
            flipped = self.axes.order.index(axis) in self.axes.flips
            inner.append(slice(n - high, n - low) if flipped else slice(low, high))
        return found[tuple(inner)]


@dataclass(frozen=True)
class WarpTask:
    """One block of the warped image, and how it is folded."""

    writer: PyramidWriter
    span: Span
    moving: Source
    way: StoredSpline
    outside: float
    name: str
    """The file of what is said of the determinants."""

    def run(self) -> None:
        """Read, warp, write."""
        box = Box(tuple(a for a, _ in self.span), tuple(b for _, b in self.span))
        values = warped(self.moving.open(), self.way, box.of(self.writer.grid), self.outside)
        self.writer.write(self.span, pixels(values, self.writer.dtype))
        found = self.way.determinants(self.writer.grid, box)
        least = float(found.min()) if found.numel() else math.inf
        Store(Path(self.way.folder)).save(self.name, {"least": least, "folded": int((found <= 0).sum())})


@dataclass(frozen=True)
class CoarsenTask:
    """One chunk of a coarser resolution."""

    writer: PyramidWriter
    level: int
    span: Span

    def run(self) -> None:
        """Write means of the next finer one, which is complete."""
        self.writer.coarsen(self.level, self.span)


@dataclass(frozen=True)
class Written:
    """The warped image, complete, in the folder of what is unfinished."""

    path: Path
    folding: Folding


@dataclass
class Output:
    """The writing of the warped image, which goes on where it was ended."""

    run: Large
    found: Found
    moving: Input
    grid: Grid

    @cached_property
    def store(self) -> Store:
        """Where its files are."""
        return self.run.store.inner("output")

    def write(self) -> Written:
        """Warp block by block, then make the coarser resolutions."""
        found, store = self.found, self.store
        image = self.moving.open().finest
        dtype = image.dtype if np.dtype(image.dtype).kind in "iu" else "float32"
        writer = PyramidWriter(store.folder / WARPED, self.grid, dtype, chunk=self.run.plan.block)
        if not store.has("created"):
            store.save_one(COEFFICIENTS, found.spline.coefficients)
            writer.create()
            store.write_text("created", "")
        matrix = tuple(map(tuple, found.spline.matrix.tolist()))
        way = StoredSpline(str(store.folder), found.spline.lattice, matrix, found.axes)
        tasks = [
            WarpTask(writer, span, self.moving.at(0), way, found.coarse.facts.outside, f"warped/{number}.npz")
            for number, span in enumerate(writer.boxes())
        ]
        left = [task for task in tasks if not store.has(task.name)]
        self.run.say(f"warping {len(left)} of {len(tasks)} blocks")
        run_all(self.run.workers, left, self.run.tell)
        for level in range(1, len(writer.grids)):
            coarser = [CoarsenTask(writer, level, span) for span in writer.boxes(level)]
            run_all(self.run.workers, coarser, self.run.tell)
        said = [store.load(task.name) for task in tasks]
        folding = Folding(
            minimum=min(float(each["least"]) for each in said),
            folded_share=sum(int(each["folded"]) for each in said) / self.grid.voxels,
            unfolding_passes=found.unfolding_passes,
        )
        return Written(writer.path, folding)


def write_spline(spline: Spline, path: Path) -> None:
    """The spline, and the linear map that follows it, as ITK reads it: fixed points → moving points, mm, LPS."""
    lattice = spline.lattice
    mm = apply_linear(lattice.grid.index_to_point(), spline.coefficients.double()).numpy()
    followed = not np.allclose(spline.matrix, np.eye(len(spline.matrix)), atol=1e-12)
    transform = spline_transform(
        mm,
        lambda image: with_sitk_header(image, lattice.control_grid),
        transform_of(spline.matrix) if followed else None,
    )
    write_sitk_transform(transform, path, values=spline.count)
