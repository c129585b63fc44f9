"""One registration as a process of its own, ``semreg register``: what it costs to end it is this one job.

The process runs in the folder of its job and is given names in it alone. It leads a group of its own, so that Ctrl-C at
the service's terminal does not reach it, and all that it may start ends with it. Where the service is killed it ends by
itself; the next start ends what does not.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from semreg.batch.reasons import reason_of_failure
from semreg.batch.service.store import LOG, PROGRESS, RESULT, SETTINGS, Job
from semreg.runtime.texts import without

GRACE_SECONDS = 10.0
"""How long a process may take to leave in order."""
FIRST_TO_GO = 800
"""Of 1000: how much sooner than others Linux ends such a process where memory runs out."""
CLOCK_SECONDS = 2.0
"""By how much the clock of the machine may have been put right meanwhile."""
STEP = "register"
CHILD = "semreg.batch.service.child"
"""What is run: its standard input ends with the service, however that ends, and it ends with its standard input."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What each registration may use."""

    threads: int
    device: str = "auto"
    models: tuple[Path, ...] = ()
    """Folders with models; no other file of this machine is read."""


def arguments_of(job: Job, machine: Machine) -> list[str]:
    """The words after ``semreg``, to be run in the folder of the job."""
    found = [STEP, job.files["fixed"], job.files["moving"], "--output", RESULT, "--config", SETTINGS]
    for role in ("fixed_mask", "moving_mask"):
        if role in job.files:
            found += [f"--{role.replace('_', '-')}", job.files[role]]
    for folder in machine.models:
        found += ["--models", str(folder.absolute())]
    found += ["--threads", str(machine.threads), "--device", machine.device, "--progress-file", PROGRESS]
    return [*found, *(f"--{name}" for name in job.flags), "--private"]


async def start(job: Job, folder: Path, machine: Machine) -> asyncio.subprocess.Process:
    """Start the registration of a job; what it says goes to the log in its folder (OSError)."""
    with (folder / LOG).open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", CHILD, *arguments_of(job, machine),  # -P: no module is looked for in there
            cwd=folder, stdin=asyncio.subprocess.PIPE, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
    with suppress(OSError):  # not every system has it, and the process may be gone
        Path(f"/proc/{process.pid}/oom_score_adj").write_text(str(FIRST_TO_GO), encoding="ascii")
    return process


async def end(process: asyncio.subprocess.Process, *, at_once: bool) -> None:
    """End a process and what it has started; unless ``at_once`` it is asked first and may take a moment."""
    if process.returncode is None and not at_once:
        kill_group(process.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), GRACE_SECONDS)
    if process.returncode is None:
        kill_group(process.pid, signal.SIGKILL)
        await process.wait()


def kill_group(process: int, number: signal.Signals) -> None:
    """Send a signal to a process and its group, if they are still there."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process, number)


def began(process: int) -> float | None:
    """When a process began, in seconds since 1970; None where there is none."""
    import psutil

    try:
        return float(psutil.Process(process).create_time())
    except psutil.Error:
        return None


def end_orphan(job: Job) -> None:
    """End the process of a job whose service was killed, if it is still that process."""
    if job.process is None or job.process_began is None:
        return
    since = began(job.process)
    if since is not None and abs(since - job.process_began) < CLOCK_SECONDS:
        kill_group(job.process, signal.SIGKILL)


def sentence_of(code: int, folder: Path, models: tuple[Path, ...]) -> str | None:
    """Why a process that left with ``code`` failed, without names of this machine; None where it did not."""
    reason = reason_of_failure(STEP, code, folder / LOG)
    return None if reason is None else without(reason, hidden(folder, models))


def hidden(folder: Path, models: tuple[Path, ...]) -> Mapping[str, str]:
    """Paths of this machine that no answer shows, and what stands for them."""
    named = {str(each.absolute()): "the folder of models" for each in models}
    return {str(Path.home()): "~", **named, str(folder.absolute()): "the job"}
