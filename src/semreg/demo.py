"""Registers the built-in phantom pair, writes all files and says how far landmarks are off, in mm.

Does nothing that a user could not do with the public names. Knows nothing of the terminal.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semreg.events import OnStep
from semreg.files import OutputFolder, write_field, write_image, write_transform
from semreg.phantom import PhantomPair, make_pair
from semreg.record import stable_json, versions
from semreg.registration import register

FIXED_TYPE, MOVING_TYPE = "int16", "uint16"


@dataclass(frozen=True)
class LandmarkError:
    """Distance in mm between where landmarks are found and where they are."""

    mean: float
    p95: float
    """95th percentile."""

    @classmethod
    def between(cls, found: Tensor, true: Tensor) -> LandmarkError:
        """From two sets of points (N, D) in mm."""
        distance = torch.linalg.vector_norm(found - true, dim=1)
        return cls(float(distance.mean()), float(torch.quantile(distance, 0.95)))

    def __str__(self) -> str:
        return f"mean {self.mean:.2f} mm, 95th percentile {self.p95:.2f} mm"


def run(out: Path, *, size: int = 120, on_step: OnStep | None = None) -> list[str]:
    """Register a phantom of about ``size`` voxels an axis, write everything to ``out`` and return what to print.

    Raises OutputError if ``out`` cannot be written; then nothing is left there.
    """
    pair = make_pair(size=size)
    with OutputFolder(out) as folder:
        write_pair(pair, folder)
        result = register(pair.fixed, pair.moving, on_step=on_step)
        before = LandmarkError.between(pair.fixed_points, pair.moving_points)
        found = result.field.point_map()(pair.fixed_points.T).T
        after = LandmarkError.between(found, pair.moving_points)
        write_image(result.warped, folder.stage("warped.nii.gz"), MOVING_TYPE)
        write_field(result.field, folder.stage("field.nii.gz"))
        write_transform(result.field, folder.stage("transform.h5"))
        landmarks = {
            name: {"mean_mm": error.mean, "p95_mm": error.p95} for name, error in (("before", before), ("after", after))
        }
        record = {**result.record, "landmarks": landmarks, "versions": versions()}
        folder.stage("record.json").write_text(stable_json(record), encoding="utf-8")
    jacobian = record["jacobian"]
    return [
        f"{len(pair.fixed_points)} landmarks on a CT-like and an MR-like image with a known deformation",
        f"landmark error before: {before}",
        f"landmark error after:  {after}",
        f"smallest Jacobian: {jacobian['minimum']:.3f}",
        f"folded voxels: {100 * jacobian['folded_share']:.3g} %",
        "files: " + ", ".join(str(path) for path in folder.files),
    ]


def write_pair(pair: PhantomPair, folder: OutputFolder) -> None:
    """Write the images as a scanner stores them, and the landmarks."""
    write_image(pair.fixed, folder.stage("fixed.nii.gz"), FIXED_TYPE)
    write_image(pair.moving, folder.stage("moving.nii.gz"), MOVING_TYPE)
    _write_points(pair.fixed_points, folder.stage("fixed_points.csv"))
    _write_points(pair.moving_points, folder.stage("moving_points.csv"))


def _write_points(points: Tensor, path: Path) -> None:
    """Points (N, D) in mm, LPS, one a line under a header."""
    names = ",".join("xyz"[: points.shape[1]])
    np.savetxt(path, points.numpy(), fmt="%.4f", delimiter=",", header=names, comments="")
