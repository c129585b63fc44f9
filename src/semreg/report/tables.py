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
from semreg.report.motion import Motion


@dataclass(frozen=True)
class Key:
    """A key figure: what, before, after, in which unit; and whether it became better."""

    name: str
    before: str
    after: str
    unit: str = ""
    note: str = ""
    minor: bool = False
    """Whether it stands in the line below the others."""


def number(value: float | None, digits: int = 3) -> str:
    """A number as short text; a dash for what is unknown."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 10**digits or abs(value) < 10**-digits:
        return f"{value:.{digits}g}" if abs(value) < 10**-digits else f"{value:,.0f}".replace(",", " ")
    return f"{value:.{digits}g}"


def exact(value: float | None, decimals: int) -> str:
    """A number of a column with so many decimals, so that they stand below each other; a dash for what is unknown."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{decimals}f}"


def key_figures(case: Case, motion: Motion, covered: tuple[float, float]) -> list[Key]:
    """The figures of the first screen, what matters most first; only what is known.

    Args:
        case: what is shown.
        motion: what the deformation does.
        covered: which share of the fixed image lies inside the moving one, before and after, 0..1.

    Returns:
        The figures.
    """
    measured, record, registered = case.evaluation or Evaluation(), case.record, case.registered
    if measured.overlap is not None:
        covered = measured.overlap.before, measured.overlap.after
    found = [*_agreement(measured), *_motion(motion)]
    sides = number(100 * covered[0]), number(100 * covered[1])
    found.append(Key("Image overlap", *sides, "%", "of the fixed image lies inside the moving one"))
    if registered is not None:
        found += _structure(registered)
    if registered is not None and (unsure := registered.uncertainty) is not None:
        high = f"95 % below {number(unsure.p95_mm)} mm; an estimate"
        found.append(Key("Uncertainty, median", "", number(unsure.median_mm), "mm", high))
    if record is not None and record.timings:
        seconds = sum(each.seconds for each in record.timings.values())
        found.append(Key("Time", "", number(seconds), "s", f"on {record.device}", minor=True))
    if measured.similarity is not None:
        shared = measured.similarity.mutual_information
        sides = number(shared.before), number(shared.after)
        found.append(Key("Mutual information", *sides, "", "higher is better", minor=True))
    if registered is not None:
        sides = number(registered.similarity.before), number(registered.similarity.after)
        found.append(Key("Feature distance", *sides, "", "lower is better", minor=True))
    return found


def _motion(motion: Motion) -> list[Key]:
    """Of the deformation alone, the total in the note."""
    alone, total = motion.alone, motion.total
    note = f"95 % below {number(alone.p95_mm)}, at most {number(alone.maximum_mm)} mm"
    if total is not None:
        note += f"; with the alignment mean {number(total.mean_mm)}, at most {number(total.maximum_mm)} mm"
    volume = "1 keeps the volume" + ("" if total is None else "; of the deformation alone")
    return [
        Key("Displacement, mean" if total is None else "Deformation, mean", "", number(alone.mean_mm), "mm", note),
        Key("Jacobian, range", "", f"{number(motion.smallest)} to {number(motion.largest)}", "", volume),
        Key("Folded voxels", "", number(100 * motion.folded_share), "%", "Jacobian of 0 or less"),
    ]


def _structure(record: Record) -> list[Key]:
    """Of rigid parts, and of what slides."""
    found = []
    if record.parts is not None:
        parts = record.parts.parts
        turn = number(max(each.rotation_deg for each in parts))
        moved = number(max(each.moved_mm for each in parts))
        found.append(Key("Rigid parts", "", str(len(parts)), "", f"turned by up to {turn}°, moved by up to {moved} mm"))
    if record.sliding is not None:
        slide, gap = record.sliding.slide_mm, record.sliding.gap_mm
        note = f"95 % below {number(slide.p95_mm)} mm; both sides are {number(gap.mean_mm)} mm apart"
        found.append(Key("Slide, mean", "", number(slide.mean_mm), "mm", note))
    return found


def small(value: float | None) -> str:
    """A distance in mm that should be none: below a thousandth it is not told apart."""
    return "< 0.001" if value is not None and value < 1e-3 else number(value)


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
    """The points of the evaluation: those that got worse first, by how much, then the others, the worst first."""
    points = () if evaluation is None or evaluation.landmarks is None else evaluation.landmarks.points

    def rank(point: Landmark) -> tuple[bool, float]:
        worse = point.after > point.before
        return worse, point.after - point.before if worse else point.after

    return sorted(points, key=rank, reverse=True)


MEASURES = {
    "dice": ("Dice", "higher is better", 3), "surface_dice": ("Surface Dice", "higher is better", 3),
    "hd95_mm": ("HD95 in mm", "lower is better", 1), "assd_mm": ("Mean surface distance in mm", "lower is better", 2),
}  # fmt: skip
"""Of labels: what it is called, how it is read, its decimals."""


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
    from semreg.runtime.settings import to_dict

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
