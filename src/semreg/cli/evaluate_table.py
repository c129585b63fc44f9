"""The table of ``semreg evaluate``: one row a label, and of many labels the worst alone. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semreg.runtime.terminal import show_rows, show_sentences, show_table, verdict_rows

if TYPE_CHECKING:
    from semreg.quality import Evaluation
    from semreg.quality.summary import Line

MANY = 12
"""Labels that have a row each; of more, the ``WORST`` by Dice after the registration have one."""
WORST = 3


def show(
    evaluation: Evaluation, verdict: Mapping[str, Any] | None, files: list[Path], *, everything: bool = False
) -> None:
    """The table on the standard output, the verdict, what must be known of the measures, and the files."""
    show_table(("measure", "before", "after"), table_of(evaluation, everything=everything))
    show_rows(verdict_rows(verdict))
    short = evaluation.labels is not None and not everything
    lines = [*([left_out(evaluation)] if short else []), *evaluation.notes]
    lines += [f"Files: {', '.join(map(str, files))}"] if files else []
    if lines:
        show_sentences(lines)


def table_of(evaluation: Evaluation, *, everything: bool = False) -> list[Line]:
    """What is measured, before, after: all measures with ``everything``, else Dice and HD95 alone of the labels."""
    from semreg.quality.summary import table

    measures = evaluation.to_dict()
    labels = measures["labels"]
    if labels is None or everything:
        return evaluation.table()
    landmarks = table({**dict.fromkeys(measures), "landmarks": measures["landmarks"]})
    others = table({**measures, "labels": None, "landmarks": None})
    return [*landmarks, *_labels(labels), *others]


def left_out(evaluation: Evaluation) -> str:
    """What the short table leaves out, in a sentence."""
    count = len(evaluation.to_dict()["labels"]["each"])
    some = f" and all {count} labels" if count > MANY else ""
    return f"Further measures of the labels{some}: --all."


def _labels(table: Mapping[str, Any]) -> Iterator[Line]:
    """The mean, and a row for each label or for the worst; a label without a measure counts as no worst one."""
    rows = table["each"]
    yield "mean of labels, Dice and HD95", *_sides(table["mean"])
    if len(rows) <= MANY:
        yield from ((f"{row['name']}, Dice and HD95", *_sides(row)) for row in rows)
        return
    measured = sorted((row for row in rows if row["after"]["dice"] is not None), key=lambda row: row["after"]["dice"])
    for place, row in enumerate(measured[:WORST], start=1):
        yield f"worst {place} of {len(rows)}: {row['name']}, Dice and HD95", *_sides(row)


def _sides(row: Mapping[str, Any]) -> tuple[str, str]:
    """Dice and HD95 before, and after."""
    before, after = (_both(row[side]["dice"], row[side]["hd95_mm"]) for side in ("before", "after"))
    return before, after


def _both(dice: float | None, hd95_mm: float | None) -> str:
    return f"{'-' if dice is None else f'{dice:.3f}'}, {'-' if hd95_mm is None else f'{hd95_mm:.2f} mm'}"
