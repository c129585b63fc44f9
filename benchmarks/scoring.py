"""Scores what a tool wrote with SimpleITK alone, so that all tools are scored alike. Knows no tool.

A transform maps points of the fixed image to the moving one, in mm, LPS.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

TRE_MEAN, TRE_P95, FOLDED = "TRE mean, mm", "TRE p95, mm", "folded, %"
"""Names of the scores."""


def read_transform(folder: Path) -> sitk.Transform:
    """The transform a tool left in ``folder``: ``transform.h5``, else ``field.nii.gz``."""
    if (folder / "transform.h5").exists():
        return sitk.ReadTransform(str(folder / "transform.h5"))
    return sitk.DisplacementFieldTransform(sitk.ReadImage(str(folder / "field.nii.gz"), sitk.sitkVectorFloat64))


def landmark_errors(transform: sitk.Transform, fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Distances in mm between the mapped fixed landmarks and the moving ones, both (N, 3), x y z."""
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
    turned = sitk.GetArrayFromImage(field) @ np.array(fixed.GetDirection()).reshape(3, 3)
    along_axes = sitk.GetImageFromArray(turned, isVector=True)
    along_axes.SetSpacing(fixed.GetSpacing())
    determinant = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(along_axes))
    return float(100 * np.mean(determinant[1:-1, 1:-1, 1:-1] <= 0))


def score(folder: Path, pair: Path) -> dict[str, float]:
    """Landmark error in mm (mean, 95th percentile) and folded voxels of the result in ``folder`` on a phantom pair."""
    transform = read_transform(folder)
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
    fixed, moving = (
        np.loadtxt(pair / f"{name}_landmarks.csv", delimiter=",", skiprows=1, ndmin=2) for name in ("fixed", "moving")
    )
    return fixed, moving
