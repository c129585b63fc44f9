"""Displacements as cubic B-splines on a lattice of control points. Knows nothing of images.

Along each axis the spline is a small matrix, so values, derivatives and fits on any aligned grid are a few products.
Each sample sees four control points: on a fine lattice the matrices are bands and are multiplied block by block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semreg.core.fields import Field
from semreg.core.geometry import Grid, index_map
from semreg.core.kernels import spline_product

STIFFNESS = 1e-3
"""Weight of the squared second differences of the coefficients where a field is fitted, beside its samples: what hardly
any sample sees, at the edges, continues its neighbours instead of running away. A linear field is still met exactly."""

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
        return spline_product(field.on(self.grid).vox, [s.to(device) for s in solvers])

    def field(self, coefficients: Tensor, target: Grid) -> Field:
        """The displacement on an aligned grid."""
        bases = [b.to(coefficients.device) for b in self.bases(self.positions(target))]
        ratio = torch.tensor(
            [a / b for a, b in zip(self.grid.spacing, target.spacing, strict=True)], device=coefficients.device
        )
        return Field(spline_product(coefficients * ratio.reshape(-1, *[1] * target.dimension), bases), target)


class SplinePoints:
    """The displacement of a spline at single points, in voxels of its grid, and the way back to its coefficients."""

    def __init__(self, lattice: SplineLattice, index: Tensor, device: torch.device) -> None:
        """Find the control points (4 an axis) that each point of ``index`` (D, N), in voxels, sees."""
        bases = lattice.bases(list(index.double().cpu().numpy()))
        self.shape = tuple(basis.shape[1] for basis in bases)
        count = index.shape[1]
        self.rows = torch.zeros((count, 1), dtype=torch.long)
        self.weights = torch.ones((count, 1))
        for basis in bases:
            weights, seen = basis.topk(min(4, basis.shape[1]), dim=1)
            self.rows = (self.rows[:, :, None] * basis.shape[1] + seen[:, None]).flatten(1)
            self.weights = (self.weights[:, :, None] * weights[:, None]).flatten(1)
        self.rows, self.weights = self.rows.to(device), self.weights.to(device)

    def __call__(self, coefficients: Tensor) -> Tensor:
        """The displacements (D, N) of ``coefficients`` (D, *shape)."""
        return (coefficients.flatten(1)[:, self.rows] * self.weights).sum(-1)

    def adjoint(self, pull: Tensor) -> Tensor:
        """The gradient (D, *shape) of what has the gradient ``pull`` (D, N) in the displacements."""
        result = pull.new_zeros((len(pull), math.prod(self.shape)))
        spread = (pull[:, :, None] * self.weights).flatten(1)
        return result.index_add_(1, self.rows.flatten(), spread).reshape(len(pull), *self.shape)


def _cubic(t: Floats) -> Floats:
    d = np.abs(t)
    return np.where(d < 1, 2 / 3 - d**2 + d**3 / 2, np.where(d < 2, (2 - d) ** 3 / 6, 0.0))


def _cubic_slope(t: Floats) -> Floats:
    d = np.abs(t)
    return np.sign(t) * np.where(d < 1, -2 * d + 1.5 * d**2, np.where(d < 2, -((2 - d) ** 2) / 2, 0.0))
