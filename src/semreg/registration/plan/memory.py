"""What a registration holds in memory at most, from grids, settings and models. Computes nothing on images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from semreg.config import RegistrationConfig
from semreg.core.geometry import Grid
from semreg.distances import DISTANCES
from semreg.features.extract import Extractor
from semreg.features.inputs import frame_of
from semreg.preprocess.preparation import Frame
from semreg.registration.dense import keypoints
from semreg.registration.dense.coarse import memory_bytes
from semreg.registration.matching import Pairing
from semreg.registration.plan.defaults import layout
from semreg.runtime.memory import SHARE, available_bytes

IMPORTS_BYTES = 330_000_000
"""Memory of a process that has imported torch and SimpleITK."""


@dataclass(frozen=True)
class Load:
    """What features weigh: their ``channels``, and the bytes a network holds while it sees a whole image."""

    channels: float
    network_bytes: int = 0
    together: float = 0.0
    """Channels whose distance sees all samples at once, with their gradients."""
    members: float = 0.0
    """Channels of the member of an ensemble with the most of them, held beside those of the first."""
    further_voxels: int = 0
    """Of the images of further contrasts."""

    def beside(self, members: Sequence[Load]) -> Load:
        """The same with what the largest of further members of an ensemble takes."""
        return replace(
            self,
            members=max(each.channels for each in members),
            network_bytes=max(self.network_bytes, *(each.network_bytes for each in members)),
            together=max(self.together, *(each.together for each in members)),
        )


def load_of(pairings: Sequence[Pairing], frame: Frame, distance: str) -> Load:
    """The load of models that are there; ``distance`` is that of those that name none."""
    together = [p for p in pairings if any(DISTANCES[name].slope is None for name in p.config.distance or (distance,))]
    network_bytes = max(_network_bytes(pairing, frame) for pairing in pairings)
    return Load(sum(map(_channels, pairings)), network_bytes, sum(map(_channels, together)))


def peak_bytes(fixed: Grid, moving: Grid, config: RegistrationConfig, load: Load, *, initial: bool = False) -> int:
    """The most memory that a registration holds, about; ``config`` is resolved.

    Further contrasts are held as they were read and as they are treated; of the first pair these mostly are one.
    Images as read and as worked on, features of both, the largest of search, refinement and output, the imports.
    """
    frame, levels = layout(fixed, moving, config, initial=initial)
    pooling, channels = config.features.pooling or 1, load.channels
    grid, there = frame.fixed.pooled(pooling), frame.moving.pooled(pooling)
    held = 4 * (fixed.voxels + moving.voxels + 2 * load.further_voxels + max(frame.fixed.voxels, frame.moving.voxels))
    features = int(4 * channels * (grid.voxels + there.voxels))
    member = int(4 * load.members * (grid.voxels + there.voxels))
    search = memory_bytes(grid, levels) if config.coarse.enabled else 0
    looked = (
        keypoints.memory_bytes(frame.fixed, frame.moving, config.keypoints.reach_mm or 0.0) * config.keypoints.enabled
    )
    descent = (
        max(features, member) + 400 * grid.voxels + (grid.voxels * (16 * load.together + 100) if load.together else 0)
    )
    descent *= 2 if config.refine.symmetric else 1
    # one channel of both images laid out twice; places, their start and the gradient in them, 3 numbers each
    fine = 80 * frame.fixed.voxels + 8 * frame.moving.voxels if config.fine.enabled is not False else 0
    output = output_bytes(fixed)
    return int(
        held + features + member + max(looked, search, descent, fine, output, load.network_bytes) + IMPORTS_BYTES
    )


def output_bytes(fixed: Grid) -> int:
    """What the displacement on the fixed grid takes while it is made and written; no setting changes it."""
    return 4 * fixed.voxels * (fixed.dimension + 2) + 16 * fixed.voxels * fixed.dimension


def _channels(pairing: Pairing) -> float:
    """Channels of a pairing's features, those of coarser layers counted by their share of voxels."""
    model = pairing.fixed
    if not isinstance(model, Extractor):
        return pairing.config.pca or model.spec.channels
    outputs = model.traits.outputs
    return sum((pairing.config.pca or o.channels) / math.prod(o.stride) for o in outputs)


def _network_bytes(pairing: Pairing, frame: Frame) -> int:
    """What a network holds while it sees an image whole; with less memory it is cut into tiles."""
    if not isinstance(pairing.fixed, Extractor):
        return 0
    voxels = max(frame_of(grid, pairing.fixed.spec).grid.voxels for grid in (frame.fixed, frame.moving))
    return int(min(pairing.fixed.traits.memory.per_voxel * voxels, SHARE * available_bytes()))
