"""A made-up head: what tissue is where, in mm, and what it looks like in T1 and T2. Knows nothing of grids.

LPS: x grows to the left, y to the back, z to the top.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from semreg.phantom.painting import Ellipsoid, Painted, Region, Tissue, Tubes, depth_in, ellipsoid_depth, is_near
from semreg.phantom.waves import Array, Waves, random_waves

CENTRE_MM = (-7.0, 21.0, -46.0)
"""Where the middle of the brain is (LPS): off the origin, so that a forgotten one shows."""

BRAIN_MM = (66.0, 84.0, 62.0)
"""Half axes of the cerebrum."""

REGION = Region(CENTRE_MM, BRAIN_MM, BRAIN_MM)

HEAD = ((0.0, 0.0, -14.0), (79.0, 99.0, 104.0))
"""Centre, relative to that of the brain, and half axes, mm."""

LABELS = {
    1: "cortex",
    2: "white matter",
    3: "ventricles",
    4: "caudate",
    5: "putamen",
    6: "thalamus",
    7: "cerebellum",
    8: "brain stem",
}

AIR = Tissue(15, 15, 0.0)
SCALP = Tissue(760, 480)
MUSCLE = Tissue(330, 240)
SKULL = Tissue(50, 45, 0.0)
FLUID = Tissue(130, 900, 0.3)
CORTEX = Tissue(440, 430, label=1)
WHITE = Tissue(640, 290, label=2)
VENTRICLE = Tissue(125, 920, 0.3, label=3)
CAUDATE = Tissue(470, 400, label=4)
PUTAMEN = Tissue(495, 380, label=5)
THALAMUS = Tissue(530, 370, label=6)
CEREBELLUM = Tissue(475, 400, label=7)
FOLIA = Tissue(590, 320, label=7)
STEM = Tissue(600, 310, label=8)
"""T1 and T2 in units of their own."""


def _both(
    tissue: Tissue, centre: tuple[float, float, float], axes: tuple[float, ...], degrees: float
) -> list[Ellipsoid]:
    """A piece on the left and its mirror image on the right."""
    x, y, z = centre
    return [Ellipsoid(tissue, (side * x, y, z), axes, side * degrees) for side in (1.0, -1.0)]


NUCLEI = (
    *_both(PUTAMEN, (27, -6, 0), (6, 17, 10), -12),
    *_both(CAUDATE, (15, -24, 12), (6, 15, 9), -8),
    *_both(THALAMUS, (11, 10, 6), (8, 14, 9), 15),
    Ellipsoid(VENTRICLE, (0, 4, 2), (2.5, 15, 9)),
)
"""Painted in this order, the later over the earlier."""


def _ventricles() -> Tubes:
    """The lateral ventricles: horns to the front, the back and the side, thinner at their ends."""
    course = ((7, -34, 14, 5.0), (9, -14, 20, 6.0), (10, 8, 23, 6.0), (17, 34, 14, 7.0), (30, 14, -10, 4.0))
    pieces = [
        ((side * x, y, z), (side * u, v, w), radius)
        for side in (1, -1)
        for (x, y, z, radius), (u, v, w, _) in itertools.pairwise(course)
    ]
    start, end, radius = zip(*pieces, strict=True)
    return Tubes(*(np.array(rows, dtype=np.float32) for rows in (start, end, radius)))


VENTRICLES = _ventricles()
STEMS = Tubes(*(np.array(rows, dtype=np.float32) for rows in ([(0, 10, -22)], [(0, 24, -95)], [11.5])))


@dataclass(frozen=True)
class Brain(Painted):
    """The made-up head: deep structures that all have, folds and texture of its own."""

    folds: Waves
    """Where they are 0, at the surface, a fold of the cortex goes in."""
    grain: Waves

    region = REGION
    contrasts = ("t1", "t2")
    label_names = LABELS
    steepest = 60.0
    """Units of T1."""

    def _colour(self, tissue: Tissue, grain: Array, *, first: bool) -> Array:
        value = tissue.first if first else tissue.second
        return np.asarray(value + (0.04 * tissue.grain * value) * grain)

    def _place(self, points: Array) -> Array:
        """``points`` (3, N) in mm relative to the middle of the brain, float32."""
        return np.asarray(points - np.array(CENTRE_MM)[:, None], dtype=np.float32)

    def _layers(self, place: Array) -> Iterator[tuple[Tissue, Array]]:
        """What is where at ``place`` (3, N), relative to the brain; the later over the earlier."""
        head = depth_in(Ellipsoid(SCALP, *HEAD), place)
        inner = np.maximum(
            depth_in(Ellipsoid(FLUID, (0, 2, 0), (70, 89, 66)), place),
            depth_in(Ellipsoid(FLUID, (0, 40, -38), (53, 38, 34)), place),
        )
        stem = STEMS.depth(place)
        yield SCALP, head
        yield MUSCLE, head - 6.0
        yield SKULL, inner + 6.0
        yield FLUID, np.maximum(inner, stem + 3.0)
        grey, white = self._cortex(place)
        yield CORTEX, grey
        yield STEM, stem
        cerebellum = np.minimum(depth_in(Ellipsoid(CEREBELLUM, (0, 42, -42), (46, 30, 24)), place), -1.0 - grey)
        yield CEREBELLUM, cerebellum
        yield FOLIA, np.minimum(cerebellum - 4.0, 1.6 * np.sin(place[2] * 0.7 + place[1] * 0.25))
        yield WHITE, white
        low, high = place.min(1), place.max(1)
        yield from ((piece.tissue, depth_in(piece, place)) for piece in NUCLEI if is_near(piece, low, high))
        yield VENTRICLE, VENTRICLES.depth(place)
        yield AIR, -head

    def _cortex(self, place: Array) -> tuple[Array, Array]:
        """How many mm ``place`` (3, N) lies below the surface of the cortex and of the white matter; (N) each."""
        depth = ellipsoid_depth(place, BRAIN_MM)
        waves = self.folds.at(place) / len(self.folds.phases) ** 0.5
        fissure = 30.0 * np.exp(-((place[0] / 2.0) ** 2))
        grey = depth - 13.0 * np.exp(-((waves / 0.2) ** 2)) - fissure
        white = depth - 3.5 - 13.0 * np.exp(-((waves / 0.65) ** 2)) - 30.0 * np.exp(-((place[0] / 5.0) ** 2))
        return np.asarray(grey), np.asarray(white)


def make_brain(seed: int = 0) -> Brain:
    """The head: the same deep structures always; folds and texture from ``seed``."""
    random = np.random.default_rng([seed, 4])
    everywhere = np.ones(3, dtype=bool)
    folds = random_waves(random, [(length, 1.0) for length in np.linspace(30.0, 52.0, 12)], everywhere)
    return Brain(folds, random_waves(random, [(w, 1.0) for w in np.geomspace(8.0, 30.0, 10)], everywhere))
