"""All backends by name, and the one place that chooses among them, by device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from semreg.runtime.registry import Row, Table

if TYPE_CHECKING:
    import torch

    from semreg.core.kernels.contract import Kernels


@dataclass(frozen=True)
class BackendRow(Row):
    """Where a backend is written, and the types of devices it is for; empty: all."""

    devices: tuple[str, ...] = ()


BACKENDS: Table[BackendRow, Kernels] = Table(
    "backend", {"reference": BackendRow("semreg.core.kernels.reference:REFERENCE")}
)
"""The last one that is for a device counts."""


def kernels_for(device: torch.device) -> Kernels:
    """The backend for a device."""
    rows = BACKENDS.rows.items()
    return BACKENDS[[name for name, row in rows if not row.devices or device.type in row.devices][-1]]
