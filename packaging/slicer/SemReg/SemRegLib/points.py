"""Points of Slicer's scene, RAS, as a file of markups that semreg reads, LPS."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Point:
    """A control point: its label, and its place in mm, RAS."""

    label: str
    ras: tuple[float, float, float]


def flipped(point: Sequence[float]) -> tuple[float, float, float]:
    """RAS as LPS, and LPS as RAS: both first axes change their sign."""
    return (-float(point[0]), -float(point[1]), float(point[2]))


def check_pairs(fixed: Sequence[Point], moving: Sequence[Point]) -> None:
    """Refuse lists that cannot correspond (ValueError)."""
    if len(fixed) != len(moving) or not fixed:
        raise ValueError(
            f"expected as many landmarks in both images, one at least, got {len(fixed)} in the fixed and {len(moving)} "
            "in the moving one: place the missing ones, or choose no lists"
        )


def write_markups(points: Sequence[Point], path: Path) -> None:
    """Write a file of markups (``.mrk.json``) in LPS, as Slicer writes one."""
    placed = [
        {"id": str(number), "label": point.label, "position": list(flipped(point.ras)), "positionStatus": "defined"}
        for number, point in enumerate(points, 1)
    ]
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": placed}
    path.write_text(json.dumps({"markups": [markup]}, indent=4, ensure_ascii=False), encoding="utf-8")
