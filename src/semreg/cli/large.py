"""``semreg large``: two images of OME-Zarr of any size in, the transform and the warped image out, block by block."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semreg.cli.common import JsonMessages, Memory, Threads, command_of, limit_threads, print_json
from semreg.cli.grouping import grouped
from semreg.cli.panels import INPUT, MACHINE, MESSAGES, OUTPUT, argument, flag
from semreg.cli.register_flags import SettingFlags, load_config
from semreg.errors import ConfigError
from semreg.runtime.progress import Progress
from semreg.runtime.terminal import show_rows, show_sentences

if TYPE_CHECKING:
    from semreg.config import RegistrationConfig
    from semreg.registration.blocks.plan import Options
    from semreg.registration.blocks.record import LargeRecord
    from semreg.registration.blocks.run import Pair

ADVICE = "lower --memory to what each process may hold, or take fewer --jobs; run it again to go on"


@dataclass(frozen=True, kw_only=True)
class LargeFlags:
    """Two images in chunks, where the results go, and what there is to work with."""

    fixed: Annotated[Path, argument("Fixed image: a folder of OME-Zarr, or a whole slide.", "FIXED")]
    moving: Annotated[Path, argument("Moving image, brought onto the fixed one.", "MOVING")]
    output: Annotated[
        Path, flag("Folder for the results; a run that was ended goes on there.", "FOLDER", "--output", "-o",
                   panel=OUTPUT)
    ]  # fmt: skip
    fixed_series: Annotated[
        str | None, flag("Which sample of axes beside space, such as c=0,t=2.", "CHOICE", panel=INPUT)
    ] = None
    moving_series: Annotated[str | None, flag("The same for the moving image.", "CHOICE", panel=INPUT)] = None
    initial: Annotated[Path | None, flag("Transform to start from, fixed to moving.", "FILE", panel=INPUT)] = None
    finest: Annotated[
        int, flag("Resolution of the fixed image at which it ends, 0 is the finest.", "N", panel=OUTPUT, min=0)
    ] = 0
    settings: SettingFlags = field(default_factory=SettingFlags)
    memory: Memory = "4GB"
    block: Annotated[
        int | None, flag("Voxels of a block along each axis; 128 (2-D: 1024), or less by memory.", "N", panel=MACHINE)
    ] = None
    jobs: Annotated[int, flag("Processes on this machine.", "N", "--jobs", "-j", panel=MACHINE, min=1)] = 1
    scheduler: Annotated[
        str | None, flag("Dask scheduler to run on, such as tcp://host:8786.", "ADDRESS", panel=MACHINE)
    ] = None
    threads: Threads = None
    dry_run: Annotated[bool, flag("Print the plan.", None, "--dry-run", panel=MESSAGES)] = False
    messages: JsonMessages = field(default_factory=JsonMessages)
    command: tuple[str, ...] = ()
    """The words of the command line."""

    def options(self) -> Options:
        """How much there is to work with (ConfigError)."""
        from semreg.registration.blocks.plan import Options
        from semreg.runtime.memory import parse_bytes

        return Options(memory_bytes=parse_bytes(self.memory or "4GB"), block=self.block, finest=self.finest)

    def pair(self) -> Pair:
        """Both images, and the start, read."""
        from semreg.registration.blocks.plan import Input
        from semreg.registration.blocks.run import Pair
        from semreg.transforms import read_transform

        fixed, moving = Input(str(self.fixed), self.fixed_series), Input(str(self.moving), self.moving_series)
        if self.initial is None:
            return Pair(fixed, moving)
        return Pair(fixed, moving, read_transform(self.initial), self.initial.resolve())


@grouped
def large_command(context: typer.Context, flags: LargeFlags) -> None:
    """Register images of OME-Zarr that do not fit into memory: coarse in one piece, then in blocks, without seams.

    Writes the transform (a B-spline that ITK reads), the warped image as OME-Zarr, the settings and a record. --memory
    is that of each process, of which there are --jobs and one. A run that was ended, however it was, goes on where it
    was.
    """
    with flags.messages.spoken(ADVICE):
        if flags.jobs > 1 and flags.scheduler is not None:
            raise ConfigError("expected --jobs or --scheduler, got both: leave one out")
        run_large(replace(flags, command=command_of(context)))


def run_large(flags: LargeFlags) -> None:
    """Plan, register, write and show what came out."""
    config, options = load_config(flags.settings), flags.options()
    limit_threads(flags.threads)
    from semreg.registration.blocks.plan import make_plan

    pair = flags.pair()
    if flags.dry_run:
        plan = make_plan(pair.fixed, pair.moving, config, options)
        if flags.messages.as_json:
            print_json({"lines": plan.sentences})
        else:
            show_sentences(plan.sentences)
        return
    record = registered(flags, pair, config, options)
    if flags.messages.as_json:
        print_json(record)
    elif not flags.messages.quiet:
        show(flags, record)


def registered(flags: LargeFlags, pair: Pair, config: RegistrationConfig, options: Options) -> LargeRecord:
    """Register on the workers that are asked for."""
    from semreg.registration.blocks.run import register_large
    from semreg.registration.blocks.workers import workers_at

    title = f"registering {flags.moving} onto {flags.fixed}"
    seen = [flags.fixed.resolve(), flags.moving.resolve()]
    with (
        workers_at(flags.scheduler, flags.jobs, flags.threads or 1, seen) as workers,
        Progress(quiet=flags.messages.quiet, title=title) as progress,
    ):
        return register_large(
            pair, flags.output.resolve(), config=config, options=options, workers=workers, say=progress.say,
            on_step=progress, command=flags.command,
        )  # fmt: skip


def show(flags: LargeFlags, record: LargeRecord) -> None:
    """A few rows: each resolution, how folded the map is, and what it took."""
    rows = [("in one piece", record.plan[0].partition(": ")[2])]
    for level in record.levels:
        size = " × ".join(map(str, level.size))
        change = f"{level.report.distance_before:.4g} → {level.report.distance_after:.4g}"
        rows.append((f"{size} voxels", f"{level.blocks} blocks, {level.compared} by {level.distance}: {change}"))
    folds = record.jacobian
    rows.append(("Jacobian", f"{folds.minimum:.3g} at least, {100 * folds.folded_share:.2g} % folded"))
    rows.append(("memory", f"{record.peak_memory_bytes / 1e9:.2f} GB in the process that held most"))
    show_rows([*rows, ("files", str(flags.output))])
