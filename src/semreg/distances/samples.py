"""What the families of distances share: weighted means and lengths of features (P, C)."""

from __future__ import annotations

import torch
from torch import Tensor

from semreg.core.shapes import Scalar, Weights

SMALL = 1e-6
"""Keeps quotients of vanishing sums finite."""


def mean_over(terms: Weights, weight: Weights | None) -> Scalar:
    """Weighted mean of one term a sample, (P,); 0 where nothing counts."""
    if weight is None:
        return terms.mean()
    return (terms * weight).sum() / weight.sum().clamp(min=SMALL)


def length_of(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Lengths along ``dim``, 1 for zero vectors, and whether they are none; the dimension is kept."""
    square = x.square().sum(dim, keepdim=True)
    known = square > SMALL**2
    return torch.where(known, square, 1).sqrt(), known
