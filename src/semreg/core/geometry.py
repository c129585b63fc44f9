"""Where the samples of an image lie in space: one type, one change of index. Knows nothing of ITK and of torch.

Conventions (``docs/conventions.md``): an *index* is ``(z, y, x)``, fractional, voxel centres at integers; a *point*
is ``(x, y, z)`` in mm, LPS. In 2-D: ``(y, x)`` and ``(x, y)``. Matrices are homogeneous, float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from semreg.errors import GeometryError

Matrix: TypeAlias = npt.NDArray[np.float64]

ORTHONORMAL_TOLERANCE = 1e-4
"""Largest |DᵀD − 1| that a header may have; rounding of stored headers is below it."""

UNCOVERED = 0.125
"""Share of a voxel on each side of a box that may stay uncovered, where that keeps the lattice of an image whose header
is turned or stretched by less than that."""
SAME_PLACE = 0.01
"""Share of a voxel by which the samples of two grids may lie apart that are one."""
ROUNDING = 0.01
"""Share of a voxel by which a box may be larger than a whole number of voxels, as headers in float32 are."""


@dataclass(frozen=True)
class Grid:
    """A regular grid of samples in 2-D or 3-D, as an ITK image header describes it.

    Args:
        size_xyz: voxels along x, y(, z).
        spacing_xyz: distance of neighbouring samples in mm.
        origin_xyz: centre of the first voxel, in mm, LPS.
        direction: one row per physical axis and one orthonormal column per image axis, in the order x, y(, z).

    Raises:
        GeometryError: for values that do not describe a grid.
    """

    size_xyz: tuple[int, ...]
    spacing_xyz: tuple[float, ...]
    origin_xyz: tuple[float, ...]
    direction: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        """Bring all values to plain tuples and check them (GeometryError)."""
        set_field = object.__setattr__
        set_field(self, "size_xyz", tuple(int(n) for n in self.size_xyz))
        set_field(self, "spacing_xyz", tuple(float(s) for s in self.spacing_xyz))
        set_field(self, "origin_xyz", tuple(float(o) for o in self.origin_xyz))
        rows = np.asarray(self.direction, dtype=np.float64)
        dimension = len(self.size_xyz)
        if dimension not in (2, 3):
            raise GeometryError(f"expected a grid of 2 or 3 axes, got size {self.size_xyz}")
        if rows.size != dimension**2 or len(self.spacing_xyz) != dimension or len(self.origin_xyz) != dimension:
            raise GeometryError(
                f"expected spacing, origin and direction of {dimension} axes as the size {self.size_xyz} has, "
                f"got {len(self.spacing_xyz)}, {len(self.origin_xyz)} and {rows.shape}"
            )
        rows = rows.reshape(dimension, dimension)
        set_field(self, "direction", tuple(tuple(float(v) for v in row) for row in rows))
        if min(self.size_xyz) < 1:
            raise GeometryError(f"expected at least one voxel per axis, got size {self.size_xyz}")
        if not (np.isfinite(self.spacing_xyz).all() and min(self.spacing_xyz) > 0):
            raise GeometryError(f"expected a positive spacing in mm, got {self.spacing_xyz}: correct the header")
        if not (np.isfinite(self.origin_xyz).all() and np.isfinite(rows).all()):
            raise GeometryError(f"expected a finite origin and direction, got {self.origin_xyz} and {rows.tolist()}")
        if orthonormality_error(rows) > ORTHONORMAL_TOLERANCE:
            raise GeometryError(
                f"expected a direction with orthonormal columns, got {rows.tolist()}: "
                "repair it with semreg.core.geometry.nearest_rotation"
            )

    @classmethod
    def of_shape(cls, shape: tuple[int, ...], spacing_xyz: tuple[float, ...] | None = None) -> Grid:
        """A grid with its first voxel at the origin and its axes along x, y(, z).

        Args:
            shape: the tensor's shape, (z, y, x) or (y, x).
            spacing_xyz: in mm; None: 1 mm.

        Returns:
            The grid.
        """
        dimension = len(shape)
        return cls(tuple(shape[::-1]), spacing_xyz or (1.0,) * dimension, (0.0,) * dimension, _rows(np.eye(dimension)))

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return len(self.size_xyz)

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape, (z, y, x)."""
        return self.size_xyz[::-1]

    @property
    def spacing(self) -> tuple[float, ...]:
        """Spacing in mm in the order of the tensor axes, (z, y, x)."""
        return self.spacing_xyz[::-1]

    @property
    def extent_mm(self) -> tuple[float, ...]:
        """Edge lengths of the box of all voxels in mm, in the order of the tensor axes."""
        return tuple(n * s for n, s in zip(self.shape, self.spacing, strict=True))

    @property
    def sentence(self) -> str:
        """Size and spacing in words."""
        size = " × ".join(str(n) for n in self.size_xyz)
        return f"{size} voxels of {' × '.join(f'{s:.3g}' for s in self.spacing_xyz)} mm"

    @property
    def voxels(self) -> int:
        """Number of samples."""
        return int(np.prod(self.size_xyz))

    def index_to_point(self) -> Matrix:
        """Homogeneous (E, E) matrix from an index (z, y, x) to a point (x, y, z) in mm; includes the swap of axes."""
        n = self.dimension
        matrix = np.eye(n + 1)
        matrix[:n, :n] = (np.asarray(self.direction) * np.asarray(self.spacing_xyz))[:, ::-1]
        matrix[:n, n] = self.origin_xyz
        return matrix

    def point_to_index(self) -> Matrix:
        """Homogeneous (E, E) matrix from a point (x, y, z) in mm to an index (z, y, x)."""
        n = self.dimension
        linear = (np.asarray(self.direction) / np.asarray(self.spacing_xyz)).T[::-1]
        matrix = np.eye(n + 1)
        matrix[:n, :n] = linear
        matrix[:n, n] = -linear @ np.asarray(self.origin_xyz)
        return matrix

    def pooled(self, factor: int | tuple[int, ...]) -> Grid:
        """The grid of the block centres after pooling by ``factor`` voxels (one number, or one per tensor axis).

        The origin moves by (k−1)/2 voxels; the last, partial block of an axis is a sample too. An axis shorter than
        its factor is one block: its sample is the centre of the voxels there are.
        """
        factors = [min(k, n) for k, n in zip(per_axis(factor, self.dimension), self.shape, strict=True)]
        start = np.append([(k - 1) / 2 for k in factors], 1.0)
        return Grid(
            tuple(-(-n // k) for n, k in zip(self.shape, factors, strict=True))[::-1],
            tuple(s * k for s, k in zip(self.spacing, factors, strict=True))[::-1],
            tuple((self.index_to_point() @ start)[:-1]),
            self.direction,
        )

    def part(self, start: Sequence[int], stop: Sequence[int]) -> Grid:
        """A box of samples of this grid's lattice.

        Args:
            start: index of the first sample, in tensor order.
            stop: index after the last sample, in tensor order.

        Returns:
            The grid of these samples.
        """
        size = [b - a for a, b in zip(start, stop, strict=True)]
        return self.lattice(start, [1.0] * len(size), size)

    def lattice(self, start: Sequence[float], step: Sequence[float], shape: Sequence[int]) -> Grid:
        """The grid whose sample i lies at the index ``start + i * step`` of this grid.

        Args:
            start: index of the first sample, in tensor order, fractional.
            step: distance of the samples in voxels of this grid, in tensor order.
            shape: number of samples, in tensor order.

        Returns:
            The grid, with the direction of this one.
        """
        origin = (self.index_to_point() @ np.append(np.asarray(start, dtype=np.float64), 1.0))[:-1]
        spacing = [a * b for a, b in zip(self.spacing, step, strict=True)]
        return Grid(tuple(shape)[::-1], tuple(spacing)[::-1], tuple(origin), self.direction)

    def corners_xyz(self) -> Matrix:
        """Corners of the box of all voxels (half a voxel beyond the outer centres), (2^D, D), points in mm."""
        ends = itertools.product(*[(-0.5, n - 0.5) for n in self.shape])
        index = np.array([[*end, 1.0] for end in ends]).T
        return np.asarray((self.index_to_point() @ index)[:-1].T)

    def box(self) -> str:
        """The box in words, for messages: its bounds along x, y(, z) in mm (LPS)."""
        low, high = self.corners_xyz().min(0), self.corners_xyz().max(0)
        return " × ".join(f"[{a:.1f}, {b:.1f}]" for a, b in zip(low, high, strict=True)) + " mm"


def per_axis(value: int | tuple[int, ...], dimension: int) -> tuple[int, ...]:
    """One number per axis from one number for all, or from a tuple of the right length."""
    values = (value,) * dimension if isinstance(value, int) else tuple(value)
    if len(values) != dimension or min(values) < 1:
        raise GeometryError(f"expected one positive integer or {dimension} of them, got {value}")
    return values


def index_map(source: Grid, target: Grid) -> Matrix:
    """Homogeneous (E, E) matrix from an index of ``source`` to the index of the same point in ``target``."""
    return target.point_to_index() @ source.index_to_point()


def orthonormality_error(direction: npt.ArrayLike) -> float:
    """Largest entry of |DᵀD − 1|: 0 for a rotation or reflection."""
    rows = np.asarray(direction, dtype=np.float64)
    return float(np.abs(rows.T @ rows - np.eye(len(rows))).max())


def nearest_rotation(direction: npt.ArrayLike) -> Matrix:
    """The orthonormal matrix nearest to ``direction`` (polar decomposition); GeometryError if it is singular."""
    rows = np.asarray(direction, dtype=np.float64)
    refusal = GeometryError(f"expected an invertible direction matrix, got {rows.tolist()}: correct the header")
    if not np.isfinite(rows).all():
        raise refusal
    u, singular, vt = np.linalg.svd(rows)
    if singular.min() <= 1e-3 * singular.max():
        raise refusal
    return np.asarray(u @ vt)


@dataclass(frozen=True)
class AxisOrder:
    """A permutation and flips of tensor axes: ``array.transpose(order)`` and then a flip of the axes in ``flips``."""

    order: tuple[int, ...]
    flips: tuple[int, ...]

    @property
    def inverse_order(self) -> tuple[int, ...]:
        """The permutation that undoes ``order``."""
        return tuple(int(i) for i in np.argsort(self.order))

    @property
    def inverse(self) -> AxisOrder:
        """The order that undoes this one."""
        return AxisOrder(self.inverse_order, tuple(sorted(self.order[axis] for axis in self.flips)))


ANATOMY = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
"""Letter of a direction → axis x, y or z of LPS, and whether it is the direction in which that axis grows."""


def canonical_order(grid: Grid) -> AxisOrder:
    """The order of axes that brings an image nearest to LPS: tensor axes along z, y, x, all ascending.

    Whatever is computed in this order does not depend on how the array was stored.
    """
    return oriented_order(grid, "SPL"[-grid.dimension :])


def oriented_order(grid: Grid, axes: str) -> AxisOrder:
    """The order of axes whose tensor axes grow nearest to the directions ``axes``, first tensor axis first (``LIA``).

    Letters: Left, Right, Posterior, Anterior, Superior, Inferior. In 2-D only those of x (L, R) and y (P, A).
    """
    columns = np.asarray(grid.direction)
    n = grid.dimension
    if len(axes) != n or sorted(ANATOMY.get(letter, (-1, 0))[0] for letter in axes) != list(range(n)):
        example = "SPL" if n == 3 else "PL"
        raise GeometryError(f"expected {n} directions such as {example}, one for each axis, got {axes!r}")
    wanted = [ANATOMY[letter] for letter in axes]  # per tensor axis

    def along(choice: tuple[int, ...], axis: int) -> float:
        return float(columns[wanted[axis][0], choice[axis]]) * wanted[axis][1]

    def alignment(choice: tuple[int, ...]) -> float:
        return sum(abs(along(choice, axis)) for axis in reversed(range(n)))

    # choice[tensor axis] = image axis in the order x, y, z; of equal ones the first in the order of storage
    choices = [choice[::-1] for choice in itertools.permutations(range(n))]
    choice = max(choices, key=alignment)
    order = tuple(n - 1 - image_axis for image_axis in choice)
    return AxisOrder(order, tuple(axis for axis in range(n) if along(choice, axis) < 0))


def reorder(grid: Grid, axes: AxisOrder) -> Grid:
    """The grid of an array after its axes were permuted and flipped."""
    n = grid.dimension
    matrix = grid.index_to_point()
    start = np.zeros(n + 1)
    start[n] = 1.0
    for axis in axes.flips:
        start[axes.order[axis]] = grid.shape[axes.order[axis]] - 1
    columns = np.asarray(grid.direction)[:, ::-1][:, list(axes.order)]
    columns = columns * [-1.0 if axis in axes.flips else 1.0 for axis in range(n)]
    return Grid(
        tuple(grid.shape[axis] for axis in axes.order)[::-1],
        tuple(grid.spacing[axis] for axis in axes.order)[::-1],
        tuple((matrix @ start)[:n]),
        _rows(columns[:, ::-1]),
    )


def covering_grid(frame: Grid, covered: Grid, spacing_mm: tuple[float, ...]) -> Grid:
    """A grid with the axes of ``frame`` and ``spacing_mm`` (tensor order) that covers the box of ``covered``.

    Its box is centred on the box it covers, so nothing depends on which corner was counted from. Where axes and
    spacings agree but for ``UNCOVERED``, it is the covered grid's own lattice: one sample more would put all of them
    between its samples.
    """
    axes = np.asarray(frame.direction)[:, ::-1]  # columns in tensor order
    along = covered.corners_xyz() @ axes
    low, high = along.min(0), along.max(0)
    nearest = np.abs(axes.T @ np.asarray(covered.direction)[:, ::-1]).argmax(1)
    samples, straight = np.array(covered.shape)[nearest], np.array(covered.extent_mm)[nearest] / spacing_mm
    needed = (high - low) / spacing_mm
    needed = np.where(needed - straight <= 2 * UNCOVERED, straight, needed)
    needed = np.where(np.abs(needed - samples) <= 2 * UNCOVERED, samples, needed)
    counts = [max(1, int(np.ceil(count - ROUNDING))) for count in needed]
    first = (low + high) / 2 - (np.array(counts) - 1) / 2 * np.asarray(spacing_mm)
    return Grid(tuple(counts)[::-1], tuple(spacing_mm)[::-1], tuple(axes @ first), frame.direction)


def same_lattice(a: Grid, b: Grid) -> bool:
    """Whether the samples of both lie on each other, within ``SAME_PLACE`` of a voxel: headers round differently."""
    if a.shape != b.shape:
        return False
    ends = itertools.product(*[(0, n - 1) for n in a.shape])
    corners = np.array([[*end, 1.0] for end in ends]).T
    return float(np.abs((index_map(a, b) - np.eye(a.dimension + 1)) @ corners).max()) <= SAME_PLACE


def boxes_overlap(a: Grid, b: Grid) -> bool:
    """Whether the boxes of two grids share volume (separating axis test on their face normals and edge products)."""
    corners_a, corners_b = a.corners_xyz(), b.corners_xyz()
    axes_a, axes_b = np.asarray(a.direction).T, np.asarray(b.direction).T
    candidates = [*axes_a, *axes_b]
    if a.dimension == 3:
        candidates += [np.cross(u, v) for u in axes_a for v in axes_b]
    for axis in candidates:
        if np.linalg.norm(axis) < 1e-9:
            continue
        along_a, along_b = corners_a @ axis, corners_b @ axis
        if along_a.max() <= along_b.min() or along_b.max() <= along_a.min():
            return False
    return True


def _rows(matrix: npt.ArrayLike) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(v) for v in row) for row in np.asarray(matrix))
