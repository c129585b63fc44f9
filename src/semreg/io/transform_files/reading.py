"""The door for transforms in files: those of ITK, and images of displacements. What comes through has been checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from semreg.errors import GeometryError, ImageError
from semreg.io.bridge import with_sitk_header
from semreg.io.images import read_stored
from semreg.io.ordinary_file import check_file
from semreg.io.transform_files import hdf5, matlab, text
from semreg.io.transform_files.building import build, field_transform
from semreg.io.transform_files.others import refuse_others

TEXTS, MATLAB, MINC = (".tfm", ".txt"), (".mat",), (".mnc",)
"""Endings in small letters; MINC is HDF5 too, and an image."""
START_BYTES = 4096


def read_transforms(path: str | Path) -> list[Any]:
    """The ``SimpleITK.Transform``s that a file holds side by side, fixed points → moving points; mostly one.

    Raises GeometryError for what is no transform, and for numbers that cannot be those of its kind.
    """
    path = check_file(path, "a transform file", GeometryError)
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
        return _read(path, start)
    except OSError as error:
        raise GeometryError(f"expected a transform file that can be read, got {path}: {error.strerror}") from error
    except GeometryError as error:
        raise GeometryError(f"{error} ({path})") from error


def _read(path: Path, start: bytes) -> list[Any]:
    ending = path.suffix.lower()
    refuse_others(start, ending)
    if hdf5.is_hdf5(start) and ending not in MINC:
        return build(hdf5.parse(path))
    if text.is_text(start) or ending in TEXTS:
        return build(text.parse(path.read_bytes()))
    if ending in MATLAB:
        return build(matlab.parse(path.read_bytes()))
    return [_displacements(path)]


def _displacements(path: Path) -> Any:
    """An image of displacements as a transform; GeometryError if there is none, or if one of them is not finite."""
    try:
        stored = read_stored(path)
    except ImageError as error:
        raise GeometryError(f"expected a transform or an image of displacements, got neither: {error}") from error
    n = stored.grid.dimension
    if stored.components != n or stored.frames is not None or stored.index is not None:
        raise GeometryError(
            f"expected an image of displacements with {n} components on orthonormal axes, got {stored.components} "
            "components or sheared axes: check that it is the right file"
        )
    if not np.isfinite(stored.array).all():
        raise GeometryError("expected finite displacements, got NaN or infinity: check its source")
    return field_transform(stored.array, lambda image: with_sitk_header(image, stored.grid))
