"""``index.html`` of a cohort: one file that says which pairs to look at, and how all of them came out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from semreg.batch import plots
from semreg.batch.measures import CohortRow
from semreg.io.atomic_output import atomic_file
from semreg.report.templating import environment

FIRST = 12
"""Pairs that are shown before the table, at most."""

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


def write_page(path: Path, rows: Sequence[CohortRow], *, source: str = "") -> None:
    """Write the page about ``rows`` as ``cohort_rows`` gives them; ``source``: where the pairs come from.

    Links are relative to the folder of ``path``. Raises OutputError.
    """
    import semreg

    env = environment("semreg.batch")
    env.filters.update(number=_shown, link=_link)
    done = [row for row in rows if row.done]
    counts = [(level, sum(row.level == level for row in done)) for level in ("FAIL", "REVIEW", "PASS", "NONE")]
    first = [row for row in rows if row.is_first]
    text = env.get_template("cohort.html.j2").render(
        rows=rows,
        source=source,
        total=len(rows),
        done=len(done),
        failed=sum(row.level == "ERROR" for row in rows),
        waiting=sum(row.level == "WAIT" for row in rows),
        counts=[(level, count) for level, count in counts if count],
        first=first[:FIRST],
        first_all=len(first),
        first_names={row.name for row in first[:FIRST]},
        plots=plots.plots(done),
        width=plots.WIDTH,
        left=plots.LEFT,
        right=plots.WIDTH - plots.RIGHT,
        columns=[column for column in COLUMNS if any(row.numbers[column[0]] is not None for row in rows)],
        words=WORDS,
        version=semreg.__version__,
    )
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


WORDS = {
    "PASS": "PASS", "REVIEW": "REVIEW", "FAIL": "FAIL", "NONE": "not judged", "ERROR": "no result", "WAIT": "not run",
}  # fmt: skip


def _shown(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else plots.number(value)


def _link(path: str) -> str:
    """A relative path as a link."""
    return quote(path)
