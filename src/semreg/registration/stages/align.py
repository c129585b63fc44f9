"""The stage that finds the linear map where the images do not lie on each other."""

from __future__ import annotations

from semreg.registration.alignment import aligned_start, looks_for_alignment
from semreg.registration.stages.stage import Stage, State


def run(state: State) -> None:
    """Look for an alignment; where one is applied, what follows starts from it."""
    state.begin, state.alignment = aligned_start(
        state.pair, state.begin, state.config, state.device, state.clock.on_step
    )


def wanted(state: State) -> bool:
    """Whether there is one to look for."""
    return looks_for_alignment(state.pair, state.begin, state.config)


ALIGN = Stage(name="align", run=run, wanted=wanted, tells=True, share=0.16)
