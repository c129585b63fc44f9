"""Points that correspond, as a term of the objective: robust, in the search and on the control points of a spline.

The distance of two points that correspond counts as the negative logarithm of Student's t distribution (Lange, Little,
Taylor: Robust statistical modeling using the t distribution, Journal of the American Statistical Association, 1989):
near zero as squares do, far off as a logarithm, so that a wrong pair of points pulls hardly at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from semreg.core.fields import Field, apply_linear
from semreg.core.geometry import Grid, Matrix, index_map
from semreg.core.inversion import displacement, undo
from semreg.core.sampling import sample, transform_index
from semreg.registration.dense.terms import ALIKE
from semreg.transforms.bspline import SplineLattice, SplinePoints

FREEDOM = 3.0
"""Degrees of freedom of the distribution: of few, so that what is far off is believed to be wrong."""
INVERSE_STEPS = 30


@dataclass(frozen=True)
class Correspondences:
    """Points of the working frame that belong together."""

    grid: Grid
    """Whose voxels the points count in."""
    fixed: Tensor
    """Indices (D, N)."""
    moving: Tensor
    """Indices (D, N), where the fixed ones are to be led."""
    sd_mm: Tensor
    """How far each may be off along an axis: its standard deviation, (N,)."""

    @property
    def furthest_mm(self) -> float:
        """The largest distance between two of them along an axis of the grid, in mm."""
        apart = (self.moving - self.fixed).abs().amax(1).cpu() * torch.tensor(self.grid.spacing)
        return float(apart.max())

    def swapped(self) -> Correspondences:
        """The same with the two images in each other's place."""
        return Correspondences(self.grid, self.moving, self.fixed, self.sd_mm)

    def and_those(self, others: Correspondences) -> Correspondences:
        """These and others."""
        other = others.on(self.grid)
        pairs = ((self.fixed, other.fixed), (self.moving, other.moving), (self.sd_mm, other.sd_mm))
        return Correspondences(self.grid, *(torch.cat(both, -1) for both in pairs))

    def on(self, grid: Grid) -> Correspondences:
        """The same points in voxels of another grid."""
        matrix = index_map(self.grid, grid)
        fixed, moving = (transform_index(matrix, points) for points in (self.fixed, self.moving))
        return Correspondences(grid, fixed, moving, self.sd_mm)


class PointMatch:
    """The term of one level of the refinement, as a function of the spline's coefficients.

    A pair of points counts as much as the features of the volume that one control point stands for: points lead where
    features say little, and a pair that is off by its standard deviation weighs about as much as they do at the start.
    """

    def __init__(self, points: Correspondences, lattice: SplineLattice, device: torch.device) -> None:
        """Lay out the spline at the points."""
        points = points.on(lattice.grid)
        self.spline = SplinePoints(lattice, points.fixed, device)
        self.wanted = (points.moving - points.fixed).to(device, torch.float32)
        self.to_mm = torch.as_tensor(lattice.grid.spacing, dtype=torch.float32, device=device).reshape(-1, 1)
        self.precision = points.sd_mm.to(device, torch.float32) ** -2
        cells = math.prod(max(1.0, n / step) for n, step in zip(lattice.grid.shape, lattice.step, strict=True))
        self.share = 1 / cells

    def pull(self, coefficients: Tensor, unit: float) -> tuple[float, Tensor]:
        """``unit`` times the term, and its gradient in the coefficients."""
        off = (self.spline(coefficients) - self.wanted) * self.to_mm
        squares = off.square().sum(0) * self.precision
        value, slope = student(squares, len(off))
        pull = self.spline.adjoint(2 * slope * self.precision * off * self.to_mm)
        scale = unit * self.share
        return scale * float(value.double().sum()), pull * scale

    def curvature(self, unit: float) -> Tensor:
        """An upper bound of its curvature for each coefficient."""
        steepest = (FREEDOM + len(self.to_mm)) / FREEDOM  # of student, at 0, twice
        return self.spline.adjoint(unit * self.share * steepest * self.precision * self.to_mm**2)


def student(squares: Tensor, dimension: int) -> tuple[Tensor, Tensor]:
    """What points count whose distance in standard deviations has these ``squares``, and its derivative in them.

    Of a multivariate t distribution with ν degrees of freedom in D dimensions: (ν + D) / 2 · log(1 + s / ν).
    """
    half = (FREEDOM + dimension) / 2
    return half * torch.log1p(squares / FREEDOM), half / (FREEDOM + squares)


def add_costs(cost: Tensor, points: Correspondences, candidates: Tensor, start: Field, *, back: bool) -> Tensor:
    """``cost`` (nodes, K) of a search with what each candidate (K, D), in nodes, does to points that correspond.

    Each pair counts at the nodes around its place, by their nearness. From the fixed to the moving image a candidate is
    applied before ``start``; ``back``: the other way, from the moving image read through ``start`` to the fixed one. A
    candidate stands for all displacements of its cell, whose spread (a twelfth of its square, along each axis) adds to
    that of the points.
    """
    grid = start.grid
    points = points.on(grid)
    near, far = points.fixed.to(cost), points.moving.to(cost)
    steps = candidates.to(cost).T
    if back:
        near, far = _origin(start, far), near
        reached = near[:, :, None] + steps[:, None]
    else:
        reached = near[:, :, None] + steps[:, None]
        reached = reached + sample(start.vox.to(cost), reached.flatten(1)).reshape(reached.shape)
    spacing = torch.as_tensor(grid.spacing, dtype=cost.dtype, device=cost.device)
    off = (reached - far[:, :, None]) * spacing.reshape(-1, 1, 1)
    variance = points.sd_mm.to(cost) ** 2 + float(spacing.square().mean()) / 12
    value = ALIKE * student(off.square().sum(0) / variance[:, None], len(near))[0]
    rows, shares = corners(near, grid.shape)
    for corner in range(len(rows)):
        cost.index_add_(0, rows[corner], value * shares[corner][:, None])
    return cost


def _origin(start: Field, index: Tensor) -> Tensor:
    """Where ``start`` leads to ``index`` (D, N) from, in its voxels."""
    return (index.double() + undo(displacement(start.vox.double()), index.double(), INVERSE_STEPS)[0]).to(index)


def corners(index: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The samples around ``index`` (D, N), as rows of the flat grid, and their weights of linear interpolation.

    Both (2^D, N); beyond the grid its border counts.
    """
    rows = torch.zeros((1, index.shape[1]), dtype=torch.long, device=index.device)
    shares = torch.ones((1, index.shape[1]), dtype=index.dtype, device=index.device)
    for axis, n in enumerate(shape):
        at = index[axis].clamp(0, n - 1)
        low = at.floor().long().clamp(max=max(0, n - 2))
        part = at - low
        rows = torch.cat([rows * n + low, rows * n + (low + 1).clamp(max=n - 1)])
        shares = torch.cat([shares * (1 - part), shares * part])
    return rows, shares


def in_frame(
    fixed_mm: Tensor, moving_mm: Tensor, sd_mm: Tensor, grid: Grid, start: Field | None, linear: Matrix | None
) -> Correspondences:
    """Points (D, N) in mm of both images as they lie in the working frame, where the moving image is read by a start.

    ``linear`` is the matrix of a start that is linear, which is undone exactly; else ``start`` is, point by point.
    """
    if linear is not None:
        moving_mm = transform_index(np.asarray(np.linalg.inv(linear), dtype=np.float64), moving_mm)
    elif start is not None:
        index = transform_index(start.grid.point_to_index(), moving_mm)
        found = undo(displacement(start.vox.double()), index, INVERSE_STEPS)[0]
        moving_mm = moving_mm + apply_linear(start.grid.index_to_point(), found)
    to_index = grid.point_to_index()
    return Correspondences(grid, transform_index(to_index, fixed_mm), transform_index(to_index, moving_mm), sd_mm)
