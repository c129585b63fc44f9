"""Further contrasts of one pair, as T2 beside T1: each is compared by its own models, and gives terms of its own.

The first pair says where all lies: it is aligned, its grid is that of the result. The others lie in its space, on any
grids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semreg.config import ModelConfig, RegistrationConfig
from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid, boxes_overlap
from semreg.errors import ConfigError, GeometryError
from semreg.io.bridge import LoadedImage, to_volume
from semreg.io.bridge.kinds import ImageLike
from semreg.io.channels import read_channels
from semreg.preprocess.image_pair import Pair, opened, prepare_pair
from semreg.preprocess.intensities import Treatment
from semreg.preprocess.modality import Recognised
from semreg.preprocess.preparation import Frame, canonical
from semreg.registration.dense.terms import Term, joined
from semreg.registration.matching import Given, Images, ModelReport, Pairing, describe_models, resolve_models

CHANNELS = 64
"""Channels of an image that are compared one by one at most: a series over time is none of channels."""


@dataclass(frozen=True)
class Contrast:
    """Two images that show the same two scenes as the fixed and the moving one do, in the same physical space.

    Args:
        fixed: what lies where the fixed image does, on any grid: all that ``semreg.register`` takes.
        moving: what lies where the moving image does.
        model: what it is compared by: all that ``semreg.register`` takes as ``model``, or a ``ModelConfig``, or
            several, with distances and layers. None: the models of the first pair.
        weight: how much it counts beside the first pair, which counts 1.
        fixed_mask: values in [0, 1]; voxels at 0 count nowhere. None: the mask of the fixed image, if there is one.
        moving_mask: the same for its moving image.
    """

    fixed: ImageLike
    moving: ImageLike
    _: KW_ONLY
    model: Any | None = None
    weight: float = 1.0
    fixed_mask: ImageLike | None = None
    moving_mask: ImageLike | None = None


@dataclass(frozen=True)
class ContrastPair:
    """A contrast that was checked: its images, ready to be compared."""

    asked: Contrast
    pair: Pair
    pairings: tuple[Pairing, ...] = ()
    """Its models, loaded."""


@dataclass(frozen=True, kw_only=True)
class ContrastReport:
    """What was compared beside the first pair."""

    weight: float
    settings: tuple[ModelConfig, ...]
    """How its features count."""
    models: tuple[ModelReport, ...]
    modality: dict[str, Recognised]
    """What the ``fixed`` and the ``moving`` image are taken for."""
    intensities: dict[str, Treatment]

    @classmethod
    def of(cls, contrast: ContrastPair) -> ContrastReport:
        """What the record says of a contrast."""
        return cls(
            weight=contrast.asked.weight,
            settings=tuple(pairing.config for pairing in contrast.pairings),
            models=describe_models(contrast.pairings),
            modality=contrast.pair.recognised,
            intensities=contrast.pair.done,
        )


@dataclass(frozen=True)
class AllImages:
    """The images of all contrasts in one working frame; it runs the models again for the refinement."""

    first: Images
    others: tuple[Images, ...]
    weights: tuple[float, ...]
    """Of the others, beside the first, which counts 1."""

    @property
    def image(self) -> Volume:
        """The first moving image (1, *S) on its working grid."""
        return self.first.image

    @property
    def grid(self) -> Grid:
        """Where the warped image is shown to the models."""
        return self.first.grid

    @property
    def image_weight(self) -> Volume | None:
        """How much each voxel of ``image`` counts, (1, *S); None: all do."""
        return self.first.image_weight

    def intensities(self, spacing_mm: float = 0.0) -> Term:
        """The first images on their working grids, compared by squared local correlation."""
        return self.first.intensities(spacing_mm)

    def features(self, warped: Tensor) -> list[Tensor]:
        """Features (C, *S) of the first warped image (1, *S); there are no others where networks are differentiated."""
        return self.first.features(warped)

    def terms(
        self, pairings: Sequence[Pairing], others: Sequence[Sequence[Pairing]], given: Sequence[Term]
    ) -> tuple[Term, ...]:
        """The terms of all: of the first by ``pairings`` beside the ``given`` ones, of each other by its own models."""
        rest = [images.terms(models) for images, models in zip(self.others, others, strict=True)]
        return joined([self.first.terms(pairings, given), *rest], (1.0, *self.weights))

    def renewed(self, displacement: Field, spacing_mm: float) -> tuple[Term, ...]:
        """The terms with the moving features of all images warped by ``displacement``, about ``spacing_mm`` apart."""
        found = [images.renewed(displacement, spacing_mm) for images in (self.first, *self.others)]
        return joined(found, (1.0, *self.weights))


def checked_contrasts(
    contrasts: Sequence[Contrast], masks: tuple[Any, Any], first: Pair, config: RegistrationConfig
) -> tuple[ContrastPair, ...]:
    """The contrasts, read and checked against the ``first`` pair and its ``masks``, which count where one has none.

    Raises ImageError, GeometryError and ConfigError for what cannot be used.
    """
    own = replace(config, background=None, intensities=replace(config.intensities, modality=("auto",)))
    found = []
    for number, contrast in enumerate(contrasts, start=1):
        if not 0 < contrast.weight < float("inf"):
            raise ConfigError(f"expected a weight above 0 of contrast {number}, got {contrast.weight}: or leave it out")
        images = opened(contrast.fixed), opened(contrast.moving)
        for name, image, reference in zip(("fixed", "moving"), images, first.grids, strict=True):
            _check_place(to_volume(image).grid, reference, f"{name} image of contrast {number}", name)
        near, far = (
            given if given is not None else mask
            for given, mask in zip((contrast.fixed_mask, contrast.moving_mask), masks, strict=True)
        )
        found.append(ContrastPair(contrast, prepare_pair(*images, near, far, own, f" contrast {number}")))
    return tuple(found)


def _check_place(grid: Grid, reference: Grid, what: str, name: str) -> None:
    """Refuse an image of another dimension, or beside the one it belongs to (GeometryError)."""
    if grid.dimension != reference.dimension:
        raise GeometryError(
            f"expected the {what} in {reference.dimension}-D as the first pair is, got {grid.dimension}-D: give an "
            "image of the same dimension"
        )
    if not boxes_overlap(reference, grid):
        raise GeometryError(
            f"expected the {what} where the {name} image lies, {reference.box()}, got it in {grid.box()} (x, y, z, "
            "LPS): give an image of the same scene in the same space, or bring it there first"
        )


def with_models(
    contrasts: Sequence[ContrastPair],
    usual: Sequence[Pairing],
    config: RegistrationConfig,
    device: torch.device,
    given: Given,
) -> tuple[ContrastPair, ...]:
    """The contrasts with their models loaded; ``usual`` are those of the first pair. Raises ConfigError, ModelError."""
    if contrasts and config.refine.mode == "jacobian":
        raise ConfigError("expected refine.mode=static with further contrasts, got jacobian, which sees one pair alone")
    return tuple(
        replace(contrast, pairings=tuple(_models(contrast, usual, config, device, given))) for contrast in contrasts
    )


def _models(
    contrast: ContrastPair, usual: Sequence[Pairing], config: RegistrationConfig, device: torch.device, given: Given
) -> Sequence[Pairing]:
    """What one contrast is compared by."""
    model = contrast.asked.model
    if model is None:
        return usual
    several = tuple(model) if isinstance(model, (list, tuple)) else (model,)
    if not several:
        raise ConfigError("expected a model or several for a contrast, got an empty list: leave it out for the usual")
    named = all(isinstance(each, ModelConfig) for each in several)
    entries = several if named else tuple(ModelConfig() for _ in several)
    handed = replace(given, models=() if named else several)
    described = [
        replace(entry, model=str(each)) if isinstance(each, (str, Path)) else entry
        for entry, each in zip(entries, several, strict=True)
    ]
    return resolve_models(replace(config, models=tuple(described)), contrast.pair.grids[0].dimension, device, handed)


def images_of(
    pair: Pair, contrasts: Sequence[ContrastPair], frame: Frame, start: Field | None, base: RegistrationConfig,
    device: torch.device,
) -> AllImages:  # fmt: skip
    """All images in the working ``frame``, the moving ones read through ``start``."""

    def seen(pair: Pair) -> Images:
        near, far = canonical(pair.treated["fixed"]), canonical(pair.treated["moving"])
        # one on another grid is read between its voxels, as the moving one is
        own = replace(frame, kept=frame.kept and near[0].grid == frame.fixed)
        return Images(near, far, own, start, base, device)

    others = tuple(seen(contrast.pair) for contrast in contrasts)
    return AllImages(seen(pair), others, tuple(contrast.asked.weight for contrast in contrasts))


def by_channel(fixed: str | Path, moving: str | Path) -> tuple[LoadedImage, LoadedImage, tuple[Contrast, ...]]:
    """Two images of several values a voxel, to be compared channel by channel.

    Args:
        fixed: a file of colours, of vectors, or of frames, which then are the channels.
        moving: one with as many channels.

    Returns:
        The fixed and the moving image to register, the luminance of colours and the first channel of others, and a
        contrast for each channel that is left; together these count as much as the first pair.

    Raises:
        ImageError: for files that cannot be read.
        ConfigError: for other numbers of channels, one, or too many.
    """
    near, far = read_channels(fixed), read_channels(moving)
    counts = len(near.channels), len(far.channels)
    if counts[0] != counts[1] or not 2 <= counts[0] <= CHANNELS:
        raise ConfigError(
            f"expected two images of the same number of channels, 2 to {CHANNELS}, got {counts[0]} in {fixed} and "
            f"{counts[1]} in {moving}: take out what belongs together, or leave out the comparison by channel"
        )
    pairs = list(zip(near.channels, far.channels, strict=True))
    wholes = (near.whole, far.whole)
    first = pairs.pop(0) if wholes[0] is None or wholes[1] is None else (wholes[0], wholes[1])
    return *first, tuple(Contrast(one, other, weight=1 / len(pairs)) for one, other in pairs)
