"""Distances that are a mean over samples, each compared alone, with their derivatives. Features are (P, C).

Most follow the losses of IMPACT (Boussot et al., arXiv:2503.24121; ``ImpactLoss.h`` of elastix), but are 0 for equal
features, defined for zero vectors and do not count excluded samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SMALL = 1e-6
"""Keeps quotients of vanishing sums finite."""
DAMPING = 0.1
"""L1Cosine: how fast the similarity falls with the difference of a channel, per unit of the features; as in IMPACT."""


def l1(fixed: Tensor, moving: Tensor, weight: Tensor | None = None) -> Tensor:
    """Absolute differences, Σ_c |m − f|, weighted mean over the samples; the gradient of a difference of 0 is 0.

    ``L1`` of IMPACT, which averages over the channels instead.
    """
    return mean_over((moving - fixed).abs().sum(1), weight)


def l1_slope(fixed: Tensor, moving: Tensor, share: Tensor) -> tuple[float, Tensor]:
    """Part of ``l1`` from some of the samples, and its derivative in ``moving``."""
    difference = moving - fixed
    return float(torch.dot(difference.abs().sum(1), share)), difference.sign_().mul_(share[:, None])


def l2(fixed: Tensor, moving: Tensor, weight: Tensor | None = None) -> Tensor:
    """Squared differences, summed over the channels, weighted mean over the samples; 0 for equal features."""
    return mean_over((moving - fixed).square().sum(1), weight)


def l2_slope(fixed: Tensor, moving: Tensor, share: Tensor) -> tuple[float, Tensor]:
    """Part of ``l2`` from some of the samples, and its derivative in ``moving``."""
    difference = moving - fixed
    weighted = difference * share[:, None]
    return float(torch.dot(difference.flatten(), weighted.flatten())), weighted.mul_(2)


def cosine(fixed: Tensor, moving: Tensor, weight: Tensor | None = None) -> Tensor:
    """1 − f·m / (|f| |m|), weighted mean over the samples; 0 for vectors of equal direction, in [0, 2].

    ``Cosine`` of IMPACT plus 1. A zero vector (shorter than 1e-6) is at 0 from another one and at 1 from all others,
    without a gradient.
    """
    return mean_over(1 - _angle(fixed, moving).cosine, weight)


def cosine_slope(fixed: Tensor, moving: Tensor, share: Tensor) -> tuple[float, Tensor]:
    """Part of ``cosine`` from some of the samples, and its derivative in ``moving``."""
    angle = _angle(fixed, moving)
    return float(torch.dot(1 - angle.cosine, share)), angle.gradient(fixed, moving).mul_(-share[:, None])


def l1cosine(fixed: Tensor, moving: Tensor, weight: Tensor | None = None) -> Tensor:
    """1 − f·m / (|f| |m|) · mean_c exp(−0.1 |m − f|), weighted mean over the samples; 0 for equal features, in [0, 2].

    ``L1Cosine`` of IMPACT plus 1: a direction that differs and a length that differs both count. Zero vectors as for
    ``cosine``. The damping of 0.1 is per unit of the features.
    """
    likeness = (moving - fixed).abs().mul(-DAMPING).exp().mean(1)
    return mean_over(1 - _angle(fixed, moving).cosine * likeness, weight)


def l1cosine_slope(fixed: Tensor, moving: Tensor, share: Tensor) -> tuple[float, Tensor]:
    """Part of ``l1cosine`` from some of the samples, and its derivative in ``moving``."""
    angle, difference = _angle(fixed, moving), moving - fixed
    damped = difference.abs().mul_(-DAMPING).exp_()
    likeness = damped.mean(1)
    value = float(torch.dot(1 - angle.cosine * likeness, share))
    decline = damped.mul_(difference.sign_()).mul_((DAMPING / fixed.shape[1]) * angle.cosine[:, None])
    turn = angle.gradient(fixed, moving).mul_(likeness[:, None])
    return value, decline.sub_(turn).mul_(share[:, None])


def dotproduct(fixed: Tensor, moving: Tensor, weight: Tensor | None = None) -> Tensor:
    """−Σ_c f m, weighted mean over the samples: ``DotProduct`` of IMPACT.

    It has no least value: longer moving features are always nearer, so equal ones are not at 0 and not the minimum.
    """
    return mean_over(-(fixed * moving).sum(1), weight)


def dotproduct_slope(fixed: Tensor, moving: Tensor, share: Tensor) -> tuple[float, Tensor]:
    """Part of ``dotproduct`` from some of the samples, and its derivative in ``moving``."""
    gradient = fixed * -share[:, None]
    return float(torch.dot(gradient.flatten(), moving.flatten())), gradient


def dice(fixed: Tensor, moving: Tensor, weight: Tensor | None = None) -> Tensor:
    """1 − soft Dice over the channels of each sample, weighted mean over the samples; 0 for equal class maps.

    1 − 2 Σ_c f m / Σ_c (f² + m²) = |m − f|² / (|f|² + |m|²). As in IMPACT, ``Dice`` compares the class maps (0 to 1) of
    one sample and is the same for maps of 0 and 1; but nothing is rounded, which would have no gradient, and the
    squares (Milletari et al., V-Net, 3DV 2016) bring equal maps that are not certain to 0. Equal empty maps are at 0.
    """
    return mean_over((moving - fixed).square().sum(1) / _overlap_size(fixed, moving), weight)


def dice_slope(fixed: Tensor, moving: Tensor, share: Tensor) -> tuple[float, Tensor]:
    """Part of ``dice`` from some of the samples, and its derivative in ``moving``."""
    difference, size = moving - fixed, _overlap_size(fixed, moving)
    terms = difference.square().sum(1) / size
    return float(torch.dot(terms, share)), (difference - terms[:, None] * moving).mul_((2 * share / size)[:, None])


def mean_over(terms: Tensor, weight: Tensor | None) -> Tensor:
    """Weighted mean of one term a sample, (P,); 0 where nothing counts."""
    if weight is None:
        return terms.mean()
    return (terms * weight).sum() / weight.sum().clamp(min=SMALL)


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


def length_of(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Lengths along ``dim``, 1 for zero vectors, and whether they are none; the dimension is kept."""
    square = x.square().sum(dim, keepdim=True)
    known = square > SMALL**2
    return torch.where(known, square, 1).sqrt(), known


def _overlap_size(fixed: Tensor, moving: Tensor) -> Tensor:
    return fixed.square().sum(1) + moving.square().sum(1) + SMALL
