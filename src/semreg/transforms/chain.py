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

from semreg.core.fields import Field
from semreg.core.geometry import Grid
from semreg.core.sampling import base_index, slabs, transform_index
from semreg.errors import GeometryError
from semreg.io.bridge import displacements_of, field_of_transform, matrix_of, sitk_transform, transform_of
from semreg.transforms.base import Matrices, Points, chained
from semreg.transforms.domain import Coverage, Domain, Mask, Outside, domain_of, grid_of_field, holds_box
from semreg.transforms.linear import Linear
from semreg.transforms.pointwise import PIECE, Distances, differences, invert_field, invert_points

NEAR_MM = 1e-3
"""Half the width of the differences that stand for derivatives: within a voxel of a field, where it is linear."""


@dataclass(frozen=True)
class Followed:
    """Where points came to lie."""

    points: Points
    """(D, N) in mm."""
    residual: Distances
    """The largest residual of an inversion on the way in mm, (N,): 0 if there was none, NaN without an inverse."""
    beyond: Mask
    """Which of them came to where a part of the way says nothing, (N,)."""


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
        return field_of_transform(self.transform, grid_of_field(self.transform))

    def inverse(self) -> Link:
        """The inverse: exact if linear (GeometryError if singular), else to be found at each point."""
        if not self.is_linear:
            return Link(self.transform, not self.inverted)
        matrix = matrix_of(self.transform)
        if abs(np.linalg.det(matrix)) < 1e-12:
            raise GeometryError("expected a transform that can be inverted, got a singular matrix: check its file")
        return Link(transform_of(np.asarray(np.linalg.inv(matrix), dtype=np.float64)))

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return int(self.transform.GetDimension())

    def map(self, points: Points) -> Points:
        """The points (D, N) in mm after this link; beyond the box of a field they stay, as in ITK."""
        return self.follow(points, Outside.IDENTITY).points

    def jacobian(self, points: Points) -> Matrices:
        """The derivative of ``map`` at points (D, N), (N, D, D): of what is not linear by differences."""
        if self.is_linear:
            return Linear(matrix_of(self.transform)).jacobian(points)
        if self.inverted:  # what is solved for is too rough for differences
            return np.asarray(np.linalg.inv(Link(self.transform).jacobian(self.map(points))))
        return differences(self.map, points, NEAR_MM)

    @property
    def domain(self) -> Domain | None:
        """Where the transform, not its inverse, says something; None: everywhere."""
        return domain_of(self.transform)

    def follow(self, points: Points, outside: Outside, *, smooth: bool = False) -> Followed:
        """The points after this link.

        Args:
            points: (D, N) in mm, LPS.
            outside: what is done with points beyond the box of the field; for an inverse, with points that come from
                there.
            smooth: continue the inverse of a field beyond its box, whatever ``outside`` is.

        Returns:
            The points (D, N) in mm, their residuals in mm, and which were beyond.
        """
        if self.inverted and self.is_field:
            continued = smooth or outside is Outside.CONTINUE
            found, residual = invert_field(self.field(), points, continued=continued)
            stayed = self.domain.beyond(found) if self.domain is not None else np.zeros(points.shape[1], dtype=bool)
            return Followed(found, residual, np.isnan(residual) | stayed)
        if self.inverted:
            found, residual = invert_points(lambda x: map_points(self.transform, x), points, scale_mm=1.0)
            return Followed(found, residual, np.zeros(points.shape[1], dtype=bool))
        domain, none = self.domain, np.zeros(points.shape[1])
        beyond = np.zeros(points.shape[1], dtype=bool) if domain is None else domain.beyond(points)
        if domain is None or outside is not Outside.CONTINUE or not beyond.any():
            return Followed(map_points(self.transform, points), none, beyond)
        start = np.where(beyond, domain.nearest(points), points)
        return Followed(map_points(self.transform, start) + (points - start), none, beyond)


@dataclass(frozen=True)
class Chain:
    """Transforms of one dimension; the first link is applied to the points first."""

    links: tuple[Link, ...]

    def __post_init__(self) -> None:
        """Refuse what is empty or mixed (GeometryError)."""
        dimensions = sorted({link.dimension for link in self.links})
        if len(dimensions) != 1 or dimensions[0] not in (2, 3):
            got = " and ".join(f"{n}-D" for n in dimensions) or "none"
            raise GeometryError(f"expected transforms that are all in 2-D or all in 3-D, got {got}: give one kind")

    @classmethod
    def of(cls, *transforms: Any) -> Chain:
        """A chain of transforms; composites are taken apart.

        Args:
            *transforms: SimpleITK transforms or Fields, the first applied first.

        Returns:
            The chain.

        Raises:
            GeometryError: for anything else, none, and transforms of different dimensions.
        """
        return cls(tuple(Link(part) for each in transforms for part in _parts(each)))

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return self.links[0].dimension

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
        return grid_of_field(first.transform) if first.is_field and not first.inverted else None

    def then(self, other: Chain) -> Chain:
        """First this chain, then ``other``."""
        return Chain(self.links + other.links)

    def inverse(self) -> Chain:
        """The way back, moving → fixed: the inverses in the opposite order (GeometryError if a matrix is singular)."""
        return Chain(tuple(link.inverse() for link in reversed(self.links)))

    def map(self, points: Points) -> Points:
        """The points (D, N) in mm after all links; beyond the box of a field they stay, as in ITK.

        Raises GeometryError as ``follow``, which says how good an inverse on the way is.
        """
        return self.follow(points).points

    def jacobian(self, points: Points) -> Matrices:
        """The derivative of ``map`` at points (D, N) in mm: (N, D, D), without unit."""
        return chained(self.links, points)

    def follow(self, points: Points, outside: Outside = Outside.IDENTITY, *, smooth: bool = False) -> Followed:
        """The points after all links, and which of them came to where one of these says nothing.

        Points inside of an inverted field that nothing of it leads to always follow its border vectors.

        Args:
            points: (D, N) in mm, LPS.
            outside: whether points beyond the box of a field stay, as in ITK, or continue with the vectors at its
                faces.
            smooth: continue the inverse of a field beyond its box, whatever ``outside`` is.

        Returns:
            The points (D, N) in mm, their residuals in mm, and which were beyond.

        Raises:
            GeometryError: for points of another dimension, and for points or a transform that are not finite.
        """
        points = np.asarray(points, dtype=np.float64)
        if points.ndim != 2 or len(points) != self.dimension:
            raise GeometryError(
                f"expected points of shape ({self.dimension}, N) for a transform in {self.dimension}-D, "
                f"got {points.shape}: give the coordinates that the transform has"
            )
        if not np.isfinite(points).all():
            raise GeometryError("expected points with finite coordinates, got NaN or infinity: remove those")
        residual, beyond = np.zeros(points.shape[1]), np.zeros(points.shape[1], dtype=bool)
        for link in self.links:
            step = link.follow(points, outside, smooth=smooth)
            if not np.isfinite(step.points).all():
                raise GeometryError("expected a transform with finite values, got NaN or infinity: check its file")
            points, residual = step.points, np.maximum(residual, step.residual)  # NaN stays
            beyond |= step.beyond
        return Followed(points, residual, beyond)

    def coverage(self, grid: Grid) -> Coverage:
        """Which voxels of ``grid`` the chain takes to where one of its parts says nothing."""
        if self._covers(grid):
            return Coverage(None)
        beyond = torch.zeros(grid.shape, dtype=torch.bool)
        for part in slabs(grid.shape, PIECE):
            found = self.follow(voxel_points(grid, part)).beyond
            beyond[part] = torch.from_numpy(found).reshape(beyond[part].shape)
        return Coverage(beyond if bool(beyond.any()) else None, continued=not self.is_forward)

    def _covers(self, grid: Grid) -> bool:
        """Whether it is clear without a look at each voxel that all are known: corners in the box of a first field."""
        limited = [number for number, link in enumerate(self.links) if link.domain is not None]
        if not limited or grid.dimension != self.dimension:
            return True
        domain = self.links[0].domain
        return limited == [0] and not self.links[0].inverted and domain is not None and holds_box(domain, grid)

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

    def field_on(self, grid: Grid, outside: Outside = Outside.IDENTITY) -> Field:
        """The whole as one field: exact at its voxel centres, linear between them.

        Args:
            grid: where the field lies.
            outside: the field beyond the boxes of the chain's fields; a field that is inverted always continues there.

        Returns:
            The field on ``grid``, float32.

        Raises:
            GeometryError: for a grid of another dimension, and for a transform that is not finite.
        """
        return self.field_and_residual(grid, outside)[0]

    def field_and_residual(self, grid: Grid, outside: Outside = Outside.IDENTITY) -> tuple[Field, Distances]:
        """``field_on``, and the residual of the inversion.

        Args:
            grid: where the field lies.
            outside: as for ``field_on``.

        Returns:
            The field on ``grid``, float32, and the residual at each voxel centre in mm, flat, as of ``map``.

        Raises:
            GeometryError: for a grid of another dimension, and for a transform that is not finite.
        """
        if grid.dimension != self.dimension:
            raise GeometryError(
                f"expected a reference in {self.dimension}-D as the transform, got one in {grid.dimension}-D: "
                "give an image of that dimension"
            )
        if self.is_forward and (outside is not Outside.CONTINUE or self._covers(grid)):
            return field_of_transform(self.sitk(), grid), np.zeros(1)
        mm = torch.empty((grid.dimension, *grid.shape), dtype=torch.float64)
        residuals = []
        for part in slabs(grid.shape, PIECE):
            points = voxel_points(grid, part)
            moved = self.follow(points, outside, smooth=True)
            mm[:, part] = torch.from_numpy(moved.points - points).reshape(mm[:, part].shape)
            residuals.append(moved.residual)
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
    moved = displacements_of(both, size)
    displaced: Points = np.asarray(sitk.GetArrayFromImage(moved), dtype=np.float64).reshape(count, dimension)
    result: Points = (displaced + row).T
    return result


def voxel_points(grid: Grid, part: slice | None = None) -> Points:
    """The centres of all voxels (of a slab), (D, N) in mm, x y(, z), in the order of the tensor."""
    index = base_index(grid.shape, like=torch.zeros(1, dtype=torch.float64), part=part)
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
