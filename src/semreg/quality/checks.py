"""All quality checks: one row each, with what is measured, in which unit, and what is said. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from semreg.quality.evidence import Evidence
from semreg.quality.landmarks import LandmarkErrors, Spread
from semreg.quality.result import Evaluation
from semreg.registration.result import AlignRecord, Record
from semreg.registration.uncertainty import UncertaintySummary

Words: TypeAlias = Mapping[str, float | str]
"""What the sentences of a check name."""

NOTHING_SEEN = "Not measured: the images show nothing together that could be compared."
NOT_FINITE = "Not measured: the displacement is not finite."
ASKED_TO_PART = "Not measured: both sides of what slides part along its wall, as asked for."
NO_LANDMARKS = "Not measured: there are no landmarks."


@dataclass(frozen=True)
class Known:
    """All that checks may look at; None is what is not known."""

    evidence: Evidence
    evaluation: Evaluation | None = None
    uncertainty: UncertaintySummary | None = None
    record: AlignRecord | None = None
    """That of a registration, or of an alignment."""

    @property
    def landmarks(self) -> LandmarkErrors | None:
        """Those of the evaluation."""
        return None if self.evaluation is None else self.evaluation.landmarks

    @property
    def dice(self) -> tuple[float, float] | None:
        """The mean one, before and after."""
        labels = None if self.evaluation is None else self.evaluation.labels
        before, after = (None, None) if labels is None else (labels.mean.before.dice, labels.mean.after.dice)
        return None if before is None or after is None else (before, after)

    @property
    def slides(self) -> bool:
        """Whether the field jumps along a wall because that was asked for."""
        return isinstance(self.record, Record) and self.record.sliding is not None

    @property
    def doubts(self) -> tuple[str, ...] | None:
        """Of the alignment; None where there was none."""
        return None if self.record is None or self.record.alignment is None else self.record.alignment.doubts


def no_words(_known: Known) -> Words:
    """A sentence that needs the value alone."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check. ``passed`` and ``stopped`` are formatted with the ``value`` and with ``words``."""

    name: str
    """As in the record, and as its two thresholds in the settings."""
    title: str
    value: Callable[[Known], float | None]
    """In ``unit``; None or NaN where it cannot be measured."""
    passed: str
    """What is said of a result that passes."""
    stopped: str
    """What is said of one that does not."""
    unit: str = "%"
    better: Literal["lower", "higher"] = "lower"
    missing: str = NOTHING_SEEN
    """What is said where nothing was measured."""
    beside: bool = False
    """Whether it needs more than both images and the field."""
    limits: tuple[float, float | None] | None = None
    """From where on a person should review the result, and from where on it fails (None: never). None: the settings of
    its name."""
    in_voxels: bool = False
    """Whether the thresholds are in working voxels."""
    by_search: bool = False
    """Whether one step of a search is much of a place that shows few voxels: then it fails no result."""
    words: Callable[[Known], Words] = no_words
    """What else the sentences name."""


def _percent(read: Callable[[Evidence], float | None]) -> Callable[[Known], float | None]:
    """A share of the evidence in percent."""

    def value(known: Known) -> float | None:
        share = read(known.evidence)
        return None if share is None else 100 * share

    return value


def _ratio(read: Callable[[Evidence], tuple[float, float] | None]) -> Callable[[Known], float | None]:
    """The second in percent of the first, which counts as at least a hundredth: less is chance."""

    def value(known: Known) -> float | None:
        pair = read(known.evidence)
        return None if pair is None else 100 * pair[1] / max(pair[0], 0.01)

    return value


def _bending(known: Known) -> float | None:
    bent = known.evidence.bending_mm
    return None if bent is None else 100 * bent / known.evidence.diagonal_mm


def _folded(known: Known) -> float | None:
    """Of what slides that of both sides, as it was found: differences across the wall tell of the jump alone."""
    if known.slides and isinstance(known.record, Record):
        return 100 * known.record.jacobian.folded_share
    return _percent(lambda e: e.folded_share)(known)


def _torn(known: Known) -> float | None:
    return None if known.slides else _percent(lambda e: e.tear_share)(known)


def _gain(known: Known) -> float | None:
    match, before = known.evidence.match, known.evidence.match_before
    return None if match is None or before is None else 100 * (match - before)


def _unfinished(known: Known) -> float | None:
    way = known.evidence.unfinished
    return None if way is None else 100 * abs(way)


def _along(known: Known) -> Words:
    """Where points may move along some axes alone, so does one more search."""
    axes = known.evidence.axes
    return {"along": f" along {' and '.join(axes)}" if axes else ""}


def _consistency(known: Known) -> float | None:
    if known.evaluation is not None and known.evaluation.consistency is not None:
        return known.evaluation.consistency.fixed.mean_mm
    inverse = known.record.inverse if isinstance(known.record, Record) else None
    return None if inverse is None else inverse.consistency["fixed"].mean_mm


def _rise(read: Callable[[Spread], float]) -> Callable[[Known], float | None]:
    """A landmark error after in percent of that before, which counts as at least a voxel: no point is marked better."""

    def value(known: Known) -> float | None:
        found = known.landmarks
        return None if found is None else 100 * read(found.after) / max(read(found.before), known.evidence.spacing_mm)

    return value


def _worse(known: Known) -> float | None:
    """The share of the landmarks whose error rose by more than a voxel, in percent."""
    points = () if known.landmarks is None else known.landmarks.points
    rises = [point.after - point.before for point in points]
    return 100 * sum(rise > known.evidence.spacing_mm for rise in rises) / len(rises) if rises else None


def _errors(read: Callable[[Spread], float]) -> Callable[[Known], Words]:
    """Landmark errors before and after, and a remark where they rose by no more than the limit."""

    def words(known: Known) -> Words:
        if known.landmarks is None:
            return {}
        before, after = read(known.landmarks.before), read(known.landmarks.after)
        return {"before": before, "after": after, "risen": ", no more than the limit" if after > before else ""}

    return words


def _axis(known: Known) -> Words:
    axis, dimension = known.evidence.mirror_axis, known.evidence.dimension
    return {"axis": "" if axis is None else "zyx"[-dimension:][axis]}


CHECKS: tuple[Check, ...] = (
    Check(
        name="finite", title="Finite displacement", value=_percent(lambda e: e.field_missing), limits=(0.0, 0.0),
        passed="The displacement has a value everywhere.",
        stopped="{value:.2g} % of the displacement vectors are NaN or infinite: the transform cannot be used.",
    ),
    Check(
        name="missing", title="Missing voxels", value=_percent(lambda e: e.missing),
        passed="{value:.2g} % of the voxels have no value.",
        stopped="{value:.0f} % of the voxels of one image have no value: check the file.",
        missing="Not measured: only the treated images are known.",
    ),
    Check(
        name="overlap", title="Overlap", value=_percent(lambda e: e.overlap), better="higher",
        passed="The images share {value:.0f} % of the content of the smaller one.",
        stopped="The images share only {value:.0f} % of the content of the smaller one.",
    ),
    Check(
        name="folding", title="Folded voxels", value=_folded,
        passed="{value:.2g} % of the voxels are folded.",
        stopped="{value:.2g} % of the voxels are folded: space is turned over there.",
    ),
    Check(
        name="volume", title="Implausible volume change", value=_percent(lambda e: e.volume_share),
        passed="{value:.2g} % of the voxels change their volume more than fivefold.",
        stopped="{value:.2g} % of the voxels change their volume more than fivefold, which tissue does not do.",
    ),
    Check(
        name="tears", title="Tears", value=_torn, missing=ASKED_TO_PART,
        passed="{value:.2g} % of the voxels are torn from their neighbours.",
        stopped="{value:.2g} % of the voxels are torn from their neighbours.",
    ),
    Check(
        name="scale", title="Scale of the whole", unit="×", value=lambda known: known.evidence.scale,
        passed="The whole is stretched or shrunk by a factor of {value:.2f} at most.",
        stopped="The whole is stretched or shrunk by a factor of {value:.2f}: check the voxel sizes of both images.",
    ),
    Check(
        name="bending", title="Bending", value=_bending,
        passed="The deformation reaches {value:.1f} % of the image's diagonal.",
        stopped="The deformation reaches {value:.1f} % of the image's diagonal, more than is plausible.",
    ),
    Check(
        name="match", title="Match against chance", value=_percent(lambda e: e.match), better="higher",
        passed="The images match {value:.0f} % better than unrelated places would.",
        stopped="The images match only {value:.0f} % better than unrelated places: are they of the same body part?",
    ),
    Check(
        name="gain", title="Gain in match", value=_gain, better="higher",
        passed="The match rose by {value:.0f} percentage points.",
        stopped="The images match worse with the transform than without it ({value:.0f} percentage points).",
        missing="Not measured: without the transform the images do not lie on each other, or nothing can be compared.",
    ),
    Check(
        name="residual", title="Remaining displacement", unit="mm", in_voxels=True, by_search=True,
        value=lambda known: known.evidence.residual_mm,
        words=_along,
        passed="One more search{along} would move the image by {value:.2g} mm (median).",
        stopped="One more search{along} would move the image by another {value:.2g} mm (median): it is not in place.",
    ),
    Check(
        name="mismatch", title="Removable mismatch", value=_percent(lambda e: e.mismatch),
        words=_along,
        passed="One more search{along} would take {value:.0f} % of the mismatch away.",
        stopped="One more search{along} would take {value:.0f} % of the mismatch away: the image is not in place.",
    ),
    Check(
        name="unfinished", title="Unfinished way", value=_unfinished,
        words=lambda known: {**_along(known), "way": "take back" if (known.evidence.unfinished or 0) < 0 else "add"},
        passed="One more search{along} would add {value:.0f} % to the displacement or take it back.",
        stopped="One more search{along} would {way} {value:.0f} % of the displacement.",
        missing="Not measured: the transform moves nothing by itself, or nothing can be compared.",
    ),
    Check(
        name="elsewhere", title="Better match elsewhere", value=_ratio(lambda e: e.shift_match), by_search=True,
        words=lambda known: {"shift": known.evidence.shift_mm or 0.0},
        passed="No shift of the whole matches better.",
        stopped="A shift of {shift:.0f} mm of the whole matches better ({value:.0f} % of the match here).",
    ),
    Check(
        name="mirror", title="Mirrored image", value=_ratio(lambda e: e.mirror_match), words=_axis,
        passed="The mirrored moving image does not match better.",
        stopped="The moving image matches better mirrored ({value:.0f} %): is its axis {axis} flipped?",
    ),
    Check(
        name="uncertainty", title="Uncertainty", unit="mm", in_voxels=True, beside=True,
        value=lambda known: None if known.uncertainty is None else known.uncertainty.median_mm,
        passed="The displacement is uncertain by {value:.2g} mm (median).",
        stopped="The displacement is uncertain by {value:.2g} mm (median).",
        missing="Not measured: no uncertainty was estimated.",
    ),
    Check(
        name="consistency", title="Inverse consistency", unit="mm", in_voxels=True, beside=True, value=_consistency,
        passed="Transform and inverse miss each other by {value:.2g} mm.",
        stopped="Transform and inverse miss each other by {value:.2g} mm.",
        missing="Not measured: no inverse is known.",
    ),
    Check(
        name="landmarks", title="Landmark error", beside=True, value=_rise(lambda e: e.mean),
        words=_errors(lambda e: e.mean),
        passed="The mean landmark error went from {before:.3g} to {after:.3g} mm{risen}.",
        stopped="The mean landmark error rose from {before:.3g} to {after:.3g} mm: the transform made it worse.",
        missing=NO_LANDMARKS,
    ),
    Check(
        name="landmark_p95", title="Landmark error, 95th percentile", beside=True, value=_rise(lambda e: e.p95),
        words=_errors(lambda e: e.p95),
        passed="The 95th percentile of the landmark errors went from {before:.3g} to {after:.3g} mm{risen}.",
        stopped="The 95th percentile of the landmark errors rose from {before:.3g} to {after:.3g} mm.",
        missing=NO_LANDMARKS,
    ),
    Check(
        name="landmark_maximum", title="Largest landmark error", beside=True, value=_rise(lambda e: e.maximum),
        words=_errors(lambda e: e.maximum),
        passed="The largest landmark error went from {before:.3g} to {after:.3g} mm{risen}.",
        stopped="The largest landmark error rose from {before:.3g} to {after:.3g} mm: look at that place.",
        missing=NO_LANDMARKS,
    ),
    Check(
        name="landmark_worse", title="Landmarks that got worse", beside=True, value=_worse,
        passed="{value:.2g} % of the landmarks got worse by more than a voxel.",
        stopped="{value:.2g} % of the landmarks got worse by more than a voxel: look at where they are.",
        missing=NO_LANDMARKS,
    ),
    Check(
        name="labels", title="Overlap of labels", unit="Dice", better="higher", beside=True,
        value=lambda known: None if known.dice is None else known.dice[1] - known.dice[0],
        words=lambda known: dict(zip(("before", "after"), known.dice or (), strict=False)),
        passed="The mean Dice went from {before:.3f} to {after:.3f}.",
        stopped="The mean Dice fell from {before:.3f} to {after:.3f}.",
        missing="Not measured: there are no labels.",
    ),
    Check(
        name="doubts", title="Doubts of the alignment", unit="", limits=(0.0, None), beside=True,
        value=lambda known: None if known.doubts is None else float(len(known.doubts)),
        words=lambda known: {"doubts": "; ".join(known.doubts or ())},
        passed="The alignment raised no doubt.",
        stopped="The alignment is in doubt: {doubts}.",
        missing="No alignment was looked for, or none is known.",
    ),
)  # fmt: skip
"""In the order in which they are shown."""
