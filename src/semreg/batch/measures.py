"""The numbers of every pair of a cohort in one table, and which pairs stand out. Reads JSON, no image."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semreg.batch.done import read_done
from semreg.batch.log import read_state
from semreg.io.atomic_output import atomic_file
from semreg.io.result_folder import EVALUATION, PAGE, RECORD


@dataclass(frozen=True)
class Measure:
    """One column of the table: where its value stands and which way is better."""

    name: str
    """Of the column, with its unit."""
    title: str
    """For the page."""
    path: str
    """In the evaluation (``evaluation.json``) or, after ``record:``, in the record."""
    unit: str = ""
    better: str = "lower"
    """``lower``, ``higher``, or nothing where there is none."""
    scale: float = 1.0
    """What the value is multiplied with."""


MEASURES = (
    Measure("tre_before_mm", "TRE before", "landmarks.before.mean", "mm", ""),
    Measure("tre_mm", "TRE", "landmarks.after.mean", "mm"),
    Measure("tre_median_mm", "TRE, median", "landmarks.after.median", "mm"),
    Measure("tre_p95_mm", "TRE, 95th percentile", "landmarks.after.p95", "mm"),
    Measure("tre_maximum_mm", "TRE, largest", "landmarks.after.maximum", "mm"),
    Measure("landmarks", "Landmarks", "landmarks.count", "", ""),
    Measure("dice_before", "Dice before", "labels.mean.before.dice", "", ""),
    Measure("dice", "Dice", "labels.mean.after.dice", "", "higher"),
    Measure("hd95_before_mm", "HD95 before", "labels.mean.before.hd95_mm", "mm", ""),
    Measure("hd95_mm", "HD95", "labels.mean.after.hd95_mm", "mm"),
    Measure("assd_before_mm", "Mean surface distance before", "labels.mean.before.assd_mm", "mm", ""),
    Measure("assd_mm", "Mean surface distance", "labels.mean.after.assd_mm", "mm"),
    Measure("surface_dice_before", "Surface Dice before", "labels.mean.before.surface_dice", "", ""),
    Measure("surface_dice", "Surface Dice", "labels.mean.after.surface_dice", "", "higher"),
    Measure("folded_percent", "Folded", "jacobian.folded_share", "%", "lower", 100.0),
    Measure("jacobian_minimum", "Smallest Jacobian", "jacobian.minimum", "", "higher"),
    Measure("jacobian_sd_log", "SD of log Jacobian", "jacobian.sd_log"),
    Measure("displacement_mean_mm", "Mean displacement", "displacement.mean_mm", "mm", ""),
    Measure("displacement_maximum_mm", "Largest displacement", "displacement.maximum_mm", "mm", ""),
    Measure("overlap_before", "Overlap before", "overlap.before", "", ""),
    Measure("overlap", "Overlap", "overlap.after", "", "higher"),
    Measure("mutual_information_before", "Mutual information before", "similarity.mutual_information.before", "", ""),
    Measure("mutual_information", "Mutual information", "similarity.mutual_information.after", "", ""),
    Measure("correlation_before", "Correlation before", "similarity.correlation.before", "", ""),
    Measure("correlation", "Correlation", "similarity.correlation.after", "", ""),
    Measure("mind_before", "MIND distance before", "similarity.mind.before", "", ""),
    Measure("mind", "MIND distance", "similarity.mind.after", "", ""),
    Measure("inverse_mm", "There and back, mean", "consistency.fixed.mean_mm", "mm"),
    Measure("uncertainty_mm", "Uncertainty, median", "record:uncertainty.median_mm", "mm"),
    Measure("uncertainty_p95_mm", "Uncertainty, 95th percentile", "record:uncertainty.p95_mm", "mm"),
)

JUDGED = (
    "tre_mm",
    "dice",
    "hd95_mm",
    "folded_percent",
    "jacobian_minimum",
    "jacobian_sd_log",
    "overlap",
    "inverse_mm",
    "uncertainty_mm",
)
"""Measures by which a pair may stand out from the others."""

LEAST = 4
"""Pairs that a measure needs before one of them can stand out."""
ORDER = {"FAIL": 1, "LOOK": 2, "": 3, "PASS": 3}


def cohort_rows(output: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """One row a pair, those to look at first first.

    Keys: ``name``, ``state`` (as in ``batch.json``), ``verdict``, ``reason`` (why it stands where it does), ``z``
    (the worst robust z-score, larger is worse), the measures of ``MEASURES`` (None where unknown), ``seconds``,
    ``error``, ``report`` (relative path, None without one) and ``notes``. First pairs without a result, then FAIL,
    LOOK and the others, each by ``z``; last those that were not run, or not to their end.
    """
    states = {entry["name"]: entry for entry in read_state(output).get("pairs", [])}
    rows = [_row(output, name, states.get(name, {"state": "waiting"})) for name in names]
    _score(rows)
    return sorted(rows, key=_place)


def _place(row: Mapping[str, Any]) -> tuple[float, float, str]:
    group = {"failed": 0, "finished": 3, "skipped": 3}.get(row["state"], 4)
    group = ORDER.get(row["verdict"], 3) if group == 3 else group
    return group, -(row["z"] or 0.0), row["name"]


def _row(output: Path, name: str, state: Mapping[str, Any]) -> dict[str, Any]:
    folder = output / name
    standing = str(state.get("state", "waiting"))
    done = read_done(folder)
    has = standing in {"finished", "skipped"} and done is not None
    evaluation = _json(folder / EVALUATION) if has else {}
    record = _json(folder / RECORD) if has else {}
    verdict = evaluation.get("verdict") or record.get("verdict") or {}
    row: dict[str, Any] = {"name": name, "state": standing, "verdict": str(_at(verdict, "level") or "")}
    row |= {"reason": _reason(verdict), "z": None}
    for measure in MEASURES:
        where = record if measure.path.startswith("record:") else evaluation
        value = _at(where, measure.path.removeprefix("record:"))
        row[measure.name] = value * measure.scale if isinstance(value, (int, float)) else None
    seconds = [step["seconds"] for step in done.steps.values()] if has and done is not None else []
    row["seconds"] = sum(seconds) if seconds else state.get("seconds")
    row["error"] = state.get("error") or ""
    row["report"] = f"{name}/{PAGE}" if has and (folder / PAGE).is_file() else None
    row["log"] = f"{name}/log.txt" if (folder / "log.txt").is_file() else None
    row["notes"] = _json(folder / "done.json").get("notes", {})
    return row


def _reason(verdict: Any) -> str:
    """The sentences of the gates that are not passed, the worst first."""
    gates = _at(verdict, "gates") or []
    said = [gate for gate in gates if _at(gate, "level") in {"FAIL", "LOOK"}]
    return " ".join(str(_at(gate, "sentence") or "") for gate in sorted(said, key=lambda gate: str(gate["level"])))


def _score(rows: Sequence[dict[str, Any]]) -> None:
    """Set ``z`` and say in ``reason`` which measure stands out.

    Robust z-score: distance from the median over 1.4826 × the median absolute deviation (Iglewicz and Hoaglin 1993),
    counted towards the worse side only; where more than half of the values are equal, over 1.2533 × the mean absolute
    deviation instead.
    """
    for measure in (measure for measure in MEASURES if measure.name in JUDGED):
        having = [row for row in rows if row[measure.name] is not None]
        if len(having) < LEAST:
            continue
        scores = robust_z([row[measure.name] for row in having])
        for row, score in zip(having, scores, strict=True):
            worse = score if measure.better == "lower" else -score
            if worse > (row["z"] or 0.0):
                row["z"] = worse
                row["standing_out"] = measure
    for row in rows:
        measure = row.pop("standing_out", None)
        if measure is not None and row["z"] >= 3.5:
            value = f"{row[measure.name]:.3g} {measure.unit}".strip()
            said = f"{measure.title} of {value} stands out from the other pairs (robust z {row['z']:.1f})."
            row["reason"] = f"{row['reason']} {said}".strip()


def robust_z(values: Sequence[float]) -> list[float]:
    """The robust z-score of each value, 0 where all are equal."""
    middle = statistics.median(values)
    away = [abs(value - middle) for value in values]
    width = 1.4826 * statistics.median(away) or 1.2533 * statistics.fmean(away)
    return [(value - middle) / width if width else 0.0 for value in values]


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """All rows as CSV, one a pair, empty where a value is unknown; raises OutputError.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    titles = ["name", "state", "verdict", *[m.name for m in MEASURES], "seconds", "z", "reason", "error", "report"]
    notes = sorted({note for row in rows for note in row["notes"]} - set(titles))
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*titles, *notes])
        for row in rows:
            cells = [*[row[title] for title in titles], *[row["notes"].get(note) for note in notes]]
            writer.writerow([_cell(cell) for cell in cells])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value
