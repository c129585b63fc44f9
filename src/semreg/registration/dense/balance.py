"""How several layers are brought to one scale before they are weighted against each other. Runs no search itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from semreg.config import CoarseConfig, RefineConfig
from semreg.core.fields import Field
from semreg.core.geometry import Grid
from semreg.distances.correlation import RADIUS
from semreg.registration.dense.coarse import spreads
from semreg.registration.dense.data_term import distance_at
from semreg.registration.dense.terms import ALIKE, Term

FLOOR = 1e-3
"""Share of the distance of unrelated features below which a value is about 0 and no measure of a layer."""


def for_search(
    terms: Sequence[Term], grid: Grid, start: Field, config: CoarseConfig, axes: Sequence[str] = ()
) -> tuple[Sequence[Term], tuple[float, ...]]:
    """The terms as they are weighed against each other in the search, and the spreads of their costs if these count."""
    if config.balance == "spread":
        found = spreads(terms, grid, start, config, axes)
        least = FLOOR * max(found)
        return balanced(terms, [max(value, least) or 1.0 for value in found]), found
    if config.balance == "first":
        return balanced(terms, first_values(terms, start)), ()
    return raw(terms) if config.balance == "raw" else terms, ()


def for_refinement(terms: Sequence[Term], start: Field, config: RefineConfig) -> Sequence[Term]:
    """The terms as they are weighed against each other in the refinement, with its windows for LNCC."""
    if config.window // 2 != RADIUS:
        terms = [replace(term, radius=config.window // 2) for term in terms]
    if config.balance == "first":
        return balanced(terms, first_values(terms, start))
    return raw(terms) if config.balance == "raw" else terms


def first_values(terms: Sequence[Term], field: Field) -> list[float]:
    """The distance of each term at ``field``, what losses that start at 1 are divided by; without unit.

    Where features are about equal already it is ``FLOOR`` of the distance of unrelated ones, so that a division by it
    does no harm; where nothing can be compared, that of unrelated ones.
    """
    values = []
    for term in terms:
        value = abs(distance_at([term], field)) / term.factor
        values.append(max(value, FLOOR * term.scale) if math.isfinite(value) else term.scale)
    return values


def balanced(terms: Sequence[Term], values: Sequence[float]) -> tuple[Term, ...]:
    """The terms with their distances divided by ``values``, one positive number each, and a common factor.

    The factor is such that the weighted sum of ``values`` themselves counts as much as before: the scale that the
    search and the refinement are tuned to stays. A single term stays as it is.
    """
    if len(terms) == 1:
        return tuple(terms)
    common = sum(term.share * value * ALIKE / term.scale for term, value in zip(terms, values, strict=True))
    return tuple(replace(term, scale=ALIKE * value / common) for term, value in zip(terms, values, strict=True))


def raw(terms: Sequence[Term]) -> tuple[Term, ...]:
    """The terms with their distances as they are and a common factor."""
    return balanced(terms, [1.0] * len(terms))
