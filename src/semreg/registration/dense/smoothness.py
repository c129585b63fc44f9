"""How smooth the displacement of a spline is, as a function of its coefficients, and which way that pulls them.

Knows nothing of features. The derivatives have D² components at each place, more than all else in a step: they are
computed slab by slab, value and gradient together, and none outlives its slab.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from semreg.config import RefineConfig
from semreg.core.kernels import spline_adjoint, spline_product
from semreg.core.kernels.bands import blocks
from semreg.core.regularity import cofactors, determinant, energies
from semreg.core.sums import product, total
from semreg.registration.dense.held_out import DIFFUSION
from semreg.registration.dense.prior import NOTHING, Prior
from semreg.transforms.bspline import SplineLattice

SLAB_PLACES = 1 << 18
"""Places whose derivatives are held at once on the CPU: few enough that they stay near the processor."""
MOST_PLACES = 1 << 23
"""The same on other devices, where only memory counts."""


@dataclass(frozen=True)
class Slab:
    """Some planes of places: which control points they see along the first axis, and their matrices.

    ``bases[axis]`` holds a matrix per axis for the derivative along ``axis``; ``stiffness`` (*S) the map there, if any.
    """

    seen: slice
    bases: list[list[Tensor]]
    stiffness: Tensor | None = None


class Smoothness:
    """Weighted diffusion of a spline's displacement and a penalty on compression beyond a limit.

    With a map of the stiffness w the squared gradient |∇u|² is multiplied by w where w is below 1. Above, the squared
    strain |∇u + ∇uᵀ|²/4 is added w − 1 times: what is stiff keeps its shape and may turn by small angles.

    Where a mean displacement m is known, the diffusion E is that of the change: E(u − m) = E(u) − ∇E(m)·u + E(m), as E
    is quadratic. The penalty on compression is that of the whole.
    """

    def __init__(
        self, lattice: SplineLattice, config: RefineConfig, device: torch.device, prior: Prior = NOTHING
    ) -> None:
        """The derivatives are checked at two places per control interval, not more than there are samples."""
        self.config = config
        self._diffusion = DIFFUSION if config.diffusion is None else config.diffusion
        positions = []
        for n, step in zip(lattice.grid.shape, lattice.step, strict=True):
            count = 1 if n == 1 else min(n, max(2, math.ceil(2 * (n - 1) / step)))
            positions.append(np.linspace(0.0, n - 1.0, count))
        dimension = lattice.grid.dimension
        self.bases = [[b.to(device) for b in lattice.bases(positions, axis)] for axis in range(dimension)]
        """A matrix per axis for the derivative along each."""
        self.places = math.prod(len(p) for p in positions)
        spacing = torch.tensor(lattice.grid.spacing, device=device)
        self.unit = (spacing[:, None] / spacing[None]).reshape(dimension, dimension, *[1] * dimension)
        """From voxels per voxel to mm per mm."""
        self.stiffness = None
        stiffness = prior.stiffness
        if stiffness is not None:
            steps = [float(p[-1]) / (len(p) - 1) if len(p) > 1 else 1.0 for p in positions]
            places = lattice.grid.lattice([0.0] * dimension, steps, [len(p) for p in positions])
            self.stiffness = stiffness.on(lattice.grid, outside=1.0).averaged_on(places).data[0].to(device)
        self.slabs = self._slabs(SLAB_PLACES if device.type == "cpu" else MOST_PLACES)
        self._mean: tuple[float, Tensor] | None = None  # E(m) and ∇E(m)
        if prior.mean is not None:
            self._mean = self._whole(lattice.fit(prior.mean), 1.0, folding=False)

    def _slabs(self, most: int) -> list[Slab]:
        """All places, about ``most`` at a time."""
        planes = len(self.bases[0][0])
        size = max(1, most * planes // self.places)
        slabs = []
        for number in range(0, planes, size):
            rows = slice(number, min(number + size, planes))
            # value and derivative of a spline see the same control points, except for a zero at the end of their reach
            spans = [blocks(bases[0][rows], size)[0][1] for bases in self.bases]
            seen = slice(min(s.start for s in spans), max(s.stop for s in spans))
            cut = [[bases[0][rows, seen], *bases[1:]] for bases in self.bases]
            slabs.append(Slab(seen, cut, None if self.stiffness is None else self.stiffness[rows]))
        return slabs

    def value(self, coefficients: Tensor) -> float:
        """The sum of both at ``coefficients`` (D, *control points): a mean over the places, without unit."""
        result = 0.0
        for slab in self.slabs:
            part = coefficients[:, slab.seen]
            gradient = torch.stack([spline_product(part, bases) for bases in slab.bases], 1).mul_(self.unit)
            result += self._value(gradient, self._shortfall(gradient), slab.stiffness)
        return result + self._of_mean(coefficients)

    def _of_mean(self, coefficients: Tensor) -> float:
        """E(m) − ∇E(m)·u, which makes the diffusion of a displacement that of its change."""
        return 0.0 if self._mean is None else self._mean[0] - float(product(self._mean[1], coefficients))

    def pull(self, coefficients: Tensor, unit: float) -> tuple[float, Tensor]:
        """The value, and ``unit`` times its gradient in the coefficients."""
        value, pull = self._whole(coefficients, unit, folding=bool(self.config.folding))
        if self._mean is not None:
            value += self._of_mean(coefficients)
            pull.sub_(self._mean[1], alpha=unit)
        return value, pull

    def _whole(self, coefficients: Tensor, unit: float, *, folding: bool) -> tuple[float, Tensor]:
        """The same without a mean, with the penalty on compression or without it."""
        value, pull = 0.0, torch.zeros_like(coefficients)
        for slab in self.slabs:
            part = coefficients[:, slab.seen]
            gradient = torch.stack([spline_product(part, bases) for bases in slab.bases], 1).mul_(self.unit)
            shortfall = self._shortfall(gradient) if folding else None
            value += self._value(gradient, shortfall, slab.stiffness)
            slope = self._slope(gradient, shortfall, unit, slab.stiffness).mul_(self.unit)
            for axis, bases in enumerate(slab.bases):
                pull[:, slab.seen] += spline_adjoint(slope[:, axis], bases)
        return value, pull

    def _shortfall(self, gradient: Tensor) -> Tensor | None:
        """How far the determinant is below the limit, (*S); None if that costs nothing."""
        if not self.config.folding:
            return None
        return torch.clamp(self.config.minimum_jacobian - determinant(gradient), min=0)

    def _value(self, gradient: Tensor, shortfall: Tensor | None, stiffness: Tensor | None) -> float:
        """The part of a slab with derivatives ``gradient`` (D, D, *S)."""
        result = self._diffusion * total(energies(gradient, stiffness))
        if shortfall is not None:
            result += self.config.folding * total(shortfall.square())
        return result / self.places

    def _slope(self, gradient: Tensor, shortfall: Tensor | None, unit: float, stiffness: Tensor | None) -> Tensor:
        """``unit`` times the derivative of the value in ``gradient``, which it overwrites: (D, D, *S)."""
        scale = gradient.new_tensor(unit)
        slope, twice = gradient, 2 * (scale * self._diffusion / self.places)
        if shortfall is None:
            return _weigh(slope, stiffness).mul_(twice)
        rows = shortfall.flatten().nonzero()[:, 0]
        pressed = (-2 * self.config.folding / self.places) * scale * shortfall.flatten()[rows]
        found = cofactors(gradient.flatten(2)[..., rows]) * pressed
        _weigh(slope, stiffness).mul_(twice).flatten(2).index_add_(2, rows, found)
        return slope

    def curved(self, bound: Tensor, unit: float) -> Tensor:
        """``bound``, of the curvature for each coefficient, plus an upper bound of ``unit`` times the diffusion's."""
        for axis, bases in enumerate(self.bases):
            absolute = [b.abs() for b in bases]
            rows = spline_product(torch.ones_like(bound), absolute)
            strength = self.unit[:, axis] ** 2 * 2 * self._diffusion * unit / self.places
            rows = rows if self.stiffness is None else rows * self.stiffness
            bound = bound + strength * spline_adjoint(rows, absolute)
        return bound


def _weigh(gradient: Tensor, stiffness: Tensor | None) -> Tensor:
    """Half the derivative of the (weighted) squared gradient in the gradient (D, D, *S), which it overwrites."""
    if stiffness is None:
        return gradient
    strain = (gradient + gradient.transpose(0, 1)).mul_(0.5 * (stiffness - 1).clamp(min=0))
    return gradient.mul_(stiffness.clamp(max=1)).add_(strain)
