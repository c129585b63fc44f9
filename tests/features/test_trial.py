"""Promises of the trial of a model's file: what it takes is limited before it runs in this process."""

from __future__ import annotations

import zipfile

import pytest
import torch
from torch import Tensor, nn

from semreg.errors import ModelError
from semreg.features.networks import load_network
from semreg.features.trial import try_model
from small_networks import Small, save


class Endless(nn.Module):
    """Never returns."""

    def forward(self, x: Tensor) -> Tensor:
        """Count."""
        n = 0
        while n >= 0:
            n = (n + 1) % 7
        return x


class Large(nn.Module):
    """Asks for 80 GB."""

    def forward(self, x: Tensor) -> Tensor:
        """Whatever the input is."""
        return x + torch.zeros(20_000_000_000).sum()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("module", "memory", "said"),
    [
        (Endless(), None, "within 1 s, it did not"),
        (Large(), 4 << 30, "in .* GB, it asks for more: raise the limit of memory"),
    ],
)
def test_what_takes_too_much_is_refused(module, memory, said, tmp_path):
    """A model that never returns, or asks for more memory than is allowed, is a sentence; this process stays."""
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.script(module), str(path))
    with pytest.raises(ModelError, match=rf"model\.pt to load and to run on a small image {said}"):
        try_model(path, memory=memory, seconds=1)


def test_what_is_right_passes(tmp_path):
    """A model that runs passes, and so do names, which stand for files whose checksum is known."""
    try_model(save(Small(), tmp_path / "model.pt"))
    try_model("mind")


def test_a_bomb_of_code_is_refused(tmp_path):
    """The code of a model that unpacks to more than a program is refused before torch unpacks it."""
    path = save(Small(), tmp_path / "model.pt")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/code/__torch__/bomb.py", b"#" * (1 << 27))
    with pytest.raises(ModelError, match=r"expected at most .* MB of code"):
        load_network(path)
