"""How much is handled at once on a device: near the processor on a CPU, as much as fills it elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Sizes:
    """Numbers of values."""

    costs: int = 1 << 19
    """Costs that are smoothed together."""
    choices: int = 1 << 15
    """Costs among which is chosen at once."""
    samples: int = 1 << 15
    """Samples that are read and compared at once."""


CPU = Sizes()
"""Small enough that intermediate results stay in the processor's cache."""
OTHER = Sizes(costs=1 << 24, choices=1 << 24, samples=1 << 20)


def sizes_of(device: torch.device) -> Sizes:
    """The sizes for a device."""
    return CPU if device.type == "cpu" else OTHER
