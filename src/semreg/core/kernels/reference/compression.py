"""How far a spline compresses space, in torch: all derivatives at all places, and the way back from where it does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from semreg.core.kernels.reference.spline import spline_adjoint, spline_product
from semreg.core.regularity import cofactors, determinant
from semreg.core.sums import total


def compression(coefficients: Tensor, bases: Sequence[Sequence[Tensor]], limit: float) -> tuple[float, Tensor]:
    """``Kernels.compression``."""
    gradient = torch.stack([spline_product(coefficients, along) for along in bases], 1)
    shortfall = torch.clamp(limit - determinant(gradient), min=0).flatten()
    pressed = shortfall.nonzero()[:, 0]
    pull = torch.zeros_like(coefficients)
    if not len(pressed):
        return 0.0, pull
    short = shortfall[pressed]
    found = cofactors(gradient.flatten(2)[..., pressed]) * (-2 * short)
    slope = torch.zeros_like(gradient)
    slope.flatten(2)[..., pressed] = found
    for axis, along in enumerate(bases):
        pull += spline_adjoint(slope[:, axis], along)
    return total(short.square()), pull
