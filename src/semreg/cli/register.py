"""``semreg register``: two images in, the warped one, the transform, the field and a record out."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semreg.cli.common import Debug, Device, Folders, ImageFormat, Threads, check_dtype, print_json, sentences
from semreg.cli.model_flags import Components, Distances, ModelFlags, ModelLayers, Models, MovingModels, Specs, Weights
from semreg.cli.proof import Dpi, Figures, ProofOptions, Report, verdict_on, write_proof
from semreg.cli.register_files import (
    check_outputs,
    describe_inputs,
    remove_stale,
    write_results,
    write_texts,
    written_before,
)
from semreg.cli.register_flags import (
    Align,
    Assignments,
    BodyMask,
    Config,
    Diffeomorphic,
    DryRun,
    Explain,
    Fast,
    FixedMask,
    FixedSeries,
    Initial,
    Inverse,
    Jacobian,
    Landmarks,
    MovingMask,
    MovingSeries,
    PresetName,
    Quality,
    RegisterOptions,
    Seed,
    SettingFlags,
    Stiffness,
    Symmetric,
    Uncertainty,
    load_config,
)
from semreg.errors import ConfigError
from semreg.terminal import Progress, show_log, show_sentences, show_summary

if TYPE_CHECKING:
    from semreg.automatic import Decision
    from semreg.config import RegistrationConfig
    from semreg.itk_bridge import LoadedImage
    from semreg.registration import Registration
    from semreg.staging import OutputFolder


def register_command(  # noqa: PLR0913, PLR0917 - one parameter a flag
    context: typer.Context,
    fixed: Annotated[Path, typer.Argument(help="Fixed image: a file, or the folder of a DICOM series.")],
    moving: Annotated[Path, typer.Argument(help="Moving image, brought onto the fixed one.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    fixed_mask: FixedMask = None,
    moving_mask: MovingMask = None,
    fixed_series: FixedSeries = None,
    moving_series: MovingSeries = None,
    initial: Initial = None,
    initial_landmarks: Landmarks = None,
    align: Align = None,
    preset: PresetName = None,
    fast: Fast = False,
    quality: Quality = False,
    explain: Explain = False,
    symmetric: Symmetric = None,
    diffeomorphic: Diffeomorphic = None,
    body_mask: BodyMask = None,
    stiffness: Stiffness = None,
    inverse: Inverse = False,
    jacobian: Jacobian = False,
    uncertainty: Uncertainty = False,
    report: Report = True,
    figures: Figures = False,
    dpi: Dpi = 150,
    model: Models = None,
    moving_model: MovingModels = None,
    layers: ModelLayers = None,
    distance: Distances = None,
    weight: Weights = None,
    pca: Components = None,
    spec: Specs = None,
    models: Folders = None,
    device: Device = "auto",
    threads: Threads = None,
    seed: Seed = None,
    config: Config = None,
    assignments: Assignments = None,
    dry_run: DryRun = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON and nothing else.")] = False,
    dtype: Annotated[str | None, typer.Option(help="Voxel type of the warped image; else the moving one's.")] = None,
    image_format: Annotated[ImageFormat, typer.Option("--format", help="Of the images written.")] = ImageFormat.NIFTI,
    debug: Debug = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what is done in detail.")] = False,
) -> None:
    """Align MOVING with FIXED; write the warped image, the transform, the field, the settings, a record and a page.

    Of several ways to say one setting the later one in this row holds: the defaults, --preset, --config, --fast or
    --quality, the flags of models, --set, the flags of single settings such as --align.
    """
    networks = ModelFlags(
        model=tuple(model or ()), moving=tuple(moving_model or ()), layers=tuple(layers or ()),
        distance=tuple(distance or ()), weight=tuple(weight or ()), pca=tuple(pca or ()), spec=tuple(spec or ()),
    )  # fmt: skip
    settings = SettingFlags(
        preset=preset, config=config, fast=fast, quality=quality, models=networks,
        assignments=tuple(assignments or ()), align=None if align is None else align.value, body_mask=body_mask,
        symmetric=symmetric, diffeomorphic=diffeomorphic, seed=seed,
    )  # fmt: skip
    series = {name: text for name, text in (("fixed", fixed_series), ("moving", moving_series)) if text is not None}
    options = RegisterOptions(
        fixed=fixed, moving=moving, output=output, fixed_mask=fixed_mask, moving_mask=moving_mask, series=series,
        initial=initial, landmarks=initial_landmarks, stiffness=stiffness, inverse=inverse, jacobian=jacobian,
        settings=settings, folders=tuple(models or ()), device=device, threads=threads, explain=explain,
        dry_run=dry_run, quiet=quiet, as_json=as_json, dtype=dtype, image_format=image_format,
        uncertainty=uncertainty, proof=ProofOptions(report=report, figures=figures, dpi=dpi),
        command=tuple(context.obj or ("semreg", *sys.argv[1:])),
    )  # fmt: skip
    with sentences(debug=debug):
        show_log(quiet=quiet, verbose=verbose)
        check_together(options)
        if dry_run:
            run_plan(options)
        else:
            run_register(options)


def check_together(options: RegisterOptions) -> None:
    """Refuse flags that exclude each other (ConfigError)."""
    if options.initial is not None and options.landmarks is not None:
        raise ConfigError("expected --initial or --initial-landmarks, got both: leave one out")


def run_plan(options: RegisterOptions) -> None:
    """Print what would be done; reads the headers of the images, with ``--explain`` the images; writes nothing."""
    config = load_config(options.settings)
    from semreg.devices import choose_device
    from semreg.files import read_grid
    from semreg.planning import plan

    device = choose_device(options.device)
    if options.explain:
        images = read_images(options)
        decision = decide_on(options, config, images, device)
        if options.as_json:
            print_json({"lines": list(decision.lines), "memory_bytes": decision.memory_bytes})
        elif not options.quiet:
            show_sentences(decision.lines)
        return
    grids = read_grid(options.fixed), read_grid(options.moving)
    started = options.initial is not None or options.landmarks is not None
    planned = plan(*grids, config, device, initial=started, folders=options.folders)
    if options.as_json:
        print_json({"lines": list(planned.lines), "memory_bytes": planned.memory_bytes})
    elif not options.quiet:
        show_sentences([*planned.lines, f"It will take about {planned.memory_bytes / 1e9:.2g} GB of memory."])


def run_register(options: RegisterOptions) -> None:
    """Read, register, write, and show the summary."""
    config = load_config(options.settings)
    if options.uncertainty and not config.uncertainty.enabled:
        raise ConfigError("expected uncertainty.enabled=true with --uncertainty, got false: leave one of them out")
    check_outputs(options)
    before = written_before(options.output)
    from semreg import files
    from semreg.devices import choose_device
    from semreg.record import versions
    from semreg.registration import register

    check_dtype(options.dtype)
    if options.threads is not None:
        files.limit_threads(options.threads)
    device = choose_device(options.device)
    with files.OutputFolder(options.output) as folder:
        started = time.perf_counter()
        images = read_images(options)
        beside = read_beside(options)
        seconds_read = time.perf_counter() - started
        if options.explain and not options.quiet and not options.as_json:
            show_sentences(decide_on(options, config, images, device).lines)
        with Progress(quiet=options.quiet) as progress:
            result = register(
                images["fixed"].volume,
                images["moving"].volume,
                config=config,
                device=str(device),
                models=options.folders,
                on_step=progress,
                **beside,
            )
        started = time.perf_counter()
        write_results(options, result, folder, images["moving"].pixel_type)
        seconds_write = time.perf_counter() - started
        record = {
            **result.record,
            "inputs": describe_inputs(options, images),
            "outputs": options.outputs,
            "command": list(options.command),
            "versions": versions(),
        }
        started = time.perf_counter()
        record["verdict"] = judge_result(images, beside, result, record)
        drawn = prove(options, images, result, record, folder)
        record["outputs"] = sorted({*options.outputs, *drawn})
        seconds_proof = time.perf_counter() - started
        record["seconds_files"] = {"read": seconds_read, "write": seconds_write, "proof": seconds_proof}
        write_texts(record, folder)
    remove_stale(options, before, record["outputs"])
    if options.as_json:
        print_json(record)
    elif not options.quiet:
        show_summary(record, [str(path) for path in folder.files])


def decide_on(
    options: RegisterOptions, config: RegistrationConfig, images: Mapping[str, LoadedImage], device: Any
) -> Decision:
    """What will be decided of these two images."""
    from semreg.automatic import decide, look, this_machine

    sights = look(images["fixed"].volume), look(images["moving"].volume)
    started = options.initial is not None or options.landmarks is not None
    return decide(*sights, config, this_machine(device), initial=started)


def read_images(options: RegisterOptions) -> dict[str, LoadedImage]:
    """Both images."""
    from semreg.files import read_image

    def read(name: str, path: Path) -> LoadedImage:
        return read_image(path, series=options.series[name]) if name in options.series else read_image(path)

    return {"fixed": read("fixed", options.fixed), "moving": read("moving", options.moving)}


def read_beside(options: RegisterOptions) -> dict[str, Any]:
    """What ``register`` takes beside the images: masks, start, stiffness, and whether the inverse is wanted."""
    from semreg.files import read_image, read_mask
    from semreg.transforms import read_transform

    found: dict[str, Any] = {}
    for name, path in (("fixed_mask", options.fixed_mask), ("moving_mask", options.moving_mask)):
        found[name] = None if path is None else read_mask(path)
    found["initial"] = None if options.initial is None else read_transform(options.initial)
    if options.landmarks is not None:
        from semreg.transforms import read_points

        found["landmarks"] = tuple(read_points(path).points.T for path in options.landmarks)
    if options.stiffness is not None:
        found["stiffness"] = read_image(options.stiffness).volume
    if options.inverse:
        found["inverse"] = True
    return found


def judge_result(
    images: Mapping[str, LoadedImage], beside: Mapping[str, Any], result: Registration, record: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The verdict on what was found."""
    from semreg.config import RegistrationConfig
    from semreg.settings import from_dict

    return verdict_on(
        (images["fixed"].volume, images["moving"].volume),
        result.field,
        masks=(beside["fixed_mask"], beside["moving_mask"]),
        config=from_dict(RegistrationConfig, record["settings"]),
        known={"uncertainty": record["uncertainty"], "record": record},
    )


def prove(
    options: RegisterOptions,
    images: Mapping[str, LoadedImage],
    result: Registration,
    record: Mapping[str, Any],
    folder: OutputFolder,
) -> list[str]:
    """Write the page and the figures that are wanted; their names."""
    if not options.proof.wanted:
        return []
    from semreg.reports import Case

    names = {name: image.path.name for name, image in images.items()}
    case = Case(
        fixed=images["fixed"].volume,
        moving=images["moving"].volume,
        field=result.field,
        warped=result.warped,
        background=record["background"],
        uncertainty=result.uncertainty,
        verdict=record["verdict"],
        record=record,
        names=names,
        title=f"{names['moving']} onto {names['fixed']}",
    )
    return write_proof(case, folder, options.proof)
