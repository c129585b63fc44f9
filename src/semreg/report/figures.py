"""The main figures of a case as PNG files for papers. matplotlib is imported here alone, without its global state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from semreg.errors import ConfigError
from semreg.io.atomic_output import OutputFolder
from semreg.quality.landmarks import LandmarkErrors
from semreg.report import drawings
from semreg.report.case import Case
from semreg.report.colours import Bytes, blend, checkerboard
from semreg.report.pictures import SQUARES, jacobian_colours, middle
from semreg.report.planes import Plane, planes_of
from semreg.report.stacks import Map, Stacks, make_stacks

WIDTH_IN = 7.0
"""Of two columns of a journal, in inches."""
FONT_PT = 8
LEFT_IN, GAP_IN, TALLEST_IN = 0.2, 0.06, 5.0
"""Room at the left, between panels, and the height of the tallest panel at most, in inches."""
BAR_IN, BAR_WIDTH_IN = 0.62, 4.5
"""Height of a colour bar with its words and width of a figure that has one at least, in inches."""
STYLES = (("#0b5cad", "-"), ("#e8862a", "--"), ("#555b66", "-."), ("#56b4e9", ":"))
"""Colours and kinds of line of curves."""
LINES = 24
"""Lines of the deformed grid along the longer side."""


def write_figures(case: Case, folder: str | Path, *, dpi: int = 150) -> list[Path]:
    """Write the figures that a case has data for as PNG files: all or none.

    before_after, checkerboard, grid and jacobian are always written; uncertainty, convergence and landmarks where
    known.

    Args:
        case: what is shown.
        folder: where to write, which is made if it does not exist.
        dpi: dots per inch at a width of 7 inches, 50 to 1200.

    Returns:
        The paths of the files, sorted by name.

    Raises:
        ConfigError: for ``dpi`` out of range.
        OutputError: where the files cannot be written.
    """
    if not 50 <= dpi <= 1200:
        raise ConfigError(f"expected dpi in 50..1200, got {dpi}: 150 is for the screen, 300 for print")
    stacks = make_stacks(case)
    planes = planes_of(stacks.grid)
    drawn: dict[str, Callable[[], Any]] = {
        "before_after.png": lambda: _before_after(stacks, planes),
        "checkerboard.png": lambda: _checkerboard(stacks, planes),
        "grid.png": lambda: _grid(stacks, planes),
        "jacobian.png": lambda: _jacobian(stacks, planes),
    }
    uncertainty, curves = stacks.uncertainty, drawings.curves(case.record)
    landmarks = None if case.evaluation is None else case.evaluation.landmarks
    if uncertainty is not None:
        drawn["uncertainty.png"] = lambda: _uncertainty(stacks, planes, uncertainty)
    if curves:
        drawn["convergence.png"] = lambda: _convergence(curves)
    if landmarks is not None:
        drawn["landmarks.png"] = lambda: _landmarks(landmarks)
    with OutputFolder(folder) as output:
        for name, draw in drawn.items():
            _save(draw(), output.stage(name), dpi)
    return output.files


def _save(figure: Any, path: Path, dpi: int) -> None:
    figure.savefig(path, format="png", dpi=dpi, facecolor="white")


def _figure(size_in: tuple[float, float], layout: Literal["constrained"] | None = None) -> Any:
    """A figure of ``size_in`` (width, height), drawn by Agg whatever pyplot uses."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size_in, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _panels(stacks: Stacks, planes: tuple[Plane, ...], rows: int, below_in: float = 0.0) -> tuple[Any, Any]:
    """A figure of so many rows of planes, all in one scale, with room for words at the left and a bar ``below_in``.

    Also its axes, an array (rows, planes).
    """
    widths = [_mm(stacks, plane.columns) for plane in planes]
    heights = [_mm(stacks, plane.rows) for plane in planes]
    scale = (WIDTH_IN - LEFT_IN - GAP_IN * len(planes)) / sum(widths)
    scale = min(scale, TALLEST_IN / max(heights))  # inches a mm
    width = LEFT_IN + sum(widths) * scale + GAP_IN * len(planes)
    if below_in:
        width = max(width, BAR_WIDTH_IN)
    row_in = max(heights) * scale + GAP_IN
    height = rows * row_in + GAP_IN + below_in
    figure = _figure((width, height))
    axes = np.empty((rows, len(planes)), dtype=object)
    for row in range(rows):
        left, bottom = LEFT_IN, height - (row + 1) * row_in
        for column, (w, h) in enumerate(zip(widths, heights, strict=True)):
            lift = (max(heights) - h) * scale / 2  # lower ones stand in the middle of their row
            box = (left / width, (bottom + lift) / height, w * scale / width, h * scale / height)
            axes[row, column] = figure.add_axes(box)
            left += w * scale + GAP_IN
    return figure, axes


def _bar(figure: Any, mappable: Any, words: str, ticks: list[float] | None = None) -> Any:
    """A horizontal colour bar below the panels, with its words."""
    height = figure.get_size_inches()[1]
    box = (0.2, (BAR_IN - 0.16) / height, 0.6, 0.1 / height)
    bar = figure.colorbar(mappable, cax=figure.add_axes(box), orientation="horizontal", ticks=ticks)
    bar.ax.tick_params(labelsize=FONT_PT)
    bar.set_label(words, fontsize=FONT_PT)
    return bar


def _mm(stacks: Stacks, axis: int) -> float:
    return float(stacks.shape[axis] * stacks.spacing[axis])


def _show(axes: Any, picture: npt.NDArray[Any], stacks: Stacks, plane: Plane, **options: Any) -> Any:
    """A picture with a mm as long in both directions and letters at its edges."""
    extent = (0.0, _mm(stacks, plane.columns), _mm(stacks, plane.rows), 0.0)
    if picture.ndim == 2 and "cmap" not in options:
        options.update(cmap="gray", vmin=0, vmax=255)
    shown = axes.imshow(picture, extent=extent, interpolation=options.pop("interpolation", "antialiased"), **options)
    axes.set_axis_off()
    left, right, top, bottom = plane.letters
    for word, x, y in ((left, 0.03, 0.5), (right, 0.97, 0.5), (top, 0.5, 0.97), (bottom, 0.5, 0.03)):
        axes.text(
            x, y, word, transform=axes.transAxes, color="white", fontsize=FONT_PT, weight="bold",
            ha="left" if x < 0.1 else "right" if x > 0.9 else "center",
            va="bottom" if y < 0.1 else "top" if y > 0.9 else "center",
        )  # fmt: skip
    return shown


def _side(axes: Any, word: str) -> None:
    """A word at the left of a row whose axes are hidden."""
    axes.text(-0.03, 0.5, word, transform=axes.transAxes, fontsize=FONT_PT, rotation=90, ha="right", va="center")


def _cut(stacks: Stacks, plane: Plane, name: str) -> Bytes:
    return stacks.cut(name, plane, middle(stacks, plane))


def _before_after(stacks: Stacks, planes: tuple[Plane, ...]) -> Any:
    """Orange is the fixed, blue the moving image, grey both."""
    figure, axes = _panels(stacks, planes, 2)
    for row, (word, moving) in enumerate((("before", stacks.states[0].key), ("after", stacks.states[-1].key))):
        for column, plane in enumerate(planes):
            _show(axes[row, column], blend(_cut(stacks, plane, "fixed"), _cut(stacks, plane, moving)), stacks, plane)
        _side(axes[row, 0], word)
    return figure


def _checkerboard(stacks: Stacks, planes: tuple[Plane, ...]) -> Any:
    figure, axes = _panels(stacks, planes, 1)
    for each, plane in zip(axes[0], planes, strict=True):
        fixed, after = _cut(stacks, plane, "fixed"), _cut(stacks, plane, stacks.states[-1].key)
        edge = max(_mm(stacks, plane.rows), _mm(stacks, plane.columns)) / SQUARES
        square = tuple(max(1, round(edge / stacks.spacing[axis])) for axis in (plane.rows, plane.columns))
        _show(each, checkerboard(fixed, after, (square[0], square[1])), stacks, plane)
    return figure


def _grid(stacks: Stacks, planes: tuple[Plane, ...]) -> Any:
    """The lines of a regular grid on the fixed image where its points lie in the moving image, in plane."""
    figure, axes = _panels(stacks, planes, 1)
    for each, plane in zip(axes[0], planes, strict=True):
        _show(each, (_cut(stacks, plane, "fixed") * 0.6).astype(np.uint8), stacks, plane)
        height, width = _mm(stacks, plane.rows), _mm(stacks, plane.columns)
        down, across = _moved_lattice(stacks, plane, height, width)
        every = max(1, max(down.shape) // LINES)
        for lines_x, lines_y in ((across[::every], down[::every]), (across.T[::every], down.T[::every])):
            for x, y in zip(lines_x, lines_y, strict=True):
                each.plot(x, y, color="#ffcd82", linewidth=0.6)
        each.set_xlim(0, width)
        each.set_ylim(height, 0)
    return figure


def _moved_lattice(stacks: Stacks, plane: Plane, height: float, width: float) -> tuple[Any, Any]:
    """Where the nodes of the coarse lattice in the middle slice lie in the moving image, in mm down and across."""
    vectors = stacks.vectors.take(stacks.vectors.shape[1 + plane.across] // 2, axis=1 + plane.across)
    down, across = vectors[plane.rows], vectors[plane.columns]
    if plane.upwards:
        down, across = -down[::-1], across[::-1]
    rows, columns = down.shape
    y = (np.arange(rows) + 0.5) / rows * height
    x = (np.arange(columns) + 0.5) / columns * width
    return y[:, None] + down, x[None] + across


def _jacobian(stacks: Stacks, planes: tuple[Plane, ...]) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    figure, axes = _panels(stacks, planes, 1, BAR_IN)
    for each, plane in zip(axes[0], planes, strict=True):
        _show(each, _cut(stacks, plane, "fixed"), stacks, plane)
        _show(each, _rgba(*jacobian_colours(_map_cut(stacks.jacobian, plane), stacks.jacobian.reach)), stacks, plane)
    colour, opacity = jacobian_colours(np.arange(1, 256, dtype=np.uint8), stacks.jacobian.reach)
    table = (colour * opacity[:, None] + 128 * (1 - opacity[:, None])) / 255
    mappable = ScalarMappable(Normalize(-2, 2), ListedColormap(table))
    words = "volume in the moving over volume in the fixed image (magenta: folded)"
    _bar(figure, mappable, words, [-2, -1, 0, 1, 2]).ax.set_xticklabels(["¼", "½", "1", "2", "4"], fontsize=FONT_PT)
    return figure


def _uncertainty(stacks: Stacks, planes: tuple[Plane, ...], chosen: Map) -> Any:
    figure, axes = _panels(stacks, planes, 1, BAR_IN)
    for each, plane in zip(axes[0], planes, strict=True):
        levels = _map_cut(chosen, plane)
        values = np.where(levels == 0, np.nan, chosen.low + (levels - 1.0) / 254 * (chosen.high - chosen.low))
        _show(each, _cut(stacks, plane, "fixed"), stacks, plane)
        options = {"cmap": "viridis", "vmin": chosen.low, "vmax": chosen.high, "alpha": 0.65}
        shown = _show(each, values, stacks, plane, **options)
    _bar(figure, shown, "uncertainty in mm")
    return figure


def _map_cut(chosen: Map, plane: Plane) -> Bytes:
    return plane.cut(chosen.stack, chosen.stack.shape[plane.across] // 2)


def _rgba(colour: npt.NDArray[np.float64], opacity: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.concatenate([colour / 255, opacity[..., None]], axis=-1)


def _convergence(curves: list[drawings.Curve]) -> Any:
    figure = _figure((3.4, 2.6), "constrained")
    axes = figure.subplots()
    for number, curve in enumerate(curves):
        colour, line = STYLES[number % len(STYLES)]
        axes.plot(curve.values, label=curve.title, color=colour, linestyle=line, linewidth=1.4)
    _plain(axes, "iteration", "relative objective")
    axes.legend(fontsize=FONT_PT - 1, frameon=False)
    return figure


def _landmarks(found: LandmarkErrors) -> Any:
    """The share of landmarks with an error of at most so much, before and after."""
    figure = _figure((3.4, 2.6), "constrained")
    axes = figure.subplots()
    share = np.arange(found.count + 1) / found.count
    for name, errors, colour, line in (
        ("before", [point.before for point in found.points], "#8a8f98", "--"),
        ("after", [point.after for point in found.points], "#0b5cad", "-"),
    ):
        axes.step([0.0, *sorted(errors)], share, where="post", label=name, color=colour, linestyle=line)
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
    _plain(axes, "landmark error in mm", "share of landmarks")
    axes.legend(fontsize=FONT_PT, frameon=False, loc="lower right")
    return figure


def _plain(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=FONT_PT)
    axes.set_ylabel(y, fontsize=FONT_PT)
    axes.tick_params(labelsize=FONT_PT)
    axes.spines[["top", "right"]].set_visible(False)
