"""Writes the page of a case: one HTML file that needs nothing else. No arithmetic on images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import semreg
from semreg.io.atomic_output import atomic_file
from semreg.io.records import plain, stable_json
from semreg.quality import Evaluation, EvaluationRun, Gate, Verdict
from semreg.registration.result import Record
from semreg.report import drawings, tables
from semreg.report.case import Case
from semreg.report.pictures import rows_of, size_of
from semreg.report.planes import planes_of
from semreg.report.stacks import make_stacks
from semreg.report.templating import environment
from semreg.report.viewer import viewer_data

HEADLINES = {
    "PASS": "No check found a reason to doubt this registration.",
    "LOOK": "Something needs a look before this result is used.",
    "FAIL": "This result should not be used as it is.",
    "NONE": "Nothing was judged: look at the pictures.",
}


def write_report(case: Case, path: str | Path) -> None:
    """Write the page of a case to ``path``, a self-contained HTML file below 15 MB.

    Raises OutputError if it cannot be written; then nothing is left there.
    """
    with atomic_file(path) as partial:
        partial.write_text(render(case), encoding="utf-8")


def render(case: Case) -> str:
    """The page as text."""
    stacks = make_stacks(case)
    planes = planes_of(stacks.grid)
    sizes = [size_of(stacks, plane) for plane in planes]
    page = environment().get_template("report.html.j2")
    labels = None if case.evaluation is None else case.evaluation.labels
    return page.render(
        case=case,
        version=semreg.__version__,
        verdict=Judged.of(case.verdict),
        keys=tables.key_figures(case),
        panels=drawings.box_panels(case),
        boxes={"fixed": drawings.grid_sentence(case.fixed.grid), "moving": drawings.grid_sentence(case.moving.grid)},
        rows=rows_of(stacks, planes),
        planes=planes,
        sizes=[f"{width} / {height}" for height, width in sizes],
        tallest=min(115, max(100 * height // width for height, width in sizes)),
        windows=stacks.windows,
        has_uncertainty=stacks.uncertainty is not None,
        has_labels=bool(stacks.labels),
        curves=drawings.curves(case.record),
        curve_size=(drawings.CURVE_WIDTH, drawings.CURVE_HEIGHT),
        landmarks=tables.landmark_rows(case.evaluation),
        landmark_summary=None if case.evaluation is None else case.evaluation.landmarks,
        labels=tables.label_rows(case.evaluation),
        label_tolerance=None if labels is None else labels.tolerance_mm,
        measures=tables.MEASURES,
        number=tables.number,
        measured=_origin(case.evaluation),
        remarks=() if case.evaluation is None else case.evaluation.notes,
        decisions=[each.sentence for each in case.record.plan.reasons] if isinstance(case.record, Record) else [],
        changed=tables.changed_settings(case.record),
        settings="" if case.record is None else stable_json(case.record.settings),
        record="" if case.record is None else stable_json(case.record),
        data=plain(viewer_data(stacks, planes)),
    )


def _origin(evaluation: Evaluation | None) -> str:
    """What an evaluation says of where it came from: files with their checksums, command, versions."""
    if not isinstance(evaluation, EvaluationRun):
        return ""
    told = {"command": evaluation.command, "inputs": evaluation.inputs, "versions": evaluation.versions}
    known = {name: value for name, value in told.items() if value}
    return stable_json(known) if known else ""


@dataclass(frozen=True, kw_only=True)
class GateRow:
    """A gate as the page shows it."""

    title: str
    level: str
    value: str
    unit: str
    look: str
    fail: str
    beyond: str
    sentence: str

    @classmethod
    def of(cls, gate: Gate) -> GateRow:
        """The numbers as text; what a person need not tell from nothing is shown as nothing."""
        value = 0.0 if gate.value is not None and abs(gate.value) < 1e-4 else gate.value
        return cls(
            title=gate.title, level=gate.level or "NONE", value=tables.number(value), unit=gate.unit,
            look=tables.number(gate.look), fail=tables.number(gate.fail),
            beyond="above" if gate.better == "lower" else "below", sentence=gate.sentence,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The verdict as the page shows it: the worst gates first; NONE where nothing was judged."""

    level: str
    headline: str
    gates: tuple[GateRow, ...]
    reasons: tuple[GateRow, ...]
    counted: str

    @classmethod
    def of(cls, verdict: Verdict | None) -> Judged:
        """What is shown of a verdict."""
        level = "NONE" if verdict is None else verdict.level
        shown = () if verdict is None else tuple(map(GateRow.of, verdict.gates))
        levels = [gate.level for gate in shown]
        counted = f"{levels.count('PASS')} of {len(levels) - levels.count('NONE')} checks passed"
        counted += f"; {levels.count('NONE')} had nothing to measure." if "NONE" in levels else "."
        ranked = tuple(sorted(shown, key=lambda gate: ("FAIL", "LOOK", "PASS", "NONE").index(gate.level)))
        reasons = tuple(gate for gate in ranked if gate.level in ("FAIL", "LOOK"))
        return cls(level=level, headline=HEADLINES[level], gates=ranked, reasons=reasons, counted=counted)
