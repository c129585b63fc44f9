"""The stage that searches windows of displacements from coarse to fine."""

from __future__ import annotations

from semreg.registration.dense.deform import search
from semreg.registration.stages.stage import Stage, State


def run(state: State) -> None:
    """Search from where the displacement begins."""
    axes, points = state.config.refine.axes, state.prior.searched
    state.searched = search(
        state.terms, state.searched, state.config.coarse, state.clock.on_step, axes=axes, points=points
    )


COARSE = Stage(name="coarse", run=run, wanted=lambda state: state.config.coarse.enabled, tells=True, share=0.15)
