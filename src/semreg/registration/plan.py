"""What a registration will do, from the grids of the two images and the settings. Computes nothing on images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from semreg.config import RefineConfig, RegistrationConfig
from semreg.core.geometry import Grid, canonical_order, reorder
from semreg.distances import DISTANCES
from semreg.errors import ConfigError
from semreg.features.extract import Extractor
from semreg.features.inputs import frame_of
from semreg.features.models import folders_of
from semreg.preprocess.preparation import Frame, plan_frame, working_spacing
from semreg.registration.dense.coarse import Level, memory_bytes, plan_levels
from semreg.registration.dense.refine import lattice_of
from semreg.registration.matching import Given, Pairing, resolve_models
from semreg.runtime.devices import choose_device
from semreg.runtime.memory import SHARE, available_bytes

SMALL_IMAGE = 1 << 19
"""Working voxels up to which an image is small, about 80³: there the best is affordable."""
MOST_PIXELS = 1 << 20
"""Working pixels of a fixed image in 2-D at most; a larger one, a slide for example, is worked on at a coarser
spacing: what tells where a place is, shows in a thousand pixels an axis."""
SHARE_OF_SLIDE = 1 / 12
"""Of the shortest extent of a large image in 2-D, what the search reaches: its pixels need not be millimetres."""
EVERYWHERE_MM = 1e6
"""A reach beyond all images."""
IMPORTS_BYTES = 330_000_000
"""Memory of a process that has imported torch and SimpleITK."""


@dataclass(frozen=True)
class Plan:
    """What a registration would do: ``lines`` are sentences in mm; ``memory_bytes`` is an estimate of its peak."""

    frame: Frame
    levels: list[Level]
    lines: list[str]
    memory_bytes: int


def plan(  # noqa: PLR0913 - what is registered, how and where
    fixed: Grid,
    moving: Grid,
    *,
    config: RegistrationConfig | None = None,
    device: str | torch.device = "auto",
    initial: bool = False,
    pairings: Sequence[Pairing] | None = None,
    models: Sequence[str | Path] | str | Path = (),
) -> Plan:
    """Decide grids, levels and reach from the two grids and the settings; computes nothing on images.

    ``initial``: whether a start is given, so that the headers need not bring the images together. Networks that the
    settings name are loaded, to know their channels, unless ``pairings`` holds them already; ``models`` are folders
    with fetched ones. Raises GeometryError, ConfigError, ModelError or DeviceError.
    """
    device = device if isinstance(device, torch.device) else choose_device(device)
    config = resolve(config or RegistrationConfig(), fixed)
    if pairings is None:
        pairings = resolve_models(config, fixed.dimension, device, Given(folders=folders_of(models)))
    frame, levels = layout(fixed, moving, config, initial=initial)
    coarse_config, refine_config, features = config.coarse, config.refine, config.features
    grid = frame.fixed.pooled(features.pooling or 1)
    control = lattice_of(grid, refine_config).step[0] * grid.spacing[0]
    spacings = ", ".join(f"{level.spacing_mm:.3g}" for level in levels)
    finest = min(grid.spacing)
    sizes = f"{_size(frame.fixed)} voxels of the fixed and {_size(frame.moving)} of the moving image"
    lines = [
        f"Both images are read in cubic voxels of {min(frame.fixed.spacing):.3g} mm: {sizes}.",
        f"Features: {', '.join(pairing.name for pairing in pairings)}, averaged over blocks of {finest:.3g} mm.",
    ]
    if coarse_config.enabled:
        reach = sum(level.reach_mm for level in levels)
        both = " in both directions" if coarse_config.inverse_consistency else ""
        lines.append(f"Coarse search{both} on nodes {spacings} mm apart, up to {reach:.3g} mm along each axis.")
    if refine_config.enabled:
        coarser = 0 if refine_config.mode == "jacobian" else refine_config.levels - 1
        resolutions = ", ".join(f"{finest * 2**i:.3g}" for i in range(coarser, -1, -1))
        lines.append(
            f"Refinement{_mode(refine_config)} with distance {distances(config)} on features {resolutions} mm apart, "
            f"control points {control:.3g} mm apart at the end, at most {refine_config.iterations} steps a level"
            f"{', in both directions' if refine_config.symmetric else ''}."
        )
    lines.append(f"Device: {device}.")
    return Plan(frame, levels, lines, peak_bytes(fixed, moving, config, load_of(pairings, frame), initial=initial))


def _mode(config: RefineConfig) -> str:
    if config.mode == "jacobian":
        return " through the network"
    return f", features renewed every {config.update_every} steps," if config.update_every else ""


def distances(config: RegistrationConfig) -> str:
    """The names of the distances that are compared, for sentences."""
    names = [name for model in config.models for name in model.distance or (config.refine.distance,)]
    return ", ".join(dict.fromkeys(names))


def resolve(config: RegistrationConfig, fixed: Grid) -> RegistrationConfig:
    """The settings with all that was left open decided from the fixed image's grid.

    What costs more than it gives on a large image is done on a small one only: features at full resolution, and both
    directions in the refinement.
    """
    spacing = config.features.spacing_mm or _spacing(fixed, config.features.coarseness)
    small = is_small(fixed, spacing)
    pooling = config.features.pooling or (1 if small else 2)
    coarse_mm = config.coarse.spacing_mm or 4 * spacing
    control_mm = config.refine.control_mm or (2 + 2 * pooling) * spacing
    plain = config.refine.mode == "static" and config.refine.update_every == 0
    if config.refine.symmetric and not plain:
        raise ConfigError("expected refine.symmetric=false where features are computed anew, got true: leave it out")
    symmetric = small and plain if config.refine.symmetric is None else config.refine.symmetric
    grid = plan_frame(fixed, fixed, spacing, 0.0, initial=False).fixed.pooled(pooling)
    search = replace(config.coarse, spacing_mm=coarse_mm, reach_mm=config.coarse.reach_mm or _reach(fixed, spacing))
    search = replace(search, reach_mm=sum(level.reach_mm for level in plan_levels(grid, search)))
    return replace(
        config,
        features=replace(config.features, spacing_mm=spacing, pooling=pooling),
        coarse=search,
        refine=replace(config.refine, control_mm=control_mm, symmetric=symmetric),
    )


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
    if config.refine.continues and initial:
        return plan_frame(fixed, moving, features.spacing_mm, EVERYWHERE_MM, initial=False), levels
    return plan_frame(fixed, moving, features.spacing_mm, reach, initial=initial), levels


def _size(grid: Grid) -> str:
    return " × ".join(map(str, grid.size_xyz))


@dataclass(frozen=True)
class Load:
    """What features weigh: their ``channels``, and the bytes a network holds while it sees a whole image."""

    channels: float
    network_bytes: int = 0


def load_of(pairings: Sequence[Pairing], frame: Frame) -> Load:
    """The load of models that are there."""
    return Load(sum(map(_channels, pairings)), max(_network_bytes(pairing, frame) for pairing in pairings))


def peak_bytes(fixed: Grid, moving: Grid, config: RegistrationConfig, load: Load, *, initial: bool = False) -> int:
    """The most memory that a registration holds, about; ``config`` is resolved.

    Images as read and as worked on, features of both, the largest of search, refinement and output, the imports.
    """
    frame, levels = layout(fixed, moving, config, initial=initial)
    pooling, channels = config.features.pooling or 1, load.channels
    grid, there = frame.fixed.pooled(pooling), frame.moving.pooled(pooling)
    held = 4 * (fixed.voxels + moving.voxels + max(frame.fixed.voxels, frame.moving.voxels))
    features = int(4 * channels * (grid.voxels + there.voxels))
    search = memory_bytes(grid, levels) if config.coarse.enabled else 0
    names = {name for model in config.models for name in model.distance or (config.refine.distance,)}
    # such a distance sees all samples at once, with their gradients
    everything = any(DISTANCES[name].slope is None for name in names)
    descent = features + 400 * grid.voxels + (grid.voxels * (16 * channels + 100) if everything else 0)
    descent *= 2 if config.refine.symmetric else 1
    output = output_bytes(fixed)
    return int(held + features + max(search, descent, output, load.network_bytes) + IMPORTS_BYTES)


def output_bytes(fixed: Grid) -> int:
    """What the displacement on the fixed grid takes while it is made and written; no setting changes it."""
    return 4 * fixed.voxels * (fixed.dimension + 2) + 16 * fixed.voxels * fixed.dimension


def _channels(pairing: Pairing) -> float:
    """Channels of a pairing's features, those of coarser layers counted by their share of voxels."""
    model = pairing.fixed
    if not isinstance(model, Extractor):
        return model.spec.channels
    outputs = model.traits.outputs
    return sum((pairing.config.pca or o.channels) / math.prod(o.stride) for o in outputs)


def _network_bytes(pairing: Pairing, frame: Frame) -> int:
    """What a network holds while it sees an image whole; with less memory it is cut into tiles."""
    if not isinstance(pairing.fixed, Extractor):
        return 0
    voxels = max(frame_of(grid, pairing.fixed.spec).grid.voxels for grid in (frame.fixed, frame.moving))
    return int(min(pairing.fixed.traits.memory.per_voxel * voxels, SHARE * available_bytes()))
