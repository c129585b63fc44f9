"""Accuracy of all tools over what they cost, one panel a group of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from peer_figures import ACCURACY, BEFORE, CPU, Board

import report

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
"""Okabe and Ito: told apart with any colour vision. The shapes differ too."""
MARKERS = ("o", "s", "^", "D", "v", "P")
COLUMNS = 3


def draw(board: Board, cost: str, path: Path, titles: Mapping[str, str]) -> Path:
    """Write the plot as SVG; each point is the mean over the pairs of a group that the tool has all done."""
    mpl.rcParams.update({"svg.hashsalt": "peers", "svg.fonttype": "none", "font.size": 9})
    groups = board.groups()
    lines = -(-len(groups) // COLUMNS)
    figure = Figure(figsize=(9, 2.6 * lines + 0.7), layout="constrained")
    FigureCanvasSVG(figure)
    panels = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
    for panel in panels[len(groups) :]:
        panel.set_visible(False)
    shown: dict[str, Any] = {}
    for panel, (group, pairs) in zip(panels, groups.items(), strict=False):
        shown |= draw_group(panel, board, cost, pairs)
        unit = board.units[pairs[0]]
        better = "Dice (up is better)" if unit == "Dice" else f"landmark error, {unit} (down is better)"
        before = report.number(board.mean(pairs, BEFORE, ACCURACY), 2)
        panel.set_title(f"{len(pairs)} × {group}, before: {before}", fontsize=9, loc="left")
        panel.set_ylabel(better, fontsize=8)
        panel.set_xlabel("CPU seconds" if cost == CPU else "peak memory, GB", fontsize=8)
    order = [name for name in board.tools if name in shown]
    handles, labels = [shown[name] for name in order], [titles[name] for name in order]
    figure.legend(handles, labels, ncols=6, loc="outside lower center", frameon=False)
    figure.savefig(path, metadata={"Date": None})
    return path


def draw_group(panel: Any, board: Board, cost: str, pairs: list[str]) -> dict[str, Any]:
    """One panel; what it shows, by name."""
    shown: dict[str, Any] = {}
    for place, name in enumerate(name for name in board.tools if name != BEFORE):
        x, y = (board.mean(pairs, name, figure) for figure in (cost, ACCURACY))
        if x is not None and y is not None:
            (shown[name],) = panel.plot(x, y, MARKERS[place], color=COLOURS[place], markersize=7, linestyle="none")
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(visible=True, alpha=0.3, linewidth=0.5)
    panel.margins(0.15)
    return shown
