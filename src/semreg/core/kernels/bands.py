"""Which columns of a matrix each block of its rows needs. Computes no product."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def blocks(matrix: Tensor, size: int) -> list[tuple[slice, slice]]:
    """Blocks of ``size`` rows of a matrix, and the columns from the first to the last that is not 0 in each."""
    filled = matrix.detach().cpu().numpy() != 0
    starts = np.arange(0, len(filled), size)
    columns = np.logical_or.reduceat(filled, starts, axis=0)
    first, last = columns.argmax(1), columns.shape[1] - columns[:, ::-1].argmax(1)
    last[~columns.any(1)] = 0
    rows = [slice(start, min(start + size, len(filled))) for start in starts.tolist()]
    return list(zip(rows, map(slice, first.tolist(), last.tolist()), strict=True))
