"""Still pictures of the middle slices, for reading without a script and for print. Knows nothing of the page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semreg.report.colours import FOLDED, LARGER, SMALLER, Bytes, blend, checkerboard, tinted, viridis
from semreg.report.encode import enlarged, uri
from semreg.report.planes import Plane
from semreg.report.stacks import Map, Stacks

LONGEST = 420
"""Pixels of the longer side."""
SQUARES = 8
"""Squares of the checkerboard along the longer side."""
QUALITY = 80


@dataclass(frozen=True)
class Still:
    """One picture of one plane."""

    plane: Plane
    uri: str
    width: int
    height: int
    text: str
    """What is seen, for those who do not see it."""


@dataclass(frozen=True)
class Row:
    """The same kind of picture in all planes."""

    title: str
    note: str
    stills: tuple[Still, ...]


def middle(stacks: Stacks, plane: Plane) -> int:
    """The number of the middle slice."""
    return stacks.shape[plane.across] // 2


def size_of(stacks: Stacks, plane: Plane, longest: int = LONGEST) -> tuple[int, int]:
    """Rows and columns of a picture in which a mm is as long in both directions."""
    height = stacks.shape[plane.rows] * stacks.spacing[plane.rows]
    width = stacks.shape[plane.columns] * stacks.spacing[plane.columns]
    scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def cuts(stacks: Stacks, plane: Plane) -> dict[str, Bytes]:
    """The middle slices of the three grey stacks at their size on the page."""
    number, size = middle(stacks, plane), size_of(stacks, plane)
    grey = {"fixed": stacks.fixed, "before": stacks.before, "after": stacks.after}
    return {name: enlarged(plane.cut(stack, number), size) for name, stack in grey.items()}


def rows_of(stacks: Stacks, planes: tuple[Plane, ...]) -> list[Row]:
    """All rows of stills of a case."""
    grey = {plane.name: cuts(stacks, plane) for plane in planes}

    def row(title: str, note: str, draw: str) -> Row:
        stills = []
        for plane in planes:
            picture = _drawn(draw, grey[plane.name], stacks, plane)
            height, width = picture.shape[:2]
            text = f"{title}, the middle {plane.name} slice" if plane.along else title
            stills.append(Still(plane, uri(picture, quality=QUALITY), width, height, text))
        return Row(title, note, tuple(stills))

    agree = "Orange: only the fixed image is bright. Blue: only the moving one. Grey: both agree."
    rows = [
        row("Before", agree, "before"),
        row("After", agree, "after"),
        row("Checkerboard after", "Squares of the fixed and of the moving image in turn: edges go on.", "board"),
        row(
            "Jacobian",
            "Blue: smaller in the moving image than in the fixed one. Orange: larger. Magenta: folded.",
            "jacobian",
        ),
    ]
    if stacks.uncertainty is not None:
        rows.append(row("Uncertainty", f"Dark blue: 0 mm. Yellow: {stacks.uncertainty.high:.2g} mm.", "uncertainty"))
    return rows


def _drawn(draw: str, grey: dict[str, Bytes], stacks: Stacks, plane: Plane) -> Bytes:
    if draw in ("before", "after"):
        return blend(grey["fixed"], grey[draw])
    if draw == "board":
        square = max(1, max(grey["fixed"].shape) // SQUARES)
        return checkerboard(grey["fixed"], grey["after"], (square, square))
    chosen = stacks.uncertainty if draw == "uncertainty" and stacks.uncertainty is not None else stacks.jacobian
    levels = _map_cut(chosen, plane, grey["fixed"].shape)
    colour, opacity = jacobian_colours(levels) if draw == "jacobian" else scale_colours(levels)
    return tinted(grey["fixed"], colour, opacity)


def _map_cut(chosen: Map, plane: Plane, size: tuple[int, ...]) -> Bytes:
    """The middle slice of a map, its voxels as squares: 0 is no value to mix with."""
    picture = plane.cut(chosen.stack, chosen.stack.shape[plane.across] // 2)
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, picture.shape, strict=True))
    result: Bytes = picture[rows][:, columns]
    return result


def jacobian_colours(levels: Bytes) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Colours (*S, 3) and opacities (*S) of the bytes of a Jacobian map: nothing at 1, strong at half and double."""
    octaves = (levels.astype(np.float64) - 128) / 63.5
    folded = levels == 0
    colour = np.where(octaves[..., None] < 0, np.asarray(SMALLER, np.float64), np.asarray(LARGER, np.float64))
    colour[folded] = FOLDED
    return colour, np.where(folded, 1.0, np.clip(np.abs(octaves) * 0.85, 0, 0.85))


def scale_colours(levels: Bytes) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Colours (*S, 3) and opacities (*S) of the bytes of a map from 0 up; nothing where nothing is known."""
    return viridis()[levels].astype(np.float64), np.where(levels == 0, 0.0, 0.62)
