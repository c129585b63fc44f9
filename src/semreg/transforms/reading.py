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
    """A ``SimpleITK.Transform``, points of the fixed image → the moving image, from a file of any of these kinds.

    ITK (``.h5``, ``.tfm``, ``.txt``, ``.mat``; those of ANTs and 3D Slicer are such), an image of
    displacements (``.nii.gz``, ``.nrrd``, ``.mha``; the warps of ANTs are such), or a parameter file of elastix with
    all that it starts from. Of a file that holds several transforms side by side one is taken by its number,
    ``pair.tfm#2``. Raises GeometryError if it is none of them, or if several are there and no number is.
    """
    return read_chain([path]).sitk()


def read_chain(paths: Sequence[str | Path]) -> Chain:
    """Several transforms as one map; the first file is applied to the points of the fixed image first.

    ``pair.tfm#2`` is the second of several transforms that one file holds; see ``read_transform``.
    Raises ConfigError without a file, GeometryError if one is no transform or if their dimensions differ.
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
