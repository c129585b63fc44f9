"""One attempt at one pair: its commands as processes in a folder of its own. Runs here or in a worker of a cluster.

The folder is nobody else's. Whoever starts the attempt gives the folder its place in the end, or removes it: a
process that outlives its parent then writes where nobody looks.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import semreg
from semreg.batch.done import DONE_FILE, LOG_FILE, Done, StepDone, digests_in, read_done, write_done
from semreg.batch.jobs import SETTINGS_FILE, Job, Step, command_line
from semreg.batch.reasons import input_problem, reason_of_error, reason_of_failure
from semreg.errors import SemregError
from semreg.io.atomic_output import UNFINISHED
from semreg.runtime.texts import without

POLL_SECONDS = 0.1
"""How often a running process is looked at."""
GRACE_SECONDS = 10.0
"""How long a process may take to leave in order."""
LEFT = f"{UNFINISHED}*"
"""Temporary names of ``atomic_output``."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an attempt."""

    name: str
    folder: Path | None
    """The finished folder, complete with ``done.json``; None for an attempt that was stopped or could not begin."""
    error: str | None
    """One sentence if it failed."""
    seconds: float
    """Wall time of the attempt."""
    worker: str
    """Where it ran: machine and process, or the address of the worker."""
    steps: tuple[str, ...] = ()
    """The steps that were run."""
    stopped: bool = False
    """Whether it was asked to stop; then nothing of it is kept."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A job, what of it is left, and the folders it works with."""

    job: Job
    steps: tuple[Step, ...]
    """Those that are left; the results of the others are taken from ``place``."""
    place: Path
    """The folder of the pair in the output."""
    work: Path
    """Where attempts get their folders; it disappears when the batch ends or another one takes over."""


def run_task(task: Task, stop: Callable[[], bool], worker: str) -> Outcome:
    """Attempt a task in a new folder below ``task.work``.

    ``stop()`` is asked often; the attempt ends soon after it says yes, and so it does when its folder disappears.
    Never raises for what goes wrong with a pair: that is the outcome.
    """
    began = time.perf_counter()
    outcome = Outcome(name=task.job.name, folder=None, error=None, seconds=0.0, worker=worker)
    staging = task.work / task.job.name / uuid.uuid4().hex
    try:
        _prepare(task, staging)
        outcome = _attempt(task, staging, stop, outcome)
    except (OSError, SemregError, ValueError, LookupError) as error:
        gone = not task.work.exists()
        outcome = replace(outcome, stopped=gone, error=None if gone else _shown(reason_of_error(error), task))
    return replace(outcome, seconds=time.perf_counter() - began)


def _prepare(task: Task, staging: Path) -> None:
    """Make the folder, with the results of steps before; those of attempts before this one go."""
    staging.parent.mkdir(exist_ok=True)  # not its parents: without the work folder there is nothing to do any more
    for earlier in staging.parent.iterdir():
        shutil.rmtree(earlier, ignore_errors=True)
    (staging / task.job.name).mkdir(parents=True)
    done = read_done(task.place)
    kept = [step.name for step in task.job.steps if step not in task.steps]
    if done is None or not kept:
        return
    names = [name for step in kept for name in done.steps[step].outputs]
    for name in [*names, LOG_FILE, DONE_FILE]:
        target = staging / task.job.name / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(task.place / name, target)


def here() -> str:
    """This machine and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _attempt(task: Task, staging: Path, stop: Callable[[], bool], start: Outcome) -> Outcome:
    job, folder = task.job, staging / task.job.name
    if semreg.__version__ != job.semreg:
        return replace(start, error=f"expected semreg {job.semreg} on the worker, got {semreg.__version__}")
    done = replace(read_done(folder) or Done(), error=None)
    (folder / DONE_FILE).unlink(missing_ok=True)
    (folder / SETTINGS_FILE).write_text(job.settings, encoding="utf-8")
    finished = {step.name: done.steps[step.name] for step in job.steps if step not in task.steps}
    error, run = None, []
    for step in task.steps:
        began = time.perf_counter()
        code = _run(step, staging, folder / LOG_FILE, stop)
        for name in (LOG_FILE, SETTINGS_FILE) if job.hidden is not None else ():
            (folder / name).write_text(_shown((folder / name).read_text("utf-8", "replace"), task), encoding="utf-8")
        if code is None:
            return replace(start, stopped=True)
        run.append(step.name)
        error = reason_of_failure(step.name, code, folder / LOG_FILE) or input_problem(job, folder)
        if error is not None:
            error = _shown(error, task)
            _sweep(folder)
            break
        finished = _with_step(finished, step, time.perf_counter() - began, digests_in(folder))
    write_done(folder, Done(steps=finished, error=error).of(job))
    return replace(start, folder=folder, error=error, steps=tuple(run))


def _shown(text: str, task: Task) -> str:
    """A text as it may be written: without names, where the batch is private."""
    if task.job.hidden is None:
        return text
    import psutil

    around = {
        str(task.work): "work", str(task.place.parent): "output", str(Path("~").expanduser()): "home",
        socket.gethostname(): "host", psutil.Process().username(): "user",
    }  # fmt: skip
    beside = {Path(name).name: said for name, said in task.job.hidden.items()}
    return without(text, {**around, **beside, **task.job.hidden})


def _sweep(folder: Path) -> None:
    """Remove what a process that was killed had not finished writing."""
    for path in list(folder.rglob(LEFT)):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _run(step: Step, staging: Path, log: Path, stop: Callable[[], bool]) -> int | None:
    """Run one command; its exit code, None if it was stopped. What it says is added to the log."""
    with log.open("ab") as said:
        said.write(f"$ semreg {shlex.join(step.arguments)}\n".encode())
        said.flush()
        process = _start(command_line(step), staging, said)
        try:
            while (code := _wait(process)) is None:
                if stop() or not staging.exists():
                    return None
        finally:
            end(process)
    interrupted = code in (-signal.SIGINT, 130, -signal.SIGTERM, 143, -signal.SIGHUP, 129)
    return None if interrupted and _stops_soon(stop) else code


def _start(command: list[str], folder: Path, said: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own command, no shell
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
    )


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to leave, and make it leave if it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _stops_soon(stop: Callable[[], bool]) -> bool:
    """Ctrl-C reaches the processes of a terminal at once, and the one that runs the batch a moment later perhaps."""
    for _ in range(20):
        if stop():
            return True
        time.sleep(POLL_SECONDS)
    return False


def _with_step(
    finished: Mapping[str, StepDone], step: Step, seconds: float, digests: Mapping[str, str]
) -> dict[str, StepDone]:
    """``finished`` and ``step``. A file belongs to the step that made it; one that is written again has new bytes."""
    found = {
        name: replace(earlier, outputs={path: digests[path] for path in earlier.outputs if path in digests})
        for name, earlier in finished.items()
    }
    owned = {path for each in found.values() for path in each.outputs}
    made = {path: digest for path, digest in digests.items() if path not in owned}
    return found | {step.name: StepDone(fingerprint=step.fingerprint, seconds=seconds, outputs=made)}
