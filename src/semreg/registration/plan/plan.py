"""The one plan of a registration: what is left open decided from images and machine, and why. Computes no features.

What was set stays as it was set. What was left open follows from the fixed image's grid (``defaults.resolve``), and is
coarser only where the memory of the machine would not hold that. ``register`` executes the plan, the command line
prints it, and the record keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from semreg.config import RegistrationConfig
from semreg.preprocess.preparation import Frame
from semreg.registration.dense.coarse import Level
from semreg.registration.matching import Pairing
from semreg.registration.plan import reasons
from semreg.registration.plan.defaults import layout, resolve
from semreg.registration.plan.image_facts import ImageFacts
from semreg.registration.plan.memory import Load, load_of, output_bytes, peak_bytes
from semreg.registration.plan.reasons import FurtherPair, Reason
from semreg.runtime.memory import SHARE, available_bytes, held_bytes

COARSER = (1.25, 1.6, 2.0, 2.5, 3.2, 4.0)
"""By what the working spacing is multiplied, one after the other, until the memory suffices."""
MOST_POOLING = 3


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
class Plan:
    """What a registration will do, and why."""

    config: RegistrationConfig
    """Settings that leave nothing open which grids or memory decide: they alone repeat the run."""
    frame: Frame
    """The working grids, before an alignment moves the images."""
    levels: tuple[Level, ...]
    """Of the coarse search."""
    reasons: tuple[Reason, ...]
    memory_bytes: int
    """What it takes at most, about."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """The reasons as text, lengths in mm."""
        return tuple(reason.sentence for reason in self.reasons)


def this_machine(device: torch.device) -> Machine:
    """What can be had now: of a CUDA device its own memory, else that of the process."""
    if device.type == "cuda":
        return Machine(str(device), int(torch.cuda.mem_get_info(device)[0]))
    return Machine(str(device), available_bytes(), held_bytes())


def make_plan(  # noqa: PLR0913 - what is known before anything is computed
    images: tuple[ImageFacts, ImageFacts],
    config: RegistrationConfig,
    machine: Machine,
    *,
    pairings: Sequence[Pairing],
    further: Sequence[FurtherPair] = (),
    others: Sequence[Pairing] = (),
    initial: bool = False,
) -> Plan:
    """Decide what ``config`` leaves open, for the fixed and the moving of ``images``.

    Args:
        images: what is known of both.
        config: the settings as given.
        machine: where it will be computed.
        pairings: the models that will be compared; their features have to be held in memory.
        further: contrasts beside the first pair.
        others: the models of further members of an ensemble.
        initial: whether there is a transform to start from, so that the headers alone do not say how the images lie.

    Returns:
        The plan.

    Raises:
        ConfigError: for settings that do not go together.
    """
    fixed, moving = images
    given, config = config, _with_headers(config, fixed, moving)
    ample = resolve(config, fixed.grid)

    def laid(chosen: RegistrationConfig) -> tuple[Frame, tuple[Level, ...], int]:
        frame, levels = layout(fixed.grid, moving.grid, chosen, initial=initial)
        every = [*pairings, *(pairing for pair in further for pairing in pair.pairings)]
        load: Load = load_of(every, frame, chosen.refine.distance)
        if config.ensemble.count > 1:
            again = [load_of([pairing], frame, chosen.refine.distance) for pairing in others]
            load = load.beside([*([load] if config.ensemble.members > 1 else []), *again])
        load = replace(load, further_voxels=sum(each.grid.voxels for pair in further for each in pair.images))
        return frame, tuple(levels), peak_bytes(fixed.grid, moving.grid, chosen, load, initial=initial)

    chosen, (frame, levels, needed) = ample, laid(ample)
    wanted = needed
    if needed > machine.usable_bytes:
        for chosen in _coarser(config, ample, fixed):
            frame, levels, needed = laid(chosen)
            if needed <= machine.usable_bytes:
                break
    story = reasons.Story(fixed, moving, given, chosen, ample, frame, levels, initial, tuple(further))
    memory = reasons.memory(wanted, needed, machine.usable_bytes, output_bytes(fixed.grid), machine.device)
    return Plan(chosen, frame, levels, (*reasons.of_images(story), *reasons.of_settings(story), memory), needed)


def _with_headers(config: RegistrationConfig, fixed: ImageFacts, moving: ImageFacts) -> RegistrationConfig:
    """With what the headers of the images say that they are, so that the settings alone repeat the run."""
    told = [
        image.recognised.modality if image.recognised and image.recognised.source == "header" else said
        for image, said in zip((fixed, moving), config.intensities.modalities, strict=True)
    ]
    if tuple(told) == config.intensities.modalities:
        return config
    return replace(config, intensities=replace(config.intensities, modality=tuple(told)))


def _coarser(config: RegistrationConfig, ample: RegistrationConfig, fixed: ImageFacts) -> Iterator[RegistrationConfig]:
    """Settings that take less and less memory, as far as ``config`` leaves them open, nothing if it leaves none.

    First one direction of the refinement, then no intensities at full resolution, then features less dense, which
    costs little accuracy, then larger voxels.
    """
    features, refine = config.features, config.refine
    if refine.symmetric is None and ample.refine.symmetric:
        refine = replace(refine, symmetric=False)
        yield resolve(replace(config, refine=refine), fixed.grid)
    if config.fine.enabled is None:
        config = replace(config, fine=replace(config.fine, enabled=False))
        yield resolve(replace(config, refine=refine), fixed.grid)
    if features.pooling is None:
        for pooling in range((ample.features.pooling or 1) + 1, MOST_POOLING + 1):
            features = replace(features, pooling=pooling)
            yield resolve(replace(config, refine=refine, features=features), fixed.grid)
    if features.spacing_mm is None:
        for factor in COARSER:
            features = replace(features, spacing_mm=factor * (ample.features.spacing_mm or 1.0))
            yield resolve(replace(config, refine=refine, features=features), fixed.grid)
