"""A made-up abdomen: what tissue is where, in mm, and what it looks like in CT and MR. Knows nothing of grids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from semreg.phantom.painting import (
    Ellipsoid,
    PaintedInCtAndMr,
    Region,
    Tissue,
    Tubes,
    depth_in,
    ellipsoid_depth,
    is_near,
)
from semreg.phantom.waves import Array, Waves, random_waves

CENTRE_MM = (12.0, -37.0, 84.0)
"""Where the middle of the body is (LPS): off the origin, so that a forgotten one shows."""

BODY_MM = (88.0, 66.0, 135.0)
"""Half axes of the body; along z it leaves both images, as a patient does."""

REGION = Region(CENTRE_MM, BODY_MM, (*BODY_MM[:2], 65.0))
"""Where the body is, and what of it the images show."""

RIBS_EVERY_MM = 25.0
DISCS_EVERY_MM = 33.0

SLICE_MM = 8.0
"""The slice of the body that is shown in 2-D, along z."""

LABELS = {1: "liver", 2: "spleen", 3: "kidneys", 4: "spine and ribs"}

AIR = Tissue(-1000, 25, 0.0)
FAT = Tissue(-100, 880)
MUSCLE = Tissue(55, 290)
LIVER = Tissue(115, 370, 1.5, label=1)
SPLEEN = Tissue(125, 560, label=2)
KIDNEY = Tissue(190, 480, label=3)
PELVIS = Tissue(15, 900, 0.3, label=None)
STOMACH = Tissue(20, 780, 0.5)
GAS = Tissue(-800, 10, 0.0)
CORTEX = Tissue(750, 60, 0.3, label=4)
MARROW = Tissue(260, 640, label=4)
DISC = Tissue(95, 330, 0.5, label=None)
CORD = Tissue(35, 700, 0.3, label=None)
VESSEL = Tissue(230, 95, 0.3, label=None)
LESION = Tissue(60, 720, label=None)
BOWEL = Tissue(40, 430)
"""CT in HU, MR in its own units."""

ORGANS = (
    Ellipsoid(LIVER, (-36, -8, 26), (42, 40, 46), 20),
    Ellipsoid(LIVER, (2, -26, 34), (32, 22, 26), -15),
    Ellipsoid(SPLEEN, (54, 18, 32), (17, 25, 31), -25),
    Ellipsoid(STOMACH, (34, -22, 22), (22, 19, 30), 30),
    Ellipsoid(GAS, (33, -33, 26), (10, 6, 13), 10),
    Ellipsoid(KIDNEY, (-40, 30, -30), (17, 20, 33), 25),
    Ellipsoid(PELVIS, (-36, 28, -30), (7, 8, 15), 25),
    Ellipsoid(KIDNEY, (42, 31, -22), (16, 19, 32), -20),
    Ellipsoid(PELVIS, (38, 29, -23), (6, 8, 16), -20),
    Ellipsoid(PELVIS, (-26, -34, -6), (10, 8, 15), 35),
    Ellipsoid(LESION, (-50, 2, 40), (8, 7, 6), 0),
    Ellipsoid(LESION, (-24, -20, 12), (5, 6, 5), 0),
    Ellipsoid(LESION, (-30, 12, 52), (4, 4, 5), 0),
    Ellipsoid(LESION, (56, 22, 22), (5, 4, 6), 0),
    Ellipsoid(CORTEX, (0, 38, -3), (19, 15, 400), 0),
    Ellipsoid(MARROW, (0, 38, -3), (16.5, 12.5, 400), 0),
    Ellipsoid(CORTEX, (0, 56, 0), (5, 13, 400), 0),
    Ellipsoid(CORD, (0, 54, 0), (7, 6, 400), 0),
)
"""Painted in this order, the later over the earlier."""


@dataclass(frozen=True)
class Anatomy(PaintedInCtAndMr):
    """The made-up body: what is where, relative to ``CENTRE_MM``, whichever image shows it."""

    organs: tuple[Ellipsoid, ...]
    vessels: Tubes
    grain: Waves

    region = REGION
    label_names = LABELS
    texture_hu = 10.0

    def _place(self, points: Array) -> Array:
        """``points`` (D, N) in mm relative to the body, (3, N); in 2-D those of a slice of it."""
        n, count = points.shape
        place = np.full((3, count), SLICE_MM, dtype=np.float32)
        place[:n] = points - np.array(CENTRE_MM[:n])[:, None]
        return place

    def _layers(self, place: Array) -> Iterator[tuple[Tissue, Array]]:
        """What is where at ``place`` (3, N), relative to the body; the later over the earlier."""
        yield MUSCLE, ellipsoid_depth(place, BODY_MM)
        yield FAT, -ellipsoid_depth(place, (BODY_MM[0] - 9, BODY_MM[1] - 8, BODY_MM[2]))
        yield FAT, ellipsoid_depth(place, (BODY_MM[0] - 22, BODY_MM[1] - 18, BODY_MM[2])) - 2.0
        low, high = place.min(1), place.max(1)
        for organ in self.organs:
            if is_near(organ, low, high):
                yield organ.tissue, depth_in(organ, place)
        vessels = self.vessels.near(low, high)
        if len(vessels.radius):
            yield VESSEL, vessels.depth(place)
        yield DISC, _disc_depth(place)
        ribs = _rib_depth(place)
        yield CORTEX, ribs
        yield MARROW, ribs - 2.0
        yield AIR, -ellipsoid_depth(place, BODY_MM)


def make_anatomy(seed: int = 0) -> Anatomy:
    """The body: fixed organs; bowel, vessels and texture from ``seed``."""
    random = np.random.default_rng([seed, 1])
    tissues = (BOWEL, BOWEL, STOMACH, GAS, FAT)
    bowel = []
    for i in range(34):
        radius = random.uniform(4.0, 11.0)
        centre = random.uniform([-52, -44, -80], [54, 6, -8])
        axes = radius * random.uniform([0.8, 0.8, 0.8], [1.6, 1.2, 1.6])
        turn = float(random.uniform(0, 180))
        bowel.append(Ellipsoid(BOWEL, _triple(centre), _triple(axes + 1.8), turn))
        bowel.append(Ellipsoid(tissues[i % len(tissues)], _triple(centre), _triple(axes - 1.0), turn))
    grain = random_waves(random, [(w, 1.0) for w in np.geomspace(9.0, 34.0, 14)], np.ones(3, dtype=bool))
    return Anatomy((*bowel, *ORGANS), _vessels(random), grain)


def _rib_depth(place: Array) -> Array:
    """Ribs: bars of 9 by 6 mm around the body, falling towards the front, missing there and at the spine."""
    x, y, z = place
    around = np.sqrt((x / (BODY_MM[0] - 16)) ** 2 + (y / (BODY_MM[1] - 13)) ** 2)
    along = (z - 0.35 * y) / RIBS_EVERY_MM
    across = np.sqrt(((around - 1) * (62 / 3.0)) ** 2 + ((along - np.rint(along)) * (RIBS_EVERY_MM / 4.5)) ** 2)
    ends = np.minimum((y + 35) / 3, (np.abs(x) - 12) / 3)
    return np.asarray(np.minimum((1 - across) * 3.0, ends))


def _disc_depth(place: Array) -> Array:
    """Discs of 7 mm between the vertebrae."""
    x, y, z = place
    along = z / DISCS_EVERY_MM - 0.3
    across = 3.5 - np.abs(along - np.rint(along)) * DISCS_EVERY_MM
    return np.asarray(np.minimum(across, (1 - np.hypot(x / 20.0, (y - 38) / 16.0)) * 16.0))


def _vessels(random: np.random.Generator) -> Tubes:
    """Aorta and vena cava, and trees into liver, spleen and kidneys that fork and thin out."""
    pieces: list[tuple[Array, Array, float]] = []

    def grow(start: Array, way: Array, radius: float, forks: int) -> None:
        end = start + way
        pieces.append((start, end, radius))
        for side in (-1.0, 1.0) if forks else ():
            bend = np.cross(way, random.normal(size=3))
            bend *= side * np.linalg.norm(way) * random.uniform(0.5, 0.8) / np.linalg.norm(bend)
            grow(end, 0.85 * (0.8 * way + bend), radius * 0.78, forks - 1)

    for x, radius in ((9.0, 8.0), (-12.0, 9.0)):
        for z in range(-120, 120, 40):
            lower, upper = (np.array([x + 3 * np.sin(v / 25.0), 18 + 2 * np.cos(v / 30.0), v]) for v in (z, z + 40.0))
            pieces.append((lower, upper, radius))
    grow(np.array([-8.0, 8.0, 8.0]), np.array([-15.0, -9.0, 12.0]), 5.0, 4)
    grow(np.array([-12.0, 10.0, 48.0]), np.array([-14.0, -8.0, -6.0]), 4.0, 3)
    grow(np.array([10.0, 12.0, 24.0]), np.array([22.0, 4.0, 6.0]), 3.5, 2)
    grow(np.array([-12.0, 20.0, -28.0]), np.array([-15.0, 6.0, -2.0]), 3.5, 2)
    grow(np.array([9.0, 20.0, -22.0]), np.array([16.0, 6.0, 0.0]), 3.5, 2)
    grow(np.array([6.0, 10.0, -12.0]), np.array([2.0, -22.0, -12.0]), 4.0, 4)
    start, end, radius_of = zip(*pieces, strict=True)
    return Tubes(*(np.array(rows, dtype=np.float32) for rows in (start, end, radius_of)))


def _triple(values: Array) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return x, y, z
