"""The workers of a Dask cluster as the place where pairs run. ``distributed`` is imported when it is used.

All folders must be those of a file system that the workers share with this machine: images are read and results are
written there, and nothing but paths and outcomes goes over the network.
"""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Generator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

from semreg.batch.reasons import reason_of_error
from semreg.batch.schedulers import Started
from semreg.batch.worker import Outcome, Task, run_task
from semreg.errors import DeviceError
from semreg.runtime.cluster import TIMEOUT_SECONDS, check_workers, client_at


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
        with client_at(self.address, self.timeout) as client:
            paths = sorted({path for task in tasks for path in task.job.paths.values()} | {str(tasks[0].work)})
            check_workers(client, self.address, paths, self.timeout)
            yield from self._run(client, tasks, started)

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
