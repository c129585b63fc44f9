"""Networks that find by how much two blobs move, from the images alone, and say it in any unit, order and direction."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from conftest import points_of
from semreg.core.fields import Volume
from semreg.core.geometry import Grid
from semreg.features.registrar_spec import RegistrarSpec
from semreg.runtime.settings import to_toml

Array = npt.NDArray[np.float64]

MIDDLE = np.array([4.0, -31.0, 57.0])
FIXED_BLOBS = MIDDLE + np.array([[-17.0, -15.0, -19.0], [16.0, 18.0, 15.0]])
"""One in the half of an image where all axes are low, and one where all are high; mm."""
MOVING_BLOBS = FIXED_BLOBS + np.array([[-4.0, -5.5, -3.0], [3.5, 2.5, 5.0]])
SIGMA = 4.5
"""Of a blob, mm."""


def blobs(grid: Grid, places: Array) -> Volume:
    """An image of Gaussian blobs at ``places`` (N, D) in mm."""
    points = points_of(grid)
    total = torch.zeros(grid.shape, dtype=torch.float64)
    for place in places:
        away = points - torch.from_numpy(place).reshape(-1, *[1] * grid.dimension)
        total += 100 * torch.exp(-away.square().sum(0) / (2 * SIGMA**2))
    return Volume(total[None].float(), grid)


class BlobNetwork(nn.Module):
    """Centroids of both images, in each half along the first tensor axis; their difference is the displacement there.

    It knows nothing of grids; ``spacing`` is what it was "trained" at, along its tensor axes.
    """

    def __init__(self, spec: RegistrarSpec, spacing: tuple[float, ...]) -> None:
        """Take what it is to say, and how, from its description."""
        super().__init__()
        self.moving_first = spec.first == "moving"
        self.backwards = spec.direction == "moving-to-fixed"
        self.reverse = spec.components == "reversed"
        self.positions = spec.gives == "positions"
        self.unit = f"{spec.unit} {spec.ends or ''}".strip()
        self.register_buffer("spacing", torch.tensor(spacing, dtype=torch.float32))

    def forward(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """Two images (1, 1, *S) → something else, and the displacement (1, D, *S)."""
        fixed, moving = (b, a) if self.moving_first else (a, b)
        shape = a.shape[2:]
        axes = [torch.arange(n, dtype=a.dtype) for n in shape]
        index = torch.stack(torch.meshgrid(axes, indexing="ij"))
        low = (index[0] < (shape[0] - 1) / 2).to(a.dtype)
        u = torch.zeros_like(index)
        for half in (low, 1 - low):
            shift = self.centroid(moving[0, 0] * half, index) - self.centroid(fixed[0, 0] * half, index)
            u = u + half * shift.reshape([-1] + [1] * len(shape))
        u = -u if self.backwards else u
        found = index + u if self.positions else u
        found = self.in_unit(found, torch.tensor(shape, dtype=a.dtype))
        return [a, (found.flip([0]) if self.reverse else found)[None]]

    def centroid(self, image: Tensor, index: Tensor) -> Tensor:
        """In voxels, (D,)."""
        return (image * index).flatten(1).sum(1) / image.sum()

    def in_unit(self, x: Tensor, sizes: Tensor) -> Tensor:
        """Voxels as the unit has them; positions too, which begin elsewhere."""
        shape = [-1] + [1] * (x.dim() - 1)
        n, step = sizes.reshape(shape), self.spacing.reshape(shape)
        begin = 1.0 if self.positions else 0.0
        if self.unit == "mm":
            return x * step
        if self.unit == "unit-cube centres":
            return x / (n - 1)
        if self.unit == "unit-cube edges":
            return (x + 0.5 * begin) / n
        if self.unit == "minus-one-to-one centres":
            return 2 * x / (n - 1) - begin
        if self.unit == "minus-one-to-one edges":
            return (2 * x + begin) / n - begin
        return x


def scripted(module: nn.Module) -> torch.jit.ScriptModule:
    """The module as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(module.eval())


def stored(module: nn.Module, spec: RegistrarSpec | None, path: Path) -> Path:
    """The module as a file of TorchScript, with its description beside it if there is one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(scripted(module), str(path))
    if spec is not None:
        path.with_suffix(".toml").write_text(to_toml(spec), encoding="utf-8")
    return path
