"""Distances of features at scattered points: means over the channels and the points. Knows no images.

The formulas are those of ``semreg.distances``; windows, which need a grid there, are here the cells of a lattice over
the points. Everything is computed in double precision, whatever the features are stored in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semreg.distances import DISTANCES

Points: TypeAlias = npt.NDArray[np.float64]

PER_CELL = 27
"""Windows: points that a cell holds on average, at least."""
FINEST = 1e-4
"""Windows: the smallest edge of a cell as a share of the longest one of the box of the points."""
PRECISION = 1.05
"""Windows: to what factor the edge is found."""


@dataclass(frozen=True)
class Lattice:
    """Cells of equal edges over points: ``cell`` (N,) is the number of the cell that each point is in, from 0."""

    cell: Tensor
    edge_mm: float


def lattice_of(points: Points) -> Lattice:
    """The cubic lattice whose occupied cells hold ``PER_CELL`` of the points (N, D), mm, on average or a little more.

    One cell is centred in the box of the points.
    """
    low, high = points.min(0), points.max(0)
    centre, longest = (low + high) / 2, float((high - low).max()) or 1.0

    def cells(edge: float) -> npt.NDArray[np.int64]:
        return _numbered(np.floor((points - centre) / edge + 0.5).astype(np.int64))

    def full(cell: npt.NDArray[np.int64]) -> bool:
        return len(points) >= PER_CELL * (int(cell.max()) + 1)

    smaller, larger = FINEST * longest, 2 * longest  # the larger one is a single cell
    found = cells(larger)
    while larger > PRECISION * smaller:
        edge = math.sqrt(smaller * larger)
        cell = cells(edge)
        if full(cell):
            larger, found = edge, cell
        else:
            smaller = edge
    return Lattice(torch.from_numpy(found), larger)


def _numbered(lattice: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Cells, given by their places (N, D), numbered from 0 without gaps, (N,)."""
    lattice = lattice - lattice.min(0)
    flat = np.ravel_multi_index(tuple(lattice.T), tuple(lattice.max(0) + 1))
    return np.unique(flat, return_inverse=True)[1].reshape(-1).astype(np.int64)


def is_additive(name: str) -> bool:
    """Whether the distance is a mean of one number a point, so that points can be handled in parts."""
    return DISTANCES[name].slope is not None


def in_windows(name: str) -> bool:
    """Whether the distance compares points with their neighbours, in cells."""
    return DISTANCES[name].in_cells is not None


def per_channel(name: str, channels: int) -> int:
    """What the distance of ``distances`` is divided by to be a mean over the channels."""
    return channels if DISTANCES[name].summed else 1


def additive(name: str, fixed: Tensor, moving: Tensor, count: int) -> tuple[float, Tensor]:
    """The part of some points, features (P, C), in the mean over ``count`` points, and its derivative in ``moving``."""
    slope = DISTANCES[name].slope
    if slope is None:
        raise ValueError(f"expected a distance that is a mean over points, got {name}")
    near, far = fixed.double(), moving.double()
    share = torch.full((len(near),), 1 / (count * per_channel(name, near.shape[1])), dtype=near.dtype).to(near.device)
    return slope(near, far, share)


def joint(name: str, fixed: Tensor, moving: Tensor, cell: Tensor | None) -> Tensor:
    """A distance that sees all points at once, features (M, C); ``cell`` (M,): the cells of the points, its windows."""
    near, far, distance = fixed.double(), moving.double(), DISTANCES[name]
    if distance.in_cells is None or cell is None:
        return distance(near, far)
    return distance.in_cells(near, far, cell)
