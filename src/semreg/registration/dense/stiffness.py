"""How stiff the displacement is at each place: a map that weighs its regularity. Knows nothing of features."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from semreg.config import RefineConfig
from semreg.core.fields import Volume
from semreg.errors import ImageError
from semreg.registration.dense.prior import Prior
from semreg.registration.dense.smoothness import Smoothness
from semreg.transforms.bspline import SplineLattice

LEAST = 0.01
"""Lower values count as this one: without any regularity a place that shows nothing could go anywhere."""
LENGTH = 1.0
"""Control intervals over which what is beside a stiff place follows it."""
STEPS = 40
"""Of the conjugate gradients, at most."""
EXACT = 1e-3
"""Share of the first residual at which they end."""


def checked_stiffness(stiffness: Volume, dimension: int) -> Volume:
    """The map as float32, its values not below ``LEAST``.

    1 is the usual stiffness, larger values resist strain (bone: 50), smaller ones give way (a sliding interface: 0.1).
    Raises ImageError for a map of another dimension than the images', of several channels, with values that are
    negative or no numbers, or that is 0 all over.
    """
    data = stiffness.data.to(torch.float32)
    if stiffness.grid.dimension != dimension:
        raise ImageError(
            f"expected a stiffness map in {dimension}-D as the images are, got one in {stiffness.grid.dimension}-D"
        )
    if data.shape[0] != 1:
        raise ImageError(f"expected a stiffness map of one value a voxel, got {data.shape[0]}: give a scalar image")
    if not bool(torch.isfinite(data).all()):
        bad = int((~torch.isfinite(data)).sum())
        raise ImageError(f"expected finite stiffness values, got {bad} voxels with NaN or infinity: correct the map")
    if float(data.min()) < 0:
        raise ImageError(f"expected stiffness values of at least 0, got {float(data.min()):g}: correct the map")
    if float(data.max()) == 0:
        raise ImageError(
            "expected a stiffness map with values above 0 (1: as usual), got 0 everywhere: correct the map"
        )
    return Volume(data.clamp(min=LEAST), stiffness.grid)


def stiffened(lattice: SplineLattice, coefficients: Tensor, stiffness: Volume) -> Tensor:
    """The coefficients of the displacement nearest to that of ``coefficients`` with little strain where it is stiff.

    The least of |u − u₀|²/ℓ² + (w − 1)·|∇u + ∇uᵀ|²/4 over the box, with a length ℓ of ``LENGTH`` control intervals and
    w only where it is above 1: by conjugate gradients. What is stiff keeps its translation and its turn and loses its
    change of shape. Without such a place the coefficients are returned as they are.
    """
    if float(stiffness.data.max()) <= 1:
        return coefficients
    spacing = coefficients.new_tensor(lattice.grid.spacing).reshape(-1, *[1] * lattice.grid.dimension)
    strain = _strain_of(lattice, stiffness, coefficients.device)
    length = LENGTH * max(step * s for step, s in zip(lattice.step, lattice.grid.spacing, strict=True))
    hold = 2 * (spacing / length) ** 2 / math.prod(lattice.shape)
    return coefficients - _solved(lambda x: hold * x + strain(x), strain(coefficients), 1 / hold)


def _strain_of(lattice: SplineLattice, stiffness: Volume, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The gradient of the mean of (w − 1)·|∇u + ∇uᵀ|²/4 in the coefficients, which is linear in them."""
    only = RefineConfig(diffusion=1.0, folding=0.0)
    above = Volume(stiffness.data.clamp(min=1), stiffness.grid)
    both, plain = Smoothness(lattice, only, device, Prior(above)), Smoothness(lattice, only, device)
    return lambda x: both.pull(x, 1.0)[1] - plain.pull(x, 1.0)[1]


def _solved(curved: Callable[[Tensor], Tensor], wanted: Tensor, scale: Tensor) -> Tensor:
    """Solve ``curved`` (x) = ``wanted``, by conjugate gradients with ``scale`` as the first guess of the inverse."""
    found, left = torch.zeros_like(wanted), wanted
    direction = scale * left
    size = (left * direction).sum()
    enough = EXACT**2 * float(size)
    for _ in range(STEPS):
        if float(size) <= enough:
            break
        bent = curved(direction)
        step = size / (direction * bent).sum()
        found, left = found + step * direction, left - step * bent
        before, size = size, (left * scale * left).sum()
        direction = scale * left + size / before * direction
    return found
