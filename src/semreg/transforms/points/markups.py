"""The markups of 3D Slicer (MRK.JSON): the control points, in the system that each markup says."""

from __future__ import annotations

import json
import logging

import numpy as np

from semreg.errors import ImageError
from semreg.runtime.texts import parse_json, quoted
from semreg.transforms.base import Points
from semreg.transforms.points.contract import RAS_TO_LPS, SYSTEMS, PointFile, PointFormat, coordinates

logger = logging.getLogger("semreg")


def parse(data: bytes, ras: bool) -> PointFile:  # noqa: ARG001 - the file says it itself
    """The control points of all markups of a file; what else it says, orientations too, stays as it is."""
    document = parse_json(data.decode("utf-8-sig"))
    markups = document.get("markups") if isinstance(document, dict) else None
    if not isinstance(markups, list) or not all(isinstance(each, dict) for each in markups):
        raise ImageError("expected the markups of 3D Slicer, got JSON without a list of them")
    placed, signs = [], []
    for markup in markups:
        system = SYSTEMS.get(str(markup.get("coordinateSystem", "LPS")).upper())
        if system is None:
            raise ImageError(f"expected the coordinateSystem LPS or RAS, got {quoted(markup.get('coordinateSystem'))}")
        if markup.get("coordinateUnits", "mm") not in ("mm", ["mm", "UCUM", "millimeter"]):
            raise ImageError(f"expected coordinates in mm, got {quoted(markup['coordinateUnits'])}: save them in mm")
        if str(markup.get("type", "Fiducial")) in ("ROI", "Plane"):
            logger.warning("of a %s only the control points are moved, not its axes and its size", markup["type"])
        points_here = markup.get("controlPoints") or []
        if not isinstance(points_here, list) or not all(isinstance(point, dict) for point in points_here):
            raise ImageError("expected the control points of a markup as a list of objects, got another value")
        here = [point for point in points_here if point.get("position")]
        placed += here
        signs += [RAS_TO_LPS if system == "RAS" else np.ones(3)] * len(here)
    points = [_three(point["position"], f"the control point {n + 1}") for n, point in enumerate(placed)]

    def rewritten(moved: Points) -> bytes:
        for point, sign, values in zip(placed, signs, moved.T, strict=True):
            point["position"] = [round(float(v), 9) for v in values * sign]
        return (json.dumps(document, indent=4, ensure_ascii=False) + "\n").encode()

    lps = [np.asarray(point) * sign for point, sign in zip(points, signs, strict=True)]
    names = tuple(str(point.get("label") or "") for point in placed)
    return PointFile(np.reshape(lps, (-1, 3)).T.astype(np.float64), rewritten, names)


def _three(position: object, where: str) -> list[float]:
    """Three coordinates (ImageError)."""
    if not isinstance(position, list) or len(position) != 3:
        raise ImageError(f"expected three coordinates of {where}, got {quoted(position)}: correct or remove it")
    return coordinates(position, where)


MARKUPS = PointFormat(parse)
