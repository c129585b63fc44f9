"""The stage that finds points that correspond by both images alone, which lead the search."""

from __future__ import annotations

import logging
from dataclasses import replace

from semreg.registration.keypoints import find_keypoints
from semreg.registration.stages.features import lead
from semreg.registration.stages.stage import Stage, State

logger = logging.getLogger("semreg")


def run(state: State) -> None:
    """Find them, and let the search reach as far as they lead."""
    found = find_keypoints(state.images.first, state.config)
    state.keypoints = found
    if not found.count:
        logger.warning(
            "expected points of the fixed image that are found in the moving one, got none of %d: the images alone "
            "decide; look at the masks, or leave keypoints out",
            found.looked,
        )
        return
    lead(state)
    coarse = state.config.coarse
    furthest = 0.0 if state.prior.leading is None else state.prior.leading.furthest_mm
    if coarse.levels is None and furthest > (coarse.reach_mm or 0.0):
        state.config = replace(state.config, coarse=replace(coarse, reach_mm=furthest))


KEYPOINTS = Stage(name="keypoints", run=run, wanted=lambda state: state.config.keypoints.enabled, share=0.3)
