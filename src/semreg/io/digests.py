"""SHA-256 of files, in hexadecimal. Knows nothing of what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

BLOCK = 1 << 20
"""Bytes read at once."""


def sha256_of(*paths: Path) -> str:
    """Of the bytes of all files, one after the other; OSError, with ``filename``, for one that cannot be read."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                for block in _blocks(file):
                    digest.update(block)
        except OSError as error:
            error.filename = str(path)  # a failing read, other than a failing open, does not say which file it was
            raise
    return digest.hexdigest()


def sha256_of_open(file: BinaryIO) -> str:
    """Of what is left to read of an open file, which stays open."""
    digest = hashlib.sha256()
    for block in _blocks(file):
        digest.update(block)
    return digest.hexdigest()


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block
