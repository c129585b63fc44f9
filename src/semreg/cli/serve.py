"""``semreg serve``: a small HTTP service, with a queue on disk. Imports nothing heavy at its top."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semreg.cli.common import Device, Messages
from semreg.cli.grouping import grouped
from semreg.cli.panels import INPUT, MACHINE, MODELS, OUTPUT, flag
from semreg.errors import ConfigError
from semreg.runtime.threads import openmp_threads, usable_cores

if TYPE_CHECKING:
    from semreg.batch.service.server import Address, Service

NEEDED = ("fastapi", "uvicorn", "python_multipart")


@dataclass(frozen=True, kw_only=True)
class ServeFlags:
    """What ``semreg serve`` is asked for."""

    folder: Annotated[Path, flag("Folder of the jobs; they are there again after a restart.", "FOLDER", panel=OUTPUT)]
    host: Annotated[str, flag("Address to listen on; any but this machine's own needs --token-file.", "HOST")] = (
        "127.0.0.1"
    )
    port: Annotated[int, flag("Port; 0 takes a free one.", "N", min=0, max=65535)] = 8000
    token_file: Annotated[
        Path | None, flag("File with the token that every request needs; else one is made in the folder.", "FILE")
    ] = None
    max_size: Annotated[float, flag("Largest request.", "MB", panel=INPUT, min=0.001)] = 1000.0
    max_waiting: Annotated[int, flag("Jobs that may wait; then 429 is answered.", "N", panel=INPUT, min=1)] = 100
    max_minutes: Annotated[float, flag("Longest registration; then it is ended.", "N", panel=MACHINE, min=0.01)] = 240.0
    keep: Annotated[float, flag("How long a job that has ended is kept.", "DAYS", panel=OUTPUT, min=0.0)] = 7.0
    workers: Annotated[int, flag("Registrations at once.", "N", panel=MACHINE, min=1)] = 1
    threads: Annotated[
        int | None, flag("Threads of each; by default the cores divided by the workers.", "N", panel=MACHINE, min=1)
    ] = None
    models: Annotated[
        tuple[Path, ...],
        flag("Folder with models that jobs may name; repeatable. Without, MIND alone.", "FOLDER", panel=MODELS),
    ] = ()
    device: Device = "auto"
    messages: Messages = field(default_factory=Messages)

    def service(self) -> Service:
        """The same as the library takes it."""
        from semreg.batch.service.process import Machine
        from semreg.batch.service.queue import Limits
        from semreg.batch.service.server import Service

        cores = max(1, usable_cores() // self.workers)
        return Service(
            folder=self.folder.absolute(),
            machine=Machine(
                threads=self.threads or min(cores, openmp_threads() or cores), device=self.device,
                models=tuple(each.absolute() for each in self.models),
            ),
            limits=Limits(
                workers=self.workers, waiting=self.max_waiting, bytes=int(self.max_size * 1e6),
                minutes=self.max_minutes, keep_days=self.keep,
            ),
            host=self.host, port=self.port, token_file=self.token_file,
        )  # fmt: skip


@grouped
def serve_command(flags: ServeFlags) -> None:
    """Serve registrations over HTTP: submit two images, ask how far it is, fetch the result.

    Every request needs the token, as Authorization: Bearer TOKEN. Jobs wait in a queue on disk, and each runs in a
    process of its own. Ends in order with SIGTERM or Ctrl-C: jobs that run then begin again with the next start.
    """
    with flags.messages.spoken():
        missing = [name for name in NEEDED if find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"expected the packages of the service, {', '.join(missing)} not found: pip install 'semreg[serve]'"
            )
        from semreg.batch.service.server import serve
        from semreg.runtime.devices import check_device

        check_device(flags.device)
        serve(flags.service(), Started(quiet=flags.messages.quiet))


@dataclass(frozen=True)
class Started:
    """Says where the service is, and where its token is; never the token."""

    quiet: bool

    def __call__(self, address: Address) -> None:
        """Say it, unless it is to be quiet."""
        if not self.quiet:
            typer.echo(f"serving on {address.url}; the token is in {address.token_file}")
