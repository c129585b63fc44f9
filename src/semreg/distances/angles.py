"""Distances by the angle between feature vectors: cosine, L1Cosine, and the dot product. Features are (P, C).

They follow the losses of IMPACT (Boussot et al., arXiv:2503.24121; ``ImpactLoss.h`` of elastix), but are 0 for equal
features where they can be, defined for zero vectors and do not count excluded samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from semreg.core.shapes import Channels, Mask, Samples, Scalar, Values, Weights
from semreg.distances.contract import Distance, flat, pointwise
from semreg.distances.derived import total_weight
from semreg.distances.differences import l1_curvature
from semreg.distances.samples import length_of, mean_over
from semreg.distances.scales import angle_curvature

DAMPING = 0.1
"""L1Cosine: how fast the similarity falls with the difference of a channel, per unit of the features; as in IMPACT."""


def cosine(fixed: Samples, moving: Samples, weight: Weights | None = None) -> Scalar:
    """1 − f·m / (|f| |m|), weighted mean over the samples; 0 for vectors of equal direction, in [0, 2].

    ``Cosine`` of IMPACT plus 1. A zero vector (shorter than 1e-6) is at 0 from another one and at 1 from all others,
    without a gradient.
    """
    return mean_over(1 - _angle(fixed, moving).cosine, weight)


def cosine_slope(fixed: Samples, moving: Samples, share: Weights) -> tuple[float, Samples]:
    """Part of ``cosine`` from some of the samples, and its derivative in ``moving``."""
    angle = _angle(fixed, moving)
    return float(torch.dot(1 - angle.cosine, share)), angle.gradient(fixed, moving).mul_(-share[:, None])


def unit(x: Channels, _weight: Mask | None) -> Float[Tensor, "k *s"]:
    """Unit vectors (C + 1, *S); zero vectors point along the last axis, so that they match each other and no other."""
    length, known = length_of(x, 0)
    return torch.cat([torch.where(known, x, 0) / length, (~known).to(x.dtype)])


def cosine_cost(near: Channels, far: Channels, buffer: Channels) -> Values:
    """Of unit vectors: 1 − their dot product."""
    return dotproduct_cost(near, far, buffer).add_(1)


def l1cosine(fixed: Samples, moving: Samples, weight: Weights | None = None) -> Scalar:
    """1 − f·m / (|f| |m|) · mean_c exp(−0.1 |m − f|), weighted mean over the samples; 0 for equal features, in [0, 2].

    ``L1Cosine`` of IMPACT plus 1: a direction that differs and a length that differs both count. Zero vectors as for
    ``cosine``. The damping of 0.1 is per unit of the features.
    """
    likeness = (moving - fixed).abs().mul(-DAMPING).exp().mean(1)
    return mean_over(1 - _angle(fixed, moving).cosine * likeness, weight)


def l1cosine_slope(fixed: Samples, moving: Samples, share: Weights) -> tuple[float, Samples]:
    """Part of ``l1cosine`` from some of the samples, and its derivative in ``moving``."""
    angle, difference = _angle(fixed, moving), moving - fixed
    damped = difference.abs().mul_(-DAMPING).exp_()
    likeness = damped.mean(1)
    value = float(torch.dot(1 - angle.cosine * likeness, share))
    decline = damped.mul_(difference.sign_()).mul_((DAMPING / fixed.shape[1]) * angle.cosine[:, None])
    turn = angle.gradient(fixed, moving).mul_(likeness[:, None])
    return value, decline.sub_(turn).mul_(share[:, None])


def l1cosine_cost(near: Channels, far: Channels, buffer: Channels) -> Values:
    """Of features (C) and their unit vectors (C + 1), one after the other."""
    channels = len(near) // 2
    raw, turned = slice(0, channels), slice(channels, None)
    torch.sub(near[raw], far[raw], out=buffer[raw])
    likeness = buffer[raw].abs_().mul_(-DAMPING).exp_().mean(0)
    return dotproduct_cost(near[turned], far[turned], buffer[turned]).mul_(likeness).add_(1)


def l1cosine_curvature(fixed: Samples, weight: Weights | None) -> float:
    """Of the angle and of the damping."""
    return angle_curvature(fixed, weight) + DAMPING / fixed.shape[1] * l1_curvature(fixed, weight)


def dotproduct(fixed: Samples, moving: Samples, weight: Weights | None = None) -> Scalar:
    """−Σ_c f m, weighted mean over the samples: ``DotProduct`` of IMPACT.

    It has no least value: longer moving features are always nearer, so equal ones are not at 0 and not the minimum.
    """
    return mean_over(-(fixed * moving).sum(1), weight)


def dotproduct_slope(fixed: Samples, moving: Samples, share: Weights) -> tuple[float, Samples]:
    """Part of ``dotproduct`` from some of the samples, and its derivative in ``moving``."""
    gradient = fixed * -share[:, None]
    return float(torch.dot(gradient.flatten(), moving.flatten())), gradient


def dotproduct_cost(near: Channels, far: Channels, buffer: Channels) -> Values:
    """−Σ_c near · far, (*S)."""
    torch.mul(near, far, out=buffer)
    return buffer.sum(0).neg_()


def squared_length(fixed: Samples, weight: Weights | None) -> float:
    """Weighted mean of Σ_c f²."""
    return float(mean_over(fixed.square().sum(1), weight))


@dataclass(frozen=True)
class _Angle:
    """Cosine (P,) between two vectors, their lengths (P, 1) and whether neither is a zero vector (P, 1)."""

    cosine: Tensor
    length_fixed: Tensor
    length_moving: Tensor
    both: Tensor

    def gradient(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """Of the cosine in ``moving``."""
        along = moving * (self.cosine[:, None] / self.length_moving)
        return (fixed / self.length_fixed).sub_(along).mul_(self.both / self.length_moving)


def _angle(fixed: Tensor, moving: Tensor) -> _Angle:
    (length_fixed, known_fixed), (length_moving, known_moving) = length_of(fixed, 1), length_of(moving, 1)
    both = known_fixed & known_moving
    # the square root and the quotient never see a zero vector: their gradients there would not be numbers
    quotient = (fixed * moving).sum(1, keepdim=True) / (length_fixed * length_moving)
    cosine = torch.where(both, quotient, (known_fixed == known_moving).to(fixed.dtype))
    return _Angle(cosine[:, 0], length_fixed, length_moving, both)


COSINE = Distance.of(
    pointwise(cosine),
    curvature=flat(angle_curvature),
    embed=unit,
    cost=cosine_cost,
    slope=cosine_slope,
    formula="cosine",
)

L1COSINE = Distance.of(
    pointwise(l1cosine),
    curvature=flat(l1cosine_curvature),
    embed=lambda x, w: torch.cat([x, unit(x, w)]),
    cost=l1cosine_cost,
    slope=l1cosine_slope,
    formula="l1cosine",
)

DOTPRODUCT = Distance.of(
    pointwise(dotproduct),
    scale=squared_length,  # of unrelated features it may be 0 or below: what a match brings is the measure
    # of ½ |m − f|², which −f·m is a part of: it has none itself
    curvature=flat(lambda f, w: 1 / total_weight(f, w)),
    cost=dotproduct_cost,
    slope=dotproduct_slope,
    formula="dotproduct",
    zero_at_match=False,
    summed=True,
)
