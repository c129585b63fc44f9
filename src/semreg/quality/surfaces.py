"""Surfaces of masks and the distances between them in mm, weighted with the area of their elements. Knows no files.

Nikolov et al., Clinically applicable segmentation of head and neck anatomy for radiotherapy, J Med Internet Res 2021:
an element of the surface lies between 2 × 2 (× 2) voxels that are not all alike; its area is that of the surface
that marching cubes draws there (Lorensen and Cline 1987) through the middles of the edges.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Mask: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]
Corner: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Surface:
    """The elements of a surface."""

    index: npt.NDArray[np.intp]
    """(N, D): the element lies between the voxels ``index − 1`` and ``index`` of the mask, tensor order."""
    area: Floats
    """In mm², or mm in 2-D."""


@dataclass(frozen=True)
class Distances:
    """Of all elements of one surface to the nearest element of another, ascending."""

    mm: Floats
    area: Floats


def surface_of(mask: Mask, spacing: Sequence[float]) -> Surface:
    """The surface of a mask (*S) with ``spacing`` in mm, tensor order; closed where the mask touches the border."""
    dimension = mask.ndim
    padded = np.pad(mask, 1).view(np.uint8)
    code = np.zeros([n - 1 for n in padded.shape], np.uint8)
    for bit, corner in enumerate(itertools.product((0, 1), repeat=dimension)):
        code |= padded[tuple(slice(c, c + n) for c, n in zip(corner, code.shape, strict=True))] << np.uint8(bit)
    full = 2 ** (2**dimension) - 1
    where = np.nonzero((code != 0) & (code != full))
    area = np.asarray(element_areas(tuple(spacing)))[code[where]]
    return Surface(np.stack(where, axis=1), area)


def distances_between(first: Surface, second: Surface, spacing: Sequence[float]) -> Distances:
    """From each element of ``first`` to the nearest one of ``second`` in mm; both must have elements."""
    from scipy.spatial import cKDTree

    steps = np.asarray(spacing, dtype=np.float64)
    tree: Any = cKDTree(second.index * steps, balanced_tree=False, compact_nodes=False)
    _, nearest = tree.query(first.index * steps)
    # from whole numbers of voxels: what is 2 mm away is exactly that, and within a tolerance of 2 mm
    away = np.sqrt((((first.index - second.index[nearest]) * steps) ** 2).sum(1))
    order = np.lexsort((first.area, away))
    return Distances(away[order], first.area[order])


def robust_hausdorff(there: Distances, back: Distances, percent: float) -> float:
    """The larger one of the distances below which ``percent`` of the area of each surface lies, in mm."""
    found = []
    for each in (there, back):
        share = np.cumsum(each.area) / each.area.sum()
        found.append(float(each.mm[min(int(np.searchsorted(share, percent / 100)), len(share) - 1)]))
    return max(found)


def average_distance(there: Distances, back: Distances) -> float:
    """The mean distance over the area of both surfaces, in mm (ASSD)."""
    total = float((there.mm * there.area).sum() + (back.mm * back.area).sum())
    return total / float(there.area.sum() + back.area.sum())


def surface_dice(there: Distances, back: Distances, tolerance_mm: float) -> float:
    """The share of the area of both surfaces that is at most ``tolerance_mm`` from the other one."""
    near = sum(float(each.area[each.mm <= tolerance_mm].sum()) for each in (there, back))
    return near / float(there.area.sum() + back.area.sum())


@lru_cache(maxsize=32)
def element_areas(spacing: tuple[float, ...]) -> tuple[float, ...]:
    """The area (2-D: length) of the surface between 2^D voxels, by the code of those that belong to the mask.

    Bit b of the code is the b-th corner in the order of ``itertools.product``. 16 or 256 values in mm or mm².
    """
    corners = list(itertools.product((0, 1), repeat=len(spacing)))
    part = _length if len(spacing) == 2 else _area
    areas = []
    for code in range(2 ** len(corners)):
        inside = {corner for bit, corner in enumerate(corners) if code >> bit & 1}
        # the surface around the few is that around the many; parts that share no edge have surfaces of their own
        fewer = inside if 2 * len(inside) <= len(corners) else set(corners) - inside
        areas.append(math.fsum(part(each, spacing) for each in _connected(fewer)))
    return tuple(areas)


def _connected(corners: set[Corner]) -> list[set[Corner]]:
    """The corners in groups that hang together along edges of the cube."""
    groups: list[set[Corner]] = []
    for corner in sorted(corners):
        near = [group for group in groups if any(_edge(corner, other) is not None for other in group)]
        groups = [group for group in groups if group not in near]
        groups.append({corner}.union(*near))
    return groups


def _edge(a: Corner, b: Corner) -> int | None:
    """The axis of the edge between two corners, None if there is none."""
    differing = [axis for axis, (u, v) in enumerate(zip(a, b, strict=True)) if u != v]
    return differing[0] if len(differing) == 1 else None


def _length(group: set[Corner], spacing: Sequence[float]) -> float:
    """Of the contour around one or two corners of a square."""
    if len(group) == 1:
        return 0.5 * math.hypot(*spacing)
    first, second = sorted(group)
    return spacing[_edge(first, second) or 0]


def _area(group: set[Corner], spacing: Sequence[float]) -> float:
    """Of the surface around up to four corners of a cube that hang together, in the triangles of marching cubes."""
    faces = [math.prod(s for other, s in enumerate(spacing) if other != axis) for axis in range(3)]
    triangle = math.hypot(*faces) / 8  # around one corner
    strips = [spacing[axis] * math.hypot(*(s for o, s in enumerate(spacing) if o != axis)) / 2 for axis in range(3)]
    edges = [axis for a, b in itertools.combinations(sorted(group), 2) if (axis := _edge(a, b)) is not None]
    if not edges:
        return triangle
    if len(edges) == 1:
        return strips[edges[0]]
    flat = [axis for axis in range(3) if axis not in edges]
    if len(edges) == 2:
        return 3 * triangle + faces[flat[0]] / 2
    if len(edges) == 4:
        return faces[flat[0]]
    at_each = [sum(_edge(a, b) is not None for b in group) for a in group]
    if max(at_each) == 3:  # a corner and its three neighbours: a hexagon
        return 6 * triangle
    ends = [_edge(a, b) for a in group for b in group if sum(_edge(a, c) is not None for c in group) == 1]
    return 4 * triangle + sum(strips[axis] / 2 for axis in ends if axis is not None)
