"""Three blobs at fixed places in space, on any grid: what tests of the command register."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from semreg.core.fields import Volume
from semreg.core.geometry import Grid


def blobs(grid: Grid, shift_mm: Sequence[float] = (0.0, 0.0, 0.0)) -> Volume:
    """Three blobs of different size at fixed places in space, moved by ``shift_mm``, 0 to about 900."""
    index = np.indices(grid.shape).reshape(grid.dimension, -1)
    points = (grid.index_to_point() @ np.vstack([index, np.ones(index.shape[1])]))[:-1]
    middle = np.array([3.0, -7.0, 11.0])[: grid.dimension] + np.array(shift_mm)[: grid.dimension]
    values = np.zeros(points.shape[1])
    for offset, width, height in (((-8, 4, 3), 5, 500), ((7, -5, -4), 6, 900), ((3, 8, 6), 4, 300)):
        away = points - (middle + np.array(offset)[: grid.dimension])[:, None]
        values += height * np.exp(-(away**2).sum(0) / (2 * width**2))
    return Volume(torch.from_numpy(values.reshape(1, *grid.shape)).float(), grid)
