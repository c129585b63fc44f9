"""Descent on the parameters of a transform: Gauss-Newton steps on the features of the image seen through it.

It takes any transform that is ``Parametric``: a linear map, a coarse spline. The features are extracted again in every
step, from the moving image as the transform shows it, so they turn with it. Steps act on the fixed image's side, with
the mean of both images' gradients (efficient second-order minimisation: Benhimane, Malis, IROS 2004) and Levenberg's
damping.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from semreg.core.geometry import Matrix
from semreg.core.sampling import base_index
from semreg.errors import ConfigError
from semreg.registration.parametric.overlap import (
    Describe,
    Picture,
    describe_picture,
    describe_through,
    match,
    unrelated,
)
from semreg.registration.parametric.telling import Heard
from semreg.transforms.base import Parameters, Parametric
from semreg.transforms.families import TRANSFORMS

LONGEST = 4.0
"""Longest move of a step in voxels, at the corners of the box."""
SETTLED = 0.02
"""A move of fewer voxels ends the descent."""
MOST_FAILURES = 4
FIRST_DAMPING, LEAST_DAMPING = 1e-3, 1e-4


@dataclass(frozen=True)
class Placed:
    """A transform and how well it matches."""

    transform: Parametric
    match: float
    overlap: float
    """Share of the content that both images show, of the image that has less."""
    steps: int = 0

    @property
    def matrix(self) -> Matrix:
        """Its linear map."""
        return self.transform.matrix

    @property
    def value(self) -> float:
        """What a descent raises: the match, less what the transform takes off it for its own regularity."""
        return self.match - self.transform.energy


@dataclass(frozen=True)
class _Look:
    """What is seen through one transform."""

    placed: Placed
    unit: float
    """The squared difference of the features that a match of 1 is."""
    residual: Tensor
    features: Tensor
    share: Tensor


class Descent:
    """The match of two pictures on cubic voxels of one size, as a function of the transform."""

    def __init__(self, fixed: Picture, moving: Picture, describe: Describe) -> None:
        """Describe the fixed picture."""
        self.seen = describe_picture(fixed, describe)
        self.moving, self.describe = moving, describe
        self.grid = self.seen.grid
        self.spacing = min(self.grid.spacing)
        self.corners = self.grid.corners_xyz()
        self.most = min(float(self.seen.share.sum()), float(moving.content.data.sum()))
        self._slope = _slopes(self.seen.features)

    def begin(self, family: str, matrix: Matrix) -> Parametric:
        """A transform of a family that is the linear map ``matrix``, to descend from (ConfigError for another name)."""
        if family not in TRANSFORMS:
            raise ConfigError(f"expected a transform of {', '.join(TRANSFORMS)}, got {family!r}")
        return TRANSFORMS[family](matrix, self.grid, self._centre())

    def look(self, transform: Parametric) -> Placed:
        """The match of a transform."""
        return self._look(transform).placed

    def gains(self, transform: Parametric) -> Tensor:
        """What each voxel adds to the match of a transform, (*S)."""
        moving = describe_through(self.moving, transform, self.grid, self.describe)
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

    def descend(self, start: Parametric, iterations: int, tell: Heard) -> Placed:
        """The best transform near ``start``; ``tell`` gets the number of each step and the match."""
        looked = self._look(start)
        damping, failures, taken = FIRST_DAMPING, 0, 0
        for taken in range(1, iterations + 1):
            if looked.placed.match <= 0 and failures:
                break
            here = looked.placed.transform
            step = self._step(looked, damping)
            move = here.largest_move(step, self.corners) / self.spacing
            trial = self._look(here.changed(step))
            if trial.placed.value > looked.placed.value:
                looked, damping, failures = trial, max(damping / 5, LEAST_DAMPING), 0
                tell(taken, looked.placed.match)
                if move < SETTLED:
                    break
            else:
                damping, failures = damping * 10, failures + 1
                tell(taken, looked.placed.match)
                if move < 2 * SETTLED or failures > MOST_FAILURES:
                    break
        return replace(looked.placed, steps=taken)

    def _centre(self) -> Matrix:
        """Of what is seen in the fixed image, in mm: there rotations and scales do the least to the position."""
        share = self.seen.share / self.seen.share.sum().clamp(min=1e-6)
        index = base_index(self.grid.shape, like=share)
        mean = (index * share).flatten(1).sum(1).cpu().double().numpy()
        return np.asarray((self.grid.index_to_point() @ np.append(mean, 1.0))[:-1])

    def _look(self, transform: Parametric) -> _Look:
        moving = describe_through(self.moving, transform, self.grid, self.describe)
        share = self.seen.share * moving.share
        scale = unrelated(self.seen, moving)
        residual = moving.features - self.seen.features
        overlap = share.sum()
        unit = scale * math.sqrt(float(overlap) * self.most)
        if scale <= 0 or float(overlap) <= 0:
            placed = Placed(transform, 0.0, 0.0)
        else:
            gain = (share * (scale - residual.square().sum(0))).sum()
            value = float(match(gain, overlap, self.most, scale))
            placed = Placed(transform, value, float(overlap) / self.most)
        return _Look(placed, unit, residual, moving.features, share)

    def _step(self, looked: _Look, damping: float) -> Parameters:
        """The damped Gauss-Newton step, at most ``LONGEST`` voxels at the corners."""
        normal, right = self._equations(looked)
        diagonal = np.diag(normal)
        damped = normal + np.diag(damping * diagonal + 1e-9 * max(diagonal.max(), 1e-12))
        step = -np.asarray(np.linalg.solve(damped, right), dtype=np.float64)
        move = looked.placed.transform.largest_move(step, self.corners) / self.spacing
        return np.asarray(step * min(1.0, LONGEST / max(move, 1e-12)))

    def _equations(self, looked: _Look) -> tuple[Matrix, Parameters]:
        """Σ w JᵀJ (K, K) and Σ w Jᵀr (K,) of the residual of all channels."""
        slope = (_slopes(looked.features) + self._slope).flatten(2).mul_(0.5)  # (D, C, N)
        residual, share = looked.residual.flatten(1), looked.share.flatten()
        square = _products(slope) * share
        pull = (slope * residual).sum(1) * share
        return looked.placed.transform.equations(self.grid, square, pull, looked.unit)


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
