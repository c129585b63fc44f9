"""Promises of a batch: what is done stays done, what fails stops nothing, what is interrupted leaves nothing behind.

The processes are real; what they run is a stand-in that takes milliseconds (``cohort_cases``).
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import semreg
from cohort_cases import jobs_of, log_of, names_of, stand_in, text_pairs
from conftest import eventually, noise_volume, oblique_grid
from run_records import make_run, write_run
from semreg.batch import BatchOptions, LocalScheduler, plan_batch, run_batch, threads_of
from semreg.batch import worker as attempts
from semreg.batch.batch import publish
from semreg.batch.done import read_done
from semreg.batch.jobs import Digests, JobFlags, evaluate_arguments, make_job, register_arguments
from semreg.batch.lock import batch_lock
from semreg.batch.log import LOG_FILE, BatchState, Event, Journal
from semreg.batch.pairs import Pair
from semreg.batch.reasons import input_problem, reason_of_failure
from semreg.batch.worker import end
from semreg.config import ModelConfig, RegistrationConfig
from semreg.errors import DeviceError, ImageError, OutputError
from semreg.io.files import write_image
from semreg.quality.run import InputFile
from semreg.runtime.settings import override


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch):
    monkeypatch.setattr(attempts, "command_line", stand_in)


def run(jobs, output, count=2, **more):
    return run_batch(jobs, output, LocalScheduler(count), BatchOptions(threads=1, **more))


def contents(folder):
    """Bytes of all files of all pairs but for the records of the run itself."""
    skipped = {"done.json", "log.txt", "record.json"}
    return {path: path.read_bytes() for path in sorted(folder.glob("*/*")) if path.name not in skipped}


@pytest.fixture
def three(tmp_path):
    """Three pairs that were done, and where."""
    pairs = text_pairs(tmp_path / "in", {"a": "", "b": "", "c": ""})
    output = tmp_path / "out"
    result = run(jobs_of(pairs), output)
    assert sorted(result.finished) == ["a", "b", "c"]
    return pairs, output


def test_one_failure_never_stops_the_rest(tmp_path):
    """A refusal and a crash are kept as one sentence each, with the log; all others are finished."""
    pairs = text_pairs(tmp_path / "in", {"a": "refuse", "b": "", "c": "crash", "d": ""})
    result = run(jobs_of(pairs), tmp_path / "out")
    assert sorted(result.finished) == ["b", "d"]
    assert result.failed["a"] == "register: expected better images, got these: take others"
    assert "killed by SIGSEGV" in result.failed["c"]
    state = json.loads((tmp_path / "out" / "batch.json").read_text(encoding="utf-8"))
    said = {entry["name"]: (entry["state"], entry.get("error")) for entry in state["pairs"]}
    assert said["a"] == ("failed", result.failed["a"])
    assert said["b"] == ("finished", None)
    assert "some progress" in (tmp_path / "out" / "a" / "log.txt").read_text(encoding="utf-8")
    assert not (tmp_path / "out" / ".work").exists()


def test_the_last_box_is_the_reason(tmp_path: Path) -> None:
    """Where a process ends with a framed message, as for a wrong flag, that is the reason, without the frame."""
    log = tmp_path / "log.txt"
    log.write_text(
        "$ semreg register --sed 3\n╭─ Error ──╮\n│ No such option: --sed │\n╰──────────╯\n", encoding="utf-8"
    )
    assert reason_of_failure("register", 2, log) == "register: No such option: --sed"


def test_a_process_that_said_nothing(tmp_path: Path) -> None:
    """Without a word, and without a log, the code is what is known; signals without a name have their number."""
    log = tmp_path / "log.txt"
    assert reason_of_failure("register", 3, log) == "register: the process left with the code 3 and said nothing"
    log.write_text("$ semreg register\n")
    assert reason_of_failure("register", 3, log) == "register: the process left with the code 3 and said nothing"
    unnamed = next(n for n in range(1, 200) if n not in {int(each) for each in signal.Signals})
    assert f"killed by signal {unnamed}" in (reason_of_failure("register", -unnamed, log) or "")


def test_nothing_is_computed_twice(three):
    """A second batch starts no process and changes no byte; the log says so for each pair."""
    pairs, output = three
    before = contents(output), (output / "a" / "done.json").read_bytes()
    result = run(jobs_of(pairs), output)
    assert (result.finished, result.skipped, dict(result.failed)) == ((), ("a", "b", "c"), {})
    assert (contents(output), (output / "a" / "done.json").read_bytes()) == before
    assert sorted(names_of(output, "started")) == ["a", "b", "c"]
    assert names_of(output, "skipped") == ["a", "b", "c"]


@pytest.mark.parametrize("changed", ["input", "output", "missing", "setting", "flag", "threads", "version", "done"])
def test_what_changed_runs_again(three, monkeypatch, changed):
    """Other bytes of an input, a damaged or missing output, other settings, flags, threads or version: run again."""
    pairs, output = three
    more = {}
    everything = changed in {"setting", "flag", "threads", "version"}
    if changed == "input":
        pairs[1].moving.write_text("moving b, but better", encoding="utf-8")
    elif changed == "output":
        (output / "b" / "transform.h5").write_text("damaged", encoding="utf-8")
    elif changed == "missing":
        (output / "b" / "report.html").unlink()
    elif changed == "done":
        (output / "b" / "done.json").write_text('{"cut off', encoding="utf-8")
    elif changed == "setting":
        more = {"config": override(RegistrationConfig(), "refine.iterations=3")}
    elif changed == "flag":
        more = {"register": ("--inverse",)}
    elif changed == "threads":
        more = {"threads": 2}
    else:
        monkeypatch.setattr(semreg, "__version__", "99")
    again = run(jobs_of(pairs, **more), output)
    assert sorted(again.finished) == (["a", "b", "c"] if everything else ["b"])
    steps = {line["pair"]: line["steps"] for line in log_of(output)[-5:] if line["event"] == "finished"}
    assert steps["b"] == (["evaluate"] if changed == "missing" else ["register", "evaluate"])
    assert run(jobs_of(pairs, **more), output).finished == ()


def test_other_landmarks_cost_an_evaluation_only(three, tmp_path):
    """What only the evaluation reads does not register again; the result of the registration keeps its bytes."""
    pairs, output = three
    points = tmp_path / "points.csv"
    points.write_text("1.25", encoding="utf-8")
    marked = [semreg.batch.Pair(**{**vars(pairs[0]), "fixed_landmarks": (points,), "moving_landmarks": (points,)})]
    record = (output / "a" / "record.json").read_bytes()
    assert run(jobs_of(marked), output).finished == ("a",)
    assert log_of(output)[-2]["steps"] == ["evaluate"]
    assert (output / "a" / "record.json").read_bytes() == record
    assert (
        json.loads((output / "a" / "evaluation.json").read_text(encoding="utf-8"))["landmarks"]["after"]["mean"] == 1.25
    )


def test_moved_files_are_known_by_their_bytes(three):
    """The same bytes under another name are the same input."""
    pairs, output = three
    moved = pairs[0].moving.rename(pairs[0].moving.with_name("elsewhere.txt"))
    again = [semreg.batch.Pair(**{**vars(pairs[0]), "moving": moved})]
    assert run(jobs_of(again), output).skipped == ("a",)


def test_results_of_before_go_and_the_users_files_stay(three):
    """A new result replaces all of the old one, and nothing that somebody else put there."""
    pairs, output = three
    run(jobs_of(pairs, register=("--inverse",)), output)
    (output / "a" / "notes.txt").write_text("mine", encoding="utf-8")
    assert (output / "a" / "inverse.h5").exists()
    run(jobs_of(pairs), output)
    assert not (output / "a" / "inverse.h5").exists()
    assert (output / "a" / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_failure_takes_no_finished_result_away(three):
    """A later attempt that fails leaves every byte of the result, and says why; the command of before skips again."""
    pairs, output = three
    before, jobs = contents(output), jobs_of(pairs)
    said = pairs[0].moving.read_text(encoding="utf-8")
    pairs[0].moving.write_text("refuse", encoding="utf-8")
    assert "a" in run(jobs_of(pairs), output).failed
    assert contents(output) == before
    assert "expected better images" in (output / "a" / "log.txt").read_text(encoding="utf-8")
    assert read_done(output / "a").error == "register: expected better images, got these: take others"
    assert plan_batch(jobs_of(pairs), output)["a"] == ("register", "evaluate")
    pairs[0].moving.write_text(said, encoding="utf-8")
    assert run(jobs, output).skipped == ("a", "b", "c")


def test_an_evaluation_that_fails_takes_none_away(three, tmp_path):
    """Landmarks that cannot be read leave the result of before, its evaluation among it."""
    pairs, output = three
    before = contents(output)
    points = tmp_path / "points.csv"
    points.write_text("no number", encoding="utf-8")
    marked = [semreg.batch.Pair(**{**vars(pairs[0]), "fixed_landmarks": (points,), "moving_landmarks": (points,)})]
    assert run(jobs_of(marked), output).failed["a"].startswith("evaluate: ValueError")
    assert contents(output) == before


def test_a_new_registration_replaces_the_old_one_though_its_evaluation_fails(three, tmp_path):
    """A transform of other images and an evaluation of the old one do not stand in one folder."""
    pairs, output = three
    points = tmp_path / "points.csv"
    points.write_text("no number", encoding="utf-8")
    pairs[0].moving.write_text("other bytes", encoding="utf-8")
    old = (output / "a" / "transform.h5").read_bytes()
    marked = [semreg.batch.Pair(**{**vars(pairs[0]), "fixed_landmarks": (points,), "moving_landmarks": (points,)})]
    assert "a" in run(jobs_of(marked), output).failed
    assert (output / "a" / "transform.h5").read_bytes() != old
    assert not (output / "a" / "evaluation.json").exists()
    assert set(read_done(output / "a").steps) == {"register"}


def test_a_killed_process_leaves_nothing_half_written(tmp_path):
    """What it had under a temporary name is not in the folder of the pair."""
    pairs = text_pairs(tmp_path / "in", {"a": "crash"})
    assert "SIGSEGV" in run(jobs_of(pairs), tmp_path / "out").failed["a"]
    names = sorted(path.name for path in (tmp_path / "out" / "a").iterdir())
    assert names == ["done.json", "log.txt", "settings.toml"]


def test_an_error_nobody_foresaw_fails_its_pair_alone(tmp_path):
    """A command that cannot even be started is written down, and the others go on."""
    jobs = jobs_of(text_pairs(tmp_path / "in", {"a": "", "b": ""}))
    steps = tuple(replace(step, arguments=(*step.arguments, "a\0b")) for step in jobs[0].steps)
    result = run([replace(jobs[0], steps=steps), jobs[1]], tmp_path / "out")
    assert (result.finished, dict(result.failed)) == (("b",), {"a": "ValueError: embedded null byte"})


def test_voxels_beside_a_header_count(tmp_path):
    """Other bytes in the file that a header names are another image."""
    (pair,) = text_pairs(tmp_path / "in", {"a": ""})
    header, voxels = pair.moving.with_suffix(".mhd"), pair.moving.with_suffix(".raw")
    header.write_text(f"ElementDataFile = {voxels.name}\n", encoding="utf-8")
    prints = []
    for content in (b"1", b"2"):
        voxels.write_bytes(content)
        (job,) = jobs_of([semreg.batch.Pair(**{**vars(pair), "moving": header})])
        prints.append(job.steps[0].fingerprint)
    assert prints[0] != prints[1]


@pytest.mark.parametrize("enabled", [True, False])
def test_the_map_of_the_uncertainty_is_asked_for(tmp_path, enabled):
    """The report shows it, so it is written, unless the settings leave it out."""
    config = override(RegistrationConfig(), f"uncertainty.enabled={str(enabled).lower()}")
    (job,) = jobs_of(text_pairs(tmp_path / "in", {"a": ""}), config=config)
    assert ("--uncertainty" in job.steps[0].arguments) == enabled


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
        return make_job(pair, config, JobFlags(threads=1), Digests()).steps[0].fingerprint

    first = fingerprint()
    assert fingerprint() == first
    (tmp_path / "net.toml").write_text("dimension = 3")
    described = fingerprint()
    assert described != first
    (tmp_path / "net.pt").write_bytes(b"other weights")
    assert fingerprint() not in (first, described)


def test_an_interrupted_replacement_counts_as_nothing_done(three, tmp_path):
    """Killed while files move into place, a folder says that nothing is done; the next batch makes it whole."""
    pairs, output = three
    made = tmp_path / "made"
    shutil.copytree(output / "a", made)
    (made / "zzz").write_text("x", encoding="utf-8")
    (output / "a" / "zzz").mkdir()  # no file can be moved onto it
    with pytest.raises(OutputError):
        publish(made, output / "a")
    assert plan_batch(jobs_of(pairs), output) == {"a": ("register", "evaluate"), "b": (), "c": ()}
    assert run(jobs_of(pairs), output).finished == ("a",)


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    """A folder that no batch made is not written into, and nothing is run."""
    pairs = text_pairs(tmp_path / "in", {"a": "", "b": ""})
    (tmp_path / "out" / "b").mkdir(parents=True)
    (tmp_path / "out" / "b" / "thesis.tex").write_text("years", encoding="utf-8")
    with pytest.raises(OutputError, match=r"out/b not to be there"):
        run(jobs_of(pairs), tmp_path / "out")
    assert not (tmp_path / "out" / "a").exists()


def test_an_input_that_changes_while_it_runs_is_seen(tmp_path):
    """What was read is compared with what the fingerprint was made of."""
    pairs = text_pairs(tmp_path / "in", {"a": "wait"})
    jobs = jobs_of(pairs)

    def change(event):
        if event.event == "started":
            pairs[0].moving.write_text("other bytes", encoding="utf-8")

    result = run(jobs, tmp_path / "out", on_event=change)
    assert "moving to stay as it is" in result.failed["a"]


def test_landmarks_that_change_while_it_runs_are_seen(tmp_path):
    """What the evaluation read is compared as well."""
    pairs, points = text_pairs(tmp_path / "in", {"a": ""}), tmp_path / "points.csv"
    points.write_text("1.25", encoding="utf-8")
    marked = [semreg.batch.Pair(**{**vars(pairs[0]), "fixed_landmarks": (points,), "moving_landmarks": (points,)})]

    def change(event):
        if event.event == "started":
            points.write_text("0.25", encoding="utf-8")

    result = run(jobs_of(marked), tmp_path / "out", on_event=change)
    assert result.failed["a"].startswith("expected fixed_landmarks.0 to stay as it is while the batch runs")


def test_the_inputs_of_an_evaluation_have_the_roles_of_the_job(tmp_path):
    """Masks, labels and numbered landmarks of evaluation.json are compared, each with its own file."""
    roles = ("fixed", "moving", "fixed_mask", "fixed_labels", "moving_labels", "moving_landmarks.0")
    roles = (*roles, "moving_landmarks.1")
    (job,) = jobs_of(text_pairs(tmp_path / "in", {"a": ""}))
    job = replace(job, inputs={role: f"sum of {role}" for role in roles})
    images = {role: InputFile(path="x", sha256=f"sum of {role}") for role in ("fixed", "moving")}
    write_run(tmp_path, make_run(images))
    names = {"mask": ["fixed_mask"], "labels": ["fixed_labels", "moving_labels"], "fixed": ["fixed"]}
    names |= {"moving": ["moving"], "moving_landmarks": ["moving_landmarks.0", "moving_landmarks.1"]}
    for changed in (None, *roles):
        sums = {
            name: [{"path": "x", "sha256": "other" if role == changed else f"sum of {role}"} for role in given]
            for name, given in names.items()
        }
        found = {"inputs": {**sums, "transform": [{"path": "t", "sha256": "of no role"}]}}
        (tmp_path / "evaluation.json").write_text(json.dumps(found), encoding="utf-8")
        problem = input_problem(job, tmp_path)
        assert (problem is None) if changed is None else problem.startswith(f"expected {changed} to stay")


def test_a_record_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    """A folder whose record says nothing of its inputs is not taken for a result."""
    job = jobs_of(text_pairs(tmp_path, {"one": "fine"}))[0]
    (tmp_path / "record.json").write_text("{")
    assert "expected JSON in" in input_problem(job, tmp_path)


def test_the_end_is_told_however_it_comes(tmp_path):
    """Also where the batch breaks off: once, under the lock, and what broke it is what is raised."""
    output, told = tmp_path / "out", []
    output.mkdir()

    class Gone:
        def outcomes(self, tasks, started):  # noqa: ARG002 - the protocol's
            raise DeviceError("the scheduler is gone")
            yield

    def at_end():
        with pytest.raises(OutputError, match="no other batch"), batch_lock(output):
            pass
        told.append(json.loads((output / "batch.json").read_text(encoding="utf-8"))["pairs"][0]["state"])
        raise OutputError("no room left")

    jobs = jobs_of(text_pairs(tmp_path / "in", {"a": ""}))
    with pytest.raises(DeviceError, match="the scheduler is gone"):
        run_batch(jobs, output, Gone(), BatchOptions(threads=1, at_end=at_end))
    assert told == ["waiting"]
    with pytest.raises(OutputError, match="no room left"):
        run(jobs, output, at_end=at_end)
    assert told == ["waiting", "finished"]
    with batch_lock(output), pytest.raises(OutputError, match="no other batch"):
        run(jobs, output, at_end=at_end)
    assert len(told) == 2


def test_jobs_run_at_once_and_no_more(tmp_path):
    """Three jobs at once: three are started before one ends, the fourth after one ended."""
    pairs = text_pairs(tmp_path / "in", dict.fromkeys("abcd", "wait"))
    output = tmp_path / "out"
    jobs = jobs_of(pairs)
    thread = threading.Thread(target=run, args=(jobs, output, 3))
    thread.start()
    eventually(lambda: (output / "batch.log").exists() and len(names_of(output, "started")) == 3)
    for pair in pairs:
        pair.moving.write_text("go", encoding="utf-8")
    thread.join()
    *_, last = [line for line in log_of(output) if line["event"] == "started"]
    others = set("abcd") - {last["pair"]}
    ended = min(json.loads((output / name / "record.json").read_text(encoding="utf-8"))["time"] for name in others)
    assert len(names_of(output, "started")) == 4
    assert datetime.fromisoformat(last["time"]).timestamp() > ended - 0.001  # the log has whole milliseconds


def test_a_scheduler_can_be_used_again(tmp_path):
    """Two batches after each other may share one scheduler."""
    jobs, scheduler = jobs_of(text_pairs(tmp_path / "in", {"a": ""})), LocalScheduler(2)
    for output in (tmp_path / "one", tmp_path / "two"):
        assert run_batch(jobs, output, scheduler, BatchOptions(threads=1)).finished == ("a",)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_stops_what_runs_and_keeps_what_is_done(tmp_path):
    """On Ctrl-C running processes end, nothing half-written stays, and the pair waits again."""
    pairs = text_pairs(tmp_path / "in", {"a": "", "b": "wait", "c": ""})
    output = tmp_path / "out"

    def interrupt(event):
        if event.event == "started" and event.pair == "b":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(jobs_of(pairs), output, 1, on_event=interrupt)
    state = {
        entry["name"]: entry["state"]
        for entry in json.loads((output / "batch.json").read_text(encoding="utf-8"))["pairs"]
    }
    assert state == {"a": "finished", "b": "waiting", "c": "waiting"}
    assert sorted(path.name for path in output.iterdir()) == ["a", "batch.json", "batch.lock", "batch.log"]
    pairs[1].moving.write_text("go", encoding="utf-8")
    result = run(jobs_of(pairs), output)
    assert (sorted(result.finished), result.skipped) == (["b", "c"], ("a",))


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


def test_two_batches_do_not_share_a_folder(tmp_path):
    """The second one is refused with the process that holds the lock; the lock of a killed process is free."""
    tmp_path.joinpath("out").mkdir()
    code = (
        "import sys, pathlib; from semreg.batch.lock import batch_lock\n"
        "with batch_lock(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, tmp_path / "out"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(OutputError, match=f"no other batch in .*out, got process {process.pid} on"):
            run([], tmp_path / "out")
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    with batch_lock(tmp_path / "out"):
        pass


def test_a_lock_that_nobody_signed(tmp_path: Path) -> None:
    """Where another holds the lock and does not say who it is, the message still says what to do."""
    with batch_lock(tmp_path):
        (tmp_path / "batch.lock").write_text("?")
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
        assert f'"process": {os.getpid()}' in (tmp_path / "batch.lock").read_text(encoding="utf-8")
    assert f"the file system of {tmp_path} has no locks: let no other batch write there" in caplog.text


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    """A file where the folder of a batch should be, and a folder where its lock or its log should be."""
    (tmp_path / "file").write_text("")
    jobs = jobs_of(text_pairs(tmp_path, {"one": "fine"}))
    with pytest.raises(OutputError, match=r"expected to write to .*file"):
        run_batch(jobs, tmp_path / "file", LocalScheduler(1), BatchOptions(threads=1))
    (tmp_path / "batch.lock").mkdir()
    with pytest.raises(OutputError, match=r"expected to write .*batch\.lock"), batch_lock(tmp_path):
        pass
    (tmp_path / LOG_FILE).mkdir()
    with pytest.raises(OutputError, match=f"expected to write .*{LOG_FILE}"):
        Journal(tmp_path, ("one",), BatchState())(Event(event="started", pair="one"))


def test_remains_of_killed_batches_are_swept(three):
    """Folders of attempts that were killed disappear with the next batch."""
    pairs, output = three
    (output / ".work" / "old" / "a" / "x").mkdir(parents=True)
    run(jobs_of(pairs), output)
    assert not (output / ".work").exists()


def test_a_disk_without_room_is_one_sentence(tmp_path):
    """Where nothing can be written the batch says so and does not go on."""
    pairs = text_pairs(tmp_path / "in", {"a": ""})
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="expected to write to"):
        run(jobs_of(pairs), tmp_path / "file" / "out")


def test_the_number_of_threads_stays_with_the_folder(three):
    """Without a number the one of the batch before holds, so that results do not change with --jobs."""
    _, output = three
    assert threads_of(output, None, 7) == 1
    assert threads_of(output, 3, 7) == 3
    assert threads_of(output / "new", None, 7) == 7


def test_a_file_that_cannot_be_read_is_found_before_anything_runs(tmp_path):
    """A missing file is an ImageError when the jobs are made."""
    pairs = text_pairs(tmp_path / "in", {"a": ""})
    pairs[0].moving.unlink()
    with pytest.raises(ImageError, match=r"a-moving\.txt"):
        jobs_of(pairs)


def test_pairs_that_are_left_alone_keep_their_state(three):
    """A batch of some pairs does not forget how the others stood."""
    pairs, output = three
    run(jobs_of(pairs[:1]), output, beside=("b", "new"))
    state = {
        entry["name"]: entry["state"]
        for entry in json.loads((output / "batch.json").read_text(encoding="utf-8"))["pairs"]
    }
    assert state == {"a": "skipped", "b": "finished", "new": "waiting"}
