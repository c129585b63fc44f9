"""What readers written in C and C++ do beside reading: what they print goes to the log, and the locale stays."""

from __future__ import annotations

import locale
import logging
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO

from semreg.runtime.streams import diverted

logger = logging.getLogger("semreg")
MOST = 1 << 16
"""Bytes of what they print that are told."""


@contextmanager
def quiet_readers() -> Iterator[None]:
    """Send what is printed past Python in the block to the log, as details.

    ITK, libtiff, libpng, libjpeg, HDF5, nifti_clib, GDCM and VNL print what they also report, or what the caller
    checks. Threads may be in such blocks at the same time: the first diverts, the last one gives back. What Python
    prints meanwhile goes the same way, so a block holds a call of a reader and nothing else.
    """
    _diverted.enter()
    try:
        yield
    finally:
        _diverted.leave()


class _Diverted:
    """The outputs of the process, and how many blocks have them diverted."""

    def __init__(self) -> None:
        self._lock, self._blocks = threading.Lock(), 0
        self._until = ExitStack()
        self._file: IO[bytes] | None = None

    def enter(self) -> None:
        with self._lock:
            self._blocks += 1
            if self._blocks == 1:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open from one block to another
                self._until.enter_context(diverted(self._file))
                self._until.callback(_restore, locale.setlocale(locale.LC_ALL))

    def leave(self) -> None:
        with self._lock:
            self._blocks -= 1
            text = self._give_back() if self._blocks == 0 else ""
        for line in filter(None, map(str.strip, text.splitlines())):
            logger.debug("%s", line)

    def _give_back(self) -> str:
        self._until.close()
        if self._file is None:
            return ""
        with self._file as file:
            file.seek(0)
            return file.read(MOST).decode("utf-8", "replace")


def _restore(words: str) -> None:
    """Give the process its locale back: ITK's reader of VTK files sets that of C, and then text is ASCII for Python."""
    if locale.setlocale(locale.LC_ALL) != words:
        with suppress(locale.Error):
            locale.setlocale(locale.LC_ALL, words)


_diverted = _Diverted()
