"""Where the points of a VTK file are: legacy ``.vtk``, ASCII or binary, and ``.vtp`` in its encodings.

Only the points are read and replaced; cells and data stay byte for byte as they are.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semreg.errors import ImageError
from semreg.transforms.pointwise import Points

MESHES = rb"DATASET\s+(POLYDATA|UNSTRUCTURED_GRID|STRUCTURED_GRID)"
LEGACY_TYPES = {b"float": ">f4", b"double": ">f8"}
XML_TYPES = {"Float32": "f4", "Float64": "f8"}
CUT_SHORT = "expected as many points as the file promises, got fewer: it is cut short or damaged"


def is_mesh(path: Path) -> bool:
    """Whether a legacy VTK file holds points rather than an image."""
    try:
        with path.open("rb") as file:
            return re.search(MESHES, file.read(1 << 12), re.IGNORECASE) is not None
    except OSError:
        return False


def parse_vtk(data: bytes) -> tuple[Points, Callable[[Points], bytes]]:
    """The points (3, N) of a legacy file as they are stored, and how it looks with others. Raises ImageError."""
    kind = re.match(rb"# vtk DataFile[^\n]*\n[^\n]*\n\s*(ASCII|BINARY)", data, re.IGNORECASE)
    mesh = re.search(MESHES, data, re.IGNORECASE)
    head = re.compile(rb"^POINTS\s+(\d+)\s+(\w+)[ \t]*\r?\n", re.MULTILINE).search(data, mesh.end()) if mesh else None
    if kind is None or head is None or head[2] not in LEGACY_TYPES:
        raise ImageError("expected a legacy VTK file with points of float or double: save the mesh as polydata")
    count, dtype = 3 * int(head[1]), np.dtype(LEGACY_TYPES[head[2]])
    start = head.end()
    if kind[1].upper() == b"ASCII":
        end, values = _ascii_numbers(data, start, count)
        return _points(values), lambda points: data[:start] + _ascii(points, dtype) + b"\n" + data[end:]
    end = start + count * dtype.itemsize
    if len(data) < end:
        raise ImageError(CUT_SHORT)
    values = np.frombuffer(data[start:end], dtype).astype(np.float64)
    return _points(values), lambda points: data[:start] + points.T.astype(dtype).tobytes() + data[end:]


def parse_vtp(data: bytes) -> tuple[Points, Callable[[Points], bytes]]:
    """The points (3, N) of an XML file of polydata as they are stored, and how it looks with others, in ASCII.

    Raises ImageError for what is no such file, several pieces, or a compression that is not zlib.
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
    if attributes.get("format") == "ascii":
        values = _ascii_numbers(array[3] or b"", 0, len((array[3] or b"").split()))[1]
    else:
        raw = _block(settings, attributes, array[3] or b"", appended)
        values = np.frombuffer(raw[: len(raw) - len(raw) % dtype.itemsize], dtype).astype(np.float64)
    start, end = array.span(1)
    opening = f'<DataArray type="{attributes["type"]}" Name="Points" NumberOfComponents="3" format="ascii">\n'.encode()
    return _points(values), lambda points: b"".join(
        (data[:start], opening, _ascii(points, dtype), b"\n</DataArray>", data[end:])
    )


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
    return {name.decode(): value.decode() for name, value in re.findall(rb'(\w+)\s*=\s*"([^"]*)"', text)}


def _block(settings: dict[str, str], attributes: dict[str, str], inline: bytes, appended: bytes) -> bytes:
    """The bytes of an array, inline or appended, decoded and unpacked."""
    compressor = settings.get("compressor", "")
    if compressor not in ("", "vtkZLibDataCompressor"):
        raise ImageError(f"expected points without compression or with zlib, got {compressor}: save them so")
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
        return _unpacked(reader, word) if compressor else reader.take(*word.unpack(reader.take(word.size)))
    except (struct.error, zlib.error, binascii.Error) as error:
        raise ImageError(CUT_SHORT) from error


def _unpacked(reader: _Base64 | _Raw, word: struct.Struct) -> bytes:
    """Blocks of zlib behind a header with their number and sizes, which is encoded for itself."""
    count, _, _ = (word.unpack(reader.take(word.size))[0] for _ in range(3))
    sizes = [word.unpack(reader.take(word.size))[0] for _ in range(count)]
    reader.next_stream()
    return b"".join(zlib.decompress(reader.take(size)) for size in sizes)


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
