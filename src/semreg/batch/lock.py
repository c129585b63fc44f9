"""One batch at a time in one folder: a lock of the operating system on ``batch.lock``.

The system gives the lock back when the process that holds it ends, however it ends: a lock of a dead process cannot
stay. What the file says is for messages alone.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from semreg.errors import OutputError

logger = logging.getLogger("semreg")

LOCK_FILE = "batch.lock"


class BatchLock:
    """Holds the lock of an output folder inside the ``with`` block; OutputError where another process has it."""

    def __init__(self, folder: Path) -> None:
        """``folder`` must be there."""
        self._path = folder / LOCK_FILE
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        try:
            self._file = self._path.open("a+", encoding="utf-8")
            _take(self._file)
        except BlockingIOError:
            holder = self._holder()
            self._close()
            raise OutputError(
                f"expected no other batch in {self._path.parent}, got {holder}: wait for it, or choose another folder"
            ) from None
        except OSError as error:
            if self._file is None:
                raise OutputError(f"expected to write {self._path}, got: {error.strerror or error}") from error
            logger.warning("the file system of %s has no locks: let no other batch write there", self._path.parent)
        self._sign()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()  # the file stays: to remove it would let two processes lock two files of one name

    def _sign(self) -> None:
        if self._file is not None:
            self._file.seek(0)
            self._file.truncate()
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
            json.dump({"host": socket.gethostname(), "process": os.getpid(), "since": since}, self._file)
            self._file.flush()

    def _holder(self) -> str:
        try:
            said = json.loads(self._path.read_text(encoding="utf-8"))
            return f"process {said['process']} on {said['host']}, since {said['since']}"
        except (OSError, ValueError, LookupError, TypeError):
            return "one that does not say who it is"

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _take(file: IO[str]) -> None:
    """Lock the file, or raise BlockingIOError where it is locked, another OSError where there are no locks."""
    try:
        import fcntl
    except ImportError as error:  # not on Windows
        raise OSError("no fcntl") from error
    fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
