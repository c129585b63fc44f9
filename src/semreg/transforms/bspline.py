"""Displacements as cubic B-splines on a lattice of control points. Knows nothing of images.

Along each axis the spline is a small matrix, so values, derivatives and fits on any aligned grid are a few products.
Each sample sees four control points: on a fine lattice the matrices are bands and are multiplied block by block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from semreg.core.fields import Field
from semreg.core.geometry import Grid, Matrix, index_map
from semreg.core.kernels import spline_adjoint, spline_product
from semreg.core.sampling import base_index, transform_index
from semreg.transforms.base import Matrices, Parameters, Points

STIFFNESS = 1e-3
"""Weight of the squared second differences of the coefficients where a field is fitted, beside its samples: what hardly
any sample sees, at the edges, continues its neighbours instead of running away. A linear field is still met exactly."""

BENDING = 0.3
"""What is taken off a match for a spline whose slopes differ by 1 from one control interval to the next."""
FOLDED = 0.1
"""Voxels with a smaller Jacobian determinant do not say which way the spline should change."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SplineLattice:
    """Control points over the box of ``grid``, ``step`` voxels apart on each tensor axis (any positive number)."""

    grid: Grid
    step: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Control points per tensor axis; an axis of one voxel has one, and no derivative."""
        pairs = zip(self.grid.shape, self.step, strict=True)
        return tuple(1 if n == 1 else int(np.ceil(n / s - 1e-9)) + 3 for n, s in pairs)

    @property
    def control_grid(self) -> Grid:
        """Where the control points lie, as ITK's B-spline wants to know it; for axes of several voxels."""
        pairs = list(zip(self.grid.shape, self.step, self.shape, strict=True))
        first = [-step * ((count - 1) - (n - 1) / step) / 2 for n, step, count in pairs]
        return self.grid.lattice(first, self.step, self.shape)

    def bases(self, positions: list[Floats], derivative: int | None = None) -> list[Float[Tensor, "samples controls"]]:
        """One (samples, control points) matrix per axis for ``positions`` in voxels of ``grid``; float32.

        Along the axis ``derivative`` it gives the derivative per voxel. Beyond the grid the border value holds.
        """
        matrices = []
        for axis, (where, count, step) in enumerate(zip(positions, self.shape, self.step, strict=True)):
            n = self.grid.shape[axis]
            if n == 1:
                value = np.zeros if derivative == axis else np.ones
                matrices.append(torch.as_tensor(value((len(where), 1)), dtype=torch.float32))
                continue
            offset = ((count - 1) - (n - 1) / step) / 2
            at = np.clip(where, -0.5, n - 0.5) / step + offset
            difference = at[:, None] - np.arange(count)[None]
            matrix = _cubic_slope(difference) / step if derivative == axis else _cubic(difference)
            matrices.append(torch.as_tensor(matrix, dtype=torch.float32))
        return matrices

    def positions(self, target: Grid) -> list[Floats]:
        """Where the samples of an aligned ``target`` lie, in voxels of ``grid``, per axis."""
        matrix = index_map(target, self.grid)
        return [matrix[axis, axis] * np.arange(n) + matrix[axis, -1] for axis, n in enumerate(target.shape)]

    def fit(self, field: Field) -> Float[Tensor, "d *controls"]:
        """Coefficients (D, *shape) of the spline nearest to ``field`` in the least squares sense."""
        solvers = []
        for basis in self.bases(self.positions(self.grid)):
            matrix = basis.double()
            bend = torch.eye(matrix.shape[1], dtype=torch.float64).diff(n=2, dim=0)
            normal = matrix.T @ matrix + STIFFNESS * bend.T @ bend
            solvers.append(torch.linalg.solve(normal, matrix.T).float())
        device = field.vox.device
        return spline_product(field.on(self.grid).vox, [s.to(device) for s in solvers])

    def field(self, coefficients: Float[Tensor, "d *controls"], target: Grid) -> Field:
        """The displacement on an aligned grid."""
        bases = [b.to(coefficients.device) for b in self.bases(self.positions(target))]
        return Field(spline_product(coefficients * self.voxels_of(target, coefficients.device), bases), target)

    def voxels_of(self, target: Grid, device: torch.device) -> Tensor:
        """How many voxels of an aligned ``target`` one voxel of ``grid`` is along each axis, (D, 1, ...)."""
        ratio = [a / b for a, b in zip(self.grid.spacing, target.spacing, strict=True)]
        return torch.tensor(ratio, device=device).reshape(-1, *[1] * target.dimension)


@dataclass(frozen=True)
class LatticePart(SplineLattice):
    """Some control points of a lattice: all that a box of samples sees. It counts in voxels of the whole one's grid."""

    seen: tuple[slice, ...]
    """Of the control points of the whole, per tensor axis."""

    @classmethod
    def of(cls, whole: SplineLattice, box: Grid) -> LatticePart:
        """What the samples of ``box``, a grid along the same axes, see."""
        seen = []
        for basis in whole.bases(whole.positions(box)):
            columns = basis.any(0).nonzero()[:, 0]
            seen.append(slice(int(columns[0]), int(columns[-1]) + 1))
        return cls(whole.grid, whole.step, tuple(seen))

    @property
    def shape(self) -> tuple[int, ...]:
        """Control points per tensor axis."""
        return tuple(s.stop - s.start for s in self.seen)

    def bases(self, positions: list[Floats], derivative: int | None = None) -> list[Float[Tensor, "samples controls"]]:
        """Those columns of the matrices of the whole."""
        whole = SplineLattice(self.grid, self.step).bases(positions, derivative)
        return [basis[:, seen].contiguous() for basis, seen in zip(whole, self.seen, strict=True)]

    def cut(self, coefficients: Float[Tensor, "d *controls"]) -> Float[Tensor, "d *seen"]:
        """Those of the coefficients (D, *controls) of the whole."""
        return coefficients[(slice(None), *self.seen)].contiguous()


@dataclass(frozen=True)
class Spline:
    """A transform: p → A (p + u(p)), a displacement u as a spline in the fixed image's space, then a linear map."""

    lattice: SplineLattice
    coefficients: Float[Tensor, "d *controls"]
    """(D, *lattice.shape), float32, in voxels of ``lattice.grid``."""
    matrix: Matrix
    """A, homogeneous, (E, E), which no step changes."""

    @classmethod
    def of(cls, lattice: SplineLattice, coefficients: Float[Tensor, "d *controls"]) -> Spline:
        """The displacement of ``coefficients`` alone: nothing follows it."""
        return cls(lattice, coefficients, np.eye(lattice.grid.dimension + 1))

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return self.lattice.grid.dimension

    @property
    def count(self) -> int:
        """The number of coefficients."""
        return self.coefficients.numel()

    @property
    def energy(self) -> float:
        """How much it bends, weighed with ``BENDING``."""
        c = self.coefficients.double().cpu().numpy().reshape(self.dimension, -1)
        return float((c * _bent(self.lattice, c)).sum())

    def field(self, target: Grid) -> Field:
        """The displacement on an aligned grid, before the linear map."""
        return self.lattice.field(self.coefficients, target)

    def map(self, points: Points) -> Points:
        """The points (D, N) in mm after it; beyond the box the displacement at its border holds."""
        index = self._index(points)
        shift = SplinePoints(self.lattice, index, self.coefficients.device)(self.coefficients)
        return np.asarray(
            transform_index(self.matrix @ self.lattice.grid.index_to_point(), index + shift.cpu()).numpy()
        )

    def jacobian(self, points: Points) -> Matrices:
        """The derivative of ``map`` at the points (D, N): (N, D, D), without unit."""
        index, grid, n = self._index(points), self.lattice.grid, self.dimension
        slopes = []
        for axis, length in enumerate(grid.shape):
            slope = SplinePoints(self.lattice, index, self.coefficients.device, axis)(self.coefficients).cpu()
            slopes.append(slope * ((index[axis] >= -0.5) & (index[axis] <= length - 0.5)))
        change = torch.stack(slopes, -1).movedim(1, 0).double().numpy() + np.eye(n)
        return np.asarray(
            (self.matrix @ grid.index_to_point())[:n, :n] @ change @ grid.point_to_index()[:n, :n], dtype=np.float64
        )

    def index(self, grid: Grid, target: Grid, *, like: Tensor) -> Float[Tensor, "d *s"]:
        """Where the voxels of ``grid``, which has the axes of the lattice, are read in ``target``."""
        matrix = target.point_to_index() @ self.matrix @ grid.index_to_point()
        return transform_index(matrix, self.field(grid).index().to(like))

    def changed(self, step: Parameters) -> Spline:
        """The spline with ``step`` added to its coefficients."""
        added = torch.as_tensor(step, dtype=torch.float32, device=self.coefficients.device)
        return replace(self, coefficients=self.coefficients + added.reshape(self.coefficients.shape))

    def largest_move(self, step: Parameters, points: Points) -> float:  # noqa: ARG002 - a bound for all points
        """How far a step moves any point at most, in mm: no further than the control point that moves most."""
        spacing = np.array(self.lattice.grid.spacing)[:, None]
        return float(np.linalg.norm(step.reshape(self.dimension, -1) * spacing, axis=0).max())

    def equations(
        self, grid: Grid, square: Float[Tensor, "d d n"], pull: Float[Tensor, "d n"], unit: float
    ) -> tuple[Matrix, Parameters]:
        """Products of the bases along each axis, of whose sums over the voxels all entries are made.

        A change c of the displacement moves what is seen at a voxel as a displacement J⁻¹ c there would, J being the
        derivative of p + u(p).
        """
        n, lattice = self.dimension, self.lattice
        laid = SplineIndex(lattice, grid, grid, pull.device)
        jacobian = self._jacobian_on(grid, laid)
        regular = torch.linalg.det(jacobian) > FOLDED
        undone = torch.linalg.inv(torch.where(regular[:, None, None], jacobian, torch.eye(n, device=pull.device)))
        undone = undone * regular[:, None, None]
        # out of voxels of ``grid`` into those of the lattice
        way = (undone * laid.unit.T).permute(1, 2, 0)  # (D, D, N)
        square = torch.einsum("ian,ijn,jbn->abn", way, square, way)
        pull = torch.einsum("ian,in->an", way, pull)
        pairs = [(b[:, :, None] * b[:, None]).flatten(1) for b in laid.bases]
        sums = spline_adjoint(square.reshape(n * n, *grid.shape), pairs).double().cpu()
        sums = sums.reshape(n, n, *[m for count in lattice.shape for m in (count, count)])
        order = [0, *range(2, 2 + 2 * n, 2), 1, *range(3, 3 + 2 * n, 2)]
        normal = sums.permute(order).reshape(self.count, self.count).numpy()
        right = spline_adjoint(pull.reshape(n, *grid.shape), laid.bases).double().cpu().numpy().reshape(n, -1)
        bending = _bending(lattice)
        for axis, part in enumerate(np.split(normal, n)):
            part[:, axis * bending.shape[1] : (axis + 1) * bending.shape[1]] += (
                unit * bending * lattice.grid.spacing[axis] ** 2
            )
        own = self.coefficients.double().cpu().numpy().reshape(n, -1)
        return normal, (right + unit * _bent(lattice, own)).ravel()

    def _index(self, points: Points) -> Tensor:
        return transform_index(self.lattice.grid.point_to_index(), torch.as_tensor(points, dtype=torch.float64))

    def _jacobian_on(self, grid: Grid, laid: SplineIndex) -> Tensor:
        """The derivative of p + u(p) at all voxels of a grid, in its voxels, (N, D, D)."""
        n, lattice = self.dimension, self.lattice
        columns = []
        for axis in range(n):
            positions = lattice.positions(grid)
            bases = [b.to(laid.unit.device) for b in lattice.bases(positions, axis)]
            bases[axis][(positions[axis] < -0.5) | (positions[axis] > lattice.grid.shape[axis] - 0.5)] = 0
            slope = spline_product(self.coefficients.to(laid.unit.device), bases).flatten(1)
            columns.append(slope * laid.unit / laid.unit[axis])
        return torch.stack(columns, -1).movedim(1, 0) + torch.eye(n, device=laid.unit.device)


def _bending(lattice: SplineLattice) -> Floats:
    """``BENDING`` times the mean squared change of slope between control intervals, as a form (M, M), in mm per axis.

    Displacements that are linear along each axis do not bend.
    """
    result = np.zeros((math.prod(lattice.shape),) * 2)
    for axis, (count, step) in enumerate(zip(lattice.shape, lattice.step, strict=True)):
        form: Floats = np.ones((1, 1))
        for other, length in enumerate(lattice.shape):
            bend = np.diff(np.eye(count), n=2, axis=0) / (step * lattice.grid.spacing[axis])
            form = np.asarray(np.kron(form, bend.T @ bend if other == axis else np.eye(length)), dtype=np.float64)
        result += form
    return np.asarray(BENDING / len(result) * result)


def _bent(lattice: SplineLattice, coefficients: Floats) -> Floats:
    """Half the derivative of the energy in coefficients (D, M), in voxels."""
    squares = np.array(lattice.grid.spacing)[:, None] ** 2
    return np.asarray(coefficients @ _bending(lattice) * squares)


class SplineIndex:
    """Where the samples of ``grid`` are read in a moving image on ``target`` under the displacement of a spline."""

    def __init__(self, lattice: SplineLattice, grid: Grid, target: Grid, device: torch.device) -> None:
        """Lay out the matrices; all three grids share their axes."""
        self.bases = [b.to(device) for b in lattice.bases(lattice.positions(grid))]
        # displacements come in voxels of the lattice's grid
        self.unit = lattice.voxels_of(target, device).reshape(-1, 1)
        self._scale = lattice.voxels_of(target, device)
        self.voxels = lattice.voxels_of(grid, device)
        base = base_index(grid.shape, like=torch.empty(0, device=device))
        self.base = transform_index(index_map(grid, target), base).flatten(1)

    def __call__(self, coefficients: Float[Tensor, "d *controls"]) -> Float[Tensor, "d p"]:
        """The index (D, P)."""
        return spline_product(coefficients * self._scale, self.bases).flatten(1).add_(self.base)

    def adjoint(self, pull: Float[Tensor, "d p"]) -> Float[Tensor, "d *controls"]:
        """The gradient in the coefficients of what has the gradient ``pull`` (D, P) in the index."""
        shape = [len(basis) for basis in self.bases]
        return spline_adjoint(pull.reshape(len(pull), *shape), self.bases) * self._scale


class SplinePoints:
    """The displacement of a spline at single points, in voxels of its grid, and the way back to its coefficients."""

    def __init__(
        self, lattice: SplineLattice, index: Float[Tensor, "d n"], device: torch.device, derivative: int | None = None
    ) -> None:
        """Find the control points (4 an axis) that each point of ``index`` (D, N), in voxels, sees.

        Along the axis ``derivative`` it is the derivative of the displacement, per voxel.
        """
        where = list(index.double().cpu().numpy())
        bases, changes = lattice.bases(where), lattice.bases(where, derivative)
        self.shape = tuple(basis.shape[1] for basis in bases)
        count = index.shape[1]
        self.rows = torch.zeros((count, 1), dtype=torch.long)
        self.weights = torch.ones((count, 1))
        for basis, change in zip(bases, changes, strict=True):
            seen = basis.topk(min(4, basis.shape[1]), dim=1).indices
            weights = change.gather(1, seen)
            self.rows = (self.rows[:, :, None] * basis.shape[1] + seen[:, None]).flatten(1)
            self.weights = (self.weights[:, :, None] * weights[:, None]).flatten(1)
        self.rows, self.weights = self.rows.to(device), self.weights.to(device)

    def __call__(self, coefficients: Float[Tensor, "d *controls"]) -> Float[Tensor, "d n"]:
        """The displacements (D, N) of ``coefficients`` (D, *shape)."""
        return (coefficients.flatten(1)[:, self.rows] * self.weights).sum(-1)

    def adjoint(self, pull: Float[Tensor, "d n"]) -> Float[Tensor, "d *controls"]:
        """The gradient (D, *shape) of what has the gradient ``pull`` (D, N) in the displacements."""
        result = pull.new_zeros((len(pull), math.prod(self.shape)))
        spread = (pull[:, :, None] * self.weights).flatten(1)
        return result.index_add_(1, self.rows.flatten(), spread).reshape(len(pull), *self.shape)


def _cubic(t: Floats) -> Floats:
    d = np.abs(t)
    return np.where(d < 1, 2 / 3 - d**2 + d**3 / 2, np.where(d < 2, (2 - d) ** 3 / 6, 0.0))


def _cubic_slope(t: Floats) -> Floats:
    d = np.abs(t)
    return np.sign(t) * np.where(d < 1, -2 * d + 1.5 * d**2, np.where(d < 2, -((2 - d) ** 2) / 2, 0.0))
