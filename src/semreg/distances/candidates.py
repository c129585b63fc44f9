"""How a discrete search compares candidates: features as they are embedded once, (C, *S) → (K, *S), and their cost.

``cost(near, far, buffer)`` writes into ``buffer``, so that a search over thousands of candidates allocates nothing
large; the mean of the cost over the samples is the value of the distance where it has a slope.
"""

from __future__ import annotations

import torch
from torch import Tensor

from semreg.distances.samples import DAMPING, SMALL, length_of


def unit(x: Tensor, _weight: Tensor | None) -> Tensor:
    """Unit vectors (C + 1, *S); zero vectors point along the last axis, so that they match each other and no other."""
    length, known = length_of(x, 0)
    return torch.cat([torch.where(known, x, 0) / length, (~known).to(x.dtype)])


def as_is(x: Tensor, _weight: Tensor | None) -> Tensor:
    """``x`` itself."""
    return x


def l1_cost(near: Tensor, far: Tensor, buffer: Tensor) -> Tensor:
    """Σ_c |far − near|, (*S)."""
    torch.sub(near, far, out=buffer)
    return buffer.abs_().sum(0)


def l2_cost(near: Tensor, far: Tensor, buffer: Tensor) -> Tensor:
    """Σ_c (far − near)², (*S)."""
    torch.sub(near, far, out=buffer)
    return buffer.square_().sum(0)


def correlation_cost(near: Tensor, far: Tensor, buffer: Tensor) -> Tensor:
    """Of standardised channels: their mean over the samples is 1 − correlation."""
    return l2_cost(near, far, buffer).div_(2 * len(near))


def dotproduct_cost(near: Tensor, far: Tensor, buffer: Tensor) -> Tensor:
    """−Σ_c near · far, (*S)."""
    torch.mul(near, far, out=buffer)
    return buffer.sum(0).neg_()


def cosine_cost(near: Tensor, far: Tensor, buffer: Tensor) -> Tensor:
    """Of unit vectors: 1 − their dot product."""
    return dotproduct_cost(near, far, buffer).add_(1)


def l1cosine_cost(near: Tensor, far: Tensor, buffer: Tensor) -> Tensor:
    """Of features (C) and their unit vectors (C + 1), one after the other."""
    channels = len(near) // 2
    raw, turned = slice(0, channels), slice(channels, None)
    torch.sub(near[raw], far[raw], out=buffer[raw])
    likeness = buffer[raw].abs_().mul_(-DAMPING).exp_().mean(0)
    return dotproduct_cost(near[turned], far[turned], buffer[turned]).mul_(likeness).add_(1)


def dice_cost(near: Tensor, far: Tensor, buffer: Tensor) -> Tensor:
    """Σ_c (far − near)² / Σ_c (far² + near²), (*S)."""
    squared = l2_cost(near, far, buffer)
    size = torch.mul(near, near, out=buffer).sum(0).add_(SMALL)
    return squared.div_(size.add_(torch.mul(far, far, out=buffer).sum(0)))
