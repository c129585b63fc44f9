"""From evidence to a verdict: each gate passes, asks for a person's look, or fails. Measures nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from semreg.config import GateConfig
from semreg.quality.evidence import Evidence
from semreg.quality.messages import sentence_of, title_of

if TYPE_CHECKING:
    from semreg.quality.result import Evaluation

Level: TypeAlias = Literal["PASS", "LOOK", "FAIL"]
Known: TypeAlias = Mapping[str, Any] | None

LEVELS: tuple[Level, ...] = ("PASS", "LOOK", "FAIL")
"""From the best to the worst."""
FALLING = ("overlap", "match", "gain", "labels")
"""Gates whose value must be high."""
LANDMARKS = {"landmarks": "mean", "landmark_p95": "p95", "landmark_maximum": "maximum"}
"""Gates that compare landmark errors before and after, and what of them."""
UNITS = {
    "scale": "×", "residual": "mm", "uncertainty": "mm", "consistency": "mm", "labels": "Dice", "doubts": "",
}  # fmt: skip
FEW_VOXELS = 12
"""Working voxels an axis; where less is seen in both images, a search says too little to fail a result."""
IN_VOXELS = ("residual", "uncertainty", "consistency")
"""Gates whose thresholds are in working voxels."""


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
    evaluation: Evaluation | Known = None,
    uncertainty: Known = None,
    record: Known = None,
) -> Verdict:
    """The verdict on a result from what was measured of it, and from what else is known.

    ``config`` has the thresholds; ``evaluation`` is what ``evaluate`` returned, or its dict; ``record`` that of a
    registration; ``uncertainty`` a summary of it, by default that of the record. What is not there has gates that are
    not measured.
    """
    config = config or GateConfig()
    if evaluation is not None and not isinstance(evaluation, Mapping):
        evaluation = evaluation.to_dict()
    uncertainty = _part(record, "uncertainty") if uncertainty is None else uncertainty
    values = _measured(evidence) | _known(evidence, evaluation, uncertainty, record)
    gates = [_finite(evidence)]
    for name, value in values.items():
        look, fail = getattr(config, name)
        factor = evidence.voxel_mm if name in IN_VOXELS else 1.0
        sides = _sides(evaluation, name)
        gates.append(_gate(name, value, (look * factor, fail * factor), evidence, sides))
    return Verdict((*gates, _doubts(record)))


def _sides(evaluation: Known, name: str) -> tuple[float, float]:
    """What the evaluation has of a gate before and after."""
    measure = LANDMARKS.get(name, "dice")
    table = _part(evaluation, "landmarks") if name in LANDMARKS else _part(_part(evaluation, name), "mean")
    before, after = (_number(_part(table, when), measure) for when in ("before", "after"))
    return before or 0.0, after or 0.0


def _gate(
    name: str, value: float | None, limits: tuple[float, float], evidence: Evidence, sides: tuple[float, float]
) -> Gate:
    look, fail = limits
    falling = name in FALLING
    value = None if value is None or math.isnan(value) else value
    level: Level | None = None
    if value is not None:
        beyond = [value < limit if falling else value > limit for limit in (fail, look)]
        level = "FAIL" if beyond[0] else "LOOK" if beyond[1] else "PASS"
    elif name == "match" and evidence.overlap:
        level = "LOOK"  # nothing was compared: nothing speaks for the result
    few = evidence.seen_voxels is not None and evidence.seen_voxels < FEW_VOXELS
    if level == "FAIL" and few and name in ("residual", "elsewhere"):
        level = "LOOK"  # one step of the search is much of so small a place
    return Gate(
        name, title_of(name), level, value, UNITS.get(name, "%"), look, fail, "higher" if falling else "lower",
        sentence_of(name, level, value, evidence, sides),
    )  # fmt: skip


def _finite(evidence: Evidence) -> Gate:
    """Whether the field has a value everywhere: without one nothing else is measured."""
    value = 100 * evidence.field_missing
    level: Level = "FAIL" if value > 0 else "PASS"
    return Gate("finite", title_of("finite"), level, value, "%", 0.0, 0.0, "lower",
                sentence_of("finite", level, value, evidence))  # fmt: skip


def _doubts(record: Known) -> Gate:
    """What the alignment says against itself."""
    alignment = _part(record, "alignment")
    found = alignment.get("doubts") if alignment else None
    title = title_of("doubts")
    if found is None:
        return Gate(
            "doubts", title, None, None, "", 0.0, None, "lower", "No alignment was looked for, or none is known."
        )
    level: Level = "LOOK" if found else "PASS"
    said = f"The alignment is in doubt: {'; '.join(found)}." if found else "The alignment raised no doubt."
    return Gate("doubts", title, level, float(len(found)), "", 0.0, None, "lower", said)


def _measured(evidence: Evidence) -> dict[str, float | None]:
    """The values of the gates that need both images and the field only, in their units."""
    e = evidence
    both = e.match is not None and e.match_before is not None
    return {
        "missing": _percent(e.missing),
        "overlap": _percent(e.overlap),
        "folding": _percent(e.folded_share),
        "volume": _percent(e.volume_share),
        "tears": _percent(e.tear_share),
        "scale": e.scale,
        "bending": None if e.bending_mm is None else 100 * e.bending_mm / e.diagonal_mm,
        "match": _percent(e.match),
        "gain": 100 * (e.match - e.match_before) if both else None,  # type: ignore[operator]
        "residual": e.residual_mm,
        "mismatch": _percent(e.mismatch),
        "unfinished": None if e.unfinished is None else 100 * abs(e.unfinished),
        "elsewhere": _ratio(e.shift_match),
        "mirror": _ratio(e.mirror_match),
    }


def _known(evidence: Evidence, evaluation: Known, uncertainty: Known, record: Known) -> dict[str, float | None]:
    """The values of the gates that need more than that."""
    inverse = _part(evaluation, "consistency") or _part(_part(record, "inverse"), "consistency")
    errors = _part(inverse, "fixed")
    points, labels = _part(evaluation, "landmarks"), _part(_part(evaluation, "labels"), "mean")
    dice = [_number(_part(labels, when), "dice") for when in ("before", "after")]
    rose = None if dice[0] is None or dice[1] is None else dice[1] - dice[0]
    return {
        "uncertainty": _number(uncertainty, "median_mm"),
        "consistency": _number(errors, "mean_mm"),
        **{name: _rise(points, measure, evidence.spacing_mm) for name, measure in LANDMARKS.items()},
        "landmark_worse": _worse(points, evidence.spacing_mm),
        "labels": rose,
    }


def _rise(landmarks: Any, measure: str, voxel_mm: float) -> float | None:
    """An error after in percent of that before, which counts as at least a voxel: points are not marked better."""
    before, after = (_number(_part(landmarks, when), measure) for when in ("before", "after"))
    return None if before is None or after is None else 100 * after / max(before, voxel_mm)


def _worse(landmarks: Any, voxel_mm: float) -> float | None:
    """The share of the landmarks whose error rose by more than a voxel, in percent."""
    points = _part(landmarks, "points") or ()
    rises = [float(point["after"]) - float(point["before"]) for point in points]
    return 100 * sum(rise > voxel_mm for rise in rises) / len(rises) if rises else None


def _part(mapping: Any, name: str) -> Any:
    return mapping.get(name) if isinstance(mapping, Mapping) else None


def _number(mapping: Any, name: str) -> float | None:
    value = _part(mapping, name)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _ratio(pair: tuple[float, float] | None) -> float | None:
    """The second in percent of the first, which counts as at least a hundredth: less is chance."""
    return None if pair is None else 100 * pair[1] / max(pair[0], 0.01)
