"""Several images of one body, each deformed by a smooth field of its own; the mean of all fields is 0 everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from semreg.core.fields import Field, Volume
from semreg.phantom import make_anatomy, make_pair, render
from semreg.phantom.waves import Waves, random_waves

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


class Bends:
    """Displacements of all members at points (D, N) in mm: random waves less their mean over the members."""

    def __init__(self, count: int, dimension: int, millimetres: float, seed: int) -> None:
        """Waves for ``count`` members, of about ``millimetres`` along each axis."""
        random = np.random.default_rng([seed, 7])
        axes = np.ones(dimension, dtype=bool)
        self.waves = [[random_waves(random, WAVES, axes) for _ in range(dimension)] for _ in range(count)]
        self.factor = millimetres

    def __call__(self, member: int, points: Tensor) -> Tensor:
        """Of one member, (D, N) in mm."""
        place = points.numpy().astype(np.float64)
        every = [self._of(waves, place) for waves in self.waves]
        return torch.from_numpy(self.factor * (every[member] - np.mean(every, axis=0))).to(points)

    def back(self, member: int, points: Tensor) -> Tensor:
        """Where points of an image come from in the body."""
        found = points.clone()
        for _ in range(25):
            found = points - self(member, found)
        return found

    @staticmethod
    def _of(waves: list[Waves], place: np.ndarray) -> np.ndarray:
        return np.stack([wave.at(place) for wave in waves])


def make_cohort(
    count: int = 8, *, size: int = 64, dimension: int = 2, millimetres: float = 3.0, seed: int = 0
) -> Cohort:
    """``count`` images in MR of one body on one grid, with noise, moved by about ``millimetres`` and more."""
    pair = make_pair(size=size, dimension=dimension, frames="isotropic", landmarks=120)
    grid, body, bends = pair.fixed.grid, make_anatomy(0), Bends(count, dimension, millimetres, seed)
    landmarks = pair.fixed_points.T.double()
    noise = torch.Generator().manual_seed(seed)
    members = []
    for number in range(count):
        seen = render(body, grid, "mr", origin_of=lambda points, number=number: bends.back(number, points))
        data = seen.data + 10.0 * torch.randn(seen.data.shape, generator=noise)
        members.append(Member(Volume(data, grid), landmarks + bends(number, landmarks)))
    return Cohort(render(body, grid, "mr"), landmarks, tuple(members))


def landmark_error(cohort: Cohort, fields: Iterable[Field]) -> float:
    """Mean distance in mm of the landmarks of a template from those of the body; a field template → image a member.

    A landmark of the template is the mean of where the fields say that it is by each member.
    """
    ways = zip(fields, cohort.members, strict=True)
    found = torch.stack([field.inverse_point_map()(member.moved) for field, member in ways]).mean(0)
    return float((found - cohort.landmarks).norm(dim=0).mean())
