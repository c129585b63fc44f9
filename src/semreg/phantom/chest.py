"""A made-up chest: an inner body that slides along the wall around it, and both deform together.

The wall of the inner body is a cylinder. The inner body turns about its axis and moves along it, which leaves the
cylinder what it is: nothing opens and nothing overlaps. A smooth map then bends all. Knows nothing of grids.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from semreg.phantom.couplings import CouplingMap
from semreg.phantom.grids import rotation
from semreg.phantom.painting import Ellipsoid, PaintedInCtAndMr, Region, Tissue, Tubes, depth_in, is_near
from semreg.phantom.waves import Array, Waves, random_waves

CENTRE_MM = (17.0, -12.0, 43.0)
"""Off the origin, so that a forgotten one shows."""
CHEST_MM = (54.0, 50.0, 160.0)
"""Half axes; along z it leaves both images."""
RADIUS_MM = 32.0
"""Of the inner body, which lies along z and leaves both images too."""
REGION = Region(CENTRE_MM, CHEST_MM, (*CHEST_MM[:2], 66.0))
LABELS = {1: "lung", 2: "ribs"}
VESSELS = 120

AIR = Tissue(-1000, 25, 0.0)
FAT = Tissue(-100, 880)
MUSCLE = Tissue(55, 290)
OTHER_MUSCLE = Tissue(75, 360)
RIB = Tissue(700, 80, 0.3, label=2)
LUNG = Tissue(-780, 110, label=1)
NODULE = Tissue(10, 480, label=None)
VESSEL = Tissue(40, 620, 0.3, label=None)


@dataclass(frozen=True)
class Chest(PaintedInCtAndMr):
    """What is where, relative to ``CENTRE_MM``."""

    muscles: tuple[Ellipsoid, ...]
    ribs: Tubes
    nodules: tuple[Ellipsoid, ...]
    vessels: Tubes
    grain: Waves

    region = REGION
    label_names = LABELS

    def _place(self, points: Array) -> Array:
        """``points`` (3, N) in mm relative to the chest, float32."""
        return np.asarray(points - np.array(CENTRE_MM)[:, None], dtype=np.float32)

    def _layers(self, place: Array) -> Iterator[tuple[Tissue, Array]]:
        """What is where at ``place`` (3, N); the later over the earlier."""
        chest = depth_in(Ellipsoid(FAT, (0.0, 0.0, 0.0), CHEST_MM), place)
        inner = _depth(place)
        low, high = place.min(1), place.max(1)
        yield AIR, -chest
        yield FAT, chest
        yield MUSCLE, chest - 4.0
        for piece in self.muscles:
            if is_near(piece, low, high):
                yield piece.tissue, np.minimum(depth_in(piece, place), chest - 4.0)
        yield RIB, np.minimum(self.ribs.near(low, high).depth(place), -1.5 - inner)
        yield LUNG, inner
        for piece in self.nodules:
            if is_near(piece, low, high):
                yield piece.tissue, np.minimum(depth_in(piece, place), inner - 1.5)
        yield VESSEL, np.minimum(self.vessels.near(low, high).depth(place), inner - 1.5)


def make_chest(seed: int = 0) -> Chest:
    """Ribs, muscles, vessels, nodules and texture from ``seed``."""
    random = np.random.default_rng([seed, 7])
    muscles = []
    for number in range(90):
        turn, height = random.uniform(0, 2 * np.pi), random.uniform(-80, 80)
        centre = (42 * np.cos(turn), 40 * np.sin(turn), height)
        axes = random.uniform([3, 3, 6], [8, 8, 18])
        tissue = (OTHER_MUSCLE, FAT)[number % 2]
        muscles.append(Ellipsoid(tissue, centre, tuple(axes.tolist()), float(random.uniform(0, 180))))
    nodules = []
    for _ in range(50):
        turn, away, height = random.uniform(0, 2 * np.pi), 30 * random.uniform(0, 1) ** 0.5, random.uniform(-90, 90)
        centre = (away * np.cos(turn), away * np.sin(turn), height)
        axes = random.uniform(2.0, 5.0, 3)
        nodules.append(Ellipsoid(NODULE, centre, tuple(axes.tolist()), float(random.uniform(0, 180))))
    grain = random_waves(random, [(w, 1.0) for w in np.geomspace(8.0, 30.0, 14)], np.ones(3, dtype=bool))
    return Chest(tuple(muscles), _ribs(random), tuple(nodules), _vessels(random), grain)


def _ribs(random: np.random.Generator) -> Tubes:
    """Arcs around the inner body, which rise to one side, each of short pieces."""
    start, end = [], []
    for height in np.cumsum(random.uniform(13, 27, 10)) - 100:
        turns = np.linspace(0, 2 * np.pi, 25)[:-5] + random.uniform(0, 2 * np.pi)
        rise = height + random.uniform(5, 14) * np.cos(turns + random.uniform(-0.5, 0.5))
        path = np.stack([39 * np.cos(turns), 38 * np.sin(turns), rise], 1)
        start.append(path[:-1])
        end.append(path[1:])
    count = sum(map(len, start))
    return Tubes(np.concatenate(start), np.concatenate(end), np.full(count, 3.2))


def _vessels(random: np.random.Generator) -> Tubes:
    """Straight vessels from around the axis outwards."""
    turn, away, height = random.uniform([[0.0], [18.0], [-90.0]], [[2 * np.pi], [31.0], [90.0]], (3, VESSELS))
    end = np.stack([away * np.cos(turn), away * np.sin(turn), height], 1)
    start = end * [0.15, 0.15, 1] + random.uniform(-12, 12, (VESSELS, 3)) * [0.3, 0.3, 1]
    return Tubes(start, end, random.uniform(1.0, 2.2, VESSELS))


@dataclass(frozen=True)
class ChestMap:
    """Points of the fixed image → points of the moving image: what is inside slides, then a smooth map moves all."""

    soft: CouplingMap
    screw: Array
    """How the inner body moves along its wall, homogeneous (4, 4) on points in mm."""

    def __call__(self, points: Tensor) -> Tensor:
        """Points (3, N) in mm → where they go, (3, N) in mm."""
        return self.soft(self._slid(points, self.screw))

    def inverse(self, points: Tensor) -> Tensor:
        """Where points (3, N) in mm come from, (3, N) in mm."""
        return self._slid(self.soft.inverse(points), np.linalg.inv(self.screw))

    def jacobian_determinant(self, points: Tensor) -> Tensor:
        """Determinant of the Jacobian matrix at ``points`` (3, N) → (N), on either side of the wall."""
        return self.soft.jacobian_determinant(self._slid(points, self.screw))

    @staticmethod
    def _slid(points: Tensor, motion: Array) -> Tensor:
        """The points, those of the inner body moved."""
        place = points.detach().cpu().numpy().astype(np.float64)
        moved = motion[:3, :3] @ place + motion[:3, 3:]
        inside = _depth(place - np.array(CENTRE_MM)[:, None]) > 0
        return torch.from_numpy(np.where(inside, moved, place)).to(points)


def sliding_motion(slide_mm: float, seed: int) -> Array:
    """How the inner body moves: each point of its wall goes ``slide_mm`` along it, in a direction from ``seed``."""
    direction = np.random.default_rng([seed, 11]).uniform(0, 2 * np.pi)
    along, around = slide_mm * np.cos(direction), slide_mm * np.sin(direction)
    centre, motion = np.array(CENTRE_MM), np.eye(4)
    motion[:3, :3] = rotation((0, 0, 1), float(np.rad2deg(around / RADIUS_MM)))
    motion[:3, 3] = centre + np.array([0, 0, along]) - motion[:3, :3] @ centre
    return motion


def _depth(place: Array) -> Array:
    """How many mm ``place`` (3, N), relative to the chest, lies below the surface of the inner body; (N)."""
    return np.asarray(RADIUS_MM - np.hypot(place[0], place[1]))
