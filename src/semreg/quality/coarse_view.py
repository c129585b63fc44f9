"""Both images as the checks look at them: pooled to a working size, the moving one read through the field.

A result is judged by what is seen at one size, whatever the size of the images: so the cost is bounded, and a
threshold in working voxels means the same share of any field of view. Knows no check.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from semreg.core.fields import Field, Layer, Volume, warp
from semreg.core.geometry import Grid, Matrix, covering_grid
from semreg.core.sampling import base_index, transform_index
from semreg.features.descriptors.mind import MindSSC
from semreg.features.extract import describe
from semreg.preprocess.image_pair import Cleaned

SIDE = {2: 96, 3: 48}
"""Working voxels a side, if the fixed image were a cube."""
SEEN = 0.5
"""Share of a voxel that must lie in an image to be seen."""
RADIUS, DILATION = 1, 2
"""Of MIND, on the working voxels."""
SMALL = 1e-6


@dataclass(frozen=True)
class Shown:
    """One image along its own axes at a working size, all (1, *S)."""

    image: Volume
    known: Volume
    """Share of each voxel that has a value."""
    content: Volume
    """How much a voxel counts, 0 to 1: it shows something, or lies beside what does."""

    def mirrored(self, axis: int) -> Shown:
        """The same with the order of the voxels along one tensor axis reversed, the grid unchanged."""

        def flipped(volume: Volume) -> Volume:
            return Volume(volume.data.flip(axis + 1), volume.grid)

        return Shown(flipped(self.image), flipped(self.known), flipped(self.content))

    def through(self, field: Field) -> Shown:
        """The image read through a field on another grid; its least value where it shows nothing."""
        known = warp(self.known, field, outside=0.0)
        product = Volume(self.image.data * self.known.data, self.image.grid)
        values = warp(product, field, outside=0.0).data / known.data.clamp(min=SMALL)
        seen = known.data > SEEN
        read = torch.where(seen, values, self.image.data.min())
        content = warp(self.content, field, outside=0.0)
        return Shown(Volume(read, field.grid), Volume(seen.to(read.dtype), field.grid), content)

    @property
    def weight(self) -> Tensor:
        """How much a voxel counts where it has a value, (*S)."""
        return self.content.data[0] * (self.known.data[0] > SEEN)


def working_grid(fixed: Grid, side: int) -> Grid:
    """Cubic voxels along the axes of an image, about ``side`` an axis, never finer than its own."""
    n = fixed.dimension
    extents = [max(e, s) for e, s in zip(fixed.extent_mm, fixed.spacing, strict=True)]
    spacing = max(math.prod(extents) ** (1 / n) / side, min(fixed.spacing))
    return covering_grid(fixed, fixed, (spacing,) * n)


def show(image: Cleaned, content: Volume, spacing_mm: float) -> Shown:
    """An image on cubic voxels along its own axes, by means over them; ``content`` on any grid along these axes."""
    volume, weight = image
    grid = covering_grid(volume.grid, volume.grid, (spacing_mm,) * volume.grid.dimension)
    content = content.on(grid, outside=0.0)
    if weight is None:
        return Shown(volume.averaged_on(grid), Volume(torch.ones((1, *grid.shape)), grid), content)
    known = weight.averaged_on(grid)
    total = Volume(volume.data * weight.data, volume.grid).averaged_on(grid)
    return Shown(Volume(total.data / known.data.clamp(min=SMALL), grid), known, content)


def features_of(shown: Shown) -> Layer:
    """MIND of an image on a working grid, with the weight of its voxels; what has no value influences nothing."""
    seen = Volume((shown.known.data > SEEN).to(shown.image.data.dtype), shown.image.grid)
    mind = MindSSC(shown.image.grid.dimension, RADIUS, DILATION)
    layer = describe(shown.image, mind, weight=seen)
    known = torch.ones_like(seen.data) if layer.weight is None else layer.weight.data
    return Layer(layer.features, Volume(known * shown.content.data, shown.image.grid))


def linear_part(field: Field, weight: Tensor) -> Matrix:
    """The affine map of points (E, E) nearest to a field, by least squares with a weight (*S) for each sample.

    Along an axis of one sample nothing is known, and nothing stretches.
    """
    n = field.grid.dimension
    points = transform_index(field.grid.index_to_point(), base_index(field.grid.shape, like=field.vox)).flatten(1)
    kept = (weight.flatten() > 0) & field.known.flatten()
    where, moved = points[:, kept].double().numpy(), field.mm().flatten(1)[:, kept].double().numpy()
    share = np.sqrt(weight.flatten()[kept].double().numpy())
    middle = where.mean(1)
    rows = np.vstack([where - middle[:, None], np.ones(where.shape[1])]) * share
    found = np.linalg.lstsq(rows.T, (moved * share).T, rcond=1e-9)[0].T
    matrix = np.eye(n + 1)
    matrix[:n, :n] += found[:, :n]
    matrix[:n, n] = found[:, n] - found[:, :n] @ middle
    return matrix


def field_of_matrix(matrix: Matrix, grid: Grid) -> Field:
    """An affine map of points (E, E) as a field."""
    index = base_index(grid.shape, like=torch.zeros(1, dtype=torch.float64))
    change = grid.point_to_index() @ matrix @ grid.index_to_point() - np.eye(grid.dimension + 1)
    return Field(transform_index(change, index).float(), grid)
