"""All distances by name: what is known of each without importing it, and where it is written. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from semreg.runtime.registry import Row, Table

if TYPE_CHECKING:
    from semreg.distances.contract import Distance


@dataclass(frozen=True)
class DistanceRow(Row):
    """Where a ``Distance`` is written, and what settings must know of it."""

    itk_name: str = ""
    """What scripts of itk-impact call it. Empty: as here."""
    windowed: bool = False
    """Whether it compares neighbouring samples, so that all of a grid must be there."""


DISTANCES: Table[DistanceRow, Distance] = Table(
    "distance",
    {
        "l1": DistanceRow("semreg.distances.differences:L1", "L1"),
        "l2": DistanceRow("semreg.distances.differences:L2", "L2"),
        "ncc": DistanceRow("semreg.distances.correlation:NCC", "NCC"),
        "lncc": DistanceRow("semreg.distances.correlation:LNCC", "LNCC", windowed=True),
        "lncc_squared": DistanceRow("semreg.distances.correlation:LNCC_SQUARED", windowed=True),
        "cosine": DistanceRow("semreg.distances.angles:COSINE", "Cosine"),
        "l1cosine": DistanceRow("semreg.distances.angles:L1COSINE", "L1Cosine"),
        "dotproduct": DistanceRow("semreg.distances.angles:DOTPRODUCT", "DotProduct"),
        "dice": DistanceRow("semreg.distances.overlap:DICE", "Dice"),
    },
)
"""By the name used in the settings and on the command line."""
