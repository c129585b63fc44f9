"""The MIND-SSC descriptor as a network for tools that take TorchScript.

    python mind_network.py FILE [--dimension 3] [--dilation 2]

Run by the Python whose torch is to read the file. Mattias P. Heinrich et al., MICCAI 2013.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Mind(nn.Module):
    """How unlike the neighbours of a place are to each other, for the pairs that are √2 steps apart: 12, in 2-D 4."""

    def __init__(self, dimension: int = 3, dilation: int = 1) -> None:
        """Make the differences of neighbours ``dilation`` voxels away."""
        super().__init__()
        near = [
            tuple(1 + step * (axis == other) for other in range(dimension))
            for axis in range(dimension) for step in (-1, 1)
        ]  # fmt: skip
        pairs = [
            (a, b) for i, a in enumerate(near) for b in near[:i]
            if sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) == 2
        ]  # fmt: skip
        kernel = torch.zeros(len(pairs), 1, *[3] * dimension)
        for number, (a, b) in enumerate(pairs):
            kernel[(number, 0, *a)] = 1.0
            kernel[(number, 0, *b)] = -1.0
        self.register_buffer("kernel", kernel)
        self.flat = dimension == 2
        self.dilation = dilation
        self.reach, self.one = [dilation] * 2 * dimension, [1] * 2 * dimension

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 1, z, y, x), in 2-D (N, 1, y, x) → one layer of as many voxels."""
        near = F.pad(x, self.reach, mode="replicate")
        if self.flat:
            unlike = F.conv2d(near, self.kernel, dilation=self.dilation).square()
            unlike = F.avg_pool2d(F.pad(unlike, self.one, mode="replicate"), 3, stride=1)
        else:
            unlike = F.conv3d(near, self.kernel, dilation=self.dilation).square()
            unlike = F.avg_pool3d(F.pad(unlike, self.one, mode="replicate"), 3, stride=1)
        unlike = unlike - unlike.amin(1, keepdim=True)
        return [torch.exp(-unlike / unlike.mean(1, keepdim=True).clamp(min=1e-6))]


def main() -> None:
    """Write the network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--dimension", type=int, choices=(2, 3), default=3)
    parser.add_argument("--dilation", type=int, default=2)
    given = parser.parse_args()
    torch.jit.script(Mind(given.dimension, given.dilation).eval()).save(str(given.file))


if __name__ == "__main__":
    main()
