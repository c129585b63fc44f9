"""Writes NIfTI-1 files piece by piece, so that no second copy of the samples is needed, and mends headers ITK refuses.

Knows nothing of ITK.
The header comes from elsewhere (a file of one voxel that SimpleITK wrote); here its sizes and its intent are set and
the samples are streamed behind it. The bytes depend on nothing but the image: no name and no time are stored.
"""

from __future__ import annotations

import gzip
import math
import shutil
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semreg.errors import GeometryError, OutputError
from semreg.geometry import nearest_rotation, orthonormality_error

HEADER_BYTES = 352
"""The header and the four bytes that say that no extension follows."""
INTENT_DISPLACEMENT = 1006
"""NIFTI_INTENT_DISPVECT. The vectors of such a file are RAS; readers built on ITK 5.4 or later return them as LPS."""
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


def orthonormal_copy(source: Path, target: Path) -> float:
    """Copy a NIfTI-1 file whose sform is sheared to ``target`` (``.nii``) with the nearest orthonormal axes.

    Returns the largest entry of |DᵀD − 1| that the header had. Raises GeometryError if its axes are singular or the
    file is not a NIfTI-1 file with an sform.
    """
    with gzip.open(source) if source.name.endswith(".gz") else source.open("rb") as file:
        header = bytearray(file.read(HEADER_BYTES))
        order = "<" if len(header) == HEADER_BYTES and struct.unpack_from("<i", header)[0] == 348 else ">"
        if header[344:348] != b"n+1\0" or struct.unpack_from(f"{order}h", header, 254)[0] <= 0:
            raise GeometryError(f"expected orthonormal axes, got a header that says otherwise in {source}: correct it")
        rows = np.array(struct.unpack_from(f"{order}12f", header, 280)).reshape(3, 4)
        spacing = np.linalg.norm(rows[:, :3], axis=0)
        direction = rows[:, :3] / np.where(spacing > 0, spacing, 1.0)
        rows[:, :3] = nearest_rotation(direction) * spacing
        struct.pack_into(f"{order}12f", header, 280, *rows.ravel())
        struct.pack_into(f"{order}3f", header, 80, *spacing)
        struct.pack_into(f"{order}h", header, 252, 0)  # no qform
        with target.open("wb") as copy:
            copy.write(header)
            shutil.copyfileobj(file, copy)
    return orthonormality_error(direction)


def is_cut_short(path: Path) -> bool:
    """Whether a ``.nii`` or ``.nii.gz`` file holds less than its header promises, or is damaged; False for NIfTI-2.

    A complete compressed file says its size at its end; only one that says something else is unpacked to see.
    """
    compressed = path.name.endswith(".gz")
    try:
        with gzip.open(path) if compressed else path.open("rb") as file:
            header = file.read(HEADER_BYTES)
            size = _promised_size(header)
            if not compressed:
                return path.stat().st_size < size
            with path.open("rb") as raw:
                raw.seek(-4, 2)
                if struct.unpack("<I", raw.read(4))[0] == size % 2**32:
                    return False
            count = len(header)
            while block := file.read(1 << 20):
                count += len(block)
    except (EOFError, OSError, zlib.error):
        return True
    return count < size


def float_voxels(path: Path) -> npt.NDArray[Any] | None:
    """The voxels of a NIfTI-1 file of floats, flat, x fastest, scaled as its header says; None for any other file.

    ITK's reader turns NaN and infinite voxels of NIfTI files into 0; here they stay. Raises EOFError if voxels are
    missing, OSError or zlib.error if the file is damaged.
    """
    with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
        header = file.read(HEADER_BYTES)
        if _promised_size(header) == 0:
            return None
        order = "<" if struct.unpack_from("<i", header)[0] == 348 else ">"
        kind = {16: "f4", 64: "f8"}.get(struct.unpack_from(f"{order}h", header, 70)[0])
        if kind is None:
            return None
        offset, slope, intercept = struct.unpack_from(f"{order}3f", header, 108)
        axes, *sizes = struct.unpack_from(f"{order}8h", header, 40)
        file.seek(int(offset))
        count = math.prod(sizes[:axes])
        data = file.read(count * int(kind[1]))
    if len(data) < count * int(kind[1]):
        raise EOFError(f"{count} voxels of {kind} promised, {len(data)} bytes found")
    voxels = np.frombuffer(data, f"{order}{kind}")
    scaled = math.isfinite(slope) and math.isfinite(intercept) and slope != 0 and (slope, intercept) != (1, 0)
    return voxels * slope + intercept if scaled else voxels


def _promised_size(header: bytes) -> int:
    """Bytes of a NIfTI-1 file by its header; 0 for anything else."""
    if len(header) < HEADER_BYTES or header[344:348] != b"n+1\0":
        return 0
    order = "<" if struct.unpack_from("<i", header)[0] == 348 else ">"
    axes, *sizes = struct.unpack_from(f"{order}8h", header, 40)
    bits = struct.unpack_from(f"{order}h", header, 72)[0]
    offset = struct.unpack_from(f"{order}f", header, 108)[0]
    return int(offset + math.prod(sizes[:axes]) * bits // 8)


def _pieces(header: bytes, chunks: Iterable[npt.NDArray[Any]]) -> Iterable[bytes | memoryview]:
    yield header
    for chunk in chunks:
        yield chunk.data.cast("B")


def _write_all(file: Any, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
