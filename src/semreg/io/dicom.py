"""Which DICOM series a folder holds, and one of them as a volume. Knows nothing of registration.

Headers and pixels are read by GDCM through SimpleITK, which scales each slice with its own slope and intercept. The
positions of the frames of one multi-frame file, which SimpleITK does not show, are read with pydicom, and so are
pixels that GDCM garbles.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semreg.config import Modality
from semreg.core.fields import Volume
from semreg.core.geometry import Grid
from semreg.errors import GeometryError, ImageError
from semreg.io.bridge import check_scalar_image, grid_of_header, pixel_type_name, to_volume
from semreg.io.dicom_frames import (
    DOSE,
    SEGMENTATIONS,
    decoded,
    facts_of,
    is_garbled,
    name_pattern,
    read_frames,
    scaled,
    series_of_image,
)
from semreg.io.dicom_segments import read_segmentation, segmentation_grid
from semreg.io.pictures import grey, is_colour
from semreg.io.stack import Place, Stack, arrange, fill

logger = logging.getLogger("semreg")

SPACED = ("0018|0088", "3004|000c")
"""Tags that give the distance of frames: SpacingBetweenSlices, GridFrameOffsetVector."""


@dataclass(frozen=True)
class Series:
    """One DICOM series with pixels."""

    uid: str
    description: str
    number: str
    modality: str
    files: tuple[Path, ...]
    size: tuple[int, ...]
    """Columns, rows and, of a multi-frame file, frames of the first file."""
    damaged: tuple[Path, ...] = ()
    """Files beside those of the series that hold an image, or may, but cannot be read."""

    def __str__(self) -> str:
        """One line: number, description, modality, slices, size and UID."""
        pixels = " × ".join(map(str, self.size))
        return (
            f"{self.number or '-'} '{self.description}' ({self.modality or 'unknown'}, {len(self.files)} "
            f"{'file' if len(self.files) == 1 else 'slices'} of {pixels}, {self.uid})"
        )


def is_dicom(path: Path) -> bool:
    """Whether a file can be read and begins as DICOM files do."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def list_series(folder: Path) -> tuple[Series, ...]:
    """The series with pixels in a folder or, if it holds none itself, in all folders below it; ordered by number.

    Files without pixels (structures, plans, reports) and files that are no DICOM are left out.
    """
    import SimpleITK as sitk

    found: dict[str, list[Path]] = {}
    places: list[Path] = []
    with _quiet():
        for place in (folder, *sorted(path for path in folder.rglob("*") if path.is_dir())):
            places.append(place)
            for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(place)):
                names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(place), uid)
                found.setdefault(uid, []).extend(map(Path, names))
            if found and place == folder:
                break
    damaged = _damaged(places, {path for files in found.values() for path in files})
    series = (_series(uid, files, damaged) for uid, files in found.items())
    return tuple(sorted(series, key=lambda each: (each.number.zfill(9), each.uid)))


def _damaged(places: Sequence[Path], read: set[Path]) -> dict[Path, str]:
    """Files that GDCM silently passed over although they may be slices, and their series, "" if they do not say.

    They begin as DICOM and hold rows of pixels or cannot be read; or they are no DICOM but have the name of a slice.
    """
    slices = {(path.parent, name_pattern(path)) for path in read}
    damaged = {}
    for place in places:
        for path in sorted(place.iterdir()):
            if path in read or not path.is_file():
                continue
            named = "" if (place, name_pattern(path)) in slices else None
            uid = series_of_image(path) if is_dicom(path) else named
            if uid is not None:
                damaged[path] = uid
    return damaged


def choose_series(folder: Path, wanted: str | None) -> Series:
    """The series whose UID or description is ``wanted``, or part of whose description it is, whatever the case.

    None: the only one. Raises ImageError, with a list of what there is, where that is not exactly one.
    """
    series = list_series(folder)
    if not series:
        raise ImageError(f"expected a folder with a DICOM series, got {folder}, which holds none: give the image file")
    matching = series if wanted is None else _matching(series, wanted)
    if len(matching) == 1:
        _refuse_damaged(matching[0])
        return matching[0]
    text = "; ".join(map(str, matching or series))
    if wanted is None:
        raise ImageError(
            f"expected a folder with one DICOM series, got {folder} with {len(series)}: {text}; "
            "choose one by its description or UID, or put it into its own folder"
        )
    raise ImageError(
        f"expected one DICOM series of {folder} that {wanted!r} describes, got {len(matching)}: {text}; "
        "give its UID or more of its description"
    )


def _refuse_damaged(series: Series) -> None:
    if series.damaged:
        raise ImageError(
            f"expected a complete DICOM series, got {len(series.damaged)} damaged "
            f"{'file' if len(series.damaged) == 1 else 'files such as'} {series.damaged[0]}: copy the series again, or "
            "move what does not belong to it elsewhere"
        )


def series_grid(files: Sequence[Path], name: str) -> Grid:
    """The grid of the series in ``files``, from its headers. Raises as ``read_series`` does."""
    headers = _headers(files, name)
    if len(headers) == 1 and headers[0].is_segmentation:
        return segmentation_grid(headers[0].path)
    return _arranged(headers, name).grid if len(headers) > 1 else _only(headers[0], name)[0].grid


def read_series(files: Sequence[Path], name: str) -> tuple[Volume, str, dict[str, str]]:
    """The series in ``files``, in any order, as a volume float32 (1, z, y, x), the type of its voxels, its segments.

    Slices are ordered by position along their common normal and each is scaled with its own slope and intercept.
    Uneven distances and tilt are resampled with a warning (``stack.arrange``); the second of identical copies is left
    out. Raises GeometryError where slices do not form one stack, ImageError for voxels that are not real numbers.
    """
    headers = _headers(files, name)
    if len(headers) == 1 and headers[0].is_segmentation:
        return read_segmentation(headers[0].path, headers[0].facts)
    if len(headers) == 1:
        return *_only(headers[0], name), {}
    stack = _arranged(headers, name)
    kinds = {pixel_type_name(each.kind) for each in headers}
    volume = fill(stack, lambda number: _pixels(headers[number]).data.reshape(headers[number].size[1::-1]))
    return volume, np.result_type(*kinds).name, {}


@dataclass(frozen=True)
class _Header:
    """What is needed of the header of one file."""

    path: Path
    size: tuple[int, ...]
    spacing: tuple[float, ...]
    kind: str
    instance: str
    position: str
    cosines: str
    facts: Any

    @property
    def is_segmentation(self) -> bool:
        """Whether its frames are segments."""
        return self.facts.get("SOPClassUID") in SEGMENTATIONS


def _headers(files: Sequence[Path], name: str) -> list[_Header]:
    """The headers of all files but of identical copies."""
    headers = [_header(path) for path in files]
    seen: dict[str, _Header] = {}
    for number, header in enumerate(headers):
        seen.setdefault(header.instance or str(number), header)
    if len(seen) < len(headers):
        logger.warning("%s: %d files are copies of others and left out", name, len(headers) - len(seen))
    return list(seen.values())


def _header(path: Path) -> _Header:
    import SimpleITK as sitk

    reader, facts = _reader(path), facts_of(path)
    size, spacing = tuple(reader.GetSize()), tuple(reader.GetSpacing())
    kind = str(sitk.GetPixelIDValueAsString(reader.GetPixelIDValue()))
    components = reader.GetNumberOfComponents()
    check_scalar_image(size, 1 if is_colour(components, kind) else components, kind)
    instance, position, cosines = (_tag(reader, key) for key in ("0008|0018", "0020|0032", "0020|0037"))
    kind = "32-bit float" if facts.get("SOPClassUID") == DOSE else kind.removeprefix("vector of ")
    return _Header(path, size, spacing, kind, instance, position, cosines, facts)


def _arranged(headers: Sequence[_Header], name: str) -> Stack:
    """The stack of files of one slice each."""
    frames = [header for header in headers if len(header.size) > 2 and header.size[2] > 1]
    if frames:
        raise GeometryError(
            f"expected files of one slice each, or one file, in {name}, got {len(headers)} files, {len(frames)} of "
            f"them with several slices: give one file, such as {frames[0].path.name}"
        )
    return arrange([_place(header, name) for header in headers], name)


def _place(header: _Header, name: str) -> Place:
    position, cosines = _floats(header.position, 3), _floats(header.cosines, 6)
    if position is None or cosines is None:
        raise GeometryError(
            f"expected the position and direction of each slice in {name}, got none in {header.path.name}: "
            "convert the series with a tool that knows its geometry"
        )
    (x, y), (columns, rows) = header.spacing[:2], header.size[:2]
    return Place(position, cosines, (x, y), (columns, rows))


def _floats(text: str, count: int) -> tuple[float, ...] | None:
    """So many finite numbers of a DICOM tag, None if it holds anything else."""
    try:
        values = tuple(float(part) for part in text.split("\\"))
    except ValueError:
        return None
    return values if len(values) == count and bool(np.isfinite(values).all()) else None


def _only(header: _Header, name: str) -> tuple[Volume, str]:
    """The one file of a series: one slice, or several frames, which are put in order where their positions are known.

    Without positions the frames are slices as SimpleITK takes them.
    """
    if header.position and _floats(header.position, 3) is None:
        raise GeometryError(f"expected a position of finite numbers in {header.path}, got {header.position!r}")
    volume, kind = _pixels(header), pixel_type_name(header.kind)
    if volume.grid.dimension == 2 or volume.grid.shape[0] == 1:
        return volume, kind
    frames = read_frames(header.path)
    if frames is None:
        reader = _reader(header.path)
        if not any(reader.HasMetaDataKey(key) for key in SPACED):
            logger.warning(
                "%s: its header has no position for each of the %d frames: they count as slices %.4g mm apart",
                name, volume.grid.shape[0], volume.grid.spacing[0],
            )  # fmt: skip
        return volume, kind
    columns, rows, _ = volume.grid.size_xyz
    places = [Place(frame.position, frame.cosines, frame.spacing_xy, (columns, rows)) for frame in frames]
    raw = is_garbled(header.facts)
    read = partial(scaled, frames=frames, raw=raw)
    return fill(arrange(places, name), lambda number: read(volume.data[0, number], number=number)), kind


def _pixels(header: _Header) -> Volume:
    """The samples of one file, colours as their luminance."""
    import SimpleITK as sitk

    if is_garbled(header.facts):
        return _pixels_of_pydicom(header)
    try:
        image = _reader(header.path).Execute()
    except RuntimeError as error:
        raise ImageError(
            f"expected a DICOM file with pixels, got {header.path}: it is damaged; copy it again"
        ) from error
    if image.GetNumberOfComponentsPerPixel() == 1:
        return to_volume(image)
    grid = grid_of_header(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return to_volume((grey(sitk.GetArrayViewFromImage(image)), grid))


def _pixels_of_pydicom(header: _Header) -> Volume:
    """The same, on the grid that GDCM reads in the header."""
    reader = _reader(header.path)
    grid = grid_of_header(reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())
    values = decoded(header.path, header.facts)
    data = values if values.ndim == 3 else torch.from_numpy(grey(values.numpy()))
    return Volume(data.reshape(1, *grid.shape), grid)


def _reader(path: Path) -> Any:
    """A SimpleITK reader that has read the header."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise ImageError(
            f"expected a DICOM file that holds an image, got {path}: it has no pixels or is damaged"
        ) from error
    return reader


def _tag(reader: Any, key: str) -> str:
    """A tag as text, empty if there is none."""
    return str(reader.GetMetaData(key)).strip(" \0") if reader.HasMetaDataKey(key) else ""


def modality_of(path: Path) -> Modality | None:
    """What the header of a DICOM file says that it is; None if nothing."""
    text = _tag(_reader(path), "0008|0060").upper()
    known: dict[str, Modality | None] = {"": None, "CT": "ct", "MR": "mr"}
    return known.get(text, "other")


def _series(uid: str, files: list[Path], damaged: Mapping[Path, str]) -> Series:
    reader = _reader(files[0])
    description, number, modality = (_tag(reader, key) for key in ("0008|103e", "0020|0011", "0008|0060"))
    size = tuple(n for axis, n in enumerate(reader.GetSize()) if axis < 2 or n > 1)
    folders = {path.parent for path in files}
    beside = tuple(path for path, series in damaged.items() if path.parent in folders and series in ("", uid))
    return Series(uid, description, number, modality, tuple(files), size, beside)


def _matching(series: Sequence[Series], wanted: str) -> list[Series]:
    """By UID, else by the whole description, else by a part of it."""
    text = wanted.strip().casefold()
    rules = (
        lambda each: each.uid == wanted.strip(),
        lambda each: each.description.casefold() == text,
        lambda each: text and text in each.description.casefold(),
    )
    return next((found for rule in rules if (found := [each for each in series if rule(each)])), [])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings ITK prints, as where there is no series."""
    import SimpleITK as sitk

    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.GlobalWarningDisplayOff()
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
