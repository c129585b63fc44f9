"""Folders for unfinished results, each locked by the run that fills it, and what dead runs have left. Knows no files.

A run that is killed, or whose machine stops, removes nothing. The lock of its folder ends with it: the next run in the
same place sees that, and removes the folder.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger("semreg")

PREFIX = ".semreg-run-"
"""What the names of these folders start with."""


def staging_for(place: Path) -> Path:
    """A name for a folder in ``place``, which nobody has. Known before it is made, it can be removed at any moment."""
    return place / f"{PREFIX}{secrets.token_hex(8)}"


def make_staging(folder: Path) -> int:
    """Make the folder; the descriptor that locks it until it is closed. Those of dead runs beside it are removed.

    Raises OSError.
    """
    with _alone(folder.parent):  # so that none is taken for dead between its making and its lock
        for left in sorted(folder.parent.glob(f"{PREFIX}*")):
            _sweep(left)
        folder.mkdir(mode=0o700)
        lock = os.open(folder, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks: nothing is swept there
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


def _sweep(folder: Path) -> None:
    """Remove a folder that no process has locked, if it is one and ours."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # its run is alive, or there are no locks
        return
    finally:
        os.close(lock)
    logger.info("%s, which a run that was killed has left, is removed", folder)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Hold the lock of a folder, waiting for it; without one where the file system has none.

    A folder of a run is locked by that run, for itself alone: files that are made in it need no further lock.
    """
    if place.name.startswith(PREFIX):
        yield
        return
    number = os.open(place, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)
