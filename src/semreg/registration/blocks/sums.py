"""The part of the objective that one block of the fixed image has: a sum, its gradient, and how much it counts.

The sums of all blocks are those of the whole image, whatever the size of the blocks, but for the order of the sums: a
distance in windows sees the samples around the block, of which each counts in one block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from semreg.core.fields import Layer
from semreg.core.geometry import Grid, index_map
from semreg.core.kernels import pull, read, spline_adjoint, spline_product
from semreg.core.sampling import base_index, transform_index
from semreg.core.sums import total
from semreg.distances import DISTANCES
from semreg.distances.correlation import local_mean
from semreg.registration.blocks.boxes import Box
from semreg.registration.blocks.features import Maps
from semreg.registration.blocks.windows import POWER, correlated
from semreg.registration.dense.data_term import TermMatch, energy
from semreg.registration.dense.terms import Term
from semreg.transforms.bspline import LatticePart, SplineIndex, SplineLattice

GRAIN = 2.0**-15
"""Of a sample, to which places are rounded: then they do not depend on where the part begins in which they are read,
and single precision holds them in parts of up to 512 samples. The derivative of an interpolant tells no less apart."""


@dataclass(frozen=True)
class Sum:
    """What a block adds: the distance times its weight, the gradient in the control points that it sees, the weight."""

    value: float
    pull: Tensor
    weight: float


@dataclass(frozen=True)
class Curvature:
    """What a block adds to the curvature: squared slopes of its features in the control points that it sees."""

    energy: Tensor
    weight: float
    bend: float
    """Of a distance in windows the sum of the local variances, of another one of its own curvature; both weighted."""


@dataclass(frozen=True)
class BlockSum:
    """The computation for one block."""

    maps: Maps
    lattice: SplineLattice
    box: Box

    @property
    def halo(self) -> int:
        """Samples around the block that its distance sees."""
        return self.maps.compared.radius if self.maps.compared.distance in POWER else 0

    @property
    def seen(self) -> LatticePart:
        """The control points that the block and what is around it see."""
        grid = self.maps.grid("fixed")
        return LatticePart.of(self.lattice, self.box.grown(max(1, self.halo), grid.shape).of(grid))

    def at(self, coefficients: Tensor) -> Sum:
        """The sum at the ``coefficients`` of the control points that are seen, (D, *controls)."""
        there, nothing = self.maps.grid("moving"), Sum(0.0, torch.zeros_like(coefficients), 0.0)
        fixed, seen = self._fixed(self.halo), self.seen
        places = _places(seen, fixed.grid, there, coefficients)
        region = Box.around(places, there.shape)
        if region is None:
            return nothing
        match = TermMatch(Term(fixed, self.maps.layer("moving", region), self.maps.compared.distance), seen)
        places = (places - torch.tensor(region.start)[:, None]).float()
        weight = match.weight(places)
        core = self._core(weight, fixed, self.halo)
        share = total(core)
        if not share:
            return nothing
        if self.halo:
            value, slope = self._windows(match, places, weight, core)
        else:
            value, slope = match.data(places)
            value, slope = value * share, slope * share
        return Sum(value, match.index.adjoint(slope), share)

    def curvature(self) -> Curvature:
        """How the objective bends with the control points that are seen."""
        halo = max(1, self.halo)
        fixed = self._fixed(halo)
        index = SplineIndex(self.seen, fixed.grid, fixed.grid, torch.device("cpu"))
        data, mask = fixed.features.data, _weight(fixed)
        core = self._core(mask.flatten(), fixed, halo)
        share = total(core)
        if self.halo:
            radius = self.maps.compared.radius
            squares, mean = (local_mean(x, mask.double(), radius) for x in (data.double().square(), data.double()))
            bend = total((squares - mean.square()).clamp(min=0).mean(0).flatten() * core)
        else:
            distance = DISTANCES[self.maps.compared.distance]
            bend = share**2 * distance.curvature(data.flatten(1).T, core, fixed.grid.shape) if share else 0.0
        counted = energy(fixed) * (core > 0).reshape(fixed.grid.shape)
        return Curvature(spline_adjoint(counted * index.voxels**2, index.bases), share, bend)

    def _fixed(self, halo: int) -> Layer:
        return self.maps.layer("fixed", self.box.grown(halo, self.maps.grid("fixed").shape))

    def _core(self, weight: Tensor, fixed: Layer, halo: int) -> Tensor:
        """``weight`` (P,) of all samples that are seen, 0 at those of other blocks."""
        outer = self.box.grown(halo, self.maps.grid("fixed").shape)
        mine = torch.zeros(fixed.grid.shape)
        mine[self.box.within(outer)] = 1
        return weight * mine.flatten()

    def _windows(self, match: TermMatch, places: Tensor, weight: Tensor, core: Tensor) -> tuple[float, Tensor]:
        """A distance in windows: windows of all samples that are seen, counted where the block has their centre."""
        shape, compared = match.grid.shape, self.maps.compared
        images = tuple(x.T.reshape(-1, *shape) for x in (match.fixed, read(match.table, places)))
        value, slope = correlated(
            (images[0], images[1]), weight.reshape(shape), core.reshape(shape), POWER[compared.distance],
            compared.radius,
        )  # fmt: skip
        return value, pull(match.table, places, slope.flatten(1).T.contiguous())


def _places(seen: LatticePart, grid: Grid, there: Grid, coefficients: Tensor) -> Tensor:
    """Where samples are read, (D, P), float64, multiples of ``GRAIN``: in single precision in a part of any size."""
    index = SplineIndex(seen, grid, there, coefficients.device)
    base = transform_index(index_map(grid, there), base_index(grid.shape, like=coefficients.double())).flatten(1)
    base += (spline_product(coefficients, index.bases).flatten(1) * index.unit).double()
    return rounded(base)


def rounded(places: Tensor) -> Tensor:
    """Places in samples, float64, to multiples of ``GRAIN``; in place."""
    return places.div_(GRAIN).round_().mul_(GRAIN)


def _weight(layer: Layer) -> Tensor:
    """(1, *S); all features in blocks have one."""
    return torch.ones_like(layer.features.data[:1]) if layer.weight is None else layer.weight.data
