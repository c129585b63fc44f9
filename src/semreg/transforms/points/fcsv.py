"""The fiducials of 3D Slicer in a table of text (FCSV), which says its coordinate system itself."""

from __future__ import annotations

from semreg.errors import ImageError
from semreg.runtime.texts import parse_table, rows_text
from semreg.transforms.base import Points
from semreg.transforms.points.contract import SYSTEMS, PointFile, PointFormat, Rows, column_of


def parse(data: bytes, ras: bool) -> PointFile:  # noqa: ARG001 - the file says it itself
    """Comment lines, of which two say the coordinate system and the columns, and a line a point."""
    lines = data.decode("utf-8-sig").splitlines()
    comments = [line for line in lines if line.startswith("#")]
    system, columns, label = "RAS", [1, 2, 3], None
    for line in comments:
        name, _, value = line[1:].partition("=")
        if name.strip().lower() == "coordinatesystem":
            system = SYSTEMS.get(value.strip().upper(), value.strip())
        if name.strip().lower() == "columns":
            names = [each.strip().lower() for each in value.split(",")]
            columns = [names.index(axis) for axis in "xyz" if axis in names]
            label = names.index("label") if "label" in names else None
    if system not in ("RAS", "LPS") or len(columns) != 3:
        raise ImageError(f"expected points x, y, z in RAS or LPS, got the system {system!r} and columns {columns}")
    body = [line for line in lines if line.strip() and not line.startswith("#")]
    table = Rows([row for _, row in parse_table("\n".join(body), ",")], columns, len(comments) + 1)

    def rewritten(points: Points) -> bytes:
        rows = rows_text(table.with_points(points, system == "RAS"), ",")
        return ("".join(f"{line}\n" for line in comments) + rows).encode()

    called = () if label is None else column_of(table.rows, label)
    return PointFile(table.points(system == "RAS"), rewritten, called)


FCSV = PointFormat(parse)
