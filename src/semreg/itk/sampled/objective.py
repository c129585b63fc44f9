"""Two images compared at scattered points: a value and its derivative in the moving points. Knows no transform.

Where the moving points come from, and what their derivative means for the parameters of a transform, is the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semreg.config import RegistrationConfig
from semreg.core.fields import Layer, Volume
from semreg.core.geometry import Grid, canonical_order, reorder
from semreg.errors import ConfigError, DivergedError, GeometryError
from semreg.features.extract import Extractor
from semreg.itk.sampled.comparison import Batch, Source, derivative, losses
from semreg.itk.sampled.config import SampledConfig
from semreg.itk.sampled.distances import Points, in_windows, lattice_of, per_channel
from semreg.itk.sampled.jacobian import PatchFeatures
from semreg.itk.sampled.static import StaticFeatures
from semreg.preprocess.preparation import MOST_VOXELS, canonical, check_dimension, clean, plan_frame, working_spacing
from semreg.registration.matching import Images, Pairing

Rows: TypeAlias = npt.NDArray[np.int64]

FEWEST = 10
"""Sample points below which a distance says nothing: few enough always correlate."""
ALIKE = 1e-3
"""Features whose first distance is below this share of the distance of unrelated ones are the same except for noise."""


@dataclass(frozen=True)
class FeatureMaps:
    """What is compared: one layer of each image for each term, and what it is called."""

    names: list[str]
    fixed: list[Layer]
    moving: list[Layer]


@dataclass(frozen=True)
class Placed:
    """The points that were placed: ``fixed`` features (N, C) of each term, and what else is known of them.

    ``rank`` (N,): their order of reading, neighbours near each other. ``cell`` (N,): where a term needs it, else None.
    """

    fixed: list[Tensor]
    rank: Rows
    cell: Tensor | None


class SampledObjective:
    """The sum over all layers of share · distance / unit at points of the two images, in mm (LPS).

    The shares are the weights over their sum. A distance is a mean over channels and points, 0 for equal features but
    for ``dotproduct``; distances in windows compare within cells of a lattice over the fixed points. With
    ``normalise_losses`` the unit of a layer is the size of its first distance after construction, or, where that is
    below ``ALIKE`` of it, the distance of unrelated features; else it is 1. Points beyond an image read its border
    values, and nothing pulls them there.

    After Boussot et al., IMPACT, arXiv:2503.24121.
    """

    def __init__(
        self,
        fixed: Volume,
        moving: Volume,
        config: SampledConfig,
        pairings: Sequence[Pairing],
        device: torch.device,
    ) -> None:
        """Extract features of both images (1, *S), or, in the mode ``jacobian``, get ready for it.

        ``pairings`` hold the loaded models of ``config.models``. Raises GeometryError, ImageError, ConfigError,
        ModelError where images, settings and models do not fit.
        """
        check_dimension(fixed.grid, moving.grid)
        if len(pairings) != len(config.models):
            raise ConfigError(f"expected {len(config.models)} pairings, one for each model, got {len(pairings)}")
        self.config, self.device = config, device
        self._grid = fixed.grid
        pairings = [replace(p, config=entry) for p, entry in zip(pairings, config.models, strict=True)]
        images = _images(fixed, moving, config, device)
        self._source: StaticFeatures | PatchFeatures = (
            StaticFeatures(images, pairings)
            if config.mode == "static"
            else PatchFeatures(images, pairings, config.batch_size)
        )
        self.losses: list[float] = []
        """The last distance of each term, before it is divided by its unit."""
        self.units: list[float] | None = None
        """What each distance is divided by; None until the first points decide it."""
        self._placed: Placed | None = None

    @property
    def feature_maps(self) -> FeatureMaps:
        """The layers that are compared in the mode ``static``; none in the mode ``jacobian``."""
        if not isinstance(self._source, StaticFeatures):
            return FeatureMaps([], [], [])
        terms = self._source.terms
        return FeatureMaps(self._source.names, [term.fixed for term in terms], [term.moving for term in terms])

    def place(self, fixed_points: Points) -> None:
        """Read the fixed features at ``fixed_points`` (N, D), mm; ``rows`` count them from then on.

        Raises GeometryError for points that are none.
        """
        points = _checked(fixed_points, self._grid.dimension, "fixed")
        fixed = self._source.place(self._columns(points))
        index = points @ self._grid.point_to_index()[:-1, :-1].T  # neighbours in memory one after the other
        order = np.lexsort(tuple(np.floor(index).T[::-1]))
        cell = None
        if any(in_windows(term.distance) for term in self._source.terms):
            cell = lattice_of(points).cell.to(self.device)
        self._placed = Placed(fixed, np.argsort(order), cell)

    def evaluate(self, rows: Rows, moving_points: Points) -> tuple[float, Points]:
        """The value at the placed points ``rows`` (M,), found at ``moving_points`` (M, D) mm, and its derivative.

        The derivative (M, D), per mm, is that in the moving points. Raises GeometryError for points that are none, and
        where there are none (no sample points overlap); DivergedError for a result that is not finite.
        """
        batch, order = self._batch(rows, moving_points)
        units = self._units_at(batch)
        factors = [term.share / unit for term, unit in zip(self._source.terms, units, strict=True)]
        self.losses, found = derivative(self._source, batch, factors)
        result = np.empty((len(order), self._grid.dimension))
        result[order] = found.T.cpu().numpy()
        if not np.isfinite(result).all():
            raise DivergedError(
                "expected a finite derivative at the sample points, got NaN or infinity: check the models"
            )
        return self._sum(units), result

    def value(self, rows: Rows, moving_points: Points) -> float:
        """The value alone, as from ``evaluate``."""
        batch, _ = self._batch(rows, moving_points)
        units = self._units_at(batch)
        self.losses = losses(self._source, batch)
        return self._sum(units)

    def renew(self, moving_point_of: Callable[[Points], Points]) -> None:
        """Extract the moving features again, from the moving image warped by a map of points (N, D), mm.

        ``moving_point_of`` maps points of the fixed image to the moving one; it is asked for the samples of the fixed
        image's working grid. From then on a moving point y reads what lies at the inverse of this map at y. Does
        nothing in the mode ``jacobian``, where the models always see the image. Raises GeometryError for a map that is
        not finite, has no inverse or leads past the moving image.
        """
        if isinstance(self._source, StaticFeatures):
            self._source.renew(moving_point_of)

    def _batch(self, rows: Rows, moving_points: Points) -> tuple[Batch, Rows]:
        """The points in the order of reading, and that order."""
        placed = self._placed
        if placed is None:
            raise GeometryError("expected fixed points before an evaluation, got none: call place first")
        points = _checked(moving_points, self._grid.dimension, "moving")
        rows = np.asarray(rows)
        if rows.shape != (len(points),) or rows.dtype.kind not in "iu":
            raise GeometryError(f"expected the rows of {len(points)} points as integers, got {rows.dtype} {rows.shape}")
        if rows.min() < 0 or rows.max() >= len(placed.rank):
            raise GeometryError(f"expected rows from 0 to {len(placed.rank) - 1}, got {rows.min()} to {rows.max()}")
        order = np.argsort(placed.rank[rows], kind="stable")
        chosen = torch.from_numpy(rows[order].astype(np.int64)).to(self.device)
        cell = None if placed.cell is None else placed.cell[chosen]
        return Batch([y[chosen] for y in placed.fixed], self._columns(points[order]), cell), order

    def _columns(self, points: Points) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(points.T)).to(self.device)

    def _units_at(self, batch: Batch) -> list[float]:
        """What each distance is divided by; decided by the first points."""
        if self.units is None:
            first = losses(self._source, batch) if self.config.normalise_losses else []
            self.units = _units(self._source, batch, first)
        return self.units

    def _sum(self, units: Sequence[float]) -> float:
        parts = zip(self._source.terms, self.losses, units, strict=True)
        value: float = math.fsum(term.share * loss / unit for term, loss, unit in parts)
        if not math.isfinite(value):
            raise DivergedError(f"expected a finite value at the sample points, got {value}: check images and models")
        return value


def _units(source: Source, batch: Batch, first: Sequence[float]) -> list[float]:
    if not first:
        return [1.0] * len(source.terms)
    if not all(map(math.isfinite, first)):
        raise DivergedError(f"expected finite distances at the sample points, got {first}: check images and models")
    units = []
    for term, rows, loss in zip(source.terms, batch.fixed, first, strict=True):
        unrelated = term.scale / per_channel(term.distance, rows.shape[1])
        units.append(abs(loss) if abs(loss) > ALIKE * unrelated else unrelated)
    return units


def _checked(points: Points, dimension: int, name: str) -> Points:
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != dimension:
        raise GeometryError(f"expected {name} points of shape (M, {dimension}), got {points.shape}")
    if len(points) == 0:
        raise GeometryError(
            f"expected {name} points to compare, got none: no sample points overlap; check the initial transform and "
            "the masks"
        )
    if not np.isfinite(points).all():
        raise GeometryError(f"expected finite {name} points, got NaN or infinity: check the transform")
    return points


def _images(fixed: Volume, moving: Volume, config: SampledConfig, device: torch.device) -> Images:
    """Both images in a frame that covers them: along the fixed image's axes, in cubic voxels."""
    features = config.features
    spacing = features.spacing_mm or _spacing(fixed.grid, moving.grid)
    corners = np.concatenate([fixed.grid.corners_xyz(), moving.grid.corners_xyz()])
    reach = float(np.linalg.norm(np.ptp(corners, axis=0)))  # whatever the map, no part of the moving image is left out
    frame = plan_frame(fixed.grid, moving.grid, spacing, reach, initial=False)
    settings = RegistrationConfig(
        seed=config.seed, models=config.models, features=replace(features, spacing_mm=spacing)
    )
    near, far = clean(fixed, None, "fixed"), clean(moving, None, "moving")
    return Images(canonical(near), canonical(far), frame, None, settings, device)


def check_count(count: int, where: str) -> None:
    """GeometryError for fewer sample points than can be compared; ``where`` says where, and what to do."""
    if count < FEWEST:
        raise GeometryError(f"expected at least {FEWEST} sample points to compare, got {count} {where}")


def spacing_of_level(pairings: Sequence[Pairing], fixed: Grid, level: Grid) -> float | None:
    """The voxel size in mm at which features are extracted at a level; None: the image's own, or the networks'.

    Formulas see the voxels of the level, networks those they were trained on.
    """
    finest = min(level.spacing)
    formulas = not any(isinstance(model, Extractor) for pair in pairings for model in (pair.fixed, pair.moving))
    return finest if formulas and finest > 1.01 * min(fixed.spacing) else None


def _spacing(fixed: Grid, moving: Grid) -> float:
    """The fixed image's smallest spacing in mm, unless one of the images had too many cubic voxels of it."""
    volume = float(np.prod(moving.extent_mm))
    least = float((volume / MOST_VOXELS) ** (1 / moving.dimension))
    return max(working_spacing(reorder(fixed, canonical_order(fixed))), least)
