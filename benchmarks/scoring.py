"""Scores what a tool wrote with SimpleITK alone, so that all tools are scored alike. Knows no tool.

A transform maps points of the fixed image to the moving one, in mm, LPS. ``score`` is for lists of pairs that bring no
scorer of their own; its names are theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

TRE_MEAN, TRE_P95, FOLDED = "TRE mean, mm", "TRE p95, mm", "folded, %"
"""Names of the scores of phantoms."""
TRANSFORMS = ("transform.h5", "transform.tfm", "transform.txt")
FIELDS = ("field.nii.gz", "field.mha", "field.nrrd")


def read_transform(folder: Path) -> sitk.Transform | None:
    """The transform a tool left in ``folder``, else its displacement field, in any of ITK's files; None without one."""
    for name in TRANSFORMS:
        if (folder / name).exists():
            return sitk.ReadTransform(str(folder / name))
    for name in FIELDS:
        if (folder / name).exists():
            return sitk.DisplacementFieldTransform(sitk.ReadImage(str(folder / name), sitk.sitkVectorFloat64))
    return None


def landmark_errors(transform: sitk.Transform, fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Distances in mm between the mapped fixed landmarks and the moving ones, both (N, D), x y z."""
    mapped = np.array([transform.TransformPoint([float(v) for v in point]) for point in fixed])
    return np.asarray(np.linalg.norm(mapped - moving, axis=1))


def folded_percent(transform: sitk.Transform, fixed: sitk.Image) -> float:
    """Percentage of the inner voxels of ``fixed`` where the Jacobian determinant is not positive."""
    field = sitk.TransformToDisplacementField(
        transform,
        sitk.sitkVectorFloat64,
        fixed.GetSize(),
        fixed.GetOrigin(),
        fixed.GetSpacing(),
        fixed.GetDirection(),
    )
    # ITK's determinant ignores the direction of the grid: the vectors are turned into its axes instead
    turned = sitk.GetArrayFromImage(field) @ np.array(fixed.GetDirection()).reshape(fixed.GetDimension(), -1)
    along_axes = sitk.GetImageFromArray(turned, isVector=True)
    along_axes.SetSpacing(fixed.GetSpacing())
    determinant = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(along_axes))
    inner = tuple(slice(1, -1) if n > 2 else slice(None) for n in determinant.shape)
    return float(100 * np.mean(determinant[inner] <= 0))


def mean_dice(transform: sitk.Transform, fixed: sitk.Image, moving: sitk.Image) -> float:
    """Mean Dice over the labels that both images have; the moving ones are carried over by nearest neighbour."""
    here = sitk.GetArrayFromImage(fixed)
    there = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkNearestNeighbor, 0))
    labels = np.intersect1d(np.unique(here), np.unique(sitk.GetArrayFromImage(moving)))
    dice = [
        2 * np.sum((here == label) & (there == label)) / (np.sum(here == label) + np.sum(there == label))
        for label in labels if label
    ]  # fmt: skip
    return float(np.mean(dice))


def score(pair: Mapping[str, Any], root: Path, folder: Path) -> dict[str, Any]:
    """The scores of the result in ``folder`` on a pair of a list whose paths begin at ``root``."""
    fixed, transform = sitk.ReadImage(str(root / pair["fixed"])), read_transform(folder)
    if transform is None:
        return {"name": pair["name"], "missing": True}
    identity = sitk.Transform(fixed.GetDimension(), sitk.sitkIdentity)
    row: dict[str, Any] = {"name": pair["name"], "folded %": folded_percent(transform, fixed)}
    if "fixed_landmarks" in pair:
        points = [
            np.concatenate([read_points(root / path) for path in pair[f"{role}_landmarks"]])
            for role in ("fixed", "moving")
        ]
        before, after = landmark_errors(identity, *points), landmark_errors(transform, *points)
        row |= {"TRE before": float(before.mean()), "TRE": float(after.mean())}
        row["TRE p95"] = float(np.percentile(after, 95))
    if "fixed_labels" in pair:
        labels = [sitk.ReadImage(str(root / pair[f"{role}_labels"]), sitk.sitkUInt16) for role in ("fixed", "moving")]
        row |= {"Dice before": mean_dice(identity, *labels), "Dice": mean_dice(transform, *labels)}
    return row


def score_phantom(folder: Path, pair: Path) -> dict[str, float]:
    """Landmark error in mm (mean, 95th percentile) and folded voxels of the result in ``folder`` on a phantom pair."""
    transform = read_transform(folder)
    if transform is None:
        raise FileNotFoundError(f"expected a transform or a displacement field in {folder}, found none")
    errors = landmark_errors(transform, *read_landmarks(pair))
    fixed = sitk.ReadImage(str(pair / "fixed.nii.gz"))
    return {
        TRE_MEAN: float(errors.mean()),
        TRE_P95: float(np.percentile(errors, 95)),
        FOLDED: folded_percent(transform, fixed),
    }


def score_before(pair: Path) -> dict[str, float]:
    """Landmark error in mm of a phantom pair before any registration."""
    errors = landmark_errors(sitk.Transform(3, sitk.sitkIdentity), *read_landmarks(pair))
    return {TRE_MEAN: float(errors.mean()), TRE_P95: float(np.percentile(errors, 95))}


def read_landmarks(pair: Path) -> tuple[np.ndarray, np.ndarray]:
    """The fixed and the moving landmarks of a phantom pair, (N, 3), x y z in mm."""
    fixed, moving = (read_points(pair / f"{name}_landmarks.csv") for name in ("fixed", "moving"))
    return fixed, moving


def read_points(path: Path) -> np.ndarray:
    """Points (N, D) of a CSV file with a header."""
    return np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
