"""Writes images, fields and transforms with SimpleITK. Knows nothing of registration.

Images are read by ``semreg.io.images`` and transforms by ``semreg.io.transform_files``, whose functions are offered
here too.

SimpleITK is imported by the functions that need it. Files appear complete or not at all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.core.sampling import slabs
from semreg.errors import OutputError
from semreg.io.atomic_output import OutputFolder, atomic_file, check_output_folder, reserve
from semreg.io.bridge import (
    PIECE_POINTS,
    PIXEL_TYPES,
    LoadedImage,
    piece_on,
    quantised_mm,
    sitk_field,
    sitk_image,
    sitk_transform,
    to_pixels,
)
from semreg.io.hdf5 import rewrite
from semreg.io.image_files import checksum
from semreg.io.images import (
    in_one_unit,
    in_unit_of,
    read_grid,
    read_image,
    read_labels,
    read_mask,
    read_origin,
    read_stored,
    reason_of,
)
from semreg.io.nifti import (
    INTENT_DISPLACEMENT,
    resized_header,
    write_chunks,
)
from semreg.io.nifti_header import HEADER_BYTES
from semreg.io.ordinary_file import check_file
from semreg.io.transform_files.reading import read_transforms
from semreg.runtime.memory import give_back_memory

__all__ = [
    "PIXEL_TYPES",
    "LoadedImage",
    "OutputFolder",
    "atomic_file",
    "check_file",
    "check_output_folder",
    "checksum",
    "in_one_unit",
    "in_unit_of",
    "limit_threads",
    "read_grid",
    "read_image",
    "read_labels",
    "read_mask",
    "read_origin",
    "read_stored",
    "read_transforms",
    "write_field",
    "write_image",
    "write_series",
    "write_sitk_image",
    "write_sitk_transform",
    "write_transform",
    "write_warp",
]

HDF5_NAMES = (".h5", ".hdf5")


def write_image(volume: Volume, path: str | Path, pixel_type: str = "float32", *, on: Grid | None = None) -> None:
    """Write an image; the name says the format.

    Args:
        volume: the image (C, *S); several channels become one image of so many components.
        path: the file. NIfTI is written in pieces; for NRRD and MHA SimpleITK takes a copy of the image.
        pixel_type: one of ``semreg.io.files.PIXEL_TYPES``; for integers values are rounded and clipped.
        on: another grid, onto which the image is interpolated piece by piece; None: its own.

    Raises:
        ImageError: for an unknown type, and for NaN where the type is an integer.
        OutputError: where the file cannot be written; then nothing is left there.
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


def write_series(
    frames: Iterable[Volume], path: str | Path, pixel_type: str = "float32", *, timing: tuple[float, float] = (0.0, 1.0)
) -> None:
    """Write frames (1, *S) of one grid into one file, along a last axis.

    Args:
        frames: in their order.
        path: the file; its name says the format.
        pixel_type: as for ``write_image``.
        timing: the time of the first frame and between two.

    Raises:
        ImageError: for an unknown type, and for NaN where the type is an integer.
        OutputError: where the file cannot be written; then nothing is left there.
    """
    import SimpleITK as sitk

    write_sitk_image(sitk.JoinSeries([sitk_image(frame, pixel_type) for frame in frames], *timing), path)


def write_field(field: Field, path: str | Path) -> None:
    """Write a displacement field as an image of float32 vectors (x, y(, z)) in mm, fixed → moving.

    A 3-D NIfTI file gets five axes and the intent 1006 (displacement vectors): as that standard demands its bytes are
    RAS, and SimpleITK from 2.4, ITK from 5.4 and 3D Slicer return LPS vectors. Other formats hold LPS as ITK writes
    them, and so does NIfTI in 2-D, with the intent 1007 (vectors), as ITK confuses the signs of 2-D vectors under 1006.
    The values are those of ``write_transform``.

    Args:
        field: the displacements.
        path: the file; its name says the format.

    Raises:
        OutputError: where the file cannot be written; then nothing is left there.
    """
    with atomic_file(path) as partial:
        if _is_nifti(partial):
            _write_nifti_field(field, partial, INTENT_DISPLACEMENT if field.grid.dimension == 3 else None)
        else:
            _write_with_sitk(sitk_field(field), partial)


def write_warp(field: Field, path: str | Path) -> None:
    """Write the displacements as a warp of ANTs: NIfTI, five axes, the intent 1007 (vectors), LPS as they are, in mm.

    The values are those of ``write_field``. Raises OutputError.
    """
    with atomic_file(path) as partial:
        if not _is_nifti(partial):
            raise OutputError(f"expected the name of a warp to end in .nii.gz or .nii, got {path}: ANTs reads NIfTI")
        _write_nifti_field(field, partial, None)


def write_transform(field: Field, path: str | Path, affine: Any | None = None) -> None:
    """Write a displacement field as an ITK transform, fixed points → moving points in mm (LPS).

    Args:
        field: the displacements, written as a DisplacementFieldTransform with the values of ``write_field``.
        path: the file, ``.h5``, ``.tfm`` or ``.txt``.
        affine: a ``SimpleITK.Transform`` that follows the field; both are written as a CompositeTransform.

    Raises:
        OutputError: where the file cannot be written; then nothing is left there.
    """
    import SimpleITK as sitk

    def of(field: Field) -> Any:
        """With the affine map; the last one is applied first."""
        moved = sitk_transform(field)
        return moved if affine is None else sitk.CompositeTransform([affine, moved])

    give_back_memory()
    if str(path).endswith(HDF5_NAMES):
        with atomic_file(path) as partial:
            reserve(partial, 4 * field.vox.numel() + 65536)
            _write_hdf5(of(_one_vector(field.grid)), partial, field)
    else:
        write_sitk_transform(of(field), path, values=field.vox.numel())


def write_sitk_transform(transform: Any, path: str | Path, *, values: int = 0) -> None:
    """Write a ``SimpleITK.Transform`` in the format of ITK that the name says: .h5, .tfm, .txt or .mat.

    ``values``: how many numbers its fields hold, to see first whether there is room. No time is stored: the same
    transform gives the same bytes. Raises OutputError.
    """
    import SimpleITK as sitk

    with atomic_file(path) as partial:
        if partial.name.endswith(HDF5_NAMES):
            reserve(partial, 16 * values + 65536)  # the HDF5 library does not survive a full disk
            _write_hdf5(transform, partial)
        else:
            reserve(partial, 8 * values + 65536)
            _writing(partial, lambda: sitk.WriteTransform(transform, str(partial)))


def write_sitk_image(image: Any, path: str | Path) -> None:
    """Write a ``SimpleITK.Image`` as it is, compressed; the name says the format. Raises OutputError."""
    values = image.GetNumberOfPixels() * image.GetNumberOfComponentsPerPixel()
    with atomic_file(path) as partial:
        reserve(partial, values * image.GetSizeOfPixelComponent() + 4096)  # ITK's NIfTI writer overlooks a full disk
        _write_with_sitk(image, partial)


def limit_threads(count: int) -> None:
    """Let torch and SimpleITK use ``count`` threads of the CPU in this process: for commands, not for libraries."""
    import SimpleITK as sitk
    import torch

    torch.set_num_threads(count)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)


def _is_nifti(path: Path) -> bool:
    return path.name.endswith((".nii", ".nii.gz"))


def _write_hdf5(transform: Any, path: Path, field: Field | None = None) -> None:
    """Write a transform of SimpleITK as HDF5; ``field`` stands in place of the one that it holds."""
    import SimpleITK as sitk

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".semreg-") as folder:
        layout = Path(folder) / "layout.h5"
        _writing(path, lambda: sitk.WriteTransform(transform, str(layout)))
        rewrite(layout, path, field)


def _one_vector(grid: Grid) -> Field:
    return Field(torch.zeros((grid.dimension, *[1] * grid.dimension)), _one_voxel(grid))


def _write_nifti_field(field: Field, partial: Path, intent: int | None) -> None:
    """Stream the vectors as NIfTI: RAS under the intent 1006, LPS under SimpleITK's own for vectors, 1007."""
    grid = field.grid
    header = _nifti_header(sitk_field(_one_vector(grid)), partial)
    signs = (1.0,) * grid.dimension if intent is None else (-1.0, -1.0, 1.0)
    write_chunks(partial, resized_header(header, grid.size_xyz, intent=intent), _planes(field, signs), smooth=True)


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

    if path.name.lower().endswith(".mnc"):
        raise OutputError("expected a format in LPS, got MINC, which ITK writes turned by 180 degrees: write NIfTI")
    _writing(path, lambda: sitk.WriteImage(image, str(path), useCompression=compressed, compressionLevel=1))


def _writing(path: Path, action: Callable[[], Any]) -> None:
    try:
        action()
    except RuntimeError as error:
        raise OutputError(
            f"expected to write {path.name}, got: {reason_of(error)}; check its format and that the disk has room"
        ) from error
