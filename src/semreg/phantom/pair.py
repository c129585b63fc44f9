"""The pair of images of the phantom: grids, rendering, noise and landmarks.

Knows nothing of files, ITK, features and registration.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from semreg.errors import ConfigError
from semreg.fields import Field, PointMap, Volume
from semreg.geometry import Grid
from semreg.phantom.anatomy import (
    BODY_MM,
    CENTRE_MM,
    EDGE_MM,
    Anatomy,
    Contrast,
    intensity,
    make_anatomy,
    share_of_body,
)
from semreg.phantom.couplings import CouplingMap, make_map
from semreg.phantom.waves import Array
from semreg.sampling import base_index, inside, transform_index

Frames: TypeAlias = Literal["oblique", "isotropic"]

BLOCK = 28
"""Voxels an axis that are coloured at once; what is far from such a block is not computed there."""

LANDMARKS_WITHIN = 0.9
"""How far out landmarks lie, 1 at the skin."""


@dataclass(frozen=True)
class PhantomPair:
    """Two images of one body: the moving image at ``true_map(p)`` shows what the fixed image shows at ``p``."""

    fixed: Volume
    """CT-like, whole numbers in HU."""
    moving: Volume
    """MR-like, whole numbers from 0."""
    fixed_points: Tensor
    """Landmarks in the fixed image, (N, D) in mm, on edges inside both images."""
    moving_points: Tensor
    """The same landmarks in the moving image, (N, D) in mm."""
    true_map: CouplingMap
    """Points of the fixed image → points of the moving image, (D, N) in mm."""
    anatomy: Anatomy
    """What both images show."""

    def true_field(self) -> Field:
        """The true map as a displacement field on the fixed grid."""
        points = points_of(self.fixed.grid)
        flat = points.flatten(1)
        return Field.from_mm((self.true_map(flat) - flat).reshape(points.shape).float(), self.fixed.grid)


def make_pair(
    *,
    size: int = 120,
    seed: int = 0,
    dimension: int = 3,
    frames: Frames = "oblique",
    displacement_mm: float = 11.0,
    landmarks: int = 250,
) -> PhantomPair:
    """A CT-like fixed and an MR-like moving image of about ``size`` voxels an axis, in 2-D or 3-D.

    ``frames``: ``oblique`` grids differ in size, spacing, origin, direction and in what they show; ``isotropic`` is one
    plain grid for both. ``displacement_mm`` is the largest in the body; it is the same
    deformation on all grids. Raises ConfigError.
    """
    if dimension not in (2, 3) or size < 8:
        raise ConfigError(f"expected a phantom in 2-D or 3-D of 8 voxels or more, got {dimension}-D and {size}")
    fixed_grid, moving_grid = _GRIDS[frames](size, dimension)
    anatomy = make_anatomy(seed)
    true_map = make_map(_body_points(dimension), displacement_mm, seed)
    fixed = _digitised(render(anatomy, fixed_grid, "ct"), "ct", seed)
    moving = _digitised(render(anatomy, moving_grid, "mr", origin_of=true_map.inverse), "mr", seed + 1)
    fixed_points = _landmarks(anatomy, (fixed_grid, moving_grid), true_map, landmarks, seed)
    return PhantomPair(fixed, moving, fixed_points.T, true_map(fixed_points).T, true_map, anatomy)


def render(anatomy: Anatomy, grid: Grid, contrast: Contrast, *, origin_of: PointMap | None = None) -> Volume:
    """The body without noise on ``grid``, float32 (1, *S); ``origin_of`` maps points of the image to the anatomy.

    ``mr`` has the bias field of a receiving coil, which belongs to the image and not to the anatomy.
    """
    result = torch.empty(1, *grid.shape)
    everywhere = points_of(grid)
    for corner in itertools.product(*[range(0, n, BLOCK) for n in grid.shape]):
        block = (slice(None), *[slice(i, i + BLOCK) for i in corner])
        points = everywhere[block].flatten(1)
        origin = points if origin_of is None else origin_of(points)
        values = intensity(anatomy, origin.numpy(), contrast)
        if contrast == "mr":
            values *= _bias(points.numpy())
        result[block] = torch.from_numpy(values).reshape(result[block].shape)
    return Volume(result, grid)


def points_of(grid: Grid) -> Tensor:
    """The points of all samples, (D, *S) in mm, float64."""
    index = base_index(grid.shape, like=torch.zeros(1, dtype=torch.float64))
    return transform_index(grid.index_to_point(), index)


def _bias(points: Array) -> Array:
    """The bias field of the coil at ``points`` (D, N) in mm of the image → (N), around 1."""
    x, y, z = [*(row - middle for row, middle in zip(points, CENTRE_MM, strict=False)), 0.0][:3]
    return np.asarray(np.exp(0.25 * np.sin(x / 70 + 0.4) - 0.003 * y + 0.2 * np.cos(z / 60 + y / 90)))


def _digitised(volume: Volume, contrast: Contrast, seed: int) -> Volume:
    """The image with noise, in whole numbers: Gaussian in CT, of the magnitude of a complex signal in MR."""
    generator = torch.Generator().manual_seed(seed)
    shape = volume.data.shape
    if contrast == "ct":
        noisy = (volume.data + 12.0 * torch.randn(shape, generator=generator)).clamp_min(-1024)
    else:
        real = volume.data + 16.0 * torch.randn(shape, generator=generator)
        noisy = torch.hypot(real, 16.0 * torch.randn(shape, generator=generator))
    return Volume(noisy.round_(), volume.grid)


def _body_points(dimension: int) -> Tensor:
    """Points all over the part of the body that the images show, (D, N) in mm."""
    axes = [np.linspace(-0.95, 0.95, 23)] * dimension
    shares = np.stack(np.meshgrid(*axes)).reshape(dimension, -1)
    half = np.array([*BODY_MM[:2], 65.0])[:dimension, None]
    points = shares * half + np.array(CENTRE_MM[:dimension])[:, None]
    return torch.from_numpy(points[:, share_of_body(points) < 0.95])


def _landmarks(anatomy: Anatomy, grids: tuple[Grid, Grid], true_map: CouplingMap, count: int, seed: int) -> Tensor:
    """Points of the fixed image (D, N) in mm on edges of the anatomy, inside the body and both images."""
    fixed, moving = grids
    n = fixed.dimension
    shares = np.random.default_rng([seed, 3]).uniform(-1, 1, size=(n, 30 * count))
    inner = shares * np.array(BODY_MM[:n])[:, None] + np.array(CENTRE_MM[:n])[:, None]
    points = torch.from_numpy(inner[:, share_of_body(inner) < LANDMARKS_WITHIN])
    points = points[:, _well_inside(fixed, points)]
    points = points[:, _well_inside(moving, true_map(points))]
    return points[:, torch.from_numpy(_steepness(anatomy, points.numpy()) > 60.0)][:, :count]


def _steepness(anatomy: Anatomy, points: Array) -> Array:
    """By how many HU the CT changes across ``points`` (D, N) along the steepest axis; (N)."""
    steps = EDGE_MM * np.eye(len(points))[:, :, None]
    changes = [intensity(anatomy, points + step, "ct") - intensity(anatomy, points - step, "ct") for step in steps]
    return np.asarray(np.abs(changes).max(0))


def _well_inside(grid: Grid, points: Tensor) -> Tensor:
    """Which points (D, N) lie in the image and further from its edge than a sixteenth of its extent; (N)."""
    index = transform_index(grid.point_to_index(), points)
    margin = torch.tensor(grid.shape, dtype=index.dtype)[:, None] / 16
    return inside(index - margin, grid.shape) & inside(index + margin, grid.shape)


def _grids_oblique(size: int, dimension: int) -> tuple[Grid, Grid]:
    """Two grids that share nothing: sizes, spacings, origins, directions and, in part, what they show."""
    fixed = _grid_of(size, (1.0, 0.87, 0.8), (206.0, 164.0, 174.0), (2.0, -1.0, 4.0), _rotation((1, 2, 3), 14.0))
    turned = _rotation((3, -1, 2), -21.0)[:, [0, 2, 1]] * np.array([1.0, 1.0, -1.0])
    moving = _grid_of(size, (0.85, 1.0, 0.93), (200.0, 186.0, 158.0), (-3.0, 2.0, -5.0), turned)
    if dimension == 3:
        return fixed, moving
    return tuple(  # type: ignore[return-value]
        _grid_of(size, sizes, extents, offset, _rotation((0, 0, 1), degrees)[:2, :2])
        for sizes, extents, offset, degrees in (
            ((1.0, 0.87), (206.0, 164.0), (2.0, -1.0), 13.0),
            ((0.85, 0.95), (196.0, 158.0), (-3.0, 2.0), -16.0),
        )
    )


def _grids_isotropic(size: int, dimension: int) -> tuple[Grid, Grid]:
    """One plain grid of 192 mm an axis for both images."""
    ones = (1.0,) * dimension
    grid = _grid_of(size, ones, (192.0,) * dimension, (0.0,) * dimension, np.eye(dimension))
    return grid, grid


_GRIDS: dict[str, Callable[[int, int], tuple[Grid, Grid]]] = {
    "oblique": _grids_oblique,
    "isotropic": _grids_isotropic,
}


def _grid_of(
    size: int, sizes: tuple[float, ...], extents_mm: tuple[float, ...], offset_mm: tuple[float, ...], direction: Array
) -> Grid:
    """A grid of ``size`` times ``sizes`` voxels over ``extents_mm``, its middle ``offset_mm`` from the body's."""
    counts = np.maximum(np.rint(size * np.array(sizes)), 2)
    spacing = np.array(extents_mm) / counts
    middle = np.array(CENTRE_MM[: len(sizes)]) + np.array(offset_mm)
    origin = middle - direction @ ((counts - 1) / 2 * spacing)
    return Grid(tuple(counts.astype(int)), tuple(spacing), tuple(origin), tuple(map(tuple, direction)))


def _rotation(axis: tuple[float, float, float], degrees: float) -> Array:
    """The rotation by ``degrees`` about ``axis``."""
    angle = np.deg2rad(degrees)
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)
