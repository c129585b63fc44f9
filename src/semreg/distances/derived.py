"""What follows from the value of a distance alone: its scale, its curvature and the cost of each candidate.

Slower and less exact than what a distance may bring itself, and there for every distance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from semreg.core.shapes import Channels, Mask, Samples, Weights
from semreg.distances.samples import SMALL

PAIRS = 4096
"""Pairs of samples that stand for all unrelated ones."""

Function: TypeAlias = Callable[..., Tensor]
"""``Value`` of the contract, or one without a shape where a shape is not given."""


def as_is(x: Channels, _weight: Mask | None) -> Channels:
    """``x`` itself."""
    return x


def total_weight(fixed: Samples, weight: Weights | None) -> float:
    """How many samples count."""
    return float(len(fixed) if weight is None else weight.sum().clamp(min=SMALL))


def scale_of(value: Function) -> Callable[[Tensor, Tensor | None], float]:
    """The value for pairs of samples at random, drawn by weight; the same at each call."""

    def scale(fixed: Tensor, weight: Tensor | None) -> float:
        count = min(len(fixed), PAIRS)
        weight = torch.ones(len(fixed)) if weight is None else weight.cpu()
        total = weight.double().cumsum(0)
        where = (torch.arange(count, dtype=torch.float64) + 0.5) / count * total[-1]
        chosen = torch.searchsorted(total, where).clamp_(max=len(fixed) - 1)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        return float(value(fixed[chosen.to(fixed.device)], fixed[chosen[order].to(fixed.device)]))

    return scale


def curvature_of(value: Function) -> Callable[..., float]:
    """By the second difference at the match, over steps as large as the differences of unrelated samples.

    1 over the number of samples, that of half the squared difference, where the value does not bend.
    """

    def curvature(fixed: Tensor, weight: Tensor | None, shape: tuple[int, ...] | None = None) -> float:
        order = torch.randperm(len(fixed), generator=torch.Generator().manual_seed(0)).to(fixed.device)
        step = fixed[order] - fixed
        up, down, rest = (float(value(fixed, fixed + way * step, weight, shape)) for way in (1, -1, 0))
        bent = up + down - 2 * rest
        size = step.square().sum(1)
        found = bent / max(float(size.sum() if weight is None else (size * weight).sum()), SMALL)
        total = total_weight(fixed, weight)
        return found if SMALL < found * total < 1 / SMALL else 1 / total

    return curvature


def cost_of(value: Function) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """What each sample adds to the value, (*S): the value, and by how much it rises with the weight of the sample.

    Of a mean over samples that is each sample's own distance; of any other that does not change where all weights are
    multiplied, the mean over the samples is the value.
    """

    def cost(near: Tensor, far: Tensor, _buffer: Tensor) -> Tensor:
        shape = tuple(near.shape[1:])
        weight = near.new_ones(near[0].numel()).requires_grad_()
        with torch.enable_grad():
            total: Any = value(near.flatten(1).T, far.flatten(1).T, weight, shape)
            (slope,) = torch.autograd.grad(total, weight)
        return slope.mul_(len(weight)).add_(total.detach()).reshape(shape)

    return cost
