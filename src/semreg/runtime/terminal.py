"""What the command line shows while it runs and at its end. Knows nothing of images; rich is imported when shown.

Progress goes to the standard error, so that the standard output holds the result alone.
"""

from __future__ import annotations

import logging
import math
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from semreg.runtime.events import Step

DIRECTION = (
    "transform.h5 maps points of the fixed image to the moving image (mm, LPS): "
    "give it to a resampler as it is to bring the moving image onto the fixed one"
)


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
            self._bar = _download_bar()
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


def show_summary(record: Mapping[str, Any], files: list[str]) -> None:
    """The end of a run on the standard output: similarity, Jacobian, files, and the direction of the transform."""
    show_rows(summary_rows(record, files), DIRECTION)


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


def summary_rows(record: Mapping[str, Any], files: list[str]) -> list[tuple[str, str]]:
    """Names and values of the summary."""
    similarity, jacobian, back = record["similarity"], record["jacobian"], record.get("inverse")
    uncertainty = record.get("uncertainty")
    return [
        *verdict_rows(record.get("verdict")),
        *alignment_rows(record.get("alignment")),
        *landmark_rows(record.get("landmarks")),
        ("distance of features", f"{_number(similarity['before'])} before, {_number(similarity['after'])} after"),
        ("smallest Jacobian", _number(jacobian["minimum"])),
        ("folded voxels", f"{_number(100 * jacobian['folded_share'])} %"),
        *([("there and back", _there_and_back(back))] if back else []),
        *([("uncertainty", _estimated(uncertainty))] if uncertainty else []),
        ("files", ", ".join(files)),
    ]


def verdict_rows(verdict: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """The verdict and what did not pass, the worst first."""
    if verdict is None:
        return []
    reasons = [gate for level in ("FAIL", "LOOK") for gate in verdict["gates"] if gate["level"] == level]
    return [("verdict", verdict["level"]), *[(gate["level"].lower(), gate["sentence"]) for gate in reasons]]


def alignment_rows(alignment: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What was found by the alignment, why it was applied or not, and each doubt."""
    if alignment is None:
        return []
    applied = "none, the start stands" if alignment["transform"] == "none" else alignment["transform"]
    if alignment["match"] is None or math.isnan(alignment["match"]):
        return [("alignment", applied)]
    match = f"match {_number(alignment['match'])}, {_number(100 * alignment['overlap'])} % of the content in both"
    why = [("why", sentence) for sentence in alignment["decisions"][-1:]]
    return [("alignment", f"{applied}; {match}"), *why, *[("doubtful", doubt) for doubt in alignment["doubts"]]]


def landmark_rows(landmarks: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """The errors of the landmarks before and after: a mean alone hides the places that went wrong."""
    if landmarks is None:
        return []
    before, after = landmarks["before"], landmarks["after"]
    names = {"mean": "mean", "p95": "95th percentile", "maximum": "largest"}
    errors = [f"{words} {before[f'{n}_mm']:.2f} → {after[f'{n}_mm']:.2f} mm" for n, words in names.items()]
    return [("landmark error", f"{', '.join(errors)}; {landmarks['worse']} of {landmarks['count']} got worse")]


def _estimated(uncertainty: Mapping[str, Any]) -> str:
    """The median of the map of uncertainty, and that it is a scale and no error that was measured."""
    median = _number(uncertainty["median_mm"])
    return (
        f"{median} mm in the median, to compare places of this pair by; no measured error, large where images are flat"
    )


def _there_and_back(inverse: Mapping[str, Any]) -> str:
    """How far a point is from where it started, in words."""
    parts = [
        f"{_number(errors['mean_mm'])} mm on average, {_number(errors['p999_mm'])} mm for 1 of 1000"
        for errors in inverse["consistency"].values()
        if errors["mean_mm"] is not None
    ]
    return "; ".join(parts) or "no point of one image comes to lie in the other"


def _bar() -> Any:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[value]}"),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        refresh_per_second=4,
    )


def _download_bar() -> Any:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        refresh_per_second=4,
    )


def _title(step: Step) -> str:
    return f"{step.stage}, level {step.level} of {step.levels}" if step.levels > 1 else step.stage


def _number(value: Any) -> str:
    return "unknown" if value is None or math.isnan(value) else f"{value:.4g}"


class _Lowercase(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text[: len(record.levelname)].lower() + text[len(record.levelname) :]
