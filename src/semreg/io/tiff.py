"""What the directories of a TIFF file say, which its reader follows without a look. Reads no pixels."""

from __future__ import annotations

import io
import math
import struct
from pathlib import Path
from typing import BinaryIO

from semreg.errors import ImageError

ENDINGS = (".tif", ".tiff")
MOST_PAGES = 1 << 16
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLES = 256, 257, 258, 259, 262, 274, 277
"""Tags of a directory."""
PLAIN, PALETTE = 1, 3
"""Values of COMPRESSION and PHOTOMETRIC."""
EXPANSION = {5: 2048.0, 7: 1032.0, 8: 1032.0, 32773: 64.0, 32946: 1032.0}
"""Bytes that one byte stands for at most by COMPRESSION: LZW, JPEG, deflate, PackBits, deflate; others have no end."""
EXIF = (b"Exif\0\0", b"eXIf")
"""What stands before the same directories in JPEG and in PNG."""
EXIF_WITHIN = 1 << 17
"""Bytes of a picture in which they are looked for."""
FARTHEST = 1 << 60
"""No file is as long."""
KINDS = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""Types of values that are whole numbers."""


def first_page(path: Path) -> dict[int, int]:
    """The tags of the first directory that hold whole numbers, the first number of each; none where it is no TIFF.

    Raises ImageError for directories that lead back to one of them: their reader would count them for ever. OSError.
    """
    with path.open("rb") as file:
        return _first_page(file, path)


def turned(path: Path) -> int:
    """How a picture is to be turned before it is shown, by its Exif data, 1 to 8; 1: it is not. Raises OSError."""
    if path.name.lower().endswith(ENDINGS):
        return first_page(path).get(ORIENTATION, 1)
    with path.open("rb") as file:
        start = file.read(EXIF_WITHIN)
    for mark in EXIF:
        if (at := start.find(mark)) >= 0:
            return _first_page(io.BytesIO(start[at + len(mark) :]), path).get(ORIENTATION, 1)
    return 1


def _first_page(file: BinaryIO, path: Path) -> dict[int, int]:
    start = file.read(4)
    order = {b"II": "<", b"MM": ">"}.get(start[:2], "")
    kind = struct.unpack(f"{order}H", start[2:])[0] if order and len(start) == 4 else 0
    if kind not in (42, 43):
        return {}
    entry, wide, count = (20, "Q", "Q") if kind == 43 else (12, "I", "H")
    at, seen, first = 8 if kind == 43 else 4, set[int](), dict[int, int]()
    while (place := _number(file, order + wide, at)) not in (0, None):
        if place in seen or len(seen) == MOST_PAGES:
            raise ImageError(f"expected a picture, got {path}, whose pages have no end: it is damaged")
        seen.add(place)
        entries = _number(file, order + count, place)
        if entries is None:
            break
        start_of = place + struct.calcsize(order + count)
        if len(seen) == 1:
            file.seek(start_of)
            first = _tags(file.read(min(entries, 1 << 16) * entry), order, entry)
        at = start_of + entries * entry
    return first


def most_bytes(page: dict[int, int], there: int) -> float:
    """The most bytes of pixels, as its reader gives them, in a file of so many bytes; infinite if nobody can tell."""
    packed = page.get(COMPRESSION, PLAIN)
    if packed not in (PLAIN, *EXPANSION):
        return math.inf
    bits = 8 if page.get(BITS, 1) < 8 else 1
    return there * EXPANSION.get(packed, 1.0) * bits * (3 if page.get(PHOTOMETRIC) == PALETTE else 1)


def check_page(page: dict[int, int], path: Path, there: int) -> None:
    """Refuse a first page of more pixels than so many bytes can hold (ImageError)."""
    pixels = page.get(WIDTH, 0) * page.get(HEIGHT, 0) * page.get(SAMPLES, 1)
    if pixels > most_bytes(page, there):
        raise ImageError(
            f"expected a complete picture, got {path}, whose header promises {page[WIDTH]} × {page[HEIGHT]} pixels in "
            f"{there} bytes: the file is cut short or damaged; copy it again"
        )


def _tags(data: bytes, order: str, entry: int) -> dict[int, int]:
    found = {}
    for at in range(0, len(data) - entry + 1, entry):
        tag, kind = struct.unpack_from(f"{order}2H", data, at)
        count = struct.unpack_from(f"{order}{'Q' if entry == 20 else 'I'}", data, at + 4)[0]
        room = entry - (12 if entry == 20 else 8)
        if kind in KINDS and count * struct.calcsize(KINDS[kind]) <= room and count:
            found[tag] = struct.unpack_from(order + KINDS[kind], data, at + entry - room)[0]
    return found


def _number(file: BinaryIO, kind: str, at: int) -> int | None:
    file.seek(min(at, FARTHEST))
    data = file.read(struct.calcsize(kind))
    return struct.unpack(kind, data)[0] if len(data) == struct.calcsize(kind) else None
