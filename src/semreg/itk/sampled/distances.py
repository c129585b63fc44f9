"""Distances of features at scattered points: means over the channels and the points. Knows no images.

The formulas are those of ``semreg.distances`` but for LNCC, whose windows need a grid: here they are the cells of a
lattice over the points. Everything is computed in double precision, whatever the features are stored in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semreg.distances import DISTANCES, FLAT, SMALL
from semreg.errors import GeometryError

Points: TypeAlias = npt.NDArray[np.float64]

SUMMED = ("l1", "l2", "dotproduct")
"""Distances that ``distances`` sums over the channels."""
PER_CELL = 27
"""LNCC: points that a cell holds on average, at least."""
FEWEST = 3
"""LNCC: points that a cell must hold to count; two always correlate."""
FINEST = 1e-4
"""LNCC: the smallest edge of a cell as a share of the longest one of the box of the points."""
PRECISION = 1.05
"""LNCC: to what factor the edge is found."""


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


def per_channel(name: str, channels: int) -> int:
    """What the distance of ``distances`` is divided by to be a mean over the channels."""
    return channels if name in SUMMED else 1


def additive(name: str, fixed: Tensor, moving: Tensor, count: int) -> tuple[float, Tensor]:
    """The part of some points, features (P, C), in the mean over ``count`` points, and its derivative in ``moving``."""
    slope = DISTANCES[name].slope
    if slope is None:
        raise ValueError(f"expected a distance that is a mean over points, got {name}")
    near, far = fixed.double(), moving.double()
    share = torch.full((len(near),), 1 / (count * per_channel(name, near.shape[1])), dtype=near.dtype).to(near.device)
    return slope(near, far, share)


def joint(name: str, fixed: Tensor, moving: Tensor, cell: Tensor | None) -> Tensor:
    """A distance that sees all points at once, features (M, C); ``cell`` (M,): the cells of the points, for LNCC."""
    near, far = fixed.double(), moving.double()
    return DISTANCES[name](near, far) if cell is None else scattered_lncc(near, far, cell)


def scattered_lncc(fixed: Tensor, moving: Tensor, cell: Tensor) -> Tensor:
    """1 − normalised cross-correlation within cells, mean over the channels and the points; 0 for equal features.

    Features (M, C), ``cell`` (M,) the number of each point's cell. As ``distances.lncc`` it takes the correlation and
    not its square (Avants et al., Medical Image Analysis 2008), and variances well below a small share of that of all
    points as flat: where both are flat the distance is 0, where only one is, 1. Cells of fewer than three points do not
    count. Raises GeometryError where no cell counts.
    """
    counts = torch.bincount(cell)
    counted = counts >= FEWEST
    if not bool(counted.any()):
        raise GeometryError(
            f"expected {FEWEST} sample points or more in some cell for the distance lncc, got {len(cell)} points too "
            "far apart: take more points, or choose ncc"
        )
    size = counts.clamp(min=1).to(fixed.dtype)[:, None]

    def mean(x: Tensor) -> Tensor:
        return x.new_zeros((len(counts), x.shape[1])).index_add(0, cell, x) / size

    f, m = fixed - fixed.mean(0), moving - moving.mean(0)
    flat_fixed, flat_moving = FLAT * f.square().mean(0) + SMALL**2, FLAT * m.square().mean(0) + SMALL**2
    mean_fixed, mean_moving = mean(f), mean(m)
    covariance = mean(f * m) - mean_fixed * mean_moving + (flat_fixed * flat_moving).sqrt()
    variance_fixed = (mean(f.square()) - mean_fixed.square()).clamp(min=0) + flat_fixed
    variance_moving = (mean(m.square()) - mean_moving.square()).clamp(min=0) + flat_moving
    correlation = covariance / (variance_fixed * variance_moving).sqrt()
    share = (counts * counted).to(fixed.dtype)
    return ((1 - correlation.mean(1)) * share).sum() / share.sum()
