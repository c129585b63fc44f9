"""Whether one map matches better than another all over the image, or in a few places by chance: block by block.

A map was chosen because it matches, so its match says too much. What decides is how blocks of the image match through a
map that was found without them, and how much the difference varies from block to block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from semreg.registration.parametric.descent import Descent, Placed
from semreg.registration.parametric.telling import Heard
from semreg.transforms.base import Parametric

BLOCK = 8
"""Voxels a side of a block: more than a descriptor sees, so that each block tells by itself, and few enough that an
image has some dozens of blocks on the voxels of the search."""
FEWEST_BLOCKS = 6
"""With fewer there is no telling."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Blocks:
    """The match of two pictures, cut into ``count`` blocks of the fixed one."""

    descent: Descent
    number: npt.NDArray[np.intp]
    """Of the block of each voxel, (*S)."""
    odd: npt.NDArray[np.bool_]
    """Which blocks are of the second half, as on a chessboard, (K,)."""

    @classmethod
    def of(cls, descent: Descent) -> Blocks:
        """Cut the fixed picture's grid."""
        shape = descent.grid.shape
        along = np.meshgrid(*[np.arange(n) // BLOCK for n in shape], indexing="ij")
        counts = [int(index.max()) + 1 for index in along]
        return cls(descent, np.ravel_multi_index(along, counts), np.indices(counts).sum(0).ravel() % 2 == 1)

    def shares(self, transform: Parametric) -> Array:
        """What each block adds to the match of a transform, (K,)."""
        gain = self.descent.gains(transform).cpu().numpy()
        return np.asarray(np.bincount(self.number.ravel(), gain.ravel(), len(self.odd)), dtype=np.float64)

    def held_out(self, start: Placed, family: str, iterations: int, tell: Heard) -> Array:
        """What each block adds to the match of a map of a family that was found, from ``start``, without it, (K,)."""
        result = np.zeros(len(self.odd))
        for odd in (False, True):
            counted = torch.as_tensor(self.odd[self.number] == odd)
            half = self.descent.within(counted)
            found = half.descend(half.begin(family, start.matrix), iterations, tell)
            result = np.where(self.odd != odd, self.shares(found.transform), result)
        return result


def certainty(better: Array, worse: Array, factor: float = 1.0) -> float:
    """By how many standard errors ``better`` exceeds ``factor`` times ``worse``, over blocks that show something."""
    difference = better - factor * worse
    shown = difference[(better != 0) | (worse != 0)]
    if len(shown) < FEWEST_BLOCKS:
        return 0.0
    error = float(shown.std(ddof=1)) / math.sqrt(len(shown))
    return float(shown.mean()) / error if error > 0 else 0.0
