"""Features of both images, computed block by block once and kept in chunks on disk, in half precision.

A block is computed with as many voxels around it as a descriptor sees, so it is what it is in the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from semreg.core.fields import Layer, Volume
from semreg.core.geometry import Grid
from semreg.distances import DISTANCES
from semreg.features.contract import Descriptor
from semreg.features.descriptors import DESCRIPTORS
from semreg.features.extract import describe
from semreg.preprocess.preparation import LEAST_BLUR, Prepared, blurred
from semreg.registration.blocks.boxes import Box, blocks_of
from semreg.registration.blocks.sides import Side
from semreg.registration.blocks.store import Store
from semreg.registration.dense.terms import SCALE_SAMPLES

Name = Literal["fixed", "moving"]


@dataclass(frozen=True)
class Compared:
    """What is compared: the features, and how."""

    model: str
    """A built-in descriptor."""
    parameters: tuple[str, ...]
    distance: str
    pooling: int
    radius: int
    """Of distances in windows, in samples."""

    @property
    def intensities(self) -> bool:
        """Whether it is the last descent, on intensities in windows."""
        return self.model == "intensity" and self.distance == "lncc_squared"

    @property
    def leads(self) -> bool:
        """Whether it can be searched with: the last descent is near the truth, and some distances lead nowhere."""
        return not self.intensities and DISTANCES[self.distance].leads

    def descriptor(self, dimension: int) -> Descriptor:
        """The formula."""
        return DESCRIPTORS[self.model].of(self.model, dimension, self.parameters)


@dataclass(frozen=True)
class Maps:
    """The features of both images as arrays of Zarr in a folder."""

    folder: str
    fixed: Side
    moving: Side
    compared: Compared
    block: int
    """Samples of a block along each axis."""

    @property
    def store(self) -> Store:
        """Where its files are."""
        return Store(Path(self.folder))

    def side(self, name: Name) -> Side:
        """One of the images."""
        return self.fixed if name == "fixed" else self.moving

    def grid(self, name: Name) -> Grid:
        """Where its features lie."""
        return self.side(name).grid.pooled(self.compared.pooling)

    def boxes(self, name: Name) -> list[Box]:
        """The blocks of its features."""
        return blocks_of(self.grid(name).shape, self.block)

    @property
    def channels(self) -> int:
        """Of the features."""
        return self.compared.descriptor(self.fixed.grid.dimension).spec.channels

    @property
    def bytes(self) -> int:
        """What the features of both images take on disk."""
        each = (2 * self.channels if self.channels > 1 else 4) + 2
        return each * (self.grid("fixed").voxels + self.grid("moving").voxels)

    def create(self) -> None:
        """Make the arrays, empty, unless they are there."""
        import zarr

        if self.store.has("created"):
            return
        channels, group = self.channels, zarr.open_group(self._path, mode="w")
        for name in ("fixed", "moving"):
            shape = self.grid(name).shape
            chunks = tuple(min(self.block, n) for n in shape)
            kind = "float16" if channels > 1 else "float32"  # descriptors are in 0 … 1, intensities are not
            group.create_array(
                f"{name}-features", shape=(channels, *shape), chunks=(channels, *chunks), dtype=kind, compressors=None
            )
            group.create_array(f"{name}-weight", shape=(1, *shape), chunks=(1, *chunks), dtype="float16")
        self.store.write_text("created", "")

    def layer(self, name: Name, box: Box) -> Layer:
        """The features of a box, float32."""
        grid, parts = box.of(self.grid(name)), []
        for what in ("features", "weight"):
            found = np.asarray(self._array(name, what)[(slice(None), *box.slices)], dtype=np.float32)
            parts.append(Volume(torch.from_numpy(found), grid))
        return Layer(parts[0], None if bool((parts[1].data == 1).all()) else parts[1])

    def sparse(self, name: Name) -> Layer:
        """Samples from all over an image, ``SCALE_SAMPLES`` of them at most."""
        grid = self.grid(name)
        apart = math.ceil((grid.voxels / SCALE_SAMPLES) ** (1 / grid.dimension))
        part = (slice(None), *[slice(None, None, apart)] * grid.dimension)
        features, weight = (
            torch.from_numpy(np.asarray(self._array(name, what)[part], dtype=np.float32))
            for what in ("features", "weight")
        )
        thin = grid.lattice([0.0] * grid.dimension, [float(apart)] * grid.dimension, tuple(features.shape[1:]))
        return Layer(Volume(features, thin), Volume(weight, thin))

    def write(self, name: Name, box: Box) -> None:
        """Compute the features of a box and write them."""
        side, pooling = self.side(name), self.compared.pooling
        model = self.compared.descriptor(side.grid.dimension)
        core = box.times(pooling, side.grid.shape)
        halo = -(-(model.spec.halo + 1) // pooling) * pooling
        around = core.grown(halo, side.grid.shape)
        seen = _blurred(side.read(around), side.blur)
        found = describe(seen.volume, model, pooling=pooling, weight=seen.weight, reference=side.intensities.stats)
        inner = tuple(
            slice((a - o) // pooling, (a - o) // pooling + n)
            for a, o, n in zip(core.start, around.start, box.shape, strict=True)
        )
        share = found.weight.data if found.weight is not None else torch.ones_like(found.features.data[:1])
        for what, data in (("features", found.features.data), ("weight", share)):
            self._array(name, what)[(slice(None), *box.slices)] = data[(slice(None), *inner)].numpy()

    @property
    def _path(self) -> str:
        return str(self.store.folder / "maps.zarr")

    def _array(self, name: Name, what: str) -> Any:
        import zarr

        return zarr.open_group(self._path, mode="r+")[f"{name}-{what}"]


def _blurred(image: Prepared, blur: Sequence[float]) -> Prepared:
    return blurred(image, tuple(blur)) if blur and max(blur) >= LEAST_BLUR else image


@dataclass(frozen=True)
class FeatureTask:
    """The features of one block."""

    maps: Maps
    name: Name
    number: int

    @property
    def mark(self) -> str:
        """The file that says that it is done."""
        return f"done/{self.name}-{self.number}"

    def run(self) -> None:
        """Compute and write them."""
        self.maps.write(self.name, self.maps.boxes(self.name)[self.number])
        self.maps.store.write_text(self.mark, "")


def feature_tasks(maps: Maps) -> list[FeatureTask]:
    """What is to be done yet."""
    every = [FeatureTask(maps, name, n) for name in ("fixed", "moving") for n in range(len(maps.boxes(name)))]
    return [task for task in every if not maps.store.has(task.mark)]
