"""Which jobs run, and when: as many at once as there are workers, in the order in which they came. Knows no HTTP.

All that changes a job happens in the thread of the event loop, so no two changes meet. How a job stands is on disk
before anybody is told, as far as there is room: a full disk is said in the log, and ends no job that runs.

After a restart what waited waits again, in its order. What ran begins again from its start, as a registration has no
state in between; a job that was begun ``MOST_ATTEMPTS`` times and never came to an end is failed, as it may be what
ended the service. A service that is stopped in order counts no attempt.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from semreg.batch.service import process as processes
from semreg.batch.service.asked import Asked
from semreg.batch.service.process import Machine
from semreg.batch.service.store import PROGRESS, RESULT, Job, State, Store, now
from semreg.errors import OutputError, SemregError
from semreg.runtime.progress import Share

logger = logging.getLogger("semreg.service")

MOST_ATTEMPTS = 3
SWEEP_SECONDS = 600.0
"""How often jobs that have been kept long enough are looked for."""


RESTART_SECONDS = 1.0


class FullError(SemregError):
    """There is no place for one more job."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much the service takes on."""

    workers: int = 1
    """Jobs at once."""
    waiting: int = 100
    """Jobs that may wait, those that are still coming in included."""
    bytes: int = 1 << 30
    """Of one request."""
    minutes: float = 240.0
    """Of one registration."""
    keep_days: float = 7.0
    """How long a job that has ended is kept."""


class Queue:
    """The jobs, and the lanes that run them."""

    def __init__(self, store: Store, limits: Limits, machine: Machine) -> None:
        """Read what is on disk; nothing runs before ``start``."""
        self.store, self.limits, self.machine = store, limits, machine
        self._jobs = {job.id: job for job in store.read_all()}
        self._incoming = 0
        self._waiting: asyncio.Queue[str] = asyncio.Queue()
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    def start(self) -> None:
        """Take up what is on disk, and run."""
        for found in self.jobs():
            job = self._taken_up(found) if found.state == "running" else found
            if job.state == "waiting":
                self._waiting.put_nowait(job.id)
        for _ in range(self.limits.workers):
            self._begin(self._lane)
        self._begin(self._sweep)

    async def stop(self) -> None:
        """Run nothing more; what runs is ended, and waits for the next start."""
        self._stopping = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def jobs(self) -> list[Job]:
        """All jobs, in the order they came."""
        return list(self._jobs.values())

    def job(self, identifier: str) -> Job | None:
        """The job with that id; None: there is none."""
        return self._jobs.get(identifier)

    def before(self, job: Job) -> int:
        """How many jobs wait before this one."""
        if job.state != "waiting":
            return 0
        waiting = [each.id for each in self._jobs.values() if each.state == "waiting"]
        return waiting.index(job.id)

    def share(self, job: Job) -> Share:
        """How far a job is."""
        if job.state == "done":
            return Share(share=1.0)
        return (self.store.progress(job.id) if job.state == "running" else None) or Share()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place in the queue for what comes in (FullError)."""
        waiting = sum(job.state == "waiting" for job in self._jobs.values())
        if waiting + self._incoming >= self.limits.waiting:
            raise FullError(f"expected fewer than {self.limits.waiting} jobs that wait, got as many: try again later")
        self._incoming += 1
        try:
            yield
        finally:
            self._incoming -= 1

    def accept(self, folder: Path, asked: Asked) -> Job:
        """Make a job of what has come in (OutputError)."""
        job = self.store.accept(folder, asked)
        self._jobs[job.id] = job
        self._waiting.put_nowait(job.id)
        logger.info("job %s waits", job.id)
        return job

    async def cancel(self, job: Job) -> Job:
        """End a job that waits or runs, and keep what it says."""
        if job.has_ended:
            return job
        job = self._ended(job, "cancelled")
        running = self._processes.get(job.id)
        if running is not None:
            await processes.end(running, at_once=True)
        return job

    async def remove(self, job: Job) -> None:
        """End a job, and remove all of it."""
        await self.cancel(job)
        self._jobs.pop(job.id, None)
        await asyncio.to_thread(self.store.remove, job.id)
        logger.info("job %s is removed", job.id)

    async def _lane(self) -> None:
        """Run one waiting job after the other."""
        while True:
            job = self._jobs.get(await self._waiting.get())
            if job is None or job.state != "waiting":
                continue
            try:
                await self._run(job)
            finally:
                if self._alive(job):  # nobody foresaw what happened, and the log has it
                    self._ended(self._jobs[job.id], "failed", "expected a registration, got a fault of the service")

    async def _run(self, job: Job) -> None:
        """Run one job to its end, whatever that is."""
        job = self._keep(replace(job, state="running", attempts=job.attempts + 1, started=now()))
        try:
            error = await self._process(job)
        except asyncio.CancelledError:  # the service stops
            if self._alive(job):
                self._keep(replace(job, state="waiting", attempts=job.attempts - 1, started=None))
            raise
        self._settle(job, error)

    async def _process(self, job: Job) -> str | None:
        """Run the process of a job; why it failed, None where it did not."""
        folder = self.store.place(job.id)
        await asyncio.to_thread(_clear, folder)
        try:
            process = await processes.start(job, folder, self.machine)
        except OSError as problem:
            return f"expected the registration to start, got: {problem.strerror or problem}"
        self._processes[job.id] = process
        try:
            if not self._alive(job):  # cancelled while it started
                return None
            self._keep(replace(job, process=process.pid, process_began=processes.began(process.pid)))
            async with asyncio.timeout(self.limits.minutes * 60):
                code = await process.wait()
            return await asyncio.to_thread(processes.sentence_of, code, folder, self.machine.models)
        except TimeoutError:
            return f"expected a registration of at most {self.limits.minutes:g} minutes, got a longer one: it was ended"
        finally:
            del self._processes[job.id]
            await processes.end(process, at_once=not self._stopping)

    def _settle(self, job: Job, error: str | None) -> None:
        """Write down how a job ended, unless it was cancelled or removed meanwhile."""
        if not self._alive(job):
            return
        found = None if error is not None else self.store.found(job.id)
        if found is None:
            self._ended(job, "failed", error or "expected a result with its record, got none: see the log")
            return
        verdict = None if found.verdict is None else found.verdict.level
        self._ended(replace(job, verdict=verdict, reasons=found.reasons, outputs=found.outputs), "done")

    def _begin(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Do this until the service stops; after what nobody foresaw, again."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not self._stopping and not task.cancelled():
                logger.error("expected the queue to go on, got an error, a fault of semreg", exc_info=task.exception())
                asyncio.get_running_loop().call_later(RESTART_SECONDS, self._begin, work)

        task = asyncio.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(ended)

    def _alive(self, job: Job) -> bool:
        """Whether a job that runs is still wanted."""
        known = self._jobs.get(job.id)
        return known is not None and known.state == "running"

    def _ended(self, job: Job, state: State, error: str | None = None) -> Job:
        logger.info("job %s: %s", job.id, state)
        return self._keep(replace(job, state=state, error=error, ended=now(), process=None, process_began=None))

    def _taken_up(self, job: Job) -> Job:
        """A job that ran when the service was killed."""
        processes.end_orphan(job)
        if job.attempts >= MOST_ATTEMPTS:
            return self._ended(
                job, "failed", f"expected it to end, the service was ended {job.attempts} times while it ran: try it "
                "on a machine with more memory, or with coarser settings",
            )  # fmt: skip
        return self._keep(replace(job, state="waiting", started=None, process=None, process_began=None))

    def _keep(self, job: Job) -> Job:
        """How a job stands now, here and on disk."""
        self._jobs[job.id] = job
        try:
            self.store.write(job)
        except OutputError as error:
            logger.error("job %s stands as %s, and that could not be written: %s", job.id, job.state, error)
        return job

    async def _sweep(self) -> None:
        """Remove what has been kept long enough, now and again."""
        while True:
            oldest = datetime.now(UTC) - timedelta(days=self.limits.keep_days)
            for job in self.jobs():
                if job.ended is not None and datetime.fromisoformat(job.ended) < oldest:
                    await self.remove(job)
            await asyncio.sleep(SWEEP_SECONDS)


def _clear(folder: Path) -> None:
    """Remove what an attempt before has left."""
    with suppress(OSError):
        (folder / PROGRESS).unlink(missing_ok=True)
    shutil.rmtree(folder / RESULT, ignore_errors=True)
