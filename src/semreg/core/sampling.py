"""Whole images read between samples: the one place that resamples, pools and smooths tensors. Knows nothing of mm.

Tensors are channel first, (C, z, y, x) or (C, y, x), without a batch axis; indices are (D, ...) in tensor order,
fractional voxels, centres at integers.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from semreg.core.geometry import per_axis
from semreg.core.shapes import Channels, Vectors

Mode: TypeAlias = Literal["linear", "nearest"]

SLAB_POINTS = 1 << 18
"""Points handled at once where a whole volume is resampled: bounds the memory of the indices."""


def base_index(shape: tuple[int, ...], *, like: Tensor, part: slice | None = None) -> Vectors:
    """The index of every voxel of ``shape`` (of the slab ``part``), (D, *shape), with type and device of ``like``."""
    part = part or slice(0, shape[0])
    ends = [(part.start, part.stop), *((0, n) for n in shape[1:])]
    axes = [torch.arange(start, stop, dtype=like.dtype, device=like.device) for start, stop in ends]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def transform_index(matrix: npt.NDArray[np.float64], index: Float[Tensor, "d *t"]) -> Float[Tensor, "d *t"]:
    """Apply a homogeneous (E, E) matrix to indices (D, *T)."""
    n = index.shape[0]
    linear = torch.as_tensor(matrix[:n, :n], dtype=index.dtype, device=index.device)
    shift = torch.as_tensor(matrix[:n, n], dtype=index.dtype, device=index.device)
    flat = index.reshape(n, -1)
    return torch.addmm(shift[:, None], linear, flat).reshape(index.shape)


def inside(index: Float[Tensor, "d *t"], shape: tuple[int, ...]) -> Bool[Tensor, "*t"]:
    """Which indices (D, *T) lie in an image of ``shape``: −0.5 <= index < N − 0.5 on every axis, as ITK; (*T), bool."""
    result = torch.ones(index.shape[1:], dtype=torch.bool, device=index.device)
    for axis, n in enumerate(shape):
        result &= (index[axis] >= -0.5) & (index[axis] < n - 0.5)
    return result


def sample(
    x: Channels, index: Float[Tensor, "d *t"], *, mode: Mode = "linear", outside: float | None = None
) -> Float[Tensor, "c *t"]:
    """Values of ``x`` (C, *S) at ``index`` (D, *T) → (C, *T).

    Between the outer voxel centres and the edge of the image the border value holds. Beyond, ``outside`` is the value;
    ``None`` continues the border value. Differentiable in ``x`` and, for ``linear``, in ``index``.
    """
    shape = tuple(x.shape[1:])
    where = index.to(x.dtype)
    if mode == "nearest":
        where = torch.floor(where + 0.5)
    size = torch.tensor(shape, dtype=x.dtype, device=x.device).reshape(-1, *[1] * (index.ndim - 1))
    position = ((2 * where + 1) / size - 1).flip(0).flatten(1).T
    values = _grid_sample(x, position, "bilinear" if mode == "linear" else "nearest")
    values = values.reshape(x.shape[0], *index.shape[1:])
    if outside is None:
        return values
    return torch.where(inside(index, shape), values, torch.as_tensor(outside, dtype=x.dtype, device=x.device))


def _grid_sample(x: Tensor, position: Tensor, mode: str) -> Tensor:
    """``x`` at (P, D) normalised positions → (C, P). The points are dealt to the threads as a batch of views of x."""
    points, dimension = position.shape
    parts = torch.get_num_threads() if x.device.type == "cpu" and points > 4096 else 1
    padded = F.pad(position, (0, 0, 0, -points % parts))
    rows = padded.reshape(parts, *[1] * (dimension - 1), -1, dimension)
    batch = x[None].expand(parts, *x.shape)
    values = F.grid_sample(batch, rows, mode=mode, padding_mode="border", align_corners=False)
    return values.flatten(2).permute(1, 0, 2).reshape(x.shape[0], -1)[:, :points]


def resample(
    x: Channels,
    matrix: npt.NDArray[np.float64],
    shape: tuple[int, ...],
    *,
    mode: Mode = "linear",
    outside: float | None = None,
) -> Float[Tensor, "c *t"]:
    """``x`` (C, *S) on a grid of ``shape`` whose indices ``matrix`` (E, E) maps to indices of x → (C, *shape).

    Maps that keep the axes (another spacing or origin) are computed axis by axis and are exact for equal grids,
    where the result may be ``x`` itself.
    """
    n = len(shape)
    linear = matrix[:n, :n]
    if np.abs(linear - np.diag(np.diag(linear))).max() < 1e-9:
        return _resample_axes(x, np.diag(linear), matrix[:n, n], shape, mode, outside)
    result = x.new_empty((x.shape[0], *shape))
    for part in slabs(shape, SLAB_POINTS):
        index = base_index(shape, like=x, part=part)
        result[:, part] = sample(x, transform_index(matrix, index), mode=mode, outside=outside)
    return result


def slabs(shape: tuple[int, ...], points: int) -> list[slice]:
    """Slices of the first axis with at most about ``points`` samples each."""
    thickness = max(1, points // max(1, int(np.prod(shape[1:]))))
    return [slice(i, min(i + thickness, shape[0])) for i in range(0, shape[0], thickness)]


def _resample_axes(
    x: Tensor,
    scale: npt.NDArray[np.float64],
    start: npt.NDArray[np.float64],
    shape: tuple[int, ...],
    mode: Mode,
    outside: float | None,
) -> Tensor:
    for axis, target in enumerate(shape):
        count = x.shape[axis + 1]
        position = np.arange(target) * scale[axis] + start[axis]
        if np.abs(position - np.round(position)).max() < 1e-6:
            position = np.round(position)
        beyond = (position < -0.5) | (position >= count - 0.5)
        if mode == "nearest":
            position = np.floor(position + 0.5)
        position = np.clip(position, 0, count - 1)
        low = position.astype(np.int64)
        if target == count and np.array_equal(position, np.arange(count)):
            pass
        elif np.array_equal(position, low):  # no neighbour has a say, not even one that is not a number
            x = x.index_select(axis + 1, torch.as_tensor(low, device=x.device))
        else:
            weight = torch.as_tensor(position - low, dtype=x.dtype, device=x.device)
            column = weight.reshape([-1 if a == axis + 1 else 1 for a in range(x.ndim)])
            low_index = torch.as_tensor(low, device=x.device)
            upper = x.index_select(axis + 1, torch.clamp(low_index + 1, max=count - 1))
            x = x.index_select(axis + 1, low_index).lerp_(upper, column)
        if outside is not None and beyond.any():
            x = x.index_fill(axis + 1, torch.as_tensor(np.flatnonzero(beyond), device=x.device), outside)
    return x


def pool(x: Channels, factor: int | tuple[int, ...]) -> Float[Tensor, "c *t"]:
    """Block means of ``x`` (C, *S); a partial last block is the mean of the voxels it has. Matches ``Grid.pooled``."""
    for axis, k in enumerate(per_axis(factor, x.ndim - 1), start=1):
        if k > 1:
            x = _pool_axis(x, axis, k)
    return x


def _pool_axis(x: Tensor, axis: int, k: int) -> Tensor:
    n = x.shape[axis]
    blocks, rest = divmod(n, k)
    result = x.new_zeros([-(-n // k) if a == axis else size for a, size in enumerate(x.shape)])
    for i in range(k):
        count = blocks + (i < rest)
        part = (slice(None),) * axis + (slice(i, None, k),)
        result.narrow(axis, 0, count).add_(x[part])
    result.narrow(axis, 0, blocks).div_(k)
    if rest:
        result.narrow(axis, blocks, 1).div_(rest)
    return result


def smooth(x: Channels, *, radius: int = 1, passes: int = 1) -> Channels:
    """Box means of ``x`` (C, *S) over (2·radius+1)^D voxels, ``passes`` times, over the voxels that exist.

    A constant stays a constant, borders included. Differentiable.
    """
    for _ in range(passes):
        for axis in range(1, x.ndim):
            x = _box(x, axis, radius) / _box(_ones_along(x, axis), axis, radius)
    return x


def window_sums(x: Channels, radius: int) -> Channels:
    """Sums of ``x`` (C, *S) over the (2·radius+1)^D voxels around each, over those that exist; its own adjoint."""
    for axis in range(1, x.ndim):
        x = _box(x, axis, radius)
    return x


def _ones_along(x: Tensor, axis: int) -> Tensor:
    return x.new_ones([x.shape[axis] if a == axis else 1 for a in range(x.ndim)])


def _box(x: Tensor, axis: int, radius: int) -> Tensor:
    n = x.shape[axis]
    result = x.clone()
    for shift in range(1, min(radius, n - 1) + 1):
        result.narrow(axis, shift, n - shift).add_(x.narrow(axis, 0, n - shift))
        result.narrow(axis, 0, n - shift).add_(x.narrow(axis, shift, n - shift))
    return result
