"""The flags of ``semreg batch``. Reads nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from semreg.cli.common import Device, Folders, ImageFiles, ImageFormat, JsonMessages, Threads
from semreg.cli.panels import INPUT, MACHINE, MESSAGES, OUTPUT
from semreg.cli.register_flags import Inverse, Jacobian, SettingFlags


@dataclass(frozen=True, kw_only=True)
class BatchImages(ImageFiles):
    """How the images of all pairs are written."""

    dtype: Annotated[
        str | None,
        typer.Option(
            help="Voxel type of the warped images; else the moving one's.", metavar="TYPE", rich_help_panel=OUTPUT
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class BatchMessages(JsonMessages):
    """What a batch says."""

    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print what became of the pairs as JSON and nothing else.", rich_help_panel=MESSAGES
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class BatchFlags:
    """What ``semreg batch`` is asked for."""

    source: Annotated[
        Path, typer.Argument(help="Table of pairs, .csv or .toml, or the folder of a BIDS data set.", metavar="SOURCE")
    ]
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Folder for the results, one folder a pair.",
            metavar="FOLDER",
            rich_help_panel=OUTPUT,
        ),
    ]
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs", "-j", min=1, help="Pairs at once on this machine.", metavar="N", rich_help_panel=MACHINE
        ),
    ] = 1
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            help="Dask scheduler to run on, such as tcp://host:8786.",
            metavar="ADDRESS",
            rich_help_panel=MACHINE,
        ),
    ] = None
    fixed: Annotated[
        str | None,
        typer.Option(
            "--fixed",
            help="BIDS: which images are fixed, such as suffix=T1w,session=01; or a file.",
            metavar="ENTITIES|FILE",
            rich_help_panel=INPUT,
        ),
    ] = None
    moving: Annotated[
        str | None,
        typer.Option(
            "--moving",
            help="BIDS: which images are moving, such as suffix=T2w.",
            metavar="ENTITIES",
            rich_help_panel=INPUT,
        ),
    ] = None
    across: Annotated[
        bool, typer.Option("--across", help="BIDS: one fixed image for all subjects.", rich_help_panel=INPUT)
    ] = False
    only: Annotated[
        tuple[str, ...],
        typer.Option(
            "--only", help="Run this pair and leave the others; repeatable.", metavar="NAME", rich_help_panel=INPUT
        ),
    ] = ()
    settings: SettingFlags = field(default_factory=SettingFlags)
    inverse: Inverse = False
    jacobian: Jacobian = False
    images: BatchImages = field(default_factory=BatchImages)
    folders: Folders = ()
    device: Device = "auto"
    threads: Threads = None
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all pairs and print what would be run.", rich_help_panel=MESSAGES)
    ] = False
    messages: BatchMessages = field(default_factory=BatchMessages)
    command: tuple[str, ...] = ()
    """The words of the command line."""

    @property
    def further(self) -> tuple[str, ...]:
        """Further flags for the ``semreg register`` of each pair."""
        images = self.images
        return (
            *(("--inverse",) if self.inverse else ()),
            *(("--jacobian",) if self.jacobian else ()),
            *(() if images.dtype is None else ("--dtype", images.dtype)),
            *(() if images.image_format is ImageFormat.NIFTI else ("--format", images.image_format.value)),
        )
