"""The wall as users give it: a mask of the fixed image → which voxels lie inside, and points of the wall with normals.

Knows nothing of displacements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool
from scipy.ndimage import distance_transform_edt, gaussian_filter
from torch import Tensor

from semreg.core.fields import Volume, reorder_tensor
from semreg.core.geometry import AxisOrder, Grid, reorder
from semreg.core.sampling import sample
from semreg.errors import ConfigError, GeometryError
from semreg.io.bridge import LabelMap
from semreg.registration.parts.known import named

MOST = 30_000
"""Points of a wall, about."""
BLUR = 1.5
"""Voxels over which the distance to the wall is smoothed, so that its normals are not those of voxels."""


@dataclass(frozen=True)
class Wall:
    """The inside of a wall, on a grid of the fixed image."""

    inside: Bool[Tensor, "*s"]
    grid: Grid
    labels: tuple[int, ...] = (1,)
    """Those that lie inside."""

    def reordered(self, axes: AxisOrder) -> Wall:
        """The same with the axes permuted and flipped."""
        return replace(self, inside=reorder_tensor(self.inside[None], axes)[0], grid=reorder(self.grid, axes))

    def share(self, *, inner: bool) -> Volume:
        """How much of each voxel is inside, or outside: 1 or 0, (1, *S)."""
        return Volume((self.inside == inner).float()[None], self.grid)

    def as_labels(self) -> LabelMap:
        """The inside as one label, the first of its own, on the grid of the fixed image."""
        return LabelMap(self.share(inner=True), (0, self.labels[0]))

    def points(self) -> WallPoints:
        """Points of the wall: one for each pair of neighbouring voxels that it parts, moved onto the smoothed wall.

        Each stands for the area of the face between both voxels, seen along the normal: over all faces that is the area
        of the wall. Of more than about ``MOST`` some are left out.
        """
        spacing, inside = self.grid.spacing, self.inside.numpy()
        away = distance_transform_edt(~inside, sampling=spacing) - distance_transform_edt(inside, sampling=spacing)
        depth = torch.from_numpy(gaussian_filter(away, BLUR, mode="nearest"))
        slopes = np.stack(
            [np.gradient(depth.numpy(), step, axis=axis) if n > 1 else np.zeros_like(depth)
             for axis, (n, step) in enumerate(zip(inside.shape, spacing, strict=True))]
        )  # fmt: skip
        fields = torch.cat([depth[None], torch.from_numpy(slopes)])
        found, areas = [], []
        for axis, step in enumerate(spacing):
            faces = torch.from_numpy(np.argwhere(np.diff(inside, axis=axis))).T.double()
            every = -(-faces.shape[1] * inside.ndim // MOST) or 1
            faces = faces[:, ::every]
            faces[axis] += 0.5
            found.append(faces)
            areas.append(torch.full((faces.shape[1],), every * float(np.prod(spacing)) / step))
        index = torch.cat(found, 1)
        seen = sample(fields, index)
        size = torch.linalg.vector_norm(seen[1:], dim=0).clamp(min=1e-6)
        normals = seen[1:] / size
        axes = torch.cat([torch.full((faces.shape[1],), axis) for axis, faces in enumerate(found)])
        facing = normals.gather(0, axes[None])[0].abs()
        index = index - normals * (seen[0] / size).clamp(-2 * max(spacing), 2 * max(spacing)) / _column(spacing)
        return WallPoints(self.grid, index, normals, torch.cat(areas) * facing)


@dataclass(frozen=True)
class WallPoints:
    """Points of a wall."""

    grid: Grid
    """Whose voxels the points count in."""
    index: Tensor
    """Indices (D, N)."""
    normals: Tensor
    """Unit vectors along the axes of the grid, outwards, (D, N)."""
    areas: Tensor
    """What each stands for, in mm² (mm in 2-D), (N,)."""


def checked_wall(found: LabelMap, chosen: Sequence[int], grid: Grid) -> Wall:
    """The wall around all labels that slide, on the grid of the fixed image.

    Args:
        found: the labels, on any grid in the space of the fixed image; 0 is outside.
        chosen: the labels that lie inside; none: all.
        grid: that of the fixed image.

    Returns:
        What lies inside.

    Raises:
        GeometryError: for labels of another dimension, and where no voxel or every voxel of the image lies inside.
        ConfigError: for chosen labels that the map has not, and for a map without any.
    """
    if found.grid.dimension != grid.dimension:
        raise GeometryError(
            f"expected what slides in {grid.dimension}-D as the images are, got labels in {found.grid.dimension}-D"
        )
    known = [label for label in found.labels if label != 0]
    missing = sorted(set(chosen) - set(known))
    if missing or not known:
        raise ConfigError(
            f"expected labels of what slides {named(chosen) if chosen else 'above 0'}, got a label map with "
            f"{named(known)}: name labels that it has"
        )
    wanted = torch.tensor([label != 0 and label in set(chosen or known) for label in found.labels])
    inside = wanted[found.numbers.on(grid, mode="nearest", outside=0.0).data[0].long()]
    if not bool(inside.any()) or bool(inside.all()):
        raise GeometryError(
            f"expected a mask of what slides with voxels inside and outside in the box of the fixed image, "
            f"{grid.box()}, got one with {'all' if bool(inside.any()) else 'none'} of them inside: "
            f"give a mask of the fixed image"
        )
    return Wall(inside, grid, tuple(chosen or known))


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1)
