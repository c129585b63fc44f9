"""The rigid parts as users give them: a label map of the fixed image → where each part is on its grid.

Knows nothing of how they move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int64
from scipy.ndimage import maximum_filter, minimum_filter
from torch import Tensor

from semreg.core.fields import Volume, reorder_tensor
from semreg.core.geometry import AxisOrder, Grid, index_map, reorder
from semreg.core.sampling import base_index, inside, transform_index
from semreg.errors import ConfigError, GeometryError
from semreg.io.bridge import LabelMap

STIFF = 50.0
"""Weight of the strain in a part during search and descent: what is nearly rigid there pulls its surroundings along."""
FEW = 8
"""Labels that a message names."""


@dataclass(frozen=True)
class KnownParts:
    """Label maps that were checked, on the grid of the fixed image."""

    numbers: Int64[Tensor, "*s"]
    """Of each voxel the place of its part in ``labels``, from 1; 0: in none."""
    labels: tuple[int, ...]
    """Those with a voxel in the image."""
    grid: Grid
    names: Mapping[int, str]
    outside: tuple[int, ...] = ()
    """Those without one."""

    def reordered(self, axes: AxisOrder) -> KnownParts:
        """The same with the axes permuted and flipped."""
        return replace(self, numbers=reorder_tensor(self.numbers[None], axes)[0], grid=reorder(self.grid, axes))

    def as_labels(self) -> LabelMap:
        """The parts as labels on the grid of the fixed image."""
        return LabelMap(Volume(self.numbers[None].float(), self.grid), (0, *self.labels), self.names)

    def held(self) -> Int64[Tensor, "*s"]:
        """Of each voxel the part that holds it, as ``numbers``: each part and the voxels around it.

        So all cells that a part is in are rigid, also between their corners. A voxel beside two parts is held by none:
        where parts touch their motions need room to pass into each other.
        """
        values = self.numbers.numpy()
        most = maximum_filter(values, size=3, mode="nearest")
        least = minimum_filter(np.where(values > 0, values, len(self.labels) + 1), size=3, mode="nearest")
        return torch.from_numpy(np.where(most == least, most, 0))

    def stiff(self, given: Volume | None) -> Volume:
        """The weights of the regularity: ``STIFF`` in the parts, elsewhere those that were ``given``, or 1."""
        usual = torch.ones(1, *self.grid.shape) if given is None else given.on(self.grid).data
        return Volume(torch.where(self.numbers[None] > 0, usual.clamp(min=STIFF), usual), self.grid)


def checked_parts(found: LabelMap, chosen: Sequence[int], grid: Grid) -> KnownParts:
    """The parts that move rigidly, on the grid of the fixed image.

    A voxel belongs to the part whose label is nearest, or whose label has a voxel centre in it: so no part is lost
    that is smaller than a voxel.

    Args:
        found: the labels, on any grid in the space of the fixed image; 0 is no part.
        chosen: the labels that are parts; none: all.
        grid: that of the fixed image.

    Returns:
        Where each part is.

    Raises:
        GeometryError: for labels of another dimension, and where none lies in the fixed image.
        ConfigError: for chosen labels that the map has not, and for a map without any.
    """
    if found.grid.dimension != grid.dimension:
        raise GeometryError(
            f"expected rigid parts in {grid.dimension}-D as the images are, got labels in {found.grid.dimension}-D"
        )
    known = [label for label in found.labels if label != 0]
    missing = sorted(set(chosen) - set(known))
    if missing or not known:
        raise ConfigError(
            f"expected labels of rigid parts {named(chosen) if chosen else 'above 0'}, got a label map with "
            f"{named(known)}: name labels that it has"
        )
    wanted = [label for label in known if label in set(chosen or known)]
    table = torch.zeros(len(found.labels), dtype=torch.int64)
    table[[found.labels.index(label) for label in wanted]] = torch.arange(1, len(wanted) + 1)
    numbers = table[found.numbers.on(grid, mode="nearest", outside=0.0).data[0].long()]
    _add_centres(numbers, table[found.numbers.data[0].long()], index_map(found.grid, grid))
    seen = [number for number in range(1, len(wanted) + 1) if bool((numbers == number).any())]
    if not seen:
        raise GeometryError(
            f"expected rigid parts in the box of the fixed image, {grid.box()}, got labels on a grid of "
            f"{found.grid.box()}: give labels of the fixed image"
        )
    places = torch.zeros(len(wanted) + 1, dtype=torch.int64)
    places[seen] = torch.arange(1, len(seen) + 1)
    return KnownParts(
        numbers=places[numbers],
        labels=tuple(wanted[number - 1] for number in seen),
        grid=grid,
        names=found.names,
        outside=tuple(label for number, label in enumerate(wanted, 1) if number not in seen),
    )


def named(labels: Sequence[int]) -> str:
    """Some labels in words."""
    shown = ", ".join(map(str, sorted(labels)[:FEW])) or "none"
    return f"{shown}, …" if len(labels) > FEW else shown


def _add_centres(numbers: Tensor, given: Tensor, to_grid: np.ndarray) -> None:
    """Give voxels of none the part of a label voxel whose centre lies in them."""
    places = given.nonzero().T
    index = transform_index(to_grid, places.double())
    near = index.round().long()
    there = inside(index, tuple(numbers.shape))
    near = torch.minimum(near.clamp(min=0), torch.tensor(numbers.shape)[:, None] - 1)[:, there]
    labels = given[tuple(places)][there]
    free = numbers[tuple(near)] == 0
    numbers[tuple(near[:, free])] = labels[free]


def part_points(parts: KnownParts, number: int) -> np.ndarray:
    """The voxel centres of a part, (D, N) in mm."""
    index = base_index(parts.grid.shape, like=torch.zeros(1, dtype=torch.float64))
    return np.asarray(transform_index(parts.grid.index_to_point(), index[:, parts.numbers == number]).numpy())
