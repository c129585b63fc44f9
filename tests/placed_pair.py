"""Two images of the made-up body, the moving one placed by a known linear map, and how far a found map is from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from conftest import grid_at, rotation
from semreg.core.fields import Volume
from semreg.core.geometry import Grid, Matrix
from semreg.core.sampling import transform_index
from semreg.features.descriptors.mind import MindSSC
from semreg.features.extract import describe as extract
from semreg.phantom import make_anatomy, render
from semreg.phantom.anatomy import CENTRE_MM
from semreg.preprocess.body import content_mask
from semreg.registration.parametric.overlap import Picture
from semreg.transforms.maps import linear_about, mapped

ANATOMY = make_anatomy()
VOXELS = {2: 64, 3: 36}
"""Along each axis, about, if nothing else is asked for."""
ORGANS_MM = {3: (70.0, 50.0, 60.0), 2: (70.0, 50.0)}
"""Half axes, in mm, of the part of the body that maps are compared on."""


@dataclass(frozen=True)
class PlacedPair:
    """``truth`` brings points of the fixed image to the moving one."""

    fixed: Picture
    moving: Picture
    truth: Matrix

    def error(self, found: Matrix) -> float:
        """Mean distance in mm between where points of the body are brought and where they belong."""
        n = len(found) - 1
        shares = np.random.default_rng(8).uniform(-1, 1, (200, n))
        points = np.array(CENTRE_MM[:n]) + shares * ORGANS_MM[n]
        return float(np.linalg.norm(mapped(found, points) - mapped(self.truth, points), axis=1).mean())


def describe(volume, weight):
    """MIND of patches of 3 voxels an axis and of neighbours one voxel away."""
    return extract(volume, MindSSC(volume.grid.dimension, 1, 1), weight=weight)


def picture(volume: Volume, weight: Volume | None = None) -> Picture:
    """The picture of an image and what it shows."""
    return Picture(volume, weight, content_mask(volume))


def linear(dimension, *, degrees=0.0, shift=(0.0, 0.0, 0.0), stretch=None) -> Matrix:
    """A turn about (1, 2, 3) and a stretch about the middle of the body, then a shift in mm."""
    n = dimension
    middle = np.array(CENTRE_MM[:n])
    part = rotation(n, degrees) @ (np.eye(n) if stretch is None else np.asarray(stretch)[:n, :n])
    return linear_about(part, middle, middle + np.array(shift)[:n])


def fixed_grid(dimension: int, voxels: int | None = None) -> Grid:
    """About ``voxels`` along each axis, oblique, all sizes and spacings different."""
    return _grid((1.0, 0.92, 0.86), (208.0, 168.0, 158.0), rotation(dimension, 11.0), dimension, voxels)


def moving_grid(dimension: int, truth: Matrix, voxels: int | None = None) -> Grid:
    """Another oblique grid; the middle of the body is seen near its middle, wherever ``truth`` brings that."""
    direction = truth[:dimension, :dimension] @ rotation(dimension, -14.0)
    u, _, vt = np.linalg.svd(direction)
    grid = _grid((0.9, 1.0, 0.95), (200.0, 178.0, 166.0), u @ vt, dimension, voxels)
    return moved(grid, mapped(truth, [CENTRE_MM[:dimension]])[0] - CENTRE_MM[:dimension])


def moved(grid: Grid, by_mm) -> Grid:
    """The same grid elsewhere."""
    return Grid(grid.size_xyz, grid.spacing_xyz, tuple(np.add(grid.origin_xyz, by_mm)), grid.direction)


def shown(grid: Grid, contrast, truth: Matrix | None = None, noise: float = 10.0, seed: int = 3) -> Volume:
    """The body, at ``truth`` of where it was, with noise."""
    back = np.eye(grid.dimension + 1) if truth is None else np.linalg.inv(truth)
    clean = render(ANATOMY, grid, contrast, origin_of=lambda points: transform_index(back, points))
    normal = torch.randn(clean.data.shape, generator=torch.Generator().manual_seed(seed))
    return Volume(clean.data + noise * normal, grid)


def placed_pair(truth: Matrix, *, fixed: Grid | None = None, moving: Grid | None = None, contrast="mr") -> PlacedPair:
    """CT-like and, by default, MR-like."""
    n = len(truth) - 1
    near = shown(fixed or fixed_grid(n), "ct")
    far = shown(moving or moving_grid(n, truth), contrast, truth, seed=4)
    return PlacedPair(picture(near), picture(far), truth)


def _grid(sizes, extents_mm, direction, dimension, voxels) -> Grid:
    counts = np.rint((voxels or VOXELS[dimension]) * np.array(sizes[:dimension])).astype(int)
    offset = np.array([3.0, -2.0, 4.0])[:dimension]
    return grid_at(CENTRE_MM[:dimension] + offset, counts, extents_mm[:dimension] / counts, direction)
