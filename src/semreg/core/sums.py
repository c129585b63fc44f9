"""Sums whose value does not depend on the number of threads. Knows nothing of what is summed."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def total(x: Shaped[Tensor, "..."]) -> float:
    """The sum of all values of ``x``, in double precision.

    On the CPU in the order of memory, by one thread: torch deals a long sum to its threads, so its last digits would
    change with their number, and with them each step of a descent.
    """
    if x.device.type == "cpu":
        return float(np.add.reduce(x.detach().contiguous().view(-1).numpy(), dtype=np.float64))
    return float(x.sum(dtype=torch.float64))


def product(x: Float[Tensor, "*s"], y: Float[Tensor, "*s"]) -> float:
    """The inner product of two tensors of one shape, as ``total``."""
    return total(x * y)
