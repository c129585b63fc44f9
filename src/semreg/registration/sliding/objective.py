"""The objective of both sides of a wall: two displacements, each with its own samples and regularity, in contact."""

from __future__ import annotations

import torch
from torch import Tensor

from semreg.config import RefineConfig
from semreg.registration.dense.axes import restricted
from semreg.registration.dense.objective import Evaluation, Problem
from semreg.registration.sliding.contact import Contact


class Sides:
    """The sum of the objectives of the inside and of the outside, and what keeps them in contact.

    Its coefficients are those of the inside and then those of the outside, (2 D, *control points).
    """

    def __init__(self, inner: Problem, outer: Problem, contact: Contact) -> None:
        """Both have one lattice."""
        self.sides, self.contact = (inner, outer), contact
        self.config: RefineConfig = inner.config
        self.spacing_mm, self.scale = inner.spacing_mm, inner.scale
        self.bounded = inner.bounded and outer.bounded
        self.redraws = False

    def shaped(self, coefficients: Tensor) -> Tensor:
        """The coefficients of the displacements themselves."""
        halves = zip(self.sides, coefficients.chunk(2), strict=True)
        return torch.cat([side.shaped(half) for side, half in halves])

    def unit(self, distance: float) -> float:
        """What the regularity is relative to if ``distance`` is the one at the start."""
        return self.sides[0].unit(distance)

    def evaluate(self, coefficients: Tensor, unit: float | None) -> Evaluation:
        """The value and its gradient."""
        halves = coefficients.detach().chunk(2)
        pairs = list(zip(self.sides, halves, strict=True))
        if unit is None:
            unit = self.unit(sum(side.evaluate(half, 1.0).distance for side, half in pairs))
        found = [side.evaluate(half, unit) for side, half in pairs]
        value, *pulls = self.contact.pull(halves[0], halves[1], unit)
        axes = self.config.axes
        gradient = torch.cat([each.gradient + restricted(pull, axes) for each, pull in zip(found, pulls, strict=True)])
        distance = sum(each.distance for each in found)
        return Evaluation(coefficients.detach(), distance, value + sum(each.value for each in found), gradient)

    def overlap(self, coefficients: Tensor) -> bool:
        """Whether any sample counts, on both sides."""
        return all(side.overlap(half) for side, half in zip(self.sides, coefficients.chunk(2), strict=True))

    def curvature(self, unit: float) -> Tensor:
        """An upper bound of its curvature for each coefficient."""
        bounds = zip(self.sides, self.contact.curvature(unit), strict=True)
        return torch.cat([side.curvature(unit) + more for side, more in bounds])

    def longest_step(self, config: RefineConfig) -> Tensor:
        """The longest step of a coefficient per axis, (2 D, 1, …)."""
        return self.sides[0].longest_step(config).repeat(2, *[1] * self.sides[0].lattice.grid.dimension)

    def renew(self, coefficients: Tensor) -> None:
        """Features stay what they are."""
        raise NotImplementedError

    def redraw(self) -> None:
        """All samples are compared."""
