"""One batch, or one service, at a time in one folder: a lock of the operating system on a file there.

The system gives the lock back when the process that holds it ends, however it ends: a lock of a dead process cannot
stay. What the file says is for messages alone.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semreg.errors import OutputError

logger = logging.getLogger("semreg")

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system that has no locks says, as some of networks do."""


@contextmanager
def batch_lock(folder: Path, *, what: str = "batch", private: bool = False) -> Iterator[None]:
    """Holds the lock of an output folder, which must be there; OutputError where another process has it.

    ``what``: who writes there, ``batch`` or ``service``. ``private``: the file does not say on which machine.
    """
    from filelock import FileLock, Timeout  # nobody else pays for it

    path = folder / f"{what}.lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OutputError(
            f"expected no other {what} in {folder}, got {_holder(path)}: wait for it, or choose another folder"
        ) from None
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise OutputError(f"expected to write {path}, got: {error.strerror or error}") from error
        logger.warning("the file system of %s has no locks: let no other %s write there", folder, what)
    try:
        _sign(path, "a machine" if private else socket.gethostname())
        yield
    finally:
        lock.release()  # the file stays: to remove it would let two processes lock two files of one name


def _sign(path: Path, host: str) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    path.write_text(json.dumps({"host": host, "process": os.getpid(), "since": since}), "utf-8")


def _holder(path: Path) -> str:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return f"process {said['process']} on {said['host']}, since {said['since']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "one that does not say who it is"
