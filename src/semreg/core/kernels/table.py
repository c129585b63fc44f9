"""All backends by name, and the one place that chooses among them, by device and by what is installed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from semreg.runtime.registry import Row, Table

if TYPE_CHECKING:
    import torch

    from semreg.core.kernels.contract import Kernels

logger = logging.getLogger("semreg")


@dataclass(frozen=True)
class BackendRow(Row):
    """Where a backend is written, and what it is for."""

    devices: tuple[str, ...] = ()
    """Types of devices; empty: all."""
    needs: str = ""
    """A module that must be installed; empty: none."""

    @property
    def installed(self) -> bool:
        """Whether what it needs is there."""
        return not self.needs or find_spec(self.needs) is not None


BACKENDS: Table[BackendRow, Kernels] = Table(
    "backend",
    {
        "reference": BackendRow("semreg.core.kernels.reference:REFERENCE"),
        "native": BackendRow("semreg.core.kernels.native:NATIVE", devices=("cpu",), needs="semreg_kernels"),
    },
)
"""The last one that is for a device and loads counts."""


def kernels_for(device: torch.device) -> Kernels:
    """The backend for a device."""
    return BACKENDS[backend_for(device.type)]


def backend_for(device_type: str) -> str:
    """The name of the backend for a type of device."""
    known = [name for name, row in BACKENDS.rows.items() if not row.devices or device_type in row.devices]
    return next((name for name in reversed(known) if loads(name)), "reference")


@cache
def loads(name: str) -> bool:
    """Whether a backend can be used. One that is installed and does not load is passed over, and that is said."""
    if not BACKENDS.rows[name].installed:
        return False
    try:
        _ = BACKENDS[name]
    except (ImportError, OSError) as error:
        logger.warning("the backend %s does not load and is not used: %s", name, error)
        return False
    return True
