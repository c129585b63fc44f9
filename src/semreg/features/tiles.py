"""How a lattice is cut into tiles that fit into memory: positions, overlaps, blending windows. Knows no model.

Along each axis the network reaches ``halo`` voxels beyond what an output is placed at. Where that is known, tiles
overlap by the halo and each keeps its *core*: the cores fit together without a seam and the result is that of the
whole lattice. Where it is not (``None``: the whole extent influences every output), tiles overlap and are blended.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

MOST_PARTS = 256
"""Parts of one axis at most."""


FAIR = 48
"""Voxels that a blended tile has along each axis, if memory allows: thin ones would see little of the image."""


@dataclass(frozen=True)
class Span:
    """Part of one axis: the tile is [start, stop), its core [first, last)."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def size(self) -> int:
        """Voxels of the tile along this axis."""
        return self.stop - self.start


@dataclass(frozen=True)
class Cut:
    """How one axis is cut: its ``spans``, and whether neighbours are blended (else each keeps its core)."""

    spans: tuple[Span, ...]
    blended: bool

    @cached_property
    def longest(self) -> int:
        """Voxels of the longest tile."""
        return max(span.size for span in self.spans)

    @cached_property
    def computed(self) -> int:
        """Voxels that are computed in all."""
        return sum(span.size for span in self.spans)


@dataclass(frozen=True)
class Axis:
    """What a cut of one axis must respect: its size, the halo in voxels (None: everything counts), the alignment."""

    size: int
    halo: int | None
    align: int = 1
    overlap: float = 0.5
    """Share of a tile that neighbours share where they are blended."""
    lost: int = 0
    """Voxels of a tile without an output: neighbours overlap by more, or there would be gaps."""

    def parts(self, count: int) -> Cut | None:
        """The axis in ``count`` tiles of about equal size; None if it cannot be cut so often."""
        if count == 1:
            return Cut((Span(0, self.size, 0, self.size),), blended=False)
        if self.halo is None:
            tile = math.ceil(self.size / (1 + (count - 1) * (1 - self.overlap)))
            return self.tiles_of(_up(tile, self.align))
        halo = _up(self.halo, self.align)
        return self.tiles_of(_up(math.ceil((self.size + 2 * halo * (count - 1)) / count), self.align))

    def tiles_of(self, tile: int) -> Cut | None:
        """The axis in tiles of ``tile`` voxels (a multiple of the alignment); None where the halo leaves no core."""
        if tile >= self.size:
            return Cut((Span(0, self.size, 0, self.size),), blended=False)
        if self.halo is None:
            return self._blended(tile)
        halo = _up(self.halo, self.align)
        step = tile - 2 * halo
        if step < self.align:
            return None
        step -= step % self.align
        starts = [0]
        while starts[-1] + tile < self.size:
            starts.append(starts[-1] + step)
        firsts = [0, *[start + halo for start in starts[1:]], self.size]
        spans = [
            Span(start, min(start + tile, self.size), first, last)
            for start, first, last in zip(starts, firsts, firsts[1:], strict=False)
        ]
        return Cut(tuple(spans), blended=False)

    def _blended(self, tile: int) -> Cut | None:
        """Tiles of one size, evenly spread; the last one may end up to an alignment beyond the axis."""
        step = max(self.align, _down(int(tile * (1 - self.overlap)), self.align))
        step = min(step, _down(tile - self.lost, self.align))
        if step < self.align:
            return None
        last = _up(self.size - tile, self.align)
        count = 1 + math.ceil(last / step)
        starts = sorted({_down(round(last * i / (count - 1)), self.align) for i in range(count)})
        return Cut(tuple(Span(a, a + tile, a, a + tile) for a in starts), blended=True)


@dataclass(frozen=True)
class Plan:
    """One cut an axis; the tiles are all combinations, the first axis slowest."""

    cuts: tuple[Cut, ...]

    @property
    def tiles(self) -> list[tuple[Span, ...]]:
        """All tiles."""
        return list(itertools.product(*[cut.spans for cut in self.cuts]))

    @property
    def sizes(self) -> list[list[int]]:
        """Voxels of all tiles along the tensor axes."""
        return [[span.size for span in tile] for tile in self.tiles]

    @property
    def largest(self) -> int:
        """Voxels of the largest tile."""
        return math.prod(cut.longest for cut in self.cuts)

    @property
    def computed(self) -> int:
        """Voxels that are computed, those of the halos included."""
        return math.prod(cut.computed for cut in self.cuts)

    @property
    def blended(self) -> bool:
        """Whether tiles are blended, so that the result depends on them."""
        return any(cut.blended for cut in self.cuts)


def plan_tiles(axes: Sequence[Axis], most_voxels: float) -> Plan | None:
    """The cut with the fewest computed voxels whose tiles have at most ``most_voxels``; None if there is none.

    Axes that can be cut exactly are cut first; axes without a halo only where that is not enough, into no thin slabs.
    """
    exact = _best([[1] if axis.halo is None else None for axis in axes], axes, most_voxels)
    return exact or _best([None for _ in axes], axes, most_voxels)


def plan_patches(axes: Sequence[Axis], patch: Sequence[int]) -> Plan | None:
    """Tiles of a given size: exact where the halo leaves a core, else blended; None where they would leave gaps."""
    cuts = []
    for axis, size in zip(axes, patch, strict=True):
        tile = min(_up(size, axis.align), _up(axis.size, axis.align))
        cut = axis.tiles_of(tile) or replace(axis, halo=None).tiles_of(tile)
        if cut is None:
            return None
        cuts.append(cut)
    return Plan(tuple(cuts))


def _best(choices: Sequence[list[int] | None], axes: Sequence[Axis], most_voxels: float) -> Plan | None:
    """The best of all combinations of cuts: no thin blended tiles, then the fewest computed voxels."""
    options = [
        [(cut.longest, cut.computed, _lacking(cut), cut) for cut in _options(axis, counts)]
        for axis, counts in zip(axes, choices, strict=True)
    ]
    best: tuple[tuple[int, int], tuple[Cut, ...]] | None = None
    for combination in itertools.product(*options):
        largest = computed = 1
        lacking = 0
        for longest, total, lack, _ in combination:
            largest, computed, lacking = largest * longest, computed * total, max(lacking, lack)
        if largest <= most_voxels and (best is None or (lacking, computed) < best[0]):
            best = (lacking, computed), tuple(cut for *_, cut in combination)
    return None if best is None else Plan(best[1])


def _lacking(cut: Cut) -> int:
    """Voxels that the tiles lack of a fair surrounding where they are blended."""
    return max(0, min(FAIR, cut.spans[-1].stop) - cut.longest) if cut.blended else 0


def _options(axis: Axis, counts: list[int] | None) -> list[Cut]:
    """Cuts of one axis with tiles that become smaller and smaller."""
    options: list[Cut] = []
    for count in counts or _counts():
        cut = axis.parts(count)
        if cut is None:
            break
        if not options or cut.longest < options[-1].longest:
            options.append(cut)
    return options


def _counts() -> list[int]:
    dense = list(range(1, 13))
    while dense[-1] < MOST_PARTS:
        dense.append(math.ceil(dense[-1] * 1.4))
    return dense


def window(span: Span, cut: Cut) -> Float[Tensor, "{span.size}"]:
    """Weights of one tile along its axis, (span.size,): rising and falling cosines, above 0, where it is blended.

    Where the tile ends with the axis the weight stays 1.
    """
    weights = torch.ones(span.size)
    if not cut.blended:
        return weights
    position = cut.spans.index(span)
    before = cut.spans[position - 1].stop - span.start if position > 0 else 0
    after = span.stop - cut.spans[position + 1].start if position + 1 < len(cut.spans) else 0
    for shared, flip in ((before, False), (after, True)):
        length = min(shared, span.size)
        if length > 0:
            ramp = 0.5 - 0.5 * torch.cos(math.pi * (torch.arange(length) + 0.5) / length)
            part = slice(span.size - length, None) if flip else slice(0, length)
            weights[part] = torch.minimum(weights[part], ramp.flip(0) if flip else ramp)
    return weights


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _down(value: int, multiple: int) -> int:
    return value // multiple * multiple
