"""The measures of one transform and how they are written: JSON, CSV, rows for people. Computes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from semreg.io.atomic_output import OutputFolder
from semreg.io.records import Recorded, stable_json
from semreg.io.result_folder import EVALUATION, EVALUATION_TABLE
from semreg.quality.deformation import Consistency, DisplacementStatistics, JacobianStatistics
from semreg.quality.image_similarity import Similarities
from semreg.quality.landmarks import LandmarkErrors
from semreg.quality.overlap import LabelOverlaps
from semreg.runtime.texts import table_text

Row: TypeAlias = tuple[str, str, str, str, float | None, float | None]
"""Group, name, measure, unit, before, after; None where there is nothing."""

COLUMNS = ("group", "name", "measure", "unit", "before", "after")


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of the voxels, before and after."""

    before: float
    after: float


@dataclass(frozen=True, kw_only=True)
class Evaluation(Recorded):
    """What was measured; lengths in mm, None for what could not be measured."""

    landmarks: LandmarkErrors | None = None
    labels: LabelOverlaps | None = None
    jacobian: JacobianStatistics | None = None
    displacement: DisplacementStatistics | None = None
    deformation: DisplacementStatistics | None = None
    """The same without the affine map at the end of the transform; None where there is none."""
    overlap: Share | None = None
    """Of the fixed image's voxels (of the mask), those that come to lie inside the moving image."""
    similarity: Similarities | None = None
    consistency: Consistency | None = None
    notes: tuple[str, ...] = ()
    """What a reader must know of the numbers, one sentence each."""

    def rows(self) -> list[Row]:
        """All numbers in the order of ``COLUMNS``; what has no before has only an after."""
        found: list[Row] = []
        if self.landmarks is not None:
            found += _rows("landmarks", "", self.landmarks.after, self.landmarks.before, unit="mm")
            found += [("landmark", each.name, "error", "mm", each.before, each.after) for each in self.landmarks.points]
        if self.labels is not None:
            found += _rows("labels", "", self.labels.mean.after, self.labels.mean.before)
            for each in self.labels.each:
                found += _rows("label", each.name, each.after, each.before)
        if self.overlap is not None:
            found.append(("overlap", "", "share", "", self.overlap.before, self.overlap.after))
        if self.similarity is not None:
            for name, likeness in self.similarity.by_name.items():
                unit = "nat" if name == "mutual_information" else ""
                found.append(("similarity", "", name, unit, likeness.before, likeness.after))
        if self.jacobian is not None:
            found += _rows("jacobian", self.jacobian.region, self.jacobian)
            percentiles = (self.jacobian.percentiles or {}).items()
            found += [("jacobian", self.jacobian.region, f"p{name}", "", None, value) for name, value in percentiles]
        for name, lengths in (("", self.displacement), ("without the alignment", self.deformation)):
            found += () if lengths is None else _rows("displacement", name, lengths)
        if self.consistency is not None:
            found += _rows("consistency", "fixed", self.consistency.fixed)
            found += _rows("consistency", "moving", self.consistency.moving)
        return found

    def csv(self) -> str:
        """The rows as text, with a first line that names the columns."""
        rows = [[*words, _written(before), _written(after)] for *words, before, after in self.rows()]
        return table_text([COLUMNS, *rows])


def write_evaluation(evaluation: Evaluation, path: str | Path) -> list[Path]:
    """Write ``evaluation.json`` and ``evaluation.csv``.

    Args:
        evaluation: the measures.
        path: the folder, which is made if it does not exist.

    Returns:
        The files that were written.

    Raises:
        OutputError: where the files cannot be written; then none is.
    """
    with OutputFolder(path, record=EVALUATION) as folder:
        stage_evaluation(evaluation, folder)
    return folder.files


def stage_evaluation(evaluation: Evaluation, folder: OutputFolder) -> None:
    """Write ``evaluation.json`` and ``evaluation.csv`` into a folder that gets other files too.

    Args:
        evaluation: the measures.
        folder: the folder, inside its ``with`` block.

    Raises:
        OutputError: for a folder that is closed.
    """
    folder.stage(EVALUATION).write_text(stable_json(evaluation), encoding="utf-8")
    folder.stage(EVALUATION_TABLE).write_text(evaluation.csv(), encoding="utf-8")


def _written(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


def _rows(group: str, name: str, after: object, before: object = None, *, unit: str = "") -> Iterator[Row]:
    """A row for each number of a dataclass, beside that of one of its kind before; ``_mm`` ends names of lengths."""
    for measure, value in vars(after).items():
        if value is None or isinstance(value, (int, float)):
            kind = "mm" if measure.endswith("_mm") else unit
            yield group, name, measure.removesuffix("_mm"), kind, getattr(before, measure, None), value
