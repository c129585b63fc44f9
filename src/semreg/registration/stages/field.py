"""The stage that puts the displacement on the fixed image's own grid, without folds, and warps the moving image."""

from __future__ import annotations

import logging

from torch import Tensor

from semreg.core.fields import Field, jacobian_determinant, reorder_tensor, restore_order, warp
from semreg.core.geometry import reorder
from semreg.errors import DivergedError
from semreg.registration.dense.unfold import unfold
from semreg.registration.result import Folding
from semreg.registration.stages.parts import with_parts
from semreg.registration.stages.sliding import joined
from semreg.registration.stages.stage import Stage, State

logger = logging.getLogger("semreg")


FOLDING_START = "the initial transform folds, or tears at the edge of its field"
FOLDING_PARTS = "the initial transform folds, or rigid parts move against each other and leave no room between them"


def run(state: State) -> None:
    """Unfold, compose with the start, and warp, once."""
    target, axes, start = state.pair.grids[0], state.frame.axes, state.start
    state.terms = ()  # nothing is compared any more: memory for the field
    del state.images, state.searched
    ordered = reorder(target, axes)
    found = state.deformed.spline
    determinants = None
    if state.slid is None or state.wall is None:
        deformation, passes = unfold(
            found.lattice, found.coefficients, ordered, one_to_one=state.config.refine.diffeomorphic
        )
        deformation = Field(deformation.vox.cpu(), ordered)
        deformation, total = with_parts(state, deformation, start)
    else:
        sides = joined(state, state.wall.reordered(axes), state.slid, start)
        deformation, total, passes = sides.deformation, sides.total, sides.passes
        determinants = reorder_tensor(sides.determinants[None], axes.inverse)[0]
    if not bool(total.known.all()):
        raise DivergedError("expected a finite displacement, got NaN or infinity: check the images and settings")
    deformation = restore_order(deformation, axes, target)
    state.deformation = deformation
    state.total = deformation if start is None else restore_order(total, axes, target)
    state.determinants = jacobian_determinant(state.total) if determinants is None else determinants
    state.folding = _folding(state.determinants, passes)
    state.warped = warp(state.pair.cleaned["moving"][0], state.total, outside=state.pair.outside)
    state.warped_contrasts = tuple(
        warp(each.pair.cleaned["moving"][0], state.total, outside=each.pair.outside) for each in state.contrasts
    )
    state.uncertainty = None if state.doubt is None else state.doubt.on_image(axes, target)
    if state.folding.minimum <= 0:
        logger.warning(
            "%.2g %% of the voxels are folded: %s",
            100 * state.folding.folded_share,
            FOLDING_START if state.parts is None else FOLDING_PARTS,
        )


def _folding(determinants: Tensor, passes: int) -> Folding:
    """Without the border, where differences are halved: there a start that turns by 90° looks like a fold."""
    inner = determinants[tuple(slice(1, -1) if size > 2 else slice(None) for size in determinants.shape)]
    return Folding(
        minimum=float(inner.min()),
        folded_share=float((inner <= 0).float().mean()),
        unfolding_passes=passes,
    )


FIELD = Stage(name="field", run=run, share=0.05)
