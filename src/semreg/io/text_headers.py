"""The lines of a header in text: MetaImage, NRRD and VTK. Reads no further than the header, however long a line is."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

META = (".mhd", ".mha")
NRRD = (".nhdr", ".nrrd")
VTK = (".vtk",)
VOXELS_AT = ("elementdatafile", "data file", "datafile")
"""The field of a MetaImage or NRRD header that says where the voxels are."""
META_TYPES = {
    "met_char": 1, "met_uchar": 1, "met_short": 2, "met_ushort": 2, "met_int": 4, "met_uint": 4, "met_float": 4,
    "met_double": 8, "met_long_long": 8, "met_ulong_long": 8,
}  # fmt: skip
NRRD_TYPES = {
    "char": 1, "int8": 1, "short": 2, "int16": 2, "int": 4, "int32": 4, "longlong": 8, "long long": 8, "int64": 8,
    "float": 4, "double": 8,
}  # fmt: skip
"""Bytes of a voxel by the name of its type; those of MetaImage, and those of NRRD without what says its sign."""
SIGN = re.compile(r"^(unsigned |signed |u)|( int|_t)$")
LINE_BYTES = 1 << 20
"""Most bytes of a line."""
HEADER_BYTES = 1 << 24
"""Most bytes of a header: some hold a table, or the names of many files."""


def has_text_header(path: Path) -> bool:
    """Whether the header of a file is text, by its name."""
    return path.name.lower().endswith((*META, *NRRD, *VTK))


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a header, and those behind it that name files of voxels. Raises OSError."""
    name, left, listed = path.name.lower(), HEADER_BYTES, False
    with path.open("rb") as file:
        while left > 0 and (line := file.readline(LINE_BYTES)):
            left -= len(line)
            if name.endswith(NRRD) and not line.strip() and not listed:
                return  # voxels follow
            yield line
            key, value = field_in(line, path)
            listed = listed or (key in VOXELS_AT and value.split()[:1] == [b"LIST"])
            if (key in VOXELS_AT[:1] and not listed) or (name.endswith(VTK) and key == "lookup_table"):
                return


def fields_of(path: Path) -> tuple[dict[str, bytes], int]:
    """The fields of a header by their names in small letters, the last of each, and the bytes it takes.

    Raises OSError.
    """
    found: dict[str, bytes] = {}
    size = 0
    for line in lines_of(path):
        size += len(line)
        key, value = field_in(line, path)
        if key:
            found[key] = value
        if key in VOXELS_AT[:1]:
            break
    return found, size


def promised_bytes(path: Path) -> int | None:
    """Bytes of the voxels that a MetaImage or NRRD header promises, None where it does not say it. Raises OSError.

    It does not where the voxels are compressed or text, where something stands before them, and by rare types.
    """
    found = {key: value.decode("latin-1").strip().lower() for key, value in fields_of(path)[0].items()}
    if path.name.lower().endswith(META):
        plain = found.get("compresseddata", "f")[:1] in "f0" and found.get("binarydata", "t")[:1] in "t1"
        plain = plain and found.get("headersize", "0") == "0"
        voxel, counts = META_TYPES.get(found.get("elementtype", "")), found.get("dimsize", "").split()
        counts.append(found.get("elementnumberofchannels", "1"))
    else:
        plain = found.get("encoding") == "raw" and all(
            found.get(f"{unit}{gap}skip", "0") == "0" for unit in ("byte", "line") for gap in ("", " ")
        )
        voxel, counts = NRRD_TYPES.get(SIGN.sub("", found.get("type", ""))), found.get("sizes", "").split()
    if not plain or voxel is None or not all(each.isdecimal() and len(each) < 19 for each in counts):
        return None
    return voxel * math.prod(map(int, counts))


def field_in(line: bytes, path: Path) -> tuple[str, bytes]:
    """Name, in small letters, and value of the field in a line of the header of ``path``; "" where there is none."""
    if path.name.lower().endswith(VTK):
        words = line.split(maxsplit=1)
        return (words[0].decode("latin-1").lower(), words[1].strip() if len(words) > 1 else b"") if words else ("", b"")
    ends = [at for mark in (b"=", b":") if (at := line.find(mark)) >= 0]
    if not ends or line[min(ends) : min(ends) + 2] == b":=":
        return "", b""
    return line[: min(ends)].strip().decode("latin-1").lower(), line[min(ends) + 1 :].strip()
