"""Distances by the differences of the channels: L1 and L2. Features are (P, C).

L1 follows the loss of IMPACT (Boussot et al., arXiv:2503.24121; ``ImpactLoss.h`` of elastix), which averages over the
channels instead.
"""

from __future__ import annotations

import torch

from semreg.core.shapes import Channels, Samples, Scalar, Values, Weights
from semreg.distances.contract import Distance, flat, pointwise
from semreg.distances.derived import scale_of, total_weight
from semreg.distances.samples import SMALL, mean_over
from semreg.distances.scales import variances


def l1(fixed: Samples, moving: Samples, weight: Weights | None = None) -> Scalar:
    """Absolute differences, Σ_c |m − f|, weighted mean over the samples; the gradient of a difference of 0 is 0.

    ``L1`` of IMPACT, which averages over the channels instead.
    """
    return mean_over((moving - fixed).abs().sum(1), weight)


def l1_slope(fixed: Samples, moving: Samples, share: Weights) -> tuple[float, Samples]:
    """Part of ``l1`` from some of the samples, and its derivative in ``moving``."""
    difference = moving - fixed
    return float(torch.dot(difference.abs().sum(1), share)), difference.sign_().mul_(share[:, None])


def l1_cost(near: Channels, far: Channels, buffer: Channels) -> Values:
    """Σ_c |far − near|, (*S)."""
    torch.sub(near, far, out=buffer)
    return buffer.abs_().sum(0)


def l1_curvature(fixed: Samples, weight: Weights | None) -> float:
    """Of the parabola that touches |d| from above where d is the mean difference of unrelated features: 1 / |d|.

    So the first steps are right; near the match they are too long by at most what the differences have shrunk.
    """
    difference = l1_scale(fixed, weight) / fixed.shape[1]
    return 1 / (total_weight(fixed, weight) * max(difference, SMALL))


def l2(fixed: Samples, moving: Samples, weight: Weights | None = None) -> Scalar:
    """Squared differences, summed over the channels, weighted mean over the samples; 0 for equal features."""
    return mean_over((moving - fixed).square().sum(1), weight)


def l2_slope(fixed: Samples, moving: Samples, share: Weights) -> tuple[float, Samples]:
    """Part of ``l2`` from some of the samples, and its derivative in ``moving``."""
    difference = moving - fixed
    weighted = difference * share[:, None]
    return float(torch.dot(difference.flatten(), weighted.flatten())), weighted.mul_(2)


def l2_cost(near: Channels, far: Channels, buffer: Channels) -> Values:
    """Σ_c (far − near)², (*S)."""
    torch.sub(near, far, out=buffer)
    return buffer.square_().sum(0)


l1_scale = scale_of(l1)

L1 = Distance.of(
    pointwise(l1),
    scale=l1_scale,
    curvature=flat(l1_curvature),
    cost=l1_cost,
    slope=l1_slope,
    summed=True,
    formula="l1",
)

L2 = Distance.of(
    pointwise(l2),
    scale=lambda f, w: 2 * float(variances(f, w).sum()),
    curvature=flat(lambda f, w: 2 / total_weight(f, w)),
    cost=l2_cost,
    slope=l2_slope,
    summed=True,
    formula="l2",
)
