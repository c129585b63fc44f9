"""A pair of images of one scene, the moving one turned and shifted: its transform is known exactly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch
from torch import Tensor

from conftest import rotation
from small_networks import Small, save

Array = npt.NDArray[np.float64]

ANGLES, SHIFT = (0.04, -0.03, 0.05), (4.0, -3.0, 2.0)
"""Of the rotation about the middle of the fixed image, rad, and of the translation, mm."""
GRIDS = {
    "fixed": ((36, 33, 29), (2.0, 2.2, 2.5), rotation(3)),
    "moving": ((48, 45, 40), (1.9, 2.1, 2.3), rotation(3, 21.0)),
}
"""Size, spacing (x, y, z) and direction; both have their middle at ``MIDDLE``."""
MIDDLE = (3.0, -37.0, 51.0)


@dataclass(frozen=True)
class MovedPair:
    """Where the files are, and what brings points of the fixed image to the moving one."""

    fixed: Path
    moving: Path
    truth: sitk.Euler3DTransform

    def error(self, transform: sitk.Transform) -> float:
        """Mean distance in mm between where points of the inner fixed image are brought and where they belong."""
        image = sitk.ReadImage(str(self.fixed))
        places = np.random.default_rng(4).uniform(0.25, 0.75, (50, 3)) * (np.array(image.GetSize()) - 1)
        points = [image.TransformContinuousIndexToPhysicalPoint(place) for place in places.tolist()]
        away = [np.subtract(transform.TransformPoint(p), self.truth.TransformPoint(p)) for p in points]
        return float(np.linalg.norm(away, axis=1).mean())


def write_pair(folder: Path) -> MovedPair:
    """``fixed.nii.gz`` and ``moving.nii.gz``; the moving image shows all of the fixed one and more."""
    fixed, moving = (_empty(*GRIDS[name]) for name in ("fixed", "moving"))
    truth = sitk.Euler3DTransform(MIDDLE, *ANGLES, SHIFT)
    pair = MovedPair(folder / "fixed.nii.gz", folder / "moving.nii.gz", truth)
    matrix, centre = np.reshape(truth.GetMatrix(), (3, 3)), np.array(MIDDLE)
    moved = (_points(fixed) - centre) @ matrix.T + centre + SHIFT
    _write(fixed, scene(moved), pair.fixed)
    _write(moving, scene(_points(moving)), pair.moving)
    return pair


def write_network(path: Path) -> Path:
    """A network with one layer of three channels, as a file of TorchScript."""
    return save(OneLayer(), path)


class OneLayer(Small):
    """The first layer of a small network."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """(1, 1, z, y, x) → (1, 3, z, y, x)."""
        return [torch.relu(self.first(x))]


def _empty(size: tuple[int, ...], spacing: tuple[float, ...], direction: Array) -> sitk.Image:
    image = sitk.Image(size, sitk.sitkFloat32)
    image.SetSpacing(spacing)
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin(MIDDLE - direction @ (np.subtract(size, 1) / 2 * spacing))
    return image


def _points(image: sitk.Image) -> Array:
    """The voxel centres, (z, y, x, 3), mm."""
    index = np.stack(np.meshgrid(*map(np.arange, image.GetSize()), indexing="ij"), -1).transpose(2, 1, 0, 3)
    matrix = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    return index @ matrix.T + image.GetOrigin()


def scene(points: Array) -> Array:
    """Smooth structure of 14 to 50 mm, −100 to 100 about."""
    generator = np.random.default_rng(0)
    total = np.zeros(points.shape[:-1])
    for wavelength in np.repeat(np.geomspace(14.0, 50.0, 5), 3):
        way = generator.normal(size=3)
        total += np.sin(2 * np.pi / wavelength * points @ (way / np.linalg.norm(way)) + 6 * generator.uniform())
    return 30 * total


def _write(like: sitk.Image, values: Array, path: Path) -> None:
    image = sitk.GetImageFromArray(values.astype(np.float32))
    image.CopyInformation(like)
    sitk.WriteImage(image, str(path))
