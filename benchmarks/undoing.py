"""How well a transform and its inverse undo each other, from the written files.

``consistency`` reads them with SimpleITK alone; ``round_trip`` brings points there and back with ``semreg apply``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from measure import environment

POINTS = 20_000
"""Of each image, where the inverse is tried."""


def consistency(fixed: Path, moving: Path, folder: Path) -> dict[str, float]:
    """How far ``transform.h5`` and ``inverse.h5`` in ``folder`` are from undoing each other: mean and p99.9 in mm.

    Of points drawn evenly within one image that the first of the two brings into the other one; the worse order.
    """
    ways = [sitk.ReadTransform(str(folder / name)) for name in ("transform.h5", "inverse.h5")]
    images = [sitk.ReadImage(str(path)) for path in (fixed, moving)]
    means, tails = [], []
    for (there, back), (here, other) in ((ways, images), (ways[::-1], images[::-1])):
        points = drawn_points(here)
        reached = mapped(there, points)
        inside = np.array([is_inside(other, point) for point in reached])
        if inside.any():
            error = np.linalg.norm(mapped(back, reached[inside]) - points[inside], axis=1)
            means.append(float(error.mean()))
            tails.append(float(np.percentile(error, 99.9)))
    return {"mean mm": max(means, default=np.inf), "p99.9 mm": max(tails, default=np.inf)}


def drawn_points(image: sitk.Image) -> np.ndarray:
    """Points (N, D) between the outermost voxel centres of an image, in mm; the same ones each time."""
    last = np.array(image.GetSize()) - 1
    index = np.random.default_rng(0).uniform(0, last, (POINTS, len(last)))
    return np.array([image.TransformContinuousIndexToPhysicalPoint(row) for row in index.tolist()])


def mapped(transform: sitk.Transform, points: np.ndarray) -> np.ndarray:
    """Points (N, D) in mm through a transform."""
    return np.array([transform.TransformPoint(point) for point in points.tolist()])


def is_inside(image: sitk.Image, point: np.ndarray) -> bool:
    """Whether a point in mm lies between the outermost voxel centres of an image."""
    index = image.TransformPhysicalPointToContinuousIndex(point.tolist())
    return all(0 <= i <= n - 1 for i, n in zip(index, image.GetSize(), strict=True))


def round_trip(points: np.ndarray, folder: Path, threads: int | None) -> float:
    """Farthest that points (N, D) in mm are from where they began after ``semreg apply`` there and ``--inverse`` back.

    RuntimeError if the command fails.
    """
    start, there, back = (folder / f"points-{name}.csv" for name in ("fixed", "moving", "back"))
    write_points(start, points)
    apply(folder / "transform.h5", start, there, threads)
    apply(folder / "transform.h5", there, back, threads, "--inverse")
    return float(np.linalg.norm(read_points(back) - points, axis=1).max())


def apply(transform: Path, source: Path, target: Path, threads: int | None, *flags: str) -> None:
    """Bring the points of a file through a transform with ``semreg apply``."""
    command = [sys.executable, "-m", "semreg", "apply", transform, "-i", source, "-o", target, "--quiet", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(threads))
    if done.returncode:
        raise RuntimeError(f"semreg apply: {done.stderr.strip()}")


def read_points(*paths: Path) -> np.ndarray:
    """Points (N, D) of CSV files with a header."""
    return np.concatenate([np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2) for path in paths])


def write_points(path: Path, points: np.ndarray) -> None:
    """Points (N, D) as CSV with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, points, delimiter=",", header=",".join("xyz"[: points.shape[1]]), comments="", fmt="%.9g")
