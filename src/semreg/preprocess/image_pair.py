"""Two images as users give them → checked, without what does not count, ready for an alignment or a registration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch

from semreg.config import RegistrationConfig
from semreg.core.fields import Volume, background
from semreg.core.geometry import Grid
from semreg.io.bridge import LoadedImage, to_volume
from semreg.io.bridge.kinds import ImageLike
from semreg.io.images import in_one_unit, in_unit_of, read_image, read_mask
from semreg.preprocess.intensities import Treatment, treat
from semreg.preprocess.modality import Recognised, recognise
from semreg.preprocess.preparation import check_dimension, clean

T = TypeVar("T")
Cleaned: TypeAlias = tuple[Volume, Volume | None]
"""An image and the weight of its voxels."""


@dataclass(frozen=True)
class Pair:
    """Both images, by ``fixed`` and ``moving``."""

    cleaned: dict[str, Cleaned]
    """Finite, with the weight of mask and missing voxels: what is warped."""
    treated: dict[str, Cleaned]
    """What features see: without padding and outliers."""
    recognised: dict[str, Recognised]
    """What each image is taken for."""
    outside: float
    """Value of the warped image where the moving one shows nothing."""
    done: dict[str, Treatment]
    """What was done to the intensities of each image."""
    missing: dict[str, float]
    """Share of the voxels of each image that are not finite."""

    @property
    def ct(self) -> tuple[bool, bool]:
        """Whether the values of the fixed and of the moving image are taken for Hounsfield units."""
        return self.recognised["fixed"].ct, self.recognised["moving"].ct

    @property
    def grids(self) -> tuple[Grid, Grid]:
        """Of the fixed and of the moving image."""
        return self.cleaned["fixed"][0].grid, self.cleaned["moving"][0].grid


def prepare_pair(
    fixed: ImageLike,
    moving: ImageLike,
    fixed_mask: ImageLike | None,
    moving_mask: ImageLike | None,
    config: RegistrationConfig,
    whose: str = "",
) -> Pair:
    """Check, clean and treat both images; files are read. Raises ImageError and GeometryError.

    ``whose``: what messages call them after ``fixed`` and ``moving``.
    """
    fixed, moving = opened(fixed), opened(moving)
    if isinstance(fixed, LoadedImage) and isinstance(moving, LoadedImage):
        fixed, moving = in_one_unit({"fixed": fixed, "moving": moving}).values()
    volumes = {"fixed": to_volume(fixed), "moving": to_volume(moving)}
    recognised = recognise_both(fixed, moving, config)
    check_dimension(volumes["fixed"].grid, volumes["moving"].grid)
    outside = background(volumes["moving"]) if config.background is None else config.background
    masks = {"fixed": fixed_mask, "moving": moving_mask}
    cleaned: dict[str, Cleaned] = {}
    treated: dict[str, Cleaned] = {}
    done: dict[str, Treatment] = {}
    for name, volume in volumes.items():
        mask = _mask(masks[name], volume.grid)
        cleaned[name] = clean(volume, mask, name + whose)
        image, weight, done[name] = treat(*cleaned[name], config.intensities, name + whose, ct=recognised[name].ct)
        treated[name] = (image, weight)
    missing = {name: share_missing(volume) for name, volume in volumes.items()}
    return Pair(cleaned, treated, recognised, outside, done, missing)


def opened(image: T) -> T | LoadedImage:
    """What is in the file, where an image is the name of one; else the image itself."""
    return read_image(image) if isinstance(image, (str, Path)) else image


def _mask(mask: ImageLike | None, image: Grid) -> Volume | None:
    """The weights of a mask; of a picture in the unit of its image."""
    if not isinstance(mask, (str, Path)):
        return None if mask is None else to_volume(mask)
    found = read_mask(mask)
    return Volume(found.data, in_unit_of(found.grid, mask, image))


def share_missing(image: Volume) -> float:
    """The share of the voxels that are not finite."""
    return 1.0 - int(torch.isfinite(image.data).count_nonzero()) / image.data.numel()


def recognise_both(fixed: Any, moving: Any, config: RegistrationConfig) -> dict[str, Recognised]:
    """What both images are taken for, by ``fixed`` and ``moving``."""
    near, far = config.intensities.modalities
    return {"fixed": recognise(fixed, near), "moving": recognise(moving, far)}
