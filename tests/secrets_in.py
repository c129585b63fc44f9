"""What files of results may not say where they are private: looked for in their bytes, packed ones too."""

from __future__ import annotations

import gzip
import re
import socket
import zlib
from pathlib import Path

import h5py
import psutil
from PIL import Image

SECRET = "secretdoe"  # noqa: S105 - no password
NIFTI_HEADER = 352


def secrets_in(folder: Path) -> dict[str, str]:
    """The files below a folder that say more than they may: the secret, the machine, its user, or a path.

    The secret and a path are too long to stand in voxels by chance. The name of a machine can have two letters: it and
    the user's are looked for where a file has text.
    """
    machine = [rf"\b{re.escape(name)}\b" for name in (socket.gethostname(), psutil.Process().username())]
    found = {}
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        data = path.read_bytes()
        hits = {
            *hits_of([SECRET, "/tmp/"], [path.name.encode(), *unpacked(path, data)]),  # noqa: S108
            *hits_of(machine, [path.name.encode(), text_of(path, data)]),
        }
        if hits:
            found[path.relative_to(folder).as_posix()] = "; ".join(sorted(hits))
    return found


def hits_of(words: list[str], said: list[bytes]) -> set[str]:
    """What of these words stands in these bytes."""
    return {str(hit) for text in said for word in words if (hit := re.search(word.encode(), text)) is not None}


def unpacked(path: Path, data: bytes) -> list[bytes]:
    """The bytes of a file, and those that are packed in it."""
    if path.suffix == ".gz":
        return [data, gzip.decompress(data)]
    if path.suffix == ".h5":
        return [data, *(stream(data[hit.start() :]) for hit in re.finditer(b"\x78[\x01\x5e\x9c\xda]", data))]
    return [data]


def text_of(path: Path, data: bytes) -> bytes:
    """What a file says in words: headers, comments, names and attributes; not its voxels."""
    if path.suffix == ".gz":  # the name that gzip keeps ends with a zero byte, as the header of NIfTI starts
        return data[:10] + (data[10:].split(b"\0")[0] if data[3] else b"") + gzip.decompress(data)[:NIFTI_HEADER]
    if path.suffix == ".png":
        with Image.open(path) as picture:
            return repr(picture.info).encode()
    if path.suffix == ".h5":
        return repr(words_of(path)).encode()
    if path.suffix == ".html":  # short names stand in styles, in scripts and in pictures by chance
        return re.sub(rb"<(style|script)\b.*?</\1>|base64,[^\"]*", b"", data, flags=re.DOTALL)
    return re.match(rb"[\t\n\r -~\x80-\xff]*", data)[0]


def words_of(path: Path) -> list[object]:
    """Names, attributes and strings of an HDF5 file."""
    words: list[object] = []

    def visit(name: str, each: h5py.Group | h5py.Dataset) -> None:
        words.extend((name, dict(each.attrs)))
        if isinstance(each, h5py.Dataset) and each.dtype.kind in "OS":
            words.append(each[()])

    with h5py.File(path) as file:
        words.append(dict(file.attrs))
        file.visititems(visit)
    return words


def stream(data: bytes) -> bytes:
    """What starts here as a stream of zlib; nothing where none does."""
    try:
        return zlib.decompressobj().decompress(data, 1 << 20)
    except zlib.error:
        return b""
