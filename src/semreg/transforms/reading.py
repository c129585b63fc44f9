"""Reads any transform that has a meaning in ITK, whatever tool wrote it: a chain of maps fixed → moving in mm, LPS."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semreg.errors import ConfigError, GeometryError
from semreg.io import files
from semreg.transforms.chain import Chain
from semreg.transforms.formats import FORMATS
from semreg.transforms.several import check_one, chosen, read_numbered


def read_transform(path: str | Path) -> Any:
    """Read a transform, points of the fixed image → the moving image.

    Args:
        path: a file of ITK (``.h5``, ``.tfm``, ``.txt``, ``.mat``; those of ANTs and 3D Slicer are such), an image of
            displacements (``.nii.gz``, ``.nrrd``, ``.mha``; the warps of ANTs are such), or a parameter file of elastix
            with all that it starts from. ``pair.tfm#2`` is the second of several transforms in one file.

    Returns:
        A ``SimpleITK.Transform``.

    Raises:
        GeometryError: for a file that is none of these, for one of several transforms without a number, and for a
            number that it does not have.
        ConfigError: for a number where only the package itk could read that transform, and it is not installed.
    """
    return read_chain([path]).sitk()


def read_chain(paths: Sequence[str | Path]) -> Chain:
    """Read several transforms as one map.

    Args:
        paths: files as for ``read_transform``; the first is applied to the points of the fixed image first.

    Returns:
        The transforms, fixed → moving.

    Raises:
        ConfigError: for no file, and as ``read_transform``.
        GeometryError: for a file that is no transform, and for transforms of different dimensions.
    """
    if not paths:
        raise ConfigError("expected at least one transform file, got none: name one")
    return Chain.of(*[transform for path in paths for transform in _transforms(Path(path))])


def _transforms(path: Path) -> list[Any]:
    """What one file holds, the first applied first."""
    path, number = chosen(path)
    if number is not None:
        return [read_numbered(path, number)]
    if path.is_file():
        for known in FORMATS.values():
            if known.recognises is not None and known.read is not None and known.recognises(path):
                return known.read(path)
        check_one(path)
    try:
        transform = files.read_transform(path)
    except GeometryError:
        if path.is_file() and _is_inverse_of_slicer(path):
            raise GeometryError(
                f"expected a transform from fixed to moving points, got {path}, which 3D Slicer stored the other way "
                "round: convert it to a displacement field there, in the Transforms module, and save that"
            ) from None
        raise
    if transform.GetDimension() not in (2, 3):
        raise GeometryError(f"expected a transform in 2-D or 3-D, got {transform.GetDimension()}-D in {path}")
    return [transform]


def _is_inverse_of_slicer(path: Path) -> bool:
    """Whether the start of a file names a transform of 3D Slicer that stands for its inverse and that ITK lacks."""
    with path.open("rb") as file:
        return re.search(rb"Inverse\w+Transform_", file.read(1 << 20)) is not None
