"""The first stage: both images checked and treated, and where they start from."""

from __future__ import annotations

from semreg.io.bridge import to_volume
from semreg.preprocess.image_pair import opened, prepare_pair
from semreg.registration.alignment import checked_start, linear_part, start_of
from semreg.registration.contrasts import checked_contrasts
from semreg.registration.dense.prior import Prior
from semreg.registration.dense.stiffness import checked_stiffness
from semreg.registration.guidance import checked_labels, checked_landmarks, opened_labels, segmented
from semreg.registration.parts.known import checked_parts
from semreg.registration.sliding.wall import checked_wall
from semreg.registration.stages.stage import Stage, State
from semreg.runtime.settings import require


def run(state: State) -> None:
    """Read, check and treat what was handed over."""
    asked, config = state.request, state.config
    state.pair = prepare_pair(asked.fixed, asked.moving, asked.fixed_mask, asked.moving_mask, config)
    masks = asked.fixed_mask, asked.moving_mask
    state.contrasts = checked_contrasts(asked.contrasts, masks, state.pair, config)
    dimension = state.pair.grids[0].dimension
    stiffness = asked.stiffness
    if stiffness is not None:
        state.prior = Prior(stiffness=checked_stiffness(to_volume(opened(stiffness)), dimension))
    if asked.sliding is not None:
        require(asked.rigid is None, "rigid parts or a part that slides", "both: leave one out")
        require(config.refine.enabled, "refine.enabled=true with a part that slides", config.refine.enabled)
        labels = opened_labels(asked.sliding, "sliding")
        state.wall = checked_wall(labels, config.sliding.labels, state.pair.grids[0])
    if asked.rigid is not None:
        require(not config.refine.axes, "refine.axes of all axes with rigid parts, which turn", config.refine.axes)
        labels = opened_labels(asked.rigid, "rigid")
        state.known_parts = checked_parts(labels, config.parts.labels, state.pair.grids[0])
        state.prior = Prior(stiffness=state.known_parts.stiff(state.prior.stiffness))
    if asked.guidance is not None:
        state.known_points = checked_landmarks(asked.guidance, dimension)
        images = state.pair.cleaned["fixed"], state.pair.cleaned["moving"]
        found = segmented(asked.guidance, images, state.device, asked.folders, only_load=asked.only_plan)
        state.known_labels = checked_labels(found, dimension)
    state.begin = start_of(asked.initial, asked.landmarks, config.align.transform, dimension)
    checked_start(linear_part(state.begin), dimension)


PREPARE = Stage(name="prepare", run=run, share=0.03)
