"""Where the pairs of a batch run: processes on this machine, or the workers of a Dask cluster."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from semreg.batch.worker import Outcome, Task, here, run_task
from semreg.errors import SemregError

Started = Callable[[str, str], None]
"""Called with the name of a pair and the worker when an attempt begins; from any thread."""


_Come: TypeAlias = tuple[Outcome | SemregError | None, threading.Event]
"""What a thread hands over (None after an error nobody foresaw), and how it learns that it was taken."""


class Scheduler(Protocol):
    """What a batch needs of the place it runs at."""

    def outcomes(self, tasks: Sequence[Task], started: Started) -> Generator[Outcome, None, None]:
        """Run all tasks; their outcomes as they come. When it is closed early, running attempts are stopped."""


@dataclass(frozen=True)
class LocalScheduler:
    """``jobs`` pairs at once, each in processes of its own on this machine."""

    jobs: int = 1

    def outcomes(self, tasks: Sequence[Task], started: Started) -> Generator[Outcome, None, None]:
        """Run all tasks; their outcomes as they come. When it is closed early, running attempts are stopped."""
        waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
        come: queue.SimpleQueue[_Come] = queue.SimpleQueue()
        stop = threading.Event()
        for task in tasks:
            waiting.put(task)
        shared = _Shared(waiting, come, stop, started)
        lanes = [threading.Thread(target=_work, args=(shared,)) for _ in range(min(self.jobs, len(tasks)))]
        try:
            for lane in lanes:
                lane.start()
            for _ in tasks:
                outcome, taken = _next(come)
                if isinstance(outcome, SemregError):
                    raise outcome
                if outcome is None:
                    raise RuntimeError("expected an outcome, got an error in a thread of the batch, shown above")
                yield outcome
                taken.set()
        finally:
            stop.set()
            for lane in lanes:
                if lane.ident is not None:
                    lane.join()


def _next(come: queue.SimpleQueue[_Come]) -> _Come:
    """What comes next. Waits in short turns: a signal that another thread received does not wake a waiting one."""
    while True:
        try:
            return come.get(timeout=0.2)
        except queue.Empty:
            continue


class _Shared(NamedTuple):
    """What the threads of a batch have in common."""

    waiting: queue.SimpleQueue[Task]
    come: queue.SimpleQueue[_Come]
    stop: threading.Event
    started: Started


def _work(shared: _Shared) -> None:
    """Run one waiting task after the other, until there is none or it is to stop."""
    while not shared.stop.is_set():
        try:
            task = shared.waiting.get_nowait()
        except queue.Empty:
            return
        taken = threading.Event()
        outcome: Outcome | SemregError | None = None
        try:
            shared.started(task.job.name, here())
            outcome = run_task(task, shared.stop.is_set, here())
        except SemregError as error:  # the journal cannot be written
            outcome = error
        finally:
            shared.come.put((outcome, taken))
        while not taken.wait(0.1):  # a result is in its place before the next pair begins: it cannot be lost any more
            if shared.stop.is_set():
                return
