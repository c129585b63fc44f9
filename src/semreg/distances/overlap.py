"""Distances by the overlap of class maps: soft Dice. Features are (P, C), one channel a class."""

from __future__ import annotations

import torch
from torch import Tensor

from semreg.core.shapes import Channels, Samples, Scalar, Values, Weights
from semreg.distances.contract import Distance, flat, pointwise
from semreg.distances.differences import l2_cost
from semreg.distances.samples import SMALL, mean_over
from semreg.distances.scales import angle_curvature


def dice(fixed: Samples, moving: Samples, weight: Weights | None = None) -> Scalar:
    """1 − soft Dice over the channels of each sample, weighted mean over the samples; 0 for equal class maps.

    1 − 2 Σ_c f m / Σ_c (f² + m²) = |m − f|² / (|f|² + |m|²). As in IMPACT, ``Dice`` compares the class maps (0 to 1) of
    one sample and is the same for maps of 0 and 1; but nothing is rounded, which would have no gradient, and the
    squares (Milletari et al., V-Net, 3DV 2016) bring equal maps that are not certain to 0. Equal empty maps are at 0.
    """
    return mean_over((moving - fixed).square().sum(1) / _overlap_size(fixed, moving), weight)


def dice_slope(fixed: Samples, moving: Samples, share: Weights) -> tuple[float, Samples]:
    """Part of ``dice`` from some of the samples, and its derivative in ``moving``."""
    difference, size = moving - fixed, _overlap_size(fixed, moving)
    terms = difference.square().sum(1) / size
    return float(torch.dot(terms, share)), (difference - terms[:, None] * moving).mul_((2 * share / size)[:, None])


def dice_cost(near: Channels, far: Channels, buffer: Channels) -> Values:
    """Σ_c (far − near)² / Σ_c (far² + near²), (*S)."""
    squared = l2_cost(near, far, buffer)
    size = torch.mul(near, near, out=buffer).sum(0).add_(SMALL)
    return squared.div_(size.add_(torch.mul(far, far, out=buffer).sum(0)))


def _overlap_size(fixed: Tensor, moving: Tensor) -> Tensor:
    return fixed.square().sum(1) + moving.square().sum(1) + SMALL


DICE = Distance.of(pointwise(dice), curvature=flat(angle_curvature), cost=dice_cost, slope=dice_slope, formula="dice")
