"""The stage that asks the features how far the displacement may be off."""

from __future__ import annotations

from collections.abc import Sequence

from semreg.core.fields import Field
from semreg.registration.dense.deform import deform, feature_grids
from semreg.registration.dense.terms import Term
from semreg.registration.stages.stage import Stage, State
from semreg.registration.uncertainty import estimate


def run(state: State) -> None:
    """Estimate it in the frame of the features."""
    config, found = state.config, state.deformed
    grids = feature_grids(state.frame, config)

    def again(terms: Sequence[Term]) -> Field:
        found = deform(terms, grids, config, renewal=state.images, prior=state.prior, begin=state.first)
        return found.spline.field(grids[0])

    state.doubt = estimate(
        state.terms, found.spline.field(grids[0]), config.uncertainty,
        disagreement=found.disagreement, spread=state.spread, again=again, seed=config.seed,
        axes=config.refine.axes,
    )  # fmt: skip


UNCERTAINTY = Stage(name="uncertainty", run=run, wanted=lambda state: state.config.uncertainty.enabled, share=0.03)
