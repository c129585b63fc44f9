"""Promises of ``semreg serve`` about ends: of a job, its process, its time, its disk, and of the service itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("httpx", reason="needs httpx")

import httpx

from conftest import eventually
from semreg.batch.service.archive import packed
from semreg.batch.service.queue import MOST_ATTEMPTS
from semreg.batch.service.token import Token, read_token
from semreg.errors import ConfigError
from service_client import ENDLESS, alive, pair, service


def on_disk(folder, identifier):
    """What ``job.json`` says."""
    return json.loads((folder / "jobs" / identifier / "job.json").read_text())


def ended_long_ago(folder, identifier):
    """Change ``job.json`` so that the job ended eight days ago."""
    path = folder / "jobs" / identifier / "job.json"
    before = (datetime.now(UTC) - timedelta(days=8)).isoformat()
    path.write_text(json.dumps({**json.loads(path.read_text()), "ended": before}))


def test_a_job_can_be_killed_cancelled_and_removed(tmp_path):
    """A killed process fails its job alone; cancelling and removing end the process; a full queue says so."""
    with service(tmp_path / "jobs", "--max-waiting", 2) as server:
        first, second, third = server.submit(ENDLESS), server.submit(ENDLESS), None
        process = server.process_of(first)
        assert eventually(lambda: server.job(first)["stage"]) in ("read", "prepare", "plan", "align", "features")
        third = server.submit()
        assert [server.job(each)["before"] for each in (first, second, third)] == [0, 0, 1]
        answer = server.client.post("/jobs", files=pair())
        assert (answer.status_code, list(answer.json())) == (429, ["error"])
        assert int(answer.headers["retry-after"]) > 0
        os.kill(process, signal.SIGKILL)
        job = server.reaches(first, "failed", "done")
        assert job["error"].startswith("register: the process was killed by SIGKILL")
        process = server.process_of(second)
        answer = server.client.post(f"/jobs/{second}/cancel")
        assert answer.json()["state"] == "cancelled"
        assert not alive(process)
        assert server.client.get(f"/jobs/{second}/files").status_code == 409
        assert server.reaches(third, "done", "failed")["state"] == "done"
        assert server.client.post(f"/jobs/{third}/cancel").json()["state"] == "done"
        fourth, fifth = server.submit(ENDLESS), server.submit()
        process = server.process_of(fourth)
        for identifier in (fifth, fourth):  # the one that waits, and the one that runs
            assert server.client.delete(f"/jobs/{identifier}").status_code == 204
            assert server.client.get(f"/jobs/{identifier}").status_code == 404
        assert not alive(process)
        assert {path.name for path in (tmp_path / "jobs" / "jobs").iterdir()} == {first, second, third}


def test_a_queue_outlives_its_service(tmp_path):
    """Stopped in order: what ran waits. Killed: its process is ended, at last by the next start. Old jobs go."""
    folder = tmp_path / "jobs"
    with service(folder) as server:
        first, second = server.submit(ENDLESS), server.submit()
        process, token = server.process_of(first), server.token
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait() == 0
    assert not alive(process)
    assert (on_disk(folder, first)["state"], on_disk(folder, first)["attempts"]) == ("waiting", 0)
    left = folder / "jobs" / ".incoming-left"
    left.mkdir()
    with service(folder) as server:
        assert server.token == token
        assert not left.exists()
        process = server.process_of(first)
        assert server.job(second)["state"] == "waiting"
        refused = subprocess.run(
            [sys.executable, "-m", "semreg", "serve", "--folder", folder, "--port", "0"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert refused.stderr.startswith("error: expected no other service in")
        os.kill(process, signal.SIGSTOP)  # so that it does not end by itself
        server.process.kill()
        server.process.wait()
        assert alive(process)
    assert on_disk(folder, first)["attempts"] == 1
    with service(folder) as server:
        eventually(lambda: not alive(process))
        eventually(lambda: server.process_of(first) != process)  # its end is noted a moment after it
        assert on_disk(folder, first)["attempts"] == 2
        server.client.delete(f"/jobs/{first}")
        assert server.reaches(second, "done", "failed")["state"] == "done"
    ended_long_ago(folder, second)
    with service(folder) as server:
        eventually(lambda: server.client.get("/jobs").json() == [])
        assert [path.name for path in (folder / "jobs").iterdir()] == []


SIGNALLED = """
import signal, sys
from pathlib import Path
import uvicorn
from semreg.batch.service.process import Machine
from semreg.batch.service.server import Service, serve
folder, moment, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests that run under nohup pass on that it is ignored
run = uvicorn.Server.run
def late(self, **more):
    if moment == "before it runs":
        signal.raise_signal(number)
    run(self, **more)
def told(_):
    if moment == "when it says where it is":
        signal.raise_signal(number)
uvicorn.Server.run = late
serve(Service(folder=folder, machine=Machine(threads=1), port=0), told)
print("in order")
"""


@pytest.mark.parametrize("moment", ["when it says where it is", "before it runs"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_in_order_whenever_it_comes(tmp_path, moment, number):
    """Also before the server takes signals itself: none is lost, and none ends it with an error."""
    command = [sys.executable, "-c", SIGNALLED, str(tmp_path / "jobs"), moment, str(int(number))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "in order\n", "")


KILLED = """
import os, signal, sys
from pathlib import Path
from semreg.batch.service import process
def began(number):
    Path(os.environ["NOTE"]).write_text(str(number))
    os.kill(os.getpid(), signal.SIGKILL)
process.began = began
del sys.argv[1:4]
from semreg.cli import main
main()
"""


def test_no_process_outlives_a_service_that_had_not_noted_it(tmp_path, monkeypatch):
    """Killed once the process of a job is started and before its number is written down: the process ends too."""
    note = tmp_path / "note"
    monkeypatch.setenv("NOTE", str(note))
    with service(tmp_path / "jobs", command=(sys.executable, "-c", KILLED)) as server:
        with suppress(httpx.HTTPError):  # it may be gone before it has answered
            server.submit(ENDLESS)
        server.process.wait()
        (job,) = (tmp_path / "jobs" / "jobs").iterdir()
        assert on_disk(tmp_path / "jobs", job.name)["process"] is None
        process = int(note.read_text())
        try:
            eventually(lambda: not alive(process))
        except AssertionError:
            os.killpg(process, signal.SIGKILL)
            raise


def test_what_is_fetched_takes_little_memory(tmp_path):
    """An archive of large files is made in small pieces: threads that answer keep what they once held."""
    (tmp_path / "large").write_bytes(os.urandom(8 << 20))
    tracemalloc.start()
    try:
        size = sum(map(len, packed(tmp_path, ["large"])))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 8 << 20
    assert peak < 1 << 19


def test_a_job_that_ends_the_service_again_and_again_is_given_up(tmp_path):
    """A job that ran when the service was killed, for the last time that is allowed, is failed with a sentence."""
    folder = tmp_path / "jobs"
    with service(folder) as server:
        identifier = server.submit(ENDLESS)
        server.process_of(identifier)
        path = folder / "jobs" / identifier / "job.json"
        server.process.kill()
        server.process.wait()
    path.write_text(json.dumps({**json.loads(path.read_text()), "attempts": MOST_ATTEMPTS}))
    with service(folder) as server:
        job = server.job(identifier)
        assert (job["state"], f"ended {MOST_ATTEMPTS} times" in job["error"]) == ("failed", True)


def test_time_and_disk_are_bounded(tmp_path):
    """A registration beyond its time is ended; no file grows beyond the disk: 507, and nothing stays."""
    limit = (
        sys.executable, "-c",
        "import os, resource as r, sys; r.setrlimit(r.RLIMIT_FSIZE, (200000, -1)); os.execv(sys.argv[1], sys.argv[1:])",
    )  # fmt: skip
    with service(tmp_path / "jobs", "--max-minutes", 0.02, command=limit) as server:
        identifier = server.submit(ENDLESS)
        before = sorted((tmp_path / "jobs" / "jobs").iterdir())
        answer = server.client.post("/jobs", files=pair(moving=("moving.png", bytes(300_000))))
        assert (answer.status_code, list(answer.json())) == (507, ["error"])
        assert sorted((tmp_path / "jobs" / "jobs").iterdir()) == before
        job = server.reaches(identifier, "done", "failed")
        assert "at most 0.02 minutes" in job["error"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--host", "0.0.0.0"), "expected --token-file with the host 0.0.0.0"),  # noqa: S104 - refused
        (("--host", "::"), "expected --token-file with the host ::"),
        (("--token-file", "missing"), "there is no such file"),
        (("--token-file", "short"), "at least 16 letters"),
        (("--token-file", "two lines"), "in one line"),
        (("--models", "missing"), "expected a folder with models"),
        (("--host", "localhost", "--port", "BUSY"), "expected to listen on localhost, port "),
        (("--device", "gpu"), "did you mean cuda"),
        (("--folder", "short"), "expected to write to"),
    ],
)
def test_what_cannot_be_served_is_refused(run, tmp_path, monkeypatch, flags, said):
    """Other hosts without a token of one's own, tokens that are none, folders and ports that cannot be: exit code 2."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short").write_text("secret\n")
    (tmp_path / "two lines").write_text("a" * 20 + "\n" + "b" * 20)
    with socket.create_server(("localhost", 0)) as busy:
        given = [word.replace("BUSY", str(busy.getsockname()[1])) for word in flags]
        code, out, err = run("serve", *(() if "--folder" in flags else ("--folder", "jobs")), *given)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_token_is_read_and_never_shown(tmp_path, caplog):
    """Of one's own, with a warning where others may read it; not a letter of it stands in what is printed."""
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\n")
    path.chmod(0o644)
    token = read_token(path)
    assert "chmod 600" in caplog.text
    assert "0123" not in f"{token!r}{token}{caplog.text}"
    assert token.allows(b"Bearer 0123456789abcdef")
    assert token.allows(b"bearer  0123456789abcdef")
    for header in (None, b"", b"Bearer", b"0123456789abcdef", b"Bearer 0123456789abcde", b"Basic 0123456789abcdef"):
        assert not token.allows(header)
    assert isinstance(token, Token)
    path.write_text("0123456789äbcdef")
    with pytest.raises(ConfigError, match="letters and digits"):
        read_token(path)
