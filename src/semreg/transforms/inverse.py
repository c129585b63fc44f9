"""The inverse of a chain as a transform that can be written, and how good it is in mm. Reads and writes no files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semreg.core import consistency
from semreg.core.geometry import Grid
from semreg.errors import ConfigError, GeometryError
from semreg.io.bridge import matrix_of
from semreg.transforms.chain import Chain, Link, voxel_points
from semreg.transforms.pointwise import Distances

MOST_CHECKED = 1 << 18
"""Points at which the round trip is measured, about, at most."""


@dataclass(frozen=True)
class Quality:
    """How well an inverse on a grid does its work, in mm; all 0 for a linear transform."""

    residual_mm: float = 0.0
    """Largest error of the equation that was solved at the voxel centres of its grid."""
    round_trip_mean_mm: float = 0.0
    """Fixed → moving → fixed at points in the middle between voxel centres, where interpolation adds most: mean,"""
    round_trip_999_mm: float = 0.0
    """99.9th percentile"""
    round_trip_max_mm: float = 0.0
    """and largest distance."""
    without_origin: float = 0.0
    """Share of the voxels of the grid that nothing in the transform's own grid is moved to; they do not count above."""


@dataclass(frozen=True)
class Inverted:
    """An inverse that is made of transforms on grids and of matrices."""

    chain: Chain
    """Points of the moving image → the fixed image."""
    quality: Quality


def invert(chain: Chain, reference: Grid | None = None) -> Inverted:
    """The way back, moving → fixed. Linear transforms are inverted exactly, others numerically on a grid.

    Args:
        chain: the transform, fixed → moving.
        reference: the grid of the inverse, usually the moving image's, on which the whole becomes one field. None: all
            parts are kept, each field inverted on its own grid.

    Returns:
        The inverse, and how good it is, in mm.

    Raises:
        ConfigError: without a reference, for a part that deforms and has no grid.
        GeometryError: for a singular matrix, and a reference of another dimension.
    """
    if chain.is_linear:
        return Inverted(chain.inverse(), Quality())
    if reference is not None:
        return _on_grid(chain.inverse(), reference)
    links: list[Link] = []
    quality = Quality()
    for link in chain.inverse().links:
        if not link.inverted:
            links.append(link)
            continue
        if not link.is_field:
            raise _no_grid()
        part = _on_grid(Chain((link,)), link.field().grid)
        links += part.chain.links
        quality = _worse(quality, part.quality)
    return Inverted(Chain(tuple(links)), quality)


def _no_grid() -> ConfigError:
    return ConfigError(
        "expected a reference image, whose grid the inverse gets, as a part of the transform has none of its own: "
        "give --reference, the moving image"
    )


def _on_grid(back: Chain, grid: Grid) -> Inverted:
    """The chain ``back``, with inversions to be done, as one field on ``grid``."""
    if grid.dimension != back.dimension:
        raise GeometryError(f"expected a reference in {back.dimension}-D as the transform, got {grid.dimension}-D")
    last, before = back.links[-1], back.links[:-1]
    if last.is_field and last.inverted and all(link.is_linear for link in before):
        after = np.asarray(np.linalg.inv(matrix_of(Chain(before).affine())), dtype=np.float64) if before else None
        inverse = consistency.invert(last.field(), grid, after=after)
        field, largest, lost = inverse.field, inverse.residual.max_mm or 0.0, inverse.outside / grid.voxels
    else:
        field, residual = back.field_and_residual(grid)
        found = residual[np.isfinite(residual)]
        largest, lost = float(found.max()) if found.size else 0.0, float(np.isnan(residual).mean())
    made = Chain.of(field)
    step = max(1, round((grid.voxels / MOST_CHECKED) ** (1 / grid.dimension)))
    starts = [0.5 if n > 1 else 0.0 for n in grid.shape]
    between = voxel_points(grid.lattice(starts, [step] * grid.dimension, [max(1, (n - 1) // step) for n in grid.shape]))
    exact = back.follow(between, smooth=True)
    off: Distances = np.sqrt(((made.map(between) - exact.points) ** 2).sum(0))[np.isfinite(exact.residual)]
    quality = Quality(
        residual_mm=largest if np.isfinite(largest) else 0.0,
        round_trip_mean_mm=float(off.mean()) if off.size else 0.0,
        round_trip_999_mm=float(np.quantile(off, 0.999)) if off.size else 0.0,
        round_trip_max_mm=float(off.max()) if off.size else 0.0,
        without_origin=lost,
    )
    return Inverted(made, quality)


def _worse(a: Quality, b: Quality) -> Quality:
    """The larger one of each number."""
    return Quality(*[max(getattr(a, name), getattr(b, name)) for name in Quality.__dataclass_fields__])
