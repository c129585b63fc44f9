"""Does the weight that held-out samples choose pay? Random scenes with a known displacement, with it and without.

    python weights.py [--scenes 24]

Each scene is a texture in 2-D, moved by a random field that varies over 5 to 13 pixels, with noise of its own on either
image. Printed: the mean error in pixels with the settings as they are and with the usual weight for all.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from semreg import Field, Grid, RegistrationConfig, Volume, register
from semreg.core.fields import warp
from semreg.core.sampling import smooth
from semreg.registration.dense.held_out import DIFFUSION
from semreg.runtime.settings import override

SIZE, BORDER = 96, 12
"""Pixels an axis, and those at the border that do not count."""


def noise(channels: int, seed: int) -> torch.Tensor:
    """Gaussian noise, (C, SIZE, SIZE)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(channels, SIZE, SIZE, generator=generator, dtype=torch.float64).float()


def scene(seed: int, noisy: float, wide: int) -> tuple[Volume, Volume, Field]:
    """The fixed and the moving image, and the true displacement."""
    grid = Grid.of_shape((SIZE, SIZE))
    vox = smooth(noise(2, seed), radius=wide, passes=3)
    truth = Field(2.5 * vox / vox.std(), grid)
    texture = smooth(noise(1, seed + 1), radius=2, passes=2)
    moving = Volume(texture / texture.std(), grid)
    fixed = warp(moving, truth, outside=0.0)
    first, second = (noisy * noise(1, seed + n) for n in (2, 3))
    return Volume(fixed.data + first, grid), Volume(moving.data + second, grid), truth


def main() -> None:
    """Register each scene twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=24)
    given = parser.parse_args()
    chosen = override(RegistrationConfig(), "align.transform=none")
    usual = override(chosen, f"refine.diffusion={DIFFUSION}")
    ratios = []
    for number in range(given.scenes):
        generator = np.random.default_rng(number)
        noisy, wide = float(generator.uniform(0, 0.6)), int(generator.integers(5, 14))
        fixed, moving, truth = scene(1000 + 10 * number, noisy, wide)
        errors = []
        for config in (chosen, usual):
            result = register(fixed, moving, config=config, device="cpu")
            apart = (result.field.vox - truth.vox)[:, BORDER:-BORDER, BORDER:-BORDER]
            errors.append(float(apart.square().sum(0).sqrt().mean()))
            if config is chosen:
                weight = result.record.convergence[0].diffusion
        ratios.append(errors[0] / errors[1])
        print(
            f"noise {noisy:.2f}, varies over {wide:2d}: weight {weight:.2f}, error {errors[0]:.3f}, "
            f"with the usual weight {errors[1]:.3f}, ratio {ratios[-1]:.3f}"
        )
    print(f"ratio: mean {np.mean(ratios):.3f}, largest {max(ratios):.3f}")


if __name__ == "__main__":
    main()
