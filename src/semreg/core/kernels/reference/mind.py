"""The pairs of patches of MIND-SSC in torch."""

from __future__ import annotations

import itertools
from typing import TypeAlias

import torch
from torch import Tensor

Offset: TypeAlias = tuple[int, ...]


def patch_differences(image: Tensor, mask: Tensor | None, radius: int, dilation: int) -> tuple[Tensor, Tensor | None]:
    """See ``Kernels.patch_differences``."""
    halo, dimension = radius + dilation, image.ndim
    inner = tuple(n - 2 * halo for n in image.shape)
    groups = _pairs_by_difference(dimension, dilation)
    distances = image.new_empty((sum(len(starts) for _, starts in groups), *inner))
    known = None if mask is None else image.new_ones(inner)
    channel = 0
    for difference, starts in groups:
        squared, corner = _squared_difference(image, difference)
        means = _box(squared, radius)
        both = None
        if mask is not None:
            pair, _ = _both_valid(mask, difference)
            both = _box(pair, radius)
            means = _box(squared.mul_(pair), radius).div_(both.clamp(min=1e-6))
        for start in starts:
            # means[j] belongs to the patch around position j + corner + radius of the image
            at = [halo + s - c - radius for s, c in zip(start, corner, strict=True)]
            window = tuple(slice(a, a + n) for a, n in zip(at, inner, strict=True))
            distances[channel] = means[window]
            if known is not None and both is not None:
                known *= both[window] > 1e-6
            channel += 1
    return distances.div_((2 * radius + 1) ** dimension if mask is None else 1), known


def _pairs_by_difference(dimension: int, dilation: int) -> list[tuple[Offset, list[Offset]]]:
    """Pairs of neighbours on different axes, grouped by their difference: each group needs one patch comparison.

    A pair (a, b) is stored by its first offset a under the difference b − a.
    """
    neighbours = []
    for axis, sign in itertools.product(range(dimension), (-dilation, dilation)):
        neighbours.append(tuple(sign if i == axis else 0 for i in range(dimension)))
    groups: dict[Offset, list[Offset]] = {}
    for a, b in itertools.combinations(neighbours, 2):
        if any(u and v for u, v in zip(a, b, strict=True)):
            continue  # opposite neighbours on one axis are not compared
        difference = tuple(v - u for u, v in zip(a, b, strict=True))
        opposite = tuple(-v for v in difference)
        if opposite in groups:
            groups[opposite].append(b)
        else:
            groups.setdefault(difference, []).append(a)
    return list(groups.items())


def _two_views(x: Tensor, difference: Offset) -> tuple[Tensor, Tensor, Offset]:
    """``x`` at p and at p + difference wherever both exist, and the p of the first element."""
    here = tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip(difference, x.shape, strict=True))
    there = tuple(slice(max(0, d), n - max(0, -d)) for d, n in zip(difference, x.shape, strict=True))
    return x[here], x[there], tuple(max(0, -d) for d in difference)


def _squared_difference(x: Tensor, difference: Offset) -> tuple[Tensor, Offset]:
    here, there, corner = _two_views(x, difference)
    return torch.sub(here, there).square(), corner


def _both_valid(mask: Tensor, difference: Offset) -> tuple[Tensor, Offset]:
    here, there, corner = _two_views(mask, difference)
    return here * there, corner


def _box(x: Tensor, radius: int) -> Tensor:
    """Sums over (2·radius+1)^D voxels, only where the whole box exists."""
    for axis in reversed(range(x.ndim)):
        n = x.shape[axis] - 2 * radius
        total = x.narrow(axis, 0, n)
        for shift in range(1, 2 * radius + 1):
            total = total.add(x.narrow(axis, shift, n)) if shift == 1 else total.add_(x.narrow(axis, shift, n))
        x = total
    return x
