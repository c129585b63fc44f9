"""Any image as a Volume: the one place that tells the packages apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semreg.config import Modality
from semreg.core.fields import Volume
from semreg.core.geometry import Grid, Matrix
from semreg.errors import GeometryError, ImageError
from semreg.io.bridge.common import check_scalar_image, logger
from semreg.io.bridge.itk import samples_of_itk
from semreg.io.bridge.lattice import Lattice
from semreg.io.bridge.samples import LabelMap, Samples
from semreg.io.bridge.simpleitk import samples_of_sitk
from semreg.io.nifti_header import notes_on, parse_header, place_of
from semreg.io.patients import Origin


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
    modality: Modality | None = None
    """What its DICOM header says that it is; None: nothing, as in other formats."""
    oriented: bool | None = None
    """Whether its header says how the patient lies: DICOM does, NIfTI without codes does not; None: it may."""
    origin: Origin | None = None
    """Of whom and in which frame it is by its DICOM header; None: it is in another format."""


def to_volume(obj: Any, *, grid: Grid | None = None) -> Volume:
    """Any image as a Volume; voxels of other types, float64 included, are converted to float32.

    A direction that is not orthonormal is repaired, or the image resampled, with a warning in the log. Of a NIfTI image
    of nibabel whose affine is that of its header, the header counts, as in a file.

    Args:
        obj: a ``SimpleITK.Image``, an ``itk.Image``, a nibabel image (RAS becomes LPS), a ``Volume``, a
            ``LoadedImage``, a pair (array, Grid), or a numpy array or torch tensor (z, y, x) with ``grid``.
        grid: where the samples of an array lie.

    Returns:
        The image, float32 (1, z, y, x) or (1, y, x) on the CPU.

    Raises:
        ImageError: for anything that is not one value a voxel in 2-D or 3-D.
        GeometryError: for a singular direction, and an array that does not fit its grid.
    """
    if isinstance(obj, LoadedImage):
        obj = obj.volume
    if isinstance(obj, Volume):
        obj, grid = obj.data, obj.grid
    elif isinstance(obj, tuple) and len(obj) == 2 and isinstance(obj[1], Grid):
        obj, grid = obj
    if isinstance(obj, Tensor) and grid is not None and not obj.is_complex():
        data = obj.detach().to("cpu", torch.float32)
        return Volume(data.reshape(1, *_checked_shape(tuple(obj.shape), grid)).contiguous(), grid)
    return samples_of(obj, grid).volume()


def to_labels(obj: Any, name: str = "image") -> LabelMap:
    """Labels from anything ``to_volume`` takes, exact whatever their size. Raises ImageError for what is no label."""
    return obj if isinstance(obj, LabelMap) else samples_of(obj).labels(name)


def samples_of(obj: Any, grid: Grid | None = None) -> Samples:
    """The samples of any image as it holds them; arguments and errors as those of ``to_volume``."""
    if isinstance(obj, LoadedImage):
        obj = obj.volume
    if isinstance(obj, tuple) and len(obj) == 2 and isinstance(obj[1], Grid):
        obj, grid = obj
    if isinstance(obj, Volume):
        obj, grid = obj.data, obj.grid
    if isinstance(obj, (np.ndarray, Tensor)):
        if grid is None:
            raise ImageError(
                f"expected an array together with its grid, got an array of shape {tuple(obj.shape)} alone: "
                "pass (array, semreg.Grid(...))"
            )
        return Samples(_array_of(obj).reshape(_checked_shape(tuple(obj.shape), grid)), grid)
    packages = {base.__module__.partition(".")[0] for base in type(obj).__mro__}
    if "SimpleITK" in packages and hasattr(obj, "GetPixelIDTypeAsString"):
        return samples_of_sitk(obj)
    if "itk" in packages and hasattr(obj, "GetLargestPossibleRegion"):
        return samples_of_itk(obj)
    if "nibabel" in packages and hasattr(obj, "affine"):
        return _of_nibabel(obj)
    hint = ": read it with semreg.read_image" if isinstance(obj, (str, Path)) else ""
    raise ImageError(
        "expected a SimpleITK, itk or nibabel image, a Volume or (array, Grid), "
        f"got {type(obj).__module__}.{type(obj).__qualname__}{hint}"
    )


def _checked_shape(shape: tuple[int, ...], grid: Grid) -> tuple[int, ...]:
    """The shape of the grid, where an array has it (ImageError, GeometryError)."""
    if len(shape) == grid.dimension + 1 and shape[0] != 1:
        raise ImageError(f"expected one value per voxel, got {shape[0]} channels of {shape[1:]}: pick one")
    if shape[-grid.dimension :] != grid.shape or len(shape) > grid.dimension + 1:
        raise GeometryError(f"expected an array of shape {grid.shape} (z, y, x) as its grid has, got {shape}")
    return grid.shape


def _array_of(values: npt.NDArray[Any] | Tensor) -> npt.NDArray[Any]:
    if not isinstance(values, Tensor):
        return values
    if values.is_complex():
        raise ImageError(f"expected voxels that are real numbers, got {values.dtype}: take the magnitude first")
    values = values.detach().cpu()
    small = values.dtype in (torch.float16, torch.bfloat16)
    return np.asarray((values.float() if small else values).numpy())


def _of_nibabel(image: Any) -> Samples:
    size = tuple(int(n) for n in image.shape)
    dtype = image.get_data_dtype()
    components = len(dtype.names) if dtype.names else size[4] if len(size) > 4 else 1
    check_scalar_image(size, components, str(dtype))
    dimension = min(len(size), 3)
    array = np.asarray(image.dataobj).reshape(size[:dimension])
    matrix = _nibabel_place(image)
    lattice = Lattice.of_matrix(size[:dimension], matrix[:dimension, :dimension], matrix[:dimension, 3])
    grid, index = lattice.straight()
    return Samples(array.T, grid, index)


def _nibabel_place(image: Any) -> Matrix:
    """The matrix (3, 4) from (i, j, k) to mm, LPS: the affine, or what the header says where the affine is its own.

    nibabel prefers the sform, knows no units, and centres images that have no place; files are read by ITK's rule.
    """
    affine = np.asarray(image.affine, dtype=np.float64)
    header, best = image.header, getattr(image.header, "get_best_affine", None)
    raw = parse_header(getattr(header, "binaryblock", b""), analyze=best is not None)
    if best is None or raw is None or len(image.shape) < 3 or not np.allclose(affine, best(), atol=1e-5):
        return np.asarray((np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)[:3])
    for note in notes_on(raw):
        logger.warning("an image of nibabel of size %s: %s", tuple(image.shape), note)
    return place_of(raw).matrix
