"""Rotation and shift between two frames of one contrast, to a small part of a voxel, by least squares of intensities.

The alignment of two images compares features at voxels and cannot tell motions below one. Here both frames are smoothed
and Gauss-Newton steps lower the squared difference, up to a factor and an offset of the intensities (Friston et al.:
Spatial registration and normalization of images. Human Brain Mapping, 1995), along the mean of both gradients
(Benhimane, Malis: Real-time image-based tracking of planes using efficient second-order minimization. IROS, 2004).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from semreg.core.fields import Volume, warp
from semreg.core.geometry import Matrix
from semreg.core.sampling import smooth
from semreg.io.bridge import field_of_transform, transform_of
from semreg.transforms.chain import voxel_points
from semreg.transforms.maps import exponential, generators, largest_move

PASSES = (12, 3)
"""Means over 3 voxels an axis that smooth the frames, first for large motions and then for exact ones."""
STEPS = 30
SETTLED = 1e-3
"""Of a voxel: a smaller step is the last one."""
LEAST_SEEN = 0.2
"""Share of the voxels of the reference that a frame must show for a step."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Realigned:
    """A rigid map and what it leaves."""

    matrix: Matrix
    """Reference → frame, homogeneous (E, E) on points in mm."""
    residual: float
    """Mean squared difference, of that of the reference's intensities from their mean."""


def realign(reference: Volume, frame: Volume, starts: Sequence[Matrix]) -> Realigned:
    """The rigid map from a reference to a frame, from the start that leads to the smallest difference.

    Args:
        reference: (1, *S).
        frame: (1, *S) in the same contrast, on any grid.
        starts: maps of points in mm to begin at, at least one.

    Returns:
        The map, and what it leaves.
    """
    coarse, fine = (_Level(reference, frame, passes) for passes in PASSES)
    found = [fine.descend(coarse.descend(start).matrix) for start in starts]
    return min(found, key=lambda each: each.residual)


class _Level:
    """Both frames at one smoothness."""

    def __init__(self, reference: Volume, frame: Volume, passes: int) -> None:
        known = torch.isfinite(reference.data)
        filled = torch.where(known, reference.data, reference.data[known].min())
        self.grid = reference.grid
        self.known = known[0].numpy()
        self.fixed = smooth(filled.double(), passes=passes)[0].numpy()
        self.moving = Volume(smooth(frame.data.double(), passes=passes).float(), frame.grid)
        self.points = voxel_points(self.grid)
        self.basis = generators("rigid", self.points.mean(1))
        self.gradient = self._gradient(self.fixed)

    def descend(self, start: Matrix) -> Realigned:
        """The map near ``start`` with the smallest difference."""
        matrix, best = start, Realigned(start, np.inf)
        for _ in range(STEPS):
            step, residual = self._look(matrix)
            if residual < best.residual:
                best = Realigned(matrix, residual)
            if step is None:
                break
            change = exponential(step, self.basis)
            matrix = np.asarray(matrix @ change)
            if largest_move(change, self.grid.corners_xyz()) < SETTLED * min(self.grid.spacing):
                residual = self._look(matrix)[1]
                return Realigned(matrix, residual) if residual <= best.residual else best
        return best

    def _look(self, matrix: Matrix) -> tuple[Array | None, float]:
        """The next step and the difference at a map; no step where too little is seen."""
        seen = warp(self.moving, field_of_transform(transform_of(matrix), self.grid), outside=torch.nan)
        values = seen.data[0].double().numpy()
        counts = np.isfinite(values) & self.known
        slopes = (self.gradient + self._gradient(np.where(np.isfinite(values), values, self.fixed))) / 2
        counts &= np.isfinite(self._gradient(values)).all(0)
        if counts.mean() < LEAST_SEEN:
            return None, np.inf
        flat = counts.ravel()
        places = np.concatenate([self.points[:, flat], np.ones((1, int(flat.sum())))])
        directions = slopes.reshape(len(slopes), -1)[:, flat]
        moved = [(directions * (generator @ places)[:-1]).sum(0) for generator in self.basis]
        fixed, moving = self.fixed[counts], values[counts]
        columns = np.stack([*moved, -fixed, -np.ones_like(fixed)], axis=1)
        found = np.linalg.lstsq(columns.T @ columns, -columns.T @ moving, rcond=None)[0]
        line = np.polyfit(fixed, moving, 1)
        off = float(((np.polyval(line, fixed) - moving) ** 2).mean() / max(line[0] ** 2 * fixed.var(), 1e-12))
        return found[:-2], off

    def _gradient(self, values: Array) -> Array:
        """The derivative along x, y(, z) per mm, (D, *S); an axis of one voxel has none."""
        n = values.ndim
        along = [np.gradient(values, axis=axis) if values.shape[axis] > 1 else 0 * values for axis in range(n)]
        index = np.stack(along).reshape(n, -1)
        return np.asarray(self.grid.point_to_index()[:n, :n].T @ index).reshape(n, *values.shape)
