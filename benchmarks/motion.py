"""Is a breath followed over time, smoothly and without drift, and are small rigid motions found?

    python motion.py [--report]

A breathing phantom of ten frames in 3-D, out and back on two ways, and a rigid one whose frames are turned and shifted
by parts of a voxel and more. Beside it the chain: each frame registered to the one before, and the maps joined.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

import numpy as np
import tools
import torch

import report
from semreg import RegistrationConfig
from semreg.config import AlignConfig
from semreg.core.fields import Field, Volume
from semreg.core.sampling import transform_index
from semreg.io.bridge import LabelMap
from semreg.phantom import make_anatomy, make_pair, render
from semreg.registration.carried import carry
from semreg.registration.motion import Kind, Motion, MotionOptions, correct_motion
from semreg.registration.pipeline import register
from semreg.registration.template import for_rounds
from semreg.transforms.maps import linear_about, mapped

sys.path.insert(0, str(tools.ROOT / "tests"))
from cohort_bodies import Cohort, frame_errors, make_breath, roughness, trajectories

SIZE, FRAMES = 32, 10
PLAIN = for_rounds(RegistrationConfig(align=AlignConfig(transform="none")))


def main() -> None:
    """Follow, score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="write the tables to results/motion.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    facts = report.machine(1) | {"semreg": report.versions_line(tools.semreg_versions())}
    text = "\n".join([f"# Motion in a series\n\n{report.bullets(facts)}", rigid(), breathing()])
    print(text)
    if given.report:
        (tools.RESULTS / "motion.md").write_text(text, encoding="utf-8")


def breathing() -> str:
    """The error of landmarks over time, how paths bend, and the drift around the cycle."""
    series = make_breath(FRAMES, size=SIZE, dimension=3)
    voxel = series.mean.grid.spacing[0]
    true = torch.stack([member.moved for member in series.members])
    still = frame_errors(series, [Field.zeros(series.mean.grid)] * FRAMES)
    rows = [["no correction", report.number(float(still.mean())), report.number(float(still.max())), "-", "-", "-"]]
    for title, reference, smooth in (
        ("to frame 0", 0, 0),
        ("to the mean, smoothed", None, 5),
    ):
        options = MotionOptions(kind=Kind.DEFORMABLE, reference=reference, smooth=smooth, cyclic=True, rounds=1)
        found = correct_motion(series.images, options=options)
        errors = frame_errors(series, found.fields)
        bend = roughness(trajectories(series, found.fields))
        drift, apart = drift_of(series, found)
        numbers = (float(errors.mean()), float(errors.max()), bend, drift, apart)
        rows.append([title, *map(report.number, numbers)])
        print(rows[-1], errors.numpy().round(2), flush=True)
    bars = f"Below a voxel of {voxel:.3g} mm in every frame, smoothed: {report.holds(float(errors.max()) < voxel)}."
    chain = f"Drift of the landmarks around the cycle by the chain of frames: {chained(series):.3f} mm."
    header = ["maps", "error, mm", "worst frame, mm", "bend, mm", "drift, mm", "both ways apart, mm"]
    said = (
        f"{FRAMES} frames of {SIZE}³ voxels of {voxel:.3g} mm. Error: mean distance of the landmarks of the first "
        f"frame from where they are in truth. Bend: mean second difference of their paths, in truth "
        f"{roughness(true):.3f} mm. "
        "Drift: mean distance of the labelled points of frame 0 from where they were, after all frames."
    )
    return f"## A breath\n\n{said}\n\n{report.markdown_table(header, rows)}\n{bars} {chain}\n"


def drift_of(series: Cohort, found: Motion) -> tuple[float, float]:
    """The larger mean drift of what is bright in frame 0, and the largest distance of both ways, mm."""
    first = series.images[0]
    carried = carry(LabelMap(Volume((first.data > 450).float(), first.grid), (0, 1)), 0, found)
    return max(each.mean_mm for each in carried.drift), max(carried.apart_mm)


def chained(series: Cohort) -> float:
    """Mean distance of landmarks from where they were, by maps from each frame to the next, around the cycle."""
    images = series.images
    start = points = series.members[0].moved
    for number, image in enumerate(images):
        points = register(image, images[(number + 1) % FRAMES], config=PLAIN).field.point_map()(points)
    return float((points - start).norm(dim=0).mean())


def rigid() -> str:
    """How far rigid maps are from those that the frames were moved by, for motions of parts of a voxel and of more."""
    body, grid = make_anatomy(0), make_pair(size=SIZE, frames="isotropic").moving.grid
    noise = torch.Generator().manual_seed(0)
    middle = np.asarray(grid.corners_xyz().mean(0))
    rows = []
    for degrees, shift in ((0.2, 0.2), (0.5, 1.0), (2.0, 3.0), (6.0, 12.0)):
        truth = [np.eye(4), *(_turned(middle, degrees, shift, number) for number in range(4))]
        frames = []
        for matrix in truth:
            seen = render(body, grid, "mr", origin_of=partial(transform_index, np.linalg.inv(matrix)))
            frames.append(Volume(seen.data + 10 * torch.randn(seen.data.shape, generator=noise), grid))
        found = correct_motion(frames, options=MotionOptions(reference=0))
        moved, off = _distances(truth, found.fields, grid.corners_xyz() * 0.5 + middle * 0.5)
        rows.append([f"{degrees}°, {shift} mm along each axis", report.number(moved), report.number(off)])
        print(rows[-1], flush=True)
    said = (
        f"Five frames of {SIZE}³ voxels of {grid.spacing[0]:.3g} mm with noise. Mean distance of eight points half "
        "way to the corners, before and after."
    )
    return f"## Rigid motion\n\n{said}\n\n{report.markdown_table(['motion', 'moved, mm', 'error, mm'], rows)}"


def _turned(middle: np.ndarray, degrees: float, shift: float, number: int) -> np.ndarray:
    """Frame ``number``: turned about one of the axes, to either side, and shifted."""
    angle = np.deg2rad(degrees) * (-1) ** number
    i, j = ((0, 1), (1, 2), (0, 2), (1, 0))[number]
    turn = np.eye(3)
    turn[i, i] = turn[j, j] = np.cos(angle)
    turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
    return linear_about(turn, middle, middle + shift * np.array([1, (-1) ** number, 1]))


def _distances(truth: Sequence[np.ndarray], fields: Sequence[Field], points: np.ndarray) -> tuple[float, float]:
    """Mean over frames and points (N, 3): how far the truth moves them, and how far the fields are from it, mm."""
    moved = [mapped(matrix, points) for matrix in truth[1:]]
    found = [field.map(points.T).T for field in fields[1:]]
    return (
        float(np.mean([np.linalg.norm(each - points, axis=1).mean() for each in moved])),
        float(np.mean([np.linalg.norm(a - b, axis=1).mean() for a, b in zip(moved, found, strict=True)])),
    )


if __name__ == "__main__":
    main()
