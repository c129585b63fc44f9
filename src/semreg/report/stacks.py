"""The pair as stacks of grey slices of bounded size: reordered, resampled, windowed. Knows nothing of pages.

Everything is brought to one *view grid*: the fixed image's box with the axes nearest to z, y, x of LPS, ascending.
A stack is (z, y, x) there, or (1, y, x) of a 2-D image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semreg.core.fields import Field, Volume, warp
from semreg.core.geometry import AxisOrder, Grid, canonical_order, index_map, reorder
from semreg.core.sampling import inside, pool, transform_index
from semreg.io.bridge import LabelMap
from semreg.report.case import Case
from semreg.report.colours import Bytes
from semreg.report.motion import Motion, motion_of
from semreg.report.planes import Plane
from semreg.report.windows import Code, Window

GREY_VOXELS, LABEL_VOXELS, MAP_VOXELS, VECTORS = 5_000_000, 1_500_000, 400_000, 48_000
"""Most samples of a grey stack, of labels, of a map, and of a displacement stack."""
OCTAVES = 2.0
"""The Jacobian map reaches from 2^−OCTAVES to 2^OCTAVES."""
REACHES = (0.5, 1.0, OCTAVES)
"""Octaves at the ends of its colours: the first that 99 % of the voxels lie within."""
STILL_MM = 5e-3
"""A deformation that moves nothing by more than this is none."""


@dataclass(frozen=True)
class Map:
    """A quantity as bytes (z, y, x) from ``low`` to ``high``; 0 stands for nothing known, or for folded."""

    stack: Bytes
    low: float
    high: float
    unit: str
    reach: float = 0.0
    """Of the Jacobian map: the octaves at both ends of its colours."""


@dataclass(frozen=True)
class State:
    """One way to lay the moving image on the fixed one."""

    key: str
    """``headers``, ``start``, ``aligned`` or ``deformed``."""
    word: str
    place: Callable[[Grid], Field] | None
    """The displacement on a grid of the view; None: where the headers say."""
    covered: float
    """Share of the fixed image that lies inside the moving one, 0..1."""


@dataclass(frozen=True)
class Stacks:
    """What is shown of a case."""

    grid: Grid
    """The view grid, of the dimension of the images."""
    full: tuple[int, ...]
    """Voxels of the fixed image along the axes of the view grid, of which ``shape`` may show fewer."""
    fixed: Bytes
    """As ``codes`` has it; ``cut`` shows it in a window."""
    moving: dict[str, Bytes]
    """The same of the moving image, by the key of its state."""
    states: tuple[State, ...]
    """From where the images lay at first to where they lie in the end."""
    codes: dict[str, Code]
    """Of ``fixed`` and ``moving``."""
    motion: Motion
    vectors: npt.NDArray[np.float32]
    """Displacements (3, z, y, x) in mm along the axes z, y, x of the view grid, on a coarse lattice: those of the
    deformation alone."""
    linear: npt.NDArray[np.float64] | None
    """What follows the deformation, homogeneous, on indices (z, y, x) of the view grid; None: nothing."""
    jacobian: Map
    """Of the deformation alone."""
    uncertainty: Map | None
    labels: dict[str, Bytes]
    """Labels as small numbers, 0 for none, of ``fixed`` and of each state; empty where there are none."""

    structure: Bytes | None
    """The rigid parts as small numbers, or 1 inside of what slides, in the fixed image; 0 elsewhere."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x), 1 for what is missing in 2-D."""
        return self.fixed.shape[0], self.fixed.shape[1], self.fixed.shape[2]

    def index_of(self, point: Sequence[float]) -> tuple[float, ...]:
        """The index (z, y, x) of a point in mm, in the box of the view grid; 0 along z in 2-D."""
        index = (self.grid.point_to_index() @ [*point, 1.0])[:-1]
        inner = [min(max(float(at), 0.0), n - 1.0) for at, n in zip(index, self.grid.shape, strict=True)]
        return (*[0.0] * (3 - len(inner)), *inner)

    @property
    def spacing(self) -> tuple[float, ...]:
        """In mm, (z, y, x)."""
        return (1.0,) * (3 - self.grid.dimension) + self.grid.spacing

    @property
    def windows(self) -> dict[str, Window]:
        """In which both images are shown at first."""
        return {role: code.window for role, code in self.codes.items()}

    def cut(self, name: str, plane: Plane, number: int, window: Window | None = None) -> Bytes:
        """A slice of ``fixed``, or of the moving image in the state ``name``, in a window."""
        stack = self.fixed if name == "fixed" else self.moving[name]
        return self.codes["fixed" if name == "fixed" else "moving"].shown(plane.cut(stack, number), window)


def make_stacks(case: Case) -> Stacks:
    """Everything that is shown of a case, in stacks of bounded size."""
    axes = canonical_order(case.fixed.grid)
    whole = reorder(case.fixed.grid, axes)
    grid = bounded(whole, GREY_VOXELS)
    background = float(case.moving.data.amin()) if case.background is None else case.background
    vectors = _vectors(case, axes)
    states = _states(case, axes, bounded(grid, VECTORS), moves=float(np.abs(vectors).max()) > STILL_MM)
    moving = {}
    for state in states:
        if state.key == "deformed" and case.warped is not None:
            moving[state.key] = case.warped.reordered(axes).averaged_on(grid).data[0]
        else:
            moving[state.key] = _moving(case, grid, state, background)[0]
    codes = {
        "fixed": Code.of(case.fixed.data, ct=case.is_ct("fixed")),
        "moving": Code.of(case.moving.data, background, ct=case.is_ct("moving"), shown=moving[states[-1].key]),
    }
    motion, determinants = motion_of(case)
    map_grid = bounded(whole, MAP_VOXELS)
    return Stacks(
        grid=grid,
        full=(1,) * (3 - whole.dimension) + whole.shape,
        fixed=_three(codes["fixed"].encode(case.fixed.reordered(axes).averaged_on(grid).data[0])),
        moving={key: _three(codes["moving"].encode(values)) for key, values in moving.items()},
        states=states,
        codes=codes,
        motion=motion,
        vectors=vectors,
        linear=None if case.linear is None else _padded(case.linear_on(grid)),
        jacobian=_jacobian(determinants.reordered(axes), map_grid),
        uncertainty=None if case.uncertainty is None else _in_mm(case.uncertainty, axes, map_grid),
        labels=_labels(case, states, bounded(whole, LABEL_VOXELS)),
        structure=_structure(case, bounded(whole, LABEL_VOXELS)),
    )


def _states(case: Case, axes: AxisOrder, coarse: Grid, *, moves: bool) -> tuple[State, ...]:
    """Where the moving image lies: at first, after the alignment, after the deformation; without what changes none."""

    def placed(field: Field) -> Callable[[Grid], Field]:
        return lambda grid: field.reordered(axes).on(grid)

    found: list[tuple[str, str, Callable[[Grid], Field] | None]] = [("headers", "By headers", None)]
    if case.initial is not None:
        found = [("start", "At the start", placed(case.initial))]
    if case.linear is not None:
        found.append(("aligned", "Aligned", case.linear_field))
    if moves or case.linear is None:
        found.append(("deformed", "Deformed", placed(case.field)))
    return tuple(State(key, word, place, _covered(place, coarse, case.moving.grid)) for key, word, place in found)


def _covered(place: Callable[[Grid], Field] | None, coarse: Grid, moving: Grid) -> float:
    """Which share of the samples of ``coarse`` comes to lie inside the box of the moving image."""
    index = (Field.zeros(coarse) if place is None else place(coarse)).index().double()
    return float(inside(transform_index(index_map(coarse, moving), index), moving.shape).double().mean())


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


def _moving(case: Case, grid: Grid, state: State, background: float) -> Tensor:
    """The moving image on the view grid, in a state, (1, *S)."""
    moving = case.moving
    factors = tuple(max(1, int(min(grid.spacing) / s + 0.01)) for s in moving.grid.spacing)
    if max(factors) > 1:  # finer than what is shown: means instead of single voxels
        moving = Volume(pool(moving.data, factors), moving.grid.pooled(factors))
    if state.place is None:
        return moving.on(grid, outside=background).data
    return warp(moving, state.place(grid), outside=background).data


def _vectors(case: Case, axes: AxisOrder) -> npt.NDArray[np.float32]:
    """Displacements (3, z, y, x) in mm along the axes of the view grid, without the alignment; 0 along z in 2-D."""
    small = case.field.on(bounded(case.field.grid, VECTORS)).reordered(axes)  # reduced first: it is a large field
    grid, vox = small.grid, case.without_linear(small).vox.float()
    mm = vox * torch.tensor(grid.spacing, dtype=vox.dtype).reshape(-1, *[1] * grid.dimension)
    result: npt.NDArray[np.float32] = mm.nan_to_num().numpy()
    if grid.dimension == 2:
        result = np.concatenate([np.zeros_like(result[:1]), result])[:, None]
    return result


def _jacobian(determinants: Volume, grid: Grid) -> Map:
    """log2 of the determinant: 0 where a voxel is folded (none is lost when reduced), 1..255 for −2..2 octaves."""
    folded = Volume((determinants.data <= 0).float(), determinants.grid)
    values = determinants.averaged_on(grid).data
    octaves = torch.log2(values.clamp(min=2.0**-OCTAVES, max=2.0**OCTAVES))
    levels = ((octaves + OCTAVES) * (254 / (2 * OCTAVES)) + 1.5).clamp(1, 255)
    if bool(folded.data.any()):
        levels[_touched(folded, grid)] = 0
    most = float(np.percentile(octaves.abs().numpy(), 99))
    reach = next((each for each in REACHES if most <= each), OCTAVES)
    return Map(_three(levels[0].to(torch.uint8).numpy()), -OCTAVES, OCTAVES, "octaves", reach)


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


def _labels(case: Case, states: tuple[State, ...], grid: Grid) -> dict[str, Bytes]:
    """The labels on a grid, the nearest ones, numbered again from 1 (from 1 again after 255)."""
    maps = [labels for labels in (case.fixed_labels, case.moving_labels) if labels is not None]
    known = sorted({label for labels in maps for label in labels.labels} - {0})
    small = {0: 0} | {label: place % 255 + 1 for place, label in enumerate(known)}
    found: dict[str, tuple[LabelMap, Tensor]] = {}
    if case.fixed_labels is not None:
        found["fixed"] = case.fixed_labels, _nearest(case.fixed_labels, grid)
    if case.moving_labels is not None:
        for state in states:
            field = Field.zeros(grid) if state.place is None else state.place(grid)
            read = warp(case.moving_labels.numbers, field, mode="nearest", outside=0.0).data[0]
            found[state.key] = case.moving_labels, read
    return {name: _numbered(labels, each, small) for name, (labels, each) in found.items()}


def _structure(case: Case, grid: Grid) -> Bytes | None:
    """Those of the labels that the record names as parts or as what slides, on a grid; None: there are none."""
    record = case.registered
    if case.structure is None or record is None:
        return None
    parts = () if record.parts is None else record.parts.parts
    small = {each.label: place % 255 + 1 for place, each in enumerate(parts)}
    small |= dict.fromkeys(() if record.sliding is None else record.sliding.labels, 1)
    return _numbered(case.structure, _nearest(case.structure, grid), small) if small else None


def _nearest(labels: LabelMap, grid: Grid) -> Tensor:
    """The nearest of the labels at each sample of a grid, as their places in the table, (*S)."""
    numbers = labels.numbers.reordered(canonical_order(labels.grid))
    return numbers.on(grid, mode="nearest", outside=0.0).data[0]


def _numbered(labels: LabelMap, read: Tensor, small: Mapping[int, int]) -> Bytes:
    """The labels ``read``, places in their table, as small numbers; 0 for those without one."""
    table = np.array([small.get(label, 0) for label in labels.labels], dtype=np.uint8)
    return _three(table[np.rint(read.numpy()).astype(np.int64)])


def _padded(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A map of indices (y, x) as one of (z, y, x) that leaves z."""
    result = np.eye(4)
    result[4 - len(matrix) :, 4 - len(matrix) :] = matrix
    return result


def _three(stack: Bytes) -> Bytes:
    """A slice of a 2-D image is a stack of one."""
    return stack if stack.ndim == 3 else stack[None]
