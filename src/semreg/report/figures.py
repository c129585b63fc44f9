"""The figures of a case as PNG files for papers: which there are, and how each is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semreg.errors import ConfigError
from semreg.io.atomic_output import OutputFolder
from semreg.quality.landmarks import LandmarkErrors
from semreg.report import drawings
from semreg.report.case import Case
from semreg.report.colours import BLUE, ORANGE, blend, checkerboard
from semreg.report.panels import BAR_IN, FONT_PT, View, bar, figure_of, panels, plain, save, show, side
from semreg.report.pictures import SQUARES, jacobian_colours, lengths_of
from semreg.report.planes import Plane, planes_of
from semreg.report.stacks import Map, Stacks, make_stacks
from semreg.report.windows import Code, Window
from semreg.runtime.terms import nearest

STYLES = (
    ("#0b5cad", "-"),
    ("#e8862a", "--"),
    ("#555b66", "-."),
    ("#56b4e9", ":"),
    ("#a03070", (0, (6, 1, 1, 1, 1, 1))),
)
"""Colours and kinds of line of curves."""
LINES = 24
"""Lines of the deformed grid, and arrows, along the longer side."""
OUTLINES = (0.25, 0.55)
"""Greys, of white, at which the fixed image is outlined where it has no labels."""
MAIN = ("before_after", "checkerboard", "grid", "jacobian", "uncertainty", "convergence", "landmarks")
"""What is drawn where nothing is chosen."""
KINDS = (*MAIN, "overlay", "contour", "arrows", "displacement")
"""All that can be drawn."""


@dataclass(frozen=True, kw_only=True)
class FigureOptions:
    """What is drawn, and how."""

    kinds: tuple[str, ...] = ()
    """Of ``KINDS``; none: the main ones that the case has data for."""
    planes: tuple[str, ...] = ()
    """``axial``, ``coronal``, ``sagittal``; none: all."""
    at: tuple[float, ...] | None = None
    """The point in mm, LPS, through which the planes go; None: the middle of the fixed image."""
    fixed_window: str | None = None
    """Name of a window, such as ``lung``, or ``LOW,HIGH``; None: as on the page."""
    moving_window: str | None = None
    """The same of the moving image."""
    dpi: int = 150
    """Dots per inch at a width of 7 inches, 50 to 1200."""


def write_figures(
    case: Case, folder: str | Path, *, dpi: int = 150, options: FigureOptions | None = None
) -> list[Path]:
    """Write figures of a case as PNG files: all or none.

    Colours can be told apart by everyone: orange and blue, or growing in lightness.

    Args:
        case: what is shown.
        folder: where to write, which is made if it does not exist.
        dpi: dots per inch at a width of 7 inches, 50 to 1200.
        options: what is drawn, and how; they hold over ``dpi``. None: before_after, checkerboard, grid and jacobian,
            and where known uncertainty, convergence and landmarks.

    Returns:
        The paths of the files, sorted by name.

    Raises:
        ConfigError: for ``dpi`` out of range, and for a kind, plane, place or window that the case does not have.
        OutputError: where the files cannot be written.
    """
    options = options or FigureOptions(dpi=dpi)
    if not 50 <= options.dpi <= 1200:
        raise ConfigError(f"expected dpi in 50..1200, got {options.dpi}: 150 is for the screen, 300 for print")
    view = view_of(make_stacks(case), options)
    known = drawn_of(case, view)
    for kind in options.kinds:
        if kind not in KINDS:
            raise ConfigError(
                f"expected a figure of {', '.join(KINDS)}, got {kind!r}: did you mean {nearest(kind, KINDS, cutoff=0)}?"
            )
        if kind not in known:
            raise ConfigError(f"expected a result with data for the figure {kind}, got one without: leave it out")
    chosen = options.kinds or tuple(kind for kind in MAIN if kind in known)
    with OutputFolder(folder) as output:
        for kind in chosen:
            save(known[kind](), output.stage(f"{kind}.png"), options.dpi)
    return output.files


def view_of(stacks: Stacks, options: FigureOptions) -> View:
    """The planes, the place and the windows (ConfigError for what there is not)."""
    every = {plane.name: plane for plane in planes_of(stacks.grid)}
    for name in options.planes:
        if name not in every:
            raise ConfigError(f"expected a plane of {', '.join(every)}, got {name!r}")
    index = tuple(n // 2 for n in stacks.shape)
    if options.at is not None:
        index = _index_of(stacks, options.at)
    windows = {
        role: window_called(stacks.codes[role], text, role)
        for role, text in (("fixed", options.fixed_window), ("moving", options.moving_window))
    }
    return View(stacks, tuple(every[name] for name in options.planes or every), index, windows)


def _index_of(stacks: Stacks, point: tuple[float, ...]) -> tuple[int, ...]:
    """The index (z, y, x) nearest to a point in mm."""
    n = stacks.grid.dimension
    if len(point) != n:
        raise ConfigError(f"expected a place of {n} numbers in mm, got {len(point)}")
    inner = (stacks.grid.point_to_index() @ [*point, 1.0])[:n]
    found = tuple(round(float(v)) for v in inner)
    if not all(0 <= i < size for i, size in zip(found, stacks.grid.shape, strict=True)):
        raise ConfigError(f"expected a place inside the fixed image, {stacks.grid.box()} mm, got {point}")
    return (0,) * (3 - n) + found


def window_called(code: Code, text: str | None, role: str) -> Window:
    """A window by its name or by its ends (ConfigError)."""
    if text is None:
        return code.window
    names = {window.name.lower().replace(" ", "-"): window for window in code.windows}
    if text.lower().replace(" ", "-") in names:
        return names[text.lower().replace(" ", "-")]
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = 0.0
    if not low < high:
        raise ConfigError(
            f"expected the window of the {role} image as LOW,HIGH or one of {', '.join(names)}, got {text!r}"
        )
    return Window(low, high)


def drawn_of(case: Case, view: View) -> dict[str, Callable[[], Any]]:
    """How each figure is drawn that there is data for."""
    stacks = view.stacks
    found: dict[str, Callable[[], Any]] = {
        "before_after": lambda: _before_after(view),
        "overlay": lambda: _overlay(view),
        "checkerboard": lambda: _checkerboard(view),
        "contour": lambda: _contour(view),
        "grid": lambda: _grid(view),
        "arrows": lambda: _arrows(view),
        "displacement": lambda: _displacement(view),
        "jacobian": lambda: _jacobian(view),
    }
    uncertainty, curves = stacks.uncertainty, drawings.curves(case.record)
    landmarks = None if case.evaluation is None else case.evaluation.landmarks
    if uncertainty is not None:
        found["uncertainty"] = lambda: _uncertainty(view, uncertainty)
    if curves:
        found["convergence"] = lambda: _convergence(curves)
    if landmarks is not None:
        found["landmarks"] = lambda: _landmarks(landmarks)
    return found


def _before_after(view: View) -> Any:
    """Orange is the fixed, blue the moving image, grey both."""
    figure, axes = panels(view, 2)
    for row, (word, name) in enumerate((("before", view.stacks.states[0].key), ("after", view.last))):
        for each, plane in zip(axes[row], view.planes, strict=True):
            show(each, blend(view.cut("fixed", plane), view.cut(name, plane)), view, plane)
        side(axes[row, 0], word)
    return figure


def _overlay(view: View) -> Any:
    """The same after the registration alone."""
    figure, axes = panels(view, 1)
    for each, plane in zip(axes[0], view.planes, strict=True):
        show(each, blend(view.cut("fixed", plane), view.cut(view.last, plane)), view, plane)
    return figure


def _checkerboard(view: View) -> Any:
    figure, axes = panels(view, 1)
    for each, plane in zip(axes[0], view.planes, strict=True):
        edge = max(view.mm(plane.rows), view.mm(plane.columns)) / SQUARES
        square = tuple(max(1, round(edge / view.stacks.spacing[axis])) for axis in (plane.rows, plane.columns))
        board = checkerboard(view.cut("fixed", plane), view.cut(view.last, plane), (square[0], square[1]))
        show(each, board, view, plane)
    return figure


def _contour(view: View) -> Any:
    """Outlines on the moving image: orange of the fixed one, blue of the moving one; of labels where there are any."""
    figure, axes = panels(view, 1)
    labels = view.stacks.labels
    for each, plane in zip(axes[0], view.planes, strict=True):
        show(each, view.cut(view.last, plane), view, plane)
        for name, colour in (("fixed", ORANGE), (view.last, BLUE)) if labels else (("fixed", ORANGE),):
            if labels and name not in labels:
                continue
            picture = view.within(labels[name], plane) if labels else view.cut("fixed", plane)
            numbers = np.unique(picture)[1:] if labels else [round(255 * share) for share in OUTLINES]
            for number in numbers:
                _outline(each, picture == number if labels else picture > number, view, plane, colour)
    return figure


def _outline(axes: Any, mask: npt.NDArray[np.bool_], view: View, plane: Plane, colour: tuple[int, int, int]) -> None:
    """The line around what a mask marks."""
    if mask.all() or not mask.any():
        return
    rows, columns = mask.shape
    x = (np.arange(columns) + 0.5) / columns * view.mm(plane.columns)
    y = (np.arange(rows) + 0.5) / rows * view.mm(plane.rows)
    axes.contour(x, y, mask.astype(float), [0.5], colors=[np.asarray(colour) / 255], linewidths=0.7)


def _grid(view: View) -> Any:
    """The lines of a regular grid on the fixed image where its points lie in the moving image, in plane."""
    figure, axes = panels(view, 1)
    for each, plane in zip(axes[0], view.planes, strict=True):
        show(each, (view.cut("fixed", plane) * 0.6).astype(np.uint8), view, plane)
        y, x, down, across = _lattice(view, plane)
        every = max(1, max(down.shape) // LINES)
        moved = x + across, y + down
        for lines_x, lines_y in ((moved[0][::every], moved[1][::every]), (moved[0].T[::every], moved[1].T[::every])):
            for line_x, line_y in zip(lines_x, lines_y, strict=True):
                each.plot(line_x, line_y, color="#ffcd82", linewidth=0.6)
        each.set_xlim(0, view.mm(plane.columns))
        each.set_ylim(view.mm(plane.rows), 0)
    return figure


def _arrows(view: View) -> Any:
    """From points of the fixed image to where they lie in the moving one, to scale; colour: the length in 3-D."""
    lengths, high = lengths_of(view.stacks)
    figure, axes = panels(view, 1, BAR_IN)
    for each, plane in zip(axes[0], view.planes, strict=True):
        show(each, (view.cut("fixed", plane) * 0.6).astype(np.uint8), view, plane)
        y, x, down, across = _lattice(view, plane)
        every = max(1, max(down.shape) // LINES)
        some = (slice(every // 2, None, every),) * 2
        drawn = each.quiver(
            x[some], y[some], across[some], down[some], view.within(lengths, plane)[some], angles="xy",
            scale_units="xy", scale=1, cmap="viridis", clim=(0, high), width=0.005,
        )  # fmt: skip
    bar(figure, drawn, "displacement in mm, without the alignment").ax.set_xlim(0, high)
    return figure


def _displacement(view: View) -> Any:
    """How far each point lies from its place in the moving image, without the alignment."""
    lengths, high = lengths_of(view.stacks)
    figure, axes = panels(view, 1, BAR_IN)
    for each, plane in zip(axes[0], view.planes, strict=True):
        show(each, view.cut("fixed", plane), view, plane)
        options = {"cmap": "viridis", "vmin": 0.0, "vmax": high, "alpha": 0.65, "interpolation": "bilinear"}
        drawn = show(each, view.within(lengths, plane), view, plane, **options)
    bar(figure, drawn, "displacement in mm, without the alignment")
    return figure


def _lattice(view: View, plane: Plane) -> tuple[Any, Any, Any, Any]:
    """Nodes of the coarse lattice in a slice, in mm down and across, and how far they are displaced."""
    vectors = np.stack([view.within(part, plane) for part in view.stacks.vectors])
    down, across = vectors[plane.rows] * (-1 if plane.upwards else 1), vectors[plane.columns]
    rows, columns = down.shape
    y = (np.arange(rows) + 0.5) / rows * view.mm(plane.rows)
    x = (np.arange(columns) + 0.5) / columns * view.mm(plane.columns)
    y, x = np.meshgrid(y, x, indexing="ij")
    return y, x, down, across


def _jacobian(view: View) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    chosen, reach = view.stacks.jacobian, view.stacks.jacobian.reach
    figure, axes = panels(view, 1, BAR_IN)
    for each, plane in zip(axes[0], view.planes, strict=True):
        show(each, view.cut("fixed", plane), view, plane)
        show(each, _rgba(*jacobian_colours(view.within(chosen.stack, plane), reach)), view, plane)
    shown = np.clip(np.rint(128 + 63.5 * np.linspace(-reach, reach, 255)), 1, 255).astype(np.uint8)
    colour, opacity = jacobian_colours(shown, reach)
    table = (colour * opacity[:, None] + 128 * (1 - opacity[:, None])) / 255
    mappable = ScalarMappable(Normalize(-reach, reach), ListedColormap(table))
    words = "volume in the moving over volume in the fixed image, without the alignment (magenta: folded)"
    ticks = [-reach, -reach / 2, 0.0, reach / 2, reach]
    texts = [f"{2**tick:.2g}" for tick in ticks]
    bar(figure, mappable, words, ticks).ax.set_xticklabels(
        [f"≤ {texts[0]}", *texts[1:-1], f"≥ {texts[-1]}"], fontsize=FONT_PT
    )
    return figure


def _uncertainty(view: View, chosen: Map) -> Any:
    figure, axes = panels(view, 1, BAR_IN)
    for each, plane in zip(axes[0], view.planes, strict=True):
        levels = view.within(chosen.stack, plane)
        values = np.where(levels == 0, np.nan, chosen.low + (levels - 1.0) / 254 * (chosen.high - chosen.low))
        show(each, view.cut("fixed", plane), view, plane)
        options = {"cmap": "viridis", "vmin": chosen.low, "vmax": chosen.high, "alpha": 0.65}
        shown = show(each, values, view, plane, **options)
    bar(figure, shown, "uncertainty in mm, as estimated")
    return figure


def _rgba(colour: npt.NDArray[np.float64], opacity: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.concatenate([colour / 255, opacity[..., None]], axis=-1)


def _convergence(curves: list[drawings.Curve]) -> Any:
    figure = figure_of((3.4, 3.6), "constrained")
    axes = figure.subplots()
    for number, curve in enumerate(curves):
        colour, line = STYLES[number % len(STYLES)]
        axes.plot(curve.values, label=curve.title, color=colour, linestyle=line, linewidth=1.4)
    plain(axes, "iteration", "relative objective")
    figure.legend(fontsize=FONT_PT - 1, frameon=False, loc="outside lower center")  # beside all curves
    return figure


def _landmarks(found: LandmarkErrors) -> Any:
    """The share of landmarks with an error of at most so much, before and after."""
    figure = figure_of((3.4, 2.6), "constrained")
    axes = figure.subplots()
    share = np.arange(found.count + 1) / found.count
    for name, errors, colour, line in (
        ("before", [point.before for point in found.points], "#8a8f98", "--"),
        ("after", [point.after for point in found.points], "#0b5cad", "-"),
    ):
        axes.step([0.0, *sorted(errors)], share, where="post", label=name, color=colour, linestyle=line)
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
    plain(axes, "landmark error in mm", "share of landmarks")
    axes.legend(fontsize=FONT_PT, frameon=False, loc="lower right")
    return figure
