"""What keypoints that are found by the images alone give: phantoms that move far and less far, and real pairs.

    python keypoints.py [PAIRS.toml] [--part phantoms|pairs] [--seeds N ...] [--only NAME ...] [--report]

Each pair is registered with the defaults, with a search as far as keypoints are looked for, and with keypoints. The
landmarks of phantoms lie on edges in both images; on real pairs landmarks, or the Dice of the labels, are told. The
settings of keypoints were chosen on phantoms of the seeds 0 and 1.
"""

from __future__ import annotations

import argparse
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import SimpleITK as sitk
import tools
import torch
from guidance import array, dices, points
from scoring import landmark_errors

import report
import semreg
from semreg.config import CoarseConfig, KeypointConfig, RegistrationConfig
from semreg.phantom import PhantomPair, make_brains, make_chests, make_pair

SIZE = 64
KINDS: dict[str, Callable[[int], PhantomPair]] = {
    "chest, CT and CT, slides by 30 mm": lambda seed: make_chests(size=SIZE, seed=seed, slide_mm=30),
    "chest, CT and MR, slides by 30 mm": lambda seed: make_chests(
        size=SIZE, seed=seed, slide_mm=30, contrasts=("ct", "mr")
    ),
    "abdomen, CT and MR, 30 mm": lambda seed: make_pair(size=SIZE, seed=seed, displacement_mm=30),
    "abdomen, CT and MR, 11 mm": lambda seed: make_pair(size=SIZE, seed=seed),
    "heads, T1 and T2, 20 mm": lambda seed: make_brains(
        size=SIZE, seed=seed, contrasts=("t1", "t2"), displacement_mm=20
    ),
}
FURTHER = 1.5
"""How far keypoints are looked for, in reaches of the search."""


def main() -> None:
    """Register, score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("pairs", type=Path, nargs="?", default=tools.SHARED / "data" / "pairs.toml", help="list of the pairs")
    add("--part", choices=["phantoms", "pairs"], help="one of both alone")
    add("--seeds", type=int, nargs="+", default=[10, 11, 12, 13, 14], metavar="N", help="of the phantoms")
    add("--only", nargs="+", default=[], metavar="NAME", help="pairs and phantoms whose names begin so")
    add("--report", action="store_true", help="write the tables to results/keypoints.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    parts = []
    if given.part != "pairs":
        parts.append(phantoms_table(given.seeds, tuple(given.only)))
    if given.part != "phantoms" and given.pairs.exists():
        parts.append(pairs_table(given.pairs, tuple(given.only)))
    facts = report.machine(1) | {"semreg": report.versions_line(tools.semreg_versions())}
    text = f"# Keypoints\n\n{report.bullets(facts)}\n" + "\n".join(parts)
    print(text)
    if given.report:
        (tools.RESULTS / "keypoints.md").write_text(text, encoding="utf-8")


def ways(fixed: Any, moving: Any) -> Iterator[tuple[semreg.Registration, float]]:
    """The defaults, a longer search, keypoints; each with the CPU seconds it took."""
    reach = None
    for number in range(3):
        config = (
            RegistrationConfig(),
            RegistrationConfig(coarse=CoarseConfig(reach_mm=reach)),
            RegistrationConfig(keypoints=KeypointConfig(enabled=True)),
        )[number]
        start = time.process_time()
        found = semreg.register(fixed, moving, config=config)
        reach = reach or FURTHER * (found.config.coarse.reach_mm or 0.0)
        yield found, time.process_time() - start


def found_words(found: semreg.Registration) -> tuple[str, str]:
    """How many distinctive points there were and were kept."""
    guidance = found.record.guidance
    keypoints = None if guidance is None else guidance.keypoints
    return ("-", "-") if keypoints is None else (str(keypoints.looked), str(keypoints.kept))


def phantoms_table(seeds: list[int], only: tuple[str, ...]) -> str:
    """All landmarks of phantoms, and how far the keypoints themselves are off."""
    rows = []
    for name, make in KINDS.items():
        if only and not name.startswith(only):
            continue
        means: list[list[float]] = []
        for seed in seeds:
            pair = make(seed)
            fixed, moving = (each.double().numpy() for each in (pair.fixed_points, pair.moving_points))
            errors = [np.linalg.norm(fixed - moving, axis=1)]
            seconds = []
            for found, took in ways(pair.fixed, pair.moving):
                errors.append(landmark_errors(found.transform(), fixed, moving))
                seconds.append(took)
            kept = found.keypoints
            true = pair.true_map(torch.from_numpy(kept.fixed)).numpy()
            off = np.linalg.norm(true - kept.moving, axis=0)
            sure = off / np.sqrt(3) / kept.sd_mm
            rows.append(
                [
                    name, str(seed), *(f"{each.mean():.2f}" for each in errors),
                    *(f"{np.quantile(each, 0.95):.1f}" for each in errors[1:]),
                    *found_words(found), f"{np.median(off):.1f}", f"{100 * (off > 8).mean():.0f}",
                    f"{np.median(sure):.2f}", " → ".join(f"{each:.0f}" for each in seconds),
                ]
            )  # fmt: skip
            means.append([each.mean() for each in errors])
            print(f"phantoms: {rows[-1]}", flush=True)
        mean = [f"**{fmean(column):.2f}**" for column in zip(*means, strict=True)]
        rows.append([name, "mean", *mean, *[""] * (len(rows[-1]) - 6)])
    header = [
        "phantom", "seed", "before, mm", "defaults", "search further", "keypoints", "95 %: defaults", "search further",
        "keypoints", "looked for", "kept", "off, median mm", "off by > 8 mm, %", "off in deviations", "CPU s",
    ]  # fmt: skip
    return "Mean error of the landmarks in mm:\n\n" + report.markdown_table(header, rows)


def pairs_table(path: Path, only: tuple[str, ...]) -> str:
    """Real pairs: the landmark error where there is one, else the Dice."""
    rows = []
    for pair in tomllib.loads(path.read_text(encoding="utf-8"))["pair"]:
        if only and not pair["name"].startswith(only):
            continue
        cells, seconds = [], []
        for found, took in ways(path.parent / pair["fixed"], path.parent / pair["moving"]):
            cells.append(score(pair, path.parent, found))
            seconds.append(took)
        unit = "mm" if "fixed_landmarks" in pair else "Dice"
        rows.append([pair["name"], unit, *cells, *found_words(found), " → ".join(f"{each:.0f}" for each in seconds)])
        print(f"pairs: {rows[-1]}", flush=True)
    header = ["pair", "unit", "defaults", "search further", "keypoints", "looked for", "kept", "CPU s"]
    return "Real pairs, mean landmark error, or mean Dice of all labels:\n\n" + report.markdown_table(header, rows)


def score(pair: dict[str, Any], root: Path, found: semreg.Registration) -> str:
    """One number."""
    if "fixed_landmarks" in pair:
        return f"{landmark_errors(found.transform(), *points(pair, root)).mean():.3f}"
    fixed, moving = (sitk.ReadImage(str(root / pair[f"{side}_labels"]), sitk.sitkInt32) for side in ("fixed", "moving"))
    shared = sorted(set(np.unique(array(fixed))) & set(np.unique(array(moving))) - {0})
    return f"{fmean(dices(found.transform(), fixed, moving, shared).values()):.4f}"


if __name__ == "__main__":
    main()
