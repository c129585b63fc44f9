"""The measures of one transform and how they are written: JSON, CSV, rows for people. Computes nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from semreg.io.atomic_output import OutputFolder
from semreg.io.result_folder import EVALUATION, EVALUATION_TABLE
from semreg.quality.summary import Line, table

Row: TypeAlias = tuple[str, str, str, str, float | None, float | None]
"""Group, name, measure, unit, before, after; None where there is nothing."""

COLUMNS = ("group", "name", "measure", "unit", "before", "after")
LABEL_UNITS = {"dice": "", "hd95_mm": "mm", "assd_mm": "mm", "surface_dice": ""}


@dataclass(frozen=True)
class Evaluation:
    """What was measured, ready for JSON; lengths in mm, None for what could not be measured."""

    landmarks: dict[str, Any] | None = None
    labels: dict[str, Any] | None = None
    jacobian: dict[str, Any] | None = None
    displacement: dict[str, Any] | None = None
    overlap: dict[str, float] | None = None
    """Share of the fixed image's voxels (of the mask) that come to lie inside the moving image."""
    similarity: dict[str, Any] | None = None
    consistency: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    """What a reader must know of the numbers, one sentence each."""

    def to_dict(self) -> dict[str, Any]:
        """What ``evaluation.json`` holds."""
        return {**vars(self), "notes": list(self.notes)}

    def rows(self) -> list[Row]:
        """All numbers in the order of ``COLUMNS``; what has no before has only an after."""
        return [
            *_landmark_rows(self.landmarks), *_label_rows(self.labels), *_side_rows("overlap", self.overlap),
            *_similarity_rows(self.similarity), *_jacobian_rows(self.jacobian),
            *_plain_rows("displacement", "", self.displacement), *_consistency_rows(self.consistency),
        ]  # fmt: skip

    def table(self) -> list[Line]:
        """The measures in words and rounded numbers: what, before, after."""
        return table(self.to_dict())

    def csv(self) -> str:
        """The rows as text, with a first line that names the columns."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for *words, before, after in self.rows():
            writer.writerow([*words, _written(before), _written(after)])
        return text.getvalue()


def write_evaluation(evaluation: Evaluation, path: str | Path, **more: Any) -> list[Path]:
    """Write ``evaluation.json``, with ``more`` beside the measures, and ``evaluation.csv``; raises OutputError."""
    with OutputFolder(path) as folder:
        stage_evaluation(evaluation, folder, **more)
    return folder.files


def stage_evaluation(evaluation: Evaluation, folder: OutputFolder, **more: Any) -> None:
    """The same into a folder that gets other files too."""
    from semreg.io.records import stable_json

    folder.stage(EVALUATION).write_text(stable_json({**evaluation.to_dict(), **more}), encoding="utf-8")
    folder.stage(EVALUATION_TABLE).write_text(evaluation.csv(), encoding="utf-8")


def _written(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


def _landmark_rows(table: dict[str, Any] | None) -> Iterator[Row]:
    if table is None:
        return
    for name in table["before"]:
        yield "landmarks", "", name, "mm", table["before"][name], table["after"][name]
    for point in table["points"]:
        yield "landmark", point["name"], "error", "mm", point["before"], point["after"]


def _label_rows(table: dict[str, Any] | None) -> Iterator[Row]:
    if table is None:
        return
    groups = [("labels", "", table["mean"]), *[("label", row["name"], row) for row in table["each"]]]
    for group, name, sides in groups:
        for measure, unit in LABEL_UNITS.items():
            yield group, name, measure.removesuffix("_mm"), unit, sides["before"][measure], sides["after"][measure]


def _side_rows(group: str, sides: dict[str, float] | None) -> Iterator[Row]:
    if sides is not None:
        yield group, "", "share", "", sides["before"], sides["after"]


def _similarity_rows(table: dict[str, Any] | None) -> Iterator[Row]:
    for measure, sides in (table or {}).items():
        yield (
            "similarity",
            "",
            measure,
            "nat" if measure == "mutual_information" else "",
            sides["before"],
            sides["after"],
        )


def _jacobian_rows(table: dict[str, Any] | None) -> Iterator[Row]:
    if table is None:
        return
    percentiles = {f"p{name}": value for name, value in (table["percentiles"] or {}).items()}
    values = {name: value for name, value in table.items() if name not in ("percentiles", "region")} | percentiles
    yield from (("jacobian", table["region"], name, "", None, value) for name, value in values.items())


def _plain_rows(group: str, name: str, values: dict[str, Any] | None) -> Iterator[Row]:
    for measure, value in (values or {}).items():
        yield group, name, measure.removesuffix("_mm"), "mm" if measure.endswith("_mm") else "", None, value


def _consistency_rows(table: dict[str, Any] | None) -> Iterator[Row]:
    for side, values in (table or {}).items():
        yield from _plain_rows("consistency", side, values)
