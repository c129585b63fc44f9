"""Labels of one frame of a series carried through all others, step by step, on two ways, and how far these disagree.

From frame to frame a point goes back to the reference and on from there. Around a cycle it should come to where it was;
how far it is off is the drift, of which the steps' inverses and the reading between voxels are the cause.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid, same_lattice
from semreg.core.shapes import Values
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.io.bridge import LabelMap, sitk_transform, to_volume
from semreg.registration.motion import Motion
from semreg.transforms.labels import largest_share


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far labelled points are from where they were, after all frames."""

    way: str
    """``forth``: the next frame first; ``back``: the one before."""
    mean_mm: float
    maximum_mm: float


@dataclass(frozen=True)
class CarriedSeries:
    """Labels of all frames."""

    labels: tuple[Volume, ...]
    """(1, *S) each, the numbers of the label map."""
    apart_mm: tuple[float, ...]
    """Mean distance of what both ways say of the labelled points of each frame; 0 where only one comes by."""
    drift: tuple[Drift, ...]


def carry(labels: LabelMap, frame: int, motion: Motion) -> CarriedSeries:
    """Carry the labels of a frame through the series on both ways: around the cycle, else to the ends and back.

    Args:
        labels: on the grid of the series.
        frame: whose they are, from 0.
        motion: of the series.

    Returns:
        The labels of every frame by the shorter way, and how far the ways and their ends disagree.

    Raises:
        ConfigError: for a frame that the series does not have.
        GeometryError: for labels on another grid.
        ImageError: for labels that are none.
    """
    count, grid = len(motion.fields), motion.fields[0].grid
    check_carried(labels, frame, count, grid)
    labels = labels.at(grid)
    back = [field.inverse() for field in motion.fields]
    inside = labels.numbers.data[0] != 0
    ways = {name: _way(frame, count, step, cyclic=motion.options.cyclic) for name, step in (("forth", 1), ("back", -1))}
    visits: list[list[tuple[int, Field]]] = [[] for _ in range(count)]
    drift = []
    for name, way in ways.items():
        here = Field.zeros(grid)
        for number, (before, after) in enumerate(itertools.pairwise(way), start=1):
            here = back[after].then(motion.fields[before]).then(here)
            if number < len(way) - 1:
                visits[after].append((number, here))
        if len(way) > 1:
            off = _lengths(here)[inside]
            drift.append(Drift(way=name, mean_mm=float(off.mean()), maximum_mm=float(off.max())))
    table = torch.tensor(labels.labels, dtype=torch.float64).float()
    found, apart = [], []
    for number, seen in enumerate(visits):
        if number == frame or not seen:
            found.append(Volume(table[labels.numbers.data.long()], grid))
            apart.append(0.0)
            continue
        first = min(seen, key=lambda each: each[0])[1]
        moved = to_volume(largest_share(labels.numbers.to_sitk("int32"), grid, sitk_transform(first), 0)).data
        found.append(Volume(table[moved.long()], grid))
        apart.append(_apart([each for _, each in seen], moved[0] != 0))
    return CarriedSeries(tuple(found), tuple(apart), tuple(drift))


def check_carried(labels: LabelMap, frame: int, count: int, grid: Grid) -> None:
    """Refuse labels of no frame, on another grid than the series, or none (ConfigError, GeometryError, ImageError)."""
    if not 0 <= frame < count:
        raise ConfigError(f"expected labels of one of {count} frames, got frame {frame}")
    if not same_lattice(labels.grid, grid):
        raise GeometryError(
            f"expected labels on the grid of the series, {grid.sentence}, got {labels.grid.sentence}: resample them"
        )
    if not bool((labels.numbers.data != 0).any()):
        raise ImageError("expected labels with a number that is not 0, got none")


def _way(frame: int, count: int, step: int, *, cyclic: bool) -> list[int]:
    """The frames that are passed, from ``frame`` and back to it."""
    if cyclic:
        return [(frame + step * number) % count for number in range(count + 1)]
    out = list(range(frame, count if step > 0 else -1, step))
    return [*out, *out[-2::-1]]


def _lengths(field: Field) -> Values:
    return field.mm().square().sum(0).sqrt()


def _apart(seen: Sequence[Field], inside: Values) -> float:
    if len(seen) < 2 or not bool(inside.any()):
        return 0.0
    return float(_lengths(Field(seen[0].vox - seen[-1].vox, seen[0].grid))[inside].mean())
