"""Refinement: descent on the control points of a spline, through the warp of the moving features.

The distance of the features, the diffusion of the displacement and a penalty on compression beyond a limit are
lowered together, from coarse to fine. Knows nothing of feature models.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from semreg.config import RefineConfig
from semreg.core.fields import Field
from semreg.core.geometry import Grid
from semreg.core.sums import product
from semreg.errors import GeometryError
from semreg.registration.dense.adam import adam
from semreg.registration.dense.axes import restricted
from semreg.registration.dense.data_term import Renewal, distance_at
from semreg.registration.dense.held_out import DIFFUSION, best_weight, folds
from semreg.registration.dense.layouts import Layouts
from semreg.registration.dense.objective import Evaluation, Objective, Problem
from semreg.registration.dense.prior import NOTHING, Prior
from semreg.registration.dense.stiffness import stiffened
from semreg.registration.dense.terms import Term
from semreg.registration.dense.unfold import unfold
from semreg.runtime.events import OnStep, Step
from semreg.transforms.bspline import Spline, SplineLattice

__all__ = ["LevelReport", "Refined", "descend", "lattice_of", "refine", "unfold"]

CONTROL_VOXELS = 4
"""Spacing of the control points in feature voxels where the settings leave it open."""
EQUAL = 1e-6
"""A distance below this share of the features' own variation is rounding: there is nothing to refine."""
MEMORY = 6
"""Steps that the quasi-Newton direction remembers."""
LONG = 100
"""Steps of a level at most where the settings leave them open and trials asked for more of the diffusion."""
TRIAL_STEPS = 10
"""Steps of a trial of a weight, at most."""
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
    """The objective at the start and after each step."""
    returned: int
    """After which step the control points were as they are returned; 0: the start."""
    diffusion: float | None = None
    """The weight of the regularity; None: it was not kept."""


@dataclass(frozen=True)
class Refined:
    """The displacement after the refinement, and a report per level.

    ``config`` leaves nothing open.
    """

    spline: Spline
    levels: tuple[LevelReport, ...]
    config: RefineConfig


def lattice_of(grid: Grid, config: RefineConfig, factor: int = 1) -> SplineLattice:
    """Control points for a level whose features are ``factor`` times as far apart as the samples of ``grid``."""
    spacing = (CONTROL_VOXELS * min(grid.spacing) if config.control_mm is None else config.control_mm) * factor
    return SplineLattice(grid, tuple(spacing / s for s in grid.spacing))


def refine(  # noqa: PLR0913, PLR0917 - what is compared, where from, how, and who is told
    terms: Sequence[Term],
    grid: Grid,
    initial: Field,
    config: RefineConfig,
    on_step: OnStep | None = None,
    renewal: Renewal | None = None,
    prior: Prior = NOTHING,
    seed: int = 0,
    layouts: Layouts | None = None,
) -> Refined:
    """Lower the distance between the fixed and the warped moving features of all terms, starting at ``initial``.

    The layers of all terms share the axes of ``grid``, on which the control points are counted. ``renewal`` gives
    features of the warped image, for the modes that ask for them. ``layouts`` are layers that others prepared. Each
    level draws its samples and channels from ``seed`` again. Raises GeometryError where no sample of the images can be
    compared and DivergedError for values that are not finite.
    """
    started = time.perf_counter()
    reports: list[LevelReport] = []
    field, generator = initial, torch.Generator()
    layouts = Layouts() if layouts is None else layouts
    config = _settled(terms, grid, initial, config, prior, layouts)
    for number in range(1, config.levels + 1):
        factor = 2 ** (config.levels - number)
        lattice = lattice_of(grid, config, factor)

        def report(iteration: int, value: float, objective: float, level: int = number) -> None:
            if on_step is not None:
                on_step(
                    Step(
                        stage="refine", level=level, levels=config.levels, iteration=iteration,
                        iterations=config.steps, value=value, seconds=time.perf_counter() - started,
                        objective=objective,
                    )
                )  # fmt: skip

        whole = factor == 1 or config.mode == "jacobian"  # a network sees the image as it is
        near = list(terms) if whole else [layouts.pooled(term, factor * min(grid.spacing)) for term in terms]
        generator.manual_seed(seed)
        problem = Problem(near, lattice, config, renewal, prior, generator=generator, layouts=layouts)
        start = lattice.fit(field)
        if prior.stiffness is not None:
            start = stiffened(lattice, start, prior.stiffness)
        coefficients, outcome = descend(problem, restricted(start, config.axes), config, report)
        reports.append(outcome)
        if prior.stiffness is not None:
            coefficients = restricted(stiffened(lattice, coefficients, prior.stiffness), config.axes)
        field = lattice.field(coefficients, grid)
    return Refined(Spline.of(lattice, coefficients), tuple(reports), config)


def _settled(
    terms: Sequence[Term],
    grid: Grid,
    initial: Field,
    config: RefineConfig,
    prior: Prior,
    layouts: Layouts,
) -> RefineConfig:
    """The settings with the weight of the diffusion and the number of steps that they left open.

    Few steps hold the displacement near what the search found: they are a regularity of their own (early stopping: Yao,
    Rosasco, Caponnetto, Constructive Approximation, 2007). Where more of the diffusion holds it, the descent may end.
    """
    divisible = _divisible(terms, config)
    asked = config.diffusion is None and config.iterations is None and bool(divisible)
    weight = DIFFUSION if config.diffusion is None else config.diffusion
    if asked:
        weight = _fitting(divisible, grid, initial, config, prior, layouts)
    steps = LONG if asked and weight > DIFFUSION else config.steps
    return replace(config, diffusion=weight, iterations=steps)


def _divisible(terms: Sequence[Term], config: RefineConfig) -> list[Term]:
    """Those whose distance is one mean over samples, so that some of them can be held out."""
    static = config.mode == "static" and not config.update_every and config.sampling == 1
    return [term for term in terms if static and term.measure.slope is not None and not term.subset]


def _fitting(
    terms: Sequence[Term],
    grid: Grid,
    initial: Field,
    config: RefineConfig,
    prior: Prior,
    layouts: Layouts,
) -> float:
    """The weight of the diffusion that predicts unseen samples best, at least the usual one."""
    parts = folds(terms)

    def attempt(weight: float, number: int) -> float:
        trial = replace(config, diffusion=weight, iterations=TRIAL_STEPS)
        shown, held_out = parts[number]
        found = refine(shown, grid, initial, trial, prior=prior, layouts=layouts)
        return distance_at(held_out, found.spline.field(grid), layouts)

    try:
        return best_weight(attempt)
    except GeometryError:  # of so few samples one half may lie outside of the moving image
        return DIFFUSION


def descend(
    problem: Objective, start: Tensor, config: RefineConfig, report: Callable[[int, float, float], None]
) -> tuple[Tensor, LevelReport]:
    """Lower the objective from ``start``: coefficients of the displacement, and how it ended.

    ``report`` gets the number of the step, the distance, and the objective relative to the unit of its regularity.
    """
    _check_overlap(overlap=problem.overlap(start))
    first = problem.evaluate(start, None)
    if problem.bounded and first.distance <= EQUAL * problem.scale:
        return problem.shaped(start), _report(problem, "the features are equal already", first, first, [], 0)
    unit = problem.unit(first.distance)

    def tell(iteration: int, at: Evaluation) -> None:
        report(iteration, at.distance, at.value / unit)

    if config.optimizer == "adam":
        best, objective, returned = adam(problem, first, unit, config, tell)
        reason = f"made all {config.steps} steps"
    else:
        best, objective, reason = _lbfgs(problem, first, unit, config, tell)
        returned = len(objective) - 1
    return problem.shaped(best.coefficients), _report(problem, reason, first, best, objective, returned)


def _lbfgs(
    problem: Objective, first: Evaluation, unit: float, config: RefineConfig, tell: Callable[[int, Evaluation], None]
) -> tuple[Evaluation, list[float], str]:
    """The best point, the objective at the start and after each step, and why it ended.

    Quasi-Newton steps (L-BFGS: Liu, Nocedal, Mathematical Programming 1989) on coefficients scaled by an upper bound
    of their curvature. A step is never longer than the configuration allows, and halved where the objective rises.
    """
    inverse = 1 / problem.curvature(unit)
    longest = problem.longest_step(config)
    best = first
    memory: list[tuple[Tensor, Tensor]] = []
    objective = [best.value]
    since = 0  # the step from which on the objective is the same function
    direction, length = _limited(-inverse * best.gradient, longest), 1.0
    reason = f"reached the largest number of iterations, {config.steps}"
    for iteration in range(1, config.steps + 1):
        if problem.redraws or (config.update_every and iteration > 1 and (iteration - 1) % config.update_every == 0):
            if problem.redraws:
                problem.redraw()
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
        tell(iteration, best)
        if _stalled(objective[since:], config.tolerance):
            reason = f"the objective fell by less than {config.tolerance:g} of itself over {PATIENCE} steps"
            break
    return best, objective, reason


def _limited(step: Tensor, longest: Tensor) -> Tensor:
    """The step, shortened as a whole where one control point would move further than ``longest`` per axis."""
    return step / max(1.0, float((step.abs() / longest).max()))


def _remembered(memory: list[tuple[Tensor, Tensor]], new: Evaluation, old: Evaluation) -> list[tuple[Tensor, Tensor]]:
    """The last steps and what they changed in the gradient; only those along which the objective curves upwards."""
    step, change = new.coefficients - old.coefficients, new.gradient - old.gradient
    if product(step, change) <= 0:
        return memory
    return [*memory, (step, change)][-MEMORY:]


def _quasi_newton(gradient: Tensor, memory: list[tuple[Tensor, Tensor]], inverse: Tensor) -> Tensor:
    """The two-loop recursion of L-BFGS with the diagonal ``inverse`` as the first guess of the inverse Hessian."""
    vector, shares = gradient, []
    for step, change in reversed(memory):
        share = product(step, vector) / product(step, change)
        shares.append(share)
        vector = vector - share * change
    vector = vector * inverse
    if memory:
        step, change = memory[-1]
        vector = vector * (product(step, change) / product(change * inverse, change))
    for (step, change), share in zip(memory, reversed(shares), strict=True):
        vector = vector + step * (share - product(change, vector) / product(step, change))
    return -vector


def _report(
    problem: Objective, reason: str, first: Evaluation, last: Evaluation, objective: list[float], returned: int
) -> LevelReport:
    spacing, steps = problem.spacing_mm, max(0, len(objective) - 1)
    weight = problem.config.diffusion
    return LevelReport(spacing, steps, reason, first.distance, last.distance, tuple(objective), returned, weight)


def _stalled(objective: list[float], tolerance: float) -> bool:
    return len(objective) > PATIENCE and objective[-1 - PATIENCE] - objective[-1] < tolerance * abs(objective[-1])


def _check_overlap(*, overlap: bool) -> None:
    if not overlap:
        raise GeometryError(
            "expected voxels that both images (and masks) show, got none: check the masks, or give an initial transform"
        )
