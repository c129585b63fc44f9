"""The samples of an image as it holds them, whatever its package, and what is made of them: values or labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from semreg.core.fields import Volume
from semreg.core.geometry import Grid, Matrix
from semreg.errors import ImageError
from semreg.io.bridge.common import tensor_of
from semreg.io.bridge.lattice import straightened

MOST_LABELS = 1 << 24
"""Numbers up to this one are exact in float32."""
NARROW = 1 << 16
"""Labels over a narrower range are counted in a table instead of being sorted."""


@dataclass(frozen=True)
class LabelMap:
    """Labels of any size, exact: their places in a table, which float32 holds, and the table."""

    numbers: Volume
    """(1, *S), each the index of a label in ``labels``; 0 is no label."""
    labels: tuple[int, ...]
    """The labels, 0 first, then ascending; those of the image."""
    names: Mapping[int, str] = field(default_factory=dict)
    """What the file calls them."""

    @property
    def grid(self) -> Grid:
        """Where the voxels lie."""
        return self.numbers.grid

    def at(self, grid: Grid) -> LabelMap:
        """The same labels on another grid of the same size."""
        return replace(self, numbers=Volume(self.numbers.data, grid))


@dataclass(frozen=True)
class Samples:
    """One value a voxel, as an image holds them."""

    array: npt.NDArray[Any]
    """(z, y, x), of the type they are stored with."""
    grid: Grid
    """What becomes of them lies on it."""
    index: Matrix | None = None
    """From an index of the grid to one of the array, where its axes are sheared; None: they lie on the grid."""

    def volume(self) -> Volume:
        """As float32 (1, *S), a copy; linear where they are resampled."""
        return Volume(tensor_of(straightened(self._real(), self.grid, self.index, nearest=False))[None], self.grid)

    def labels(self, name: str = "image", names: Mapping[int, str] | None = None) -> LabelMap:
        """As labels, exact; the nearest ones where they are resampled. Raises ImageError for what is no label."""
        values = straightened(self._real(), self.grid, self.index, nearest=True)
        if values.dtype.kind == "f":
            if not np.isfinite(values).all():
                raise ImageError(
                    f"expected labels in the {name} label map, got NaN or infinity: write 0 where there is none"
                )
            odd = values != np.rint(values)
            if odd.any():
                raise ImageError(
                    f"expected whole numbers in the {name} label map, got {float(values[odd][0]):g}: "
                    "give labels, not an image or probabilities"
                )
        found, places = _numbered(values)
        labels = (0, *(int(value) for value in found if value != 0))
        if len(labels) > MOST_LABELS:
            raise ImageError(f"expected at most 2^24 different labels in the {name} label map, got {len(labels)}")
        return LabelMap(Volume(torch.from_numpy(places)[None], self.grid), labels, dict(names or {}))

    def _real(self) -> npt.NDArray[Any]:
        if self.array.dtype.kind not in "biuf":
            raise ImageError(f"expected voxels that are real numbers, got {self.array.dtype}: convert the array first")
        return self.array.astype(np.uint8) if self.array.dtype.kind == "b" else self.array


def _numbered(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """The different values, ascending, and of each sample its place among those that are not 0, from 1; 0 for 0."""
    low, high = int(values.min()), int(values.max())
    if high - low > NARROW or high > 1 << 62:
        found, inverse = np.unique(values, return_inverse=True)
        return found, _places(found)[inverse.reshape(values.shape)]
    there = np.zeros(high - low + 1, dtype=bool)
    for plane in values:
        there[plane.astype(np.int64) - low] = True
    table = np.zeros(there.size, dtype=np.float32)
    found = np.flatnonzero(there) + low
    table[there] = _places(found)
    result = np.empty(values.shape, dtype=np.float32)
    for number, plane in enumerate(values):
        result[number] = table[plane.astype(np.int64) - low]
    return found, result


def _places(found: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.asarray(np.cumsum(found != 0) * (found != 0), dtype=np.float32)
