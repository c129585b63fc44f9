"""The stage that lowers the objective on the control points of a spline, and the one that stands for it."""

from __future__ import annotations

from semreg.registration.dense.deform import feature_grids, fit, refined
from semreg.registration.stages.stage import Stage, State


def run(state: State) -> None:
    """Refine what was found."""
    state.deformed = refined(
        state.terms, feature_grids(state.frame, state.config), state.config, state.searched,
        renewal=state.images, on_step=state.clock.on_step, prior=state.prior,
    )  # fmt: skip


def run_fit(state: State) -> None:
    """Without a refinement: the spline that fits what was found."""
    grid = feature_grids(state.frame, state.config)[0]
    state.deformed = fit(state.terms, grid, state.config.refine, state.searched, state.prior)


REFINE = Stage(name="refine", run=run, wanted=lambda state: state.config.refine.enabled, tells=True, share=0.5)
FIT = Stage(name="fit", run=run_fit, wanted=lambda state: not state.config.refine.enabled)
