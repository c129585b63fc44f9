"""The stage that makes what is compared: features of both images in the working frame."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from semreg.core.fields import Field
from semreg.core.geometry import Grid
from semreg.io.bridge import field_of_displacements, field_of_transform
from semreg.preprocess.preparation import Frame, check_overlap
from semreg.registration.alignment import checked_start, linear_part
from semreg.registration.contrasts import images_of
from semreg.registration.dense.deform import begun, feature_grids
from semreg.registration.dense.terms import Term
from semreg.registration.guidance import KnownLabels
from semreg.registration.plan.defaults import layout
from semreg.registration.stages.stage import Stage, State


def run(state: State) -> None:
    """Lay out the frame around the start, read both images there, and run the models."""
    target, source = state.pair.grids
    if state.begin is None:
        check_overlap(target, source)
    frame, _ = layout(target, source, state.config, initial=state.begin is not None)
    compare(state, frame)


def compare(state: State, frame: Frame) -> None:
    """What is compared in this ``frame``, and where the displacement begins."""
    config, begin = state.config, state.begin
    field = None if begin is None else _as_field(begin, frame.fixed if config.refine.continues else frame.moving)
    state.frame = frame
    state.start, state.first = (None, field) if config.refine.continues else (field, None)
    state.images = images_of(state.pair, state.contrasts, frame, state.start, config, state.device)
    guided = [] if state.known_labels is None else [_of_labels(state.known_labels, state)]
    state.terms = state.images.terms(state.pairings, [each.pairings for each in state.contrasts], guided)
    lead(state)
    state.searched = begun(state.terms, feature_grids(frame, config)[0], state.first)


def lead(state: State) -> None:
    """Lay the points that are known, and those that were found, out in the frame."""
    found = None if state.keypoints is None or not state.keypoints.count else state.keypoints.points
    linear = None if state.start is None else checked_start(linear_part(state.begin), state.frame.fixed.dimension)
    grid = feature_grids(state.frame, state.config)[0]
    points, leading = (
        None if each is None else each.in_frame(grid, state.start, linear) for each in (state.known_points, found)
    )
    state.prior = replace(state.prior, points=points, leading=leading)


def _of_labels(labels: KnownLabels, state: State) -> Term:
    """The term of the labels that guide."""
    grids, pooling = (state.frame.fixed, state.frame.moving), state.config.features.pooling or 1
    return labels.term(grids, state.start, pooling, state.device)


def _as_field(initial: Any, grid: Grid) -> Field:
    """The start on ``grid``; a field continues beyond its box."""
    field = initial if isinstance(initial, Field) else field_of_displacements(initial)
    return field_of_transform(initial, grid) if field is None else field.on(grid)


FEATURES = Stage(name="features", run=run, share=0.05)
