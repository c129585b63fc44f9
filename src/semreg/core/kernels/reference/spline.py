"""Products with one matrix an axis in torch, whole or as bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from semreg.core.kernels.bands import blocks

BLOCK = 32
"""Rows of a band that are multiplied together: with fewer the products are too small, with more too much of it is 0."""
BANDED = 64
"""Rows and columns below which a whole matrix is as fast as its band."""


def spline_product(coefficients: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Apply one matrix (out, in) per spatial axis to ``coefficients`` (C, *in) → (C, *out).

    Differentiable in the coefficients. What a band leaves out of a large matrix is never read: there a value that is
    not finite stays near its place.
    """
    x = coefficients
    for axis in range(len(matrices), 0, -1):
        x = _along(x, matrices[axis - 1], axis)
    return x


def spline_adjoint(values: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """The transposed matrices applied to ``values`` (C, *out) → (C, *in)."""
    return spline_product(values, [matrix.T for matrix in matrices])


def _along(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """One matrix along one axis: as a band on the CPU, where that is at most half the work."""
    if x.device.type == "cpu" and min(matrix.shape) >= BANDED:
        band = blocks(matrix, BLOCK)
        if 2 * sum((r.stop - r.start) * (c.stop - c.start) for r, c in band) <= matrix.numel():
            result: Tensor = _Band.apply(x, matrix, axis, band)  # type: ignore[no-untyped-call]
            return result
    return _whole(x, matrix, axis)


def _whole(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    if axis == x.ndim - 1:
        return x @ matrix.T
    rest = x.shape[axis + 1 :]
    return (matrix @ x.flatten(axis + 1)).reshape(*x.shape[:axis], -1, *rest)


def _columns(x: Tensor, axis: int) -> Tensor:
    """``x`` as (batch, axis, rest), a view where its memory allows it."""
    if axis == x.ndim - 1:
        return x.flatten(1, -2).mT
    return x.flatten(axis + 1).flatten(0, axis - 1)


class _Band(torch.autograd.Function):
    """A matrix along one axis, block by block; its gradient is that of the transposed matrix."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, axis: int, band: list[tuple[slice, slice]]) -> Tensor:
        ctx.matrix, ctx.axis = matrix, axis
        result = x.new_empty((*x.shape[:axis], len(matrix), *x.shape[axis + 1 :]))
        source, target = _columns(x, axis), _columns(result, axis)
        for rows, columns in band:
            part = matrix[rows, columns].expand(len(source), -1, -1)
            torch.bmm(part, source[:, columns], out=target[:, rows])
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _along(gradients[0], ctx.matrix.T, ctx.axis), None, None, None
