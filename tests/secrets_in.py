"""What files of results may not say where they are private: looked for in their bytes, packed ones too."""

from __future__ import annotations

import gzip
import re
import socket
import zlib
from pathlib import Path

import psutil
from PIL import Image

SECRET = "secretdoe"  # noqa: S105 - no password


def secrets_in(folder: Path) -> dict[str, str]:
    """The files below a folder that say more than they may: the secret, the machine, its user, or a path."""
    found = {}
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        said = [path.name.encode(), *contents(path)]
        words = (SECRET, "/tmp/", *(rf"\b{name}\b" for name in (socket.gethostname(), psutil.Process().username())))  # noqa: S108
        hits = {str(hit) for text in said for word in words if (hit := re.search(word.encode(), text)) is not None}
        if hits:
            found[path.relative_to(folder).as_posix()] = "; ".join(hits)
    return found


def contents(path: Path) -> list[bytes]:
    """The bytes of a file, and those that are packed in it."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return [data[:1024], gzip.decompress(data)]
    if path.suffix == ".png":
        with Image.open(path) as picture:
            return [repr(picture.info).encode()]
    if path.suffix == ".h5":
        return [
            data,
            *(unpacked(data[at:]) for at in (hit.start() for hit in re.finditer(b"\x78[\x01\x5e\x9c\xda]", data))),
        ]
    if path.suffix == ".html":  # short names stand in styles, in scripts and in pictures by chance
        return [re.sub(rb"<(style|script)\b.*?</\1>|base64,[^\"]*", b"", data, flags=re.DOTALL), *by_secret(data)]
    return [data]


def by_secret(data: bytes) -> list[bytes]:
    """The secret where it stands in any part of a page."""
    return [SECRET.encode()] if SECRET.encode() in data else []


def unpacked(data: bytes) -> bytes:
    """What starts here as a stream of zlib; nothing where none does."""
    try:
        return zlib.decompressobj().decompress(data, 1 << 20)
    except zlib.error:
        return b""
