"""The pair of images of the phantom: rendering, noise and landmarks.

Knows nothing of files, ITK, features and registration.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semreg.core.fields import Field, PointMap, Volume
from semreg.core.geometry import Grid
from semreg.core.sampling import base_index, inside, transform_index
from semreg.errors import ConfigError
from semreg.phantom.couplings import CouplingMap, make_map
from semreg.phantom.moved import MovedMap, TrueMap, carried
from semreg.phantom.painting import EDGE_MM, Body, Region
from semreg.phantom.waves import Array

BLOCK = 28
"""Voxels an axis that are coloured at once; what is far from such a block is not computed there."""

LANDMARKS_WITHIN = 0.9
"""How far out landmarks lie, 1 at the skin."""


@dataclass(frozen=True)
class PhantomPair:
    """Two images of one body: the moving image at ``true_map(p)`` shows what the fixed image shows at ``p``."""

    fixed: Volume
    """Whole numbers: CT-like in HU, MR-like from 0, pictures from 0 to 255."""
    moving: Volume
    """The same in its own contrast."""
    fixed_points: Tensor
    """Landmarks in the fixed image, (N, D) in mm, on edges inside both images."""
    moving_points: Tensor
    """The same landmarks in the moving image, (N, D) in mm."""
    true_map: TrueMap
    """Points of the fixed image → points of the moving image, (D, N) in mm."""
    anatomy: Body
    """What both images show."""

    @property
    def label_names(self) -> Mapping[int, str]:
        """What the numbers of the label maps mean."""
        return self.anatomy.label_names

    def fixed_labels(self) -> Volume:
        """The structures in the fixed image, float32 (1, *S), whole numbers of ``label_names``, 0 elsewhere."""
        return Volume(_everywhere(self.fixed.grid, self.anatomy.labels), self.fixed.grid)

    def moving_labels(self) -> Volume:
        """The structures in the moving image, drawn there and not warped, float32 (1, *S)."""
        back = _through(self.true_map.inverse)
        return Volume(_everywhere(self.moving.grid, lambda p: self.anatomy.labels(back(p))), self.moving.grid)

    def true_field(self) -> Field:
        """The true map as a displacement field on the fixed grid."""
        points = points_of(self.fixed.grid)
        flat = points.flatten(1)
        return Field.from_mm((self.true_map(flat) - flat).reshape(points.shape).float(), self.fixed.grid)

    def moved(self, matrix: npt.ArrayLike) -> PhantomPair:
        """The same pair with its moving image elsewhere in space: no voxel changes, its header and the truth do.

        ``matrix``: a rigid motion of the points of the moving image, homogeneous (D + 1, D + 1), mm.
        """
        motion = np.asarray(matrix, dtype=np.float64)
        points = transform_index(motion, self.moving_points.T).T
        moving = Volume(self.moving.data, carried(self.moving.grid, motion))
        return PhantomPair(self.fixed, moving, self.fixed_points, points, MovedMap(self.true_map, motion), self.anatomy)


@dataclass(frozen=True)
class Recipe:
    """How a pair is made of a body: the contrasts of both images, how far points move, how many landmarks."""

    contrasts: tuple[str, str]
    displacement_mm: float
    landmarks: int
    seed: int
    motion: npt.NDArray[np.float64] | None = None
    """Where the deformed body then lies: a rigid motion, homogeneous (D + 1, D + 1), mm."""

    def __post_init__(self) -> None:
        if self.landmarks < 1:
            raise ConfigError(f"expected one landmark or more, got {self.landmarks}; choose another number")


def pair_of(
    body: Body, grids: tuple[Grid, Grid], recipe: Recipe, around: Callable[[CouplingMap], TrueMap] | None = None
) -> PhantomPair:
    """The body on the first grid, and deformed, with noise of its own, on the second.

    ``around``: what a smooth map becomes where some of the body moves another way; None: it stays as it is.
    """
    fixed_grid, moving_grid = grids
    seen = _seen_points(body.region, fixed_grid.dimension)
    smooth = make_map(seen, recipe.displacement_mm, recipe.seed)
    true_map: TrueMap = smooth if around is None else around(smooth)
    if recipe.motion is not None:
        true_map = MovedMap(true_map, recipe.motion)
    near, far = recipe.contrasts
    fixed = _digitised(render(body, fixed_grid, near), near, recipe.seed)
    moving = _digitised(render(body, moving_grid, far, origin_of=true_map.inverse), far, recipe.seed + 1)
    points = _landmarks(body, grids, true_map, recipe.landmarks, recipe.seed)
    return PhantomPair(fixed, moving, points.T, true_map(points).T, true_map, body)


def render(anatomy: Body, grid: Grid, contrast: str, *, origin_of: PointMap | None = None) -> Volume:
    """The body without noise on ``grid``, float32 (1, *S); ``origin_of`` maps points of the image to the anatomy.

    MR (``mr``, ``t1``, ``t2``) has the bias field of a receiving coil, which belongs to the image and not to the
    anatomy.
    """
    back = _through(origin_of)

    def look(points: Array) -> Array:
        values = anatomy.intensity(back(points), contrast)
        return values * _bias(points, anatomy.region) if contrast in MR else values

    return Volume(_everywhere(grid, look), grid)


def points_of(grid: Grid) -> Tensor:
    """The points of all samples, (D, *S) in mm, float64."""
    index = base_index(grid.shape, like=torch.zeros(1, dtype=torch.float64))
    return transform_index(grid.index_to_point(), index)


MR = ("mr", "t1", "t2")
PICTURES = ("eosin", "brown")


def _everywhere(grid: Grid, look: Callable[[Array], npt.NDArray[np.generic]]) -> Tensor:
    """What ``look`` says of points (D, N) in mm → (N), at all voxels of ``grid``: float32 (1, *S)."""
    result = torch.empty(1, *grid.shape)
    everywhere = points_of(grid)
    for corner in itertools.product(*[range(0, n, BLOCK) for n in grid.shape]):
        block = (slice(None), *[slice(i, i + BLOCK) for i in corner])
        values = look(everywhere[block].flatten(1).numpy())
        result[block] = torch.from_numpy(values).reshape(result[block].shape)
    return result


def _through(origin_of: PointMap | None) -> Callable[[Array], Array]:
    """The same map for arrays (D, N); nothing moves without one."""
    if origin_of is None:
        return lambda points: points
    return lambda points: np.asarray(origin_of(torch.from_numpy(points)).numpy())


def _bias(points: Array, region: Region) -> Array:
    """The bias field of the coil at ``points`` (D, N) in mm of the image → (N), around 1."""
    x, y, z = [*(row - middle for row, middle in zip(points, region.centre_mm, strict=False)), 0.0][:3]
    return np.asarray(np.exp(0.25 * np.sin(x / 70 + 0.4) - 0.003 * y + 0.2 * np.cos(z / 60 + y / 90)))


def _digitised(volume: Volume, contrast: str, seed: int) -> Volume:
    """The image with noise, in whole numbers: Gaussian in CT and pictures, the magnitude of a complex signal in MR."""
    generator = torch.Generator().manual_seed(seed)
    shape = volume.data.shape
    if contrast == "ct":
        noisy = (volume.data + 12.0 * torch.randn(shape, generator=generator)).clamp_min(-1024)
    elif contrast in PICTURES:
        noisy = (volume.data + 4.0 * torch.randn(shape, generator=generator)).clamp(0, 255)
    else:
        real = volume.data + 16.0 * torch.randn(shape, generator=generator)
        noisy = torch.hypot(real, 16.0 * torch.randn(shape, generator=generator))
    return Volume(noisy.round_(), volume.grid)


def _seen_points(region: Region, dimension: int) -> Tensor:
    """Points all over the part of the body that the images show, (D, N) in mm."""
    axes = [np.linspace(-0.95, 0.95, 23)] * dimension
    shares = np.stack(np.meshgrid(*axes)).reshape(dimension, -1)
    half = np.array(region.seen_mm)[:dimension, None]
    points = shares * half + np.array(region.centre_mm[:dimension])[:, None]
    return torch.from_numpy(points[:, region.share(points) < 0.95])


def _landmarks(body: Body, grids: tuple[Grid, Grid], true_map: TrueMap, count: int, seed: int) -> Tensor:
    """Points of the fixed image (D, N) in mm on edges of the body, inside it and both images."""
    fixed, moving = grids
    n, region = fixed.dimension, body.region
    shares = np.random.default_rng([seed, 3]).uniform(-1, 1, size=(n, 30 * count))
    inner = shares * np.array(region.half_mm[:n])[:, None] + np.array(region.centre_mm[:n])[:, None]
    points = torch.from_numpy(inner[:, region.share(inner) < LANDMARKS_WITHIN])
    points = points[:, _well_inside(fixed, points)]
    points = points[:, _well_inside(moving, true_map(points))]
    return points[:, torch.from_numpy(_steepness(body, points.numpy()) > body.steepest)][:, :count]


def _steepness(body: Body, points: Array) -> Array:
    """By how much the first contrast changes across ``points`` (D, N) along the steepest axis; (N)."""
    steps = EDGE_MM * np.eye(len(points))[:, :, None]
    first = body.contrasts[0]
    changes = [body.intensity(points + step, first) - body.intensity(points - step, first) for step in steps]
    return np.asarray(np.abs(changes).max(0))


def _well_inside(grid: Grid, points: Tensor) -> Tensor:
    """Which points (D, N) lie in the image and further from its edge than a sixteenth of its extent; (N)."""
    index = transform_index(grid.point_to_index(), points)
    margin = torch.tensor(grid.shape, dtype=index.dtype)[:, None] / 16
    return inside(index - margin, grid.shape) & inside(index + margin, grid.shape)
