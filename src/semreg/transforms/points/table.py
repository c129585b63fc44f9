"""All formats of points by name: the ending of their files, and where they are read. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from semreg.runtime.registry import Row, Table

if TYPE_CHECKING:
    from semreg.transforms.points.contract import PointFormat


@dataclass(frozen=True)
class PointRow(Row):
    """Where a ``PointFormat`` is written, and the end of the names of its files, in small letters."""

    ending: str = ""


POINTS: Table[PointRow, PointFormat] = Table(
    "format of points",
    {
        "csv": PointRow("semreg.transforms.points.tables:CSV", ".csv"),
        "fcsv": PointRow("semreg.transforms.points.fcsv:FCSV", ".fcsv"),
        "mrk.json": PointRow("semreg.transforms.points.markups:MARKUPS", ".json"),
        "transformix": PointRow("semreg.transforms.points.transformix:TRANSFORMIX", ".txt"),
        "geojson": PointRow("semreg.transforms.points.geojson:GEOJSON", ".geojson"),
        "vtk": PointRow("semreg.transforms.points.vtk:VTK", ".vtk"),
        "vtp": PointRow("semreg.transforms.points.vtp:VTP", ".vtp"),
    },
)
"""Those that ``apply`` moves and that landmarks are read from."""
