"""The numbers of a page as rows of text: key figures, landmarks, labels, settings. Knows nothing of markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from semreg.report.case import Case


@dataclass(frozen=True)
class Key:
    """A key figure: what, before, after, in which unit; and whether it became better."""

    name: str
    before: str
    after: str
    unit: str = ""
    note: str = ""


def number(value: Any, digits: int = 3) -> str:
    """A number as short text; a dash for what is unknown."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 10**digits or abs(value) < 10**-digits:
        return f"{value:.{digits}g}" if abs(value) < 10**-digits else f"{value:,.0f}".replace(",", " ")
    return f"{value:.{digits}g}"


def at(tree: Any, *path: str) -> Any:
    """What lies at a path of keys in nested mappings, None where the path ends early."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def key_figures(case: Case) -> list[Key]:
    """The figures of the first screen; only what is known."""
    evaluation, record = case.evaluation or {}, case.record or {}
    found: list[Key | None] = [
        _pair("Landmark error, mean", at(evaluation, "landmarks"), ("mean",), "mm", _points_note(evaluation)),
        _pair("Dice overlap, mean", at(evaluation, "labels", "mean"), ("dice",), "", ""),
        _pair("Surface distance HD95, mean", at(evaluation, "labels", "mean"), ("hd95_mm",), "mm", ""),
        _pair("Feature distance", at(record, "similarity"), (), "", "lower is better"),
        _pair("Mutual information", at(evaluation, "similarity", "mutual_information"), (), "", "higher is better"),
        _share("Image overlap", at(evaluation, "overlap")),
    ]
    jacobian = at(evaluation, "jacobian") or at(record, "jacobian") or {}
    if at(jacobian, "folded_share") is not None:
        minimum = f"smallest Jacobian {number(at(jacobian, 'minimum'))}"
        found.append(Key("Folded voxels", "", number(100 * float(jacobian["folded_share"])), "%", minimum))
    displacement = at(evaluation, "displacement") or {}
    if at(displacement, "mean_mm") is not None:
        most = f"at most {number(displacement.get('maximum_mm'))} mm"
        found.append(Key("Displacement, mean", "", number(displacement["mean_mm"]), "mm", most))
    uncertainty = at(record, "uncertainty") or {}
    if at(uncertainty, "median_mm") is not None:
        high = f"95 % below {number(uncertainty.get('p95_mm'))} mm"
        found.append(Key("Uncertainty, median", "", number(uncertainty["median_mm"]), "mm", high))
    timings = record.get("timings")
    if isinstance(timings, Mapping) and timings:
        seconds = sum(float(at(each, "seconds") or 0) for each in timings.values())
        found.append(Key("Time", "", number(seconds), "s", f"on {record.get('device', 'an unknown device')}"))
    return [key for key in found if key is not None]


def _pair(name: str, tree: Any, path: tuple[str, ...], unit: str, note: str) -> Key | None:
    before, after = at(tree, "before", *path), at(tree, "after", *path)
    if before is None and after is None:
        return None
    return Key(name, number(before), number(after), unit, note)


def _share(name: str, tree: Any) -> Key | None:
    before, after = at(tree, "before"), at(tree, "after")
    if not isinstance(after, (int, float)):
        return None
    first = number(100 * before) if isinstance(before, (int, float)) else "–"
    return Key(name, first, number(100 * after), "%", "of the fixed image")


def _points_note(evaluation: Mapping[str, Any]) -> str:
    """How many points there are and how the worst of them fare, for a mean hides them."""
    landmarks = at(evaluation, "landmarks")
    if at(landmarks, "count") is None:
        return ""
    p95, worst, before = (
        number(at(landmarks, *path.split("."))) for path in ("after.p95", "after.maximum", "before.maximum")
    )
    got_worse = at(landmarks, "worse")
    more = "" if got_worse is None else f", {got_worse} got worse"
    return f"{landmarks['count']} points, 95 % below {p95} mm, worst {worst} mm (before {before}){more}"


def landmark_rows(evaluation: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The points of the evaluation, the worst first, with the length of their bars in percent of the largest error."""
    points = [p for p in at(evaluation, "landmarks", "points") or [] if isinstance(p, Mapping)]
    points = sorted(points, key=_error_after, reverse=True)
    errors = [v for p in points for v in (p.get("before"), p.get("after")) if isinstance(v, (int, float))]
    largest = max(errors, default=0.0) or 1.0
    rows = []
    for p in points:
        before, after = p.get("before"), p.get("after")
        rows.append(
            {
                "name": str(p.get("name", "")),
                "where": ", ".join(f"{c:.1f}" for c in p.get("fixed") or []),
                "before": number(before),
                "after": number(after),
                "bar_before": round(100 * (before or 0) / largest, 1),
                "bar_after": round(100 * (after or 0) / largest, 1),
                "worse": isinstance(before, (int, float)) and isinstance(after, (int, float)) and after > before,
            }
        )
    return rows


def _error_after(point: Mapping[str, Any]) -> float:
    """For sorting: what is unknown comes last."""
    value = point.get("after")
    return float(value) if isinstance(value, (int, float)) else -1.0


MEASURES = (
    ("dice", "Dice", "higher is better"),
    ("surface_dice", "Surface Dice", "higher is better"),
    ("hd95_mm", "HD95 in mm", "lower is better"),
    ("assd_mm", "Mean surface distance in mm", "lower is better"),
)


def label_rows(evaluation: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The labels of the evaluation, the lowest Dice first, each measure as a pair of texts; the mean at the end."""
    each = [row for row in at(evaluation, "labels", "each") or [] if isinstance(row, Mapping)]
    each = sorted(each, key=lambda row: at(row, "after", "dice") if at(row, "after", "dice") is not None else 2.0)
    mean = at(evaluation, "labels", "mean")
    rows = [*each, {"name": "Mean", "label": "", **mean}] if isinstance(mean, Mapping) and each else list(each)
    return [
        {
            "name": str(row.get("name", "")),
            "label": str(row.get("label", "")),
            "pairs": [(number(at(row, "before", key)), number(at(row, "after", key))) for key, *_ in MEASURES],
            "dice": [round(100 * float(at(row, side, "dice") or 0), 1) for side in ("before", "after")],
        }
        for row in rows
    ]


def changed_settings(record: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """Name, value and default of each setting in force that differs from the default."""
    from semreg.config import RegistrationConfig
    from semreg.settings import to_dict

    settings = (record or {}).get("settings")
    if not isinstance(settings, Mapping):
        return []
    default = dict(_leaves(to_dict(RegistrationConfig())))
    return [
        (name, _text(value), _text(default[name]) if name in default else "–")
        for name, value in _leaves(settings)
        if name not in default or not _same(default[name], value)
    ]


def _leaves(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        return [leaf for key, value in tree.items() for leaf in _leaves(value, f"{prefix}{key}.")]
    if isinstance(tree, Sequence) and not isinstance(tree, str) and any(isinstance(v, Mapping) for v in tree):
        return [leaf for n, value in enumerate(tree) for leaf in _leaves(value, f"{prefix}{n}.")]
    return [(prefix[:-1], tree)]


def _same(a: Any, b: Any) -> bool:
    listed = isinstance(a, (list, tuple)) and isinstance(b, (list, tuple))
    return list(a) == list(b) if listed else bool(a == b)


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
