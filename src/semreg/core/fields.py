"""Images and displacement fields on their grids. Knows nothing of files, ITK and features.

A field is a pull, fixed → moving: a sample of the fixed image at point p is found in the moving image at p + u(p).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float64, Shaped
from torch import Tensor

from semreg.core import kernels
from semreg.core.geometry import AxisOrder, Grid, Matrix, index_map, reorder
from semreg.core.inversion import at_face, displacement, undo
from semreg.core.sampling import (
    SLAB_POINTS,
    Mode,
    base_index,
    inside,
    pool,
    resample,
    sample,
    slabs,
    transform_index,
)
from semreg.core.scattered import Table
from semreg.core.shapes import Values, Vectors
from semreg.errors import GeometryError
from semreg.runtime.offers import OFFERS

PointMap: TypeAlias = Callable[[Tensor], Tensor]
"""Points (D, N) in mm, x y z → points (D, N) in mm."""


@dataclass(frozen=True)
class Volume:
    """Samples of an image on a grid.

    Args:
        data: (C, z, y, x) or (C, y, x).
        grid: where the samples lie.

    Raises:
        GeometryError: for samples that do not have the shape of the grid.
    """

    data: Shaped[Tensor, "c *s"]
    grid: Grid

    def __post_init__(self) -> None:
        """Check that the samples fit the grid (GeometryError)."""
        if tuple(self.data.shape[1:]) != self.grid.shape:
            raise GeometryError(
                f"expected data of shape (C, {', '.join(map(str, self.grid.shape))}) for a grid of size "
                f"{self.grid.size_xyz} (x, y, z), got {tuple(self.data.shape)}"
            )

    def on(self, grid: Grid, *, mode: Mode = "linear", outside: float | None = None) -> Volume:
        """The image resampled on another grid.

        Args:
            grid: where the new samples lie, at any place and in any direction.
            mode: ``linear`` or ``nearest`` interpolation.
            outside: the value beyond the box of the image; None continues its border values.

        Returns:
            The image (C, *S) on ``grid``.
        """
        return Volume(resample(self.data, index_map(grid, self.grid), grid.shape, mode=mode, outside=outside), grid)

    def averaged_on(self, grid: Grid) -> Volume:
        """The image on a grid along the same axes, after block means where its voxels are at least twice as large."""
        if self.grid == grid:
            return self
        factors = tuple(max(1, int(b / a + 0.01)) for a, b in zip(self.grid.spacing, grid.spacing, strict=True))
        if max(factors) == 1:
            return self.on(grid)
        return Volume(pool(self.data, factors), self.grid.pooled(factors)).on(grid)

    def reordered(self, axes: AxisOrder) -> Volume:
        """The same image with its axes permuted and flipped; no value changes."""
        return Volume(reorder_tensor(self.data, axes), reorder(self.grid, axes))

    def numpy(self) -> npt.NDArray[np.float32]:
        """The samples (z, y, x) or (y, x); of several channels (C, *S)."""
        array: npt.NDArray[np.float32] = self.data.detach().cpu().numpy()
        return array[0] if len(array) == 1 else array

    def to_sitk(self, pixel_type: str = "float32") -> Any:
        """The image as a ``SimpleITK.Image``, rounded and clipped for integer types."""
        return OFFERS["image as sitk"](self, pixel_type)

    def to_itk(self) -> Any:
        """The image as an ``itk.Image`` of float32; needs the package ``itk``."""
        return OFFERS["image as itk"](self)

    def to_nibabel(self, pixel_type: str = "float32") -> Any:
        """The image as a ``nibabel.Nifti1Image``; needs the package ``nibabel``."""
        return OFFERS["image as nibabel"](self, pixel_type)

    def __repr__(self) -> str:
        channels = f", {len(self.data)} channels" if len(self.data) != 1 else ""
        return f"Volume({self.grid.sentence}{channels})"


@dataclass(frozen=True)
class Layer:
    """One layer of features (C, *S) and, where voxels are excluded, their ``weight`` (1, *S) in [0, 1].

    Both lie on the same grid. ``weight`` None means that every voxel counts.
    """

    features: Volume
    weight: Volume | None = None

    @property
    def grid(self) -> Grid:
        """The grid of the features."""
        return self.features.grid

    def pooled(self, factor: int | tuple[int, ...]) -> Layer:
        """Block means, weighted where voxels are excluded."""
        grid = self.grid.pooled(factor)
        if self.weight is None:
            return Layer(Volume(pool(self.features.data, factor), grid))
        weight = pool(self.weight.data, factor)
        values = pool(self.features.data * self.weight.data, factor) / weight.clamp(min=1e-6)
        return Layer(Volume(values, grid), Volume(weight, grid))

    def by_samples(self) -> Layer:
        """The same with the channels of a sample side by side in memory, which rows of samples are then views of."""
        data = self.features.data
        rows = data.flatten(1).T.contiguous()
        return Layer(Volume(rows.T.view(data.shape), self.features.grid), self.weight)

    def part(self, start: Sequence[int], stop: Sequence[int]) -> Layer:
        """A box of the samples: views, on a grid of their own.

        Args:
            start: index of the first sample, in tensor order.
            stop: index after the last sample, in tensor order.

        Returns:
            The layer of these samples.
        """
        grid, box = self.grid.part(start, stop), [slice(a, b) for a, b in zip(start, stop, strict=True)]
        weight = None if self.weight is None else Volume(self.weight.data[:, *box], grid)
        return Layer(Volume(self.features.data[:, *box], grid), weight)

    def averaged_on(self, grid: Grid) -> Layer:
        """The layer on another grid along the same axes, weighted where voxels are excluded."""
        if self.weight is None:
            return Layer(self.features.averaged_on(grid))
        weight = self.weight.averaged_on(grid)
        values = Volume(self.features.data * self.weight.data, self.grid).averaged_on(grid).data
        return Layer(Volume(values / weight.data.clamp(min=1e-6), grid), weight)


def reorder_tensor(x: Shaped[Tensor, "c *s"], axes: AxisOrder) -> Shaped[Tensor, "c *t"]:
    """Permute and flip the spatial axes of ``x`` (C, *S)."""
    moved = x.permute(0, *[a + 1 for a in axes.order])
    return moved.flip([a + 1 for a in axes.flips]) if axes.flips else moved


@dataclass(frozen=True)
class Field:
    """A displacement field, fixed → moving: the point p of the fixed image corresponds to p + u(p) in the moving image.

    Args:
        vox: displacements (D, z, y, x) or (D, y, x); component d moves along tensor axis d, in voxels of ``grid``.
        grid: where the displacements lie.

    Raises:
        GeometryError: for displacements that do not have the shape of the grid.
    """

    vox: Vectors
    grid: Grid

    def __post_init__(self) -> None:
        """Check that the vectors fit the grid (GeometryError)."""
        if tuple(self.vox.shape) != (self.grid.dimension, *self.grid.shape):
            raise GeometryError(
                f"expected vectors of shape {(self.grid.dimension, *self.grid.shape)}, got {tuple(self.vox.shape)}"
            )

    @property
    def known(self) -> Bool[Tensor, "*s"]:
        """Where the displacement is finite, (*S)."""
        first, *others = self.vox
        known = torch.isfinite(first)
        for component in others:  # one at a time: what torch makes of all of them is larger than the field
            known &= torch.isfinite(component)
        return known

    @classmethod
    def zeros(cls, grid: Grid, *, device: torch.device | str = "cpu") -> Field:
        """The identity.

        Args:
            grid: where the displacements lie.
            device: where they are stored.

        Returns:
            A field of zeros, float32.
        """
        return cls(torch.zeros((grid.dimension, *grid.shape), device=device), grid)

    @classmethod
    def from_mm(cls, mm: Vectors, grid: Grid) -> Field:
        """A field from displacements in mm.

        Args:
            mm: displacements (D, *S) in mm, components in the order x, y(, z), LPS.
            grid: where they lie.

        Returns:
            The same displacements in voxels of ``grid``.
        """
        return cls(apply_linear(grid.point_to_index(), mm), grid)

    def mm(self) -> Vectors:
        """Displacements in mm, (D, *S), components in the order x, y(, z)."""
        return apply_linear(self.grid.index_to_point(), self.vox)

    def numpy(self) -> npt.NDArray[np.float32]:
        """Displacements in mm, (*S, D), components in the order x, y(, z), LPS."""
        array: npt.NDArray[np.float32] = self.mm().detach().float().movedim(0, -1).cpu().numpy()
        return array

    def to_sitk(self) -> Any:
        """The field as a ``SimpleITK.DisplacementFieldTransform``: fixed points → moving points."""
        return OFFERS["field as sitk"](self)

    def to_itk(self) -> Any:
        """The field as an ``itk.DisplacementFieldTransform``; needs the package ``itk``."""
        return OFFERS["field as itk"](self)

    def to_nibabel(self) -> Any:
        """The displacements in mm as ITK writes them in NIfTI, vectors in RAS; needs the package ``nibabel``."""
        return OFFERS["field as nibabel"](self)

    def __repr__(self) -> str:
        return f"Field({self.grid.sentence})"

    def index(self, part: slice | None = None) -> Vectors:
        """Where each sample (of the slab ``part``) is found: own index plus displacement, (D, *S), own voxels."""
        index = base_index(self.grid.shape, like=self.vox, part=part)
        return index.add_(self.vox if part is None else self.vox[:, part])

    def on(self, grid: Grid) -> Field:
        """The same field on another grid: resampled, vectors rescaled; border vectors hold beyond the box."""
        if grid == self.grid:
            return self
        values = resample(self.vox, index_map(grid, self.grid), grid.shape)
        return Field(apply_linear(index_map(self.grid, grid), values), grid)

    def then(self, other: Field) -> Field:
        """First this field, then ``other``: u(p) = this(p) + other(p + this(p)), on this field's grid."""
        to_other = index_map(self.grid, other.grid)
        back = index_map(other.grid, self.grid)
        return Field(kernels.compose(self.vox, other.vox, to_other, back), self.grid)

    def inverse(self, grid: Grid | None = None, *, iterations: int = 30) -> Field:
        """The inverse v of this field u: v(p) + u(p + v(p)) = 0 (Chen et al., 2008, then damped Newton steps).

        Beyond the box the border vectors continue, so every point has an origin. Where the field folds, one of several
        origins is found, or the nearest to one. The result is never worse than −u. ``semreg.core.consistency.invert``
        measures how good it is.

        Args:
            grid: where the inverse lies; None: the grid of this field.
            iterations: steps per point at most, about.

        Returns:
            The inverse on ``grid``.
        """
        return self.inverse_with_error(grid, iterations=iterations)[0]

    def inverse_with_error(
        self, grid: Grid | None = None, *, iterations: int = 30, after: Matrix | None = None
    ) -> tuple[Field, Values]:
        """The inverse g of this field f, and its error.

        Args:
            grid: where the inverse lies; None: the grid of this field.
            iterations: steps per point at most, about.
            after: homogeneous (E, E) matrix on points in mm; f is then this field followed by that map.

        Returns:
            The inverse on ``grid``, and |f(g(p)) − p| in mm at each sample p, (*S), NaN where g(p) lies outside of this
            field's box.

        Raises:
            GeometryError: for a matrix that is singular or not finite.
        """
        grid = grid or self.grid
        forth, shift, to_mm = self._ways_back(grid, after)
        back, moved = index_map(self.grid, grid), displacement(self.vox)
        result = self.vox.new_empty((grid.dimension, *grid.shape))
        error = self.vox.new_empty(grid.shape)
        for part in slabs(grid.shape, SLAB_POINTS):
            index = base_index(grid.shape, like=self.vox, part=part)
            where = transform_index(forth, index).flatten(1)
            found, left = undo(moved, where, iterations)
            result[:, part] = apply_linear(back, found).reshape(index.shape)
            if shift is not None:
                result[:, part] += transform_index(shift, index)
            distance = apply_linear(to_mm, left).square().sum(0).sqrt()
            origin = where + found
            lost = at_face(origin, self.grid.shape) & (left.square().sum(0) > moved.tolerance**2)
            distance[lost | ~inside(origin, self.grid.shape)] = torch.nan
            error[part] = distance.reshape(index.shape[1:])
        return Field(result, grid), error

    def _ways_back(self, grid: Grid, after: Matrix | None) -> tuple[Matrix, Matrix | None, Matrix]:
        """Index of ``grid`` → index here after undoing ``after``, its displacement in voxels, vectors here → mm."""
        if after is None:
            return index_map(grid, self.grid), None, self.grid.index_to_point()
        n = grid.dimension
        size = np.linalg.svd(after[:n, :n], compute_uv=False) if np.isfinite(after).all() else np.zeros(n)
        if size.min() <= 1e-6 * size.max():
            raise GeometryError(f"expected an affine map that can be undone, got {after.tolist()}: check the transform")
        undone = np.linalg.inv(after) @ grid.index_to_point()
        shift = grid.point_to_index() @ undone - np.eye(n + 1)
        return self.grid.point_to_index() @ undone, shift, after @ self.grid.index_to_point()

    def point_map(self) -> PointMap:
        """The field as a map of points (D, N) in mm; beyond the box points stay, as in ITK."""

        def move(points: Tensor) -> Tensor:
            index = transform_index(self.grid.point_to_index(), points.to(torch.float64))
            shift = sample(self.vox.to(torch.float64), index, outside=0.0)
            return points + apply_linear(self.grid.index_to_point(), shift).to(points.dtype)

        return move

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return self.grid.dimension

    def map(self, points: Float64[npt.NDArray[np.float64], "d n"]) -> Float64[npt.NDArray[np.float64], "d n"]:
        """The points (D, N) in mm, float64, after the field; beyond the box they stay."""
        return np.asarray(self.point_map()(torch.from_numpy(points).to(self.vox.device)).cpu().numpy())

    def jacobian(self, points: Float64[npt.NDArray[np.float64], "d n"]) -> Float64[npt.NDArray[np.float64], "n d d"]:
        """The derivative of ``map`` at points (D, N) in mm: (N, D, D), row i of the component i, without unit.

        On a voxel centre, where it has a kink, the mean of both sides.
        """
        n = self.grid.dimension
        index = transform_index(self.grid.point_to_index(), torch.from_numpy(points).to(self.vox.device))
        reading = Table(self.vox.to(torch.float64)).at(index)
        ones = torch.eye(n, dtype=torch.float64, device=self.vox.device)
        rows = [reading.pull(one.expand(points.shape[1], n).contiguous()) for one in ones]
        slopes = (torch.stack(rows) * inside(index, self.grid.shape)).movedim(2, 0).cpu().numpy()
        to_mm, to_index = self.grid.index_to_point()[:n, :n], self.grid.point_to_index()[:n, :n]
        return np.asarray(np.eye(n) + to_mm @ slopes @ to_index)

    def inverse_point_map(self, *, iterations: int = 30) -> PointMap:
        """The map of points (D, N) in mm to their origins: it undoes ``point_map`` for points from within the box.

        The inverse is solved at each point, in about ``iterations`` steps, without a grid. Beyond the box the border
        vectors continue.
        """
        moved = displacement(self.vox.to(torch.float64))

        def undo_points(points: Tensor) -> Tensor:
            index = transform_index(self.grid.point_to_index(), points.to(torch.float64))
            found, _ = undo(moved, index, iterations)
            return points + apply_linear(self.grid.index_to_point(), found).to(points.dtype)

        return undo_points

    def reordered(self, axes: AxisOrder) -> Field:
        """The same field with its axes permuted and flipped; physical vectors do not change."""
        grid = reorder(self.grid, axes)
        if grid == self.grid:
            return self
        vox = self.vox.new_empty((grid.dimension, *grid.shape))
        for axis, own in enumerate(axes.order):
            turned = reorder_tensor(self.vox[own : own + 1], axes)[0]
            vox[axis] = -turned if axis in axes.flips else turned
        return Field(vox, grid)


def restore_order(field: Field, axes: AxisOrder, grid: Grid) -> Field:
    """Undo ``field.reordered(axes)``: back to the axes of ``grid``."""
    if grid == field.grid:
        return field
    vox = field.vox.new_empty((grid.dimension, *grid.shape))
    inverse = axes.inverse_order
    for own, axis in enumerate(inverse):
        turned = field.vox[axis].flip(axes.flips).permute(*inverse)
        vox[own] = -turned if axis in axes.flips else turned
    return Field(vox, grid)


def warp(moving: Volume, field: Field, *, mode: Mode = "linear", outside: float) -> Volume:
    """The moving image on the field's grid, read at p + u(p).

    Args:
        moving: the image (C, *T), on any grid.
        field: the displacement, fixed → moving.
        mode: ``linear`` or ``nearest`` interpolation.
        outside: the value where the moving image shows nothing.

    Returns:
        The warped image (C, *S) on the grid of ``field``.
    """
    to_moving = index_map(field.grid, moving.grid)
    result = moving.data.new_empty((moving.data.shape[0], *field.grid.shape))
    for part in slabs(field.grid.shape, SLAB_POINTS):
        index = transform_index(to_moving, field.index(part))
        result[:, part] = sample(moving.data, index, mode=mode, outside=outside)
    return Volume(result, field.grid)


def jacobian_determinant(field: Field) -> Values:
    """Determinant of ∂(p + u)/∂p at every sample, (*S), without unit; negative where space is folded.

    Central differences, with border values continued, as ``itk::DisplacementFieldJacobianDeterminantFilter``.
    An axis of one voxel counts as unchanging.
    """
    return kernels.jacobian_determinant(field.vox)


def apply_linear(matrix: Matrix, vectors: Vectors) -> Vectors:
    """The linear part of a homogeneous (E, E) matrix applied to vectors (D, *S)."""
    n = vectors.shape[0]
    linear = torch.as_tensor(matrix[:n, :n], dtype=vectors.dtype, device=vectors.device)
    return (linear @ vectors.reshape(n, -1)).reshape(vectors.shape)


def background(volume: Volume) -> float:
    """What lies outside an image: its smallest finite value, whatever it shows; 0 if there is none."""
    values = finite(volume.data)
    return float(values.min()) if values.numel() else 0.0


def finite(values: Shaped[Tensor, "..."]) -> Values:
    """The values that are finite, in a row; a view where all are: places alone would take eight times as much."""
    known = torch.isfinite(values)
    return values.flatten() if bool(known.all()) else values[known]
