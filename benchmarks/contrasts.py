"""What a second contrast gives: phantoms of which each contrast shows a part, or is noisy, with known truth.

    python contrasts.py [--seeds 0 1 2] [--report]

Heads in T1 and T2, and the abdomen CT-like and MR-like, of both the fixed and the moving scene: the landmark error with
the first contrast alone, with the second one, and with both. Noise of its own is added to each image, its deviation so
many times that of the image; then the same where each contrast shows one half of the structures only.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import fmean

import numpy as np
import tools
import torch
from scoring import landmark_errors

import report
import semreg
from semreg import RegistrationConfig
from semreg.config import AlignConfig
from semreg.core.fields import PointMap, Volume
from semreg.phantom import PhantomPair, make_brains, make_pair, points_of, render
from semreg.registration.contrasts import Contrast

SIZE = 48
NOISE = (0.0, 0.3, 0.6)
"""Deviation of the noise as a share of that of the image."""
FAINT = 0.1
"""The same where half of the structures are missing."""
EDGE_MM = 6.0
"""Over which a half fades."""
KINDS: dict[str, tuple[Callable[..., PhantomPair], tuple[str, str]]] = {
    "heads, T1 and T2": (make_brains, ("t1", "t2")),
    "abdomen, CT-like and MR-like": (make_pair, ("ct", "mr")),
}
Images = tuple[Volume, Volume]


def main() -> None:
    """Register, score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--report", action="store_true", help="write the table to results/contrasts.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, (make, contrasts) in KINDS.items():
        for what, change in changes().items():
            errors = []
            for seed in given.seeds:
                pair = make(size=SIZE, seed=seed)
                first, second = (
                    change(scenes(pair, contrast), pair, number, seed) for number, contrast in enumerate(contrasts)
                )
                errors.append([error(first, pair), error(second, pair), error(first, pair, second)])
            means = [fmean(column) for column in zip(*errors, strict=True)]
            better = sum(both < min(one, other) for one, other, both in errors)
            rows.append([f"{name}, {what}", *(f"{mean:.2f}" for mean in means), f"{better} of {len(errors)}"])
            print(rows[-1], flush=True)
    header = ["phantoms", "first alone, mm", "second alone, mm", "both, mm", "both better than either"]
    facts = report.machine(1) | {
        "semreg": report.versions_line(tools.semreg_versions()),
        "command": f"`python benchmarks/contrasts.py --seeds {' '.join(map(str, given.seeds))} --report`",
    }
    text = f"# A second contrast\n\n{report.bullets(facts)}\n{report.markdown_table(header, rows)}"
    print(text)
    if given.report:
        (tools.RESULTS / "contrasts.md").write_text(text, encoding="utf-8")


def changes() -> dict[str, Callable[[Images, PhantomPair, int, int], Images]]:
    """What is done to both images of a contrast, by its words."""
    noisy = {
        f"noise {share:g}": lambda images, _, number, seed, share=share: with_noise(images, share, [number, seed])
        for share in NOISE
    }
    return noisy | {f"half of the structures each, noise {FAINT:g}": of_half}


def of_half(images: Images, pair: PhantomPair, number: int, seed: int) -> Images:
    """With half of the structures, and noise that hides what is left of the others."""
    return with_noise(half(images, pair, (-1, 1)[number]), FAINT, [number, seed])


def scenes(pair: PhantomPair, contrast: str) -> Images:
    """The fixed and the moving scene in one contrast, without noise."""
    back = pair.true_map.inverse
    return (
        render(pair.anatomy, pair.fixed.grid, contrast),
        render(pair.anatomy, pair.moving.grid, contrast, origin_of=back),
    )


def with_noise(images: Images, share: float, seeds: list[int]) -> Images:
    """With noise of a deviation that is so many times that of the image."""
    rng = np.random.default_rng(seeds)

    def noisy(image: Volume) -> Volume:
        drawn = torch.from_numpy(rng.standard_normal(image.data.shape).astype(np.float32))
        return Volume(image.data + share * float(image.data.std()) * drawn, image.grid)

    return noisy(images[0]), noisy(images[1])


def half(images: Images, pair: PhantomPair, side: int) -> Images:
    """With what lies on one side along x, -1 or 1, of the fixed scene's middle alone; its mean elsewhere."""
    middle = float(points_of(pair.fixed.grid)[0].mean())

    def seen(image: Volume, back: PointMap) -> Volume:
        points = points_of(image.grid)
        x = back(points.flatten(1)).reshape(points.shape)[0]
        share = torch.sigmoid(side * (x - middle) / EDGE_MM).float()
        return Volume(image.data * share + image.data.mean() * (1 - share), image.grid)

    return seen(images[0], lambda points: points), seen(images[1], pair.true_map.inverse)


def error(images: Images, pair: PhantomPair, second: Images | None = None) -> float:
    """The mean landmark error in mm."""
    config = RegistrationConfig(align=AlignConfig(transform="none"))
    further = [] if second is None else [Contrast(*second)]
    found = semreg.register(*images, config=config, contrasts=further, device="cpu")
    return float(landmark_errors(found.transform(), pair.fixed_points.numpy(), pair.moving_points.numpy()).mean())


if __name__ == "__main__":
    main()
