"""Writes small DICOM files, tag by tag, so that tests can hold what scanners produce and no writer offers."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Tags = Mapping[int, tuple[str, Any]]
"""0xGGGGEEEE → (value representation, text, number, bytes or, for SQ, a list of items)."""

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"
STUDY = "1.2.826.0.1.3680043.2.1125.9"


def write_dicom(path: Path, tags: Tags, *, sop_class: str = CT_IMAGE) -> None:
    """An explicit little-endian DICOM file with ``tags``."""
    uid = tags[0x00080018][1]
    meta = _elements(
        {0x00020001: ("OB", b"\0\1"), 0x00020002: ("UI", sop_class), 0x00020003: ("UI", uid),
         0x00020010: ("UI", "1.2.840.10008.1.2.1"), 0x00020012: ("UI", "1.2.3")}
    )  # fmt: skip
    length = _elements({0x00020000: ("UL", len(meta))})
    path.write_bytes(bytes(128) + b"DICM" + length + meta + _elements({0x00080016: ("UI", sop_class), **tags}))


def _elements(tags: Tags) -> bytes:
    return b"".join(_element(tag, kind, value) for tag, (kind, value) in sorted(tags.items()))


def _element(tag: int, kind: str, value: Any) -> bytes:
    if kind == "SQ":
        data = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in map(_elements, value))
    elif kind in ("US", "UL"):
        data = struct.pack("<H" if kind == "US" else "<I", value)
    else:
        data = value if isinstance(value, bytes) else text(value).encode()
    data += (b"\0" if kind in ("UI", "OB", "OW") else b" ") * (len(data) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + kind.encode()
    if kind in ("OB", "OW", "SQ"):
        return head + struct.pack("<HI", 0, len(data)) + data
    return head + struct.pack("<H", len(data)) + data


def text(value: Any) -> str:
    """Numbers as DICOM writes them, at most 16 characters each."""
    if isinstance(value, str):
        return value
    values = [value] if np.isscalar(value) else list(value)
    return "\\".join(str(v) if isinstance(v, int) else f"{float(v):.9g}"[:16] for v in values)


def pixel_tags(pixels: np.ndarray[Any, Any], *, samples: int = 1) -> dict[int, tuple[str, Any]]:
    """The tags of stored pixels, (y, x), (frame, y, x) or with ``samples`` 3 (y, x, rgb)."""
    rows, columns = pixels.shape[:2] if samples == 3 else pixels.shape[-2:]
    bits = 8 * pixels.dtype.itemsize
    tags: dict[int, tuple[str, Any]] = {
        0x00280002: ("US", samples), 0x00280004: ("CS", "RGB" if samples == 3 else "MONOCHROME2"),
        0x00280010: ("US", rows), 0x00280011: ("US", columns), 0x00280100: ("US", bits), 0x00280101: ("US", bits),
        0x00280102: ("US", bits - 1), 0x00280103: ("US", int(pixels.dtype.kind == "i")),
        0x7FE00010: ("OW" if bits > 8 else "OB", np.ascontiguousarray(pixels).tobytes()),
    }  # fmt: skip
    if samples == 3:
        tags[0x00280006] = ("US", 0)
    if pixels.ndim == 3 and samples == 1:
        tags[0x00280008] = ("IS", len(pixels))
    return tags


def slice_tags(
    uid: str, number: int, position: Sequence[float], cosines: Sequence[float], spacing_xy: Sequence[float] = (0.7, 0.9)
) -> dict[int, tuple[str, Any]]:
    """The tags of one slice of the series ``uid``: ``position`` of its first pixel in mm, row and column direction."""
    return {
        0x00080018: ("UI", f"{uid}.{number}"), 0x00080060: ("CS", "CT"), 0x0020000D: ("UI", STUDY),
        0x0020000E: ("UI", uid), 0x00200013: ("IS", number), 0x00200032: ("DS", position),
        0x00200037: ("DS", cosines), 0x00280030: ("DS", (spacing_xy[1], spacing_xy[0])),
    }  # fmt: skip
