"""What becomes of the tiles that a network returns: maps of all channels, or one map of labels. Knows no network.

A collector is told the shapes of the outputs, then handed one tile after the other, the first axis slowest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from semreg.core.geometry import Grid, index_map
from semreg.core.sampling import pool, resample
from semreg.core.shapes import Channels, Map

PLANES_BYTES = 1 << 26
"""Bytes of what is compared at once."""


@dataclass(frozen=True)
class Piece:
    """Part of one output: ``values`` (C, *T) and where its first sample lies, ``start``, in samples of the output.

    Where tiles are blended ``window`` (*T) weighs it, else it is final within ``core``, a first and a last sample per
    axis; beyond are the neighbours that the collector asked for. ``complete`` is the number of planes of the first
    axis that no later piece touches.
    """

    layer: int
    values: Float[Tensor, "c *s"]
    start: tuple[int, ...]
    core: tuple[tuple[int, int], ...]
    window: Float[Tensor, "*t"] | None
    complete: int

    @property
    def region(self) -> tuple[slice, ...]:
        """Where it lies in the output, the channels included."""
        shape = self.values.shape[1:]
        return (slice(None), *[slice(a, a + n) for a, n in zip(self.start, shape, strict=True)])


class Collector(Protocol):
    """Takes the pieces of all outputs.

    ``multiple``: cores of pieces start at multiples of so many samples. ``margin``: samples beyond its core that a
    piece comes with, where tiles are not blended and there are any.
    """

    multiple: int
    margin: int

    def begin(self, shapes: Sequence[tuple[int, ...]], *, blended: bool) -> None:
        """Start again for outputs of ``shapes`` (C, *S)."""

    def add(self, piece: Piece) -> None:
        """Take one piece."""

    def bytes(self, shapes: Sequence[tuple[int, ...]], share: float, *, single: bool, blended: bool) -> int:
        """Memory held for outputs of ``shapes``; a tile (``single``: the only one) has ``share`` of the first axis."""


class Maps:
    """Keeps everything, ``maps``, one (C, *S) an output; block means over ``pooling`` samples."""

    def __init__(self, pooling: Sequence[int] | int = 1, *, copied: bool = False) -> None:
        """``pooling``: one factor for all outputs, or one each. ``copied``: each map will be copied once in the end."""
        self._copied = copied
        self.pooling = pooling
        self.multiple = pooling if isinstance(pooling, int) else math.lcm(*pooling)
        self.margin = 0
        self.maps: list[Map] = []
        self._weights: list[Float[Tensor, "*_s"]] = []

    def factor(self, layer: int) -> int:
        """Samples of an output that become one."""
        return self.pooling if isinstance(self.pooling, int) else self.pooling[layer]

    def begin(self, shapes: Sequence[tuple[int, ...]], *, blended: bool) -> None:
        """Forget all pieces."""
        self.maps = []
        for layer, shape in enumerate(shapes):
            factor = 1 if blended else self.factor(layer)
            reduced = [-(-n // min(factor, n)) for n in shape[1:]]
            make = torch.zeros if blended else torch.empty
            self.maps.append(make((shape[0], *reduced)))
        self._weights = [torch.zeros(shape[1:]) for shape in shapes] if blended else []

    def add(self, piece: Piece) -> None:
        """Take one piece."""
        if piece.window is not None:
            self.maps[piece.layer][piece.region].addcmul_(piece.values, piece.window)
            self._weights[piece.layer][piece.region[1:]] += piece.window
            return
        factor = self.factor(piece.layer)
        start = tuple(a // factor for a in piece.start)
        values = pool(piece.values, factor)
        region = (slice(None), *[slice(a, a + n) for a, n in zip(start, values.shape[1:], strict=True)])
        whole = self.maps[piece.layer]
        if values.shape == whole.shape:
            self.maps[piece.layer] = values  # one tile covers all: no copy
        else:
            whole[region] = values

    def finish(self) -> list[Map]:
        """The maps, once all pieces are there."""
        for layer, weight in enumerate(self._weights):
            self.maps[layer] /= weight.clamp(min=1e-6)
            self.maps[layer] = pool(self.maps[layer], self.factor(layer))
        self._weights = []
        return self.maps

    def bytes(self, shapes: Sequence[tuple[int, ...]], share: float, *, single: bool, blended: bool) -> int:  # noqa: ARG002
        """Memory of all maps (and of the weights where tiles are blended); a single tile needs no copy."""
        factors = [1 if blended else self.factor(layer) for layer in range(len(shapes))]
        sizes = [math.prod(s) / f ** (len(s) - 1) for s, f in zip(shapes, factors, strict=True)]
        weights = sum(math.prod(shape[1:]) for shape in shapes) if blended else 0
        copy = max(sizes) if self._copied else 0
        return int(4 * ((0 if single else sum(sizes) + weights) + copy))


class Labels:
    """Keeps the index of the largest channel of one output, ``labels`` (*S); channels are dropped at once.

    The labels lie on ``target``, a grid along the same axes as ``source``, that of the output: channels are
    interpolated before they are compared, or, where tiles are blended, the label of the nearest sample is taken.
    """

    def __init__(self, source: Grid, target: Grid) -> None:
        """Nothing is there yet."""
        self.multiple = 1
        self._source, self._target = source, target
        matrix = index_map(target, source)
        self._scale = np.diag(matrix)[:-1]
        self._first = matrix[:-1, -1]
        self._same = source == target
        self.margin = 0 if self._same else 1
        self.labels = torch.empty(0)
        self._bands: Bands | None = None

    def begin(self, shapes: Sequence[tuple[int, ...]], *, blended: bool) -> None:
        """Forget all pieces."""
        (shape,) = shapes
        grid = self._source if blended else self._target
        self.labels = torch.zeros(grid.shape, dtype=label_type(shape[0]))
        self._bands = Bands(shape) if blended else None

    def add(self, piece: Piece) -> None:
        """Take one piece."""
        if self._bands is not None:
            first, band = self._bands.add(piece)
            self.labels[first : first + band.shape[1]] = _largest(band).to(self.labels)
            if self._bands.full and not self._same:
                matrix, shape = index_map(self._target, self._source), self._target.shape
                nearest = resample(self.labels[None].float(), matrix, shape, mode="nearest")
                self.labels = nearest[0].to(self.labels.dtype)
        elif self._same:
            self.labels[piece.region[1:]] = _largest(piece.values).to(self.labels)
        else:
            self._interpolate(piece)

    def _interpolate(self, piece: Piece) -> None:
        """The labels of the target's samples that lie nearest to the core of a piece, a few planes at a time."""
        ranges = [self._targets(axis, *core) for axis, core in enumerate(piece.core)]
        if not all(ranges):
            return
        starts, counts = [r.start for r in ranges], [len(r) for r in ranges]
        step = max(1, PLANES_BYTES // (4 * len(piece.values) * math.prod(counts[1:])))
        for plane in range(0, counts[0], step):
            start = [starts[0] + plane, *starts[1:]]
            shape = (min(step, counts[0] - plane), *counts[1:])
            matrix = np.diag([*self._scale, 1.0])
            matrix[:-1, -1] = self._scale * start + self._first - np.asarray(piece.start)
            region = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
            self.labels[region] = resample(piece.values, matrix, shape).argmax(0).to(self.labels)

    def _targets(self, axis: int, first: int, last: int) -> range:
        """The target's samples along an axis that lie nearest to the source's samples ``first`` to ``last``."""
        low = -math.inf if first == 0 else first - 0.5
        high = math.inf if last == self._source.shape[axis] else last - 0.5
        where = np.arange(self._target.shape[axis]) * self._scale[axis] + self._first[axis]
        inside = np.flatnonzero((where >= low) & (where < high))
        return range(int(inside[0]), int(inside[-1]) + 1) if len(inside) else range(0)

    def bytes(self, shapes: Sequence[tuple[int, ...]], share: float, *, single: bool, blended: bool) -> int:  # noqa: ARG002
        """Memory of the labels, of some planes, and of the channels of a row of tiles where they are blended."""
        (shape,) = shapes
        bands = 4 * (shape[0] + 1) * 3 * share * math.prod(shape[1:]) if blended else 0
        return int(self._target.voxels * 2 + 3 * PLANES_BYTES + bands)


def label_type(channels: int) -> torch.dtype:
    """The smallest integer type that holds the index of a channel."""
    return torch.uint8 if channels <= 256 else torch.int16


def _largest(values: Channels) -> Integer[Tensor, "*s"]:
    """Index of the largest channel (C, *S) → (*S), a few planes at a time: indices of the whole would be large."""
    step = max(1, PLANES_BYTES // (8 * max(1, math.prod(values.shape[2:]))))
    parts = [values[:, i : i + step].argmax(0).to(label_type(len(values))) for i in range(0, values.shape[1], step)]
    return torch.cat(parts) if parts else torch.zeros(values.shape[1:], dtype=torch.uint8)


class Bands:
    """Sums blended pieces and gives out planes that are complete, so that only one row of tiles is held."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """``shape`` (C, *S) of the output."""
        self._shape, self._first = shape, 0
        self._sum = torch.zeros((shape[0], 0, *shape[2:]))
        self._weight = torch.zeros((0, *shape[2:]))

    @property
    def full(self) -> bool:
        """Whether all planes were given out."""
        return self._first == self._shape[1]

    def add(self, piece: Piece) -> tuple[int, Float[Tensor, "c n *p"]]:
        """Take a piece; the first plane of what is now complete, and these planes (C, n, …), n may be 0."""
        assert piece.window is not None  # noqa: S101  (for the type checker: only blended pieces come here)
        missing = piece.start[0] + piece.values.shape[1] - self._first - self._sum.shape[1]
        if missing > 0:
            more = (missing, *self._shape[2:])
            self._sum = torch.cat([self._sum, torch.zeros((self._shape[0], *more))], 1)
            self._weight = torch.cat([self._weight, torch.zeros(more)])
        region = (slice(None), slice(piece.start[0] - self._first, None), *piece.region[2:])
        self._sum[region][:, : piece.values.shape[1]].addcmul_(piece.values, piece.window)
        self._weight[region[1:]][: piece.values.shape[1]] += piece.window
        done = max(0, piece.complete - self._first)
        band = self._sum[:, :done] / self._weight[:done].clamp(min=1e-6)
        first = self._first
        if done:
            self._sum, self._weight = self._sum[:, done:].clone(), self._weight[done:].clone()
            self._first += done
        return first, band
