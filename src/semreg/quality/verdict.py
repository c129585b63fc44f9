"""From evidence to a verdict: each check passes, asks for a person's look, or fails. Measures nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from semreg.config import GateConfig
from semreg.quality.checks import CHECKS, NOT_FINITE, Check, Known, Values, part
from semreg.quality.evidence import Evidence

if TYPE_CHECKING:
    from semreg.quality.result import Evaluation

Level: TypeAlias = Literal["PASS", "LOOK", "FAIL"]

LEVELS: tuple[Level, ...] = ("PASS", "LOOK", "FAIL")
"""From the best to the worst."""
FEW_VOXELS = 12
"""Working voxels an axis; where less is seen in both images, a search says too little to fail a result."""


@dataclass(frozen=True)
class Gate:
    """One gate: its value beside both thresholds, all in ``unit``, and what it means in one sentence."""

    name: str
    title: str
    level: Level | None
    """None: not measured; then it does not count."""
    value: float | None
    unit: str
    look: float | None
    fail: float | None
    better: Literal["lower", "higher"]
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """All gates, and the worst of their levels."""

    gates: tuple[Gate, ...]

    @property
    def level(self) -> Level:
        """PASS, LOOK or FAIL."""
        return max((gate.level for gate in self.gates if gate.level), key=LEVELS.index, default="LOOK")

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences of the gates that did not pass, the worst first."""
        kept = [gate for gate in self.gates if gate.level in ("LOOK", "FAIL")]
        return tuple(gate.sentence for gate in sorted(kept, key=lambda g: -LEVELS.index(g.level or "PASS")))

    def to_dict(self) -> dict[str, Any]:
        """The level and the gates, ready for JSON."""
        return {"level": self.level, "gates": [asdict(gate) for gate in self.gates]}


def judge(
    evidence: Evidence,
    *,
    config: GateConfig | None = None,
    evaluation: Evaluation | Values = None,
    uncertainty: Values = None,
    record: Values = None,
) -> Verdict:
    """The verdict on a result from what was measured of it, and from what else is known.

    ``config`` has the thresholds; ``evaluation`` is what ``evaluate`` returned, or its dict; ``record`` that of a
    registration; ``uncertainty`` a summary of it, by default that of the record. What is not there has gates that are
    not measured.
    """
    config = config or GateConfig()
    if evaluation is not None and not isinstance(evaluation, Mapping):
        evaluation = evaluation.to_dict()
    uncertainty = part(record, "uncertainty") if uncertainty is None else uncertainty
    known = Known(evidence, evaluation, uncertainty, record)
    return Verdict(tuple(_gate(check, known, config) for check in CHECKS))


def _gate(check: Check, known: Known, config: GateConfig) -> Gate:
    look, fail = getattr(config, check.name) if check.limits is None else check.limits
    factor = known.evidence.voxel_mm if check.in_voxels else 1.0
    look, fail = look * factor, None if fail is None else fail * factor
    value = check.value(known)
    value = None if value is None or math.isnan(value) else value
    level = _level(check, value, (look, fail), known.evidence)
    return Gate(
        check.name,
        check.title,
        level,
        value,
        check.unit,
        look,
        fail,
        check.better,
        _sentence(check, level, value, known),
    )


def _level(check: Check, value: float | None, limits: tuple[float, float | None], evidence: Evidence) -> Level | None:
    if value is None:
        # nothing was compared: nothing speaks for the result
        return "LOOK" if check.name == "match" and evidence.overlap else None
    sign = -1 if check.better == "higher" else 1
    beyond = [limit is not None and sign * value > sign * limit for limit in limits]
    few = evidence.seen_voxels is not None and evidence.seen_voxels < FEW_VOXELS
    if beyond[1] and not (few and check.by_search):
        return "FAIL"
    return "LOOK" if beyond[0] or beyond[1] else "PASS"


def _sentence(check: Check, level: Level | None, value: float | None, known: Known) -> str:
    """What a check found, or why nothing was measured."""
    if value is None or level is None:
        return NOT_FINITE if not check.beside and known.evidence.field_missing > 0 else check.missing
    text = check.passed if level == "PASS" else check.stopped
    return text.format(value=value, **check.words(known))
