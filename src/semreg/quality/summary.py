"""The measures in words and rounded numbers, for people. Computes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from semreg.quality.deformation import DisplacementStatistics
from semreg.quality.landmarks import LandmarkErrors
from semreg.quality.overlap import MeanOverlap
from semreg.quality.result import Evaluation

Line: TypeAlias = tuple[str, str, str]
"""What is measured, before, after."""

MANY = 12
"""Labels that have a row each; of more, the ``WORST`` by Dice after the registration have one."""
WORST = 3
"""Also the landmarks that have a row because they got worse."""
SIMILARITY = {"mutual_information": "mutual information", "correlation": "correlation", "mind": "distance of MIND"}


def table_of(found: Evaluation, *, everything: bool = True) -> list[Line]:
    """Rows of text; only what was measured. Without ``everything`` Dice and HD95 alone of the labels."""
    lines = [] if found.landmarks is None else list(_landmarks(found.landmarks))
    lines += _labels(found) if everything else _few_labels(found)
    return [*lines, *_others(found)]


def left_out(found: Evaluation) -> str:
    """What the short table leaves out, in a sentence; empty where that is nothing."""
    if found.labels is None:
        return ""
    count = len(found.labels.each)
    some = f" and all {count} labels" if count > MANY else ""
    return f"Further measures of the labels{some}: --all."


def _landmarks(found: LandmarkErrors) -> Iterator[Line]:
    before, after = found.before, found.after
    yield "landmarks that got worse", "", f"{found.worse} of {found.count}"
    lost = sorted((p for p in found.points if p.after > p.before), key=lambda p: p.before - p.after)
    yield from ((f"got worse: landmark {p.name}", _mm(p.before), _mm(p.after)) for p in lost[:WORST])
    yield f"landmark error, mean of {found.count}", _mm(before.mean), _mm(after.mean)
    yield "landmark error, median", _mm(before.median), _mm(after.median)
    yield "landmark error, 95 %", _mm(before.p95), _mm(after.p95)
    yield "landmark error, largest", _mm(before.maximum), _mm(after.maximum)


def _labels(found: Evaluation) -> Iterator[Line]:
    """Four measures of the mean and of each label."""
    if found.labels is None:
        return
    within = f"{found.labels.tolerance_mm:g} mm"
    groups = [("mean of labels", found.labels.mean), *[(label.name, label) for label in found.labels.each]]
    for title, sides in groups:
        before, after = sides.before, sides.after
        yield f"{title}, Dice", _plain(before.dice), _plain(after.dice)
        yield f"{title}, HD95", _mm(before.hd95_mm), _mm(after.hd95_mm)
        yield f"{title}, mean surface distance", _mm(before.assd_mm), _mm(after.assd_mm)
        yield f"{title}, surface Dice at {within}", _plain(before.surface_dice), _plain(after.surface_dice)


def _few_labels(found: Evaluation) -> Iterator[Line]:
    """The mean, and a row for each label or for the worst; a label without a measure counts as no worst one."""
    if found.labels is None:
        return
    each = found.labels.each
    yield "mean of labels, Dice and HD95", *_sides(found.labels.mean)
    if len(each) <= MANY:
        yield from ((f"{label.name}, Dice and HD95", *_sides(label)) for label in each)
        return
    measured = sorted((dice, number) for number, label in enumerate(each) if (dice := label.after.dice) is not None)
    for place, (_, number) in enumerate(measured[:WORST], start=1):
        label = each[number]
        yield f"worst {place} of {len(each)}: {label.name}, Dice and HD95", *_sides(label)


def _others(found: Evaluation) -> Iterator[Line]:
    if found.overlap is not None:
        yield "fixed image inside the moving one", _percent(found.overlap.before), _percent(found.overlap.after)
    if found.similarity is not None:
        for name, likeness in found.similarity.by_name.items():
            title = f"{SIMILARITY[name]} ({likeness.better} is better)"
            yield title, _plain(likeness.before), _plain(likeness.after)
    if found.jacobian is not None:
        extremes = f"{_plain(found.jacobian.minimum)}, {_plain(found.jacobian.maximum)}"
        yield "Jacobian, smallest and largest", "", extremes
        yield "folded voxels", "", _percent(found.jacobian.folded_share)
        yield "SD of log Jacobian", "", _plain(found.jacobian.sd_log)
    if found.displacement is not None:
        yield "displacement, mean and largest", "", _lengths(found.displacement)
    if found.deformation is not None:
        yield "the same without the alignment", "", _lengths(found.deformation)
    if found.consistency is not None:
        for name, way in (("fixed", found.consistency.fixed), ("moving", found.consistency.moving)):
            title = f"there and back from the {name} image, mean and 99.9 %"
            yield title, "", f"{_mm(way.mean_mm)}, {_mm(way.p999_mm)}"


def _sides(found: MeanOverlap) -> tuple[str, str]:
    """Dice and HD95 before, and after."""
    before, after = (f"{_plain(side.dice)}, {_mm(side.hd95_mm)}" for side in (found.before, found.after))
    return before, after


def _lengths(found: DisplacementStatistics) -> str:
    return f"{_mm(found.mean_mm)}, {_mm(found.maximum_mm)}"


def _mm(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} mm"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.3g} %"
