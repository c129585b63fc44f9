"""From one displacement to two, of what lies inside a wall and of what lies outside: a search for each, one descent.

Both are splines on one lattice. Each sees its own samples alone and is smooth on its own side; the other side is where
it goes on as it likes. Knows nothing of stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from semreg.config import RefineConfig, RegistrationConfig
from semreg.core.fields import Field, Layer, Volume
from semreg.core.geometry import Grid, index_map
from semreg.core.sampling import sample, transform_index
from semreg.errors import GeometryError
from semreg.registration.dense.axes import restricted
from semreg.registration.dense.correspondences import Correspondences
from semreg.registration.dense.deform import begun, search
from semreg.registration.dense.layouts import Layouts
from semreg.registration.dense.objective import Problem
from semreg.registration.dense.prior import Prior
from semreg.registration.dense.refine import LevelReport, descend, lattice_of
from semreg.registration.dense.stiffness import LEAST, stiffened
from semreg.registration.dense.terms import Term, device_of
from semreg.registration.sliding.contact import Contact
from semreg.registration.sliding.objective import Sides
from semreg.registration.sliding.wall import Wall
from semreg.transforms.bspline import Spline, SplineLattice

PASSES = 2
"""Descents of a level: before each the points of the wall look for their partners."""


@dataclass(frozen=True)
class Begin:
    """Where the displacements of both sides begin."""

    inner: Field
    outer: Field


@dataclass(frozen=True)
class Slid:
    """The displacements of both sides."""

    inner: Spline
    outer: Spline
    levels: tuple[LevelReport, ...] = ()


def side_of(wall: Wall, terms: Sequence[Term], *, inner: bool) -> tuple[Term, ...]:
    """The terms on one side of a wall, which count as many of the samples of all as they have."""
    share = wall.share(inner=inner)
    found = []
    for term in terms:
        layer, whole = term.fixed, term.fixed.weight
        here = share.averaged_on(layer.grid).data.to(layer.features.data)
        weight = here if whole is None else here * whole.data
        total = layer.grid.voxels if whole is None else float(whole.data.double().sum())
        part = float(weight.double().sum()) / max(total, 1.0)
        found.append(replace(term, fixed=Layer(layer.features, Volume(weight, layer.grid)), share=term.share * part))
    leaders = [term for term in found if term.measure.leads] or found
    if not any(term.share for term in leaders):
        raise GeometryError(
            f"expected both sides of what slides to be compared, got masks that leave nothing "
            f"{'inside' if inner else 'outside'} of it: give masks that have both, or none"
        )
    return tuple(found)


def searched(
    wall: Wall, terms: Sequence[Term], grid: Grid, begin: Begin, config: RegistrationConfig, prior: Prior
) -> Begin:
    """What a search finds on each side, on nodes of ``grid``."""
    sides = []
    for inner, start in ((True, begin.inner), (False, begin.outer)):
        own = side_of(wall, terms, inner=inner)
        points = points_on(prior.searched, wall, inner=inner)
        sides.append(search(own, begun(own, grid, start), config.coarse, axes=config.refine.axes, points=points).found)
    return Begin(*sides)


def slid(wall: Wall, terms: Sequence[Term], grid: Grid, begin: Begin, config: RefineConfig, prior: Prior) -> Slid:
    """Lower the objective of both sides together, from coarse to fine.

    Args:
        wall: what parts the sides, on the axes of ``grid``.
        terms: what is compared.
        grid: on which the control points are counted.
        begin: where both displacements begin.
        config: how it descends.
        prior: what both are held to; a map of the stiffness holds on both sides.

    Returns:
        Both displacements, and how each descent went.
    """
    device, layouts, points = device_of(terms), Layouts(), wall.points()
    sides = [
        (side_of(wall, terms, inner=inner), _prior_of(wall, prior, device, inner=inner)) for inner in (True, False)
    ]
    fields, reports = [begin.inner, begin.outer], []
    for number in range(1, config.levels + 1):
        factor = 2 ** (config.levels - number)
        lattice = lattice_of(grid, config, factor)
        problems = []
        for own, held in sides:
            near = list(own) if factor == 1 else [layouts.pooled(term, factor * min(grid.spacing)) for term in own]
            problems.append(Problem(near, lattice, config, None, held, layouts=layouts))
        inner, outer = problems
        contact = Contact(points, lattice, inner.spacing_mm, device)
        objective = Sides(inner, outer, contact)
        found = torch.cat([restricted(_fit(lattice, each, prior), config.axes) for each in fields])
        for _ in range(PASSES):
            contact.meet(*found.chunk(2))
            found, outcome = descend(objective, found, config, _untold)
            reports.append(outcome)
        halves = [half.contiguous() for half in found.chunk(2)]
        fields = [lattice.field(half, grid) for half in halves]
    return Slid(Spline.of(lattice, halves[0]), Spline.of(lattice, halves[1]), tuple(reports))


def _fit(lattice: SplineLattice, field: Field, prior: Prior) -> Tensor:
    """The coefficients of a displacement, with little strain where it is stiff."""
    found = lattice.fit(field)
    if prior.stiffness is None:
        return found
    return stiffened(lattice, found, Volume(prior.stiffness.data.to(found.device), prior.stiffness.grid))


def _prior_of(wall: Wall, prior: Prior, device: torch.device, *, inner: bool) -> Prior:
    """What one side is held to: smooth on its own side, and hardly beyond."""
    share = wall.share(inner=inner).data
    usual = share if prior.stiffness is None else share * prior.stiffness.on(wall.grid, outside=1.0).data.to(share)
    return Prior(Volume(usual.clamp(min=LEAST).to(device), wall.grid), points_on(prior.points, wall, inner=inner))


def points_on(points: Correspondences | None, wall: Wall, *, inner: bool) -> Correspondences | None:
    """Those of the points whose fixed one lies on one side; None: there are none."""
    if points is None:
        return None
    index = transform_index(index_map(points.grid, wall.grid), points.fixed)
    share = wall.share(inner=inner).data
    own = sample(share, index.float(), mode="nearest", outside=float(not inner))[0] > 0
    if not bool(own.any()):
        return None
    return Correspondences(points.grid, points.fixed[:, own], points.moving[:, own], points.sd_mm[own])


def _untold(iteration: int, value: float, objective: float) -> None:
    """Steps are not told."""
