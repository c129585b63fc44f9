"""How well labels agree: volume and surface of each, before and after. Knows nothing of files and transforms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from semreg.core.fields import Field, Volume, warp
from semreg.core.geometry import Grid
from semreg.errors import GeometryError, ImageError
from semreg.io.bridge import LabelMap
from semreg.quality.surfaces import (
    Mask,
    average_distance,
    distances_between,
    robust_hausdorff,
    surface_dice,
    surface_of,
)

Labels: TypeAlias = npt.NDArray[np.int32]

PERCENT = 95.0
"""Of the robust Hausdorff distance."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """The agreement of two masks; see ``label_overlap``. None is what could not be measured."""

    dice: float | None = None
    hd95_mm: float | None = None
    assd_mm: float | None = None
    surface_dice: float | None = None


@dataclass(frozen=True, kw_only=True)
class MeanOverlap:
    """The agreement before and after, as a mean over labels."""

    before: Overlap
    after: Overlap


@dataclass(frozen=True, kw_only=True)
class LabelOverlap(MeanOverlap):
    """The agreement of one label."""

    label: int
    name: str


@dataclass(frozen=True, kw_only=True)
class LabelOverlaps:
    """The agreement of all labels."""

    tolerance_mm: float
    """Of the surface Dice."""
    each: tuple[LabelOverlap, ...]
    mean: MeanOverlap
    """Over the labels that are measured both before and after; of what none has before, over those after."""


def label_overlap(fixed: Mask, other: Mask, spacing: Sequence[float], tolerance_mm: float) -> Overlap:
    """The agreement of two masks on one grid.

    Args:
        fixed: (*S), bool.
        other: (*S), bool.
        spacing: in mm, in tensor order.
        tolerance_mm: surfaces that are no further apart than this agree, for ``surface_dice``.

    Returns:
        ``dice`` is 2 |A ∩ B| / (|A| + |B|) (Dice, 1945). ``hd95_mm`` is the larger 95th percentile of the distances
        between the surfaces in mm, ``assd_mm`` their mean, ``surface_dice`` the share of both surfaces that agrees
        (Nikolov et al., 2021). All are None where both masks are empty; where one is, the Dice are 0 and the distances
        None.
    """
    size = int(fixed.sum()), int(other.sum())
    if not sum(size):
        return Overlap()
    if not min(size):
        return Overlap(dice=0.0, surface_dice=0.0)
    if sum(side > 1 for side in fixed.shape) == 2 < fixed.ndim:  # a slice has an outline, no faces above and below
        spacing = [step for step, side in zip(spacing, fixed.shape, strict=True) if side > 1]
        fixed, other = fixed.squeeze(), other.squeeze()
    box = _box(fixed | other)
    fixed, other = fixed[box], other[box]
    first, second = surface_of(fixed, spacing), surface_of(other, spacing)
    there, back = distances_between(first, second, spacing), distances_between(second, first, spacing)
    return Overlap(
        dice=2 * int((fixed & other).sum()) / sum(size),
        hd95_mm=robust_hausdorff(there, back, PERCENT),
        assd_mm=average_distance(there, back),
        surface_dice=surface_dice(there, back, tolerance_mm),
    )


def brought(moving: LabelMap, field: Field | None, grid: Grid) -> Labels:
    """The numbers of the moving labels on ``grid``, the nearest through ``field``, None: as the headers say; else 0.

    A number is the place of a label in the table of its map.
    """
    numbers = moving.numbers
    if field is None:
        return _whole(numbers.on(grid, mode="nearest", outside=0.0))
    return _whole(warp(numbers, field, mode="nearest", outside=0.0))


def _whole(numbers: Volume) -> Labels:
    return np.asarray(np.rint(numbers.data[0].numpy()), dtype=np.int32)


def table_of_labels(
    fixed: LabelMap,
    moving: LabelMap,
    fields: tuple[Field | None, Field | None],
    *,
    names: Mapping[int, str] | None = None,
    tolerance_mm: float = 2.0,
    left_out: Tensor | None = None,
) -> LabelOverlaps:
    """The agreement of all labels on the fixed labels' grid, before and after the two ``fields``.

    The moving labels are read at the nearest voxel through each field (None: the identity). A label that one of the
    two maps lacks has no measures; the means are over labels that are measured both before and after, of a measure
    that none has before over those after. Voxels that are ``left_out``, (*S) bool, have no label.
    Raises GeometryError for maps of different dimension, ImageError where they have no label in common.
    """
    if fixed.grid.dimension != moving.grid.dimension:
        raise GeometryError(
            f"expected two label maps of the same dimension, got {fixed.grid.dimension}-D and "
            f"{moving.grid.dimension}-D: give those of the two images"
        )
    kept = None if left_out is None else ~left_out.numpy()
    numbers = _kept(_whole(fixed.numbers), kept)
    present = {"fixed": {fixed.labels[i] for i in np.unique(numbers)} - {0}, "moving": set(moving.labels) - {0}}
    both = sorted(present["fixed"] & present["moving"])
    if not both:
        raise ImageError(
            f"expected label maps with labels in common, got {_listed(present['fixed'])} in the fixed and "
            f"{_listed(present['moving'])} in the moving one: check that they belong to this pair"
        )
    target = _in_common(numbers, fixed, both)
    sides = []
    for field in fields:
        read = _in_common(_kept(brought(moving, field, fixed.grid), kept), moving, both)
        sides.append(dict(zip(both, _measured(target, read, len(both), fixed.grid.spacing, tolerance_mm), strict=True)))
    names = {**moving.names, **fixed.names, **(names or {})}
    before, after = sides
    each = tuple(
        LabelOverlap(
            label=label, name=names.get(label, str(label)), before=before.get(label, Overlap()),
            after=after.get(label, Overlap()),
        )
        for label in sorted(present["fixed"] | present["moving"])
    )  # fmt: skip
    return LabelOverlaps(tolerance_mm=tolerance_mm, each=each, mean=_mean(each))


def notes_on_labels(found: LabelOverlaps) -> list[str]:
    """Which labels only one of the two maps has, and which leave the fixed grid, in sentences."""
    notes = []
    if missing := [label.name for label in found.each if label.before.dice is None]:
        notes.append(f"Only one of the two label maps has: {', '.join(missing)}.")
    for side in ("before", "after"):
        sides = [(label.name, label.before if side == "before" else label.after) for label in found.each]
        lost = [name for name, overlap in sides if overlap.dice == 0 and overlap.hd95_mm is None]
        told = f"No voxel of the fixed image has these moving labels {side}, so no distance is known: "
        notes += [f"{told}{', '.join(lost)}."] if lost else []
    return notes


def _kept(labels: Labels, kept: Mask | None) -> Labels:
    return labels if kept is None else np.where(kept, labels, np.zeros((), labels.dtype))


def _measured(target: Labels, read: Labels, count: int, spacing: Sequence[float], tolerance_mm: float) -> list[Overlap]:
    """The agreement of each of the labels 1 to ``count``."""
    from scipy.ndimage import find_objects

    found = []
    boxes = zip(find_objects(target, max_label=count), find_objects(read, max_label=count), strict=True)
    for label, (near, far) in enumerate(boxes, start=1):
        there = [each for each in (near, far) if each is not None]
        box = _joined(there) if there else (slice(0, 0),) * target.ndim
        found.append(label_overlap(target[box] == label, read[box] == label, spacing, tolerance_mm))
    return found


def _in_common(numbers: Labels, labels: LabelMap, both: Sequence[int]) -> Labels:
    """Numbers of ``labels`` as places, from 1, in the list of the labels that both maps have; 0 for all others."""
    place = {label: number for number, label in enumerate(both, start=1)}
    table = np.array([place.get(label, 0) for label in labels.labels], dtype=np.int32)
    return np.asarray(table[numbers])


def _joined(boxes: Sequence[tuple[slice, ...]]) -> tuple[slice, ...]:
    return tuple(
        slice(min(part.start for part in parts), max(part.stop for part in parts)) for parts in zip(*boxes, strict=True)
    )


def _box(mask: Mask) -> tuple[slice, ...]:
    """The bounding box of what is there."""
    parts = []
    for axis in range(mask.ndim):
        there = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        parts.append(slice(int(there[0]), int(there[-1]) + 1))
    return tuple(parts)


def _mean(each: Sequence[LabelOverlap]) -> MeanOverlap:
    """The mean of each measure over the labels that have it on both sides; where none has it before, after alone."""
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    for measure in (field.name for field in fields(Overlap)):
        pairs = [(getattr(label.before, measure), getattr(label.after, measure)) for label in each]
        known = [pair for pair in pairs if None not in pair]
        if known:
            before[measure], after[measure] = (math.fsum(side) / len(known) for side in zip(*known, strict=True))
        elif alone := [second for first, second in pairs if first is None and second is not None]:
            after[measure] = math.fsum(alone) / len(alone)
    return MeanOverlap(before=Overlap(**before), after=Overlap(**after))


def _listed(labels: set[int]) -> str:
    if not labels:
        return "none"
    shown = ", ".join(map(str, sorted(labels)[:8]))
    return f"{shown}, …" if len(labels) > 8 else shown
