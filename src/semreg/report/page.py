"""Writes the page of a case: one HTML file that needs nothing else. No arithmetic on images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import semreg
from semreg.io.atomic_output import atomic_file
from semreg.io.records import plain, stable_json
from semreg.quality import CheckResult, Evaluation, EvaluationRun, Verdict
from semreg.registration.result import Record
from semreg.registration.uncertainty import BEFORE_PARTS
from semreg.report import drawings, tables
from semreg.report.case import Case
from semreg.report.pictures import Layout, frame_of, rows_of
from semreg.report.planes import doubt_of_letters, planes_of
from semreg.report.stacks import Stacks, make_stacks
from semreg.report.templating import environment
from semreg.report.viewer import viewer_data

LEAST = 1e-4
"""Values nearer to nothing are shown as nothing."""
MODES = (
    ("swipe", "Swipe", "S"), ("blend", "Overlay", "O"), ("checker", "Checkerboard", "C"), ("edges", "Edges", "E"),
    ("fixed", "Fixed", "F"), ("moving", "Moving", "M"), ("displacement", "Displacement", "D"),
    ("arrows", "Arrows", "A"), ("grid", "Grid", "G"), ("jacobian", "Jacobian", "J"),
    ("uncertainty", "Uncertainty", "U"), ("labels", "Labels", "L"),
)  # fmt: skip
"""Of the viewer: their names, what their buttons say, their keys."""
HEADLINES = {
    "PASS": "No check found a reason to doubt this registration.",
    "REVIEW": "Something needs a look before this result is used.",
    "FAIL": "This result should not be used as it is.",
    "NONE": "Nothing was judged: look at the pictures.",
}


def write_report(case: Case, path: str | Path) -> None:
    """Write the page of a case: one self-contained HTML file below 15 MB.

    Args:
        case: what is shown.
        path: the file.

    Raises:
        OutputError: where it cannot be written; then nothing is left there.
    """
    with atomic_file(path) as partial:
        partial.write_text(render(case), encoding="utf-8")


def render(case: Case) -> str:
    """The page as text."""
    stacks = make_stacks(case)
    planes = planes_of(stacks.grid)
    page = environment().get_template("report.html.j2")
    labels = None if case.evaluation is None else case.evaluation.labels
    parts = None if case.registered is None else case.registered.parts
    sliding = None if case.registered is None else case.registered.sliding
    points = tables.landmark_rows(case.evaluation)
    level, checks = "NONE" if case.verdict is None else case.verdict.level, checks_of(case.verdict)
    return page.render(
        case=case,
        version=semreg.__version__,
        level=level,
        headline=HEADLINES[level],
        checks=checks,
        reasons=[check for check in checks if check.level in ("REVIEW", "FAIL")],
        counted=counted(checks),
        keys=tables.key_figures(case, stacks.motion, (stacks.states[0].covered, stacks.states[-1].covered)),
        panels=drawings.box_panels(case),
        boxes={"fixed": case.fixed.grid.sentence, "moving": case.moving.grid.sentence},
        rows=rows_of(stacks, planes),
        planes=planes,
        layout=Layout(tuple(frame_of(stacks, plane) for plane in planes)),
        modes=modes_of(stacks),
        states=stacks.states,
        has_total=stacks.linear is not None and stacks.states[-1].key == "deformed",
        doubt=doubt_of_letters({"fixed": case.fixed.grid, "moving": case.moving.grid}, case.oriented),
        codes=stacks.codes,
        curves=drawings.curves(case.record),
        curve_size=(drawings.CURVE_WIDTH, drawings.CURVE_HEIGHT),
        landmarks=points,
        largest=max((max(point.before, point.after) for point in points), default=0.0) or 1.0,
        landmark_summary=None if case.evaluation is None else case.evaluation.landmarks,
        labels=tables.label_rows(case.evaluation),
        parts=parts,
        sliding=sliding,
        most_at=stacks.index_of(sliding.most_at) if sliding is not None and sliding.most_at else None,
        outlined="" if stacks.structure is None else "Wall" if parts is None else "Rigid parts",
        part_remarks=_remarks(case),
        label_tolerance=None if labels is None else labels.tolerance_mm,
        measures=tables.MEASURES,
        number=tables.number,
        exact=tables.exact,
        small=tables.small,
        measured=_origin(case.evaluation),
        remarks=() if case.evaluation is None else case.evaluation.notes,
        decisions=[] if case.registered is None else decisions_of(case.registered),
        changed=tables.changed_settings(case.record),
        settings="" if case.record is None else stable_json(case.record.settings),
        record="" if case.record is None else stable_json(case.record),
        data=plain(viewer_data(stacks, planes)),
    )


def _remarks(case: Case) -> list[str]:
    """What a reader should know of rigid parts beside their figures."""
    parts = None if case.registered is None else case.registered.parts
    if parts is None:
        return []
    return parts.sentences + (
        [] if case.uncertainty is None else [f"Uncertainty: {BEFORE_PARTS[0].lower()}{BEFORE_PARTS[1:]}"]
    )


def decisions_of(record: Record) -> list[str]:
    """What was decided and why, and what became of the points that were looked for."""
    found = None if record.guidance is None else record.guidance.keypoints
    return [*(each.sentence for each in record.plan.reasons), *([] if found is None else [found.sentence])]


def modes_of(stacks: Stacks) -> list[tuple[str, str, str]]:
    """What the viewer can show of a case: the mode, its word, its key."""
    absent = {"uncertainty"} if stacks.uncertainty is None else set()
    absent |= set() if stacks.labels else {"labels"}
    return [mode for mode in MODES if mode[0] not in absent]


def _origin(evaluation: Evaluation | None) -> str:
    """What an evaluation says of where it came from: files with their checksums, command, versions."""
    if not isinstance(evaluation, EvaluationRun):
        return ""
    told = {"command": evaluation.command, "inputs": evaluation.inputs, "versions": evaluation.versions}
    known = {name: value for name, value in told.items() if value}
    return stable_json(known) if known else ""


def checks_of(verdict: Verdict | None) -> list[CheckResult]:
    """Its checks, the worst first, those that were not measured last; what need not be told from nothing as nothing."""
    checks = () if verdict is None else verdict.checks
    ranked = sorted(checks, key=lambda check: ("FAIL", "REVIEW", "PASS", None).index(check.level))
    return [replace(check, value=0.0) if check.value and abs(check.value) < LEAST else check for check in ranked]


def counted(checks: Sequence[CheckResult]) -> str:
    """How many passed, in a sentence."""
    levels = [check.level for check in checks]
    unknown = levels.count(None)
    rest = f"; {unknown} had nothing to measure." if unknown else "."
    return f"{levels.count('PASS')} of {len(levels) - unknown} checks passed{rest}"
