"""What a transform is: a map of points in mm, fixed → moving, and its derivative. Knows nothing of images and files.

Linear maps, splines, displacement fields (``core.fields.Field``) and chains of what files hold are transforms. Those
whose parameters a descent on images changes are ``Parametric`` too: the linear maps and the spline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Float64
from torch import Tensor

from semreg.core.geometry import Grid, Matrix

Points: TypeAlias = Float64[npt.NDArray[np.float64], "d n"]
"""Points (D, N) in mm, x y(, z), LPS."""
Matrices: TypeAlias = Float64[npt.NDArray[np.float64], "n d d"]
"""A matrix a point, (N, D, D): row i is the derivative of the component i."""
Parameters: TypeAlias = Float64[npt.NDArray[np.float64], "k"]
"""A step of each parameter, (K,)."""


class Transform(Protocol):
    """A map of points."""

    @property
    def dimension(self) -> int:
        """2 or 3."""

    def map(self, points: Points) -> Points:
        """Where the points (D, N) come to, (D, N) in mm."""

    def jacobian(self, points: Points) -> Matrices:
        """The derivative of ``map`` at the points (D, N): (N, D, D), without unit."""


class Parametric(Transform, Protocol):
    """A transform that a descent changes. Its steps act on the side of the fixed image, before the map itself."""

    @property
    def count(self) -> int:
        """K, the number of parameters."""

    @property
    def matrix(self) -> Matrix:
        """The map itself if it is linear, else the linear map that follows what deforms; homogeneous, (E, E)."""

    @property
    def energy(self) -> float:
        """What is taken off its match for its own regularity; 0 for a map that is regular whatever its parameters."""

    def index(self, grid: Grid, target: Grid, *, like: Tensor) -> Float[Tensor, "d *s"]:
        """Where the voxels of ``grid`` are read in an image on ``target``: (D, *S) in its voxels, typed as ``like``."""

    def changed(self, step: Parameters) -> Self:
        """The transform after a step of its parameters (K,)."""

    def largest_move(self, step: Parameters, points: Points) -> float:
        """How far a step moves any of ``points`` (N, D), or an upper bound of it, in mm."""

    def equations(
        self, grid: Grid, square: Float[Tensor, "d d n"], pull: Float[Tensor, "d n"], unit: float
    ) -> tuple[Matrix, Parameters]:
        """The normal equations of a step, from those of the displacement of each voxel.

        Args:
            grid: the voxels, in the fixed image's space; those of a spline have its axes.
            square: half the second derivative of what is lowered in the displacement of each voxel, in voxels,
                (D, D, N).
            pull: half its derivative, (D, N).
            unit: how much of what is lowered an ``energy`` of 1 is.

        Returns:
            Half the second derivative (K, K) and half the derivative (K,) in the parameters, float64.
        """


def chained(parts: Sequence[Transform], points: Points) -> Matrices:
    """The derivative of transforms one after the other, the first applied first, at ``points`` (D, N): (N, D, D)."""
    result = np.broadcast_to(np.eye(len(points)), (points.shape[1], len(points), len(points)))
    for part in parts:
        result = part.jacobian(points) @ result
        points = part.map(points)
    return result
