"""All distances by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from semreg.distances import candidates, scales
from semreg.distances.contract import Curvature, Distance, Shape, Value
from semreg.distances.correlation import RADIUS, lncc, locally_standardised, ncc, standardised
from semreg.distances.samples import (
    cosine,
    cosine_slope,
    dice,
    dice_slope,
    dotproduct,
    dotproduct_slope,
    l1,
    l1_slope,
    l1cosine,
    l1cosine_slope,
    l2,
    l2_slope,
)


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
        scale=scales.no_correlation,
        curvature=partial(scales.lncc_curvature, radius=radius),
        embed=partial(locally_standardised, radius=radius),
        cost=candidates.correlation_cost,
    )


DISTANCES: dict[str, Distance] = {
    "l1": Distance(
        _value(l1),
        scale=scales.l1_scale,
        curvature=_curvature(scales.l1_curvature),
        embed=candidates.as_is,
        cost=candidates.l1_cost,
        slope=l1_slope,
    ),
    "l2": Distance(
        _value(l2),
        scale=lambda f, w: 2 * float(scales.variances(f, w).sum()),
        curvature=_curvature(lambda f, w: 2 / scales.total_weight(f, w)),
        embed=candidates.as_is,
        cost=candidates.l2_cost,
        slope=l2_slope,
    ),
    "ncc": Distance(
        _value(ncc),
        scale=scales.no_correlation,
        curvature=_curvature(scales.ncc_curvature),
        embed=standardised,
        cost=candidates.correlation_cost,
    ),
    "lncc": lncc_of(RADIUS),
    "cosine": Distance(
        _value(cosine),
        scale=scales.unrelated(cosine),
        curvature=_curvature(scales.angle_curvature),
        embed=candidates.unit,
        cost=candidates.cosine_cost,
        slope=cosine_slope,
    ),
    "l1cosine": Distance(
        _value(l1cosine),
        scale=scales.unrelated(l1cosine),
        curvature=_curvature(scales.l1cosine_curvature),
        embed=lambda x, w: torch.cat([x, candidates.unit(x, w)]),
        cost=candidates.l1cosine_cost,
        slope=l1cosine_slope,
    ),
    "dotproduct": Distance(
        _value(dotproduct),
        scale=scales.squared_length,  # of unrelated features it may be 0 or below: what a match brings is the measure
        # of ½ |m − f|², which −f·m is a part of: it has none itself
        curvature=_curvature(lambda f, w: 1 / scales.total_weight(f, w)),
        embed=candidates.as_is,
        cost=candidates.dotproduct_cost,
        slope=dotproduct_slope,
        zero_at_match=False,
    ),
    "dice": Distance(
        _value(dice),
        scale=scales.unrelated(dice),
        curvature=_curvature(scales.angle_curvature),
        embed=candidates.as_is,
        cost=candidates.dice_cost,
        slope=dice_slope,
    ),
}
"""By the name used in the settings."""
