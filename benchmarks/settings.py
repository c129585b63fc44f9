"""Does a setting pay on random phantoms of many kinds? Landmark errors with the defaults and with other settings.

    python settings.py [--set NAME=VALUE ...] [--seeds 100 101 ...]

Kinds: abdomens in CT and MR, heads in T1, in T1 and T2, slides in two stains; each with a little noise, so that no two
voxels are alike by chance. Every pair is registered twice in this process. Printed: the mean error of each kind in mm,
and the ratio settings / defaults, mean, smallest and largest.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean

import torch

from semreg import RegistrationConfig, Volume, register
from semreg.phantom import make_brains, make_pair, make_slides
from semreg.phantom.pair import PhantomPair
from semreg.runtime.settings import override

NOISE = 0.02
"""Standard deviation of the noise, a share of the range of the intensities."""
KINDS: dict[str, Callable[..., PhantomPair]] = {
    "abdomen, CT and MR": partial(make_pair, size=56),
    "abdomen, one grid": partial(make_pair, size=56, frames="isotropic"),
    "abdomen, 2-D": partial(make_pair, size=128, dimension=2),
    "heads, T1": partial(make_brains, size=56),
    "heads, T1 and T2": partial(make_brains, size=56, contrasts=("t1", "t2")),
    "slides": partial(make_slides, size=160),
}


def noisy(image: Volume, seed: int) -> Volume:
    """The image with Gaussian noise."""
    low, high = image.data.aminmax()
    drawn = torch.randn(image.data.shape, generator=torch.Generator().manual_seed(seed))
    return Volume(image.data + NOISE * (high - low) * drawn, image.grid)


def error_mm(pair: PhantomPair, images: Sequence[Volume], config: RegistrationConfig) -> float:
    """The mean landmark error after a registration."""
    result = register(*images, config=config, device="cpu")
    found = result.field.point_map()(pair.fixed_points.T.double())
    return float((found - pair.moving_points.T).square().sum(0).sqrt().mean())


def main() -> None:
    """Register each pair twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="the other settings")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(100, 104)))
    given = parser.parse_args()
    usual = override(RegistrationConfig(), "uncertainty.enabled=false")
    other = usual
    for assignment in given.set:
        other = override(other, assignment)
    print(f"{'kind':22s} defaults  {' '.join(given.set)}  ratio: mean, smallest, largest")
    everything: list[float] = []
    for kind, make in KINDS.items():
        errors: tuple[list[float], list[float]] = ([], [])
        for seed in given.seeds:
            pair = make(seed=seed)
            images = [noisy(image, seed + n) for n, image in enumerate((pair.fixed, pair.moving))]
            for found, config in zip(errors, (usual, other), strict=True):
                found.append(error_mm(pair, images, config))
        ratios = [b / a for a, b in zip(*errors, strict=True)]
        everything += ratios
        means = "  ".join(f"{fmean(found):8.3f}" for found in errors)
        print(f"{kind:22s} {means}  {fmean(ratios):.3f} {min(ratios):.3f} {max(ratios):.3f}", flush=True)
    print(f"{len(everything)} pairs: ratio {fmean(everything):.3f}, {min(everything):.3f} to {max(everything):.3f}")


if __name__ == "__main__":
    main()
