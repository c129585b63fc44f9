"""Takes the time of day out of HDF5 files that are written already, so that the same content is the same bytes.

The library keeps four times in the header of each object, and ITK offers no way to leave them out. The layout is that
of the HDF5 File Format Specification 3.0, IV.A.1.b, "Version 2 Data Object Header Prefix". Knows nothing of transforms.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

SIGNATURE = b"OHDR\x02"
TIMES, PHASES, TRACKED_SIZE = 0x20, 0x10, 0x03
"""Bits of the flags: times are stored; limits of attributes are stored; how many bytes hold the size."""
TIMES_BYTES, PHASES_BYTES, CHECKSUM_BYTES = 16, 4, 4
LARGEST = 1 << 20
"""Bytes of a header; what claims more is none."""


def forget_times(path: Path) -> None:
    """Set the times in all headers of objects to 0, in place; what has no valid checksum is data and stays."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        place = data.find(SIGNATURE)
        while place >= 0:
            _forget(data, place)
            place = data.find(SIGNATURE, place + 1)


def _forget(data: mmap.mmap, start: int) -> None:
    times = start + len(SIGNATURE) + 1
    if times > len(data) or not (flags := data[times - 1]) & TIMES:
        return
    sized = times + TIMES_BYTES + (PHASES_BYTES if flags & PHASES else 0)
    width = 1 << (flags & TRACKED_SIZE)
    size = int.from_bytes(data[sized : sized + width], "little")
    end = sized + width + size
    if size > LARGEST or end + CHECKSUM_BYTES > len(data):
        return
    header = bytearray(data[start:end])
    if struct.pack("<I", checksum(bytes(header))) != data[end : end + CHECKSUM_BYTES]:
        return
    header[times - start : times - start + TIMES_BYTES] = bytes(TIMES_BYTES)
    data[start:end] = bytes(header)
    data[end : end + CHECKSUM_BYTES] = struct.pack("<I", checksum(bytes(header)))


def checksum(data: bytes) -> int:
    """The checksum of HDF5's metadata: ``hashlittle`` of Jenkins, lookup3 (2006), from 0, 32 bits."""
    a = b = c = (0xDEADBEEF + len(data)) & 0xFFFFFFFF
    if not data:
        return c
    padded = data + bytes(-len(data) % 12)
    words = struct.unpack(f"<{len(padded) // 4}I", padded)
    for place in range(0, len(words), 3):
        a, b, c = ((x + y) & 0xFFFFFFFF for x, y in zip((a, b, c), words[place : place + 3], strict=True))
        if place + 3 < len(words):
            a, b, c = _mix(a, b, c)
    for first, second, turn in ((1, 2, 14), (2, 0, 11), (0, 1, 25), (1, 2, 16), (2, 0, 4), (0, 1, 14), (1, 2, 24)):
        state = [a, b, c]
        state[second] = ((state[second] ^ state[first]) - _turned(state[first], turn)) & 0xFFFFFFFF
        a, b, c = state
    return c


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for turn in (4, 6, 8, 16, 19, 4):
        a = ((a - c) & 0xFFFFFFFF) ^ _turned(c, turn)
        c = (c + b) & 0xFFFFFFFF
        a, b, c = b, c, a
    return a, b, c


def _turned(word: int, bits: int) -> int:
    return ((word << bits) | (word >> (32 - bits))) & 0xFFFFFFFF
