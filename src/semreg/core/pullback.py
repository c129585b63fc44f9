"""Derivatives through torch's autograd. Knows nothing of what is differentiated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pullback(
    outputs: Sequence[Tensor], pulls: Sequence[Tensor], of: Sequence[Tensor], *, keep: bool = False
) -> tuple[Tensor, ...]:
    """The derivatives of Σ outputs · pulls in each of ``of``, from which the outputs were computed.

    By way of the sum itself: pulls that are handed to autograd have their shapes checked by sympy, whose import costs
    as much as the registration of a small pair. ``keep``: whether the outputs are differentiated again.
    """
    with torch.enable_grad():
        total = torch.stack([(output * pull).sum() for output, pull in zip(outputs, pulls, strict=True)]).sum()
    return torch.autograd.grad(total, list(of), retain_graph=keep)
