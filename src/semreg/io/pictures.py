"""Colour pictures as one value a pixel, and what a picture says of its pixels' size. Knows nothing of files and ITK."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from semreg.core.geometry import Grid
from semreg.io import tiff

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", *tiff.ENDINGS)
"""Formats that are pictures and not measurements in mm."""


def is_colour(components: int, kind: str) -> bool:
    """Whether so many values of SimpleITK's pixel type ``kind`` are red, green, blue (and opacity)."""
    return components in (3, 4) and ("8-bit unsigned" in kind or "16-bit unsigned" in kind)


def grey(colours: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The luminance of colours (*S, 3) or, with opacity, which is left out, (*S, 4): float32 (*S) in their range.

    0.299 red + 0.587 green + 0.114 blue (ITU-R BT.601).
    """
    return np.asarray(colours[..., :3] @ np.asarray(LUMINANCE, dtype=np.float32), dtype=np.float32)


def is_picture(name: str, grid: Grid) -> bool:
    """Whether a 2-D image is one, by the name of its file."""
    return grid.dimension == 2 and name.lower().endswith(ENDINGS)


def counts_in_pixels(grid: Grid) -> bool:
    """Whether a 2-D grid has no size of pixels: 1 mm stands for a pixel."""
    return grid.dimension == 2 and all(abs(s - 1) < 1e-6 for s in grid.spacing)


def in_pixels(grid: Grid) -> Grid:
    """The grid of a picture without the size of its pixels."""
    return Grid.of_shape(grid.shape)


def pixel_size_note(name: str, grid: Grid) -> str:
    """What is taken as the size of the pixels of a picture; empty for any other format."""
    if not name.lower().endswith(ENDINGS):
        return ""
    if all(abs(s - 1) < 1e-6 for s in grid.spacing):
        return "it has no spacing, its pixels count as 1 mm"
    spacing = " × ".join(f"{s:.4g}" for s in grid.spacing_xyz)
    return f"its pixels are {spacing} mm by the resolution it says, which may be one for printing"
