"""Samples on a lattice of any axes, as headers have them, on a grid of orthonormal axes. Knows no package of images."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from semreg.core.fields import Volume, background
from semreg.core.geometry import ORTHONORMAL_TOLERANCE, Grid, Matrix, nearest_rotation, orthonormality_error
from semreg.core.sampling import resample
from semreg.errors import GeometryError

logger = logging.getLogger("semreg")
SHIFTED = 0.1
"""Voxels by which the nearest orthonormal axes may move a corner of an image; beyond, it is resampled."""
SMALLEST, LARGEST = 1e-9, 1e9
"""Millimetres of a step and of an origin: what is beyond is no image, and its squares overflow float32."""


@dataclass(frozen=True)
class Lattice:
    """Where the samples of an array lie: the words of a header of ITK, but for axes of any angles."""

    size_xyz: tuple[int, ...]
    spacing: Matrix
    """(D,) in mm, above 0."""
    origin: Matrix
    """(D,) in mm, LPS."""
    direction: Matrix
    """(D, D), one unit vector a column."""

    @classmethod
    def of_header(cls, size_xyz: tuple[int, ...], spacing: Any, origin: Any, direction: npt.ArrayLike) -> Lattice:
        """``direction`` row by row, nested or flat; an axis of negative spacing runs the other way.

        Columns of another length than 1 count with it. Raises GeometryError where axes are singular or not finite.
        """
        n = len(size_xyz)
        steps, start = np.asarray(spacing, dtype=np.float64), np.asarray(origin, dtype=np.float64)
        rows = np.asarray(direction, dtype=np.float64).reshape(n, n) * np.where(steps < 0, -1.0, 1.0)
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is refused
            steps, length = np.abs(steps), np.linalg.norm(rows, axis=0)
            linear, along = rows * steps, steps * length
        if not (np.isfinite(linear).all() and along.min() >= SMALLEST and along.max() <= LARGEST):
            raise _unusable(linear, start)
        if not np.abs(start).max() <= LARGEST:
            raise _unusable(linear, start)
        if np.abs(length - 1).max() > ORTHONORMAL_TOLERANCE:
            steps, rows = steps * length, rows / length
        return cls(tuple(size_xyz), steps, start, rows)

    @classmethod
    def of_matrix(cls, size_xyz: tuple[int, ...], linear: Matrix, origin: Matrix) -> Lattice:
        """``linear`` (D, D) has the step along x, y(, z) in mm (LPS) as its columns. Raises as ``of_header``."""
        with np.errstate(over="ignore", invalid="ignore"):
            spacing = np.linalg.norm(linear, axis=0)
        if not (np.isfinite(spacing).all() and spacing.min() > 0):
            raise _unusable(linear, origin)
        return cls.of_header(size_xyz, spacing, origin, linear / spacing)

    @property
    def linear(self) -> Matrix:
        """(D, D), the step along x, y(, z) in mm (LPS) as its columns."""
        return np.asarray(self.direction * self.spacing)

    def straight(self, name: str = "an image") -> tuple[Grid, Matrix | None]:
        """A grid for the samples, and the matrix (E, E) from its indices to theirs; None: they lie on it.

        Axes that are orthonormal but for rounding are replaced by the nearest rotation; sheared ones, where that would
        move a corner by more than a tenth of a voxel, are kept, and the grid covers them. Both are said in the log.
        Raises GeometryError where axes are singular.
        """
        spacing, rows = self.spacing, self.direction
        error = orthonormality_error(rows)
        if error <= ORTHONORMAL_TOLERANCE:
            return self._grid(spacing, rows), None
        rotation = nearest_rotation(rows)
        moved = self._corners() @ (self.linear - rotation * spacing).T
        shift = float(np.linalg.norm(moved, axis=1).max())
        if shift <= SHIFTED * spacing.min():
            logger.warning(
                "%s: its axes (size %s) are not orthonormal (by %.2g): the nearest rotation is used, which "
                "moves a corner by %.2g mm",
                name, self.size_xyz, error, shift,
            )  # fmt: skip
            return self._grid(spacing, rotation), None
        logger.warning(
            "%s: its axes (size %s) are sheared (not orthonormal by %.2g; the nearest rotation would move a "
            "corner by %.3g mm): resampled to an orthogonal grid",
            name, self.size_xyz, error, shift,
        )  # fmt: skip
        return self._covering(spacing, rotation)

    def _grid(self, spacing: Matrix, rows: Matrix) -> Grid:
        return Grid(self.size_xyz, tuple(spacing), tuple(self.origin), tuple(map(tuple, rows.tolist())))

    def _corners(self) -> Matrix:
        """Indices (2^D, D) of the outer samples, x first."""
        ends = np.meshgrid(*[(0.0, n - 1.0) for n in self.size_xyz], indexing="ij")
        return np.stack([end.ravel() for end in ends], 1)

    def _covering(self, spacing: Matrix, rotation: Matrix) -> tuple[Grid, Matrix]:
        """The smallest grid along ``rotation`` that holds all samples, and where its own samples lie among them."""
        n = len(self.size_xyz)
        along = (self._corners() @ self.linear.T + self.origin) @ rotation
        low, high = along.min(0), along.max(0)
        size = np.ceil((high - low) / spacing - 1e-4).astype(int) + 1
        grid = Grid(tuple(size.tolist()), tuple(spacing), tuple(rotation @ low), tuple(map(tuple, rotation.tolist())))
        inverse = np.linalg.inv(self.linear)
        matrix = np.eye(n + 1)
        points = grid.index_to_point()
        matrix[:n, :n] = (inverse @ points[:n, :n])[::-1]
        matrix[:n, n] = (inverse @ (points[:n, n] - self.origin))[::-1]
        return grid, matrix


def _unusable(linear: Matrix, origin: Matrix) -> GeometryError:
    return GeometryError(
        f"expected an invertible direction matrix, a spacing and an origin within {SMALLEST:g} and {LARGEST:g} mm, got "
        f"{linear.tolist()} and {origin.tolist()} (LPS): correct the header"
    )


def grid_of_header(size_xyz: tuple[int, ...], spacing: Any, origin: Any, direction: npt.ArrayLike) -> Grid:
    """The Grid of an ITK header whose samples are used as they lie: sheared axes are refused (GeometryError).

    ``direction`` row by row, nested or flat; one that is orthonormal but for rounding is repaired with a warning.
    """
    return only_straight(Lattice.of_header(size_xyz, spacing, origin, direction))


def only_straight(lattice: Lattice) -> Grid:
    """The grid of samples that cannot be resampled; GeometryError where their axes are sheared."""
    grid, index = lattice.straight()
    if index is not None:
        raise GeometryError(
            f"expected orthonormal axes, got sheared ones, {lattice.linear.tolist()} (columns in mm): resample it to "
            "orthonormal axes first"
        )
    return grid


def straightened(array: npt.NDArray[Any], grid: Grid, matrix: Matrix | None, *, nearest: bool) -> npt.NDArray[Any]:
    """Samples (*S) on ``grid`` as ``Lattice.straight`` gives them, of the same type.

    ``nearest``: the nearest sample, 0 outside, which keeps labels; else linear, and what lies outside an image.
    """
    if matrix is None:
        return array
    if nearest:
        return _nearest(array, grid, matrix)
    single = array.dtype.itemsize <= 2 or array.dtype == np.float32
    data = torch.from_numpy(np.array(array, dtype=np.float32 if single else np.float64, order="C"))[None]
    outside = background(Volume(data, Grid.of_shape(tuple(data.shape[1:]))))
    values = resample(data, matrix, grid.shape, outside=outside)[0].numpy()
    if array.dtype.kind == "f":
        return np.asarray(values, dtype=array.dtype)
    limits = np.iinfo(array.dtype)
    clipped = np.clip(np.rint(values), limits.min, np.nextafter(float(limits.max) + 1, 0))
    return np.asarray(clipped, dtype=array.dtype)


def _nearest(array: npt.NDArray[Any], grid: Grid, matrix: Matrix) -> npt.NDArray[Any]:
    result = np.zeros(grid.shape, array.dtype)
    rest = np.indices((1, *grid.shape[1:])).reshape(grid.dimension, -1)
    for plane in range(grid.shape[0]):
        index = rest.copy()
        index[0] += plane
        at = np.rint(matrix[:-1, :-1] @ index + matrix[:-1, -1:]).astype(np.int64)
        inside = ((at >= 0) & (at < np.asarray(array.shape)[:, None])).all(0)
        result[plane].reshape(-1)[inside] = array[tuple(at[:, inside])]
    return result
