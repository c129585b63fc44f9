"""Descent on the parameters of a linear map: Gauss-Newton steps on the features of the image seen through the map.

The features are extracted again in every step, from the moving image as the map shows it, so they turn with it. Steps
compose on the fixed image's side, with the mean of both images' gradients (efficient second-order minimisation:
Benhimane, Malis, IROS 2004) and Levenberg's damping.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from semreg.core.geometry import Matrix
from semreg.core.sampling import base_index, transform_index
from semreg.registration.parametric.overlap import (
    Describe,
    Picture,
    describe_picture,
    describe_through,
    match,
    unrelated,
)
from semreg.registration.parametric.telling import Heard
from semreg.transforms.maps import exponential, generators, largest_move

LONGEST = 4.0
"""Longest move of a step in voxels, at the corners of the box."""
SETTLED = 0.02
"""A move of fewer voxels ends the descent."""
MOST_FAILURES = 4
FIRST_DAMPING, LEAST_DAMPING = 1e-3, 1e-4
CHUNK = 1 << 16
"""Voxels whose normal equations are summed at once."""


@dataclass(frozen=True)
class Placed:
    """A map and how well it matches."""

    matrix: Matrix
    match: float
    overlap: float
    """Share of the content that both images show, of the image that has less."""
    steps: int = 0


@dataclass(frozen=True)
class _Look:
    """What is seen through one map."""

    placed: Placed
    residual: Tensor
    features: Tensor
    share: Tensor


class Descent:
    """The match of two pictures on cubic voxels of one size, as a function of the map."""

    def __init__(self, fixed: Picture, moving: Picture, describe: Describe) -> None:
        """Describe the fixed picture."""
        self.seen = describe_picture(fixed, describe)
        self.moving, self.describe = moving, describe
        self.grid = self.seen.grid
        self.spacing = min(self.grid.spacing)
        self.corners = self.grid.corners_xyz()
        self.most = min(float(self.seen.share.sum()), float(moving.content.data.sum()))
        self._slope = _slopes(self.seen.features)

    def look(self, matrix: Matrix) -> Placed:
        """The match of a map."""
        return self._look(matrix).placed

    def gains(self, matrix: Matrix) -> Tensor:
        """What each voxel adds to the match of a map, (*S)."""
        moving = describe_through(self.moving, matrix, self.grid, self.describe)
        share = self.seen.share * moving.share
        scale, overlap = unrelated(self.seen, moving), share.sum()
        if scale <= 0 or float(overlap) <= 0:
            return torch.zeros_like(share)
        gain = share * (scale - (moving.features - self.seen.features).square().sum(0))
        return match(gain, overlap, self.most, scale)

    def within(self, counted: Tensor) -> Descent:
        """The same where only the voxels ``counted`` (*S) of the fixed picture count."""
        result = copy.copy(self)
        share = self.seen.share * counted.to(self.seen.share)
        result.seen = replace(self.seen, share=share)
        result.most = min(float(share.sum()), self.most)
        return result

    def descend(self, start: Matrix, family: str, iterations: int, tell: Heard) -> Placed:
        """The best map of a family near ``start``; ``tell`` gets the number of each step and the match."""
        basis = generators(family, self._centre())
        looked = self._look(start)
        damping, failures, step = FIRST_DAMPING, 0, 0
        for step in range(1, iterations + 1):
            if looked.placed.match <= 0 and failures:
                break
            change = self._change(looked, basis, damping)
            move = largest_move(change, self.corners) / self.spacing
            trial = self._look(looked.placed.matrix @ change)
            if trial.placed.match > looked.placed.match:
                looked, damping, failures = trial, max(damping / 5, LEAST_DAMPING), 0
                tell(step, looked.placed.match)
                if move < SETTLED:
                    break
            else:
                damping, failures = damping * 10, failures + 1
                tell(step, looked.placed.match)
                if move < 2 * SETTLED or failures > MOST_FAILURES:
                    break
        found = looked.placed
        return Placed(found.matrix, found.match, found.overlap, step)

    def _centre(self) -> Matrix:
        """Of what is seen in the fixed image, in mm: there rotations and scales do the least to the position."""
        share = self.seen.share / self.seen.share.sum().clamp(min=1e-6)
        index = base_index(self.grid.shape, like=share)
        mean = (index * share).flatten(1).sum(1).cpu().double().numpy()
        return np.asarray((self.grid.index_to_point() @ np.append(mean, 1.0))[:-1])

    def _look(self, matrix: Matrix) -> _Look:
        moving = describe_through(self.moving, matrix, self.grid, self.describe)
        share = self.seen.share * moving.share
        scale = unrelated(self.seen, moving)
        residual = moving.features - self.seen.features
        overlap = share.sum()
        if scale <= 0 or float(overlap) <= 0:
            placed = Placed(matrix, 0.0, 0.0)
        else:
            gain = (share * (scale - residual.square().sum(0))).sum()
            value = float(match(gain, overlap, self.most, scale))
            placed = Placed(matrix, value, float(overlap) / self.most)
        return _Look(placed, residual, moving.features, share)

    def _change(self, looked: _Look, basis: list[Matrix], damping: float) -> Matrix:
        """The damped Gauss-Newton step, at most ``LONGEST`` voxels at the corners."""
        normal, right = self._equations(looked, basis)
        diagonal = np.diag(normal)
        damped = normal + np.diag(damping * diagonal + 1e-9 * max(diagonal.max(), 1e-12))
        parameters = -np.linalg.solve(damped, right)
        move = largest_move(exponential(parameters, basis), self.corners) / self.spacing
        return exponential(parameters * min(1.0, LONGEST / max(move, 1e-12)), basis)

    def _equations(self, looked: _Look, basis: list[Matrix]) -> tuple[Matrix, Matrix]:
        """Σ w JᵀJ (K, K) and Σ w Jᵀr (K,) of the residual of all channels."""
        count = len(basis)
        index = base_index(self.grid.shape, like=looked.share).flatten(1)
        # how each parameter moves a voxel, in voxels: linear in its index
        ways = [self.grid.point_to_index() @ g @ self.grid.index_to_point() for g in basis]
        slope = (_slopes(looked.features) + self._slope).flatten(2).mul_(0.5)  # (D, C, N)
        residual, share = looked.residual.flatten(1), looked.share.flatten()
        normal, right = np.zeros((count, count)), np.zeros(count)
        for first in range(0, index.shape[1], CHUNK):
            part = slice(first, first + CHUNK)
            g, w = slope[:, :, part], share[part]
            square = _products(g) * w
            pull = (g * residual[:, part]).sum(1) * w
            moves = torch.stack([transform_index(way, index[:, part]) for way in ways])  # (K, D, N)
            weighed = torch.zeros_like(moves)
            for axis in range(len(square)):
                weighed.addcmul_(square[axis], moves[:, axis, None])
            weighed = weighed.reshape(count, -1)
            flat = moves.reshape(count, -1)
            normal += (weighed @ flat.T).double().cpu().numpy()
            right += (flat @ pull.reshape(-1)).double().cpu().numpy()
        return normal, right


def _products(slope: Tensor) -> Tensor:
    """Σ_c g_a g_b of slopes (D, C, N): (D, D, N). einsum would make a small product of matrices of each voxel."""
    count = len(slope)
    products = slope.new_empty(count, count, slope.shape[-1])
    for a in range(count):
        for b in range(a, count):
            products[a, b] = products[b, a] = (slope[a] * slope[b]).sum(0)
    return products


def _slopes(features: Tensor) -> Tensor:
    """Central differences of (C, *S) along each axis in voxels, (D, C, *S); 0 at the border."""
    slopes = features.new_zeros((features.ndim - 1, *features.shape))
    for axis in range(1, features.ndim):
        n = features.shape[axis]
        if n > 2:
            inner = slopes[axis - 1].narrow(axis, 1, n - 2)
            torch.sub(features.narrow(axis, 2, n - 2), features.narrow(axis, 0, n - 2), out=inner)
            inner.mul_(0.5)
    return slopes
