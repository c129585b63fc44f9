"""``semreg template``: several images in, their unbiased mean and each image's way there and back out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semreg.cli.batch import Lines
from semreg.cli.common import (
    EXIT_INTERRUPTED,
    Device,
    Folders,
    JsonMessages,
    Threads,
    command_of,
    limit_threads,
    print_json,
)
from semreg.cli.grouping import grouped
from semreg.cli.panels import MACHINE, OUTPUT, SETTINGS, argument, flag
from semreg.cli.register_flags import SettingFlags, load_config
from semreg.errors import ConfigError, ImageError, OutputError
from semreg.io.result_folder import CONFIG
from semreg.runtime.terminal import show_rows, show_table
from semreg.runtime.threads import openmp_threads, usable_cores

if TYPE_CHECKING:
    from semreg.batch.template import InBatches, TemplateRecord
    from semreg.core.fields import Volume
    from semreg.registration.template import Round, TemplateOptions


@dataclass(frozen=True, kw_only=True)
class TemplateFlags:
    """The images, how their mean is made, and where it goes."""

    images: Annotated[tuple[Path, ...], argument("Two images or more.", "IMAGE...")]
    output: Annotated[Path, flag("Folder for the results.", "FOLDER", "--output", "-o", panel=OUTPUT)]
    start: Annotated[
        Path | None,
        flag("Which of the images all are aligned to at first; the first by default.", "IMAGE", panel=SETTINGS),
    ] = None
    rounds: Annotated[
        int, flag("How often the template is made anew.", "N", "--rounds", panel=SETTINGS, min=1, max=100)
    ] = 4
    step: Annotated[
        float,
        flag("Share of the mean displacement that a round takes back.", "0..1", "--step", panel=SETTINGS, min=0, max=1),
    ] = 1.0
    sharpening: Annotated[
        float, flag("How much of its detail a mean is given back.", "N", "--sharpen", panel=SETTINGS, min=0, max=10)
    ] = 0.0
    settings: SettingFlags = field(default_factory=SettingFlags)
    jobs: Annotated[int, flag("Images at once on this machine.", "N", "--jobs", "-j", panel=MACHINE, min=1)] = 1
    folders: Folders = ()
    device: Device = "auto"
    threads: Threads = None
    messages: JsonMessages = field(default_factory=JsonMessages)
    command: tuple[str, ...] = ()
    """The words of the command line."""

    @property
    def files(self) -> list[Path]:
        """The images, absolute."""
        return [path.absolute() for path in self.images]

    def options(self) -> TemplateOptions:
        """How the template is made (ConfigError)."""
        from semreg.registration.template import TemplateOptions

        start = self.files[0] if self.start is None else self.start.absolute()
        if start not in self.files:
            raise ConfigError(f"expected --start with one of the images, got {self.start}: name it as among them")
        return TemplateOptions(
            start=self.files.index(start), rounds=self.rounds, step=self.step, sharpening=self.sharpening
        )


@grouped
def template_command(context: typer.Context, flags: TemplateFlags) -> None:
    """Make the unbiased mean of IMAGES in intensity, shape and position; run it again to go on where it ended.

    Writes template, a record, and in images a folder for each with the image in the frame of the mean, its transform
    to the template and back, and its page. Each registration is a process of its own.
    """
    with flags.messages.spoken():
        run_template(replace(flags, command=command_of(context)))


def run_template(flags: TemplateFlags) -> None:
    """Align, register in rounds, write and show what came out."""
    config = load_config(flags.settings)
    files, options = flags.files, flags.options()
    from semreg.batch import JobFlags, LocalScheduler, threads_of
    from semreg.batch.lock import batch_lock
    from semreg.batch.template import RECORD, START, InBatches, TemplateRecord, names_of, write_cohort
    from semreg.features.trial import try_models, try_registrar
    from semreg.io.atomic_output import atomic_file, check_output_folder
    from semreg.registration.template import build_template
    from semreg.runtime.settings import to_toml

    cores = max(1, usable_cores() // flags.jobs)
    threads = threads_of(flags.output / START, flags.threads, min(cores, openmp_threads() or cores))
    work = InBatches(
        files=files, names=names_of(files), output=flags.output.absolute(), config=config,
        flags=JobFlags(threads=threads, device=flags.device, models=flags.folders),
        scheduler=LocalScheduler(flags.jobs), rounds=options.rounds,
        on_batch=None if flags.messages.quiet else Lines,
    )  # fmt: skip
    limit_threads(threads)
    try_models(config.models)
    try_registrar(config.start)
    check_files(work)
    with batch_lock(check_output_folder(work.output)):
        try:
            (work.output / RECORD).unlink(missing_ok=True)  # it says that all is there
            found = build_template(
                files, options=options, registrar=work, on_round=None if flags.messages.quiet else told
            )
        except KeyboardInterrupt:
            typer.echo("interrupted: what is finished is kept; give the same command again to go on", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        write_cohort(work)
        (work.output / CONFIG).write_text(to_toml(config), encoding="utf-8")
        record = TemplateRecord.of(found, work, options, flags.command)
        with atomic_file(work.output / RECORD) as partial:
            partial.write_text(record.text(), encoding="utf-8")
    show(flags, record, work)


def check_files(work: InBatches) -> None:
    """Refuse too few images, one twice, one that is not there, and to write into what is read (SemregError)."""
    if len(work.files) < 2:
        raise ConfigError(f"expected two images or more for a template, got {len(work.files)}: add more")
    for file in work.files:
        if work.files.count(file) > 1:
            raise ConfigError(f"expected each image once, got {file} twice")
        if not file.exists():
            raise ImageError(f"expected an image that is there, got {file}: there is no such file")
        if file.resolve().is_relative_to(work.output.resolve()):
            raise OutputError(f"expected another output folder: {file}, which is read, lies in it")


def told(found: Round, template: Volume) -> None:
    """What a round has found, a line on the standard error."""
    del template
    made = "the template as it is" if found.change is None else f"change {found.change:.3f} standard deviations"
    typer.echo(
        f"round {found.number}: mean displacement {found.residual_mm:.3f} mm, "
        f"deformation {found.deformation_mm:.2f} mm, {made}",
        err=True,
    )


def show(flags: TemplateFlags, record: TemplateRecord, work: InBatches) -> None:
    """The record, or the rounds and where the files are."""
    from semreg.batch.template import IMAGES, TEMPLATE

    if flags.messages.as_json:
        print_json(record)
    elif not flags.messages.quiet:
        titles = ("round", "mean displacement, mm", "deformation, mm", "change, standard deviations")
        show_table(
            titles,
            [
                (str(each.number), f"{each.residual_mm:.3f}", f"{each.deformation_mm:.3f}", change_of(each))
                for each in record.rounds
            ],
        )
        rows = [("images", str(len(record.images))), ("template", str(work.output / TEMPLATE))]
        show_rows([*rows, ("page", str(work.output / IMAGES / "index.html"))])


def change_of(found: Round) -> str:
    """The change of the template, for a table."""
    return "" if found.change is None else f"{found.change:.3f}"
