"""How well features match at given places, and which way they pull: the data term of the refinement.

A match reads its moving side where an index says and returns its distance and the gradient in the index. Knows nothing
of regularity, and of networks only that somebody can run one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from semreg.core.fields import Field, Layer, Volume
from semreg.core.geometry import Grid, index_map
from semreg.core.kernels import (
    Comparison,
    JointComparison,
    compare,
    compare_jointly,
    pull,
    read,
    spline_adjoint,
)
from semreg.core.sampling import inside, sample, transform_index
from semreg.core.scattered import Table
from semreg.core.sums import total
from semreg.distances.samples import SMALL
from semreg.registration.dense.layouts import Layouts, Readable
from semreg.registration.dense.terms import Term
from semreg.transforms.bspline import SplineIndex, SplineLattice


class Renewal(Protocol):
    """Runs the models again while the field changes."""

    def renewed(self, field: Field, spacing_mm: float) -> Sequence[Term]:
        """The terms with the moving features of the image warped by ``field``, about ``spacing_mm`` apart."""

    @property
    def image(self) -> Volume:
        """The moving image (1, *S) that the networks are given."""

    @property
    def grid(self) -> Grid:
        """Where the networks see the warped image: the fixed image's working grid."""

    @property
    def image_weight(self) -> Volume | None:
        """How much each voxel of ``image`` counts, (1, *S); None: all do."""

    def features(self, warped: Tensor) -> list[Tensor]:
        """Features (C, *S) of the warped image (1, *S) on ``grid``, one for each term; differentiable in ``warped``."""


class Match(Protocol):
    """Part of the data term."""

    index: SplineIndex
    """Where the samples are read in the moving image."""

    def data(self, index: Tensor) -> tuple[float, Tensor]:
        """The distance at ``index`` (D, P) and its gradient (D, P)."""

    def weight(self, index: Tensor) -> Tensor:
        """How much each sample counts, (P,)."""

    def curvature(self) -> Tensor:
        """An upper bound of its curvature for each coefficient."""

    def redraw(self, generator: torch.Generator) -> None:
        """Draw other channels, where that is asked for."""


class TermMatch:
    """The match of one term with features that are interpolated."""

    def __init__(self, term: Term, lattice: SplineLattice, moving: Readable | None = None) -> None:
        """Lay out the matrices of the spline and the features; the ``moving`` ones may be laid out already."""
        fixed = term.fixed
        self.grid, device = fixed.grid, fixed.features.data.device
        self.distance, self.factor, self._term = term.measure, term.factor, term
        self.fixed = fixed.features.data.flatten(1).T.contiguous()
        self.fixed_weight = None if fixed.weight is None else fixed.weight.data.flatten()
        self.moving = Readable(term.moving) if moving is None else moving
        self.table = self.moving.features
        self.change: Tensor | None = None
        """What is added to the moving features at each sample, (P, C)."""
        self._changes: Tensor | None = None  # of all channels
        self.index = SplineIndex(lattice, self.grid, term.moving.grid, device)

    def renewed(self, warped: Layer, displacement: Field) -> TermMatch:
        """The same match with the moving features changed as those of the image, ``warped`` by ``displacement``, are.

        The features themselves are read where they were. Those of the warped image lie on the fixed samples, where the
        displacement is what it was warped by: there they are read as they are, and beside it as means of neighbours,
        which match better by having less noise. So the descent would leave that place for nothing.
        """
        term, grid = self._term, self.grid
        index = transform_index(index_map(grid, term.moving.grid), displacement.on(grid).index())
        seen = warped.averaged_on(grid)
        weight = inside(index, term.moving.grid.shape)[None].to(index.dtype)
        weight = weight if seen.weight is None else weight * seen.weight.data
        change = (seen.features.data - sample(term.moving.features.data, index)) * weight
        result = copy.copy(self)
        result.change = result._changes = change.flatten(1).T.contiguous()  # noqa: SLF001 - a copy of its own
        return result

    def data(self, index: Tensor) -> tuple[float, Tensor]:
        """The distance at ``index`` (D, P) times the term's factor, and its gradient (D, P)."""
        weight = self.weight(index)
        slope = self.distance.slope
        if slope is None:
            value, gradient = self._jointly(index, weight)
        else:
            share = weight / max(total(weight), SMALL)
            how = Comparison(slope=slope, formula=self.distance.formula, change=self.change)
            value, gradient = compare(self.table, self.fixed, index, share, how)
        return self.factor * value, gradient if self.factor == 1 else gradient.mul_(self.factor)

    def _jointly(self, index: Tensor, weight: Tensor) -> tuple[float, Tensor]:
        """For a distance that sees all samples at once."""
        values = read(self.table, index)
        values = values if self.change is None else values.add_(self.change)
        value, gradient = compare_jointly(self.fixed, values, weight, _joint(self._term))
        return value, pull(self.table, index, gradient)

    def weight(self, index: Tensor) -> Tensor:
        """How much each sample counts, (P,): inside the moving image and both masks."""
        weight = self.moving.weight(index)
        return weight if self.fixed_weight is None else weight * self.fixed_weight

    def curvature(self) -> Tensor:
        """From the fixed features' gradients."""
        curvature = self.distance.curvature(self.fixed, self.fixed_weight, self.grid.shape)
        curvature = float(f"{curvature:.3g}")  # a guess, whose last digits may come from the order of a sum
        share = self.factor * curvature * len(self.fixed) / self.grid.voxels
        found = energy(self._term.fixed)
        return share * spline_adjoint(found * self.index.voxels**2, self.index.bases)

    def redraw(self, generator: torch.Generator) -> None:
        """Draw ``subset`` channels of the term."""
        term = self._term
        if not 0 < term.subset < len(term.fixed.features.data):
            return
        order = torch.randperm(len(term.fixed.features.data), generator=generator)[: term.subset].sort().values
        order = order.to(self.fixed.device)
        self.fixed = term.fixed.features.data[order].flatten(1).T.contiguous()
        self.table = Table(term.moving.features.data[order])
        self.change = None if self._changes is None else self._changes[:, order]


class ImageMatch:
    """The match of all terms through the networks themselves, which are differentiated: the mode ``jacobian``."""

    def __init__(self, terms: Sequence[Term], lattice: SplineLattice, renewal: Renewal) -> None:
        """``terms`` hold the fixed features; the moving image and the networks are those of ``renewal``."""
        self._terms, self._renewal = terms, renewal
        device = terms[0].fixed.features.data.device
        self.table = Table(renewal.image.data.to(device))
        self.index = SplineIndex(lattice, renewal.grid, renewal.image.grid, device)

    def data(self, index: Tensor) -> tuple[float, Tensor]:
        """The sum of all distances with the image read at ``index`` (D, P), and its gradient (D, P)."""
        warped = read(self.table, index).requires_grad_()
        image = warped.T.reshape(1, *self._renewal.grid.shape)
        whole = index.new_zeros(())
        for term, moving in zip(self._terms, self._renewal.features(image), strict=True):
            fixed = term.fixed.features.data.flatten(1).T
            weight = self._sample_weight(term, index)
            distance = term.measure(fixed, moving.flatten(1).T.to(fixed), weight, term.fixed.grid.shape)
            whole = whole + term.factor * distance
        (gradient,) = torch.autograd.grad(whole, warped)
        return float(whole.detach()), pull(self.table, index, gradient)

    def _sample_weight(self, term: Term, index: Tensor) -> Tensor:
        """How much each sample of a layer counts: where its place in the image is read inside of the moving image."""
        counts = self.weight(index).reshape(1, *self._renewal.grid.shape)
        weight = Volume(counts, self._renewal.grid).averaged_on(term.fixed.grid).data.flatten()
        return weight if term.fixed.weight is None else weight * term.fixed.weight.data.flatten()

    def weight(self, index: Tensor) -> Tensor:
        """How much each voxel counts, (P,): inside the moving image and its mask."""
        weight = inside(index, self._renewal.image.grid.shape).to(index.dtype)
        share = self._renewal.image_weight
        return weight if share is None else weight * sample(share.data.to(index), index)[0]

    def curvature(self) -> Tensor:
        """Not known; that of the interpolated features stands for it."""
        raise NotImplementedError

    def redraw(self, generator: torch.Generator) -> None:
        """All channels are compared."""


def distance_at(terms: Sequence[Term], field: Field, layouts: Layouts | None = None) -> float:
    """The sum of the terms' distances with the moving features read through ``field``; NaN without overlap."""
    result = 0.0
    for term in terms:
        index, weight = seen_through(term, field)
        if not bool((weight > 0).any()):
            return math.nan
        moving = term.moving
        table = Table(moving.features.data) if layouts is None else layouts.readable(moving).features
        result += term.factor * _value(term, table, index, weight)
    return result


def seen_through(term: Term, field: Field) -> tuple[Tensor, Tensor]:
    """Where the samples of a term are read in the moving image (D, P) through ``field``, and how each counts (P,)."""
    fixed, moving = term.fixed, term.moving
    index = transform_index(index_map(fixed.grid, moving.grid), field.on(fixed.grid).index()).flatten(1)
    weight = inside(index, moving.grid.shape).to(index.dtype)
    for layer, where in ((moving, index), (fixed, None)):
        if layer.weight is not None:
            data = layer.weight.data
            weight = weight * (data.flatten() if where is None else sample(data, where, outside=0.0)[0])
    return index, weight


def _value(term: Term, table: Table, index: Tensor, weight: Tensor) -> float:
    """The distance of a term whose moving features are read at ``index`` (D, P), with a weight (P,) for each sample."""
    measure = term.measure
    rows = term.fixed.features.data.flatten(1).T.contiguous()
    if measure.slope is not None:
        share = weight / max(total(weight), SMALL)
        return compare(table, rows, index, share, Comparison(slope=measure.slope, formula=measure.formula))[0]
    return compare_jointly(rows, read(table, index), weight, _joint(term))[0]


def _joint(term: Term) -> JointComparison:
    """How the samples of a term are compared whose distance sees all of them."""
    measure = term.measure
    return JointComparison(value=measure, shape=term.fixed.grid.shape, formula=measure.formula, radius=term.radius)


def energy(layer: Layer) -> Tensor:
    """Squared differences between neighbouring features along each axis, summed over the channels, (D, *S).

    Differences to excluded voxels do not count.
    """
    features = layer.features.data
    result = features.new_zeros((features.ndim - 1, *features.shape[1:]))
    for axis, n in enumerate(features.shape[1:]):
        if n > 1:
            squared = features[0].diff(dim=axis).square_()
            for channel in features[1:]:  # one at a time: differences of all would be as large as the features
                squared.add_(channel.diff(dim=axis).square_())
            if layer.weight is not None:
                known = layer.weight.data[0] > 0
                squared = squared * (known.narrow(axis, 0, n - 1) & known.narrow(axis, 1, n - 1))
            result[axis].narrow(axis, 0, n - 1).add_(squared, alpha=0.5)
            result[axis].narrow(axis, 1, n - 1).add_(squared, alpha=0.5)
    return result
