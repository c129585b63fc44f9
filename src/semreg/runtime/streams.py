"""What is written past Python's own streams, by libraries in C and C++: sent elsewhere. Imports nothing heavy."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

OUTPUTS = {"stdout": 1, "stderr": 2}
"""The descriptors of the standard output and the standard error: libraries use both."""


@contextmanager
def diverted(file: IO[bytes]) -> Iterator[dict[str, int]]:
    """Send what goes to the descriptors of both outputs to ``file`` in the block.

    Yields:
        A descriptor of what each output was, by its name; of one that the process does not have, none.
    """
    before: dict[str, int] = {}
    flush()
    try:
        for name, number in OUTPUTS.items():
            with suppress(OSError):  # the process has no such output
                before[name] = os.dup(number)
                os.dup2(file.fileno(), number)
        yield before
    finally:
        flush()
        for name, copy in before.items():
            os.dup2(copy, OUTPUTS[name])
            os.close(copy)


def flush() -> None:
    """Write what Python and C hold back."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # none, closed, or a pipe that nobody reads
            stream.flush()
    with suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).fflush(None)
