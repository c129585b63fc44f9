"""What the settings leave open, decided from the fixed image's grid; the working grids and levels that follow."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from semreg.config import ModelConfig, RegistrationConfig
from semreg.core.geometry import Grid, canonical_order, reorder
from semreg.errors import ConfigError
from semreg.preprocess.preparation import Frame, plan_frame, working_spacing
from semreg.registration.dense.axes import directions_of
from semreg.registration.dense.coarse import Level, plan_levels

SMALL_IMAGE = 1 << 19
"""Working voxels up to which an image is small, about 80³: there the best is affordable."""
MOST_PIXELS = 1 << 20
"""Working pixels of a fixed image in 2-D at most; a larger one, a slide for example, is worked on at a coarser
spacing: what tells where a place is, shows in a thousand pixels an axis."""
SHARE_OF_SLIDE = 1 / 12
"""Of the shortest extent of a large image in 2-D, what the search reaches: its pixels need not be millimetres."""
LOCAL_CORRELATION = 0.15
"""Weight of the local correlation of the intensities beside MIND. Chosen among 0, 0.15 and 0.3 on the real pairs of the
benchmarks, so in-sample there; two of their eleven groups are a little worse with it, by up to 0.003 of Dice."""
CONTROL_VOXELS = 4
"""Spacing of the control points of the refinement in working voxels, where the mean of both directions is taken: what
either follows of the noise is halved. Of 3, 4 and 6 on the large real pairs of the benchmarks it was the best for their
mean, so in-sample there. In one direction they are two and two blocks apart."""
WIDE_CONTROL_VOXELS = 8
"""The same on a large image whose contrast differs from the other's: there features err by more, and fewer control
points follow less of that. Of 4, 6 and 8 it is the best for both kinds of real pairs of the benchmarks of which that is
true and for the phantoms of two contrasts, each of which chooses it for the others. Small images of two contrasts lose
by it, as what moves in them is as wide as the points are apart."""
FINE_CONTROL_VOXELS = 3
"""The same of the last descent, on the intensities: of 2, 3 and 4, as above."""
FURTHER = 1.5
"""How far keypoints are looked for, in reaches of the search."""
EVERYWHERE_MM = 1e6
"""A reach beyond all images."""


def distances(config: RegistrationConfig) -> str:
    """The names of the distances that are compared, for sentences."""
    names = [name for model in config.models for name in model.distance or (config.refine.distance,)]
    return ", ".join(dict.fromkeys(names))


def with_intensities(config: RegistrationConfig, model: Any, *, alone: bool = True) -> RegistrationConfig:
    """The settings with what becomes of the intensities decided; ``model`` is what stands for ``config.models``.

    ``alone``: whether there are no further contrasts, which the last descent would not see.

    MIND finds the place whatever the contrasts are, but it sees little of what moves an edge by less than a voxel; the
    intensities around the edge do. With features that somebody chose nothing is mixed.
    """
    refine = config.refine
    plain = (refine.distance, refine.mode, refine.sampling, refine.balance) == ("l2", "static", 1.0, "unrelated")
    usual = plain and config.models == (ModelConfig(),) and model in (None, "mind")
    weight = (LOCAL_CORRELATION if usual else 0.0) if refine.local_correlation is None else refine.local_correlation
    fine = config.fine
    if fine.enabled is None and not (usual and refine.enabled and alone):
        fine = replace(fine, enabled=False)
    return replace(config, refine=replace(refine, local_correlation=weight), fine=fine)


def resolve(config: RegistrationConfig, fixed: Grid) -> RegistrationConfig:
    """The settings with what was left open decided from the fixed image's grid, as far as it says.

    ``refine.control_mm`` stays open where it follows from the contrasts of both images.

    What costs more than it gives on a large image is done on a small one only: features at full resolution.
    """
    spacing = config.features.spacing_mm or _spacing(fixed, config.features.coarseness)
    small = is_small(fixed, spacing)
    pooling = config.features.pooling or (1 if small else 2)
    coarse_mm = config.coarse.spacing_mm or 4 * spacing
    plain = config.refine.mode == "static" and config.refine.update_every == 0
    if config.refine.symmetric and not plain:
        raise ConfigError("expected refine.symmetric=false where features are computed again, got true: leave it out")
    symmetric = plain if config.refine.symmetric is None else config.refine.symmetric
    grid = plan_frame(fixed, fixed, spacing, 0.0, initial=False).fixed.pooled(pooling)
    search = replace(config.coarse, spacing_mm=coarse_mm, reach_mm=config.coarse.reach_mm or _reach(fixed, spacing))
    search = replace(search, reach_mm=sum(level.reach_mm for level in plan_levels(grid, search)))
    refine = replace(config.refine, symmetric=symmetric, axes=directions_of(config.refine.axes, fixed))
    fine = replace(config.fine, control_mm=config.fine.control_mm or FINE_CONTROL_VOXELS * spacing)
    features = replace(config.features, spacing_mm=spacing, pooling=pooling)
    keypoints = config.keypoints
    if keypoints.enabled:
        keypoints = replace(keypoints, reach_mm=keypoints.reach_mm or FURTHER * (search.reach_mm or 0.0))
    settled = replace(config, features=features, keypoints=keypoints, coarse=search, refine=refine, fine=fine)
    near, far = (control_spacing(settled, one_contrast=one) for one in (True, False))
    return replace(settled, refine=replace(refine, control_mm=near)) if near == far else settled


def control_spacing(config: RegistrationConfig, *, one_contrast: bool) -> float:
    """Spacing in mm of the control points of the refinement.

    Args:
        config: settings with all decided but this.
        one_contrast: whether both images show one contrast, as far as is known after the search.

    Returns:
        As set, or what fits the images.
    """
    features, refine = config.features, config.refine
    pooling, spacing = features.pooling or 1, features.spacing_mm or 1.0
    if refine.control_mm is not None:
        return refine.control_mm
    if not refine.symmetric:
        return (2 + 2 * pooling) * spacing
    apart = CONTROL_VOXELS if one_contrast or pooling == 1 else WIDE_CONTROL_VOXELS
    return max(apart, 2 * pooling) * spacing


def is_small(fixed: Grid, spacing_mm: float) -> bool:
    """Whether the fixed image, read in voxels of ``spacing_mm``, is so small that the best is affordable."""
    return math.prod(max(1.0, extent / spacing_mm) for extent in fixed.extent_mm) <= SMALL_IMAGE


def _spacing(fixed: Grid, coarseness: float) -> float:
    """The working spacing in mm that follows from the fixed grid; a small image is read as it is."""
    spacing = working_spacing(reorder(fixed, canonical_order(fixed)))
    if fixed.dimension == 2:
        spacing = max(spacing, math.sqrt(math.prod(fixed.extent_mm) / MOST_PIXELS))
    return spacing if is_small(fixed, spacing) else spacing * coarseness


def _reach(fixed: Grid, spacing_mm: float) -> float | None:
    """What the search reaches along each axis in mm; None leaves it to the search, 30 mm or half the extent."""
    plain = fixed.dimension == 3 or is_small(fixed, spacing_mm)
    return None if plain else SHARE_OF_SLIDE * min(fixed.extent_mm)


def layout(fixed: Grid, moving: Grid, config: RegistrationConfig, *, initial: bool) -> tuple[Frame, list[Level]]:
    """Working grids and levels of the search; the reach of the search decides how much of the moving image is read.

    All of it, where the refinement continues an initial transform that may lead anywhere.
    """
    features = config.features
    alone = plan_frame(fixed, fixed, features.spacing_mm, 0.0, initial=False)
    levels = plan_levels(alone.fixed.pooled(features.pooling or 1), config.coarse)
    reach = sum(level.reach_mm for level in levels) if config.coarse.enabled else 0.0
    if config.keypoints.enabled:
        reach = max(reach, config.keypoints.reach_mm or 0.0)
    if config.refine.continues and initial:
        return plan_frame(fixed, moving, features.spacing_mm, EVERYWHERE_MM, initial=False), levels
    return plan_frame(fixed, moving, features.spacing_mm, reach, initial=initial), levels
