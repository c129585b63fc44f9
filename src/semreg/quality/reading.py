"""Reads what an evaluation needs beside images: landmarks with their names, and names of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semreg.core.geometry import Grid
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.io.bridge import LoadedImage
from semreg.runtime.texts import parse_table, quoted, read_text
from semreg.transforms import read_points
from semreg.transforms.base import Points

NUMBER_COLUMNS = ("label", "index", "value", "id", "number")
"""Columns of a table of labels that may hold the numbers."""


class Landmarks(NamedTuple):
    """Corresponding points."""

    fixed: Points
    """(N, D) in mm, LPS, or indices of voxels."""
    moving: Points
    names: tuple[str, ...]
    in_voxels: bool = False
    """Whether all points are indices of voxels and not mm."""


def read_landmarks(fixed: Sequence[str | Path], moving: Sequence[str | Path], *, ras: bool = False) -> Landmarks:
    """The points of several pairs of files as one set.

    Points of two files correspond by their order. Where both files name their points, each name once, and have the same
    names in another order, they correspond by their names.

    Args:
        fixed: files with points of the fixed image.
        moving: as many files with points of the moving image, in the same order.
        ras: CSV files are RAS instead of LPS.

    Returns:
        Fixed and moving points, (N, D) each in mm, LPS, and their names; of files that count in voxels, their indices.

    Raises:
        ConfigError: for numbers of files that differ, none, an unknown ending, and points in mm beside some in voxels.
        GeometryError: for two files with different numbers of points, and for 2-D and 3-D points together.
        ImageError: for a file that cannot be read.
    """
    if len(fixed) != len(moving) or not fixed:
        raise ConfigError(
            f"expected as many files of fixed as of moving landmarks, got {len(fixed)} and {len(moving)}: "
            "the n-th ones belong together"
        )
    pairs = [_pair(Path(a), Path(b), ras) for a, b in zip(fixed, moving, strict=True)]
    if len({side.shape[1] for pair in pairs for side in pair[:2]}) > 1:
        raise GeometryError("expected landmarks that are all in 2-D or all in 3-D, got both: give those of one pair")
    if len({pair.in_voxels for pair in pairs}) > 1:
        raise ConfigError("expected landmarks that are all in mm or all in voxels, got both: give those of one unit")
    names: list[str] = []
    for pair in pairs:
        names += [name or str(len(names) + n + 1) for n, name in enumerate(pair.names)]
    fixed_points, moving_points = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    return Landmarks(fixed_points, moving_points, tuple(names), pairs[0].in_voxels)


def of_pixels(points: Points, grid: Grid) -> Points:
    """Points in mm from indices of voxels.

    Args:
        points: indices (N, D), x first, fractional, 0 is the centre of the first voxel.
        grid: the grid of the voxels.

    Returns:
        Points (N, D) in mm, LPS.
    """
    matrix = grid.index_to_point()  # of indices in the order of the tensor, x last
    return np.asarray(points[:, ::-1] @ matrix[:-1, :-1].T + matrix[:-1, -1])


def read_both(paths: tuple[Path, Path], images: Mapping[str, LoadedImage]) -> tuple[Points, Points]:
    """The points of a file for each image, in the order of the fixed ones.

    Args:
        paths: the files with the points of the fixed and of the moving image.
        images: both images, by ``fixed`` and ``moving``, for points that count in voxels.

    Returns:
        Fixed and moving points, (N, D) each in mm, LPS.

    Raises:
        ConfigError: as ``read_landmarks`` does, as all that follow.
        GeometryError: for files with different numbers of points.
        ImageError: for a file that cannot be read.
    """
    found = read_landmarks([paths[0]], [paths[1]])
    if not found.in_voxels:
        return found.fixed, found.moving
    fixed, moving = (images[side].volume.grid for side in ("fixed", "moving"))
    return of_pixels(found.fixed, fixed), of_pixels(found.moving, moving)


def read_label_names(path: str | Path) -> dict[int, str]:
    """The names of labels from a table.

    Args:
        path: a table with a first line ``label,name``: CSV, or TSV as BIDS has it (``index``, ``name``).

    Returns:
        Label → name.

    Raises:
        ImageError: for a file that cannot be read or holds no such table.
    """
    rows = _table(Path(path))
    titles = [title.strip().lower() for title in rows[0]] if rows else []
    number = next((titles.index(name) for name in NUMBER_COLUMNS if name in titles), None)
    if number is None or "name" not in titles:
        raise ImageError(f"expected a first line that names the columns label and name in {path}, got {quoted(titles)}")
    column = titles.index("name")
    found = {}
    for line, row in enumerate(rows[1:], start=2):
        try:
            found[int(row[number])] = row[column].strip()
        except (ValueError, IndexError):
            raise ImageError(
                f"expected a whole number and a name in line {line} of {path}, got {quoted(row)}"
            ) from None
    return found


def _pair(fixed: Path, moving: Path, ras: bool) -> Landmarks:
    """The points of two files that belong together; "" for a point without a name."""
    files = read_points(fixed, ras=ras), read_points(moving, ras=ras)
    first, second = (file.points.T for file in files)
    if len(first) != len(second):
        raise GeometryError(
            f"expected as many points in {fixed} as in {moving}, got {len(first)} and {len(second)}: "
            "the n-th point of one must correspond to the n-th of the other"
        )
    if files[0].in_voxels != files[1].in_voxels:
        raise ConfigError(f"expected {fixed} and {moving} in one unit, got mm and voxels: give both in mm")
    names, others = (list(file.names) or [""] * len(first) for file in files)
    if names != others and sorted(names) == sorted(others) and len(set(names)) == len(names):
        second = second[[others.index(name) for name in names]]
    return Landmarks(first, second, tuple(names), files[0].in_voxels)


def _table(path: Path) -> list[list[str]]:
    """The rows of a table in text with commas, semicolons or tabs (ImageError)."""
    try:
        return [row for _, row in parse_table(read_text(path, "a table", ImageError)) if row]
    except ValueError as error:
        raise ImageError(f"expected a table in {path}, got {error}") from error
