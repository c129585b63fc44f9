"""How well two images match under a linear map: by their features, and by how much of them is compared.

A match is ``Σ w (d₀ − d) / (d₀ √(Σw · W))`` over the voxels both images show: d is the squared difference of the
features, d₀ its mean for places that have nothing to do with each other, w how much a voxel counts and W the most that
could be compared. Sliding out of view leaves little to compare and never pays; a chance match of a small part does not
beat a good one of a large part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from semreg.core.fields import Layer, Volume
from semreg.core.geometry import Grid, Matrix, covering_grid
from semreg.core.sampling import sample
from semreg.transforms.base import Parametric

Describe: TypeAlias = Callable[[Volume, Volume | None], Layer]
"""Features of an image (1, *S); where the weight (1, *S) is 0 an intensity influences nothing."""
SEEN = 0.5
"""Share of a voxel that must lie in an image to be seen."""
SMALL = 1e-6
FLAT = 1e-5
"""Share of the features' mean square below which their differences are rounding: both images are flat."""


@dataclass(frozen=True)
class Picture:
    """One image for the alignment, all (1, *S); ``at`` brings all onto one grid."""

    image: Volume
    weight: Volume | None
    """Voxels that are excluded, 0, influence nothing; None: there are none."""
    content: Volume
    """Where there is something to see: how much a voxel counts."""

    def at(self, spacing_mm: float) -> Picture:
        """The picture on cubic voxels along its own axes, by means over them."""
        grid = covering_grid(self.image.grid, self.image.grid, (spacing_mm,) * self.image.grid.dimension)
        content = self.content.averaged_on(grid)
        if self.weight is None:
            return Picture(self.image.averaged_on(grid), None, content)
        layer = Layer(self.image, self.weight).averaged_on(grid)
        return Picture(layer.features, layer.weight, content)

    def to(self, device: torch.device) -> Picture:
        """The picture on a device."""

        def moved(volume: Volume) -> Volume:
            return Volume(volume.data.to(device), volume.grid)

        weight = None if self.weight is None else moved(self.weight)
        return Picture(moved(self.image), weight, moved(self.content))


@dataclass(frozen=True)
class Seen:
    """Features (C, *S) of one image on a grid, and how much each voxel counts, (*S)."""

    features: Tensor
    share: Tensor
    grid: Grid


def describe_picture(picture: Picture, describe: Describe) -> Seen:
    """The features of a picture on its own grid."""
    layer = describe(picture.image, picture.weight)
    share = picture.content.data[0]
    if layer.weight is not None:
        share = share * layer.weight.data[0]
    return Seen(layer.features.data, share, picture.image.grid)


def describe_through(picture: Picture, transform: Parametric, grid: Grid, describe: Describe) -> Seen:
    """The features of a picture read through a transform, fixed → moving, on a grid of the fixed image's space.

    The image is resampled first and described then: descriptors do not turn with the image.
    """
    where = transform.index(grid, picture.image.grid, like=picture.image.data)
    known = torch.ones_like(picture.image.data) if picture.weight is None else picture.weight.data
    read = sample(torch.cat([picture.image.data * known, known, picture.content.data]), where, outside=0.0)
    seen = (read[1] > SEEN).to(read.dtype)
    values = torch.where(seen > 0, read[0] / read[1].clamp(min=SMALL), picture.image.data.min())
    # where nothing is seen there are no intensities to describe: then no voxel counts, whatever the features
    layer = describe(Volume(values[None], grid), Volume(seen[None], grid) if bool(seen.any()) else None)
    valid = seen if layer.weight is None else layer.weight.data[0]
    return Seen(layer.features.data, read[2] * valid, grid)


def turned_grid(picture: Picture, turn: Matrix, spacing_mm: float, frame: Grid) -> Grid:
    """A grid with the axes of ``frame`` that holds the whole picture when space is turned by ``turn`` (rigid)."""
    grid = picture.image.grid
    n = grid.dimension
    direction = turn[:n, :n] @ grid.index_to_point()[:n, :n] / np.array(grid.spacing)
    origin = turn[:n, :n] @ grid.index_to_point()[:n, n] + turn[:n, n]
    columns = direction[:, ::-1]  # from tensor axes to x, y(, z)
    turned = Grid(grid.size_xyz, grid.spacing_xyz, tuple(origin), tuple(map(tuple, columns.tolist())))
    return covering_grid(frame, turned, (spacing_mm,) * n)


def unrelated(fixed: Seen, moving: Seen) -> float:
    """The mean squared difference of features of places drawn from both images without regard to each other.

    0 where neither image shows anything that a place could be told by.
    """
    means, squares = [], 0.0
    for seen in (fixed, moving):
        share = seen.share / seen.share.sum().clamp(min=SMALL)
        means.append((seen.features * share).flatten(1).sum(1))
        squares += float((seen.features.square().sum(0) * share).sum())
    difference = squares - 2 * float((means[0] * means[1]).sum())
    return difference if difference > FLAT * squares else 0.0


def match(total_gain: Tensor, overlap: Tensor, most: float, scale: float) -> Tensor:
    """The match from Σ w (d₀ − d), Σ w, the most Σ w there could be, and d₀."""
    return total_gain / (scale * (overlap.clamp(min=SMALL) * most).sqrt())
