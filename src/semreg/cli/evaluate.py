"""``semreg evaluate``: how good a transform is, in numbers, before and after side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from semreg.cli.common import check_not_read, command_of, leave_by_verdict, limit_threads, print_json
from semreg.cli.evaluate_flags import EvaluateFlags, LandmarkUnit
from semreg.cli.grouping import grouped
from semreg.cli.report_output import ProofFlags, write_proof
from semreg.cli.settings_file import OFF
from semreg.cli.summary import show_evaluation
from semreg.errors import ConfigError
from semreg.io.result_folder import EVALUATION, EVALUATION_TABLE, PAGE

if TYPE_CHECKING:
    from semreg.config import RegistrationConfig
    from semreg.core.fields import Volume
    from semreg.io.bridge import LabelMap, LoadedImage
    from semreg.quality import EvaluationRun, Result, Subject, Verdict
    from semreg.quality.run import ReadFile
    from semreg.report import Case

ADVICE = "use --no-similarity, smaller images or a machine with more memory"


@dataclass(frozen=True)
class Evaluated:
    """What was read and what was measured: all that a verdict and a report need."""

    subject: Subject
    """The images, the mask, the transform and the way back, on the fixed grid."""
    run: EvaluationRun
    """The measures, and of what; without a verdict."""
    images: Mapping[str, LoadedImage]
    """``fixed`` and ``moving``, where they were given."""
    labels: tuple[LabelMap, LabelMap] | None
    """Of both images."""
    moving_mask: Volume | None
    result: Result | None
    """The folder of results and its record, if one was given."""
    output: Path | None
    """Where files are to be written; None: nowhere."""
    changes: tuple[str, ...] = ()
    """Sentences on images that are not those that were registered."""


@grouped
def evaluate_command(context: typer.Context, flags: EvaluateFlags) -> None:
    """Measure a registration: landmarks, labels, deformation, similarity, and the way back.

    FOLDER is what semreg register wrote: its images, mask and inverse are found by its record. Of a TRANSFORM what is
    given is measured: landmarks alone need no image. Writes evaluation.json and evaluation.csv and, where both images
    are known, a page that shows the result, with a verdict.
    """
    messages = flags.messages
    with messages.spoken(ADVICE):
        limit_threads(flags.threads)
        found = evaluated(flags)
        run = replace(found.run, command=command_of(context), verdict=judged(found, checks_of(flags, found.result)))
        if flags.fail_on is not None and run.verdict is None:
            raise ConfigError("expected what is judged with --fail-on, got no verdict: give --fixed and --moving")
        found, run = made_private(found, run) if is_private(flags, found.result) else (found, run)
        files = write_evaluated(found, run, flags.proof)
        if messages.as_json:
            print_json(run)
        elif flags.as_csv:
            typer.echo(run.csv(), nl=False)
        elif not messages.quiet:
            show_evaluation(run, run.verdict, files, everything=flags.everything)
        leave_by_verdict(flags.fail_on, [None if run.verdict is None else run.verdict.level])


def is_private(flags: EvaluateFlags, result: Result | None) -> bool:
    """Whether names are left out: where that is asked for, and beside a record without them."""
    return flags.private or (result is not None and result.record.private)


def made_private(found: Evaluated, run: EvaluationRun) -> tuple[Evaluated, EvaluationRun]:
    """What is written of it, and what a page shows, without names."""
    from semreg.quality.privacy import names_in, private
    from semreg.runtime.texts import without

    names = names_in(run)
    result = found.result
    if result is not None:
        result = replace(result, record=private(result.record))
    changes = tuple(without(each, names) for each in found.changes)
    return replace(found, changes=changes, result=result), private(run)


def evaluated(flags: EvaluateFlags) -> Evaluated:
    """Read all that is named and measure it; writes nothing."""
    from semreg.io.files import read_mask
    from semreg.io.records import versions
    from semreg.quality import EvaluationConfig, EvaluationRun, measure, prepare, read_label_names, read_landmarks
    from semreg.transforms import Outside

    config = EvaluationConfig(tolerance_mm=flags.tolerance, similarity=flags.similarity, outside=flags.outside)
    result = folder_of(flags)
    output = flags.output or (None if result is None else flags.sources[0])
    paths = paths_of(flags, result)
    if output is not None:
        flat = [path for given in paths.values() for path in given]
        for name in (EVALUATION, EVALUATION_TABLE, PAGE):
            check_not_read(output / name, flat)
    landmarks = read_landmarks(*flags.landmarks, ras=flags.ras) if any(flags.landmarks) else None
    names = None if flags.names is None else read_label_names(flags.names)
    images = read_images(paths, flags.series, result)
    notes: tuple[str, ...] = ()
    if landmarks is not None and in_pixels(flags, images, said=landmarks.in_voxels):
        from semreg.quality import of_pixels

        sides = zip(("fixed", "moving"), landmarks[:2], strict=True)
        fixed, moving = (of_pixels(points, images[side].volume.grid) for side, points in sides)
        landmarks = landmarks._replace(fixed=fixed, moving=moving)
        notes = ("The landmarks count as pixels, from 0 at the centre of the first one; errors are in mm.",)
    labels = None if flags.labels is None else labels_beside(flags.labels, images)
    subject = prepare(
        paths["transform"],
        fixed=images.get("fixed"),
        moving=images.get("moving"),
        fixed_mask=next(iter(paths["mask"]), None),
        initial=paths["initial"] or None,
        inverse=next(iter(paths["inverse"]), None),
        grid=None if labels is None else labels[0].grid,
        outside=Outside(flags.outside),
    )
    evaluation = measure(subject, landmarks=landmarks, labels=labels, label_names=names, config=config)
    if subject.field is None and landmarks is None:
        raise ConfigError(
            "expected an image or landmarks to measure with, got a linear transform alone: give --fixed or landmarks"
        )
    other = next((read_mask(path) for path in paths["moving_mask"]), None)
    run = EvaluationRun.of(evaluation, inputs=described(paths, images), versions=versions())
    run = replace(run, notes=(*notes, *run.notes))
    return Evaluated(subject, run, images, labels, other, result, output, changes_since(run.inputs, result))


def labels_beside(paths: Sequence[Path], images: Mapping[str, LoadedImage]) -> tuple[LabelMap, LabelMap]:
    """Both label maps, pictures in the unit of their images."""
    from semreg.io.files import in_unit_of, read_labels

    fixed, moving = (read_labels(path) for path in paths)
    found = {"fixed": fixed, "moving": moving}
    for (name, labels), path in zip(list(found.items()), paths, strict=True):
        if name in images:
            found[name] = labels.at(in_unit_of(labels.grid, path, images[name].volume.grid))
    return found["fixed"], found["moving"]


def in_pixels(flags: EvaluateFlags, images: Mapping[str, LoadedImage], *, said: bool) -> bool:
    """Whether landmarks are indices of pixels, ``said`` by their files (ConfigError for such without both images)."""
    from semreg.io.pictures import ENDINGS

    if said and flags.landmarks_in is LandmarkUnit.MM:
        raise ConfigError("expected landmarks in mm, got files that count in voxels: leave --landmarks-in out")
    if (said or flags.landmarks_in is LandmarkUnit.PIXELS) and len(images) < 2:
        raise ConfigError("expected both images with landmarks in pixels, got fewer: name them too")
    if said or flags.landmarks_in is not LandmarkUnit.AUTO or len(images) < 2:
        return said or flags.landmarks_in is LandmarkUnit.PIXELS
    tables = all(path.suffix.lower() == ".csv" for side in flags.landmarks for path in side)
    return tables and all(image.path.name.lower().endswith(ENDINGS) for image in images.values())


def folder_of(flags: EvaluateFlags) -> Result | None:
    """The folder of results, None where transforms are named (ConfigError for both)."""
    folders = [path for path in flags.sources if path.is_dir()]
    if not folders:
        return None
    if len(flags.sources) > 1:
        raise ConfigError(f"expected one folder of results or transform files, got {folders[0]} and more: name one")
    from semreg.quality import read_result

    return read_result(folders[0])


def paths_of(flags: EvaluateFlags, result: Result | None) -> dict[str, list[Path]]:
    """All files that are read, by what they are; a flag holds before what the record of the folder says."""

    def chosen(given: Path | None, role: str) -> list[Path]:
        path = given if given is not None or result is None else result.located(role)
        return [] if path is None else [path]

    back = flags.inverse
    if back is None and result is not None and result.place.inverse.is_file():
        back = result.place.inverse
    return {
        "transform": list(flags.sources) if result is None else [result.place.transform],
        "fixed": chosen(flags.fixed, "fixed"),
        "moving": chosen(flags.moving, "moving"),
        "mask": chosen(flags.mask, "fixed_mask"),
        "moving_mask": chosen(flags.moving_mask, "moving_mask"),
        "inverse": [] if back is None else [back],
        "initial": list(flags.initial),
        "fixed_landmarks": list(flags.landmarks[0]),
        "moving_landmarks": list(flags.landmarks[1]),
        "labels": list(flags.labels or ()),
    }


def read_images(
    paths: Mapping[str, list[Path]], series: Mapping[str, str | None], result: Result | None
) -> dict[str, LoadedImage]:
    """The images that are named; of a folder that was registered the series that was, where none is named."""
    from semreg.io.files import in_one_unit, read_image

    found = {}
    for name in ("fixed", "moving"):
        for path in paths[name]:
            named = result is not None and not result.record.private and path == result.located(name)
            known = result.record.inputs[name].series if result and named else None
            found[name] = read_image(path, series=series[name] or known)
    return in_one_unit(found)


def described(paths: Mapping[str, list[Path]], images: Mapping[str, LoadedImage]) -> dict[str, tuple[ReadFile, ...]]:
    """Paths and checksums of all that was read."""
    from semreg.quality.run import ReadFile

    found = {name: tuple(map(ReadFile.of, given)) for name, given in paths.items() if given and name not in images}
    return found | {name: (ReadFile(path=str(i.path), sha256=i.sha256),) for name, i in images.items()}


def changes_since(inputs: Mapping[str, tuple[ReadFile, ...]], result: Result | None) -> tuple[str, ...]:
    """Which images differ from those that the folder's transform was found with; each is warned of."""
    import logging

    found = [
        f"{inputs[name][0].path} is not the {name} image that was registered: its content differs"
        for name in ("fixed", "moving")
        if result is not None and inputs[name][0].sha256 != result.record.inputs[name].sha256
    ]
    for sentence in found:
        logging.getLogger("semreg").warning("%s", sentence)
    return tuple(f"{sentence}." for sentence in found)


def checks_of(flags: EvaluateFlags, result: Result | None) -> RegistrationConfig:
    """The settings that hold: those of the folder's record, over them ``--config`` and each ``--set``.

    No file is looked for: a result is judged by the settings that it was found with, wherever that is done.
    """
    from semreg.presets import layered, read_toml
    from semreg.runtime.settings import override, to_dict

    layers = [] if result is None else [to_dict(result.record.settings)]
    config = layered(*layers, *([] if flags.config in (None, OFF) else [read_toml(flags.config)]))
    for assignment in flags.assignments:
        config = override(config, assignment)
    return config


def judged(found: Evaluated, config: RegistrationConfig) -> Verdict | None:
    """The verdict with all that was measured; None without both images, or where it is not wanted."""
    import torch

    from semreg.core.fields import Volume
    from semreg.quality import collect_evidence, judge

    subject = found.subject
    field, mask = subject.field, subject.mask
    if not config.checks.enabled or subject.fixed is None or subject.moving is None or field is None:
        return None
    if subject.left_out is not None:  # what lies beyond is not judged: no content there, and no tear at the face
        from semreg.transforms import Outside

        field = replace(subject.way, outside=Outside.CONTINUE).on(field.grid)
        kept = torch.ones_like(field.vox[:1]) if mask is None else mask.data
        mask = Volume(kept * ~subject.left_out, field.grid)
    evidence = collect_evidence(
        subject.fixed, subject.moving, field, fixed_mask=mask, moving_mask=found.moving_mask, config=config
    )
    record = None if found.result is None else found.result.record
    return judge(evidence, config=config.checks, evaluation=found.run, record=record)


def case_of(found: Evaluated, run: EvaluationRun) -> Case | None:
    """What a page shows of it; None without both images."""
    subject, result = found.subject, found.result
    if subject.fixed is None or subject.moving is None or subject.field is None:
        return None
    from semreg.report import Case
    from semreg.report.folder import structure_of, uncertainty_of

    structure, said = (None, []) if result is None else structure_of(result, subject.fixed.grid)
    names = {name: Path(run.inputs[name][0].path).name for name in found.images}
    labels = found.labels or (None, None)
    return Case(
        fixed=subject.fixed,
        moving=subject.moving,
        field=subject.field,
        linear=subject.way.linear,
        initial=subject.before,
        background=None if result is None else result.record.background,
        uncertainty=None if result is None else uncertainty_of(result, subject.fixed.grid),
        evaluation=run,
        verdict=run.verdict,
        record=None if result is None else result.record,
        fixed_labels=labels[0],
        moving_labels=labels[1],
        structure=structure,
        names=names,
        oriented={name: image.oriented for name, image in found.images.items()},
        title=f"{names['moving']} onto {names['fixed']}",
        notes=(*found.changes, *said),
    )


def write_evaluated(found: Evaluated, run: EvaluationRun, proof: ProofFlags) -> list[Path]:
    """Write evaluation.json, evaluation.csv and what is to be looked at, where there is a folder; the files."""
    if found.output is None:
        return []
    from semreg.io.files import OutputFolder
    from semreg.quality import stage_evaluation

    with OutputFolder(found.output, record=EVALUATION) as folder:
        stage_evaluation(run, folder)
        case = case_of(found, run) if proof.wanted else None
        if case is not None:
            write_proof(case, folder, proof)
    return folder.files
