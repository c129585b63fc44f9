"""Distances between features: 0 where they match, differentiable, with weights. Knows nothing of grids."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

SMALL = 1e-6
"""Keeps quotients of vanishing sums finite."""


class Distance(Protocol):
    """``fixed`` (P, C), ``moving`` (P, C), ``weight`` (P,) or None → scalar, lower is better."""

    def __call__(self, fixed: Tensor, moving: Tensor, weight: Tensor | None = None) -> Tensor:
        """The distance; samples of weight 0 count nowhere."""


def l2(fixed: Tensor, moving: Tensor, weight: Tensor | None = None) -> Tensor:
    """Squared differences, summed over the channels, weighted mean over the samples; 0 for equal features."""
    squared = (moving - fixed).square().sum(1)
    if weight is None:
        return squared.mean()
    return (squared * weight).sum() / weight.sum().clamp(min=SMALL)


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


DISTANCES: dict[str, Distance] = {"l2": l2, "ncc": ncc}
"""By the name used in the settings."""


def scale(distance: str, fixed: Tensor, weight: Tensor | None = None) -> float:
    """The distance of unrelated features of this kind: what a residual is small or large against."""
    if distance == "ncc":
        return 1.0
    share = torch.ones_like(fixed[:, :1]) if weight is None else weight[:, None]
    share = share / share.sum().clamp(min=SMALL)
    mean = (share * fixed).sum(0)
    return float(2 * (share * (fixed - mean).square()).sum())
