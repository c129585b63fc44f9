"""Refinement: quasi-Newton descent on the control points of a spline, through the warp of the moving features.

The distance of the features, the diffusion of the displacement and a penalty on compression beyond a limit are
lowered together, from coarse to fine. Knows nothing of feature models.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from semreg.config import RefineConfig
from semreg.dense.bspline import SplineLattice, product
from semreg.dense.match import ImageMatch, Match, Renewal, TermMatch
from semreg.dense.terms import ALIKE, Term, device_of
from semreg.errors import ConfigError, DivergedError, GeometryError
from semreg.events import OnStep, Step
from semreg.fields import Field, jacobian_determinant
from semreg.geometry import Grid
from semreg.regularity import diffusion, folding
from semreg.sampling import smooth

CONTROL_VOXELS = 4
"""Spacing of the control points in feature voxels where the settings leave it open."""
EQUAL = 1e-6
"""A distance below this share of the features' own variation is rounding: there is nothing to refine."""
SAFE_JACOBIAN = 0.01
"""The least Jacobian determinant that a result may have on the fixed grid."""
LOCAL_UNFOLDING = 40
MOST_UNFOLDING = 100
MEMORY = 6
"""Steps that the quasi-Newton direction remembers."""
PATIENCE = 5
"""Steps over which the objective must fall by the tolerance."""


@dataclass(frozen=True)
class LevelReport:
    """How one level ended."""

    spacing_mm: float
    """Spacing of the features."""
    iterations: int
    reason: str
    """Why it stopped, as a sentence."""
    distance_before: float
    distance_after: float
    objective: tuple[float, ...]
    """The objective after each step."""


@dataclass(frozen=True)
class Refined:
    """Control points after the refinement: ``coefficients`` (D, ...) of ``lattice``, and a report per level."""

    lattice: SplineLattice
    coefficients: Tensor
    levels: tuple[LevelReport, ...]


def lattice_of(grid: Grid, config: RefineConfig, factor: int = 1) -> SplineLattice:
    """Control points for a level whose features are ``factor`` times as far apart as the samples of ``grid``."""
    spacing = (CONTROL_VOXELS * min(grid.spacing) if config.control_mm is None else config.control_mm) * factor
    return SplineLattice(grid, tuple(spacing / s for s in grid.spacing))


def refine(
    terms: Sequence[Term],
    grid: Grid,
    initial: Field,
    config: RefineConfig,
    on_step: OnStep | None = None,
    renewal: Renewal | None = None,
) -> Refined:
    """Lower the distance between the fixed and the warped moving features of all terms, starting at ``initial``.

    The layers of all terms share the axes of ``grid``, on which the control points are counted. ``renewal`` gives
    features of the warped image, for the modes that ask for them. Raises GeometryError where no sample of the images
    can be compared and DivergedError for values that are not finite.
    """
    started = time.perf_counter()
    reports: list[LevelReport] = []
    field = initial
    for number in range(1, config.levels + 1):
        factor = 2 ** (config.levels - number)
        lattice = lattice_of(grid, config, factor)

        def report(iteration: int, value: float, level: int = number) -> None:
            if on_step is not None:
                on_step(
                    Step(
                        stage="refine", level=level, levels=config.levels, iteration=iteration,
                        iterations=config.iterations, value=value, seconds=time.perf_counter() - started,
                    )
                )  # fmt: skip

        whole = factor == 1 or config.mode == "jacobian"  # a network sees the image as it is
        near = list(terms) if whole else [term.pooled(factor * min(grid.spacing)) for term in terms]
        problem = Problem(near, lattice, config, renewal)
        coefficients, outcome = descend(problem, lattice.fit(field), config, report)
        reports.append(outcome)
        field = lattice.field(coefficients, grid)
    return Refined(lattice, coefficients, tuple(reports))


class Problem:
    """The objective of one level as a function of the spline's coefficients."""

    def __init__(
        self, terms: Sequence[Term], lattice: SplineLattice, config: RefineConfig, renewal: Renewal | None = None
    ) -> None:
        """Lay out the features and the matrices of the spline."""
        self.lattice = lattice
        self.config = config
        self.renewal = renewal
        self.device = device_of(terms)
        self.spacing_mm = min(min(term.fixed.grid.spacing) for term in terms)
        self.matches: list[Match] = [TermMatch(term, lattice) for term in terms]
        self.bounds = list(self.matches)
        if config.mode == "jacobian":
            if renewal is None:
                raise ConfigError("expected a network to differentiate for the mode jacobian, got none: name a model")
            self.matches = [ImageMatch(terms, lattice, renewal)]
        self.slopes = _slope_bases(lattice, self.device)
        self.scale = ALIKE
        self.bounded = all(term.measure.zero_at_match for term in terms)
        self.redraws = any(term.subset for term in terms) and config.mode == "static"
        self._anchor: Tensor | None = None

    def evaluate(self, coefficients: Tensor, unit: float | None) -> Evaluation:
        """The objective and its gradient; ``unit`` is the distance that the regularity is relative to (None: this)."""
        variable = coefficients.detach().requires_grad_()
        distance, pulled = 0.0, variable.new_zeros(())
        for match in self.matches:
            index = match.index(variable if self._anchor is None else variable - self._anchor)
            value, slope = match.data(index.detach())
            distance += value
            pulled = pulled + (index * slope).sum()
        if unit is None:
            unit = distance if self.bounded else self.scale
        regularity = self.regularity(variable)
        (pulled + unit * regularity).backward()  # type: ignore[no-untyped-call]
        value, gradient = distance + unit * float(regularity.detach()), variable.grad
        if gradient is None or not (math.isfinite(value) and bool(gradient.isfinite().all())):
            raise DivergedError(
                f"expected finite values in the refinement, got a distance of {distance}: "
                "lower refine.step_mm, or check the images for extreme values"
            )
        return Evaluation(coefficients.detach(), distance, value, gradient)

    def renew(self, coefficients: Tensor) -> None:
        """Extract the moving features anew from the image warped by ``coefficients``."""
        if self.renewal is None:
            raise ConfigError("expected images to extract features from again, got none: set refine.update_every=0")
        self.matches = [
            TermMatch(term, self.lattice)
            for term in self.renewal.renewed(self.lattice.field(coefficients, self.lattice.grid), self.spacing_mm)
        ]
        self._anchor = coefficients.detach()

    def redraw(self, generator: torch.Generator) -> None:
        """Draw other channels for the terms that ask for it."""
        for match in self.matches:
            match.redraw(generator)

    def overlap(self, coefficients: Tensor) -> bool:
        """Whether any sample of any term counts."""
        return any(bool((match.weight(match.index(coefficients)) > 0).any()) for match in self.bounds)

    def curvature(self, unit: float) -> Tensor:
        """An upper bound of the objective's curvature for each coefficient, from the fixed features' gradients."""
        bound = torch.stack([match.curvature() for match in self.bounds]).sum(0)
        for axis, bases in enumerate(self.slopes.bases):
            absolute = [b.abs() for b in bases]
            rows = product(torch.ones_like(bound), absolute)
            strength = self.slopes.unit[:, axis] ** 2 * 2 * self.config.diffusion * unit / rows[0].numel()
            bound = bound + strength * product(rows, [b.T for b in absolute])
        return bound.clamp(min=1e-3 * float(bound.mean()) + 1e-30)

    def longest_step(self, config: RefineConfig) -> Tensor:
        """The longest step of a coefficient per axis, in voxels of the lattice's grid, (D, 1, …)."""
        finest = min(self.lattice.grid.spacing)
        voxel = self.spacing_mm
        step = voxel if config.step_mm is None else config.step_mm * voxel / finest
        lengths = [step / s for s in self.lattice.grid.spacing]
        return torch.tensor(lengths, device=self.device).reshape(-1, *[1] * self.lattice.grid.dimension)

    def regularity(self, coefficients: Tensor) -> Tensor:
        """Weighted diffusion and folding penalty, relative to a distance of 1."""
        gradient = torch.stack([product(coefficients, bases) for bases in self.slopes.bases], 1)
        gradient = gradient * self.slopes.unit
        result = self.config.diffusion * diffusion(gradient)
        if self.config.folding:
            result = result + self.config.folding * folding(gradient, self.config.minimum_jacobian)
        return result


@dataclass(frozen=True)
class Slopes:
    """Matrices for the derivative along each axis, and the factor from voxels per voxel to mm per mm."""

    bases: list[list[Tensor]]
    unit: Tensor


def _slope_bases(lattice: SplineLattice, device: torch.device) -> Slopes:
    """The derivatives of the spline are checked at two places per control interval."""
    positions = []
    for n, step in zip(lattice.grid.shape, lattice.step, strict=True):
        count = 1 if n == 1 else max(2, math.ceil(2 * (n - 1) / step))
        positions.append(np.linspace(0.0, n - 1.0, count))
    dimension = lattice.grid.dimension
    bases = [[b.to(device) for b in lattice.bases(positions, axis)] for axis in range(dimension)]
    spacing = torch.tensor(lattice.grid.spacing, device=device)
    unit = (spacing[:, None] / spacing[None]).reshape(dimension, dimension, *[1] * dimension)
    return Slopes(bases, unit)


def descend(
    problem: Problem, start: Tensor, config: RefineConfig, report: Callable[[int, float], None]
) -> tuple[Tensor, LevelReport]:
    """Lower the objective from ``start``; the best coefficients seen, and how it ended.

    Quasi-Newton steps (L-BFGS: Liu, Nocedal, Mathematical Programming 1989) on coefficients scaled by an upper bound
    of their curvature. A step is never longer than the configuration allows, and halved where the objective rises.
    """
    _check_overlap(overlap=problem.overlap(start))
    first = problem.evaluate(start, None)
    if problem.bounded and first.distance <= EQUAL * problem.scale:
        return start, _report(problem, "the features are equal already", first, first, [])
    unit = first.distance if problem.bounded else problem.scale
    generator = torch.Generator().manual_seed(torch.initial_seed())
    inverse = 1 / problem.curvature(unit)
    longest = problem.longest_step(config)
    best = first
    memory: list[tuple[Tensor, Tensor]] = []
    objective = [best.value]
    since = 0  # the step from which on the objective is the same function
    direction, length = _limited(-inverse * best.gradient, longest), 1.0
    reason = f"reached the largest number of iterations, {config.iterations}"
    for iteration in range(1, config.iterations + 1):
        if problem.redraws or (config.update_every and iteration > 1 and (iteration - 1) % config.update_every == 0):
            if problem.redraws:
                problem.redraw(generator)
            else:
                problem.renew(best.coefficients)
            best = problem.evaluate(best.coefficients, unit)  # the objective is another one now
            memory, length, since = [], 1.0, len(objective)
            direction = _limited(_quasi_newton(best.gradient, memory, inverse), longest)
        trial = problem.evaluate(best.coefficients + length * direction, unit)
        if trial.value <= best.value:
            memory = _remembered(memory, trial, best)
            best, length = trial, 1.0
            direction = _limited(_quasi_newton(best.gradient, memory, inverse), longest)
        else:
            length /= 2
        objective.append(best.value)
        report(iteration, best.distance)
        if _stalled(objective[since:], config.tolerance):
            reason = f"the objective fell by less than {config.tolerance:g} of itself over {PATIENCE} steps"
            break
    return best.coefficients, _report(problem, reason, first, best, objective)


@dataclass(frozen=True)
class Evaluation:
    """The objective at some coefficients."""

    coefficients: Tensor
    distance: float
    value: float
    gradient: Tensor


def _limited(step: Tensor, longest: Tensor) -> Tensor:
    """The step, shortened as a whole where one control point would move further than ``longest`` per axis."""
    return step / max(1.0, float((step.abs() / longest).max()))


def _remembered(memory: list[tuple[Tensor, Tensor]], new: Evaluation, old: Evaluation) -> list[tuple[Tensor, Tensor]]:
    """The last steps and what they changed in the gradient; only those along which the objective curves upwards."""
    step, change = new.coefficients - old.coefficients, new.gradient - old.gradient
    if float((step * change).sum()) <= 0:
        return memory
    return [*memory, (step, change)][-MEMORY:]


def _quasi_newton(gradient: Tensor, memory: list[tuple[Tensor, Tensor]], inverse: Tensor) -> Tensor:
    """The two-loop recursion of L-BFGS with the diagonal ``inverse`` as the first guess of the inverse Hessian."""
    vector, shares = gradient, []
    for step, change in reversed(memory):
        share = (step * vector).sum() / (step * change).sum()
        shares.append(share)
        vector = vector - share * change
    vector = vector * inverse
    if memory:
        step, change = memory[-1]
        vector = vector * ((step * change).sum() / (change * inverse * change).sum())
    for (step, change), share in zip(memory, reversed(shares), strict=True):
        vector = vector + step * (share - (change * vector).sum() / (step * change).sum())
    return -vector


def unfold(lattice: SplineLattice, coefficients: Tensor, target: Grid) -> tuple[Field, int]:
    """The displacement on ``target`` without folded voxels, and the passes that took.

    Where the Jacobian determinant, as ITK computes it, is not above ``SAFE_JACOBIAN``, the control points around are
    smoothed until it is; if that does not end, the whole displacement shrinks towards its mean, a translation, until
    it does.
    """
    bases = [b.to(coefficients.device) for b in lattice.bases(lattice.positions(target))]
    influence = [(b > 0.05).to(b.dtype).T for b in bases]
    field = lattice.field(coefficients, target)
    for number in range(MOST_UNFOLDING):
        folded = jacobian_determinant(field) <= SAFE_JACOBIAN
        if not bool(folded.any()):
            return field, number
        if number < LOCAL_UNFOLDING:
            near = product(folded[None].to(coefficients.dtype), influence) > 0
            coefficients = torch.where(near, smooth(coefficients), coefficients)
        else:
            mean = coefficients.flatten(1).mean(1).reshape(-1, *[1] * target.dimension)
            coefficients = mean + 0.8 * (coefficients - mean)
        field = lattice.field(coefficients, target)
    return field, MOST_UNFOLDING


def _report(problem: Problem, reason: str, first: Evaluation, last: Evaluation, objective: list[float]) -> LevelReport:
    spacing, steps = problem.spacing_mm, max(0, len(objective) - 1)
    return LevelReport(spacing, steps, reason, first.distance, last.distance, tuple(objective))


def _stalled(objective: list[float], tolerance: float) -> bool:
    return len(objective) > PATIENCE and objective[-1 - PATIENCE] - objective[-1] < tolerance * abs(objective[-1])


def _check_overlap(*, overlap: bool) -> None:
    if not overlap:
        raise GeometryError(
            "expected voxels that both images (and masks) show, got none: check the masks, or give an initial transform"
        )
