"""``index.html`` of a cohort: one file that says which pairs to look at, and how all of them came out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from semreg.batch import plots
from semreg.io.atomic_output import atomic_file
from semreg.report.templating import environment

FIRST = 12
"""Pairs that are shown before the table, at most."""
STANDS_OUT = 3.5
"""Robust z-score from which on a pair is shown first."""

COLUMNS = (
    ("tre_before_mm", "TRE before", "mm"),
    ("tre_mm", "TRE after", "mm"),
    ("dice_before", "Dice before", ""),
    ("dice", "Dice after", ""),
    ("hd95_mm", "HD95 after", "mm"),
    ("folded_percent", "Folded", "%"),
    ("jacobian_minimum", "Smallest Jacobian", ""),
    ("uncertainty_mm", "Uncertainty, median", "mm"),
    ("seconds", "Time", "s"),
    ("z", "Robust z", ""),
)
"""Of the table: key of the row, title, unit. Those that no pair has are left out."""

LEVELS = ("FAIL", "LOOK", "PASS")


def write_page(path: Path, rows: Sequence[Mapping[str, Any]], *, source: str = "") -> None:
    """Write the page about ``rows`` as ``cohort_rows`` gives them; ``source``: where the pairs come from.

    Links are relative to the folder of ``path``. Raises OutputError.
    """
    env = environment("semreg.batch")
    env.filters.update(number=_shown, link=_link)
    text = env.get_template("cohort.html.j2").render(**content(rows, source))
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def content(rows: Sequence[Mapping[str, Any]], source: str) -> dict[str, Any]:
    """What the template shows."""
    import semreg

    shown = [{**row, "level": level_of(row)} for row in rows]
    done = [row for row in shown if row["state"] in {"finished", "skipped"}]
    counts = [(level, sum(row["level"] == level for row in done)) for level in LEVELS]
    first = [row for row in shown if is_first(row)]
    unjudged = sum(row["level"] == "NONE" for row in done)
    return {
        "rows": shown,
        "source": source,
        "total": len(shown),
        "done": len(done),
        "failed": sum(row["state"] == "failed" for row in shown),
        "waiting": sum(row["level"] == "WAIT" for row in shown),
        "counts": [(level, count) for level, count in counts if count] + ([("NONE", unjudged)] if unjudged else []),
        "first": first[:FIRST],
        "first_all": len(first),
        "first_names": {row["name"] for row in first[:FIRST]},
        "plots": plots.plots(done),
        "width": plots.WIDTH,
        "left": plots.LEFT,
        "right": plots.WIDTH - plots.RIGHT,
        "columns": [column for column in COLUMNS if any(row[column[0]] is not None for row in shown)],
        "words": WORDS,
        "version": semreg.__version__,
    }


WORDS = {
    "PASS": "PASS", "LOOK": "LOOK", "FAIL": "FAIL", "NONE": "not judged", "ERROR": "no result", "WAIT": "not run",
}  # fmt: skip


def level_of(row: Mapping[str, Any]) -> str:
    """``PASS``, ``LOOK`` or ``FAIL``; ``ERROR`` where it failed, ``WAIT`` before it ran, ``NONE`` without gates."""
    if row["state"] == "failed":
        return "ERROR"
    if row["state"] not in {"finished", "skipped"}:
        return "WAIT"
    return row["verdict"] if row["verdict"] in LEVELS else "NONE"


def is_first(row: Mapping[str, Any]) -> bool:
    """Whether a person should look at this pair before the others."""
    return row["level"] in {"ERROR", "FAIL", "LOOK"} or (row["z"] or 0.0) >= STANDS_OUT


def _shown(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else plots.number(value)


def _link(path: str) -> str:
    """A relative path as a link."""
    return quote(path)
