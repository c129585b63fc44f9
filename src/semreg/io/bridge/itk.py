"""itk's images and transforms ⇄ Volume and Field. itk takes seconds to load: only who has or wants its objects does."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch

from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.core.sampling import slabs
from semreg.errors import GeometryError, ImageError
from semreg.io.bridge import common
from semreg.io.bridge.common import check_scalar_image, interleaved, to_pixels
from semreg.io.bridge.lattice import Lattice, only_straight
from semreg.io.bridge.samples import Samples


def import_itk() -> Any:
    """The package ``itk``, or ImageError with what to install."""
    try:
        import itk
    except ImportError as error:
        raise ImageError("expected the package itk to be installed, it is not: pip install itk") from error
    return itk


def itk_template(name: str) -> Any:
    """The template of itk of a name in C++, such as ``std::vector``; unlike ``itk.vector`` it loads no part of ITK.

    Templates of one name are one object, now and when the part of ITK is loaded that fills it.
    """
    from itk.support.template_class import itkTemplate

    return itkTemplate(name)


def samples_of_itk(image: Any) -> Samples:
    """What an ``itk.Image`` holds (ImageError as ``to_volume``)."""
    itk = sys.modules["itk"]
    _check_filled(image)
    size = tuple(int(n) for n in image.GetLargestPossibleRegion().GetSize())
    check_scalar_image(size, image.GetNumberOfComponentsPerPixel(), type(image).__name__)
    array = itk.array_view_from_image(image)
    return Samples(array, *_lattice(image).straight())


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


def grid_of_itk(image: Any) -> Grid:
    """The grid on which the voxels of an itk image are read."""
    return _lattice(image).straight()[0]


def _lattice(image: Any) -> Lattice:
    """Where the voxels of an itk image lie."""
    region = image.GetLargestPossibleRegion()
    size = tuple(int(n) for n in region.GetSize())
    if len(size) not in (2, 3):
        raise ImageError(f"expected an image of 2 or 3 axes, got {len(size)}: extract one frame first")
    origin = image.TransformIndexToPhysicalPoint(region.GetIndex())  # a region need not start at index 0
    direction = sys.modules["itk"].array_from_matrix(image.GetDirection())
    return Lattice.of_header(size, tuple(image.GetSpacing()), tuple(origin), direction)


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
    grid = only_straight(_lattice(image))
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


def _itk_vectors(field: Field, kind: str) -> Any:
    itk = import_itk()
    grid = field.grid
    image = itk.Image[itk.Vector[getattr(itk, kind), grid.dimension], grid.dimension].New()
    region = itk.ImageRegion[grid.dimension]()
    region.SetSize(grid.size_xyz)
    image.SetRegions(region)
    image.Allocate()
    voxels = itk.array_view_from_image(image)
    for part in slabs(grid.shape, common.PIECE_POINTS):
        voxels[part] = interleaved(field, part, voxels.dtype)
    return with_itk_header(image, grid)


def with_itk_header(image: Any, grid: Grid) -> Any:
    """An itk image with the geometry of ``grid``."""
    itk = import_itk()
    image.SetSpacing(grid.spacing_xyz)
    image.SetOrigin(grid.origin_xyz)
    image.SetDirection(itk.matrix_from_array(np.asarray(grid.direction)))
    return image
