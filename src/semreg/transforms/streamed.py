"""Images in chunks through a transform, block by block: what is read of the image is what a block of the result sees.

Knows nothing of registration.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from semreg.core.geometry import Grid, index_map
from semreg.core.sampling import Mode, sample, transform_index
from semreg.errors import ConfigError, GeometryError, OutputError
from semreg.io.atomic_output import atomic_file
from semreg.io.bridge import PIXEL_TYPES, to_pixels
from semreg.io.ngff.opening import open_pyramid
from semreg.io.ngff.pyramid import Pyramid, Resolution
from semreg.io.ngff.writing import PyramidWriter
from semreg.transforms.chain import Chain
from semreg.transforms.domain import Outside

MOST_READ = 1 << 27
"""Voxels of the image that are read for one block at most: one that is torn wide is done in halves."""


class Way(Protocol):
    """Where the voxels of a grid are read in an image."""

    def index(self, grid: Grid, target: Grid) -> Float[Tensor, "d *s"]:
        """The index (D, *S) in ``target`` of each sample of ``grid``."""


@dataclass(frozen=True)
class ChainWay:
    """By a chain of transforms of any kind."""

    chain: Chain
    outside: Outside = Outside.IDENTITY

    def index(self, grid: Grid, target: Grid) -> Float[Tensor, "d *s"]:
        """As ``Way``."""
        field = self.chain.field_on(grid, self.outside)
        return transform_index(index_map(grid, target), field.index())


def warped(image: Resolution, way: Way, grid: Grid, outside: float, *, mode: Mode = "linear") -> Float[Tensor, "1 *s"]:
    """An image on a grid, usually a block, read where ``way`` leads from there.

    Args:
        image: what is read.
        way: grid → image.
        grid: where the result lies.
        outside: the value where the image shows nothing.
        mode: ``linear`` or ``nearest`` interpolation.

    Returns:
        The samples (1, *S), float32; exact for whole numbers up to 2²⁴.
    """
    index = way.index(grid, image.grid)
    spans = []
    for axis, n in enumerate(image.grid.shape):
        low, high = int(np.floor(float(index[axis].min()))) - 1, int(np.ceil(float(index[axis].max()))) + 2
        spans.append((max(0, low), min(n, high)))
    if any(stop <= start for start, stop in spans):
        return torch.full((1, *grid.shape), outside)
    if np.prod([stop - start for start, stop in spans]) > MOST_READ and max(grid.shape) > 1:
        return torch.cat([warped(image, way, half, outside, mode=mode) for half in _halves(grid)], 1 + _longest(grid))
    start = torch.tensor([a for a, _ in spans], dtype=index.dtype).reshape(-1, *[1] * grid.dimension)
    read = image.read([a for a, _ in spans], [b for _, b in spans]).data
    return sample(read, (index - start).to(read.dtype), mode=mode, outside=outside)


def pixels(values: Tensor, dtype: str) -> npt.NDArray[np.generic]:
    """The samples (1, *S) as an array (*S) of a type of voxels: rounded and clipped for whole numbers."""
    kind = dtype if dtype in PIXEL_TYPES else "float32"
    return np.asarray(to_pixels(values[0], kind))


@dataclass(frozen=True)
class Reading:
    """How an image is read."""

    mode: Mode = "linear"
    background: float | None = None
    """The value where it shows nothing; None: its smallest one, as far as its coarser resolutions show it; of the
    nearest voxel 0."""
    outside: Outside = Outside.IDENTITY
    """What is read beyond the boxes of the chain's fields."""
    choice: str | None = None
    """Which sample of further axes."""


@dataclass(frozen=True)
class Streamed:
    """An image that was brought onto a grid block by block."""

    size: tuple[int, ...]
    """x y(, z)."""
    pixel_type: str
    background: float
    blocks: int


def warp_streamed(
    source: str | Path,
    output: str | Path,
    chain: Chain,
    grid: Grid,
    reading: Reading | None = None,
    *,
    block: int = 128,
) -> Streamed:
    """Bring an image in chunks through a transform into OME-Zarr, block by block; neither is ever held whole.

    Args:
        source: a folder of OME-Zarr or a whole slide.
        output: a folder of OME-Zarr that is not there yet, whose name ends in ``.zarr``.
        chain: the transform, grid → image.
        grid: that of the result.
        reading: how the image is read.
        block: voxels of a block along each axis.

    Returns:
        What was written.

    Raises:
        ImageError: for a source that is none.
        GeometryError: for a grid of another dimension, or along other axes than x, y, z.
        OutputError: where the folder is there already, or cannot be written; then nothing is left.
    """
    how = reading or Reading()
    image = open_pyramid(source, how.choice)
    if image.dimension != grid.dimension or chain.dimension != grid.dimension:
        raise GeometryError(
            f"expected an image and a transform in {grid.dimension}-D as the reference, got {image.dimension}-D and "
            f"{chain.dimension}-D: give images of one dimension"
        )
    if how.outside is Outside.BACKGROUND:
        raise ConfigError(
            "expected --outside identity or continue for an image in chunks, got background: leave it out"
        )
    if Path(output).exists():
        raise OutputError(f"expected a new name for the output, got {output}, which is there: remove it first")
    value = _background(image) if how.background is None and how.mode == "linear" else how.background or 0.0
    kind = image.finest.dtype if image.finest.dtype in PIXEL_TYPES else "float32"
    way = ChainWay(chain, how.outside)
    with atomic_file(output) as partial:
        writer = PyramidWriter(partial, grid, kind, chunk=block)
        writer.create()
        for box in writer.boxes():
            part = grid.part([a for a, _ in box], [b for _, b in box])
            writer.write(box, pixels(warped(image.finest, way, part, value, mode=how.mode), kind))
        for level in range(1, len(writer.grids)):
            for box in writer.boxes(level):
                writer.coarsen(level, box, nearest=how.mode == "nearest")
    return Streamed(grid.size_xyz, kind, value, len(writer.boxes()))


def _background(image: Pyramid) -> float:
    values = image.within(1 << 22)[1].whole().data
    return float(values[torch.isfinite(values)].min())


def _longest(grid: Grid) -> int:
    return int(np.argmax(grid.shape))


def _halves(grid: Grid) -> tuple[Grid, Grid]:
    axis, zero, end = _longest(grid), [0] * grid.dimension, list(grid.shape)
    middle = grid.shape[axis] // 2
    return (
        grid.part(zero, [middle if a == axis else n for a, n in enumerate(end)]),
        grid.part([middle if a == axis else 0 for a in range(len(end))], end),
    )
