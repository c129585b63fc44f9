"""A batch: many jobs into one folder, what is done skipped, what fails written down, what is finished in its place."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from semreg.batch.done import DONE_FILE, LOG_FILE, Done, StepDone, read_done, steps_left, write_done
from semreg.batch.jobs import Job
from semreg.batch.lock import batch_lock
from semreg.batch.log import LOG_FILE as LOG
from semreg.batch.log import BatchState, Event, Journal, OnEvent, read_state
from semreg.batch.schedulers import Scheduler
from semreg.batch.worker import Outcome, Task
from semreg.errors import OutputError
from semreg.io.atomic_output import check_output_folder

WORK_FOLDER = ".work"
"""Where attempts have their folders."""


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """What a batch writes down of itself."""

    threads: int
    """Of each pair."""
    command: tuple[str, ...] = ()
    source: str = ""
    """The table, or the folder of a BIDS data set."""
    private: bool = False
    """Whether names of files, machines and users are left out of what is written."""
    beside: tuple[str, ...] = ()
    """Pairs of the table that are left alone this time; how they stand is known from the batch before."""
    on_event: OnEvent | None = None
    at_end: Callable[[], None] | None = None
    """Called when the batch ends, however it ends, while no other one may write into the folder."""


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """Which pairs were run, which were done before, and which failed."""

    finished: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: Mapping[str, str]
    """Why, by name."""


def plan_batch(jobs: Sequence[Job], output: Path) -> dict[str, tuple[str, ...]]:
    """The steps that are left of each job, by name: none where all is done. Writes nothing.

    Raises OutputError where a folder of that name was not made by a batch.
    """
    _check_places(jobs, output)
    return {job.name: tuple(step.name for step in steps_left(output / job.name, job)) for job in jobs}


def threads_of(output: Path, asked: int | None, default: int) -> int:
    """Threads for each pair: as asked, else as in the batch before in this folder, else ``default``.

    The last bits of a result can change with the number of threads, so the number stays when a batch is resumed.
    """
    return asked or read_state(output).threads or default


def run_batch(jobs: Sequence[Job], output: Path, scheduler: Scheduler, options: BatchOptions) -> BatchResult:
    """Run what is left of ``jobs`` and put each result into its folder below ``output`` when it is complete.

    A pair that fails is written down and the others go on. When it is interrupted, running pairs are stopped and
    nothing of them is kept. Raises OutputError where another batch runs in ``output``, where a folder is not a
    batch's, or where nothing can be written.
    """
    output = check_output_folder(output.absolute())
    with batch_lock(output, private=options.private):
        _check_places(jobs, output)
        before = read_state(output)
        if options.private and before.threads and not before.private:
            raise OutputError(
                f"expected a new folder for --private, got {output}, whose {LOG} names files: choose another"
            )
        about = BatchState(semreg=jobs[0].semreg if jobs else "", threads=options.threads, private=options.private)
        if not options.private:
            about = replace(about, command=options.command, source=options.source)
        journal = Journal(output, [job.name for job in jobs], about, hook=options.on_event)
        journal.remember(before, options.beside)
        journal(Event(event="batch-started"))
        work = _new_work_folder(output)
        result = None
        try:
            result = _run(jobs, work, scheduler, journal)
            return result
        finally:
            with suppress(OutputError) if result is None else nullcontext():  # what broke the batch off is said
                _end(work, journal, options)


def _end(work: Path, journal: Journal, options: BatchOptions) -> None:
    """Leave nothing half-written, and say how all pairs stand."""
    shutil.rmtree(work.parent, ignore_errors=True)  # attempts that still run see it, and stop
    journal.settle()
    journal(Event(event="batch-ended"))
    if options.at_end is not None:
        options.at_end()


def _run(jobs: Sequence[Job], work: Path, scheduler: Scheduler, journal: Journal) -> BatchResult:
    output = journal.folder
    tasks, skipped = [], []
    for job in jobs:
        left = steps_left(output / job.name, job)
        if left:
            tasks.append(Task(job=job, steps=left, place=output / job.name, work=work))
        else:
            skipped.append(job.name)
            journal(Event(event="skipped", pair=job.name))
    finished: list[str] = []
    failed: dict[str, str] = {}
    outcomes = scheduler.outcomes(tasks, lambda name, worker: journal(Event(event="started", pair=name, worker=worker)))
    with closing(outcomes):
        for outcome in outcomes:
            if outcome.folder is not None:
                publish(outcome.folder, output / outcome.name)
            if outcome.error is not None:
                failed[outcome.name] = outcome.error
            elif not outcome.stopped:
                finished.append(outcome.name)
            journal(_event_of(outcome))
    return BatchResult(finished=tuple(finished), skipped=tuple(skipped), failed=failed)


def _event_of(outcome: Outcome) -> Event:
    kind = "stopped" if outcome.stopped else "finished" if outcome.error is None else "failed"
    return Event(
        event=kind,
        pair=outcome.name,
        seconds=round(outcome.seconds, 3),
        worker=outcome.worker,
        steps=outcome.steps,
        error=outcome.error,
    )


def publish(made: Path, place: Path) -> None:
    """Give a complete folder its place; what an earlier batch wrote there goes, what others put there stays.

    Of an attempt that failed before it finished a step, only the log and the reason are taken: what it leaves are the
    earlier results, with the fingerprints they hold for.

    A new folder is renamed. Into one that is there files are moved, ``done.json`` as the last one; until then it says
    that nothing is done, so that an interruption costs a run and nothing else. Raises OutputError.
    """
    try:
        if not place.exists():
            made.rename(place)
            return
        old, new = read_done(place) or Done(), read_done(made) or Done()
        whole = any(step.fingerprint for step in old.steps.values())  # no replacement that was interrupted
        if new.error is not None and whole and new.steps.items() <= old.steps.items():
            (made / LOG_FILE).replace(place / LOG_FILE)
            write_done(place, replace(old, error=new.error))
            return
        names = sorted(path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file())
        void = StepDone(fingerprint="", seconds=0.0, outputs=dict.fromkeys([*old.outputs, *new.outputs], ""))
        write_done(place, Done(steps={"replaced": void}, name=place.name))
        for name in sorted(old.outputs - set(names)):
            (place / name).unlink(missing_ok=True)
        for name in sorted(names, key=lambda name: name == DONE_FILE):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).replace(place / name)
    except OSError as error:
        raise OutputError(f"expected to write to {place}, got: {error.strerror or error}") from error


def _check_places(jobs: Sequence[Job], output: Path) -> None:
    """Refuse to write into what is not a batch's (OutputError)."""
    for job in jobs:
        place = output / job.name
        empty = not place.exists() or (place.is_dir() and not any(place.iterdir()))
        ours = empty or (place / DONE_FILE).exists()
        if not ours:
            raise OutputError(
                f"expected {place} not to be there, or to be of an earlier batch, got something else: "
                "rename the pair, move it away, or choose another output folder"
            )


def _new_work_folder(output: Path) -> Path:
    """A folder for this batch alone; those of batches that were killed go."""
    root = output / WORK_FOLDER
    try:
        shutil.rmtree(root, ignore_errors=True)
        work = root / uuid.uuid4().hex
        work.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"expected to write to {root}, got: {error.strerror or error}") from error
    return work
