"""How far a run is: one bar for the whole on a terminal, and a line for each stage that is done, there and elsewhere.

Progress goes to the standard error, so that the standard output holds the result alone. rich is imported when shown.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from semreg.errors import OutputError
from semreg.runtime.events import Step

REGISTER: Mapping[str, float] = {
    "read": 12, "prepare": 3, "plan": 1, "align": 28, "features": 7, "start": 2, "coarse": 3, "contrast": 1,
    "refine": 29, "fit": 1, "ensemble": 3, "fine": 10, "sliding": 8, "parts": 2, "uncertainty": 1, "field": 2,
    "inverse": 3, "write": 6, "judge": 6, "page": 4,
}  # fmt: skip
"""The stages of a registration in their order, and what share of the time each usually takes."""
ALIGN: Mapping[str, float] = {"read": 25, "prepare": 5, "align": 60, "field": 4, "write": 6}
IMPORTED, READ = 0.4, 0.8
"""What of the stage ``read`` is done when the packages are there, and when the images are."""
USUAL = 0.4
"""Of the iterations that a level may make, those that it usually makes."""
EARLIEST = 0.1
"""Share that is done from which on the time left is told."""
SMALLEST_STEP = 0.005
"""Share of the whole; smaller steps of it are not told to other programs."""
LOG = logging.getLogger("semreg.progress")
"""Lines of stages, for the file of --log-file alone: on the terminal they are shown already."""


class Progress:
    """Shows the steps of a run: a moving bar on a terminal, one line a stage there and elsewhere, nothing if quiet."""

    def __init__(
        self,
        *,
        quiet: bool,
        unit: str = "steps",
        stages: Mapping[str, float] | None = None,
        title: str = "",
        on_share: Callable[[float, str], None] | None = None,
    ) -> None:
        """What is shown.

        Args:
            quiet: show nothing.
            unit: what an iteration is called.
            stages: the stages in their order with their usual shares of the time; None: one, whatever its name.
            title: what is done, said before anything else: on a terminal at once.
            on_share: called with the share of the whole that is done, 0 to 1, and the stage, whenever either may have
                changed; quiet or not. For programs that show a bar of their own.
        """
        self._quiet, self._unit, self._stages, self._title = quiet, unit, dict(stages or {}), title
        self._on_share = on_share
        self._name, self._began, self._steps, self._last = "", 0.0, 0, None
        self._started = time.monotonic()
        self._share = 0.0
        self._bar: Any = None
        self._task: Any = None

    _last: Step | None

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        if self._quiet:
            return self
        if sys.stderr.isatty():
            title, self._title = self._title, ""
            self._say(title)
            self._bar = _bar()
            self._bar.start()
            self._task = self._bar.add_task("starting", total=1.0, ends=math.nan, value="")
        return self

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What is done in this block is the stage ``name``."""
        self._begin(name)
        yield
        self._finish(time.monotonic() - self._began)

    def at(self, share: float) -> None:
        """This share of the stage that runs is done, 0 to 1."""
        self._move(share)

    def __call__(self, step: Step) -> None:
        """Show one step; this is the ``on_step`` of a registration."""
        if step.stage != self._name:
            self._finish(time.monotonic() - self._began)
            self._begin(step.stage)
        if not math.isnan(step.value) or math.isnan(step.done):  # else what is tried before there is a step
            self._steps, self._last = self._steps + 1, step
        if step.done == 1.0 or step.iterations == step.levels == 1:  # told when it was done
            self._finish(step.seconds)
            self._begin(self._next(step.stage), guessed=True)
            return
        self._move(_within(step))
        if self._bar is not None:
            counted = f"{step.iteration} of {step.iterations}"
            shown = counted if math.isnan(step.value) else f"distance {step.value:.4g}"
            first = step.iteration == 1
            self._bar.update(self._task, description=step.stage, value=shown, refresh=first)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._finish(time.monotonic() - self._began)
        if self._bar is not None:
            self._bar.remove_task(self._task)
            self._bar.stop()

    def say(self, line: str) -> None:
        """A line of its own, above the bar where there is one."""
        self._say(line)

    def _begin(self, name: str, *, guessed: bool = False) -> None:
        """The stage ``name`` runs now; ``guessed``: it comes next as a rule, and says nothing if it does not."""
        self._name, self._began, self._steps, self._last = "" if guessed else name, time.monotonic(), 0, None
        if name in self._stages:
            self._move(0.0, name)
        if self._bar is not None and name:
            self._bar.update(self._task, description=name, value="")

    def _finish(self, seconds: float) -> None:
        """The line of the stage that was, with its seconds and what it reached."""
        name, step, self._name = self._name, self._last, ""
        if not name:
            return
        reached = []
        if step is not None and not math.isnan(step.value):
            reached.append(f"distance {step.value:.4g}")
        if step is not None and not step.iterations == step.levels == 1:
            reached.append(f"{self._steps} {self._unit}")
        self._move(1.0, name)
        self._say(f"{name:<12}{seconds:7.1f} s   {', '.join(reached)}".rstrip())

    def _say(self, line: str) -> None:
        if self._quiet or not line:
            return
        if self._title:  # in a log the first line that there is; an error before it stands alone
            title, self._title = self._title, ""
            self._say(title)
        LOG.info("%s", line)
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    def _next(self, name: str) -> str:
        names = list(self._stages)
        return names[names.index(name) + 1] if name in names[:-1] else ""

    def _move(self, within: float, name: str | None = None) -> None:
        """Move the bar to a share of a stage, and say how long the rest takes if it goes on as before."""
        if self._bar is None and self._on_share is None:
            return
        name, whole, before = name or self._name, sum(self._stages.values()), 0.0
        for each, share in self._stages.items():
            if each == name:
                break
            before += share
        done = (before + self._stages[name] * within) / whole if name in self._stages else within
        self._share = max(self._share, done)
        if self._on_share is not None:
            self._on_share(self._share, name)
        if self._bar is None:
            return
        spent = time.monotonic() - self._started
        ends = self._started + spent / self._share if self._share > EARLIEST else math.nan
        self._bar.update(self._task, completed=self._share, ends=ends)


@dataclass(frozen=True, kw_only=True)
class Share:
    """How far a run is: what the file of ``--progress-file`` holds, as JSON."""

    share: float = 0.0
    """Of the whole that is done, 0 to 1."""
    stage: str = ""
    """What is done now."""


class ShareFile:
    """An ``on_share`` that keeps a file which says how far a run is, for programs that watch it."""

    def __init__(self, path: Path) -> None:
        """The file says that nothing is done yet (OutputError where it cannot be written)."""
        self._path, self._told = path, Share()
        try:
            self._write()
        except OSError as error:
            raise OutputError(f"expected to write {path}, got: {error.strerror or error}") from error

    def __call__(self, share: float, stage: str) -> None:
        """Write what is done, where that is much or another stage; a disk that is full by now ends no registration."""
        if stage == self._told.stage and share - self._told.share < SMALLEST_STEP:
            return
        self._told = Share(share=round(share, 4), stage=stage)
        with suppress(OSError):
            self._write()

    def _write(self) -> None:
        partial = self._path.with_name(f".{self._path.name}.part")  # a reader sees one line or the next, never a half
        partial.write_text(f"{json.dumps(asdict(self._told))}\n", encoding="utf-8")
        partial.replace(self._path)


def _within(step: Step) -> float:
    """Which share of its stage is done; by default each level takes about twice as long as the one before it."""
    if not math.isnan(step.done):
        return step.done
    share = min(1.0, step.iteration / max(1.0, step.iterations * (USUAL if step.iterations > 1 else 1.0)))
    whole = 2.0**step.levels - 1
    return (2.0 ** (step.level - 1) - 1 + 2.0 ** (step.level - 1) * share) / whole


def _left(ends: float) -> str:
    """How long it takes until ``ends``, in words; nothing where that is not known or over."""
    if math.isnan(ends) or ends <= time.monotonic():
        return ""
    minutes, seconds = divmod(round(ends - time.monotonic()), 60)
    return f"about {minutes} min {seconds:02d} s left" if minutes else f"about {seconds} s left"


def _bar() -> Any:
    from rich import progress
    from rich.console import Console
    from rich.text import Text

    class Left(progress.ProgressColumn):
        """Counts down between two steps."""

        def render(self, task: progress.Task) -> Text:
            return Text(_left(task.fields["ends"]))

    columns = [
        progress.TextColumn("{task.description:<13}"), progress.BarColumn(bar_width=18),
        progress.TextColumn("{task.percentage:>3.0f} %"), progress.TimeElapsedColumn(),
        Left(), progress.TextColumn("{task.fields[value]}"),
    ]  # fmt: skip
    return progress.Progress(*columns, console=Console(stderr=True), refresh_per_second=4, transient=True)
