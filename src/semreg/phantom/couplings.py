"""Smooth maps of points that are invertible in closed form: the true deformation of the phantom.

Knows nothing of images and grids.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from semreg.phantom.waves import Array, Waves, random_waves


class Coupling(NamedTuple):
    """One step of a map: x ↦ x·exp(stretch) + shift along ``axis``, where both depend on the other axes only."""

    axis: int
    stretch: Waves
    shift: Waves


@dataclass(frozen=True)
class CouplingMap:
    """A smooth map of points that is invertible in closed form and cannot fold, as each of its steps.

    The Jacobian determinant is the product of the stretches of all steps, always positive.
    """

    steps: tuple[Coupling, ...]
    centre_xyz: tuple[float, ...]

    def __call__(self, points: Tensor) -> Tensor:
        """Points (D, N) in mm → where they go, (D, N) in mm."""
        place = self._relative(points)
        for step in self.steps:
            place[step.axis] = place[step.axis] * np.exp(step.stretch.at(place)) + step.shift.at(place)
        return self._absolute(place, points)

    def inverse(self, points: Tensor) -> Tensor:
        """Where points (D, N) in mm come from, (D, N) in mm."""
        place = self._relative(points)
        for step in reversed(self.steps):
            place[step.axis] = (place[step.axis] - step.shift.at(place)) * np.exp(-step.stretch.at(place))
        return self._absolute(place, points)

    def jacobian_determinant(self, points: Tensor) -> Tensor:
        """Determinant of the Jacobian matrix at ``points`` (D, N) → (N), without unit."""
        place = self._relative(points)
        logarithm = np.zeros_like(place[0])
        for step in self.steps:
            stretch = step.stretch.at(place)
            logarithm += stretch
            place[step.axis] = place[step.axis] * np.exp(stretch) + step.shift.at(place)
        return torch.from_numpy(np.exp(logarithm)).to(points)

    def scaled(self, factor: float) -> CouplingMap:
        """The map with all its waves ``factor`` times as high."""
        return replace(self, steps=tuple(Coupling(a, s.times(factor), t.times(factor)) for a, s, t in self.steps))

    def _relative(self, points: Tensor) -> Array:
        """A copy relative to the centre, float64."""
        place: Array = points.detach().cpu().numpy().astype(np.float64)
        place -= np.array(self.centre_xyz)[:, None]
        return place

    def _absolute(self, place: Array, like: Tensor) -> Tensor:
        return torch.from_numpy(place + np.array(self.centre_xyz)[:, None]).to(like)


def make_map(points: Tensor, displacement_mm: float, seed: int = 0) -> CouplingMap:
    """A smooth map that moves ``points`` (D, N), in mm, by up to ``displacement_mm``; any other point as smoothly."""
    random = np.random.default_rng([seed, 2])
    n = len(points)
    steps = []
    for axis in range(n):
        others = np.arange(n) != axis
        stretch = random_waves(random, [(150.0, 0.06), (90.0, 0.05)], others)
        shift = random_waves(random, [(400.0, 4.0), (200.0, 3.0), (120.0, 2.0), (75.0, 1.2), (50.0, 0.7)], others)
        steps.append(Coupling(axis, stretch, shift))
    result = CouplingMap(tuple(steps), tuple(points.mean(1).tolist()))
    for _ in range(4):
        largest = float(torch.linalg.vector_norm(result(points) - points, dim=0).max())
        result = result.scaled(displacement_mm / largest)
    return result
