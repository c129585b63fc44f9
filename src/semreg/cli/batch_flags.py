"""The flags of ``semreg batch``. Reads nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from semreg.cli.common import Device, Dicom, FailOn, Folders, ImageFiles, ImageFormat, JsonMessages, Private, Threads
from semreg.cli.panels import INPUT, MACHINE, MESSAGES, OUTPUT, argument, flag
from semreg.cli.register_flags import Inverse, Jacobian, SettingFlags


@dataclass(frozen=True, kw_only=True)
class BatchImages(ImageFiles):
    """How the images of all pairs are written."""

    dtype: Annotated[
        str | None, flag("Voxel type of the warped images; else the moving one's.", "TYPE", panel=OUTPUT)
    ] = None


@dataclass(frozen=True, kw_only=True)
class BatchMessages(JsonMessages):
    """What a batch says."""

    as_json: Annotated[
        bool, flag("Print what became of the pairs as JSON and nothing else.", None, "--json", panel=MESSAGES)
    ] = False


@dataclass(frozen=True, kw_only=True)
class BatchFlags:
    """What ``semreg batch`` is asked for."""

    source: Annotated[Path, argument("Table of pairs, .csv or .toml, or the folder of a BIDS data set.", "SOURCE")]
    output: Annotated[
        Path, flag("Folder for the results, one folder a pair.", "FOLDER", "--output", "-o", panel=OUTPUT)
    ]
    derivatives: Annotated[
        Path | None,
        flag(
            "Lay the results out as BIDS derivatives too, such as BIDS/derivatives/semreg.",
            "FOLDER", "--bids-derivatives", panel=OUTPUT,
        ),
    ] = None  # fmt: skip
    jobs: Annotated[int, flag("Pairs at once on this machine.", "N", "--jobs", "-j", panel=MACHINE, min=1)] = 1
    scheduler: Annotated[
        str | None, flag("Dask scheduler to run on, such as tcp://host:8786.", "ADDRESS", panel=MACHINE)
    ] = None
    fixed: Annotated[
        str | None,
        flag("BIDS: which images are fixed, such as suffix=T1w,session=01; or a file.", "ENTITIES|FILE", panel=INPUT),
    ] = None
    moving: Annotated[
        str | None, flag("BIDS: which images are moving, such as suffix=T2w.", "ENTITIES", panel=INPUT)
    ] = None
    across: Annotated[bool, flag("BIDS: one fixed image for all subjects.", None, "--across", panel=INPUT)] = False
    only: Annotated[tuple[str, ...], flag("Run this pair and leave the others; repeatable.", "NAME", panel=INPUT)] = ()
    settings: SettingFlags = field(default_factory=SettingFlags)
    inverse: Inverse = False
    jacobian: Jacobian = False
    fail_on: FailOn = None
    images: BatchImages = field(default_factory=BatchImages)
    dicom: Dicom = False
    private: Private = False
    folders: Folders = ()
    device: Device = "auto"
    threads: Threads = None
    dry_run: Annotated[
        bool, flag("Check all pairs and print what would be run.", None, "--dry-run", panel=MESSAGES)
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
            *(("--dicom",) if self.dicom else ()),
            *(() if images.dtype is None else ("--dtype", images.dtype)),
            *(() if images.image_format is ImageFormat.NIFTI else ("--format", images.image_format.value)),
        )
