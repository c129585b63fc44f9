"""Linear maps of points in mm as homogeneous matrices, and the generators that change them by a few parameters.

Each family is a Lie group: a step is the exponential of a sum of generators, so a product of steps stays in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.linalg

from semreg.core.geometry import Matrix
from semreg.errors import ConfigError, GeometryError

FAMILIES = ("translation", "rigid", "similarity", "affine")
"""From the fewest parameters to the most."""


def generators(family: str, centre: npt.ArrayLike) -> list[Matrix]:
    """The generators (E, E) of a family about ``centre`` (D,) in mm: of translations first, then of the linear part."""
    _require_family(family)
    middle = np.asarray(centre, dtype=np.float64)
    n = len(middle)
    found = []
    for axis in range(n):
        shift = np.zeros((n + 1, n + 1))
        shift[axis, n] = 1.0
        found.append(shift)
    pairs = [(i, j) for i in range(n) for j in range(i)]
    if family in ("rigid", "similarity"):
        found += [_about(_unit(n, i, j) - _unit(n, j, i), middle) for i, j in pairs]
    if family == "similarity":
        found.append(_about(np.eye(n), middle))
    if family == "affine":
        found += [_about(_unit(n, i, j), middle) for i in range(n) for j in range(n)]
    return found


def exponential(parameters: npt.ArrayLike, basis: Sequence[Matrix]) -> Matrix:
    """The map of these parameters: the matrix exponential of their sum of generators."""
    return np.asarray(scipy.linalg.expm(np.tensordot(np.asarray(parameters, dtype=np.float64), np.array(basis), 1)))


def linear_about(linear: npt.ArrayLike, start: npt.ArrayLike, end: npt.ArrayLike) -> Matrix:
    """P → linear · (p − start) + end."""
    part = np.asarray(linear, dtype=np.float64)
    n = len(part)
    result = np.eye(n + 1)
    result[:n, :n] = part
    result[:n, n] = np.asarray(end) - part @ np.asarray(start)
    return result


def mapped(matrix: Matrix, points: npt.ArrayLike) -> Matrix:
    """Points (N, D) moved by a map."""
    array = np.asarray(points, dtype=np.float64)
    n = array.shape[1]
    return np.asarray(array @ matrix[:n, :n].T + matrix[:n, n])


def largest_move(change: Matrix, points: npt.ArrayLike) -> float:
    """How far the map moves any of ``points`` (N, D), in mm."""
    return float(np.linalg.norm(mapped(change, points) - np.asarray(points), axis=1).max())


def angle_deg(matrix: Matrix) -> float:
    """The angle of the rotation nearest to the linear part, in degrees."""
    n = len(matrix) - 1
    u, _, vt = np.linalg.svd(matrix[:n, :n])
    trace = float(np.trace(u @ vt))
    return float(np.degrees(np.arccos(np.clip((trace - (n - 2)) / 2, -1.0, 1.0))))


def scales(matrix: Matrix) -> tuple[float, ...]:
    """The singular values of the linear part, largest first: 1 for a rigid map."""
    n = len(matrix) - 1
    return tuple(float(s) for s in np.linalg.svd(matrix[:n, :n], compute_uv=False))


def fit_points(family: str, fixed: npt.ArrayLike, moving: npt.ArrayLike) -> Matrix:
    """The map of a family that brings points (N, D) in mm nearest to their partners, in the mean square.

    Rigid and similarity: Umeyama, IEEE TPAMI 1991. Raises GeometryError for points that do not determine the map.
    """
    _require_family(family)
    x, y = np.asarray(fixed, dtype=np.float64), np.asarray(moving, dtype=np.float64)
    if x.ndim != 2 or x.shape != y.shape or x.shape[1] not in (2, 3) or not len(x):
        raise GeometryError(
            f"expected as many fixed as moving landmarks, each of 2 or 3 coordinates, got {x.shape} and {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise GeometryError("expected finite landmarks, got NaN or infinity: correct their files")
    n = x.shape[1]
    a, b = x - x.mean(0), y - y.mean(0)
    if family == "translation":
        return linear_about(np.eye(n), x.mean(0), y.mean(0))
    spread = np.linalg.svd(a, compute_uv=False)
    rank = int((spread > 1e-6 * max(spread.max(), 1e-12)).sum())
    needed = n if family == "affine" else n - 1
    if rank < needed:
        raise GeometryError(
            f"expected landmarks that determine a map of the kind {family}, got {len(x)} in a space of {rank} "
            f"dimensions: give at least {needed + 1} that do not lie on one {('point', 'line', 'plane')[needed - 1]}"
        )
    if family == "affine":
        return linear_about(np.linalg.lstsq(a, b, rcond=None)[0].T, x.mean(0), y.mean(0))
    u, s, vt = np.linalg.svd(b.T @ a)
    signs = np.ones(n)
    signs[-1] = np.sign(np.linalg.det(u @ vt))
    scale = float((s * signs).sum() / (a**2).sum()) if family == "similarity" else 1.0
    return linear_about(scale * (u * signs) @ vt, x.mean(0), y.mean(0))


def _require_family(family: str) -> None:
    if family not in FAMILIES:
        raise ConfigError(f"expected a transform of {', '.join(FAMILIES)}, got {family!r}")


def _unit(n: int, i: int, j: int) -> Matrix:
    result = np.zeros((n, n))
    result[i, j] = 1.0
    return result


def _about(linear: Matrix, centre: Matrix) -> Matrix:
    """The generator of a linear change about ``centre``."""
    n = len(linear)
    result = np.zeros((n + 1, n + 1))
    result[:n, :n] = linear
    result[:n, n] = -linear @ centre
    return result
