"""``semreg propagate``: labels of several images carried onto one and fused."""

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
    command_of,
    limit_threads,
    print_json,
)
from semreg.cli.grouping import grouped
from semreg.cli.panels import INPUT, OUTPUT, SETTINGS, argument, flag
from semreg.cli.register_flags import SettingFlags, load_config
from semreg.errors import OutputError
from semreg.io.result_folder import CONFIG, RECORD
from semreg.runtime.progress import Progress
from semreg.runtime.terminal import show_rows

if TYPE_CHECKING:
    from semreg.io.atomic_output import OutputFolder
    from semreg.registration.propagation import Propagated, PropagationRecord


@dataclass(frozen=True, kw_only=True)
class PropagateFlags:
    """An image, the atlases, how they are fused, and where the labels go."""

    image: Annotated[Path, argument("The image that is to be labelled.", "IMAGE")]
    atlas: Annotated[
        tuple[str, ...],
        flag("An atlas, IMAGE,LABELS: two files with a comma between; repeatable.", "IMAGE,LABELS", panel=INPUT),
    ]
    output: Annotated[Path, flag("Folder for the results.", "FOLDER", "--output", "-o", panel=OUTPUT)]
    fusion: Annotated[
        Literal["local", "majority", "staple"],
        flag("How the atlases vote: by their match around a voxel, alike, or as STAPLE does.", panel=SETTINGS),
    ] = "local"
    settings: SettingFlags = field(default_factory=SettingFlags)
    images: ImageFiles = field(default_factory=ImageFiles)
    device: Device = "auto"
    threads: Threads = None
    messages: JsonMessages = field(default_factory=JsonMessages)
    command: tuple[str, ...] = ()
    """The words of the command line."""

    @property
    def atlases(self) -> list[tuple[Path, Path]]:
        """The files of each atlas (ConfigError)."""
        from semreg.registration.propagation import files_of_atlas

        return [files_of_atlas(text) for text in self.atlas]


@grouped
def propagate_command(context: typer.Context, flags: PropagateFlags) -> None:
    """Label IMAGE by atlases: register each to it, carry its labels over, and let them vote.

    Writes labels, agreement (the share of the votes, 0 to 1: low where the atlases differ), the settings and a record.
    """
    with flags.messages.spoken():
        run_propagate(replace(flags, command=command_of(context)))


def run_propagate(flags: PropagateFlags) -> None:
    """Read, register, fuse, write and show what came out."""
    config = load_config(flags.settings)
    atlases = flags.atlases
    check_outputs(flags, atlases)
    limit_threads(flags.threads)
    from semreg.features.trial import try_models, try_registrar
    from semreg.io.files import OutputFolder
    from semreg.registration.propagation import PropagationRecord, propagate
    from semreg.runtime.settings import to_toml

    try_models([*config.models, *config.ensemble.entries])
    try_registrar(config.start)
    with OutputFolder(flags.output, record=RECORD) as folder:
        with Progress(quiet=flags.messages.quiet, unit="registrations") as progress:
            found = propagate(
                flags.image, atlases, fusion=flags.fusion, config=config, device=flags.device,
                on_atlas=lambda number: progress.say(f"atlas {number} of {len(atlases)}: {atlases[number - 1][0]}"),
            )  # fmt: skip
        write(flags, found, folder)
        record = PropagationRecord.of(found, flags.image, atlases, fusion=flags.fusion, command=flags.command)
        folder.stage(CONFIG).write_text(to_toml(config), encoding="utf-8")
        folder.stage(RECORD).write_text(record.text(), encoding="utf-8")
    show(flags, record, folder.files)


def check_outputs(flags: PropagateFlags, atlases: list[tuple[Path, Path]]) -> None:
    """Refuse to write over what is read (OutputError)."""
    written = {(flags.output / flags.images.name(name)).resolve() for name in ("labels", "agreement")}
    for path in [flags.image, *(file for atlas in atlases for file in atlas)]:
        if path.resolve() in written:
            raise OutputError(f"expected another output folder: {path}, which is read, would be written over")


def write(flags: PropagateFlags, found: Propagated, folder: OutputFolder) -> None:
    """The labels in the smallest type that holds them, and the agreement."""
    from semreg.io import files

    largest = float(found.labels.data.abs().max())
    kind = "uint8" if largest < 256 and float(found.labels.data.min()) >= 0 else "int32"
    files.write_image(found.labels, folder.stage(flags.images.name("labels")), flags.images.dtype or kind)
    files.write_image(found.agreement, folder.stage(flags.images.name("agreement")), "float32")


def show(flags: PropagateFlags, record: PropagationRecord, written: list[Path]) -> None:
    """The record, or a few rows."""
    if flags.messages.as_json:
        print_json(record)
    elif not flags.messages.quiet:
        rows = [("labels", f"{len(record.labels)}, fused from {len(record.atlases)} atlases ({record.fusion})")]
        rows += [("agreement", f"{100 * record.agreement:.3g} % of the votes, in the mean over the labelled voxels")]
        show_rows([*rows, ("files", ", ".join(map(str, written)))])
