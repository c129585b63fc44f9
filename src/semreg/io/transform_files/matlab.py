"""ITK's transforms in files of Matlab's version 4, ``.mat``: a matrix with the parameters, and one called ``fixed``.

The format: MAT-File Format, The MathWorks, "Level 4 MAT-Files"; of each matrix a header of five 32-bit integers.
"""

from __future__ import annotations

import struct

import numpy as np

from semreg.errors import GeometryError
from semreg.io.transform_files.record import DAMAGED, Numbers, Stored

FIXED = "fixed"
KINDS = {0: "f8", 10: "f4"}
"""What the numbers are, by the header's type less 1000 where they are big-endian."""
LONGEST_NAME = 256


def parse(data: bytes) -> list[Stored]:
    """The transforms of a file, one after the other; GeometryError for what is none."""
    matrices, place = [], 0
    while place < len(data):
        name, numbers, place = _matrix(data, place)
        matrices.append((name, numbers))
    if not matrices or len(matrices) % 2 or any(name != FIXED for name, _ in matrices[1::2]):
        raise GeometryError(f"expected the parameters of transforms and fixed ones, got {len(matrices)} matrices")
    return [
        Stored.of(name, parameters, fixed)
        for (name, parameters), (_, fixed) in zip(matrices[::2], matrices[1::2], strict=True)
    ]


def _matrix(data: bytes, place: int) -> tuple[str, Numbers, int]:
    """The name and the numbers of the matrix at ``place``, and where the next one starts (GeometryError)."""
    for order, base in (("<", 0), (">", 1000)):
        if len(data) - place < 20:
            break
        kind, rows, columns, imaginary, length = struct.unpack_from(f"{order}5i", data, place)
        start = place + 20
        if kind - base not in KINDS or imaginary or not 0 < length <= LONGEST_NAME or min(rows, columns) < 0:
            continue
        dtype = np.dtype(order + KINDS[kind - base])
        end = start + length + rows * columns * dtype.itemsize
        if end > len(data):
            break
        name = data[start : start + length].split(b"\0")[0].decode(errors="replace")
        return name, np.frombuffer(data[start + length : end], dtype).astype(np.float64), end
    raise GeometryError(f"expected a matrix of Matlab's version 4, got other bytes: {DAMAGED}")
