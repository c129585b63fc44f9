"""Reads any transform that has a meaning in ITK, whatever tool wrote it: a chain of maps fixed → moving in mm, LPS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semreg.errors import ConfigError
from semreg.transforms.chain import Chain
from semreg.transforms.formats import FORMATS
from semreg.transforms.several import chosen, read_one


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
    if number is None and path.is_file():
        for known in FORMATS.values():
            if known.recognises is not None and known.read is not None and known.recognises(path):
                return known.read(path)
    return [read_one(path, number)]
