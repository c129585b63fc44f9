"""What headers say that a reader must not pass over: where the voxels are, and numbers that are none. Knows no voxels.

ITK reads such headers without a message; here what it made of them is checked, and replaced where it is wrong.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from semreg.errors import GeometryError, ImageError
from semreg.io import tiff
from semreg.io.bridge import Lattice
from semreg.io.hdf5_images import check_whole
from semreg.io.image_files import data_files
from semreg.io.nifti_header import PAIRED, check_header, is_nifti_name, notes_on, place_of, read_header
from semreg.io.text_headers import META, NRRD, VTK, field_in, fields_of, has_text_header, lines_of

SAME = 0.01
"""Voxels by which ITK's place of a NIfTI image may differ from that of the header: the digits of float32."""
META_PLACES = ("offset", "position", "origin", "elementspacing", "transformmatrix", "rotation", "orientation")
PLACES = {**dict.fromkeys(META, META_PLACES), **dict.fromkeys(VTK, ("origin", "spacing", "aspect_ratio"))}
"""The fields of a header in text that say a place, by the ending of the file."""
SIZES = ("dimsize", "sizes", "dimensions")
LONGEST = 500
"""Letters of a line of NRRD from which its reader overruns its own memory where it does not know what it says."""
FREE = ("content", "labels", "axis labels", "units", "axis units", "space units", "sample units")
"""Fields of NRRD that are free text, which its reader takes however long they are."""
MOST_AXES = 10
"""Of a MetaImage: ITK's reader does not survive more."""


def lattice_of(reader: Any, path: Path) -> tuple[Lattice, list[str]]:
    """Where the voxels of an image lie whose header SimpleITK has read from ``path``, and what was repaired.

    An axis of negative spacing runs the other way, as in ITK. Of NIfTI the header itself counts: ITK has no sheared
    axes. Raises GeometryError for numbers that are not finite.
    """
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
    header = read_header(path)
    if header is None:
        return found, notes
    notes = [*notes_on(header), *notes]
    beside = path.with_name(path.name.partition(".")[0] + ".mat")
    if max(header.codes) == 0 and is_nifti_name(path, PAIRED) and beside.is_file():
        notes.append(
            f"{beside.name} beside it, in which SPM may say its place, is not read: convert the image to NIfTI"
        )
    if dimension < 3 or len(header.pixdim) < 3 or max(header.codes) == 0:
        return found, notes
    matrix = place_of(header).matrix
    far = np.asarray(found.size_xyz) - 1.0
    apart = np.abs(matrix[:, :3] - found.linear) @ far + np.abs(matrix[:, 3] - found.origin)
    if apart.max() > SAME * np.linalg.norm(found.linear, axis=0).min():
        found = Lattice.of_matrix(found.size_xyz, matrix[:, :3], matrix[:, 3])
    return found, notes


def check_before(path: Path) -> None:
    """Refuse what readers of images do not survive, or read as something else, from the beginning of a file.

    Raises GeometryError for numbers that are not finite, ImageError for others that are none, and for an image that may
    lie in other files than its header says.
    """
    check_whole(path)
    if has_text_header(path):
        _check_text(path)
    elif path.name.lower().endswith(tiff.ENDINGS):
        tiff.check_page(tiff.first_page(path), path, path.stat().st_size)
    elif (header := read_header(path)) is not None:
        check_header(header, path)


def _check_text(path: Path) -> None:
    """Refuse numbers in a MetaImage, NRRD or VTK header that are none, which ITK takes for zeros."""
    if path.name.lower().endswith(NRRD):
        for line in lines_of(path):
            if len(line) > LONGEST and field_in(line, path)[0] not in FREE and not re.match(rb"#|[^:]*:=", line):
                raise ImageError(
                    f"expected lines of at most {LONGEST} letters in the header of {path}, got one of {len(line)}, "
                    f"{_shown(line)!r}: correct the header"
                )
    fields, _ = fields_of(path)
    for key in PLACES.get(path.suffix.lower(), ()):
        if not _finite(fields.get(key, b"")):
            text = f"{key} {_shown(fields[key])}"
            raise GeometryError(f"expected finite numbers in the header of {path}, got {text!r}: correct the header")
    for key in SIZES:
        if key in fields and not all(_whole(word) > 0 for word in fields[key].split()):
            raise ImageError(
                f"expected whole positive numbers of voxels in the header of {path}, got {_shown(fields[key])!r}: "
                "correct the header"
            )
    axes = fields.get("ndims", b"3")
    if not 0 < _whole(axes) <= MOST_AXES:
        raise ImageError(
            f"expected NDims from 1 to {MOST_AXES} in the header of {path}, got {_shown(axes)!r}: correct the header"
        )
    packed = fields.get("compresseddatasize", b"0")
    if not 0 <= _whole(packed) <= sum(file.stat().st_size for file in data_files(path)):
        raise ImageError(
            f"expected {_shown(packed)} bytes of compressed voxels in {path}, got fewer: the file is cut short or "
            "damaged; copy it again"
        )


def _shown(text: bytes) -> str:
    return text.decode("ascii", "replace")[:80]


def _whole(word: bytes) -> int:
    """A whole number, -1 for anything else."""
    return int(word) if word.isdigit() and len(word) < 19 else -1


def _finite(text: bytes) -> bool:
    try:
        return all(math.isfinite(float(word)) for word in text.split())
    except ValueError:
        return False
