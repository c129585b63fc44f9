"""Points in the files of other tools: found, given as LPS in mm, and put back with everything else untouched.

CSV with a header, the FCSV and MRK.JSON files of 3D Slicer, and the meshes of ``meshes.py``.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.io.files import atomic_file
from semreg.transforms.chain import Chain, Followed
from semreg.transforms.domain import Outside, warn_beyond
from semreg.transforms.meshes import Mesh, is_mesh, parse_vtk, parse_vtp
from semreg.transforms.pointwise import Points

logger = logging.getLogger("semreg")

RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
FCSV_SYSTEMS = {"0": "RAS", "1": "LPS", "RAS": "RAS", "LPS": "LPS"}
"""Slicer wrote numbers before its version 4.11 and words since."""


@dataclass(frozen=True)
class PointFile:
    """The points of a file and what the file becomes with others in their place."""

    points: Points
    """(D, N) in mm, LPS."""
    rewritten: Callable[[Points], bytes]
    """Points of the same shape → the bytes of the file."""


def is_point_file(path: str | Path) -> bool:
    """Whether a file holds points, by its name; of ``.vtk`` files, which may be images too, by what they say."""
    name = Path(path).name.lower()
    return name.endswith((".csv", ".fcsv", ".json", ".vtp")) or (name.endswith(".vtk") and is_mesh(Path(path)))


def read_points(path: str | Path, *, ras: bool = False) -> PointFile:
    """The points of a ``.csv``, ``.fcsv``, ``.mrk.json``, ``.vtk`` or ``.vtp`` file.

    ``ras``: a CSV file and a mesh that do not say so themselves are RAS instead of LPS. Raises ImageError if the file
    cannot be read or holds no point, or one that is not finite.
    """
    path = Path(path)
    parsers: dict[str, Callable[[bytes, bool], PointFile]] = {
        ".csv": _parse_csv, ".fcsv": _parse_fcsv, ".json": _parse_markups, ".vtk": _vtk, ".vtp": _vtp,
    }  # fmt: skip
    parser = parsers.get(path.suffix.lower())
    if parser is None:
        raise ConfigError(f"expected points in a file of {', '.join(parsers)}, got {path}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"expected a file with points, got {path}: {error.strerror}") from error
    try:
        found = parser(data, ras)
    except (ImageError, UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise ImageError(f"{path}: {error}") from error
    if not found.points.shape[1]:
        raise ImageError(f"expected at least one point, got none in {path}: check that it is the right file")
    if not np.isfinite(found.points).all():
        raise ImageError(f"expected points with finite coordinates, got NaN or infinity in {path}: remove those")
    return found


def move_points(
    source: Path, target: Path, chain: Chain, *, ras: bool = False, outside: Outside = Outside.IDENTITY
) -> Followed:
    """Write the points of ``source`` after ``chain`` to ``target``, a file of the same kind, and say which were beyond.

    ``outside``: what points do beyond the boxes of the chain's fields. Raises ConfigError for another kind and for the
    background, which no point has; ImageError, GeometryError, OutputError.
    """
    if outside is Outside.BACKGROUND:
        raise ConfigError("expected the outside continue or identity for points, got background: points have none")
    if source.suffix.lower() != target.suffix.lower():
        raise ConfigError(f"expected points to be written as they are stored, in a {source.suffix} file, got {target}")
    file = read_points(source, ras=ras)
    points, rest = file.points[: chain.dimension], file.points[chain.dimension :]
    if len(points) < chain.dimension or rest.any():
        raise GeometryError(
            f"expected points in {chain.dimension}-D as the transform, got points in {len(file.points)}-D in {source}: "
            "give those that belong to its images"
        )
    moved = chain.follow(points, outside)
    data = file.rewritten(np.concatenate([moved.points, rest]))
    with atomic_file(target) as partial:
        partial.write_bytes(data)
    beyond = int((moved.beyond & ~np.isnan(moved.residual)).sum())  # what has no origin is counted as such
    if beyond:
        warn_beyond(beyond, points.shape[1], "points", outside)
    return moved


def _parse_csv(data: bytes, ras: bool) -> PointFile:
    """A table with the columns x, y(, z) in any place; the first line names them."""
    text = data.decode("utf-8-sig")
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    names = [name.strip().lower() for name in rows[0]] if rows else []
    if not {"x", "y"} <= set(names):
        raise ImageError(f"expected a first line that names the columns x, y and z, got {first.strip()[:80]!r}")
    columns = [names.index(axis) for axis in "xyz" if axis in names]
    table = _Table(rows[1:], columns, 2)

    def rewritten(points: Points) -> bytes:
        return _csv_text([rows[0], *table.with_points(points, ras)], delimiter).encode()

    return PointFile(table.points(ras), rewritten)


def _parse_fcsv(data: bytes, ras: bool) -> PointFile:  # noqa: ARG001 - the file says it itself
    """Comment lines, of which two say the coordinate system and the columns, and a line a point."""
    lines = data.decode("utf-8-sig").splitlines()
    comments = [line for line in lines if line.startswith("#")]
    system, columns = "RAS", [1, 2, 3]
    for line in comments:
        name, _, value = line[1:].partition("=")
        if name.strip().lower() == "coordinatesystem":
            system = FCSV_SYSTEMS.get(value.strip().upper(), value.strip())
        if name.strip().lower() == "columns":
            names = [each.strip().lower() for each in value.split(",")]
            columns = [names.index(axis) for axis in "xyz" if axis in names]
    if system not in ("RAS", "LPS") or len(columns) != 3:
        raise ImageError(f"expected points x, y, z in RAS or LPS, got the system {system!r} and columns {columns}")
    body = [line for line in lines if line.strip() and not line.startswith("#")]
    table = _Table(list(csv.reader(body)), columns, len(comments) + 1)

    def rewritten(points: Points) -> bytes:
        rows = _csv_text(table.with_points(points, system == "RAS"), ",")
        return ("".join(f"{line}\n" for line in comments) + rows).encode()

    return PointFile(table.points(system == "RAS"), rewritten)


def _parse_markups(data: bytes, ras: bool) -> PointFile:  # noqa: ARG001 - the file says it itself
    """The control points of all markups of a file; what else it says, orientations too, stays as it is."""
    document = json.loads(data.decode("utf-8-sig"))
    markups = document.get("markups") if isinstance(document, dict) else None
    if not isinstance(markups, list) or not all(isinstance(each, dict) for each in markups):
        raise ImageError("expected the markups of 3D Slicer, got JSON without a list of them")
    placed: list[dict[str, Any]] = []
    signs = []
    for markup in markups:
        system = FCSV_SYSTEMS.get(str(markup.get("coordinateSystem", "LPS")).upper())
        if system is None:
            raise ImageError(f"expected the coordinateSystem LPS or RAS, got {markup.get('coordinateSystem')!r}")
        if markup.get("coordinateUnits", "mm") not in ("mm", ["mm", "UCUM", "millimeter"]):
            raise ImageError(f"expected coordinates in mm, got {markup['coordinateUnits']!r}: save them in mm")
        if str(markup.get("type", "Fiducial")) in ("ROI", "Plane"):
            logger.warning("of a %s only the control points are moved, not its axes and its size", markup["type"])
        here = [point for point in markup.get("controlPoints") or [] if point.get("position")]
        placed += here
        signs += [RAS_TO_LPS if system == "RAS" else np.ones(3)] * len(here)
    points = [_coordinates(point["position"], f"the control point {n + 1}") for n, point in enumerate(placed)]

    def rewritten(moved: Points) -> bytes:
        for point, sign, values in zip(placed, signs, moved.T, strict=True):
            point["position"] = [round(float(v), 9) for v in values * sign]
        return (json.dumps(document, indent=4, ensure_ascii=False) + "\n").encode()

    lps = [np.asarray(point) * sign for point, sign in zip(points, signs, strict=True)]
    return PointFile(np.reshape(lps, (-1, 3)).T.astype(np.float64), rewritten)


def _vtk(data: bytes, ras: bool) -> PointFile:
    return _of_mesh(parse_vtk(data), ras)


def _vtp(data: bytes, ras: bool) -> PointFile:
    return _of_mesh(parse_vtp(data), ras)


def _of_mesh(mesh: Mesh, ras: bool) -> PointFile:
    """The points of a mesh, in the space that the file says, else in RAS or LPS as the caller does."""
    flipped = mesh.space == "RAS" if mesh.space else ras
    signs = (RAS_TO_LPS if flipped else np.ones(3))[:, None]
    return PointFile(mesh.points * signs, lambda moved: mesh.rewritten(moved * signs))


@dataclass(frozen=True)
class _Table:
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
            values.append(_coordinates([row[column] for column in self.columns], f"line {number}"))
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


def _coordinates(values: Sequence[Any], where: str) -> list[float]:
    try:
        result = [float(value) for value in values]
    except (TypeError, ValueError):
        result = []
    if len(result) not in (2, 3) or not np.isfinite(result).all():
        raise ImageError(f"expected finite coordinates in {where}, got {list(values)}: correct or remove it")
    return result


def _csv_text(rows: Sequence[Sequence[str]], delimiter: str) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue()
