"""The stage that lets a network propose where the deformation begins, and looks whether that is better than nothing."""

from __future__ import annotations

import logging
from dataclasses import replace

from semreg.core.fields import Field
from semreg.core.geometry import reorder
from semreg.preprocess.preparation import Prepared, to_frame
from semreg.registration.dense.deform import Searched, begun, feature_grids, search
from semreg.registration.stages.stage import Stage, State
from semreg.registration.start import judged, lower, proposed, report_of, without_folds

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
    after = None
    if state.config.coarse.enabled and lower(distances):  # a search may find more than it begins with, or less
        after = judged(state.terms, *(_searched(state, each) for each in (state.searched, begin)))
    state.proposal = report_of(network, proposal, distances, after)
    if state.proposal.used:
        state.first = begin.found
        state.searched = replace(begin, before=state.searched.before)
    else:
        logger.warning("%s", state.proposal.sentence)


def _searched(state: State, begin: Searched) -> Field:
    """What the search of the next stage would find from there."""
    axes, points = state.config.refine.axes, state.prior.searched
    return search(state.terms, begin, state.config.coarse, axes=axes, points=points).found


START = Stage(name="start", run=run, wanted=lambda state: state.registrar is not None, share=0.05)
