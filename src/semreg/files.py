"""Reads and writes images, masks, fields and transforms with SimpleITK. Knows nothing of registration.

SimpleITK is imported by the functions that need it. Files appear complete or not at all.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from semreg.errors import GeometryError, ImageError, OutputError
from semreg.fields import Field, Volume
from semreg.geometry import Grid
from semreg.itk_bridge import (
    PIECE_POINTS,
    PIXEL_TYPES,
    LoadedImage,
    check_scalar_image,
    grid_of_header,
    piece_on,
    pixel_type_name,
    quantised_mm,
    sitk_field,
    sitk_image,
    sitk_transform,
    to_pixels,
    to_volume,
)
from semreg.memory import give_back_memory
from semreg.nifti import (
    HEADER_BYTES,
    INTENT_DISPLACEMENT,
    float_voxels,
    is_cut_short,
    orthonormal_copy,
    resized_header,
    write_chunks,
)
from semreg.sampling import slabs
from semreg.staging import OutputFolder, atomic_file, check_output_folder, reserve

logger = logging.getLogger("semreg")

T = TypeVar("T")

__all__ = [
    "PIXEL_TYPES",
    "LoadedImage",
    "OutputFolder",
    "atomic_file",
    "check_output_folder",
    "checksum",
    "limit_threads",
    "read_grid",
    "read_image",
    "read_mask",
    "read_transform",
    "write_field",
    "write_image",
    "write_transform",
]


def read_image(path: str | Path) -> LoadedImage:
    """Read an image that SimpleITK reads: a 2-D or 3-D file with one value a voxel, or the folder of a DICOM series.

    Raises ImageError if there is none, GeometryError if its header cannot be used.
    """
    path = Path(path)
    names = _files_of(path)
    digest = _sha256(names)
    try:
        volume, kind = _load(path, names)
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
            volume, kind = _load(path, [mended])
    return LoadedImage(volume, kind, path, digest)


def read_grid(path: str | Path) -> Grid:
    """The grid of an image, from its header alone where it is one file. Raises as ``read_image`` does."""
    path = Path(path)
    names = _files_of(path)
    if path.is_dir():
        return read_image(path).volume.grid
    try:
        reader = _reader(path, names)
    except _RefusedAxesError:
        return read_image(path).volume.grid
    return _reading(path, lambda: _grid_of(reader))


def read_mask(path: str | Path) -> Volume:
    """Read a mask, float32 (1, z, y, x): 0 is excluded, 1 and above is included, between is a weight; NaN is excluded.

    Raises as ``read_image`` does.
    """
    volume = read_image(path).volume
    return Volume(volume.data.nan_to_num(nan=0.0).clamp(0.0, 1.0), volume.grid)


def read_transform(path: str | Path) -> Any:
    """Read a ``SimpleITK.Transform``, fixed points → moving points: a transform file or a displacement field image.

    Raises GeometryError if there is none.
    """
    import SimpleITK as sitk

    path = Path(path)
    if not path.is_file():
        raise GeometryError(f"expected a transform file, got {path}: there is no such file")
    try:
        return sitk.ReadTransform(str(path))
    except RuntimeError as no_transform:
        try:
            return sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
        except RuntimeError:
            raise GeometryError(
                f"expected a transform or displacement field that SimpleITK reads, got {path}: it is neither"
            ) from no_transform


def write_image(volume: Volume, path: str | Path, pixel_type: str = "float32", *, on: Grid | None = None) -> None:
    """Write all channels as ``pixel_type``, rounded and clipped for integer types; the name says the format.

    Several channels become one image of so many components. ``on``: another grid, that the image is interpolated onto
    piece by piece, so that it is never held there. NIfTI is written in pieces; for NRRD and MHA SimpleITK takes a
    copy. Raises OutputError if the file cannot be written, ImageError if the type cannot hold the values.
    """
    grid = volume.grid if on is None else on
    channels = len(volume.data)
    with atomic_file(path) as partial:
        if not _is_nifti(partial):
            _write_with_sitk(sitk_image(volume, pixel_type, on=grid), partial, compressed=channels == 1)
            return
        voxel = Volume(volume.data.new_zeros((channels, *[1] * grid.dimension)), _one_voxel(grid))
        header = resized_header(_nifti_header(sitk_image(voxel, pixel_type), partial), grid.size_xyz)
        pieces = (
            to_pixels(piece_on(volume, grid, part, slice(channel, channel + 1)), pixel_type)
            for channel in range(channels)
            for part in slabs(grid.shape, PIECE_POINTS)
        )
        write_chunks(partial, header, pieces, smooth=channels > 1)


def write_field(field: Field, path: str | Path) -> None:
    """Write the displacements, fixed → moving, as an image of float32 vectors (x, y(, z)) in mm.

    A 3-D NIfTI file gets five axes and the intent 1006 (displacement vectors): as that standard demands its bytes are
    RAS, and SimpleITK from 2.4, ITK from 5.4 and 3D Slicer return LPS vectors. Other formats hold LPS as ITK writes
    them, and so does NIfTI in 2-D, with the intent 1007 (vectors): ITK garbles the signs of 2-D vectors under 1006.
    The values are those of ``write_transform``. Raises OutputError.
    """
    grid = field.grid
    with atomic_file(path) as partial:
        if not _is_nifti(partial):
            _write_with_sitk(sitk_field(field), partial)
            return
        voxel = Field(field.vox.new_zeros((grid.dimension, *[1] * grid.dimension)), _one_voxel(grid))
        header = _nifti_header(sitk_field(voxel), partial)
        if grid.dimension == 3:
            header = resized_header(header, grid.size_xyz, intent=INTENT_DISPLACEMENT)
            write_chunks(partial, header, _planes(field, (-1.0, -1.0, 1.0)), smooth=True)
        else:
            write_chunks(partial, resized_header(header, grid.size_xyz), _planes(field, (1.0, 1.0)), smooth=True)


def write_transform(field: Field, path: str | Path, affine: Any | None = None) -> None:
    """Write an ITK transform, fixed points → moving points in mm (LPS), as ``.h5``, ``.tfm`` or ``.txt``.

    A DisplacementFieldTransform with the values of ``write_field``; with ``affine`` (a ``SimpleITK.Transform``) a
    CompositeTransform that moves a point by the field first and by ``affine`` then. Raises OutputError.
    """
    import SimpleITK as sitk

    give_back_memory()
    transform = sitk_transform(field)
    if affine is not None:
        transform = sitk.CompositeTransform([affine, transform])  # the last one is applied first
    with atomic_file(path) as partial:
        reserve(partial, 8 * field.vox.numel() + 65536)  # the HDF5 library does not survive a full disk
        _writing(partial, lambda: sitk.WriteTransform(transform, str(partial)))


def checksum(path: str | Path) -> str:
    """SHA-256 of the bytes of a file, or of all files of the DICOM series in a folder, sorted by name (ImageError)."""
    return _sha256(_files_of(Path(path)))


def limit_threads(count: int) -> None:
    """Let torch and SimpleITK use ``count`` threads of the CPU in this process: for commands, not for libraries."""
    import SimpleITK as sitk
    import torch

    torch.set_num_threads(count)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)


def _files_of(path: Path) -> list[Path]:
    """The files of an image: itself, or all of the one DICOM series in a folder, in slice order."""
    if path.is_file():
        return [path]
    if not path.exists():
        raise ImageError(f"expected an image file or a DICOM folder, got {path}: there is no such file")
    if not path.is_dir():
        raise ImageError(f"expected an image file or a DICOM folder, got {path}: it is neither")
    import SimpleITK as sitk

    warnings_shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.GlobalWarningDisplayOff()  # it would print that there is no series
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(path))
    sitk.ProcessObject.SetGlobalWarningDisplay(warnings_shown)
    if not series:
        raise ImageError(f"expected a folder with a DICOM series, got {path}, which holds none: give the image file")
    if len(series) > 1:
        raise ImageError(
            f"expected a folder with one DICOM series, got {path} with {len(series)}: {', '.join(series)}; "
            "put the one to use into its own folder"
        )
    return [Path(name) for name in sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path), series[0])]


class _RefusedAxesError(GeometryError):
    """ITK refuses a NIfTI header whose axes are not orthonormal; it can be mended."""


def _load(path: Path, names: list[Path]) -> tuple[Volume, str]:
    """The image in the files ``names`` and the type it is stored with; messages speak of ``path``."""
    reader = _reader(path, names)
    if _is_nifti(names[0]):
        try:
            voxels = float_voxels(names[0])
            damaged = voxels is None and is_cut_short(names[0])
        except (EOFError, OSError, zlib.error):
            voxels, damaged = None, True
        if damaged:
            raise ImageError(f"expected a complete image, got {path}: the file is cut short or damaged; copy it again")
        if voxels is not None:
            grid = _reading(path, lambda: _grid_of(reader))
            return to_volume((voxels.reshape(grid.shape), grid)), pixel_type_name(_kind_of(reader))
    image = _reading(path, reader.Execute)
    return _reading(path, lambda: to_volume(image)), pixel_type_name(image.GetPixelIDTypeAsString())


def _grid_of(reader: Any) -> Grid:
    """The grid of an image whose header SimpleITK has read."""
    size = reader.GetSize()
    dimension = min(len(size), 3)
    direction = np.reshape(reader.GetDirection(), (len(size), len(size)))[:dimension, :dimension]
    return grid_of_header(size[:dimension], reader.GetSpacing()[:dimension], reader.GetOrigin()[:dimension], direction)


def _kind_of(reader: Any) -> str:
    """SimpleITK's words for the voxel type of an image whose header it has read."""
    import SimpleITK as sitk

    return str(sitk.GetPixelIDValueAsString(reader.GetPixelIDValue()))


def _reader(path: Path, names: list[Path]) -> Any:
    """A SimpleITK reader that has read the header and found one value a voxel in 2-D or 3-D."""
    import SimpleITK as sitk

    header = sitk.ImageFileReader()
    header.SetFileName(str(names[0]))
    _reading(path, header.ReadImageInformation)
    try:
        check_scalar_image(header.GetSize(), header.GetNumberOfComponents(), _kind_of(header))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    if len(names) == 1:
        return header
    series = sitk.ImageSeriesReader()
    series.SetFileNames([str(name) for name in names])
    return series


def _reading(path: Path, action: Callable[[], T]) -> T:
    """Run ``action`` and put what SimpleITK complains about into one sentence that names the file."""
    try:
        return action()
    except (ImageError, GeometryError) as error:
        raise type(error)(f"{path}: {error}") from error
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise _RefusedAxesError(f"expected orthonormal axes in the header of {path}: correct it") from error
        if "memory" in str(error).lower():
            raise MemoryError(f"reading {path}: {_reason(error)}") from error
        raise ImageError(f"expected an image that SimpleITK reads, got {path}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The last line that says something, without the addresses ITK puts before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "Reason:" not in line]
    text = lines[-1] if lines else type(error).__name__
    return text.rpartition("): ")[2].removeprefix("ITK ERROR: ").removeprefix("sitk::ERROR: ")


def _sha256(names: list[Path]) -> str:
    digest = hashlib.sha256()
    for name in sorted(names):
        try:
            with name.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise ImageError(f"expected an image file that can be read, got {name}: {error.strerror}") from error
    return digest.hexdigest()


def _is_nifti(path: Path) -> bool:
    return path.name.endswith((".nii", ".nii.gz"))


def _one_voxel(grid: Grid) -> Grid:
    return Grid((1,) * grid.dimension, grid.spacing_xyz, grid.origin_xyz, grid.direction)


def _nifti_header(image: Any, beside: Path) -> bytes:
    """The header SimpleITK writes for ``image``, through a temporary file in the folder of ``beside``."""
    import SimpleITK as sitk

    with tempfile.TemporaryDirectory(dir=beside.parent, prefix=".semreg-") as folder:
        name = Path(folder) / "header.nii"
        _writing(beside, lambda: sitk.WriteImage(image, str(name)))
        return name.read_bytes()[:HEADER_BYTES]


def _planes(field: Field, signs: tuple[float, ...]) -> Iterator[npt.NDArray[Any]]:
    """All x, then all y(, then all z) components in mm, the order of NIfTI, each times its sign."""
    for component, sign in enumerate(signs):
        for part in slabs(field.grid.shape, PIECE_POINTS):
            yield quantised_mm(field, component, part).mul_(sign).numpy()


def _write_with_sitk(image: Any, path: Path, *, compressed: bool = True) -> None:
    """Compressing takes further copies: not for what is large and hardly becomes smaller."""
    import SimpleITK as sitk

    _writing(path, lambda: sitk.WriteImage(image, str(path), useCompression=compressed, compressionLevel=1))


def _writing(path: Path, action: Callable[[], Any]) -> None:
    try:
        action()
    except RuntimeError as error:
        name = path.name.removeprefix(".partial-")
        raise OutputError(
            f"expected to write {name}, got: {_reason(error)}; check its format and that the disk has room"
        ) from error
