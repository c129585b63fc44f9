"""The stage that finds how each rigid part moves."""

from __future__ import annotations

import logging

import numpy as np

from semreg.core.fields import Field
from semreg.core.geometry import Matrix
from semreg.io.bridge import matrix_of
from semreg.registration.parts.held import held, written
from semreg.registration.parts.motion import Compared, motion_of
from semreg.registration.parts.report import PartsReport
from semreg.registration.stages.inverse import linear_of
from semreg.registration.stages.stage import Stage, State
from semreg.transforms.base import Points
from semreg.transforms.maps import mapped

logger = logging.getLogger("semreg")

LENGTH = 2.0
"""Control intervals of the refinement over which a part's own motion fades into the displacement around it."""


def run(state: State) -> None:
    """Fit a rigid map to the displacement in each part, and improve it on the images, where that is wanted."""
    config, axes = state.config, state.frame.axes
    if state.known_parts is None:
        return
    ordered = state.known_parts.reordered(axes)
    images = None
    if config.parts.refine:
        fixed, moving = state.pair.treated["fixed"], state.pair.treated["moving"]
        weight = None if fixed[1] is None else fixed[1].reordered(axes)
        spacing = min(state.frame.fixed.spacing)
        images = Compared((fixed[0].reordered(axes), weight), moving, spacing, state.device)

    def through(points: Points) -> Points:
        moved = state.deformed.spline.map(points)
        linear = _linear(state)
        if linear is not None:
            return mapped(linear, moved.T).T
        return moved if state.start is None else state.start.map(moved)

    numbers = range(1, len(ordered.labels) + 1)
    state.motions = tuple(motion_of(ordered, number, through, images) for number in numbers)


def with_parts(state: State, deformation: Field, start: Field | None) -> tuple[Field, Field]:
    """The displacement without and with its start, rigid in the parts; both on the ordered grid of the fixed image."""
    parts, config = state.known_parts, state.config
    total = deformation if start is None else deformation.then(start)
    if parts is None:
        return deformation, total
    ordered = parts.reordered(state.frame.axes)
    where, matrices = ordered.held(), [each.matrix for each in state.motions]
    length = LENGTH * (config.refine.control_mm or min(state.frame.fixed.spacing))
    linear = _linear(state)
    if start is None or linear is None:
        found = held(total, where, matrices, length)
        total = found.field
        deformation = total if start is None else deformation
    else:
        back = np.linalg.inv(linear)
        found = held(deformation, where, [back @ each for each in matrices], length)
        deformation = found.field
        total = written(deformation.then(start), where, matrices)
    state.parts = PartsReport.of(ordered, state.motions, where, total, found.passes)
    for sentence in state.parts.sentences:
        logger.warning("%s", sentence)
    return deformation, total


def _linear(state: State) -> Matrix | None:
    """The linear map that follows the deformation; None: there is none, or it is not linear."""
    linear = linear_of(state)
    return None if linear is None else matrix_of(linear)


PARTS = Stage(name="parts", run=run, wanted=lambda state: state.known_parts is not None, share=0.03)
