"""Distributions of the measures of a cohort as geometry for drawings: dots, boxes, ticks. Knows nothing of HTML."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from semreg.batch.measures import CohortRow

WIDTH, LEFT, RIGHT = 440.0, 62.0, 16.0
"""Of a drawing and its margins, in its own units."""
TOP, LINE, FOOT = 6.0, 54.0, 24.0
DOT = 9.0
"""Dots nearer than this are moved apart."""
BOX_FROM = 5
"""Values a box is drawn of; fewer are dots alone."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A measure that is drawn: its column, and that of its value before where there is one."""

    title: str
    after: str
    before: str | None = None
    unit: str = ""
    better: str = "lower"


DRAWN = (
    Drawn(title="Landmark error (TRE), mean of a pair", after="tre_mm", before="tre_before_mm", unit="mm"),
    Drawn(title="Dice, mean of the labels", after="dice", before="dice_before", better="higher"),
    Drawn(title="95 % Hausdorff distance", after="hd95_mm", before="hd95_before_mm", unit="mm"),
    Drawn(title="Folded voxels", after="folded_percent", unit="%"),
    Drawn(title="Smallest Jacobian determinant", after="jacobian_minimum", better="higher"),
    Drawn(title="Uncertainty, median of a pair", after="uncertainty_mm", unit="mm"),
    Drawn(title="Time", after="seconds", unit="s", better=""),
)


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One pair."""

    x: float
    y: float
    row: CohortRow
    text: str


@dataclass(frozen=True, kw_only=True)
class Strip:
    """The values of all pairs along one axis."""

    label: str
    y: float
    dots: tuple[Dot, ...]
    box: tuple[float, float, float] | None
    """Quartiles and median, as places."""
    median: str


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One drawing: a strip, or two with lines from before to after."""

    title: str
    better: str
    count: int
    height: float
    strips: tuple[Strip, ...]
    links: tuple[tuple[float, float, float, float, bool], ...]
    """From and to, and whether it became worse."""
    ticks: tuple[tuple[float, str], ...]
    summary: str
    """In words, for who does not see it."""


def plots(rows: Sequence[CohortRow]) -> list[Plot]:
    """A drawing for each measure that any pair has."""
    return [plot for drawn in DRAWN if (plot := _plot(drawn, rows)) is not None]


def _plot(drawn: Drawn, rows: Sequence[CohortRow]) -> Plot | None:
    names = [name for name in (drawn.before, drawn.after) if name is not None]
    having = [row for row in rows if (value := row.numbers[drawn.after]) is not None and math.isfinite(value)]
    if not having:
        return None
    items = {name: [(row, value) for row in having if (value := row.numbers[name]) is not None] for name in names}
    low, high, ticks = scale([value for each in items.values() for _, value in each])

    def place(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    strips = []
    for line, name in enumerate(names):
        y = TOP + LINE * (line + 0.5)
        label = "before" if name == drawn.before else "after" if drawn.before else ""
        strips.append(_strip(label, y, items[name], place, drawn.unit))
    links = []
    if drawn.before is not None:
        ends = {dot.row.name: dot for dot in strips[1].dots}
        for dot in strips[0].dots:
            end = ends[dot.row.name]
            worse = end.x < dot.x if drawn.better == "higher" else end.x > dot.x
            links.append((dot.x, dot.y, end.x, end.y, worse))
    middles = [f"median {strip.label} {strip.median}".replace("  ", " ") for strip in strips]
    return Plot(
        title=f"{drawn.title}{f' ({drawn.unit})' if drawn.unit else ''}",
        better=drawn.better,
        count=len(having),
        height=TOP + LINE * len(names) + FOOT,
        strips=tuple(strips),
        links=tuple(links),
        ticks=tuple((place(tick), number(tick)) for tick in ticks),
        summary=", ".join(middles),
    )


def _strip(
    label: str, y: float, items: Sequence[tuple[CohortRow, float]], place: Callable[[float], float], unit: str
) -> Strip:
    dots: list[Dot] = []
    for row, value in sorted(items, key=lambda item: item[1]):
        x = place(value)
        crowd = sum(1 for dot in dots if x - dot.x < DOT and dot.row is not row)
        offset = (crowd + 1) // 2 * (5 if crowd % 2 else -5)
        text = f"{row.name}: {number(value)} {unit}".strip()
        dots.append(Dot(x=x, y=y + max(-20.0, min(20.0, offset)), row=row, text=text))
    values = [value for _, value in items]
    box = None
    if len(values) >= BOX_FROM:
        first, middle, third = statistics.quantiles(values, n=4, method="inclusive")
        box = place(first), place(middle), place(third)
    median = f"{number(statistics.median(values))} {unit}".strip() if values else ""
    return Strip(label=label, y=y, dots=tuple(dots), box=box, median=median)


def scale(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """The ends of an axis that shows all values, and ticks at round numbers: steps of 1, 2 or 5 · 10ⁿ."""
    low, high = min(values), max(values)
    if low >= 0 and low < 0.5 * high:
        low = 0.0
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5 * max(1.0, abs(low)), high + 0.5 * max(1.0, abs(high))
        low = max(0.0, low) if min(values) >= 0 else low
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(k * step, 12) for k in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def number(value: float) -> str:
    """Short and readable: three digits, no exponent for usual sizes."""
    if value == 0:
        return "0"
    if abs(value) >= 1000 or abs(value) < 0.001:
        return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.2g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(digits, 4)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
