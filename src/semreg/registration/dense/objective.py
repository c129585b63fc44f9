"""The objective of one level of the refinement as a function of the spline's coefficients, and its gradient.

Distance of the features, diffusion of the displacement and a penalty on compression beyond a limit. Knows nothing of
feature models and of how the objective is lowered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from semreg.config import RefineConfig
from semreg.core.pullback import pullback
from semreg.core.sampling import smooth
from semreg.core.sums import total
from semreg.errors import ConfigError, DivergedError
from semreg.registration.dense.axes import restricted
from semreg.registration.dense.correspondences import PointMatch
from semreg.registration.dense.data_term import ImageMatch, Match, Renewal, TermMatch
from semreg.registration.dense.layouts import Layouts
from semreg.registration.dense.prior import NOTHING, Prior
from semreg.registration.dense.smoothness import Smoothness
from semreg.registration.dense.subsampled import DrawnMatch, PartMatch
from semreg.registration.dense.terms import ALIKE, Term, device_of
from semreg.transforms.bspline import SplineLattice

WORTH = 0.75
"""Share of the samples below which the others are left out: above, picking them costs as much as they do."""
PATCH_VOXELS = 4
"""Half width of the means over which a displacement must be smooth for features to be extracted again through it."""


@dataclass(frozen=True)
class Evaluation:
    """The objective at some coefficients."""

    coefficients: Tensor
    distance: float
    value: float
    gradient: Tensor


class Objective(Protocol):
    """What a descent asks of the function that it lowers."""

    config: RefineConfig
    spacing_mm: float
    scale: float
    """The distance of unrelated features."""
    bounded: bool
    """Whether 0 is the least distance."""
    redraws: bool
    """Whether each step sees other samples."""

    def shaped(self, coefficients: Tensor) -> Tensor:
        """The coefficients of the displacement itself."""

    def unit(self, distance: float) -> float:
        """What the regularity is relative to if ``distance`` is the one at the start."""

    def evaluate(self, coefficients: Tensor, unit: float | None) -> Evaluation:
        """The value and its gradient."""

    def overlap(self, coefficients: Tensor) -> bool:
        """Whether any sample counts."""

    def curvature(self, unit: float) -> Tensor:
        """An upper bound of its curvature for each coefficient."""

    def longest_step(self, config: RefineConfig) -> Tensor:
        """The longest step of a coefficient per axis, (D, 1, …)."""

    def renew(self, coefficients: Tensor) -> None:
        """Become the function with features that are extracted again."""

    def redraw(self) -> None:
        """Become the function of other samples."""


class Problem:
    """The objective of one level as a function of the spline's coefficients."""

    def __init__(  # noqa: PLR0913 - what is compared, how, and what is there already
        self,
        terms: Sequence[Term],
        lattice: SplineLattice,
        config: RefineConfig,
        renewal: Renewal | None = None,
        prior: Prior = NOTHING,
        *,
        generator: torch.Generator | None = None,
        layouts: Layouts | None = None,
    ) -> None:
        """Lay out the matrices of the spline and the features, unless ``layouts`` has them.

        ``generator`` is what ``redraw`` draws from.
        """
        layouts = Layouts() if layouts is None else layouts
        self.lattice = lattice
        self.config = config
        self.renewal = renewal
        self.generator = torch.Generator().manual_seed(0) if generator is None else generator
        self.device = device_of(terms)
        self.spacing_mm = min(min(term.fixed.grid.spacing) for term in terms)
        self.terms = tuple(terms)
        self.bounds = [TermMatch(term, lattice, layouts.readable(term.moving)) for term in terms]
        self.matches: list[Match] = self._drawn(self.bounds)
        if config.mode == "jacobian":
            if renewal is None:
                raise ConfigError("expected a network to differentiate for the mode jacobian, got none: name a model")
            given = [match for match, term in zip(self.bounds, terms, strict=True) if term.given]
            self.matches = [ImageMatch([term for term in terms if not term.given], lattice, renewal), *given]
        self.points = None if prior.points is None else PointMatch(prior.points, lattice, self.device)
        self.smoothness = Smoothness(lattice, config, self.device, prior)
        self.scale = ALIKE
        self.bounded = all(term.measure.zero_at_match for term in terms)
        self.redraws = config.sampling < 1 or (any(term.subset for term in terms) and config.mode == "static")

    def _drawn(self, matches: list[TermMatch]) -> list[Match]:
        """The matches at the share of their samples that the settings ask for, without those that never count."""
        if self.config.sampling == 1:
            return [_counting(match) for match in matches]
        return [DrawnMatch(match, self.config.sampling) for match in matches]

    def shaped(self, coefficients: Tensor) -> Tensor:
        """The coefficients of the displacement itself, smoothed where the settings ask for it."""
        return smooth(coefficients, passes=self.config.smoothing) if self.config.smoothing else coefficients

    def _unshaped(self, pulls: Tensor) -> Tensor:
        """The gradient in the coefficients of what has the gradient ``pulls`` in ``shaped``, which is linear."""
        if not self.config.smoothing:
            return pulls
        variable = torch.zeros_like(pulls).requires_grad_()
        return pullback([self.shaped(variable)], [pulls], [variable])[0]

    def unit(self, distance: float) -> float:
        """What the regularity is relative to if ``distance`` is the one at the start."""
        if self.config.balance == "raw":
            return self.terms[0].factor / self.terms[0].share  # the same for all terms: that of a distance of 1
        return distance if self.bounded and self.config.relative_to == "start" else self.scale

    def evaluate(self, coefficients: Tensor, unit: float | None) -> Evaluation:
        """The objective and its gradient; ``unit`` is what the regularity is relative to (None: by this distance)."""
        coefficients = coefficients.detach()
        shaped = self.shaped(coefficients)
        distance, pulls = 0.0, torch.zeros_like(shaped)
        for match in self.matches:
            value, pull = match.data(match.index(shaped))
            distance += value
            pulls += match.index.adjoint(pull)
        if unit is None:
            unit = self.unit(distance)
        regularity, stiff = self.smoothness.pull(shaped, unit)
        pulls.add_(stiff)
        value = distance + unit * regularity
        if self.points is not None:
            guided, pull = self.points.pull(shaped, unit)
            value += guided
            pulls.add_(pull)
        gradient = restricted(self._unshaped(pulls), self.config.axes)
        if not (math.isfinite(value) and _finite(gradient)):
            raise DivergedError(
                f"expected finite values in the refinement, got a distance of {distance}: "
                "lower refine.step_mm, or check the images for extreme values"
            )
        return Evaluation(coefficients, distance, value, gradient)

    def renew(self, coefficients: Tensor) -> None:
        """Extract the moving features again from the image warped by the smooth part of ``coefficients``.

        A model sees patches: what varies within one is no motion of the patch. Baked into the image, it would come
        back as a difference of the features, and be answered by still rougher displacements. So the features are read
        where they were, and only their change is that of the smooth part.
        """
        if self.renewal is None:
            raise ConfigError("expected images to extract features from again, got none: set refine.update_every=0")
        anchor = self.shaped(coefficients.detach())
        radius = round(PATCH_VOXELS / max(self.lattice.step))
        anchor = smooth(anchor, radius=radius, passes=2) if radius else anchor
        displacement = self.lattice.field(anchor, self.lattice.grid)
        renewed = self.renewal.renewed(displacement, self.spacing_mm)
        modelled = [match for match, term in zip(self.bounds, self.terms, strict=True) if not term.given]
        given = [match for match, term in zip(self.bounds, self.terms, strict=True) if term.given]
        pairs = zip(modelled, renewed, strict=True)
        self.matches = self._drawn([*(match.renewed(term.moving, displacement) for match, term in pairs), *given])

    def redraw(self) -> None:
        """Draw other channels for the terms that ask for it, and other samples where not all are compared."""
        for match in self.matches:
            match.redraw(self.generator)

    def overlap(self, coefficients: Tensor) -> bool:
        """Whether any sample of any term counts."""
        shaped = self.shaped(coefficients)
        return any(bool((match.weight(match.index(shaped)) > 0).any()) for match in self.bounds)

    def curvature(self, unit: float) -> Tensor:
        """An upper bound of the objective's curvature for each coefficient, from the fixed features' gradients."""
        bound = torch.stack([match.curvature() for match in self.bounds]).sum(0)
        bound = self.smoothness.curved(bound, unit)
        if self.points is not None:
            bound = bound + self.points.curvature(unit)
        return bound.clamp(min=1e-3 * total(bound) / bound.numel() + 1e-30)

    def longest_step(self, config: RefineConfig) -> Tensor:
        """The longest step of a coefficient per axis, in voxels of the lattice's grid, (D, 1, …)."""
        finest = min(self.lattice.grid.spacing)
        voxel = self.spacing_mm
        step = voxel if config.step_mm is None else config.step_mm * voxel / finest
        lengths = [step / s for s in self.lattice.grid.spacing]
        return torch.tensor(lengths, device=self.device).reshape(-1, *[1] * self.lattice.grid.dimension)

    def regularity(self, coefficients: Tensor) -> float:
        """Weighted diffusion and folding penalty, relative to a distance of 1."""
        return self.smoothness.value(coefficients)


def _counting(match: TermMatch) -> Match:
    """The match at the samples that count in the fixed image, where they are clearly fewer than all."""
    if match.fixed_weight is None or match.distance.slope is None:
        return match
    rows = match.fixed_weight.nonzero().flatten()
    return PartMatch(match, rows) if len(rows) < WORTH * len(match.fixed) else match


def _finite(x: Tensor) -> bool:
    """Whether all values are; without a copy of them."""
    low, high = torch.aminmax(x)
    return math.isfinite(float(low)) and math.isfinite(float(high))
