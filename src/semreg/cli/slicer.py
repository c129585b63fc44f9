"""``semreg slicer``: a registration as 3D Slicer starts one, with its names, its files and its lines of progress."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from semreg.cli.common import ImageFiles, ImageFormat, command_of
from semreg.cli.execution_model import as_flags, execution_model
from semreg.cli.grouping import grouped
from semreg.cli.panels import GUIDANCE, MESSAGES, OUTPUT, SectionedCommand, flag
from semreg.cli.register import check_together, run_plan, run_register
from semreg.cli.register_flags import RegisterFlags
from semreg.errors import ConfigError
from semreg.io.result_folder import FORMATS, TRANSFORM, ResultFolder

SINGLE = ("--output-transform", "--output-volume", "--uncertainty-volume")
"""The flags that ask for one file of a result."""
SMALLEST_STEP = 0.005
"""Share of the whole; smaller steps of it are not told."""


class SlicerCommand(SectionedCommand):
    """A command that takes the words of Slicer, and that describes itself to it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words; where single files are wanted and no folder, the rest is deleted when the command ends."""
        words = as_flags(args, self)
        names = {word.partition("=")[0] for word in words}
        if names & set(SINGLE) and not names & {"--output", "-o"}:
            folder = ctx.with_resource(tempfile.TemporaryDirectory(prefix="semreg-slicer-"))
            words = ["--output", str(Path(folder) / "result"), *words]
        return super().parse_args(ctx, words)


def _describe(context: typer.Context, wanted: bool) -> None:
    if wanted:
        typer.echo(execution_model(context.command), nl=False)
        raise typer.Exit


@dataclass(frozen=True, kw_only=True)
class SlicerFlags:
    """What Slicer says beside the flags of ``semreg register``."""

    output_transform: Annotated[
        Path | None, flag("For the moving volume: brings it onto the fixed one.", "FILE", panel=OUTPUT)
    ] = None
    output_volume: Annotated[
        Path | None, flag("The moving image on the grid of the fixed one.", "FILE", panel=OUTPUT)
    ] = None
    uncertainty_volume: Annotated[
        Path | None, flag("How far the displacement may be off, in mm.", "FILE", panel=OUTPUT)
    ] = None
    fixed_landmarks: Annotated[
        Path | None,
        flag("Points of the fixed image, in the order of those of the moving one.", "FILE", panel=GUIDANCE),
    ] = None
    moving_landmarks: Annotated[Path | None, flag("The same points in the moving image.", "FILE", panel=GUIDANCE)] = (
        None
    )
    returned: Annotated[Path | None, flag("File for the verdict.", "FILE", "--returnparameterfile", panel=MESSAGES)] = (
        None
    )
    xml: Annotated[
        bool,
        flag("Print the description for 3D Slicer.", None, "--xml", panel=MESSAGES, is_eager=True, callback=_describe),
    ] = False

    def applied(self, flags: RegisterFlags) -> RegisterFlags:
        """The flags of a registration with what is said here (ConfigError where it has no meaning)."""
        points = (self.fixed_landmarks, self.moving_landmarks)
        if (points[0] is None) != (points[1] is None):
            raise ConfigError("expected landmarks of both images, got those of one: choose both lists, or none")
        if points[0] is not None and points[1] is not None:
            flags = replace(flags, guidance=replace(flags.guidance, landmarks=(points[0], points[1])))
        if self.uncertainty_volume is not None:
            flags = replace(flags, uncertainty=True)
        images = [path for path in (self.output_volume, self.uncertainty_volume) if path is not None]
        endings = {next((each for each in FORMATS if path.name.endswith(f".{each}")), path.suffix) for path in images}
        if len(endings) > 1 or endings - set(FORMATS):
            raise ConfigError(
                f"expected volumes with one of the endings .{', .'.join(FORMATS)}, the same for all, got "
                f"{', '.join(path.name for path in images)}: rename them"
            )
        written = [ImageFormat(ending) for ending in endings] or [flags.images.image_format]
        return replace(flags, images=ImageFiles(dtype=flags.images.dtype, image_format=written[0]))

    def hand_over(self, folder: ResultFolder) -> None:
        """Copy what is wanted from the folder of the results to the places that were named."""
        from semreg.io.atomic_output import atomic_file

        wanted = {
            self.output_transform: folder.path / TRANSFORM if self.output_transform else None,
            self.output_volume: folder.image("warped") if self.output_volume else None,
            self.uncertainty_volume: folder.image("uncertainty") if self.uncertainty_volume else None,
        }
        kept = {place: made for place, made in wanted.items() if place is not None and made is not None}
        for place, made in kept.items():
            with atomic_file(place) as staged:
                shutil.copyfile(made, staged)
        if kept:
            typer.echo(f"copied to: {', '.join(map(str, kept))}")
        if self.returned is not None:
            with atomic_file(self.returned) as staged:
                staged.write_text(f"verdict = {verdict_line(folder)}\n", encoding="utf-8")


class SlicerProgress:
    """Tells Slicer on the standard output how far a registration is, in the tags that it looks for."""

    def __init__(self) -> None:
        """Nothing is said before ``begin``."""
        self._started, self._told, self._stage = time.monotonic(), 0.0, ""

    def begin(self) -> None:
        """Say that the work begins."""
        typer.echo(
            "<filter-start>\n<filter-name>semreg</filter-name>\n<filter-comment>read</filter-comment>\n</filter-start>"
        )

    def __call__(self, share: float, stage: str) -> None:
        """Say which share of the whole is done, 0 to 1, and in which stage."""
        if stage != self._stage and stage:
            typer.echo(f"<filter-comment>{stage}</filter-comment>")
            self._stage = stage
        if share - self._told >= SMALLEST_STEP:
            typer.echo(f"<filter-progress>{share:.3f}</filter-progress>")
            self._told = share

    def end(self) -> None:
        """Say that all is done, and in how many seconds."""
        seconds = time.monotonic() - self._started
        typer.echo("<filter-progress>1</filter-progress>")
        typer.echo(
            f"<filter-end>\n<filter-name>semreg</filter-name>\n<filter-time>{seconds:.1f}</filter-time>\n</filter-end>"
        )


@grouped
def slicer_command(context: typer.Context, flags: RegisterFlags, slicer: SlicerFlags) -> None:
    """Register as 3D Slicer asks for it: semreg register, with Slicer's names, files and lines of progress."""
    with flags.messages.spoken():
        check_together(flags.pair)
        flags.contrasts.check()
        flags = slicer.applied(replace(flags, command=command_of(context)))
        flags.guidance.check()
        if flags.dry_run:
            run_plan(flags)
            return
        progress = SlicerProgress()
        progress.begin()
        run_register(flags, progress)
        slicer.hand_over(ResultFolder(flags.pair.output))
        progress.end()


def verdict_line(folder: ResultFolder) -> str:
    """The verdict of a result in one line, with what led to it; empty where nothing was judged."""
    found = folder.record()["verdict"]
    if found is None:
        return ""
    reasons = [check["sentence"] for check in found["checks"] if check["level"] == found["level"] != "PASS"]
    return " ".join([found["level"], *reasons])
