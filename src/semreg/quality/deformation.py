"""What a displacement does to space: its Jacobian determinant, its lengths, what it leads out of. Knows no files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from semreg.core.consistency import Errors, inverse_consistency
from semreg.core.fields import Field, apply_linear, jacobian_determinant
from semreg.core.geometry import Grid, Matrix, index_map
from semreg.core.sampling import SLAB_POINTS, base_index, inside, slabs, transform_index

Region: TypeAlias = Literal["image", "mask"]

PERCENTILES = ("1", "5", "50", "95", "99")
OFFSET, LEAST, MOST = 3.0, 1e-9, 1e9
"""Learn2Reg takes the logarithm of clip(det + 3, 1e-9, 1e9)."""
RIM, LOG_RIM = 1, 2
"""Layers of voxels at each face that are left out: of all statistics, as differences are one-sided there; of SDlogJ."""


@dataclass(frozen=True, kw_only=True)
class JacobianStatistics:
    """Of the Jacobian determinant over the voxels that count; None where no voxel does."""

    region: Region
    """Where: in the whole image, or in the mask."""
    voxels: int
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    percentiles: dict[str, float] | None = None
    """By percent, as text."""
    folded_share: float | None = None
    """Where the determinant is 0 or less."""
    sd_log: float | None = None
    """Standard deviation of its logarithm."""


@dataclass(frozen=True, kw_only=True)
class DisplacementStatistics:
    """Of the length of the displacement over the voxels that count, in mm; None where no voxel does."""

    mean_mm: float | None = None
    median_mm: float | None = None
    p95_mm: float | None = None
    maximum_mm: float | None = None


@dataclass(frozen=True, kw_only=True)
class RoundTrip:
    """How far from home ``count`` points of one image are after both ways, in mm; None where there are none."""

    mean_mm: float | None
    p999_mm: float | None
    """99.9th percentile."""
    maximum_mm: float | None
    count: int

    @classmethod
    def of(cls, errors: Errors) -> RoundTrip:
        """Of the errors over the points of one image."""
        return cls(mean_mm=errors.mean_mm, p999_mm=errors.p999_mm, maximum_mm=errors.max_mm, count=errors.points)


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """There and back, from the points of the ``fixed`` and of the ``moving`` image."""

    fixed: RoundTrip
    moving: RoundTrip


def jacobian_statistics(field: Field, mask: Tensor | None = None, region: Region | None = None) -> JacobianStatistics:
    """The Jacobian determinant over the voxels of ``mask`` (*S), bool; None: all.

    Central differences in voxels of the field's own grid, whose direction and spacing then do not matter; the outer
    layer of voxels, where they are one-sided, is left out. ``folded_share``: where the determinant is 0 or less.
    ``sd_log`` is SDlogJ as the evaluation of Learn2Reg computes it (Hering et al., Learn2Reg, IEEE TMI 2022, and its
    published code): the standard deviation over N of log(clip(det + 3, 1e-9, 1e9)) without the two outer layers. An
    axis that is too short to leave something keeps its layers. None where no voxel is left.
    """
    determinant = jacobian_determinant(field)
    values = _within(determinant, mask, RIM)
    region = region or ("image" if mask is None else "mask")
    if not values.size:
        return JacobianStatistics(region=region, voxels=0)
    logarithm = _within(determinant, mask, LOG_RIM).astype(np.float64)
    logarithm = np.log((logarithm + OFFSET).clip(LEAST, MOST))
    percentiles = np.percentile(values, [float(name) for name in PERCENTILES])
    return JacobianStatistics(
        region=region,
        voxels=int(values.size),
        minimum=float(values.min()),
        maximum=float(values.max()),
        mean=float(values.mean(dtype=np.float64)),
        percentiles={name: float(v) for name, v in zip(PERCENTILES, percentiles, strict=True)},
        folded_share=float((values <= 0).mean()),
        sd_log=float(logarithm.std()) if logarithm.size else None,
    )


def displacement_statistics(field: Field, mask: Tensor | None = None) -> DisplacementStatistics:
    """Length of the displacement over the voxels of ``mask`` (*S), bool, in mm: mean, median, 95 %, largest."""
    lengths = torch.empty_like(field.vox[0])
    matrix = field.grid.index_to_point()
    for part in slabs(field.grid.shape, SLAB_POINTS):
        lengths[part] = apply_linear(matrix, field.vox[:, part]).square_().sum(0).sqrt_()
    values = (lengths.flatten() if mask is None else lengths[mask]).numpy()
    if not values.size:
        return DisplacementStatistics()
    mean = float(values.mean(dtype=np.float64))
    median, high = map(float, np.percentile(values, [50, 95], overwrite_input=True))  # of an image a copy is large
    return DisplacementStatistics(mean_mm=mean, median_mm=median, p95_mm=high, maximum_mm=float(values.max()))


def moved_by(field: Field, matrix: Matrix) -> Field:
    """The displacement to where a homogeneous map of points in mm brings the points that ``field`` leads to.

    Its inverse takes an affine map away that follows a deformation: what is left is the deformation alone.
    """
    place = field.grid.index_to_point()
    index = transform_index(np.asarray(np.linalg.inv(place) @ matrix @ place), field.index())
    return Field(index - base_index(field.grid.shape, like=index), field.grid)


def share_inside(grid: Grid, field: Field | None, moving: Grid, mask: Tensor | None = None) -> float:
    """The share of the voxels of ``grid`` (of ``mask``) that come to lie inside the box of the moving image.

    ``field`` on ``grid``; None: the identity.
    """
    to_moving = index_map(grid, moving)
    found = total = 0
    like = torch.zeros(1, dtype=torch.float64)
    for part in slabs(grid.shape, SLAB_POINTS):
        index = base_index(grid.shape, like=like, part=part) if field is None else field.index(part)
        there = inside(transform_index(to_moving, index), moving.shape)
        counts = torch.ones_like(there) if mask is None else mask[part]
        found += int((there & counts).sum())
        total += int(counts.sum())
    return found / total


def consistency(field: Field, inverse: Field) -> Consistency:
    """How far from home a point is after both ways; see ``semreg.core.consistency``."""
    found = inverse_consistency(field, inverse)
    return Consistency(fixed=RoundTrip.of(found["fixed"]), moving=RoundTrip.of(found["moving"]))


def _within(values: Tensor, mask: Tensor | None, rim: int) -> np.ndarray[Any, Any]:
    """The values (N,) of the mask without ``rim`` voxels at each face, of axes that are longer than both rims."""
    core = tuple(slice(rim, n - rim) if n > 2 * rim else slice(None) for n in values.shape)
    inner = values[core]
    return np.asarray((inner.flatten() if mask is None else inner[mask[core]]).numpy())
