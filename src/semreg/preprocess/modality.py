"""What kind of image it is: as set, as the DICOM header says, or CT where the values look like Hounsfield units.

Only CT is told by its values; nothing is guessed of any other image. Knows nothing of registration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import Tensor

from semreg.config import Modality
from semreg.core.fields import Volume, finite
from semreg.io.bridge import LoadedImage, to_volume

Source: TypeAlias = Literal["settings", "header", "values"]

PADDING_BELOW = -1200.0
"""HU that neither noise nor interpolation makes of air, which has −1000: below, a value may be padding."""
PADDING_SPREAD = 50.0
"""Values of padding lie within this distance of their median, except for what was interpolated at its edge."""
PADDING_SHARE = 1e-3
"""Share of the voxels below ``PADDING_BELOW`` from which they are padding and not single odd ones."""
AIR_HU = (-1100.0, -900.0)
"""Between these lies air."""
LEAST_AIR = 2e-3
"""Share of the voxels without padding that are air in CT: that around the body, else that in airways."""
LUNG_HU, FAT_HU = -600.0, -200.0
"""CT: little lies between lung and fat."""
VALLEY = 2.0
"""By how many times fewer voxels lie between lung and fat than below, and than above."""
LEAST_WATER = 1e-2
"""Share of the voxels above water, 0 HU: a negated image has none."""
DENSE_HU = 2000.0
"""Above are metal and enamel."""
MOST_DENSE = 0.02
"""Share of the voxels that they may be."""


@dataclass(frozen=True)
class Recognised:
    """What an image is taken for, and who says so."""

    modality: Modality
    """``ct``, ``mr`` or ``other``; ``other`` from ``values``: anything but CT."""
    source: Source

    @property
    def ct(self) -> bool:
        """Whether the values are taken for Hounsfield units."""
        return self.modality == "ct"


def recognise(image: Any, said: Modality = "auto") -> Recognised:
    """What ``image``, anything ``to_volume`` takes, is: what is ``said``, else its DICOM header, else its values."""
    if said != "auto":
        return Recognised(said, "settings")
    header = image.modality if isinstance(image, LoadedImage) else None
    if header is not None:
        return Recognised(header, "header")
    return Recognised("ct" if is_ct_like(to_volume(image)) else "other", "values")


def is_ct_like(volume: Volume) -> bool:
    """Whether the finite values of an image (1, *S) are distributed as those of CT in HU are.

    There is air near −1000 and something above water; little lies between lung and fat; what is below air is padding,
    or little of it; hardly anything is as dense as metal. CT that shows no air does not look like it.
    """
    return are_hounsfield(finite(volume.data))


def are_hounsfield(values: Tensor) -> bool:
    """The same of finite values in any order, all of an image or a sample of them."""
    if not values.numel() or float(values.min()) > AIR_HU[1]:
        return False
    below = int((values < PADDING_BELOW).count_nonzero())
    if below > PADDING_SHARE * values.numel() and padding_of(values) is None:
        return False

    def share(where: Tensor) -> float:
        return int(where.count_nonzero()) / (values.numel() - below)

    light = share((values >= PADDING_BELOW) & (values < LUNG_HU))
    between = share((values >= LUNG_HU) & (values < FAT_HU))
    return (
        share((values >= AIR_HU[0]) & (values < AIR_HU[1])) >= LEAST_AIR
        and VALLEY * between <= min(light, share(values >= FAT_HU))
        and share(values > 0) >= LEAST_WATER
        and share(values > DENSE_HU) <= MOST_DENSE
    )


def padding_of(hounsfield: Tensor) -> float | None:
    """The value with which CT in HU is padded, such as −2000 or −3024; None without padding.

    Values so low that are spread, as those of a phase image are, are no padding, nor is an image of nothing else.
    """
    values = hounsfield.masked_select(hounsfield < PADDING_BELOW)
    if not PADDING_SHARE * hounsfield.numel() < values.numel() < hounsfield.numel():
        return None
    median = values.median()
    alike = int(((values - median).abs() <= PADDING_SPREAD).count_nonzero())
    return float(median) if 2 * alike >= values.numel() else None
