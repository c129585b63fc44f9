"""``semreg register``: two images in, the warped one, the transform, the field and a record out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from semreg.cli.common import check_judged, command_of, leave_by_verdict, limit_threads, print_json
from semreg.cli.contrast_flags import described, pixel_types, read_contrasts
from semreg.cli.dicom_output import read_sides
from semreg.cli.grouping import grouped
from semreg.cli.guidance_flags import read_guidance, read_label_map
from semreg.cli.register_files import (
    check_outputs,
    describe_inputs,
    run_into_folder,
    run_of,
    write_dicom,
    write_keypoints,
    write_results,
)
from semreg.cli.register_flags import PairFlags, RegisterFlags
from semreg.cli.report_output import verdict_of, write_proof
from semreg.cli.summary import show_registration
from semreg.errors import ConfigError
from semreg.runtime.events import Clock
from semreg.runtime.progress import IMPORTED, READ, REGISTER, Progress, ShareFile
from semreg.runtime.settings import to_dict
from semreg.runtime.terminal import show_sentences

if TYPE_CHECKING:
    from semreg.config import RegistrationConfig
    from semreg.core.fields import Volume
    from semreg.io.atomic_output import OutputFolder
    from semreg.io.bridge import LabelMap, LoadedImage
    from semreg.quality import Evaluation
    from semreg.quality.run import RegisterRun
    from semreg.registration.contrasts import Contrast
    from semreg.registration.guidance import Guidance
    from semreg.registration.result import Registration


@grouped
def register_command(context: typer.Context, flags: RegisterFlags) -> None:
    """Align MOVING with FIXED; write the warped image, the transform, the field, the settings, a record and a page.

    Of several ways to say one setting the later one in this row holds: the defaults, semreg.toml, --preset, --config,
    --fast or --quality, --elastix, the flags of models, --set, the flags of single settings such as --align.
    """
    with flags.messages.spoken():
        check_together(flags.pair)
        flags.contrasts.check()
        flags.guidance.check()
        if flags.dry_run:
            run_plan(flags)
        else:
            run_register(replace(flags, command=command_of(context)))


def check_together(pair: PairFlags) -> None:
    """Refuse flags that exclude each other (ConfigError)."""
    if pair.initial is not None and pair.initial_landmarks is not None:
        raise ConfigError("expected --initial or --initial-landmarks, got both: leave one out")


def run_plan(flags: RegisterFlags) -> None:
    """Print what would be done with these images, or refuse what a run would; registers and writes nothing."""
    config = flags.config
    check_settings(flags, config)
    check_outputs(flags)
    from semreg.features.trial import try_models, try_registrar
    from semreg.registration.pipeline import plan

    limit_threads(flags.threads)
    try_models([*config.models, *config.ensemble.entries])
    try_registrar(config.start)
    images, contrasts = read_all(flags)
    start, beside = read_start(flags.pair, images, private=flags.private), read_beside(flags, images)
    if flags.dicom:
        read_sides(flags.pair, images)
    found = plan(
        images["fixed"], images["moving"], config=config, contrasts=contrasts, device=flags.device,
        models=flags.folders, **vars(beside), **vars(start),
    )  # fmt: skip
    if flags.messages.as_json:
        settings = to_dict(found.config)
        print_json({"lines": list(found.sentences), "memory_bytes": found.memory_bytes, "settings": settings})
    elif not flags.messages.quiet:
        show_sentences(found.sentences)


def run_register(flags: RegisterFlags, on_share: Callable[[float, str], None] | None = None) -> None:
    """Read, register, write, and show the summary; ``on_share`` is that of ``Progress``, which shows nothing then."""
    config = flags.config
    check_settings(flags, config)
    run, files = run_into_folder(flags, lambda folder: registered(flags, config, folder, on_share))
    if flags.messages.as_json:
        print_json(run)
    elif not flags.messages.quiet:
        show_registration(run, files)
    leave_by_verdict(flags.fail_on, [None if run.verdict is None else run.verdict.level])


def check_settings(flags: RegisterFlags, config: RegistrationConfig) -> None:
    """Refuse settings that leave out what a flag asks for (ConfigError)."""
    if flags.uncertainty and not config.uncertainty.enabled:
        raise ConfigError("expected uncertainty.enabled=true with --uncertainty, got false: leave one of them out")
    check_judged(flags.fail_on, config)


def registered(
    flags: RegisterFlags,
    config: RegistrationConfig,
    folder: OutputFolder,
    on_share: Callable[[float, str], None] | None = None,
) -> RegisterRun:
    """Read, register, write and judge."""
    title = f"registering {flags.pair.moving} onto {flags.pair.fixed}"
    quiet = flags.messages.quiet or on_share is not None
    told = [] if on_share is None else [on_share]
    told += [] if flags.progress_file is None else [ShareFile(flags.progress_file)]

    def tell(share: float, stage: str) -> None:
        for each in told:
            each(share, stage)

    with Progress(quiet=quiet, stages=REGISTER, title=title, on_share=tell if told else None) as progress:
        return _registered(flags, config, folder, progress)


def _registered(
    flags: RegisterFlags, config: RegistrationConfig, folder: OutputFolder, progress: Progress
) -> RegisterRun:
    clock = Clock(None)
    with progress.stage("read"), clock.stage("read"):
        from semreg.features.descriptors import DESCRIPTORS
        from semreg.features.trial import try_models, try_registrar
        from semreg.quality.run import RegisterRun
        from semreg.registration.pipeline import register
        from semreg.runtime.memory import return_freed_memory

        if any(name not in DESCRIPTORS for entry in config.models for name in (entry.model, entry.moving or "mind")):
            return_freed_memory()  # what is kept for reuse would be taken for what a network needs
        try_models([*config.models, *config.ensemble.entries])
        try_registrar(config.start)
        progress.at(IMPORTED)
        images, contrasts = read_all(flags)
        progress.at(READ)
        start, beside = read_start(flags.pair, images, private=flags.private), read_beside(flags, images)
        sides = read_sides(flags.pair, images) if flags.dicom else None
        inputs = describe_inputs(flags, images)  # as they are now: nobody knows what they are when it ends
    for line in [*masked(start), *described(contrasts), *guided(beside.guidance)]:
        progress.say(line)
    explain = flags.explain and not flags.messages.quiet and not flags.messages.as_json
    result = register(
        images["fixed"], images["moving"], config=config, device=flags.device, models=flags.folders,
        on_plan=(lambda plan: show_sentences(plan.sentences)) if explain else None, on_step=progress,
        contrasts=contrasts, inverse=flags.inverse, **vars(beside), **vars(start),
    )  # fmt: skip
    with progress.stage("write"), clock.stage("write"):
        stored = pixel_types(contrasts) if flags.contrasts.images else []
        write_results(flags, result, folder, images["moving"].pixel_type, stored)
        given = write_keypoints(result, folder)
        given += [] if sides is None else write_dicom(result, sides, folder)
    unknown = flags.images.name("uncertainty")
    written = {*flags.outputs, *given}
    outputs = tuple(sorted(name for name in written if result.uncertainty is not None or name != unknown))
    run = run_of(flags, RegisterRun, result.record, inputs, outputs=outputs, seconds_files={})
    with progress.stage("judge"), clock.stage("judge"):
        evaluation = evaluation_of(result, start)
        if evaluation.landmarks is not None:
            from semreg.quality import LandmarkSummary

            run = replace(run, landmarks=LandmarkSummary.of(evaluation.landmarks))
        run = replace(run, verdict=verdict_of(result, evaluation))
    with progress.stage("page"), clock.stage("page"):
        drawn = write_page(flags, images, result, run, folder)
    seconds = {name: timing.seconds for name, timing in clock.timings.items()}
    return replace(run, outputs=tuple(sorted({*run.outputs, *drawn})), seconds_files=seconds)


def read_all(flags: RegisterFlags) -> tuple[dict[str, LoadedImage], Sequence[Contrast]]:
    """The first pair, and what is compared beside it."""
    if flags.contrasts.by_channel:
        from semreg.registration.contrasts import by_channel

        fixed, moving, contrasts = by_channel(flags.pair.fixed, flags.pair.moving)
        return {"fixed": fixed, "moving": moving}, contrasts
    images = read_images(flags.pair, private=flags.private)
    return images, read_contrasts(flags.contrasts, images, private=flags.private)


def read_images(pair: PairFlags, *, private: bool = False) -> dict[str, LoadedImage]:
    """Both images; a warning says where their headers are of two patients, ``private`` without what they say."""
    from semreg.io.files import in_one_unit, read_image
    from semreg.io.patients import say_if_two

    paths = {"fixed": pair.fixed, "moving": pair.moving}
    images = in_one_unit({name: read_image(path, series=pair.series.get(name)) for name, path in paths.items()})
    say_if_two({f"{name} image": image.origin for name, image in images.items()}, private=private)
    return images


@dataclass(frozen=True, kw_only=True)
class Start:
    """What counts of the images, and where the registration starts."""

    fixed_mask: Volume | None
    moving_mask: Volume | None
    initial: Any | None
    """A transform of SimpleITK."""
    landmarks: tuple[Any, Any] | None
    """Points (N, D) of both images in mm."""


def read_start(pair: PairFlags, images: Mapping[str, LoadedImage], *, private: bool = False) -> Start:
    """The masks, and the transform or the landmarks to start from."""
    from semreg.io.files import in_unit_of, read_mask
    from semreg.quality import read_both
    from semreg.transforms import check_frames, read_transform

    if pair.initial is not None:
        check_frames([pair.initial], {name: image.origin for name, image in images.items()}, private=private)

    def mask(name: str, path: Path | None) -> Volume | None:
        if path is None:
            return None
        found = read_mask(path)
        return replace(found, grid=in_unit_of(found.grid, path, images[name].volume.grid))

    return Start(
        fixed_mask=mask("fixed", pair.fixed_mask),
        moving_mask=mask("moving", pair.moving_mask),
        initial=None if pair.initial is None else read_transform(pair.initial),
        landmarks=None if pair.initial_landmarks is None else read_both(pair.initial_landmarks, images),
    )


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What is known beside the images."""

    stiffness: Volume | None
    rigid: LabelMap | None
    sliding: LabelMap | None
    guidance: Guidance | None


def read_beside(flags: RegisterFlags, images: Mapping[str, LoadedImage]) -> Beside:
    """The stiffness, the labels of parts that move in their own way, and what guides."""
    from semreg.io.files import read_image

    return Beside(
        stiffness=None if flags.stiffness is None else read_image(flags.stiffness).volume,
        rigid=None if flags.rigid is None else read_label_map(flags.rigid, images["fixed"]),
        sliding=None if flags.sliding is None else read_label_map(flags.sliding, images["fixed"]),
        guidance=read_guidance(flags.guidance, images),
    )


def masked(start: Start) -> list[str]:
    """How much of each masked image counts, in a sentence."""
    masks = {"fixed": start.fixed_mask, "moving": start.moving_mask}
    shares = {name: 100 * float((mask.data > 0).double().mean()) for name, mask in masks.items() if mask is not None}
    return [f"{name} mask: {share:.3g} % of its voxels count" for name, share in shares.items()]


def guided(guidance: Guidance | None) -> list[str]:
    """What guides beside the images, in sentences; labels of one image alone are named."""
    from semreg.registration.guidance import sentences

    return [] if guidance is None else sentences(guidance)


def evaluation_of(result: Registration, start: Start) -> Evaluation:
    """The errors of the landmarks that the start was found from, before and after; nothing without such."""
    from semreg.quality import Evaluation, table_of_landmarks
    from semreg.quality.subject import way_of

    if start.landmarks is None:
        return Evaluation()
    return Evaluation(landmarks=table_of_landmarks(way_of(result.transform()), None, start.landmarks))


def write_page(
    flags: RegisterFlags,
    images: Mapping[str, LoadedImage],
    result: Registration,
    run: RegisterRun,
    folder: OutputFolder,
) -> list[str]:
    """Write the page and the figures that are wanted; their names."""
    if not flags.proof.wanted:
        return []
    from semreg.report import Case

    case = Case.of(result, images["fixed"], images["moving"], verdict=run.verdict, run=run)
    return write_proof(case, folder, flags.proof)
