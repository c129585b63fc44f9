"""``semreg register``: two images in, the warped one, the transform, the field and a record out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from semreg.cli.common import check_dtype, command_of, print_json
from semreg.cli.grouping import grouped
from semreg.cli.register_files import (
    check_outputs,
    describe_inputs,
    remove_stale,
    write_results,
    write_texts,
    written_before,
)
from semreg.cli.register_flags import PairFlags, RegisterFlags, load_config
from semreg.cli.report_output import verdict_on, write_proof
from semreg.errors import ConfigError
from semreg.runtime.terminal import Progress, show_sentences, show_summary

if TYPE_CHECKING:
    from semreg.config import RegistrationConfig
    from semreg.io.atomic_output import OutputFolder
    from semreg.io.bridge import LoadedImage
    from semreg.registration.automatic import Decision
    from semreg.registration.pipeline import Registration


@grouped
def register_command(context: typer.Context, flags: RegisterFlags) -> None:
    """Align MOVING with FIXED; write the warped image, the transform, the field, the settings, a record and a page.

    Of several ways to say one setting the later one in this row holds: the defaults, --preset, --config, --fast or
    --quality, the flags of models, --set, the flags of single settings such as --align.
    """
    with flags.messages.spoken():
        check_together(flags.pair)
        if flags.dry_run:
            run_plan(flags)
        else:
            run_register(replace(flags, command=command_of(context)))


def check_together(pair: PairFlags) -> None:
    """Refuse flags that exclude each other (ConfigError)."""
    if pair.initial is not None and pair.initial_landmarks is not None:
        raise ConfigError("expected --initial or --initial-landmarks, got both: leave one out")


def run_plan(flags: RegisterFlags) -> None:
    """Print what would be done; reads the headers of the images, with ``--explain`` the images; writes nothing."""
    config = load_config(flags.settings)
    from semreg.io.files import read_grid
    from semreg.registration.plan import plan
    from semreg.runtime.devices import choose_device

    device = choose_device(flags.device)
    if flags.explain:
        images = read_images(flags.pair)
        decision = decide_on(flags, config, images, device)
        if flags.messages.as_json:
            print_json({"lines": list(decision.lines), "memory_bytes": decision.memory_bytes})
        elif not flags.messages.quiet:
            show_sentences(decision.lines)
        return
    grids = read_grid(flags.pair.fixed), read_grid(flags.pair.moving)
    planned = plan(*grids, config=config, device=device, initial=flags.pair.started, models=flags.folders)
    if flags.messages.as_json:
        print_json({"lines": list(planned.lines), "memory_bytes": planned.memory_bytes})
    elif not flags.messages.quiet:
        show_sentences([*planned.lines, f"It will take about {planned.memory_bytes / 1e9:.2g} GB of memory."])


def run_register(flags: RegisterFlags) -> None:
    """Read, register, write, and show the summary."""
    config = load_config(flags.settings)
    if flags.uncertainty and not config.uncertainty.enabled:
        raise ConfigError("expected uncertainty.enabled=true with --uncertainty, got false: leave one of them out")
    check_outputs(flags)
    before = written_before(flags.pair.output)
    from semreg.io import files
    from semreg.runtime.devices import choose_device

    check_dtype(flags.images.dtype)
    if flags.threads is not None:
        files.limit_threads(flags.threads)
    device = choose_device(flags.device)
    with files.OutputFolder(flags.pair.output) as folder:
        record = registered(flags, config, device, folder)
        write_texts(record, folder)
    remove_stale(flags, before, record["outputs"])
    if flags.messages.as_json:
        print_json(record)
    elif not flags.messages.quiet:
        show_summary(record, [str(path) for path in folder.files])


def registered(flags: RegisterFlags, config: RegistrationConfig, device: Any, folder: OutputFolder) -> dict[str, Any]:
    """Read, register, write and judge; the record."""
    from semreg.registration.pipeline import register
    from semreg.registration.record import versions
    from semreg.runtime.events import Clock

    clock = Clock(None)
    with clock.stage("read"):
        images = read_images(flags.pair)
        beside = read_beside(flags, images)
    if flags.explain and not flags.messages.quiet and not flags.messages.as_json:
        show_sentences(decide_on(flags, config, images, device).lines)
    with Progress(quiet=flags.messages.quiet) as progress:
        result = register(
            images["fixed"], images["moving"], config=config, device=str(device), models=flags.folders,
            on_step=progress, **beside,
        )  # fmt: skip
    with clock.stage("write"):
        write_results(flags, result, folder, images["moving"].pixel_type)
    unknown = flags.images.name("uncertainty")
    record = {
        **result.record,
        "inputs": describe_inputs(flags, images),
        "command": list(flags.command),
        "versions": versions(),
        "outputs": [name for name in flags.outputs if result.uncertainty is not None or name != unknown],
    }
    with clock.stage("proof"):
        landmarks = landmarks_of(result, beside)
        if landmarks is not None:
            from semreg.quality import landmark_summary

            record["landmarks"] = landmark_summary(landmarks)
        record["verdict"] = judge_result(images, beside, result, {**record, "landmarks": landmarks})
        drawn = prove(flags, images, result, record, folder)
    seconds = {name: timing["seconds"] for name, timing in clock.timings.items()}
    return {**record, "outputs": sorted({*record["outputs"], *drawn}), "seconds_files": seconds}


def decide_on(
    flags: RegisterFlags, config: RegistrationConfig, images: Mapping[str, LoadedImage], device: Any
) -> Decision:
    """What will be decided of these two images."""
    from semreg.preprocess.image_pair import recognise_both
    from semreg.registration.automatic import decide, look, this_machine

    known = recognise_both(images["fixed"], images["moving"], config)
    fixed, moving = (look(images[name].volume, known[name]) for name in ("fixed", "moving"))
    return decide(fixed, moving, config, this_machine(device), initial=flags.pair.started)


def read_images(pair: PairFlags) -> dict[str, LoadedImage]:
    """Both images."""
    from semreg.io.files import in_one_unit, read_image

    def read(name: str, path: Path) -> LoadedImage:
        return read_image(path, series=pair.series[name]) if name in pair.series else read_image(path)

    return in_one_unit({"fixed": read("fixed", pair.fixed), "moving": read("moving", pair.moving)})


def read_beside(flags: RegisterFlags, images: Mapping[str, LoadedImage]) -> dict[str, Any]:
    """What ``register`` takes beside the images: masks, start, stiffness, and whether the inverse is wanted."""
    from semreg.io.files import in_unit_of, read_image, read_mask
    from semreg.transforms import read_transform

    found: dict[str, Any] = {"fixed_mask": None, "moving_mask": None}
    for name, path in (("fixed", flags.pair.fixed_mask), ("moving", flags.pair.moving_mask)):
        if path is not None:
            mask, image = read_mask(path), images[name].volume.grid
            found[f"{name}_mask"] = replace(mask, grid=in_unit_of(mask.grid, path, image))
    found["initial"] = None if flags.pair.initial is None else read_transform(flags.pair.initial)
    if flags.pair.initial_landmarks is not None:
        from semreg.transforms import read_points

        found["landmarks"] = tuple(read_points(path).points.T for path in flags.pair.initial_landmarks)
    if flags.stiffness is not None:
        found["stiffness"] = read_image(flags.stiffness).volume
    if flags.inverse:
        found["inverse"] = True
    return found


def landmarks_of(result: Registration, beside: Mapping[str, Any]) -> dict[str, Any] | None:
    """The errors of the landmarks that the start was found from, before and after; None without such."""
    from semreg.quality import table_of_landmarks
    from semreg.quality.subject import way_of

    given = beside.get("landmarks")
    return None if given is None else table_of_landmarks(way_of(result.transform()), None, given)


def judge_result(
    images: Mapping[str, LoadedImage], beside: Mapping[str, Any], result: Registration, record: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The verdict on what was found."""
    from semreg.config import RegistrationConfig
    from semreg.settings import from_dict

    return verdict_on(
        (images["fixed"], images["moving"]),
        result.field,
        masks=(beside["fixed_mask"], beside["moving_mask"]),
        config=from_dict(RegistrationConfig, record["settings"]),
        known={
            "evaluation": {"landmarks": record["landmarks"]},
            "uncertainty": record["uncertainty"],
            "record": record,
        },
    )


def prove(
    flags: RegisterFlags,
    images: Mapping[str, LoadedImage],
    result: Registration,
    record: Mapping[str, Any],
    folder: OutputFolder,
) -> list[str]:
    """Write the page and the figures that are wanted; their names."""
    if not flags.proof.wanted:
        return []
    from semreg.report import Case

    case = Case.of(result, images["fixed"], images["moving"], verdict=record["verdict"], record=record)
    return write_proof(case, folder, flags.proof)
