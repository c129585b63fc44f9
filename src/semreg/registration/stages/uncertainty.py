"""The stage that asks the features how far the displacement may be off."""

from __future__ import annotations

from collections.abc import Sequence

from semreg.core.fields import Field
from semreg.registration.dense.deform import deform, feature_grids
from semreg.registration.dense.terms import Term
from semreg.registration.sliding.descent import side_of
from semreg.registration.stages.stage import Stage, State
from semreg.registration.uncertainty import Uncertainty, estimate, on_sides


def run(state: State) -> None:
    """Estimate it in the frame of the features, on either side of a wall from what lies there alone."""
    config, found = state.config, state.deformed
    grids = feature_grids(state.frame, config)

    def again(terms: Sequence[Term]) -> Field:
        found = deform(terms, grids, config, renewal=state.images, prior=state.prior, begin=state.first)
        return found.spline.field(grids[0])

    def doubt(terms: Sequence[Term], field: Field) -> Uncertainty:
        return estimate(
            terms, field, config.uncertainty, disagreement=found.disagreement, spread=state.spread, again=again,
            seed=config.seed, axes=config.refine.axes,
        )  # fmt: skip

    if state.slid is None or state.wall is None:
        state.doubt = doubt(state.terms, found.spline.field(grids[0]))
        return
    wall = state.wall.reordered(state.frame.axes)
    splines = ((True, state.slid.inner), (False, state.slid.outer))
    inner, outer = (
        doubt(side_of(wall, state.terms, inner=inside), spline.field(grids[0])) for inside, spline in splines
    )
    state.doubt = on_sides(inner, outer, wall.share(inner=True))


UNCERTAINTY = Stage(name="uncertainty", run=run, wanted=lambda state: state.config.uncertainty.enabled, share=0.03)
