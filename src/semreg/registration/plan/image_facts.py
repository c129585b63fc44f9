"""What is seen of an image before anything is computed: its kind, its thick axis, what it shares with another one.

The kind is a guess for sentences and for what is left open; whoever knows better says so by a setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from semreg.core.fields import Volume
from semreg.core.geometry import Grid, canonical_order, index_map, reorder
from semreg.preprocess.modality import Recognised, recognise

ImageKind: TypeAlias = Literal["ct", "mask", "labels", "picture", "grey"]
"""``ct``: Hounsfield units. ``mask``: two values. ``labels``: few whole numbers in pieces. ``picture``: 8 bits in
2-D. ``grey``: anything else, MR for example."""

LOOKED_AT = 1 << 21
"""Voxels that are looked at; of a larger image a block in the middle."""
MOST_LABELS = 256
IN_PIECES = 0.8
"""Share of neighbours of the same value from which an image is in pieces; grey values differ by noise."""
PROBES = 24
"""Points an axis at which it is looked whether one box lies in the other."""


@dataclass(frozen=True)
class ImageFacts:
    """One image as far as it is known: its ``grid``, and the rest where its voxels were looked at."""

    grid: Grid
    kind: ImageKind | None = None
    recognised: Recognised | None = None
    """What it is taken for, and who says so."""

    @property
    def spacing_xyz(self) -> tuple[float, ...]:
        """Spacings in mm along the axes nearest to x, y(, z) of LPS."""
        return reorder(self.grid, canonical_order(self.grid)).spacing_xyz


def image_facts(image: Volume, recognised: Recognised | None = None) -> ImageFacts:
    """The image's grid and the guess of its kind. An image without finite voxels is ``grey``.

    ``recognised``: what the image is taken for; None: what its values look like.
    """
    known = recognise(image) if recognised is None else recognised
    return ImageFacts(image.grid, kind_of(image, ct=known.ct), known)


def kind_of(image: Volume, *, ct: bool) -> ImageKind:
    """The guess of what the values of ``image`` (1, *S) are, unless it is CT; NaN and infinities say nothing."""
    if ct:
        return "ct"
    data = _middle(image.data[0])
    finite = data[torch.isfinite(data)]
    if not finite.numel() or not bool((finite == finite.round()).all()):
        return "grey"
    values, counts = torch.unique(finite, return_counts=True)
    if len(values) == 2:
        return "mask"
    if 2 < len(values) <= MOST_LABELS and _in_pieces(data, values[counts.argmax()]):
        return "labels"
    whole_range = float(values[0]) >= 0 and 64 <= float(values[-1]) <= 255
    return "picture" if image.grid.dimension == 2 and whole_range else "grey"


def shares(fixed: Grid, moving: Grid) -> tuple[float, float]:
    """The share of the fixed image's box that lies in the moving image's one, and the other way round, 0..1."""
    return _share_inside(fixed, moving), _share_inside(moving, fixed)


def _middle(data: Tensor) -> Tensor:
    """A block in the middle of at most about ``LOOKED_AT`` voxels."""
    edge = int(LOOKED_AT ** (1 / data.ndim))
    return data[tuple(slice(max(0, (n - edge) // 2), max(0, (n - edge) // 2) + edge) for n in data.shape)]


def _in_pieces(data: Tensor, background: Tensor) -> bool:
    """Whether voxels beside each other, both off the ``background``, nearly always have one value."""
    equal = pairs = 0
    for axis, size in enumerate(data.shape):
        if size < 2:
            continue
        here, there = data.narrow(axis, 0, size - 1), data.narrow(axis, 1, size - 1)
        counted = (here != background) & (there != background)
        pairs += int(counted.sum())
        equal += int(((here == there) & counted).sum())
    return pairs > 0 and equal >= IN_PIECES * pairs


def _share_inside(grid: Grid, other: Grid) -> float:
    axes = [(np.arange(PROBES) + 0.5) / PROBES * n - 0.5 for n in grid.shape]
    index = np.stack([each.ravel() for each in np.meshgrid(*axes, indexing="ij")] + [np.ones(PROBES**grid.dimension)])
    there = (index_map(grid, other) @ index)[:-1]
    size = np.array(other.shape)[:, None]
    return float(((there >= -0.5) & (there < size - 0.5)).all(0).mean())
