"""The workers of a Dask cluster as the place where pairs run. ``distributed`` is imported when it is used.

All folders must be those of a file system that the workers share with this machine: images are read and results are
written there, and nothing but paths and outcomes goes over the network.
"""

from __future__ import annotations

import importlib
import sys
import uuid
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import semreg
from semreg.batch.reasons import reason_of_error
from semreg.batch.schedulers import Started
from semreg.batch.worker import Outcome, Task, run_task
from semreg.errors import ConfigError, DeviceError

TIMEOUT_SECONDS = 15.0
"""How long the scheduler, and the first worker, may take to answer."""


@dataclass(frozen=True)
class DaskScheduler:
    """Each pair is one task of the cluster; that of a worker which dies runs again on another one."""

    address: str
    """Of the scheduler: ``tcp://host:8786``."""
    timeout: float = TIMEOUT_SECONDS

    def outcomes(self, tasks: Sequence[Task], started: Started) -> Generator[Outcome, None, None]:
        """Run all tasks; their outcomes as they come. When it is closed early, running attempts are stopped.

        Raises ConfigError without ``distributed``, DeviceError where the cluster cannot be used.
        """
        if not tasks:
            return
        with self._client() as client:
            self._check(client, tasks)
            yield from self._run(client, tasks, started)

    @contextmanager
    def _client(self) -> Iterator[Any]:
        try:
            distributed: Any = importlib.import_module("distributed")
        except ImportError:
            raise ConfigError(
                "expected the package distributed for --scheduler, it is not installed: pip install 'semreg[dask]'"
            ) from None
        try:
            distributed.comm.resolve_address(self.address)  # a client of no address cannot be closed in order
            client = distributed.Client(self.address, timeout=self.timeout, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise DeviceError(
                f"expected a Dask scheduler at {self.address}, got no answer that fits: {_first_line(error)}; "
                "start one with `dask scheduler`, or leave --scheduler out"
            ) from error
        try:
            yield client
        finally:
            client.close(timeout=self.timeout)

    def _check(self, client: Any, tasks: Sequence[Task]) -> None:
        """Refuse (DeviceError) a cluster without workers, with other versions, or that does not see the files."""
        try:
            client.wait_for_workers(1, timeout=self.timeout)
        except OSError as error:
            raise DeviceError(
                f"expected a worker at {self.address}, got none in {self.timeout:g} s: start some with `dask worker`"
            ) from error
        paths = sorted({path for task in tasks for path in task.job.paths.values()} | {str(tasks[0].work)})
        for worker, (python, version, missing) in client.run(_probe(paths)).items():
            mine = f"{sys.version_info.major}.{sys.version_info.minor}"
            if version is None:
                raise DeviceError(f"expected semreg on the worker {worker}, got a Python without it: install it there")
            if (python, version) != (mine, semreg.__version__):
                raise DeviceError(
                    f"expected Python {mine} and semreg {semreg.__version__} on the worker {worker}, "
                    f"got Python {python} and semreg {version}: install the same versions everywhere"
                )
            if missing is not None:
                raise DeviceError(
                    f"expected the worker {worker} to see {missing}, it does not: "
                    "put the images and the output on a file system that all machines share, under the same paths"
                )

    def _run(self, client: Any, tasks: Sequence[Task], started: Started) -> Generator[Outcome, None, None]:
        distributed: Any = importlib.import_module("distributed")
        topic = f"semreg-{uuid.uuid4().hex}"
        client.subscribe_topic(topic, lambda event: started(event[1]["pair"], event[1]["worker"]))
        futures = {
            client.submit(run_remote, task, topic, key=f"{topic}-{task.job.name}", pure=False): task for task in tasks
        }
        try:
            for future in distributed.as_completed(futures, loop=client.loop):
                try:
                    yield _outcome_of(future, futures[future].job.name)
                except CancelledError as error:
                    raise DeviceError(
                        f"expected the scheduler at {self.address} to stay, it is gone: run the batch again to go on"
                    ) from error
        finally:
            client.cancel(list(futures), force=True)
            client.unsubscribe_topic(topic)


def run_remote(task: Task, topic: str) -> Outcome:
    """Run a task in a worker: tell ``topic`` that it began, then run it."""
    from distributed import get_worker

    worker = get_worker()
    worker.log_event(topic, {"pair": task.job.name, "worker": worker.address})
    return run_task(task, lambda: False, worker.address)  # it stops when its folder disappears


def _outcome_of(future: Any, name: str) -> Outcome:
    """What became of one task; an error that is none of the pair's own fails it and no other one.

    Raises CancelledError where the scheduler has forgotten the task.
    """
    distributed: Any = importlib.import_module("distributed")
    error, worker = future.exception(), ""
    if error is None:
        try:
            outcome: Outcome = future.result()
            return outcome
        except OSError as lost:  # the worker that holds the outcome cannot be reached
            error = lost
    said = reason_of_error(error)
    if isinstance(error, distributed.KilledWorker):
        said = "the worker died each time it was tried: it may have too little memory"
        worker = error.last_worker.address
    return Outcome(name=name, folder=None, error=said, seconds=0.0, worker=str(worker))


def _probe(paths: Sequence[str]) -> Any:
    """A function for the workers that needs no semreg there: versions, and the first of ``paths`` they cannot see."""

    def probe() -> tuple[str, str | None, str | None]:
        import pathlib as here
        import sys as python

        try:
            from semreg import __version__ as found
        except ImportError:
            return f"{python.version_info.major}.{python.version_info.minor}", None, None
        missing = next((path for path in paths if not here.Path(path).exists()), None)
        return f"{python.version_info.major}.{python.version_info.minor}", found, missing

    return probe


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
