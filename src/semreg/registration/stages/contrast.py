"""The stage that settles how far apart the control points are, by whether both images show one contrast."""

from __future__ import annotations

from dataclasses import replace

from semreg.registration.dense.contrast import REVERSED_AFTER_SEARCH, relation_of
from semreg.registration.dense.deform import feature_grids
from semreg.registration.plan.defaults import control_spacing
from semreg.registration.stages.stage import Stage, State


def run(state: State) -> None:
    """Compare the intensities where the search has put them: features of two contrasts err by more."""
    grid = feature_grids(state.frame, state.config)[0]
    found = state.searched.found.on(grid)
    relation = relation_of(state.images.intensities(2 * min(grid.spacing)), found)
    apart = control_spacing(state.config, one_contrast=relation.reversed < REVERSED_AFTER_SEARCH)
    state.config = replace(state.config, refine=replace(state.config.refine, control_mm=apart))


CONTRAST = Stage(name="contrast", run=run, wanted=lambda state: state.config.refine.control_mm is None, share=0.01)
