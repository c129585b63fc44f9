"""Which device computes: decided once, at the door. Knows nothing of images."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from semreg.errors import DeviceError

if TYPE_CHECKING:
    import torch


def check_device(name: str) -> None:
    """Refuse what is no name of a device (DeviceError), before anything is loaded."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        meant = ": did you mean cuda?" if "gpu" in name.lower() else ""
        raise DeviceError(f"expected a device of auto, cpu, cuda, cuda:n or mps, got {name!r}{meant}")


def choose_device(name: str) -> torch.device:
    """The device ``auto``, ``cpu``, ``cuda``, ``cuda:n`` or ``mps`` stands for on this machine.

    ``auto`` is CUDA if there is a GPU, then MPS, then the CPU. Raises DeviceError if the device is not there.
    """
    import torch

    check_device(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    if name.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(name.partition(":")[2] or 0) >= count:
            have = f"{count} of them, cuda:0 to cuda:{count - 1}" if count else "none that torch can use"
            raise DeviceError(f"expected a CUDA GPU for {name}, this machine has {have}: use --device cpu or auto")
    if name == "mps" and not _has_mps():
        raise DeviceError("expected an Apple GPU for mps, this machine has none: use --device cpu or auto")
    return torch.device(name)


def _has_mps() -> bool:
    import torch

    return bool(torch.backends.mps.is_available())
