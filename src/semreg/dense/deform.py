"""Search, then refinement: from terms of the objective to the displacement. Knows nothing of feature models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from semreg.config import RegistrationConfig
from semreg.dense.balance import for_refinement, for_search
from semreg.dense.bspline import SplineLattice
from semreg.dense.coarse import coarse
from semreg.dense.match import Renewal, distance_at
from semreg.dense.refine import LevelReport, lattice_of, refine
from semreg.dense.terms import Term, device_of
from semreg.events import Clock
from semreg.fields import Field
from semreg.geometry import Grid

INVERSE_ITERATIONS = 10
"""Of the fixed-point iteration between the two directions; each one shrinks the error by about the largest strain."""


@dataclass(frozen=True)
class Deformed:
    """The spline that was found with its coefficients, the distances before and after, and how each stage went."""

    lattice: SplineLattice
    coefficients: Tensor
    similarity: dict[str, float]
    levels: tuple[LevelReport, ...] = ()
    spreads: tuple[float, ...] = ()
    """Of the costs of each layer in the search, where they are balanced by that."""


def deform(
    terms: Sequence[Term], grids: tuple[Grid, Grid], config: RegistrationConfig, clock: Clock, renewal: Renewal
) -> Deformed:
    """Find the displacement on the first of ``grids``, those of the fixed and the moving features."""
    grid, there = grids
    found = Field.zeros(grid, device=device_of(terms))
    before = distance_at(terms, found)
    spread: tuple[float, ...] = ()
    if config.coarse.enabled:
        with clock.stage("coarse"):
            weighed, spread = for_search(terms, grid, found, config.coarse)
            found = coarse(weighed, grid, found, config.coarse, clock.on_step)
    if not config.refine.enabled:
        lattice = lattice_of(grid, config.refine)
        similarity = {"before": before, "after": distance_at(terms, found)}
        return Deformed(lattice, lattice.fit(found), similarity, spreads=spread)
    with clock.stage("refine"):
        weighed = for_refinement(terms, found, config.refine)
        directions, levels = 2 if config.refine.symmetric else 1, config.refine.levels
        refined = refine(weighed, grid, found, config.refine, clock.counting(levels, directions, done=0), renewal)
        lattice, coefficients, reports = refined.lattice, refined.coefficients, refined.levels
        found = lattice.field(coefficients, grid)
        if config.refine.symmetric:
            start = found.inverse(there, iterations=INVERSE_ITERATIONS)
            hook = clock.counting(levels, directions, done=1)
            back = refine([term.swapped() for term in weighed], there, start, config.refine, hook)
            other = back.lattice.field(back.coefficients, there).inverse(grid, iterations=INVERSE_ITERATIONS)
            coefficients = lattice.fit(Field((found.vox + other.vox) / 2, grid))
            found = lattice.field(coefficients, grid)
            reports += back.levels
    similarity = {"before": before, "after": distance_at(terms, found)}
    return Deformed(lattice, coefficients, similarity, reports, spread)
