"""From parallel slices at their positions to a volume on a regular orthogonal grid. Knows nothing of files and DICOM.

Missing slices, uneven distances and slices that are shifted against each other (gantry tilt) are resampled, so that
every value stays where it was measured.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semreg.core.fields import Volume, background
from semreg.core.geometry import Grid, Matrix, nearest_rotation
from semreg.core.sampling import resample
from semreg.errors import GeometryError

logger = logging.getLogger("semreg")

PARALLEL = 1e-3
"""Largest difference of the direction cosines of parallel slices."""
SAME_POSITION_MM = 1e-3
"""Slices that lie nearer to each other show the same place."""
LONGEST_GAP = 4.0
"""Gaps up to this many times the usual distance are filled by interpolation."""
LEAST_SHIFT = 0.1
"""Shift of a slice against the first one, in pixels, from which a stack is resampled."""


@dataclass(frozen=True)
class Place:
    """Where one slice lies: its first pixel in mm (LPS), the directions of its rows and columns, its pixels."""

    position: tuple[float, ...]
    cosines: tuple[float, ...]
    """Direction in which the column index grows, then that in which the row index grows; six numbers."""
    spacing_xy: tuple[float, float]
    size_xy: tuple[int, int]


@dataclass(frozen=True)
class Stack:
    """How slices become a volume on ``grid``."""

    grid: Grid
    order: tuple[int, ...]
    """The slices from the first to the last plane."""
    depth: tuple[float, ...]
    """The plane of the grid, fractional, on which each of them lies."""
    shift_yx: tuple[tuple[float, float], ...]
    """The row and column of each of them, fractional, at which the grid begins."""


def arrange(places: Sequence[Place], name: str) -> Stack:
    """The grid of slices in any order, at least two, and how they come to lie on it; ``name`` is for messages.

    What is resampled is said in a warning with its numbers, in mm and degrees. Raises GeometryError for slices that
    are not parallel, differ in size or spacing, lie at the same place or leave too long a gap.
    """
    _check_alike(places, name)
    first = places[0]
    axes = _axes(places)
    along = np.array([place.position for place in places]) @ axes  # x, y of the slices and their height, in mm
    order = np.argsort(along[:, 2], kind="stable")
    along = along[order]
    step, planes = _planes(along[:, 2], name)
    spacing = np.asarray(first.spacing_xy)
    shift = (along[:, :2] - along[0, :2]) / spacing
    low, high = np.zeros(2), np.zeros(2)
    if np.abs(shift).max() > LEAST_SHIFT:
        low, high = np.floor(shift.min(0)), np.ceil(shift.max(0))
        _say_tilt(along, name)
    else:
        shift = np.zeros_like(shift)
    size = [int(n + b - a) for n, b, a in zip(first.size_xy, high, low, strict=True)]
    origin = axes @ np.append(along[0, :2] + low * spacing, along[0, 2])
    grid = Grid((*size, planes), (*first.spacing_xy, step), tuple(origin), tuple(map(tuple, axes.tolist())))
    depth = np.arange(planes) if _is_even(along[:, 2]) else (along[:, 2] - along[0, 2]) / step
    start = low - shift
    return Stack(grid, tuple(order.tolist()), tuple(depth.tolist()), tuple((float(y), float(x)) for x, y in start))


def fill(stack: Stack, read: Callable[[int], Tensor]) -> Volume:
    """The volume (1, z, y, x), float32; ``read`` gives the pixels (y, x) of one slice, by its number in ``places``.

    Where the grid reaches beyond a shifted slice the value is what lies outside an image (−1024 for CT).
    """
    if stack.depth == tuple(range(len(stack.order))) and not any(map(any, stack.shift_yx)):
        whole = torch.empty((1, *stack.grid.shape))
        for plane, number in enumerate(stack.order):
            whole[0, plane] = read(number)
        return Volume(whole, stack.grid)
    slices = [read(number).float()[None] for number in stack.order]
    if any(map(any, stack.shift_yx)):
        outside = min(background(Volume(x, Grid.of_shape(tuple(x.shape[1:])))) for x in slices)
        slices = [_moved(x, start, stack, outside) for x, start in zip(slices, stack.shift_yx, strict=True)]
    result = torch.empty((1, *stack.grid.shape))
    upper = np.searchsorted(stack.depth, np.arange(stack.grid.shape[0]), side="left").clip(1, len(slices) - 1)
    for plane, above in enumerate(upper.tolist()):
        low, high = stack.depth[above - 1], stack.depth[above]
        weight = min(1.0, max(0.0, (plane - low) / (high - low)))
        weight = round(weight) if abs(weight - round(weight)) < 1e-3 else weight  # a slice that is there stays as it is
        result[:, plane] = torch.lerp(slices[above - 1], slices[above], weight)
    return Volume(result, stack.grid)


def _moved(pixels: Tensor, start: tuple[float, float], stack: Stack, outside: float) -> Tensor:
    """A slice (1, y, x) read at the pixels of the grid."""
    matrix = np.eye(3)
    matrix[:2, 2] = start
    return resample(pixels, matrix, stack.grid.shape[1:], outside=outside)


def _axes(places: Sequence[Place]) -> Matrix:
    """Columns: the directions of x and y of the slices and their normal, which completes a right-handed frame."""
    mean = np.mean([place.cosines for place in places], axis=0)
    return nearest_rotation(np.stack([mean[:3], mean[3:], np.cross(mean[:3], mean[3:])], 1))


def _check_alike(places: Sequence[Place], name: str) -> None:
    """Refuse slices of different size, spacing or direction."""
    first = places[0]
    sizes = sorted({place.size_xy for place in places})
    if len(sizes) > 1:
        raise GeometryError(
            f"expected slices of one size in {name}, got {', '.join(f'{x} × {y}' for x, y in sizes)}: "
            "put those that belong together into a folder"
        )
    for what, unit, values, most in (
        ("pixel spacing", " mm", [place.spacing_xy for place in places], 1e-3 * min(first.spacing_xy)),
        ("direction", "", [place.cosines for place in places], PARALLEL),
    ):
        table = np.asarray(values)
        if np.abs(table - table[0]).max() > most:
            other = table[int(np.abs(table - table[0]).max(1).argmax())]
            raise GeometryError(
                f"expected slices of one {what} in {name}, got {_numbers(table[0])} and {_numbers(other)}{unit}: "
                "put those that belong together into a folder"
            )


def _numbers(values: npt.NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + ")"


def _planes(height: npt.NDArray[np.float64], name: str) -> tuple[float, int]:
    """Distance in mm and number of the planes of a grid from the first to the last of the ascending heights."""
    steps = np.diff(height)
    twice = int((steps < SAME_POSITION_MM).sum())
    if twice:
        raise GeometryError(
            f"expected one slice at each position in {name}, got {len(height)} slices at {len(height) - twice} "
            "positions: several times, echoes or acquisitions are in it; put those of one into a folder"
        )
    if _is_even(height):
        return float(height[-1] - height[0]) / (len(height) - 1), len(height)
    usual = float(np.median(steps))
    if steps.max() > LONGEST_GAP * usual:
        where = int(steps.argmax())
        raise GeometryError(
            f"expected slices about {usual:.4g} mm apart in {name}, got a gap of {steps[where]:.4g} mm after slice "
            f"{where + 1} of {len(height)}: copy the missing slices, or put each part into its own folder"
        )
    planes = max(2, round(float(height[-1] - height[0]) / usual) + 1)
    step = float(height[-1] - height[0]) / (planes - 1)
    logger.warning(
        "%s: %d slices lie between %.4g and %.4g mm apart (missing slices?): "
        "interpolated to %d slices, %.4g mm apart",
        name, len(height), steps.min(), steps.max(), planes, step,
    )  # fmt: skip
    return step, planes


def _is_even(height: npt.NDArray[np.float64]) -> bool:
    """Whether slices are evenly spaced but for the few digits that positions are stored with."""
    even = float(height[-1] - height[0]) / (len(height) - 1)
    apart = np.abs(height - height[0] - even * np.arange(len(height))).max()
    return bool(apart <= max(0.01 * even, min(0.1 * even, 0.1)))


def _say_tilt(along: npt.NDArray[np.float64], name: str) -> None:
    """Warn of slices that do not lie straight above each other."""
    shift = np.linalg.norm(along[:, :2] - along[0, :2], axis=1)
    angle = np.degrees(np.arctan2(shift[-1], along[-1, 2] - along[0, 2]))
    logger.warning(
        "%s: its slices are shifted against each other by up to %.4g mm (a tilt of %.3g degrees): "
        "resampled to an orthogonal grid",
        name, shift.max(), angle,
    )  # fmt: skip
