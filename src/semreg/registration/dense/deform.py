"""Search, then refinement: from terms of the objective to the displacement. Knows nothing of feature models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from semreg.config import RegistrationConfig
from semreg.core.fields import Field, Volume, warp
from semreg.core.geometry import Grid
from semreg.registration.dense.balance import for_refinement, for_search
from semreg.registration.dense.coarse import coarse
from semreg.registration.dense.data_term import Renewal, distance_at
from semreg.registration.dense.disagreement import Disagreement, between_mm, together_mm
from semreg.registration.dense.refine import LevelReport, Refined, lattice_of, refine
from semreg.registration.dense.stiffness import stiffened
from semreg.registration.dense.terms import Term, device_of
from semreg.runtime.events import Clock
from semreg.transforms.bspline import SplineLattice

INVERSE_ITERATIONS = 10
"""Steps of the inversion between the two directions."""


@dataclass(frozen=True)
class Deformed:
    """The spline that was found with its coefficients, the distances before and after, and how each stage went."""

    lattice: SplineLattice
    coefficients: Tensor
    similarity: dict[str, float]
    levels: tuple[LevelReport, ...] = ()
    spreads: tuple[float, ...] = ()
    """Of the costs of each layer in the search, where they are balanced by that."""
    disagreement: Disagreement = field(default_factory=Disagreement)
    """How far the two directions of the search and of the refinement are from undoing each other."""


def deform(  # noqa: PLR0913, PLR0917 - what is compared, where, how, from where, and who is told
    terms: Sequence[Term],
    grids: tuple[Grid, Grid],
    config: RegistrationConfig,
    clock: Clock,
    renewal: Renewal,
    stiffness: Volume | None = None,
    begin: Field | None = None,
) -> Deformed:
    """Find the displacement on the first of ``grids``, those of the fixed and the moving features.

    ``begin`` is where it starts, None: at no displacement.

    ``stiffness`` is a map (1, *S) in the space of the fixed image, on any grid, that weighs the regularity from
    place to place: 1 is the usual weight, see ``checked_stiffness``, which has checked it.
    """
    grid = grids[0]
    if stiffness is not None:
        stiffness = Volume(stiffness.data.to(device_of(terms)), stiffness.grid)
    found = Field.zeros(grid, device=device_of(terms)) if begin is None else _moved(begin.on(grid), terms)
    before = distance_at(terms, found)
    spread: tuple[float, ...] = ()
    opposed: list[Volume] = []
    if config.coarse.enabled:
        with clock.stage("coarse"):
            weighed, spread = for_search(terms, grid, found, config.coarse)
            found = coarse(weighed, grid, found, config.coarse, clock.on_step, opposed.append)
    if not config.refine.enabled:
        lattice = lattice_of(grid, config.refine)
        coefficients = lattice.fit(found)
        if stiffness is not None:
            coefficients = stiffened(lattice, coefficients, stiffness)
            found = lattice.field(coefficients, grid)
        similarity = {"before": before, "after": distance_at(terms, found)}
        disagreement = Disagreement(together_mm(opposed))
        return Deformed(lattice, coefficients, similarity, spreads=spread, disagreement=disagreement)
    with clock.stage("refine"):
        weighed = for_refinement(terms, found, config.refine)
        hook = clock.counting(config.refine.levels, 2 if config.refine.symmetric else 1, done=0)
        refined = refine(weighed, grid, found, config.refine, hook, renewal, stiffness, config.seed)
        apart: Volume | None = None
        if config.refine.symmetric:
            refined, apart = _both_ways(refined, weighed, grids, config, clock, stiffness)
        found = refined.lattice.field(refined.coefficients, grid)
    similarity = {"before": before, "after": distance_at(terms, found)}
    disagreement = Disagreement(together_mm(opposed), apart)
    return Deformed(refined.lattice, refined.coefficients, similarity, refined.levels, spread, disagreement)


def _moved(field: Field, terms: Sequence[Term]) -> Field:
    """The field in single precision where the features lie."""
    return Field(field.vox.to(device_of(terms), torch.float32), field.grid)


def _both_ways(
    refined: Refined,
    terms: Sequence[Term],
    grids: tuple[Grid, Grid],
    config: RegistrationConfig,
    clock: Clock,
    stiffness: Volume | None,
) -> tuple[Refined, Volume]:
    """Refine the other way too, from the inverse of what was found; the mean of both, and how far they were apart."""
    grid, there = grids
    lattice = refined.lattice
    found = lattice.field(refined.coefficients, grid)
    start = found.inverse(there, iterations=INVERSE_ITERATIONS)
    hook = clock.counting(config.refine.levels, 2, done=1)
    carried = None if stiffness is None else warp(stiffness, start, outside=1.0)
    swapped = [term.swapped() for term in terms]
    back = refine(swapped, there, start, config.refine, hook, stiffness=carried, seed=config.seed)
    other = back.lattice.field(back.coefficients, there).inverse(grid, iterations=INVERSE_ITERATIONS)
    coefficients = lattice.fit(Field((found.vox + other.vox) / 2, grid))
    if stiffness is not None:
        coefficients = stiffened(lattice, coefficients, stiffness)
    mean = replace(refined, coefficients=coefficients, levels=refined.levels + back.levels)
    return mean, between_mm(found, other)
