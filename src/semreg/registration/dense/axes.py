"""Displacements along some axes alone: which these are, and what is 0 then. Knows no stage.

Axes are named by their direction, x, y, z of LPS, or as those of the fixed image's array, i, j, k with i the fastest.
It is always an axis of the fixed image that is meant: the one nearest to the direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor

from semreg.config import Axis
from semreg.core.geometry import Grid, canonical_order
from semreg.errors import ConfigError

DIRECTIONS, INDICES = "zyx", "kji"
"""In the order of the tensor axes: of a working frame, and of an image as it is stored."""


def directions_of(names: Sequence[str], fixed: Grid) -> tuple[Axis, ...]:
    """The axes of the fixed image that are named, by their direction, in the order x, y, z; ConfigError for others."""
    n = fixed.dimension
    order, letters, stored = canonical_order(fixed).order, DIRECTIONS[-n:], INDICES[-n:]
    unknown = [name for name in names if name not in letters + stored]
    if unknown:
        known = ", ".join(sorted(letters + stored))
        raise ConfigError(f"expected refine.axes of {known} for an image in {n}-D, got {unknown[0]}: leave it out")
    places = {letter: place for place, letter in enumerate(letters)}
    found = {letters[order.index(stored.index(name))] if name in stored else name for name in names}
    if found and all(fixed.shape[order[places[name]]] == 1 for name in found):
        one = ", ".join(sorted(found))
        raise ConfigError(f"expected refine.axes of several voxels in the fixed image, got {one} of one: name others")
    return tuple(cast("Axis", name) for name in sorted(found))


def free_axes(directions: Sequence[str], dimension: int) -> tuple[bool, ...]:
    """Along which tensor axes of a working frame points may move: all where no direction is named."""
    letters = DIRECTIONS[-dimension:]
    return tuple(not directions or letter in directions for letter in letters)


def free_axes_of_image(names: Sequence[str], fixed: Grid) -> tuple[bool, ...]:
    """The same for the tensor axes of the fixed image as it is stored."""
    free = free_axes(directions_of(names, fixed), fixed.dimension)
    order = canonical_order(fixed).order
    return tuple(free[order.index(axis)] for axis in range(fixed.dimension))


def restricted(vox: Tensor, directions: Sequence[str]) -> Tensor:
    """Vectors (D, …) in a working frame with 0 along all other axes; themselves where no direction is named."""
    free = free_axes(directions, len(vox))
    if all(free):
        return vox
    result = vox.clone()
    for component, may in zip(result, free, strict=True):
        if not may:
            component.zero_()
    return result
