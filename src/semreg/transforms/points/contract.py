"""What a format of points is, and what several of them share: coordinates in rows of text, RAS and LPS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semreg.errors import ImageError
from semreg.runtime.texts import quoted
from semreg.transforms.base import Points

RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
SYSTEMS = {"0": "RAS", "1": "LPS", "RAS": "RAS", "LPS": "LPS"}
"""Names of coordinate systems: Slicer wrote numbers before its version 4.11 and words since."""


@dataclass(frozen=True)
class PointFile:
    """The points of a file and what the file becomes with others in their place."""

    points: Points
    """(D, N) in mm, LPS."""
    rewritten: Callable[[Points], bytes]
    """Points of the same shape → the bytes of the file."""
    names: tuple[str, ...] = ()
    """What the file calls each of them, "" for one without a name; empty where it has no names."""
    in_voxels: bool = False
    """Whether the points are indices of an image, from 0 at the centre of its first voxel, and not mm."""


@dataclass(frozen=True)
class PointFormat:
    """A format of points.

    ``parse(data, ras)``: the bytes of a file, and whether it is RAS where it does not say so itself; raises ImageError
    for what is no such file. ``recognises(path)``: whether a file of that ending holds points; None: always.
    """

    parse: Callable[[bytes, bool], PointFile]
    recognises: Callable[[Path], bool] | None = None


@dataclass(frozen=True)
class Rows:
    """Rows of text, of which some columns are the coordinates."""

    rows: list[list[str]]
    columns: Sequence[int]
    first: int
    """The line of the first row, for messages."""

    def points(self, ras: bool) -> Points:
        """(D, N) in LPS."""
        values = []
        for number, row in enumerate(self.rows, start=self.first):
            if len(row) <= max(self.columns):
                raise ImageError(f"expected at least {max(self.columns) + 1} values in line {number}, got {len(row)}")
            values.append(coordinates([row[column] for column in self.columns], f"line {number}"))
        n = len(self.columns)
        return np.asarray(np.reshape(values, (-1, n)).T * self._signs(ras), dtype=np.float64)

    def with_points(self, points: Points, ras: bool) -> list[list[str]]:
        """The rows with other coordinates, to a millionth of a mm."""
        result = [list(row) for row in self.rows]
        for row, values in zip(result, (points * self._signs(ras)).T, strict=True):
            for column, value in zip(self.columns, values, strict=True):
                row[column] = f"{value:.6f}"
        return result

    def _signs(self, ras: bool) -> Points:
        return (RAS_TO_LPS if ras else np.ones(3))[: len(self.columns), None]


def coordinates(values: Sequence[Any], where: str) -> list[float]:
    """Two or three finite numbers; ``where`` they are is for the message (ImageError)."""
    try:
        result = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        result = []
    if len(result) not in (2, 3) or not np.isfinite(result).all():
        raise ImageError(f"expected finite coordinates in {where}, got {quoted(list(values))}: correct or remove it")
    return result


def column_of(rows: Sequence[Sequence[str]], column: int) -> tuple[str, ...]:
    """The words in one column, "" where a row has none."""
    return tuple(row[column].strip() if len(row) > column else "" for row in rows)
