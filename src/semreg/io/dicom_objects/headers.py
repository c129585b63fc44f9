"""The headers of the files of one DICOM image, in the order of their slices, for objects that refer to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semreg.errors import ConfigError, GeometryError
from semreg.io.dicom_files import is_dicom, read_header, reading, whole
from semreg.io.image_files import files_of
from semreg.io.patients import Patient

Numbers = npt.NDArray[np.float64]

PATIENT = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "OtherPatientIDsSequence",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
)  # fmt: skip
"""The Patient Module, as far as it is handed on."""
STUDY = (
    "StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
    "StudyDescription", "PatientAge", "PatientSize", "PatientWeight",
)  # fmt: skip
"""The General Study and the Patient Study Module, as far as they are handed on."""
NEEDED = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID")
NEEDED_TOO = ("ReferringPhysicianName", "AccessionNumber")
"""Which have to be there, empty where nothing is known (type 2)."""


@dataclass(frozen=True)
class DicomImage:
    """An image by the headers of its files, data sets of pydicom without pixels, from the lowest slice on."""

    name: str
    headers: tuple[Any, ...]
    heights: tuple[float, ...]
    """Of each file, in mm along ``normal``; of one file, 0."""
    normal: tuple[float, ...]
    """Of the slices, LPS."""

    @property
    def first(self) -> Any:
        """The header of the first slice."""
        return self.headers[0]

    @property
    def frame(self) -> str:
        """The Frame of Reference UID, empty where there is none."""
        return str(self.first.get("FrameOfReferenceUID") or "")

    @property
    def patient(self) -> Patient:
        """Whose image it is."""
        return Patient.of(self.first)

    def nearest(self, height: float) -> int:
        """The file whose slice lies nearest to a height in mm."""
        return int(np.abs(np.asarray(self.heights) - height).argmin())

    def between(self, low: float, high: float) -> tuple[int, ...]:
        """The files that linear interpolation reads between two heights in mm; the nearest one where these are none."""
        heights = np.asarray(self.heights)
        step = float(np.diff(heights).max()) if len(heights) > 1 else np.inf
        found = np.flatnonzero((heights > low - step) & (heights < high + step))
        return tuple(found.tolist()) or (self.nearest((low + high) / 2),)


def headers_of(path: Path, series: str | None = None) -> DicomImage | None:
    """The headers of an image in a DICOM file or folder, None where it is in no DICOM.

    Args:
        path: the file or the folder.
        series: which one of a folder, as ``read_image`` chooses it.

    Returns:
        The headers; of copies the first.

    Raises:
        ImageError: for headers that are damaged.
        GeometryError: for several slices without a position.
    """
    if not (path.is_dir() or (path.is_file() and is_dicom(path))):
        return None
    found: dict[str, Any] = {}
    for file in files_of(path, series):
        header, _ = read_header(file)
        found.setdefault(str(header.get("SOPInstanceUID") or file), header)
    headers = list(found.values())
    if len(headers) == 1:
        return DicomImage(str(path), tuple(headers), (0.0,), (0.0, 0.0, 1.0))
    with reading(path):
        cosines = _floats(headers[0].get("ImageOrientationPatient"), 6)
        places = [_floats(each.get("ImagePositionPatient"), 3) for each in headers]
    if cosines is None or any(place is None for place in places):
        raise GeometryError(f"expected the position and direction of each slice in {path}, got none: convert it")
    normal = np.cross(cosines[:3], cosines[3:])
    heights = np.array([place @ normal for place in places if place is not None])
    order = np.argsort(heights, kind="stable")
    return DicomImage(
        str(path), tuple(headers[i] for i in order), tuple(heights[order].tolist()), tuple(normal.tolist())
    )


def series_headers(path: Path, series: str | None, what: str) -> DicomImage:
    """``headers_of`` where there must be some (ConfigError, with ``what`` it is needed for)."""
    found = headers_of(path, series)
    if found is None:
        raise ConfigError(f"expected a DICOM file or folder {what}, got {path}: give the series it was made of")
    return found


def check_can_be_derived(image: DicomImage) -> None:
    """Refuse an image of which no derived series can be written (ConfigError): several frames, colours, floats."""
    header = image.first
    if whole(header, "NumberOfFrames") > 1 or header.get("PerFrameFunctionalGroupsSequence"):
        raise ConfigError(
            f"expected a moving series of one slice a file with --dicom, got {image.name}, whose file has several "
            "frames: leave --dicom out, or export the series as single slices"
        )
    kind = whole(header, "SamplesPerPixel"), str(header.get("PhotometricInterpretation") or "")
    if kind[0] != 1 or not kind[1].startswith("MONOCHROME") or whole(header, "BitsAllocated") not in (8, 16):
        raise ConfigError(
            f"expected a moving series of grey values in 8 or 16 bits with --dicom, got {image.name} with {kind[1]} "
            f"in {whole(header, 'BitsAllocated')} bits: leave --dicom out"
        )


def _floats(values: Sequence[Any] | None, count: int) -> Numbers | None:
    if values is None or len(values) != count:
        return None
    array = np.array([float(each) for each in values])
    return array if np.isfinite(array).all() else None
