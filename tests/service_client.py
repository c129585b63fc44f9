"""``semreg serve`` as a process of its own on a free port of loopback, and a client that asks it."""

from __future__ import annotations

import http.client
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from conftest import PATIENCE_SECONDS, eventually

QUICK = '{"align": {"transform": "none"}, "refine": {"iterations": 3, "symmetric": false}}'
"""For what does not depend on how good the result is."""
ENDLESS = '{"refine": {"iterations": 1000000, "tolerance": 0.0}, "uncertainty": {"repeats": 100}}'
"""What does not end while a test lasts."""


def picture(shift: tuple[float, float] = (0.0, 0.0)) -> bytes:
    """A small grey picture in PNG, of blobs moved by ``shift`` in pixels."""
    rows, columns = np.mgrid[:40, :48].astype(float)
    shown = np.zeros(rows.shape)
    for x, y, size, value in ((13, 11, 5, 110), (33, 18, 6, 150), (22, 30, 4, 190), (40, 33, 5, 130), (8, 28, 5, 170)):
        shown += value * np.exp(-((columns - x - shift[0]) ** 2 + (rows - y - shift[1]) ** 2) / (2 * size**2))
    data = io.BytesIO()
    Image.fromarray(np.clip(shown, 0, 255).astype(np.uint8)).save(data, "PNG")
    return data.getvalue()


def pair(**more: Any) -> dict[str, Any]:
    """The parts of a request with two pictures, as httpx takes files."""
    return {"fixed": ("fixed.png", picture()), "moving": ("moving.png", picture((1.5, -1.0))), **more}


class Server:
    """A service that runs."""

    def __init__(self, process: subprocess.Popen[str], folder: Path, said: Path) -> None:
        """Wait until it says where it is."""
        self.process, self.folder, self.said = process, folder, said
        found = eventually(lambda: re.search(r"on (http://\S+);", said.read_text()) or process.poll() is not None)
        assert isinstance(found, re.Match), said.read_text()
        self.url = found[1]
        self.token = (folder / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {self.token}"}
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_SECONDS, trust_env=False)

    def raw(self, method: str, path: str) -> tuple[int, str]:
        """Ask for a path exactly as it is written, which httpx would tidy up: status and text."""
        address = httpx.URL(self.url)
        connection = http.client.HTTPConnection(address.host, address.port, timeout=PATIENCE_SECONDS)
        with closing(connection):
            connection.request(method, path, headers={"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def submit(self, settings: str = QUICK, **more: Any) -> str:
        """Submit two pictures; the id."""
        answer = self.client.post("/jobs", files=pair(**more), data={"settings": settings})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, identifier: str) -> dict[str, Any]:
        """How a job stands."""
        answer = self.client.get(f"/jobs/{identifier}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def reaches(self, identifier: str, *states: str) -> dict[str, Any]:
        """Wait until a job is in one of the states."""
        return eventually(lambda: (found := self.job(identifier))["state"] in states and found)

    def process_of(self, identifier: str) -> int:
        """The number of the process of a job that runs."""
        text = self.folder / "jobs" / identifier / "job.json"
        return int(eventually(lambda: re.search(r'"process": (\d+)', text.read_text()))[1])


@contextmanager
def service(folder: Path, *flags: object, command: tuple[str, ...] = ()) -> Iterator[Server]:
    """Run ``semreg serve`` in this block; it is stopped in order at its end, if it has not ended before."""
    folder.parent.mkdir(exist_ok=True)
    said = folder.with_suffix(".said")
    words = [*command, sys.executable, "-m", "semreg", "serve", "--folder", folder, "--port", 0, "--threads", 1, *flags]
    with said.open("w") as out:
        process = subprocess.Popen(
            [str(word) for word in words],
            stdout=out,
            stderr=out,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        found = None
        try:
            found = Server(process, folder, said)
            yield found
        finally:
            if found is not None:
                found.client.close()
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_SECONDS)


def alive(process: int) -> bool:
    """Whether a process is there; one that has ended and that nobody has waited for is not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
