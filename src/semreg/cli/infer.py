"""``semreg infer`` and ``semreg features``: a network on one image, one of its outputs or all of them as files."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from semreg.cli.common import (
    MODEL_ADVICE,
    Device,
    Ending,
    Folders,
    ImageFormat,
    JsonMessages,
    Layers,
    Memory,
    Model,
    Private,
    Spec,
    Threads,
    check_dtype,
    check_not_read,
    command_of,
    limit_threads,
    parse_layers,
    print_json,
)
from semreg.cli.grouping import grouped
from semreg.cli.panels import argument, flag
from semreg.errors import ConfigError, OutputError
from semreg.io.result_folder import RECORD
from semreg.runtime.progress import Progress
from semreg.runtime.terminal import show_rows

if TYPE_CHECKING:
    from semreg.core.fields import Layer, Volume
    from semreg.features.contract import Descriptor, Network
    from semreg.features.inference import Options
    from semreg.features.record import InferenceRecord, Written
    from semreg.io.atomic_output import OutputFolder
    from semreg.io.bridge import LoadedImage
    from semreg.runtime.events import Step

R = TypeVar("R", bound="InferenceRecord")

SUFFIXES = tuple(f".{each.value}" for each in ImageFormat)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What ``semreg infer`` and ``semreg features`` are asked for."""

    image: Annotated[Path, argument("Image: a file, or the folder of a DICOM series.", "IMAGE")]
    output: Path
    model: Model
    layers: Layers = None
    mask: Path | None = None
    """A flag of ``semreg features``."""
    memory: Memory = None
    device: Device = "auto"
    threads: Threads = None
    spec: Spec = ()
    folders: Folders = ()
    private: Private = False
    messages: JsonMessages = field(default_factory=JsonMessages)
    command: tuple[str, ...] = ()
    """The words of the command line."""

    @property
    def read(self) -> list[Path | None]:
        """The files that are read, as far as they are named."""
        return [self.image, self.mask, Path(self.model)]


@dataclass(frozen=True, kw_only=True)
class InferJob(Job):
    """What ``semreg infer`` is asked for."""

    output: Annotated[Path, flag("File to write: .nii.gz, .nii, .nrrd or .mha.", "FILE", "--output", "-o")]
    layers: Annotated[str | None, flag("The output to write, -1 or by default: the last.", "N")] = None
    argmax: Annotated[bool, flag("Write labels: the index of the largest channel.", None, "--argmax")] = False
    dtype: Annotated[str | None, flag("Voxel type; float32, or the smallest one for labels.", "TYPE")] = None


@dataclass(frozen=True, kw_only=True)
class FeaturesJob(Job):
    """What ``semreg features`` is asked for."""

    output: Annotated[Path, flag("Folder for the layers and the record.", "FOLDER", "--output", "-o")]
    mask: Annotated[Path | None, flag("Mask of the image; what is 0 counts nowhere.", "FILE")] = None
    image_format: Ending = ImageFormat.NIFTI


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
    mask_sha256: str | None = None

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure the block on the clock and on the CPU."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds[name] = time.perf_counter() - wall
        self.seconds[f"{name}_cpu"] = time.process_time() - cpu


@grouped
def infer_command(context: typer.Context, job: InferJob) -> None:
    """Run a network on IMAGE and write one of its outputs on the grid of the image: labels, scores, or an image.

    Several outputs of a network: semreg features writes them all.
    """
    with job.messages.spoken(MODEL_ADVICE):
        kept = parse_layers(job.layers)
        if kept is not None and len(kept) != 1:
            raise ConfigError(
                f"expected one output for one file, got --layers {job.layers}: semreg features writes several"
            )
        check_dtype(job.dtype)
        check_file_name(job.output)
        check_not_read(job.output, job.read)
        run_infer(replace(job, command=command_of(context)))


@grouped
def features_command(context: typer.Context, job: FeaturesJob) -> None:
    """Write the features of IMAGE as images of many components, layer_0, layer_1, ..., each on its own grid."""
    with job.messages.spoken(MODEL_ADVICE):
        parse_layers(job.layers)
        check_folder(job, job.image_format.value)
        run_features(replace(job, command=command_of(context)))


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
        if name == RECORD or re.fullmatch(rf"(layer|weight)_\d+\.{re.escape(ending)}", name):
            raise OutputError(f"expected another output folder: {path}, which is read, might be written over")


def run_infer(job: InferJob) -> None:
    """Read, run, write one file, and show what was done."""
    from semreg.features import inference
    from semreg.features.record import InferenceRecord, Written
    from semreg.io import files

    with files.OutputFolder(job.output.parent) as folder:
        with Progress(quiet=job.messages.quiet, unit="tiles") as progress:
            run = start(job, Watch(progress))
            if job.layers is None:
                run.model = inference.last_output(run.model)
            with run.timed("extraction"):
                result = result_of(run, argmax=job.argmax)
        grid = run.image.volume.grid
        kind = job.dtype or (str(result.data.dtype).removeprefix("torch.") if job.argmax else "float32")
        with run.timed("write"):
            files.write_image(result, folder.stage(job.output.name), kind, on=None if job.argmax else grid)
        written = Written.of(grid, file=job.output.name, channels=len(result.data), pixel_type=kind, labels=job.argmax)
        record = record_of(run, InferenceRecord, (written,))
    show(job, record, folder.files)


def result_of(run: Run, *, argmax: bool) -> Volume:
    """The labels on the grid of the image, or the one output on its own grid."""
    from semreg.features import inference

    if argmax:
        return inference.labels_of(run.volume, run.weight, run.model, run.options)
    (layer,) = inference.layers_of(run.volume, run.weight, inference.runner_of(run.model, run.options), run.options)
    return layer.features


def run_features(job: FeaturesJob) -> None:
    """Read, run, write all layers and the record, and show what was done."""
    from semreg.features import inference
    from semreg.features.record import FeaturesRecord
    from semreg.io import files
    from semreg.io.records import stable_json

    ending = job.image_format.value
    with files.OutputFolder(job.output, record=RECORD) as folder:
        with Progress(quiet=job.messages.quiet, unit="tiles") as progress:
            run = start(job, Watch(progress))
            model = inference.runner_of(run.model, run.options)
            with run.timed("extraction"):
                layers = list(inference.layers_of(run.volume, run.weight, model, run.options))
        with run.timed("write"):  # what is written makes room
            outputs = tuple(write_layer(layers.pop(0), number, ending, folder) for number in range(len(layers)))
        reach = inference.reach_of(model, run.volume.grid.dimension, run.watch.tiles)
        sizes = [size for plan in getattr(model, "plans", []) for size in plan.sizes]
        record = record_of(run, FeaturesRecord, outputs, receptive_field=reach, tile_sizes=sizes)
        folder.stage(RECORD).write_text(stable_json(record), encoding="utf-8")
    show(job, record, folder.files)


def start(job: Job, watch: Watch) -> Run:
    """Read the image and the mask and load the model."""
    from semreg.features import inference
    from semreg.features.trial import try_model
    from semreg.io import files
    from semreg.runtime.devices import choose_device
    from semreg.runtime.memory import return_freed_memory

    limit_threads(job.threads)
    if job.memory is not None:
        return_freed_memory()
    options = inference.Options(
        layers=parse_layers(job.layers),
        spec=job.spec,
        memory=inference.limit_of(job.memory),
        device=str(choose_device(job.device)),
        folders=job.folders,
        on_step=watch,
    )
    try_model(job.model, job.spec, memory=options.memory)
    started = time.perf_counter()
    image = files.read_image(job.image)
    volume, weight = inference.prepare(image, None if job.mask is None else files.read_mask(job.mask))
    checksum = None if job.mask is None else files.checksum(job.mask)
    read = time.perf_counter()
    model = inference.load(job.model, volume.grid.dimension, options)
    seconds = {"read": read - started, "load": time.perf_counter() - read}
    return Run(job, image, volume, weight, model, options, watch, seconds, checksum)


def write_layer(layer: Layer, number: int, ending: str, folder: OutputFolder) -> Written:
    """Write one layer, and its weight if it has one; what the record says of it."""
    from semreg.features.record import Written
    from semreg.io import files

    name, weight = f"layer_{number}.{ending}", f"weight_{number}.{ending}"
    files.write_image(layer.features, folder.stage(name))
    if layer.weight is not None:
        files.write_image(layer.weight, folder.stage(weight))
    own = None if layer.weight is None else weight
    return Written.of(layer.grid, file=name, channels=len(layer.features.data), weight=own)


def record_of(run: Run, kind: type[R], outputs: tuple[Written, ...], **more: Any) -> R:
    """What was read, what ran, how long it took and what it held; ``more`` of a kind that has more."""
    import torch

    from semreg.features import inference
    from semreg.features.record import Inputs, RanModel, ReadImage, ReadMask
    from semreg.io.records import versions
    from semreg.quality.privacy import private_inference
    from semreg.runtime.memory import peak_bytes

    job, image = run.job, run.image
    path = inference.file_of(job.model, job.folders)
    mask = None if run.mask_sha256 is None else ReadMask(path=str(job.mask), sha256=run.mask_sha256)
    read = ReadImage.of(image.volume.grid, path=str(image.path), sha256=image.sha256, pixel_type=image.pixel_type)
    model = RanModel(
        name=run.model.spec.name, path=None if path is None else str(path), spec=run.model.spec,
        sha256=getattr(run.model, "sha256", None), layers=getattr(run.model, "layers", None),
    )  # fmt: skip
    found = kind(
        inputs=Inputs(image=read, mask=mask), model=model, outputs=outputs, tiles=run.watch.tiles,
        device=run.options.device, threads=torch.get_num_threads(), memory_limit_bytes=run.options.memory,
        peak_memory_bytes=peak_bytes(), seconds=run.seconds, versions=versions(), command=job.command, **more,
    )  # fmt: skip
    return private_inference(found) if job.private else found


def show(job: Job, record: InferenceRecord, written: list[Path]) -> None:
    """The end of a run: the record, or a few rows."""
    if job.messages.as_json:
        print_json(record)
    elif not job.messages.quiet:
        layers = record.model.layers
        kept = "" if layers is None else f", outputs {', '.join(map(str, layers))}"
        size = [f"{one.channels} × {' × '.join(map(str, one.size))}" for one in record.outputs]
        show_rows(
            [
                ("model", record.model.name + kept),
                ("channels and voxels", "; ".join(size)),
                ("tiles", str(record.tiles)),
                ("seconds", f"{record.seconds['extraction']:.3g}"),
                ("files", ", ".join(map(str, written))),
            ]
        )
