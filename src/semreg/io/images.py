"""The door for images in files: whatever one is read for, it is read here. Knows nothing of registration.

What is wanted of an image says the function: values as float32 (``read_image``), labels exact (``read_labels``), a
mask (``read_mask``), all that is there (``read_stored``), or where it lies (``read_grid``). What is repaired is said in
the log.
"""

from __future__ import annotations

import logging
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from semreg.core.fields import Volume
from semreg.core.geometry import Grid
from semreg.errors import GeometryError, ImageError
from semreg.io import tiff
from semreg.io.bridge import PIXEL_TYPES, LabelMap, Lattice, LoadedImage, check_scalar_image, pixel_type_name
from semreg.io.dicom import modality_of, read_series, series_grid
from semreg.io.dicom_files import is_dicom, origin_of
from semreg.io.headers import check_before, lattice_of
from semreg.io.image_files import data_files, digest_of, files_of
from semreg.io.ngff.names import in_chunks
from semreg.io.nibabel_files import grid_with_nibabel, is_for_nibabel, read_with_nibabel
from semreg.io.nifti import float_voxels, is_cut_short, plain_copy
from semreg.io.nifti_header import is_nifti_name, is_packed, says_no_place
from semreg.io.patients import Origin
from semreg.io.pictures import ENDINGS as PICTURES
from semreg.io.pictures import counts_in_pixels, in_pixels, is_colour, is_picture, pixel_size_note
from semreg.io.promises import Promise, most_held
from semreg.io.quiet import quiet_readers
from semreg.io.segments import names_of
from semreg.io.stored import Stored

logger = logging.getLogger("semreg")

IN_SMALL_LETTERS = {".mha": "MetaImageIO", ".mhd": "MetaImageIO", ".gipl": "GiplImageIO"}
"""Readers of ITK that take an ending in small letters only, unless they are named."""

T = TypeVar("T")


def read_image(path: str | Path, *, series: str | None = None) -> LoadedImage:
    """Read an image: a 2-D or 3-D file that SimpleITK reads, or a DICOM series in a folder.

    Colours (three or four values of 8 or 16 bits) become their luminance; other voxels of several values are refused.

    Args:
        path: the file or the folder.
        series: which of several DICOM series: its UID, its description or a part of it, in upper or lower case. None:
            the only one. Of OME-Zarr which sample of further axes, as ``c=1,t=0``.

    Returns:
        The image, float32 (1, z, y, x) or (1, y, x), and where it came from.

    Raises:
        ImageError: for a file or series that does not exist, is damaged, or has several values a voxel.
        GeometryError: for a header that does not say where the voxels lie.
    """
    path = Path(path)
    stored, digest = _stored(path, series, scalar=True)
    volume = _reading(path, stored.samples().volume)
    return LoadedImage(volume, stored.pixel_type, path, digest, stored.modality, stored.oriented, stored.origin)


def read_labels(path: str | Path, *, series: str | None = None) -> LabelMap:
    """Read a label map: whole numbers of any size, exact, and their names where the file has them.

    Raises as ``read_image`` does, and ImageError for voxels that are no labels.
    """
    path = Path(path)
    stored, _ = _stored(path, series, scalar=True)
    return _reading(path, lambda: stored.samples().labels(path.name, names_of(stored.segments)))


def read_stored(path: str | Path, *, series: str | None = None) -> Stored:
    """Read an image as it is: the type of its voxels, any number of components, a series over time, its segments.

    Raises as ``read_image`` does.
    """
    return _stored(Path(path), series, scalar=False)[0]


def read_mask(path: str | Path, *, series: str | None = None) -> Volume:
    """Read a mask: 0 is excluded, 1 and above is included, values between are weights, NaN is excluded.

    Args:
        path: the file or the folder, as for ``read_image``.
        series: which of several DICOM series.

    Returns:
        The weights in [0, 1], float32 (1, z, y, x) or (1, y, x).

    Raises:
        ImageError: for a file or series that does not exist, is damaged, or has several values a voxel.
        GeometryError: for a header that does not say where the voxels lie.
    """
    volume = read_image(path, series=series).volume
    return Volume(volume.data.nan_to_num(nan=0.0).clamp(0.0, 1.0), volume.grid)


def in_one_unit(images: Mapping[str, LoadedImage]) -> dict[str, LoadedImage]:
    """Images that belong together; pictures of which one says no size of its pixels all count in pixels."""
    pictures = {name: each for name, each in images.items() if is_picture(each.path.name, each.volume.grid)}
    if not any(counts_in_pixels(each.volume.grid) for each in pictures.values()):
        return dict(images)
    return dict(images) | {
        name: replace(each, volume=Volume(each.volume.data, _unsized(each.path, each.volume.grid)))
        for name, each in pictures.items()
    }


def in_unit_of(grid: Grid, path: str | Path, image: Grid) -> Grid:
    """The ``grid`` of a picture (a mask, labels) in the unit of the image it belongs to; any other as it is."""
    path = Path(path)
    if not is_picture(path.name, grid) or counts_in_pixels(grid) == counts_in_pixels(image):
        return grid
    if counts_in_pixels(image):
        return _unsized(path, grid)
    if grid.shape == image.shape:
        logger.warning("%s says no size of its pixels: that of the image it belongs to counts", path)
        return image
    return grid


def _unsized(path: Path, grid: Grid) -> Grid:
    if not counts_in_pixels(grid):
        spacing = " × ".join(f"{s:.4g}" for s in grid.spacing_xyz)
        logger.warning(
            "%s says that its pixels are %s mm and what it belongs to says nothing: both count in pixels, 1 mm each",
            path, spacing,
        )  # fmt: skip
    return in_pixels(grid)


def read_grid(path: str | Path, series: str | None = None) -> Grid:
    """The grid of an image, from its header alone where that says it; of a series over time that of each frame.

    Raises as ``read_image`` does.
    """
    path = Path(path)
    if in_chunks(path):
        from semreg.io.ngff.door import fitting
        from semreg.io.ngff.opening import open_pyramid

        return fitting(open_pyramid(path, series)).grid
    names = files_of(path, series)
    if path.is_dir() or is_dicom(path):
        return _reading(path, lambda: series_grid(names, str(path)))
    if is_for_nibabel(path):
        check_before(path)
        return grid_with_nibabel(path)
    with tempfile.TemporaryDirectory(prefix="semreg-") as folder:
        reader = _reader(path, Path(folder))
        _check_scalar(path, reader, frames=True)
        return _reading(path, lambda: lattice_of(reader, path)[0].straight(str(path))[0])


def read_origin(path: str | Path, series: str | None = None) -> Origin | None:
    """Of whom and in which frame of reference an object of DICOM is; None: it is in another format.

    Raises ImageError for a damaged header, and where a folder does not hold one series.
    """
    path = Path(path)
    if in_chunks(path):
        return None
    if path.is_dir() or (path.is_file() and is_dicom(path)):
        return origin_of(files_of(path, series)[0])
    return None


def _stored(path: Path, series: str | None, *, scalar: bool) -> tuple[Stored, str]:
    """What is in the files of an image, and their checksum; ``scalar``: one value a voxel, or colours, made grey."""
    if in_chunks(path):
        from semreg.io.ngff.door import files_in, stored_in_chunks

        return stored_in_chunks(path, series), digest_of(path, files_in(path))
    names = files_of(path, series)
    if path.is_dir() or is_dicom(path):
        volume, kind, segments = _reading(path, lambda: read_series(names, str(path)))
        array, modality = volume.data[0].numpy(), modality_of(names[0])
        stored = Stored(
            array, volume.grid, None, kind, segments=segments, modality=modality, oriented=True,
            origin=origin_of(names[0]),
        )  # fmt: skip
        return stored, digest_of(path, names)
    if is_for_nibabel(path):
        check_before(path)
        stored, notes = read_with_nibabel(path, scalar=scalar)
    else:
        with tempfile.TemporaryDirectory(prefix="semreg-") as folder:
            reader = _reader(path, Path(folder))
            if scalar:
                _check_scalar(path, reader)
            lattice, notes = _reading(path, lambda: lattice_of(reader, path))
            stored = _load(path, reader, lattice)
    for note in notes:
        logger.warning("%s: %s", path, note)
    if says_no_place(path):
        stored = replace(stored, oriented=False)
    digest = digest_of(path, names)
    if path.name.lower().endswith(PICTURES) and (turn := tiff.turned(path)) not in (0, 1):
        logger.warning(
            "%s is to be turned before it is shown (Exif orientation %d): its pixels stay as they are stored",
            path, turn,
        )  # fmt: skip
    if note := pixel_size_note(path.name, stored.grid):
        logger.info("%s: %s", path, note)
    if scalar and stored.components > 1:
        logger.info("%s: its colours become their luminance", path)
        stored = stored.grey()
    return stored, digest


def _load(path: Path, reader: Any, lattice: Lattice) -> Stored:
    """The voxels of an image whose header ``reader`` has read."""
    import SimpleITK as sitk

    grid, index = _reading(path, lambda: lattice.straight(str(path)))
    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    kind = pixel_type_name(_kind_of(reader))
    voxels = _exact_floats(path) if is_nifti_name(path) else None
    if voxels is not None and components == 1:
        array = voxels.reshape(size[::-1])
        segments: dict[str, str] = {}
    else:
        with quiet_readers():
            image = _reading(path, reader.Execute)
        array = sitk.GetArrayFromImage(image)
        segments = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys() if key.startswith("Segment")}
        if voxels is not None and voxels.size == array.size:  # the components of NIfTI are its last axis
            exact = np.moveaxis(voxels.reshape(components, *size[::-1]), 0, -1)
            array = np.where(np.isfinite(exact), array, exact.astype(array.dtype))
    frames = None
    if len(size) > 3:
        if len(size) > 4 or size[3] == 1:
            array = _without_single(path, array, size)
        else:
            frames = (float(reader.GetOrigin()[3]), float(reader.GetSpacing()[3]))
    return Stored(array, grid, index, kind, components, frames, segments)


def _without_single(path: Path, array: npt.NDArray[Any], size: tuple[int, ...]) -> npt.NDArray[Any]:
    """The array without axes of one sample beyond the third (ImageError where they have more)."""
    _reading(path, lambda: check_scalar_image(size, 1, ""))
    return array.reshape(array.shape[len(size) - 3 :])


def _exact_floats(path: Path) -> npt.NDArray[Any] | None:
    """The voxels of a NIfTI file of floats with those that are not finite; ImageError where it is cut short."""
    try:
        voxels = float_voxels(path)
        damaged = voxels is None and is_cut_short(path)
    except (EOFError, OSError, zlib.error):
        voxels, damaged = None, True
    if damaged:
        raise ImageError(f"expected a complete image, got {path}: the file is cut short or damaged; copy it again")
    return voxels


def _kind_of(reader: Any) -> str:
    """SimpleITK's words for the type of one value of an image whose header it has read."""
    import SimpleITK as sitk

    return str(sitk.GetPixelIDValueAsString(reader.GetPixelIDValue())).removeprefix("vector of ")


def _check_scalar(path: Path, reader: Any, *, frames: bool = False) -> None:
    """Refuse what is not one value a voxel, or a colour, in 2-D or 3-D, or with ``frames`` a series of such."""
    import SimpleITK as sitk

    components = reader.GetNumberOfComponents()
    kind = str(sitk.GetPixelIDValueAsString(reader.GetPixelIDValue()))
    colour, size = is_colour(components, kind), reader.GetSize()
    size = size[:3] if frames and len(size) == 4 else size
    _reading(path, lambda: check_scalar_image(size, 1 if colour else components, kind))


class _RefusedAxesError(GeometryError):
    """ITK refuses a NIfTI header whose axes are not orthonormal; its voxels can be read from a copy."""


def _reader(path: Path, folder: Path) -> Any:
    """A SimpleITK reader that has read the header, and whose voxels are there and fit into memory.

    It reads a copy in ``folder`` where ITK refuses the axes of NIfTI, or that it is packed and its name does not say
    so.
    """
    try:
        held = _reading(path, lambda: _held(path))
        if is_nifti_name(path, (".nii",)) and is_packed(path):
            logger.info("%s: it is compressed, although its name does not end in .gz", path)
            return _opened(path, plain_copy(path, folder, placeless=False), held)
        return _opened(path, path, held)
    except _RefusedAxesError:
        if not is_nifti_name(path):
            raise
        return _opened(path, _reading(path, lambda: plain_copy(path, folder, placeless=True)), held)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"expected an image file that can be read, got {path}: {reason}") from error


def _held(path: Path) -> float:
    """The most bytes of voxels that an image can hold, after a look at its header."""
    check_before(path)
    return most_held(path, data_files(path))


def _opened(path: Path, name: Path, held: float) -> Any:
    """A reader of the file ``name``, which can hold so many bytes of voxels; messages speak of ``path``."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(name))
    if name.suffix != name.suffix.lower():
        reader.SetImageIO(IN_SMALL_LETTERS.get(name.suffix.lower(), ""))
    if name != path:  # a copy of NIfTI: what else ITK would know it as by what is in it is none of its header's
        reader.SetImageIO("NiftiImageIO")
    with quiet_readers():
        _reading(path, reader.ReadImageInformation)
    components = reader.GetNumberOfComponents()
    kind = pixel_type_name(_kind_of(reader))
    voxel_bytes = components * np.dtype(kind).itemsize if kind in PIXEL_TYPES else components
    Promise(tuple(reader.GetSize()), voxel_bytes, components).check(path, held)
    return reader


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
