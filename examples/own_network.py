"""Registers the built-in phantom with a network of one's own, in place of MIND, and says how far landmarks are off.

    python examples/own_network.py

Any ``torch.nn.Module`` works that takes an image (1, 1, z, y, x) and returns feature maps (1, C, z, y, x), or a list
of them at any strides. This one has no weights, so that the example needs no file.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

import semreg
from semreg.phantom import PhantomPair, make_pair

REACH = 2
"""Distance of the neighbours that a place is compared with, voxels."""


class SelfSimilarity(torch.nn.Module):
    """How like each of its six neighbours a place is: six channels that do not depend on the contrast."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """(1, 1, z, y, x) → six channels at every voxel, and their means over blocks of two."""
        padded = F.pad(x, [REACH] * 6, mode="replicate")
        inside = (..., *[slice(REACH, -REACH)] * 3)
        near = [padded.roll(step, axis)[inside] for axis in (2, 3, 4) for step in (-REACH, REACH)]
        unlike = torch.cat([F.avg_pool3d((x - y).square(), 3, stride=1, padding=1) for y in near], 1)
        like = torch.exp(-unlike / (unlike.mean(1, keepdim=True) + 1e-6))
        return [like, F.avg_pool3d(like, 2)]


def landmark_error(pair: PhantomPair, points: Tensor) -> float:
    """Mean distance in mm between points (N, 3) and where the landmarks are in the moving image."""
    return float(torch.linalg.vector_norm(points - pair.moving_points, dim=1).mean())


def main() -> None:
    """Extract features, register with them, print."""
    network = SelfSimilarity().eval()
    pair = make_pair(size=64)
    for layer in semreg.extract(pair.fixed, network):
        channels, *size = layer.features.data.shape
        print(f"{channels} channels, {size} samples, {min(layer.grid.spacing):.2f} mm apart at least")

    models = (semreg.config.ModelConfig(weight=(1.0, 0.5)),)  # the second layer counts half as much as the first
    result = semreg.register(pair.fixed, pair.moving, model=network, config=semreg.RegistrationConfig(models=models))
    found = result.field.point_map()(pair.fixed_points.T).T
    print(f"landmark error before: {landmark_error(pair, pair.fixed_points):.2f} mm")
    print(f"landmark error after:  {landmark_error(pair, found):.2f} mm")


if __name__ == "__main__":
    main()
