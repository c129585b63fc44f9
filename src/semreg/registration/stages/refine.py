"""The stage that lowers the objective on the control points of a spline."""

from __future__ import annotations

from semreg.registration.dense.deform import feature_grids, refine_or_fit
from semreg.registration.stages.stage import Stage, State


def run(state: State) -> None:
    """Refine; where that is off, the spline that fits what was found."""
    state.deformed = refine_or_fit(
        state.terms, feature_grids(state.frame, state.config), state.config, state.searched,
        on_step=state.clock.on_step, renewal=state.images, stiffness=state.stiffness,
    )  # fmt: skip


REFINE = Stage(name="refine", run=run, tells=True, share=0.5)
