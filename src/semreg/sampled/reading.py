"""Linear interpolation at scattered places, and the exact derivative of it. Knows nothing of features and mm.

Places come in double precision, so that steps of a thousandth of a voxel are told apart in an image of any size; what
is read is as precise as it is stored. No graph is recorded: the derivative is a second reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Cells:
    """Between which voxels places lie: the row of each corner and how far it is to the upper one."""

    rows: Tensor
    """Of the lower corner in the flattened image, (P,), int64."""
    steps: tuple[int, ...]
    """Rows to the upper corner along each axis, 0 along an axis of one voxel."""
    fraction: Tensor
    """(D, P) in 0..1."""
    free: Tensor
    """Where the place is not beyond the outer voxel centres, (D, P): elsewhere nothing changes with it."""

    @property
    def offsets(self) -> Tensor:
        """Rows from the lower corner to all corners, (2^D,), the last axis fastest."""
        offsets = torch.zeros(1, dtype=torch.int64, device=self.rows.device)
        for step in self.steps:
            offsets = (offsets[:, None] + torch.tensor([0, step], device=self.rows.device)).flatten()
        return offsets


def cells(index: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Cells:
    """The cells of ``index`` (D, P) in an image of ``shape``; border values hold beyond. Fractions in ``dtype``."""
    last = torch.tensor(shape, dtype=index.dtype, device=index.device).reshape(-1, 1) - 1
    clamped = torch.minimum(index.clamp_min(0), last)
    low = torch.minimum(clamped.floor(), (last - 1).clamp_min(0))
    fraction = (clamped - low).to(dtype)
    strides = [1]
    for n in reversed(list(shape)[1:]):
        strides.insert(0, strides[0] * n)
    rows = torch.zeros(index.shape[1], dtype=torch.int64, device=index.device)
    for part, stride in zip(low, strides, strict=True):
        rows.add_(part.to(torch.int64), alpha=stride)
    steps = tuple(stride if n > 1 else 0 for stride, n in zip(strides, shape, strict=True))
    return Cells(rows, steps, fraction, clamped == index)


class Table:
    """Channels laid out for reading at scattered places: one row a voxel."""

    def __init__(self, data: Tensor) -> None:
        """Lay out ``data`` (C, *S)."""
        self.shape = tuple(data.shape[1:])
        self.rows = data.flatten(1).T.contiguous()

    @property
    def data(self) -> Tensor:
        """The channels again, (C, *S): a view, not a copy."""
        return self.rows.T.view(-1, *self.shape)

    def at(self, index: Tensor) -> Reading:
        """What is at ``index`` (D, P), fractional voxels."""
        return Reading(self.rows, cells(index, self.shape, self.rows.dtype))


class Reading:
    """The values of a table at some places."""

    def __init__(self, table: Tensor, place: Cells) -> None:
        """``table`` (V, C), one row a voxel."""
        self._table, self._place = table, place
        self._rows = place.rows[:, None] + place.offsets
        low = 1 - place.fraction
        self._shares = [torch.stack(pair) for pair in zip(low, place.fraction, strict=True)]

    def values(self) -> Tensor:
        """(P, C), in the type of the table."""
        return self._weighted(self._shares)

    def pull(self, gradient: Tensor) -> Tensor:
        """The derivative in the index (D, P), float64, of what has the ``gradient`` (P, C) in the values."""
        gradient = gradient.to(self._table.dtype)
        change = torch.ones_like(self._place.fraction[0])
        change = torch.stack([-change, change])
        result = torch.empty(self._place.free.shape, dtype=torch.float64, device=gradient.device)
        for axis, free in enumerate(self._place.free):
            slope = self._weighted([change if a == axis else share for a, share in enumerate(self._shares)])
            result[axis] = (slope * gradient).sum(1) * free
        return result

    def _weighted(self, shares: Sequence[Tensor]) -> Tensor:
        """Sums over the corners, weighted by the product over the axes of ``shares`` (2, P) each → (P, C)."""
        weights = shares[0]
        for share in shares[1:]:
            weights = (weights[:, None] * share[None]).flatten(0, 1)
        return F.embedding_bag(self._rows, self._table, mode="sum", per_sample_weights=weights.T.contiguous())


def read_image(image: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """One channel ``image`` (*S) at ``index`` (D, P): values (P,) and their derivative in the index (D, P).

    Faster than a table where there is one channel and the derivative of every value is wanted.
    """
    place = cells(index, image.shape, image.dtype)
    flat = image.flatten()
    values = [flat.take(place.rows + offset) for offset in place.offsets.tolist()]
    slopes: list[list[Tensor]] = []
    for fraction in place.fraction:  # halves the corners axis by axis, the first axis first
        half = len(values) // 2
        changes = [upper - lower for lower, upper in zip(values[:half], values[half:], strict=True)]
        values = [torch.addcmul(lower, change, fraction) for lower, change in zip(values[:half], changes, strict=True)]
        slopes = [_halved(slope, fraction) for slope in slopes] + [changes]
    return values[0], torch.stack([slope[0] for slope in slopes]) * place.free


def _halved(corners: Sequence[Tensor], fraction: Tensor) -> list[Tensor]:
    half = len(corners) // 2
    return [torch.lerp(lower, upper, fraction) for lower, upper in zip(corners[:half], corners[half:], strict=True)]


def read_blocks(image: Tensor, centre: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Blocks of ``shape`` voxels of ``image`` (*S), each with its voxel ``shape // 2`` at ``centre`` (D, P), any place.

    Values (Q, *shape), their derivative in the index (D, Q, *shape), and which blocks lie inside of the image, (P,):
    only those are read. All voxels of a block lie at the same fraction between voxels of the image, so what
    ``read_image`` reads eight times is read about once here.
    """
    middle = torch.tensor([n // 2 for n in shape], dtype=centre.dtype, device=centre.device)[:, None]
    last = torch.tensor([s - n - 1 for s, n in zip(image.shape, shape, strict=True)], device=centre.device)[:, None]
    low = centre.floor()
    corner = low - middle
    inside = ((corner >= 0) & (corner <= last)).all(0)
    fraction = (centre - low)[:, inside].to(image.dtype)
    block = torch.zeros(1, dtype=torch.int64, device=image.device)
    rows = torch.zeros(int(inside.sum()), dtype=torch.int64, device=image.device)
    for part, n, stride in zip(corner[:, inside].to(torch.int64), shape, image.stride(), strict=True):
        rows.add_(part, alpha=stride)
        block = (block[:, None] + stride * torch.arange(n + 1, device=image.device)).flatten()
    values = image.flatten().take(rows[:, None] + block).reshape(-1, *[n + 1 for n in shape])
    slopes: list[Tensor] = []
    for axis, share in enumerate(fraction.reshape(len(shape), -1, *[1] * len(shape)), start=1):
        lower, upper = _ends(values, axis)
        change = upper - lower
        values = torch.addcmul(lower, change, share)
        slopes = [torch.lerp(*_ends(slope, axis), share) for slope in slopes] + [change]
    return values, torch.stack(slopes), inside


def _ends(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    n = x.shape[axis] - 1
    return x.narrow(axis, 0, n), x.narrow(axis, 1, n)
