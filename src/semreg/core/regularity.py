"""How smooth and how invertible a displacement is, from its spatial derivatives. Knows nothing of images."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def energies(gradient: Float[Tensor, "d d *s"], stiffness: Float[Tensor, "*s"] | None = None) -> Float[Tensor, "*s"]:
    """Squared gradient of the displacement at each sample, (*S), mm per mm: the same numbers on any grid.

    ``gradient`` (D, D, *S) holds ∂u_i/∂x_j. Where ``stiffness`` (*S) is below 1 the square is multiplied by it. Above 1
    the excess w − 1 weighs the squared strain alone, |∇u + ∇uᵀ|²/4, which small rotations leave at 0.
    """
    squares = gradient.square().flatten(0, 1).sum(0)
    if stiffness is None:
        return squares
    strain = 0.5 * (gradient + gradient.transpose(0, 1))
    return squares * stiffness.clamp(max=1) + strain.square().sum((0, 1)) * (stiffness - 1).clamp(min=0)


def diffusion(gradient: Float[Tensor, "d d *s"], stiffness: Float[Tensor, "*s"] | None = None) -> Float[Tensor, ""]:
    """Mean of the ``energies`` over the samples."""
    return energies(gradient, stiffness).mean()


def determinant(gradient: Float[Tensor, "d d *s"]) -> Float[Tensor, "*s"]:
    """Jacobian determinant of x + u from ∂u_i/∂x_j (D, D, *S) → (*S); 1 without deformation, negative where folded."""
    rows = _jacobian(gradient)
    if len(rows) == 2:
        (a, b), (c, d) = rows
        return a * d - b * c
    (a, b, c), (d, e, f), (g, h, i_) = rows
    return a * (e * i_ - f * h) - b * (d * i_ - f * g) + c * (d * h - e * g)


def cofactors(gradient: Float[Tensor, "d d *s"]) -> Float[Tensor, "d d *s"]:
    """The derivative of ``determinant`` in ``gradient``, (D, D, *S): the cofactor of each element of the Jacobian."""
    rows = _jacobian(gradient)
    if len(rows) == 2:
        (a, b), (c, d) = rows
        return torch.stack([d, -c, -b, a]).reshape(gradient.shape)

    def cofactor(i: int, j: int) -> Tensor:
        # of the two other rows and columns, each counted on from its own: in this order its sign is always +
        (a, b), (c, d) = [[rows[(i + m) % 3][(j + n) % 3] for n in (1, 2)] for m in (1, 2)]
        return a * d - b * c

    return torch.stack([cofactor(i, j) for i in range(3) for j in range(3)]).reshape(gradient.shape)


def _jacobian(gradient: Tensor) -> list[list[Tensor]]:
    """Rows of 1 + ∂u_i/∂x_j."""
    size = len(gradient)
    return [[gradient[i, j] + (1.0 if i == j else 0.0) for j in range(size)] for i in range(size)]


def folding(gradient: Float[Tensor, "d d *s"], minimum: float) -> Float[Tensor, ""]:
    """Mean squared shortfall of the Jacobian determinant below ``minimum``; 0 where nothing is compressed that much."""
    return torch.clamp(minimum - determinant(gradient), min=0).square().mean()
