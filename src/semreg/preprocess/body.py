"""Where an image shows something: the body without table and air in CT, the content of any other image.

Works at a coarse resolution: the answer is a region, not a segmentation, and rather too large than too small. Knows
nothing of registration.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from semreg.core.fields import Volume, reorder_tensor
from semreg.core.geometry import AxisOrder, Grid, canonical_order, reorder
from semreg.core.sampling import pool
from semreg.preprocess.modality import is_ct_like

logger = logging.getLogger("semreg")

MARGIN_MM = 10.0
"""How far the body mask reaches beyond the skin, so that the skin counts; more would let the table in."""
COARSE_MM = 4.0
"""CT is averaged to voxels of about this edge, or ``1 / FEWEST_VOXELS`` of the longest axis if that is less."""
FEWEST_VOXELS = 32
CONTENT_VOXELS = 64
"""Other images are averaged to about so many voxels along the longest axis."""
TISSUE_HU = -350.0
"""CT: above is tissue; between lung or foam and fat."""
EMPTY_HU = -950.0
"""CT: below is air; lungs are above, except for emphysema."""
PLATE_VOXELS = 1.25
"""Half the thickness, in coarse voxels, of solid parts that are taken for a table's plate."""
PAD_VOXELS = 4.5
"""The same of parts nearly as light as air, pads of foam."""
LEAST_PART = 0.01
"""A separate part, such as an arm, counts in CT from this share of the largest one; pieces of tables are smaller."""
KEPT_PART = 0.2
"""The same in other images, where ghosts are separate parts too."""
SMALL = 1e-9
LEAST_SHARE, MOST_SHARE = 0.02, 0.995
"""A mask of a smaller or larger share of the image is not believed, and everything counts."""
MOST_BETWEEN = 0.35
"""Share of the image around a threshold above which it tells no background from content."""

Mask: TypeAlias = npt.NDArray[np.bool_]


def body_mask(volume: Volume, margin_mm: float = MARGIN_MM) -> Volume:
    """The convex outline of the body in a CT image (1, *S) in HU, ``margin_mm`` wider; float32 {0, 1}, (1, *S).

    It is, in each plane across the body, that of everything that is thicker than the plate of a table or, as light as
    lung, thicker than a pad; nothing within it is left out. Where what is found cannot be a body, the log says so and
    all is 1.
    """
    coarse = _coarse(volume, min(COARSE_MM, max(volume.grid.extent_mm) / FEWEST_VOXELS))
    return _finished(_body(coarse), coarse, margin_mm)


def content_mask(volume: Volume, *, ct: bool | None = None) -> Volume:
    """Where an image (1, *S) of any modality, 2-D or 3-D, shows more than background; float32 {0, 1}, (1, *S).

    CT (``ct``; None: as its values look): the body. Else: the side of the threshold of least cross entropy (Li and Tam,
    1998) that the border of the image does not lie on, so that tissue may be brighter or darker than the background.
    All is 1 where the image has no background, as in a crop.
    """
    if is_ct_like(volume) if ct is None else ct:
        return body_mask(volume, 0.0)
    coarse = _coarse(volume, max(volume.grid.extent_mm) / CONTENT_VOXELS)
    mask = _closed(_differs_from_border(coarse.values), (2,) * coarse.values.ndim)
    return _finished(_filled(_large_parts(mask, KEPT_PART)), coarse, 0.0)


@dataclass(frozen=True)
class _Coarse:
    """An image at a coarse resolution, its axes along z, y, x (or y, x), and the way back."""

    values: npt.NDArray[np.float32]
    """(z, y, x), finite."""
    factors: tuple[int, ...]
    """Voxels of the image along each axis in one coarse voxel; fewer in the last."""
    grid: Grid
    fine: Grid
    """The grid of the image with its axes in that order."""
    stored: Grid
    """The grid of the image as it came."""
    axes: AxisOrder

    def radius(self, mm: float) -> tuple[int, ...]:
        """A distance in coarse voxels along each axis, at least one."""
        return tuple(max(1, round(mm / s)) for s in self.grid.spacing)


def _coarse(volume: Volume, edge_mm: float) -> _Coarse:
    """The image averaged to voxels of about ``edge_mm``."""
    axes = canonical_order(volume.grid)
    fine = reorder(volume.grid, axes)
    data = reorder_tensor(volume.data[:1].float(), axes)
    if not bool(torch.isfinite(data.sum())):
        finite = torch.isfinite(data)
        data = torch.where(finite, data, data[finite].min() if bool(finite.any()) else 0.0)
    factors = tuple(max(1, min(n, round(edge_mm / s))) for n, s in zip(fine.shape, fine.spacing, strict=True))
    return _Coarse(pool(data, factors)[0].numpy(), factors, fine.pooled(factors), fine, volume.grid, axes)


def _finished(mask: Mask, coarse: _Coarse, margin_mm: float) -> Volume:
    """The mask on the grid of the image, grown by the margin; all ones if it is not believed."""
    share = float(mask.mean())
    if share < LEAST_SHARE:
        logger.warning("no body is found in the image (%.1f %% of it): everything counts", 100 * share)
    if not LEAST_SHARE <= share <= MOST_SHARE:
        return Volume(torch.ones((1, *coarse.stored.shape)), coarse.stored)
    if margin_mm > 0:
        mask = _grown(mask, coarse.radius(margin_mm))
    for axis, (factor, count) in enumerate(zip(coarse.factors, coarse.fine.shape, strict=True)):
        mask = np.repeat(mask, factor, axis).take(np.arange(count), axis)
    values = reorder_tensor(torch.from_numpy(mask)[None], coarse.axes.inverse)
    return Volume(values.float().contiguous(), coarse.stored)


def _body(coarse: _Coarse) -> Mask:
    """The convex outline, plane by plane, of what is thicker than a plate or, where it is light, than a pad."""
    edge = max(coarse.grid.spacing[-2:])
    plate, pad = (coarse.radius(half * edge) for half in (PLATE_VOXELS, PAD_VOXELS))
    thick = _opened(coarse.values > TISSUE_HU, plate) | _opened(coarse.values > EMPTY_HU, pad)
    return _outlined(_large_parts(thick, LEAST_PART))


def _outlined(mask: Mask) -> Mask:
    """With all that the convex outline holds in each plane of the last two axes."""
    result = mask.copy()
    rows, columns = mask.shape[-2:]
    centres = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(-1, 2)
    planes = result.reshape(-1, rows, columns)
    for number, plane in enumerate(mask.reshape(-1, rows, columns)):
        there = np.flatnonzero(plane.any(1))
        if not len(there):
            continue
        first, last = plane[there].argmax(1), columns - 1 - plane[there, ::-1].argmax(1)
        ends = np.concatenate([np.stack([there, first], 1), np.stack([there, last], 1)])
        corners = np.concatenate([ends + half for half in ((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5))])
        from scipy.spatial import ConvexHull  # a tenth of a second that only the body mask is worth

        sides = ConvexHull(corners).equations
        planes[number] |= (centres @ sides[:, :2].T + sides[:, 2] < SMALL).all(1).reshape(rows, columns)
    return np.asarray(result)


def _differs_from_border(values: npt.NDArray[np.float32]) -> Mask:
    """The side of a threshold that most of the border, in the plane of the last two axes, does not lie on."""
    low, high = np.percentile(values, (0.5, 99.5))
    if not high > low:
        return np.ones(values.shape, dtype=bool)
    scaled = np.clip((values - low) / (high - low), 0, 1)
    edges = [scaled[..., 0, :], scaled[..., -1, :], scaled[..., 0], scaled[..., -1]]
    if np.median(np.concatenate([edge.ravel() for edge in edges])) > np.median(scaled):
        scaled = 1 - scaled  # a bright background
    threshold = _least_cross_entropy(scaled)
    between = (scaled > 0.6 * threshold) & (scaled < 1.5 * threshold)
    if between.mean() > MOST_BETWEEN:
        return np.ones(values.shape, dtype=bool)
    return np.asarray(scaled > threshold)


def _least_cross_entropy(values: npt.NDArray[np.float32]) -> float:
    """The threshold of values in 0..1 with the least cross entropy, by the iteration of Li and Tam (1998)."""
    shifted = values.ravel().astype(np.float64) + 0.02  # the logarithm of background must stay finite
    threshold = float(shifted.mean())
    for _ in range(100):
        above = shifted > threshold
        if not above.any() or above.all():
            break
        dark, bright = shifted[~above].mean(), shifted[above].mean()
        following = float((bright - dark) / (np.log(bright) - np.log(dark)))
        if abs(following - threshold) < 1e-4:
            break
        threshold = following
    return threshold - 0.02


def _large_parts(mask: Mask, share: float) -> Mask:
    """The largest connected part and those of at least this ``share`` of its size."""
    labels: npt.NDArray[np.int32] = ndimage.label(mask)[0]
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= max(1.0, share * sizes.max()))[labels])


def _filled(mask: Mask) -> Mask:
    """With all that cannot be reached from the border within a plane of the last two axes."""
    cross = ndimage.generate_binary_structure(2, 1)
    return np.asarray(ndimage.binary_fill_holes(mask, cross.reshape((1,) * (mask.ndim - 2) + cross.shape)))


def _dilated(mask: Mask, radius: tuple[int, ...]) -> Mask:
    """Grown by a box of 2 r + 1 voxels along each axis."""
    return np.asarray(ndimage.maximum_filter(mask, [2 * r + 1 for r in radius], mode="constant", cval=0))


def _eroded(mask: Mask, radius: tuple[int, ...]) -> Mask:
    """Shrunk by a box of 2 r + 1 voxels along each axis; beyond the border the mask counts as set."""
    return np.asarray(ndimage.minimum_filter(mask, [2 * r + 1 for r in radius], mode="constant", cval=1))


def _opened(mask: Mask, radius: tuple[int, ...]) -> Mask:
    """What boxes of 2 r + 1 voxels cover; beyond the border of the image everything goes on as it is there."""
    padded = np.pad(mask, [(2 * r, 2 * r) for r in radius], mode="edge")
    inner = tuple(slice(2 * r, 2 * r + n) for r, n in zip(radius, mask.shape, strict=True))
    return _dilated(_eroded(padded, radius), radius)[inner]


def _closed(mask: Mask, radius: tuple[int, ...]) -> Mask:
    """With the gaps that a box does not fit into closed; gaps to the border of the image stay."""
    padded = np.pad(mask, [(r, r) for r in radius])
    inner = tuple(slice(r, r + n) for r, n in zip(radius, mask.shape, strict=True))
    return _eroded(_dilated(padded, radius), radius)[inner]


def _grown(mask: Mask, radius: tuple[int, ...]) -> Mask:
    """Grown by about a ball: a box of half the radius and a cross of the other half."""
    half = tuple(r // 2 for r in radius)
    box = _dilated(mask, tuple(r - h for r, h in zip(radius, half, strict=True)))
    arms = (tuple(h * (a == axis) for a in range(mask.ndim)) for axis, h in enumerate(half))
    return np.asarray(np.logical_or.reduce([_dilated(box, arm) for arm in arms]))
