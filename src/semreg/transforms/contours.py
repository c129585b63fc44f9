"""Regions drawn as closed contours in parallel planes, and where a transform brings them on the slices of an image.

A region becomes a function of space: the signed distance to its contours in each of their planes, positive inside, and
nearly linear between the planes (Raya and Udupa: Shape-based interpolation of multidimensional objects. IEEE TMI,
1990). It ends half a step beyond its last planes, so that its volume is that of its areas times their step. The
function is read at the pixels of the other image's slices, where the transform leads from there, and its zeros are the
contours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import scipy.ndimage
import scipy.spatial
import torch
from torch import Tensor

from semreg.core.geometry import Grid, Matrix
from semreg.core.sampling import sample
from semreg.errors import GeometryError
from semreg.transforms.base import Points
from semreg.transforms.chain import Chain
from semreg.transforms.domain import Outside

SAME_PLANE_MM = 0.1
"""Contours whose heights differ by less lie in one plane."""
PARALLEL = 0.02
"""Largest sine of the angle between planes that count as parallel."""
GAP = 1.5
"""A plane is missing where the next one is more steps away."""
NEAR = 3.0
"""Pixels from a contour within which distances are those to its lines; beyond, to its pixels."""
AT_ONCE = 1 << 20
"""Points that are led through a transform at once, which takes its time for each call."""
FINEST_MM, COARSEST_MM = 0.25, 1.0
"""Distance of the points at which a region is read."""
BULGE = 1 / 24
"""Of the second difference of the layers, added midway: lines between them cut off what is convex. With it volumes are
those of the areas times their step on average over the positions of the planes; a cubic would add twice as much."""
MOST_BULGE = 1 / 16
"""Of the step: where parts of a region begin or end, second differences mean nothing."""


@dataclass(frozen=True)
class Planes:
    """Contours by their planes."""

    axes: Matrix
    """(3, 3), rows: two directions in the planes and their normal."""
    heights: tuple[float, ...]
    """Of the planes along the normal in mm, ascending."""
    outlines: tuple[tuple[Points, ...], ...]
    """Of each plane its contours (2, N), in mm along the first two axes."""

    @classmethod
    def of(cls, contours: Sequence[Points]) -> Planes:
        """Those of closed contours (3, N) in mm. Raises GeometryError where they lie in no parallel planes."""
        areas = np.stack([_area_vector(points) for points in contours])
        sizes = np.linalg.norm(areas, axis=1)
        kept = sizes > 1e-9 * max(1.0, float(sizes.max()))
        if not kept.any():
            raise GeometryError("expected contours that enclose an area, got lines or points")
        normal = areas[sizes.argmax()] / sizes.max()
        normal = normal * (1.0 if normal[np.abs(normal).argmax()] > 0 else -1.0)
        tilt = np.linalg.norm(np.cross(areas[kept] / sizes[kept, None], normal), axis=1)
        if tilt.max() > PARALLEL:
            raise GeometryError(f"expected contours in parallel planes, got a tilt of {np.degrees(tilt.max()):.1f}°")
        first = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
        first /= np.linalg.norm(first)
        axes = np.stack([first, np.cross(normal, first), normal])
        flat = [axes @ points for points, keep in zip(contours, kept, strict=True) if keep]
        found: list[tuple[float, list[Points]]] = []
        for points in sorted(flat, key=lambda each: float(each[2].mean())):
            height = float(points[2].mean())
            if not found or height - found[-1][0] > SAME_PLANE_MM:
                found.append((height, []))
            found[-1][1].append(points[:2])
        return cls(axes, tuple(height for height, _ in found), tuple(tuple(each) for _, each in found))

    @property
    def step(self) -> float | None:
        """The usual distance of the planes in mm; None of a single one."""
        return float(np.median(np.diff(self.heights))) if len(self.heights) > 1 else None

    def volume(self, step: float) -> float:
        """Areas times their step, in mm³; what lies in an even number of contours does not count."""
        return step * sum(enclosed(outlines) for outlines in self.outlines)


def enclosed(outlines: Sequence[Points]) -> float:
    """The area in mm² of closed contours (2, N) of one plane: holes, which lie in another one, are taken off."""
    total = 0.0
    for number, points in enumerate(outlines):
        others = [other for i, other in enumerate(outlines) if i != number]
        depth = sum(bool(_parity(other, points[:1, :1].ravel(), points[1:, :1].ravel())[0, 0]) for other in others)
        total += abs(_area(points)) * (-1) ** depth
    return total


@dataclass(frozen=True)
class Region:
    """A region as a function of space, positive inside."""

    planes: Planes
    levels: npt.NDArray[np.float64]
    """Heights of the layers in mm."""
    corner: npt.NDArray[np.float64]
    """The first point of a layer, in mm along both axes."""
    pixel: float
    """The distance of its points in mm."""
    layers: Tensor
    """Signed distances in mm, (1, levels, second axis, first axis), float32."""

    @classmethod
    def of(cls, planes: Planes, step: float) -> Region:
        """That of contours whose planes are ``step`` mm apart where none is missing."""
        everything = np.hstack([points for each in planes.outlines for points in each])
        extent = np.ptp(everything, axis=1)
        pixel = float(np.clip(extent.max() / 300, FINEST_MM, COARSEST_MM))
        corner = everything.min(1) - (NEAR + 1) * pixel
        size = np.ceil(extent / pixel).astype(int) + 2 * int(NEAR + 1) + 1
        along = [corner[axis] + pixel * np.arange(size[axis]) for axis in range(2)]
        drawn = [_distances(outlines, along[0], along[1]) for outlines in planes.outlines]
        levels, layers = _stacked(planes.heights, drawn, step)
        return cls(planes, levels, corner, pixel, torch.from_numpy(np.stack(layers))[None])

    def at(self, points: Points) -> npt.NDArray[np.float64]:
        """The function at points (3, N) in mm."""
        u, v, height = self.planes.axes @ points
        level = np.interp(height, self.levels, np.arange(len(self.levels)))
        index = np.stack([level, (v - self.corner[1]) / self.pixel, (u - self.corner[0]) / self.pixel])
        return np.asarray(sample(self.layers, torch.from_numpy(index))[0].double().numpy())

    @property
    def hull(self) -> Points:
        """The points of its contours, and the same a layer beyond both ends, (3, N) in mm: it lies between them."""
        back = self.planes.axes.T
        found = []
        for height, outlines in zip(self.planes.heights, self.planes.outlines, strict=True):
            flat = np.hstack(outlines)
            found += [back @ np.vstack([flat, np.full((1, flat.shape[1]), height)])]
        ends = [
            (found[0], self.levels[0] - self.planes.heights[0]),
            (found[-1], self.levels[-1] - self.planes.heights[-1]),
        ]
        return np.hstack([*found, *(points + back[:, 2:] * shift for points, shift in ends)])

    def sections(self, chain: Chain, grid: Grid, outside: Outside) -> Iterator[tuple[int, tuple[Points, ...]]]:
        """The contours of the region on the slices of a grid.

        Args:
            chain: leads from the grid to the region.
            grid: in 3-D.
            outside: what points of the grid do beyond the boxes of the chain's fields.

        Yields:
            The slice, and its closed contours (3, N) in mm, LPS; holes are joined to what is around them by a line.
        """
        low, high = self._box(chain, grid, outside)
        areas = [enclosed(outlines) for outlines in self.planes.outlines]
        wanted = float(np.clip(np.sqrt(max(areas)) / 30, FINEST_MM, COARSEST_MM))
        y, x = (
            np.linspace(low[axis], high[axis], 1 + int(np.ceil((high[axis] - low[axis]) * grid.spacing[axis] / wanted)))
            for axis in (1, 2)
        )
        matrix = grid.index_to_point()
        planes = range(max(0, int(np.floor(low[0]))), min(grid.shape[0] - 1, int(np.ceil(high[0]))) + 1)
        count = max(1, AT_ONCE // (len(y) * len(x)))
        for some in (planes[start : start + count] for start in range(0, len(planes), count)):
            index = np.stack(np.meshgrid(np.array(some, dtype=np.float64), y, x, indexing="ij")).reshape(3, -1)
            points = chain.follow(matrix[:3, :3] @ index + matrix[:3, 3:], outside).points
            for plane, values in zip(some, self.at(points).reshape(len(some), len(y), len(x)), strict=True):
                if (values > 0).any():
                    yield plane, tuple(_placed(line, plane, matrix) for line in _outlines(x, y, values))

    def _box(self, chain: Chain, grid: Grid, outside: Outside) -> tuple[Points, Points]:
        """The least and the largest index of the grid that the region may reach."""
        moved = chain.inverse().follow(self.hull, outside).points
        matrix = grid.point_to_index()
        index = matrix[:3, :3] @ moved + matrix[:3, 3:]
        return index.min(1) - 2.0, index.max(1) + 2.0


def _stacked(
    heights: Sequence[float], drawn: Sequence[npt.NDArray[np.float32]], step: float
) -> tuple[npt.NDArray[np.float64], list[npt.NDArray[np.float32]]]:
    """Heights and layers: those drawn, one midway between neighbours, and an empty one where the region ends."""
    levels: list[float] = []
    layers: list[npt.NDArray[np.float32]] = []
    gaps = [np.inf, *np.diff(heights).tolist(), np.inf]
    for number, (height, layer) in enumerate(zip(heights, drawn, strict=True)):
        if gaps[number] > GAP * step:
            levels.append(height - min(step, 0.499 * gaps[number]))
            layers.append(-np.abs(layer))
        levels.append(height)
        layers.append(layer)
        if gaps[number + 1] > GAP * step:
            levels.append(height + min(step, 0.499 * gaps[number + 1]))
            layers.append(-np.abs(layer))
        else:
            following = drawn[number + 1]
            below = 2 * layer - following if gaps[number] > GAP * step else drawn[number - 1]
            above = 2 * following - layer if gaps[number + 2] > GAP * step else drawn[number + 2]
            bulge = np.clip((layer + following - below - above) * BULGE, -MOST_BULGE * step, MOST_BULGE * step)
            levels.append((height + heights[number + 1]) / 2)
            layers.append(0.5 * (layer + following) + bulge)
    return np.array(levels), layers


def _distances(outlines: Sequence[Points], x: Points, y: Points) -> npt.NDArray[np.float32]:
    """Signed distances in mm, (y, x), to closed contours (2, N), positive inside of an odd number of them."""
    pixel = float(x[1] - x[0])
    within = np.zeros((len(y), len(x)), dtype=bool)
    for points in outlines:
        within ^= _parity(points, x, y)
    inner, outer = (scipy.ndimage.distance_transform_edt(each) if each.any() else np.zeros_like(each, float)
                    for each in (within, ~within))  # fmt: skip
    pixels = np.maximum(inner, outer)
    distance = (pixels - 0.5) * pixel
    near = np.nonzero(pixels <= NEAR)
    distance[near] = _to_lines(outlines, np.stack([x[near[1]], y[near[0]]]), pixel)
    return np.asarray(np.where(within, distance, -distance), dtype=np.float32)


def _parity(points: Points, x: Points, y: Points) -> npt.NDArray[np.bool_]:
    """Which points of a lattice, (y, x), lie within a closed contour (2, N): an odd number of lines to their left."""
    start, end = points, np.roll(points, -1, axis=1)
    rows, lines = np.nonzero((start[1] <= y[:, None]) != (end[1] <= y[:, None]))
    share = (y[rows] - start[1, lines]) / (end[1, lines] - start[1, lines])
    crossing = start[0, lines] + share * (end[0, lines] - start[0, lines])
    count = np.zeros((len(y), len(x) + 1), dtype=np.int32)
    np.add.at(count, (rows, np.searchsorted(x, crossing)), 1)
    return np.asarray(np.cumsum(count, axis=1)[:, :-1] % 2 == 1)


def _to_lines(outlines: Sequence[Points], where: Points, pixel: float) -> npt.NDArray[np.float64]:
    """The distance of points (2, N) to the lines of closed contours: to those that the nearest point of them is on."""
    start = np.hstack(outlines)
    way = np.hstack([np.roll(points, -1, axis=1) - points for points in outlines])
    count = np.maximum(1, np.ceil(np.linalg.norm(way, axis=0) / (0.5 * pixel)).astype(int))
    line = np.repeat(np.arange(start.shape[1]), count)
    share = (np.arange(len(line)) - np.repeat(np.cumsum(count) - count, count)) / count[line]
    nearest = scipy.spatial.cKDTree((start[:, line] + share * way[:, line]).T).query(where.T)[1]
    best = np.full(where.shape[1], np.inf)
    for beside in (0, -1):  # at a corner the line before ends where this one starts
        chosen = line[(nearest + beside) % len(line)]
        away = where - start[:, chosen]
        length = np.maximum((way[:, chosen] ** 2).sum(0), 1e-30)
        along = np.clip((away * way[:, chosen]).sum(0) / length, 0, 1)
        best = np.minimum(best, np.linalg.norm(away - along * way[:, chosen], axis=0))
    return best


def _outlines(x: Points, y: Points, values: Points) -> Iterator[Points]:
    """The closed contours (2, N) around what is positive, holes joined by a line there and back."""
    import contourpy

    found = contourpy.contour_generator(x, y, values, fill_type="OuterOffset").filled(0.0, 1e9)
    for points, offsets in zip(*found, strict=True):
        rings = [points[a : b - 1].T for a, b in pairwise(offsets)]  # the last is the first
        outer = rings[0]
        for hole in rings[1:]:
            apart = ((outer[:, :, None] - hole[:, None, :]) ** 2).sum(0)
            here, there = np.unravel_index(int(apart.argmin()), apart.shape)
            way = np.hstack([np.roll(hole, -int(there), axis=1), hole[:, there : there + 1]])
            outer = np.hstack([outer[:, : here + 1], way, outer[:, here:]])
        if outer.shape[1] > 2:
            yield outer


def _placed(line: Points, plane: int, matrix: Matrix) -> Points:
    """A contour (2, N) of columns and rows of a slice as points (3, N) in mm."""
    index = np.stack([np.full(line.shape[1], float(plane)), line[1], line[0]])
    return np.asarray(matrix[:3, :3] @ index + matrix[:3, 3:])


def _area(points: Points) -> float:
    x, y = points
    return 0.5 * float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def _area_vector(points: Points) -> npt.NDArray[np.float64]:
    """The normal of a closed contour (3, N), as long as its area (Newell)."""
    around = points - points.mean(1, keepdims=True)
    return np.asarray(0.5 * np.cross(around.T, np.roll(around, -1, axis=1).T).sum(0))
