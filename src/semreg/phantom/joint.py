"""A made-up joint: three bones that move rigidly, each its own way, in soft tissue that follows.

The map is exactly rigid in each bone and 2 mm around it, and smooth elsewhere. Knows nothing of grids.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from semreg.phantom.couplings import CouplingMap
from semreg.phantom.grids import rotation
from semreg.phantom.painting import Ellipsoid, PaintedInCtAndMr, Region, Tissue, depth_in, is_near
from semreg.phantom.waves import Array, Waves, random_waves

CENTRE_MM = (-14.0, 23.0, 61.0)
"""Off the origin, so that a forgotten one shows."""
LIMB_MM = (54.0, 50.0, 160.0)
"""Half axes; along z it leaves both images."""
REGION = Region(CENTRE_MM, LIMB_MM, (*LIMB_MM[:2], 66.0))
LABELS = {1: "upper bone", 2: "lower bone", 3: "kneecap"}

AIR = Tissue(-1000, 25, 0.0)
FAT = Tissue(-100, 880)
MUSCLE = Tissue(55, 290)
OTHER_MUSCLE = Tissue(75, 360)
CORTEX = {label: Tissue(800, 60, 0.3, label=label) for label in LABELS}
MARROW = {label: Tissue(230, 640, 1.5, label=label) for label in LABELS}
VESSEL = Tissue(190, 95, 0.3)

BONES = {
    1: ((-7.0, 2.0, 40.0), (14.0, 11.0, 31.0), 20.0),
    2: ((8.0, 6.0, -37.0), (13.0, 10.0, 30.0), -25.0),
    3: ((2.0, -28.0, 0.0), (13.0, 7.0, 12.0), 10.0),
}
"""Of each: centre and half axes in mm, its turn about z in degrees."""
MOTIONS = {
    1: ((1.0, 0.4, 0.3), 7.0, (3.0, -2.0, 3.0)),
    2: ((0.8, -0.5, 0.6), -9.0, (-3.0, 3.0, 1.5)),
    3: ((0.3, 1.0, -0.5), 12.0, (2.5, 2.0, -3.0)),
}
"""Of each: the axis about which it turns, by how many degrees about its centre, and its translation in mm."""
MARGIN_MM, FADING_MM = 2.0, 24.0
"""How far around a bone the map is rigid, and where nothing of its motion is left."""
STEP_MM = 1e-3
"""Of differences."""


@dataclass(frozen=True)
class Joint(PaintedInCtAndMr):
    """What is where, relative to ``CENTRE_MM``."""

    muscles: tuple[Ellipsoid, ...]
    grain: Waves

    region = REGION
    label_names = LABELS

    def _place(self, points: Array) -> Array:
        """``points`` (3, N) in mm relative to the joint, float32."""
        return np.asarray(points - np.array(CENTRE_MM)[:, None], dtype=np.float32)

    def _layers(self, place: Array) -> Iterator[tuple[Tissue, Array]]:
        """What is where at ``place`` (3, N); the later over the earlier."""
        limb = depth_in(Ellipsoid(FAT, (0.0, 0.0, 0.0), LIMB_MM), place)
        yield AIR, -limb
        yield FAT, limb
        yield MUSCLE, limb - 7.0
        low, high = place.min(1), place.max(1)
        for piece in self.muscles:
            if is_near(piece, low, high):
                yield piece.tissue, np.minimum(depth_in(piece, place), limb - 7.0)
        for label, (centre, axes, degrees) in BONES.items():
            depth = depth_in(Ellipsoid(CORTEX[label], centre, axes, degrees), place)
            yield CORTEX[label], depth
            yield MARROW[label], depth - 2.0


def make_joint(seed: int = 0) -> Joint:
    """The bones; muscles, vessels and texture from ``seed``."""
    random = np.random.default_rng([seed, 5])
    muscles = []
    for number in range(26):
        centre = random.uniform([-40, -36, -80], [40, 36, 80])
        axes = random.uniform([4, 4, 9], [11, 9, 26])
        tissue = (OTHER_MUSCLE, FAT, VESSEL)[number % 3]
        muscles.append(Ellipsoid(tissue, tuple(centre.tolist()), tuple(axes.tolist()), float(random.uniform(0, 180))))
    grain = random_waves(random, [(w, 1.0) for w in np.geomspace(8.0, 30.0, 14)], np.ones(3, dtype=bool))
    return Joint(tuple(muscles), grain)


@dataclass(frozen=True)
class JointMap:
    """Points of the fixed image → points of the moving image: rigid in each bone, a smooth map around."""

    soft: CouplingMap

    def __call__(self, points: Tensor) -> Tensor:
        """Points (3, N) in mm → where they go, (3, N) in mm."""
        place = points.detach().cpu().numpy().astype(np.float64)
        weights = _weights(place)
        result = self.soft(torch.from_numpy(place)).numpy()
        change = sum(weights[label] * (_carried(bone_motion(label), place) - result) for label in BONES)
        return torch.from_numpy(result + change).to(points)

    def inverse(self, points: Tensor) -> Tensor:
        """Where points (3, N) in mm come from, (3, N) in mm, by Newton's method."""
        goal = points.detach().cpu().double()
        found = self.soft.inverse(goal)
        for _ in range(12):
            left = self(found) - goal
            if float(left.abs().max()) < 1e-6:
                break
            step = torch.linalg.solve(self._slopes(found), left.T[..., None])[..., 0].T
            found = found - step * (8.0 / torch.linalg.vector_norm(step, dim=0).clamp(min=8.0))
        return found.to(points)

    def jacobian_determinant(self, points: Tensor) -> Tensor:
        """Determinant of the Jacobian matrix at ``points`` (3, N) → (N), by differences."""
        found: Tensor = torch.linalg.det(self._slopes(points.double()))
        return found.to(points)

    def _slopes(self, points: Tensor) -> Tensor:
        """The derivative at points (3, N): (N, 3, 3), row i of the component i."""
        steps = STEP_MM * torch.eye(3, dtype=torch.float64)[:, :, None]
        columns = [(self(points + step) - self(points - step)) / (2 * STEP_MM) for step in steps]
        return torch.stack(columns, -1).movedim(1, 0)


def bone_motion(label: int) -> Array:
    """The rigid map of a bone, fixed → moving, homogeneous (4, 4) on points in mm."""
    axis, degrees, shift = MOTIONS[label]
    centre = np.array(BONES[label][0]) + CENTRE_MM
    motion = np.eye(4)
    motion[:3, :3] = rotation(axis, degrees)
    motion[:3, 3] = centre + shift - motion[:3, :3] @ centre
    return motion


def _carried(motion: Array, place: Array) -> Array:
    return np.asarray(motion[:3, :3] @ place + motion[:3, 3:])


def _weights(place: Array) -> dict[int, Array]:
    """How far each place (3, N) in mm goes with each bone: 1 in it, 0 in the others and far away; (N) each."""
    near = {}
    relative = place - np.array(CENTRE_MM)[:, None]
    for label, (centre, axes, degrees) in BONES.items():
        away = -depth_in(Ellipsoid(CORTEX[label], centre, axes, degrees), relative)
        share = np.clip((FADING_MM - away) / (FADING_MM - MARGIN_MM), 0.0, 1.0)
        near[label] = share * share * (3 - 2 * share)
    shares = {
        label: own * np.prod([1 - other for name, other in near.items() if name != label], axis=0)
        for label, own in near.items()
    }
    whole = sum(shares.values()) + np.prod([1 - own for own in near.values()], axis=0)
    return {label: share / whole for label, share in shares.items()}
