"""What a displacement does to space: its Jacobian determinant, its lengths, what it leads out of. Knows no files."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from semreg.core.consistency import Errors, inverse_consistency
from semreg.core.fields import Field, apply_linear, jacobian_determinant
from semreg.core.geometry import Grid, index_map
from semreg.core.sampling import SLAB_POINTS, base_index, inside, slabs, transform_index

PERCENTILES = ("1", "5", "50", "95", "99")
OFFSET, LEAST, MOST = 3.0, 1e-9, 1e9
"""Learn2Reg takes the logarithm of clip(det + 3, 1e-9, 1e9)."""
RIM, LOG_RIM = 1, 2
"""Layers of voxels at each face that are left out: of all statistics, as differences are one-sided there; of SDlogJ."""


def jacobian_statistics(field: Field, mask: Tensor | None = None) -> dict[str, Any]:
    """The Jacobian determinant over the voxels of ``mask`` (*S), bool; None: all. Ready for JSON.

    Central differences in voxels of the field's own grid, whose direction and spacing then do not matter; the outer
    layer of voxels, where they are one-sided, is left out. ``folded_share``: where the determinant is 0 or less.
    ``sd_log`` is SDlogJ as the evaluation of Learn2Reg computes it (Hering et al., Learn2Reg, IEEE TMI 2022, and its
    published code): the standard deviation over N of log(clip(det + 3, 1e-9, 1e9)) without the two outer layers. An
    axis that is too short to leave something keeps its layers. None where no voxel is left.
    """
    determinant = jacobian_determinant(field)
    values = _within(determinant, mask, RIM)
    if not values.size:
        return {"region": _region(mask), "voxels": 0} | dict.fromkeys(
            ("minimum", "maximum", "mean", "percentiles", "folded_share", "sd_log")
        )
    logarithm = _within(determinant, mask, LOG_RIM).astype(np.float64)
    logarithm = np.log((logarithm + OFFSET).clip(LEAST, MOST))
    percentiles = np.percentile(values, [float(name) for name in PERCENTILES])
    return {
        "minimum": float(values.min()),
        "maximum": float(values.max()),
        "mean": float(values.mean(dtype=np.float64)),
        "percentiles": {name: float(v) for name, v in zip(PERCENTILES, percentiles, strict=True)},
        "folded_share": float((values <= 0).mean()),
        "sd_log": float(logarithm.std()) if logarithm.size else None,
        "voxels": int(values.size),
        "region": _region(mask),
    }


def displacement_statistics(field: Field, mask: Tensor | None = None) -> dict[str, float | None]:
    """Length of the displacement over the voxels of ``mask`` (*S), bool, in mm: mean, median, 95 %, largest."""
    lengths = torch.empty_like(field.vox[0])
    matrix = field.grid.index_to_point()
    for part in slabs(field.grid.shape, SLAB_POINTS):
        lengths[part] = apply_linear(matrix, field.vox[:, part]).square_().sum(0).sqrt_()
    values = (lengths.flatten() if mask is None else lengths[mask]).numpy()
    if not values.size:
        return dict.fromkeys(("mean_mm", "median_mm", "p95_mm", "maximum_mm"))
    median, high = np.percentile(values, [50, 95])
    return {
        "mean_mm": float(values.mean(dtype=np.float64)),
        "median_mm": float(median),
        "p95_mm": float(high),
        "maximum_mm": float(values.max()),
    }


def share_inside(grid: Grid, field: Field | None, moving: Grid, mask: Tensor | None = None) -> float:
    """The share of the voxels of ``grid`` (of ``mask``) that come to lie inside the box of the moving image.

    ``field`` on ``grid``; None: the identity.
    """
    to_moving = index_map(grid, moving)
    found = total = 0
    like = torch.zeros(1, dtype=torch.float64)
    for part in slabs(grid.shape, SLAB_POINTS):
        if field is None:
            index = base_index((part.stop - part.start, *grid.shape[1:]), like=like)
            index[0] += part.start
        else:
            index = field.index(part)
        there = inside(transform_index(to_moving, index), moving.shape)
        counts = torch.ones_like(there) if mask is None else mask[part]
        found += int((there & counts).sum())
        total += int(counts.sum())
    return found / total


def consistency(field: Field, inverse: Field) -> dict[str, Any]:
    """How far from home a point is after both ways, in mm, ready for JSON; see ``semreg.core.consistency``."""
    return {name: _plain(errors) for name, errors in inverse_consistency(field, inverse).items()}


def _plain(errors: Errors) -> dict[str, float | int | None]:
    if not errors.points:
        return {"mean_mm": None, "p999_mm": None, "maximum_mm": None, "count": 0}
    return {
        "mean_mm": errors.mean_mm,
        "p999_mm": errors.p999_mm,
        "maximum_mm": errors.max_mm,
        "count": errors.points,
    }


def _region(mask: Tensor | None) -> str:
    return "image" if mask is None else "mask"


def _within(values: Tensor, mask: Tensor | None, rim: int) -> np.ndarray[Any, Any]:
    """The values (N,) of the mask without ``rim`` voxels at each face, of axes that are longer than both rims."""
    core = tuple(slice(rim, n - rim) if n > 2 * rim else slice(None) for n in values.shape)
    inner = values[core]
    return np.asarray((inner.flatten() if mask is None else inner[mask[core]]).numpy())
