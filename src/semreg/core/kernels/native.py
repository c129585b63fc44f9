"""The backend in compiled code, for CPUs, where the distribution semreg-kernels is installed.

What it does not know, another formula or another type of numbers, the reference computes.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import semreg_kernels
import torch
from torch import Tensor

from semreg.core.kernels.contract import UNSEEN, Comparison, Costs, Extended, JointComparison, Kernels, Matrix
from semreg.core.kernels.reference.backend import Reference
from semreg.core.pullback import pullback
from semreg.core.sampling import smooth
from semreg.core.scattered import Table

TYPES = {torch.float32: 0, torch.float64: 1}
FORMULAS = {"l2": 0, "l1": 1, "cosine": 2, "l1cosine": 3, "dotproduct": 4, "dice": 5}
CORRELATIONS = {"ncc": 0, "lncc": 1, "lncc_squared": 2}
UNKNOWN, OUT_OF_MEMORY = 1, 2


class Native(Reference):
    """See ``Kernels``."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """With the functions of ``library``."""
        self._library = library

    def cost_volume(
        self, near: Extended, far: Extended, candidates: Tensor, how: Costs, total: Tensor, *, add: bool
    ) -> None:
        """Some candidates at once, each node written as often as there are blocks of them."""
        features, others = near.features.contiguous(), far.features.contiguous()
        dimension, shape, wide = features.ndim - 1, features.shape[1:], others.shape[1:]
        known = how.formula == "l2" and how.unseen is None
        if not known or features.dtype not in TYPES or total.dtype != features.dtype:
            super().cost_volume(near, far, candidates, how, total, add=add)
            return
        weights = [None if side.weight is None else side.weight.to(features).contiguous() for side in (near, far)]
        offsets = candidates.long().contiguous()
        given = semreg_kernels.Costs(
            dimension=dimension, type=TYPES[features.dtype], threads=torch.get_num_threads(), smoothing=how.smoothing,
            shape=_three(shape), wide=_three(wide), widths=_three(far.widths), stride=how.stride,
            channels=len(features), candidates=len(offsets),
            counted=how.counted_of(len(offsets), features[0].numel()), unseen=UNSEEN, factor=how.factor, add=int(add),
            offsets=offsets.data_ptr(), near=features.data_ptr(), far=others.data_ptr(),
            near_weight=_pointer(weights[0]), far_weight=_pointer(weights[1]),
        )  # fmt: skip
        _check(self._library.semreg_cost_volume(given, total.data_ptr(), total.stride(0), total.stride(1)))

    def coupled_choice(
        self, cost: Tensor, candidates: Tensor, shape: tuple[int, ...], coupling: Sequence[float]
    ) -> tuple[Tensor, float]:
        """Node by node, without intermediate results."""
        if cost.dtype not in TYPES or not cost.is_contiguous():
            return super().coupled_choice(cost, candidates, shape, coupling)
        dimension, offsets = len(shape), candidates.to(cost)
        columns = offsets.T.contiguous()
        soft = cost.new_zeros((dimension, *shape))
        best = torch.empty(len(cost), dtype=torch.int64)
        for weight in coupling:
            soft = soft.contiguous()
            status = self._library.semreg_choice(
                dimension, TYPES[cost.dtype], torch.get_num_threads(), *cost.shape, cost.data_ptr(),
                columns.data_ptr(), soft.data_ptr(), weight, best.data_ptr(),
            )  # fmt: skip
            _check(status)
            soft = smooth(offsets[best].T.reshape(dimension, *shape))
        return soft, float(cost.gather(1, best[:, None]).mean())

    def compare(
        self, moving: Table, fixed: Tensor, index: Tensor, share: Tensor, how: Comparison
    ) -> tuple[float, Tensor]:
        """In one pass: what is read of the moving features is in no memory."""
        rows = moving.rows
        given = (fixed, share, rows) if how.change is None else (fixed, share, rows, how.change)
        known = how.formula in FORMULAS and len({x.dtype for x in given}) == 1
        if not known or not _readable(moving, index):
            return super().compare(moving, fixed, index, share, how)
        index, fixed, share = index.contiguous(), fixed.contiguous(), share.contiguous()
        change = None if how.change is None else how.change.contiguous()
        value, slope = ctypes.c_double(), torch.empty_like(index)
        status = self._library.semreg_compare(
            _places(moving, index), FORMULAS[how.formula], fixed.data_ptr(), _pointer(change), share.data_ptr(),
            ctypes.byref(value), slope.data_ptr(),
        )  # fmt: skip
        _check(status)
        return value.value, slope

    def compare_jointly(
        self, fixed: Tensor, moving: Tensor, weight: Tensor | None, how: JointComparison
    ) -> tuple[float, Tensor]:
        """Plane by plane, so that sums over windows stay near the processor."""
        given = [x for x in (fixed, moving, weight) if x is not None]
        known = how.formula in CORRELATIONS and len({x.dtype for x in given}) == 1 and fixed.dtype in TYPES
        if not known:
            return super().compare_jointly(fixed, moving, weight, how)
        fixed, moving = fixed.contiguous(), moving.contiguous()
        weight = None if weight is None else weight.contiguous()
        images = semreg_kernels.Images(
            dimension=len(how.shape), type=TYPES[fixed.dtype], threads=torch.get_num_threads(), radius=how.radius,
            shape=_three(how.shape), channels=fixed.shape[1],
        )  # fmt: skip
        value, slope = ctypes.c_double(), torch.empty_like(moving)
        status = self._library.semreg_correlate(
            images, CORRELATIONS[how.formula], fixed.data_ptr(), moving.data_ptr(), _pointer(weight),
            ctypes.byref(value), slope.data_ptr(),
        )  # fmt: skip
        _check(status)
        return value.value, slope

    def read(self, table: Table, index: Tensor) -> Tensor:
        """In one pass."""
        if not _readable(table, index):
            return super().read(table, index)
        index = index.detach().contiguous()
        values = table.rows.new_empty((index.shape[1], table.rows.shape[1]))
        _check(self._library.semreg_read(_places(table, index), values.data_ptr()))
        return values

    def pull(self, table: Table, index: Tensor, gradient: Tensor) -> Tensor:
        """In one pass."""
        if not _readable(table, index):
            return super().pull(table, index, gradient)
        index, gradient = index.detach().contiguous(), gradient.to(table.rows.dtype).contiguous()
        slope = torch.empty_like(index)
        _check(self._library.semreg_pull(_places(table, index), gradient.data_ptr(), slope.data_ptr()))
        return slope

    def patch_differences(
        self, image: Tensor, mask: Tensor | None, radius: int, dilation: int
    ) -> tuple[Tensor, Tensor | None]:
        """Plane by plane."""
        if image.dtype not in TYPES:
            return super().patch_differences(image, mask, radius, dilation)
        if image.requires_grad and torch.is_grad_enabled():
            distances, known = _Patches.apply(image, self, super().patch_differences, (mask, radius, dilation))  # type: ignore[no-untyped-call]
            return distances, known
        image, dimension = image.contiguous(), image.ndim
        mask = None if mask is None else mask.to(image).contiguous()
        inner = [n - 2 * (radius + dilation) for n in image.shape]
        distances = image.new_empty((2 * dimension * (dimension - 1), *inner))
        known = None if mask is None else image.new_empty(inner)
        of = _images(image[None], radius)
        pointers = [_pointer(x) for x in (image, mask, distances, known)]
        _check(self._library.semreg_patches(of, dilation, *pointers))
        return distances, known

    def spline_product(self, coefficients: Tensor, matrices: Sequence[Tensor]) -> Tensor:
        """As bands, from the last axis to the first: so the long products come last, along whole planes."""
        if coefficients.requires_grad and torch.is_grad_enabled():
            return super().spline_product(coefficients, matrices)
        return self._products(coefficients, list(enumerate(matrices, 1))[::-1])

    def spline_adjoint(self, values: Tensor, matrices: Sequence[Tensor]) -> Tensor:
        """As bands, from the first axis to the last: the same order backwards."""
        if values.requires_grad and torch.is_grad_enabled():
            return super().spline_adjoint(values, matrices)
        return self._products(values, [(axis, matrix.T) for axis, matrix in enumerate(matrices, 1)])

    def compression(
        self, coefficients: Tensor, bases: Sequence[Sequence[Tensor]], limit: float
    ) -> tuple[float, Tensor]:
        """In one pass; a spline in 2-D as one of a single plane that stays where it is."""
        dimension, given = len(bases), coefficients.detach().contiguous()
        if given.dtype not in TYPES:
            return super().compression(coefficients, bases, limit)
        slopes = [bases[axis][axis].to(given).contiguous() for axis in range(dimension)]
        values = [bases[axis - 1][axis].to(given).contiguous() for axis in range(dimension)]
        if dimension == 2:
            given = torch.cat([torch.zeros_like(given[:1]), given])[:, None]
            slopes, values = [given.new_zeros((1, 1)), *slopes], [given.new_ones((1, 1)), *values]
        value, pull = ctypes.c_double(), torch.empty_like(given)
        of = semreg_kernels.Spline(
            type=TYPES[given.dtype], threads=torch.get_num_threads(), controls=tuple(given.shape[1:]),
            places=tuple(len(matrix) for matrix in values), limit=limit,
            values=tuple(matrix.data_ptr() for matrix in values), slopes=tuple(matrix.data_ptr() for matrix in slopes),
            coefficients=given.data_ptr(),
        )  # fmt: skip
        status = self._library.semreg_compression(of, value, pull.data_ptr())
        if status == UNKNOWN:  # a place sees more control points than those of a cubic spline
            return super().compression(coefficients, bases, limit)
        _check(status)
        return value.value, pull if dimension == 3 else pull[1:, 0]

    def _products(self, x: Tensor, along: Sequence[tuple[int, Tensor]]) -> Tensor:
        x = x.contiguous()
        for axis, matrix in along:
            given = matrix.to(x)
            result = x.new_empty((*x.shape[:axis], len(given), *x.shape[axis + 1 :]))
            of = semreg_kernels.Matrix(
                type=TYPES[x.dtype], threads=torch.get_num_threads(), before=math.prod(x.shape[:axis]),
                inputs=x.shape[axis], outputs=len(given), after=math.prod(x.shape[axis + 1 :]),
                row=given.stride(0), column=given.stride(1), values=given.data_ptr(),
            )  # fmt: skip
            _check(self._library.semreg_product(of, x.data_ptr(), result.data_ptr()))
            x = result
        return x

    def jacobian_determinant(self, vox: Tensor) -> Tensor:
        """In one pass."""
        vox = vox.detach().contiguous()
        result = torch.empty_like(vox[0])
        _check(self._library.semreg_jacobian(_images(vox), vox.data_ptr(), result.data_ptr()))
        return result

    def least_corner(self, vox: Tensor) -> Tensor:
        """In one pass."""
        vox = vox.detach().contiguous()
        result = vox.new_empty([max(1, n - 1) for n in vox.shape[1:]])
        _check(self._library.semreg_corners(_images(vox), vox.data_ptr(), result.data_ptr()))
        return result

    def compose(self, first: Tensor, second: Tensor, forth: Matrix, back: Matrix) -> Tensor:
        """In one pass."""
        first, second = first.detach().contiguous(), second.detach().to(first.dtype).contiguous()
        result = torch.empty_like(first)
        maps = [np.ascontiguousarray(m).ctypes.data_as(ctypes.POINTER(ctypes.c_double)) for m in (forth, back)]
        wide = (ctypes.c_int64 * 3)(*_three(second.shape[1:]))
        pointers = [x.data_ptr() for x in (first, second, result)]
        _check(self._library.semreg_compose(_images(first), wide, *maps, *pointers))
        return result


def _images(x: Tensor, radius: int = 0) -> semreg_kernels.Images:
    """Values (C, *S)."""
    return semreg_kernels.Images(
        dimension=x.ndim - 1, type=TYPES[x.dtype], threads=torch.get_num_threads(), radius=radius,
        shape=_three(x.shape[1:]), channels=len(x),
    )  # fmt: skip


def _readable(table: Table, index: Tensor) -> bool:
    """Whether the types are known."""
    return table.rows.dtype in TYPES and table.rows.dtype == index.dtype


def _places(table: Table, index: Tensor) -> semreg_kernels.Places:
    return semreg_kernels.Places(
        dimension=len(table.shape), table_type=TYPES[table.rows.dtype], index_type=TYPES[index.dtype],
        threads=torch.get_num_threads(), shape=_three(table.shape), channels=table.rows.shape[1],
        places=index.shape[1], rows=table.rows.data_ptr(), index=index.data_ptr(),
    )  # fmt: skip


def _three(values: Sequence[int]) -> tuple[int, ...]:
    return (*values, *[1] * (3 - len(values)))


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _check(status: int) -> None:
    if status == OUT_OF_MEMORY:
        raise MemoryError("expected memory for the working values of the kernels, got none")
    if status:
        raise RuntimeError(f"expected the status 0 of a kernel, got {status}")


class _Patches(torch.autograd.Function):
    """Patches whose values are those of the kernel, and whose derivative is that of the reference."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, native: Native, reference: Any, rest: tuple[Any, ...]) -> Any:
        ctx.image, ctx.reference, ctx.rest = image.detach(), reference, rest
        distances, known = native.patch_differences(ctx.image, *rest)
        if known is not None:
            ctx.mark_non_differentiable(known)
        return distances, known

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        image = ctx.image.clone().requires_grad_()
        with torch.enable_grad():
            distances, _ = ctx.reference(image, *ctx.rest)
            return pullback([distances], gradients[:1], [image])[0], None, None, None


NATIVE: Kernels = Native(semreg_kernels.load())
