"""The stage that finds the way back."""

from __future__ import annotations

from semreg.core.consistency import invert
from semreg.io.bridge import matrix_of
from semreg.registration.alignment import linear_part
from semreg.registration.stages.stage import Stage, State


def run(state: State) -> None:
    """Invert on the moving image's grid; beyond the fixed image the linear part continues."""
    linear, grid = linear_of(state), state.pair.grids[1]
    if linear is None:
        state.inverse = invert(state.total, grid)
    else:
        state.inverse = invert(state.deformation, grid, after=matrix_of(linear))


def linear_of(state: State) -> object | None:
    """The linear transform that is applied after the deformation, None where there is none."""
    return None if state.config.refine.continues else linear_part(state.begin)


INVERSE = Stage(name="inverse", run=run, wanted=lambda state: state.request.inverse, share=0.02)
