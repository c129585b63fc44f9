"""Splines without folds: where a displacement is not one-to-one its control points are smoothed until it is.

What is asked for: the Jacobian determinant by central differences, as ITK computes it, is positive at every sample;
and, for a map that is one-to-one, so is each determinant by one-sided differences: then all tetrahedra (triangles) at
the corners of the cells keep their orientation (Liu et al., On finite difference Jacobian computation in deformable
image registration, IJCV 2024). Only blocks in which the control points leave a fold possible are looked at.
Knows nothing of images.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from semreg.core.fields import Field
from semreg.core.geometry import Grid
from semreg.core.kernels import jacobian_determinant, least_corner, spline_product
from semreg.core.kernels.bands import blocks
from semreg.core.sampling import smooth
from semreg.transforms.bspline import SplineLattice

SAFE_JACOBIAN = 0.01
"""The least Jacobian determinant by central differences that a result may have."""
SAFE_CORNER = 1e-4
"""The least one by one-sided differences: above what rounding does to it."""
MOST_PASSES = 100
PATIENCE = 8
"""Passes in which the number of folded samples must halve; else they reach twice as far."""
BLOCK = 24
"""Edge of the blocks that are looked at, in samples."""
INFLUENCE = 0.05
"""Weight from which on a control point counts as near a sample."""


def unfold(
    lattice: SplineLattice, coefficients: Tensor, target: Grid, *, one_to_one: bool = False
) -> tuple[Field, int]:
    """The displacement on ``target`` without folded voxels, and the passes that took.

    ``one_to_one`` asks for one-sided differences as well. The control points around folds are smoothed; where that
    does not help, those further away too and over longer distances, at last all over all, which leaves a translation.
    A displacement without folds is returned to the bit.
    """
    work, passes = _unfolded(lattice, coefficients, target, one_to_one=one_to_one)
    return work.field, passes


def unfolded(
    lattice: SplineLattice, coefficients: Tensor, target: Grid, *, one_to_one: bool = False
) -> tuple[Tensor, int]:
    """The control points of that displacement, and the passes."""
    work, passes = _unfolded(lattice, coefficients, target, one_to_one=one_to_one)
    return work.coefficients, passes


def _unfolded(
    lattice: SplineLattice, coefficients: Tensor, target: Grid, *, one_to_one: bool
) -> tuple[_Unfolding, int]:
    work = _Unfolding(lattice, target, coefficients, one_to_one=one_to_one)
    reach, count = 1, work.check(work.suspected())
    before = count
    for number in range(MOST_PASSES):
        if count == 0:
            return work, number
        if number and number % PATIENCE == 0:
            reach, before = (reach if 2 * count <= before else 2 * reach), count
        count = work.smooth_near(reach)
    if count:
        work.flatten()
    return work, MOST_PASSES


@dataclass(frozen=True)
class _Axis:
    """The blocks along one axis of the target: their samples, and the control points these see."""

    count: int
    rows: list[slice]
    columns: list[slice]

    def halo(self, number: int, before: int) -> slice:
        """The samples of a block with ``before`` more in front of them and one more behind."""
        rows = self.rows[number]
        return slice(max(rows.start - before, 0), min(rows.stop + 1, self.count))


class _Unfolding:
    """A displacement, its control points, and which of its samples are folded."""

    def __init__(self, lattice: SplineLattice, target: Grid, coefficients: Tensor, *, one_to_one: bool) -> None:
        """Compute the displacement; nothing is known of its folds yet."""
        self.lattice, self.target, self.one_to_one = lattice, target, one_to_one
        self.coefficients = coefficients
        self.field = lattice.field(coefficients, target)
        self.bases = [b.to(coefficients.device) for b in lattice.bases(lattice.positions(target))]
        self.axes = []
        for basis in self.bases:
            rows, columns = zip(*blocks(basis, BLOCK), strict=True)
            self.axes.append(_Axis(len(basis), list(rows), list(columns)))
        self.folded = torch.zeros(target.shape, dtype=torch.bool, device=coefficients.device)

    def smooth_near(self, reach: int) -> int:
        """Smooth the control points near folds over ``reach`` of them; the folded samples that are left."""
        near = self._near()
        if reach == 1:
            smoothed = torch.where(near, smooth(self.coefficients), self.coefficients)
        else:
            wide = (smooth(near[None].float(), radius=reach) > 0).float()
            share = smooth(wide, radius=reach)  # fades out, and does not tear where it ends
            smoothed = torch.lerp(self.coefficients, smooth(self.coefficients, radius=reach), share)
        changed = (smoothed != self.coefficients).any(0)
        self.coefficients = smoothed
        moved = self._seeing(changed)
        for block in moved:
            self._evaluate(block)
        return self.check(self._with_neighbours(moved))

    def flatten(self) -> None:
        """Leave the mean displacement, a translation."""
        mean = self.coefficients.flatten(1).mean(1).reshape(-1, *[1] * self.target.dimension)
        self.coefficients = mean.expand_as(self.coefficients).contiguous()
        self.field = self.lattice.field(self.coefficients, self.target)

    def check(self, found: list[tuple[int, ...]]) -> int:
        """Look for folds in some blocks; the number of folded samples of all."""
        for block in found:
            self.folded[self._samples(block)] = self._folds(block)
        return int(self.folded.sum())

    def suspected(self) -> list[tuple[int, ...]]:
        """The blocks in which the differences of the control points do not exclude a fold.

        The derivative of a spline, and so each difference of its samples, is a weighted mean of differences of
        neighbouring control points. Where even the worst of these leave the diagonal of each row of the Jacobian
        larger than what is beside it, the determinant is positive.
        """
        step = [abs(float(p[1] - p[0])) / s if len(p) > 1 else 0.0 for p, s in
                zip(self.lattice.positions(self.target), self.lattice.step, strict=True)]  # fmt: skip
        further = [math.ceil(s - 1e-9) for s in step]
        windows = [min(4 + 2 * f, n) for f, n in zip(further, self.lattice.shape, strict=True)]
        unsafe = self._undominated(windows)
        found = []
        for block in itertools.product(*[range(len(axis.rows)) for axis in self.axes]):
            part = []
            for axis, number, more, count in zip(self.axes, block, further, unsafe.shape, strict=True):
                columns = axis.columns[number]
                low, high = columns.start - more, columns.stop - 4 - more
                part.append(slice(min(max(low, 0), count - 1), min(max(high, 0), count - 1) + 1))
            if bool(unsafe[tuple(part)].any()):
                found.append(block)
        return found

    def _undominated(self, windows: list[int]) -> Tensor:
        """For each window of control points whether the Jacobian might lose its diagonal dominance, with margin."""
        spacing, n = self.lattice.grid.spacing, self.target.dimension
        margin = self.coefficients.new_tensor(1 - SAFE_JACOBIAN ** (1 / n) - 1e-3)
        room = [margin.clone() for _ in range(n)]
        for axis in range(n):
            if self.lattice.shape[axis] == 1:
                continue
            slopes = self.coefficients.diff(dim=axis + 1)
            sizes = [w - (a == axis) for a, w in enumerate(windows)]
            for row in range(n):
                slope = slopes[row] * (spacing[row] / spacing[axis] / self.lattice.step[axis])
                worst = -slope if row == axis else slope.abs()
                room[row] = room[row] - _windowed(worst, sizes).clamp(min=0)
        shape = [n - w + 1 for n, w in zip(self.lattice.shape, windows, strict=True)]
        return torch.stack([r.expand(shape) for r in room]).amin(0) <= 0

    def _folds(self, block: tuple[int, ...]) -> Tensor:
        """Which samples of a block are folded."""
        around = [axis.halo(number, 1) for axis, number in zip(self.axes, block, strict=True)]
        inner = tuple(
            slice(r.start - h.start, r.stop - h.start) for r, h in zip(self._samples(block), around, strict=True)
        )
        folded = (jacobian_determinant(part_of(self.field.vox, around)) <= SAFE_JACOBIAN)[inner]
        ahead = [axis.halo(number, 0) for axis, number in zip(self.axes, block, strict=True)]
        cells = all(h.stop - h.start > 1 or axis.count == 1 for h, axis in zip(ahead, self.axes, strict=True))
        if self.one_to_one and cells:
            found = least_corner(part_of(self.field.vox, ahead)) <= SAFE_CORNER
            folded[tuple(slice(0, n) for n in found.shape)] |= found
        return folded

    def _near(self) -> Tensor:
        """The control points near folded samples, (*lattice.shape), bool."""
        near = torch.zeros(self.lattice.shape, dtype=torch.bool, device=self.folded.device)
        for block in itertools.product(*[range(len(axis.rows)) for axis in self.axes]):
            folded = self.folded[self._samples(block)]
            if bool(folded.any()):
                seen = self._controls(block)
                weights = [
                    (b[r, c] > INFLUENCE).to(b.dtype).T
                    for b, r, c in zip(self.bases, self._samples(block), seen, strict=True)
                ]
                near[seen] |= spline_product(folded[None].to(weights[0].dtype), weights)[0] > 0
        return near

    def _evaluate(self, block: tuple[int, ...]) -> None:
        rows, seen = self._samples(block), self._controls(block)
        bases = [b[r, c] for b, r, c in zip(self.bases, rows, seen, strict=True)]
        scale = self.lattice.voxels_of(self.target, self.coefficients.device)
        part_of(self.field.vox, rows).copy_(spline_product(part_of(self.coefficients, seen) * scale, bases))

    def _samples(self, block: tuple[int, ...]) -> tuple[slice, ...]:
        return tuple(axis.rows[number] for axis, number in zip(self.axes, block, strict=True))

    def _controls(self, block: tuple[int, ...]) -> tuple[slice, ...]:
        return tuple(axis.columns[number] for axis, number in zip(self.axes, block, strict=True))

    def _seeing(self, controls: Tensor) -> list[tuple[int, ...]]:
        """The blocks that see any of some control points (*lattice.shape), bool."""
        every = itertools.product(*[range(len(axis.rows)) for axis in self.axes])
        return [block for block in every if bool(controls[self._controls(block)].any())]

    def _with_neighbours(self, found: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        counts = [len(axis.rows) for axis in self.axes]
        offsets = list(itertools.product((-1, 0, 1), repeat=len(counts)))
        all_ = {tuple(b + o for b, o in zip(block, offset, strict=True)) for block in found for offset in offsets}
        return sorted(b for b in all_ if all(0 <= i < n for i, n in zip(b, counts, strict=True)))


def part_of(x: Tensor, part: Sequence[slice]) -> Tensor:
    """A view of some samples of (D, *S)."""
    where = (slice(None), *part)
    return x[where]


def _windowed(x: Tensor, sizes: list[int]) -> Tensor:
    """The largest value in each window of ``sizes``."""
    for axis, size in enumerate(sizes):
        x = x.unfold(axis, size, 1).amax(-1)
    return x
