"""What the command line shows while it runs and at its end. Knows nothing of images; rich is imported when shown.

Progress goes to the standard error, so that the standard output holds the result alone.
"""

from __future__ import annotations

import logging
import math
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from semreg.runtime.events import Step


class Progress:
    """Shows the steps of a run: a moving bar on a terminal, one line a level elsewhere, nothing if quiet."""

    def __init__(self, *, quiet: bool, unit: str = "iterations") -> None:
        """``quiet`` shows nothing; ``unit``: what a step is called."""
        self._quiet = quiet
        self._unit = unit
        self._last: Step | None = None
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
        return self

    def __call__(self, step: Step) -> None:
        """Show one step; this is the ``on_step`` of a registration."""
        changed = self._last is not None and (step.stage, step.level) != (self._last.stage, self._last.level)
        if changed:
            self._finish_level()
        self._last = step
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task(_title(step), value="")
            shown = "" if math.isnan(step.value) else f"distance {step.value:.5g}"
            self._bar.update(self._task, completed=step.iteration, total=step.iterations, value=shown)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._finish_level()
        if self._bar is not None:
            self._bar.stop()

    def _finish_level(self) -> None:
        step = self._last
        if step is None or self._quiet:
            return
        if self._bar is not None:
            if self._task is not None:
                self._bar.update(self._task, total=step.iteration)
            self._task = None
            return
        value = "" if math.isnan(step.value) else f", distance {step.value:.5g}"
        spent = f"{step.iteration} of {step.iterations} {self._unit}{value}, {step.seconds:.1f} s"
        sys.stderr.write(f"{_title(step)}: {spent}\n")
        sys.stderr.flush()


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
            self._bar = _bar(of_bytes=True)
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


def show_log(*, quiet: bool, verbose: bool) -> None:
    """Send the log of semreg to the standard error: warnings, all with ``verbose``, none with ``quiet``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lowercase("%(levelname)s: %(message)s"))
    logger = logging.getLogger("semreg")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING)


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
    """A table on the standard output: columns on a terminal, else values between tabs, one row a line."""
    if not sys.stdout.isatty():
        sys.stdout.write("".join("\t".join(row) + "\n" for row in rows))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for number, title in enumerate(titles):
        table.add_column(title, no_wrap=number < len(titles) - 1, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)


def _bar(*, of_bytes: bool = False) -> Any:
    """A moving bar of steps, or of bytes that come."""
    from rich import progress
    from rich.console import Console

    amount = progress.DownloadColumn() if of_bytes else progress.MofNCompleteColumn()
    pace = progress.TransferSpeedColumn() if of_bytes else progress.TextColumn("{task.fields[value]}")
    times = (
        [progress.TimeRemainingColumn()] if of_bytes else [progress.TimeElapsedColumn(), progress.TimeRemainingColumn()]
    )
    columns = [progress.TextColumn("{task.description}"), progress.BarColumn(), amount, pace, *times]
    return progress.Progress(*columns, console=Console(stderr=True), refresh_per_second=4)


def _title(step: Step) -> str:
    return f"{step.stage}, level {step.level} of {step.levels}" if step.levels > 1 else step.stage


class _Lowercase(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text[: len(record.levelname)].lower() + text[len(record.levelname) :]
