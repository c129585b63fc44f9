"""A made-up slice of tissue on a glass slide, in two stains: what is where and how bright. Knows nothing of grids.

Two-dimensional, in units that are pixels of a picture of 256 pixels; x grows to the right, y downwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from semreg.phantom.painting import Ellipsoid, Painted, Region, Tissue, depth_in, is_near
from semreg.phantom.waves import Array, Waves, random_waves

CENTRE = (126.0, 103.0)
TISSUE = (80.0, 68.0)
"""Half axes of the piece of tissue."""

REGION = Region(CENTRE, TISSUE, TISSUE)
LABELS = {1: "stroma", 2: "glands", 3: "lumina", 4: "tumour"}

GLASS = Tissue(238, 242, 0.0)
STROMA = Tissue(186, 214, label=1)
GLAND = Tissue(112, 150, 0.7, label=2)
LUMEN = Tissue(232, 236, 0.2, label=3)
TUMOUR = Tissue(142, 92, 1.6, label=4)
VESSEL = Tissue(150, 222, 0.4, label=None)
"""Brightness from 0 to 255 in a stain of everything (eosin) and in one of a marker (brown)."""


@dataclass(frozen=True)
class Slide(Painted):
    """The piece of tissue: what lies in it, the waves of its outline, its texture."""

    pieces: tuple[Ellipsoid, ...]
    outline: Waves
    grain: Waves

    region = REGION
    contrasts = ("eosin", "brown")
    label_names = LABELS
    steepest = 20.0
    """Of 255 levels."""

    def _colour(self, tissue: Tissue, grain: Array, *, first: bool) -> Array:
        return np.asarray((tissue.first if first else tissue.second) + (11.0 * tissue.grain) * grain)

    def _place(self, points: Array) -> Array:
        """``points`` (2, N) relative to the middle of the tissue, float32."""
        return np.asarray(points - np.array(CENTRE)[:, None], dtype=np.float32)

    def _layers(self, place: Array) -> Iterator[tuple[Tissue, Array]]:
        """What is where at ``place`` (2, N), relative to the tissue; the later over the earlier."""
        tissue = depth_in(Ellipsoid(STROMA, (0.0, 0.0), TISSUE), place) + self.outline.at(place)
        yield GLASS, np.ones_like(tissue) * TISSUE[0]
        yield STROMA, tissue
        low, high = place.min(1), place.max(1)
        for piece in self.pieces:
            if is_near(piece, low, high):
                yield piece.tissue, np.minimum(depth_in(piece, place), tissue - 2.0)


def make_slide(seed: int = 0) -> Slide:
    """The tissue: a tumour, glands around their lumina, vessels; places, sizes and texture from ``seed``."""
    random = np.random.default_rng([seed, 5])
    pieces = [Ellipsoid(TUMOUR, (34.0, -22.0), (27.0, 19.0), 25.0)]
    for i in range(44):
        centre = tuple(random.uniform(-0.95, 0.95, 2) * TISSUE)
        axes = random.uniform(5.0, 11.0) * random.uniform(0.8, 1.5, 2)
        turn = float(random.uniform(0, 180))
        if i % 5 == 0:
            pieces.append(Ellipsoid(VESSEL, centre, tuple(0.6 * axes), turn))
            continue
        pieces.append(Ellipsoid(GLAND, centre, tuple(axes), turn))
        pieces.append(Ellipsoid(LUMEN, centre, tuple(axes - 3.6), turn))
    plane = np.ones(2, dtype=bool)
    outline = random_waves(random, [(150.0, 5.0), (90.0, 4.0), (45.0, 2.0)], plane)
    return Slide(tuple(pieces), outline, random_waves(random, [(w, 1.0) for w in np.geomspace(4.0, 18.0, 12)], plane))
