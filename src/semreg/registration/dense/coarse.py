"""Coarse stage: discrete search in dense windows, coupled-convex regularisation, inverse consistency.

Method: Siebert, Großbröhmer, Hansen, Heinrich: ConvexAdam. IEEE Transactions on Medical Imaging, 2024. The windows of
several levels add up to the search range, so memory grows with its logarithm and not with its cube: the coarsest level
sees far, each finer one corrects what is left. Knows nothing of feature models.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from semreg.config import CoarseConfig
from semreg.core.fields import Field, Layer
from semreg.core.geometry import Grid, index_map
from semreg.core.kernels import Costs, Extended, cost_volume, coupled_choice
from semreg.core.sampling import base_index, sample, transform_index
from semreg.errors import ConfigError
from semreg.registration.dense.axes import free_axes
from semreg.registration.dense.correspondences import Correspondences, add_costs
from semreg.registration.dense.disagreement import OnDisagreement, undone_mm
from semreg.registration.dense.terms import Term
from semreg.runtime.events import OnStep, Step
from semreg.runtime.memory import SHARE, available_bytes

COUPLING = (1e-4, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Weights of the coupling between the discrete choice and the smooth field, as in the paper, per squared node.

The first one, added here, makes the smallest displacement win where the costs do not tell.
"""
INVERSE_ITERATIONS = 15
DEFAULT_SPACING = 2
"""Spacing of the finest nodes in feature voxels where the settings leave it open."""
FINEST_HALF_WIDTH = 2
"""Half width of the windows at the finest level, in nodes; coarser levels use the setting."""


@dataclass(frozen=True)
class Level:
    """One level of the search: nodes ``factor`` feature voxels apart (per tensor axis), windows of ± ``half_width``."""

    factor: tuple[int, ...]
    half_width: int
    spacing_mm: float

    @property
    def reach_mm(self) -> float:
        """The largest displacement per axis that this level adds."""
        return self.spacing_mm * self.half_width


def plan_levels(grid: Grid, config: CoarseConfig) -> list[Level]:
    """Levels from coarse to fine for features on ``grid``: those asked for, or windows that add up to the reach."""
    voxel = min(grid.spacing)
    base = DEFAULT_SPACING if config.spacing_mm is None else max(1, round(config.spacing_mm / voxel))
    thick = [extent for extent, n in zip(grid.extent_mm, grid.shape, strict=True) if n > 1] or [voxel]
    reach = min(30.0, min(thick) / 2) if config.reach_mm is None else config.reach_mm
    finest = config.half_width if config.levels == 1 else FINEST_HALF_WIDTH
    widths = itertools.chain([finest], itertools.repeat(config.half_width))
    levels: list[Level] = []
    while len(levels) < (config.levels or 1) or (
        config.levels is None and sum(level.reach_mm for level in levels) < reach - 1e-6
    ):
        factor = base * 2 ** len(levels)
        factors = tuple(max(1, round(factor * voxel / s)) for s in grid.spacing)
        levels.insert(0, Level(factors, next(widths), factor * voxel))
    if config.levels is not None:
        return levels
    # the coarsest level goes no further than it must: what lies beyond the reach only adds wrong candidates
    rest = reach - sum(level.reach_mm for level in levels[1:])
    half_width = min(levels[0].half_width, max(1, math.ceil(rest / levels[0].spacing_mm - 1e-6)))
    return [replace(levels[0], half_width=half_width), *levels[1:]]


def memory_bytes(grid: Grid, levels: list[Level]) -> int:
    """The largest cost volume of the search in bytes, with its working copy."""
    sizes = [(2 * level.half_width + 1) ** grid.dimension * grid.pooled(level.factor).voxels for level in levels]
    return int(4 * max(sizes) * 5 // 4)


def coarse(  # noqa: PLR0913, PLR0917 - what is compared, where from, how, along what, and who is told
    terms: Sequence[Term],
    grid: Grid,
    initial: Field,
    config: CoarseConfig,
    on_step: OnStep | None = None,
    on_disagreement: OnDisagreement | None = None,
    axes: Sequence[str] = (),
    points: Correspondences | None = None,
) -> Field:
    """The displacement on nodes of ``grid`` that matches the features best among all in the search range.

    The layers of all terms share the axes of ``grid``. ``initial`` is where the search starts. The result lies on the
    nodes of the finest level. ``on_disagreement`` is told after each level how far in mm the search in one direction
    was from undoing that in the other. ``axes``: the directions along which windows extend; none: all. ``points`` of
    both images are led to each other.
    """
    started = time.perf_counter()
    levels = plan_levels(grid, config)
    if config.levels is not None:
        _check_memory(memory_bytes(grid, levels))
    field = initial
    for number, level in enumerate(levels, start=1):
        start = field.on(grid.pooled(level.factor))
        near = [_at_nodes(term, grid, level) for term in terms]
        update, value = search(near, start, level.half_width, config, on_disagreement, axes, points)
        field = update.then(start)
        if on_step is not None:
            seconds = time.perf_counter() - started
            on_step(
                Step(
                    stage="coarse", level=number, levels=len(levels), iteration=1, iterations=1, value=value,
                    seconds=seconds,
                )
            )  # fmt: skip
    return field


def spreads(
    terms: Sequence[Term], grid: Grid, initial: Field, config: CoarseConfig, axes: Sequence[str] = ()
) -> tuple[float, ...]:
    """How much the costs of each term tell candidates apart: their range over a window, mean over the nodes.

    Of the coarsest level, from the fixed to the moving features, before any weight; 0 for a term that tells nothing.
    """
    level = plan_levels(grid, config)[0]
    _check_memory(memory_bytes(grid, [level]))
    start = initial.on(grid.pooled(level.factor))
    widths = widths_of(level.half_width, start.grid, axes)
    candidates = window(widths)
    found = []
    for term in terms:
        near = _at_nodes(term, grid, level)
        here, there = _extended(near, widths).inner(), _warped(near, start, widths)
        cost = cost_volume(here, there, candidates, _costs(term, config))
        found.append(float((cost.amax(1) - cost.amin(1)).mean()))
    return tuple(found)


def widths_of(half_width: int, nodes: Grid, axes: Sequence[str]) -> tuple[int, ...]:
    """Half widths of a window per axis, in nodes: 0 along an axis of one node, and where nothing may move."""
    free = free_axes(axes, nodes.dimension)
    return tuple(half_width if n > 1 and may else 0 for n, may in zip(nodes.shape, free, strict=True))


def _check_memory(needed: int) -> None:
    """Refuse windows whose costs do not fit (ConfigError); those that the reach plans grow with its logarithm only."""
    room = SHARE * available_bytes()
    if needed > room:
        raise ConfigError(
            f"expected windows whose costs fit into {room / 1e9:.2g} GB of memory, got {needed / 1e9:.2g} GB: lower "
            "coarse.half_width, or raise coarse.spacing_mm"
        )


def _at_nodes(term: Term, grid: Grid, level: Level) -> Term:
    """A term with its fixed features at the nodes, and its moving ones about as far apart."""
    nodes = grid.pooled(level.factor)
    fixed = term.fixed.pooled(level.factor) if term.fixed.grid == grid else term.fixed.averaged_on(nodes)
    spacing = term.moving.grid.spacing
    factor = tuple(max(1, round(node / s)) for node, s in zip(nodes.spacing, spacing, strict=True))
    return replace(term, fixed=fixed, moving=term.moving.pooled(factor))


def search(  # noqa: PLR0913, PLR0917 - what is compared, where from, how, along what, and who is told
    terms: Sequence[Term],
    start: Field,
    half_width: int,
    config: CoarseConfig,
    on_disagreement: OnDisagreement | None = None,
    axes: Sequence[str] = (),
    points: Correspondences | None = None,
) -> tuple[Field, float]:
    """One level: the displacement to apply before ``start``, and the mean matching cost of the chosen candidates.

    The fixed features of all terms lie on the grid of ``start``.
    """
    widths = widths_of(half_width, start.grid, axes)
    candidates = window(widths)
    pairs = [(_extended(term, widths), _warped(term, start, widths)) for term in terms]
    compared = list(zip(terms, pairs, strict=True))
    cost = _total([(term, here.inner(), there) for term, (here, there) in compared], candidates, config)
    if points is not None:
        add_costs(cost, points, candidates, start, back=False)
    forward, value = coupled_convex(cost, candidates, start.grid.shape)
    if config.inverse_consistency:
        cost = _total([(term, there.inner(), here) for term, (here, there) in compared], candidates, config)
        if points is not None:
            add_costs(cost, points, candidates, start, back=True)
        backward, _ = coupled_convex(cost, candidates, start.grid.shape)
        if on_disagreement is not None:
            on_disagreement(undone_mm(forward, backward, start.grid))
        forward = make_consistent(forward, backward)
    return Field(forward, start.grid), value


def _total(pairs: Sequence[tuple[Term, Extended, Extended]], candidates: Tensor, config: CoarseConfig) -> Tensor:
    """The weighted sum of the cost volumes of all terms, (nodes, K)."""
    total: Tensor | None = None
    for term, near, far in pairs:
        how = replace(_costs(term, config), factor=term.factor)
        total = cost_volume(near, far, candidates, how, total, add=total is not None)
    if total is None:
        raise ConfigError("expected at least one layer of features to search with, got none")
    return total


def _costs(term: Term, config: CoarseConfig) -> Costs:
    measure = term.measure
    return Costs(compare=measure.cost, formula=measure.formula, smoothing=config.smoothing)


def window(widths: tuple[int, ...]) -> Tensor:
    """All displacements of a window in nodes (K, D), the smallest first: where costs are equal, that one wins."""
    offsets = itertools.product(*[range(-w, w + 1) for w in widths])
    return torch.tensor(sorted(offsets, key=lambda d: sum(v * v for v in d)))


def _extended_index(shape: tuple[int, ...], widths: tuple[int, ...], like: Tensor) -> Tensor:
    index = base_index(tuple(n + 2 * w for n, w in zip(shape, widths, strict=True)), like=like)
    return index - torch.tensor(widths, dtype=like.dtype, device=like.device).reshape(-1, *[1] * len(widths))


def _extended(term: Term, widths: tuple[int, ...]) -> Extended:
    x = _embedded(term, term.fixed)
    index = _extended_index(term.fixed.grid.shape, widths, x)
    return Extended(sample(x, index), _sampled_weight(term.fixed, index), widths)


def _warped(term: Term, start: Field, widths: tuple[int, ...]) -> Extended:
    """The moving features as the nodes see them through ``start``, border vectors and features continued."""
    moving = term.moving
    x = _embedded(term, moving)
    index = _extended_index(start.grid.shape, widths, x)
    index = index + sample(start.vox, index)
    index = transform_index(index_map(start.grid, moving.grid), index)
    return Extended(sample(x, index), _sampled_weight(moving, index), widths)


def _embedded(term: Term, layer: Layer) -> Tensor:
    return term.measure.embed(layer.features.data, None if layer.weight is None else layer.weight.data)


def _sampled_weight(layer: Layer, index: Tensor) -> Tensor | None:
    return None if layer.weight is None else sample(layer.weight.data, index)


def coupled_convex(cost: Tensor, candidates: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, float]:
    """Alternate between the best candidate near a smooth field and the smooth field through these candidates.

    ``cost`` (nodes, K) → displacement in nodes (D, *shape), and the mean cost of the last choice.
    """
    return coupled_choice(cost, candidates, shape, COUPLING)


def make_consistent(forward: Tensor, backward: Tensor) -> Tensor:
    """The forward field (D, *S) in nodes, after it and ``backward`` were brought nearer to being inverse."""
    index = base_index(tuple(forward.shape[1:]), like=forward)
    for _ in range(INVERSE_ITERATIONS):
        forward, backward = (
            0.5 * (forward - sample(backward, index + forward)),
            0.5 * (backward - sample(forward, index + backward)),
        )
    return forward
