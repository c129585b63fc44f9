"""``semreg demo``: a built-in pair of images, registered, or its files alone to try the other commands with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from semreg.cli.common import Messages
from semreg.cli.grouping import grouped
from semreg.cli.panels import flag
from semreg.runtime.progress import REGISTER, Progress

Kind = Literal["abdomen", "brain", "slides"]
"""The built-in pairs."""


@grouped
def demo_command(
    *,
    output: Annotated[Path, flag("Folder for the results.", "FOLDER", "--output", "-o")] = Path("demo"),
    kind: Annotated[Kind, flag("CT and MR of an abdomen, two brains in MR, or two stained slides in 2-D.")] = "abdomen",
    size: Annotated[int | None, flag("About N voxels an axis; 120, 96, or 256 pixels by default.", "N", min=8)] = None,
    images_only: Annotated[
        bool, flag("Write images, labels and landmarks; register nothing.", None, "--images-only")
    ] = False,
    messages: Messages,
) -> None:
    """Register a built-in pair of phantoms with a known deformation and print the landmark error in mm."""
    with messages.spoken():
        with Progress(quiet=messages.quiet or images_only, stages=REGISTER, title="registering phantoms") as progress:
            with progress.stage("read"):
                from semreg.phantom.demo import run, write_images
            if images_only:
                lines = [str(path) for path in write_images(output, kind=kind, size=size)]
            else:
                lines = run(output, kind=kind, size=size, on_step=progress)
        for line in () if messages.quiet else lines:
            typer.echo(line)
