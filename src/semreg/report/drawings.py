"""Drawings that the page holds as SVG: the boxes of the pair, curves of the distance. Numbers only, no markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semreg.registration.result import AlignRecord, Record
from semreg.report.case import Case

PANEL, MARGIN = 200.0, 26.0
VIEWS = (("axial", 0, 1, False, "R", "L", "A", "P"), ("coronal", 0, 2, True, "R", "L", "S", "I"),
         ("sagittal", 1, 2, True, "A", "P", "S", "I"))  # fmt: skip
"""Name, the axes of points across and down, whether the second is drawn upwards, letters left, right, top, bottom."""


@dataclass(frozen=True)
class Panel:
    """The boxes in one projection: outlines as SVG points in a square of PANEL units."""

    name: str
    outlines: tuple[tuple[str, str], ...]
    """Of each box its name and its points."""
    letters: tuple[str, str, str, str]


def box_panels(case: Case) -> list[Panel]:
    """Both boxes of a case projected in three planes, in one scale; in 2-D one plane."""
    boxes = {"fixed": case.fixed.grid.corners_xyz(), "moving": case.moving.grid.corners_xyz()}
    aligned = _aligned_corners(case)
    if aligned is not None:
        boxes["aligned"] = aligned
    everything = np.concatenate(list(boxes.values()))
    low, high = everything.min(0), everything.max(0)
    scale = (PANEL - 2 * MARGIN) / max(float((high - low).max()), 1e-9)
    middle = (low + high) / 2
    views = VIEWS if case.fixed.grid.dimension == 3 else (("plane", 0, 1, False, "", "", "", ""),)
    panels = []
    for name, across, down, upwards, *letters in views:
        outlines = []
        for box, corners in boxes.items():
            flat = (corners[:, [across, down]] - middle[[across, down]]) * scale
            flat[:, 1] *= -1 if upwards else 1
            outlines.append((box, " ".join(f"{x:.1f},{y:.1f}" for x, y in outline(flat + PANEL / 2))))
        panels.append(Panel(name, tuple(outlines), (letters[0], letters[1], letters[2], letters[3])))
    return panels


def _aligned_corners(case: Case) -> npt.NDArray[np.float64] | None:
    """The corners of the moving image's box after the alignment, None without one."""
    if case.record is None or case.record.alignment is None:
        return None
    matrix = np.asarray(case.record.alignment.matrix, dtype=np.float64)
    n = case.fixed.grid.dimension
    if matrix.shape != (n + 1, n + 1) or np.allclose(matrix, np.eye(n + 1), atol=1e-3):
        return None
    if abs(np.linalg.det(matrix)) < 1e-9:
        return None
    corners = case.moving.grid.corners_xyz()
    back = np.linalg.inv(matrix)  # the matrix leads from fixed to moving points
    return np.asarray(corners @ back[:n, :n].T + back[:n, n])


def outline(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The convex outline of points (N, 2), in order (Andrew's monotone chain)."""
    ordered = sorted(map(tuple, points.tolist()))

    def half(sequence: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
        chain: list[tuple[float, ...]] = []
        for p in sequence:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], p) <= 1e-9:
                chain.pop()
            chain.append(p)
        return chain[:-1]

    return np.array(half(ordered) + half(ordered[::-1]))


def _turn(a: tuple[float, ...], b: tuple[float, ...], c: tuple[float, ...]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


CURVE_WIDTH, CURVE_HEIGHT = 300.0, 110.0


@dataclass(frozen=True)
class Curve:
    """The objective of one level against its iterations."""

    title: str
    points: str
    """As SVG points in a box of CURVE_WIDTH × CURVE_HEIGHT units."""
    dots: tuple[tuple[float, float], ...]
    values: tuple[float, ...]
    """At the start and after each step."""
    sentence: str


def curves(record: AlignRecord | None) -> list[Curve]:
    """One curve a level of the refinement; levels without steps are left out."""
    found = []
    for number, level in enumerate(record.convergence if isinstance(record, Record) else (), 1):
        values = level.objective
        if len(values) < 2:
            continue
        low, high = min(values), max(values)
        reach = high - low or 1.0
        xs = np.linspace(0, CURVE_WIDTH, len(values))
        ys = [CURVE_HEIGHT * (1 - (v - low) / reach) for v in values]
        dots = tuple((round(float(x), 1), round(y, 1)) for x, y in zip(xs, ys, strict=True))
        title = f"Level {number}, features {level.spacing_mm:.3g} mm apart"
        found.append(Curve(title, " ".join(f"{x},{y}" for x, y in dots), dots, values, level.reason))
    return found
