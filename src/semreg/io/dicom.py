"""Which DICOM series a folder holds, and one of them as a volume. Knows nothing of registration.

Headers and pixels are read by GDCM through SimpleITK, which scales each slice with its own slope and intercept. The
positions of the frames of one multi-frame file, which SimpleITK does not show, are read with pydicom, and so are
pixels that GDCM garbles.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
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
from semreg.io.dicom_files import BESIDE, DicomFile, images_in, of_one_kind
from semreg.io.dicom_frames import (
    DOSE,
    SEGMENTATIONS,
    decoded,
    facts_of,
    is_garbled,
    read_frames,
    scaled,
    undecoded,
)
from semreg.io.dicom_segments import read_segmentation, segmentation_grid
from semreg.io.digests import sha256_of_open
from semreg.io.pictures import grey, is_colour
from semreg.io.promises import Promise
from semreg.io.quiet import quiet_readers
from semreg.io.stack import Place, Stack, arrange, fill
from semreg.runtime.memory import is_out_of_memory

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
    damaged: tuple[DicomFile, ...] = ()
    """Files beside those of the series that hold an image of it, or may, but cannot be read."""

    def __str__(self) -> str:
        """One line: number, description, modality, slices, size and UID."""
        pixels = " × ".join(map(str, self.size))
        return (
            f"{self.number or '-'} '{self.description}' ({self.modality or 'unknown'}, {len(self.files)} "
            f"{'file' if len(self.files) == 1 else 'slices'} of {pixels}, {self.uid})"
        )


def list_series(folder: Path) -> tuple[Series, ...]:
    """The series with pixels in a folder or, if it holds none itself, in all folders below it; ordered by number.

    Files without pixels (structures, plans, reports) and files that are no DICOM are left out, and so are, with a word
    in the log, those that cannot be read as images and say that they are of another series.
    """
    found: dict[str, list[DicomFile]] = {}
    damaged: list[DicomFile] = []
    for place in (folder, *sorted(path for path in folder.rglob("*") if path.is_dir())):
        images, alike = images_in(place)
        for each in images:
            if each.trouble:
                damaged.append(each)
            else:
                found.setdefault(each.uid, []).append(each)
        damaged += [DicomFile(path, None, "it is no DICOM file, or damaged") for path in alike]
        if found and place == folder:
            break
    for each in damaged:
        if each.uid and each.uid not in found:
            logger.warning("%s is left out: %s", each.path, each.trouble)
    series = (_series(of_one_kind(files, str(folder)), damaged) for files in found.values())
    return tuple(sorted(series, key=lambda each: (each.number.zfill(9), each.uid)))


def choose_series(folder: Path, wanted: str | None) -> Series:
    """The series whose UID or description is ``wanted``, or part of whose description it is, whatever the case.

    None: the only one. Raises ImageError, with a list of what there is, where that is not exactly one.
    """
    series = list_series(folder)
    if not series:
        raise ImageError(f"expected a folder with a DICOM series, got {folder}, which holds none: give the image file")
    matching = _meant(series, folder) if wanted is None else _matching(series, wanted)
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
        first, count = series.damaged[0], len(series.damaged)
        raise ImageError(
            f"expected a complete DICOM series, got {count} {'file' if count == 1 else 'files'} that cannot be read "
            f"such as {first.path} ({first.trouble}): copy the series again, or move what does not belong to it "
            "elsewhere"
        )


def _meant(series: Sequence[Series], folder: Path) -> Sequence[Series]:
    """Without what is made of images, such as segmentations, where one other series is left; the log says it."""
    images = [each for each in series if each.modality not in BESIDE]
    if len(images) != 1 or len(images) == len(series):
        return series
    for each in series:
        if each not in images:
            logger.warning("%s: the series %s is left out; if it is meant, choose it by its UID", folder, each)
    return images


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
    _check_room(headers, name)
    if len(headers) == 1 and headers[0].is_segmentation:
        return read_segmentation(headers[0].path, headers[0].facts)
    if len(headers) == 1:
        return *_only(headers[0], name), {}
    stack = _arranged(headers, name)
    kinds = {pixel_type_name(each.kind) for each in headers}
    volume = fill(stack, lambda number: _pixels(headers[number]).data.reshape(headers[number].size[1::-1]))
    return volume, np.result_type(*kinds).name, {}


def _check_room(headers: Sequence[_Header], name: str) -> None:
    """Refuse a series that does not fit into memory (ImageError): all its voxels as float32, and one file as it is."""
    size = (*headers[0].size[:2], sum(math.prod(each.size[2:]) for each in headers))
    Promise(size, 4).check(Path(name), math.inf)


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
    start: int
    """The byte of the file at which the pixels start."""

    @property
    def is_segmentation(self) -> bool:
        """Whether its frames are segments."""
        return self.facts.get("SOPClassUID") in SEGMENTATIONS


def _headers(files: Sequence[Path], name: str) -> list[_Header]:
    """The headers of all files but of copies: those that say to be another one and have its position and its pixels."""
    headers = [_header(path) for path in files]
    same: dict[str, list[_Header]] = {}
    for number, header in enumerate(headers):
        same.setdefault(header.instance or str(number), []).append(header)
    kept: list[_Header] = []
    twice = 0
    for alike in same.values():
        if len(alike) > 1:
            different = {(each.position, each.cosines, _digest_of_pixels(each)): each for each in reversed(alike)}
            twice += len(alike) - len(different)
            kept += different.values()
        else:
            kept += alike
    if twice:
        logger.warning("%s: %d files are copies of others and left out", name, twice)
    return kept


def _digest_of_pixels(header: _Header) -> str:
    with header.path.open("rb") as file:
        file.seek(header.start)
        return sha256_of_open(file)


def _header(path: Path) -> _Header:
    import SimpleITK as sitk

    facts, start = facts_of(path)
    reader = _reader(path)
    size, spacing = tuple(reader.GetSize()), tuple(reader.GetSpacing())
    kind = str(sitk.GetPixelIDValueAsString(reader.GetPixelIDValue()))
    components = reader.GetNumberOfComponents()
    check_scalar_image(size, 1 if is_colour(components, kind) else components, kind)
    instance, position, cosines = (_tag(reader, key) for key in ("0008|0018", "0020|0032", "0020|0037"))
    kind = "32-bit float" if facts.get("SOPClassUID") == DOSE else kind.removeprefix("vector of ")
    return _Header(path, size, spacing, kind, instance, position, cosines, facts, start)


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
        with quiet_readers():
            image = _reader(header.path).Execute()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise undecoded(header.path, header.facts) from error
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
        with quiet_readers():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise ImageError(
            f"expected a DICOM file that holds an image, got {path}: it is damaged, or of a kind that cannot be read"
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


def _series(files: Sequence[DicomFile], damaged: Sequence[DicomFile]) -> Series:
    first = files[0]
    folders = {each.path.parent for each in files}
    beside = tuple(each for each in damaged if each.path.parent in folders and each.uid in ("", first.uid))
    description, number, modality = (first.text(name) for name in ("SeriesDescription", "SeriesNumber", "Modality"))
    return Series(first.uid, description, number, modality, tuple(each.path for each in files), first.size, beside)


def _matching(series: Sequence[Series], wanted: str) -> list[Series]:
    """By UID, else by the whole description, else by a part of it."""
    text = wanted.strip().casefold()
    rules = (
        lambda each: each.uid == wanted.strip(),
        lambda each: each.description.casefold() == text,
        lambda each: text and text in each.description.casefold(),
    )
    return next((found for rule in rules if (found := [each for each in series if rule(each)])), [])
