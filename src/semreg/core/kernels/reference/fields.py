"""Displacements and comparisons at scattered places in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from semreg.core.kernels.contract import Comparison, JointComparison, Matrix
from semreg.core.kernels.reference.sizes import sizes_of
from semreg.core.sampling import SLAB_POINTS, base_index, sample, slabs, transform_index
from semreg.core.scattered import Table


def compare(moving: Table, fixed: Tensor, index: Tensor, share: Tensor, how: Comparison) -> tuple[float, Tensor]:
    """See ``Kernels.compare``: chunk by chunk, while it is in the cache."""
    total, gradient = 0.0, torch.empty_like(index)
    chunk = sizes_of(index.device).samples
    for first in range(0, index.shape[1], chunk):
        part = slice(first, first + chunk)
        reading = moving.at(index[:, part])
        values = reading.values()
        values = values if how.change is None else values.add_(how.change[part])
        value, slope = how.slope(fixed[part], values, share[part])
        total += value
        gradient[:, part] = reading.pull(slope)
    return total, gradient


def compare_jointly(fixed: Tensor, moving: Tensor, weight: Tensor | None, how: JointComparison) -> tuple[float, Tensor]:
    """See ``Kernels.compare_jointly``."""
    with torch.enable_grad():
        variable = moving.detach().requires_grad_()
        distance = how.value(fixed, variable, weight, how.shape)
        (gradient,) = torch.autograd.grad(distance, variable)
    return float(distance.detach()), gradient


def read(table: Table, index: Tensor) -> Tensor:
    """See ``Kernels.read``."""
    chunk = sizes_of(index.device).samples
    return torch.cat([table.at(part).values() for part in torch.split(index, chunk, 1)])


def pull(table: Table, index: Tensor, gradient: Tensor) -> Tensor:
    """See ``Kernels.pull``."""
    chunk = sizes_of(index.device).samples
    parts = zip(torch.split(index, chunk, 1), torch.split(gradient, chunk), strict=True)
    return torch.cat([table.at(part).pull(slope) for part, slope in parts], 1)


def compose(first: Tensor, second: Tensor, forth: Matrix, back: Matrix) -> Tensor:
    """See ``Kernels.compose``."""
    result = torch.empty_like(first)
    shape = tuple(first.shape[1:])
    linear = torch.as_tensor(back[:-1, :-1], dtype=first.dtype, device=first.device)
    for part in slabs(shape, SLAB_POINTS):
        index = base_index(shape, like=first, part=part)
        more = sample(second, transform_index(forth, index.add_(first[:, part])))
        moved = (linear.to(more.dtype) @ more.reshape(len(more), -1)).reshape(more.shape)
        result[:, part] = first[:, part] + moved
    return result


def jacobian_determinant(vox: Tensor) -> Tensor:
    """See ``Kernels.jacobian_determinant``."""
    result = torch.empty_like(vox[0])
    count = vox.shape[1]
    for part in slabs(tuple(vox.shape[1:]), SLAB_POINTS // 8):
        padded = slice(max(part.start - 1, 0), min(part.stop + 1, count))
        values = central_determinant(vox[:, padded])
        result[part] = values[part.start - padded.start :][: part.stop - part.start]
    return result


def central_determinant(vox: Tensor) -> Tensor:
    """The determinant of vectors in voxels by central differences, (D, *S) → (*S); all at once."""
    n = vox.shape[0]
    rows = [[_central_difference(vox[i], axis) for axis in range(n)] for i in range(n)]
    for i in range(n):
        rows[i][i] += 1
    if n == 2:
        return rows[0][0] * rows[1][1] - rows[0][1] * rows[1][0]
    (a, b, c), (d, e, f), (g, h, i_) = rows
    return a * (e * i_ - f * h) - b * (d * i_ - f * g) + c * (d * h - e * g)


def _central_difference(x: Tensor, axis: int) -> Tensor:
    n = x.shape[axis]
    if n == 1:
        return torch.zeros_like(x)
    result = torch.empty_like(x)
    torch.sub(x.narrow(axis, 2, n - 2), x.narrow(axis, 0, n - 2), out=result.narrow(axis, 1, n - 2))
    torch.sub(x.narrow(axis, 1, 1), x.narrow(axis, 0, 1), out=result.narrow(axis, 0, 1))
    torch.sub(x.narrow(axis, n - 1, 1), x.narrow(axis, n - 2, 1), out=result.narrow(axis, n - 1, 1))
    return result.mul_(0.5)
