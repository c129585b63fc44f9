"""``semreg register``: two images in, the warped one, the transform, the field and a record out."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semreg.cli.common import Folders, ImageFormat, check_dtype, print_json, sentences
from semreg.cli.model_flags import (
    Components,
    Distances,
    ModelFlags,
    ModelLayers,
    Models,
    MovingModels,
    Specs,
    Weights,
    model_configs,
)
from semreg.errors import OutputError
from semreg.terminal import Progress, show_log, show_summary

if TYPE_CHECKING:
    from semreg.config import RegistrationConfig
    from semreg.fields import Volume
    from semreg.itk_bridge import LoadedImage


@dataclass(frozen=True, kw_only=True)
class RegisterOptions:
    """What ``semreg register`` was asked for."""

    fixed: Path
    moving: Path
    output: Path
    fixed_mask: Path | None
    moving_mask: Path | None
    initial: Path | None
    models: ModelFlags
    folders: tuple[Path, ...]
    device: str
    threads: int | None
    seed: int | None
    config: Path | None
    assignments: tuple[str, ...]
    dry_run: bool
    quiet: bool
    as_json: bool
    dtype: str | None
    image_format: ImageFormat
    command: tuple[str, ...]

    @property
    def inputs(self) -> dict[str, Path]:
        """The files that are read, by their role."""
        named = {
            "fixed": self.fixed,
            "moving": self.moving,
            "fixed_mask": self.fixed_mask,
            "moving_mask": self.moving_mask,
            "initial": self.initial,
            "config": self.config,
        }
        return {name: path for name, path in named.items() if path is not None}

    @property
    def warped_name(self) -> str:
        """File name of the moving image on the fixed grid."""
        return f"warped.{self.image_format.value}"

    @property
    def field_name(self) -> str:
        """File name of the displacement field."""
        return f"field.{self.image_format.value}"


def register_command(  # noqa: PLR0913, PLR0917 - one parameter a flag
    context: typer.Context,
    fixed: Annotated[Path, typer.Argument(help="Fixed image: a file, or the folder of a DICOM series.")],
    moving: Annotated[Path, typer.Argument(help="Moving image, brought onto the fixed one.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    fixed_mask: Annotated[Path | None, typer.Option(help="Mask of the fixed image; what is 0 counts nowhere.")] = None,
    moving_mask: Annotated[Path | None, typer.Option(help="Mask of the moving image.")] = None,
    initial: Annotated[Path | None, typer.Option(help="Transform to start from, fixed to moving.")] = None,
    model: Models = None,
    moving_model: MovingModels = None,
    layers: ModelLayers = None,
    distance: Distances = None,
    weight: Weights = None,
    pca: Components = None,
    spec: Specs = None,
    models: Folders = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:n or mps.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the CPU; all by default.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of all random numbers; same as --set seed=N.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings in TOML.")] = None,
    assignments: Annotated[list[str] | None, typer.Option("--set", help="A setting as name=value; repeatable.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and the memory it takes.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON and nothing else.")] = False,
    dtype: Annotated[str | None, typer.Option(help="Voxel type of the warped image; else the moving one's.")] = None,
    image_format: Annotated[ImageFormat, typer.Option("--format", help="Of the images written.")] = ImageFormat.NIFTI,
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what is done in detail.")] = False,
) -> None:
    """Align MOVING with FIXED; write the warped image, the transform, the field and a record."""
    options = RegisterOptions(
        fixed=fixed,
        moving=moving,
        output=output,
        fixed_mask=fixed_mask,
        moving_mask=moving_mask,
        initial=initial,
        models=ModelFlags(
            model=tuple(model or ()),
            moving=tuple(moving_model or ()),
            layers=tuple(layers or ()),
            distance=tuple(distance or ()),
            weight=tuple(weight or ()),
            pca=tuple(pca or ()),
            spec=tuple(spec or ()),
        ),
        folders=tuple(models or ()),
        device=device,
        threads=threads,
        seed=seed,
        config=config,
        assignments=tuple(assignments or ()),
        dry_run=dry_run,
        quiet=quiet,
        as_json=as_json,
        dtype=dtype,
        image_format=image_format,
        command=tuple(context.obj or ("semreg", *sys.argv[1:])),
    )
    with sentences(debug=debug):
        show_log(quiet=quiet, verbose=verbose)
        if dry_run:
            run_plan(options)
        else:
            run_register(options)


def load_config(options: RegisterOptions) -> RegistrationConfig:
    """The settings: defaults, then the file, then the models, then each ``--set``, then ``--seed`` (ConfigError)."""
    from semreg.config import RegistrationConfig
    from semreg.settings import from_toml, override

    config = RegistrationConfig() if options.config is None else from_toml(RegistrationConfig, options.config)
    config = replace(config, models=model_configs(config.models, options.models))
    for assignment in options.assignments:
        config = override(config, assignment)
    return config if options.seed is None else override(config, f"seed={options.seed}")


def run_plan(options: RegisterOptions) -> None:
    """Print what would be done; reads the headers of the images and writes nothing."""
    config = load_config(options)
    from semreg.devices import choose_device
    from semreg.files import read_grid
    from semreg.planning import plan

    device = choose_device(options.device)
    planned = plan(read_grid(options.fixed), read_grid(options.moving), config, device, folders=options.folders)
    if options.as_json:
        print_json({"lines": list(planned.lines), "memory_bytes": planned.memory_bytes})
    elif not options.quiet:
        for line in planned.lines:
            typer.echo(line)
        typer.echo(f"It will take about {planned.memory_bytes / 1e9:.2g} GB of memory.")


def run_register(options: RegisterOptions) -> None:
    """Read, register, write, and show the summary."""
    config = load_config(options)
    check_outputs(options)
    from semreg import files
    from semreg.devices import choose_device
    from semreg.record import stable_json, versions
    from semreg.registration import register

    check_dtype(options.dtype)
    if options.threads is not None:
        files.limit_threads(options.threads)
    device = str(choose_device(options.device))
    with files.OutputFolder(options.output) as folder:
        started = time.perf_counter()
        fixed, moving = files.read_image(options.fixed), files.read_image(options.moving)
        fixed_mask, moving_mask = read_optional_mask(options.fixed_mask), read_optional_mask(options.moving_mask)
        initial = None if options.initial is None else files.read_transform(options.initial)
        seconds_read = time.perf_counter() - started
        with Progress(quiet=options.quiet) as progress:
            result = register(
                fixed.volume,
                moving.volume,
                config=config,
                initial=initial,
                fixed_mask=fixed_mask,
                moving_mask=moving_mask,
                device=device,
                models=options.folders,
                on_step=progress,
            )
        started = time.perf_counter()
        files.write_image(result.warped, folder.stage(options.warped_name), options.dtype or moving.pixel_type)
        files.write_field(result.field, folder.stage(options.field_name))
        files.write_transform(result.deformation, folder.stage("transform.h5"), result.affine)
        record = {
            **result.record,
            "inputs": describe_inputs(options, fixed, moving),
            "outputs": ["record.json", "transform.h5", options.field_name, options.warped_name],
            "command": list(options.command),
            "versions": versions(),
            "seconds_files": {"read": seconds_read, "write": time.perf_counter() - started},
        }
        folder.stage("record.json").write_text(stable_json(record), encoding="utf-8")
    if options.as_json:
        print_json(record)
    elif not options.quiet:
        show_summary(record, [str(path) for path in folder.files])


def check_outputs(options: RegisterOptions) -> None:
    """Refuse to write over an input (OutputError)."""
    places = {
        (options.output / name).resolve(): name
        for name in (options.warped_name, options.field_name, "transform.h5", "record.json")
    }
    for role, path in options.inputs.items():
        if path.resolve() in places:
            raise OutputError(
                f"expected another output folder: {path}, the {role.replace('_', ' ')}, would be written over"
            )


def read_optional_mask(path: Path | None) -> Volume | None:
    """The mask, if one was given."""
    from semreg.files import read_mask

    return None if path is None else read_mask(path)


def describe_inputs(options: RegisterOptions, fixed: LoadedImage, moving: LoadedImage) -> dict[str, Any]:
    """Paths and checksums of all that was read."""
    from semreg.files import checksum

    described: dict[str, Any] = {
        name: {"path": str(path), "sha256": checksum(path)}
        for name, path in options.inputs.items()
        if name not in ("fixed", "moving")
    }
    for name, image in (("fixed", fixed), ("moving", moving)):
        described[name] = {"path": str(image.path), "sha256": image.sha256, "pixel_type": image.pixel_type}
    return described
