"""How alike two images are before and after: mutual information, correlation and MIND-SSC. Knows nothing of files.

All are over the same voxels of the fixed grid before and after: those that the moving image shows both times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from semreg.core.fields import Field, Volume, finite, warp
from semreg.core.sampling import SLAB_POINTS, slabs
from semreg.features.contract import FeatureMap, IntensityStats
from semreg.features.descriptors.mind import MindSSC
from semreg.features.inputs import stats_of
from semreg.quality.config import EvaluationConfig

CONSTANT = 1e-12
"""A variance below this share of the squared mean is rounding."""
TAILS = (0.5, 99.5)
"""Percentiles of the intensities between which the classes of the mutual information lie."""


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """One measure; None is what could not be measured."""

    before: float | None
    after: float | None
    better: Literal["higher", "lower"]


@dataclass(frozen=True, kw_only=True)
class Similarities:
    """How alike the images are, before and after."""

    mutual_information: Similarity
    """In nats."""
    correlation: Similarity
    mind: Similarity
    """Distance of the MIND-SSC descriptors."""

    @property
    def by_name(self) -> dict[str, Similarity]:
        """All measures."""
        return {"mutual_information": self.mutual_information, "correlation": self.correlation, "mind": self.mind}


def similarity_table(
    fixed: Volume, moving: Volume, fields: tuple[Field | None, Field], mask: Tensor | None, config: EvaluationConfig
) -> Similarities | None:
    """The three measures before and after the two ``fields`` (None: the identity).

    Voxels of ``mask`` (*S), bool, that are finite and that the moving image shows both before and after; where it
    shows none before, the measures before are None and those after are over what it shows then. None where it shows
    nothing after.
    """
    known = torch.isfinite(fixed.data[0])
    if mask is not None:
        known &= mask
    after = warp(moving, fields[1], outside=float("nan")).data
    before = brought(moving, fields[0], fixed)
    seen = known & torch.isfinite(after[0])
    shared = seen & torch.isfinite(before[0])
    if not bool(seen.any()):
        return None
    both = bool(shared.any())
    counts = shared if both else seen
    stats = stats_of(finite(fixed.data)), stats_of(finite(moving.data))
    edges = _edges(fixed.data[0][counts]), _edges(finite(moving.data))
    values = fixed.data[0][counts]
    read = [before, after] if both else [after]
    information = [mutual_information(values, each[0][counts], edges, config.bins) for each in read]
    correlations = [correlation(values, each[0][counts]) for each in read]
    return Similarities(
        mutual_information=_sides(information, "higher"),
        correlation=_sides(correlations, "higher"),
        mind=_sides(mind_distances(fixed.data, read, counts, stats), "lower"),
    )


def _sides(found: Sequence[float | None], better: Literal["higher", "lower"]) -> Similarity:
    """Of values before and after, or after alone."""
    return Similarity(before=found[0] if len(found) == 2 else None, after=found[-1], better=better)


def brought(moving: Volume, field: Field | None, fixed: Volume) -> Tensor:
    """The moving image on the fixed grid (1, *S), NaN where it shows nothing."""
    outside = float("nan")
    if field is None:
        return moving.on(fixed.grid, outside=outside).data
    return warp(moving, field, outside=outside).data


def mutual_information(
    fixed: Tensor, moving: Tensor, edges: tuple[tuple[float, float], tuple[float, float]], bins: int
) -> float:
    """Σ p(f, m) log(p(f, m) / (p(f) p(m))) in nats over samples (N,), from a histogram of ``bins`` × ``bins`` classes.

    The classes of each image are equally wide between its ``edges``; values beyond belong to the outer ones (Maes et
    al., Multimodality image registration by maximization of mutual information, IEEE TMI 1997).
    """
    joint = torch.zeros(bins * bins, dtype=torch.int64)
    for start in range(0, len(fixed), SLAB_POINTS):
        part = slice(start, start + SLAB_POINTS)
        joint += torch.bincount(
            _classes(fixed[part], edges[0], bins) * bins + _classes(moving[part], edges[1], bins), minlength=bins * bins
        )
    share = joint.double().reshape(bins, bins) / len(fixed)
    apart = share.sum(1, keepdim=True) * share.sum(0, keepdim=True)
    there = share > 0
    return float((share[there] * (share[there] / apart[there]).log()).sum())


def correlation(fixed: Tensor, moving: Tensor) -> float | None:
    """Pearson's correlation of samples (N,); None where one of them is constant."""
    means = [float(x.sum(dtype=torch.float64)) / len(x) for x in (fixed, moving)]
    products = np.zeros(3)
    for start in range(0, len(fixed), SLAB_POINTS):
        part = slice(start, start + SLAB_POINTS)
        a, b = (x[part].double() - mean for x, mean in zip((fixed, moving), means, strict=True))
        products += [float(a @ b), float(a @ a), float(b @ b)]
    covariance, *variances = products
    if any(v <= CONSTANT * len(fixed) * (mean**2 or 1.0) for v, mean in zip(variances, means, strict=True)):
        return None
    return float(covariance / np.sqrt(variances[0] * variances[1]))


def mind_distances(
    fixed: Tensor, others: Sequence[Tensor], counts: Tensor, stats: tuple[IntensityStats, IntensityStats]
) -> list[float | None]:
    """Mean squared difference of the MIND-SSC descriptors of ``fixed`` and ``others``, (1, *S), over ``counts``.

    Mean over the channels, so between 0 and 1; descriptors of the fixed image's voxels, with radius 1 and
    dilation 2. What is not finite takes no part. ``stats``: of the fixed image and of the others. None where no voxel
    has descriptors in both.
    """
    model = MindSSC(dimension=counts.ndim)
    totals, weights = [0.0] * len(others), [0.0] * len(others)
    for part in slabs(tuple(counts.shape), SLAB_POINTS):
        if not bool(counts[part].any()):
            continue
        first = _descriptors(model, _tile(fixed, part, model.spec.halo), stats[0])
        for number, other in enumerate(others):
            second = _descriptors(model, _tile(other, part, model.spec.halo), stats[1])
            shares = counts[part].double()
            for found in (first, second):
                if found.weight is not None:
                    shares = shares * found.weight[0]
            apart = second.values.sub_(first.values).square_().mean(0)
            totals[number] += float((apart * shares).sum())
            weights[number] += float(shares.sum())
    return [total / weight if weight > 0 else None for total, weight in zip(totals, weights, strict=True)]


def _descriptors(model: MindSSC, tile: Tensor, stats: IntensityStats) -> FeatureMap:
    """Those of the inner voxels of a tile; a weight only where something is not finite."""
    valid = torch.isfinite(tile)
    if bool(valid.all()):
        return model(tile, stats)
    return model(torch.where(valid, tile, stats.mean), stats, valid.to(tile.dtype))


def _tile(x: Tensor, part: slice, halo: int) -> Tensor:
    """A slab of x (1, *S) with ``halo`` voxels more on every side, border values beyond."""
    for axis, n in enumerate(x.shape[1:]):
        first, last = (part.start, part.stop) if axis == 0 else (0, n)
        x = x.index_select(axis + 1, torch.arange(first - halo, last + halo).clamp_(0, n - 1))
    return x


def _edges(values: Tensor) -> tuple[float, float]:
    low, high = np.percentile(values.numpy(), TAILS)
    return float(low), float(high)


def _classes(values: Tensor, edges: tuple[float, float], bins: int) -> Tensor:
    low, high = edges
    width = (high - low) / bins or 1.0
    return ((values.double() - low) / width).floor_().clamp_(0, bins - 1).long()
