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
from typing import BinaryIO

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
CONTROL = re.compile(rb"[\0\x0b-\r]")
"""What ends a line or a text in one reader and not in another; names in other alphabets hold other controls."""
META_MARK = re.compile(rb"[=:]")
"""What ends the name of a field of MetaImage."""
META_NUMBERS = {
    **dict.fromkeys(
        (
            b"NDims", b"ID", b"ParentID", b"CompressedDataSize", b"CompressionLevel", b"HeaderSize", b"ElementMin",
            b"ElementMax", b"ElementNumberOfChannels", b"ElementNBits", b"ElementToIntensityFunctionSlope",
            b"ElementToIntensityFunctionOffset",
        ), 0,
    ),
    **dict.fromkeys(
        (
            b"DimSize", b"ElementSpacing", b"ElementSize", b"Offset", b"Position", b"Origin", b"CenterOfRotation",
            b"ImagePosition", b"SequenceID",
        ), 1,
    ),
    **dict.fromkeys((b"TransformMatrix", b"Rotation", b"Orientation"), 2),
}  # fmt: skip
"""Fields of MetaImage that hold numbers: as many as there are axes to this power. ``Color`` holds four."""
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
    name, listed = path.name.lower(), False
    with path.open("rb") as file:
        lines = _lines_in(file, path)
        for line in _fields_of_meta(lines, path) if name.endswith(META) else lines:
            if name.endswith(NRRD) and not listed:
                if not line.strip():
                    return  # voxels follow
                if b":" not in line and not line.startswith((b"NRRD", b"#")):
                    raise _unclear(path)
            yield line
            key, value = field_in(line, path)
            listed = listed or (key in VOXELS_AT and value.startswith(LIST))
            if (key in VOXELS_AT[:1] and not listed) or (name.endswith(VTK) and key == "lookup_table"):
                return


def _lines_in(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """Lines as far as a header may go; of MetaImage and NRRD ImageError for what may end earlier, or does not end."""
    left, strict = HEADER_BYTES, path.name.lower().endswith((*META, *NRRD))
    while left > 0 and (line := file.readline(LINE_BYTES)):
        left -= len(line)
        text = line.removesuffix(b"\n").removesuffix(b"\r")
        if strict and (left <= 0 or len(line) == LINE_BYTES or CONTROL.search(text)):
            raise _unclear(path)
        yield line


def _fields_of_meta(lines: Iterator[bytes], path: Path) -> Iterator[bytes]:
    """A line a field: a line without a mark is the name of a field whose value stands behind the next mark.

    Raises ImageError for a field of too few numbers, to which its reader adds words of the lines that follow, and for
    a header that does not say where the voxels are.
    """
    start, counts = b"", dict.fromkeys(META_NUMBERS, 1) | {b"Color": 4}
    for line in lines:
        mark = META_MARK.search(line)
        if mark is None:
            start = start or line.strip()
            continue
        field, start = (start or line[: mark.start()]) + line[mark.start() :], b""
        name, value = _parts_of_meta(field)
        words = value.split()
        if len(words) < counts.get(name, 0) or (name == b"NDims" and re.fullmatch(rb"\d{1,9}", words[0]) is None):
            raise _unclear(path)
        if name == b"NDims":
            counts |= {each: int(words[0]) ** power for each, power in META_NUMBERS.items()}
        yield field
        if name == b"ElementDataFile":
            yield from lines
            return
    raise _unclear(path)


def _parts_of_meta(field: bytes) -> tuple[bytes, bytes]:
    """Name and value of a field of MetaImage."""
    name = META_MARK.split(field, maxsplit=1)[0]
    return name.strip(), field[len(name) :].lstrip(b"=: \t").strip()


def _unclear(path: Path) -> ImageError:
    """Shows no line, as a header may hold the name of a patient."""
    return ImageError(
        f"expected a header in lines of fields and values in {path}, got one that readers may part in different ways: "
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
        name, value = _parts_of_meta(line)
        return (name.decode("ascii").lower(), value) if name in META_FIELDS else ("", value)
    name, _, value = line.partition(b":")
    return ("", b"") if value.startswith(b"=") else (name.strip().decode("latin-1").lower(), value.strip())
