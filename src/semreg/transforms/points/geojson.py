"""Annotations of QuPath (GeoJSON): points, lines and polygons of a picture, in pixels from its corner."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from semreg.errors import ImageError
from semreg.runtime.texts import parse_json
from semreg.transforms.base import Points
from semreg.transforms.points.contract import PointFile, PointFormat, coordinates

GEOMETRIES = ("geometry", "nucleusGeometry")
"""What an object has a shape as: a cell has one of its nucleus too."""
CORNER = 0.5
"""QuPath counts from the corner of the picture: the centre of its first pixel lies there."""


def parse(data: bytes, ras: bool) -> PointFile:  # noqa: ARG001 - a picture has no RAS
    """All positions of all objects, in their order; each has the name, or else the class, of its object."""
    document = parse_json(data.decode("utf-8-sig"))
    placed, names = [], []
    for feature in _features(document):
        name = _name(feature)
        for geometry in (feature.get(key) for key in GEOMETRIES):
            here = list(_positions(geometry))
            placed += here
            names += [name] * len(here)
    values = [coordinates(position[:2], f"position {number}") for number, position in enumerate(placed, start=1)]

    def rewritten(points: Points) -> bytes:
        for position, moved in zip(placed, points.T, strict=True):
            position[:2] = [round(float(value) + CORNER, 6) for value in moved]
        return (json.dumps(document, ensure_ascii=False) + "\n").encode()

    points = np.reshape(values, (-1, 2)).T.astype(np.float64) - CORNER
    return PointFile(points, rewritten, tuple(names), in_voxels=True)


def _features(document: Any) -> list[dict[str, Any]]:
    """The objects of a file: of a collection, a list, or one alone (ImageError)."""
    found = document.get("features", [document]) if isinstance(document, dict) else document
    if not isinstance(found, list) or not all(isinstance(each, dict) and "geometry" in each for each in found):
        raise ImageError("expected GeoJSON with objects that have a geometry, as QuPath writes it, got other JSON")
    return found


def _name(feature: dict[str, Any]) -> str:
    """What an object is called, else its class."""
    said = feature.get("properties")
    said = said if isinstance(said, dict) else {}
    kind = said.get("classification")
    known = said.get("name") or (kind.get("name") if isinstance(kind, dict) else None)
    return str(known or "")


def _positions(geometry: Any) -> Iterator[list[Any]]:
    """The positions of a geometry, as the lists they are in (ImageError for what is none)."""
    if geometry is None:
        return
    inner = geometry.get("geometries") if isinstance(geometry, dict) else None
    if isinstance(inner, list):
        for each in inner:
            yield from _positions(each)
        return
    if not isinstance(geometry, dict) or not isinstance(geometry.get("coordinates"), list):
        raise ImageError("expected the coordinates of a geometry as a list, got another value: export it again")
    todo = [geometry["coordinates"]]
    while todo:
        each = todo.pop()
        if not isinstance(each, list) or not each:
            raise ImageError("expected positions x, y in a geometry, got another value: export it again")
        if isinstance(each[0], list):
            todo += reversed(each)
        else:
            yield each


GEOJSON = PointFormat(parse)
