"""The bars and the tables of ``robust.py``, from the figures it measured. Measures nothing.

A row is what is known of one run: ``figure`` (Dice, mm or px), ``before``, ``after``, ``folded %``, ``mean mm`` and
``p99.9 mm`` (transform and inverse), ``trip mm`` (landmarks there and back), ``aligned``, ``doubts``, ``CPU s``; or
``failed``, the reason, and nothing else that is sure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import report

Row = Mapping[str, Any]
Rows = Mapping[str, Row]
Bar = tuple[str, bool, str]

EARLIER = {
    "liver_18_cyc_1_10": 1.8944, "liver_18_cyc_3_10": 2.3639, "liver_19_cyc_1_6": 1.2749, "liver_19_cyc_1_9": 1.3997,
    "hippocampus_001_003": 0.7598, "hippocampus_003_004": 0.8230, "hippocampus_004_006": 0.8351,
    "hippocampus_006_007": 0.8187, "hippocampus_007_008": 0.8652, "hippocampus_008_001": 0.7367, "oasis": 0.6241,
}  # fmt: skip
"""Landmark error in mm or Dice of the defaults when there was no alignment yet."""
ROUNDING = 5e-5
"""Of these figures."""
LEAST_DICE, MOST_PIXELS = 0.35, 15.0
"""Of the pairs that lie apart: three-dimensional and pictures."""
LEAST_CORD_DICE, LEAST_SHARE = 0.75, 0.9
"""Dice of a recovered draw, and the share of draws to recover."""
MOST_MEAN_MM, MOST_P999_MM, MOST_TRIP_MM = 0.2, 1.0, 0.1
"""Transform and inverse one after the other, mean and 99.9th percentile; landmarks there and back."""
MOST_GROWTH = 25.0
"""Percent of CPU seconds."""
ERRORS = ("folded %", "mean mm", "p99.9 mm", "trip mm")
"""Of a transform and its inverse."""


def far_part(rows: Rows) -> tuple[str, list[Bar]]:
    """The pairs that lie apart, with and without an alignment."""
    bars: list[Bar] = []
    for name, row in rows.items():
        if row["not aligned"]:
            continue
        after = row.get("after")
        if row["figure"] == "Dice":
            good = after is not None and after >= LEAST_DICE
            bars.append((f"{name}: Dice at least {LEAST_DICE:g}", good, report.number(after)))
        else:
            good = after is not None and after < MOST_PIXELS
            bars.append((f"{name}: mean error below {MOST_PIXELS:g} px", good, report.number(after, 2)))
        bars += bars_of_transforms(name, row)
    return f"## Pairs that lie apart\n\n{pair_table(rows)}", bars


def near_part(rows: Rows) -> tuple[str, list[Bar]]:
    """The pairs that need no alignment, beside the earlier figures."""
    bars: list[Bar] = []
    for name, row in rows.items():
        gain = None
        if "after" in row:
            gain = row["after"] - EARLIER[name] if row["figure"] == "Dice" else EARLIER[name] - row["after"]
        good = gain is not None and gain >= -ROUNDING
        bars.append((f"{name}: at least as good as before", good, "-" if gain is None else f"{gain:+.4f}"))
        bars += bars_of_transforms(name, row)
    return f"## Pairs that need no alignment\n\n{pair_table(rows)}", bars


def bars_of_transforms(name: str, row: Row) -> list[Bar]:
    """What holds of every result, aligned or not."""
    if "failed" in row:
        return [(f"{name}: registered", False, "failed")]
    mean, tail, trip = row["mean mm"], row["p99.9 mm"], row["trip mm"]
    return [
        (f"{name}: nothing folded", row["folded %"] == 0, f"{row['folded %']:.4f} %"),
        (
            f"{name}: inverse within {MOST_MEAN_MM:g} mm, p99.9 within {MOST_P999_MM:g} mm",
            mean < MOST_MEAN_MM and tail < MOST_P999_MM,
            f"{mean:.3f}, {tail:.3f}",
        ),
        (f"{name}: round trip within {MOST_TRIP_MM:g} mm", trip <= MOST_TRIP_MM, f"{trip:.4f}"),
    ]


def pair_table(rows: Rows) -> str:
    """One pair a line; what failed or is doubtful below."""
    header = ["pair", "figure", "before", "semreg", "earlier", "aligned", "doubts", "folded %"]
    header += ["inverse mean mm", "p99.9 mm", "landmarks mm", "CPU s"]
    cells, notes = [], []
    for name, row in rows.items():
        scores = [row.get("before"), row.get("after"), EARLIER.get(name)]
        errors = [row.get(key) for key in ERRORS]
        doubts = row.get("doubts", ())
        said = [row.get("aligned", "failed"), str(len(doubts))]
        cells.append([name, row["figure"], *(report.number(value, 4) for value in scores), *said])
        cells[-1] += [*(report.number(value, 4) for value in errors), report.number(row.get("CPU s"), 1)]
        notes += [f"* {name}: {note}\n" for note in (*doubts, *([row["failed"]] if "failed" in row else []))]
    return report.markdown_table(header, cells) + ("\n" + "".join(notes) if notes else "")


def draws_part(name: str, series: str, rows: Rows) -> tuple[str, list[Bar]]:
    """One pair in many random positions."""
    recovered = [draw for draw, row in rows.items() if row.get("after", 0) >= LEAST_CORD_DICE]
    told = [draw for draw, row in rows.items() if row.get("doubts") or "failed" in row]
    silent = [draw for draw in rows if draw not in recovered and draw not in told]
    share = f"{len(recovered)} of {len(rows)}"
    bars = [
        (
            f"{name}, {series}: Dice {LEAST_CORD_DICE:g} in {LEAST_SHARE:.0%} of the draws",
            len(recovered) >= LEAST_SHARE * len(rows),
            share,
        ),
        (f"{name}, {series}: the others are doubtful by their own record", not silent, f"{len(silent)} are not"),
        *bars_of_transforms(f"{name}, {series}, the worst draw", worst(rows)),
    ]
    cells = []
    for draw, row in rows.items():
        motion = [f"{row['moved mm']:.1f}", f"{row['turned degrees']:.1f}"]
        scores = [report.number(row.get(key)) for key in ("before", "after")]
        folded = report.number(row.get("folded %"), 4)
        notes = "; ".join([*row.get("doubts", ()), *([row["failed"]] if "failed" in row else [])])
        cells.append([draw, *motion, *scores, folded, row.get("aligned", "failed"), notes])
    header = ["draw", "mm", "degrees", "Dice before", "Dice", "folded %", "aligned", "doubts"]
    false = sum(draw in recovered for draw in told)
    lead = f"{share} recovered. Doubts in {len(told)}, {false} of them recovered all the same.\n"
    return f"## {name} in random positions: {series}\n\n{lead}\n{report.markdown_table(header, cells)}", bars


def worst(rows: Rows) -> Row:
    """The largest error of each kind over several results."""
    return {key: max(row.get(key, math.inf) for row in rows.values()) for key in ERRORS}


def times_part(rows: Rows) -> tuple[str, list[Bar]]:
    """CPU seconds with the defaults and without alignment."""
    bars, cells = [], []
    for name, row in rows.items():
        growth = 100 * (row["auto"] / row["none"] - 1)
        what = f"{name}: CPU seconds grow by less than {MOST_GROWTH:g} %"
        bars.append((what, growth < MOST_GROWTH, f"{growth:+.1f} %"))
        cells.append([name, str(row["runs"]), *(report.number(row[k], 2) for k in ("none", "auto")), f"{growth:+.1f}"])
    header = ["CPU s, median", "runs", "--align none", "semreg", "growth %"]
    return f"## CPU seconds\n\n{report.markdown_table(header, cells)}", bars
