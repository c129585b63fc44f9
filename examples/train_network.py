"""Trains a small network that registers, with ``ImpactLoss``, and says what it gained on phantoms that it never saw.

    python examples/train_network.py

The images are slices of the built-in phantom, CT-like fixed and MR-like moving, each pair of another body with another
deformation. No displacement and no landmark is shown to the network: it learns from MIND-SSC features alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semreg.core.fields import Field
from semreg.core.sampling import base_index, sample
from semreg.nn import ImpactLoss
from semreg.phantom import PhantomPair, make_pair

SIZE = 64
"""Voxels an axis."""
SMOOTHNESS = 0.05
"""Weight of the mean squared gradient of the displacement, voxels per voxel."""


@dataclass(frozen=True)
class Course:
    """How long is trained: pairs that are seen, pairs that are kept aside, steps, and pairs in each step."""

    seen: int = 40
    unseen: int = 10
    steps: int = 600
    batch: int = 4
    seed: int = 0


class Registrar(nn.Module):
    """Both images (N, 2, y, x) → a displacement (N, 2, y, x) in voxels: down to an eighth, and up to a half."""

    def __init__(self, width: int = 16) -> None:
        """``width``: channels at full resolution."""
        super().__init__()
        widths = [width, 2 * width, 2 * width, 2 * width]
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([2, *widths], widths, strict=False))
        self.up = nn.ModuleList(_block(4 * width, 2 * width) for _ in range(2))
        self.last = nn.Conv2d(2 * width, 2, 3, padding=1)
        nn.init.zeros_(self.last.weight)  # it starts from the identity
        nn.init.zeros_(self.last.bias)

    def forward(self, images: Tensor) -> Tensor:
        """The displacement, fixed → moving; component d moves along tensor axis d."""
        kept = []
        x = images
        for number, block in enumerate(self.down):
            x = block(x if number == 0 else F.avg_pool2d(x, 2))
            kept.append(x)
        for block, other in zip(self.up, kept[-2:0:-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2), other], 1))
        return F.interpolate(self.last(x), scale_factor=2, mode="bilinear")


def _block(before: int, after: int) -> nn.Module:
    layers: list[nn.Module] = []
    for channels in (before, after):  # normalised, the descent leaves the identity at once, whatever it starts from
        layers += [nn.Conv2d(channels, after, 3, padding=1), nn.InstanceNorm2d(after), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


def pairs_of(seeds: Sequence[int]) -> list[PhantomPair]:
    """Pairs of slices on one grid, each of another body with another deformation."""
    return [make_pair(size=SIZE, seed=seed, dimension=2, frames="isotropic") for seed in seeds]


def stacked(pairs: Sequence[PhantomPair]) -> Tensor:
    """Fixed and moving images (N, 2, y, x), each with mean 0 and deviation 1."""
    images = torch.stack([torch.cat([pair.fixed.data, pair.moving.data]) for pair in pairs])
    return (images - images.mean((2, 3), keepdim=True)) / images.std((2, 3), keepdim=True)


def warped(moving: Tensor, displacement: Tensor) -> Tensor:
    """Each moving image (N, 1, y, x) read at p + u(p), differentiable in the displacement (N, 2, y, x)."""
    base = base_index(tuple(moving.shape[2:]), like=displacement)
    return torch.stack([sample(image, base + shift) for image, shift in zip(moving, displacement, strict=True)])


def roughness(displacement: Tensor) -> Tensor:
    """The mean squared difference of neighbouring vectors."""
    return displacement.diff(dim=2).square().mean() + displacement.diff(dim=3).square().mean()


def train(network: nn.Module, pairs: Sequence[PhantomPair], course: Course) -> None:
    """Lower the loss of the pairs."""
    loss, images = ImpactLoss("mind", dimension=2), stacked(pairs)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(course.seed)
    for step in range(course.steps):
        chosen = images[torch.randperm(len(images), generator=generator)[: course.batch]]
        displacement = network(chosen)
        fixed, moving = chosen[:, :1], chosen[:, 1:]
        value = loss(warped(moving, displacement), fixed) + SMOOTHNESS * roughness(displacement)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        if step % 100 == 0:
            print(f"step {step}: {value.item():.4f}")


def error_mm(pair: PhantomPair, displacement: Tensor) -> float:
    """Mean distance in mm between where landmarks are brought and where they are."""
    field = Field(displacement, pair.fixed.grid)
    found = field.point_map()(pair.fixed_points.T).T
    return float(torch.linalg.vector_norm(found - pair.moving_points, dim=1).mean())


def mean_errors(network: nn.Module, pairs: Sequence[PhantomPair]) -> tuple[float, float]:
    """Mean landmark error in mm over all pairs, without and with the network."""
    with torch.no_grad():
        found = network(stacked(pairs))
    before = [error_mm(pair, torch.zeros_like(u)) for pair, u in zip(pairs, found, strict=True)]
    after = [error_mm(pair, u) for pair, u in zip(pairs, found, strict=True)]
    return sum(before) / len(pairs), sum(after) / len(pairs)


def main(course: Course | None = None) -> tuple[float, float]:
    """Train, measure on pairs that were kept aside, print."""
    course = course or Course()
    seeds = range(course.seen + course.unseen)
    pairs = pairs_of(seeds)
    with torch.random.fork_rng():
        torch.manual_seed(course.seed)
        network = Registrar()
    train(network, pairs[: course.seen], course)
    before, after = mean_errors(network, pairs[course.seen :])
    print(f"{course.unseen} pairs that it never saw, landmark error before: {before:.2f} mm, after: {after:.2f} mm")
    return before, after


if __name__ == "__main__":
    main()
