"""What is compared: pairs of feature layers, each with its distance and its weight. Knows nothing of feature models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from semreg.core.fields import Layer
from semreg.core.geometry import Grid
from semreg.distances import DISTANCES
from semreg.distances.contract import Distance
from semreg.distances.correlation import RADIUS
from semreg.distances.samples import SMALL

ALIKE = 2.1
"""The scale that the search is tuned to: about the distance of unrelated MIND-SSC features."""
SCALE_SAMPLES = 1 << 18
"""Samples from which the distance of unrelated features is computed, at most."""


@dataclass(frozen=True)
class Term:
    """One layer of features of both images, on grids along the same axes, and how it counts.

    The objective is the sum over all terms of share · distance · ``ALIKE`` / scale, where the shares sum to 1 and
    ``scale`` is the distance of unrelated features: layers of any size and number of channels count by their weights.
    """

    fixed: Layer
    moving: Layer
    distance: str = "l2"
    share: float = 1.0
    scale: float = ALIKE
    subset: int = 0
    """Channels drawn again for each step of the refinement; 0: all."""
    radius: int = RADIUS
    """Of distances in windows: their half width in voxels."""
    given: bool = False
    """Whether no model gives its features, as those of labels: they stay what they are where models run again."""

    @property
    def measure(self) -> Distance:
        """The distance itself."""
        found = DISTANCES[self.distance]
        return found if found.windows is None else found.windows(self.radius)

    @property
    def factor(self) -> float:
        """What its distance is multiplied by in the sum."""
        return self.share * ALIKE / self.scale

    def pooled(self, spacing: float) -> Term:
        """Features at most about ``spacing`` mm apart: block means of finer ones, coarser ones as they are."""
        return replace(self, fixed=pooled(self.fixed, spacing), moving=pooled(self.moving, spacing))

    def swapped(self) -> Term:
        """The same with the two images in each other's place."""
        return replace(self, fixed=self.moving, moving=self.fixed)


def terms_of(terms: Sequence[Term]) -> tuple[Term, ...]:
    """The terms with shares that sum to 1 and scales of their own."""
    total = sum(term.share for term in terms)
    return tuple(replace(term, share=term.share / total, scale=unrelated(term)) for term in terms)


def joined(groups: Sequence[Sequence[Term]], weights: Sequence[float]) -> tuple[Term, ...]:
    """The terms of all groups, each of which counts by its weight and whose shares sum to 1, as those of all do."""
    total = sum(weights)
    return tuple(
        replace(term, share=term.share * weight / total)
        for group, weight in zip(groups, weights, strict=True)
        for term in group
    )


def leading(terms: Sequence[Term]) -> tuple[Term, ...]:
    """Those that a search goes by, with shares that sum to 1; all where none is meant for that."""
    found = [term for term in terms if term.measure.leads] or list(terms)
    total = sum(term.share for term in found)
    return tuple(replace(term, share=term.share / total) for term in found)


def unrelated(term: Term) -> float:
    """The distance of unrelated features of the fixed image, ``ALIKE`` where it has no structure.

    Rounded to ``ALIKE`` times a power of two, so that it changes the size of numbers and none of their digits.
    """
    rows = term.fixed.features.data.flatten(1)
    step = -(-rows.shape[1] // SCALE_SAMPLES)
    weight = None if term.fixed.weight is None else term.fixed.weight.data.flatten()[::step]
    samples = rows[:, ::step].T.contiguous()
    counted = samples if weight is None else samples[weight > 0]
    if len(counted) == 0:
        return ALIKE
    variance, size = counted.var(0, correction=0).sum(), counted.square().mean(0).sum()
    if float(variance) <= SMALL**2 * float(size):  # rounding
        return ALIKE
    scale = term.measure.scale(samples, weight)
    return ALIKE * 2.0 ** round(math.log2(scale / ALIKE)) if scale > 0 else ALIKE


def pooled(layer: Layer, spacing: float) -> Layer:
    """Features at most about ``spacing`` mm apart: block means of finer ones, coarser ones as they are."""
    factor = max(1, round(spacing / min(layer.grid.spacing)))
    return layer if factor == 1 else layer.pooled(_factors(layer.grid, spacing, factor))


def _factors(grid: Grid, spacing: float, factor: int) -> int | tuple[int, ...]:
    factors = tuple(max(1, round(spacing / s)) for s in grid.spacing)
    return factor if len(set(factors)) == 1 else factors


def device_of(terms: Sequence[Term]) -> torch.device:
    """Where the features lie."""
    return terms[0].fixed.features.data.device
