"""Where a transform says something: the box of a field or of a control lattice. Beyond it nothing is known.

ITK lets points beyond the box stay, so that space is torn at its faces. Whoever uses a transform there chooses one of
``Outside``; which points lie beyond is found here alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semreg.core.geometry import Grid, Matrix
from semreg.core.sampling import transform_index
from semreg.io.bridge import grid_of_header
from semreg.transforms.base import Points

logger = logging.getLogger("semreg")

Mask: TypeAlias = npt.NDArray[np.bool_]
"""One truth value a point, (N,)."""

INSIDE_OF_LATTICE = 1e-9
"""Share of a control lattice's extent by which a point is kept from its faces, so that rounding does not lead out."""


class Outside(StrEnum):
    """What is done with points beyond the box of a field."""

    CONTINUE = "continue"
    """They move by the vector of the nearest point of the box: smooth, but a guess."""
    IDENTITY = "identity"
    """They stay, as in ITK: the same map as in every tool that reads the transform, but torn at the faces."""
    BACKGROUND = "background"
    """What would be read there counts as not known: images get their background, determinants NaN."""


@dataclass(frozen=True)
class Domain:
    """A box with the axes of a grid, in an index along them."""

    to_index: Matrix
    """Points in mm, x y(, z), → index, homogeneous (E, E)."""
    box: tuple[tuple[float, float], ...]
    """Where the transform is not the identity of ITK: from … to below, for each axis of the index."""
    known: tuple[tuple[float, float], ...]
    """Where it has values of its own, both ends included."""

    def beyond(self, points: Points) -> Mask:
        """Which of the points (D, N) in mm lie beyond the box."""
        index = self._index(points)
        lower, upper = (np.array(side)[:, None] for side in zip(*self.box, strict=True))
        return np.asarray(~((index >= lower) & (index < upper)).all(0))

    def nearest(self, points: Points) -> Points:
        """The nearest known points along the axes of the box, (D, N) in mm."""
        lower, upper = (np.array(side)[:, None] for side in zip(*self.known, strict=True))
        index = np.clip(self._index(points), lower, upper)
        back = np.linalg.inv(self.to_index)
        return np.asarray(back[:-1, :-1] @ index + back[:-1, -1:])

    def _index(self, points: Points) -> Points:
        return np.asarray(self.to_index[:-1, :-1] @ points + self.to_index[:-1, -1:])


@dataclass(frozen=True)
class Coverage:
    """Which voxels of a grid a chain of transforms takes to where one of its parts says nothing."""

    beyond: Tensor | None
    """(*S), bool; None: no voxel."""
    continued: bool = False
    """Whether the chain has an inverse, which on a grid continues where it would stay."""

    @property
    def share(self) -> float:
        """The share of these voxels, 0 to 1."""
        return 0.0 if self.beyond is None else float(self.beyond.double().mean())

    def touched(self) -> Tensor | None:
        """These voxels and their neighbours along the axes, (*S): differences between neighbours reach that far."""
        if self.beyond is None:
            return None
        result = self.beyond.clone()
        for axis, n in enumerate(result.shape):
            result.narrow(axis, 0, n - 1).logical_or_(self.beyond.narrow(axis, 1, n - 1))
            result.narrow(axis, 1, n - 1).logical_or_(self.beyond.narrow(axis, 0, n - 1))
        return result

    def say(self, outside: Outside) -> None:
        """Warn where there are such voxels."""
        if self.continued and outside is Outside.IDENTITY:
            outside = Outside.CONTINUE
        if self.beyond is not None:
            warn_beyond(int(self.beyond.count_nonzero()), self.beyond.numel(), "voxels", outside)


def warn_beyond(count: int, total: int, what: str, outside: Outside) -> None:
    """Say how many points or voxels lie beyond, and what was done with them."""
    done = {
        Outside.CONTINUE: "there the vectors at its faces are continued, which is a guess",
        Outside.IDENTITY: "there nothing moves, as in ITK, and space is torn at its faces",
        Outside.BACKGROUND: "there nothing is known and the background is set",
    }[outside]
    share = f"{100 * count / total:.3g} %"
    logger.warning(
        "%d of %d %s (%s) lie outside of the box of the transform: %s (--outside)", count, total, what, share, done
    )


def domain_of(transform: Any) -> Domain | None:
    """The box of a SimpleITK transform, no composite; None for one that is known everywhere."""
    kind = transform.GetName()
    if kind == "DisplacementFieldTransform":
        grid = grid_of_field(transform)
        # the index of a grid counts its tensor axes, z first
        box = tuple((-0.5, n - 0.5) for n in grid.shape)
        return Domain(grid.point_to_index(), box, tuple((0.0, n - 1.0) for n in grid.shape))
    if kind == "BSplineTransform":
        n = transform.GetDimension()
        matrix = np.eye(n + 1)
        matrix[:n, :n] = np.reshape(transform.GetTransformDomainDirection(), (n, n))
        matrix[:n, n] = transform.GetTransformDomainOrigin()
        sizes = transform.GetTransformDomainPhysicalDimensions()
        known = tuple((size * INSIDE_OF_LATTICE, size * (1 - INSIDE_OF_LATTICE)) for size in sizes)
        return Domain(np.asarray(np.linalg.inv(matrix)), tuple((0.0, size) for size in sizes), known)
    return None


def grid_of_field(transform: Any) -> Grid:
    """The grid of a ``SimpleITK.DisplacementFieldTransform``."""
    image = transform.GetDisplacementField()
    return grid_of_header(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def holds_box(domain: Domain, grid: Grid) -> bool:
    """Whether the whole of a grid lies in the box, which its corners decide, as the box is convex."""
    ends = [torch.tensor([0.0, n - 1.0], dtype=torch.float64) for n in grid.shape]
    corners = torch.stack(torch.meshgrid(*ends, indexing="ij")).flatten(1)
    return not bool(domain.beyond(np.asarray(transform_index(grid.index_to_point(), corners).numpy())).any())
