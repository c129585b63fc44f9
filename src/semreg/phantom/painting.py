"""How the made-up bodies are painted: pieces of tissue laid over each other. Knows nothing of grids.

A body is a stack of layers, each a tissue and how far below its surface a place lies. Its images and its labels are
made of the same stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from semreg.phantom.waves import Array, Waves

EDGE_MM = 1.2
"""Width of the edges of organs."""

FADED_MM = 5.0
"""Where an edge has faded so much that nothing is to be seen of it."""


class Tissue(NamedTuple):
    """What a tissue looks like in both contrasts of its body, and its number in the label map.

    ``grain`` is the texture as a share of the usual; ``label`` None: it is part of what it lies in.
    """

    first: float
    second: float
    grain: float = 1.0
    label: int | None = 0


Layers: TypeAlias = Iterable[tuple[Tissue, Array]]
"""Tissues, and for each how many mm every point lies below its surface (N); the later ones cover the earlier."""


class Ellipsoid(NamedTuple):
    """A piece of tissue: ``centre`` and half ``axes`` in mm relative to the body, turned about z by ``degrees``."""

    tissue: Tissue
    centre: tuple[float, ...]
    axes: tuple[float, ...]
    degrees: float = 0.0


class Region(NamedTuple):
    """The ellipsoid that a body fills: ``centre_mm`` (LPS), half axes ``half_mm``, and those that images show."""

    centre_mm: tuple[float, ...]
    half_mm: tuple[float, ...]
    seen_mm: tuple[float, ...]

    def share(self, points: Array) -> Array:
        """How far out in the body ``points`` (D, N) in mm are, 1 at its surface; (N)."""
        n = len(points)
        middle, half = (np.array(values[:n])[:, None] for values in (self.centre_mm, self.half_mm))
        return np.asarray(np.linalg.norm((points - middle) / half, axis=0))


class Body(Protocol):
    """What images of the phantom show: a function of points in mm, whichever grid asks."""

    @property
    def region(self) -> Region:
        """Where it is."""

    @property
    def contrasts(self) -> tuple[str, str]:
        """What its two kinds of images are called."""

    @property
    def label_names(self) -> Mapping[int, str]:
        """What the numbers of ``labels`` mean."""

    @property
    def steepest(self) -> float:
        """By how much the first contrast changes over 2 · ``EDGE_MM`` at a landmark, at least."""

    def intensity(self, points: Array, contrast: str) -> Array:
        """What it looks like at ``points`` (D, N) in mm; (N), float32."""

    def labels(self, points: Array) -> npt.NDArray[np.int16]:
        """The structures at ``points`` (D, N) in mm, 0 where there is none; (N)."""


class Painted:
    """A body whose images and labels are made of one stack of layers, with one texture on all tissues."""

    contrasts: tuple[str, str]
    grain: Waves

    def intensity(self, points: Array, contrast: str) -> Array:
        """What the body looks like at ``points`` (D, N) in mm in one of its ``contrasts`` → (N), float32."""
        place = self._place(points)
        grain = self.grain.at(place) / len(self.grain.phases) ** 0.5
        first = contrast == self.contrasts[0]
        return paint(self._layers(place), lambda tissue: self._colour(tissue, grain, first=first), place.shape[1])

    def labels(self, points: Array) -> npt.NDArray[np.int16]:
        """The structures at ``points`` (D, N) in mm, numbers of ``label_names``, 0 where there is none; (N)."""
        place = self._place(points)
        return number(self._layers(place), place.shape[1])

    def _place(self, points: Array) -> Array:
        """``points`` (D, N) in mm relative to the body, float32."""
        raise NotImplementedError

    def _layers(self, place: Array) -> Layers:
        """What is where at ``place``; the later over the earlier."""
        raise NotImplementedError

    def _colour(self, tissue: Tissue, grain: Array, *, first: bool) -> Array:
        """What a tissue looks like in the ``first`` contrast or the other, with texture of mean square 1."""
        raise NotImplementedError


class PaintedInCtAndMr(Painted):
    """One that is seen CT-like, in HU, and MR-like."""

    contrasts = ("ct", "mr")
    steepest = 60.0
    """HU."""
    texture_hu = 12.0
    """Of a tissue of grain 1, root of the mean square."""

    def _colour(self, tissue: Tissue, grain: Array, *, first: bool) -> Array:
        if first:
            return np.asarray(tissue.first + (self.texture_hu * tissue.grain) * grain)
        return np.asarray(tissue.second - (0.10 * tissue.grain * tissue.second) * grain)


def paint(layers: Layers, colour: Callable[[Tissue], Array | float], count: int) -> Array:
    """The layers over each other at ``count`` points, with soft edges: what an image shows (N), float32."""
    values: Array = np.zeros(count, dtype=np.float32)
    for tissue, depth in layers:
        cover = 0.5 + 0.5 * np.tanh(depth * (2 / EDGE_MM))
        values += cover * (colour(tissue) - values)
    return values


def number(layers: Layers, count: int) -> npt.NDArray[np.int16]:
    """The label of the uppermost layer that has one, at ``count`` points; (N)."""
    labels = np.zeros(count, dtype=np.int16)
    for tissue, depth in layers:
        if tissue.label is not None:
            labels[depth > 0] = tissue.label
    return labels


def ellipsoid_depth(place: Array, axes: tuple[float, ...]) -> Array:
    """About how many mm ``place`` (D, N) lies below the surface of an ellipsoid around the origin; (N)."""
    away = np.sqrt(sum((row / half) ** 2 for row, half in zip(place, axes, strict=True)))
    return np.asarray((1 - away) * min(axes))


def depth_in(piece: Ellipsoid, place: Array) -> Array:
    """About how many mm ``place`` (D, N), relative to the body, lies below the surface of a piece; (N)."""
    return ellipsoid_depth(_turned(place, piece), piece.axes)


def is_near(piece: Ellipsoid, low: Array, high: Array) -> bool:
    """Whether anything of a piece is to be seen in the box from ``low`` to ``high`` (D)."""
    widest = max(piece.axes[:2])
    reach = np.array([widest, widest, *piece.axes[2:]]) * (1 + FADED_MM / min(piece.axes))
    centre = np.array(piece.centre)
    return bool(((centre + reach > low) & (centre - reach < high)).all())


class Tubes(NamedTuple):
    """Straight pieces of vessels relative to the body, in mm: ``start`` and ``end`` (S, D), ``radius`` (S)."""

    start: Array
    end: Array
    radius: Array

    def near(self, low: Array, high: Array) -> Tubes:
        """Those of which anything is to be seen in the box from ``low`` to ``high`` (D)."""
        reach = self.radius[:, None] + FADED_MM
        upper, lower = np.maximum(self.start, self.end) + reach, np.minimum(self.start, self.end) - reach
        near = ((upper > low) & (lower < high)).all(1)
        return Tubes(self.start[near], self.end[near], self.radius[near])

    def depth(self, place: Array) -> Array:
        """How many mm ``place`` (D, N) lies below the surface of the nearest tube; (N)."""
        depth: Array = np.full_like(place[0], -np.inf)
        for start, end, radius in zip(self.start, self.end, self.radius.tolist(), strict=True):
            along = end - start
            away = place - start[:, None]
            share = np.tensordot(along / (along @ along), away, 1)
            away -= along[:, None] * np.clip(share, 0, 1)
            np.maximum(depth, radius - np.sqrt((away**2).sum(0)), out=depth)
        return depth


def _turned(place: Array, piece: Ellipsoid) -> Array:
    """``place`` (D, N) in the frame of the piece."""
    angle = np.deg2rad(piece.degrees)
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    x, y, *rest = (row - middle for row, middle in zip(place, piece.centre, strict=True))
    return np.stack([cosine * x + sine * y, cosine * y - sine * x, *rest])
