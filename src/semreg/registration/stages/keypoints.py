"""The stage that finds points that correspond by both images alone, which lead all that follows."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from semreg.registration.keypoints import find_keypoints
from semreg.registration.stages.features import lead
from semreg.registration.stages.stage import Stage, State

logger = logging.getLogger("semreg")


def run(state: State) -> None:
    """Find them, and let the search reach as far as they lead."""
    found = state.keypoints = find_keypoints(state.images.first, state.config)
    points, coarse = found.points, state.config.coarse
    if not points.sd_mm.size:
        logger.warning(
            "expected points of the fixed image that are found in the moving one, got none of %d: the images alone "
            "decide; look at the masks, or leave keypoints out",
            found.looked,
        )
        return
    lead(state)
    if state.prior.points is None:
        return
    away = (state.prior.points.moving - state.prior.points.fixed).abs().numpy()
    furthest = float((away * np.reshape(state.prior.points.grid.spacing, (-1, 1))).max())
    if coarse.levels is None and furthest > (coarse.reach_mm or 0.0):
        state.config = replace(state.config, coarse=replace(coarse, reach_mm=furthest))


KEYPOINTS = Stage(name="keypoints", run=run, wanted=lambda state: state.config.keypoints.enabled, share=0.3)
