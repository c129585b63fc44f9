"""Pairs of pictures, whose landmarks are pixels, as pairs of images with landmarks in mm. Knows no tool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import SimpleITK as sitk
from undoing import read_points, write_points


def dimension(path: Path) -> int:
    """Number of axes of an image, from its header."""
    return int(header(path).GetDimension())


def header(path: Path) -> sitk.ImageFileReader:
    """The header of an image."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def in_mm(pair: Mapping[str, Any], root: Path, folder: Path) -> tuple[dict[str, Any], float]:
    """The pair with its landmarks in mm, in files in ``folder``, and how many mm a unit of theirs was."""
    scaled, unit = dict(pair), 1.0
    for role in ("moving", "fixed"):
        found = header(root / pair[role])
        if found.GetDimension() == 3 or "fixed_landmarks" not in pair:
            return dict(pair), 1.0
        path = (folder / f"{pair['name']}-{role}.csv").absolute()
        pixels = read_points(*(root / name for name in pair[f"{role}_landmarks"]))
        write_points(path, pixels * found.GetSpacing() + found.GetOrigin())
        scaled[f"{role}_landmarks"], unit = [str(path)], found.GetSpacing()[0]
    return scaled, unit


def grey(pair: Mapping[str, Any], root: Path, folder: Path) -> dict[str, Any]:
    """The pair with images of one channel, in files in ``folder``, the length of the colour vector; others as is."""
    made = dict(pair)
    for role in ("moving", "fixed"):
        if header(root / pair[role]).GetNumberOfComponents() > 1:
            colours = sitk.ReadImage(str(root / pair[role]), sitk.sitkVectorFloat32)
            path = (folder / f"{pair['name']}-{role}.nii.gz").absolute()
            path.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(sitk.VectorMagnitude(colours), str(path))
            made[role] = str(path)
    return made
