"""Writes a pair as a user has it: images, label maps and landmarks in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semreg.core.fields import Volume
from semreg.core.geometry import Grid
from semreg.io import pictures
from semreg.io.files import OutputFolder, write_image
from semreg.phantom.pair import PhantomPair


def write_pair(pair: PhantomPair, path: str | Path, *, suffix: str = ".nii.gz") -> list[Path]:
    """Write ``fixed`` and ``moving``, ``fixed_labels`` and ``moving_labels``, and the landmarks of both as CSV.

    ``suffix``: the format of the images, ``.png`` and the like for slides alone. The points are in mm (LPS), one a line
    under a header; of pictures in pixels, 0 the centre of the first one. ``labels.csv`` names the labels. Returns the
    files. Raises OutputError.
    """
    with OutputFolder(path) as folder:
        stage_pair(pair, folder, suffix=suffix)
    return folder.files


def stage_pair(pair: PhantomPair, folder: OutputFolder, *, suffix: str = ".nii.gz") -> None:
    """The same into a folder that gets other files too."""
    images = {
        "fixed": pair.fixed,
        "moving": pair.moving,
        "fixed_labels": pair.fixed_labels(),
        "moving_labels": pair.moving_labels(),
    }
    for name, volume in images.items():
        write_image(volume, folder.stage(name + suffix), pixel_type_of(volume))
    for name, points, grid in (
        ("fixed", pair.fixed_points, pair.fixed.grid),
        ("moving", pair.moving_points, pair.moving.grid),
    ):
        shown = in_pixels(points, grid) if suffix in pictures.ENDINGS else points
        write_points(shown, folder.stage(f"{name}_points.csv"))
    rows = [f"{number},{name}\n" for number, name in pair.label_names.items()]
    folder.stage("labels.csv").write_text("".join(["label,name\n", *rows]), encoding="utf-8")


def write_points(points: Tensor, path: Path) -> None:
    """Points (N, D) in mm, LPS, one a line under a header."""
    names = ",".join("xyz"[: points.shape[1]])
    np.savetxt(path, points.numpy(), fmt="%.4f", delimiter=",", header=names, comments="")


def in_pixels(points: Tensor, grid: Grid) -> Tensor:
    """Indices (N, D), x first, of points (N, D) in mm."""
    matrix = grid.point_to_index()  # to indices in the order of the tensor, x last
    index = points.numpy() @ matrix[:-1, :-1].T + matrix[:-1, -1]
    return torch.as_tensor(index[:, ::-1].copy())


def pixel_type_of(volume: Volume) -> str:
    """The smallest of the types that scanners write in which the whole numbers fit."""
    low, high = float(volume.data.min()), float(volume.data.max())
    if low < 0:
        return "int16"
    return "uint8" if high <= np.iinfo(np.uint8).max else "uint16"
