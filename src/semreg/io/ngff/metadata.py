"""What OME-Zarr says of an image: axes, units, and where the samples of each resolution lie. Reads no file.

Versions 0.4 and 0.5 of NGFF (https://ngff.openmicroscopy.org): a sample i lies at scale · i + translation, first those
of its resolution, then those of the whole. Lengths become mm; x, y, z are those of LPS, unless axes say their
orientation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np

from semreg.core.geometry import Grid
from semreg.errors import GeometryError, ImageError

VERSIONS = ("0.4", "0.5")
MM: Mapping[str, float] = {
    "angstrom": 1e-7, "nanometer": 1e-6, "micrometer": 1e-3, "millimeter": 1.0, "centimeter": 10.0, "decimeter": 100.0,
    "meter": 1e3, "inch": 25.4,
}  # fmt: skip
"""How many mm a unit of length is."""
LPS: Mapping[str, tuple[int, float]] = {
    "right-to-left": (0, 1.0), "left-to-right": (0, -1.0), "anterior-to-posterior": (1, 1.0),
    "posterior-to-anterior": (1, -1.0), "inferior-to-superior": (2, 1.0), "superior-to-inferior": (2, -1.0),
}  # fmt: skip
"""Along which axis of LPS, and which way, an axis of that orientation runs."""
NAMED: Mapping[str, int] = {"x": 0, "y": 1, "z": 2}


class Orientation(msgspec.Struct):
    """Which way an axis runs in a body."""

    value: str
    type: str = "anatomical"


class Axis(msgspec.Struct):
    """One axis of the arrays."""

    name: str
    type: str = ""
    unit: str = ""
    orientation: Orientation | None = None


class Transformation(msgspec.Struct):
    """A scale, a translation, or nothing."""

    type: Literal["scale", "translation", "identity"]
    scale: tuple[float, ...] = ()
    translation: tuple[float, ...] = ()
    path: str | None = None


class Dataset(msgspec.Struct):
    """One resolution: the array it is in, and where its samples lie."""

    path: str
    transformations: tuple[Transformation, ...] = msgspec.field(name="coordinateTransformations", default=())


class Multiscale(msgspec.Struct):
    """All resolutions of an image, the finest first."""

    datasets: tuple[Dataset, ...]
    axes: tuple[Axis, ...] = ()
    transformations: tuple[Transformation, ...] = msgspec.field(name="coordinateTransformations", default=())
    version: str = ""
    name: str = ""


@dataclass(frozen=True)
class Place:
    """Where the samples of the spatial axes of an array lie: the grid, but for its size; units are mm."""

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    """In the order of the spatial axes of the array, as the others."""
    along: tuple[tuple[int, float], ...]
    """For each spatial axis the axis of LPS it runs along, and its sign."""
    notes: tuple[str, ...]

    def grid(self, shape: Sequence[int]) -> Grid:
        """The grid of an array of ``shape`` along the spatial axes."""
        n = len(shape)
        direction, point = np.zeros((n, n)), np.zeros(n)
        for place, (axis, sign) in enumerate(self.along):
            direction[axis, n - 1 - place] = sign
            point[axis] = sign * self.origin[place]
        rows = tuple(map(tuple, direction.tolist()))
        return Grid(tuple(shape)[::-1], self.spacing[::-1], tuple(point.tolist()), rows)


def multiscale_of(attributes: Mapping[str, Any]) -> Multiscale:
    """The image that the attributes of a group describe (ImageError for none, for several, and for another version)."""
    inner = attributes.get("ome", attributes)
    listed = inner.get("multiscales") if isinstance(inner, Mapping) else None
    if not isinstance(listed, list) or not listed:
        raise ImageError("expected an image of OME-Zarr, got a group without multiscales: name the group of the image")
    if len(listed) > 1:
        raise ImageError(f"expected one image in a group, got {len(listed)}: save the one that is meant by itself")
    try:
        found = msgspec.convert(listed[0], Multiscale)
    except msgspec.ValidationError as error:
        raise ImageError(f"expected multiscales of NGFF {' or '.join(VERSIONS)}, got others: {error}") from error
    version = inner.get("version") or found.version
    if version and version not in VERSIONS:
        raise ImageError(f"expected NGFF of version {' or '.join(VERSIONS)}, got {version}: convert it")
    if not found.axes or not found.datasets:
        raise ImageError("expected multiscales with axes and datasets, got none: save it as NGFF 0.4 or 0.5")
    return found


def spatial(axes: Sequence[Axis]) -> tuple[int, ...]:
    """The places of the spatial axes among those of the arrays (ImageError where there are not 2 or 3)."""
    found = tuple(place for place, axis in enumerate(axes) if (axis.type or _usual(axis.name)) == "space")
    if len(found) not in (2, 3):
        names = ", ".join(axis.name for axis in axes)
        raise ImageError(f"expected 2 or 3 axes of space, got {len(found)} among {names}: save it as 2-D or 3-D")
    return found


def place_of(image: Multiscale, dataset: Dataset) -> Place:
    """Where the samples of one resolution lie (GeometryError where that is not said)."""
    count = len(image.axes)
    scale, shift = np.ones(count), np.zeros(count)
    for each in (*dataset.transformations, *image.transformations):
        if each.path is not None:
            raise GeometryError("expected scale and translation as numbers, got the path of an array: write them out")
        given = each.scale if each.type == "scale" else each.translation
        if each.type != "identity" and len(given) != count:
            raise GeometryError(f"expected a {each.type} of {count} numbers, one for each axis, got {len(given)}")
        if each.type == "scale":
            scale, shift = scale * given, shift * given
        elif each.type == "translation":
            shift = shift + given
    places = spatial(image.axes)
    if not all(math.isfinite(v) for v in (*scale, *shift)) or min(scale[list(places)]) <= 0:
        raise GeometryError(f"expected a scale above 0, got {scale.tolist()}: correct its metadata")
    units = [_mm(image.axes[place]) for place in places]
    missing = [image.axes[place].name for place in places if not image.axes[place].unit]
    notes = [f"its axes {', '.join(missing)} have no unit: mm are assumed"] if missing else []
    along = _along([image.axes[place] for place in places])
    spacing, origin = ([float(x[p] * u) for p, u in zip(places, units, strict=True)] for x in (scale, shift))
    return Place(tuple(spacing), tuple(origin), along, tuple(notes))


def _mm(axis: Axis) -> float:
    if axis.unit and axis.unit not in MM:
        raise GeometryError(f"expected a unit of {', '.join(MM)} of axis {axis.name}, got {axis.unit}: convert it")
    return MM.get(axis.unit, 1.0)


def _along(axes: Sequence[Axis]) -> tuple[tuple[int, float], ...]:
    """By orientation where all say one, else by name, else the last axis is x."""
    n = len(axes)
    said = [LPS.get(a.orientation.value) if a.orientation is not None else None for a in axes]
    if any(said) and not all(said):
        raise GeometryError("expected an orientation of all axes of space or of none, got one of some: complete it")
    found = [s for s in said if s is not None] or [(NAMED.get(a.name.lower(), -1), 1.0) for a in axes]
    if sorted(axis for axis, _ in found) != list(range(n)):
        if any(said):
            raise GeometryError("expected axes of different orientation, got two along the same: correct it")
        return tuple((n - 1 - place, 1.0) for place in range(n))
    return tuple(found)


def _usual(name: str) -> str:
    return {"c": "channel", "t": "time"}.get(name.lower(), "space" if name.lower() in NAMED else "")
