"""The lines of a header in text: MetaImage, NRRD and VTK. Reads no further than the header, however long a line is.

A MetaImage or NRRD header may name files of voxels, so it is understood as the readers of ITK do, or refused where they
might understand it in another way: there is no name that they see and that is not seen here.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

from semreg.errors import ImageError

META = (".mhd", ".mha")
NRRD = (".nhdr", ".nrrd")
VTK = (".vtk",)
VOXELS_AT = ("elementdatafile", "data file", "datafile")
"""The field of a MetaImage or NRRD header that says where the voxels are."""
META_FIELDS = (
    b"ElementDataFile", b"NDims", b"DimSize", b"ElementType", b"ElementNumberOfChannels", b"HeaderSize", b"BinaryData",
    b"CompressedData", b"CompressedDataSize", b"ElementSpacing", b"Offset", b"Position", b"Origin", b"TransformMatrix",
    b"Rotation", b"Orientation",
)  # fmt: skip
"""The fields of MetaImage that are looked at: its reader takes them in these letters alone."""
META_LOCAL = (b"LOCAL", b"Local", b"local")
"""What stands there for voxels that follow the header."""
LIST = b"LIST"
"""What begins a list of files, in both formats."""
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
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f]")
"""What ends a line or a text in one reader and not in another."""
LINE_BYTES = 1 << 20
"""A line has fewer bytes."""
HEADER_BYTES = 1 << 24
"""Most bytes of a header: some hold a table, or the names of many files."""


def has_text_header(path: Path) -> bool:
    """Whether the header of a file is text, by its name."""
    return path.name.lower().endswith((*META, *NRRD, *VTK))


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a header, and those behind it that name files of voxels.

    Raises OSError, and ImageError for a MetaImage or NRRD header that its reader may part into other lines or fields.
    """
    name, left, listed = path.name.lower(), HEADER_BYTES, False
    with path.open("rb") as file:
        while line := file.readline(LINE_BYTES):
            left -= len(line)
            if name.endswith(NRRD) and not line.strip() and not listed:
                return  # voxels follow
            if name.endswith((*META, *NRRD)):
                _check_line(line, path, left, listed=listed)
            elif left <= 0:
                return
            yield line
            key, value = field_in(line, path)
            listed = listed or (key in VOXELS_AT and value.startswith(LIST))
            if (key in VOXELS_AT[:1] and not listed) or (name.endswith(VTK) and key == "lookup_table"):
                return


def _check_line(line: bytes, path: Path, left: int, *, listed: bool) -> None:
    """Refuse a line that does not end, holds what may end it earlier, or may run on into the next one (ImageError)."""
    text = line.removesuffix(b"\n").removesuffix(b"\r")
    marks = (b":",) if path.name.lower().endswith(NRRD) else (b"=", b":")
    whole = listed or not text.strip() or text.startswith((b"NRRD", b"#")) or any(mark in text for mark in marks)
    if left <= 0 or len(line) == LINE_BYTES or CONTROL.search(text) or not whole:
        raise ImageError(
            f"expected a header in lines of fields and values in {path}, got {text[:40].decode('ascii', 'replace')!r}: "
            "write the image anew, or as NIfTI"
        )


def names_of_voxels(path: Path) -> list[str]:
    """The files, or the pattern of files, that a MetaImage or NRRD header names; none where its voxels follow it.

    Raises as ``lines_of`` does.
    """
    lines, local = lines_of(path), META_LOCAL if path.name.lower().endswith(META) else ()
    for line in lines:
        key, value = field_in(line, path)
        if key in VOXELS_AT:
            names = [each.strip() for each in lines] if value.startswith(LIST) else [value]
            return [os.fsdecode(name) for name in names if name and name not in local]
    return []


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
    if path.name.lower().endswith(META):
        name = re.split(rb"[=:]", line, maxsplit=1)[0]
        value = line[len(name) :].lstrip(b"=: \t").strip()
        return (name.strip().decode("ascii").lower(), value) if name.strip() in META_FIELDS else ("", value)
    name, _, value = line.partition(b":")
    return ("", b"") if value.startswith(b"=") else (name.strip().decode("latin-1").lower(), value.strip())
