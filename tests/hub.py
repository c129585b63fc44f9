"""A small hub on this machine: files of repositories by commit and branch, as the Hugging Face Hub answers for them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Asked(NamedTuple):
    """One request that came."""

    method: str
    path: str
    token: str | None


class Hub(ThreadingHTTPServer):
    """Answers ``/{repository}/resolve/{revision}/{path}``. What it does wrong is set by its attributes."""

    def __init__(self) -> None:
        """Without any file, on a port of the system's choice."""
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[tuple[str, str], bytes] = {}  # by commit and path
        self.branches: dict[str, str] = {}
        self.asked: list[Asked] = []
        self.large = True  # with the SHA-256 of a file, as for files in LFS; small ones have another hash
        self.promised: bytes | None = None  # content whose checksum is promised in place of the file's
        self.claimed: int | None = None  # size that is promised, whatever is sent
        self.status = 200  # of all answers
        self.transfer_status = 200  # of those that should bring the file
        self.cut = False  # the connection breaks halfway
        self.names_commits = True
        self.store: str | None = None  # address of the server that files are redirected to

    @property
    def address(self) -> str:
        """What a client is given as mirror."""
        return f"http://127.0.0.1:{self.server_port}"

    def transfers(self) -> int:
        """How often a file was sent, or begun."""
        return sum(asked.method == "GET" for asked in self.asked)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class Answer(BaseHTTPRequestHandler):
    """One request."""

    server: Hub

    def do_HEAD(self) -> None:
        """What there is."""
        self.answer(body=False)

    def do_GET(self) -> None:
        """The file itself."""
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        """The headers of the Hub, and the file where it is asked for."""
        hub = self.server
        hub.asked.append(Asked(self.command, self.path, self.headers.get("authorization")))
        _, _, rest = self.path.partition("/resolve/")
        revision, _, path = rest.partition("/")
        commit = hub.branches.get(revision, revision)
        content = hub.files.get((commit, path))
        status = max(hub.status, hub.transfer_status if body else 200, 200 if content is not None else 404)
        if status != 200 or content is None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        promised = content if hub.promised is None else hub.promised
        etag = hashlib.sha256(promised).hexdigest() if hub.large else hashlib.sha1(promised).hexdigest()  # noqa: S324
        size = len(content) if hub.claimed is None or body else hub.claimed
        self.send_response(200 if hub.store is None else 302)
        if hub.names_commits:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{etag}"')
        if hub.store is not None:
            self.send_header("Location", hub.store + self.path)
            self.send_header("X-Linked-ETag", f'"{etag}"')
            self.send_header("X-Linked-Size", str(size))
            size = 0
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if body and hub.store is None:
            self.wfile.write(content[: len(content) // 2] if hub.cut else content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers until the end of the block."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
