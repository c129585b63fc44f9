"""The stage that searches windows of displacements from coarse to fine."""

from __future__ import annotations

from semreg.registration.dense.deform import search
from semreg.registration.stages.stage import Stage, State


def run(state: State) -> None:
    """Search; where that is off, the displacement stays where it begins."""
    grid = state.frame.fixed.pooled(state.config.features.pooling or 1)
    state.searched = search(state.terms, grid, state.config.coarse, state.clock.on_step, state.first)


COARSE = Stage(name="coarse", run=run, tells=True, share=0.15)
