"""Several images of one body, each deformed by a smooth field of its own; the mean of all fields is 0 everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from semreg.core.fields import Field, Volume
from semreg.phantom import make_anatomy, make_pair, render
from semreg.phantom.waves import random_waves

WAVES = [(160.0, 1.0), (120.0, 0.8), (90.0, 0.6)]
"""Wavelength in mm and height, before the heights are scaled."""


@dataclass(frozen=True)
class Member:
    """An image of the body, and where it has the body's points."""

    image: Volume
    moved: Tensor
    """The landmarks of the body in this image, (D, N) in mm."""


@dataclass(frozen=True)
class Cohort:
    """The body as it is in the mean, and the images of it."""

    mean: Volume
    landmarks: Tensor
    """In the body, (D, N) in mm, float64."""
    members: tuple[Member, ...]

    @property
    def mean_landmarks(self) -> Tensor:
        """The mean of the landmarks of all members, (D, N) in mm."""
        return torch.stack([member.moved for member in self.members]).mean(0)

    @property
    def images(self) -> list[Volume]:
        """Of all members."""
        return [member.image for member in self.members]


class Moves:
    """Displacements of all members at points (D, N) in mm: sums of fields of waves, with weights (members, fields)."""

    def __init__(self, weights: np.ndarray, dimension: int, seed: int) -> None:
        """Waves of a height of about 1 mm along each axis, times the weights in mm."""
        random = np.random.default_rng([seed, 7])
        axes = np.ones(dimension, dtype=bool)
        self.waves = [[random_waves(random, WAVES, axes) for _ in range(dimension)] for _ in range(weights.shape[1])]
        self.weights = weights

    def __call__(self, member: int, points: Tensor) -> Tensor:
        """Of one member, (D, N) in mm."""
        place = points.numpy().astype(np.float64)
        parts = zip(self.weights[member], self.waves, strict=True)
        moved = sum(weight * np.stack([wave.at(place) for wave in waves]) for weight, waves in parts)
        return torch.from_numpy(np.asarray(moved)).to(points)

    def back(self, member: int, points: Tensor) -> Tensor:
        """Where points of an image come from in the body."""
        found = points.clone()
        for _ in range(25):
            found = points - self(member, found)
        return found


def make_cohort(
    count: int = 8, *, size: int = 64, dimension: int = 2, millimetres: float = 3.0, seed: int = 0
) -> Cohort:
    """``count`` images in MR of one body on one grid, with noise, moved by about ``millimetres`` and more.

    Each has a field of its own, less the mean over all.
    """
    weights = millimetres * (np.eye(count) - 1 / count)
    return _seen(Moves(weights, dimension, seed), size, seed)


def make_breath(
    count: int = 10, *, size: int = 64, dimension: int = 2, millimetres: float = 6.0, seed: int = 1
) -> Cohort:
    """A series over one breath: out and back by one field, and by another one on a way of its own, as lungs have it."""
    angle = 2 * np.pi * np.arange(count) / count
    weights = millimetres * np.stack([(1 - np.cos(angle)) / 2, 0.25 * np.sin(angle)], axis=1)
    return _seen(Moves(weights, dimension, seed), size, seed)


def _seen(moves: Moves, size: int, seed: int) -> Cohort:
    """The images of the body with these displacements."""
    count, dimension = len(moves.weights), len(moves.waves[0])
    pair = make_pair(size=size, dimension=dimension, frames="isotropic", landmarks=120)
    grid, body = pair.fixed.grid, make_anatomy(0)
    landmarks = pair.fixed_points.T.double()
    noise = torch.Generator().manual_seed(seed)
    members = []
    for number in range(count):
        seen = render(body, grid, "mr", origin_of=partial(moves.back, number))
        data = seen.data + 10.0 * torch.randn(seen.data.shape, generator=noise)
        members.append(Member(Volume(data, grid), landmarks + moves(number, landmarks)))
    return Cohort(render(body, grid, "mr"), landmarks, tuple(members))


def landmark_error(cohort: Cohort, fields: Iterable[Field]) -> float:
    """Mean distance in mm of the landmarks of a template from those of the body; a field template → image a member.

    A landmark of the template is the mean of where the fields say that it is by each member.
    """
    ways = zip(fields, cohort.members, strict=True)
    found = torch.stack([field.inverse_point_map()(member.moved) for field, member in ways]).mean(0)
    return float((found - cohort.landmarks).norm(dim=0).mean())


def trajectories(series: Cohort, fields: Iterable[Field]) -> Tensor:
    """Where the landmarks of the first frame are in each frame by the maps reference → frame, (T, D, N) in mm."""
    ways = list(fields)
    start = ways[0].inverse_point_map()(series.members[0].moved)
    return torch.stack([way.point_map()(start) for way in ways])


def frame_errors(series: Cohort, fields: Iterable[Field]) -> Tensor:
    """Mean distance of these from where they are in truth, (T,) in mm."""
    true = torch.stack([member.moved for member in series.members])
    return (trajectories(series, fields) - true).norm(dim=1).mean(1)


def roughness(paths: Tensor) -> float:
    """How much paths (T, D, N) around a cycle bend: mean length of their second difference in mm."""
    return float((paths.roll(-1, 0) - 2 * paths + paths.roll(1, 0)).norm(dim=1).mean())
