"""What an optimiser must know of a distance: its value for unrelated features, and about its second derivative."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from semreg.distances.contract import Shape
from semreg.distances.correlation import RADIUS, global_mean, local_mean, on_grid, without_mean
from semreg.distances.samples import DAMPING, SMALL, l1, mean_over

PAIRS = 4096
"""Pairs of samples that stand for all unrelated ones."""


def variances(fixed: Tensor, weight: Tensor | None) -> Tensor:
    """Weighted variance of each channel, (C,)."""
    share = torch.ones_like(fixed[:, :1]) if weight is None else weight[:, None]
    share = share / share.sum().clamp(min=SMALL)
    mean = (share * fixed).sum(0)
    return (share * (fixed - mean).square()).sum(0)


def total_weight(fixed: Tensor, weight: Tensor | None) -> float:
    """How many samples count."""
    return float(len(fixed) if weight is None else weight.sum().clamp(min=SMALL))


def unrelated(value: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor | None], float]:
    """The scale of a distance: its value for pairs of samples at random, drawn by weight; the same at each call."""

    def scale(fixed: Tensor, weight: Tensor | None) -> float:
        count = min(len(fixed), PAIRS)
        weight = torch.ones(len(fixed)) if weight is None else weight.cpu()
        total = weight.double().cumsum(0)
        where = (torch.arange(count, dtype=torch.float64) + 0.5) / count * total[-1]
        chosen = torch.searchsorted(total, where).clamp_(max=len(fixed) - 1)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        return float(value(fixed[chosen.to(fixed.device)], fixed[chosen[order].to(fixed.device)]))

    return scale


l1_scale = unrelated(l1)


def squared_length(fixed: Tensor, weight: Tensor | None) -> float:
    """Weighted mean of Σ_c f²."""
    return float(mean_over(fixed.square().sum(1), weight))


def no_correlation(_fixed: Tensor, _weight: Tensor | None) -> float:
    """1: the distance of what is not correlated."""
    return 1.0


def l1_curvature(fixed: Tensor, weight: Tensor | None) -> float:
    """Of the parabola that touches |d| from above where d is the mean difference of unrelated features: 1 / |d|.

    So the first steps are right; near the match they are too long by at most what the differences have shrunk.
    """
    difference = l1_scale(fixed, weight) / fixed.shape[1]
    return 1 / (total_weight(fixed, weight) * max(difference, SMALL))


def angle_curvature(fixed: Tensor, weight: Tensor | None) -> float:
    """Of ½ |d|² / |f|², which both cosine and dice about are near the match; short vectors count as not quite so."""
    square = fixed.square().sum(1)
    shortest = max(0.1 * float(mean_over(square, weight)), SMALL**2)
    return float(mean_over(1 / square.clamp(min=shortest), weight)) / total_weight(fixed, weight)


def l1cosine_curvature(fixed: Tensor, weight: Tensor | None) -> float:
    """Of the angle and of the damping."""
    return angle_curvature(fixed, weight) + DAMPING / fixed.shape[1] * l1_curvature(fixed, weight)


def ncc_curvature(fixed: Tensor, weight: Tensor | None) -> float:
    """Of ½ d² / variance, averaged over the channels."""
    return 1 / (
        total_weight(fixed, weight) * fixed.shape[1] * float(variances(fixed, weight).mean().clamp(min=SMALL**2))
    )


def lncc_curvature(fixed: Tensor, weight: Tensor | None, shape: Shape | None = None, radius: int = RADIUS) -> float:
    """The same with the variance within windows."""
    mask = None if weight is None else on_grid(weight[:, None], shape)
    centred = without_mean(on_grid(fixed, shape), mask)
    local = local_mean(centred.square(), mask, radius) - local_mean(centred, mask, radius).square()
    variance = float(global_mean(local, mask).mean().clamp(min=SMALL**2))
    return 1 / (total_weight(fixed, weight) * fixed.shape[1] * variance)
