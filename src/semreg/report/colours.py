"""Colours that everybody can tell apart: tables for maps, the sum of two images. Knows nothing of geometry.

Orange and blue of equal share add up to grey; no pair of red and green anywhere. ``VIRIDIS`` is perceptually uniform
(Smith and van der Walt, 2015, CC0), the diverging table runs from blue through nothing to orange.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = npt.NDArray[np.uint8]

ORANGE, BLUE = (255, 128, 0), (0, 127, 255)
"""Of the fixed and of the moving image where both are shown at once: the sum of the two is white."""

VIRIDIS = (
    "440154 481467 482576 453781 404688 39558c 33638d 2d718e 287d8e 238a8d 1f968b 20a386 29af7f 3dbc74 56c667 75d054 "
    "95d840 bade28 dde318 fde725"
)
SMALLER, LARGER, FOLDED = (64, 150, 255), (255, 150, 40), (255, 0, 200)
"""Of the Jacobian map: below 1, above 1, and not positive."""


def viridis() -> Bytes:
    """The table of 256 colours, (256, 3)."""
    anchors = np.array([[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in VIRIDIS.split()], dtype=np.float64)
    place = np.linspace(0, len(anchors) - 1, 256)
    columns = [np.interp(place, np.arange(len(anchors)), anchors[:, k]) for k in range(3)]
    return np.rint(np.stack(columns, 1)).astype(np.uint8)


def blend(fixed: Bytes, moving: Bytes) -> Bytes:
    """Orange where only the fixed image is bright, blue where only the moving one is, grey where they agree.

    Grey values (*S) of both → colours (*S, 3).
    """
    orange, blue = np.asarray(ORANGE) / 255, np.asarray(BLUE) / 255
    return np.rint(fixed[..., None] * orange + moving[..., None] * blue).astype(np.uint8)


def checkerboard(fixed: Bytes, moving: Bytes, square: tuple[int, int]) -> Bytes:
    """Squares of the fixed image (the first one) and of the moving image in turn; ``square``: rows, columns."""
    rows, columns = np.indices(fixed.shape)
    return np.where((rows // square[0] + columns // square[1]) % 2 == 0, fixed, moving)


def outlined(picture: Bytes, labels: Bytes) -> Bytes:
    """A picture (*S) or (*S, 3) with the outlines of labels (*S): white within them, black beside them."""
    border = np.zeros(labels.shape, dtype=bool)
    for axis in range(labels.ndim):
        change = np.diff(labels, axis=axis) != 0
        for first in (0, 1):
            border[
                tuple(slice(first, n - 1 + first) if a == axis else slice(n) for a, n in enumerate(labels.shape))
            ] |= change
    result = picture.copy()
    result[border] = np.where(labels[border] > 0, 255, 0)[(...,) + (None,) * (picture.ndim - labels.ndim)]
    return result


def tinted(grey: Bytes, colour: npt.NDArray[np.float64], opacity: npt.NDArray[np.float64]) -> Bytes:
    """Colours (*S, 3) in 0..255 over grey values (*S), each with its opacity (*S) in 0..1."""
    mixed = grey[..., None] * (1 - opacity[..., None]) + colour * opacity[..., None]
    return np.rint(np.clip(mixed, 0, 255)).astype(np.uint8)
