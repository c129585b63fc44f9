"""A registration of images beyond memory: one piece, then resolution after resolution in blocks. No arithmetic.

The result is one B-spline, followed by the linear map of the alignment where there is one. Each resolution descends on
all control points at once, from what was found before: on features, after a search, the displacement is held to be
smooth, on intensities its *change*, as in ``register``. Nothing is joined, so there is no seam.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from semreg.config import RefineConfig, RegistrationConfig
from semreg.core.geometry import AxisOrder, Grid, canonical_order
from semreg.io.bridge.kinds import TransformLike
from semreg.preprocess.preparation import interpolation_blur, plan_frame
from semreg.registration.blocks.coarse import NAME, Coarse, coarse_of, largest_mm
from semreg.registration.blocks.features import Compared, Maps, feature_tasks
from semreg.registration.blocks.objective import BlockObjective, run_all
from semreg.registration.blocks.plan import LargePlan, compared_by, control_mm, node_mm, working_spacing
from semreg.registration.blocks.record import LevelSummary
from semreg.registration.blocks.search import Nodes, searched
from semreg.registration.blocks.sides import Side, Source
from semreg.registration.blocks.store import Store
from semreg.registration.blocks.workers import Done, Workers
from semreg.registration.dense.axes import directions_of
from semreg.registration.dense.prior import Prior
from semreg.registration.dense.refine import LONG, descend
from semreg.registration.dense.unfold import unfolded
from semreg.registration.plan.defaults import with_intensities
from semreg.runtime.events import OnStep
from semreg.transforms.bspline import Spline, SplineLattice

PLACES = 2
"""Samples of the lattice's grid per control interval: that of the image would be too large to hold."""
DIFFUSION = 1.5
"""Weight of the regularity where features are compared, if it is left open. It is that of the whole displacement: a
part in one piece of few voxels follows their noise, which a regularity of the change would keep. Of 0.3 to 3 phantoms
are better the more there is, and two brains worse."""


def _silent(line: str) -> None:
    """Nobody is told."""
    del line


@dataclass
class Large:
    """What runs where, and who is told."""

    plan: LargePlan
    config: RegistrationConfig
    store: Store
    workers: Workers
    memory_bytes: int
    initial: TransformLike | None = None
    say: Callable[[str], None] = _silent
    on_step: OnStep | None = None
    peaks: dict[str, int] = field(default_factory=dict)
    """The most memory that each process has held."""

    def tell(self, done: Done) -> None:
        """Keep what a process has held."""
        self.peaks[done.worker] = max(done.peak_bytes, self.peaks.get(done.worker, 0))


@dataclass(frozen=True)
class Found:
    """What was found, in the axes of the working frame."""

    spline: Spline
    """Followed by the linear map."""
    axes: AxisOrder
    """From those of the fixed image to those of the spline."""
    coarse: Coarse
    levels: tuple[LevelSummary, ...]
    unfolding_passes: int


def register_in_blocks(run: Large) -> Found:
    """All resolutions of the plan.

    Raises:
        ImageError: for images that cannot be used.
        GeometryError: for images without overlap.
        DivergedError: for values that are not finite.
        DeviceError: for workers that die again and again.
    """
    run.config = with_intensities(run.config, None)
    coarse = coarse_of(run.plan, run.config, run.store.inner(NAME), run.initial, run.on_step)
    grid = coarse.deformation.grid
    axes = canonical_order(grid)
    here = coarse.deformation.reordered(axes)
    lattice = _lattice(here.grid, 2 * min(here.grid.spacing))
    coefficients, levels = lattice.fit(here), list[LevelSummary]()
    one_contrast = coarse.facts.one_contrast
    for number, sources in enumerate(run.plan.fine, start=1):
        finest = number == len(run.plan.fine)
        for compared in compared_by(run.config, one_contrast=one_contrast, dimension=grid.dimension, finest=finest):
            maps = _maps(run, sources, coarse, (lattice, coefficients), compared, f"level-{number}-{compared.model}")
            lattice, coefficients, summary = _level(run, maps, (lattice, coefficients), one_contrast=one_contrast)
            levels.append(summary)
    coefficients, passes = unfolded(lattice, coefficients, lattice.grid, one_to_one=run.config.refine.diffeomorphic)
    after = np.eye(grid.dimension + 1) if coarse.after is None else coarse.after
    return Found(Spline(lattice, coefficients, after), axes, coarse, tuple(levels), passes)


def _level(
    run: Large, maps: Maps, before: tuple[SplineLattice, torch.Tensor], *, one_contrast: bool | None
) -> tuple[SplineLattice, torch.Tensor, LevelSummary]:
    """One resolution: features, search, descent; what is there of it already is not computed again."""
    began, store, grid = time.perf_counter(), maps.store, maps.fixed.grid
    apart = control_mm(run.config, maps.compared, grid, run.memory_bytes, one_contrast=one_contrast)
    lattice = _lattice(grid, apart)
    if store.has("spline.npz"):
        kept = LevelSummary.read(store)
        return lattice, torch.from_numpy(store.load("spline.npz")["coefficients"]), kept
    maps.create()
    tasks = feature_tasks(maps)
    run.say(f"{grid.sentence}: {maps.compared.model} of {len(tasks)} blocks")
    run_all(run.workers, tasks, run.tell)
    start = before[0].field(before[1], lattice.grid)
    nodes = nodes_of(run, maps)
    if nodes is not None:
        run.say(f"{grid.sentence}: search on {nodes.grid('fixed').sentence}")
        start = searched(nodes, start, lambda tasks: run_all(run.workers, tasks, run.tell)).on(lattice.grid)
    config = settings(run.config, maps.compared, grid)
    prior = Prior(mean=start) if maps.compared.intensities else Prior()
    objective = BlockObjective(maps, lattice, config, prior, run.workers, run.tell)

    def report(iteration: int, distance: float, value: float) -> None:
        run.say(f"{grid.sentence}: step {iteration}, distance {distance:.5g}, objective {value:.5g}")

    coefficients, outcome = descend(objective, lattice.fit(start), config, report)
    summary = LevelSummary(
        source=maps.fixed.source.level, pooling=maps.fixed.source.pooling, size=grid.size_xyz,
        spacing_mm=min(grid.spacing), blocks=len(maps.boxes("fixed")), control_points=lattice.shape[::-1],
        compared=maps.compared.model, distance=maps.compared.distance, report=outcome,
        evaluations=objective.evaluations, seconds=time.perf_counter() - began,
        features_bytes=maps.bytes, nodes=() if nodes is None else nodes.grid("fixed").size_xyz,
    )  # fmt: skip
    summary.write(store)
    store.save("spline.npz", {"coefficients": coefficients})
    for name in ("maps.zarr", "search", "sums", "parts", "done", "created"):
        store.remove(name)
    return lattice, coefficients, summary


def settings(config: RegistrationConfig, compared: Compared, grid: Grid) -> RefineConfig:
    """How blocks descend."""
    fine, refine = config.fine, config.refine
    steps, weight = refine.iterations or LONG, DIFFUSION if refine.diffusion is None else refine.diffusion
    if compared.intensities:
        steps, weight = fine.iterations, fine.diffusion
    axes = directions_of(refine.axes, grid)
    return replace(refine, levels=1, symmetric=False, axes=axes, iterations=steps, diffusion=weight)


def nodes_of(run: Large, maps: Maps) -> Nodes | None:
    """The nodes of the search at a resolution; None: there is none, as on intensities, which lead nowhere."""
    config, compared, grid = run.config.coarse, maps.compared, maps.fixed.grid
    if not (config.enabled and compared.leads):
        return None
    apart = node_mm(run.config, grid, run.memory_bytes)
    return Nodes(
        maps, max(1, round(apart / min(maps.grid("fixed").spacing))), config.smoothing, config.inverse_consistency,
        directions_of(run.config.refine.axes, grid),
    )  # fmt: skip


def _maps(
    run: Large,
    sources: tuple[Source, Source],
    coarse: Coarse,
    before: tuple[SplineLattice, torch.Tensor],
    compared: Compared,
    name: str,
) -> Maps:
    """Both images on their working grids, and what is compared there."""
    fixed, moving = (source.open().grid for source in sources)
    spacing = working_spacing(fixed)
    reach = largest_mm(before[0].field(before[1], before[0].grid)) + 8 * spacing
    frame = plan_frame(fixed, moving, spacing, reach, initial=coarse.after is not None)
    facts = coarse.facts
    after = None if coarse.after is None else tuple(map(tuple, coarse.after.tolist()))
    near = Side(sources[0], frame.fixed, facts.fixed, blur=interpolation_blur(frame, moving, coarse.after))
    far = Side(sources[1], frame.moving, facts.moving, after)
    folder = str(run.store.folder / name)
    return Maps(folder, near, far, compared, max(1, run.plan.block // compared.pooling))


def _lattice(grid: Grid, spacing_mm: float) -> SplineLattice:
    """Control points so far apart over the box of a grid, counted on few samples of it."""
    apart = [spacing_mm / s for s in grid.spacing]
    factors = tuple(max(1, int(a / PLACES + 1e-9)) for a in apart)
    coarser = grid.pooled(factors)
    return SplineLattice(coarser, tuple(spacing_mm / s for s in coarser.spacing))
