"""Labels read through a transform: the one with the largest share between voxels, or each at its own place.

SimpleITK images of whole numbers. The cost does not depend on how many labels there are.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from semreg.core.geometry import Grid
from semreg.core.sampling import slabs
from semreg.io.bridge import PIECE_POINTS, grid_of_header, with_sitk_header
from semreg.transforms.chain import Chain

TIE = 1e-9
"""Shares that differ by less are equal: the sums of the same weights in another order."""


def largest_share(image: Any, grid: Grid, transform: Any, outside: float) -> Any:
    """The labels of ``image`` on ``grid``: at each point the one whose linear interpolation is largest.

    That is what ``SimpleITK.sitkLabelLinear`` computes with a pass for each label: of equal shares the smallest label
    holds, and where the image shows nothing there is ``outside``. Here the weights of the voxels around a point are
    added up by label.

    Args:
        image: SimpleITK image of whole numbers, one component.
        grid: Where the result lies.
        transform: SimpleITK transform, points of ``grid`` → points of ``image``.
        outside: The label outside of the image.

    Returns:
        SimpleITK image of the type of ``image``.
    """
    import SimpleITK as sitk

    array = sitk.GetArrayViewFromImage(image)
    direction = np.reshape(image.GetDirection(), (grid.dimension, grid.dimension))
    inverse = np.linalg.inv(direction * np.asarray(image.GetSpacing()))
    result = np.empty(grid.shape, array.dtype)
    for part in slabs(grid.shape, PIECE_POINTS):
        points = _points_after(transform, grid, part)
        index = inverse @ (points - np.asarray(image.GetOrigin())[:, None])
        result[part] = _largest(array, index[::-1], outside).reshape(result[part].shape)
    return with_sitk_header(sitk.GetImageFromArray(result), grid)


def _points_after(transform: Any, grid: Grid, part: slice) -> npt.NDArray[np.float64]:
    """The points (D, N) in mm to which the voxel centres of a slab lead."""
    import SimpleITK as sitk

    start = grid.index_to_point()[:-1] @ np.array([part.start, *[0] * (grid.dimension - 1), 1])
    size = (*grid.size_xyz[:-1], part.stop - part.start)
    direction = [value for row in grid.direction for value in row]
    moved = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, size, start.tolist(), grid.spacing_xyz, direction
    )
    index = np.indices(size[::-1]).reshape(grid.dimension, -1)
    points = grid.index_to_point()[:-1, :-1] @ index + start[:, None]
    return np.asarray(points + sitk.GetArrayViewFromImage(moved).reshape(-1, grid.dimension).T)


def _largest(array: npt.NDArray[Any], index: npt.NDArray[np.float64], outside: float) -> npt.NDArray[Any]:
    """The label with the largest share at each fractional index (D, N) in the order of the array."""
    last = np.array(array.shape)[:, None] - 1
    near = np.rint(index)
    index = np.where(np.abs(index - near) < TIE, near, index)  # a point on a voxel is that voxel
    inside = ((index >= -0.5) & (index < last + 0.5)).all(0)
    found = np.full(index.shape[1], int(outside), array.dtype)
    index = np.clip(index[:, inside], 0, last)
    low = np.floor(index).astype(np.int64)
    high, part = np.minimum(low + 1, last), index - low
    corners = list(itertools.product((0, 1), repeat=len(low)))
    labels = np.stack([array[tuple(np.where(np.array(c)[:, None], high, low))] for c in corners])
    best = labels[0].copy()
    mixed = np.flatnonzero((labels != labels[0]).any(0))
    labels, part = labels[:, mixed], part[:, mixed]
    weights = np.stack([np.prod(np.where(np.array(c)[:, None], part, 1 - part), axis=0) for c in corners])
    most = np.zeros(len(mixed))
    for label in labels:
        share = np.where(labels == label, weights, 0.0).sum(0)
        better = (share > most + TIE) | ((share > most - TIE) & (label < best[mixed]))
        best[mixed[better]], most[better] = label[better], share[better]
    found[inside] = best
    return found


def staple(stack: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The labels that several maps estimate together, each by its performance, which is estimated with them.

    Rohlfing, Russakoff, Maurer: Performance-based classifier combination in atlas-based image segmentation using
    expectation-maximization parameter estimation. IEEE TMI, 2004; the filter of ITK.

    Args:
        stack: labels of each map, whole numbers from 0 below 2^16 − 1, (K, *S).

    Returns:
        Labels (*S), −1 where it cannot decide.
    """
    import SimpleITK as sitk

    none = int(stack.max()) + 1
    images = [sitk.GetImageFromArray(layer.astype(np.uint16)) for layer in stack]
    found = sitk.GetArrayFromImage(sitk.MultiLabelSTAPLE(images, none)).astype(np.int64)
    return np.where(found == none, -1, found)


def at_points(image: Any, grid: Grid, chain: Chain) -> Any:
    """The labels of ``image`` on ``grid``, each at the one voxel where its centre comes to lie.

    For labels that mark points: read as areas, those of few voxels vanish. ``chain`` leads from ``grid`` to the image;
    of several labels at a voxel the largest holds.
    """
    import SimpleITK as sitk

    array = sitk.GetArrayViewFromImage(image)
    own = grid_of_header(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    where = np.nonzero(array)
    labels, number = np.unique(array[where], return_inverse=True)
    result = np.zeros(grid.shape, array.dtype)
    if len(labels):
        count = np.bincount(number)
        centre = np.stack([np.bincount(number, weights=axis) / count for axis in where])
        points = own.index_to_point()[:-1] @ np.vstack([centre, np.ones(len(labels))])
        moved = chain.inverse().map(points)
        index = np.floor(grid.point_to_index()[:-1] @ np.vstack([moved, np.ones(len(labels))]) + 0.5).astype(np.int64)
        there = ((index >= 0) & (index < np.array(grid.shape)[:, None])).all(0)
        result[tuple(index[:, there])] = labels[there]
    return with_sitk_header(sitk.GetImageFromArray(result), grid)
