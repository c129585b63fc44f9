"""From evidence to a verdict: each check passes, asks for a person's review, or fails. Measures nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from semreg.config import CheckConfig
from semreg.io.records import Recorded
from semreg.quality.checks import CHECKS, NOT_FINITE, Check, Known
from semreg.quality.evidence import Evidence
from semreg.quality.result import Evaluation
from semreg.registration.result import AlignRecord, Record
from semreg.registration.uncertainty import UncertaintySummary

Level: TypeAlias = Literal["PASS", "REVIEW", "FAIL"]

LEVELS: tuple[Level, ...] = ("PASS", "REVIEW", "FAIL")
"""From the best to the worst."""
FEW_VOXELS = 12
"""Working voxels an axis; where less is seen in both images, a search says too little to fail a result."""


@dataclass(frozen=True)
class CheckResult:
    """What one check found: its value beside both thresholds, all in ``unit``, and what it means in one sentence."""

    name: str
    title: str
    level: Level | None
    """None: not measured; then it does not count."""
    value: float | None
    unit: str
    review: float | None
    fail: float | None
    better: Literal["lower", "higher"]
    sentence: str


@dataclass(frozen=True)
class Verdict(Recorded):
    """What all checks found, and the worst of their levels."""

    level: Level
    checks: tuple[CheckResult, ...]

    @classmethod
    def of(cls, checks: tuple[CheckResult, ...]) -> Verdict:
        """The worst level of ``checks`` that were measured; REVIEW where none was."""
        return cls(max((each.level for each in checks if each.level), key=LEVELS.index, default="REVIEW"), checks)

    @property
    def stopped(self) -> tuple[CheckResult, ...]:
        """The checks that did not pass, the worst first."""
        return tuple(each for level in ("FAIL", "REVIEW") for each in self.checks if each.level == level)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Their sentences."""
        return tuple(each.sentence for each in self.stopped)


def judge(
    evidence: Evidence,
    *,
    config: CheckConfig | None = None,
    evaluation: Evaluation | None = None,
    uncertainty: UncertaintySummary | None = None,
    record: AlignRecord | None = None,
) -> Verdict:
    """The verdict on a result, from what was measured of it and what else is known.

    Checks that need what is not given are not measured, and do not count.

    Args:
        evidence: what ``collect_evidence`` returned.
        config: the thresholds. None: the defaults.
        evaluation: what ``evaluate`` returned.
        uncertainty: a summary of the uncertainty; None: that of ``record``.
        record: the record of a registration or an alignment.

    Returns:
        All checks, and the worst of their levels.
    """
    if uncertainty is None and isinstance(record, Record):
        uncertainty = record.uncertainty
    known = Known(evidence, evaluation, uncertainty, record)
    return Verdict.of(tuple(_result(check, known, config or CheckConfig()) for check in CHECKS))


def _result(check: Check, known: Known, config: CheckConfig) -> CheckResult:
    review, fail = getattr(config, check.name) if check.limits is None else check.limits
    factor = known.evidence.voxel_mm if check.in_voxels else 1.0
    review, fail = review * factor, None if fail is None else fail * factor
    value = check.value(known)
    value = None if value is None or math.isnan(value) else value
    level = _level(check, value, (review, fail), known.evidence)
    return CheckResult(
        check.name,
        check.title,
        level,
        value,
        check.unit,
        review,
        fail,
        check.better,
        _sentence(check, level, value, known),
    )


def _level(check: Check, value: float | None, limits: tuple[float, float | None], evidence: Evidence) -> Level | None:
    if value is None:
        # nothing was compared: nothing speaks for the result
        return "REVIEW" if check.name == "match" and evidence.overlap else None
    sign = -1 if check.better == "higher" else 1
    beyond = [limit is not None and sign * value > sign * limit for limit in limits]
    few = evidence.seen_voxels is not None and evidence.seen_voxels < FEW_VOXELS
    if beyond[1] and not (few and check.by_search):
        return "FAIL"
    return "REVIEW" if beyond[0] or beyond[1] else "PASS"


def _sentence(check: Check, level: Level | None, value: float | None, known: Known) -> str:
    """What a check found, or why nothing was measured."""
    if value is None or level is None:
        return NOT_FINITE if not check.beside and known.evidence.field_missing > 0 else check.missing
    text = check.passed if level == "PASS" else check.stopped
    return text.format(value=value, **check.words(known))
