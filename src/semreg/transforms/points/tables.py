"""Points in a table of text (CSV) whose first line names the columns."""

from __future__ import annotations

from semreg.errors import ImageError
from semreg.runtime.texts import delimiter_of, parse_table, table_text
from semreg.transforms.base import Points
from semreg.transforms.points.contract import PointFile, PointFormat, Rows, column_of

NAME_COLUMNS = ("name", "label", "id")
"""Columns that may hold the names of the points, the first one that is there counts."""


def parse(data: bytes, ras: bool) -> PointFile:
    """A table with the columns x, y(, z) in any place; the first line names them."""
    text = data.decode("utf-8-sig")
    delimiter = delimiter_of(text)
    rows = [row for _, row in parse_table(text, delimiter) if row]
    names = [name.strip().lower() for name in rows[0]] if rows else []
    if not {"x", "y"} <= set(names):
        raise ImageError(f"expected a first line that names the columns x, y and z, got {text.strip()[:80]!r}")
    for number, row in enumerate(rows[1:], start=2):
        if any(cell.strip() for cell in row[len(names) :]):  # such as commas within numbers
            raise ImageError(f"expected {len(names)} values in line {number} as the first line has, got {len(row)}")
    columns = [names.index(axis) for axis in "xyz" if axis in names]
    table = Rows(rows[1:], columns, 2)

    def rewritten(points: Points) -> bytes:
        return table_text([rows[0], *table.with_points(points, ras)], delimiter).encode()

    named = next((names.index(name) for name in NAME_COLUMNS if name in names), None)
    return PointFile(table.points(ras), rewritten, () if named is None else column_of(rows[1:], named))


CSV = PointFormat(parse)
