"""From what is seen of two images to settings that leave nothing open, and a sentence for each decision.

What was set stays as it was set. What was left open is ``plan.resolve``'s, and coarser only where the memory of the
machine would not hold that. Knows no feature model; computes nothing on images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from semreg.config import RegistrationConfig
from semreg.registration.automatic import reasons
from semreg.registration.automatic.image_kind import Sight
from semreg.registration.plan import Load, output_bytes, peak_bytes, resolve
from semreg.runtime.memory import SHARE, available_bytes, held_bytes

COARSER = (1.25, 1.6, 2.0, 2.5, 3.2, 4.0)
"""By what the working spacing is multiplied, one after the other, until the memory suffices."""
MOST_POOLING = 3
NOMINAL_CHANNELS = {"mind": {2: 4.0, 3: 12.0}, "intensity": {2: 1.0, 3: 1.0}}
UNKNOWN_CHANNELS = 32.0
"""Of a network that has not been loaded yet."""


@dataclass(frozen=True)
class Machine:
    """Where it is computed: the ``device``, the bytes it can give in all, and those this process holds already."""

    device: str
    memory_bytes: int
    held_bytes: int = 0

    @property
    def usable_bytes(self) -> int:
        """What a run may take at most."""
        return self.held_bytes + int(SHARE * self.memory_bytes)


@dataclass(frozen=True)
class Decision:
    """Settings that leave nothing open which grids or memory decide, and why: ``lines`` are sentences in mm."""

    config: RegistrationConfig
    lines: tuple[str, ...]
    memory_bytes: int
    """What it takes at most, about."""


def this_machine(device: torch.device) -> Machine:
    """What can be had now: of a CUDA device its own memory, else that of the process."""
    if device.type == "cuda":
        return Machine(str(device), int(torch.cuda.mem_get_info(device)[0]))
    return Machine(str(device), available_bytes(), held_bytes())


def decide(
    fixed: Sight,
    moving: Sight,
    config: RegistrationConfig,
    machine: Machine,
    *,
    initial: bool = False,
    load: Load | None = None,
) -> Decision:
    """Decide what ``config`` leaves open.

    ``initial``: there is a transform to start from, so that the headers alone do not say how the images lie. ``load``:
    what the features weigh; None: about what the names of the models say. Raises ConfigError for settings that do not
    go together.
    """
    load = load or nominal_load(config, fixed.grid.dimension)
    given, config = config, _with_headers(config, fixed, moving)
    ample = resolve(config, fixed.grid)
    chosen, needed = ample, peak_bytes(fixed.grid, moving.grid, ample, load, initial=initial)
    wanted = needed
    if needed > machine.usable_bytes:
        for chosen in _coarser(config, ample, fixed):
            needed = peak_bytes(fixed.grid, moving.grid, chosen, load, initial=initial)
            if needed <= machine.usable_bytes:
                break
    story = reasons.Story(fixed, moving, given, chosen, ample, initial)
    memory = reasons.memory(wanted, needed, machine.usable_bytes, output_bytes(fixed.grid), machine.device)
    return Decision(chosen, (*reasons.of_images(story), *reasons.of_settings(story), memory), needed)


def _with_headers(config: RegistrationConfig, fixed: Sight, moving: Sight) -> RegistrationConfig:
    """With what the headers of the images say that they are, so that the settings alone repeat the run."""
    told = [
        sight.recognised.modality if sight.recognised and sight.recognised.source == "header" else said
        for sight, said in zip((fixed, moving), config.intensities.modalities, strict=True)
    ]
    if tuple(told) == config.intensities.modalities:
        return config
    return replace(config, intensities=replace(config.intensities, modality=tuple(told)))


def nominal_load(config: RegistrationConfig, dimension: int) -> Load:
    """The load of models that are not loaded, from their names."""

    def channels(name: str) -> float:
        return NOMINAL_CHANNELS.get(name, {}).get(dimension, UNKNOWN_CHANNELS)

    return Load(sum(float(model.pca) or channels(model.model) for model in config.models))


def _coarser(config: RegistrationConfig, ample: RegistrationConfig, fixed: Sight) -> Iterator[RegistrationConfig]:
    """Settings that take less and less memory, as far as ``config`` leaves them open, nothing if it leaves none.

    First one direction of the refinement, then features less dense, which costs little accuracy, then larger voxels.
    """
    features, refine = config.features, config.refine
    if refine.symmetric is None and ample.refine.symmetric:
        refine = replace(refine, symmetric=False)
        yield resolve(replace(config, refine=refine), fixed.grid)
    if features.pooling is None:
        for pooling in range((ample.features.pooling or 1) + 1, MOST_POOLING + 1):
            features = replace(features, pooling=pooling)
            yield resolve(replace(config, refine=refine, features=features), fixed.grid)
    if features.spacing_mm is None:
        for factor in COARSER:
            features = replace(features, spacing_mm=factor * (ample.features.spacing_mm or 1.0))
            yield resolve(replace(config, refine=refine, features=features), fixed.grid)
