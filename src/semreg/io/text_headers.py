"""The lines of a header in text: MetaImage, NRRD and VTK. Reads no further than the header, however long a line is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

META = (".mhd", ".mha")
NRRD = (".nhdr", ".nrrd")
VTK = (".vtk",)
VOXELS_AT = ("elementdatafile", "data file", "datafile")
"""The field of a MetaImage or NRRD header that says where the voxels are."""
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


def field_in(line: bytes, path: Path) -> tuple[str, bytes]:
    """Name, in small letters, and value of the field in a line of the header of ``path``; "" where there is none."""
    if path.name.lower().endswith(VTK):
        words = line.split(maxsplit=1)
        return (words[0].decode("latin-1").lower(), words[1].strip() if len(words) > 1 else b"") if words else ("", b"")
    ends = [at for mark in (b"=", b":") if (at := line.find(mark)) >= 0]
    if not ends or line[min(ends) : min(ends) + 2] == b":=":
        return "", b""
    return line[: min(ends)].strip().decode("latin-1").lower(), line[min(ends) + 1 :].strip()
