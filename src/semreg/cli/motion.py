"""``semreg motion``: a series over time in, its frames brought together and how they have moved out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from semreg.cli.common import (
    Device,
    ImageFiles,
    JsonMessages,
    Threads,
    check_dtype,
    command_of,
    limit_threads,
    print_json,
)
from semreg.cli.grouping import grouped
from semreg.cli.panels import INPUT, OUTPUT, PROOF, SETTINGS, argument, flag
from semreg.cli.register_flags import SettingFlags, load_config
from semreg.errors import ConfigError, OutputError
from semreg.io.result_folder import CONFIG, RECORD
from semreg.runtime.progress import Progress
from semreg.runtime.terminal import show_rows

if TYPE_CHECKING:
    from semreg.config import RegistrationConfig
    from semreg.io.atomic_output import OutputFolder
    from semreg.io.bridge import LabelMap
    from semreg.io.series import Series
    from semreg.registration.carried import CarriedSeries
    from semreg.registration.motion import Motion, MotionOptions
    from semreg.registration.motion_record import MotionRecord

TABLE, PLOT, TRANSFORMS = "motion.csv", "motion.png", "transforms"


@dataclass(frozen=True, kw_only=True)
class MotionFlags:
    """A series, what it is brought to, and where the results go."""

    series: Annotated[tuple[Path, ...], argument("A series over time in one file, or a file a frame.", "SERIES...")]
    output: Annotated[Path, flag("Folder for the results.", "FOLDER", "--output", "-o", panel=OUTPUT)]
    kind: Annotated[
        Literal["rigid", "deformable"],
        flag("How frames differ: as a head that moves, or as breathing.", panel=SETTINGS),
    ] = "rigid"
    reference: Annotated[
        str, flag("What all frames are brought to: mean, or the number of one, from 0.", "mean|N", panel=SETTINGS)
    ] = "mean"
    rounds: Annotated[
        int, flag("How often the mean is made anew.", "N", "--rounds", panel=SETTINGS, min=1, max=100)
    ] = 2
    smooth: Annotated[
        int, flag("Smooth the motion in time over so many frames, odd, from 5 on.", "N", "--smooth", panel=SETTINGS)
    ] = 0
    cyclic: Annotated[
        bool, flag("The first frame follows on the last one, as in breathing.", None, "--cyclic", panel=SETTINGS)
    ] = False
    labels: Annotated[Path | None, flag("Labels of one frame, which are carried through all.", "FILE", panel=INPUT)] = (
        None
    )
    labels_frame: Annotated[int, flag("Which frame they are of, from 0.", "N", panel=INPUT, min=0)] = 0
    figures: Annotated[bool, flag("Draw the motion over time as a PNG file too.", None, "--figures", panel=PROOF)] = (
        False
    )
    settings: SettingFlags = field(default_factory=SettingFlags)
    images: ImageFiles = field(default_factory=ImageFiles)
    device: Device = "auto"
    threads: Threads = None
    messages: JsonMessages = field(default_factory=JsonMessages)
    command: tuple[str, ...] = ()
    """The words of the command line."""

    def options(self) -> MotionOptions:
        """What is asked for (ConfigError)."""
        from semreg.registration.motion import Kind, MotionOptions

        if self.reference != "mean" and not self.reference.isdecimal():
            raise ConfigError(f"expected --reference mean or the number of a frame, got {self.reference!r}")
        return MotionOptions(
            kind=Kind(self.kind), reference=None if self.reference == "mean" else int(self.reference),
            smooth=self.smooth, cyclic=self.cyclic, rounds=self.rounds,
        )  # fmt: skip

    def config(self) -> RegistrationConfig:
        """The settings (ConfigError)."""
        return load_config(self.settings, frames=True)


@grouped
def motion_command(context: typer.Context, flags: MotionFlags) -> None:
    """Bring the frames of SERIES to one of them or to their mean, and say how they have moved.

    Writes corrected (the series without motion), reference, a transform a frame, a table of the motion over time, and a
    record; with --labels those of all frames, and how far they drift.
    """
    with flags.messages.spoken():
        run_motion(replace(flags, command=command_of(context)))


def run_motion(flags: MotionFlags) -> None:
    """Read, register, carry labels, write and show what came out."""
    config, options = flags.config(), flags.options()
    check_dtype(flags.images.dtype)
    limit_threads(flags.threads)
    from semreg.features.trial import try_models, try_registrar
    from semreg.io.files import OutputFolder, read_labels
    from semreg.io.series import read_frames
    from semreg.registration.carried import carry
    from semreg.registration.motion import correct_motion
    from semreg.registration.motion_record import MotionRecord
    from semreg.runtime.settings import to_toml

    check_outputs(flags)
    series = read_frames(flags.series)
    labels = None if flags.labels is None else read_labels(flags.labels)
    if labels is not None:
        check_labels(flags, labels, series)
    try_models(config.models)
    try_registrar(config.start)
    with OutputFolder(flags.output, record=RECORD) as folder:
        with Progress(quiet=flags.messages.quiet, unit="registrations") as progress:
            found = correct_motion(
                series.frames, options=options, config=config, device=flags.device,
                on_frame=lambda number, frame: progress.say(f"round {number}, frame {frame} of {len(series.frames)}"),
            )  # fmt: skip
        carried = None if labels is None else carry(labels, flags.labels_frame, found)
        record = MotionRecord.of(found, carried, flags.series, flags.command)
        write(flags, series, found, folder)
        write_labels(flags, carried, series, folder)
        folder.stage(TABLE).write_text(record.table(), encoding="utf-8")
        folder.stage(CONFIG).write_text(to_toml(config), encoding="utf-8")
        folder.stage(RECORD).write_text(record.text(), encoding="utf-8")
    show(flags, record)


def check_outputs(flags: MotionFlags) -> None:
    """Refuse to write over what is read (OutputError)."""
    written = {(flags.output / flags.images.name(name)).resolve() for name in ("corrected", "reference", "labels")}
    for path in [*flags.series, *([] if flags.labels is None else [flags.labels])]:
        if path.resolve() in written:
            raise OutputError(f"expected another output folder: {path}, which is read, would be written over")


def check_labels(flags: MotionFlags, labels: LabelMap, series: Series) -> None:
    """Refuse labels that belong to no frame before anything is registered (ConfigError, GeometryError)."""
    from semreg.registration.carried import check_carried

    check_carried(labels, flags.labels_frame, len(series.frames), series.frames[0].grid)


def write(flags: MotionFlags, series: Series, found: Motion, folder: OutputFolder) -> None:
    """The series without motion, the reference, the transforms and the plot."""
    from semreg.io import files

    kind, name = flags.images.dtype or series.pixel_type, flags.images.name
    corrected = found.corrected(series.frames)
    files.write_series(corrected, folder.stage(name("corrected")), kind, timing=series.timing)
    files.write_image(found.reference, folder.stage(name("reference")), "float32")
    folder.stage(TRANSFORMS).mkdir()
    for number, field_ in enumerate(found.fields):
        files.write_transform(field_, folder.stage(f"{TRANSFORMS}/{number:04d}.h5"))
    if flags.figures:
        from semreg.report.motion_plot import write_motion_plot

        write_motion_plot(found.frames, folder.stage(PLOT))


def write_labels(flags: MotionFlags, carried: CarriedSeries | None, series: Series, folder: OutputFolder) -> None:
    """The labels of all frames in the smallest type that holds them."""
    if carried is None:
        return
    from semreg.io import files

    values = [float(value) for each in carried.labels for value in (each.data.min(), each.data.max())]
    kind = "uint8" if min(values) >= 0 and max(values) < 256 else "int32"
    files.write_series(carried.labels, folder.stage(flags.images.name("labels")), kind, timing=series.timing)


def show(flags: MotionFlags, record: MotionRecord) -> None:
    """The record, or a few rows."""
    if flags.messages.as_json:
        print_json(record)
    elif not flags.messages.quiet:
        worst = max(record.frames[1:], key=lambda each: each.framewise_mm)
        rows = [
            ("frames", str(len(record.frames))),
            ("framewise displacement", f"{record.framewise_mm:.3f} mm in the mean"),
            ("largest", f"{worst.framewise_mm:.3f} mm, frame {worst.frame}"),
        ]
        rows += [
            (f"drift of labels, {each.way}", f"{each.mean_mm:.3f} mm in the mean, {each.maximum_mm:.3f} mm at most")
            for each in record.drift
        ]
        show_rows([*rows, ("files", str(flags.output))])
