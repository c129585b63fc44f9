"""Still pictures of the middle slices, for reading without a script and for print. Knows nothing of the page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semreg.report.colours import FOLDED, LARGER, SMALLER, Bytes, blend, checkerboard, outlined, tinted, viridis
from semreg.report.encode import enlarged, uri
from semreg.report.planes import Plane
from semreg.report.stacks import Stacks

LONGEST = 420
"""Pixels of the longer side."""
SQUARES = 8
"""Squares of the checkerboard along the longer side."""
QUALITY = 80
TALLEST, WIDEST = 1.7, 3.0
"""How many times higher than wide, and wider than high, a frame of the viewer is at most."""
STRONGEST = 0.85
"""Opacity at the ends of the colours of the Jacobian map."""


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


def frame_of(stacks: Stacks, plane: Plane) -> tuple[float, float]:
    """Height and width in mm of the frame that the viewer gives a plane: not much longer than wide, nor wider."""
    height = stacks.shape[plane.rows] * stacks.spacing[plane.rows]
    width = stacks.shape[plane.columns] * stacks.spacing[plane.columns]
    return round(max(height, width / WIDEST), 4), round(max(width, height / TALLEST), 4)


@dataclass(frozen=True)
class Layout:
    """Where the viewer's panes lie, all in one scale: side by side, or, of a flat volume, two below each other."""

    frames: tuple[tuple[float, float], ...]
    """Height and width of each pane in mm."""

    @property
    def stacked(self) -> bool:
        """Whether the second and the third pane are together no higher than the first: then they share a column."""
        return len(self.frames) == 3 and self.frames[1][0] + self.frames[2][0] <= self.frames[0][0]

    @property
    def columns(self) -> tuple[float, ...]:
        """The width of each column in mm."""
        first, *rest = (width for _, width in self.frames)
        return (first, max(rest)) if self.stacked else (first, *rest)

    @property
    def across(self) -> float:
        """The width of all per height of the highest."""
        return round(sum(self.columns) / max(height for height, _ in self.frames), 4)

    def share(self, pane: int) -> float:
        """Which part of its column a pane is wide."""
        return round(self.frames[pane][1] / self.columns[-1], 4) if self.stacked and pane > 0 else 1.0


def cuts(stacks: Stacks, plane: Plane) -> dict[str, Bytes]:
    """The middle slices of the fixed image and of all states of the moving one at their size on the page."""
    number, size = middle(stacks, plane), size_of(stacks, plane)
    return {name: enlarged(stacks.cut(name, plane, number), size) for name in ("fixed", *stacks.moving)}


def rows_of(stacks: Stacks, planes: tuple[Plane, ...]) -> list[Row]:
    """All rows of stills of a case."""
    grey = {plane.name: cuts(stacks, plane) for plane in planes}

    def row(title: str, note: str, draw: str) -> Row:
        stills = []
        for plane in planes:
            picture = _drawn(draw, grey[plane.name], stacks, plane)
            if stacks.structure is not None:
                picture = outlined(picture, _middle_cut(stacks.structure, plane, picture.shape))
            height, width = picture.shape[:2]
            text = f"{title}, the middle {plane.name} slice" if plane.along else title
            stills.append(Still(plane, uri(picture, quality=QUALITY), width, height, text))
        return Row(title, note, tuple(stills))

    agree = "Orange: only the fixed image is bright. Blue: only the moving one. Grey: both agree."
    last, reach = stacks.states[-1], 2**stacks.jacobian.reach
    rows = [row(state.word, agree, state.key) for state in stacks.states]
    rows += [
        row(f"Checkerboard, {last.word.lower()}", "Squares of the fixed and of the moving image in turn.", "board"),
        row(
            "Displacement", f"Of the deformation alone. Dark blue: 0 mm. Yellow: {lengths_of(stacks)[1]:.3g} mm and "
            "more.", "displacement",
        ),
        row(
            "Jacobian", "Of the deformation alone. Blue: smaller in the moving image than in the fixed one, strongest "
            f"at {1 / reach:.2g}. Orange: larger, strongest at {reach:.2g}. Magenta: folded.", "jacobian",
        ),
    ]  # fmt: skip
    if stacks.uncertainty is not None:
        high = f"Dark blue: 0 mm. Yellow: {stacks.uncertainty.high:.2g} mm and more."
        rows.append(row("Uncertainty", high, "uncertainty"))
    return rows


def _drawn(draw: str, grey: dict[str, Bytes], stacks: Stacks, plane: Plane) -> Bytes:
    if draw in stacks.moving:
        return blend(grey["fixed"], grey[draw])
    if draw == "board":
        square = max(1, max(grey["fixed"].shape) // SQUARES)
        return checkerboard(grey["fixed"], grey[stacks.states[-1].key], (square, square))
    if draw == "displacement":
        lengths, high = lengths_of(stacks)
        part = plane.cut(lengths, lengths.shape[plane.across] // 2)
        levels = enlarged(np.clip(part / high * 254 + 1.5, 1, 255).astype(np.uint8), grey["fixed"].shape[:2])
        return tinted(grey["fixed"], *scale_colours(np.maximum(levels, 1)))
    chosen = stacks.uncertainty if draw == "uncertainty" and stacks.uncertainty is not None else stacks.jacobian
    levels = _middle_cut(chosen.stack, plane, grey["fixed"].shape)
    colour, opacity = jacobian_colours(levels, chosen.reach) if draw == "jacobian" else scale_colours(levels)
    return tinted(grey["fixed"], colour, opacity)


def lengths_of(stacks: Stacks) -> tuple[npt.NDArray[np.float64], float]:
    """Lengths in mm of the deformation alone on its coarse lattice (z, y, x), and where their colours end."""
    lengths = np.sqrt((stacks.vectors.astype(np.float64) ** 2).sum(0))
    return lengths, float(np.percentile(lengths, 99.5)) or 1.0


def _middle_cut(stack: Bytes, plane: Plane, size: tuple[int, ...]) -> Bytes:
    """The middle slice of a map or of labels, its voxels as squares: they are no values to mix."""
    picture = plane.cut(stack, stack.shape[plane.across] // 2)
    rows, columns = (np.arange(n) * m // n for n, m in zip(size[:2], picture.shape, strict=True))
    result: Bytes = picture[rows][:, columns]
    return result


def jacobian_colours(levels: Bytes, reach: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Colours (*S, 3) and opacities (*S) of the bytes of a Jacobian map: nothing at 1, full ``reach`` octaves off."""
    octaves = (levels.astype(np.float64) - 128) / 63.5
    folded = levels == 0
    colour = np.where(octaves[..., None] < 0, np.asarray(SMALLER, np.float64), np.asarray(LARGER, np.float64))
    colour[folded] = FOLDED
    return colour, np.where(folded, 1.0, np.clip(np.abs(octaves) / reach, 0, 1) * STRONGEST)


def scale_colours(levels: Bytes) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Colours (*S, 3) and opacities (*S) of the bytes of a map from 0 up; nothing where nothing is known."""
    return viridis()[levels].astype(np.float64), np.where(levels == 0, 0.0, 0.62)
