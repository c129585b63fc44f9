"""What the runs of all tools on all pairs come to: medians, means of groups, who is best. Knows no file and no tool."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

OWN, BEFORE = "semreg", "before"
ACCURACY, P95, FOLDED = "accuracy", "TRE p95", "folded %"
CPU, PEAK = "CPU s", "peak GB"
TIE = 5e-4
"""Figures nearer than this share one place: they are printed with three digits."""


@dataclass(frozen=True)
class Cell:
    """One tool on one pair: the medians of its runs by name, or why there are none."""

    status: str
    figures: Mapping[str, float] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True)
class Board:
    """All cells, by pair and tool, in the order of the list."""

    pairs: Sequence[str]
    tools: Sequence[str]
    units: Mapping[str, str]
    """Of a pair: mm or px of its landmark error, Dice."""
    cells: Mapping[tuple[str, str], Cell]

    def get(self, pair: str, tool: str) -> Cell:
        """The cell, one that says so if it was not run."""
        return self.cells.get((pair, tool), Cell("not run"))

    def groups(self) -> dict[str, list[str]]:
        """Pairs by the name up to the first underscore."""
        found: dict[str, list[str]] = {}
        for pair in self.pairs:
            found.setdefault(pair.partition("_")[0], []).append(pair)
        return found

    def mean(self, pairs: Iterable[str], tool: str, figure: str) -> float | None:
        """The mean over pairs; None unless the tool has the figure on all of them."""
        values = [self.get(pair, tool).figures.get(figure) for pair in pairs]
        return None if not values or None in values else statistics.fmean(v for v in values if v is not None)


def board(runs: Sequence[Mapping[str, Any]], order: Sequence[str]) -> Board:
    """Collect runs; ``order`` are the names of the tools. Landmark errors become pixels where landmarks are."""
    together: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        together.setdefault((run["pair"], run["tool"]), []).append(run)
    pairs = list(dict.fromkeys(run["pair"] for run in runs))
    units = {}
    for pair in pairs:
        before = together[pair, BEFORE][0]
        landmarks = "TRE before" in before["scores"]
        units[pair] = "Dice" if not landmarks else "mm" if before["mm a unit"] == 1 else "px"
    present = {tool for _, tool in together}
    shown = [name for name in order if name in present]
    return Board(pairs, shown, units, {key: cell_of(found) for key, found in together.items()})


def cell_of(runs: Sequence[Mapping[str, Any]]) -> Cell:
    """The medians of the runs that went well; if one did not, how it ended."""
    for run in runs:
        if run["status"] != "ok":
            return Cell(run["status"], {}, run.get("message", ""))
    rows = [figures_of(run) for run in runs]
    return Cell("ok", {name: statistics.median(row[name] for row in rows) for name in rows[0]})


def figures_of(run: Mapping[str, Any]) -> dict[str, float]:
    """The figures of one run; accuracy is the landmark error, else Dice."""
    scores, unit = run["scores"], run["mm a unit"]
    figures = {FOLDED: float(scores[FOLDED])}
    if "TRE" in scores:
        figures |= {ACCURACY: scores["TRE"] / unit, P95: scores[P95] / unit}
    else:
        figures[ACCURACY] = float(scores["Dice"])
    if "usage" in run:
        usage = run["usage"]
        figures |= {CPU: usage["cpu_seconds"], PEAK: usage["peak_bytes"] / 1e9}
    return figures


def best(values: Mapping[str, float | None], *, larger: bool) -> set[str]:
    """The names of the best values, all of those that tie; none if there is nothing to compare."""
    there = {name: value for name, value in values.items() if value is not None}
    if not there:
        return set()
    choose: Callable[[Iterable[float]], float] = max if larger else min
    top = choose(there.values())
    return {name for name, value in there.items() if abs(value - top) < TIE}
