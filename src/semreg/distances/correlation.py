"""Normalised cross-correlation of features, over all samples and in windows. Features are (P, C)."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor

from semreg.core.sampling import smooth
from semreg.core.shapes import Channels, Samples, Scalar, Values, Weights
from semreg.distances.contract import Distance, Shape, flat, pointwise
from semreg.distances.derived import total_weight
from semreg.distances.differences import l2_cost
from semreg.distances.samples import SMALL, mean_over
from semreg.distances.scales import no_correlation, variances
from semreg.errors import ConfigError, GeometryError

RADIUS = 2
"""LNCC: half width of the window in voxels where nothing else is said."""
FLAT = 1e-5
"""LNCC: a local variance well below this share of the whole image's is rounding or noise and does not count."""
FEWEST = 3
"""LNCC at scattered points: points that a cell must hold to count; two always correlate."""


def ncc(fixed: Samples, moving: Samples, weight: Weights | None = None) -> Scalar:
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
    fixed: Samples,
    moving: Samples,
    weight: Weights | None = None,
    shape: Shape | None = None,
    radius: int = RADIUS,
) -> Scalar:
    """1 − local normalised cross-correlation in windows of ``2 radius + 1`` voxels, mean over channels and samples.

    The windows of Avants et al., Medical Image Analysis 2008 (at the border: what is there of them; weighted where
    there is a weight), but the correlation itself and not its square: features that are each other's negative do not
    match, and the gradient does not vanish where nothing is correlated yet. 0 for equal features, in [0, 2]. Where both
    are locally constant the distance is 0, where only one is, 1. ``shape`` is the spatial shape (ConfigError without).
    """
    return mean_over(1 - local_correlation(fixed, moving, weight, shape, radius).mean(0).flatten(), weight)


def lncc_squared(
    fixed: Samples,
    moving: Samples,
    weight: Weights | None = None,
    shape: Shape | None = None,
    radius: int = RADIUS,
) -> Scalar:
    """1 − squared local normalised cross-correlation, else as ``lncc``; the measure of Avants et al. itself, in [0, 1].

    Features whose relation changes its sign from place to place match, as intensities of two contrasts. It does not
    pull where nothing is correlated yet: for the last millimetres, beside a distance that leads there.
    """
    squared = local_correlation(fixed, moving, weight, shape, radius).square()
    return mean_over(1 - squared.mean(0).flatten(), weight)


def local_correlation(
    fixed: Samples,
    moving: Samples,
    weight: Weights | None,
    shape: Shape | None,
    radius: int,
) -> Tensor:
    """The correlation in the window around each sample, (C, *S), in [−1, 1]; see ``lncc``.

    In double precision: where a window is constant, as most are beside a body, its variance is what rounding leaves of
    a difference, and in single precision that is no longer small against what counts as flat.
    """
    exact = torch.float32 if fixed.device.type == "mps" else torch.float64
    mask = None if weight is None else on_grid(weight[:, None].to(exact), shape)
    f, m = (without_mean(on_grid(x.to(exact), shape), mask) for x in (fixed, moving))
    flat_fixed, flat_moving = _flat(f, mask), _flat(m, mask)
    mean_fixed, mean_moving = local_mean(f, mask, radius), local_mean(m, mask, radius)
    covariance = local_mean(f * m, mask, radius) - mean_fixed * mean_moving + (flat_fixed * flat_moving).sqrt()
    variance_fixed = (local_mean(f.square(), mask, radius) - mean_fixed.square()).clamp(min=0) + flat_fixed
    variance_moving = (local_mean(m.square(), mask, radius) - mean_moving.square()).clamp(min=0) + flat_moving
    return (covariance / (variance_fixed.sqrt() * variance_moving.sqrt())).to(moving.dtype)


def on_grid(x: Samples, shape: Shape | None) -> Channels:
    """Samples (P, C) as images (C, *S); ConfigError without their shape."""
    if shape is None:
        raise ConfigError("expected the spatial shape of the samples for lncc, got none: give it, or choose ncc")
    return x.T.contiguous().reshape(-1, *shape)  # a third less time than window means over strided channels


def global_mean(x: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of each channel of ``x`` (C, *S), weighted, (C, 1, …)."""
    if weight is None:
        return x.mean(tuple(range(1, x.ndim)), keepdim=True)
    return (x * weight).sum(tuple(range(1, x.ndim)), keepdim=True) / weight.sum().clamp(min=SMALL)


def without_mean(x: Tensor, weight: Tensor | None) -> Tensor:
    """``x`` (C, *S) minus the means of its channels, so that differences of squares lose fewer digits."""
    return x - global_mean(x, weight)


def _flat(centred: Tensor, weight: Tensor | None) -> Tensor:
    """The local variance of each channel that counts as none, (C, 1, …)."""
    return FLAT * global_mean(centred.square(), weight) + SMALL**2


def local_mean(x: Tensor, weight: Tensor | None, radius: int) -> Tensor:
    """Mean in windows of ``2 radius + 1`` voxels of each channel of ``x`` (C, *S), weighted."""
    if weight is None:
        return smooth(x, radius=radius)
    return smooth(x * weight, radius=radius) / smooth(weight, radius=radius).clamp(min=SMALL)


def locally_standardised(x: Tensor, weight: Tensor | None, radius: int = RADIUS) -> Tensor:
    """``x`` (C, *S) with mean 0 and variance 1 in each window; 0 where nothing counts."""
    centred = without_mean(x, weight)
    mean = local_mean(centred, weight, radius)
    variance = (local_mean(centred.square(), weight, radius) - mean.square()).clamp_(min=0)
    result = (centred - mean).div_(variance.add_(_flat(centred, weight)).sqrt_())
    return result if weight is None else result.mul_(weight > 0)


def standardised(x: Tensor, weight: Tensor | None) -> Tensor:
    """``x`` (C, *S) with mean 0 and variance 1 in each channel."""
    centred = without_mean(x, weight)
    return centred / (global_mean(centred.square(), weight) + SMALL**2).sqrt()


def correlation_cost(near: Channels, far: Channels, buffer: Channels) -> Values:
    """Of standardised channels: their mean over the samples is 1 − correlation."""
    return l2_cost(near, far, buffer).div_(2 * len(near))


def ncc_curvature(fixed: Samples, weight: Weights | None) -> float:
    """Of ½ d² / variance, averaged over the channels."""
    return 1 / (
        total_weight(fixed, weight) * fixed.shape[1] * float(variances(fixed, weight).mean().clamp(min=SMALL**2))
    )


def lncc_curvature(fixed: Samples, weight: Weights | None, shape: Shape | None = None, radius: int = RADIUS) -> float:
    """The same with the variance within windows."""
    mask = None if weight is None else on_grid(weight[:, None], shape)
    centred = without_mean(on_grid(fixed, shape), mask)
    local = local_mean(centred.square(), mask, radius) - local_mean(centred, mask, radius).square()
    variance = float(global_mean(local, mask).mean().clamp(min=SMALL**2))
    return 1 / (total_weight(fixed, weight) * fixed.shape[1] * variance)


def lncc_squared_curvature(
    fixed: Samples, weight: Weights | None, shape: Shape | None = None, radius: int = RADIUS
) -> float:
    """Twice that of LNCC: near the match 1 − c² is about 2 (1 − c)."""
    return 2 * lncc_curvature(fixed, weight, shape, radius)


def scattered_lncc(fixed: Samples, moving: Samples, cell: Int[Tensor, "p"], power: int = 1) -> Scalar:
    """1 − normalised cross-correlation within cells, mean over the channels and the points; 0 for equal features.

    With ``power`` 2 it is the square (Avants et al., Medical Image Analysis 2008). Features (M, C), ``cell`` (M,) the
    number of each point's cell. Variances well below a small share of that of all points count as flat: where both are
    flat the distance is 0, where only one is, 1. Cells of fewer than three points do not count. Raises GeometryError
    where no cell counts.
    """
    counts = torch.bincount(cell)
    counted = counts >= FEWEST
    if not bool(counted.any()):
        raise GeometryError(
            f"expected {FEWEST} sample points or more in some cell for the distance lncc, got {len(cell)} points too "
            "far apart: take more points, or choose ncc"
        )
    size = counts.clamp(min=1).to(fixed.dtype)[:, None]

    def mean(x: Tensor) -> Tensor:
        return x.new_zeros((len(counts), x.shape[1])).index_add(0, cell, x) / size

    f, m = fixed - fixed.mean(0), moving - moving.mean(0)
    flat_fixed, flat_moving = FLAT * f.square().mean(0) + SMALL**2, FLAT * m.square().mean(0) + SMALL**2
    mean_fixed, mean_moving = mean(f), mean(m)
    covariance = mean(f * m) - mean_fixed * mean_moving + (flat_fixed * flat_moving).sqrt()
    variance_fixed = (mean(f.square()) - mean_fixed.square()).clamp(min=0) + flat_fixed
    variance_moving = (mean(m.square()) - mean_moving.square()).clamp(min=0) + flat_moving
    correlation = covariance / (variance_fixed * variance_moving).sqrt()
    share = (counts * counted).to(fixed.dtype)
    return ((1 - correlation.pow(power).mean(1)) * share).sum() / share.sum()


def lncc_of(radius: int) -> Distance:
    """LNCC in windows of ``2 radius + 1`` voxels an axis."""
    return Distance.of(
        partial(lncc, radius=radius),
        scale=no_correlation,
        curvature=partial(lncc_curvature, radius=radius),
        embed=partial(locally_standardised, radius=radius),
        cost=correlation_cost,
        windows=lncc_of,
        in_cells=scattered_lncc,
        formula="lncc",
    )


def lncc_squared_of(radius: int) -> Distance:
    """Squared LNCC in windows of ``2 radius + 1`` voxels an axis; it leads no search, see ``lncc_squared``."""
    return Distance.of(
        partial(lncc_squared, radius=radius),
        scale=no_correlation,
        curvature=partial(lncc_squared_curvature, radius=radius),
        windows=lncc_squared_of,
        in_cells=partial(scattered_lncc, power=2),
        leads=False,
        formula="lncc_squared",
    )


NCC = Distance.of(
    pointwise(ncc),
    scale=no_correlation,
    curvature=flat(ncc_curvature),
    embed=standardised,
    cost=correlation_cost,
    formula="ncc",
)

LNCC = lncc_of(RADIUS)

LNCC_SQUARED = lncc_squared_of(RADIUS)
