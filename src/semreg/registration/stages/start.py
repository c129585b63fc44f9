"""The stage that lets a network propose where the deformation begins, and looks whether that is better than nothing."""

from __future__ import annotations

import logging
from dataclasses import replace

from semreg.core.geometry import reorder
from semreg.preprocess.preparation import Prepared, to_frame
from semreg.registration.dense.deform import begun, feature_grids
from semreg.registration.stages.stage import Stage, State
from semreg.registration.start import judged, proposed, report_of, without_folds

logger = logging.getLogger("semreg")


def run(state: State) -> None:
    """Run the network once on both images as they lie now; what follows begins at what it says, if that is better."""
    network, frame, images = state.registrar, state.frame, state.images.first
    if network is None:
        return
    moving = Prepared(images.image, images.image_weight)
    if state.first is not None:  # the displacement continues the initial transform: the image was read as it lies
        moving = to_frame(*images.moving, frame.fixed, state.first)
    target = reorder(state.pair.grids[0], frame.axes)
    found = proposed(network, to_frame(*images.fixed, frame.fixed), moving, target)
    grid = feature_grids(frame, state.config)[0]
    proposal = without_folds(found, grid, state.config.refine)
    whole = proposal.field if state.first is None else proposal.field.then(state.first)
    begin = begun(state.terms, grid, whole)
    distances = judged(state.terms, state.searched.found, begin.found)
    state.proposal = report_of(network, proposal, distances)
    if state.proposal.used:
        state.first = begin.found
        state.searched = replace(begin, before=state.searched.before)
    else:
        logger.warning("%s", state.proposal.sentence)


START = Stage(name="start", run=run, wanted=lambda state: state.registrar is not None, share=0.05)
