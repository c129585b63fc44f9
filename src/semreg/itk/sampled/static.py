"""Features of both images, extracted once and interpolated at points: the mode ``static``. Knows no transform.

After a renewal the moving features are those of the image warped by some map T, on the fixed image's grid: what belongs
to a moving point y is then found at T⁻¹(y).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from semreg.core.fields import Field, Layer, Volume
from semreg.core.geometry import Grid, Matrix, index_map
from semreg.core.kernels import read
from semreg.core.sampling import SLAB_POINTS, base_index, inside, slabs, smooth, transform_index
from semreg.core.scattered import Reading, Table
from semreg.errors import GeometryError
from semreg.itk.sampled.distances import Points
from semreg.registration.dense.terms import Term
from semreg.registration.matching import Images, Pairing

CHUNK = 1 << 15
"""Points that are handled at once: few enough that their intermediate results stay in the processor's cache."""
FILL = 4
"""Passes that continue features into what does not count: what an interpolation at the border can reach, and more."""
RIGID = 1e-3
"""A map that differs from an affine one by less than this many voxels is taken as affine."""
INVERSE_VOXELS = 1 << 18
"""Nodes of the inverse of a map, at most."""
INVERSE_ITERATIONS = 20
FLATTEST = 1e-3
"""The least factor by which a map may shrink the image along some direction and still be inverted."""


class StaticFeatures:
    """The layers of both images, laid out for reading at points in mm."""

    chunk = CHUNK

    def __init__(self, images: Images, pairings: Sequence[Pairing]) -> None:
        """Extract the features of ``images``, whose frame covers both."""
        self._images = images
        terms = images.terms(pairings)
        self.terms: tuple[Term, ...] = terms
        self.names = [f"{c.pairing.name}, layer {number}" for c in images.compared for number in c.counted]
        """What each term is called."""
        self._fixed = [_table(term.fixed) for term in terms]
        self._grids = [term.fixed.grid for term in terms]
        views = iter([Layer(Volume(table.data, grid)) for table, grid in zip(self._fixed, self._grids, strict=True)])
        for compared in images.compared:  # what is laid out need not be held twice
            for number in compared.counted:
                compared.fixed[number] = Layer(next(views).features, compared.fixed[number].weight)
        self._set_moving(terms)
        self._undo = Undo(images.grid, images.grid.point_to_index(), None)

    def _set_moving(self, terms: Sequence[Term]) -> None:
        self._moving = [_table(term.moving) for term in terms]
        self._moving_grids = [term.moving.grid for term in terms]
        device = self._moving[0].rows.device
        self.terms = tuple(
            Term(_view(near, a), _view(far, b), term.distance, term.share, term.scale)
            for near, a, far, b, term in zip(
                self._fixed, self._grids, self._moving, self._moving_grids, self.terms, strict=True
            )
        )
        self.device = device

    def place(self, points: Tensor) -> list[Tensor]:
        """The fixed features at ``points`` (D, N), mm: (N, C) of each term."""
        result = []
        for table, grid in zip(self._fixed, self._grids, strict=True):
            index = transform_index(grid.point_to_index(), points)
            result.append(read(table, index))
        return result

    def read(self, points: Tensor, *, graph: bool = True) -> StaticReading:  # noqa: ARG002 - the derivative is a formula
        """The moving features at ``points`` (D, P), mm."""
        return StaticReading(self._moving, self._moving_grids, self._undo, points)

    def renew(self, moving_point_of: Callable[[Points], Points]) -> None:
        """Extract the moving features again, from the image warped by a map of points (N, D), mm, fixed → moving.

        Raises GeometryError for a map that is not finite, has no inverse or leads nowhere into the moving image.
        """
        grid, device = self._images.grid, self.device
        moved = _mapped(moving_point_of, grid).to(device)
        on_moving = transform_index(self._images.image.grid.point_to_index(), moved)
        if not bool(inside(on_moving, self._images.image.grid.shape).any()):
            raise GeometryError(
                "expected a map that leads into the moving image, got one that leads past it: no sample points overlap"
            )
        shift = (moved - _points_of(grid, device)).reshape(-1, *grid.shape)
        undo = undo_of(moved, grid)
        spacing = min(min(term.moving.grid.spacing) for term in self.terms)
        terms = self._images.renewed(Field.from_mm(shift.float(), grid), spacing)
        self._undo = undo
        self._set_moving(terms)


@dataclass(frozen=True)
class Undo:
    """The way from a moving point back to where its features lie.

    ``matrix`` (E, E) leads from a point in mm to an index of ``grid``; there the vector of ``table`` (in voxels of
    ``nodes``, a pooled ``grid``) is added, if there is one.
    """

    grid: Grid
    matrix: Matrix
    table: Table | None

    def at(self, points: Tensor) -> tuple[Tensor, Reading | None]:
        """The index of ``grid`` (D, P) that belongs to ``points`` (D, P), and how it was read."""
        index = transform_index(self.matrix, points)
        if self.table is None:
            return index, None
        reading = self.table.at(index)
        return index + reading.values().T, reading

    def pull(self, gradient: Tensor, reading: Reading | None) -> Tensor:
        """The derivative in the points (D, P) of what has the ``gradient`` (D, P) in the index."""
        if reading is not None:
            gradient = gradient + reading.pull(gradient.T)
        return _transposed(self.matrix, gradient)


class StaticReading:
    """The moving features at some points."""

    def __init__(self, tables: Sequence[Table], grids: Sequence[Grid], undo: Undo, points: Tensor) -> None:
        """``points`` (D, P), mm, float64."""
        self._undo = undo
        index, self._way = undo.at(points)
        self._maps = [index_map(undo.grid, grid) for grid in grids]
        self._readings = [
            table.at(transform_index(matrix, index)) for table, matrix in zip(tables, self._maps, strict=True)
        ]

    def value(self, term: int) -> Tensor:
        """Features of one term, (P, C)."""
        return self._readings[term].values()

    def pull(self, gradients: Sequence[Tensor]) -> Tensor:
        """The derivative in the points (D, P), mm, of what has these gradients (P, C) in the features of each term."""
        total = None
        for reading, matrix, gradient in zip(self._readings, self._maps, gradients, strict=True):
            part = _transposed(matrix, reading.pull(gradient))
            total = part if total is None else total + part
        if total is None:
            raise ValueError("expected at least one term, got none")
        return self._undo.pull(total, self._way)


def undo_of(moved: Tensor, grid: Grid) -> Undo:
    """The inverse of a map that brings the samples of ``grid`` to ``moved`` (D, V), points in mm, float64.

    The map is split into an affine one, which is inverted as such, and what is left, whose inverse is a field. So an
    affine map of any size is undone exactly, and of another one only the bending must be found by iteration.
    Raises GeometryError where the affine part has no inverse.
    """
    affine = _fitted(_points_of(grid, moved.device), moved)
    if np.linalg.svd(affine[:-1, :-1], compute_uv=False).min() < FLATTEST:
        raise GeometryError("expected a map that has an inverse, got one that flattens the image: check the transform")
    back = grid.point_to_index() @ np.linalg.inv(affine)
    own = base_index(grid.shape, like=moved.new_empty(0)).flatten(1)
    left = transform_index(back, moved) - own  # voxels of the grid
    if float(left.abs().max()) < RIGID:
        return Undo(grid, back, None)
    factor = int(np.ceil((grid.voxels / INVERSE_VOXELS) ** (1 / grid.dimension) - 1e-6))
    nodes = grid.pooled(max(1, factor))
    bending = Field(left.reshape(-1, *grid.shape), grid)
    inverse = bending.on(nodes).inverse(iterations=INVERSE_ITERATIONS)
    # everything in voxels of the nodes, so that the vectors can be added to the index
    return Undo(nodes, index_map(grid, nodes) @ back, Table(inverse.vox))


def _fitted(points: Tensor, moved: Tensor) -> Matrix:
    """The affine map (E, E) nearest to ``points`` → ``moved``, both (D, V); 1 along an axis without extent."""
    near, far = points.cpu().numpy(), moved.cpu().numpy()
    n, centre = len(near), near.mean(1, keepdims=True)
    change = far - near
    mean = change.mean(1, keepdims=True)
    linear, *_ = np.linalg.lstsq((near - centre).T, (change - mean).T, rcond=1e-9)
    matrix = np.eye(n + 1)
    matrix[:n, :n] += linear.T
    matrix[:n, n:] = mean - linear.T @ centre
    return matrix


def _mapped(moving_point_of: Callable[[Points], Points], grid: Grid) -> Tensor:
    """Where the map brings the samples of ``grid``: (D, V), mm, float64."""
    parts = []
    for part in slabs(grid.shape, SLAB_POINTS):
        points = _points_of(grid.part([part.start, *[0] * (grid.dimension - 1)], [part.stop, *grid.shape[1:]]))
        moved = np.asarray(moving_point_of(np.ascontiguousarray(points.T.numpy())), dtype=np.float64)
        if moved.shape != (points.shape[1], grid.dimension):
            raise GeometryError(
                f"expected {points.shape[1]} points of {grid.dimension} from the map, got {moved.shape}"
            )
        if not np.isfinite(moved).all():
            raise GeometryError("expected finite points from the map, got NaN or infinity: check the transform")
        parts.append(torch.from_numpy(moved.T))
    return torch.cat(parts, 1)


def _points_of(grid: Grid, device: torch.device | str = "cpu") -> Tensor:
    """The samples of ``grid``, (D, V), mm, float64."""
    index = base_index(grid.shape, like=torch.empty(0, dtype=torch.float64, device=device))
    return transform_index(grid.index_to_point(), index).flatten(1)


def _table(layer: Layer) -> Table:
    """The features; where voxels do not count they continue those around, so that the border value holds there."""
    data = layer.features.data
    if layer.weight is not None and bool((layer.weight.data <= 0).any()):
        data = continued(data, layer.weight.data)
    return Table(data)


def continued(features: Tensor, weight: Tensor) -> Tensor:
    """``features`` (C, *S) where ``weight`` (1, *S) is 0 replaced by means of those around, a few voxels far."""
    result = features.clone()
    known = (weight > 0).to(features.dtype)
    for _ in range(FILL):
        share = smooth(known)
        new = (known == 0) & (share > 0)
        for channel in result:
            mean = smooth((channel * known[0])[None]) / share.clamp(min=1e-6)
            channel.copy_(torch.where(new, mean, channel)[0])
        known = (share > 0).to(features.dtype)
    return result


def _view(table: Table, grid: Grid) -> Layer:
    return Layer(Volume(table.data, grid))


def _transposed(matrix: Matrix, gradient: Tensor) -> Tensor:
    """The derivative in what ``matrix`` (E, E) was applied to, (D, P)."""
    n = len(gradient)
    linear = torch.as_tensor(matrix[:n, :n], dtype=gradient.dtype, device=gradient.device)
    return linear.T @ gradient
