"""``semreg slicer``: a registration as 3D Slicer starts one, with its names, its files and its lines of progress."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from semreg.cli.common import ImageFiles, ImageFormat, check_not_read, command_of
from semreg.cli.execution_model import as_flags, execution_model
from semreg.cli.grouping import grouped
from semreg.cli.panels import GUIDANCE, MESSAGES, OUTPUT, SectionedCommand, flag
from semreg.cli.register import check_together, run_plan, run_register
from semreg.cli.register_flags import RegisterFlags
from semreg.cli.settings_file import OFF
from semreg.cli.transforms import check_folder_of, files_of, grid_of
from semreg.errors import ConfigError, OutputError, SemregError
from semreg.io.atomic_output import atomic_file, check_output_folder
from semreg.io.result_folder import FORMATS, ResultFolder
from semreg.runtime.progress import SMALLEST_STEP

SINGLE = ("--output-transform", "--output-volume", "--uncertainty-volume")
"""The flags that ask for one file of a result."""
TEMPORARY = "semreg.slicer.temporary"
"""In the context of a command: its folder of results is deleted when it ends."""
IN_ONE_FILE = ("itk", "field", "warp")
"""The formats of transforms that hold a deformation in one file."""
HDF5 = (".h5", ".hdf5")
"""Names of what the transform of a result is already."""


class SlicerCommand(SectionedCommand):
    """A command that takes the words of Slicer, and that describes itself to it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words; where single files are wanted and no folder, the rest is deleted when the command ends."""
        words = as_flags(args, self)
        names = {word.partition("=")[0] for word in words}
        if names & set(SINGLE) and not names & {"--output", "-o"}:
            folder = ctx.with_resource(tempfile.TemporaryDirectory(prefix="semreg-slicer-"))
            ctx.meta[TEMPORARY] = True
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

    @property
    def places(self) -> list[Path]:
        """The files that are written beside the folder of the results."""
        named = (self.output_transform, self.output_volume, self.uncertainty_volume, self.returned)
        return [place for place in named if place is not None]

    def check(self, flags: RegisterFlags) -> None:
        """Refuse what could not be written at the end, or over what is read or written too (OutputError)."""
        from semreg.transforms import kind_of

        if self.output_transform is not None and kind_of(self.output_transform) not in IN_ONE_FILE:
            raise OutputError(
                "expected the name of a file that holds a deformation alone (.h5, .tfm or .txt of ITK, .nii.gz, .nrrd "
                f"or .mha for a field), got {self.output_transform}: rename it"
            )
        taken = {(flags.pair.output / name).resolve() for name in flags.outputs}
        for place in self.places:
            check_folder_of(place)
            check_output_folder(place.parent)
            check_not_read(place, read_by(flags))
            if place.resolve() in taken:
                raise OutputError(f"expected a name of its own for each output, got {place} twice: rename one of them")
            taken.add(place.resolve())

    def hand_over(self, folder: ResultFolder) -> None:
        """Bring what is wanted from the folder of the results to the places that were named: all of it, or nothing."""
        with ExitStack() as stack:
            staged = {place: stack.enter_context(atomic_file(place)) for place in self.places}
            if self.output_transform is not None:
                hand_over_transform(folder, self.output_transform, staged[self.output_transform])
            for place, name in ((self.output_volume, "warped"), (self.uncertainty_volume, "uncertainty")):
                if place is not None:
                    shutil.copyfile(folder.image(name), staged[place])
            if self.returned is not None:
                staged[self.returned].write_text(f"verdict = {verdict_line(folder)}\n", encoding="utf-8")
        copied = [str(place) for place in self.places if place != self.returned]
        if copied:
            typer.echo(f"copied to: {', '.join(copied)}")


def read_by(flags: RegisterFlags) -> list[Path]:
    """All files that a registration may read; words that are no file are harmless here."""
    initial = [] if flags.pair.initial is None else files_of([flags.pair.initial])
    return [*flags.inputs.values(), *initial, Path(flags.guidance.landmark_sd)]


def hand_over_transform(folder: ResultFolder, place: Path, staged: Path) -> None:
    """Write the transform to ``staged`` in the format that the name of ``place`` says."""
    if place.suffix.lower() in HDF5:
        shutil.copyfile(folder.transform, staged)
        return
    from semreg.transforms import kind_of, read_chain, write_chain

    kind = kind_of(place)
    grid = None if kind == "itk" else grid_of(folder.image("warped"))
    write_chain(read_chain([folder.transform]), staged, grid, kind=kind)


@contextmanager
def kept_if_not_handed_over(folder: Path, *, temporary: bool) -> Iterator[None]:
    """Say where the result is when it could not be brought to its places; a temporary one is saved from deletion."""
    try:
        yield
    except (SemregError, OSError) as error:
        if temporary:
            folder = folder.rename(tempfile.mkdtemp(prefix="semreg-result-"))
        raise OutputError(f"{error}; the result is kept in {folder}") from error


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
        settings = flags.settings  # Slicer's working folder is none that its user chose: nothing is looked for there
        settings = replace(settings, config=settings.config or OFF)
        flags = slicer.applied(replace(flags, settings=settings, command=command_of(context)))
        flags.guidance.check()
        slicer.check(flags)
        if flags.dry_run:
            run_plan(flags)
            return
        progress = SlicerProgress()
        progress.begin()
        run_register(flags, progress)
        with kept_if_not_handed_over(flags.pair.output, temporary=TEMPORARY in context.meta):
            slicer.hand_over(ResultFolder(flags.pair.output))
        progress.end()


def verdict_line(folder: ResultFolder) -> str:
    """The verdict of a result in one line, with what led to it; empty where nothing was judged."""
    found = folder.record()["verdict"]
    if found is None:
        return ""
    reasons = [check["sentence"] for check in found["checks"] if check["level"] == found["level"] != "PASS"]
    return " ".join([found["level"], *reasons])
