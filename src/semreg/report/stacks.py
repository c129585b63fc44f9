"""The pair as stacks of grey slices of bounded size: reordered, resampled, windowed. Knows nothing of pages.

Everything is brought to one *view grid*: the fixed image's box with the axes nearest to z, y, x of LPS, ascending.
A stack is (z, y, x) there, or (1, y, x) of a 2-D image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semreg.core.fields import Field, Volume, jacobian_determinant, warp
from semreg.core.geometry import AxisOrder, Grid, canonical_order, index_map, reorder
from semreg.core.sampling import pool, transform_index
from semreg.io.bridge import LabelMap
from semreg.preprocess.modality import are_hounsfield
from semreg.report.case import Case
from semreg.report.colours import Bytes

GREY_VOXELS, LABEL_VOXELS, MAP_VOXELS, VECTORS = 5_000_000, 1_500_000, 400_000, 48_000
"""Most samples of a grey stack, of labels, of a map, and of a displacement stack."""
SAMPLES = 200_000
"""Voxels that a window is found from."""
OCTAVES = 2.0
"""The Jacobian map reaches from 2^−OCTAVES to 2^OCTAVES."""


@dataclass(frozen=True)
class Window:
    """The grey values that are shown as black and as white."""

    low: float
    high: float

    def grey(self, values: Tensor) -> Bytes:
        """Values of any shape as bytes."""
        scaled = (values.float() - self.low) * (255.0 / max(self.high - self.low, 1e-12))
        result: Bytes = scaled.nan_to_num_(nan=0.0).clamp_(0, 255).add_(0.5).to(torch.uint8).numpy()
        return result


@dataclass(frozen=True)
class Map:
    """A quantity as bytes (z, y, x) from ``low`` to ``high``; 0 stands for nothing known, or for folded."""

    stack: Bytes
    low: float
    high: float
    unit: str


@dataclass(frozen=True)
class Stacks:
    """What is shown of a case."""

    grid: Grid
    """The view grid, of the dimension of the images."""
    full: tuple[int, ...]
    """Voxels of the fixed image along the axes of the view grid, of which ``shape`` may show fewer."""
    fixed: Bytes
    before: Bytes
    """The moving image where it lay before."""
    after: Bytes
    """The moving image after the registration."""
    windows: dict[str, Window]
    vectors: npt.NDArray[np.float32]
    """Displacements (3, z, y, x) in mm along the axes z, y, x of the view grid, on a coarse lattice."""
    jacobian: Map
    uncertainty: Map | None
    labels: dict[str, Bytes]
    """Labels as small numbers, 0 for none, of ``fixed``, ``before`` and ``after``; empty where there are none."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x), 1 for what is missing in 2-D."""
        return self.fixed.shape[0], self.fixed.shape[1], self.fixed.shape[2]

    @property
    def spacing(self) -> tuple[float, ...]:
        """In mm, (z, y, x)."""
        return (1.0,) * (3 - self.grid.dimension) + self.grid.spacing


def make_stacks(case: Case) -> Stacks:
    """Everything that is shown of a case, in stacks of bounded size."""
    axes = canonical_order(case.fixed.grid)
    whole = reorder(case.fixed.grid, axes)
    grid = bounded(whole, GREY_VOXELS)
    background = float(case.moving.data.amin()) if case.background is None else case.background
    windows = {"fixed": window(case.fixed.data), "moving": window(case.moving.data, background)}
    fixed = case.fixed.reordered(axes).averaged_on(grid).data
    before = _moving(case, axes, grid, case.initial, background)
    if case.warped is None:
        after = _moving(case, axes, grid, case.field, background)
    else:
        after = case.warped.reordered(axes).averaged_on(grid).data
    return Stacks(
        grid=grid,
        full=(1,) * (3 - whole.dimension) + whole.shape,
        fixed=_three(windows["fixed"].grey(fixed[0])),
        before=_three(windows["moving"].grey(before[0])),
        after=_three(windows["moving"].grey(after[0])),
        windows=windows,
        vectors=_vectors(case.field, axes),
        jacobian=_jacobian(case, axes, bounded(whole, MAP_VOXELS)),
        uncertainty=None if case.uncertainty is None else _in_mm(case.uncertainty, axes, bounded(whole, MAP_VOXELS)),
        labels=_labels(case, axes, bounded(whole, LABEL_VOXELS)),
    )


def bounded(grid: Grid, voxels: int) -> Grid:
    """The grid of the same box with at most about ``voxels`` samples: the finest axes give way first."""
    if grid.voxels <= voxels:
        return grid
    low, high = min(grid.spacing), max(grid.extent_mm)
    for _ in range(40):  # the coarsest spacing that is fine enough lies between
        middle = math.sqrt(low * high)
        low, high = (middle, high) if math.prod(_counts(grid, middle)) > voxels else (low, middle)
    counts = _counts(grid, high)
    steps = [n / m for n, m in zip(grid.shape, counts, strict=True)]
    return grid.lattice([(step - 1) / 2 for step in steps], steps, counts)


def _counts(grid: Grid, spacing: float) -> list[int]:
    extents = zip(grid.shape, grid.extent_mm, strict=True)
    return [min(n, max(1, int(extent / spacing))) for n, extent in extents]


def window(data: Tensor, background: float | None = None) -> Window:
    """The window of an image (1, *S): the 0.5th and 99.5th percentile of what is not background.

    Of CT in Hounsfield units: −1000 to 400 where much of it is lung, else −160 to 240.
    """
    flat = data.reshape(-1)
    values = flat[:: max(1, flat.numel() // SAMPLES)].double()
    values = values[torch.isfinite(values)]
    if not len(values):
        return Window(0.0, 1.0)
    if are_hounsfield(values):
        lung = float(((values > -950) & (values < -400)).double().mean())
        return Window(-1000.0, 400.0) if lung > 0.08 else Window(-160.0, 240.0)
    content = values if background is None else values[values != background]
    content = content if len(content) else values
    low, high = np.percentile(content.numpy(), (0.5, 99.5))
    return Window(float(low), float(high)) if high > low else Window(float(low), float(low) + 1.0)


def _moving(case: Case, axes: AxisOrder, grid: Grid, field: Field | None, background: float) -> Tensor:
    """The moving image on the view grid, through a field or where its header says, (1, *S)."""
    moving = case.moving
    factors = tuple(max(1, int(min(grid.spacing) / s + 0.01)) for s in moving.grid.spacing)
    if max(factors) > 1:  # finer than what is shown: means instead of single voxels
        moving = Volume(pool(moving.data, factors), moving.grid.pooled(factors))
    if field is None:
        return moving.on(grid, outside=background).data
    return warp(moving, field.reordered(axes).on(grid), outside=background).data


def _vectors(field: Field, axes: AxisOrder) -> npt.NDArray[np.float32]:
    """Displacements (3, z, y, x) in mm along the axes of the view grid; 0 along z in 2-D."""
    small = field.on(bounded(field.grid, VECTORS)).reordered(axes)  # reduced first: it is a large field to copy
    grid, vox = small.grid, small.vox.float()
    mm = vox * torch.tensor(grid.spacing, dtype=vox.dtype).reshape(-1, *[1] * grid.dimension)
    result: npt.NDArray[np.float32] = mm.nan_to_num().numpy()
    if grid.dimension == 2:
        result = np.concatenate([np.zeros_like(result[:1]), result])[:, None]
    return result


def _jacobian(case: Case, axes: AxisOrder, grid: Grid) -> Map:
    """log2 of the determinant: 0 where a voxel is folded (none is lost when reduced), 1..255 for −2..2 octaves."""
    values = jacobian_determinant(case.field)[None] if case.jacobian is None else case.jacobian.data
    volume = Volume(values.float(), case.fixed.grid).reordered(axes)
    folded = Volume((volume.data <= 0).float(), volume.grid)
    values = volume.averaged_on(grid).data
    octaves = torch.log2(values.clamp(min=2.0**-OCTAVES, max=2.0**OCTAVES))
    levels = ((octaves + OCTAVES) * (254 / (2 * OCTAVES)) + 1.5).clamp(1, 255)
    if bool(folded.data.any()):
        levels[_touched(folded, grid)] = 0
    return Map(_three(levels[0].to(torch.uint8).numpy()), -OCTAVES, OCTAVES, "octaves")


def _touched(mark: Volume, grid: Grid) -> Tensor:
    """Which samples of ``grid`` have a marked voxel of the finer ``mark`` within them, (1, *S)."""
    result = torch.zeros((1, *grid.shape), dtype=torch.bool)
    index = torch.nonzero(mark.data[0]).T.to(torch.float64)
    where = transform_index(index_map(mark.grid, grid), index).round().long()
    where = torch.minimum(where.clamp(min=0), torch.tensor(grid.shape)[:, None] - 1)
    result[0][tuple(where)] = True
    return result


def _in_mm(volume: Volume, axes: AxisOrder, grid: Grid) -> Map:
    """A map in mm: 0 where it is not known, 1..255 from 0 to its 99.5th percentile."""
    values = volume.reordered(axes).averaged_on(grid).data[0].float()
    known = torch.isfinite(values)
    finite = values[known].numpy()
    high = float(np.percentile(finite, 99.5)) if len(finite) else 1.0
    high = high if high > 0 else 1.0
    levels = (values.nan_to_num(nan=0.0, posinf=high) / high * 254 + 1.5).clamp(1, 255) * known
    return Map(_three(levels.to(torch.uint8).numpy()), 0.0, high, "mm")


def _labels(case: Case, axes: AxisOrder, grid: Grid) -> dict[str, Bytes]:
    """The labels on a grid, the nearest ones, numbered again from 1 (from 1 again after 255)."""
    maps = [labels for labels in (case.fixed_labels, case.moving_labels) if labels is not None]
    known = sorted({label for labels in maps for label in labels.labels} - {0})
    small = {0: 0} | {label: place % 255 + 1 for place, label in enumerate(known)}
    found: dict[str, tuple[LabelMap, Tensor]] = {}
    if case.fixed_labels is not None:
        numbers = case.fixed_labels.numbers
        found["fixed"] = case.fixed_labels, numbers.reordered(canonical_order(numbers.grid)).on(
            grid, mode="nearest", outside=0.0
        ).data[0]  # fmt: skip
    if case.moving_labels is not None:
        first = Field.zeros(grid) if case.initial is None else case.initial.reordered(axes).on(grid)
        for name, field in (("before", first), ("after", case.field.reordered(axes).on(grid))):
            read = warp(case.moving_labels.numbers, field, mode="nearest", outside=0.0).data[0]
            found[name] = case.moving_labels, read
    stacks: dict[str, Bytes] = {}
    for name, (labels, each) in found.items():
        table = np.array([small[label] for label in labels.labels], dtype=np.uint8)
        stacks[name] = _three(table[np.rint(each.numpy()).astype(np.int64)])
    return stacks


def _three(stack: Bytes) -> Bytes:
    """A slice of a 2-D image is a stack of one."""
    return stack if stack.ndim == 3 else stack[None]
