"""One of two images, read box by box onto the grid that both are compared on, and treated as the whole one was."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from semreg.core.fields import Field, Volume, apply_linear
from semreg.core.geometry import Grid, Matrix, index_map
from semreg.core.sampling import base_index, transform_index
from semreg.features.contract import IntensityStats
from semreg.io.ngff.opening import open_pyramid
from semreg.io.ngff.pyramid import Pyramid, Resolution
from semreg.preprocess.intensities import OUTSIDE_HU
from semreg.preprocess.modality import PADDING_BELOW
from semreg.preprocess.preparation import Prepared, canonical, to_frame
from semreg.registration.blocks.boxes import Box


@dataclass(frozen=True)
class Source:
    """A resolution of an image in chunks, by name: each process opens it for itself."""

    path: str
    choice: str | None
    level: int
    pooling: int = 1

    def open(self) -> Resolution:
        """The resolution, or means of blocks of it."""
        found = _pyramid(self.path, self.choice).levels[self.level]
        return found if self.pooling == 1 else found.coarsened(self.pooling)


@lru_cache(maxsize=8)
def _pyramid(path: str, choice: str | None) -> Pyramid:
    return open_pyramid(path, choice)


@dataclass(frozen=True, kw_only=True)
class Intensities:
    """What was done to the values of the whole image, and their statistics after that."""

    stats: IntensityStats
    padding: bool = False
    """Whether values far below air count as outside."""
    limits: tuple[float, float] | None = None
    """To what values are cut off."""


@dataclass(frozen=True)
class Side:
    """One image: where it is read from, and the grid it is read onto."""

    source: Source
    grid: Grid
    intensities: Intensities
    after: tuple[tuple[float, ...], ...] | None = None
    """A homogeneous matrix (E, E) on points in mm: a sample of ``grid`` at p shows the image at ``after`` p."""
    blur: tuple[float, ...] = ()
    """By how much it is blurred, the variance along each axis in voxels²; empty: not at all."""

    @property
    def matrix(self) -> Matrix | None:
        """``after``."""
        return None if self.after is None else np.asarray(self.after)

    def read(self, box: Box) -> Prepared:
        """The samples of a box of the grid, and how each counts, (1, *S) both; 0 where the image shows nothing."""
        target = box.of(self.grid)
        level = self.source.open()
        nothing = torch.zeros((1, *target.shape))
        index = _index(target, level.grid, self.matrix)
        seen = Box.around(index, level.grid.shape, margin=2)
        if seen is None:
            return Prepared(Volume(nothing, target), Volume(nothing, target))
        volume, weight = self._treated(level.read(seen.start, seen.stop))
        if not bool((weight.data > 0).any()) or not _inside(index, level.grid.shape):
            return Prepared(Volume(nothing, target), Volume(nothing, target))
        initial = None if self.matrix is None else _field(target, self.matrix)
        found = to_frame(*canonical((volume, weight)), target, initial)
        return found if found.weight is not None else Prepared(found.volume, Volume(torch.ones_like(nothing), target))

    def _treated(self, volume: Volume) -> tuple[Volume, Volume]:
        """The values as the whole image's were treated, and the weight of those that count."""
        how, data = self.intensities, volume.data
        counted = torch.isfinite(data)
        if how.padding:
            counted &= ~(data < PADDING_BELOW)
            data = torch.where(data < PADDING_BELOW, OUTSIDE_HU, data)
        data = torch.where(torch.isfinite(data), data, how.stats.minimum)
        if how.limits is not None:
            data = data.clamp(*how.limits)
        return Volume(data, volume.grid), Volume(counted.to(torch.float32), volume.grid)


def _index(target: Grid, image: Grid, matrix: Matrix | None) -> torch.Tensor:
    """Where the corners of a grid lie in an image, (D, 2^D)."""
    ends = [torch.tensor([0.0, n - 1.0], dtype=torch.float64) for n in target.shape]
    corners = torch.stack(torch.meshgrid(*ends, indexing="ij")).flatten(1)
    way = index_map(target, image) if matrix is None else image.point_to_index() @ matrix @ target.index_to_point()
    return transform_index(way, corners)


def _inside(index: torch.Tensor, shape: tuple[int, ...]) -> bool:
    """Whether a convex set with these corners may have a part within an image."""
    return all(float(row.max()) >= -0.5 and float(row.min()) < n - 0.5 for row, n in zip(index, shape, strict=True))


def _field(grid: Grid, matrix: Matrix) -> Field:
    """A linear map as a field."""
    way = grid.point_to_index() @ matrix @ grid.index_to_point()
    index = base_index(grid.shape, like=torch.empty(0, dtype=torch.float64))
    return Field((transform_index(way, index) - index).float(), grid)


def scaled_by(matrix: Matrix) -> float:
    """By how much a linear map stretches at most."""
    return float(np.linalg.norm(apply_linear(matrix, torch.eye(len(matrix) - 1, dtype=torch.float64)).numpy(), 2))
