"""Small networks with outputs of several kinds, as files: what the tests of inference run."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn


def seeded(*layers: nn.Module) -> nn.Sequential:
    """The layers in a row, with weights that depend on nothing else, and biases that are not 0."""
    module = nn.Sequential(*layers).eval()
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5
    return module


class Small(nn.Module):
    """Three outputs: 3 channels of the input's size, 5 channels at half of it, 4 scores of the input's size."""

    def __init__(self, dimension: int = 3) -> None:
        """Weights that do not depend on other tests; nothing in them is symmetric."""
        super().__init__()
        convolution = nn.Conv3d if dimension == 3 else nn.Conv2d
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.first = convolution(1, 3, 3, padding=1)
            self.second = convolution(3, 5, 2, stride=2)
            self.scores = convolution(3, 4, 1)
        self.eval()

    def forward(self, x: Tensor) -> list[Tensor]:
        """All three, in order."""
        y = torch.relu(self.first(x))
        return [y, self.second(y), self.scores(y)]


def outputs_of(module: nn.Module, data: Tensor) -> list[Tensor]:
    """What the module returns for one image (1, *S): each (C, *S)."""
    with torch.no_grad():
        return [y[0] for y in module(data[None])]


def save(module: nn.Module, path: Path, dimension: int = 3) -> Path:
    """The module as a file of TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript itself
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(module, torch.rand((1, 1, *[12] * dimension)), strict=False)
        torch.jit.save(traced, str(path))
    return path
