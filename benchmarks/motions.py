"""Moves an image and its labels by a random rigid motion, with SimpleITK alone. Knows nothing of registration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

FARTHEST_MM, FARTHEST_DEG = 40.0, 40.0
"""Largest motion."""


def drawn_motion(generator: np.random.Generator, image: Path) -> tuple[sitk.VersorRigid3DTransform, float, float]:
    """A random rigid motion of points about the centre of a 3-D image, its length in mm and its angle in degrees.

    Axis and direction are uniform on the sphere, length and angle from 0 to the largest.
    """
    axis, way = (v / np.linalg.norm(v) for v in generator.normal(size=(2, 3)))
    angle, distance = generator.uniform(0, FARTHEST_DEG), generator.uniform(0, FARTHEST_MM)
    still = sitk.ReadImage(str(image))
    motion = sitk.VersorRigid3DTransform()
    motion.SetCenter(still.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in still.GetSize()]))
    motion.SetRotation(axis.tolist(), float(np.radians(angle)))
    motion.SetTranslation((distance * way).tolist())
    return motion, float(distance), float(angle)


def move_all(
    images: Mapping[str, Path], motion: sitk.VersorRigid3DTransform, folder: Path, *, resampled: bool
) -> dict[str, str]:
    """Write ``moving`` and ``moving_labels`` again, every point brought to where ``motion`` says; the new paths.

    ``resampled`` onto a grid along the axes, so that the direction in the header tells nothing; else the header alone
    is changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for role, path in images.items():
        image = sitk.ReadImage(str(path))
        lookup = sitk.sitkNearestNeighbor if role == "moving_labels" else sitk.sitkLinear
        moved = on_straight_grid(image, motion, lookup) if resampled else with_new_header(image, motion)
        target = (folder / f"{role}.nii.gz").absolute()
        sitk.WriteImage(moved, str(target))
        written[role] = str(target)
    return written


def with_new_header(image: sitk.Image, motion: sitk.VersorRigid3DTransform) -> sitk.Image:
    """The same voxels at the moved place."""
    moved = sitk.Image(image)
    turned = np.array(motion.GetMatrix()).reshape(3, 3) @ np.array(image.GetDirection()).reshape(3, 3)
    moved.SetOrigin(motion.TransformPoint(image.GetOrigin()))
    moved.SetDirection(turned.ravel().tolist())
    return moved


def on_straight_grid(image: sitk.Image, motion: sitk.VersorRigid3DTransform, lookup: int) -> sitk.Image:
    """The moved image on a grid along the axes around all of it, 0 where it shows nothing."""
    size, spacing = image.GetSize(), np.array(image.GetSpacing())
    corners = [
        image.TransformIndexToPhysicalPoint([(n - 1) * (k >> axis & 1) for axis, n in enumerate(size)])
        for k in range(1 << len(size))
    ]
    box = np.array([motion.TransformPoint(corner) for corner in corners])
    grid = sitk.Image((np.ceil(np.ptp(box, axis=0) / spacing) + 1).astype(int).tolist(), sitk.sitkUInt8)
    grid.SetSpacing(spacing.tolist())
    grid.SetOrigin(box.min(0).tolist())
    return sitk.Resample(image, grid, motion.GetInverse(), lookup, 0.0, image.GetPixelID())
