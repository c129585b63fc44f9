"""The numbers of every pair of a cohort in one table, and which pairs stand out. Reads JSON, no image."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from semreg.batch.done import LOG_FILE, read_done
from semreg.batch.log import PairState, read_state
from semreg.errors import ConfigError
from semreg.io.atomic_output import atomic_file
from semreg.io.result_folder import PAGE
from semreg.runtime.texts import table_text

if TYPE_CHECKING:  # they bring torch, which who only starts others need not load
    from semreg.quality import Evaluation, Result
    from semreg.quality.deformation import JacobianStatistics
    from semreg.quality.image_similarity import Similarities
    from semreg.quality.landmarks import LandmarkErrors
    from semreg.quality.overlap import MeanOverlap
    from semreg.registration.uncertainty import UncertaintySummary

Read: TypeAlias = "Callable[[Result], float | None]"
Part = TypeVar("Part")


@dataclass(frozen=True)
class Measure:
    """One column of the table: where its value is from and which way is better."""

    name: str
    """Of the column, with its unit."""
    title: str
    """For the page."""
    read: Read
    unit: str = ""
    better: Literal["lower", "higher", ""] = "lower"
    """Nothing where there is none."""


def _in(part: Callable[[Evaluation], Part | None], read: Callable[[Part], float | None]) -> Read:
    """What ``read`` finds in a part of the evaluation; None where there is no such part."""

    def value(result: Result) -> float | None:
        found = None if result.evaluation is None else part(result.evaluation)
        return None if found is None else read(found)

    return value


def _errors(read: Callable[[LandmarkErrors], float | None]) -> Read:
    return _in(lambda found: found.landmarks, read)


def _labels(read: Callable[[MeanOverlap], float | None]) -> Read:
    return _in(lambda found: None if found.labels is None else found.labels.mean, read)


def _likeness(read: Callable[[Similarities], float | None]) -> Read:
    return _in(lambda found: found.similarity, read)


def _jacobian(read: Callable[[JacobianStatistics], float | None]) -> Read:
    return _in(lambda found: found.jacobian, read)


def _uncertainty(read: Callable[[UncertaintySummary], float | None]) -> Read:
    def value(result: Result) -> float | None:
        from semreg.quality.run import RegisterRun

        found = result.record.uncertainty if isinstance(result.record, RegisterRun) else None
        return None if found is None else read(found)

    return value


MEASURES = (
    Measure("tre_before_mm", "TRE before", _errors(lambda e: e.before.mean), "mm", ""),
    Measure("tre_mm", "TRE", _errors(lambda e: e.after.mean), "mm"),
    Measure("tre_median_mm", "TRE, median", _errors(lambda e: e.after.median), "mm"),
    Measure("tre_p95_mm", "TRE, 95th percentile", _errors(lambda e: e.after.p95), "mm"),
    Measure("tre_maximum_mm", "TRE, largest", _errors(lambda e: e.after.maximum), "mm"),
    Measure("landmarks", "Landmarks", _errors(lambda e: e.count), "", ""),
    Measure("dice_before", "Dice before", _labels(lambda m: m.before.dice), "", ""),
    Measure("dice", "Dice", _labels(lambda m: m.after.dice), "", "higher"),
    Measure("hd95_before_mm", "HD95 before", _labels(lambda m: m.before.hd95_mm), "mm", ""),
    Measure("hd95_mm", "HD95", _labels(lambda m: m.after.hd95_mm), "mm"),
    Measure("assd_before_mm", "Mean surface distance before", _labels(lambda m: m.before.assd_mm), "mm", ""),
    Measure("assd_mm", "Mean surface distance", _labels(lambda m: m.after.assd_mm), "mm"),
    Measure("surface_dice_before", "Surface Dice before", _labels(lambda m: m.before.surface_dice), "", ""),
    Measure("surface_dice", "Surface Dice", _labels(lambda m: m.after.surface_dice), "", "higher"),
    Measure("folded_percent", "Folded",
            _jacobian(lambda j: None if j.folded_share is None else 100 * j.folded_share), "%"),
    Measure("jacobian_minimum", "Smallest Jacobian", _jacobian(lambda j: j.minimum), "", "higher"),
    Measure("jacobian_sd_log", "SD of log Jacobian", _jacobian(lambda j: j.sd_log)),
    Measure("displacement_mean_mm", "Mean displacement",
            _in(lambda e: e.displacement, lambda d: d.mean_mm), "mm", ""),
    Measure("displacement_maximum_mm", "Largest displacement",
            _in(lambda e: e.displacement, lambda d: d.maximum_mm), "mm", ""),
    Measure("overlap_before", "Overlap before", _in(lambda e: e.overlap, lambda s: s.before), "", ""),
    Measure("overlap", "Overlap", _in(lambda e: e.overlap, lambda s: s.after), "", "higher"),
    Measure("mutual_information_before", "Mutual information before",
            _likeness(lambda s: s.mutual_information.before), "", ""),
    Measure("mutual_information", "Mutual information", _likeness(lambda s: s.mutual_information.after), "", ""),
    Measure("correlation_before", "Correlation before", _likeness(lambda s: s.correlation.before), "", ""),
    Measure("correlation", "Correlation", _likeness(lambda s: s.correlation.after), "", ""),
    Measure("mind_before", "MIND distance before", _likeness(lambda s: s.mind.before), "", ""),
    Measure("mind", "MIND distance", _likeness(lambda s: s.mind.after), "", ""),
    Measure("inverse_mm", "There and back, mean", _in(lambda e: e.consistency, lambda c: c.fixed.mean_mm), "mm"),
    Measure("uncertainty_mm", "Uncertainty, median", _uncertainty(lambda u: u.median_mm), "mm"),
    Measure("uncertainty_p95_mm", "Uncertainty, 95th percentile", _uncertainty(lambda u: u.p95_mm), "mm"),
)  # fmt: skip

JUDGED = (
    "tre_mm", "dice", "hd95_mm", "folded_percent", "jacobian_minimum", "jacobian_sd_log", "overlap", "inverse_mm",
    "uncertainty_mm",
)  # fmt: skip
"""Measures by which a pair may stand out from the others."""

LEAST = 4
"""Pairs that a measure needs before one of them can stand out."""
STANDS_OUT = 3.5
"""Robust z-score from which on a pair stands out."""
ORDER = ("ERROR", "FAIL", "REVIEW", "PASS", "NONE", "WAIT")
"""Levels, those to look at first first; PASS and NONE stand together."""


@dataclass(frozen=True, kw_only=True)
class CohortRow:
    """One pair: how it stands and its numbers."""

    name: str
    state: str
    """As in ``batch.json``."""
    verdict: str = ""
    reason: str = ""
    """Why it stands where it does."""
    z: float | None = None
    """The worst robust z-score, larger is worse."""
    values: Mapping[str, float | None]
    """By the names of ``MEASURES``; None where unknown."""
    seconds: float | None
    error: str = ""
    report: str | None = None
    """Relative path, None without one."""
    log: str | None = None
    notes: Mapping[str, str]

    @property
    def done(self) -> bool:
        """Whether it has a result."""
        return self.state in {"finished", "skipped"}

    @property
    def level(self) -> str:
        """``PASS``, ``REVIEW`` or ``FAIL``; ``ERROR`` where it failed, ``WAIT`` before it ran, ``NONE`` unchecked."""
        if self.state == "failed":
            return "ERROR"
        return (self.verdict or "NONE") if self.done else "WAIT"

    @property
    def is_first(self) -> bool:
        """Whether a person should look at this pair before the others."""
        return self.level in {"ERROR", "FAIL", "REVIEW"} or (self.z or 0.0) >= STANDS_OUT

    @property
    def numbers(self) -> dict[str, float | None]:
        """By column: the measures, ``seconds`` and ``z``."""
        return {**self.values, "seconds": self.seconds, "z": self.z}


def cohort_rows(output: Path, names: Sequence[str]) -> list[CohortRow]:
    """One row a pair, those to look at first first.

    First pairs without a result, then FAIL, REVIEW and the others, each by ``z``; last those that were not run, or not
    to their end.
    """
    states = read_state(output).by_name
    rows = _scored([_row(output, states.get(name, PairState(name=name))) for name in names])
    return sorted(rows, key=lambda row: (ORDER.index(row.level.replace("NONE", "PASS")), -(row.z or 0.0), row.name))


def _row(output: Path, state: PairState) -> CohortRow:
    from semreg.quality import read_result

    folder, done, result = output / state.name, read_done(output / state.name), None
    if state.state in {"finished", "skipped"} and done is not None:
        try:
            result = read_result(folder)
        except ConfigError:  # its numbers are unknown; the pair is in the table all the same
            result = None
    verdict = None if result is None else result.verdict
    steps = () if done is None or result is None else done.steps.values()
    return CohortRow(
        name=state.name,
        state=state.state,
        verdict="" if verdict is None else verdict.level,
        reason="" if verdict is None else " ".join(verdict.reasons),
        values={measure.name: None if result is None else measure.read(result) for measure in MEASURES},
        seconds=sum(step.seconds for step in steps) if steps else state.seconds,
        error=state.error or "",
        report=f"{state.name}/{PAGE}" if result is not None and (folder / PAGE).is_file() else None,
        log=f"{state.name}/{LOG_FILE}" if (folder / LOG_FILE).is_file() else None,
        notes={} if done is None else done.notes,
    )


def _scored(rows: Sequence[CohortRow]) -> list[CohortRow]:
    """With ``z``, and in ``reason`` which measure stands out.

    Robust z-score: distance from the median over 1.4826 × the median absolute deviation (Iglewicz and Hoaglin 1993),
    counted towards the worse side only; where more than half of the values are equal, over 1.2533 × the mean absolute
    deviation instead.
    """
    worst: dict[str, tuple[float, Measure, float]] = {}
    for measure in (measure for measure in MEASURES if measure.name in JUDGED):
        known = {row.name: value for row in rows if (value := row.values[measure.name]) is not None}
        if len(known) < LEAST:
            continue
        for (name, value), score in zip(known.items(), robust_z(list(known.values())), strict=True):
            worse = score if measure.better == "lower" else -score
            if worse > (worst[name][0] if name in worst else 0.0):
                worst[name] = worse, measure, value
    return [_standing_out(row, *worst[row.name]) if row.name in worst else row for row in rows]


def _standing_out(row: CohortRow, z: float, measure: Measure, value: float) -> CohortRow:
    if z < STANDS_OUT:
        return replace(row, z=z)
    number = f"{value:.3g} {measure.unit}".strip()
    said = f"{measure.title} of {number} stands out from the other pairs (robust z {z:.1f})."
    return replace(row, z=z, reason=f"{row.reason} {said}".strip())


def robust_z(values: Sequence[float]) -> list[float]:
    """The robust z-score of each value, 0 where all are equal."""
    middle = statistics.median(values)
    away = [abs(value - middle) for value in values]
    width = 1.4826 * statistics.median(away) or 1.2533 * statistics.fmean(away)
    return [(value - middle) / width if width else 0.0 for value in values]


def write_csv(path: Path, rows: Sequence[CohortRow]) -> None:
    """All rows as CSV, one a pair, empty where a value is unknown; raises OutputError."""
    titles = ["name", "state", "verdict", *[m.name for m in MEASURES], "seconds", "z", "reason", "error", "report"]
    notes = sorted({note for row in rows for note in row.notes} - set(titles))
    table = [[*titles, *notes]]
    for row in rows:
        cells = [row.name, row.state, row.verdict, *row.numbers.values(), row.reason, row.error, row.report]
        table.append([_cell(cell) for cell in [*cells, *(row.notes.get(note) for note in notes)]])
    with atomic_file(path) as partial:
        partial.write_text(table_text(table), encoding="utf-8", newline="")


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
