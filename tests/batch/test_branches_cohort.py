"""What a batch says of processes, files and tables that go wrong."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cohort_cases import jobs_of, text_pairs
from conftest import noise_volume, oblique_grid
from semreg.batch.batch import BatchOptions, run_batch
from semreg.batch.jobs import Digests, JobFlags, evaluate_arguments, make_job, register_arguments
from semreg.batch.lock import LOCK_FILE, batch_lock
from semreg.batch.log import LOG_FILE, Event, Journal
from semreg.batch.pairs import Pair
from semreg.batch.reasons import input_problem, reason_of_failure
from semreg.batch.schedulers import LocalScheduler
from semreg.batch.table import read_table
from semreg.batch.worker import end
from semreg.config import ModelConfig, RegistrationConfig
from semreg.errors import ConfigError, OutputError
from semreg.io.files import write_image
from semreg.settings import to_dict, to_toml


def test_the_last_box_is_the_reason(tmp_path: Path) -> None:
    """Where a process ends with a framed message, as for a wrong flag, that is the reason, without the frame."""
    log = tmp_path / "log.txt"
    log.write_text("$ semreg register --sed 3\n╭─ Error ──╮\n│ No such option: --sed │\n╰──────────╯\n")
    assert reason_of_failure("register", 2, log) == "register: No such option: --sed"


def test_a_process_that_said_nothing(tmp_path: Path) -> None:
    """Without a word, and without a log, the code is what is known; signals without a name have their number."""
    log = tmp_path / "log.txt"
    assert reason_of_failure("register", 3, log) == "register: the process left with the code 3 and said nothing"
    log.write_text("$ semreg register\n")
    assert reason_of_failure("register", 3, log) == "register: the process left with the code 3 and said nothing"
    unnamed = next(n for n in range(1, 200) if n not in {int(each) for each in signal.Signals})
    assert f"killed by signal {unnamed}" in (reason_of_failure("register", -unnamed, log) or "")


def test_a_record_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    """A folder whose record says nothing of its inputs is not taken for a result."""
    job = jobs_of(text_pairs(tmp_path, {"one": "fine"}))[0]
    (tmp_path / "record.json").write_text("{")
    assert input_problem(job, tmp_path) == "expected a record.json with the inputs, got none that can be read"


def test_a_process_that_does_not_leave_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who ignores being asked to leave is made to leave after the time of grace."""
    monkeypatch.setattr("semreg.batch.worker.GRACE_SECONDS", 0.2)
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    process = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == b"deaf\n"
        end(process)
    assert process.returncode == -signal.SIGKILL


def test_a_lock_that_nobody_signed(tmp_path: Path) -> None:
    """Where another holds the lock and does not say who it is, the message still says what to do."""
    with batch_lock(tmp_path):
        (tmp_path / LOCK_FILE).write_text("?")
        with (
            pytest.raises(OutputError, match="got one that does not say who it is: wait for it, or choose another"),
            batch_lock(tmp_path),
        ):
            pass


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Where the file system cannot lock, the batch runs and says what nobody guards any more."""

    def refuse(_self: object, **_given: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with batch_lock(tmp_path):
        assert f'"process": {os.getpid()}' in (tmp_path / LOCK_FILE).read_text()
    assert f"the file system of {tmp_path} has no locks: let no other batch write there" in caplog.text


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    """A file where the folder of a batch should be, and a folder where its lock or its log should be."""
    (tmp_path / "file").write_text("")
    jobs = jobs_of(text_pairs(tmp_path, {"one": "fine"}))
    with pytest.raises(OutputError, match=r"expected to write to .*file"):
        run_batch(jobs, tmp_path / "file", LocalScheduler(1), BatchOptions(threads=1))
    (tmp_path / LOCK_FILE).mkdir()
    with pytest.raises(OutputError, match=f"expected to write .*{LOCK_FILE}"), batch_lock(tmp_path):
        pass
    (tmp_path / LOG_FILE).mkdir()
    with pytest.raises(OutputError, match=f"expected to write .*{LOG_FILE}"):
        Journal(tmp_path, ("one",), {})(Event(event="started", pair="one"))


def test_a_pair_with_everything_is_passed_on(tmp_path: Path) -> None:
    """Masks, labels, landmarks, series, folders of models: each reaches the command that reads it."""
    each = {name: tmp_path / name for name in ("f", "m", "fm", "mm", "i", "fl", "ml", "fp", "mp")}
    pair = Pair(
        name="one", fixed=each["f"], moving=each["m"], fixed_mask=each["fm"], moving_mask=each["mm"],
        initial=each["i"], fixed_labels=each["fl"], moving_labels=each["ml"], fixed_landmarks=(each["fp"],),
        moving_landmarks=(each["mp"],),
    )  # fmt: skip
    flags = JobFlags(threads=2, device="cpu", models=(tmp_path / "models",))
    register, evaluate = register_arguments(pair, flags), evaluate_arguments(pair, flags)

    def after(words: tuple[str, ...], flag: str, count: int = 1) -> tuple[str, ...]:
        return words[words.index(flag) + 1 : words.index(flag) + 1 + count]

    assert after(register, "--models") == (str(tmp_path / "models"),)
    assert after(register, "--fixed-mask") == (str(each["fm"]),)
    assert after(evaluate, "--labels", 2) == (str(each["fl"]), str(each["ml"]))
    assert after(evaluate, "--moving-landmarks") == (str(each["mp"]),)
    assert after(evaluate, "--threads") == ("2",)


def test_another_model_file_is_another_job(tmp_path: Path) -> None:
    """What a network's file and its description say is part of the fingerprint, wherever the file is found."""
    write_image(noise_volume(oblique_grid(3)), tmp_path / "a.nii.gz", "float32")
    (tmp_path / "net.pt").write_bytes(b"weights")
    pair = Pair(name="one", fixed=tmp_path / "a.nii.gz", moving=tmp_path / "a.nii.gz")
    config = RegistrationConfig(models=(ModelConfig(model=str(tmp_path / "net.pt")),))

    def fingerprint() -> str:
        return make_job(pair, to_dict(config), to_toml(config), JobFlags(threads=1), Digests()).steps[0].fingerprint

    first = fingerprint()
    assert fingerprint() == first
    (tmp_path / "net.toml").write_text("dimension = 3")
    described = fingerprint()
    assert described != first
    (tmp_path / "net.pt").write_bytes(b"other weights")
    assert fingerprint() not in (first, described)


def test_settings_of_a_table_are_those_of_the_flags(tmp_path: Path) -> None:
    """True, false and lists of a TOML table reach the settings as ``--set`` would bring them."""
    (tmp_path / "p.toml").write_text(
        '[[pair]]\nname = "a"\nfixed = "f.nii"\nmoving = "m.nii"\n'
        "set.refine.symmetric = true\nset.models.0.layers = [0, -1]\nset.features.spacing_mm = 2\n"
    )
    for name in ("f.nii", "m.nii"):
        (tmp_path / name).write_text("")
    (pair,) = read_table(tmp_path / "p.toml")
    assert {"refine.symmetric=true", "models.0.layers=[0, -1]", "features.spacing_mm=2"} <= set(pair.settings)


def test_a_table_that_is_no_csv(tmp_path: Path) -> None:
    """A table with a cell beyond what the reader takes says which file and line."""
    (tmp_path / "p.csv").write_text("name,fixed,moving\na,f.nii," + "m" * 140_000 + "\n")
    with pytest.raises(ConfigError, match=r"expected a table of pairs in CSV, got .*p.csv, line \d+: field larger"):
        read_table(tmp_path / "p.csv")
