"""Where a registration is computed: what is asked for and is not there."""

from __future__ import annotations

import pytest
import torch

from semreg.errors import DeviceError
from semreg.runtime.devices import choose_device


def test_a_machine_without_an_apple_gpu_says_so() -> None:
    """``mps`` where there is none is refused with what to do."""
    if torch.backends.mps.is_available():
        pytest.skip("there is an Apple GPU")
    with pytest.raises(DeviceError, match="expected an Apple GPU for mps, this machine has none: use --device cpu"):
        choose_device("mps")
