"""The numbers of a page as rows of text: key figures, landmarks, labels, settings. Knows nothing of markup."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semreg.quality import Evaluation
from semreg.quality.landmarks import Landmark, LandmarkErrors
from semreg.quality.overlap import MeanOverlap
from semreg.registration.result import AlignRecord, Record
from semreg.report.case import Case


@dataclass(frozen=True)
class Key:
    """A key figure: what, before, after, in which unit; and whether it became better."""

    name: str
    before: str
    after: str
    unit: str = ""
    note: str = ""


def number(value: float | None, digits: int = 3) -> str:
    """A number as short text; a dash for what is unknown."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 10**digits or abs(value) < 10**-digits:
        return f"{value:.{digits}g}" if abs(value) < 10**-digits else f"{value:,.0f}".replace(",", " ")
    return f"{value:.{digits}g}"


def key_figures(case: Case) -> list[Key]:
    """The figures of the first screen; only what is known."""
    measured, record = case.evaluation or Evaluation(), case.record
    found = _agreement(measured)
    registered = record if isinstance(record, Record) else None
    if registered is not None:
        apart = registered.similarity
        found.append(Key("Feature distance", number(apart.before), number(apart.after), "", "lower is better"))
    if measured.similarity is not None:
        shared = measured.similarity.mutual_information
        found.append(Key("Mutual information", number(shared.before), number(shared.after), "", "higher is better"))
    if (share := measured.overlap) is not None:
        sides = number(100 * share.before), number(100 * share.after)
        found.append(Key("Image overlap", *sides, "%", "of the fixed image"))
    jacobian = measured.jacobian or (None if registered is None else registered.jacobian)
    if jacobian is not None and jacobian.folded_share is not None:
        minimum = f"smallest Jacobian {number(jacobian.minimum)}"
        found.append(Key("Folded voxels", "", number(100 * jacobian.folded_share), "%", minimum))
    if (length := measured.displacement) is not None and length.mean_mm is not None:
        most = f"at most {number(length.maximum_mm)} mm"
        found.append(Key("Displacement, mean", "", number(length.mean_mm), "mm", most))
    if registered is not None and (unsure := registered.uncertainty) is not None:
        high = f"95 % below {number(unsure.p95_mm)} mm"
        found.append(Key("Uncertainty, median", "", number(unsure.median_mm), "mm", high))
    if record is not None and record.timings:
        seconds = sum(each.seconds for each in record.timings.values())
        found.append(Key("Time", "", number(seconds), "s", f"on {record.device}"))
    return found


def _agreement(measured: Evaluation) -> list[Key]:
    """Of landmarks and labels."""
    found = []
    if (errors := measured.landmarks) is not None:
        sides = number(errors.before.mean), number(errors.after.mean)
        found.append(Key("Landmark error, mean", *sides, "mm", _points_note(errors)))
    if measured.labels is not None:
        before, after = measured.labels.mean.before, measured.labels.mean.after
        for name, first, last, unit in (
            ("Dice overlap, mean", before.dice, after.dice, ""),
            ("Surface distance HD95, mean", before.hd95_mm, after.hd95_mm, "mm"),
        ):
            if first is not None or last is not None:
                found.append(Key(name, number(first), number(last), unit))
    return found


def _points_note(found: LandmarkErrors) -> str:
    """How many points there are and how the worst of them fare, for a mean hides them."""
    p95, worst, before = map(number, (found.after.p95, found.after.maximum, found.before.maximum))
    return f"{found.count} points, 95 % below {p95} mm, worst {worst} mm (before {before}), {found.worse} got worse"


def landmark_rows(evaluation: Evaluation | None) -> list[Landmark]:
    """The points of the evaluation, the worst first."""
    points = () if evaluation is None or evaluation.landmarks is None else evaluation.landmarks.points
    return sorted(points, key=lambda point: point.after, reverse=True)


MEASURES = {
    "dice": ("Dice", "higher is better"), "surface_dice": ("Surface Dice", "higher is better"),
    "hd95_mm": ("HD95 in mm", "lower is better"), "assd_mm": ("Mean surface distance in mm", "lower is better"),
}  # fmt: skip


def label_rows(evaluation: Evaluation | None) -> list[tuple[str, MeanOverlap]]:
    """The labels of the evaluation by name, the lowest Dice first; the mean at the end."""
    labels = None if evaluation is None else evaluation.labels
    if labels is None or not labels.each:
        return []
    each = sorted(labels.each, key=lambda label: 2.0 if label.after.dice is None else label.after.dice)
    return [*((label.name, label) for label in each), ("Mean", labels.mean)]


def changed_settings(record: AlignRecord | None) -> list[tuple[str, str, str]]:
    """Name, value and default of each setting in force that differs from the default."""
    from semreg.config import RegistrationConfig
    from semreg.settings import to_dict

    if record is None:
        return []
    default = dict(_leaves(to_dict(RegistrationConfig())))
    return [
        (name, _text(value), _text(default[name]) if name in default else "–")
        for name, value in _leaves(to_dict(record.settings))
        if name not in default or default[name] != value
    ]


def _leaves(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        return [leaf for key, value in tree.items() for leaf in _leaves(value, f"{prefix}{key}.")]
    if isinstance(tree, Sequence) and not isinstance(tree, str) and any(isinstance(v, Mapping) for v in tree):
        return [leaf for n, value in enumerate(tree) for leaf in _leaves(value, f"{prefix}{n}.")]
    return [(prefix[:-1], tree)]


def _text(value: Any) -> str:
    if value is None:
        return "chosen from the images"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value)) or "none"
    return str(value)
