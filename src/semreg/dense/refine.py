"""Refinement: quasi-Newton descent on the control points of a spline, through the warp of the moving features.

The distance of the features, the diffusion of the displacement and a penalty on compression beyond a limit are
lowered together, from coarse to fine. Knows nothing of feature models.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from semreg.config import RefineConfig
from semreg.dense.bspline import SplineLattice, product
from semreg.errors import DivergedError, GeometryError
from semreg.events import OnStep, Step
from semreg.fields import Field, Layer, jacobian_determinant
from semreg.geometry import Grid, index_map
from semreg.regularity import diffusion, folding
from semreg.sampling import SampleTable, base_index, inside, sample, smooth, transform_index
from semreg.similarity import DISTANCES, SMALL, Slope

CONTROL_VOXELS = 4
"""Spacing of the control points in feature voxels where the settings leave it open."""
CHUNK = 1 << 15
"""Samples warped at once: small enough that their intermediate results stay in the processor's cache."""
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


def lattice_of(layer: Layer, config: RefineConfig, factor: int = 1) -> SplineLattice:
    """Control points for a level whose features are ``factor`` times as far apart as those of ``layer``."""
    grid = layer.grid
    spacing = (CONTROL_VOXELS * min(grid.spacing) if config.control_mm is None else config.control_mm) * factor
    return SplineLattice(grid, tuple(spacing / s for s in grid.spacing))


def refine(fixed: Layer, moving: Layer, initial: Field, config: RefineConfig, on_step: OnStep | None = None) -> Refined:
    """Lower the distance between ``fixed`` and the warped ``moving`` features, starting at ``initial``.

    Both layers share axes and spacing. Raises GeometryError where no sample of the two can be compared and
    DivergedError for values that are not finite.
    """
    started = time.perf_counter()
    reports: list[LevelReport] = []
    field = initial
    for number in range(1, config.levels + 1):
        factor = 2 ** (config.levels - number)
        near, far = (fixed, moving) if factor == 1 else (fixed.pooled(factor), moving.pooled(factor))
        lattice = lattice_of(fixed, config, factor)

        def report(iteration: int, value: float, level: int = number) -> None:
            if on_step is not None:
                on_step(
                    Step(
                        stage="refine", level=level, levels=config.levels, iteration=iteration,
                        iterations=config.iterations, value=value, seconds=time.perf_counter() - started,
                    )
                )  # fmt: skip

        problem = Problem(near, far, lattice, config)
        coefficients, outcome = descend(problem, lattice.fit(field), config, report)
        reports.append(outcome)
        field = lattice.field(coefficients, fixed.grid)
    return Refined(lattice, coefficients, tuple(reports))


class Problem:
    """The objective of one level as a function of the spline's coefficients."""

    def __init__(self, fixed: Layer, moving: Layer, lattice: SplineLattice, config: RefineConfig) -> None:
        """Lay out the features and the matrices of the spline."""
        grid, device = fixed.grid, fixed.features.data.device
        self.grid = grid
        self.lattice = lattice
        self.finest = min(lattice.grid.spacing)
        self.config = config
        self.distance = DISTANCES[config.distance]
        self.fixed = fixed.features.data.flatten(1).T.contiguous()
        self.fixed_weight = None if fixed.weight is None else fixed.weight.data.flatten()
        self.table = SampleTable(moving.features.data)
        self.moving_weight = moving.weight
        self.moving_shape = moving.grid.shape
        self.bases = [b.to(device) for b in lattice.bases(lattice.positions(grid))]
        # displacements come in voxels of the lattice's grid; both feature grids share its axes
        self.unit = torch.tensor(
            [a / b for a, b in zip(lattice.grid.spacing, grid.spacing, strict=True)], device=device
        ).reshape(-1, 1)
        matrix = index_map(grid, moving.grid)
        dimension = grid.dimension
        start = torch.as_tensor(matrix[:dimension, dimension], dtype=torch.float32, device=device)
        self.base = base_index(grid.shape, like=self.fixed).flatten(1) + start[:, None]
        self.slopes = _slope_bases(lattice, device)
        self.energy = _energy(fixed)
        self.scale = self.distance.scale(self.fixed, self.fixed_weight)

    def index(self, coefficients: Tensor) -> Tensor:
        """Where the samples are read in the moving features, (D, P)."""
        return self.base + product(coefficients, self.bases).flatten(1) * self.unit

    def data(self, index: Tensor) -> tuple[float, Tensor]:
        """The distance at ``index`` (D, P) and its gradient (D, P)."""
        weight = self.weight(index)
        if self.distance.slope is not None:
            return self._additive(index, weight, self.distance.slope)
        chunks = [part.clone().requires_grad_() for part in torch.split(index, CHUNK, 1)]
        warped = [self.table.sample(part) for part in chunks]
        values = torch.cat([w.detach() for w in warped]).requires_grad_()
        distance = self.distance(self.fixed, values, weight)
        distance.backward()  # type: ignore[no-untyped-call]
        assert values.grad is not None  # noqa: S101  (for the type checker: backward has just filled it)
        torch.autograd.backward(warped, torch.split(values.grad, CHUNK))
        return float(distance.detach()), torch.cat([part.grad for part in chunks if part.grad is not None], 1)

    def _additive(self, index: Tensor, weight: Tensor, slope: Slope) -> tuple[float, Tensor]:
        """The same for a distance that is a weighted mean over samples: chunk by chunk, while it is in the cache."""
        total, gradient = 0.0, torch.empty_like(index)
        share = weight / weight.sum().clamp(min=SMALL)
        for first in range(0, index.shape[1], CHUNK):
            part = slice(first, first + CHUNK)
            where = index[:, part].clone().requires_grad_()
            warped = self.table.sample(where)
            value, pull = slope(self.fixed[part], warped.detach(), share[part])
            total += value
            (gradient[:, part],) = torch.autograd.grad(warped, where, pull)
        return total, gradient

    def weight(self, index: Tensor) -> Tensor:
        """How much each sample counts, (P,): inside the moving image and both masks."""
        weight = inside(index, self.moving_shape).to(index.dtype)
        if self.moving_weight is not None:
            share = self.moving_weight.data
            # a sample between a known and an excluded feature would mix the two
            known = sample((share > 0).to(share.dtype), index, outside=0.0)[0] > 1 - SMALL
            weight = weight * known * sample(share, index)[0]
        return weight if self.fixed_weight is None else weight * self.fixed_weight

    def evaluate(self, coefficients: Tensor, unit: float | None) -> Evaluation:
        """The objective and its gradient; ``unit`` is the distance that the regularity is relative to (None: this)."""
        variable = coefficients.detach().requires_grad_()
        index = self.index(variable)
        distance, slope = self.data(index.detach())
        unit = distance if unit is None else unit
        regularity = self.regularity(variable)
        ((index * slope).sum() + unit * regularity).backward()  # type: ignore[no-untyped-call]
        value, gradient = distance + unit * float(regularity.detach()), variable.grad
        if gradient is None or not (math.isfinite(value) and bool(gradient.isfinite().all())):
            raise DivergedError(
                f"expected finite values in the refinement, got a distance of {distance}: "
                "lower refine.step_mm, or check the images for extreme values"
            )
        return Evaluation(coefficients.detach(), distance, value, gradient)

    def curvature(self, unit: float) -> Tensor:
        """An upper bound of the objective's curvature for each coefficient, from the fixed features' gradients."""
        share = self.distance.curvature(self.fixed, self.fixed_weight) * len(self.fixed) / self.grid.voxels
        bound = share * product(
            self.energy * self.unit.reshape(-1, *[1] * self.grid.dimension) ** 2, [b.T for b in self.bases]
        )
        for axis, bases in enumerate(self.slopes.bases):
            absolute = [b.abs() for b in bases]
            rows = product(torch.ones_like(bound), absolute)
            strength = self.slopes.unit[:, axis] ** 2 * 2 * self.config.diffusion * unit / rows[0].numel()
            bound = bound + strength * product(rows, [b.T for b in absolute])
        return bound.clamp(min=1e-3 * float(bound.mean()) + 1e-30)

    def longest_step(self, config: RefineConfig) -> Tensor:
        """The longest step of a coefficient per axis, in voxels of the lattice's grid, (D, 1, …)."""
        voxel = min(self.grid.spacing)
        step = voxel if config.step_mm is None else config.step_mm * voxel / self.finest
        lengths = [step / s for s in self.lattice.grid.spacing]
        return torch.tensor(lengths, device=self.fixed.device).reshape(-1, *[1] * self.grid.dimension)

    def regularity(self, coefficients: Tensor) -> Tensor:
        """Weighted diffusion and folding penalty, relative to a distance of 1."""
        gradient = torch.stack([product(coefficients, bases) for bases in self.slopes.bases], 1)
        gradient = gradient * self.slopes.unit
        result = self.config.diffusion * diffusion(gradient)
        if self.config.folding:
            result = result + self.config.folding * folding(gradient, self.config.minimum_jacobian)
        return result


def _energy(layer: Layer) -> Tensor:
    """Squared differences between neighbouring features along each axis, summed over the channels, (D, *S).

    Differences to excluded voxels do not count.
    """
    features = layer.features.data
    energy = features.new_zeros((features.ndim - 1, *features.shape[1:]))
    for axis, n in enumerate(features.shape[1:]):
        if n > 1:
            squared = features.diff(dim=axis + 1).square().sum(0)
            if layer.weight is not None:
                known = layer.weight.data[0] > 0
                squared = squared * (known.narrow(axis, 0, n - 1) & known.narrow(axis, 1, n - 1))
            energy[axis].narrow(axis, 0, n - 1).add_(squared, alpha=0.5)
            energy[axis].narrow(axis, 1, n - 1).add_(squared, alpha=0.5)
    return energy


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
    _check_overlap(problem.weight(problem.index(start)))
    first = problem.evaluate(start, None)
    if first.distance <= EQUAL * problem.scale:
        return start, _report(problem, "the features are equal already", first, first, [])
    unit = first.distance
    inverse = 1 / problem.curvature(unit)
    longest = problem.longest_step(config)
    best = first
    memory: list[tuple[Tensor, Tensor]] = []
    objective = [best.value]
    direction, length = _limited(-inverse * best.gradient, longest), 1.0
    reason = f"reached the largest number of iterations, {config.iterations}"
    for iteration in range(1, config.iterations + 1):
        trial = problem.evaluate(best.coefficients + length * direction, unit)
        if trial.value <= best.value:
            memory = _remembered(memory, trial, best)
            best, length = trial, 1.0
            direction = _limited(_quasi_newton(best.gradient, memory, inverse), longest)
        else:
            length /= 2
        objective.append(best.value)
        report(iteration, best.distance)
        if _stalled(objective, config.tolerance):
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


def distance_at(fixed: Layer, moving: Layer, field: Field, name: str) -> float:
    """The distance ``name`` between ``fixed`` and ``moving`` features read through ``field``; NaN without overlap."""
    grid = fixed.grid
    index = transform_index(index_map(grid, moving.grid), field.on(grid).index()).flatten(1)
    weight = inside(index, moving.grid.shape).to(index.dtype)
    for layer, where in ((moving, index), (fixed, None)):
        if layer.weight is not None:
            data = layer.weight.data
            weight = weight * (data.flatten() if where is None else sample(data, where, outside=0.0)[0])
    if not bool((weight > 0).any()):
        return math.nan
    table = SampleTable(moving.features.data)
    values = torch.cat([table.sample(part) for part in torch.split(index, CHUNK, 1)])
    return float(DISTANCES[name](fixed.features.data.flatten(1).T, values, weight))


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
    spacing, steps = min(problem.grid.spacing), max(0, len(objective) - 1)
    return LevelReport(spacing, steps, reason, first.distance, last.distance, tuple(objective))


def _stalled(objective: list[float], tolerance: float) -> bool:
    return len(objective) > PATIENCE and objective[-1 - PATIENCE] - objective[-1] < tolerance * abs(objective[-1])


def _check_overlap(weight: Tensor) -> None:
    if not bool((weight > 0).any()):
        raise GeometryError(
            "expected voxels that both images (and masks) show, got none: check the masks, or give an initial transform"
        )
