"""Displacements as cubic B-splines on a lattice of control points. Knows nothing of images.

Along each axis the spline is a small matrix, so values, derivatives and fits on any aligned grid are a few products.
Each sample sees four control points: on a fine lattice the matrices are bands and are multiplied block by block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semreg.core.fields import Field
from semreg.core.geometry import Grid, index_map

STIFFNESS = 1e-3
"""Weight of the squared second differences of the coefficients where a field is fitted, beside its samples: what hardly
any sample sees, at the edges, continues its neighbours instead of running away. A linear field is still met exactly."""

BLOCK = 32
"""Rows of a band that are multiplied together: with fewer the products are too small, with more too much of it is 0."""
BANDED = 64
"""Rows and columns below which a whole matrix is as fast as its band."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SplineLattice:
    """Control points over the box of ``grid``, ``step`` voxels apart on each tensor axis (any positive number)."""

    grid: Grid
    step: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Control points per tensor axis; an axis of one voxel has one, and no derivative."""
        pairs = zip(self.grid.shape, self.step, strict=True)
        return tuple(1 if n == 1 else int(np.ceil(n / s - 1e-9)) + 3 for n, s in pairs)

    def bases(self, positions: list[Floats], derivative: int | None = None) -> list[Tensor]:
        """One (samples, control points) matrix per axis for ``positions`` in voxels of ``grid``; float32.

        Along the axis ``derivative`` it gives the derivative per voxel. Beyond the grid the border value holds.
        """
        matrices = []
        for axis, (where, count, step) in enumerate(zip(positions, self.shape, self.step, strict=True)):
            n = self.grid.shape[axis]
            if n == 1:
                value = np.zeros if derivative == axis else np.ones
                matrices.append(torch.as_tensor(value((len(where), 1)), dtype=torch.float32))
                continue
            offset = ((count - 1) - (n - 1) / step) / 2
            at = np.clip(where, -0.5, n - 0.5) / step + offset
            difference = at[:, None] - np.arange(count)[None]
            matrix = _cubic_slope(difference) / step if derivative == axis else _cubic(difference)
            matrices.append(torch.as_tensor(matrix, dtype=torch.float32))
        return matrices

    def positions(self, target: Grid) -> list[Floats]:
        """Where the samples of an aligned ``target`` lie, in voxels of ``grid``, per axis."""
        matrix = index_map(target, self.grid)
        return [matrix[axis, axis] * np.arange(n) + matrix[axis, -1] for axis, n in enumerate(target.shape)]

    def fit(self, field: Field) -> Tensor:
        """Coefficients (D, *shape) of the spline nearest to ``field`` in the least squares sense."""
        solvers = []
        for basis in self.bases(self.positions(self.grid)):
            matrix = basis.double()
            bend = torch.eye(matrix.shape[1], dtype=torch.float64).diff(n=2, dim=0)
            normal = matrix.T @ matrix + STIFFNESS * bend.T @ bend
            solvers.append(torch.linalg.solve(normal, matrix.T).float())
        device = field.vox.device
        return product(field.on(self.grid).vox, [s.to(device) for s in solvers])

    def field(self, coefficients: Tensor, target: Grid) -> Field:
        """The displacement on an aligned grid."""
        bases = [b.to(coefficients.device) for b in self.bases(self.positions(target))]
        ratio = torch.tensor(
            [a / b for a, b in zip(self.grid.spacing, target.spacing, strict=True)], device=coefficients.device
        )
        return Field(product(coefficients * ratio.reshape(-1, *[1] * target.dimension), bases), target)


def product(coefficients: Tensor, matrices: list[Tensor]) -> Tensor:
    """Apply one matrix (out, in) per spatial axis to ``coefficients`` (C, *in) → (C, *out).

    Differentiable in the coefficients. What a band leaves out of a large matrix is never read: there a value that is
    not finite stays near its place.
    """
    x = coefficients
    for axis in range(len(matrices), 0, -1):
        x = _along(x, matrices[axis - 1], axis)
    return x


def blocks(matrix: Tensor, size: int) -> list[tuple[slice, slice]]:
    """Blocks of ``size`` rows of a matrix, and the columns from the first to the last that is not 0 in each."""
    filled = matrix.detach().cpu().numpy() != 0
    starts = np.arange(0, len(filled), size)
    columns = np.logical_or.reduceat(filled, starts, axis=0)
    first, last = columns.argmax(1), columns.shape[1] - columns[:, ::-1].argmax(1)
    last[~columns.any(1)] = 0
    rows = [slice(start, min(start + size, len(filled))) for start in starts.tolist()]
    return list(zip(rows, map(slice, first.tolist(), last.tolist()), strict=True))


def _along(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """One matrix along one axis: as a band on the CPU, where that is at most half the work."""
    if x.device.type == "cpu" and min(matrix.shape) >= BANDED:
        band = blocks(matrix, BLOCK)
        if 2 * sum((r.stop - r.start) * (c.stop - c.start) for r, c in band) <= matrix.numel():
            result: Tensor = _Band.apply(x, matrix, axis, band)  # type: ignore[no-untyped-call]
            return result
    return _whole(x, matrix, axis)


def _whole(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    if axis == x.ndim - 1:
        return x @ matrix.T
    rest = x.shape[axis + 1 :]
    return (matrix @ x.flatten(axis + 1)).reshape(*x.shape[:axis], -1, *rest)


def _columns(x: Tensor, axis: int) -> Tensor:
    """``x`` as (batch, axis, rest), a view where its memory allows it."""
    if axis == x.ndim - 1:
        return x.flatten(1, -2).mT
    return x.flatten(axis + 1).flatten(0, axis - 1)


class _Band(torch.autograd.Function):
    """A matrix along one axis, block by block; its gradient is that of the transposed matrix."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, axis: int, band: list[tuple[slice, slice]]) -> Tensor:
        ctx.matrix, ctx.axis = matrix, axis
        result = x.new_empty((*x.shape[:axis], len(matrix), *x.shape[axis + 1 :]))
        source, target = _columns(x, axis), _columns(result, axis)
        for rows, columns in band:
            part = matrix[rows, columns].expand(len(source), -1, -1)
            torch.bmm(part, source[:, columns], out=target[:, rows])
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _along(gradients[0], ctx.matrix.T, ctx.axis), None, None, None


def _cubic(t: Floats) -> Floats:
    d = np.abs(t)
    return np.where(d < 1, 2 / 3 - d**2 + d**3 / 2, np.where(d < 2, (2 - d) ** 3 / 6, 0.0))


def _cubic_slope(t: Floats) -> Floats:
    d = np.abs(t)
    return np.sign(t) * np.where(d < 1, -2 * d + 1.5 * d**2, np.where(d < 2, -((2 - d) ** 2) / 2, 0.0))
