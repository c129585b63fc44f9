"""Promises of a batch on a Dask cluster: a real one of separate processes, also when a worker dies in the middle.

In the workers, pairs whose names begin with ``text`` are run by the stand-in of ``cohort_cases``, all others by semreg.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

import semreg
from cohort_cases import image_pair, jobs_of, log_of, names_of, stand_in, text_pairs
from conftest import eventually
from semreg.batch import BatchOptions, DaskScheduler, LocalScheduler, Pair, run_batch, worker
from semreg.batch.worker import Task
from semreg.cli import main
from semreg.config import RegistrationConfig
from semreg.errors import ConfigError, DeviceError
from semreg.runtime.settings import override, to_toml

distributed = pytest.importorskip("distributed", reason="the extra semreg[dask] is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")
"""Dask warns of what it does itself: ports in use, files of workers that were killed."""


STAND_IN = """
import cohort_cases
from semreg.batch import jobs, worker

def command_line(step):
    return (cohort_cases.stand_in if any(a.startswith("text") for a in step.arguments) else jobs.command_line)(step)

worker.command_line = command_line
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two workers, each a process with one thread, as ``dask worker --nthreads 1``."""
    logging.getLogger("distributed").setLevel(logging.ERROR)
    folder = tmp_path_factory.mktemp("dask")
    (folder / "stand_in.py").write_text(STAND_IN, encoding="utf-8")
    made = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(folder),
        preload=[str(folder / "stand_in.py")],
    )  # fmt: skip
    yield made
    made.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A small pair of images."""
    folder = tmp_path_factory.mktemp("cohort")
    row = image_pair(folder, "one", 0)
    return Pair(name="one", fixed=folder / row["fixed"], moving=folder / row["moving"])


@pytest.fixture
def texts(tmp_path):
    """Two pairs of text, whose processes wait until the files that are returned too have gone."""
    found = text_pairs(tmp_path / "in", {"text-one": "", "text-two": ""})
    holds = [pair.moving.with_name(f"{pair.moving.name}.hold") for pair in found]
    for hold in holds:
        hold.write_text("", encoding="utf-8")
    return found, holds


def config():
    """Settings that take no time."""
    found = RegistrationConfig()
    for assignment in (
        "align.transform=none",
        "refine.iterations=2",
        "refine.symmetric=false",
        "uncertainty.enabled=false",
    ):
        found = override(found, assignment)
    return found


def run(jobs, output, scheduler, **more):
    return run_batch(jobs, output, scheduler, BatchOptions(threads=1, **more))


def test_a_worker_gives_what_this_machine_gives(cluster, pair, tmp_path):
    """What semreg makes of a pair of images on a worker is what it makes here, bit by bit, and is not made again."""
    jobs = jobs_of([pair], config=config())
    scheduler = DaskScheduler(cluster.scheduler_address)
    assert run(jobs, tmp_path / "out", scheduler).finished == ("one",)
    (tmp_path / "here").mkdir()
    arguments = ["register", pair.fixed, pair.moving, "-o", tmp_path / "here", "--config", tmp_path / "config.toml"]
    (tmp_path / "config.toml").write_text(to_toml(config()), encoding="utf-8")
    with pytest.raises(SystemExit):
        main([*map(str, arguments), "--threads", "1", "--no-report"])
    for file in ("field.nii.gz", "warped.nii.gz"):
        assert (tmp_path / "out" / "one" / file).read_bytes() == (tmp_path / "here" / file).read_bytes()
    assert run(jobs, tmp_path / "out", scheduler).skipped == ("one",)


def test_a_pair_whose_worker_is_killed_runs_on_another_one(cluster, texts, tmp_path, monkeypatch):
    """A worker is killed while its pair runs: all pairs are finished, and as by this machine alone."""
    output = tmp_path / "out"
    pairs, holds = texts
    jobs = jobs_of(pairs)
    killed = []

    def kill_first(event):
        if event.event == "started" and not killed:
            process = next(w.pid for w in cluster.workers.values() if w.worker_address == event.worker)
            eventually(lambda: children(process))
            killed.append((event.pair, event.worker))
            os.kill(process, signal.SIGKILL)
            for hold in holds:
                hold.unlink()

    result = run(jobs, output, DaskScheduler(cluster.scheduler_address), on_event=kill_first)
    assert (sorted(result.finished), dict(result.failed)) == (["text-one", "text-two"], {})
    (name, dead) = killed[0]
    attempts = [line["worker"] for line in log_of(output) if line["event"] == "started" and line["pair"] == name]
    assert len(attempts) == 2
    assert attempts[0] == dead
    assert attempts[1] != dead
    assert not (output / ".work").exists()
    alone = tmp_path / "alone"
    monkeypatch.setattr(worker, "command_line", stand_in)
    assert run([job for job in jobs if job.name == name], alone, LocalScheduler(1)).finished == (name,)
    assert (alone / name / "transform.h5").read_bytes() == (output / name / "transform.h5").read_bytes()
    assert run(jobs, output, DaskScheduler(cluster.scheduler_address)).skipped == ("text-one", "text-two")


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_stops_the_workers(cluster, texts, tmp_path):
    """Ctrl-C on the client ends what the workers run, leaves nothing half-written, and the workers stay usable."""
    output = tmp_path / "out"
    pairs, holds = texts
    workers = [each.pid for each in cluster.workers.values()]

    def interrupt(event):
        if event.event == "started":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(jobs_of(pairs), output, DaskScheduler(cluster.scheduler_address), on_event=interrupt)
    assert not any((output / name).exists() for name in ("text-one", "text-two", ".work"))
    eventually(lambda: not any(children(process) for process in workers))
    for hold in holds:
        hold.unlink()
    result = run(jobs_of(pairs[:1]), output, DaskScheduler(cluster.scheduler_address))
    assert result.finished == ("text-one",)


def children(process):
    """Processes of pairs below a worker."""
    import psutil

    try:
        return [child for child in psutil.Process(process).children() if "register" in child.cmdline()]
    except psutil.Error:
        return []


def test_what_fails_on_a_worker_is_one_sentence(cluster, pair, tmp_path):
    """A pair that cannot be read is written down with what its process said, and where it ran."""
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no image")
    jobs = jobs_of([Pair(name="broken", fixed=pair.fixed, moving=broken)], config=config())
    result = run(jobs, tmp_path / "out", DaskScheduler(cluster.scheduler_address))
    assert result.failed["broken"].startswith("register: expected an image")
    assert [line["worker"][:6] for line in log_of(tmp_path / "out") if line["event"] == "failed"] == ["tcp://"]


def test_a_cluster_that_cannot_be_used_is_one_sentence(cluster, tmp_path, monkeypatch):
    """No scheduler, no package, another version, files that a worker does not see: nothing is run."""
    jobs = jobs_of(text_pairs(tmp_path / "in", {"a": ""}))
    address = cluster.scheduler_address

    def refused(kind, said, **more):
        with pytest.raises(kind, match=said) as caught:
            run(jobs, tmp_path / "out", DaskScheduler(**{"address": address, **more}))
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out" / "a").exists()

    refused(DeviceError, r"a Dask scheduler at tcp://127.0.0.1:9", address="tcp://127.0.0.1:9", timeout=1.0)
    refused(DeviceError, r"a Dask scheduler at nonsense://x", address="nonsense://x", timeout=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(semreg, "__version__", "99")
        refused(DeviceError, r"semreg 99 on the worker tcp://.*install the same")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "distributed", None)
        refused(ConfigError, r"pip install 'semreg\[dask\]'")
    hidden = tmp_path / "in" / "a-moving.txt"
    hidden.rename(hidden.with_name("gone"))
    refused(DeviceError, r"the worker tcp://\S+ to see \S+a-moving.txt, it does not: .* share")
    assert names_of(tmp_path / "out", "started") == []


def test_an_error_of_one_task_fails_it_alone(cluster, tmp_path):
    """What nobody foresaw in a worker is the outcome of that pair; the others have theirs."""
    jobs = jobs_of(text_pairs(tmp_path / "in", {"a": "", "b": ""}))
    (tmp_path / "work").mkdir()
    tasks = [
        Task(job=replace(job, steps=()), steps=(), place=tmp_path / job.name, work=work)
        for job, work in zip(jobs, (str(tmp_path / "work"), tmp_path / "work"), strict=True)
    ]
    found = DaskScheduler(cluster.scheduler_address).outcomes(tasks, lambda *_: None)
    errors = {outcome.name: outcome.error for outcome in found}
    assert errors["a"].startswith("TypeError: unsupported operand")
    assert errors["b"] is None


def test_a_cluster_without_workers_is_one_sentence(tmp_path, monkeypatch):
    """A scheduler alone is not waited for without end."""
    wait = distributed.Client.wait_for_workers
    monkeypatch.setattr(distributed.Client, "wait_for_workers", lambda client, n, **_: wait(client, n, 0.1))
    jobs = jobs_of(text_pairs(tmp_path / "in", {"a": ""}))
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None, protocol="tcp://") as empty,
        pytest.raises(DeviceError, match="expected a worker at"),
    ):
        run(jobs, tmp_path / "out", DaskScheduler(empty.scheduler_address))


@pytest.fixture
def killable(tmp_path):
    """A scheduler and a worker as processes of their own: the address, and what to call to kill the scheduler."""
    said = tmp_path / "scheduler.json"
    (tmp_path / "stand_in.py").write_text(STAND_IN, encoding="utf-8")
    common = ("--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", said)
    alone = ("--nthreads", 1, "--no-nanny", "--local-directory", tmp_path, "--preload", tmp_path / "stand_in.py")
    started = []
    for name, *words in (("dask_scheduler", *common, "--port", 0), ("dask_worker", *common, *alone)):
        command = [sys.executable, "-m", f"distributed.cli.{name}", *map(str, words)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        quiet = subprocess.DEVNULL
        started.append(subprocess.Popen(command, stdout=quiet, stderr=quiet, env=environment))
        eventually(said.exists)
    address = eventually(lambda: json.loads(said.read_text(encoding="utf-8") or "{}").get("address"))
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(1)
    yield address, started[0].kill
    for process in started:
        process.kill()
        process.wait()


def test_a_killed_scheduler_is_one_sentence_and_the_batch_goes_on(killable, texts, tmp_path, monkeypatch):
    """What was finished stays, nothing half-written is left, and the next start runs the other pair alone."""
    (address, kill), (pairs, holds), output = killable, texts, tmp_path / "out"
    jobs = jobs_of(pairs)
    holds[0].unlink()

    def watch(event):
        if event.event == "finished":
            kill()

    with pytest.raises(DeviceError, match=r"expected the scheduler at .* to stay, it is gone: run the batch again"):
        run(jobs, output, DaskScheduler(address, timeout=2.0), on_event=watch)
    assert sorted(path.name for path in output.iterdir() if path.is_dir()) == ["text-one"]
    before = (output / "text-one" / "record.json").read_bytes()
    holds[1].unlink()
    monkeypatch.setattr(worker, "command_line", stand_in)
    result = run(jobs, output, LocalScheduler(1))
    assert (result.skipped, result.finished) == (("text-one",), ("text-two",))
    assert (output / "text-one" / "record.json").read_bytes() == before
