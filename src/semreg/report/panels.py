"""Panels of a figure: slices of chosen planes side by side in one scale, with letters, bars and words.

matplotlib is imported here alone, without its global state.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from semreg.report.colours import Bytes
from semreg.report.planes import Plane
from semreg.report.stacks import Stacks
from semreg.report.windows import Window

WIDTH_IN = 7.0
"""Of two columns of a journal, in inches."""
FONT_PT = 8
LEFT_IN, GAP_IN, TALLEST_IN = 0.2, 0.06, 5.0
"""Room at the left, between panels, and the height of the tallest panel at most, in inches."""
BAR_IN, BAR_WIDTH_IN = 0.62, 4.5
"""Height of a colour bar with its words and width of a figure that has one at least, in inches."""


@dataclass(frozen=True)
class View:
    """What is looked at: which planes of the stacks, where, and in which windows."""

    stacks: Stacks
    planes: tuple[Plane, ...]
    index: tuple[int, ...]
    """The place where the planes meet, (z, y, x)."""
    windows: dict[str, Window]
    """Of ``fixed`` and ``moving``."""

    @property
    def last(self) -> str:
        """The state of the moving image in the end."""
        return self.stacks.states[-1].key

    def cut(self, name: str, plane: Plane) -> Bytes:
        """The slice of the fixed image, or of the moving one in a state."""
        window = self.windows["fixed" if name == "fixed" else "moving"]
        return self.stacks.cut(name, plane, self.index[plane.across], window)

    def within(self, stack: npt.NDArray[Any], plane: Plane) -> npt.NDArray[Any]:
        """The slice of a stack of fewer samples."""
        depth = stack.shape[plane.across]
        place = (self.index[plane.across] + 0.5) * depth / self.stacks.shape[plane.across]
        return plane.cut(stack, min(depth - 1, int(place)))

    def mm(self, axis: int) -> float:
        """How long the stacks are along an axis."""
        return float(self.stacks.shape[axis] * self.stacks.spacing[axis])


def save(figure: Any, path: Path, dpi: int) -> None:
    """Write a figure as PNG."""
    figure.savefig(path, format="png", dpi=dpi, facecolor="white")


def figure_of(size_in: tuple[float, float], layout: Literal["constrained"] | None = None) -> Any:
    """A figure of ``size_in`` (width, height), drawn by Agg whatever pyplot uses."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size_in, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def panels(view: View, rows: int, below_in: float = 0.0) -> tuple[Any, Any]:
    """A figure of so many rows of planes, all in one scale, with room for words at the left and a bar ``below_in``.

    Also its axes, an array (rows, planes).
    """
    widths = [view.mm(plane.columns) for plane in view.planes]
    heights = [view.mm(plane.rows) for plane in view.planes]
    scale = (WIDTH_IN - LEFT_IN - GAP_IN * len(view.planes)) / sum(widths)
    scale = min(scale, TALLEST_IN / max(heights))  # inches a mm
    width = LEFT_IN + sum(widths) * scale + GAP_IN * len(view.planes)
    if below_in:
        width = max(width, BAR_WIDTH_IN)
    row_in = max(heights) * scale + GAP_IN
    height = rows * row_in + GAP_IN + below_in
    figure = figure_of((width, height))
    axes = np.empty((rows, len(view.planes)), dtype=object)
    for row in range(rows):
        left, bottom = LEFT_IN, height - (row + 1) * row_in
        for column, (w, h) in enumerate(zip(widths, heights, strict=True)):
            lift = (max(heights) - h) * scale / 2  # lower ones stand in the middle of their row
            box = (left / width, (bottom + lift) / height, w * scale / width, h * scale / height)
            axes[row, column] = figure.add_axes(box)
            left += w * scale + GAP_IN
    return figure, axes


def bar(figure: Any, mappable: Any, words: str, ticks: list[float] | None = None) -> Any:
    """A horizontal colour bar below the panels, with its words."""
    height = figure.get_size_inches()[1]
    box = (0.2, (BAR_IN - 0.16) / height, 0.6, 0.1 / height)
    drawn = figure.colorbar(mappable, cax=figure.add_axes(box), orientation="horizontal", ticks=ticks)
    drawn.ax.tick_params(labelsize=FONT_PT)
    drawn.set_label(words, fontsize=FONT_PT)
    return drawn


def show(axes: Any, picture: npt.NDArray[Any], view: View, plane: Plane, **options: Any) -> Any:
    """A picture with a mm as long in both directions and letters at its edges."""
    extent = (0.0, view.mm(plane.columns), view.mm(plane.rows), 0.0)
    if picture.ndim == 2 and "cmap" not in options:
        options.update(cmap="gray", vmin=0, vmax=255)
    shown = axes.imshow(picture, extent=extent, interpolation=options.pop("interpolation", "antialiased"), **options)
    axes.set_axis_off()
    left, right, top, bottom = plane.letters
    ground = {"boxstyle": "round,pad=0.15", "facecolor": (0, 0, 0, 0.6), "edgecolor": "none"}
    for word, x, y in ((left, 0.03, 0.5), (right, 0.97, 0.5), (top, 0.5, 0.97), (bottom, 0.5, 0.03)):
        if not word:
            continue
        axes.text(
            x, y, word, transform=axes.transAxes, color="white", fontsize=FONT_PT, weight="bold",
            ha="left" if x < 0.1 else "right" if x > 0.9 else "center",
            va="bottom" if y < 0.1 else "top" if y > 0.9 else "center", bbox=ground,
        )  # fmt: skip
    return shown


def side(axes: Any, word: str) -> None:
    """A word at the left of a row whose axes are hidden."""
    axes.text(-0.03, 0.5, word, transform=axes.transAxes, fontsize=FONT_PT, rotation=90, ha="right", va="center")


def plain(axes: Any, x: str, y: str) -> None:
    """Words at both axes, and no frame at the top and at the right."""
    axes.set_xlabel(x, fontsize=FONT_PT)
    axes.set_ylabel(y, fontsize=FONT_PT)
    axes.tick_params(labelsize=FONT_PT)
    axes.spines[["top", "right"]].set_visible(False)
