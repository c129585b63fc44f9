"""The stage that compares the intensities at full working resolution, where both images show one contrast."""

from __future__ import annotations

from dataclasses import replace

from semreg.registration.dense.contrast import relation_of
from semreg.registration.dense.data_term import distance_at
from semreg.registration.dense.deform import feature_grids
from semreg.registration.dense.fine import in_place_of_models, refined_finely
from semreg.registration.stages.stage import Stage, State
from semreg.runtime.events import Step


def run(state: State) -> None:
    """Look whether the intensities go the same way, and descend on them if they do, or if that was asked for."""
    config, found = state.config, state.deformed
    near = feature_grids(state.frame, config)[0]
    state.relation = relation_of(state.images.intensities(min(near.spacing)), found.spline.field(near))
    if not (config.fine.enabled or state.relation.one_contrast):
        return

    def on_step(step: Step) -> None:
        if state.clock.on_step is not None:
            state.clock.on_step(replace(step, stage=FINE.name))

    compared, *given = in_place_of_models(state.images.intensities(), state.terms)
    result = refined_finely(compared, given, found, config.fine, config.refine, prior=state.prior, on_step=on_step)
    after = distance_at(state.terms, result.spline.field(near))
    state.deformed = replace(result, similarity=found.similarity | {"after": after})


FINE = Stage(name="fine", run=run, wanted=lambda state: state.config.fine.enabled is not False, tells=True, share=0.2)
