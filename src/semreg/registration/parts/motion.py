"""How each rigid part moves: the rigid map nearest to the displacement, then descent on the image around the part.

Knows nothing of stages and of what lies between the parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float64
from scipy.ndimage import distance_transform_edt

from semreg.core.fields import Layer, Volume
from semreg.core.geometry import Grid, Matrix
from semreg.errors import GeometryError
from semreg.features.descriptors.mind import MindSSC
from semreg.features.extract import describe
from semreg.preprocess.image_pair import Cleaned
from semreg.registration.parametric.descent import Descent
from semreg.registration.parametric.overlap import Picture
from semreg.registration.parts.known import KnownParts, part_points
from semreg.transforms.base import Points
from semreg.transforms.maps import fit_points, mapped

FEWEST = 3
"""A part of fewer than this to the power of the dimension voxels does not tell a turn: it is only shifted."""
RIM = 1.5
"""Working voxels around a part that count too: its outline says most."""
AROUND = 6
"""Working voxels around these that its features and its steps may see."""
LEVELS = (1.0, 0.5)
"""Working voxels that the voxels of the descent are as large as; larger ones see more of what moves another way."""
FINEST_VOXELS = 1 << 18
"""Voxels of a part and what is around it, at most: larger parts are looked at in larger voxels."""
STEPS = 20
SEEN = 0.5
"""Share of a part that the moving image must show."""
FARTHEST = 4.0
"""Working voxels that the image may move a part further than the displacement does: a search has been there."""
RADIUS, DILATION = 1, 2
"""Of MIND."""

Through = Callable[[Points], Points]
"""Points (D, N) of the fixed image in mm → where the displacement brings them."""


@dataclass(frozen=True)
class Motion:
    """How one part moves."""

    matrix: Matrix
    """Rigid, fixed → moving, homogeneous (E, E) on points in mm."""
    off_mm: Float64[npt.NDArray[np.float64], "n"]
    """How far the displacement of each of its voxels was from the rigid map nearest to it."""
    refined_mm: float | None
    """How far the image then moved any of its voxels; None: it was not asked."""
    said: tuple[str, ...] = ()
    """What was not as usual, in words that follow the name of the part."""


@dataclass(frozen=True)
class Compared:
    """What the descent looks at."""

    fixed: Cleaned
    """In the axes of the parts."""
    moving: Cleaned
    spacing_mm: float
    """Edge of the working voxels."""
    device: torch.device


def motion_of(parts: KnownParts, number: int, through: Through, images: Compared | None) -> Motion:
    """How a part moves.

    Args:
        parts: where all are.
        number: its place among them, from 1.
        through: the displacement that was found.
        images: what the map nearest to it is improved on; None: it stands.

    Returns:
        Its rigid map.
    """
    points = part_points(parts, number)
    aim = through(points)
    count, least = points.shape[1], FEWEST ** len(points)
    few = f"has {count} voxels of the fixed image, fewer than {least}, which do not tell a turn: it is only shifted"
    flat = "is a line or a point, which does not tell a turn: it is only shifted"
    said: list[str] = []
    if count < least:
        matrix = fit_points("translation", points.T, aim.T)
        said.append(few)
    else:
        try:
            matrix = fit_points("rigid", points.T, aim.T)
        except GeometryError:
            matrix = fit_points("translation", points.T, aim.T)
            said.append(flat)
    off = np.linalg.norm(mapped(matrix, points.T) - aim.T, axis=1)
    if images is None or said:
        return Motion(matrix, off, None, tuple(said))
    found = _descended(parts, number, matrix, images)
    if found is None:
        share = f"less than {SEEN:.0%} of it lies in the moving image: its motion is that of the displacement around it"
        return Motion(matrix, off, None, (share,))
    moved = float(np.linalg.norm(mapped(found, points.T) - mapped(matrix, points.T), axis=1).max())
    if moved > FARTHEST * images.spacing_mm:
        far = f"the image would move it by {moved:.1f} mm more than the displacement does: it was not followed"
        return Motion(matrix, off, None, (far,))
    return Motion(found, off, moved)


def _descended(parts: KnownParts, number: int, start: Matrix, images: Compared) -> Matrix | None:
    """The rigid map near ``start`` with the best match of the part and its rim; None: too little of it is seen."""
    mask = (parts.numbers == number).numpy()
    rim = RIM * images.spacing_mm
    margin = rim + AROUND * LEVELS[0] * images.spacing_mm
    here = _box(part_points(parts, number), parts.grid, margin)
    if here is None:
        return None
    outside = distance_transform_edt(~mask[here], sampling=parts.grid.spacing)
    content = Volume(torch.from_numpy(outside <= rim).float()[None], _part(images.fixed, here).grid)
    fixed = _picture(images.fixed, here, content, images.device)
    there = _box(mapped(start, content.grid.corners_xyz()).T, images.moving[0].grid, 0.0)
    if there is None:
        return None
    moving = _picture(images.moving, there, None, images.device)
    mind = MindSSC(parts.grid.dimension, RADIUS, DILATION)

    def described(volume: Volume, weight: Volume | None) -> Layer:
        return describe(volume, mind, weight=weight, device=volume.data.device)

    matrix, size = start, math.prod(content.grid.extent_mm)
    least = (size / FINEST_VOXELS) ** (1 / parts.grid.dimension)
    for spacing in sorted({max(level * images.spacing_mm, least) for level in LEVELS}, reverse=True):
        descent = Descent(fixed.at(spacing), moving.at(spacing), described)
        first = descent.begin("rigid", matrix)
        share = float(descent.seen.share.sum())
        if share == 0 or descent.look(first).overlap < SEEN:
            return None
        matrix = descent.descend(first, STEPS, lambda *_: None).matrix
    return matrix


def _box(points: Points, grid: Grid, margin_mm: float) -> tuple[slice, ...] | None:
    """The voxels of ``grid`` around points (D, N); None: none of them."""
    index = mapped(grid.point_to_index(), points.T)
    result = []
    for axis, (count, spacing) in enumerate(zip(grid.shape, grid.spacing, strict=True)):
        low = max(int(np.floor(index[:, axis].min() - margin_mm / spacing)), 0)
        high = min(int(np.ceil(index[:, axis].max() + margin_mm / spacing)) + 1, count)
        if high <= low:
            return None
        result.append(slice(low, high))
    return tuple(result)


def _part(image: Cleaned, box: tuple[slice, ...]) -> Layer:
    """The voxels of a box."""
    return Layer(*image).part([each.start for each in box], [each.stop for each in box])


def _picture(image: Cleaned, box: tuple[slice, ...], content: Volume | None, device: torch.device) -> Picture:
    """A box of an image as the descent sees it; ``content`` None: all of it counts."""
    part = _part(image, box)
    counted = Volume(torch.ones(1, *part.grid.shape), part.grid) if content is None else content
    if part.weight is not None:
        counted = Volume(counted.data * part.weight.data, part.grid)
    return Picture(part.features, part.weight, counted).to(device)
