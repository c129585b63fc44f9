"""What headers say that a reader must not pass over: where the voxels are, and numbers that are none. Knows no voxels.

ITK reads such headers without a message; here what it made of them is checked, and replaced where it is wrong.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semreg.errors import GeometryError
from semreg.io.bridge import Lattice
from semreg.io.nifti_header import notes_on, place_of, read_header

SAME = 0.01
"""Voxels by which ITK's place of a NIfTI image may differ from that of the header: the digits of float32."""
META = re.compile(
    rb"\s*(Offset|Position|Origin|ElementSpacing|TransformMatrix|Rotation|Orientation)\s*=\s*(.*)", re.IGNORECASE
)
"""The lines of a MetaImage header that say a place."""
VTK = re.compile(rb"\s*(ORIGIN|SPACING|ASPECT_RATIO)\s+(.*)", re.IGNORECASE)
TEXT_BYTES = 1 << 16
"""Headers in text are looked for in the beginning of a file."""


def lattice_of(reader: Any, path: Path, *, minc: bool) -> tuple[Lattice, list[str]]:
    """Where the voxels of an image lie whose header SimpleITK has read from ``path``, and what was repaired.

    An axis of negative spacing runs the other way, as in ITK. Of NIfTI the header itself counts: ITK has no sheared
    axes. ``minc``: it is of that format, which is RAS and which ITK does not turn. Raises GeometryError for numbers
    that are not finite.
    """
    _check_text(path)
    size = reader.GetSize()
    dimension = min(len(size), 3)
    spacing = np.array(reader.GetSpacing()[:dimension])
    direction = np.reshape(reader.GetDirection(), (len(size), len(size)))[:dimension, :dimension]
    found = Lattice.of_header(size[:dimension], spacing, reader.GetOrigin()[:dimension], direction)
    notes = []
    if min(reader.GetSpacing()) < 0:
        notes.append(
            f"its spacing {reader.GetSpacing()} is negative along an axis, which is read as the other way round"
        )
    if minc:
        turned = np.diag([-1.0, -1.0, 1.0][:dimension])
        found = replace(found, origin=turned @ found.origin, direction=turned @ found.direction)
    header = read_header(path)
    if header is None:
        return found, notes
    notes = [*notes_on(header), *notes]
    if dimension < 3 or len(header.pixdim) < 3 or max(header.codes) == 0:
        return found, notes
    matrix = place_of(header).matrix
    far = np.asarray(found.size_xyz) - 1.0
    apart = np.abs(matrix[:, :3] - found.linear) @ far + np.abs(matrix[:, 3] - found.origin)
    if apart.max() > SAME * np.linalg.norm(found.linear, axis=0).min():
        found = Lattice.of_matrix(found.size_xyz, matrix[:, :3], matrix[:, 3])
    return found, notes


def _check_text(path: Path) -> None:
    """Refuse a place in a MetaImage or VTK header that is not made of finite numbers, which ITK takes for zeros."""
    name = path.name.lower()
    pattern = META if name.endswith((".mhd", ".mha")) else VTK if name.endswith(".vtk") else None
    if pattern is None:
        return
    with path.open("rb") as file:
        for line in file.read(TEXT_BYTES).splitlines():
            if re.match(rb"\s*(ElementDataFile|LOOKUP_TABLE)", line, re.IGNORECASE):
                return
            if (found := pattern.match(line)) is not None and not _finite(found[2]):
                text = line.decode("ascii", "replace").strip()
                raise GeometryError(
                    f"expected finite numbers in the header of {path}, got {text!r}: correct the header"
                )


def _finite(text: bytes) -> bool:
    try:
        return all(math.isfinite(float(word)) for word in text.split())
    except ValueError:
        return False
