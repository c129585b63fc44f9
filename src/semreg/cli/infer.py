"""``semreg infer`` and ``semreg features``: a network on one image, one of its outputs or all of them as files."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semreg.cli.common import (
    MODEL_ADVICE,
    Debug,
    Device,
    Folders,
    ImageFormat,
    Json,
    Layers,
    Memory,
    Model,
    Quiet,
    Spec,
    Threads,
    Verbose,
    check_dtype,
    check_not_read,
    parse_layers,
    print_json,
    sentences,
)
from semreg.errors import ConfigError, OutputError
from semreg.terminal import Progress, show_log, show_rows

if TYPE_CHECKING:
    from semreg.events import Step
    from semreg.features.contract import Descriptor, Network
    from semreg.fields import Layer, Volume
    from semreg.inference import Options
    from semreg.itk_bridge import LoadedImage
    from semreg.staging import OutputFolder

SUFFIXES = tuple(f".{each.value}" for each in ImageFormat)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What ``semreg infer`` or ``semreg features`` was asked for."""

    image: Path
    output: Path
    mask: Path | None = None
    model: str
    layers: tuple[int, ...] | None
    memory: str | None
    device: str
    threads: int | None
    spec: tuple[str, ...]
    folders: tuple[Path, ...]
    quiet: bool
    as_json: bool
    command: tuple[str, ...]

    @property
    def read(self) -> list[Path | None]:
        """The files that are read, as far as they are named."""
        return [self.image, self.mask, Path(self.model)]


@dataclass
class Watch:
    """Hears the steps of a run: counts tiles, passes them on."""

    progress: Progress
    tiles: int = 0

    def __call__(self, step: Step) -> None:
        """Take one step; the last one of a pass over an image says how many tiles it took."""
        if step.iteration == step.iterations:
            self.tiles += step.iterations
        self.progress(step)


@dataclass
class Run:
    """A job under way: what was read and loaded, and how long it took."""

    job: Job
    image: LoadedImage
    volume: Volume
    weight: Volume | None
    model: Descriptor | Network
    options: Options
    watch: Watch
    seconds: dict[str, float]

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure the block on the clock and on the CPU."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds[name] = time.perf_counter() - wall
        self.seconds[f"{name}_cpu"] = time.process_time() - cpu


def infer_command(  # noqa: PLR0913, PLR0917 - one parameter a flag
    context: typer.Context,
    image: Annotated[Path, typer.Argument(help="Image: a file, or the folder of a DICOM series.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .nii.gz, .nii, .nrrd or .mha.")],
    model: Model,
    layers: Annotated[str | None, typer.Option(help="The output to write, -1 or by default: the last.")] = None,
    argmax: Annotated[bool, typer.Option("--argmax", help="Write labels: the index of the largest channel.")] = False,
    memory: Memory = None,
    device: Device = "auto",
    threads: Threads = None,
    spec: Spec = None,
    models: Folders = None,
    dtype: Annotated[str | None, typer.Option(help="Voxel type; float32, or the smallest one for labels.")] = None,
    debug: Debug = False,
    quiet: Quiet = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Run a network on IMAGE and write one of its outputs on the grid of the image: labels, scores, or an image.

    Several outputs of a network: semreg features writes them all.
    """
    with sentences(debug=debug, advice=MODEL_ADVICE):
        show_log(quiet=quiet, verbose=verbose)
        kept = parse_layers(layers)
        if kept is not None and len(kept) != 1:
            raise ConfigError(
                f"expected one output for one file, got --layers {layers}: semreg features writes several"
            )
        check_dtype(dtype)
        check_file_name(output)
        job = Job(
            image=image, output=output, model=model, layers=kept, memory=memory, device=device, threads=threads,
            spec=tuple(spec or ()), folders=tuple(models or ()), quiet=quiet, as_json=as_json,
            command=tuple(context.obj or ("semreg", *sys.argv[1:])),
        )  # fmt: skip
        check_not_read(output, job.read)
        run_infer(job, argmax=argmax, dtype=dtype)


def features_command(  # noqa: PLR0913, PLR0917 - one parameter a flag
    context: typer.Context,
    image: Annotated[Path, typer.Argument(help="Image: a file, or the folder of a DICOM series.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the layers and the record.")],
    model: Model,
    layers: Layers = None,
    mask: Annotated[Path | None, typer.Option(help="Mask of the image; what is 0 counts nowhere.")] = None,
    memory: Memory = None,
    device: Device = "auto",
    threads: Threads = None,
    spec: Spec = None,
    models: Folders = None,
    image_format: Annotated[ImageFormat, typer.Option("--format", help="Of the images written.")] = ImageFormat.NIFTI,
    debug: Debug = False,
    quiet: Quiet = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write the features of IMAGE as images of many components, layer_0, layer_1, ..., each on its own grid."""
    with sentences(debug=debug, advice=MODEL_ADVICE):
        show_log(quiet=quiet, verbose=verbose)
        job = Job(
            image=image, output=output, mask=mask, model=model, layers=parse_layers(layers), memory=memory,
            device=device, threads=threads, spec=tuple(spec or ()), folders=tuple(models or ()), quiet=quiet,
            as_json=as_json, command=tuple(context.obj or ("semreg", *sys.argv[1:])),
        )  # fmt: skip
        check_folder(job, image_format.value)
        run_features(job, image_format.value)


def check_file_name(output: Path) -> None:
    """Refuse what is no name of an image file (OutputError)."""
    if not output.name.endswith(SUFFIXES) or output.name in SUFFIXES:
        raise OutputError(f"expected the name of a file that ends in {', '.join(SUFFIXES)}, got {output}")
    if output.is_dir():
        raise OutputError(f"expected the name of a file to write, got the folder {output}: name a file in it")


def check_folder(job: Job, ending: str) -> None:
    """Refuse to write over what is read (OutputError)."""
    for path in job.read:
        if path is None or path.resolve().parent != job.output.resolve():
            continue
        name = path.resolve().name
        if name == "record.json" or re.fullmatch(rf"(layer|weight)_\d+\.{re.escape(ending)}", name):
            raise OutputError(f"expected another output folder: {path}, which is read, might be written over")


def run_infer(job: Job, *, argmax: bool, dtype: str | None) -> None:
    """Read, run, write one file, and show what was done."""
    from semreg import files, inference

    with files.OutputFolder(job.output.parent) as folder:
        with Progress(quiet=job.quiet, unit="tiles") as progress:
            run = start(job, Watch(progress))
            if job.layers is None:
                run.model = inference.last_output(run.model)
            with run.timed("extraction"):
                result = result_of(run, argmax=argmax)
        grid = run.image.volume.grid
        kind = dtype or (str(result.data.dtype).removeprefix("torch.") if argmax else "float32")
        with run.timed("write"):
            files.write_image(result, folder.stage(job.output.name), kind, on=None if argmax else grid)
        output = {"file": job.output.name, "channels": len(result.data), "pixel_type": kind, "labels": argmax}
        record = record_of(run) | {"outputs": [output | inference.grid_record(grid)]}
    show(job, record, folder.files)


def result_of(run: Run, *, argmax: bool) -> Volume:
    """The labels on the grid of the image, or the one output on its own grid."""
    from semreg import inference

    if argmax:
        return inference.labels_of(run.volume, run.weight, run.model, run.options)
    (layer,) = inference.layers_of(run.volume, run.weight, inference.runner_of(run.model, run.options), run.options)
    return layer.features


def run_features(job: Job, ending: str) -> None:
    """Read, run, write all layers and the record, and show what was done."""
    from semreg import files, inference
    from semreg.record import stable_json

    with files.OutputFolder(job.output) as folder:
        with Progress(quiet=job.quiet, unit="tiles") as progress:
            run = start(job, Watch(progress))
            model = inference.runner_of(run.model, run.options)
            with run.timed("extraction"):
                layers = list(inference.layers_of(run.volume, run.weight, model, run.options))
        with run.timed("write"):  # what is written makes room
            outputs = [write_layer(layers.pop(0), number, ending, folder) for number in range(len(layers))]
        reach = inference.reach_of(model, run.volume.grid.dimension, run.watch.tiles)
        sizes = [size for plan in getattr(model, "plans", []) for size in plan.sizes]
        record = record_of(run) | {"outputs": outputs, "receptive_field": reach, "tile_sizes": sizes}
        folder.stage("record.json").write_text(stable_json(record), encoding="utf-8")
    show(job, record, folder.files)


def start(job: Job, watch: Watch) -> Run:
    """Read the image and the mask and load the model."""
    from semreg import files, inference
    from semreg.devices import choose_device

    if job.threads is not None:
        files.limit_threads(job.threads)
    options = inference.Options(
        layers=job.layers,
        spec=job.spec,
        memory=inference.limit_of(job.memory),
        device=str(choose_device(job.device)),
        folders=job.folders,
        on_step=watch,
    )
    started = time.perf_counter()
    image = files.read_image(job.image)
    volume, weight = inference.prepare(image, None if job.mask is None else files.read_mask(job.mask))
    read = time.perf_counter()
    model = inference.load(job.model, volume.grid.dimension, options)
    seconds = {"read": read - started, "load": time.perf_counter() - read}
    return Run(job, image, volume, weight, model, options, watch, seconds)


def write_layer(layer: Layer, number: int, ending: str, folder: OutputFolder) -> dict[str, Any]:
    """Write one layer, and its weight if it has one; what the record says of it."""
    from semreg import files, inference

    names = {"file": f"layer_{number}.{ending}"}
    files.write_image(layer.features, folder.stage(names["file"]))
    if layer.weight is not None:
        names["weight"] = f"weight_{number}.{ending}"
        files.write_image(layer.weight, folder.stage(names["weight"]))
    return names | {"channels": len(layer.features.data)} | inference.grid_record(layer.grid)


def record_of(run: Run) -> dict[str, Any]:
    """What was read, what ran, how long it took and what it held."""
    import torch

    from semreg import files, inference
    from semreg.memory import peak_bytes
    from semreg.record import versions
    from semreg.settings import to_dict

    job, image = run.job, run.image
    path = inference.file_of(job.model, job.folders)
    described: dict[str, Any] = {
        "image": {"path": str(image.path), "sha256": image.sha256, "pixel_type": image.pixel_type}
        | inference.grid_record(image.volume.grid)
    }
    if job.mask is not None:
        described["mask"] = {"path": str(job.mask), "sha256": files.checksum(job.mask)}
    return {
        "inputs": described,
        "model": {
            "name": run.model.spec.name,
            "path": None if path is None else str(path),
            "sha256": getattr(run.model, "sha256", None),
            "spec": to_dict(run.model.spec),
            "layers": getattr(run.model, "layers", None),
        },
        "tiles": run.watch.tiles,
        "device": run.options.device,
        "threads": torch.get_num_threads(),
        "memory_limit_bytes": run.options.memory,
        "peak_memory_bytes": peak_bytes(),
        "seconds": run.seconds,
        "versions": versions(),
        "command": list(job.command),
    }


def show(job: Job, record: dict[str, Any], written: list[Path]) -> None:
    """The end of a run: the record, or a few rows."""
    if job.as_json:
        print_json(record)
    elif not job.quiet:
        layers = record["model"]["layers"]
        size = [f"{one['channels']} × {' × '.join(map(str, one['size']))}" for one in record["outputs"]]
        show_rows(
            [
                (
                    "model",
                    record["model"]["name"] + ("" if layers is None else f", outputs {', '.join(map(str, layers))}"),
                ),
                ("channels and voxels", "; ".join(size)),
                ("tiles", str(record["tiles"])),
                ("seconds", f"{record['seconds']['extraction']:.3g}"),
                ("files", ", ".join(map(str, written))),
            ]
        )
