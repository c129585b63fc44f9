"""Transforms one after the other, forward or inverse, as one map of points. Knows nothing of files.

A map leads from points of the fixed image to the moving image, in mm, LPS: what brings the moving image onto the
fixed one when an image is resampled. The first of several is applied to the points first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from semreg.errors import GeometryError
from semreg.fields import Field
from semreg.geometry import Grid
from semreg.itk_bridge import field_of_transform, grid_of_header, matrix_of, sitk_transform, transform_of
from semreg.sampling import base_index, slabs, transform_index
from semreg.transforms.pointwise import PIECE, Distances, Points, invert_field, invert_points


@dataclass(frozen=True)
class Link:
    """One SimpleITK transform of a chain, no composite; ``inverted`` where its inverse is meant."""

    transform: Any
    inverted: bool = False

    @property
    def is_linear(self) -> bool:
        """Whether it is affine: then it is never ``inverted``, as its inverse is an affine transform."""
        return bool(self.transform.IsLinear())

    @property
    def is_field(self) -> bool:
        """Whether it is a displacement field."""
        return _is_field(self.transform)

    def field(self) -> Field:
        """The displacement field on its own grid, float32; only where ``is_field``."""
        return field_of_transform(self.transform, _grid_of_field(self.transform))

    def inverse(self) -> Link:
        """The inverse: exact if linear (GeometryError if singular), else to be found at each point."""
        if not self.is_linear:
            return Link(self.transform, not self.inverted)
        matrix = matrix_of(self.transform)
        if abs(np.linalg.det(matrix)) < 1e-12:
            raise GeometryError("expected a transform that can be inverted, got a singular matrix: check its file")
        return Link(transform_of(np.asarray(np.linalg.inv(matrix), dtype=np.float64)))

    def map(self, points: Points, *, continued: bool = False) -> tuple[Points, Distances]:
        """The points (D, N) after this link, and the residual of the inversion in mm, (N,): 0 if there was none.

        ``continued``: the inverse of a field goes on smoothly beyond what the field reaches.
        """
        if not self.inverted:
            return map_points(self.transform, points), np.zeros(points.shape[1])
        if self.is_field:
            return invert_field(self.field(), points, continued=continued)
        return invert_points(lambda x: map_points(self.transform, x), points, scale_mm=1.0)


@dataclass(frozen=True)
class Chain:
    """Transforms of one dimension; the first link is applied to the points first."""

    links: tuple[Link, ...]

    def __post_init__(self) -> None:
        """Refuse what is empty or mixed (GeometryError)."""
        dimensions = sorted({link.transform.GetDimension() for link in self.links})
        if len(dimensions) != 1 or dimensions[0] not in (2, 3):
            got = " and ".join(f"{n}-D" for n in dimensions) or "none"
            raise GeometryError(f"expected transforms that are all in 2-D or all in 3-D, got {got}: give one kind")

    @classmethod
    def of(cls, *transforms: Any) -> Chain:
        """From SimpleITK transforms or Fields, the first applied first; composites are taken apart."""
        return cls(tuple(Link(part) for each in transforms for part in _parts(each)))

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return int(self.links[0].transform.GetDimension())

    @property
    def is_linear(self) -> bool:
        """Whether the whole is affine."""
        return all(link.is_linear for link in self.links)

    @property
    def is_forward(self) -> bool:
        """Whether no link has to be inverted numerically."""
        return not any(link.inverted for link in self.links)

    @property
    def grid(self) -> Grid | None:
        """The grid of the fixed image as far as the chain knows it: that of a field that is its first link."""
        first = self.links[0]
        return _grid_of_field(first.transform) if first.is_field and not first.inverted else None

    def then(self, other: Chain) -> Chain:
        """First this chain, then ``other``."""
        return Chain(self.links + other.links)

    def inverse(self) -> Chain:
        """The way back, moving → fixed: the inverses in the opposite order."""
        return Chain(tuple(link.inverse() for link in reversed(self.links)))

    def map(self, points: Points, *, continued: bool = False) -> tuple[Points, Distances]:
        """The points (D, N) in mm after all links, and the largest residual of an inversion on the way in mm, (N,).

        The residual is 0 where nothing was inverted and NaN where a field has no inverse: there points outside the
        field stay, as in ITK, unless ``continued``, and those inside follow the border vectors. Raises GeometryError
        for points of another dimension or that are not finite.
        """
        points = np.asarray(points, dtype=np.float64)
        if points.ndim != 2 or len(points) != self.dimension:
            raise GeometryError(
                f"expected points of shape ({self.dimension}, N) for a transform in {self.dimension}-D, "
                f"got {points.shape}: give the coordinates that the transform has"
            )
        if not np.isfinite(points).all():
            raise GeometryError("expected points with finite coordinates, got NaN or infinity: remove those")
        residual = np.zeros(points.shape[1])
        for link in self.links:
            points, more = link.map(points, continued=continued)
            if not np.isfinite(points).all():
                raise GeometryError("expected a transform with finite values, got NaN or infinity: check its file")
            residual = np.maximum(residual, more)  # NaN stays
        return points, residual

    def affine(self) -> Any:
        """The whole as one ``SimpleITK.AffineTransform``; GeometryError if it is not linear."""
        if not self.is_linear:
            raise GeometryError("expected a linear transform, got one that deforms: write it as a field or .h5")
        matrix = np.eye(self.dimension + 1)
        for link in self.links:
            matrix = matrix_of(link.transform) @ matrix
        return transform_of(matrix)

    def sitk(self) -> Any:
        """The whole as a SimpleITK transform, a composite of several links (GeometryError if one is ``inverted``)."""
        import SimpleITK as sitk

        if not self.is_forward:
            raise GeometryError("expected transforms that need no inversion, got an inverse: put it on a grid first")
        parts = [link.transform for link in self.links]
        return parts[0] if len(parts) == 1 else sitk.CompositeTransform(parts[::-1])  # ITK applies the last one first

    def field_on(self, grid: Grid) -> Field:
        """The whole as one field on ``grid``, float32: exact at its voxel centres, linear between them."""
        return self.field_and_residual(grid)[0]

    def field_and_residual(self, grid: Grid) -> tuple[Field, Distances]:
        """``field_on`` and the residual of the inversion at each voxel centre in mm, (*S) flat; see ``map``."""
        if grid.dimension != self.dimension:
            raise GeometryError(
                f"expected a reference in {self.dimension}-D as the transform, got one in {grid.dimension}-D: "
                "give an image of that dimension"
            )
        if self.is_forward:
            return field_of_transform(self.sitk(), grid), np.zeros(1)
        mm = torch.empty((grid.dimension, *grid.shape), dtype=torch.float64)
        residuals = []
        for part in slabs(grid.shape, PIECE):
            points = voxel_points(grid, part)
            moved, residual = self.map(points, continued=True)
            mm[:, part] = torch.from_numpy(moved - points).reshape(mm[:, part].shape)
            residuals.append(residual)
        return Field(Field.from_mm(mm, grid).vox.float(), grid), np.concatenate(residuals)


def map_points(transform: Any, points: Points) -> Points:
    """Points (D, N) in mm through a SimpleITK transform, all at once."""
    import SimpleITK as sitk

    dimension, count = points.shape
    if not count:
        return points
    # SimpleITK moves single points only. A field on a row of voxels that leads from the voxel i to the point i, then
    # the transform, read at the voxels, is the same for all of them in one call.
    row = np.zeros((count, dimension))
    row[:, 0] = np.arange(count)
    size = [count] + [1] * (dimension - 1)
    lead = sitk.GetImageFromArray((points.T - row).reshape(*size[::-1], dimension), isVector=True)
    both = sitk.CompositeTransform([transform, sitk.DisplacementFieldTransform(lead)])
    moved = sitk.TransformToDisplacementField(both, sitk.sitkVectorFloat64, size)
    displaced: Points = np.asarray(sitk.GetArrayFromImage(moved), dtype=np.float64).reshape(count, dimension)
    result: Points = (displaced + row).T
    return result


def voxel_points(grid: Grid, part: slice | None = None) -> Points:
    """The centres of all voxels (of a slab), (D, N) in mm, x y(, z), in the order of the tensor."""
    part = part or slice(0, grid.shape[0])
    index = base_index((part.stop - part.start, *grid.shape[1:]), like=torch.zeros(1, dtype=torch.float64))
    index[0] += part.start
    return np.asarray(transform_index(grid.index_to_point(), index).flatten(1).numpy())


def _parts(obj: Any) -> Iterator[Any]:
    """The transforms in the order in which they are applied, composites taken apart."""
    import SimpleITK as sitk

    if isinstance(obj, Field):
        obj = sitk_transform(obj)
    if not isinstance(obj, sitk.Transform):
        raise GeometryError(f"expected SimpleITK transforms or Fields, got {type(obj).__name__}: read one first")
    obj = obj.Downcast()
    if not isinstance(obj, sitk.CompositeTransform):
        yield obj
    elif obj.IsLinear():  # ITK's MatrixOffsetTransformBase is a composite of itself, without end
        yield transform_of(matrix_of(obj))
    else:
        yield from _parts_of_composite(obj)


def _parts_of_composite(obj: Any) -> Iterator[Any]:
    for number in reversed(range(obj.GetNumberOfTransforms())):
        yield from _parts(obj.GetNthTransform(number))


def _is_field(transform: Any) -> bool:
    import SimpleITK as sitk

    return isinstance(transform, sitk.DisplacementFieldTransform)


def _grid_of_field(transform: Any) -> Grid:
    image = transform.GetDisplacementField()
    return grid_of_header(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
