"""A derived DICOM series: an image that was resampled onto other slices, with the headers of the one it was made of.

Each slice has the header of the source slice that lies nearest to what it shows, private elements included, but for
what says where it lies, what its voxels are, and which instance it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from semreg.core.fields import Volume
from semreg.core.geometry import Grid
from semreg.errors import ConfigError
from semreg.io.dicom_files import whole
from semreg.io.dicom_objects.headers import DicomImage
from semreg.io.dicom_objects.writing import (
    code,
    contributed,
    decimals,
    described,
    fresh,
    new_uid,
    number,
    put,
    reference,
    save,
    stamp,
)

logger = logging.getLogger("semreg")

Move: TypeAlias = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
"""Points (3, N) of the new grid in mm, LPS → points of the source."""

OF_THE_OLD_PIXELS = (
    "SmallestImagePixelValue", "LargestImagePixelValue", "SmallestPixelValueInSeries", "LargestPixelValueInSeries",
    "PixelAspectRatio", "IconImageSequence", "NumberOfFrames", "PixelDataProviderURL",
)  # fmt: skip
"""Elements that describe the pixels that were."""
OF_THE_OLD_PLACE = (
    "ImagePositionPatient", "ImageOrientationPatient", "SliceLocation", "GantryDetectorTilt", "ReconstructionDiameter",
    "ReconstructionTargetCenterPatient", "DataCollectionCenterPatient", "InPlanePhaseEncodingDirection",
    "ImagerPixelSpacing", "SpacingBetweenSlices", "ReferencedImageSequence", "SourceImageSequence",
    "FrameOfReferenceUID", "PositionReferenceIndicator", "SynchronizationFrameOfReferenceUID",
    "DigitalSignaturesSequence", "MACParametersSequence",
)  # fmt: skip
"""Elements that describe where the slices lay, or that sign it."""
OVERLAYS = range(0x6000, 0x6020)
CURVES = range(0x5000, 0x5020)
SAMPLES = 24
"""Points along each axis of a slice at which is asked where it comes from."""


@dataclass(frozen=True)
class Encoding:
    """How values become stored pixels: value = slope · stored + intercept."""

    slope: float
    intercept: float
    bits: int
    """Allocated."""
    stored: int
    signed: bool
    as_before: bool
    """Whether it is that of the source."""

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the largest stored pixel."""
        return (-(2 ** (self.stored - 1)), 2 ** (self.stored - 1) - 1) if self.signed else (0, 2**self.stored - 1)

    def of(self, values: npt.NDArray[np.float32]) -> bytes:
        """The stored pixels of values."""
        kind = np.dtype(f"<{'i' if self.signed else 'u'}{self.bits // 8}")
        pixels = np.rint((values.astype(np.float64) - self.intercept) / self.slope)
        data = np.clip(pixels, *self.limits).astype(kind).tobytes()
        return data + b"\0" * (len(data) % 2)


def encoding_for(low: float, high: float, headers: tuple[Any, ...]) -> Encoding:
    """The encoding of a source, or another one where its slices have several or values do not fit; the log says it."""
    first = headers[0]
    scales = {
        (_value(each, "RescaleSlope", 1.0), _value(each, "RescaleIntercept", 0.0), whole(each, "PixelRepresentation"))
        for each in headers
    }
    slope, intercept, signed = next(iter(scales))
    bits = whole(first, "BitsAllocated")
    own = Encoding(slope, intercept, bits, whole(first, "BitsStored") or bits, bool(signed), as_before=True)
    least, most = own.limits
    if (
        len(scales) == 1
        and slope > 0
        and least - 0.5 <= (low - intercept) / slope
        and (high - intercept) / slope <= most + 0.5
    ):
        return own
    new = Encoding(max(high - low, 1e-6) / 65535, low, 16, 16, signed=False, as_before=False)
    logger.warning(
        "the DICOM series gets a slope of %.4g and an intercept of %.4g: its source has several, or its pixels do not "
        "hold all values",
        new.slope, new.intercept,
    )  # fmt: skip
    return new


def write_series(image: Volume, source: DicomImage, frame: str, move: Move, folder: Path) -> list[str]:
    """Write an image on the slices of its grid, one file each, as a new series of the study of its source.

    Args:
        image: (1, z, y, x), values as the source means them, such as HU.
        source: the headers of the image it was resampled from.
        frame: the Frame of Reference UID that the grid lies in.
        move: leads from points of the grid to the source.
        folder: where the files are written; made if it is not there.

    Returns:
        The names of the files.

    Raises:
        ConfigError: for an image in 2-D, which has no place in space.
        ImageError: for an element of the source that cannot be written again.
        OutputError: where the files cannot be written.
    """
    if image.grid.dimension != 3:
        raise ConfigError(
            "expected an image in 3-D with --dicom, got one in 2-D, which has no place: leave --dicom out"
        )
    folder.mkdir(exist_ok=True)
    values = image.data[0].numpy()
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    encoding = encoding_for(low, high, source.headers)
    same = {
        "SeriesInstanceUID": new_uid(), "SeriesDescription": described(source.first, "registered"),
        "SeriesNumber": min(2**31 - 1, 1000 * max(0, whole(source.first, "SeriesNumber")) + 1),
        "FrameOfReferenceUID": frame, "PositionReferenceIndicator": "",
    }  # fmt: skip
    names = []
    for plane, (template, sources) in enumerate(_sources(image.grid, source, move)):
        data = _slice(image.grid, plane, source.headers[template])
        put(data, **same, SourceImageSequence=[_source_item(source.headers[each]) for each in sources])
        _set_pixels(data, encoding, np.nan_to_num(values[plane], nan=low))
        names.append(f"{plane + 1:0{max(4, len(str(image.grid.shape[0])))}d}.dcm")
        save(data, folder / names[-1])
    return names


def _sources(grid: Grid, source: DicomImage, move: Move) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Of each slice the file that lies nearest to what its middle shows, and all files that it is made of."""
    columns, rows, planes = grid.size_xyz
    along = [np.unique(np.linspace(0, n - 1, min(n, SAMPLES)).round()) for n in (rows, columns)]
    y, x = (each.ravel() for each in np.meshgrid(*along, indexing="ij"))
    matrix = grid.index_to_point()
    for plane in range(planes):
        index = np.stack([np.full_like(y, plane), y, x, np.ones_like(y)])
        heights = np.asarray(source.normal) @ move((matrix @ index)[:3])
        yield source.nearest(float(np.median(heights))), source.between(float(heights.min()), float(heights.max()))


def _slice(grid: Grid, plane: int, header: Any) -> Any:
    """A header of one slice of the grid, made of that of a source slice."""
    data = fresh(header)
    for tag in list(data.keys()):
        if tag.group in OVERLAYS or tag.group in CURVES:
            del data[tag]
    put(data, **dict.fromkeys((*OF_THE_OLD_PIXELS, *OF_THE_OLD_PLACE)))
    kind = [str(each) for each in header.get("ImageType") or ()][2:]
    stamp(data, str(header.get("SOPClassUID")))
    axes, spacing = np.asarray(grid.direction), grid.spacing_xyz
    put(
        data, ImageType=["DERIVED", "SECONDARY", *kind], InstanceNumber=plane + 1,
        ImagePositionPatient=decimals(np.asarray(grid.origin_xyz) + axes[:, 2] * plane * spacing[2]),
        ImageOrientationPatient=decimals(axes[:, :2].T.ravel()), PixelSpacing=decimals(spacing[1::-1]),
        SliceThickness=number(spacing[2]), Rows=grid.size_xyz[1], Columns=grid.size_xyz[0],
        DerivationDescription="resampled onto the slices of another image after registration",
        DerivationCodeSequence=code("113085", "Spatial resampling"),
    )  # fmt: skip
    if "SpacingBetweenSlices" in header:
        put(data, SpacingBetweenSlices=number(spacing[2]))
    if "NumberOfSlices" in header:  # of PET: one stack
        put(data, NumberOfSlices=grid.size_xyz[2], ImageIndex=plane + 1)
    contributed(data, "registration and resampling")
    return data


def _source_item(header: Any) -> Any:
    found = reference(header)
    purpose = code("121322", "Source image for image processing operation")
    put(found, SpatialLocationsPreserved="NO", PurposeOfReferenceCodeSequence=purpose)
    return found


def _set_pixels(data: Any, encoding: Encoding, values: npt.NDArray[np.float32]) -> None:
    put(data, PixelData=encoding.of(values))
    data["PixelData"].VR = "OW" if encoding.bits > 8 else "OB"
    if encoding.as_before:
        return
    put(
        data, BitsAllocated=encoding.bits, BitsStored=encoding.stored, HighBit=encoding.stored - 1,
        PixelRepresentation=int(encoding.signed), RescaleSlope=number(encoding.slope),
        RescaleIntercept=number(encoding.intercept), PixelPaddingValue=None, PixelPaddingRangeLimit=None,
    )  # fmt: skip


def _value(header: Any, keyword: str, default: float) -> float:
    value = header.get(keyword)
    return default if value is None else float(value)
