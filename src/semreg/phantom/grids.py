"""The grids on which the made-up bodies are shown. Knows nothing of what they show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np

from semreg.core.geometry import Grid
from semreg.phantom.anatomy import CENTRE_MM
from semreg.phantom.waves import Array

Frames: TypeAlias = Literal["oblique", "isotropic"]


def abdomen_grids(frames: Frames, size: int, dimension: int) -> tuple[Grid, Grid]:
    """The grids of the fixed and of the moving abdomen, of about ``size`` voxels an axis."""
    return _ABDOMEN[frames](size, dimension)


def head_grids(size: int, centre: tuple[float, ...]) -> tuple[Grid, Grid]:
    """Two grids for heads around ``centre`` (mm), stored and tilted as two scanners would."""
    fixed = _grid_of(size, (0.9, 1.0, 0.85), (184.0, 214.0, 176.0), (0, 4, -4), rotation((1, 0.3, 0.2), 6.0), centre)
    sagittal = rotation((0.2, 1, -0.4), -8.0)[:, [1, 2, 0]]
    return fixed, _grid_of(size, (1.0, 0.95, 0.8), (216.0, 186.0, 180.0), (-2, 5, -2), sagittal, centre)


def joint_grids(size: int, centre: tuple[float, ...]) -> tuple[Grid, Grid]:
    """Two grids for joints around ``centre`` (mm), stored and tilted as two scanners would."""
    fixed = _grid_of(size, (0.9, 0.85, 1.0), (116.0, 108.0, 132.0), (1, -2, 3), rotation((1, 0.4, -0.3), 5.0), centre)
    turned = rotation((0.3, -1, 0.5), -7.0)[:, [2, 0, 1]]
    return fixed, _grid_of(size, (1.0, 0.9, 0.8), (146.0, 124.0, 118.0), (-2, 1, 2), turned, centre)


def picture_grids(size: int) -> tuple[Grid, Grid]:
    """Two pictures of the same height and of other widths, as files without a position in space have it: no origin."""
    step = 256.0 / size
    widths = (np.array([1.0, 0.8]), np.array([0.92, 0.85]))
    fixed, moving = (
        Grid(tuple(np.rint(size * share).astype(int).tolist()), (step,) * 2, (0.0,) * 2, ((1.0, 0.0), (0.0, 1.0)))
        for share in widths
    )
    return fixed, moving


def rotation(axis: tuple[float, float, float], degrees: float) -> Array:
    """The rotation by ``degrees`` about ``axis``, (3, 3)."""
    angle = np.deg2rad(degrees)
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def _oblique(size: int, dimension: int) -> tuple[Grid, Grid]:
    """Two grids that share nothing: sizes, spacings, origins, directions and, in part, what they show."""
    fixed = _grid_of(size, (1.0, 0.87, 0.8), (206.0, 164.0, 174.0), (2.0, -1.0, 4.0), rotation((1, 2, 3), 14.0))
    turned = rotation((3, -1, 2), -21.0)[:, [0, 2, 1]] * np.array([1.0, 1.0, -1.0])
    moving = _grid_of(size, (0.85, 1.0, 0.93), (200.0, 186.0, 158.0), (-3.0, 2.0, -5.0), turned)
    if dimension == 3:
        return fixed, moving
    return tuple(  # type: ignore[return-value]
        _grid_of(size, sizes, extents, offset, rotation((0, 0, 1), degrees)[:2, :2])
        for sizes, extents, offset, degrees in (
            ((1.0, 0.87), (206.0, 164.0), (2.0, -1.0), 13.0),
            ((0.85, 0.95), (196.0, 158.0), (-3.0, 2.0), -16.0),
        )
    )


def _isotropic(size: int, dimension: int) -> tuple[Grid, Grid]:
    """One plain grid of 192 mm an axis for both images."""
    ones = (1.0,) * dimension
    grid = _grid_of(size, ones, (192.0,) * dimension, (0.0,) * dimension, np.eye(dimension))
    return grid, grid


_ABDOMEN: dict[str, Callable[[int, int], tuple[Grid, Grid]]] = {"oblique": _oblique, "isotropic": _isotropic}


def _grid_of(
    size: int,
    sizes: tuple[float, ...],
    extents_mm: tuple[float, ...],
    offset_mm: tuple[float, ...],
    direction: Array,
    centre: tuple[float, ...] = CENTRE_MM,
) -> Grid:
    """A grid of ``size`` times ``sizes`` voxels over ``extents_mm``, its middle ``offset_mm`` from ``centre``."""
    counts = np.maximum(np.rint(size * np.array(sizes)), 2)
    spacing = np.array(extents_mm) / counts
    middle = np.array(centre[: len(sizes)]) + np.array(offset_mm)
    origin = middle - direction @ ((counts - 1) / 2 * spacing)
    return Grid(tuple(counts.astype(int).tolist()), tuple(spacing), tuple(origin), tuple(map(tuple, direction)))
