"""How smooth the displacement of a spline is, as a function of its coefficients, and which way that pulls them.

Knows nothing of features. The derivatives have D² components at each place, more than all else in a step. Where all
places count alike, the diffusion is a form in the coefficients, of which there are far fewer (``Roughness``); what
needs the derivatives themselves gets them slab by slab, value and gradient together, and none outlives its slab.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from semreg.config import RefineConfig
from semreg.core.kernels import compression, spline_adjoint, spline_product
from semreg.core.kernels.bands import blocks
from semreg.core.regularity import energies
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


class Roughness:
    """The mean squared gradient of a spline over all places, from its coefficients alone.

    The derivative along an axis is a spline Q of one degree less of the differences Δc of neighbouring coefficients, so
    Σ |∂u/∂x|² = ⟨Δc, (QᵀQ ⊗ BᵀB ⊗ BᵀB) Δc⟩ with the matrices B of the values along the other axes. The products are as
    small as the control points are few, and differences first: a displacement that is the same everywhere costs 0.
    """

    def __init__(self, bases: Sequence[Sequence[Tensor]], places: int) -> None:
        """``bases[axis]`` are the matrices per axis of the derivative along ``axis``, at so many places."""
        self._places = places
        self._forms = [
            [_gram(_of_differences(basis) if along == axis else basis) for along, basis in enumerate(matrices)]
            for axis, matrices in enumerate(bases)
        ]

    def pull(self, coefficients: Tensor) -> tuple[float, Tensor]:
        """The mean at ``coefficients`` (D, *control points), and half its gradient in them."""
        value, pull = 0.0, torch.zeros_like(coefficients)
        for axis, forms in enumerate(self._forms):
            count = coefficients.shape[axis + 1]
            if count == 1:
                continue
            change = coefficients.diff(dim=axis + 1)
            slope = spline_product(change, forms).div_(self._places)
            value += product(change, slope)
            pull.narrow(axis + 1, 1, count - 1).add_(slope)
            pull.narrow(axis + 1, 0, count - 1).sub_(slope)
        return value, pull


def _of_differences(slopes: Tensor) -> Tensor:
    """The matrix of a derivative (samples, N) as one of the differences of neighbouring coefficients, (samples, N − 1).

    c_m is c_0 and all differences before it, and what is the same for all coefficients has no derivative.
    """
    return slopes.double().flip(1).cumsum(1).flip(1)[:, 1:]


def _gram(matrix: Tensor) -> Tensor:
    return (matrix.double().T @ matrix.double()).float()


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
        self.bases = [
            [b.to(device) / (lattice.grid.spacing[axis] if axis == along else 1.0) for along, b in enumerate(matrices)]
            for axis, matrices in enumerate(lattice.bases(positions, axis) for axis in range(dimension))
        ]
        """A matrix per axis for the derivative along each, per mm."""
        self.places = math.prod(len(p) for p in positions)
        self.unit = torch.tensor(lattice.grid.spacing, device=device).reshape(dimension, *[1] * dimension)
        """From coefficients, in voxels, to mm."""
        self.stiffness = None
        stiffness = prior.stiffness
        if stiffness is not None:
            steps = [float(p[-1]) / (len(p) - 1) if len(p) > 1 else 1.0 for p in positions]
            places = lattice.grid.lattice([0.0] * dimension, steps, [len(p) for p in positions])
            self.stiffness = stiffness.on(lattice.grid, outside=1.0).averaged_on(places).data[0].to(device)
        self._roughness = Roughness(self.bases, self.places) if stiffness is None else None
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
        return self.pull(coefficients, 1.0)[0]

    def pull(self, coefficients: Tensor, unit: float) -> tuple[float, Tensor]:
        """The value, and ``unit`` times its gradient in the coefficients."""
        value, pull = self._whole(coefficients, unit, folding=bool(self.config.folding))
        if self._mean is not None:
            value += self._mean[0] - product(self._mean[1], coefficients)
            pull.sub_(self._mean[1], alpha=unit)
        return value, pull

    def _whole(self, coefficients: Tensor, unit: float, *, folding: bool) -> tuple[float, Tensor]:
        """The same without a mean, with the penalty on compression or without it."""
        moves = coefficients * self.unit
        value, pull = self._diffused(moves)
        for slab in self.slabs if folding else ():
            lacking, back = compression(moves[:, slab.seen], slab.bases, self.config.minimum_jacobian)
            weight = self.config.folding / self.places
            value += weight * lacking
            pull[:, slab.seen].add_(back, alpha=weight)
        return value, pull.mul_(unit * self.unit)

    def _diffused(self, moves: Tensor) -> tuple[float, Tensor]:
        """The diffusion of control points that move by ``moves`` (D, *control points) mm, and its gradient."""
        if self._roughness is not None:
            value, half = self._roughness.pull(moves)
            return self._diffusion * value, half.mul_(2 * self._diffusion)
        value, pull = 0.0, torch.zeros_like(moves)
        for slab in self.slabs:
            gradient = torch.stack([spline_product(moves[:, slab.seen], bases) for bases in slab.bases], 1)
            value += self._diffusion * total(energies(gradient, slab.stiffness)) / self.places
            slope = _weigh(gradient, slab.stiffness).mul_(2 * self._diffusion / self.places)
            for axis, bases in enumerate(slab.bases):
                pull[:, slab.seen] += spline_adjoint(slope[:, axis], bases)
        return value, pull

    def curved(self, bound: Tensor, unit: float) -> Tensor:
        """``bound``, of the curvature for each coefficient, plus an upper bound of ``unit`` times the diffusion's."""
        for bases in self.bases:
            absolute = [b.abs() for b in bases]
            rows = spline_product(torch.ones_like(bound), absolute)
            strength = self.unit**2 * (2 * self._diffusion * unit / self.places)
            rows = rows if self.stiffness is None else rows * self.stiffness
            bound = bound + strength * spline_adjoint(rows, absolute)
        return bound


def _weigh(gradient: Tensor, stiffness: Tensor | None) -> Tensor:
    """Half the derivative of the (weighted) squared gradient in the gradient (D, D, *S), which it overwrites."""
    if stiffness is None:
        return gradient
    strain = (gradient + gradient.transpose(0, 1)).mul_(0.5 * (stiffness - 1).clamp(min=0))
    return gradient.mul_(stiffness.clamp(max=1)).add_(strain)
