"""Determinants within the cells of a displacement in torch."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from semreg.core.inversion import volume


def least_corner(vox: Tensor) -> Tensor:
    """See ``Kernels.least_corner``."""
    n = vox.shape[0]
    free = [axis for axis in range(n) if vox.shape[axis + 1] > 1]
    places = list(itertools.product(*[(0, 1) if axis in free else (0,) for axis in range(n)]))
    edges = []
    for axis in range(n):
        edge = vox.diff(dim=axis + 1) if axis in free else torch.zeros_like(vox)
        edge[axis] += 1
        edges.append(edge)
    least = torch.ones_like(_corner(vox[:1], places[0])[0])
    for place in places:
        columns = [_corner(edge, place, along=axis) for axis, edge in enumerate(edges)]
        torch.minimum(least, volume(columns), out=least)
    return torch.minimum(least, _least_inner(vox, places)) if len(free) == 3 else least


def _least_inner(vox: Tensor, places: list[tuple[int, ...]]) -> Tensor:
    """The same of the two tetrahedra that share no face with the cell."""
    found = []
    for odd in (0, 1):
        first, *others = [place for place in places if sum(place) % 2 == odd]
        edges = []
        for place in others:
            edge = _corner(vox, place) - _corner(vox, first)
            for axis in range(3):
                edge[axis] += place[axis] - first[axis]
            edges.append(edge)
        size = np.linalg.det(np.array([np.subtract(place, first) for place in others]))
        found.append(volume(edges).div_(float(size)))
    return torch.minimum(*found)


def _corner(x: Tensor, place: tuple[int, ...], along: int | None = None) -> Tensor:
    """What lies at one corner of each cell, 0 or 1 on each axis, or on the edge at it ``along`` an axis; a view."""
    for axis, side in enumerate(place):
        if axis != along:
            x = x.narrow(axis + 1, side, max(1, x.shape[axis + 1] - 1))
    return x
