"""Makes one of the built-in pairs, registers it, writes all files and says how far landmarks are off, in mm.

Does nothing that a user could not do with the public names. Knows nothing of the terminal.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from semreg.errors import ConfigError
from semreg.io.files import OutputFolder, checksum, write_field, write_image, write_transform
from semreg.io.records import stable_json, versions
from semreg.io.result_folder import EVALUATION, EVALUATION_TABLE, PAGE, RECORD, TRANSFORM
from semreg.phantom import PhantomPair, make_brains, make_pair, make_slides
from semreg.phantom.writing import pixel_type_of, stage_pair, write_pair
from semreg.quality import (
    EvaluationRun,
    LandmarkSummary,
    evaluate,
    evidence_of,
    judge,
    stage_evaluation,
)
from semreg.quality.run import InputFile, RegisterRun
from semreg.registration.pipeline import register
from semreg.report import Case, write_report
from semreg.runtime.events import OnStep


class Kind(NamedTuple):
    """One of the built-in pairs."""

    make: Callable[..., PhantomPair]
    size: int
    """About how many voxels an axis has where nothing is said."""
    shows: str
    suffix: str = ".nii.gz"


KINDS = {
    "abdomen": Kind(make_pair, 120, "a CT-like and an MR-like image"),
    "brain": Kind(make_brains, 96, "two brains in MR"),
    "slides": Kind(make_slides, 256, "two stained slides", ".png"),
}
"""By what the command line calls them."""


def write_images(out: Path, *, kind: str = "abdomen", size: int | None = None) -> list[Path]:
    """Write the images, labels and landmarks of a built-in pair to ``out`` alone; the files.

    ``size``: about how many voxels an axis. Raises ConfigError for a kind or size that is none, OutputError.
    """
    each = kind_called(kind)
    return write_pair(each.make(size=size or each.size), out, suffix=each.suffix)


def run(out: Path, *, kind: str = "abdomen", size: int | None = None, on_step: OnStep | None = None) -> list[str]:
    """Register a built-in pair of about ``size`` voxels an axis, write everything to ``out``, return what to print.

    Raises ConfigError for a kind or size that is none, OutputError if ``out`` cannot be written; then nothing is left
    there.
    """
    each = kind_called(kind)
    pair = each.make(size=size or each.size)
    with OutputFolder(out, record=RECORD) as folder:
        stage_pair(pair, folder, suffix=each.suffix)
        result = register(pair.fixed, pair.moving, on_step=on_step)
        points = (pair.fixed_points.numpy(), pair.moving_points.numpy())
        evaluation = evaluate(result, fixed=pair.fixed, moving=pair.moving, landmarks=points)
        verdict = judge(evidence_of(result), evaluation=evaluation, record=result.record)
        landmarks = None if evaluation.landmarks is None else LandmarkSummary.of(evaluation.landmarks)
        write_image(result.warped, folder.stage("warped.nii.gz"), pixel_type_of(pair.moving))
        write_field(result.field, folder.stage("field.nii.gz"))
        write_transform(result.field, folder.stage(TRANSFORM))
        if result.uncertainty is not None:
            write_image(result.uncertainty, folder.stage("uncertainty.nii.gz"))
        names = {name: name + each.suffix for name in ("fixed", "moving")}
        staged = {path.name for path in folder.stage(RECORD).parent.iterdir()}
        staged |= {RECORD, EVALUATION, EVALUATION_TABLE, PAGE}
        run = RegisterRun.of(
            result.record,
            inputs={role: InputFile(path=name, sha256=checksum(folder.stage(name))) for role, name in names.items()},
            command=(), versions=versions(), outputs=tuple(sorted(staged)),
            landmarks=landmarks, verdict=verdict, seconds_files={},
        )  # fmt: skip
        folder.stage(RECORD).write_text(stable_json(run), encoding="utf-8")
        stage_evaluation(EvaluationRun.of(evaluation, verdict=verdict), folder)
        case = Case(
            fixed=pair.fixed, moving=pair.moving, field=result.field, warped=result.warped,
            jacobian=result.jacobian(), uncertainty=result.uncertainty, evaluation=evaluation, verdict=verdict,
            record=run, names=names, oriented=dict.fromkeys(names, True), title="The built-in phantoms",
        )  # fmt: skip
        write_report(case, folder.stage(PAGE))
    jacobian = result.record.jacobian
    return [
        f"{len(pair.fixed_points)} landmarks on {each.shows} with a known deformation",
        *([] if landmarks is None else landmark_lines(landmarks)),
        f"smallest Jacobian: {jacobian.minimum:.3f}",
        f"folded voxels: {100 * jacobian.folded_share:.3g} %",
        f"verdict: {verdict.level}, see {out / PAGE}",
        *verdict.reasons,
        "files: " + ", ".join(str(path) for path in folder.files),
    ]


def landmark_lines(found: LandmarkSummary) -> list[str]:
    """The errors before and after, and how many points got worse."""
    before, after = (
        f"mean {e.mean_mm:.2f} mm, 95th percentile {e.p95_mm:.2f} mm, largest {e.maximum_mm:.2f} mm"
        for e in (found.before, found.after)
    )
    got_worse = f"landmarks that got worse: {found.worse} of {found.count}"
    return [f"landmark error before: {before}", f"landmark error after:  {after}", got_worse]


def kind_called(name: str) -> Kind:
    """The pair of a name (ConfigError)."""
    if name not in KINDS:
        raise ConfigError(f"expected a built-in pair of {', '.join(KINDS)}, got {name!r}: choose one of them")
    return KINDS[name]
