"""From two images as they come to two volumes ready for features: checked, masked, in one frame at one resolution.

The working frame has the fixed image's axes, reordered to lie nearest to LPS, and cubic voxels. So no result depends
on how an array was stored, and neighbourhoods of voxels have the same shape in mm in both images. Knows no features.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from semreg.core.fields import Field, Volume, warp
from semreg.core.geometry import (
    AxisOrder,
    Grid,
    Matrix,
    boxes_overlap,
    canonical_order,
    covering_grid,
    index_map,
    reorder,
)
from semreg.core.sampling import inside, transform_index
from semreg.errors import GeometryError, ImageError

logger = logging.getLogger("semreg")

CUBIC = 1.01
"""Spacings that differ by less than this ratio count as equal: the grid is used as it is."""
MOST_VOXELS = 1 << 24
"""Working voxels of the fixed image at most; a larger image is worked on at a coarser spacing."""
MOST_REFINEMENT = 4
"""Working voxels per voxel of an anisotropic image at most, or ``FEWEST_VOXELS`` if that is more."""
FEWEST_VOXELS = 1 << 18

SAMPLES = 4096
"""Voxels by which the blur of an interpolation is measured."""
LEAST_BLUR = 1e-3
"""Variance in voxels² below which a blur is none."""
LEAST_WITHIN = 0.5
"""Share of what a mask marks that must lie on its image."""


@dataclass(frozen=True)
class Prepared:
    """One image in the working frame: ``volume`` (1, *S) and, where voxels are excluded, ``weight`` (1, *S)."""

    volume: Volume
    weight: Volume | None


@dataclass(frozen=True)
class Frame:
    """The working frame: how the fixed image's axes are reordered, and the working grids of both images."""

    axes: AxisOrder
    fixed: Grid
    moving: Grid
    kept: bool = False
    """Whether the fixed image keeps its voxels: nothing is read between them."""


def shifted(frame: Frame, voxels: Sequence[int]) -> Frame:
    """The frame with lattices that begin so many voxels earlier along each axis that has more than one voxel."""

    def earlier(grid: Grid) -> Grid:
        return grid.part([-v if n > 1 else 0 for v, n in zip(voxels, grid.shape, strict=True)], grid.shape)

    return replace(frame, fixed=earlier(frame.fixed), moving=earlier(frame.moving))


def check_dimension(fixed: Grid, moving: Grid) -> None:
    """Refuse pairs of different dimension (GeometryError)."""
    if fixed.dimension != moving.dimension:
        raise GeometryError(
            f"expected two images of the same dimension, got a fixed one in {fixed.dimension}-D and a moving one in "
            f"{moving.dimension}-D: pick one slice, or stack slices, first; a 3-D image of one slice can be saved as "
            "2-D (SimpleITK: image[:, :, 0])"
        )


def check_overlap(fixed: Grid, moving: Grid) -> None:
    """Refuse pairs without overlap (GeometryError)."""
    if not boxes_overlap(fixed, moving):
        raise GeometryError(
            f"expected images that overlap in space, got a fixed image in {fixed.box()} and a moving image in "
            f"{moving.box()} (x, y, z, LPS): align them first and give the initial transform, or allow the alignment"
        )


def plan_frame(fixed: Grid, moving: Grid, spacing_mm: float | None, reach_mm: float, *, initial: bool) -> Frame:
    """The working grids. With an initial transform the moving image is brought to the fixed one's box first."""
    axes = canonical_order(fixed)
    grid = reorder(fixed, axes)
    spacing = spacing_mm if spacing_mm is not None else working_spacing(grid)
    cubic = max(grid.spacing) < CUBIC * min(grid.spacing) and abs(spacing - min(grid.spacing)) < 1e-9
    spacings = grid.spacing if cubic else (spacing,) * grid.dimension
    near = grid if cubic else covering_grid(grid, grid, spacings)
    margin = int(np.ceil(reach_mm / spacing)) + 8
    far = padded(near, margin) if initial else _within(covering_grid(grid, moving, spacings), near, margin)
    return Frame(axes, near, far, kept=cubic)


def working_spacing(grid: Grid) -> float:
    """The smallest spacing in mm, unless cubic voxels of that size would be too many."""
    volume = float(np.prod(grid.extent_mm))
    most = min(MOST_VOXELS, max(MOST_REFINEMENT * grid.voxels, FEWEST_VOXELS))
    return max(min(grid.spacing), (volume / most) ** (1 / grid.dimension)) if volume else min(grid.spacing)


def padded(grid: Grid, margin: int) -> Grid:
    """The grid with ``margin`` voxels more on every side of each axis that has more than one voxel."""
    widths = [margin if n > 1 else 0 for n in grid.shape]
    return grid.part([-w for w in widths], [n + w for n, w in zip(grid.shape, widths, strict=True)])


def _within(grid: Grid, near: Grid, margin: int) -> Grid:
    """``grid`` without what lies more than ``margin`` voxels outside ``near``; both share axes and spacing."""
    first = index_map(near, grid)[:-1, -1]
    start = [max(0, int(np.floor(f)) - margin) for f in first]
    stop = [min(n, int(np.ceil(f)) + m + margin) for f, n, m in zip(first, grid.shape, near.shape, strict=True)]
    if any(b <= a for a, b in zip(start, stop, strict=True)):
        return grid
    return grid.part(start, stop)


def clean(volume: Volume, mask: Volume | None, name: str) -> tuple[Volume, Volume | None]:
    """The image without NaN and infinities, and the weight (1, *S) of its voxels, None if all count.

    Voxels that are not finite are excluded, with a warning that counts them. Raises ImageError for an image without
    finite voxels or of one value only, and for a mask without any voxel in the image.
    """
    finite = torch.isfinite(volume.data)
    missing = volume.grid.voxels - int(finite.sum())
    weight = None
    if missing == volume.grid.voxels:
        raise ImageError(f"expected finite voxels in the {name} image, got only NaN or infinity: check the file")
    if missing:
        logger.warning("%d voxels of the %s image are NaN or infinite: they count as outside", missing, name)
        volume = Volume(torch.where(finite, volume.data, volume.data[finite].min()), volume.grid)
        weight = finite.to(volume.data.dtype)
    if mask is not None:
        if mask.grid.dimension != volume.grid.dimension or mask.data.shape[0] != 1:
            raise ImageError(f"expected a mask of the {name} image's dimension with one channel, got {mask.grid}")
        share = torch.nan_to_num(mask.on(volume.grid, outside=0.0).data).clamp(0, 1)
        weight = share if weight is None else weight * share
        if not bool((weight > 0).any()):
            raise ImageError(
                f"expected a {name} mask with voxels above 0 inside the image, got an empty one there: "
                f"the mask covers {mask.grid.box()}, the image {volume.grid.box()}"
            )
        _check_place(mask, volume.grid, name)
    counted = volume.data if weight is None else volume.data[weight > 0]
    if float(counted.max()) == float(counted.min()):
        raise ImageError(
            f"expected structure in the {name} image, got the constant {float(counted.min()):g} in all voxels "
            "that count: check the file and the mask"
        )
    return volume, None if weight is None else Volume(weight, volume.grid)


def _check_place(mask: Volume, image: Grid, name: str) -> None:
    """Refuse a mask that was drawn elsewhere (ImageError): most of it lies beside its image, which it covers in part.

    One that is empty on its image is refused elsewhere; a mask of more than the image covers it.
    """
    index = torch.nonzero(mask.data[0] > 0).T.double()
    if mask.grid == image or not index.shape[1]:
        return
    within = inside(transform_index(index_map(mask.grid, image), index), image.shape)
    share = float(within.double().mean())
    if share < LEAST_WITHIN and float(_covered(image, mask.grid)) < LEAST_WITHIN:
        raise ImageError(
            f"expected the {name} mask on the {name} image, got one of which {100 * (1 - share):.0f} % lies beside it: "
            f"the mask covers {mask.grid.box()}, the image {image.box()}; give the mask that was drawn on this image"
        )


def _covered(image: Grid, box: Grid) -> Tensor:
    """The share of the voxels of an image that lie in the box of another grid."""
    index = torch.stack(torch.meshgrid(*(torch.linspace(0, n - 1, min(n, 16)) for n in image.shape), indexing="ij"))
    return inside(transform_index(index_map(image, box), index.double()), box.shape).double().mean()


def canonical(image: tuple[Volume, Volume | None]) -> tuple[Volume, Volume | None]:
    """The image with its axes in the order nearest to LPS; a grid along the same axes is then read axis by axis."""
    axes = canonical_order(image[0].grid)
    weight = None if image[1] is None else image[1].reordered(axes)
    return image[0].reordered(axes), weight


def to_frame(volume: Volume, weight: Volume | None, target: Grid, initial: Field | None = None) -> Prepared:
    """The image on its working grid, read through ``initial`` (on that grid) if given.

    Excluded voxels take no part in the interpolation. A weight is made where the image does not fill the grid.
    """
    if weight is None and initial is None and _fills(volume.grid, target):
        return Prepared(volume.on(target), None)
    share = torch.ones_like(volume.data) if weight is None else weight.data

    def read(x: torch.Tensor) -> torch.Tensor:
        source = Volume(x, volume.grid)
        moved = source.on(target, outside=0.0) if initial is None else warp(source, initial, outside=0.0)
        return moved.data

    total = read(share)
    values = read(volume.data * share) / total.clamp(min=1e-6)
    if not bool((total > 0).any()):
        raise GeometryError(
            "expected the initial transform to bring the images together, got no overlap: "
            "check its direction, it must map points of the fixed image to the moving image"
        )
    mean = (values * (total > 0)).sum() / (total > 0).sum()
    return Prepared(Volume(torch.where(total > 0, values, mean), target), Volume(total.clamp(0, 1), target))


def interpolation_blur(frame: Frame, moving: Grid, initial: Field | Matrix | None = None) -> tuple[float, ...]:
    """By how much linear interpolation blurs the moving image alone: the variance along each axis in working voxels².

    At a share f between two voxels they count 1 − f and f: a kernel of variance f (1 − f) in voxels of the image. That
    is 0 where voxels are read as they are, and on average 1/6 where axes are turned. Where the fixed image is read
    between its voxels too, both are blurred, and there is nothing to make up for: 0. ``initial``: what the moving image
    is read through, a field on its working grid or a homogeneous matrix (E, E) on points in mm.
    """
    target = frame.moving
    if not frame.kept:
        return (0.0,) * target.dimension
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([torch.randint(n, (SAMPLES,), generator=generator) for n in target.shape])
    read, way = drawn.double(), index_map(target, moving)
    if isinstance(initial, Field):
        read = drawn + initial.vox[(slice(None), *drawn)].cpu().double()
    elif initial is not None:
        way = moving.point_to_index() @ initial @ target.index_to_point()
    share = transform_index(way, read).frac()
    variance = (share.abs() * (1 - share.abs())).mean(1).tolist()
    return tuple(v * (a / b) ** 2 for v, a, b in zip(variance, moving.spacing, target.spacing, strict=True))


def blurred(image: Prepared, variance: tuple[float, ...]) -> Prepared:
    """The image as if it too had been read between voxels, see ``interpolation_blur``; without excluded voxels."""
    if max(variance) < LEAST_BLUR:
        return image
    share = torch.ones_like(image.volume.data) if image.weight is None else image.weight.data
    total, values = share, image.volume.data * share
    for axis, amount in enumerate(variance):
        side = min(amount / 2, 1 / 3)  # the kernel side, 1 − 2 side, side has the variance 2 side
        total, values = (_with_neighbours(x, axis + 1, side) for x in (total, values))
    values = torch.where(share > 0, values / total.clamp(min=1e-6), image.volume.data)
    return Prepared(Volume(values, image.volume.grid), image.weight)


def _with_neighbours(x: torch.Tensor, axis: int, side: float) -> torch.Tensor:
    n = x.shape[axis]
    padded = torch.cat([x.narrow(axis, 0, 1), x, x.narrow(axis, n - 1, 1)], axis)
    return (1 - 2 * side) * x + side * (padded.narrow(axis, 0, n) + padded.narrow(axis, 2, n))


def _fills(source: Grid, target: Grid) -> bool:
    """Whether ``source`` has the axes of ``target`` and covers it, except for less than a voxel."""
    matrix = index_map(target, source)[:-1]
    linear = np.abs(matrix[:, :-1])
    if (np.sort(linear, 1)[:, :-1] > 1e-6 * linear.max()).any():
        return False
    ends = index_map(target, source) @ np.array([[*([-0.5] * len(matrix)), 1], [*[n - 0.5 for n in target.shape], 1]]).T
    low, high = ends[:-1].min(1), ends[:-1].max(1)
    slack = linear.max(1) + 1e-6
    return bool((low >= -0.5 - slack).all() and (high <= np.array(source.shape) - 0.5 + slack).all())
