"""What the command line shows at its end, and its log. Knows nothing of images; rich is imported when shown."""

from __future__ import annotations

import logging
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from semreg.runtime.progress import LOG


class Download:
    """Shows how much of a file has come: a moving bar on a terminal, nothing elsewhere."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        """``name`` of the file; ``quiet`` shows nothing."""
        self._name = name
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
        return self

    def __call__(self, come: int, total: int | None) -> None:
        """Show how many bytes have come, and of how many."""
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task(self._name)
            self._bar.update(self._task, completed=come, total=total)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def show_log(*, quiet: bool, verbose: bool, file: Path | None = None) -> None:
    """Send the log of semreg to the standard error, and all of it with times to a file, if one is named.

    Args:
        quiet: show errors alone.
        verbose: show all; else warnings.
        file: what is added to; OSError where it cannot be written.
    """
    shown = _ErrorStream()
    shown.setFormatter(_Lowercase("%(levelname)s: %(message)s"))
    shown.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING)
    shown.addFilter(lambda record: record.name != LOG.name)
    logger = logging.getLogger("semreg")
    for each in logger.handlers:
        each.close()
    logger.handlers = [shown]
    logger.propagate = False
    logger.setLevel(shown.level if file is None else logging.DEBUG)
    if file is not None:
        kept = logging.FileHandler(file, encoding="utf-8")
        kept.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(kept)
        LOG.info("%s", " ".join(sys.argv))


def show_sentences(lines: Iterable[str]) -> None:
    """Sentences on the standard output, one a line; on a terminal wrapped between words."""
    if not sys.stdout.isatty():
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
        return
    width = shutil.get_terminal_size().columns
    for line in lines:
        sys.stdout.write(textwrap.fill(line, width, initial_indent="• ", subsequent_indent="  ") + "\n")
    sys.stdout.flush()


def show_rows(rows: Sequence[tuple[str, str]], note: str = "") -> None:
    """Names and values on the standard output, and a ``note`` below."""
    if not sys.stdout.isatty():
        sys.stdout.write("".join(f"{name}: {value}\n" for name, value in rows) + (f"{note}\n" if note else ""))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    console = Console(highlight=False, markup=False)
    console.print(table)
    if note:
        console.print(note, style="dim")


def show_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on the standard output, its titles first: columns on a terminal, else values between tabs."""
    if not sys.stdout.isatty():
        sys.stdout.write("".join("\t".join(row) + "\n" for row in (titles, *rows)))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for number, title in enumerate(titles):
        table.add_column(title, no_wrap=number < len(titles) - 1, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)


def _bar() -> Any:
    """A moving bar of bytes that come."""
    from rich import progress
    from rich.console import Console

    columns = [
        progress.TextColumn("{task.description}"), progress.BarColumn(), progress.DownloadColumn(),
        progress.TransferSpeedColumn(), progress.TimeRemainingColumn(),
    ]  # fmt: skip
    return progress.Progress(*columns, console=Console(stderr=True), refresh_per_second=4)


class _ErrorStream(logging.StreamHandler[Any]):
    """Writes to what the standard error is now: a bar that moves there puts lines above itself."""

    @property
    def stream(self) -> Any:
        """The standard error."""
        return sys.stderr

    @stream.setter
    def stream(self, _: Any) -> None:
        pass


class _Lowercase(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text[: len(record.levelname)].lower() + text[len(record.levelname) :]
