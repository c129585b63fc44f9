"""Images and displacement fields on their grids. Knows nothing of files, ITK and features.

A field is a pull, fixed → moving: a sample of the fixed image at point p is found in the moving image at p + u(p).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from semreg.errors import GeometryError
from semreg.geometry import AxisOrder, Grid, Matrix, index_map, reorder
from semreg.sampling import (
    SLAB_POINTS,
    Mode,
    base_index,
    pool,
    resample,
    sample,
    slabs,
    transform_index,
)

PointMap: TypeAlias = Callable[[Tensor], Tensor]
"""Points (D, N) in mm, x y z → points (D, N) in mm."""


@dataclass(frozen=True)
class Volume:
    """Samples ``data`` (C, z, y, x) or (C, y, x) on their ``grid``."""

    data: Tensor
    grid: Grid

    def __post_init__(self) -> None:
        """Check that the samples fit the grid (GeometryError)."""
        if tuple(self.data.shape[1:]) != self.grid.shape:
            raise GeometryError(
                f"expected data of shape (C, {', '.join(map(str, self.grid.shape))}) for a grid of size "
                f"{self.grid.size_xyz} (x, y, z), got {tuple(self.data.shape)}"
            )

    def on(self, grid: Grid, *, mode: Mode = "linear", outside: float | None = None) -> Volume:
        """The image resampled on another grid; ``outside`` beyond its box, the border value if None."""
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

    def averaged_on(self, grid: Grid) -> Layer:
        """The layer on another grid along the same axes, weighted where voxels are excluded."""
        if self.weight is None:
            return Layer(self.features.averaged_on(grid))
        weight = self.weight.averaged_on(grid)
        values = Volume(self.features.data * self.weight.data, self.grid).averaged_on(grid).data
        return Layer(Volume(values / weight.data.clamp(min=1e-6), grid), weight)


def reorder_tensor(x: Tensor, axes: AxisOrder) -> Tensor:
    """Permute and flip the spatial axes of ``x`` (C, *S)."""
    moved = x.permute(0, *[a + 1 for a in axes.order])
    return moved.flip([a + 1 for a in axes.flips]) if axes.flips else moved


@dataclass(frozen=True)
class Field:
    """A displacement field, fixed → moving.

    ``vox`` (D, z, y, x): component d moves along tensor axis d, in voxels of ``grid``.
    """

    vox: Tensor
    grid: Grid

    def __post_init__(self) -> None:
        """Check that the vectors fit the grid (GeometryError)."""
        if tuple(self.vox.shape) != (self.grid.dimension, *self.grid.shape):
            raise GeometryError(
                f"expected vectors of shape {(self.grid.dimension, *self.grid.shape)}, got {tuple(self.vox.shape)}"
            )

    @classmethod
    def zeros(cls, grid: Grid, *, device: torch.device | str = "cpu") -> Field:
        """The identity."""
        return cls(torch.zeros((grid.dimension, *grid.shape), device=device), grid)

    @classmethod
    def from_mm(cls, mm: Tensor, grid: Grid) -> Field:
        """From displacements in mm, (D, *S), components in the order x, y(, z)."""
        return cls(_apply_linear(grid.point_to_index(), mm), grid)

    def mm(self) -> Tensor:
        """Displacements in mm, (D, *S), components in the order x, y(, z)."""
        return _apply_linear(self.grid.index_to_point(), self.vox)

    def index(self, part: slice | None = None) -> Tensor:
        """Where each sample (of the slab ``part``) is found: own index plus displacement, (D, *S), own voxels."""
        part = part or slice(0, self.grid.shape[0])
        index = base_index((part.stop - part.start, *self.grid.shape[1:]), like=self.vox)
        index[0] += part.start
        return index.add_(self.vox[:, part])

    def on(self, grid: Grid) -> Field:
        """The same field on another grid: resampled, vectors rescaled; border vectors hold beyond the box."""
        if grid == self.grid:
            return self
        values = resample(self.vox, index_map(grid, self.grid), grid.shape)
        return Field(_apply_linear(index_map(self.grid, grid), values), grid)

    def then(self, other: Field) -> Field:
        """First this field, then ``other``: u(p) = this(p) + other(p + this(p)), on this field's grid."""
        to_other = index_map(self.grid, other.grid)
        back = index_map(other.grid, self.grid)
        result = torch.empty_like(self.vox)
        for part in slabs(self.grid.shape, SLAB_POINTS):
            more = sample(other.vox, transform_index(to_other, self.index(part)))
            result[:, part] = self.vox[:, part] + _apply_linear(back, more)
        return Field(result, self.grid)

    def inverse(self, grid: Grid | None = None, *, iterations: int = 30) -> Field:
        """The inverse on ``grid`` (its own by default) by fixed-point iteration v(p) = −u(p + v(p)).

        Where a step leads away, because the strain is large or there is no inverse, it is halved from the best vector
        so far: the result is never worse than −u.
        """
        grid = grid or self.grid
        forth, back = index_map(grid, self.grid), index_map(self.grid, grid)
        best = -self.on(grid).vox
        residual = self._residual(best, grid, forth, back)
        error = residual.square().sum(0, keepdim=True)
        length = torch.ones_like(error)
        for _ in range(iterations):
            trial = best - length * residual
            new = self._residual(trial, grid, forth, back)
            square = new.square().sum(0, keepdim=True)
            better = square <= error
            best, residual = torch.where(better, trial, best), torch.where(better, new, residual)
            error, length = torch.where(better, square, error), torch.where(better, length, length / 2)
        return Field(best, grid)

    def _residual(self, vox: Tensor, grid: Grid, forth: Matrix, back: Matrix) -> Tensor:
        """v(p) + u(p + v(p)) in voxels of ``grid``: 0 where v is the inverse of this field."""
        read = sample(self.vox, transform_index(forth, Field(vox, grid).index()))
        return vox + _apply_linear(back, read)

    def point_map(self) -> PointMap:
        """The field as a map of points (D, N) in mm; beyond the box points stay, as in ITK."""

        def move(points: Tensor) -> Tensor:
            index = transform_index(self.grid.point_to_index(), points.to(torch.float64))
            shift = sample(self.vox.to(torch.float64), index, outside=0.0)
            return points + _apply_linear(self.grid.index_to_point(), shift).to(points.dtype)

        return move

    def reordered(self, axes: AxisOrder) -> Field:
        """The same field with its axes permuted and flipped; physical vectors do not change."""
        signs = [-1.0 if axis in axes.flips else 1.0 for axis in range(self.grid.dimension)]
        vox = reorder_tensor(self.vox, axes)[list(axes.order)]
        vox = vox * torch.tensor(signs, dtype=vox.dtype, device=vox.device).reshape(-1, *[1] * self.grid.dimension)
        return Field(vox, reorder(self.grid, axes))


def restore_order(field: Field, axes: AxisOrder, grid: Grid) -> Field:
    """Undo ``field.reordered(axes)``: back to the axes of ``grid``."""
    vox = field.vox
    for axis in axes.flips:
        vox = vox.flip(axis + 1)
        vox[axis] = -vox[axis]
    inverse = axes.inverse_order
    return Field(vox[list(inverse)].permute(0, *[a + 1 for a in inverse]).contiguous(), grid)


def warp(moving: Volume, field: Field, *, mode: Mode = "linear", outside: float) -> Volume:
    """The moving image on the field's grid, read at p + u(p); ``outside`` is the background value."""
    to_moving = index_map(field.grid, moving.grid)
    result = moving.data.new_empty((moving.data.shape[0], *field.grid.shape))
    for part in slabs(field.grid.shape, SLAB_POINTS):
        index = transform_index(to_moving, field.index(part))
        result[:, part] = sample(moving.data, index, mode=mode, outside=outside)
    return Volume(result, field.grid)


def jacobian_determinant(field: Field) -> Tensor:
    """Determinant of ∂(p + u)/∂p at every sample, (*S), without unit; negative where space is folded.

    Central differences, with border values continued, as ``itk::DisplacementFieldJacobianDeterminantFilter``.
    An axis of one voxel counts as unchanging.
    """
    result = torch.empty_like(field.vox[0])
    count = field.grid.shape[0]
    for part in slabs(field.grid.shape, SLAB_POINTS // 8):
        padded = slice(max(part.start - 1, 0), min(part.stop + 1, count))
        values = _determinant(field.vox[:, padded])
        result[part] = values[part.start - padded.start :][: part.stop - part.start]
    return result


def _determinant(vox: Tensor) -> Tensor:
    n = vox.shape[0]
    rows = [[_central_difference(vox[i], axis) for axis in range(n)] for i in range(n)]
    for i in range(n):
        rows[i][i] += 1
    if n == 2:
        return rows[0][0] * rows[1][1] - rows[0][1] * rows[1][0]
    (a, b, c), (d, e, f), (g, h, i_) = rows
    return a * (e * i_ - f * h) - b * (d * i_ - f * g) + c * (d * h - e * g)


def _central_difference(x: Tensor, axis: int) -> Tensor:
    n = x.shape[axis]
    if n == 1:
        return torch.zeros_like(x)
    result = torch.empty_like(x)
    torch.sub(x.narrow(axis, 2, n - 2), x.narrow(axis, 0, n - 2), out=result.narrow(axis, 1, n - 2))
    torch.sub(x.narrow(axis, 1, 1), x.narrow(axis, 0, 1), out=result.narrow(axis, 0, 1))
    torch.sub(x.narrow(axis, n - 1, 1), x.narrow(axis, n - 2, 1), out=result.narrow(axis, n - 1, 1))
    return result.mul_(0.5)


def _apply_linear(matrix: np.ndarray[tuple[int, ...], np.dtype[np.float64]], vectors: Tensor) -> Tensor:
    n = vectors.shape[0]
    linear = torch.as_tensor(matrix[:n, :n], dtype=vectors.dtype, device=vectors.device)
    return (linear @ vectors.reshape(n, -1)).reshape(vectors.shape)
