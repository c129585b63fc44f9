"""Distances between features: 0 where they match, differentiable, with weights. Knows nothing of grids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

SMALL = 1e-6
"""Keeps quotients of vanishing sums finite."""


Slope: TypeAlias = Callable[[Tensor, Tensor, Tensor], tuple[float, Tensor]]


@dataclass(frozen=True)
class Distance:
    """A distance and what an optimiser must know of it. Lower is better, 0 for equal features.

    ``value(fixed, moving, weight)``: features (P, C), weight (P,) or None → scalar; samples of weight 0 count nowhere.
    ``scale(fixed, weight)``: the distance of unrelated features, what a residual is small or large against.
    ``curvature(fixed, weight)``: about the second derivative in one feature of one sample.
    ``slope(fixed, moving, share)``: where the distance is a weighted mean over samples, the part of some samples, whose
    ``share`` of all weights is given, and its derivative in ``moving`` (P, C); None for other distances.
    """

    value: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    scale: Callable[[Tensor, Tensor | None], float]
    curvature: Callable[[Tensor, Tensor | None], float]
    slope: Slope | None = None

    def __call__(self, fixed: Tensor, moving: Tensor, weight: Tensor | None = None) -> Tensor:
        """The distance as a scalar tensor."""
        return self.value(fixed, moving, weight)


def l2(fixed: Tensor, moving: Tensor, weight: Tensor | None = None) -> Tensor:
    """Squared differences, summed over the channels, weighted mean over the samples; 0 for equal features."""
    squared = (moving - fixed).square().sum(1)
    if weight is None:
        return squared.mean()
    return (squared * weight).sum() / weight.sum().clamp(min=SMALL)


def l2_slope(fixed: Tensor, moving: Tensor, share: Tensor) -> tuple[float, Tensor]:
    """Part of ``l2`` from some of the samples, and its derivative in ``moving``."""
    difference = moving - fixed
    weighted = difference * share[:, None]
    return float(torch.dot(difference.flatten(), weighted.flatten())), weighted.mul_(2)


def ncc(fixed: Tensor, moving: Tensor, weight: Tensor | None = None) -> Tensor:
    """1 − normalised cross-correlation over all samples, mean over the channels; 0 for equal features, in [0, 2].

    A channel without variation in one of the two has correlation 0 (and distance 0 if both are the same constant).
    """
    share = torch.ones_like(fixed[:, :1]) if weight is None else weight[:, None]
    share = share / share.sum().clamp(min=SMALL)
    centred_fixed = fixed - (share * fixed).sum(0)
    centred_moving = moving - (share * moving).sum(0)
    covariance = (share * centred_fixed * centred_moving).sum(0)
    variance_fixed = (share * centred_fixed.square()).sum(0)
    variance_moving = (share * centred_moving.square()).sum(0)
    small = SMALL**2
    correlation = (covariance + small) / ((variance_fixed + small) * (variance_moving + small)).sqrt()
    return (1 - correlation).mean()


def _variances(fixed: Tensor, weight: Tensor | None) -> Tensor:
    share = torch.ones_like(fixed[:, :1]) if weight is None else weight[:, None]
    share = share / share.sum().clamp(min=SMALL)
    mean = (share * fixed).sum(0)
    return (share * (fixed - mean).square()).sum(0)


def _samples(fixed: Tensor, weight: Tensor | None) -> float:
    return float(len(fixed) if weight is None else weight.sum().clamp(min=SMALL))


DISTANCES: dict[str, Distance] = {
    "l2": Distance(l2, lambda f, w: 2 * float(_variances(f, w).sum()), lambda f, w: 2 / _samples(f, w), l2_slope),
    "ncc": Distance(
        ncc,
        lambda _f, _w: 1.0,
        lambda f, w: 1 / (_samples(f, w) * f.shape[1] * float(_variances(f, w).mean().clamp(min=SMALL**2))),
    ),
}
"""By the name used in the settings."""
