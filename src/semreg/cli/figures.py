"""``semreg figures``: the output folder of a registration in, pictures for papers out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from semreg.cli.common import Messages
from semreg.cli.grouping import grouped
from semreg.cli.panels import INPUT, OUTPUT, PICTURES, argument, flag
from semreg.errors import ConfigError
from semreg.io.result_folder import FIGURES


@dataclass(frozen=True, kw_only=True)
class FigureFlags:
    """What ``semreg figures`` is asked for."""

    folder: Annotated[Path, argument("Output folder of semreg register or align.", "FOLDER")]
    kinds: Annotated[
        tuple[str, ...],
        flag(
            "Which picture: before_after, overlay, checkerboard, contour, arrows, grid, displacement, jacobian, "
            "uncertainty, convergence or landmarks; repeatable, the main ones by default.",
            "KIND",
            "--show",
            "-s",
            panel=PICTURES,
        ),
    ] = ()
    planes: Annotated[
        tuple[str, ...],
        flag("axial, coronal or sagittal; repeatable, all by default.", "PLANE", "--plane", "-p", panel=PICTURES),
    ] = ()
    at: Annotated[
        str | None,
        flag("Point in mm, LPS, through which the planes go; the middle by default.", "X,Y,Z", "--at", panel=PICTURES),
    ] = None
    window: Annotated[
        str | None,
        flag("Window of the fixed image: soft-tissue, lung, bone, or LOW,HIGH.", "WINDOW", "--window", panel=PICTURES),
    ] = None
    moving_window: Annotated[
        str | None, flag("The same of the moving image.", "WINDOW", "--moving-window", panel=PICTURES)
    ] = None
    dpi: Annotated[int, flag("Dots per inch; 300 is for print.", "N", "--dpi", panel=PICTURES, min=50, max=1200)] = 300
    fixed: Annotated[Path | None, flag("Fixed image, where it is no longer at its old place.", "FILE", panel=INPUT)] = (
        None
    )
    moving: Annotated[Path | None, flag("Moving image, the same.", "FILE", panel=INPUT)] = None
    fixed_labels: Annotated[
        Path | None, flag("Labels of the fixed image, outlined in contour.", "FILE", panel=INPUT)
    ] = None
    moving_labels: Annotated[
        Path | None, flag("Labels of the moving image, outlined in contour.", "FILE", panel=INPUT)
    ] = None
    output: Annotated[
        Path | None,
        flag("Folder for the files; FOLDER/figures by default.", "FOLDER", "--output", "-o", panel=OUTPUT),
    ] = None
    messages: Messages = field(default_factory=Messages)


@grouped
def figures_command(flags: FigureFlags) -> None:
    """Write pictures of a registration for papers: planes, place, window and kind as chosen, at 300 dpi."""
    with flags.messages.spoken():
        from semreg.report import FigureOptions, read_case, write_figures

        options = FigureOptions(
            kinds=flags.kinds, planes=flags.planes, at=place(flags.at), fixed_window=flags.window,
            moving_window=flags.moving_window, dpi=flags.dpi,
        )  # fmt: skip
        case = read_case(
            flags.folder, fixed=flags.fixed, moving=flags.moving, fixed_labels=flags.fixed_labels,
            moving_labels=flags.moving_labels,
        )  # fmt: skip
        written = write_figures(case, flags.output or flags.folder / FIGURES, options=options)
        if not flags.messages.quiet:
            typer.echo("\n".join(map(str, written)))


def place(text: str | None) -> tuple[float, ...] | None:
    """The numbers of a point (ConfigError)."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"expected --at as numbers in mm such as 12.5,-30,88, got {text!r}") from None
