"""The stage that asks the features how far the displacement may be off."""

from __future__ import annotations

from collections.abc import Sequence

from semreg.core.fields import Field
from semreg.registration.dense.deform import Deformed, deform, feature_grids
from semreg.registration.dense.terms import Term
from semreg.registration.stages.stage import Stage, State
from semreg.registration.uncertainty import estimate


def run(state: State) -> None:
    """Estimate it in the frame of the features."""
    config, found = state.config, state.deformed

    def again(terms: Sequence[Term]) -> Field:
        grids = feature_grids(state.frame, config)
        found = deform(terms, grids, config, renewal=state.images, prior=state.prior, begin=state.first)
        return _displacement(found)

    state.doubt = estimate(
        state.terms, _displacement(found), config.uncertainty,
        disagreement=found.disagreement, spread=state.spread, again=again, seed=config.seed,
        axes=config.refine.axes,
    )  # fmt: skip


def _displacement(deformed: Deformed) -> Field:
    """What was found, on the grid of the fixed features."""
    return deformed.spline.field(deformed.spline.lattice.grid)


UNCERTAINTY = Stage(name="uncertainty", run=run, wanted=lambda state: state.config.uncertainty.enabled, share=0.03)
