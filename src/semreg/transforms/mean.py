"""The mean of several maps of the same points: in shape, and in the mean position. Knows nothing of images.

Displacements cannot simply be averaged where images lie turned against each other: the mean of two rotations is a
rotation and a shrinkage. So each map is taken apart into a rigid one and what is left of it; what is left is averaged
point by point, the rotations by the one that is nearest to their mean (Moakher: Means and averaging in the group of
rotations. SIAM Journal on Matrix Analysis and Applications, 2002), and the shifts where the points have their middle.
For small rotations that is the mean of the displacements.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from semreg.core.geometry import Matrix, nearest_rotation
from semreg.transforms.maps import fit_points, linear_about, mapped

Points: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]


class MeanMap:
    """Collects where maps take points, one map after the other, and holds no more than their sum."""

    def __init__(self, points: Points, counts: Mask | None = None) -> None:
        """``points`` (D, N) in mm; ``counts`` (N,): which say how a map turns and shifts, and how far; None: all."""
        self._at = points
        self._counts = np.ones(points.shape[1], dtype=bool) if counts is None else counts
        self._middle = points[:, self._counts].mean(1)
        self._total = np.zeros_like(points)
        self._rigid: list[Matrix] = []
        self._moved = 0.0

    def add(self, moved: Points) -> None:
        """Where another map takes the points, (D, N) in mm."""
        rigid = fit_points("rigid", self._at[:, self._counts].T, moved[:, self._counts].T)
        shape = mapped(np.asarray(np.linalg.inv(rigid)), moved.T).T
        self._total += shape
        self._rigid.append(rigid)
        self._moved += float(np.linalg.norm((shape - self._at)[:, self._counts], axis=0).mean())

    @property
    def deformation_mm(self) -> float:
        """Mean length of the displacements without their rigid part."""
        return self._moved / len(self._rigid)

    def points(self) -> Points:
        """Where the mean of all maps takes the points, (D, N) in mm."""
        n = len(self._at)
        rotation = nearest_rotation(np.mean([rigid[:n, :n] for rigid in self._rigid], axis=0))
        end = np.mean([mapped(rigid, self._middle[None])[0] for rigid in self._rigid], axis=0)
        pose = linear_about(rotation, self._middle, end)
        return mapped(pose, (self._total / len(self._rigid)).T).T
