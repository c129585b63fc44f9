"""Linear maps as transforms, changed by steps along generators. Knows nothing of images and files."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from semreg.core.geometry import Grid, Matrix
from semreg.core.sampling import base_index, transform_index
from semreg.transforms.base import Matrices, Parameters, Points
from semreg.transforms.maps import exponential, largest_move, mapped

CHUNK = 1 << 16
"""Voxels whose normal equations are summed at once."""


@dataclass(frozen=True)
class Linear:
    """A linear map of points in mm; with a ``basis`` one whose family a descent stays in."""

    matrix: Matrix
    """Homogeneous, (E, E)."""
    basis: tuple[Matrix, ...] = ()
    """The generators (E, E) of its steps, ``maps.generators``; none: nothing changes it."""

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return len(self.matrix) - 1

    @property
    def count(self) -> int:
        """The number of generators."""
        return len(self.basis)

    @property
    def energy(self) -> float:
        """Nothing: what a family allows is regular."""
        return 0.0

    def map(self, points: Points) -> Points:
        """The points (D, N) after it."""
        return mapped(self.matrix, points.T).T

    def jacobian(self, points: Points) -> Matrices:
        """Its linear part at each point, (N, D, D)."""
        n = self.dimension
        return np.broadcast_to(self.matrix[:n, :n], (points.shape[1], n, n))

    def index(self, grid: Grid, target: Grid, *, like: Tensor) -> Float[Tensor, "d *s"]:
        """Where the voxels of ``grid`` are read in ``target``, by one product of matrices."""
        matrix = target.point_to_index() @ self.matrix @ grid.index_to_point()
        return transform_index(matrix, base_index(grid.shape, like=like))

    def changed(self, step: Parameters) -> Linear:
        """The map after the exponential of a sum of generators: a product, so it stays in its family."""
        return replace(self, matrix=self.matrix @ exponential(step, self.basis))

    def largest_move(self, step: Parameters, points: Points) -> float:
        """How far a step moves any of ``points`` (N, D), in mm."""
        return largest_move(exponential(step, self.basis), points)

    def equations(
        self,
        grid: Grid,
        square: Float[Tensor, "d d n"],
        pull: Float[Tensor, "d n"],
        unit: float,  # noqa: ARG002 - it has no energy
    ) -> tuple[Matrix, Parameters]:
        """Sums over the voxels of how each generator moves them, which is linear in their index."""
        index = base_index(grid.shape, like=pull).flatten(1)
        ways = [grid.point_to_index() @ g @ grid.index_to_point() for g in self.basis]
        normal, right = np.zeros((self.count, self.count)), np.zeros(self.count)
        for first in range(0, index.shape[1], CHUNK):
            part = slice(first, first + CHUNK)
            moves = torch.stack([transform_index(way, index[:, part]) for way in ways])  # (K, D, N)
            weighed = torch.zeros_like(moves)
            for axis in range(len(square)):
                weighed.addcmul_(square[axis, :, part], moves[:, axis, None])
            flat = moves.reshape(self.count, -1)
            normal += (weighed.reshape(self.count, -1) @ flat.T).double().cpu().numpy()
            right += (flat @ pull[:, part].reshape(-1)).double().cpu().numpy()
        return normal, right
