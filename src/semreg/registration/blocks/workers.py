"""Where the tasks of blocks run: in this process, in processes of this machine, or on the workers of a Dask cluster.

A task writes its result into files, so that nothing but its name and a few numbers travels; one that is run twice
writes the same.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from semreg.errors import DeviceError
from semreg.runtime.cluster import TIMEOUT_SECONDS, check_workers, client_at
from semreg.runtime.memory import give_back_memory, peak_bytes

logger = logging.getLogger("semreg")
ATTEMPTS = 3
"""How often the processes of this machine are started again where one has died."""


class Task(Protocol):
    """Something to do that can be handed to another process."""

    def run(self) -> None:
        """Do it."""


@dataclass(frozen=True)
class Done:
    """That a task is done, by which process, and the most that this process has held so far."""

    worker: str
    peak_bytes: int


class Workers(Protocol):
    """A place where tasks run."""

    def run(self, tasks: Sequence[Task]) -> Iterator[Done]:
        """Run all tasks, in any order; each is told when it is done."""


def run_task(task: Task) -> Done:
    """Run a task in this process."""
    task.run()
    give_back_memory()
    return Done(f"{socket.gethostname()}:{os.getpid()}", peak_bytes())


@dataclass(frozen=True)
class Here:
    """One task after the other in this process."""

    def run(self, tasks: Sequence[Task]) -> Iterator[Done]:
        """Run all tasks in their order."""
        for task in tasks:
            yield run_task(task)


class Processes:
    """Some processes of this machine. Where one dies, all are started again, and what was not done is."""

    def __init__(self, count: int, threads: int) -> None:
        """``count`` processes of ``threads`` threads each; they start with the first task."""
        self.count, self.threads = count, threads
        self._pool: ProcessPoolExecutor | None = None

    @property
    def numbers(self) -> list[int]:
        """Those of the processes that run, by which the system knows them."""
        return [] if self._pool is None else [each.pid or 0 for each in multiprocessing.active_children()]

    def run(self, tasks: Sequence[Task]) -> Iterator[Done]:
        """Run all tasks (DeviceError where processes die again and again)."""
        left = list(tasks)
        for _ in range(ATTEMPTS):
            pool = self._pool or self._started()
            futures = {pool.submit(run_task, task): number for number, task in enumerate(left)}
            finished = set()
            try:
                for future in as_completed(futures):
                    done = future.result()
                    finished.add(futures[future])
                    yield done
            except BrokenProcessPool:
                logger.warning("a process of a block was killed: its blocks are computed again")
                self._pool = None
            left = [task for number, task in enumerate(left) if number not in finished]
            if not left:
                return
        raise DeviceError(
            "expected processes that live, got ones that died each time: give them smaller blocks (--block) or fewer "
            "jobs, they may have too little memory; run it again to go on"
        )

    def _started(self) -> ProcessPoolExecutor:
        self._pool = ProcessPoolExecutor(
            self.count, mp_context=multiprocessing.get_context("spawn"), initializer=_limit, initargs=(self.threads,)
        )
        return self._pool

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


@dataclass(frozen=True)
class Cluster:
    """The workers of a Dask cluster; the task of one that dies runs again on another one."""

    client: Any
    address: str

    def run(self, tasks: Sequence[Task]) -> Iterator[Done]:
        """Run all tasks (DeviceError where the scheduler is gone, or a task kills each worker that tries it)."""
        distributed: Any = importlib.import_module("distributed")
        futures = [self.client.submit(run_task, task, pure=False) for task in tasks]
        try:
            for future in distributed.as_completed(futures, loop=self.client.loop):
                yield future.result()
        except CancelledError as error:
            raise DeviceError(
                f"expected the scheduler at {self.address} to stay, it is gone: run it again to go on"
            ) from error
        except distributed.KilledWorker as error:
            raise DeviceError(
                "expected workers that live, got ones that died with each of several attempts at one block: give them "
                "more memory, or smaller blocks (--block); run it again to go on"
            ) from error
        finally:
            self.client.cancel(futures)


@contextmanager
def workers_at(scheduler: str | None, jobs: int, threads: int, seen: Sequence[Path]) -> Iterator[Workers]:
    """The workers at a Dask scheduler, or ``jobs`` processes of this machine, 1: this one.

    Args:
        scheduler: its address, None: this machine.
        jobs: how many processes.
        threads: of each process.
        seen: what workers must see, under the same path.

    Yields:
        The workers.

    Raises:
        ConfigError: without ``distributed``.
        DeviceError: for a cluster that cannot be used.
    """
    if scheduler is not None:
        with client_at(scheduler, TIMEOUT_SECONDS) as client:
            check_workers(client, scheduler, [str(path) for path in seen], TIMEOUT_SECONDS)
            yield Cluster(client, scheduler)
    elif jobs == 1:
        yield Here()
    else:
        processes = Processes(jobs, threads)
        try:
            yield processes
        finally:
            processes.close()


def _limit(threads: int) -> None:
    from semreg.io.files import limit_threads

    limit_threads(threads)
