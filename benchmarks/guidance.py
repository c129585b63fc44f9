"""What guidance gives on what did not guide: labels and landmarks of real pairs, landmarks of phantoms.

    python guidance.py [PAIRS.toml] [--only NAME ...] [--phantoms N] [--report]

Every second label that both images have guides, and the Dice of the others is told, with and without guidance, beside
that of the labels that guide and the landmark error where there is one. Half of the landmarks, drawn at random, guide,
and the error of the others is told. On phantoms of 56 voxels 20 landmarks with an error of 1 mm along each axis guide,
then the same with one of them 35 mm off, then the labels; the error of the other landmarks is told.
"""

from __future__ import annotations

import argparse
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import SimpleITK as sitk
import tools
import torch
from scipy.interpolate import RBFInterpolator
from scoring import landmark_errors

import report
import semreg
from semreg.phantom import PhantomPair, make_brains, make_pair
from semreg.registration.guidance import Guidance

DEVIATION_MM = 1.0
"""Of the landmarks of phantoms, and what is said of it."""
COUNT = 20
OFF_MM = (25.0, -20.0, 15.0)
SIZE = 56
LENGTHS_MM = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
SMOOTHINGS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Of the interpolation of what is left: noise over signal, both squared."""


def main() -> None:
    """Register, score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("pairs", type=Path, nargs="?", default=tools.SHARED / "data" / "pairs.toml", help="list of the pairs")
    add("--only", nargs="+", default=[], metavar="NAME", help="pairs whose names begin so")
    add("--phantoms", type=int, default=6, metavar="N", help="of each kind")
    add("--report", action="store_true", help="write the tables to results/guidance.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    parts = []
    if given.pairs.exists():
        listed = tomllib.loads(given.pairs.read_text(encoding="utf-8"))["pair"]
        chosen = [pair for pair in listed if not given.only or pair["name"].startswith(tuple(given.only))]
        parts += [labels_table(chosen, given.pairs.parent), landmarks_table(chosen, given.pairs.parent)]
    else:
        print(f"skipped: {given.pairs} is not there")
    if given.phantoms:
        parts.append(phantoms_table(given.phantoms))
    facts = report.machine(1) | {"semreg": report.versions_line(tools.semreg_versions())}
    text = f"# Guidance\n\n{report.bullets(facts)}\n" + "\n".join(parts)
    print(text)
    if given.report:
        (tools.RESULTS / "guidance.md").write_text(text, encoding="utf-8")


def labels_table(pairs: list[dict[str, Any]], root: Path) -> str:
    """Every second label guides."""
    rows = []
    for pair in pairs:
        if "fixed_labels" not in pair:
            continue
        fixed, moving = (sitk.ReadImage(str(root / pair[f"{side}_labels"]), sitk.sitkInt32) for side in SIDES)
        shared = sorted(set(np.unique(array(fixed))) & set(np.unique(array(moving))) - {0})
        used, held_out = shared[::2], shared[1::2]
        known = Guidance(labels=tuple(only(image, used) for image in (fixed, moving)))
        cells = []
        for guidance in (None, known):
            found, seconds = registered(pair, root, guidance)
            of = dices(found.transform(), fixed, moving, shared)
            error = "-" if "fixed_landmarks" not in pair else f"{errors_of(found, *points(pair, root)).mean():.2f}"
            means = [f"{fmean(of[label] for label in labels):.3f}" if labels else "-" for labels in (held_out, used)]
            cells.append([*means, error, f"{seconds:.0f}", f"{found.record.jacobian.folded_share:.4f}"])
        rows.append([pair["name"], str(len(shared)), *(f"{a} → {b}" for a, b in zip(*cells, strict=True))])
        print(f"labels: {rows[-1]}", flush=True)
    header = ["pair", "labels", "Dice, held out", "Dice, guiding", "landmarks, mm", "CPU s", "folded"]
    return "Every second label guides; without → with:\n\n" + report.markdown_table(header, rows)


def landmarks_table(pairs: list[dict[str, Any]], root: Path) -> str:
    """Half of the landmarks guide."""
    rows = []
    for pair in pairs:
        if len(pair.get("fixed_landmarks", ())) < 2:  # two points are no half
            continue
        fixed, moving = points(pair, root)
        order = np.random.default_rng(1).permutation(len(fixed))
        used, held_out = order[: len(order) // 2], order[len(order) // 2 :]
        found = [registered(pair, root, known)[0] for known in (None, Guidance(landmarks=(fixed[used], moving[used])))]
        errors = [errors_of(each, fixed, moving) for each in found]
        cells = [f"{errors[0][which].mean():.3f} → {errors[1][which].mean():.3f}" for which in (held_out, used)]
        best = best_interpolation(found[0], fixed, moving, used, held_out)
        rows.append([pair["name"], str(len(used)), *cells, f"{best:.3f}"])
        print(f"landmarks: {rows[-1]}", flush=True)
    header = ["pair", "guiding", "held out, mm", "guiding, mm", "best interpolation, held out, mm"]
    about = (
        "Half of the landmarks guide; without → with. Last, what is left on the others if the errors of those that "
        "guide are interpolated, with the length and the smoothing that do best on the others themselves: "
        "the landmarks of one half know no more of the other.\n\n"
    )
    return about + report.markdown_table(header, rows)


def best_interpolation(
    found: semreg.Registration, fixed: np.ndarray, moving: np.ndarray, used: np.ndarray, held_out: np.ndarray
) -> float:
    """The mean error of ``held_out`` in mm after the best smooth correction by ``used``, chosen with the answers."""
    transform = found.transform()
    left = moving - np.array([transform.TransformPoint(point.tolist()) for point in fixed])
    means = [float(np.linalg.norm(left[held_out], axis=1).mean())]
    for length in LENGTHS_MM:
        for smoothing in SMOOTHINGS:
            learnt = RBFInterpolator(
                fixed[used], left[used], kernel="gaussian", epsilon=1 / length, smoothing=smoothing, degree=-1
            )
            means.append(float(np.linalg.norm(left[held_out] - learnt(fixed[held_out]), axis=1).mean()))
    return min(means)


def phantoms_table(count: int) -> str:
    """Landmarks and labels of phantoms."""
    kinds = {
        "CT and MR": lambda seed: make_pair(size=SIZE, seed=seed),
        "CT and MR, 30 mm": lambda seed: make_pair(size=SIZE, seed=seed, displacement_mm=30.0),
        "T1 and T2": lambda seed: make_brains(size=SIZE, seed=seed, contrasts=("t1", "t2")),
    }
    rows = []
    for kind, make in kinds.items():
        means = []
        for seed in range(count):
            pair = make(seed)
            means.append([errors.mean() for errors in of_phantom(pair, seed)])
            print(f"{kind} {seed}: {' '.join(f'{mean:.3f}' for mean in means[-1])}", flush=True)
        worse = [sum(row[way] > row[0] for row in means) for way in range(1, 4)]
        columns = [f"{fmean(column):.2f}" for column in zip(*means, strict=True)]
        rows.append([kind, *columns, ", ".join(map(str, worse))])
    header = ["phantoms", "alone, mm", "landmarks", "one of them wrong", "labels", f"worse than alone, of {count}"]
    return "Error of the landmarks that do not guide, mean:\n\n" + report.markdown_table(header, rows)


def of_phantom(pair: PhantomPair, seed: int) -> list[np.ndarray]:
    """The errors of the other landmarks: alone, with landmarks, with a wrong one among them, with labels."""
    random = np.random.default_rng(seed)
    fixed, moving = (each.double().numpy() for each in (pair.fixed_points, pair.moving_points))
    order = random.permutation(len(fixed))
    used, held_out = order[:COUNT], order[COUNT:]
    seen = moving[used] + random.normal(0, DEVIATION_MM, (COUNT, moving.shape[1]))
    wrong = seen.copy()
    wrong[0] += OFF_MM
    known = [None, *(Guidance(landmarks=(fixed[used], far), landmark_sd_mm=DEVIATION_MM) for far in (seen, wrong))]
    known.append(Guidance(labels=(pair.fixed_labels(), pair.moving_labels())))
    found = [semreg.register(pair.fixed, pair.moving, guidance=each) for each in known]
    return [errors_of(each, fixed[held_out], moving[held_out]) for each in found]


SIDES = ("fixed", "moving")


def registered(pair: Mapping[str, Any], root: Path, guidance: Guidance | None) -> tuple[semreg.Registration, float]:
    """What is found with the defaults, and the CPU seconds it took."""
    start = time.process_time()
    found = semreg.register(root / pair["fixed"], root / pair["moving"], guidance=guidance)
    return found, time.process_time() - start


def points(pair: Mapping[str, Any], root: Path) -> tuple[np.ndarray, np.ndarray]:
    """The landmarks of both images, (N, D) in mm."""
    found = [
        np.concatenate([np.loadtxt(root / path, delimiter=",", skiprows=1, ndmin=2) for path in pair[name]])
        for name in ("fixed_landmarks", "moving_landmarks")
    ]
    return found[0], found[1]


def errors_of(found: semreg.Registration, fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Of landmarks (N, D), in mm."""
    return landmark_errors(found.transform(), fixed, moving)


def dices(transform: sitk.Transform, fixed: sitk.Image, moving: sitk.Image, labels: list[int]) -> dict[int, float]:
    """The Dice of each label, moving ones carried over by the nearest neighbour."""
    here, there = array(fixed), array(sitk.Resample(moving, fixed, transform, sitk.sitkNearestNeighbor))
    sizes = {label: int((here == label).sum() + (there == label).sum()) for label in labels}
    return {label: 2 * int(((here == label) & (there == label)).sum()) / sizes[label] for label in labels}


def only(image: sitk.Image, labels: list[int]) -> sitk.Image:
    """These labels alone."""
    values = array(image)
    kept = sitk.GetImageFromArray(np.where(np.isin(values, labels), values, 0))
    kept.CopyInformation(image)
    return kept


def array(image: sitk.Image) -> np.ndarray:
    """The voxels."""
    return np.asarray(sitk.GetArrayFromImage(image))


if __name__ == "__main__":
    main()
