"""Segmentation objects on another grid: one binary frame for each segment in each slice where it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from semreg.core.geometry import Grid
from semreg.errors import ConfigError
from semreg.io.dicom_frames import SEGMENTATIONS
from semreg.io.dicom_objects.headers import DicomImage
from semreg.io.dicom_objects.writing import (
    code,
    decimals,
    described,
    item,
    made_by_semreg,
    moved_to_study,
    new_uid,
    number,
    put,
    reference,
    references_by_series,
    stamp,
)

SEGMENT, POSITION = (0x0062000B, 0x0062000A), (0x00200032, 0x00209113)
"""What frames are ordered by, and the functional group it is in."""
OF_THE_OLD_FRAMES = (
    "PixelPaddingValue", "MaximumFractionalValue", "SegmentationFractionalType", "SegmentsOverlap",
    "SourceImageSequence", "StudiesContainingOtherReferencedInstancesSequence", "ReferencedImageSequence",
    "DimensionOrganizationType",
)  # fmt: skip
"""Elements that describe the frames that were."""


def segmentation(data: Any, labels: npt.NDArray[np.int64], grid: Grid, image: DicomImage) -> Any:
    """A binary segmentation with other labels, on the slices of an image, of whose patient and study it becomes.

    Args:
        data: the data set of the segmentation they were made of, whose segments have these numbers.
        labels: (z, y, x), 0 for none.
        grid: where they lie.
        image: the headers of that image.

    Returns:
        A new SOP instance in a new series.

    Raises:
        ConfigError: for an image without a frame of reference, and for labels without a voxel.
    """
    if not image.frame:
        raise ConfigError(
            f"expected a reference with a Frame of Reference UID for a segmentation, got {image.name} without: give "
            "the series it is of"
        )
    frames = [(int(label), plane) for label in np.unique(labels[labels > 0]) for plane in _planes(labels == label)]
    if not frames:
        raise ConfigError(f"expected segments that reach the slices of {image.name}, got none there: check the way")
    organization = new_uid()
    result = moved_to_study(data, image.first)
    stamp(result, SEGMENTATIONS[0])
    made_by_semreg(result)
    pixels = np.stack([labels[plane] == label for label, plane in frames])
    packed = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    put(result, **dict.fromkeys(OF_THE_OLD_FRAMES))
    put(
        result, SeriesInstanceUID=new_uid(), SeriesDescription=described(data, "registered"),
        FrameOfReferenceUID=image.frame, PositionReferenceIndicator="", ImageType=["DERIVED", "PRIMARY"],
        SegmentationType="BINARY", Rows=grid.size_xyz[1], Columns=grid.size_xyz[0], NumberOfFrames=len(frames),
        SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", BitsAllocated=1, BitsStored=1, HighBit=0,
        PixelRepresentation=0, LossyImageCompression="00", ReferencedSeriesSequence=[references_by_series(image)],
        DimensionOrganizationSequence=[item(DimensionOrganizationUID=organization)],
        DimensionIndexSequence=[
            item(DimensionOrganizationUID=organization, DimensionIndexPointer=tag, FunctionalGroupPointer=group)
            for tag, group in (SEGMENT, POSITION)
        ],
        SharedFunctionalGroupsSequence=[_shared(grid)],
        PerFrameFunctionalGroupsSequence=[_frame(label, plane, grid, image) for label, plane in frames],
        PixelData=packed + b"\0" * (len(packed) % 2),
    )  # fmt: skip
    result["PixelData"].VR = "OB"
    return result


def _planes(there: npt.NDArray[np.bool_]) -> list[int]:
    return np.flatnonzero(there.any((1, 2))).tolist()


def _shared(grid: Grid) -> Any:
    axes, spacing = np.asarray(grid.direction), grid.spacing_xyz
    measures = item(
        PixelSpacing=decimals(spacing[1::-1]),
        SliceThickness=number(spacing[2]),
        SpacingBetweenSlices=number(spacing[2]),
    )
    orientation = item(ImageOrientationPatient=decimals(axes[:, :2].T.ravel()))
    return item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[orientation])


def _frame(label: int, plane: int, grid: Grid, image: DicomImage) -> Any:
    place = np.asarray(grid.origin_xyz) + np.asarray(grid.direction)[:, 2] * plane * grid.spacing_xyz[2]
    source = reference(image.headers[image.nearest(float(np.asarray(image.normal) @ place))])
    put(source, PurposeOfReferenceCodeSequence=code("121322", "Source image for image processing operation"))
    derivation = item(SourceImageSequence=[source], DerivationCodeSequence=code("113076", "Segmentation"))
    return item(
        FrameContentSequence=[item(DimensionIndexValues=[label, plane + 1])],
        PlanePositionSequence=[item(ImagePositionPatient=decimals(place))],
        SegmentIdentificationSequence=[item(ReferencedSegmentNumber=label)],
        DerivationImageSequence=[derivation],
    )
