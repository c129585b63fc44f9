"""Does ``semreg serve`` hold under load: many requests at once, broken ones, a killed process, strangers?

    python benchmarks/service.py [--requests 200] [--clients 8] [--workers 8] [--report FILE.md]

Starts the service on loopback. Each client submits two small pictures, asks until the job has ended, fetches the
archive of the result, looks into it, and goes on. Three requests are broken: no image, an image that is cut short, a
form that breaks off. In the middle the process of one job is killed. Meanwhile a stranger asks for every page, with ids
that there are and with wrong tokens. Leaves with 1 where another job than those ended badly, where a stranger read
anything, where something is left after all jobs are removed, or where the memory of the service grew by more than a
tenth from the 20th job to the last.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image
from tools import semreg_versions

SETTLED = 20
"""Jobs after which the service holds what it needs."""
MOST_GROWTH = 0.1
POLL_SECONDS = 0.2
PAGES = ("/jobs", "/jobs/ID", "/jobs/ID/files", "/jobs/ID/files/warped.nii.gz", "/jobs/ID/result.zip", "/jobs/ID/log",
         "/openapi.json", "/docs", "/")  # fmt: skip
BROKEN = ("no image", "an image that is cut short", "a form that breaks off")


@dataclass
class Run:
    """What is counted, from several threads."""

    url: str
    token: str
    folder: Path
    process: psutil.Process
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    """Resident bytes of the service after each job."""
    ids: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    killed: threading.Lock = field(default_factory=threading.Lock)

    def client(self) -> httpx.Client:
        """A client that has the token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120.0, trust_env=False)


def main() -> None:
    """Start, ask, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="service-") as name, served(Path(name) / "jobs", given.workers) as run:
        before = run.process.memory_info().rss, run.process.num_fds()
        began = time.perf_counter()
        work(run, given.requests, given.clients)
        seconds = time.perf_counter() - began
        after = run.process.memory_info().rss, run.process.num_fds()
        with run.client() as client:
            for identifier in [each["id"] for each in client.get("/jobs").json()]:
                client.delete(f"/jobs/{identifier}").raise_for_status()
        left = [path.name for path in (run.folder / "jobs").iterdir()]
        judge(run, given.requests, left)
        lines = told(run, given, before, after)
    lines.append(f"* {seconds:.0f} s on the clock of a machine that others used too")
    text = "\n".join([*lines, *(f"* WRONG: {each}" for each in run.wrong), ""])
    print(text)
    if given.report is not None:
        given.report.write_text(text, encoding="utf-8")
    sys.exit(1 if run.wrong else 0)


@contextmanager
def served(folder: Path, workers: int) -> Iterator[Run]:
    """The service as a process of its own."""
    words = [sys.executable, "-m", "semreg", "serve", "--folder", folder, "--port", 0, "--workers", workers]
    flags = ["--threads", 1, "--max-waiting", 50, "--max-size", 5]
    process = subprocess.Popen(
        [str(word) for word in (*words, *flags)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None  # noqa: S101
        found = re.search(r"on (http://\S+);", process.stdout.readline())
        assert found is not None  # noqa: S101
        yield Run(found[1], (folder / "token").read_text().strip(), folder, psutil.Process(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def work(run: Run, requests: int, clients: int) -> None:
    """All requests, by several clients at once, and a stranger beside them."""
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(requests):
        todo.put(number)
    broken = dict(zip((requests // 4, requests // 3, 2 * requests // 3), BROKEN, strict=True))
    lanes = [threading.Thread(target=lane, args=(run, todo, broken, requests // 2)) for _ in range(clients)]
    stranger = threading.Thread(target=strange, args=(run,))
    for thread in (*lanes, stranger):
        thread.start()
    for thread in lanes:
        thread.join()
    run.ended.set()
    stranger.join()


def lane(run: Run, todo: queue.SimpleQueue[int], broken: dict[int, str], killed: int) -> None:
    """One client: one request after the other."""
    with run.client() as client:
        while True:
            try:
                number = todo.get_nowait()
            except queue.Empty:
                return
            try:
                one(run, client, number, broken.get(number), kill=number == killed)
            except (httpx.HTTPError, LookupError, ValueError, OSError, zipfile.BadZipFile) as error:
                run.wrong.append(f"request {number}: {type(error).__name__}: {error}")
            run.memory.append(run.process.memory_info().rss)


def one(run: Run, client: httpx.Client, number: int, broken: str | None, *, kill: bool) -> None:
    """One request to its end."""
    parts = {"fixed": ("fixed.png", picture(number, 0.0)), "moving": ("moving.png", picture(number, 1.5))}
    if broken == BROKEN[0]:
        parts["moving"] = ("moving.nii.gz", b"no image")
    elif broken == BROKEN[1]:
        parts["moving"] = ("moving.png", parts["moving"][1][: len(parts["moving"][1]) // 2])
    elif broken == BROKEN[2]:
        form = client.build_request("POST", "/jobs", files=parts)
        body = form.read()
        answer = client.post(
            "/jobs", content=body[: len(body) // 2], headers={"Content-Type": form.headers["Content-Type"]}
        )
        expect(run, number, answer.status_code == 400, f"{broken}: {answer.status_code} {answer.text}")
        run.counts[f"{broken}: 400"] += 1
        return
    answer = client.post("/jobs", files=parts)
    while answer.status_code == 429:
        run.counts["told to come again, as the queue was full"] += 1
        time.sleep(POLL_SECONDS)
        answer = client.post("/jobs", files=parts)
    answer.raise_for_status()
    identifier = answer.json()["id"]
    run.ids.append(identifier)
    if kill:
        os.kill(process_of(run, identifier), signal.SIGKILL)
    job = wait(client, identifier)
    if broken is not None or kill:
        run.counts[f"{broken or 'killed in the middle'}: {job['state']}"] += 1
        run.counts[f"said: {job['error']}"] += 1
        expect(run, number, job["state"] == "failed", f"expected it to fail: {job}")
        return
    run.counts[f"{job['state']}, verdict {job['verdict']}"] += 1
    expect(run, number, job["state"] == "done", f"expected it to end well: {job}")
    listed = {each["name"]: each["bytes"] for each in client.get(f"/jobs/{identifier}/files").json()}
    with zipfile.ZipFile(io.BytesIO(client.get(f"/jobs/{identifier}/result.zip").content)) as archive:
        same = archive.testzip() is None and {each.filename: each.file_size for each in archive.infolist()} == listed
    expect(run, number, same and "transform.h5" in listed, f"expected a whole archive: {listed}")


def expect(run: Run, number: int, good: bool, text: str) -> None:
    """Note what is not as it should be."""
    if not good:
        run.wrong.append(f"request {number}: {text}")


def wait(client: httpx.Client, identifier: str) -> dict[str, Any]:
    """Ask until a job has ended."""
    while True:
        job: dict[str, Any] = client.get(f"/jobs/{identifier}").raise_for_status().json()
        if job["state"] in ("done", "failed", "cancelled"):
            return job
        time.sleep(POLL_SECONDS)


def process_of(run: Run, identifier: str) -> int:
    """The process of a job, once it is at work."""
    place = run.folder / "jobs" / identifier
    while True:
        job = json.loads((place / "job.json").read_text())
        progress = place / "progress.json"
        if job["process"] is not None and progress.exists() and json.loads(progress.read_text())["stage"]:
            return int(job["process"])
        time.sleep(0.01)


def strange(run: Run) -> None:
    """Ask for all pages with a wrong token and with none, again and again."""
    with httpx.Client(base_url=run.url, timeout=120.0, trust_env=False) as client:
        while not run.ended.wait(POLL_SECONDS):
            for page in PAGES:
                path = page.replace("ID", run.ids[-1] if run.ids else "0" * 32)
                for headers in ({}, {"Authorization": f"Bearer {run.token[:-1]}"}):
                    answer = client.get(path, headers=headers)
                    run.counts["asked without the token"] += 1
                    if answer.status_code != 401 or list(answer.json()) != ["error"]:
                        run.wrong.append(f"{path} without the token: {answer.status_code}")


def judge(run: Run, requests: int, left: list[str]) -> None:
    """What must hold in the end."""
    good = sum(count for name, count in run.counts.items() if name.startswith("done"))
    if good != requests - len(BROKEN) - 1:
        run.wrong.append(f"{good} of {requests - len(BROKEN) - 1} ended well")
    if left:
        run.wrong.append(f"left after all were removed: {left}")
    if len(run.memory) > SETTLED and run.memory[-1] > (1 + MOST_GROWTH) * run.memory[SETTLED - 1]:
        run.wrong.append("the memory of the service grew")


def told(run: Run, given: argparse.Namespace, before: tuple[int, int], after: tuple[int, int]) -> list[str]:
    """The page."""
    versions = ", ".join(f"{key} {value}" for key, value in semreg_versions().items())
    settled = run.memory[min(SETTLED, len(run.memory)) - 1]
    held = {"before": before[0], f"after {SETTLED} jobs": settled, "after the last": run.memory[-1]}
    held["at most"] = max(run.memory)
    shown = ", ".join(f"{size / 1e6:.1f} {when}" for when, size in held.items())
    flags = f"--requests {given.requests} --clients {given.clients} --workers {given.workers}"
    return [
        "# The service under load",
        "",
        f"`service.py {flags}` with {versions}",
        "",
        *(f"* {name}: {count}" for name, count in sorted(run.counts.items())),
        f"* resident memory of the service, MB: {shown}",
        f"* open files of the service: {before[1]} before, {after[1]} after",
    ]


def picture(seed: int, shift: float) -> bytes:
    """A small grey picture of blobs in PNG, the moving one shifted."""
    chance = np.random.default_rng(seed)
    rows, columns = np.mgrid[:48, :56].astype(float)
    shown = np.zeros(rows.shape)
    for _ in range(7):
        x, y, size, value = chance.uniform(6, 50), chance.uniform(6, 42), chance.uniform(3, 6), chance.uniform(90, 180)
        shown += value * np.exp(-((columns - x - shift) ** 2 + (rows - y + shift) ** 2) / (2 * size**2))
    data = io.BytesIO()
    Image.fromarray(np.clip(shown, 0, 255).astype(np.uint8)).save(data, "PNG")
    return data.getvalue()


if __name__ == "__main__":
    main()
