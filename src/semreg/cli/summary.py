"""What commands say at their end of a registration, an alignment, an evaluation. Imports nothing heavy at its top."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from semreg.io.result_folder import DICOM
from semreg.runtime.terminal import show_rows, show_sentences, show_table

if TYPE_CHECKING:
    from semreg.quality import Evaluation, LandmarkSummary, Verdict
    from semreg.quality.run import AlignRun, RegisterRun
    from semreg.registration.dense.contrast import IntensityRelation
    from semreg.registration.guidance import GuidanceReport
    from semreg.registration.parts.report import PartsReport
    from semreg.registration.result import AlignmentReport, InverseReport
    from semreg.registration.sliding.report import SlidingReport

DIRECTION = (
    "transform.h5 maps points of the fixed image to the moving image (mm, LPS): "
    "give it to a resampler as it is to bring the moving image onto the fixed one"
)


def show_registration(run: RegisterRun, files: list[Path]) -> None:
    """Verdict, alignment, similarity, Jacobian, files, and the direction of the transform."""
    show_rows(registration_rows(run, files), DIRECTION)


def show_alignment(run: AlignRun, files: list[Path], *, explain: bool) -> None:
    """What was decided, if that was asked for, and what was found."""
    if explain and run.alignment is not None:
        show_sentences(run.alignment.decisions)
    show_rows([*alignment_rows(run.alignment), ("files", named(files))], DIRECTION)


def show_evaluation(
    evaluation: Evaluation, verdict: Verdict | None, files: list[Path], *, everything: bool = False
) -> None:
    """The table on the standard output, the verdict, what must be known of the measures, and the files."""
    from semreg.quality.summary import left_out, table_of

    show_table(("measure", "before", "after"), table_of(evaluation, everything=everything))
    show_rows(verdict_rows(verdict))
    lines = ["" if everything else left_out(evaluation), *evaluation.notes]
    lines += [f"Files: {', '.join(map(str, files))}"] if files else []
    if any(lines):
        show_sentences(line for line in lines if line)


def named(files: list[Path]) -> str:
    """The files of a result; the slices of DICOM as one."""
    slices = [path for path in files if path.parent.name == DICOM]
    series = [f"{slices[0].parent} ({len(slices)} slices)"] if slices else []
    return ", ".join([*series, *(str(path) for path in files if path not in slices)])


def registration_rows(run: RegisterRun, files: list[Path]) -> list[tuple[str, str]]:
    """Names and values of the summary."""
    apart, jacobian = run.similarity, run.jacobian
    return [
        *verdict_rows(run.verdict),
        *alignment_rows(run.alignment),
        *landmark_rows(run.landmarks),
        *([] if run.start is None else [("start", run.start.sentence)]),
        *guidance_rows(run.guidance),
        *part_rows(run.parts),
        *sliding_rows(run.sliding),
        *contrast_rows(run.intensity_relation, asked=bool(run.settings.fine.enabled)),
        ("distance of features", f"{_number(apart.before)} before, {_number(apart.after)} after"),
        ("smallest Jacobian", f"{jacobian.minimum:.4g}"),
        ("folded voxels", f"{100 * jacobian.folded_share:.4g} %"),
        *([] if run.inverse is None else [("there and back", _there_and_back(run.inverse))]),
        *([] if run.uncertainty is None else [("uncertainty", _estimated(run.uncertainty.median_mm))]),
        ("files", named(files)),
    ]


def verdict_rows(verdict: Verdict | None) -> list[tuple[str, str]]:
    """The verdict and what did not pass, the worst first."""
    if verdict is None:
        return []
    return [("verdict", verdict.level), *((str(check.level).lower(), check.sentence) for check in verdict.stopped)]


def alignment_rows(found: AlignmentReport | None) -> list[tuple[str, str]]:
    """What was found by the alignment, why it was applied or not, and each doubt."""
    if found is None:
        return []
    applied = "none, the start stands" if found.transform == "none" else found.transform
    if found.match is None:
        return [("alignment", applied)]
    share = _number(None if found.overlap is None else 100 * found.overlap)
    words = f"{applied}; match {_number(found.match)}, {share} % of the content in both"
    why = [("why", sentence) for sentence in found.decisions[-1:]]
    return [("alignment", words), *why, *[("doubtful", doubt) for doubt in found.doubts]]


def landmark_rows(found: LandmarkSummary | None) -> list[tuple[str, str]]:
    """The errors of the landmarks before and after: a mean alone hides the places that went wrong."""
    if found is None:
        return []
    before, after = found.before, found.after
    errors = (
        f"mean {before.mean_mm:.2f} → {after.mean_mm:.2f} mm, "
        f"95th percentile {before.p95_mm:.2f} → {after.p95_mm:.2f} mm, "
        f"largest {before.maximum_mm:.2f} → {after.maximum_mm:.2f} mm"
    )
    return [("landmark error", f"{errors}; {found.worse} of {found.count} got worse")]


def guidance_rows(found: GuidanceReport | None) -> list[tuple[str, str]]:
    """How well the landmarks that guided are met, and what keypoints were found; of labels it was said before."""
    if found is None:
        return []
    keypoints = [] if found.keypoints is None else [("keypoints", found.keypoints.sentence)]
    points = found.landmarks
    if points is None:
        return keypoints
    words = (
        f"mean {points.before.mean_mm:.2f} → {points.after.mean_mm:.2f} mm, largest {points.after.maximum_mm:.2f} mm"
    )
    doubt = f"; {points.contradicted} more than three deviations off: look at them" if points.contradicted else ""
    return [("guiding landmarks", f"{words}, no proof, the result was made so{doubt}"), *keypoints]


def contrast_rows(found: IntensityRelation | None, *, asked: bool) -> list[tuple[str, str]]:
    """Whether the intensities of both images go the same way, and whether they were compared in the end."""
    if found is None:
        return []
    share = f"{100 * found.reversed:.2g} % of their squared local correlation is negative"
    kind = "one contrast" if found.one_contrast else "two contrasts"
    ended = "compared" if found.one_contrast or asked else "not compared"
    return [("intensities", f"{kind}, {share}: {ended} at full resolution")]


def part_rows(found: PartsReport | None) -> list[tuple[str, str]]:
    """How each rigid part moves, and how far from rigid it was before."""
    rows = []
    for each in [] if found is None else found.parts:
        turned = f"turned by {each.rotation_deg:.2f}°, moved by {each.moved_mm:.2f} mm"
        rows.append(
            (f"rigid {each.name or each.label}", f"{turned}; was {each.from_rigid_mm.mean_mm:.2f} mm from rigid")
        )
    return rows


def sliding_rows(found: SlidingReport | None) -> list[tuple[str, str]]:
    """How far the inside of a wall slides along it, and what is left between both sides."""
    if found is None:
        return []
    slide, gap = found.slide_mm, found.gap_mm
    words = f"{slide.mean_mm:.2f} mm along the wall, at most {slide.maximum_mm:.2f} mm"
    return [("slide", f"{words}; both sides are {gap.mean_mm:.2f} mm apart, at most {gap.maximum_mm:.2f} mm")]


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _estimated(median_mm: float) -> str:
    """The median of the map of uncertainty, and that it is a scale and no error that was measured."""
    advice = "to compare places of this pair by; no measured error, large where images are flat"
    return f"{median_mm:.4g} mm in the median, {advice}"


def _there_and_back(found: InverseReport) -> str:
    """How far a point is from where it started, in words."""
    parts = [
        f"{errors.mean_mm:.4g} mm on average, {errors.p999_mm:.4g} mm for 1 of 1000"
        for errors in found.consistency.values()
        if errors.mean_mm is not None and errors.p999_mm is not None
    ]
    return "; ".join(parts) or "no point of one image comes to lie in the other"
