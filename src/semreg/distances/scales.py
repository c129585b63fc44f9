"""What several distances know of their scale and their second derivative better than their value tells."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from semreg.core.shapes import Samples, Weights
from semreg.distances.derived import total_weight
from semreg.distances.samples import SMALL, mean_over


def variances(fixed: Samples, weight: Weights | None) -> Float[Tensor, "c"]:
    """Weighted variance of each channel, (C,)."""
    share = torch.ones_like(fixed[:, :1]) if weight is None else weight[:, None]
    share = share / share.sum().clamp(min=SMALL)
    mean = (share * fixed).sum(0)
    return (share * (fixed - mean).square()).sum(0)


def no_correlation(_fixed: Samples, _weight: Weights | None) -> float:
    """1: the distance of what is not correlated."""
    return 1.0


def angle_curvature(fixed: Samples, weight: Weights | None) -> float:
    """Of ½ |d|² / |f|², which both cosine and dice about are near the match; short vectors count as not quite so."""
    square = fixed.square().sum(1)
    shortest = max(0.1 * float(mean_over(square, weight)), SMALL**2)
    return float(mean_over(1 / square.clamp(min=shortest), weight)) / total_weight(fixed, weight)
