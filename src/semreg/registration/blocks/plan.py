"""What a blockwise registration does, decided from the headers of both images and the memory. Reads no voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from semreg.config import RegistrationConfig
from semreg.core.geometry import Grid, canonical_order, reorder
from semreg.errors import ConfigError, GeometryError
from semreg.features.descriptors import DESCRIPTORS
from semreg.io.ngff.opening import open_pyramid
from semreg.io.ngff.pyramid import Pyramid
from semreg.preprocess.preparation import MOST_REFINEMENT, MOST_VOXELS, check_dimension
from semreg.registration.blocks.boxes import blocks_of
from semreg.registration.blocks.features import Compared
from semreg.registration.blocks.sides import Source
from semreg.registration.blocks.windows import POWER
from semreg.registration.dense.coarse import FINEST_HALF_WIDTH
from semreg.registration.plan.defaults import FINE_CONTROL_VOXELS, WIDE_CONTROL_VOXELS, with_intensities
from semreg.registration.plan.memory import IMPORTS_BYTES

COARSE_BYTES = 170
"""What a voxel of the fixed image takes where it is registered in one piece, measured on phantoms, with room."""
BLOCK_BYTES = 360
"""What a voxel of a block takes, the windows of its intensities in double precision with their derivatives."""
VECTORS = 24
"""Vectors of all control points that a descent holds at once."""
NODE_VOXELS = 4
"""Working voxels from node to node of a search."""
STEP = 2.6
"""From one resolution to the next the voxels become at most so many times smaller."""
LEAST_BLOCK = 32


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much there is to work with."""

    memory_bytes: int
    """Of each process."""
    block: int | None = None
    """Voxels of a block along each axis; None: 128, or less where the memory asks for it."""
    coarse_voxels: int = MOST_VOXELS
    """What is registered in one piece has at most so many voxels."""
    finest: int = 0
    """Resolution of the fixed image at which the registration ends, 0 is the finest."""


@dataclass(frozen=True)
class Input:
    """An image in chunks, and which sample of its further axes."""

    path: str
    choice: str | None = None

    def open(self) -> Pyramid:
        """Its resolutions."""
        return open_pyramid(self.path, self.choice)

    def at(self, level: int, pooling: int = 1) -> Source:
        """One of them."""
        return Source(self.path, self.choice, level, pooling)


@dataclass(frozen=True)
class LargePlan:
    """Which resolutions are registered: the first one in one piece, all others in blocks."""

    coarse: tuple[Source, Source]
    """Of the fixed and of the moving image."""
    fine: tuple[tuple[Source, Source], ...]
    """From coarse to fine."""
    block: int
    sentences: tuple[str, ...]


def make_plan(fixed: Input, moving: Input, config: RegistrationConfig, options: Options) -> LargePlan:
    """Choose the resolutions and the size of the blocks.

    Raises:
        ImageError: for images that are none.
        GeometryError: for images of different dimension, and those with an axis of one sample.
        ConfigError: for settings that blocks cannot have, and too little memory.
    """
    check_settings(config)
    near, far = fixed.open(), moving.open()
    check_dimension(near.finest.grid, far.finest.grid)
    if min(near.finest.grid.shape) == 1:
        raise GeometryError("expected several samples along each axis of the fixed image, got one: save it in 2-D")
    if not 0 <= options.finest < len(near.levels):
        raise ConfigError(f"expected --finest from 0 to {len(near.levels) - 1}, got {options.finest}: choose another")
    room = options.memory_bytes - IMPORTS_BYTES
    most = min(options.coarse_voxels, MOST_VOXELS, room // COARSE_BYTES)
    block = _block(options, room, near.dimension)
    least = 32**near.dimension
    if most < least:
        raise ConfigError(f"expected memory for {least} voxels in one piece, got too little: raise --memory")
    number, coarse = near.within(most)
    if number < options.finest:
        number, coarse = options.finest, near.levels[options.finest]
    spacing = min(coarse.grid.spacing)
    first = fixed.at(number, coarse.pooling), _beside(moving, far, spacing, most)
    rungs = [
        (fixed.at(level, pooling), _beside(moving, far, min(near.levels[level].grid.spacing) * pooling))
        for level, pooling in _rungs(near, number, spacing, options.finest)
    ]
    plan = LargePlan(first, tuple(rungs), block, ())
    return LargePlan(first, tuple(rungs), block, (*_said(plan), *_searched(plan, config, options)))


def check_settings(config: RegistrationConfig) -> None:
    """Refuse what needs the whole image at once (ConfigError)."""
    if len(config.models) != 1 or config.models[0].model not in DESCRIPTORS or config.models[0].moving is not None:
        raise ConfigError("expected one formula, mind or intensity, for blocks, got networks or several: choose one")
    name = (config.models[0].distance or (config.refine.distance,))[0]
    compared = config.models[0]
    if compared.pca or compared.channels or compared.subset or compared.normalise != "none":
        raise ConfigError("expected all channels as they are for blocks, got a choice of them: leave it out")
    from semreg.distances import DISTANCES

    if name not in POWER and DISTANCES[name].slope is None:
        raise ConfigError(f"expected a distance of samples or windows for blocks, got {name}: choose l2, l1 or lncc")
    refine = config.refine
    if refine.mode != "static" or refine.update_every or refine.sampling < 1 or refine.smoothing:
        raise ConfigError("expected features that are computed once for blocks, got others: leave refine.mode as it is")


def compared_by(
    config: RegistrationConfig, *, one_contrast: bool | None, dimension: int, finest: bool
) -> tuple[Compared, ...]:
    """What blocks of one resolution compare, one after the other.

    Features of the model correct what a coarser resolution got wrong; where both images show one contrast their
    intensities in windows follow, and at the ``finest`` resolution they are all: what is left there is below a voxel
    of the one before, and noise misleads features more than windows.
    """
    radius = config.refine.window // 2
    entry = config.models[0]
    distance = (entry.distance or (config.refine.distance,))[0]
    pooling = config.features.pooling or (2 if entry.model == "mind" and dimension == 3 else 1)
    model = Compared(entry.model, entry.spec, distance, pooling, radius)
    if not (config.fine.enabled or (config.fine.enabled is None and one_contrast)):
        return (model,)
    intensities = Compared("intensity", (), "lncc_squared", 1, radius)
    return (intensities,) if finest else (model, intensities)


def control_mm(
    config: RegistrationConfig, compared: Compared, grid: Grid, memory_bytes: int, *, one_contrast: bool | None
) -> float:
    """Spacing of the control points: that of the whole registration, wider where the memory asks for it."""
    spacing = min(grid.spacing)
    usual = max(2 + 2 * compared.pooling, WIDE_CONTROL_VOXELS if one_contrast is False else 0)
    if compared.model == "intensity":
        usual = FINE_CONTROL_VOXELS
    asked = (config.fine if compared.model == "intensity" else config.refine).control_mm
    return max(asked or usual * spacing, _least_mm(grid, memory_bytes))


def node_mm(config: RegistrationConfig, grid: Grid, memory_bytes: int) -> float:
    """Spacing of the nodes of a search: that of the whole registration, wider where the memory asks for it."""
    spacing = min(grid.spacing)
    wanted = max(config.coarse.spacing_mm or NODE_VOXELS * spacing, 2 * spacing)  # below that costs outgrow a block
    return max(wanted, _least_mm(grid, memory_bytes))


def _least_mm(grid: Grid, memory_bytes: int) -> float:
    """How far apart points must be of which one process holds ``VECTORS`` vectors in half of its memory."""
    most = max(1, (memory_bytes // 2) // (4 * grid.dimension * VECTORS))
    return float((math.prod(grid.extent_mm) / most) ** (1 / grid.dimension))


def working_spacing(grid: Grid) -> float:
    """The smallest spacing, unless cubic voxels of that size are too many for what an anisotropic image has."""
    volume = math.prod(grid.extent_mm)
    return float(max(min(grid.spacing), (volume / (MOST_REFINEMENT * grid.voxels)) ** (1 / grid.dimension)))


def _block(options: Options, room: int, dimension: int) -> int:
    most = int((max(room, 1) / BLOCK_BYTES) ** (1 / dimension)) // 8 * 8
    if options.block is None:
        size = min(128 if dimension == 3 else 1024, most)
    else:
        size = options.block
        if size > most:
            raise ConfigError(f"expected --block of at most {most} voxels for this --memory, got {size}: lower it")
    if size < LEAST_BLOCK:
        raise ConfigError(f"expected blocks of {LEAST_BLOCK} voxels or more, got {size}: raise --block or --memory")
    return size // 8 * 8


def _rungs(pyramid: Pyramid, number: int, spacing: float, finest: int) -> list[tuple[int, int]]:
    """The resolutions below that of ``spacing``, and over how many samples their means are taken."""
    found = []
    for level in range(number, finest - 1, -1):
        own = min(pyramid.levels[level].grid.spacing)
        while spacing / own > STEP:
            pooling = 2 ** (math.ceil(math.log2(spacing / own)) - 1)
            found.append((level, pooling))
            spacing = own * pooling
        if spacing / own > 1.01:
            found.append((level, 1))
            spacing = own
    return found


def _beside(moving: Input, pyramid: Pyramid, spacing: float, most: int | None = None) -> Source:
    """The resolution of the moving image that goes with voxels of ``spacing``, of at most so many voxels."""
    fits = [n for n, level in enumerate(pyramid.levels) if min(level.grid.spacing) <= 1.3 * spacing]
    level = fits[-1] if fits else 0
    pooling = max(1, round(spacing / min(pyramid.levels[level].grid.spacing)))
    found = moving.at(level, pooling)
    if most is None or found.open().grid.voxels <= most:
        return found
    number, coarser = pyramid.within(most)
    return moving.at(number, coarser.pooling)


def _said(plan: LargePlan) -> list[str]:
    """The plan in sentences."""
    first = plan.coarse[0].open().grid
    names = [_name(source) for source in plan.coarse]
    said = [f"in one piece: {first.sentence} ({names[0]} of the fixed, {names[1]} of the moving)"]
    for near, _ in plan.fine:
        grid = near.open().grid
        work = _working(grid)
        count = len(blocks_of(work, plan.block))
        said.append(f"in blocks of {plan.block} voxels: {grid.sentence} ({_name(near)}), {count} blocks")
    if not plan.fine:
        said.append("nothing is left for blocks: semreg register does the same, with more results")
    return said


def _searched(plan: LargePlan, config: RegistrationConfig, options: Options) -> list[str]:
    """What the search takes at the finest resolution that may have one, where it takes most."""
    config, grids = with_intensities(config, None), [near.open().grid for near, _ in plan.fine]
    found = [
        grid
        for number, grid in enumerate(grids, start=1)
        for compared in compared_by(config, one_contrast=None, dimension=grid.dimension, finest=number == len(grids))
        if config.coarse.enabled and compared.leads
    ]
    if not found:
        return []
    grid = found[-1]
    apart = node_mm(config, grid, options.memory_bytes)
    nodes = math.prod(max(1, math.ceil(extent / apart)) for extent in grid.extent_mm)
    ways = 1 + config.coarse.inverse_consistency
    size = ways * 4 * nodes * (2 * FINEST_HALF_WIDTH + 1) ** grid.dimension
    where = "at the finest resolution" if grid is grids[-1] else "at the resolution before the finest"
    where += ", if the images show two contrasts" if grid is grids[-1] and config.fine.enabled is None else ""
    where = f"{nodes} nodes {apart:.3g} mm apart {where}"
    return [f"blocks that compare features search first: {where}, with {size / 1e9:.2g} GB of costs on disk meanwhile"]


def _working(grid: Grid) -> Sequence[int]:
    spacing = working_spacing(grid)
    ordered = reorder(grid, canonical_order(grid))
    return [max(1, math.ceil(extent / spacing)) for extent in ordered.extent_mm]


def _name(source: Source) -> str:
    return f"resolution {source.level}" + (f", means of {source.pooling}" if source.pooling > 1 else "")
