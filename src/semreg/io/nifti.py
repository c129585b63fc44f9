"""Writes NIfTI-1 files piece by piece, so that no second copy of the samples is needed, and reads what ITK does not.

Knows nothing of ITK.
The header comes from elsewhere (a file of one voxel that SimpleITK wrote); here its sizes and its intent are set and
the samples are streamed behind it. The bytes depend on nothing but the image: no name and no time are stored.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semreg.errors import OutputError
from semreg.io.nifti_header import (
    HEADER_BYTES,
    SINGLE,
    NiftiHeader,
    beside,
    is_nifti_name,
    is_packed,
    opened,
    read_header,
)

INTENT_DISPLACEMENT = 1006
"""NIFTI_INTENT_DISPVECT. The vectors of such a file are RAS; readers built on ITK 5.4 or later return them as LPS."""
BLOCK = 1 << 20
"""Bytes read at once."""
LARGEST_SIZE = 32767
"""Most voxels an axis can have in NIfTI-1."""


def resized_header(header: bytes, size_xyz: tuple[int, ...], *, intent: int | None = None) -> bytes:
    """The header of a one-voxel file as that of an image of ``size_xyz``, with another intent code if one is given.

    Raises OutputError if NIfTI-1 cannot hold the size.
    """
    if max(size_xyz) > LARGEST_SIZE:
        raise OutputError(f"expected at most {LARGEST_SIZE} voxels an axis in NIfTI, got {size_xyz}: write nrrd or mha")
    order = "<" if struct.unpack_from("<i", header)[0] == 348 else ">"
    result = bytearray(header[:HEADER_BYTES])
    struct.pack_into(f"{order}{len(size_xyz)}h", result, 42, *size_xyz)
    if intent is not None:
        struct.pack_into(f"{order}h", result, 68, intent)
    return bytes(result)


def write_chunks(path: Path, header: bytes, chunks: Iterable[npt.NDArray[Any]], *, smooth: bool = False) -> None:
    """Write the header and then the contiguous ``chunks`` to ``path``; compressed if its name ends in ``.gz``.

    ``smooth`` says that neighbours differ but hardly repeat, as in a displacement field: run lengths and entropy
    coding then compress as well as a search for repeated strings, in less than half the time.
    """
    compressing = path.name.endswith(".gz")
    strategy = zlib.Z_RLE if smooth else zlib.Z_DEFAULT_STRATEGY
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31, 9, strategy)
    with path.open("wb", buffering=0) as file:
        for piece in _pieces(header, chunks):
            _write_all(file, compressor.compress(piece) if compressing else piece)
        if compressing:
            _write_all(file, compressor.flush())


def plain_copy(source: Path, folder: Path, *, placeless: bool) -> Path:
    """Copy a NIfTI-1 file or pair into ``folder``, unpacked and no more of it than its header promises; the copy.

    ``placeless``: without its place, for readers that refuse its axes.
    """
    promised = read_header(source)
    for file in (source, *beside(source)):
        target = folder / file.name.lower().removesuffix(".gz")
        left = HEADER_BYTES if promised is None else max(promised.starts, HEADER_BYTES) + _voxel_bytes(promised)
        with opened(file) as data, target.open("wb") as copy:
            if ".img" not in target.name and placeless:
                header = bytearray(data.read(HEADER_BYTES))
                header[252:256] = bytes(4)  # the codes of qform and sform
                copy.write(header)
                left -= len(header)
            while left > 0 and (block := data.read(min(left, BLOCK))):
                copy.write(block)
                left -= len(block)
    return folder / source.name.lower().removesuffix(".gz")


def is_cut_short(path: Path) -> bool:
    """Whether a ``.nii`` or ``.nii.gz`` file holds less than its header promises, or is damaged; False for others.

    A complete compressed file says its size at its end; only one that says something else is unpacked to see.
    """
    if not is_nifti_name(path, SINGLE):
        return False
    try:
        compressed = is_packed(path)
        promised = read_header(path)
        with opened(path) as file:
            header = file.read(HEADER_BYTES)
            size = 0 if promised is None else promised.starts + _voxel_bytes(promised)
            if not compressed:
                return path.stat().st_size < size
            with path.open("rb") as raw:
                raw.seek(-4, 2)
                if struct.unpack("<I", raw.read(4))[0] == size % 2**32:
                    return False
            count = len(header)
            while count < size and (block := file.read(BLOCK)):
                count += len(block)
    except (EOFError, OSError, zlib.error):
        return True
    return count < size


def float_voxels(path: Path) -> npt.NDArray[Any] | None:
    """The voxels of a NIfTI-1 or Analyze file of floats, flat, x fastest, scaled as its header says; None for others.

    ITK's reader turns NaN and infinite voxels of such files into 0; here they stay. Raises EOFError if voxels are
    missing, OSError or zlib.error if the file is damaged.
    """
    header = read_header(path)
    kind = None if header is None else {16: "f4", 64: "f8"}.get(header.datatype)
    if header is None or kind is None:
        return None
    file = next((each for each in (path, *beside(path)) if ".hdr" not in each.name.lower()), None)
    if file is None:
        return None
    size = _voxel_bytes(header)
    with opened(file) as stream:
        stream.seek(header.starts)
        data = stream.read(size)
    if len(data) < size:
        raise EOFError(f"{size} bytes of voxels promised, {len(data)} found")
    voxels = np.frombuffer(data, f"{header.order}{kind}")
    slope, intercept = header.scaling
    scaled = math.isfinite(slope) and math.isfinite(intercept) and slope != 0 and (slope, intercept) != (1, 0)
    return voxels * slope + intercept if scaled else voxels


def _voxel_bytes(header: NiftiHeader) -> int:
    return math.prod(header.sizes) * header.bits // 8


def _pieces(header: bytes, chunks: Iterable[npt.NDArray[Any]]) -> Iterable[bytes | memoryview]:
    yield header
    for chunk in chunks:
        yield chunk.data.cast("B")


def _write_all(file: Any, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
