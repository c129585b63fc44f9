"""A pair whose moving image lies elsewhere in space, as another scanner would put it. Knows nothing of files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from semreg.core.geometry import Grid
from semreg.core.sampling import transform_index


class TrueMap(Protocol):
    """What a phantom knows of its own deformation: points of the fixed image → points of the moving image, mm."""

    def __call__(self, points: Tensor) -> Tensor:
        """Points (D, N) in mm → where they go, (D, N) in mm."""

    def inverse(self, points: Tensor) -> Tensor:
        """Where points (D, N) in mm come from, (D, N) in mm."""

    def jacobian_determinant(self, points: Tensor) -> Tensor:
        """Determinant of the Jacobian matrix at ``points`` (D, N) → (N)."""


@dataclass(frozen=True)
class MovedMap:
    """First a deformation, then a rigid motion: ``matrix`` (D + 1, D + 1), homogeneous, mm."""

    first: TrueMap
    matrix: npt.NDArray[np.float64]

    def __call__(self, points: Tensor) -> Tensor:
        """Points (D, N) in mm → where they go, (D, N) in mm."""
        return transform_index(self.matrix, self.first(points))

    def inverse(self, points: Tensor) -> Tensor:
        """Where points (D, N) in mm come from, (D, N) in mm."""
        back = np.asarray(np.linalg.inv(self.matrix), dtype=np.float64)
        return self.first.inverse(transform_index(back, points))

    def jacobian_determinant(self, points: Tensor) -> Tensor:
        """Determinant of the Jacobian matrix at ``points`` (D, N) → (N); a rigid motion keeps volumes."""
        return self.first.jacobian_determinant(points)


def carried(grid: Grid, matrix: npt.NDArray[np.float64]) -> Grid:
    """The grid that a rigid motion, homogeneous (D + 1, D + 1) in mm, carries away with all its voxels."""
    n = grid.dimension
    direction = matrix[:n, :n] @ np.array(grid.direction)
    origin = matrix[:n, :n] @ np.array(grid.origin_xyz) + matrix[:n, n]
    return replace(grid, origin_xyz=tuple(origin), direction=tuple(map(tuple, direction)))
