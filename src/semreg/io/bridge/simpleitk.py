"""SimpleITK's images and transforms ⇄ Volume and Field. SimpleITK is imported inside the functions that need it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid, Matrix
from semreg.core.sampling import slabs
from semreg.errors import GeometryError, ImageError
from semreg.io.bridge import common
from semreg.io.bridge.common import (
    PIXEL_TYPES,
    check_scalar_image,
    interleaved,
    piece_on,
    to_pixels,
)
from semreg.io.bridge.lattice import Lattice, grid_of_header
from semreg.io.bridge.samples import Samples
from semreg.runtime.memory import is_out_of_memory


def samples_of_sitk(image: Any) -> Samples:
    """What a ``SimpleITK.Image`` holds, without axes of one sample beyond the third (ImageError as ``to_volume``)."""
    import SimpleITK as sitk

    check_scalar_image(image.GetSize(), image.GetNumberOfComponentsPerPixel(), image.GetPixelIDTypeAsString())
    for _ in image.GetSize()[3:]:
        first = (*[slice(None)] * (image.GetDimension() - 1), 0)
        image = image[first]
    lattice = Lattice.of_header(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return Samples(sitk.GetArrayViewFromImage(image), *lattice.straight())


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
    for part in slabs(grid.shape, max(1, common.PIECE_POINTS // channels)):
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


def _sitk_vectors(field: Field, pixel_id: int, dtype: npt.DTypeLike) -> Any:
    """A vector image filled slab by slab: one full-size copy of the field and no more."""
    import SimpleITK as sitk

    grid = field.grid
    image = sitk.Image(list(grid.size_xyz), pixel_id, grid.dimension)
    whole = [slice(None)] * (grid.dimension - 1)
    for part in slabs(grid.shape, common.PIECE_POINTS):
        where = (*whole, part)
        image[where] = sitk.GetImageFromArray(interleaved(field, part, dtype), isVector=True)
    return with_sitk_header(image, grid)


def with_sitk_header(image: Any, grid: Grid) -> Any:
    """A SimpleITK image with the geometry of ``grid``."""
    image.SetSpacing(grid.spacing_xyz)
    image.SetOrigin(grid.origin_xyz)
    image.SetDirection([value for row in grid.direction for value in row])
    return image


def field_of_transform(transform: Any, grid: Grid) -> Field:
    """Any SimpleITK transform (points in mm, fixed → moving) as a Field on ``grid``.

    Raises GeometryError if the transform is of another dimension or gives values that are not finite.
    """
    import SimpleITK as sitk

    if not isinstance(transform, sitk.Transform) or transform.GetDimension() != grid.dimension:
        got = f"one in {transform.GetDimension()}-D" if isinstance(transform, sitk.Transform) else type(transform)
        raise GeometryError(f"expected a SimpleITK transform in {grid.dimension}-D, got {got}")
    direction = [v for row in grid.direction for v in row]
    image = displacements_of(transform, grid.size_xyz, grid.origin_xyz, grid.spacing_xyz, direction)
    mm = torch.from_numpy(np.moveaxis(sitk.GetArrayViewFromImage(image), -1, 0).astype(np.float64))
    if not bool(torch.isfinite(mm).all()):
        raise GeometryError("expected a transform with finite displacements, got NaN or infinity: check its file")
    return Field(Field.from_mm(mm, grid).vox.float(), grid)


def displacements_of(transform: Any, size: Sequence[int], *place: Sequence[float]) -> Any:
    """The displacements of a SimpleITK transform in mm as an image of float64 vectors; ``place`` as ITK orders it.

    Raises GeometryError where the transform leads so far that ITK gives up.
    """
    import SimpleITK as sitk

    try:
        return sitk.TransformToDisplacementField(transform, sitk.sitkVectorFloat64, size, *place)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise GeometryError("expected a transform with finite values, got one without end: check its file") from error


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
    """The homogeneous (E, E) matrix of a linear SimpleITK transform, points fixed → moving in mm.

    Raises GeometryError where a number of it is not finite.
    """
    n = transform.GetDimension()
    origin = np.array(transform.TransformPoint([0.0] * n))
    result = np.eye(n + 1)
    result[:n, n] = origin
    result[:n, :n] = np.array([np.array(transform.TransformPoint(list(row))) - origin for row in np.eye(n)]).T
    if not np.isfinite(result).all():
        raise GeometryError("expected a transform with finite parameters, got NaN or infinity: check its file")
    return result


def transform_of(matrix: Matrix) -> Any:
    """The same as a ``SimpleITK.AffineTransform``."""
    import SimpleITK as sitk

    n = len(matrix) - 1
    transform = sitk.AffineTransform(n)
    transform.SetMatrix(matrix[:n, :n].ravel().tolist())
    transform.SetTranslation(matrix[:n, n].tolist())
    return transform
