"""From an image to what a network was trained on: its axes, its voxel size, its intensities. Runs no network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from semreg.core.fields import Volume
from semreg.core.geometry import AxisOrder, Grid, canonical_order, covering_grid, oriented_order, reorder
from semreg.core.shapes import Numbers, Values
from semreg.core.sums import total
from semreg.errors import ModelContractError
from semreg.features.contract import IntensityStats, ModelSpec, Normalisation
from semreg.features.engine import Request
from semreg.features.probe import per_axis
from semreg.features.slices import slice_axis

SAME_SPACING = 0.01
"""Spacings that differ by less than this share are the same: the image is not resampled."""
PIECE = 1 << 20
"""Voxels that are squared at a time."""
PER_QUANTILE = 1 << 24
"""Voxels that percentiles are computed from at most."""


@dataclass(frozen=True)
class Frame:
    """The network's view of a grid: how its axes are reordered, the letters they then have, and its grid."""

    axes: AxisOrder
    letters: str
    grid: Grid


def frame_of(grid: Grid, spec: ModelSpec) -> Frame:
    """The axes and spacing that a network wants for an image on ``grid``. Raises ModelContractError."""
    n = grid.dimension
    if n < spec.dimension:
        raise ModelContractError(
            f"expected a {spec.dimension}-D image for {spec.name or 'the model'}, got a {n}-D one: use another model"
        )
    if spec.axes is not None and len(spec.axes) != n:
        raise ModelContractError(
            f"expected {n} letters in axes for {spec.name or 'the model'} on a {n}-D image, got {spec.axes!r}: "
            "name the order of all axes of the image, the slices in it as a 2-D model sees them"
        )
    axes = AxisOrder(tuple(range(n)), ()) if spec.axes is None else oriented_order(grid, spec.axes)
    turned = reorder(grid, axes)
    if spec.size is not None:
        return Frame(axes, letters_of(turned), _resized(turned, spec, spec.size))
    spacing = turned.spacing if spec.spacing_mm is None else _spacing(spec, turned)
    if all(abs(a / b - 1) < SAME_SPACING for a, b in zip(spacing, turned.spacing, strict=True)):
        return Frame(axes, letters_of(turned), turned)
    return Frame(axes, letters_of(turned), covering_grid(turned, turned, spacing))


def _resized(grid: Grid, spec: ModelSpec, size: tuple[int, ...]) -> Grid:
    """The box of ``grid`` in ``size`` voxels, one number or one per axis of the model; the slices across stay."""
    counts = list(per_axis(size, spec.dimension))
    if spec.dimension < grid.dimension:
        if spec.slices == "all":
            raise ModelContractError(
                f"expected one plane of slices for {spec.name or 'the model'}, whose images are resized, got 'all': "
                "set slices to axial, coronal or sagittal"
            )
        across = slice_axis(spec.slices, letters_of(grid))
        counts.insert(across, grid.shape[across])
    if tuple(counts) == grid.shape:
        return grid
    steps = [n / count for n, count in zip(grid.shape, counts, strict=True)]
    return grid.lattice([(step - 1) / 2 for step in steps], steps, counts)


def _spacing(spec: ModelSpec, grid: Grid) -> tuple[float, ...]:
    """Voxel size per tensor axis; a 2-D model's size holds in the slice, and across slices the image keeps its own."""
    wanted = spec.spacing_mm or ()
    if len(wanted) == 1 and (spec.dimension == grid.dimension or spec.slices == "all"):
        return wanted * grid.dimension
    if len(wanted) == grid.dimension:
        return wanted
    if spec.slices == "all":
        raise ModelContractError(
            f"expected one voxel size for all three planes of {spec.name or 'the model'}, got {wanted}: give one number"
        )
    across = slice_axis(spec.slices, letters_of(grid))
    inside = list(wanted * 2 if len(wanted) == 1 else wanted)
    inside.insert(across, grid.spacing[across])
    return tuple(inside)


def letters_of(grid: Grid) -> str:
    """The directions in which the tensor axes grow, as letters, each the nearest one."""
    order = canonical_order(grid)
    names = ("SPL", "IAR") if grid.dimension == 3 else ("PL", "AR")
    letters = [""] * grid.dimension
    for place, axis in enumerate(order.order):
        letters[axis] = names[place in order.flips][place]
    return "".join(letters)


def request_of(
    volume: Volume, weight: Volume | None, frame: Frame, spec: ModelSpec, reference: Numbers | None = None
) -> tuple[Request, Volume | None]:
    """The image as the network is to see it, and the weight of its voxels on the same grid.

    Excluded voxels get the smallest value of those that count. Statistics are those of ``reference`` if it is given.
    """
    share = None if weight is None else weight.reordered(frame.axes).averaged_on(frame.grid)
    data = _averaged(volume.reordered(frame.axes), weight, share, frame).data
    counted = (data if share is None else data[share.data > 0]).detach() if reference is None else reference
    if share is not None:
        data = torch.where(share.data > 0, data, counted.min())
    stats = stats_of(normalised(counted, counted, spec.normalisation))
    direction = torch.tensor(frame.grid.direction, dtype=torch.float32)
    return Request(normalised(data, counted, spec.normalisation), stats, direction), share


def _averaged(volume: Volume, weight: Volume | None, share: Volume | None, frame: Frame) -> Volume:
    """The image on the network's grid; where voxels are excluded the weighted mean, so that they do not leak in."""
    if weight is None or share is None or frame.grid == volume.grid:
        return volume.averaged_on(frame.grid)
    counts = weight.reordered(frame.axes).data
    inner = Volume(torch.where(counts > 0, volume.data, 0.0) * counts, volume.grid).averaged_on(frame.grid)
    return Volume(inner.data / torch.where(share.data > 0, share.data, 1.0), frame.grid)


def stats_of(values: Numbers) -> IntensityStats:
    """Minimum, maximum, mean and standard deviation, computed in float64."""
    values = values.detach().flatten()
    mean = total(values) / len(values)
    pieces = torch.split(values, PIECE)  # a copy of an image of 256³ voxels in float64 would take 134 MB
    variance = sum(total((piece - mean).square_()) for piece in pieces) / len(values)
    return IntensityStats(float(values.min()), float(values.max()), mean, math.sqrt(variance))


def normalised(x: Values, counted: Numbers, how: Normalisation) -> Values:
    """``x`` after normalisation with the statistics of ``counted``."""
    if how.kind == "none":
        return x
    if how.kind == "z-score":
        stats = stats_of(counted)
        return (x - stats.mean) / (stats.std or 1.0)
    if how.kind == "window":
        low, high = how.window or (0.0, 1.0)
    elif how.kind == "percentiles":
        step = -(-counted.numel() // PER_QUANTILE)
        low, high = np.percentile(counted.flatten()[::step].numpy(), how.percentiles)
    else:
        low, high = float(counted.min()), float(counted.max())
    share = ((x - float(low)) / (float(high - low) or 1.0)).clamp(0, 1)
    return share * (how.to[1] - how.to[0]) + how.to[0]
