"""Reads images and masks: files that SimpleITK reads and DICOM series. Knows nothing of registration.

SimpleITK is imported by the functions that need it. What is repaired is said in the log.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from semreg.dicom import choose_series, is_dicom, read_series, series_grid
from semreg.digests import sha256_of
from semreg.errors import GeometryError, ImageError
from semreg.fields import Volume
from semreg.geometry import Grid
from semreg.headers import check_nifti
from semreg.itk_bridge import LoadedImage, check_scalar_image, grid_of_header, pixel_type_name, to_volume
from semreg.nifti import float_voxels, is_cut_short, orthonormal_copy
from semreg.pictures import grey, is_colour, pixel_size_note

logger = logging.getLogger("semreg")

T = TypeVar("T")

SIBLINGS = ((".hdr", ".hdr.gz", ".img", ".img.gz"), (".spr", ".sdt"))
"""Endings of files that belong together, headers first."""
NRRD = (".nhdr", ".nrrd")
VOXELS_AT = re.compile(rb"\s*(?:ElementDataFile\s*[=:]|data ?file:(?!=))\s*(.*?)\s*", re.IGNORECASE)
"""The line of a MetaImage or NRRD header that says where the voxels are."""
COUNTER = re.compile(r"%0?\d*[diu]")
"""What stands for the number of a file in a pattern."""


def read_image(path: str | Path, *, series: str | None = None) -> LoadedImage:
    """Read an image: a 2-D or 3-D file that SimpleITK reads, or a DICOM series in a folder.

    ``series``: the UID of one of several series, or its description or a part of it, whatever the case. Colours (three
    or four values of 8 or 16 bits) become their luminance; any other voxels of several values are refused.

    Raises ImageError if there is no such image, GeometryError if its header cannot be used.
    """
    path = Path(path)
    names = _files_of(path, series)
    digest = _sha256(_hashed(path, names))
    if path.is_dir() or is_dicom(path):
        volume, kind = _reading(path, lambda: read_series(names, str(path)))
        return LoadedImage(volume, kind, path, digest)
    try:
        volume, kind = _load(path, names[0])
    except _RefusedAxesError:
        with tempfile.TemporaryDirectory(prefix="semreg-") as folder:
            mended = Path(folder) / "mended.nii"
            error = _reading(path, lambda: orthonormal_copy(path, mended))
            logger.warning(
                "the axes in the header of %s are not orthonormal (by %.2g): the nearest rotation is used; "
                "correct the header if positions matter",
                path,
                error,
            )
            volume, kind = _load(path, mended)
    if note := pixel_size_note(path.name, volume.grid):
        logger.info("%s: %s", path, note)
    return LoadedImage(volume, kind, path, digest)


def read_grid(path: str | Path, series: str | None = None) -> Grid:
    """The grid of an image, from its header alone where that says it. Raises as ``read_image`` does."""
    path = Path(path)
    names = _files_of(path, series)
    if path.is_dir() or is_dicom(path):
        return _reading(path, lambda: series_grid(names, str(path)))
    try:
        reader = _reader(path, names[0])
    except _RefusedAxesError:
        return read_image(path).volume.grid
    grid = _reading(path, lambda: _grid_of(reader))
    _reading(path, lambda: check_nifti(path, grid))
    return grid


def read_mask(path: str | Path, *, series: str | None = None) -> Volume:
    """Read a mask, float32 (1, z, y, x): 0 is excluded, 1 and above is included, between is a weight; NaN is excluded.

    Raises as ``read_image`` does.
    """
    volume = read_image(path, series=series).volume
    return Volume(volume.data.nan_to_num(nan=0.0).clamp(0.0, 1.0), volume.grid)


def checksum(path: str | Path, series: str | None = None) -> str:
    """SHA-256 of the bytes of a file, or of all files of the DICOM series in a folder, sorted by name (ImageError).

    Of an image whose header stands apart from its voxels, those of all its ``data_files``.
    """
    path = Path(path)
    return _sha256(_hashed(path, _files_of(path, series)))


def data_files(path: str | Path) -> tuple[Path, ...]:
    """The files that hold an image: the file itself, and those with its voxels if they stand apart, header first.

    Pairs of Analyze, NIfTI (.hdr and .img) and Stimulate (.spr and .sdt) are known by their names; MetaImage and NRRD
    headers say where their voxels are, as one file, a list or a numbered pattern. Raises ImageError for a header that
    cannot be read.
    """
    path = Path(path)
    name = path.name.lower()
    for endings in SIBLINGS:
        own = next((ending for ending in endings if name.endswith(ending)), None)
        if own is not None:
            beside = [path if ending == own else path.with_name(path.name[: -len(own)] + ending) for ending in endings]
            return tuple(file for file in beside if file == path or file.is_file())
    if name.endswith((".mhd", ".mha", *NRRD)):
        return (path, *_named_in(path))
    return (path,)


def _named_in(header: Path) -> list[Path]:
    """The files of voxels that a MetaImage or NRRD header names; none where the voxels follow it."""
    try:
        texts = _names_in(header)
        places = [place for text in texts if text.upper() != "LOCAL" for place in _places(header.parent, text)]
        return [place for place in places if place.is_file() or not place.exists()]  # no device, which has no end
    except OSError as error:
        raise ImageError(f"expected an image file that can be read, got {header}: {error.strerror}") from error


def _names_in(header: Path) -> list[str]:
    with header.open("rb") as file:
        for line in file:
            if not line.strip() and header.name.lower().endswith(NRRD):
                break  # voxels follow
            if (found := VOXELS_AT.fullmatch(line)) is not None:
                names = [each.strip() for each in file] if found[1].split()[:1] == [b"LIST"] else [found[1]]
                return [os.fsdecode(name) for name in names if name and b"\0" not in name]
    return []


def _places(folder: Path, text: str) -> list[Path]:
    """The files meant by a name of a header; of a pattern, as ``slice%03d.raw 1 40 1``, all that are there."""
    if COUNTER.search(text) is None:
        return [folder / text]
    pattern = folder / text.split(maxsplit=1)[0]
    parts = [re.escape(part) for part in COUNTER.split(pattern.name)]
    name = re.compile(r"\s*\d+".join(parts))
    return sorted(file for file in pattern.parent.glob("*") if name.fullmatch(file.name))


def _files_of(path: Path, series: str | None) -> list[Path]:
    """The files of an image: itself, or all of one DICOM series in a folder."""
    if path.is_file():
        if series is not None:
            raise ImageError(f"expected a DICOM folder to choose the series {series!r} from, got the file {path}")
        return [path]
    if not path.exists():
        raise ImageError(f"expected an image file or a DICOM folder, got {path}: there is no such file")
    if not path.is_dir():
        raise ImageError(f"expected an image file or a DICOM folder, got {path}: it is neither")
    return list(choose_series(path, series).files)


class _RefusedAxesError(GeometryError):
    """ITK refuses a NIfTI header whose axes are not orthonormal; it can be mended."""


def _load(path: Path, name: Path) -> tuple[Volume, str]:
    """The image in the file ``name`` and the type it is stored with; messages speak of ``path``."""
    reader = _reader(path, name)
    grid = _reading(path, lambda: _grid_of(reader))
    notes = _reading(path, lambda: check_nifti(name, grid))
    if min(reader.GetSpacing()) < 0:
        notes.append(
            f"its spacing {reader.GetSpacing()} is negative along an axis, which is read as the other way round"
        )
    for note in notes:
        logger.warning("%s: %s", path, note)
    kind = pixel_type_name(_kind_of(reader))
    if _is_nifti(name):
        try:
            voxels = float_voxels(name) if reader.GetNumberOfComponents() == 1 else None
            damaged = voxels is None and is_cut_short(name)
        except (EOFError, OSError, zlib.error):
            voxels, damaged = None, True
        if damaged:
            raise ImageError(f"expected a complete image, got {path}: the file is cut short or damaged; copy it again")
        if voxels is not None:
            return to_volume((voxels.reshape(grid.shape), grid)), kind
    image = _reading(path, reader.Execute)
    if image.GetNumberOfComponentsPerPixel() > 1:
        import SimpleITK as sitk

        logger.info("%s: its colours become their luminance", path)
        return to_volume((grey(sitk.GetArrayViewFromImage(image)).reshape(grid.shape), grid)), kind
    return _reading(path, lambda: to_volume(image)), kind


def _grid_of(reader: Any) -> Grid:
    """The grid of a header SimpleITK has read; an axis of negative spacing runs the other way, as in ITK."""
    size = reader.GetSize()
    dimension = min(len(size), 3)
    spacing = np.array(reader.GetSpacing()[:dimension])
    direction = np.reshape(reader.GetDirection(), (len(size), len(size)))[:dimension, :dimension]
    direction = direction * np.where(spacing < 0, -1.0, 1.0)
    return grid_of_header(size[:dimension], tuple(np.abs(spacing)), reader.GetOrigin()[:dimension], direction)


def _kind_of(reader: Any) -> str:
    """SimpleITK's words for the type of one value of an image whose header it has read."""
    import SimpleITK as sitk

    return str(sitk.GetPixelIDValueAsString(reader.GetPixelIDValue())).removeprefix("vector of ")


def _reader(path: Path, name: Path) -> Any:
    """A SimpleITK reader that has read the header and found one value a voxel, or colours, in 2-D or 3-D."""
    import SimpleITK as sitk

    header = sitk.ImageFileReader()
    header.SetFileName(str(name))
    _reading(path, header.ReadImageInformation)
    components = header.GetNumberOfComponents()
    kind = str(sitk.GetPixelIDValueAsString(header.GetPixelIDValue()))
    colour = is_colour(components, kind)
    _reading(path, lambda: check_scalar_image(header.GetSize(), 1 if colour else components, kind))
    return header


def _reading(path: Path, action: Callable[[], T]) -> T:
    """Run ``action`` and put what SimpleITK complains about into one sentence that names the file."""
    try:
        return action()
    except (ImageError, GeometryError) as error:
        named = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise type(error)(named) from error
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise _RefusedAxesError(f"expected orthonormal axes in the header of {path}: correct it") from error
        if "memory" in str(error).lower():
            raise MemoryError(f"reading {path}: {reason_of(error)}") from error
        raise ImageError(f"expected an image that SimpleITK reads, got {path}: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """The last line of an error of SimpleITK that says something, without the addresses ITK puts before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "Reason:" not in line]
    text = lines[-1] if lines else type(error).__name__
    return text.rpartition("): ")[2].removeprefix("ITK ERROR: ").removeprefix("sitk::ERROR: ")


def _hashed(path: Path, names: Sequence[Path]) -> Sequence[Path]:
    """The files whose bytes are the image, in the order in which they count."""
    return sorted(names) if path.is_dir() else data_files(path)


def _sha256(names: Sequence[Path]) -> str:
    try:
        return sha256_of(*names)
    except OSError as error:
        raise ImageError(f"expected an image file that can be read, got {error.filename}: {error.strerror}") from error


def _is_nifti(path: Path) -> bool:
    return path.name.endswith((".nii", ".nii.gz"))
