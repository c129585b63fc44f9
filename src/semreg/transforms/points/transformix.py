"""The lists of transformix: the points it is given (``point`` or ``index``), and its ``outputpoints.txt``.

Both are text in a ``.txt`` file. Moved points are written as a list that transformix takes, whichever was read.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from semreg.errors import ImageError
from semreg.runtime.texts import quoted
from semreg.transforms.base import Points
from semreg.transforms.points.contract import PointFile, PointFormat, coordinates

POINT, INDEX = "point", "index"
HEAD = re.compile(r"\s*(point|index)\s+(\d{1,10})(?!\S)", re.IGNORECASE)
"""What a list starts with: what its numbers are, and how many points there are."""
OUTPUT = re.compile(r"Point\s+\d+\s*;")
"""How a line of ``outputpoints.txt`` starts."""
MAPPED = re.compile(r";\s*OutputPoint\s*=\s*\[([^\]]*)\]")


def parse(data: bytes, ras: bool) -> PointFile:  # noqa: ARG001 - elastix knows LPS alone
    """A word, the number of points and their coordinates; or a line a point, of which OutputPoint counts, in mm."""
    text = data.decode("utf-8-sig")
    if OUTPUT.match(text.lstrip()):
        lines = [line for line in text.splitlines() if line.strip()]
        return _file([_mapped(line, number) for number, line in enumerate(lines, start=1)], POINT)
    kind = (text.split() or [""])[0]
    head = HEAD.match(text)
    if head is None:
        raise ImageError(
            f"expected points of transformix, in mm after the word point or in voxels after index, got {quoted(kind)}"
        )
    rows = [line.split() for line in text[head.end() :].splitlines() if line.strip()]
    if len(rows) != int(head[2]):
        raise ImageError(f"expected {int(head[2])} lines with a point each, got {len(rows)}: correct the number")
    return _file([coordinates(row, f"point {number}") for number, row in enumerate(rows, start=1)], head[1].lower())


def _mapped(line: str, number: int) -> list[float]:
    found = MAPPED.search(line)
    if found is None or not OUTPUT.match(line):
        raise ImageError(f"expected OutputPoint = [ … ] in line {number}, got none: let transformix write it again")
    return coordinates(found[1].split(), f"line {number}")


def _file(values: list[list[float]], kind: str) -> PointFile:
    if not values:
        return PointFile(np.zeros((3, 0)), lambda _: b"")
    if len({len(row) for row in values}) > 1:
        raise ImageError("expected points of one dimension, got some in 2-D and some in 3-D")

    def rewritten(points: Points) -> bytes:
        rows = "".join(" ".join(f"{value:.6f}" for value in row) + "\n" for row in points.T)
        return f"{kind}\n{points.shape[1]}\n{rows}".encode()

    return PointFile(np.asarray(values, dtype=np.float64).T, rewritten, in_voxels=kind == INDEX)


def recognises(path: Path) -> bool:
    """Whether a ``.txt`` file holds points rather than a transform."""
    try:
        with path.open("rb") as file:
            return re.match(rb"(\xef\xbb\xbf)?\s*(point|index|Point\s+\d+\s*;)\s", file.read(1 << 10)) is not None
    except OSError:
        return False


TRANSFORMIX = PointFormat(parse, recognises)
