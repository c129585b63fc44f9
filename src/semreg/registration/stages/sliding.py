"""The stage that finds a displacement for each side of a wall along which its inside slides."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from semreg.core.fields import Field, jacobian_determinant
from semreg.core.sampling import transform_index
from semreg.registration.dense.data_term import distance_at
from semreg.registration.dense.deform import feature_grids
from semreg.registration.dense.unfold import unfolded
from semreg.registration.sliding.contact import Contact
from semreg.registration.sliding.descent import Begin, Slid, searched, side_of, slid
from semreg.registration.sliding.report import SlidingReport
from semreg.registration.sliding.wall import Wall
from semreg.registration.stages.stage import Stage, State
from semreg.transforms.bspline import Spline
from semreg.transforms.pointwise import ErrorSummary

logger = logging.getLogger("semreg")


@dataclass(frozen=True)
class Joined:
    """The displacement that is that of either side, on the ordered grid of the fixed image."""

    deformation: Field
    total: Field
    determinants: Tensor
    """Of ``total``, each side's own, (*S)."""
    passes: int
    """How often either was unfolded."""


def run(state: State) -> None:
    """Descend on both sides from what was found for both, and from a search on each; what matches better is kept."""
    if state.wall is None:
        return
    wall, config = state.wall.reordered(state.frame.axes), state.config
    grid, before = feature_grids(state.frame, config)[0], state.deformed
    found = before.spline.field(grid)
    begins = [Begin(found, found)]
    if config.coarse.enabled:
        begins.append(searched(wall, state.terms, grid, begins[0], config, state.prior))
    weights = [level.diffusion for level in before.levels if level.diffusion is not None]
    settings = replace(
        config.refine, mode="static", update_every=0, sampling=1.0, optimizer="lbfgs",
        diffusion=weights[0] if weights else config.refine.diffusion,
    )  # fmt: skip
    owns = [side_of(wall, state.terms, inner=inner) for inner in (True, False)]

    def distance(each: Slid) -> float:
        return sum(distance_at(own, side.field(grid)) for own, side in zip(owns, (each.inner, each.outer), strict=True))

    # a search on one side alone sees less, and may go astray where one on both did not
    ways = [slid(wall, state.terms, grid, begin, settings, state.prior) for begin in begins]
    state.slid = min(ways, key=distance)
    after = distance(state.slid)
    state.deformed = replace(
        before, similarity=before.similarity | {"after": after}, levels=before.levels + state.slid.levels
    )


def joined(state: State, wall: Wall, found: Slid, start: Field | None) -> Joined:
    """Each voxel with the displacement of its side, without folds on either; what is said of it is set.

    ``wall`` lies on the ordered grid of the fixed image.
    """
    sides, fields, passes, ordered = [], [], 0, wall.grid
    for spline in (found.inner, found.outer):
        coefficients, taken = unfolded(
            spline.lattice, spline.coefficients, ordered, one_to_one=state.config.refine.diffeomorphic
        )
        sides.append(Spline.of(spline.lattice, coefficients))
        fields.append(Field(sides[-1].field(ordered).vox.cpu(), ordered))
        passes += taken
    totals = fields if start is None else [each.then(start) for each in fields]
    inside = wall.inside
    deformation, total = (Field(torch.where(inside, near.vox, far.vox), ordered) for near, far in (fields, totals))
    inner, outer = (jacobian_determinant(each) for each in totals)
    determinants = torch.where(inside, inner, outer)
    state.sliding = _report(state, wall, (sides[0], sides[1]), jacobian_determinant(total))
    for sentence in state.sliding.sentences:
        logger.warning("%s", sentence)
    return Joined(deformation, total, determinants, passes)


def _report(state: State, wall: Wall, sides: tuple[Spline, Spline], across: Tensor) -> SlidingReport:
    """What is left between both sides, before the start."""
    points, spacing = wall.points(), min(state.frame.fixed.spacing)
    inner, outer = (side.coefficients for side in sides)
    contact = Contact(points, sides[0].lattice, spacing, inner.device)
    contact.meet(inner, outer)
    slides = contact.slides_mm(inner, outer)
    most = transform_index(points.grid.index_to_point(), points.index[:, [int(slides.argmax())]])
    inner_part = tuple(slice(1, -1) if n > 2 else slice(None) for n in across.shape)
    return SlidingReport(
        labels=wall.labels,
        area=float(points.areas.sum()),
        slide_mm=ErrorSummary.of(slides),
        most_at=tuple(map(float, most[:, 0])),
        gap_mm=ErrorSummary.of(contact.gaps_mm(inner, outer)),
        unmatched_share=float((contact.counts == 0).float().mean()),
        across_share=float((across[inner_part] <= 0).float().mean()),
        voxel_mm=min(wall.grid.spacing),
    )


SLIDING = Stage(name="sliding", run=run, wanted=lambda state: state.wall is not None, share=0.15)
