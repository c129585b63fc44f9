"""Any image as a Volume: the one place that tells the packages apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semreg.errors import GeometryError, ImageError
from semreg.fields import Volume
from semreg.geometry import Grid
from semreg.itk_bridge.common import check_scalar_image, grid_of_header, tensor_of
from semreg.itk_bridge.itk import volume_of_itk
from semreg.itk_bridge.simpleitk import volume_of_sitk


@dataclass(frozen=True)
class LoadedImage:
    """An image and where it came from."""

    volume: Volume
    """The samples as float32, (1, z, y, x), raw intensities."""
    pixel_type: str
    """The type the voxels are stored with, one of ``PIXEL_TYPES``."""
    path: Path
    """The file, or the folder of a DICOM series."""
    sha256: str
    """Checksum of the bytes of the file; of a header whose voxels are in other files of all of them, the header first;
    of all files of a DICOM series in the order of their names."""


def to_volume(obj: Any, *, grid: Grid | None = None) -> Volume:
    """Any image as a Volume, float32 (1, z, y, x) on the CPU; other types, float64 included, are converted.

    ``obj`` is a ``SimpleITK.Image``, an ``itk.Image``, a nibabel image (RAS becomes LPS), a ``Volume``, a
    ``LoadedImage``, a pair (array, Grid), or a numpy array or torch tensor (z, y, x) with ``grid``.

    A direction that is not orthonormal is repaired with a warning in the log. Raises ImageError for anything that is
    not one value a voxel in 2-D or 3-D, GeometryError for a singular direction or an array that does not fit its grid.
    """
    if isinstance(obj, tuple) and len(obj) == 2 and isinstance(obj[1], Grid):
        obj, grid = obj
    if isinstance(obj, LoadedImage):
        obj = obj.volume
    if isinstance(obj, Volume):
        return _from_array(obj.data, obj.grid)
    if isinstance(obj, (np.ndarray, Tensor)):
        if grid is None:
            raise ImageError(
                f"expected an array together with its grid, got an array of shape {tuple(obj.shape)} alone: "
                "pass (array, semreg.Grid(...))"
            )
        return _from_array(obj, grid)
    packages = {base.__module__.partition(".")[0] for base in type(obj).__mro__}
    if "SimpleITK" in packages and hasattr(obj, "GetPixelIDTypeAsString"):
        return volume_of_sitk(obj)
    if "itk" in packages and hasattr(obj, "GetLargestPossibleRegion"):
        return volume_of_itk(obj)
    if "nibabel" in packages and hasattr(obj, "affine"):
        return _from_nibabel(obj)
    hint = ": read it with semreg.read_image" if isinstance(obj, (str, Path)) else ""
    raise ImageError(
        "expected a SimpleITK, itk or nibabel image, a Volume or (array, Grid), "
        f"got {type(obj).__module__}.{type(obj).__qualname__}{hint}"
    )


def _from_array(array: npt.NDArray[Any] | Tensor, grid: Grid) -> Volume:
    shape = tuple(array.shape)
    if len(shape) == grid.dimension + 1 and shape[0] != 1:
        raise ImageError(f"expected one value per voxel, got {shape[0]} channels of {shape[1:]}: pick one")
    if shape[-grid.dimension :] != grid.shape or len(shape) > grid.dimension + 1:
        raise GeometryError(f"expected an array of shape {grid.shape} (z, y, x) as its grid has, got {shape}")
    if isinstance(array, Tensor):
        if array.is_complex():
            raise ImageError(f"expected voxels that are real numbers, got {array.dtype}: take the magnitude first")
        data = array.detach().to("cpu", torch.float32)
    else:
        data = tensor_of(array)
    return Volume(data.reshape(1, *grid.shape).contiguous(), grid)


def _from_nibabel(image: Any) -> Volume:
    size = tuple(int(n) for n in image.shape)
    dtype = image.get_data_dtype()
    components = len(dtype.names) if dtype.names else size[4] if len(size) > 4 else 1
    check_scalar_image(size, components, str(dtype))
    dimension = min(len(size), 3)
    array = np.asarray(image.dataobj).reshape(size[:dimension])
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(image.affine, dtype=np.float64)  # RAS → LPS
    linear, origin = affine[:dimension, :dimension], affine[:dimension, 3]
    spacing = np.linalg.norm(linear, axis=0)
    if not (np.isfinite(affine).all() and spacing.min() > 0):
        raise GeometryError(f"expected an invertible affine, got {affine.tolist()} (LPS): correct the header")
    grid = grid_of_header(size[:dimension], tuple(spacing), tuple(origin), linear / spacing)
    return Volume(tensor_of(array.T)[None], grid)
