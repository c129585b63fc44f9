"""Points that no file held before, as files: FCSV, which 3D Slicer reads, and in 2-D a table."""

from __future__ import annotations

from pathlib import Path

from semreg.runtime.texts import rows_text
from semreg.transforms.base import Points

HEADER = (
    "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n"
    "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
)


def ending_of(points: Points) -> str:
    """The ending of the file that points (D, N) become."""
    return "fcsv" if len(points) == 3 else "csv"


def write_points(points: Points, path: Path, said: str = "") -> None:
    """Write points (D, N) in mm, LPS, numbered from 1; ``said`` of each where there is a place for it."""
    rows = [[f"{value:.6f}" for value in point] for point in points.T]
    if ending_of(points) == "csv":
        path.write_text(rows_text([["x", "y"], *rows]), encoding="utf-8")
        return
    marked = [
        [str(number), *row, "0", "0", "0", "1", "1", "1", "0", str(number), said, ""]
        for number, row in enumerate(rows, start=1)
    ]
    path.write_text(HEADER + rows_text(marked), encoding="utf-8")
