"""What of the intensities counts, before features see them: padding, single extreme voxels, the body.

Knows no features. An image that needs nothing is returned as it is, the same object.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from semreg.config import IntensityConfig
from semreg.core.fields import Volume
from semreg.errors import ImageError
from semreg.preprocess.body import MARGIN_MM, body_mask, content_mask
from semreg.preprocess.modality import PADDING_BELOW, is_ct_like, padding_of

logger = logging.getLogger("semreg")

OUTSIDE_HU = -1024.0
"""What takes the place of padding in CT."""
RANGE_RATIO = 5.0
"""Values far beyond all others: their range is this many times the range between the percentiles."""


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Voxels that count as outside, and their median value."""

    voxels: int
    value: float


@dataclass(frozen=True, kw_only=True)
class Winsorised:
    """Values cut off to ``low`` and ``high``: how many ``voxels`` were beyond, and the range before."""

    low: float
    high: float
    voxels: int
    lowest: float
    highest: float


@dataclass(frozen=True, kw_only=True)
class Body:
    """The ``share`` of the image that is the body, with a margin."""

    share: float
    margin_mm: float


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """What was done to the intensities of an image; None where it was not needed."""

    padding: Padding | None = None
    winsorised: Winsorised | None = None
    body: Body | None = None


def treat(
    volume: Volume, weight: Volume | None, config: IntensityConfig, name: str, *, ct: bool | None = None
) -> tuple[Volume, Volume | None, Treatment]:
    """The image (1, *S) as features are to see it, the weight (1, *S) of its voxels, and what was done, in numbers.

    ``volume`` is finite, ``weight`` (None: all count) lies on its grid, as ``preparation.clean`` returns them; ``name``
    says which image, for messages. ``ct``: whether its values are Hounsfield units; None: as they look.

    Where nothing was needed ``volume`` and ``weight`` are the objects that came. Raises ImageError where padding is all
    there is.
    """
    ct = is_ct_like(volume) if ct is None else ct
    padding: Padding | None = None
    cut: Winsorised | None = None
    body: Body | None = None
    if config.padding and ct:
        volume, weight, padding = _without_padding(volume, weight, name)
    values = volume  # winsorising must not move the threshold of tissue
    if config.winsorise is not False:
        volume, cut = _winsorised(volume, weight, config, name)
    if config.body:
        weight, share = _within_body(values, weight, ct=ct)
        if share < 1:
            body = Body(share=share, margin_mm=MARGIN_MM if ct else 0.0)
            logger.info("%s image: %.0f %% of it are the body; the rest does not count", name, 100 * share)
    return volume, weight, Treatment(padding=padding, winsorised=cut, body=body)


def _without_padding(volume: Volume, weight: Volume | None, name: str) -> tuple[Volume, Volume | None, Padding | None]:
    """CT whose values below air that are nearly all the same count as outside and are air."""
    value = padding_of(volume.data)
    if value is None:
        return volume, weight, None
    low = volume.data < PADDING_BELOW
    counted = (~low).to(volume.data.dtype)
    counted = counted if weight is None else weight.data * counted
    if not bool((counted > 0).any()):
        raise ImageError(
            f"expected voxels above {PADDING_BELOW:g} HU that count in the {name} image, got padding of {value:g} "
            "alone: check the file, the mask and intensities.modality, or set intensities.padding = false"
        )
    data = torch.where(low, torch.as_tensor(OUTSIDE_HU, dtype=volume.data.dtype), volume.data)
    voxels = int(low.count_nonzero())
    logger.info("%s image: %d voxels of about %g are padding, outside of it", name, voxels, value)
    return Volume(data, volume.grid), Volume(counted, volume.grid), Padding(voxels=voxels, value=float(value))


def _winsorised(
    volume: Volume, weight: Volume | None, config: IntensityConfig, name: str
) -> tuple[Volume, Winsorised | None]:
    """The image with its values cut off at the percentiles, if it needs that or is told to."""
    counted = volume.data if weight is None else volume.data.masked_select(weight.data > 0)
    low, high = _percentiles(counted, config.percentiles)
    lowest, highest = (float(v) for v in torch.aminmax(counted))
    if not high > low or (low <= lowest and high >= highest):
        return volume, None
    if config.winsorise is None and highest - lowest <= RANGE_RATIO * (high - low):
        return volume, None
    voxels = int(((counted < low) | (counted > high)).sum())
    logger.info(
        "%s image: %d voxels between %g and %g are cut off to %g and %g", name, voxels, lowest, highest, low, high
    )
    cut = Winsorised(low=low, high=high, voxels=voxels, lowest=lowest, highest=highest)
    return Volume(volume.data.clamp(low, high), volume.grid), cut


def _percentiles(values: Tensor, percent: tuple[float, ...]) -> tuple[float, float]:
    """Two percentiles of all values, each the value of a voxel; they do not depend on the order of the voxels."""
    flat = values.flatten().numpy()
    first, last = (round(p / 100 * (flat.size - 1)) for p in percent)
    ordered = np.partition(flat, (first, last))
    return float(ordered[first]), float(ordered[last])


def _within_body(volume: Volume, weight: Volume | None, *, ct: bool) -> tuple[Volume | None, float]:
    """The weight within the body (CT) or the content of the image, and the share of the image that is."""
    inside = body_mask(volume) if ct else content_mask(volume, ct=False)
    share = float(inside.data.mean())
    if share == 1:
        return weight, share
    both = inside.data if weight is None else inside.data * weight.data
    if not bool((both > 0).any()):
        logger.warning("the mask and the body that is found have no voxel in common: the mask alone counts")
        return weight, 1.0
    return Volume(both, volume.grid), share
