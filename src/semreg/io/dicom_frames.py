"""What SimpleITK does not show of DICOM files or shows wrong: what they are, where frames lie, values it garbles.

pydicom is imported by the functions that need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semreg.errors import GeometryError, ImageError
from semreg.io.dicom_files import (
    NATIVE,
    careful,
    failures,
    kind_of,
    name_of,
    read_header,
    syntax_of,
    trouble_of,
    value_of,
)
from semreg.runtime.memory import is_out_of_memory

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes: Segmentation, Label Map Segmentation."""
DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""VL Whole Slide Microscopy Image Storage."""
TIMES = (0x00181063, 0x00181065)
"""Frame increment pointers that say that frames are moments: FrameTime, FrameTimeVector."""
BIG_ENDIAN = "1.2.840.10008.1.2.2"
RUN_LENGTH = "1.2.840.10008.1.2.5"
JPEG = (50, 51, 57, 70, 80, 81, 90, 91, 92, 93, 201, 202, 203)
COMPRESSED = (RUN_LENGTH, *(f"1.2.840.10008.1.2.4.{number}" for number in JPEG))
"""Transfer syntaxes that GDCM or pydicom decode: run lengths, JPEG, JPEG-LS, JPEG 2000."""
DECODED = ("MONOCHROME1", "MONOCHROME2", "RGB")
"""Photometric interpretations that are taken from pydicom as they are."""


@dataclass(frozen=True)
class Frame:
    """One frame: first pixel in mm (LPS), direction cosines of rows and columns, pixel spacing in mm, and scaling."""

    position: tuple[float, ...]
    cosines: tuple[float, ...]
    spacing_xy: tuple[float, float]
    slope: float = 1.0
    intercept: float = 0.0


@careful
def facts_of(path: Path) -> tuple[Any, int]:
    """What a file says of its kind and its pixels, a pydicom data set, and the byte at which they start.

    Raises ImageError for what holds no image, or a damaged one, and for kinds whose pixels are no slices: mosaics,
    tiles of slides, frames over time.
    """
    data, start = read_header(path)
    if "Rows" not in data and value_of(data, "SOPClassUID"):
        raise ImageError(
            f"expected a DICOM file that holds an image, got {path}: it is of another kind ({kind_of(data)})"
        )
    if trouble := trouble_of(data, path.stat().st_size - start):
        raise ImageError(f"expected a DICOM file that holds an image, got {path}: {trouble}; copy it again")
    number = int(data.get("NumberOfFrames") or 1)
    if "MOSAIC" in [str(word).upper() for word in _listed(data.get("ImageType"))]:
        raise ImageError(
            f"expected one slice in {path}, got a mosaic of Siemens, whose tiles are slices: convert the series "
            "to NIfTI with dcm2niix"
        )
    whole = int(data.get("TotalPixelMatrixColumns") or 0), int(data.get("TotalPixelMatrixRows") or 0)
    if data.get("SOPClassUID") == SLIDE and (number > 1 or whole > (int(data.Columns), int(data.Rows))):
        raise ImageError(
            f"expected slices or one picture in {path}, got {number} tiles of a whole slide of {whole[0]} × {whole[1]} "
            "pixels: export one level of it as a picture, such as TIFF"
        )
    pointers = {int(each) for each in _listed(data.get("FrameIncrementPointer"))}
    if number > 1 and pointers & set(TIMES) and not data.get("PerFrameFunctionalGroupsSequence"):
        raise ImageError(f"expected slices in {path}, got {number} frames over time: export one of them")
    return data, start


def undecoded(path: Path, facts: Any) -> ImageError:
    """The error for pixels that cannot be decoded: the file is damaged, or compressed in a way that nobody reads."""
    syntax = syntax_of(facts)
    if syntax in (*NATIVE, *COMPRESSED):
        return ImageError(f"expected a DICOM file with pixels, got {path}: they are damaged; copy it again")
    return ImageError(
        f"expected pixels in a form that is read, got {path} with {name_of(syntax)}: decompress it with "
        "another tool, such as gdcmconv --raw"
    )


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, (str, int)) else list(value)


def is_garbled(facts: Any) -> bool:
    """Whether GDCM is known to read the pixels wrong: pydicom reads them."""
    syntax = syntax_of(facts)
    bits = int(facts.get("BitsAllocated") or 0)
    if facts.get("SOPClassUID") == DOSE or facts.get("PhotometricInterpretation") not in DECODED:
        return bool(facts.get("SOPClassUID") == DOSE)
    return syntax in (BIG_ENDIAN, RUN_LENGTH) or (syntax in NATIVE and (bits == 1 or bits > 16))


@careful
def decoded(path: Path, facts: Any) -> Tensor:
    """The stored values of all frames by pydicom, float32, scaled: (frame, y, x), and rgb as a last axis of colours."""
    data, _ = read_header(path, pixels=True)
    try:
        pixels = np.asarray(data.pixel_array)
    except failures(RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise undecoded(path, data) from error
    samples = int(facts.get("SamplesPerPixel") or 1)
    values = pixels.reshape(-1, int(data.Rows), int(data.Columns), *([samples] if samples > 1 else []))
    scale = data.get("DoseGridScaling") if facts.get("SOPClassUID") == DOSE else data.get("RescaleSlope")
    offset = None if facts.get("SOPClassUID") == DOSE else data.get("RescaleIntercept")
    if scale is not None or offset is not None:
        values = values * float(1 if scale is None else scale) + float(0 if offset is None else offset)
    return torch.from_numpy(values.astype(np.float32))


@careful
def read_frames(path: Path) -> list[Frame] | None:
    """The frames of a file in the order of its pixels, None if it does not give the position of each (ImageError)."""
    data, _ = read_header(path)
    if data.get("SOPClassUID") == DOSE:
        return _planes_of_dose(data, path)
    shared = data.get("SharedFunctionalGroupsSequence") or [{}]
    frames = [frame_of(own, shared[0]) for own in data.get("PerFrameFunctionalGroupsSequence") or ()]
    known = [frame for frame in frames if frame is not None]
    return known if known and len(known) == int(data.get("NumberOfFrames") or 1) else None


def _planes_of_dose(data: Any, path: Path) -> list[Frame]:
    """The planes of a dose: offsets in mm along the normal, from the first one or, in axial planes, of their z."""
    offsets = [float(each) for each in data.get("GridFrameOffsetVector") or [0.0]]
    if len(offsets) != int(data.get("NumberOfFrames") or 1) or not np.isfinite(offsets).all():
        raise GeometryError(
            f"expected the offset of each of the {data.get('NumberOfFrames')} planes of the dose in {path}, got "
            f"{len(offsets)}: export it again"
        )
    cosines = [float(each) for each in data.ImageOrientationPatient]
    start, normal = np.array([float(v) for v in data.ImagePositionPatient]), np.cross(cosines[:3], cosines[3:])
    spacing = float(data.PixelSpacing[1]), float(data.PixelSpacing[0])
    absolute = offsets[0] != 0
    along = np.array([0.0, 0.0, 1.0]) if absolute else normal
    return [Frame(tuple(start + along * (offset - offsets[0])), tuple(cosines), spacing) for offset in offsets]


def scaled(pixels: Tensor, *, frames: Sequence[Frame], number: int, raw: bool) -> Tensor:
    """The values of one frame with its own slope and intercept.

    GDCM scales all frames as the first one; ``raw``: they come from ``decoded``, which knows no scaling of frames.
    """
    first, own = Frame((), (), (1.0, 1.0)) if raw else frames[0], frames[number]
    if (own.slope, own.intercept) == (first.slope, first.intercept) or first.slope == 0:
        return pixels
    return (pixels - first.intercept) / first.slope * own.slope + own.intercept


def group_of(own: Any, shared: Any, group: str, name: str) -> Any:
    """A value of the functional groups of a frame, or of those that all frames share; None if neither has it."""
    for place in (own, shared):
        items = place.get(group)
        if items and items[0].get(name) is not None:
            return items[0].get(name)
    return None


def frame_of(own: Any, shared: Any) -> Frame | None:
    """The frame of one item of the functional groups, None without position, direction and spacing."""
    position = group_of(own, shared, "PlanePositionSequence", "ImagePositionPatient")
    cosines = group_of(own, shared, "PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = group_of(own, shared, "PixelMeasuresSequence", "PixelSpacing")
    if position is None or cosines is None or spacing is None:
        return None
    slope = group_of(own, shared, "PixelValueTransformationSequence", "RescaleSlope")
    intercept = group_of(own, shared, "PixelValueTransformationSequence", "RescaleIntercept")
    return Frame(
        tuple(map(float, position)),
        tuple(map(float, cosines)),
        (float(spacing[1]), float(spacing[0])),
        1.0 if slope is None else float(slope),
        0.0 if intercept is None else float(intercept),
    )
