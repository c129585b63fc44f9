"""Boxes of samples: a grid cut into blocks, with what lies around them. Knows nothing of images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from semreg.core.geometry import Grid


@dataclass(frozen=True)
class Box:
    """Samples from ``start`` to below ``stop``, per tensor axis."""

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples per axis."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def slices(self) -> tuple[slice, ...]:
        """As indices of an array."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def grown(self, by: int, shape: Sequence[int]) -> Box:
        """With ``by`` samples more on every side, as far as an array of ``shape`` has them."""
        return Box(
            tuple(max(0, a - by) for a in self.start),
            tuple(min(n, b + by) for b, n in zip(self.stop, shape, strict=True)),
        )

    def within(self, outer: Box) -> tuple[slice, ...]:
        """Where it lies in an array that holds ``outer``."""
        spans = zip(self.start, self.stop, outer.start, strict=True)
        return tuple(slice(a - o, b - o) for a, b, o in spans)

    def times(self, factor: int, shape: Sequence[int]) -> Box:
        """The samples whose blocks of ``factor`` an axis these are the means of, in an array of ``shape``."""
        return Box(
            tuple(a * factor for a in self.start),
            tuple(min(b * factor, n) for b, n in zip(self.stop, shape, strict=True)),
        )

    def of(self, grid: Grid) -> Grid:
        """The grid of these samples of ``grid``."""
        return grid.part(self.start, self.stop)

    @classmethod
    def around(cls, index: Tensor, shape: Sequence[int], margin: int = 1) -> Self | None:
        """The samples around places ``index`` (D, P), ``margin`` more on every side; None: an array has none there."""
        start, stop = [], []
        for axis, n in enumerate(shape):
            start.append(max(0, math.floor(float(index[axis].min())) - margin))
            stop.append(min(n, math.ceil(float(index[axis].max())) + margin + 1))
            if stop[-1] <= start[-1]:
                return None
        return cls(tuple(start), tuple(stop))


def blocks_of(shape: Sequence[int], size: int) -> list[Box]:
    """An array of ``shape`` cut into blocks of ``size`` samples an axis; the last ones may be smaller."""
    return [
        Box(corner, tuple(min(c + size, n) for c, n in zip(corner, shape, strict=True)))
        for corner in itertools.product(*[range(0, n, size) for n in shape])
    ]
