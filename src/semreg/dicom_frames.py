"""What SimpleITK does not show of DICOM files: where frames lie and how each is scaled, and files it cannot read.

pydicom is imported by the functions that need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from semreg.errors import ImageError


@dataclass(frozen=True)
class Frame:
    """One frame: first pixel in mm (LPS), direction cosines of rows and columns, pixel spacing in mm, and scaling."""

    position: tuple[float, ...]
    cosines: tuple[float, ...]
    spacing_xy: tuple[float, float]
    slope: float
    intercept: float


def series_of_image(path: Path) -> str:
    """The UID of the series a file belongs to, empty if it holds no image, or if not even that can be read."""
    import pydicom

    try:
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "Rows"])
    except (pydicom.errors.InvalidDicomError, EOFError, ValueError, KeyError):
        return ""
    return str(data.get("SeriesInstanceUID") or "") if data.get("Rows") else ""


def read_frames(path: Path) -> list[Frame] | None:
    """The frames of a file in the order of its pixels, None if it does not give the position of each (ImageError)."""
    import pydicom

    try:
        data = pydicom.dcmread(path, stop_before_pixels=True)
    except (pydicom.errors.InvalidDicomError, EOFError) as error:
        raise ImageError(f"expected a DICOM file, got {path}: its header is damaged; copy it again") from error
    shared = data.get("SharedFunctionalGroupsSequence") or [{}]
    frames = [_frame(own, shared[0]) for own in data.get("PerFrameFunctionalGroupsSequence") or ()]
    known = [frame for frame in frames if frame is not None]
    return known if known and len(known) == int(data.get("NumberOfFrames") or 1) else None


def scaled(pixels: Tensor, frames: Sequence[Frame], number: int) -> Tensor:
    """The values of one frame with its own slope and intercept: GDCM scales all frames as the first one."""
    first, own = frames[0], frames[number]
    if (own.slope, own.intercept) == (first.slope, first.intercept) or first.slope == 0:
        return pixels
    return (pixels - first.intercept) / first.slope * own.slope + own.intercept


def _frame(own: Any, shared: Any) -> Frame | None:
    """The frame of one item of the functional groups, None without position, direction and spacing."""

    def find(group: str, name: str) -> Any:
        for place in (own, shared):
            items = place.get(group)
            if items and items[0].get(name) is not None:
                return items[0].get(name)
        return None

    position = find("PlanePositionSequence", "ImagePositionPatient")
    cosines = find("PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = find("PixelMeasuresSequence", "PixelSpacing")
    if position is None or cosines is None or spacing is None:
        return None
    slope = find("PixelValueTransformationSequence", "RescaleSlope")
    intercept = find("PixelValueTransformationSequence", "RescaleIntercept")
    return Frame(
        tuple(map(float, position)),
        tuple(map(float, cosines)),
        (float(spacing[1]), float(spacing[0])),
        1.0 if slope is None else float(slope),
        0.0 if intercept is None else float(intercept),
    )
