"""What keypoints that are found by the images alone give: phantoms that move far and less far, and real pairs.

    python keypoints.py [PAIRS.toml] [--part phantoms|pairs] [--seeds N ...] [--only NAME ...] [--further] [--report]

Each pair is registered with the defaults, with ``--further`` with a search as far as keypoints are looked for, and with
keypoints. The landmarks of phantoms lie on edges in both images; on real pairs landmarks, or the Dice of the labels,
are told. The settings of keypoints were chosen on phantoms of the seeds 0 and 1.
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

SIZE = 48
KINDS: dict[str, Callable[[int], PhantomPair]] = {
    "chest, CT and CT, slides by 30 mm": lambda seed: make_chests(size=SIZE, seed=seed, slide_mm=30),
    "chest, CT and MR, slides by 30 mm": lambda seed: make_chests(
        size=SIZE, seed=seed, slide_mm=30, contrasts=("ct", "mr")
    ),
    "chest, CT and CT, 30 mm": lambda seed: make_chests(size=SIZE, seed=seed, slide_mm=0, displacement_mm=30),
    "abdomen, CT and MR, 30 mm": lambda seed: make_pair(size=SIZE, seed=seed, displacement_mm=30),
    "abdomen, CT and MR, 11 mm": lambda seed: make_pair(size=SIZE, seed=seed),
    "heads, T1 and T2, 20 mm": lambda seed: make_brains(
        size=SIZE, seed=seed, contrasts=("t1", "t2"), displacement_mm=20
    ),
}
FAR_MM = 8
"""From where on a keypoint is wrong."""
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
    add("--further", action="store_true", help="register with a longer search, too")
    add("--report", action="store_true", help="write the tables to results/keypoints.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    parts = []
    if given.part != "pairs":
        parts.append(phantoms_table(given.seeds, tuple(given.only), further=given.further))
    if given.part != "phantoms" and given.pairs.exists():
        parts.append(pairs_table(given.pairs, tuple(given.only), further=given.further))
    facts = report.machine(1) | {"semreg": report.versions_line(tools.semreg_versions())}
    text = f"# Keypoints\n\n{report.bullets(facts)}\n" + "\n".join(parts)
    print(text)
    if given.report:
        (tools.RESULTS / "keypoints.md").write_text(text, encoding="utf-8")


def ways(fixed: Any, moving: Any, *, further: bool) -> Iterator[tuple[semreg.Registration, float]]:
    """The defaults, a longer search if it is wanted, and keypoints; each with the CPU seconds it took."""
    start = time.process_time()
    found = semreg.register(fixed, moving)
    yield found, time.process_time() - start
    longer = RegistrationConfig(coarse=CoarseConfig(reach_mm=FURTHER * (found.config.coarse.reach_mm or 0.0)))
    for config in [*([longer] if further else []), RegistrationConfig(keypoints=KeypointConfig(enabled=True))]:
        start = time.process_time()
        found = semreg.register(fixed, moving, config=config)
        yield found, time.process_time() - start


def found_words(found: semreg.Registration) -> tuple[str, str]:
    """How many distinctive points there were and were kept."""
    guidance = found.record.guidance
    keypoints = None if guidance is None else guidance.keypoints
    return ("-", "-") if keypoints is None else (str(keypoints.looked), str(keypoints.kept))


def phantoms_table(seeds: list[int], only: tuple[str, ...], *, further: bool) -> str:
    """All landmarks of phantoms, and how far the keypoints themselves are off."""
    rows: dict[str, list[list[str]]] = {name: [] for name in KINDS if not only or name.startswith(only)}
    means: dict[str, list[list[float]]] = {name: [] for name in rows}
    for seed in seeds:
        for name, told in rows.items():
            pair = KINDS[name](seed)
            fixed, moving = (each.double().numpy() for each in (pair.fixed_points, pair.moving_points))
            errors, seconds = [np.linalg.norm(fixed - moving, axis=1)], []
            for found, took in ways(pair.fixed, pair.moving, further=further):
                errors.append(landmark_errors(found.transform(), fixed, moving))
                seconds.append(f"{took:.0f}")
            kept = found.keypoints
            true = pair.true_map(torch.from_numpy(kept.fixed)).numpy()
            off = np.linalg.norm(true - kept.moving, axis=0)
            told.append(
                [
                    name, str(seed), f"{errors[0].mean():.2f}", " → ".join(f"{each.mean():.2f}" for each in errors[1:]),
                    " → ".join(f"{np.quantile(each, 0.95):.1f}" for each in errors[1:]), *found_words(found),
                    f"{np.median(off):.1f}", f"{100 * (off > FAR_MM).mean():.0f}",
                    f"{np.median(off / np.sqrt(3) / kept.sd_mm):.2f}", " → ".join(seconds),
                ]
            )  # fmt: skip
            means[name].append([each.mean() for each in errors])
            print(f"phantoms: {told[-1]}", flush=True)
    for name, each in rows.items():
        mean = [f"{fmean(column):.2f}" for column in zip(*means[name], strict=True)]
        each.append([name, "all", mean[0], " → ".join(mean[1:]), *[""] * (len(each[0]) - 4)])
    header = [
        "phantom", "seed", "before, mm", arrows("mean, mm", further), arrows("95 %, mm", further), "looked for", "kept",
        "these are off, mm", f"by > {FAR_MM} mm, %", "in deviations", arrows("CPU s", further),
    ]  # fmt: skip
    table = report.markdown_table(header, [row for each in rows.values() for row in each])
    return "Errors of the landmarks, and in the median of the keypoints themselves:\n\n" + table


def arrows(what: str, further: bool) -> str:
    """The head of a column."""
    return f"{what}: defaults → search further → keypoints" if further else f"{what}: defaults → keypoints"


def pairs_table(path: Path, only: tuple[str, ...], *, further: bool) -> str:
    """Real pairs: the landmark error where there is one, else the Dice."""
    rows = []
    for pair in tomllib.loads(path.read_text(encoding="utf-8"))["pair"]:
        if only and not pair["name"].startswith(only):
            continue
        cells, seconds = [], []
        for found, took in ways(path.parent / pair["fixed"], path.parent / pair["moving"], further=further):
            cells.append(score(pair, path.parent, found))
            seconds.append(f"{took:.0f}")
        unit = "mm" if "fixed_landmarks" in pair else "Dice"
        rows.append([pair["name"], unit, " → ".join(cells), *found_words(found), " → ".join(seconds)])
        print(f"pairs: {rows[-1]}", flush=True)
    header = ["pair", "unit", arrows("mean", further), "looked for", "kept", arrows("CPU s", further)]
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
