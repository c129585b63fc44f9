"""Promises of ``semreg batch``: real pairs through real processes, killed and resumed, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial

import pydicom
import pytest
import SimpleITK as sitk

from blobs import blobs
from cohort_cases import image_pair, log_of, names_of, write_table
from conftest import Array, eventually, grid_at, rotation
from dicom_pair import CT, header, write_series
from secrets_in import SECRET, secrets_in
from semreg.io.files import write_image

QUICK = (
    "--private",
    "--fast",
    "--align",
    "none",
    "--set",
    "refine.iterations=2",
    "--set",
    "uncertainty.enabled=false",
    "--threads",
    "1",
)


def start(*arguments):
    """Run the command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "semreg", "batch", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a shell may have it ignored
    )


def batch(*arguments):
    """Run the command to its end: exit code, standard output, standard error."""
    process = start(*arguments)
    out, err = process.communicate()
    return process.returncode, out, err


@pytest.fixture
def here(run):
    """Run the command in this process, for what does not end it."""
    return partial(run, "batch")


def array(path) -> Array:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def results(output):
    """What must be the same after any history: the values of fields and images, the bytes of transforms aside."""
    return {path.relative_to(output).as_posix(): array(path).tobytes() for path in sorted(output.glob("*/*.nii.gz"))}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Two small pairs with landmarks, and one whose moving image is no image."""
    folder = tmp_path_factory.mktemp(SECRET)
    rows = [image_pair(folder, name, seed) for seed, name in enumerate(("one", "two"))]
    (folder / "broken.nii.gz").write_bytes(b"no image")
    rows.insert(1, {"name": "broken", "fixed": rows[0]["fixed"], "moving": "broken.nii.gz", "comment": "<b>bad</b>"})
    rows[-1] |= {"set.refine.iterations": "3", "set.uncertainty.enabled": "true"}
    return write_table(folder / "pairs.csv", rows)


@pytest.fixture(scope="module")
def done(table, tmp_path_factory):
    """The table run without interruption: the output, exit code, standard output and error."""
    output = tmp_path_factory.mktemp("run") / "out"
    return output, *batch(table, "-o", output, "--jobs", "2", "--json", *QUICK)


def test_every_pair_is_registered_and_evaluated(done):
    """Each pair has its files; the exit code is 1 and the error named, since one failed; settings of a row hold."""
    output, code, out, err = done
    assert code == 1, err
    said = json.loads(out)
    assert sorted(said["finished"]) == ["one", "two"]
    assert list(said["failed"]) == ["broken"]
    assert "] broken: failed: register: expected an image" in err
    for name in ("one", "two"):
        files = {path.name for path in (output / name).iterdir()}
        assert {"transform.h5", "field.nii.gz", "warped.nii.gz", "evaluation.json", "report.html", "log.txt"} <= files
    steps = [
        json.loads((output / name / "record.json").read_text(encoding="utf-8"))["settings"]["refine"]["iterations"]
        for name in ("one", "two")
    ]
    assert steps == [2, 3]
    assert [(output / name / "uncertainty.nii.gz").exists() for name in ("one", "two")] == [False, True]
    assert sorted(path.name for path in output.iterdir()) == [
        "batch.json", "batch.lock", "batch.log", "broken", "cohort.csv", "index.html", "one", "two",
    ]  # fmt: skip


def test_fail_on_leaves_by_the_verdicts(here, tmp_path):
    """--fail-on leaves with 3 where a pair that was asked for is as bad, all files written, and else with 0."""
    good, bad = (image_pair(tmp_path, name, seed) for seed, name in enumerate(("good", "bad")))
    fixed = sitk.ReadImage(str(tmp_path / good["fixed"]))
    sitk.WriteImage(sitk.AdditiveGaussianNoise(fixed, 1.0, 0.0, 3), str(tmp_path / good["moving"]))
    noise = sitk.AdditiveGaussianNoise(fixed * 0, 300.0, 0.0, 5)
    sitk.WriteImage(noise, str(tmp_path / bad["moving"]))
    pairs = [{key: row[key] for key in ("name", "fixed", "moving")} for row in (good, bad)]
    output, quick = tmp_path / "out", [flag for flag in QUICK if flag != "--private"]
    source = write_table(tmp_path / "pairs.csv", pairs)
    ran = here(source, "-o", output, *quick, "--fail-on", "review")
    with (output / "cohort.csv").open(encoding="utf-8", newline="") as file:
        levels = {row["name"]: row["verdict"] for row in csv.DictReader(file)}
    assert levels["good"] == "PASS"
    assert levels["bad"] in ("REVIEW", "FAIL")
    assert ran[0] == 3, ran
    assert {path.name for path in output.iterdir()} >= {"good", "bad", "cohort.csv", "index.html"}
    assert here(source, "-o", output, *quick)[0] == 0
    assert here(source, "-o", output, *quick, "--fail-on", "fail")[0] == (3 if levels["bad"] == "FAIL" else 0)
    assert here(source, "-o", output, *quick, "--only", "good", "--fail-on", "review")[0] == 0
    assert here(source, "-o", output, *quick, "--only", "bad", "--fail-on", "review")[0] == 3


def test_fail_on_needs_a_verdict(here, table, tmp_path):
    """--fail-on with settings that judge nothing is refused before anything runs."""
    code, _, err = here(table, "-o", tmp_path / "out", *QUICK, "--fail-on", "fail", "--set", "checks.enabled=false")
    assert code == 2
    assert "expected checks.enabled=true with --fail-on" in err
    assert not (tmp_path / "out").exists()


def test_a_private_batch_names_nothing(done, table, here, tmp_path):
    """With --private no file of a batch names a path, the machine or its user; no folder becomes private later."""
    output, _, said, _ = done
    assert SECRET not in said
    assert secrets_in(output) == {}
    shown = (output / "broken" / "log.txt").read_text(encoding="utf-8")
    assert "$ semreg register fixed moving --output broken" in shown
    (tmp_path / "batch.json").write_text('{"threads": 1}', encoding="utf-8")
    code, _, err = here(table, "-o", tmp_path, *QUICK)
    assert code == 2
    assert "expected a new folder for --private" in err
    assert not (tmp_path / "batch.log").exists()


def test_the_table_of_the_cohort_has_the_numbers_of_the_evaluations(done):
    """cohort.csv: one row a pair, the failed one first, and the landmark errors are those of evaluation.json."""
    output = done[0]
    with (output / "cohort.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert next(iter(rows)) == "broken"
    assert rows["broken"]["state"] == "failed"
    for name in ("one", "two"):
        found = json.loads((output / name / "evaluation.json").read_text(encoding="utf-8"))
        assert float(rows[name]["tre_mm"]) == pytest.approx(found["landmarks"]["after"]["mean"], rel=1e-5)
        assert float(rows[name]["tre_before_mm"]) == pytest.approx(found["landmarks"]["before"]["mean"], rel=1e-5)


def test_a_second_run_computes_nothing_but_what_failed(here, done, table):
    """Finished pairs are skipped, also with other --jobs; the one that failed is tried again."""
    output = done[0]
    before = results(output)
    seen = len(log_of(output))
    code, out, _ = here(table, "-o", output, "--jobs", "1", "--json", *QUICK[:-2])
    assert code == 1
    assert sorted(json.loads(out)["skipped"]) == ["one", "two"]
    assert [line["pair"] for line in log_of(output)[seen:] if line["event"] == "started"] == ["broken"]
    assert results(output) == before


def start_and_wait(output, table):
    """The command on both pairs, once the second one runs; the first is done already."""
    before = len(names_of(output, "started"))
    process = start(table, "-o", output, *QUICK, "--only", "one", "--only", "two")

    def running():
        assert process.poll() is None
        return names_of(output, "started")[before:] == ["two"]

    eventually(running)
    return process


def test_stopped_in_the_middle_and_resumed_gives_the_same(here, done, table, tmp_path):
    """Stopped by Ctrl-C, by SIGTERM and by SIGKILL of all its processes: what is done stays, the rest is as in one go.

    On the first two the running pair is stopped, nothing half-written stays, and the exit code says so. Each pair is
    finished once, bit for bit as without interruption.
    """
    reference, output = done[0], tmp_path / "out"
    shutil.copytree(reference, output, ignore=shutil.ignore_patterns("two", "broken"))
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = start_and_wait(output, table)
        process.send_signal(number)
        _, err = process.communicate()
        assert process.returncode == code, err
        assert not (output / "two").exists()
        assert not (output / ".work").exists()
        assert "Traceback" not in err
    process = start_and_wait(output, table)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (output / "two").exists()
    finished = names_of(output, "finished")
    code, _, err = here(table, "-o", output, *QUICK, "--only", "one", "--only", "two")
    assert code == 0, err
    assert names_of(output, "finished") == [*finished, "two"]
    assert results(output) == results(reference)


def test_a_dry_run_checks_everything_and_writes_nothing(here, table, tmp_path):
    """The plan names the steps that are left; the output folder is not made."""
    code, out, _ = here(table, "-o", tmp_path / "out", "--dry-run", "--only", "one")
    assert (code, out) == (0, "pair\tto do\none\tregister and evaluate\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{table}", "--only", "tow"), "did you mean two"),
        (("{table}", "--set", "refine.iteration=2"), "refine.iteration"),
        (("{table}", "--fast", "--quality"), "--fast or --quality"),
        (("{table}", "--fixed", "suffix=T1w"), "the folder of a BIDS data set"),
        (("{folder}",), "--fixed and --moving"),
        (("{folder}/gone.csv",), "no such file"),
        (("{folder}/gone.csv", "--jobs", "2", "--scheduler", "tcp://127.0.0.1:1"), "--jobs or --scheduler"),
        (("{table}", "--dtype", "float8"), "--dtype"),
    ],
)
def test_bad_input_is_one_sentence(here, table, tmp_path, arguments, said):
    """Exit code 2, one line, and nothing is written."""
    filled = [text.format(table=table, folder=table.parent) for text in arguments]
    code, out, err = here(*filled, "-o", tmp_path / "out")
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_batch_that_breaks_off_says_how_the_pairs_stand(here, done, table, tmp_path):
    """Where the cluster is not there it is one sentence; page and table show what is done, and the rest waits."""
    pytest.importorskip("distributed", reason="the extra semreg[dask] is not installed")
    output = tmp_path / "out"
    shutil.copytree(done[0], output)
    (output / "index.html").unlink()
    shutil.rmtree(output / "two")
    code, _, err = here(table, "-o", output, *QUICK, "--quiet", "--scheduler", "nonsense://x")
    assert (code, err.startswith("error: expected a Dask scheduler"), err.count("\n")) == (2, True, 1)
    with (output / "cohort.csv").open(encoding="utf-8", newline="") as file:
        states = {row["name"]: row["state"] for row in csv.DictReader(file)}
    assert states == {"one": "skipped", "broken": "waiting", "two": "waiting"}
    assert "1 of 3 pairs" in (output / "index.html").read_text(encoding="utf-8")


def test_a_wrong_setting_of_a_row_names_the_row(here, table, tmp_path):
    """The settings of every row are checked before anything runs."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[2]["set.refine.iterations"] = "many"
    wrong = write_table(table.with_name("wrong.csv"), rows)
    code, _, err = here(wrong, "-o", tmp_path / "out")
    assert code == 2
    assert "wrong.csv, line 4 (two): " in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wanted", "jobs", "threads"), [("1", 1, 1), ("64", 1, None), (None, 1, None), (None, 10**6, 1)]
)
def test_threads_follow_what_the_process_may_use(wanted, jobs, threads, tmp_path):
    """OMP_NUM_THREADS bounds them, and so do the cores of the process; None: as many as these."""
    code = (
        "from pathlib import Path; from semreg.cli.batch import default_threads; from semreg.cli.batch_flags import *;"
        f"print(default_threads(BatchFlags(source=Path('a'), output=Path('b'), jobs={jobs})))"
    )
    given = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    given |= {} if wanted is None else {"OMP_NUM_THREADS": wanted}
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True)
    assert int(done.stdout) == (threads or len(os.sched_getaffinity(0)))


def test_pairs_of_series_give_dicom_back(here, tmp_path):
    """With --dicom each pair has its slices and its registration object; one that is in no DICOM fails alone."""
    grid = grid_at((3.0, -7.0, 11.0), (14, 12, 8), (2.1, 1.9, 4.0), rotation(3))
    for name, shift in (("fixed", (0.0, 0.0, 0.0)), ("moving", (2.0, -1.5, 1.0))):
        write_series(tmp_path / name, blobs(grid, shift).data[0].numpy(), grid, header(CT, "CT"))
    write_image(blobs(grid), tmp_path / "plain.nii.gz", "int16")
    rows = [{"name": name, "fixed": "fixed", "moving": name} for name in ("moving", "plain.nii.gz")]
    rows[1]["name"] = "plain"
    table, out = write_table(tmp_path / "pairs.csv", rows), tmp_path / "out"
    code, _, err = here(table, "-o", out, "--dicom", *QUICK[1:])
    assert code == 1
    assert "plain: failed: register: expected" in err
    slices = sorted((out / "moving" / "dicom").iterdir())
    assert len(slices) == 8
    assert {pydicom.dcmread(path).Modality for path in slices} == {"CT"}
    assert pydicom.dcmread(out / "moving" / "registration.dcm").Modality == "REG"
    assert here(table, "-o", out, "--dicom", "--only", "moving", "--json", *QUICK[1:])[1].count('"skipped": [\n') == 1
    assert sorted((out / "moving" / "dicom").iterdir()) == slices
