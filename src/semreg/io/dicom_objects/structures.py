"""RT Structure Sets: the contours that are read, and a set of others on the slices of another image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from semreg.errors import ConfigError, ImageError
from semreg.io.dicom_files import careful, read_header
from semreg.io.dicom_objects.headers import DicomImage
from semreg.io.dicom_objects.writing import (
    contributed,
    described,
    fresh,
    item,
    moved_to_study,
    new_uid,
    put,
    reference,
    stamp,
)

Points: TypeAlias = npt.NDArray[np.float64]

STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"
"""RT Structure Set Storage."""
STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management, what a set calls the class of a study."""
CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
OPEN = ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")


@dataclass(frozen=True)
class Contour:
    """One contour: its points in order (3, N) in mm, LPS, and its kind in the words of DICOM."""

    points: Points
    kind: str


@dataclass(frozen=True)
class Structure:
    """One region of interest."""

    number: int
    name: str
    contours: tuple[Contour, ...]

    @property
    def closed(self) -> tuple[Points, ...]:
        """The closed contours: together, where each crosses out what is in another, the areas of its planes."""
        return tuple(each.points for each in self.contours if each.kind in CLOSED)


@careful
def read_structures(path: Path) -> tuple[Any, tuple[Structure, ...]]:
    """A structure set: its data set, and its regions with their contours, in the order of their contours.

    Raises ImageError for a damaged file, and for contours that are not finite points.
    """
    data, _ = read_header(path)
    names = {int(each.ROINumber): str(each.get("ROIName") or "") for each in data.get("StructureSetROISequence") or ()}
    found = []
    for each in data.get("ROIContourSequence") or ():
        number = int(each.ReferencedROINumber)
        contours = tuple(_contour(part, path) for part in each.get("ContourSequence") or ())
        found.append(Structure(number, names.get(number, str(number)), contours))
    if not any(each.contours for each in found):
        raise ImageError(f"expected contours in {path}, got none: export the structure set again")
    return data, tuple(found)


def _contour(data: Any, path: Path) -> Contour:
    values = np.array([float(v) for v in data.get("ContourData") or ()])
    if not values.size or values.size % 3 or not np.isfinite(values).all():
        raise ImageError(f"expected contours of finite points in {path}, got {values.size} numbers: export it again")
    return Contour(values.reshape(-1, 3).T, str(data.get("ContourGeometricType") or "CLOSED_PLANAR"))


def structure_set(data: Any, contours: Mapping[int, Sequence[Contour]], image: DicomImage) -> Any:
    """The set with other contours, on another image, of whose patient and study it becomes.

    Args:
        data: the data set that was read.
        contours: by the number of the region; closed ones lie in slices of ``image``.
        image: the headers of that image.

    Returns:
        A new SOP instance in a new series, not approved.

    Raises:
        ConfigError: for an image without a frame of reference.
    """
    if not image.frame:
        raise ConfigError(
            f"expected a reference with a Frame of Reference UID for structures, got {image.name} without: give the "
            "series of the planning image"
        )
    result = moved_to_study(data, image.first)
    stamp(result, STRUCTURES)
    contributed(result, "contours drawn again after registration")
    put(
        result, SeriesInstanceUID=new_uid(), SeriesDescription=described(data, "registered"),
        StructureSetDate=result.ContentDate, StructureSetTime=result.ContentTime, ContentDate=None, ContentTime=None,
        ApprovalStatus="UNAPPROVED", ReviewDate=None, ReviewTime=None, ReviewerName=None,
        PredecessorStructureSetSequence=[reference(data)],
        ReferencedFrameOfReferenceSequence=[_referenced(image)],
        StructureSetROISequence=[_region(each, image.frame) for each in data.get("StructureSetROISequence") or ()],
        ROIContourSequence=[
            _region_contours(each, contours.get(int(each.ReferencedROINumber), ()), image)
            for each in data.get("ROIContourSequence") or ()
        ],
    )  # fmt: skip
    if "FrameOfReferenceUID" in result:
        put(result, FrameOfReferenceUID=image.frame)
    return result


def _referenced(image: DicomImage) -> Any:
    series = item(
        SeriesInstanceUID=str(image.first.SeriesInstanceUID),
        ContourImageSequence=[reference(header) for header in image.headers],
    )
    study = item(
        ReferencedSOPClassUID=STUDY_CLASS, ReferencedSOPInstanceUID=str(image.first.StudyInstanceUID),
        RTReferencedSeriesSequence=[series],
    )  # fmt: skip
    return item(FrameOfReferenceUID=image.frame, RTReferencedStudySequence=[study])


def _region(data: Any, frame: str) -> Any:
    result = fresh(data)
    put(result, ReferencedFrameOfReferenceUID=frame, ROIVolume=None)
    return result


def _region_contours(data: Any, contours: Sequence[Contour], image: DicomImage) -> Any:
    result = fresh(data)
    items = [_contour_item(number, contour, image) for number, contour in enumerate(contours, 1)]
    put(result, ContourSequence=items or None, SourceSeriesSequence=None, SourcePixelPlanesCharacteristicsSequence=None)
    return result


def _contour_item(number: int, contour: Contour, image: DicomImage) -> Any:
    result = item(
        ContourNumber=number, ContourGeometricType=contour.kind, NumberOfContourPoints=contour.points.shape[1],
        ContourData=[f"{value + 0.0:.4f}" for value in contour.points.T.ravel()],
    )  # fmt: skip
    if contour.kind in CLOSED:
        height = float(np.asarray(image.normal) @ contour.points.mean(1))
        put(result, ContourImageSequence=[reference(image.headers[image.nearest(height)])])
    return result
