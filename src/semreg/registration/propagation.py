"""Labels of several images (atlases) carried onto one image and fused there: multi-atlas segmentation.

Each atlas is registered to the image, its labels are carried over, and at each voxel the atlases vote. Heckemann et
al.: Automatic anatomical brain MRI segmentation combining label propagation and decision fusion. NeuroImage, 2006.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semreg.config import RegistrationConfig
from semreg.core.fields import Volume
from semreg.core.sampling import smooth
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.features.descriptors.mind import MindSSC
from semreg.features.extract import describe
from semreg.io.bridge import LabelMap, to_volume
from semreg.io.bridge.kinds import ImageLike
from semreg.io.records import Recorded, stable_json, versions
from semreg.preprocess.image_pair import opened
from semreg.registration.guidance import opened_labels
from semreg.registration.pipeline import register
from semreg.registration.result import FeatureDistance, Registration
from semreg.transforms.labels import largest_share, staple

PASSES = 2
"""How many times the mismatch of an atlas is averaged over 5 voxels before it weighs its vote."""
LARGEST_LABEL = 1 << 24
"""Up to which float32 holds each whole number."""
LEAST_MISMATCH = 1e-3
"""Below it a mismatch is rounding, and all atlases that are as good weigh the same."""


class Fusion(StrEnum):
    """How the labels of several atlases become one."""

    LOCAL = "local"
    """Each atlas counts by how well its features match the image around the voxel."""
    MAJORITY = "majority"
    """Each atlas counts 1."""
    STAPLE = "staple"
    """By the performance of each atlas, which is estimated from the agreement of all (Warfield et al., 2004)."""


@dataclass(frozen=True)
class Propagated:
    """Labels of an image that several atlases agree on."""

    labels: Volume
    """(1, *S) on the grid of the image, the numbers of the atlases; 0 is no label."""
    agreement: Volume
    """(1, *S): the share of the votes for the label of each voxel, 0 to 1; low where the atlases differ."""
    registrations: tuple[Registration, ...]
    """Of each atlas to the image."""
    each: tuple[Volume, ...]
    """The labels of each atlas on the grid of the image."""


def propagate(
    image: ImageLike,
    atlases: Sequence[tuple[ImageLike, ImageLike | LabelMap]],
    *,
    fusion: Fusion | str = Fusion.LOCAL,
    config: RegistrationConfig | None = None,
    device: str = "auto",
    on_atlas: Callable[[int], None] | None = None,
) -> Propagated:
    """Carry the labels of atlases onto an image and fuse them.

    Args:
        image: the image that is to be labelled, as for ``register``.
        atlases: an image and its label map each, at least one; the same number means the same in all.
        fusion: how the atlases are fused: ``local``, ``majority`` or ``staple``.
        config: the settings of all registrations. None: the defaults.
        device: where they are computed.
        on_atlas: is told the number of each atlas, from 1, before it is registered.

    Returns:
        The labels on the grid of the image, how far the atlases agree, and each registration.

    Raises:
        ConfigError: without an atlas, and for an unknown fusion.
        ImageError: for labels that are none, or beyond what can be written, 2^24.
        GeometryError: for an atlas of another dimension; all that ``register`` raises.
    """
    if not atlases:
        raise ConfigError("expected at least one atlas, an image and its labels, got none")
    if fusion not in set(Fusion):
        raise ConfigError(f"expected a fusion of {', '.join(Fusion)}, got {fusion}")
    target = opened(image)
    volume = to_volume(target)
    found: list[Registration] = []
    carried: list[LabelMap] = []
    for number, (atlas, labels) in enumerate(atlases, start=1):
        known = opened_labels(labels, f"atlas {number}")
        if known.grid.dimension != volume.grid.dimension:
            raise GeometryError(
                f"expected labels of atlas {number} in {volume.grid.dimension}-D as the image is, "
                f"got {known.grid.dimension}-D"
            )
        if on_atlas is not None:
            on_atlas(number)
        found.append(register(target, atlas, config=config, device=device))
        carried.append(_carried(known, found[-1]))
        found[-1] = replace(found[-1], pair=None, determinants=None)  # what one registration needs, not many
    table, stack = _in_one_table(carried)
    weights = None if fusion != Fusion.LOCAL else weights_of(volume, found)
    chosen, agreement = fuse(stack, Fusion(fusion), weights)
    return Propagated(
        labels=Volume(table[chosen][None], volume.grid),
        agreement=Volume(agreement[None], volume.grid),
        registrations=tuple(found),
        each=tuple(Volume(table[layer][None], volume.grid) for layer in stack),
    )


@dataclass(frozen=True, kw_only=True)
class Carried:
    """One atlas: its files, and how far its features are from those of the image, before and after."""

    image: str
    labels: str
    similarity: FeatureDistance
    minimum_jacobian: float
    share: float
    """Of the labelled voxels: where its label is that of the result."""


@dataclass(frozen=True, kw_only=True)
class PropagationRecord(Recorded):
    """What was fused, and how far the atlases agree."""

    image: str
    atlases: tuple[Carried, ...]
    fusion: str
    labels: tuple[int, ...]
    agreement: float
    """Mean over the voxels with a label."""
    versions: dict[str, str]
    command: tuple[str, ...]

    @classmethod
    def of(
        cls,
        found: Propagated,
        image: Path,
        atlases: Sequence[tuple[Path, Path]],
        *,
        fusion: str,
        command: tuple[str, ...],
    ) -> PropagationRecord:
        """Of a result and the files that it is of."""
        labelled = found.labels.data != 0
        count = max(1, int(labelled.sum()))
        carried = [
            Carried(
                image=str(files[0]), labels=str(files[1]), similarity=each.record.similarity,
                minimum_jacobian=each.record.jacobian.minimum,
                share=int(((labels.data == found.labels.data) & labelled).sum()) / count,
            )
            for files, each, labels in zip(atlases, found.registrations, found.each, strict=True)
        ]  # fmt: skip
        return cls(
            image=str(image), atlases=tuple(carried), fusion=str(fusion),
            labels=tuple(int(label) for label in np.unique(found.labels.data.numpy()) if label),
            agreement=float(found.agreement.data[labelled].sum()) / count,
            versions=versions(), command=command,
        )  # fmt: skip

    def text(self) -> str:
        """As JSON."""
        return stable_json(self)


def files_of_atlas(text: str) -> tuple[Path, Path]:
    """The image and the labels that ``IMAGE,LABELS`` names (ConfigError); a name may hold commas of its own."""
    parts = text.split(",")
    cuts = [(Path(",".join(parts[:cut])), Path(",".join(parts[cut:]))) for cut in range(1, len(parts))]
    there = [cut for cut in cuts if cut[0].exists() and cut[1].exists()]
    if len(there) == 1:
        return there[0]
    if len(parts) == 2 and all(parts):
        return cuts[0]  # whoever reads it says what is missing
    raise ConfigError(f"expected an atlas as IMAGE,LABELS, two files with a comma between, got {text}")


def fuse(stack: Tensor, fusion: Fusion, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The label that most votes are for, and their share.

    Args:
        stack: labels of each atlas, whole numbers from 0 (K, *S).
        fusion: how they are fused.
        weights: how much each vote counts (K, *S), for ``local``; None: 1.

    Returns:
        Labels and the share of their votes, (*S) each. Of labels with equal votes the smallest holds.
    """
    chosen = torch.zeros(stack.shape[1:], dtype=torch.long)
    best = torch.zeros(stack.shape[1:])
    votes = torch.ones(stack.shape) if weights is None else weights
    for label in np.unique(stack.numpy()).tolist():
        score = (votes * (stack == label)).sum(0)
        chosen = torch.where(score > best, label, chosen)
        best = torch.maximum(score, best)
    if fusion == Fusion.STAPLE and len(stack) > 1:
        found = torch.from_numpy(staple(stack.numpy()))
        chosen = torch.where(found < 0, chosen, found)  # where it cannot decide the majority holds
        best = (stack == chosen).float().sum(0)
    return chosen, best / votes.sum(0)


def _carried(labels: LabelMap, found: Registration) -> LabelMap:
    """The labels of an atlas on the grid of the image: at each voxel the one with the largest share."""
    moved = largest_share(labels.numbers.to_sitk("int32"), found.field.grid, found.transform(), 0)
    return LabelMap(Volume(to_volume(moved).data, found.field.grid), labels.labels, labels.names)


def _in_one_table(maps: Sequence[LabelMap]) -> tuple[Tensor, Tensor]:
    """The labels of all, 0 first (N,), float32, and the maps as indices into them (K, *S)."""
    largest = max((abs(label) for each in maps for label in each.labels), default=0)
    if largest > LARGEST_LABEL:
        raise ImageError(
            f"expected labels of numbers up to {LARGEST_LABEL}, which the image of the result holds exactly, got "
            f"{largest}: number them anew"
        )
    every = sorted({label for each in maps for label in each.labels} | {0}, key=lambda label: (label != 0, label))
    place = {label: index for index, label in enumerate(every)}
    stack = [torch.tensor([place[label] for label in each.labels])[each.numbers.data[0].long()] for each in maps]
    return torch.tensor(every, dtype=torch.float64).float(), torch.stack(stack)


def weights_of(image: ImageLike, found: Sequence[Registration]) -> Tensor:
    """How much each atlas counts at each voxel (K, *S), by the mismatch d of its features around it: exp(−d / h).

    h is the least mismatch of all atlases there, so that what counts is how much worse than the best one they are
    (Coupé et al.: Patch-based segmentation using expert priors. NeuroImage, 2011).
    """
    volume = to_volume(opened(image))
    model = MindSSC(volume.grid.dimension)
    here = describe(volume, model).features.data
    off = [(describe(each.warped, model).features.data - here).square().mean(0, keepdim=True) for each in found]
    mismatch = torch.cat([smooth(each, radius=2, passes=PASSES) for each in off])
    return torch.exp(-mismatch / mismatch.amin(0).clamp(min=LEAST_MISMATCH))
