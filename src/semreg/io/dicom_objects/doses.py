"""RT Dose objects on another grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from semreg.core.geometry import Grid
from semreg.errors import ConfigError
from semreg.io.dicom_files import whole
from semreg.io.dicom_frames import DOSE
from semreg.io.dicom_objects.headers import DicomImage
from semreg.io.dicom_objects.writing import (
    contributed,
    decimals,
    described,
    moved_to_study,
    new_uid,
    number,
    put,
    stamp,
)

OFFSETS = 0x3004000C
"""GridFrameOffsetVector, to which the frames are bound."""
OF_THE_OLD_DOSE = (
    "DVHSequence", "DVHNormalizationPoint", "DVHNormalizationDoseValue", "SmallestImagePixelValue",
    "LargestImagePixelValue", "NormalizationPoint", "ReferencedImageSequence", "SliceLocation",
)  # fmt: skip
"""Elements that describe the dose or the place that were."""


def dose_object(
    data: Any, values: npt.NDArray[np.float32], grid: Grid, image: DicomImage, *, rigid: bool, registration: Any | None
) -> Any:
    """A dose with other values on another grid, in the frame of an image, of whose patient and study it becomes.

    Args:
        data: the data set of the dose that it was made of.
        values: (z, y, x) in the units of that dose.
        grid: where they lie.
        image: the headers of the image.
        rigid: whether the map was one.
        registration: a reference to the registration object that says the map, if there is one.

    Returns:
        A new SOP instance in a new series; histograms of the old dose are left out.

    Raises:
        ConfigError: for an image without a frame of reference.
    """
    if not image.frame:
        raise ConfigError(
            f"expected a reference with a Frame of Reference UID for a dose, got {image.name} without: give the series "
            "of the planning image"
        )
    bits = 16 if whole(data, "BitsAllocated") == 16 else 32
    signed = bool((values < 0).any())
    scaling = max(float(np.abs(values).max()), 1e-9) / (2 ** (bits - signed) - 1)
    scaling = float(number(scaling * (1 + 1e-9)))  # as it is written, and not below
    stored = np.rint(values.astype(np.float64) / scaling).astype(f"<{'i' if signed else 'u'}{bits // 8}")
    result = moved_to_study(data, image.first)
    stamp(result, DOSE)
    contributed(result, "registration and resampling")
    axes, spacing = np.asarray(grid.direction), grid.spacing_xyz
    put(result, **dict.fromkeys(OF_THE_OLD_DOSE))
    put(
        result, SeriesInstanceUID=new_uid(), SeriesDescription=described(data, "registered"),
        FrameOfReferenceUID=image.frame, PositionReferenceIndicator="", Rows=grid.size_xyz[1],
        Columns=grid.size_xyz[0], NumberOfFrames=grid.size_xyz[2], PixelSpacing=decimals(spacing[1::-1]),
        SliceThickness=number(spacing[2]), ImagePositionPatient=decimals(grid.origin_xyz),
        ImageOrientationPatient=decimals(axes[:, :2].T.ravel()), FrameIncrementPointer=OFFSETS,
        GridFrameOffsetVector=decimals(np.arange(grid.size_xyz[2]) * spacing[2]), BitsAllocated=bits, BitsStored=bits,
        HighBit=bits - 1, PixelRepresentation=int(signed), DoseGridScaling=number(scaling),
        SpatialTransformOfDose="RIGID" if rigid else "NON_RIGID",
        ReferencedSpatialRegistrationSequence=[] if registration is None else [registration],
        PixelData=stored.tobytes() + b"\0" * (stored.nbytes % 2),
    )  # fmt: skip
    result["PixelData"].VR = "OW"
    return result
