"""Random pairs of small images that are hard to align, each with the map that is right: what ``alignment.py`` measures.

Both images are read from one scene, a function of points in mm, so nothing is interpolated. Knows nothing of semreg's
alignment.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from semreg import Grid, Volume

Array: TypeAlias = npt.NDArray[np.float64]

SPACING_MM = 4.0
RADIUS_MM = 48.0
"""Of the body, about."""


@dataclass(frozen=True)
class Misplaced:
    """A pair whose headers are off."""

    kind: str
    fixed: Volume
    moving: Volume
    points: Array
    """Fixed, in mm, (N, D): of the object."""
    partners: Array
    """Where they lie in the moving image, (N, D)."""
    header: str
    """``right``, ``near`` or ``far``."""

    def error(self, matrix: Array) -> float:
        """The mean distance in mm between where a map brings the points and where they lie."""
        n = self.points.shape[1]
        return float(np.linalg.norm(self.points @ matrix[:n, :n].T + matrix[:n, n] - self.partners, axis=1).mean())


@dataclass(frozen=True)
class Scene:
    """Organs in a body: ellipsoids with a texture. ``tissue`` numbers them, 0 is background."""

    centres: Array
    axes: Array
    radii: Array
    waves: Array
    phases: Array

    @classmethod
    def drawn(cls, generator: np.random.Generator, dimension: int, organs: int) -> Scene:
        """A body and organs within it."""
        radii = [RADIUS_MM * generator.uniform(0.75, 1.15, dimension)]
        centres, axes = [np.zeros(dimension)], [turned(generator, dimension, 15.0)]
        for _ in range(organs):
            centres.append(generator.uniform(-0.65, 0.65, dimension) * radii[0])
            radii.append(RADIUS_MM * generator.uniform(0.12, 0.4, dimension))
            axes.append(turned(generator, dimension, 90.0))
        lengths = generator.uniform(14.0, 60.0, 24)
        ways = generator.normal(size=(24, dimension))
        waves = 2 * np.pi * ways / np.linalg.norm(ways, axis=1)[:, None] / lengths[:, None]
        return cls(np.array(centres), np.array(axes), np.array(radii), waves, generator.uniform(0, 2 * np.pi, 24))

    def tissue(self, points: Array) -> npt.NDArray[np.int64]:
        """The number of the organ at each of the points (N, D): the last that holds it."""
        found = np.zeros(len(points), dtype=np.int64)
        for number, (centre, axes, radii) in enumerate(zip(self.centres, self.axes, self.radii, strict=True), start=1):
            found[(((points - centre) @ axes / radii) ** 2).sum(1) < 1] = number
        return found

    def texture(self, points: Array) -> Array:
        """A smooth texture of deviation 1."""
        return np.asarray(np.cos(points @ self.waves.T + self.phases).sum(1) / math.sqrt(len(self.waves) / 2))


def turned(generator: np.random.Generator, dimension: int, degrees: float) -> Array:
    """A rotation (D, D) by a random angle up to ``degrees``, about a random axis."""
    angle = math.radians(generator.uniform(-degrees, degrees))
    if dimension == 2:
        return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    way = generator.normal(size=3)
    return np.asarray(Rotation.from_rotvec(angle * way / np.linalg.norm(way)).as_matrix())


@dataclass
class _Making:
    """What a kind of pair changes, drawn again for each pair."""

    dimension: int = 3
    organs: int = 9
    noise: tuple[float, float] = (0.03, 0.03)
    """Of the fixed and of the moving image; the tissues lie between 0 and 1."""
    texture: float = 0.06
    same_contrast: bool = False
    size: tuple[tuple[int, ...], tuple[int, ...]] = ((32, 34, 28), (33, 30, 32))
    """Voxels x, y(, z)."""
    off_centre: tuple[float, ...] = ()
    """Of the moving image's field of view, in mm."""
    bend_mm: float = 0.0
    stretch: float = 0.0
    speckle: bool = False
    chain: bool = False


def flat(making: _Making) -> _Making:
    """The same in 2-D, where pixels are half as large."""
    sizes = tuple(tuple(2 * n for n in size[:2]) for size in making.size)
    return replace(making, dimension=2, size=(sizes[0], sizes[1]), off_centre=making.off_centre[:2])


def faint(generator: np.random.Generator) -> _Making:
    """Noise of the order of the contrast."""
    noise = generator.uniform(0.15, 0.6)
    return _Making(noise=(noise, noise * generator.uniform(0.5, 1.5)), same_contrast=bool(generator.integers(2)))


def modalities(generator: np.random.Generator) -> _Making:
    """Other intensities for each tissue in each image."""
    return _Making(noise=(0.05, 0.05), texture=generator.uniform(0.0, 0.1))


def cropped(generator: np.random.Generator) -> _Making:
    """The moving image shows a part of the body."""
    off = generator.uniform(-1, 1, 3) * 40.0
    return _Making(size=((32, 32, 32), (22, 22, 22)), off_centre=tuple(off), same_contrast=bool(generator.integers(2)))


def slab(generator: np.random.Generator) -> _Making:
    """The fixed image is a slab of a few slices."""
    return _Making(size=((32, 32, int(generator.integers(5, 11))), (32, 32, 33)))


def ultrasound(_: np.random.Generator) -> _Making:
    """The moving image is a sector of speckle."""
    return _Making(speckle=True, noise=(0.04, 0.0), size=((32, 32, 28), (28, 28, 26)), bend_mm=2.0, texture=0.02)


def chain(_: np.random.Generator) -> _Making:
    """What is shown repeats along one axis, as vertebrae do."""
    return _Making(chain=True, noise=(0.06, 0.06), size=((28, 28, 34), (26, 26, 28)))


def subjects(generator: np.random.Generator) -> _Making:
    """Two persons of different size and shape."""
    return _Making(bend_mm=generator.uniform(2.0, 6.0), stretch=0.15, noise=(0.06, 0.06))


def pictures(_: np.random.Generator) -> _Making:
    """Two stains of one slide in 2-D."""
    return _Making(
        dimension=2, size=((64, 60), (60, 66)), organs=25, noise=(0.08, 0.08), texture=0.15, bend_mm=2.0, stretch=0.05
    )


KINDS: dict[str, Callable[[np.random.Generator], _Making]] = {
    each.__name__: each for each in (faint, modalities, cropped, slab, ultrasound, chain, subjects, pictures)
}


def misplaced(kind: str, number: int) -> Misplaced:
    """A pair of a kind; the same number gives the same pair. Three of four are in 2-D, which is cheap."""
    generator = np.random.default_rng([number, *kind.encode()])
    making = KINDS[kind](generator)
    making = flat(making) if number % 4 and kind not in ("slab", "pictures") else making
    n = making.dimension
    scene = _chain(generator, n) if making.chain else Scene.drawn(generator, n, making.organs)
    header = ("right", "near", "far")[number // 2 % 3]
    angle, shift = {"right": (0.0, 0.0), "near": (6.0, 12.0), "far": (180.0 if n == 2 else 25.0, 45.0)}[header]
    spacing = SPACING_MM if n == 3 else SPACING_MM / 2
    linear = turned(generator, n, angle) @ (np.eye(n) + making.stretch * _symmetric(generator, n))
    move = generator.uniform(-1, 1, n) * shift
    bend = _bend(generator, n, making.bend_mm)
    fixed = _grid(making.size[0], spacing, np.zeros(n), np.eye(n))
    # the moving image shows its own part of the scene; the map that is right is linear(p + bend(p)) + move
    centre = np.array(making.off_centre or (0.0,) * n) + move
    moving = _grid(making.size[1], spacing, centre, turned(generator, n, 3.0))
    back = np.linalg.inv(linear)
    there = _points(fixed)
    here = (_points(moving) - move) @ back.T
    here = here - bend(here)  # the inverse of a bend is, to first order, the bend the other way
    first = generator.uniform(0, 1, len(scene.radii) + 1)
    second = first if making.same_contrast else generator.uniform(0, 1, len(first))
    first[0] = second[0] = 0.0
    images = []
    for points, grid, tissues, noise, echo in (
        (there, fixed, first, making.noise[0], False),
        (here, moving, second, making.noise[1], making.speckle),
    ):
        label = scene.tissue(points)
        value = tissues[label] + making.texture * scene.texture(points) * (label > 0)
        value = value.reshape(grid.shape)
        value = _echo(generator, value, label.reshape(grid.shape)) if echo else value
        value = value + noise * generator.normal(size=value.shape)
        images.append(Volume(torch.as_tensor(1000 * value, dtype=torch.float32)[None], grid))
    inner = there[scene.tissue(there) > 0]
    chosen = inner[generator.permutation(len(inner))[:400]]
    partners = (chosen + bend(chosen)) @ linear.T + move
    return Misplaced(kind, *images, chosen, partners, header)


def _chain(generator: np.random.Generator, dimension: int) -> Scene:
    """A body with bones that differ a little, in a row along its last axis."""
    base = Scene.drawn(generator, dimension, 3)
    centres, axes, radii = list(base.centres), list(base.axes), list(base.radii)
    for k in range(-3, 4):
        centres.append(np.array([0.0, 12.0, 19.0 * k][-dimension:]) + generator.normal(size=dimension))
        radii.append(np.array([11.0, 9.0, 7.5][-dimension:]) * generator.uniform(0.85, 1.15, dimension))
        axes.append(turned(generator, dimension, 8.0))
    return Scene(np.array(centres), np.array(axes), np.array(radii), base.waves, base.phases)


def _echo(generator: np.random.Generator, value: Array, label: npt.NDArray[np.int64]) -> Array:
    """Speckle of the borders between tissues and of tissues of little contrast, in a sector, weaker with the depth."""
    borders = sum(np.abs(np.diff(label, axis=axis, append=0)) > 0 for axis in range(label.ndim))
    bright = 0.3 + 0.25 * value + 0.25 * np.minimum(borders, 1)
    waves = gaussian_filter(generator.normal(size=(2, *value.shape)), (0, *[0.8] * value.ndim))
    speckle = np.hypot(*waves) / np.hypot(*waves).mean()
    *_, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in value.shape], indexing="ij")
    depth = (y + 1.6) / 2.6
    sector = (np.abs(np.arctan2(x, y + 1.6)) < 0.6) & (np.hypot(x, y + 1.6) < 2.5)
    return np.asarray(bright * speckle * np.exp(-0.6 * depth) * sector)


def _symmetric(generator: np.random.Generator, dimension: int) -> Array:
    matrix = generator.uniform(-1, 1, (dimension, dimension))
    return (matrix + matrix.T) / 2


def _bend(generator: np.random.Generator, dimension: int, amplitude_mm: float) -> Callable[[Array], Array]:
    """A smooth displacement of deviation ``amplitude_mm`` along each axis."""
    ways = generator.normal(size=(dimension, 3, dimension))
    ways *= 2 * np.pi / 90.0 / np.linalg.norm(ways, axis=-1, keepdims=True)
    phases = generator.uniform(0, 2 * np.pi, (dimension, 3))

    def bend(points: Array) -> Array:
        waves = np.cos(np.einsum("nd,akd->nak", points, ways) + phases).sum(-1)
        return np.asarray(amplitude_mm * waves / math.sqrt(1.5))

    return bend


def _grid(size: tuple[int, ...], spacing: float, centre: Array, direction: Array) -> Grid:
    origin = centre - direction @ ((np.array(size) - 1) / 2 * spacing)
    return Grid(size, (spacing,) * len(size), tuple(origin), tuple(map(tuple, direction.tolist())))


def _points(grid: Grid) -> Array:
    """The centres of all voxels, (N, D), in mm."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1).reshape(-1, grid.dimension)
    matrix = grid.index_to_point()
    n = grid.dimension
    return np.asarray(index @ matrix[:n, :n].T + matrix[:n, n])
