"""The door to other people's images: SimpleITK, itk, nibabel and numpy objects ⇄ Volume and Field.

Knows nothing of files and of registration. SimpleITK and itk are imported inside the functions that need them.
"""

from __future__ import annotations

import logging
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semreg.errors import GeometryError, ImageError
from semreg.fields import Field, Volume
from semreg.geometry import ORTHONORMAL_TOLERANCE, Grid, Matrix, nearest_rotation, orthonormality_error
from semreg.sampling import slabs

logger = logging.getLogger("semreg")

PIXEL_TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
"""Names of the types an image can be stored with."""

PIECE_POINTS = 1 << 18
"""Samples handed over at once where a whole image is converted: bounds the memory beside the image itself."""


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
        return _from_sitk(obj)
    if "itk" in packages and hasattr(obj, "GetLargestPossibleRegion"):
        return _from_itk(obj)
    if "nibabel" in packages and hasattr(obj, "affine"):
        return _from_nibabel(obj)
    hint = ": read it with semreg.read_image" if isinstance(obj, (str, Path)) else ""
    raise ImageError(
        "expected a SimpleITK, itk or nibabel image, a Volume or (array, Grid), "
        f"got {type(obj).__module__}.{type(obj).__qualname__}{hint}"
    )


def grid_of_header(
    size_xyz: tuple[int, ...], spacing_xyz: tuple[float, ...], origin_xyz: tuple[float, ...], direction: npt.ArrayLike
) -> Grid:
    """The Grid of an ITK header; a direction that is not orthonormal is repaired with a warning in the log.

    ``direction`` row by row, nested or flat. Raises GeometryError if it is singular.
    """
    dimension = len(size_xyz)
    rows = np.asarray(direction, dtype=np.float64).reshape(dimension, dimension)
    error = orthonormality_error(rows)
    if error > ORTHONORMAL_TOLERANCE:
        repaired = nearest_rotation(rows)
        logger.warning(
            "the direction matrix of an image of size %s is not orthonormal (by %.2g): the nearest rotation is used; "
            "correct the header if positions matter",
            tuple(size_xyz),
            error,
        )
        rows = repaired
    return Grid(size_xyz, spacing_xyz, origin_xyz, tuple(map(tuple, rows.tolist())))


def check_scalar_image(size_xyz: tuple[int, ...], components: int, kind: str) -> None:
    """Refuse what is not one real number a voxel in 2-D or 3-D (ImageError); ``kind`` names the pixel type."""
    if components != 1:
        raise ImageError(
            f"expected one value per voxel, got {components} components ({kind}): "
            "convert colour to grey, or pick one component, first"
        )
    if "complex" in kind or "label" in kind:
        raise ImageError(f"expected voxels that are real numbers, got {kind}: convert the image first")
    if any(n != 1 for n in size_xyz[3:]):
        raise ImageError(
            f"expected an image of 2 or 3 axes, got {len(size_xyz)} of size {tuple(size_xyz)}: pick one frame first"
        )


def pixel_type_name(description: str) -> str:
    """SimpleITK's name of a pixel type, as "16-bit signed integer", in the words of ``PIXEL_TYPES``."""
    bits = description.partition("-")[0]
    kind = "float" if "float" in description else "uint" if "unsigned" in description else "int"
    return f"{kind}{bits}"


def to_pixels(values: Tensor, pixel_type: str) -> npt.NDArray[Any]:
    """Values as an array of ``pixel_type``: rounded and clipped for integer types.

    Raises ImageError for an unknown type, and for NaN where the type is an integer.
    """
    if pixel_type not in PIXEL_TYPES:
        raise ImageError(f"expected a voxel type of {', '.join(PIXEL_TYPES)}, got {pixel_type!r}")
    array = values.detach().cpu().numpy()
    dtype = np.dtype(pixel_type)
    if dtype.kind == "f" or array.dtype == dtype:
        return np.ascontiguousarray(array, dtype=dtype)
    if np.isnan(array).any():
        raise ImageError(f"expected finite values to store as {pixel_type}, got NaN: store them as float32")
    limits = np.iinfo(dtype)
    if array.dtype.kind in "biu":
        whole = array.astype(np.int64)
        return np.ascontiguousarray(np.clip(whole, limits.min, min(limits.max, 2**63 - 1)).astype(dtype))
    if dtype.itemsize < 4:  # every value of the type is a float32
        rounded = np.rint(array)
        return np.ascontiguousarray(np.clip(rounded, limits.min, limits.max, out=rounded).astype(dtype))
    exact = np.rint(array.astype(np.float64))
    result = np.clip(exact, limits.min, np.nextafter(limits.max, 0.0)).astype(dtype)
    result[exact >= float(limits.max)] = limits.max
    return np.ascontiguousarray(result)


def quantised_mm(field: Field, component: int, part: slice | None = None) -> Tensor:
    """One component (0 = x) of the displacements of the slab ``part`` in mm, float32 (*S), as all files hold it.

    Rounded to a power of two of a mm that is at most 2⁻¹² of the smallest spacing: no interpolation sees the
    difference, and files become a third smaller.
    """
    row = field.grid.index_to_point()[component]
    vectors = field.vox[:, part or slice(None)].detach()
    total = vectors[0].to(torch.float32) * float(row[0])
    for axis in range(1, field.grid.dimension):
        total.add_(vectors[axis].to(torch.float32), alpha=float(row[axis]))
    step = 2.0 ** math.floor(math.log2(min(field.grid.spacing) * 2.0**-12))
    return total.div_(step).round_().mul_(step).cpu()


def piece_on(volume: Volume, grid: Grid, part: slice, channels: slice) -> Tensor:
    """Some ``channels`` of a slab of ``grid``, (C, n, …): cut out, or interpolated if the image is on another grid."""
    if grid == volume.grid:
        return volume.data[channels, part]
    rest = grid.shape[1:]
    slab = grid.part((part.start, *[0] * len(rest)), (part.stop, *rest))
    return Volume(volume.data[channels], volume.grid).on(slab).data


def sitk_image(volume: Volume, pixel_type: str = "float32", *, on: Grid | None = None) -> Any:
    """The image as a ``SimpleITK.Image`` of ``pixel_type``, rounded and clipped for integer types.

    Several channels become components. ``on``: another grid, that the image is interpolated onto slab by slab.
    """
    import SimpleITK as sitk

    grid = volume.grid if on is None else on
    channels = len(volume.data)
    if channels == 1 and grid == volume.grid:
        return with_sitk_header(sitk.GetImageFromArray(to_pixels(volume.data[0], pixel_type), isVector=False), grid)
    if pixel_type not in PIXEL_TYPES:
        raise ImageError(f"expected a voxel type of {', '.join(PIXEL_TYPES)}, got {pixel_type!r}")
    kind = pixel_type.replace("float", "Float").replace("int", "Int").replace("uInt", "UInt")
    pixel_id = getattr(sitk, f"sitk{'Vector' if channels > 1 else ''}{kind}")
    image = sitk.Image(list(grid.size_xyz), pixel_id, channels)
    whole = [slice(None)] * (grid.dimension - 1)
    for part in slabs(grid.shape, max(1, PIECE_POINTS // channels)):
        values = to_pixels(piece_on(volume, grid, part, slice(None)).movedim(0, -1), pixel_type)
        array = values if channels > 1 else values[..., 0]
        where = (*whole, part)
        image[where] = sitk.GetImageFromArray(array, isVector=channels > 1)
    return with_sitk_header(image, grid)


def sitk_field(field: Field) -> Any:
    """The displacements as a ``SimpleITK.Image`` of float32 vectors, components x, y(, z) in mm, LPS."""
    import SimpleITK as sitk

    return _sitk_vectors(field, sitk.sitkVectorFloat32, np.float32)


def sitk_transform(field: Field) -> Any:
    """The field as a ``SimpleITK.DisplacementFieldTransform``: fixed points → moving points, as ITK's resampler wants.

    Beyond the box of the field's grid points stay where they are, as ITK defines it.
    """
    import SimpleITK as sitk

    return sitk.DisplacementFieldTransform(_sitk_vectors(field, sitk.sitkVectorFloat64, np.float64))


def field_of_transform(transform: Any, grid: Grid) -> Field:
    """Any SimpleITK transform (points in mm, fixed → moving) as a Field on ``grid``.

    Raises GeometryError if the transform is of another dimension or gives values that are not finite.
    """
    import SimpleITK as sitk

    if not isinstance(transform, sitk.Transform) or transform.GetDimension() != grid.dimension:
        got = f"one in {transform.GetDimension()}-D" if isinstance(transform, sitk.Transform) else type(transform)
        raise GeometryError(f"expected a SimpleITK transform in {grid.dimension}-D, got {got}")
    direction = [v for row in grid.direction for v in row]
    image = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, grid.size_xyz, grid.origin_xyz, grid.spacing_xyz, direction
    )
    mm = torch.from_numpy(np.moveaxis(sitk.GetArrayViewFromImage(image), -1, 0).astype(np.float64))
    if not bool(torch.isfinite(mm).all()):
        raise GeometryError("expected a transform with finite displacements, got NaN or infinity: check its file")
    return Field(Field.from_mm(mm, grid).vox.float(), grid)


def field_of_displacements(transform: Any) -> Field | None:
    """The Field of a ``SimpleITK.DisplacementFieldTransform`` on its own grid; None for any other transform.

    In ITK's words points beyond its box stay where they are, which tears at its edge; a Field continues.
    """
    import SimpleITK as sitk

    if transform.GetName() != "DisplacementFieldTransform":
        return None
    image = sitk.DisplacementFieldTransform(transform).GetDisplacementField()
    grid = grid_of_header(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    mm = torch.from_numpy(np.moveaxis(sitk.GetArrayFromImage(image), -1, 0).astype(np.float64))
    if not bool(torch.isfinite(mm).all()):
        raise GeometryError("expected a transform with finite displacements, got NaN or infinity: check its file")
    return Field(Field.from_mm(mm, grid).vox.float(), grid)


def is_linear(transform: Any) -> bool:
    """Whether a SimpleITK transform is affine."""
    return bool(transform.IsLinear())


def matrix_of(transform: Any) -> Matrix:
    """The homogeneous matrix of a linear SimpleITK transform, points fixed → moving in mm."""
    n = transform.GetDimension()
    origin = np.array(transform.TransformPoint([0.0] * n))
    result = np.eye(n + 1)
    result[:n, n] = origin
    result[:n, :n] = np.array([np.array(transform.TransformPoint(list(row))) - origin for row in np.eye(n)]).T
    return result


def transform_of(matrix: Matrix) -> Any:
    """The same as a ``SimpleITK.AffineTransform``."""
    import SimpleITK as sitk

    n = len(matrix) - 1
    transform = sitk.AffineTransform(n)
    transform.SetMatrix(matrix[:n, :n].ravel().tolist())
    transform.SetTranslation(matrix[:n, n].tolist())
    return transform


def field_of_itk(obj: Any) -> Field:
    """An ``itk.Image`` of vectors (x, y(, z) in mm, fixed → moving) as a Field, on its own grid.

    ``obj`` may be an ``itk.DisplacementFieldTransform`` too. Raises ImageError for anything else, GeometryError for
    vectors of another dimension and for values that are not finite.
    """
    image = obj.GetDisplacementField() if hasattr(obj, "GetDisplacementField") else obj
    if image is None or not hasattr(image, "GetLargestPossibleRegion"):
        raise ImageError(
            "expected an itk.Image of vectors or an itk.DisplacementFieldTransform with a field as a displacement "
            f"field, got {type(obj).__name__}{' without one' if image is None and obj is not None else ''}: make one "
            "with itk.TransformToDisplacementFieldFilter"
        )
    _check_filled(image)
    grid = _itk_grid(image)
    components = int(image.GetNumberOfComponentsPerPixel())
    if components != grid.dimension:
        raise GeometryError(
            f"expected displacements of {grid.dimension} components for a field in {grid.dimension}-D, got "
            f"{components}: use itk.Image[itk.Vector[itk.F, {grid.dimension}], {grid.dimension}]"
        )
    mm = np.moveaxis(sys.modules["itk"].array_view_from_image(image), -1, 0).astype(np.float64)
    if not np.isfinite(mm).all():
        raise GeometryError("expected finite displacements in the initial field, got NaN or infinity: check its source")
    return Field(Field.from_mm(torch.from_numpy(mm), grid).vox.float(), grid)


def itk_image(volume: Volume) -> Any:
    """The image as an ``itk.Image`` of float32; needs the package ``itk``."""
    itk = import_itk()
    return with_itk_header(itk.image_from_array(to_pixels(volume.data[0], "float32")), volume.grid)


def itk_field(field: Field) -> Any:
    """The displacements as an ``itk.Image`` of ``itk.Vector[itk.F, D]``, components x, y(, z) in mm, LPS."""
    return _itk_vectors(field, "F")


def itk_transform(field: Field) -> Any:
    """The field as an ``itk.DisplacementFieldTransform[itk.D, D]``: fixed points → moving points."""
    itk = import_itk()
    transform = itk.DisplacementFieldTransform[itk.D, field.grid.dimension].New()
    transform.SetDisplacementField(_itk_vectors(field, "D"))
    return transform


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
        data = _tensor(array)
    return Volume(data.reshape(1, *grid.shape).contiguous(), grid)


def _from_sitk(image: Any) -> Volume:
    import SimpleITK as sitk

    check_scalar_image(image.GetSize(), image.GetNumberOfComponentsPerPixel(), image.GetPixelIDTypeAsString())
    for _ in image.GetSize()[3:]:
        first = (*[slice(None)] * (image.GetDimension() - 1), 0)
        image = image[first]
    grid = grid_of_header(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return Volume(_tensor(sitk.GetArrayViewFromImage(image))[None], grid)


def _from_itk(image: Any) -> Volume:
    itk = sys.modules["itk"]
    _check_filled(image)
    size = tuple(int(n) for n in image.GetLargestPossibleRegion().GetSize())
    check_scalar_image(size, image.GetNumberOfComponentsPerPixel(), type(image).__name__)
    return Volume(_tensor(itk.array_view_from_image(image))[None], _itk_grid(image))


def _check_filled(image: Any) -> None:
    """Refuse an itk image that no filter fills and that has no voxels in memory (ImageError)."""
    if image.GetSource():
        return
    allocated = not hasattr(image, "GetBufferPointer") or image.GetBufferPointer() is not None
    if not allocated or not image.GetBufferedRegion().GetNumberOfPixels():
        raise ImageError(
            f"expected an image with voxels, got an empty {type(image).__name__}: read one with itk.imread, or set its "
            "regions and allocate it, first"
        )


def _itk_grid(image: Any) -> Grid:
    """Where the voxels of an itk image lie."""
    region = image.GetLargestPossibleRegion()
    size = tuple(int(n) for n in region.GetSize())
    if len(size) not in (2, 3):
        raise ImageError(f"expected an image of 2 or 3 axes, got {len(size)}: extract one frame first")
    origin = image.TransformIndexToPhysicalPoint(region.GetIndex())  # a region need not start at index 0
    direction = sys.modules["itk"].array_from_matrix(image.GetDirection())
    return grid_of_header(size, tuple(image.GetSpacing()), tuple(origin), direction)


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
    return Volume(_tensor(array.T)[None], grid)


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    """A copy as float32 that nobody else holds."""
    if array.dtype.kind not in "biuf":
        raise ImageError(f"expected voxels that are real numbers, got {array.dtype}: convert the array first")
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


def _interleaved(field: Field, part: slice, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Displacements of a slab in mm with the components x, y(, z) last, as ITK lays them out."""
    return np.stack(
        [quantised_mm(field, component, part).numpy() for component in range(field.grid.dimension)],
        axis=-1,
        dtype=dtype,
    )


def _sitk_vectors(field: Field, pixel_id: int, dtype: npt.DTypeLike) -> Any:
    """A vector image filled slab by slab: one full-size copy of the field and no more."""
    import SimpleITK as sitk

    grid = field.grid
    image = sitk.Image(list(grid.size_xyz), pixel_id, grid.dimension)
    whole = [slice(None)] * (grid.dimension - 1)
    for part in slabs(grid.shape, PIECE_POINTS):
        where = (*whole, part)
        image[where] = sitk.GetImageFromArray(_interleaved(field, part, dtype), isVector=True)
    return with_sitk_header(image, grid)


def with_sitk_header(image: Any, grid: Grid) -> Any:
    """A SimpleITK image with the geometry of ``grid``."""
    image.SetSpacing(grid.spacing_xyz)
    image.SetOrigin(grid.origin_xyz)
    image.SetDirection([value for row in grid.direction for value in row])
    return image


def import_itk() -> Any:
    """The package ``itk``, or ImageError with what to install."""
    try:
        import itk
    except ImportError as error:
        raise ImageError("expected the package itk to be installed, it is not: pip install itk") from error
    return itk


def _itk_vectors(field: Field, kind: str) -> Any:
    itk = import_itk()
    grid = field.grid
    image = itk.Image[itk.Vector[getattr(itk, kind), grid.dimension], grid.dimension].New()
    region = itk.ImageRegion[grid.dimension]()
    region.SetSize(grid.size_xyz)
    image.SetRegions(region)
    image.Allocate()
    voxels = itk.array_view_from_image(image)
    for part in slabs(grid.shape, PIECE_POINTS):
        voxels[part] = _interleaved(field, part, voxels.dtype)
    return with_itk_header(image, grid)


def with_itk_header(image: Any, grid: Grid) -> Any:
    """An itk image with the geometry of ``grid``."""
    itk = import_itk()
    image.SetSpacing(grid.spacing_xyz)
    image.SetOrigin(grid.origin_xyz)
    image.SetDirection(itk.matrix_from_array(np.asarray(grid.direction)))
    return image
