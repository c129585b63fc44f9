"""An image in chunks, opened: its resolutions, each with its grid, read box by box. Holds no voxels.

Axes beside those of space, as channels and times, have one sample or are chosen by name: ``c=1,t=0``.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from semreg.core.fields import Volume
from semreg.core.geometry import Grid
from semreg.errors import ConfigError, ImageError

EXTRA = "pip install 'semreg[zarr]'"


@dataclass(frozen=True)
class Resolution:
    """One resolution of an image: an array whose samples are read box by box."""

    array: Any
    """Of zarr."""
    grid: Grid
    where: tuple[int | None, ...]
    """Which sample of each axis of the array; None: it is an axis of the grid."""
    pooling: int = 1
    """Block means over so many samples of the array along each axis are the samples of ``grid``."""

    @property
    def dtype(self) -> str:
        """The type the voxels are stored with."""
        return str(np.dtype(self.array.dtype).name)

    @property
    def chunk(self) -> tuple[int, ...]:
        """Samples of a chunk, in the order of the axes of ``grid``."""
        return tuple(max(1, c // self.pooling) for c, w in zip(self.array.chunks, self.where, strict=True) if w is None)

    def stored(self, start: Sequence[int], stop: Sequence[int]) -> npt.NDArray[Any]:
        """The samples of a box, ``stop`` is the index after the last one; as they are stored, or their means."""
        try:
            if self.pooling > 1:
                return self._means(start, stop)
            spans = iter(zip(start, stop, strict=True))
            return np.asarray(self.array[tuple(slice(*next(spans)) if w is None else w for w in self.where)])
        except (OSError, RuntimeError, ValueError) as error:  # of the codecs, each its own
            where = f"{self.array.store} {self.array.path}".strip()
            raise ImageError(f"expected chunks that can be read, got {where}: {error}; copy the image again") from error

    def read(self, start: Sequence[int], stop: Sequence[int]) -> Volume:
        """The samples of a box as float32 (1, *S), on their grid."""
        values = self.stored(start, stop).astype(np.float32, copy=False)
        return Volume(torch.from_numpy(np.ascontiguousarray(values))[None], self.grid.part(start, stop))

    def whole(self) -> Volume:
        """All samples."""
        return self.read([0] * self.grid.dimension, self.grid.shape)

    def coarsened(self, factor: int) -> Resolution:
        """Means over ``factor`` samples along each axis; what is left over at the ends is left out."""
        shape = [max(1, n // factor) for n in self.grid.shape]
        grid = self.grid.lattice([(factor - 1) / 2] * len(shape), [float(factor)] * len(shape), shape)
        return Resolution(self.array, grid, self.where, self.pooling * factor)

    def _means(self, start: Sequence[int], stop: Sequence[int]) -> npt.NDArray[Any]:
        """Block by block of the chunks, so that the array is never held whole."""
        import dask

        da: Any = importlib.import_module("dask.array")

        whole = da.from_zarr(self.array)[tuple(slice(None) if w is None else w for w in self.where)]
        box = whole[tuple(slice(a * self.pooling, b * self.pooling) for a, b in zip(start, stop, strict=True))]
        means = da.coarsen(np.mean, box.astype(np.float32), dict.fromkeys(range(box.ndim), self.pooling))
        with dask.config.set(scheduler="synchronous"):
            return np.asarray(means.compute(), dtype=np.float32)


@dataclass(frozen=True)
class Pyramid:
    """All resolutions of an image, the finest first."""

    path: Path
    levels: tuple[Resolution, ...]
    notes: tuple[str, ...] = ()
    axes: tuple[str, ...] = field(default=())

    @property
    def finest(self) -> Resolution:
        """The image itself."""
        return self.levels[0]

    @cached_property
    def dimension(self) -> int:
        """2 or 3."""
        return self.finest.grid.dimension

    def within(self, voxels: int) -> tuple[int, Resolution]:
        """The finest resolution of at most so many voxels, and its number.

        Where the coarsest one has more, it is the mean of blocks of that one, and the number is that of the coarsest.
        """
        for number, level in enumerate(self.levels):
            if level.grid.voxels <= voxels:
                return number, level
        number, level = len(self.levels) - 1, self.levels[-1]
        factor = 2
        while level.coarsened(factor).grid.voxels > voxels:
            factor += 1
        return number, level.coarsened(factor)


def chosen_samples(choice: str | None, names: Sequence[str]) -> dict[str, int]:
    """``c=1,t=0`` as numbers by axis (ConfigError)."""
    found = {}
    for part in [] if choice is None else choice.split(","):
        name, _, number = (word.strip() for word in part.partition("="))
        if name not in names or not number.isdecimal():
            raise ConfigError(f"expected samples of axes such as c=0,t=2 of {', '.join(names)}, got {choice!r}")
        found[name] = int(number)
    return found


def sample_of(name: str, count: int, chosen: dict[str, int]) -> int:
    """Which of ``count`` samples of an axis is read (ImageError where that is open, or there is none)."""
    if name in chosen:
        if chosen[name] >= count:
            raise ImageError(f"expected {name} from 0 to {count - 1}, got {chosen[name]}: choose another")
        return chosen[name]
    if count > 1:
        raise ImageError(
            f"expected one sample along the axis {name}, got {count}: choose one, such as {name}=0 "
            "(--fixed-series, --moving-series, --series)"
        )
    return 0
