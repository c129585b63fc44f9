"""``semreg align``: two images in, the linear transform that brings them together and a record out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from semreg.cli.common import Debug, Device, ImageFormat, Threads, check_dtype, print_json, sentences
from semreg.cli.model_flags import ModelFlags
from semreg.cli.proof import ProofOptions
from semreg.cli.register import check_together, read_beside, read_images
from semreg.cli.register_files import check_outputs, describe_inputs, remove_stale, write_texts, written_before
from semreg.cli.register_flags import (
    Alignment,
    Assignments,
    BodyMask,
    Config,
    Explain,
    FixedMask,
    FixedSeries,
    Initial,
    Landmarks,
    MovingMask,
    MovingSeries,
    RegisterOptions,
    Seed,
    SettingFlags,
    load_config,
)
from semreg.terminal import DIRECTION, Progress, alignment_rows, show_log, show_rows, show_sentences

Family = Annotated[Alignment | None, typer.Option("--transform", help="What is looked for; auto by default.")]


def align_command(  # noqa: PLR0913, PLR0917 - one parameter a flag
    context: typer.Context,
    fixed: Annotated[Path, typer.Argument(help="Fixed image: a file, or the folder of a DICOM series.")],
    moving: Annotated[Path, typer.Argument(help="Moving image, brought onto the fixed one.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    transform: Family = None,
    fixed_mask: FixedMask = None,
    moving_mask: MovingMask = None,
    fixed_series: FixedSeries = None,
    moving_series: MovingSeries = None,
    initial: Initial = None,
    initial_landmarks: Landmarks = None,
    body_mask: BodyMask = None,
    config: Config = None,
    assignments: Assignments = None,
    seed: Seed = None,
    explain: Explain = False,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON and nothing else.")] = False,
    dtype: Annotated[str | None, typer.Option(help="Voxel type of the warped image; else the moving one's.")] = None,
    image_format: Annotated[ImageFormat, typer.Option("--format", help="Of the images written.")] = ImageFormat.NIFTI,
    debug: Debug = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what is done in detail.")] = False,
) -> None:
    """Bring MOVING onto FIXED by a translation, rigid, similarity or affine map, from any position.

    Writes transform.h5 (points of the fixed image to the moving one, mm, LPS), the warped image, config.toml and a
    record that says what was chosen and what speaks against it.
    """
    settings = SettingFlags(
        config=config, models=ModelFlags(), assignments=tuple(assignments or ()),
        align=None if transform is None else transform.value, body_mask=body_mask, seed=seed,
    )  # fmt: skip
    series = {name: text for name, text in (("fixed", fixed_series), ("moving", moving_series)) if text is not None}
    options = RegisterOptions(
        fixed=fixed, moving=moving, output=output, fixed_mask=fixed_mask, moving_mask=moving_mask, series=series,
        initial=initial, landmarks=initial_landmarks, stiffness=None, inverse=False, jacobian=False,
        settings=settings, folders=(), device=device, threads=threads, explain=explain, dry_run=False, quiet=quiet,
        as_json=as_json, dtype=dtype, image_format=image_format, dense=False,
        proof=ProofOptions(report=False),
        command=tuple(context.obj or ("semreg", *sys.argv[1:])),
    )  # fmt: skip
    with sentences(debug=debug):
        show_log(quiet=quiet, verbose=verbose)
        check_together(options)
        run_align(options)


def run_align(options: RegisterOptions) -> None:
    """Read, align, write, and show the summary."""
    config = load_config(options.settings)
    check_outputs(options)
    before = written_before(options.output)
    from semreg import files
    from semreg.alignment import align
    from semreg.record import versions

    check_dtype(options.dtype)
    if options.threads is not None:
        files.limit_threads(options.threads)
    with files.OutputFolder(options.output) as folder:
        images, beside = read_images(options), read_beside(options)
        beside.pop("inverse", None)
        with Progress(quiet=options.quiet) as progress:
            result = align(
                images["fixed"].volume, images["moving"].volume, config=config, device=options.device,
                on_step=progress, **beside,
            )  # fmt: skip
        pixel_type = options.dtype or images["moving"].pixel_type
        files.write_image(result.warped, folder.stage(options.image_name("warped")), pixel_type)
        files.write_sitk_transform(result.transform(), folder.stage("transform.h5"))
        record = {
            **result.record,
            "inputs": describe_inputs(options, images),
            "outputs": options.outputs,
            "command": list(options.command),
            "versions": versions(),
        }
        write_texts(record, folder)
    remove_stale(options, before, options.outputs)
    if options.as_json:
        print_json(record)
    elif not options.quiet:
        show_end(record, [str(path) for path in folder.files], explain=options.explain)


def show_end(record: Mapping[str, Any], files: list[str], *, explain: bool) -> None:
    """What was decided, if that was asked for, and the summary."""
    if explain:
        show_sentences(record["alignment"]["decisions"])
    show_rows([*alignment_rows(record["alignment"]), ("files", ", ".join(files))], DIRECTION)
