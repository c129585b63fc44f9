"""Points in mm, and the inverse of one map at them, where no formula gives it. Knows nothing of files and of SimpleITK.

Points are float64 arrays (D, N) in mm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float64

from semreg.core.fields import Field
from semreg.core.inversion import displacement, undo
from semreg.core.sampling import inside, sample, transform_index
from semreg.errors import GeometryError
from semreg.transforms.base import Matrices, Points

Distances: TypeAlias = Float64[npt.NDArray[np.float64], "n"]
"""One length in mm a point, (N,)."""
Move: TypeAlias = Callable[[Points], Points]
"""A map of points, (D, N) → (D, N), that takes any number of them at once."""

PIECE = 1 << 17
"""Points inverted at once: bounds the memory."""
TOLERANCE_MM = 1e-5
"""A point that is mapped back this well is done."""
MOST_STEPS = 50
ROUNDING = 1e-14
"""Of the largest entry of the normal equations: with less damping a map that flattens space makes them singular."""
LARGEST_DAMPING = 1e3
"""With more damping the steps are too short to matter: the point is given up."""


@dataclass(frozen=True, kw_only=True)
class ErrorSummary:
    """What a record says of the errors of many points."""

    mean_mm: float
    p95_mm: float
    maximum_mm: float

    @classmethod
    def of(cls, errors: Distances) -> ErrorSummary:
        """Of errors (N,)."""
        p95 = float(np.percentile(errors, 95))
        return cls(mean_mm=float(errors.mean()), p95_mm=p95, maximum_mm=float(errors.max()))


def checked_points(points: npt.ArrayLike, name: str, dimension: int) -> Points:
    """Points (N, D) in mm as (D, N), float64; in 2-D a third coordinate that is 0 everywhere is left out.

    Raises GeometryError for another shape, for none at all and for what is not finite.
    """
    array = np.asarray(points, dtype=np.float64)
    if array.ndim == 2 and array.shape[1] == 3 and dimension == 2 and not array[:, 2].any():
        array = array[:, :2]
    if array.ndim != 2 or array.shape[1] != dimension:
        raise GeometryError(
            f"expected {name} landmarks of shape (N, {dimension}) as the transform is in {dimension}-D, "
            f"got {array.shape}: give points of the two images"
        )
    if not len(array):
        raise GeometryError(f"expected at least one {name} landmark, got none: leave the landmarks out")
    if not np.isfinite(array).all():
        raise GeometryError(f"expected {name} landmarks with finite coordinates, got NaN or infinity: remove those")
    return np.ascontiguousarray(array.T)


def invert_field(field: Field, points: Points, *, continued: bool) -> tuple[Points, Distances]:
    """The inverse of a displacement field at ``points``, and how far from them it leads back; NaN where it has none.

    A field ends at its box, where it stops at once: a point that would come from beyond has no inverse. It gets the
    one that the border vectors, continued, give it. Outside the box, where ITK's field is the identity, it stays,
    unless ``continued``: then what is sampled on a grid has no jump at the edge that interpolation would blur.
    """
    vox = field.vox.to(torch.float64)
    moved = displacement(vox)
    to_index, back = field.grid.point_to_index(), field.grid.index_to_point()
    found, residual = points.copy(), np.zeros(points.shape[1])
    for start in range(0, points.shape[1], PIECE):
        part = slice(start, start + PIECE)
        index = transform_index(to_index, torch.from_numpy(np.ascontiguousarray(points[:, part])))
        shift = undo(moved, index, MOST_STEPS)[0]
        origin = index + shift
        left = back[:-1, :-1] @ (shift + sample(vox, origin)).numpy()
        beyond = ~inside(origin, field.grid.shape).numpy()
        stays = beyond & ~inside(index, field.grid.shape).numpy() & (not continued)
        found[:, part] = np.where(stays, points[:, part], transform_index(back, origin).numpy())
        residual[part] = np.where(stays, 0.0, np.where(beyond, np.nan, _length(left)))
    return found, residual


def invert_points(move: Move, points: Points, *, scale_mm: float) -> tuple[Points, Distances]:
    """Where ``move`` maps to ``points`` from, (D, N), and how far from them it leads back in mm, (N,).

    Newton steps with damping (Levenberg 1944, Marquardt 1963) from the points themselves, each taken only where it
    leads nearer. Derivatives are differences over a thousandth of ``scale_mm``, the length over which the map changes.
    """
    found, residual = points.copy(), np.zeros(points.shape[1])
    for start in range(0, points.shape[1], PIECE):
        part = slice(start, start + PIECE)
        found[:, part], residual[part] = _newton(move, points[:, part], 1e-3 * scale_mm)
    return found, residual


def _newton(move: Move, target: Points, step_mm: float) -> tuple[Points, Distances]:
    x = target.copy()
    residual = move(x) - target
    damping = np.full(target.shape[1], 1e-6)
    for _ in range(MOST_STEPS):
        todo = np.flatnonzero((_length(residual) > TOLERANCE_MM) & (damping < LARGEST_DAMPING))
        if not todo.size:
            break
        jacobian = differences(move, x[:, todo], step_mm)
        transposed = jacobian.transpose(0, 2, 1)
        normal = transposed @ jacobian
        least = ROUNDING * np.abs(normal).max((1, 2))  # beside huge derivatives a fixed damping would be rounded away
        normal += np.maximum(damping[todo], least)[:, None, None] * np.eye(len(target))
        step = np.linalg.solve(normal, transposed @ residual[:, todo].T[..., None])[..., 0].T
        trial = x[:, todo] - step
        new = move(trial) - target[:, todo]
        better = _length(new) < _length(residual[:, todo])
        taken = todo[better]
        x[:, taken], residual[:, taken] = trial[:, better], new[:, better]
        damping[todo] = np.where(better, np.maximum(damping[todo] / 10, 1e-9), damping[todo] * 10)
    return x, _length(residual)


def differences(move: Move, x: Points, step_mm: float) -> Matrices:
    """∂move/∂x by central differences, (N, D, D): row i is the component i of the result."""
    columns = []
    for axis in range(len(x)):
        shift = np.zeros((len(x), 1))
        shift[axis] = step_mm
        columns.append((move(x + shift) - move(x - shift)).T / (2 * step_mm))
    return np.stack(columns, axis=-1)


def _length(vectors: Points) -> Distances:
    return np.asarray(np.sqrt((vectors**2).sum(0)))
