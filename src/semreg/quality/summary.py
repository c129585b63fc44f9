"""The measures in words and rounded numbers, for people. Computes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Line: TypeAlias = tuple[str, str, str]
"""What is measured, before, after."""

LANDMARKS = {"mean": "mean", "median": "median", "p95": "95 %", "maximum": "largest"}
LABELS = {"dice": "Dice", "hd95_mm": "HD95", "assd_mm": "mean surface distance", "surface_dice": "surface Dice"}
SIMILARITY = {"mutual_information": "mutual information", "correlation": "correlation", "mind": "distance of MIND"}


def table(measures: Mapping[str, Any]) -> list[Line]:
    """Rows of text from what ``Evaluation.to_dict`` returns; only what was measured."""
    return [
        *_landmarks(measures["landmarks"]), *_labels(measures["labels"]), *_overlap(measures["overlap"]),
        *_similarity(measures["similarity"]), *_jacobian(measures["jacobian"]),
        *_displacement(measures["displacement"]), *_consistency(measures["consistency"]),
    ]  # fmt: skip


def _landmarks(table: Mapping[str, Any] | None) -> Iterator[Line]:
    if table is None:
        return
    for name, words in LANDMARKS.items():
        counted = f" of {table['count']}" if name == "mean" else ""
        yield f"landmark error, {words}{counted}", _mm(table["before"][name]), _mm(table["after"][name])
    yield "landmarks that got worse", "", f"{table['worse']} of {table['count']}"


def _labels(table: Mapping[str, Any] | None) -> Iterator[Line]:
    if table is None:
        return
    groups = [("mean of labels", table["mean"]), *[(row["name"], row) for row in table["each"]]]
    for title, sides in groups:
        for name, words in LABELS.items():
            within = f" at {table['tolerance_mm']:g} mm" if name == "surface_dice" else ""
            shown = _mm if name.endswith("_mm") else _plain
            yield f"{title}, {words}{within}", shown(sides["before"][name]), shown(sides["after"][name])


def _overlap(table: Mapping[str, Any] | None) -> Iterator[Line]:
    if table is not None:
        yield "fixed image inside the moving one", _percent(table["before"]), _percent(table["after"])


def _similarity(table: Mapping[str, Any] | None) -> Iterator[Line]:
    for name, sides in (table or {}).items():
        title = f"{SIMILARITY[name]} ({sides['better']} is better)"
        yield title, _plain(sides["before"]), _plain(sides["after"])


def _jacobian(table: Mapping[str, Any] | None) -> Iterator[Line]:
    if table is None:
        return
    yield "Jacobian, smallest and largest", "", f"{_plain(table['minimum'])}, {_plain(table['maximum'])}"
    yield "folded voxels", "", _percent(table["folded_share"])
    yield "SD of log Jacobian", "", _plain(table["sd_log"])


def _displacement(table: Mapping[str, Any] | None) -> Iterator[Line]:
    if table is not None:
        yield "displacement, mean and largest", "", f"{_mm(table['mean_mm'])}, {_mm(table['maximum_mm'])}"


def _consistency(table: Mapping[str, Any] | None) -> Iterator[Line]:
    for name, values in (table or {}).items():
        title = f"there and back from the {name} image, mean and 99.9 %"
        yield title, "", f"{_mm(values['mean_mm'])}, {_mm(values['p999_mm'])}"


def _mm(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} mm"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.3g} %"
