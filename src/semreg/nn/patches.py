"""Which parts of an image are compared: boxes at fixed or at random places. Knows no features."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from semreg.runtime.settings import require

Box: TypeAlias = tuple[slice, ...]
"""One slice for each spatial axis."""


@dataclass(frozen=True, kw_only=True)
class Patches:
    """Compare patches in place of whole images: less memory, and for networks that take one size, that size."""

    size: tuple[int, ...]
    """Voxels: one number, or one for each spatial axis. An image that is smaller is taken whole."""
    count: int | None = None
    """So many at random places of each image, drawn anew in each call. None: side by side over the whole image; the
    last ones of an axis overlap those before, so that all have one size."""

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        known = len(self.size) in (1, 2, 3) and all(n >= 1 for n in self.size)
        require(known, "patches of one size in voxels, or one for each axis, above 0", self.size)
        require(self.count is None or self.count >= 1, "one patch or more, or none for all", self.count)

    def boxes(self, shape: Sequence[int], generator: torch.Generator | None) -> list[Box]:
        """The patches of an image of ``shape``.

        Args:
            shape: voxels of the image along each spatial axis.
            generator: what random places are drawn from; it is not asked where they are fixed.

        Returns:
            The boxes, each with as many slices as the image has spatial axes.

        Raises:
            ConfigError: for another number of axes than the sizes have.
        """
        fits = len(self.size) in (1, len(shape))
        require(fits, f"patches of one size or {len(shape)} of them for images of {len(shape)} axes", self.size)
        wanted = self.size * len(shape) if len(self.size) == 1 else self.size
        size = [min(n, m) for n, m in zip(wanted, shape, strict=True)]
        room = [m - n for n, m in zip(size, shape, strict=True)]
        if self.count is None:
            starts = list(itertools.product(*map(_side_by_side, room, size)))
        else:
            drawn = [torch.randint(n + 1, (self.count,), generator=generator).tolist() for n in room]
            starts = list(zip(*drawn, strict=True))
        return [tuple(slice(a, a + n) for a, n in zip(start, size, strict=True)) for start in starts]


def _side_by_side(room: int, size: int) -> list[int]:
    """First voxels of patches along one axis, the last of which ends with the image."""
    return [*range(0, room, size), room]
