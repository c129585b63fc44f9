"""Where the points of a VTK file are: legacy ``.vtk``, ASCII or binary, and ``.vtp`` in its encodings.

Only the points are read and replaced; cells and data stay byte for byte as they are.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import lzma
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semreg.errors import ImageError
from semreg.transforms.base import Points
from semreg.transforms.points.contract import RAS_TO_LPS, PointFile

MESHES = rb"DATASET\s+(POLYDATA|UNSTRUCTURED_GRID|STRUCTURED_GRID)"
LEGACY_TYPES = {b"float": ">f4", b"double": ">f8"}
XML_TYPES = {"Float32": "f4", "Float64": "f8"}
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "vtkZLibDataCompressor": zlib.decompress,
    "vtkLZMADataCompressor": lzma.decompress,
}
SPACE = "SPACE"
"""The array of text in which 3D Slicer says the coordinate system, in the file's field data; in legacy files it is in
the title too."""
CUT_SHORT = "expected as many points as the file promises, got fewer: it is cut short or damaged"


@dataclass(frozen=True)
class Mesh:
    """The points of a file as they are stored."""

    points: Points
    """(3, N) in mm."""
    rewritten: Callable[[Points], bytes]
    """Other points (3, N), stored the same way → the bytes of the file."""
    space: str | None
    """RAS or LPS, where the file says it."""


def point_file(mesh: Mesh, ras: bool) -> PointFile:
    """The points of a mesh, in the space that the file says, else in RAS or LPS as the caller does."""
    flipped = mesh.space == "RAS" if mesh.space else ras
    signs = (RAS_TO_LPS if flipped else np.ones(3))[:, None]
    return PointFile(mesh.points * signs, lambda moved: mesh.rewritten(moved * signs))


def is_mesh(path: Path) -> bool:
    """Whether a legacy VTK file holds points rather than an image."""
    try:
        with path.open("rb") as file:
            return re.search(MESHES, file.read(1 << 12), re.IGNORECASE) is not None
    except OSError:
        return False


def parse_vtk(data: bytes) -> Mesh:
    """The points of a legacy file. Raises ImageError."""
    kind = re.match(rb"# vtk DataFile[^\n]*\n[^\n]*\n\s*(ASCII|BINARY)", data, re.IGNORECASE)
    mesh = re.search(MESHES, data, re.IGNORECASE)
    head = re.compile(rb"^POINTS\s+(\d+)\s+(\w+)[ \t]*\r?\n", re.MULTILINE).search(data, mesh.end()) if mesh else None
    if kind is None or head is None or head[2] not in LEGACY_TYPES:
        raise ImageError("expected a legacy VTK file with points of float or double: save the mesh as polydata")
    count, dtype = 3 * int(head[1]), np.dtype(LEGACY_TYPES[head[2]])
    start, space = head.end(), _space_of_legacy(data[: head.start()])
    if kind[1].upper() == b"ASCII":
        end, values = _ascii_numbers(data, start, count)
        return Mesh(_points(values), lambda points: data[:start] + _ascii(points, dtype) + b"\n" + data[end:], space)
    end = start + count * dtype.itemsize
    if len(data) < end:
        raise ImageError(CUT_SHORT)
    values = np.frombuffer(data[start:end], dtype).astype(np.float64)
    return Mesh(_points(values), lambda points: data[:start] + points.T.astype(dtype).tobytes() + data[end:], space)


def parse_vtp(data: bytes) -> Mesh:
    """The points of an XML file of polydata; others are written in ASCII.

    Raises ImageError for what is no such file, several pieces, or a compression that is not zlib or LZMA.
    """
    body, _, appended = data.partition(b"<AppendedData")
    file = re.search(rb"<VTKFile\b([^>]*)>", body)
    array = re.search(rb"<Points>\s*(<DataArray\b([^>]*?)(?:/>|>(.*?)</DataArray>))", body, re.DOTALL)
    if file is None or array is None or len(re.findall(rb"<Piece\b", body)) != 1:
        raise ImageError("expected a .vtp file with one piece that has points: save the mesh as one polydata")
    settings, attributes = _attributes(file[1]), _attributes(array[2])
    if attributes.get("type") not in XML_TYPES:
        raise ImageError(f"expected points of Float32 or Float64, got {attributes.get('type')}: convert the mesh")
    order = ">" if settings.get("byte_order") == "BigEndian" else "<"
    dtype = np.dtype(order + XML_TYPES[attributes["type"]])
    text = _own_text(array[3])
    if attributes.get("format") == "ascii":
        values = _ascii_numbers(text, 0, len(text.split()))[1]
    else:
        raw = _block(settings, attributes, text, appended)
        values = np.frombuffer(raw[: len(raw) - len(raw) % dtype.itemsize], dtype).astype(np.float64)
    start, end = array.span(1)
    opening = f'<DataArray type="{attributes["type"]}" Name="Points" NumberOfComponents="3" format="ascii">\n'.encode()
    return Mesh(
        _points(values),
        lambda points: b"".join((data[:start], opening, _ascii(points, dtype), b"\n</DataArray>", data[end:])),
        _space_of_xml(settings, body, appended),
    )


def _space_of_legacy(head: bytes) -> str | None:
    """RAS or LPS by the title or by the field data in front of the points."""
    title = re.search(rb"SPACE=(RAS|LPS)", head)
    field = re.search(rb"^SPACE 1 1 string\r?\n(\w+)", head, re.MULTILINE)
    return _space(title[1] if title else field[1] if field else None)


def _space_of_xml(settings: dict[str, str], body: bytes, appended: bytes) -> str | None:
    """RAS or LPS by the field data, which is text: the codes of its letters, ended by 0, encoded as all arrays are."""
    for found in re.finditer(rb"<Array\b([^>]*?)(?:/>|>(.*?)</Array>)", body, re.DOTALL):
        attributes = _attributes(found[1])
        if attributes.get("Name") == SPACE:
            text = _own_text(found[2])
            ascii_codes = attributes.get("format") == "ascii"
            raw = bytes(map(int, text.split())) if ascii_codes else _block(settings, attributes, text, appended)
            return _space(raw.split(b"\0")[0])
    title = re.search(rb"SPACE=(RAS|LPS)", body[:4096])
    return _space(title[1] if title else None)


def _space(said: bytes | None) -> str | None:
    if said is None:
        return None
    name = said.decode(errors="replace").strip().upper()
    if name not in ("RAS", "LPS"):
        raise ImageError(f"expected a mesh in the space RAS or LPS, got {name[:20]!r}: save it in one of them")
    return name


def _own_text(content: bytes | None) -> bytes:
    """What an array holds itself, without the elements that VTK nests in it to describe its values."""
    return (content or b"").partition(b"<")[0]


def _points(values: npt.NDArray[np.float64]) -> Points:
    if values.size % 3:
        raise ImageError("expected points of three coordinates, got another number of values: check the file")
    return np.ascontiguousarray(values.reshape(-1, 3).T)


def _ascii_numbers(data: bytes, start: int, count: int) -> tuple[int, npt.NDArray[np.float64]]:
    """``count`` numbers from ``start`` on, and where they end."""
    end, texts = start, []
    for token in itertools.islice(re.compile(rb"\S+").finditer(data, start), count):
        texts.append(token[0])
        end = token.end()
    try:
        values = np.array([float(text) for text in texts])
    except ValueError as error:
        raise ImageError(CUT_SHORT) from error
    if len(values) < count:
        raise ImageError(CUT_SHORT)
    return end, values


def _ascii(points: Points, dtype: npt.DTypeLike) -> bytes:
    """A point a line, with all digits of the type."""
    digits = 9 if np.dtype(dtype).itemsize == 4 else 17
    return "\n".join(" ".join(f"{value:.{digits}g}" for value in point) for point in points.T).encode()


def _attributes(text: bytes) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in re.findall(rb'\b(\w+)\s*=\s*"([^"]*)"', text)}


def _block(settings: dict[str, str], attributes: dict[str, str], inline: bytes, appended: bytes) -> bytes:
    """The bytes of an array, inline or appended, decoded and unpacked."""
    compressor = settings.get("compressor", "")
    if compressor and compressor not in UNPACK:
        raise ImageError(f"expected points without compression or with zlib or LZMA, got {compressor}: save them so")
    encoded = True
    text = inline.strip()
    if attributes.get("format") == "appended":
        opening, _, rest = appended.partition(b"_")
        encoded = _attributes(opening).get("encoding", "base64") == "base64"
        text = rest[int(attributes.get("offset", "0")) :]
    order = ">" if settings.get("byte_order") == "BigEndian" else "<"
    word = struct.Struct(order + ("Q" if settings.get("header_type") == "UInt64" else "I"))
    try:
        reader = _Base64(text) if encoded else _Raw(text)
        return (
            _unpacked(reader, word, UNPACK[compressor])
            if compressor
            else reader.take(*word.unpack(reader.take(word.size)))
        )
    except (struct.error, zlib.error, lzma.LZMAError, binascii.Error) as error:
        raise ImageError(CUT_SHORT) from error


def _unpacked(reader: _Base64 | _Raw, word: struct.Struct, unpack: Callable[[bytes], bytes]) -> bytes:
    """Packed blocks behind a header with their number and sizes, which is encoded for itself."""
    count, _, _ = (word.unpack(reader.take(word.size))[0] for _ in range(3))
    sizes = [word.unpack(reader.take(word.size))[0] for _ in range(count)]
    reader.next_stream()
    return b"".join(unpack(reader.take(size)) for size in sizes)


class _Raw:
    """Bytes read one after the other."""

    def __init__(self, data: bytes) -> None:
        """All of ``data``."""
        self.data, self.position = data, 0

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes; struct.error if there are fewer."""
        if size > len(self.data) - self.position:
            raise struct.error(CUT_SHORT)
        self.position += size
        return self.data[self.position - size : self.position]

    def next_stream(self) -> None:
        """Nothing lies between two streams of raw bytes."""


class _Base64:
    """Bytes encoded in base64, one stream after the other, each padded to whole groups of four letters."""

    def __init__(self, text: bytes) -> None:
        """Streams from the start of ``text`` on; what follows the last one that is read does not matter."""
        self.text, self.start, self.position = text, 0, 0

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes of the stream; struct.error if there are fewer."""
        first, last = self.position // 3 * 4, -(-(self.position + size) // 3) * 4
        data = base64.b64decode(self.text[self.start + first : self.start + last])
        offset = self.position % 3
        if len(data) < offset + size:
            raise struct.error(CUT_SHORT)
        self.position += size
        return data[offset : offset + size]

    def next_stream(self) -> None:
        """Go behind the padding of this stream."""
        self.start += -(-self.position // 3) * 4
        self.position = 0
