"""Where a displacement brings its samples from: the equation x + u(x) = q, solved point by point. Knows nothing of mm.

Displacements (D, *S) are in voxels of their own grid. Beyond its box the border vectors hold, or, where the whole turns
by 30° and more (``TURN``), its affine part continues: each point has an origin. Fixed-point steps (Chen et al.,
A simple fixed-point approach to invert a deformation field, Medical Physics 2008), here with the inverse of the affine
part, find nearly all. Where they are slow, damped Newton steps with the derivative of the linear interpolant take over.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from semreg.core.sampling import base_index, sample, slabs
from semreg.core.shapes import Places, Values, Vectors

FIT_SAMPLES = 1 << 12
"""Samples from which the affine part is fitted, about."""
SLOW = 0.5
"""A fixed-point step that leaves more than this share of the error is slower than Newton's."""
SHORTEST = 2.0**-8
"""Share of a Newton step below which no shorter one is tried."""
NEAR = 1e-2
"""How far in voxels a cell beside is looked for."""
PAIRS = 1 << 22
"""Distances that are held at once where the nearest of all samples is looked for."""
MOST_PAIRS = 1 << 27
"""More distances than this are not worth it."""
FLAT = 1e-3
"""A determinant below it gives no usable Newton step."""
TILT = 0.1
"""An affine part with a slope above it is a better start than the displacement at the point itself."""
TURN = 0.5
"""With a slope above it the border vectors would fold what is beyond the box, and the affine part continues instead."""
ROUNDINGS = 32
"""The error that counts as none, in roundings of the largest index."""


@dataclass(frozen=True)
class Displacement:
    """A displacement that is to be undone."""

    vox: Vectors
    """(D, *S), in voxels."""
    slope: Float[Tensor, "d d"]
    """(D, D): the linear part of u."""
    linear: Float[Tensor, "d d"]
    """(D, D): inverse of the linear part of x + u(x)."""
    shift: Float[Tensor, "d 1"]
    """(D, 1): its constant part."""
    tilted: bool
    """Whether the affine part is worth starting from."""
    turned: bool
    """Whether it is what continues beyond the box."""
    tolerance: float
    """Error in voxels below which an origin is exact up to rounding."""

    def read(self, index: Places) -> Places:
        """The displacement at ``index`` (D, P), continued beyond the outer samples."""
        values = sample(self.vox, index)
        if not self.turned:
            return values
        last = index.new_tensor([n - 1 for n in self.vox.shape[1:]]).reshape(-1, 1)
        beyond = index - torch.minimum(index.clamp(min=0), last)
        return values.addmm_(self.slope, beyond)


def displacement(vox: Vectors) -> Displacement:
    """The displacement with its affine part, in the least squares sense."""
    shape = tuple(vox.shape[1:])
    n = len(shape)
    stride = max(1, int((math.prod(shape) / FIT_SAMPLES) ** (1 / n)))
    picked = (slice(None), *[slice(None, None, stride)] * n)
    axes = [torch.arange(0, count, stride, dtype=torch.float64, device=vox.device) for count in shape]
    index = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    where, moved = index.flatten(1), vox[picked].flatten(1).double()
    middle = where.mean(1, keepdim=True)
    away = where - middle
    normal = away @ away.T
    normal += torch.diag((normal.diagonal() == 0).to(normal))  # an axis of one voxel tells no slope
    slope = torch.linalg.solve(normal, away @ moved.T).T
    eye = torch.eye(n, dtype=torch.float64, device=vox.device)
    jacobian = eye + slope
    usable = bool(torch.isfinite(jacobian).all()) and float(torch.linalg.svdvals(jacobian).min()) > 0.1
    if not usable:
        jacobian, slope = eye, torch.zeros_like(slope)
    shift = moved.mean(1, keepdim=True) - slope @ middle
    tolerance = ROUNDINGS * torch.finfo(vox.dtype).eps * max(shape)
    steepest = float(slope.abs().max())
    parts = (slope.to(vox), torch.linalg.inv(jacobian).to(vox), shift.to(vox))
    return Displacement(vox, *parts, tilted=steepest > TILT, turned=steepest > TURN, tolerance=tolerance)


def undo(moved: Displacement, points: Places, iterations: int) -> tuple[Places, Places]:
    """Vectors v (D, P) with v + u(q + v) = 0 at ``points`` q (D, P), and what is left of this sum, in voxels.

    The search begins at the better one of −u and the inverse of the affine part; what it ends with is never worse.
    """
    search = _Search(moved, points, -moved.read(points))
    if moved.tilted:
        everywhere = torch.arange(points.shape[1], device=points.device)
        search.keep(everywhere, moved.linear @ (points - moved.shift) - points)
    done = _fixed_point(search, iterations)
    _newton(search, iterations - done)
    _across_kinks(search, iterations)
    if _from_nearest(search):
        _newton(search, iterations)
        _across_kinks(search, iterations)
    return search.best, search.left


class _Search:
    """The best displacement back at each of some points so far, and what is left of the equation there."""

    def __init__(self, moved: Displacement, points: Tensor, start: Tensor) -> None:
        """Begin at ``start`` (D, P)."""
        self.moved, self.points, self.best = moved, points, start
        self.left = start + moved.read(points + start)
        self.square = self.left.square().sum(0)
        """Of the error."""

    def unsolved(self) -> Tensor:
        """The points where the equation does not hold yet, (·,)."""
        return (self.square > self.moved.tolerance**2).nonzero()[:, 0]

    def keep(self, rows: Tensor, trial: Tensor) -> Tensor:
        """Take the trial where it is better; the share of the squared error that is left with it, (·,)."""
        left = trial + self.moved.read(self.points[:, rows] + trial)
        square, before = left.square().sum(0), self.square[rows]
        better = (square < before).nonzero()[:, 0]
        if len(better) < len(rows):
            rows, trial, left = rows[better], trial[:, better], left[:, better]
        self.best.index_copy_(1, rows, trial)
        self.left.index_copy_(1, rows, left)
        self.square.index_copy_(0, rows, square[better])
        return square / before


def _fixed_point(search: _Search, most: int) -> int:
    """Steps with the inverse of the affine part in the place of the Jacobian's, where they are fast; their number."""
    rows = search.unsolved()
    for number in range(most):
        if len(rows) == 0:
            return number
        ratio = search.keep(rows, search.best[:, rows] - search.moved.linear @ search.left[:, rows])
        rows = rows[(ratio < SLOW**2) & (search.square[rows] > search.moved.tolerance**2)]
    return most


def _from_nearest(search: _Search) -> bool:
    """Begin again at the sample that lands nearest, where that is better; False where nothing is left to be found."""
    rows, vox = search.unsolved(), search.moved.vox
    shape = tuple(vox.shape[1:])
    if len(rows) == 0 or len(rows) * math.prod(shape) > MOST_PAIRS:
        return False
    wanted = search.points[:, rows].T.contiguous()
    nearest = wanted.new_full((len(rows),), math.inf)
    origin = torch.zeros_like(wanted)
    for part in slabs(shape, max(1, PAIRS // len(rows))):
        index = base_index(shape, like=vox, part=part)
        index = index.flatten(1).T
        distance, at = torch.cdist(wanted, index + vox[:, part].flatten(1).T).min(1)
        better = distance < nearest
        nearest[better], origin[better] = distance[better], index[at[better]]
    search.keep(rows, (origin - wanted).T)
    return True


def at_face(index: Places, shape: tuple[int, ...]) -> Bool[Tensor, "p"]:
    """Which indices (D, P) are at the outer samples or beyond: where a search ends whose origin is further away."""
    last = index.new_tensor([n - 1 for n in shape]).reshape(-1, 1)
    return ((index < NEAR) | (index > last - NEAR)).any(0)


def _newton(search: _Search, most: int) -> None:
    """Newton steps; points from which none leads nearer are given up."""
    rows = search.unsolved()
    for _ in range(most):
        if len(rows) == 0:
            return
        rows = _nearer(search, rows, 0.0)


def _across_kinks(search: _Search, most: int) -> None:
    """Newton steps with the derivatives of all cells around, where a kink between two of them is in the way.

    Where the interpolant is one-to-one, the step of the cell that holds the origin leads nearer.
    """
    dimension = len(search.points)
    for _ in range(most):
        before = rows = search.unsolved()
        for signs in itertools.product((-NEAR, NEAR), repeat=dimension):
            if len(rows) == 0:
                return
            _nearer(search, rows, search.points.new_tensor(signs).reshape(-1, 1))
            rows = search.unsolved()
        if len(rows) == len(before) and not len(_nearer(search, rows, 0.0)):
            return


def _nearer(search: _Search, rows: Tensor, beside: Tensor | float) -> Tensor:
    """One Newton step at the points ``rows``, halved until it leads nearer; those that came nearer and are not there.

    The derivative is that ``beside`` (D, 1) the place in voxels.
    """
    step, length = _newton_step(search, rows, beside), 1.0
    near, far = [rows[:0]], torch.arange(len(rows), device=rows.device)
    while length >= SHORTEST and len(far):
        some = rows[far]
        ratio = search.keep(some, search.best[:, some] - length * step[:, far])
        near.append(some[ratio < 1])
        far, length = far[ratio >= 1], length / 2
    found = torch.cat(near)
    return found[search.square[found] > search.moved.tolerance**2]


def _newton_step(search: _Search, rows: Tensor, beside: Tensor | float) -> Tensor:
    """J⁻¹ times what is left, (D, ·), with the derivative of the interpolant; what is left where J is flat."""
    at = search.points[:, rows] + search.best[:, rows] + beside
    left, columns = search.left[:, rows], []
    for axis in range(len(at)):
        low, high = at.clone(), at.clone()
        low[axis] = at[axis].floor()
        high[axis] = low[axis] + 1
        column = search.moved.read(high).sub_(search.moved.read(low))
        column[axis] += 1
        columns.append(column)
    determinant = volume(columns)
    usable = determinant.abs() > FLAT
    divisor = torch.where(usable, determinant, torch.ones_like(determinant))
    solved = [volume([left if i == axis else c for i, c in enumerate(columns)]) / divisor for axis in range(len(at))]
    return torch.where(usable, torch.stack(solved), left)


def volume(columns: Sequence[Vectors]) -> Values:
    """The determinant of the matrices with these columns, D times (D, *S) → (*S)."""
    if len(columns) == 2:
        a, b = columns
        return a[0] * b[1] - a[1] * b[0]
    a, b, c = columns
    return a[0] * (b[1] * c[2] - b[2] * c[1]) + a[1] * (b[2] * c[0] - b[0] * c[2]) + a[2] * (b[0] * c[1] - b[1] * c[0])
