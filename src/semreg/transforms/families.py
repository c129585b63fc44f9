"""The transforms that a descent can find, by name: how each begins at a linear map. Knows nothing of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

import torch

from semreg.core.geometry import Grid, Matrix
from semreg.transforms.base import Parametric
from semreg.transforms.bspline import Spline, SplineLattice
from semreg.transforms.linear import Linear
from semreg.transforms.maps import FAMILIES, generators

Begin: TypeAlias = Callable[[Matrix, Grid, Matrix], Parametric]
"""What a linear map (E, E) begins a transform as, on a grid of the fixed image's space, about a centre (D,) in mm."""

INTERVALS = 5
"""Of the control points of a spline, along the longest side."""


def linear(family: str, matrix: Matrix, grid: Grid, centre: Matrix) -> Linear:  # noqa: ARG001 - it needs no grid
    """A linear map that stays in its family."""
    return Linear(matrix, tuple(generators(family, centre)))


def bspline(matrix: Matrix, grid: Grid, centre: Matrix) -> Spline:  # noqa: ARG001 - it has no centre
    """A coarse cubic B-spline over the grid, still without displacement, and the linear map after it."""
    apart = max(grid.extent_mm) / INTERVALS
    lattice = SplineLattice(grid, tuple(apart / spacing for spacing in grid.spacing))
    return Spline(lattice, torch.zeros((grid.dimension, *lattice.shape)), matrix)


TRANSFORMS: Mapping[str, Begin] = {**{name: partial(linear, name) for name in FAMILIES}, "bspline": bspline}
