"""An image of OME-Zarr that is written block by block, and its coarser resolutions. Knows nothing of registration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semreg.core.geometry import Grid
from semreg.core.sampling import pool
from semreg.errors import ConfigError, GeometryError
from semreg.io.ngff.pyramid import EXTRA

SMALLEST = 64
"""Samples of the longest axis below which there is no coarser resolution."""
AXES = "zyx"

Box = tuple[tuple[int, int], ...]
"""From … to below, for each axis."""


@dataclass(frozen=True)
class PyramidWriter:
    """Where an image of one channel is written: NGFF 0.5, millimetres, block means below the finest resolution.

    Each call opens the store anew, so processes may write blocks side by side, as long as these hold whole chunks.
    """

    path: Path
    grid: Grid
    dtype: str
    chunk: int = 128

    def __post_init__(self) -> None:
        """Refuse axes that OME-Zarr cannot say (GeometryError)."""
        if not np.allclose(np.asarray(self.grid.direction), np.eye(self.grid.dimension), atol=1e-6):
            raise GeometryError(
                "expected an image along x, y, z to write as OME-Zarr, got turned or swapped axes, for which NGFF 0.5 "
                "has no word: give a --reference along the axes, or another format"
            )

    @cached_property
    def grids(self) -> tuple[Grid, ...]:
        """Of all resolutions, the finest first."""
        found = [self.grid]
        while max(found[-1].shape) > SMALLEST:
            found.append(found[-1].pooled(2))
        return tuple(found)

    def create(self) -> None:
        """Make the arrays, empty, and the metadata."""
        try:
            import zarr
            from ome_zarr.format import FormatV05
            from ome_zarr.writer import write_multiscales_metadata
        except ImportError:
            raise ConfigError(f"expected the packages zarr and ome-zarr to write, not installed: {EXTRA}") from None
        n, form = self.grid.dimension, FormatV05()
        group = zarr.open_group(str(self.path), mode="w", zarr_format=form.zarr_format)
        datasets = []
        for number, grid in enumerate(self.grids):
            chunks = tuple(min(self.chunk, size) for size in grid.shape)
            group.create_array(
                str(number), shape=grid.shape, chunks=chunks, dtype=self.dtype, dimension_names=AXES[-n:]
            )
            transformations = [
                {"type": "scale", "scale": list(grid.spacing)},
                {"type": "translation", "translation": list(grid.origin_xyz[::-1])},
            ]
            datasets.append({"path": str(number), "coordinateTransformations": transformations})
        axes = [{"name": name, "type": "space", "unit": "millimeter"} for name in AXES[-n:]]
        write_multiscales_metadata(group, datasets, fmt=form, axes=axes, name=self.path.name)

    def boxes(self, level: int = 0) -> list[Box]:
        """The chunks of a resolution."""
        return list(_boxes(self.grids[level].shape, self.chunk))

    def write(self, box: Box, values: npt.NDArray[Any], level: int = 0) -> None:
        """Write the samples of a box."""
        self._array(level)[tuple(slice(*span) for span in box)] = values

    def coarsen(self, level: int, box: Box, *, nearest: bool = False) -> None:
        """Write a box of a coarser resolution: means of 2 samples an axis of the next finer one, where it has so many.

        Whole numbers are rounded; with ``nearest`` the first sample of each block stands for it, which keeps labels.
        The finer one must be complete there.
        """
        import torch

        finer = self.grids[level - 1].shape
        factors = tuple(min(2, n) for n in finer)
        source = tuple(slice(a * f, min(b * f, n)) for (a, b), f, n in zip(box, factors, finer, strict=True))
        found = np.asarray(self._array(level - 1)[source])
        if nearest:
            self.write(box, found[tuple(slice(None, None, f) for f in factors)], level)
            return
        values = found.astype(np.float32)
        means = pool(torch.from_numpy(values)[None], factors)[0].numpy()
        whole = np.dtype(self.dtype).kind != "f"
        self.write(box, np.rint(means).astype(self.dtype) if whole else means.astype(self.dtype), level)

    def _array(self, level: int) -> Any:
        import zarr

        return zarr.open_group(str(self.path), mode="r+")[str(level)]


def _boxes(shape: Sequence[int], size: int) -> Iterator[Box]:
    for corner in itertools.product(*[range(0, n, size) for n in shape]):
        yield tuple((c, min(c + size, n)) for c, n in zip(corner, shape, strict=True))
