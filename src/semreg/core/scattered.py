"""Linear interpolation at scattered places, and the derivative of it. Knows nothing of features and mm.

An interpolant has a kink at every voxel centre, and there a registration of two equal grids starts. So its derivative
is the symmetric difference quotient over ``STEP`` voxels to both sides, along each axis. Within a cell that is the
slope of the cell; on a voxel centre it is the mean of the slopes on both sides, to which central differences of the
value converge; from one to the other it changes steadily. Border values hold beyond the outer voxel centres, where the
slope is 0.

Places may come in double precision, so that steps of a thousandth of a voxel are told apart in an image of any size;
what is read is as precise as it is stored. No graph is recorded: the derivative is a second reading.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semreg.core.shapes import Channels, Places, Samples, Values, Weights

STEP = 1e-4
"""Half the width of the difference quotient, voxels: above the rounding of places, below what a descent moves."""


@dataclass(frozen=True)
class Cells:
    """Between which voxels places lie: the row of each lower corner and how far it is to the upper one."""

    rows: Int[Tensor, "p"]
    """Of the lower corner in the flattened image, (P,), int64."""
    steps: tuple[int, ...]
    """Rows to the upper corner along each axis, 0 along an axis of one voxel."""
    fraction: Places
    """(D, P) in 0..1."""
    free: Bool[Tensor, "d p"]
    """Where the place is not beyond the outer voxel centres, (D, P): elsewhere nothing changes with it."""

    @property
    def offsets(self) -> Int[Tensor, "corners"]:
        """Rows from the lower corner to all corners, (2^D,), the last axis fastest."""
        offsets = torch.zeros(1, dtype=torch.int64, device=self.rows.device)
        for step in self.steps:
            offsets = (offsets[:, None] + torch.tensor([0, step], device=self.rows.device)).flatten()
        return offsets


def cells(index: Places, shape: Sequence[int], dtype: torch.dtype) -> Cells:
    """The cells of ``index`` (D, P) in an image of ``shape``; border values hold beyond. Fractions in ``dtype``.

    Where the index is not a number the corner is a valid one and the fraction is not a number.
    """
    last = torch.tensor(shape, dtype=index.dtype, device=index.device).reshape(-1, 1) - 1
    clamped = torch.minimum(index.clamp_min(0), last)
    low = torch.minimum(clamped.floor(), (last - 1).clamp_min(0))
    fraction = (clamped - low).to(dtype)
    strides = [1]
    for n in reversed(list(shape)[1:]):
        strides.insert(0, strides[0] * n)
    rows = torch.zeros(index.shape[1], dtype=torch.int64, device=index.device)
    for part, stride in zip(low.nan_to_num_(), strides, strict=True):
        rows.add_(part.to(torch.int64), alpha=stride)
    steps = tuple(stride if n > 1 else 0 for stride, n in zip(strides, shape, strict=True))
    return Cells(rows, steps, fraction, clamped == index)


class Table:
    """Channels laid out for reading at scattered places: one row a voxel.

    Reading eight neighbours then touches eight rows instead of eight cache lines a channel.
    """

    def __init__(self, data: Channels) -> None:
        """Lay out ``data`` (C, *S)."""
        self.shape = tuple(data.shape[1:])
        self.rows = data.flatten(1).T.contiguous()

    @property
    def data(self) -> Channels:
        """The channels again, (C, *S): a view, not a copy."""
        return self.rows.T.view(-1, *self.shape)

    def at(self, index: Places) -> Reading:
        """What is at ``index`` (D, P), fractional voxels."""
        return Reading(self, index.detach())  # its derivative is ``pull``, not that of a graph


class Reading:
    """The values of a table at some places."""

    def __init__(self, table: Table, index: Places) -> None:
        """The ``table`` at ``index`` (D, P)."""
        self._index, self._shape = index, table.shape
        self._corners = Corners(table.rows, cells(index, table.shape, table.rows.dtype))

    def values(self) -> Samples:
        """(P, C), in the type of the table."""
        return self._corners.values()

    def pull(self, gradient: Samples) -> Places:
        """The derivative in the index (D, P), in its type, of what has the ``gradient`` (P, C) in the values."""
        corners = self._corners
        gradient = gradient.to(corners.table.dtype)

        def other(place: Cells, along: Tensor, chosen: Tensor) -> Tensor:
            return Corners(corners.table, place).slope(along, gradient[chosen])

        axes = torch.eye(len(self._shape), dtype=torch.bool, device=gradient.device)[:, :, None]
        own = torch.stack([corners.slope(along, gradient) for along in axes])
        return over_steps(own, self._index, corners.place, self._shape, other).to(self._index.dtype)


class Corners:
    """What the cells of places hold at their corners."""

    def __init__(self, table: Float[Tensor, "v c"], place: Cells) -> None:
        """``table`` (V, C), one row a voxel."""
        self.table, self.place = table, place
        self._rows = place.rows[:, None] + place.offsets
        self._shares = torch.stack([1 - place.fraction, place.fraction], 1)

    def values(self) -> Samples:
        """(P, C)."""
        return self._weighted(self._shares)

    def slope(self, along: Bool[Tensor, "d _p"], gradient: Samples) -> Weights:
        """The slope of each cell, summed over the channels with the ``gradient`` (P, C): (P,).

        ``along`` (D, P) or (D, 1): true for the axis.
        """
        change = self._shares.new_tensor([-1, 1])[:, None]
        return self._weighted(torch.where(along[:, None], change, self._shares)).mul_(gradient).sum(1)

    def _weighted(self, shares: Tensor) -> Tensor:
        """Sums over the corners, weighted by the product over the axes of ``shares`` (D, 2, P) → (P, C)."""
        weights = shares[0]
        for share in shares[1:]:
            weights = (weights[:, None] * share[None]).flatten(0, 1)
        return F.embedding_bag(self._rows, self.table, mode="sum", per_sample_weights=weights.T.contiguous())


def over_steps(
    own: Places,
    index: Places,
    place: Cells,
    shape: Sequence[int],
    slope: Callable[[Cells, Tensor, Tensor], Tensor],
) -> Places:
    """The difference quotient over ``STEP`` to both sides of ``index`` (D, P), from slopes within cells.

    ``own`` (D, P): those in the cells of the ``place``. Only for places on voxel centres others are needed: ``slope``
    gives them in other cells, along an axis for each, true in (D, Q), of chosen places (Q,).
    """
    result = own * place.free
    axis, chosen = ((place.fraction - 0.5).abs() > 0.5 - STEP).nonzero(as_tuple=True)
    where, last = index[axis, chosen], torch.tensor(shape, dtype=index.dtype, device=index.device)[axis] - 1
    near = ((where > -STEP) & (where < last + STEP) & (last > 0)).nonzero().squeeze(1)
    if len(near) == 0:
        return result
    axis, chosen, where, last = axis[near], chosen[near], where[near], last[near]
    centre = where.round()
    above = (0.5 + (where - centre) / (2 * STEP)).to(own.dtype)  # how much of the way
    upper = place.fraction[axis, chosen] < 0.5  # whether the cell of the place is the one above
    way = torch.where(upper, -1, 1) * torch.where(upper, centre > 0, centre < last)  # 0: there is no cell beside
    steps = torch.tensor(place.steps, device=index.device)[axis]
    beside = Cells(place.rows[chosen] + way * steps, place.steps, place.fraction[:, chosen], place.free[:, chosen])
    along = axis == torch.arange(len(shape), device=index.device)[:, None]
    other = slope(beside, along, chosen) * (way != 0)
    result[axis, chosen] = torch.lerp(other, own[axis, chosen], torch.where(upper, above, 1 - above))
    return result


def read_image(image: Values, index: Places) -> tuple[Weights, Places]:
    """One channel ``image`` (*S) at ``index`` (D, P): values (P,) and their derivative in the index (D, P).

    Faster than a table where there is one channel and the derivative of every value is wanted.
    """
    flat, place = image.flatten(), cells(index, image.shape, image.dtype)
    values, own = _halved(flat, place)

    def slope(other: Cells, along: Tensor, _: Tensor) -> Tensor:
        return (_halved(flat, other)[1] * along).sum(0)

    return values, over_steps(own, index, place, image.shape, slope)


def _halved(flat: Tensor, place: Cells) -> tuple[Tensor, Tensor]:
    """Values (P,) and slopes (D, P) within cells: halves the corners axis by axis, the first axis first."""
    values = [flat.take(place.rows + offset) for offset in place.offsets.tolist()]
    slopes: list[list[Tensor]] = []
    for fraction in place.fraction:
        half = len(values) // 2
        changes = [upper - lower for lower, upper in zip(values[:half], values[half:], strict=True)]
        values = [torch.addcmul(lower, change, fraction) for lower, change in zip(values[:half], changes, strict=True)]
        slopes = [_between(slope, fraction) for slope in slopes] + [changes]
    return values[0], torch.stack([slope[0] for slope in slopes])


def _between(corners: Sequence[Tensor], fraction: Tensor) -> list[Tensor]:
    half = len(corners) // 2
    return [torch.lerp(lower, upper, fraction) for lower, upper in zip(corners[:half], corners[half:], strict=True)]


def read_blocks(
    image: Values, centre: Places, shape: Sequence[int]
) -> tuple[Float[Tensor, "q *shape"], Float[Tensor, "d q *shape"], Bool[Tensor, "p"]]:
    """Blocks of ``shape`` voxels of ``image`` (*S), each with its voxel ``shape // 2`` at ``centre`` (D, P), any place.

    Values (Q, *shape), their derivative in the index (D, Q, *shape), and which blocks lie inside of the image, (P,):
    only those are read. All voxels of a block lie at the same fraction between voxels of the image, so what
    ``read_image`` reads eight times is read about once here.
    """
    low = centre.floor()
    below = (0.5 - (centre - low) / (2 * STEP)).clamp_min(0)  # how much of the way lies in the cell below, and above
    above = (0.5 - (low + 1 - centre) / (2 * STEP)).clamp_min(0)
    margin = int(bool((below + above).any()))  # voxels read beyond the cells
    middle = torch.tensor([n // 2 for n in shape], dtype=centre.dtype, device=centre.device)[:, None]
    corner = low - middle - margin
    last = [s - n - 1 - 2 * margin for s, n in zip(image.shape, shape, strict=True)]
    inside = ((corner >= 0) & (corner <= torch.tensor(last, device=centre.device)[:, None])).all(0)
    block = torch.zeros(1, dtype=torch.int64, device=image.device)
    rows = torch.zeros(int(inside.sum()), dtype=torch.int64, device=image.device)
    for part, n, stride in zip(corner[:, inside].to(torch.int64), shape, image.stride(), strict=True):
        rows.add_(part, alpha=stride)
        block = (block[:, None] + stride * torch.arange(n + 1 + 2 * margin, device=image.device)).flatten()
    values = image.flatten().take(rows[:, None] + block).reshape(-1, *[n + 1 + 2 * margin for n in shape])
    ways = torch.stack([centre - low, below, above])[:, :, inside].to(image.dtype)
    slopes: list[Tensor] = []
    for axis, (n, share) in enumerate(zip(shape, ways.unbind(1), strict=True), start=1):
        fraction, *others = share.reshape(3, -1, *[1] * len(shape))
        change = values.diff(dim=axis)
        slope = own = change.narrow(axis, margin, n)
        if margin:
            for start, part in zip((0, 2), others, strict=True):
                slope = torch.lerp(slope, change.narrow(axis, start, n), part)
        values = torch.addcmul(values.narrow(axis, margin, n), own, fraction)
        slopes = [torch.lerp(s.narrow(axis, margin, n), s.narrow(axis, margin + 1, n), fraction) for s in slopes] + [
            slope
        ]
    return values, torch.stack(slopes), inside


def _last(index: Tensor, shape: Sequence[int]) -> Tensor:
    """The last index along each axis, (D, 1), like ``index``."""
    return torch.tensor(shape, dtype=index.dtype, device=index.device).reshape(-1, 1) - 1
