"""Distances between features: lower is better, differentiable, with weights. Knows nothing of mm.

Most follow the losses of IMPACT (Boussot et al., arXiv:2503.24121; ``ImpactLoss.h`` of elastix), but are 0 for equal
features, defined for zero vectors and do not count excluded samples. Features are (P, C), samples by channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from semreg.errors import ConfigError
from semreg.sampling import smooth

SMALL = 1e-6
"""Keeps quotients of vanishing sums finite."""
DAMPING = 0.1
"""L1Cosine: how fast the similarity falls with the difference of a channel, per unit of the features; as in IMPACT."""
RADIUS = 2
"""LNCC: half width of the window in voxels where nothing else is said."""
FLAT = 1e-5
"""LNCC: a local variance well below this share of the whole image's is rounding or noise and does not count."""
PAIRS = 4096
"""Pairs of samples that stand for all unrelated ones."""

Shape: TypeAlias = tuple[int, ...]
Slope: TypeAlias = Callable[[Tensor, Tensor, Tensor], tuple[float, Tensor]]


class Value(Protocol):
    """A distance as a function: features (P, C), weight (P,) or None, spatial shape → scalar."""

    def __call__(
        self, fixed: Tensor, moving: Tensor, weight: Tensor | None = None, shape: Shape | None = None
    ) -> Tensor:
        """The distance."""


class Curvature(Protocol):
    """What ``Distance.curvature`` is."""

    def __call__(self, fixed: Tensor, weight: Tensor | None, shape: Shape | None = None) -> float:
        """About the second derivative in one feature of one sample."""


@dataclass(frozen=True)
class Distance:
    """A distance and what an optimiser must know of it. Lower is better, 0 for equal features.

    ``value(fixed, moving, weight, shape)``: features (P, C), weight (P,) or None → scalar; samples of weight 0 count
    nowhere. ``shape`` is the spatial shape *S of the P samples, which LNCC needs (else ConfigError) and no other uses.
    ``scale(fixed, weight)``: the distance of unrelated features, what a residual is small or large against; >= 0.
    ``curvature(fixed, weight, shape)``: about the second derivative in one feature of one sample.
    ``embed(features, weight)`` and ``cost(near, far, buffer)`` compare candidates one by one, without gradients:
    ``embed`` (C, *S), (1, *S) or None → (K, *S), once for each image; ``cost`` of two of these (K, *S) → (*S), where
    ``buffer`` (K, *S) is scratch. The mean of the cost over the samples is the value where the distance has a slope.
    ``slope(fixed, moving, share)``: where the distance is a weighted mean over samples, the part of some samples, whose
    ``share`` of all weights is given, and its derivative in ``moving`` (P, C); None for other distances.
    ``zero_at_match``: whether 0 is the least value; if not, the distance has neither a least value nor a fixed sign.
    """

    value: Value
    scale: Callable[[Tensor, Tensor | None], float]
    curvature: Curvature
    embed: Callable[[Tensor, Tensor | None], Tensor]
    cost: Callable[[Tensor, Tensor, Tensor], Tensor]
    slope: Slope | None = None
    zero_at_match: bool = True

    def __call__(
        self, fixed: Tensor, moving: Tensor, weight: Tensor | None = None, shape: Shape | None = None
    ) -> Tensor:
        """The distance as a scalar tensor."""
        return self.value(fixed, moving, weight, shape)


def l1(fixed: Tensor, moving: Tensor, weight: Tensor | None = None) -> Tensor:
    """Absolute differences, Σ_c |m − f|, weighted mean over the samples; the gradient of a difference of 0 is 0.

    ``L1`` of IMPACT, which averages over the channels instead.
    """
    return _mean((moving - fixed).abs().sum(1), weight)


def l1_slope(fixed: Tensor, moving: Tensor, share: Tensor) -> tuple[float, Tensor]:
    """Part of ``l1`` from some of the samples, and its derivative in ``moving``."""
    difference = moving - fixed
    return float(torch.dot(difference.abs().sum(1), share)), difference.sign_().mul_(share[:, None])


def l2(fixed: Tensor, moving: Tensor, weight: Tensor | None = None) -> Tensor:
    """Squared differences, summed over the channels, weighted mean over the samples; 0 for equal features."""
    return _mean((moving - fixed).square().sum(1), weight)


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
    return _mean(1 - _angle(fixed, moving).cosine, weight)


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
    return _mean(1 - _angle(fixed, moving).cosine * likeness, weight)


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
    return _mean(-(fixed * moving).sum(1), weight)


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
    return _mean((moving - fixed).square().sum(1) / _overlap_size(fixed, moving), weight)


def dice_slope(fixed: Tensor, moving: Tensor, share: Tensor) -> tuple[float, Tensor]:
    """Part of ``dice`` from some of the samples, and its derivative in ``moving``."""
    difference, size = moving - fixed, _overlap_size(fixed, moving)
    terms = difference.square().sum(1) / size
    return float(torch.dot(terms, share)), (difference - terms[:, None] * moving).mul_((2 * share / size)[:, None])


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


def lncc(
    fixed: Tensor, moving: Tensor, weight: Tensor | None = None, shape: Shape | None = None, radius: int = RADIUS
) -> Tensor:
    """1 − local normalised cross-correlation in windows of ``2 radius + 1`` voxels, mean over channels and samples.

    The windows of Avants et al., Medical Image Analysis 2008 (at the border: what is there of them; weighted where
    there is a weight), but the correlation itself and not its square: features that are each other's negative do not
    match, and the gradient does not vanish where nothing is correlated yet. 0 for equal features, in [0, 2]. Where both
    are locally constant the distance is 0, where only one is, 1. ``shape`` is the spatial shape (ConfigError without).
    """
    mask = None if weight is None else _on_grid(weight[:, None], shape)
    f, m = _centred(_on_grid(fixed, shape), mask), _centred(_on_grid(moving, shape), mask)
    flat_fixed, flat_moving = _flat(f, mask), _flat(m, mask)
    mean_fixed, mean_moving = _local_mean(f, mask, radius), _local_mean(m, mask, radius)
    covariance = _local_mean(f * m, mask, radius) - mean_fixed * mean_moving + (flat_fixed * flat_moving).sqrt()
    variance_fixed = (_local_mean(f.square(), mask, radius) - mean_fixed.square()).clamp(min=0) + flat_fixed
    variance_moving = (_local_mean(m.square(), mask, radius) - mean_moving.square()).clamp(min=0) + flat_moving
    correlation = covariance / (variance_fixed.sqrt() * variance_moving.sqrt())
    return _mean(1 - correlation.mean(0).flatten(), weight)


def _mean(terms: Tensor, weight: Tensor | None) -> Tensor:
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
    (length_fixed, known_fixed), (length_moving, known_moving) = _length(fixed, 1), _length(moving, 1)
    both = known_fixed & known_moving
    # the square root and the quotient never see a zero vector: their gradients there would not be numbers
    quotient = (fixed * moving).sum(1, keepdim=True) / (length_fixed * length_moving)
    cosine = torch.where(both, quotient, (known_fixed == known_moving).to(fixed.dtype))
    return _Angle(cosine[:, 0], length_fixed, length_moving, both)


def _length(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Lengths along ``dim``, 1 for zero vectors, and whether they are none; the dimension is kept."""
    square = x.square().sum(dim, keepdim=True)
    known = square > SMALL**2
    return torch.where(known, square, 1).sqrt(), known


def _unit(x: Tensor, _weight: Tensor | None) -> Tensor:
    """Unit vectors (C + 1, *S); zero vectors point along the last axis, so that they match each other and no other."""
    length, known = _length(x, 0)
    return torch.cat([torch.where(known, x, 0) / length, (~known).to(x.dtype)])


def _overlap_size(fixed: Tensor, moving: Tensor) -> Tensor:
    return fixed.square().sum(1) + moving.square().sum(1) + SMALL


def _on_grid(x: Tensor, shape: Shape | None) -> Tensor:
    if shape is None:
        raise ConfigError("expected the spatial shape of the samples for lncc, got none: give it, or choose ncc")
    return x.T.contiguous().reshape(-1, *shape)  # a third less time than window means over strided channels


def _global_mean(x: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of each channel of ``x`` (C, *S), weighted, (C, 1, …)."""
    if weight is None:
        return x.mean(tuple(range(1, x.ndim)), keepdim=True)
    return (x * weight).sum(tuple(range(1, x.ndim)), keepdim=True) / weight.sum().clamp(min=SMALL)


def _centred(x: Tensor, weight: Tensor | None) -> Tensor:
    """``x`` (C, *S) minus the means of its channels, so that differences of squares lose fewer digits."""
    return x - _global_mean(x, weight)


def _flat(centred: Tensor, weight: Tensor | None) -> Tensor:
    """The local variance of each channel that counts as none, (C, 1, …)."""
    return FLAT * _global_mean(centred.square(), weight) + SMALL**2


def _local_mean(x: Tensor, weight: Tensor | None, radius: int) -> Tensor:
    if weight is None:
        return smooth(x, radius=radius)
    return smooth(x * weight, radius=radius) / smooth(weight, radius=radius).clamp(min=SMALL)


def _locally_standardised(x: Tensor, weight: Tensor | None, radius: int = RADIUS) -> Tensor:
    centred = _centred(x, weight)
    mean = _local_mean(centred, weight, radius)
    variance = (_local_mean(centred.square(), weight, radius) - mean.square()).clamp_(min=0)
    result = (centred - mean).div_(variance.add_(_flat(centred, weight)).sqrt_())
    return result if weight is None else result.mul_(weight > 0)


def _standardised(x: Tensor, weight: Tensor | None) -> Tensor:
    centred = _centred(x, weight)
    return centred / (_global_mean(centred.square(), weight) + SMALL**2).sqrt()


def _as_is(x: Tensor, _weight: Tensor | None) -> Tensor:
    return x


def _l1_cost(near: Tensor, far: Tensor, buffer: Tensor) -> Tensor:
    torch.sub(near, far, out=buffer)
    return buffer.abs_().sum(0)


def _l2_cost(near: Tensor, far: Tensor, buffer: Tensor) -> Tensor:
    torch.sub(near, far, out=buffer)
    return buffer.square_().sum(0)


def _correlation_cost(near: Tensor, far: Tensor, buffer: Tensor) -> Tensor:
    """Of standardised channels: their mean over the samples is 1 − correlation."""
    return _l2_cost(near, far, buffer).div_(2 * len(near))


def _dotproduct_cost(near: Tensor, far: Tensor, buffer: Tensor) -> Tensor:
    torch.mul(near, far, out=buffer)
    return buffer.sum(0).neg_()


def _cosine_cost(near: Tensor, far: Tensor, buffer: Tensor) -> Tensor:
    return _dotproduct_cost(near, far, buffer).add_(1)


def _l1cosine_cost(near: Tensor, far: Tensor, buffer: Tensor) -> Tensor:
    """Of features (C) and their unit vectors (C + 1), one after the other."""
    channels = len(near) // 2
    raw, unit = slice(0, channels), slice(channels, None)
    torch.sub(near[raw], far[raw], out=buffer[raw])
    likeness = buffer[raw].abs_().mul_(-DAMPING).exp_().mean(0)
    return _dotproduct_cost(near[unit], far[unit], buffer[unit]).mul_(likeness).add_(1)


def _dice_cost(near: Tensor, far: Tensor, buffer: Tensor) -> Tensor:
    squared = _l2_cost(near, far, buffer)
    size = torch.mul(near, near, out=buffer).sum(0).add_(SMALL)
    return squared.div_(size.add_(torch.mul(far, far, out=buffer).sum(0)))


def _variances(fixed: Tensor, weight: Tensor | None) -> Tensor:
    share = torch.ones_like(fixed[:, :1]) if weight is None else weight[:, None]
    share = share / share.sum().clamp(min=SMALL)
    mean = (share * fixed).sum(0)
    return (share * (fixed - mean).square()).sum(0)


def _samples(fixed: Tensor, weight: Tensor | None) -> float:
    return float(len(fixed) if weight is None else weight.sum().clamp(min=SMALL))


def _unrelated(value: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor | None], float]:
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


_l1_scale = _unrelated(l1)


def _squared_length(fixed: Tensor, weight: Tensor | None) -> float:
    return float(_mean(fixed.square().sum(1), weight))


def _no_correlation(_fixed: Tensor, _weight: Tensor | None) -> float:
    return 1.0


def _l1_curvature(fixed: Tensor, weight: Tensor | None) -> float:
    """Of the parabola that touches |d| from above where d is the mean difference of unrelated features: 1 / |d|.

    So the first steps are right; near the match they are too long by at most what the differences have shrunk.
    """
    difference = _l1_scale(fixed, weight) / fixed.shape[1]
    return 1 / (_samples(fixed, weight) * max(difference, SMALL))


def _angle_curvature(fixed: Tensor, weight: Tensor | None) -> float:
    """Of ½ |d|² / |f|², which both cosine and dice about are near the match; short vectors count as not quite so."""
    square = fixed.square().sum(1)
    shortest = max(0.1 * float(_mean(square, weight)), SMALL**2)
    return float(_mean(1 / square.clamp(min=shortest), weight)) / _samples(fixed, weight)


def _l1cosine_curvature(fixed: Tensor, weight: Tensor | None) -> float:
    return _angle_curvature(fixed, weight) + DAMPING / fixed.shape[1] * _l1_curvature(fixed, weight)


def _ncc_curvature(fixed: Tensor, weight: Tensor | None) -> float:
    return 1 / (_samples(fixed, weight) * fixed.shape[1] * float(_variances(fixed, weight).mean().clamp(min=SMALL**2)))


def _lncc_curvature(fixed: Tensor, weight: Tensor | None, shape: Shape | None = None, radius: int = RADIUS) -> float:
    mask = None if weight is None else _on_grid(weight[:, None], shape)
    centred = _centred(_on_grid(fixed, shape), mask)
    local = _local_mean(centred.square(), mask, radius) - _local_mean(centred, mask, radius).square()
    variance = float(_global_mean(local, mask).mean().clamp(min=SMALL**2))
    return 1 / (_samples(fixed, weight) * fixed.shape[1] * variance)


def _value(function: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> Value:
    def value(
        fixed: Tensor,
        moving: Tensor,
        weight: Tensor | None = None,
        shape: Shape | None = None,  # noqa: ARG001 (only lncc needs the grid)
    ) -> Tensor:
        return function(fixed, moving, weight)

    return value


def _curvature(function: Callable[[Tensor, Tensor | None], float]) -> Curvature:
    def curvature(fixed: Tensor, weight: Tensor | None, shape: Shape | None = None) -> float:  # noqa: ARG001 (as above)
        return function(fixed, weight)

    return curvature


def lncc_of(radius: int) -> Distance:
    """LNCC in windows of ``2 radius + 1`` voxels an axis."""
    return Distance(
        partial(lncc, radius=radius),
        _no_correlation,
        partial(_lncc_curvature, radius=radius),
        partial(_locally_standardised, radius=radius),
        _correlation_cost,
    )


DISTANCES: dict[str, Distance] = {
    "l1": Distance(_value(l1), _l1_scale, _curvature(_l1_curvature), _as_is, _l1_cost, l1_slope),
    "l2": Distance(
        _value(l2),
        lambda f, w: 2 * float(_variances(f, w).sum()),
        _curvature(lambda f, w: 2 / _samples(f, w)),
        _as_is,
        _l2_cost,
        l2_slope,
    ),
    "ncc": Distance(_value(ncc), _no_correlation, _curvature(_ncc_curvature), _standardised, _correlation_cost),
    "lncc": lncc_of(RADIUS),
    "cosine": Distance(
        _value(cosine), _unrelated(cosine), _curvature(_angle_curvature), _unit, _cosine_cost, cosine_slope
    ),
    "l1cosine": Distance(
        _value(l1cosine),
        _unrelated(l1cosine),
        _curvature(_l1cosine_curvature),
        lambda x, w: torch.cat([x, _unit(x, w)]),
        _l1cosine_cost,
        l1cosine_slope,
    ),
    "dotproduct": Distance(
        _value(dotproduct),
        _squared_length,  # of unrelated features it may be 0 or below: what a match brings is the measure
        _curvature(lambda f, w: 1 / _samples(f, w)),  # of ½ |m − f|², which −f·m is a part of: it has none itself
        _as_is,
        _dotproduct_cost,
        dotproduct_slope,
        zero_at_match=False,
    ),
    "dice": Distance(_value(dice), _unrelated(dice), _curvature(_angle_curvature), _as_is, _dice_cost, dice_slope),
}
"""By the name used in the settings."""
