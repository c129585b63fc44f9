"""Search, then refinement: from terms of the objective to the displacement. Knows nothing of feature models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from semreg.config import CoarseConfig, RefineConfig, RegistrationConfig
from semreg.core.fields import Field, Volume, warp
from semreg.core.geometry import Grid, index_map
from semreg.core.sampling import transform_index
from semreg.preprocess.preparation import Frame
from semreg.registration.dense.axes import restricted
from semreg.registration.dense.balance import for_refinement, for_search
from semreg.registration.dense.coarse import coarse
from semreg.registration.dense.correspondences import Correspondences
from semreg.registration.dense.data_term import Renewal, distance_at
from semreg.registration.dense.disagreement import Disagreement, between_mm, together_mm
from semreg.registration.dense.prior import NOTHING, Prior
from semreg.registration.dense.refine import CONTROL_VOXELS, LevelReport, Refined, lattice_of, refine
from semreg.registration.dense.stiffness import stiffened
from semreg.registration.dense.terms import Term, device_of, leading
from semreg.runtime.events import OnStep, counting
from semreg.transforms.bspline import Spline

INVERSE_ITERATIONS = 10
"""Steps of the inversion between the two directions."""


@dataclass(frozen=True)
class Deformed:
    """The spline that was found, the distances before and after, and how each stage went."""

    spline: Spline
    similarity: dict[str, float]
    levels: tuple[LevelReport, ...] = ()
    spreads: tuple[float, ...] = ()
    """Of the costs of each layer in the search, where they are balanced by that."""
    disagreement: Disagreement = field(default_factory=Disagreement)
    """How far the two directions of the search and of the refinement are from undoing each other."""


@dataclass(frozen=True)
class Searched:
    """What the search found, on a grid of its own, and the distance before it."""

    found: Field
    before: float
    spreads: tuple[float, ...] = ()
    """Of the costs of each layer, where they are balanced by that."""
    opposed: tuple[Volume, ...] = ()
    """How far its two directions were from undoing each other, a level each."""


def feature_grids(frame: Frame, config: RegistrationConfig) -> tuple[Grid, Grid]:
    """The grids of the fixed and of the moving features."""
    pooling = config.features.pooling or 1
    return frame.fixed.pooled(pooling), frame.moving.pooled(pooling)


def deform(
    terms: Sequence[Term],
    grids: tuple[Grid, Grid],
    config: RegistrationConfig,
    *,
    renewal: Renewal,
    prior: Prior = NOTHING,
    begin: Field | None = None,
) -> Deformed:
    """All stages that find the displacement, one after the other, without telling steps."""
    searched = begun(terms, grids[0], begin)
    if config.coarse.enabled:
        searched = search(terms, searched, config.coarse, axes=config.refine.axes, points=prior.searched)
    if not config.refine.enabled:
        return fit(terms, grids[0], config.refine, searched, prior)
    return refined(terms, grids, config, searched, renewal=renewal, prior=prior)


def begun(terms: Sequence[Term], grid: Grid, begin: Field | None) -> Searched:
    """Where the displacement on ``grid``, that of the fixed features, begins: at ``begin``, None: at none."""
    found = Field.zeros(grid, device=device_of(terms)) if begin is None else _moved(begin.on(grid), terms)
    return Searched(found, distance_at(terms, found))


def search(
    terms: Sequence[Term],
    searched: Searched,
    config: CoarseConfig,
    on_step: OnStep | None = None,
    *,
    axes: Sequence[str] = (),
    points: Correspondences | None = None,
) -> Searched:
    """What a search adds to ``searched``, along the directions ``axes``; none: along all."""
    opposed: list[Volume] = []
    grid = searched.found.grid
    weighed, spreads = for_search(leading(terms), grid, searched.found, config, axes)
    found = coarse(weighed, grid, searched.found, config, on_step, opposed.append, axes, points)
    return Searched(found, searched.before, spreads, tuple(opposed))


def fit(
    terms: Sequence[Term], grid: Grid, config: RefineConfig, searched: Searched, prior: Prior = NOTHING
) -> Deformed:
    """The spline on ``grid`` that fits what was found, smoother where it is stiff: without a refinement."""
    found = searched.found  # of a search: on its nodes
    lattice = lattice_of(grid, config)
    coefficients = lattice.fit(found)
    stiffness = _with_terms(prior, terms).stiffness
    if stiffness is not None:
        coefficients = stiffened(lattice, coefficients, stiffness)
    coefficients = restricted(coefficients, config.axes)
    if stiffness is not None:
        found = lattice.field(coefficients, grid)
    similarity = {"before": searched.before, "after": distance_at(terms, found)}
    disagreement = Disagreement(together_mm(searched.opposed))
    return Deformed(Spline.of(lattice, coefficients), similarity, (), searched.spreads, disagreement)


def refined(  # noqa: PLR0913 - what is compared, where, how, from where, and who is told
    terms: Sequence[Term],
    grids: tuple[Grid, Grid],
    config: RegistrationConfig,
    searched: Searched,
    *,
    renewal: Renewal,
    on_step: OnStep | None = None,
    prior: Prior = NOTHING,
) -> Deformed:
    """The spline on the first of ``grids``, those of the fixed and the moving features, that a descent finds."""
    grid, found = grids[0], searched.found
    prior = _with_terms(prior, terms)
    weighed = for_refinement(terms, found, config.refine)
    hook = counting(on_step, config.refine.levels, 2 if config.refine.symmetric else 1, done=0)
    best = refine(weighed, grid, found, config.refine, hook, renewal, prior, config.seed)
    apart: Volume | None = None
    if config.refine.symmetric:
        best, apart = _both_ways(best, weighed, grids, config, on_step, prior)
    found = best.spline.field(grid)
    similarity = {"before": searched.before, "after": distance_at(terms, found)}
    disagreement = Disagreement(together_mm(searched.opposed), apart)
    return Deformed(best.spline, similarity, best.levels, searched.spreads, disagreement)


def averaged(
    deformed: Deformed, mean: Field, terms: Sequence[Term], config: RefineConfig, prior: Prior = NOTHING
) -> Deformed:
    """The same with the spline that fits a ``mean`` of several displacements, on the grid of the fixed features."""
    lattice = deformed.spline.lattice
    coefficients = lattice.fit(mean)
    stiffness = _with_terms(prior, terms).stiffness
    if stiffness is not None:
        coefficients = stiffened(lattice, coefficients, stiffness)
    spline = Spline.of(lattice, restricted(coefficients, config.axes))
    after = distance_at(terms, spline.field(mean.grid))
    return replace(deformed, spline=spline, similarity=deformed.similarity | {"after": after})


def _with_terms(prior: Prior, terms: Sequence[Term]) -> Prior:
    """The same with its map where the features lie."""
    found = prior.stiffness
    return prior if found is None else replace(prior, stiffness=Volume(found.data.to(device_of(terms)), found.grid))


def _moved(field: Field, terms: Sequence[Term]) -> Field:
    """The field in single precision where the features lie."""
    return Field(field.vox.to(device_of(terms), torch.float32), field.grid)


def _both_ways(
    refined: Refined,
    terms: Sequence[Term],
    grids: tuple[Grid, Grid],
    config: RegistrationConfig,
    on_step: OnStep | None,
    prior: Prior,
) -> tuple[Refined, Volume]:
    """Refine the other way too, from the inverse of what was found; the mean of both, and how far they were apart."""
    grid, there = grids
    lattice = refined.spline.lattice
    found = refined.spline.field(grid)
    there = there.part(*_seen(found, there))
    start = found.inverse(there, iterations=INVERSE_ITERATIONS)
    hook = counting(on_step, config.refine.levels, 2, done=1)
    carried = Prior(
        stiffness=None if prior.stiffness is None else warp(prior.stiffness, start, outside=1.0),
        points=None if prior.points is None else prior.points.swapped(),
    )
    swapped = [replace(term, moving=term.moving.part(*_seen(found, term.moving.grid))).swapped() for term in terms]
    back = refine(swapped, there, start, refined.config, hook, prior=carried, seed=config.seed)
    other = back.spline.field(there).inverse(grid, iterations=INVERSE_ITERATIONS)
    coefficients = lattice.fit(Field((found.vox + other.vox) / 2, grid))
    if prior.stiffness is not None:
        coefficients = stiffened(lattice, coefficients, prior.stiffness)
    coefficients = restricted(coefficients, config.refine.axes)
    mean = replace(refined, spline=Spline.of(lattice, coefficients), levels=refined.levels + back.levels)
    return mean, between_mm(found, other)


def _seen(found: Field, grid: Grid) -> tuple[list[int], list[int]]:
    """The first and the last index (plus 1) of ``grid`` that ``found`` leads to, with the reach of a control point.

    What a search may have reached beyond is not refined in the other direction: nothing is there to be compared.
    """
    index = transform_index(index_map(found.grid, grid), found.index()).flatten(1)
    start, stop = [], []
    for axis, n in enumerate(grid.shape):
        margin = CONTROL_VOXELS * max(1.0, found.grid.spacing[axis] / grid.spacing[axis])
        start.append(min(max(0, math.floor(float(index[axis].min()) - margin)), n - 1))
        stop.append(min(n, max(start[-1] + 1, math.ceil(float(index[axis].max()) + margin) + 1)))
    return start, stop
