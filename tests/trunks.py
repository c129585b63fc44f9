"""CT of a made-up chest: where the body is, beside lungs as large as real ones, arms, a table, and a field of view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from semreg.core.fields import Volume
from semreg.core.geometry import Grid
from semreg.phantom.grids import rotation
from semreg.phantom.painting import Ellipsoid, Region, Tissue, Tubes, depth_in, number, paint
from semreg.phantom.pair import PhantomPair, Recipe, pair_of, points_of
from semreg.phantom.waves import Array, Waves, random_waves

CENTRE = (7.0, -31.0, 52.0)
"""The middle of the body in mm, LPS."""
HALF = (170.0, 110.0, 420.0)
"""Half axes of the trunk, an ellipse across; it leaves both ends of any image."""
ARM = (210.0, 8.0, 34.0, 38.0)
"""Middle along x (of the left one) and y, and half axes."""

AIR = Tissue(-1000, 0, 0.0)
SKIN = Tissue(20, 0)
FAT = Tissue(-100, 0)
MUSCLE = Tissue(50, 0)
LUNG = Tissue(-850, 0, 3.0)
HEART = Tissue(45, 0)
VESSEL = Tissue(30, 0, 0.3)
BONE = Tissue(450, 0, 0.3)


@dataclass(frozen=True)
class Chest:
    """A trunk with lungs, perhaps with arms beside it; a ``semreg.phantom`` body."""

    arms: bool
    grain: Waves
    vessels: Tubes
    contrasts: tuple[str, str] = ("ct", "ct")
    steepest: float = 80.0

    @property
    def region(self) -> Region:
        """What landmarks lie in."""
        return Region(CENTRE, HALF, (*HALF[:2], 120.0))

    @property
    def label_names(self) -> dict[int, str]:
        """No structure has a number."""
        return {}

    def intensity(self, points: Array, contrast: str) -> Array:  # noqa: ARG002 - all images of it are CT
        """HU at ``points`` (3, N) in mm; (N)."""
        place = _place(points)
        grain = self.grain.at(place) / len(self.grain.phases) ** 0.5
        return paint(self._layers(place), lambda tissue: tissue.first + 10.0 * tissue.grain * grain, place.shape[1])

    def labels(self, points: Array) -> npt.NDArray[np.int16]:
        """Nothing has a number."""
        place = _place(points)
        return number(self._layers(place), place.shape[1])

    def holds(self, points: Array) -> npt.NDArray[np.bool_]:
        """Which ``points`` (3, N) in mm lie in the body, lungs and arms included; (N)."""
        place = _place(points)
        inside = _across(place, 0.0, 0.0, *HALF[:2]) > 0
        return inside | (_arms(place) > 0) if self.arms else inside

    def _layers(self, place: Array) -> Iterator[tuple[Tissue, Array]]:
        yield AIR, np.full(place.shape[1], 1e3, dtype=np.float32)
        trunk = _across(place, 0.0, 0.0, *HALF[:2])
        yield SKIN, trunk
        yield FAT, trunk - 4.0
        yield MUSCLE, _across(place, 0.0, 0.0, HALF[0] - 18, HALF[1] - 14)
        if self.arms:
            yield FAT, _arms(place)
            yield MUSCLE, _arms(place) - 9.0
        for side in (-1, 1):
            yield LUNG, depth_in(Ellipsoid(LUNG, (side * 80.0, 2.0, 5.0), (64, 84, 190)), place)
        yield VESSEL, self.vessels.depth(place)
        yield MUSCLE, depth_in(Ellipsoid(MUSCLE, (-70.0, 5.0, -150.0), (75, 80, 85)), place)
        yield HEART, depth_in(Ellipsoid(HEART, (22.0, -18.0, -25.0), (52, 45, 60), 35), place)
        yield BONE, _across(place, 0.0, 66.0, 19, 17)
        yield BONE, _ribs(place)


@dataclass(frozen=True)
class View:
    """How an image shows the body: what it cuts off, which voxels it has, and what lies beside the body."""

    low: tuple[float, float, float] = (-190.0, -130.0, -75.0)
    """Where the box begins, mm from the middle of the body, and where it ends."""
    high: tuple[float, float, float] = (190.0, 150.0, 75.0)
    spacing: tuple[float, float, float] = (4.6, 4.4, 5.0)
    circle: float | None = None
    """What lies beyond the scanner's circle, as wide as the box, has this value."""
    table: float | None = None
    """How many mm behind the middle of the body the plate of a table with a pad of foam lies; negative: in front."""
    degrees: float = 0.0
    """By how much the box is turned, about an axis that is nearly the patient's."""

    @cached_property
    def grid(self) -> Grid:
        """The voxels."""
        extent = np.subtract(self.high, self.low)
        size = np.maximum(np.rint(extent / self.spacing), 1).astype(int)
        turn = rotation((0.15, -0.1, 1.0), self.degrees)
        middle = np.array(CENTRE) + np.add(self.high, self.low) / 2
        origin = middle - turn @ ((size - 1) / 2 * self.spacing)
        return Grid(tuple(size.tolist()), self.spacing, tuple(origin.tolist()), tuple(map(tuple, turn.tolist())))

    def seen(self, image: Volume) -> Volume:
        """``image`` with the table, and cut off at the circle."""
        place = _place(points_of(self.grid).flatten(1).numpy()).reshape(3, *self.grid.shape)
        data = image.data[0].clone()
        if self.table is not None:
            behind = (place[1] - self.table) * np.sign(self.table)
            bent = behind - 12.0 * (1 - (place[0] / 200.0) ** 2)
            wide = np.abs(place[0]) < 205
            pad, plate = (bent > -22) & (bent <= 0) & wide, (bent > 0) & (bent < 5.5) & wide
            air = data < -700
            air &= ~torch.from_numpy(_across(place.reshape(3, -1), 0, 0, *HALF[:2]).reshape(data.shape) > -2)
            data[torch.from_numpy(pad) & air] = -960.0
            data[torch.from_numpy(plate) & air] = 120.0
        if self.circle is not None:
            data[~torch.from_numpy(self.within())] = self.circle
        return Volume(data[None], self.grid)

    def within(self) -> npt.NDArray[np.bool_]:
        """Which voxels lie in the scanner's circle; all without one."""
        _, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in self.grid.shape], indexing="ij")
        return np.asarray((x**2 + y**2 <= 1) | (self.circle is None))


def make_chest(*, arms: bool = False, seed: int = 0) -> Chest:
    """The body; vessels and texture from ``seed``."""
    random = np.random.default_rng([seed, 21])
    starts, ends, radii = [], [], []
    for side in (-1, 1):
        for _ in range(70):
            start = np.array([side * 80.0, 2.0, 5.0]) + random.uniform(-1, 1, 3) * (52, 66, 110)
            starts.append(start)
            ends.append(start + random.normal(size=3) * 20.0)
            radii.append(random.uniform(2.2, 5.5))
    vessels = Tubes(*(np.array(rows, dtype=np.float32) for rows in (starts, ends, radii)))
    grain = random_waves(random, [(w, 1.0) for w in np.geomspace(12.0, 50.0, 10)], np.ones(3, dtype=bool))
    return Chest(arms, grain, vessels)


def chest_image(view: View, *, arms: bool = False, seed: int = 0) -> tuple[Volume, npt.NDArray[np.bool_]]:
    """CT with noise, (1, *S) in HU, and which of its voxels are the body."""
    chest = make_chest(arms=arms, seed=seed)
    points = points_of(view.grid).flatten(1).numpy()
    values = torch.from_numpy(chest.intensity(points, "ct")).reshape(1, *view.grid.shape)
    values = values + 15.0 * torch.randn(values.shape, generator=torch.Generator().manual_seed(seed))
    inside = chest.holds(points).reshape(view.grid.shape) & view.within()
    return view.seen(Volume(values.clamp_min(-1024).round().float(), view.grid)), inside


def chest_pair(fixed: View, moving: View, *, seed: int = 0) -> PhantomPair:
    """Two CT of one chest, the second one deformed by up to 14 mm; tables stay where the views say."""
    pair = pair_of(make_chest(seed=seed), (fixed.grid, moving.grid), Recipe(("ct", "ct"), 14.0, 300, seed))
    return replace(pair, fixed=fixed.seen(pair.fixed), moving=moving.seen(pair.moving))


def _place(points: Array) -> Array:
    return np.asarray((points - np.array(CENTRE)[:, None]).astype(np.float32))


def _across(place: Array, x: float, y: float, wide: float, deep: float) -> Array:
    """Depth below the surface of a cylinder along z."""
    return np.asarray((1 - np.hypot((place[0] - x) / wide, (place[1] - y) / deep)) * min(wide, deep))


def _arms(place: Array) -> Array:
    x, y, wide, deep = ARM
    return np.maximum(_across(place, -x, y, wide, deep), _across(place, x, y, wide, deep))


def _ribs(place: Array) -> Array:
    """Bars around the lungs, missing in front."""
    around = np.hypot(place[0] / 150.0, place[1] / 94.0)
    along = (place[2] + 0.4 * place[1]) / 27.0
    across = np.hypot((around - 1) * 25.0, (along - np.rint(along)) * 5.5)
    return np.asarray(np.minimum((1 - across) * 4.0, (place[1] + 70) / 3))
