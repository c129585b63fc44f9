"""The order of the stages: prepare, extract features, search, refine, write down what was done. No arithmetic.

The contract of ``register``: the moving image, read through the field, matches the fixed one in feature space.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from semreg.config import RefineConfig, RegistrationConfig
from semreg.dense.balance import for_refinement, for_search
from semreg.dense.coarse import Level, coarse, memory_bytes, plan_levels
from semreg.dense.match import distance_at
from semreg.dense.refine import LevelReport, lattice_of, refine, unfold
from semreg.dense.terms import Term
from semreg.devices import choose_device
from semreg.errors import ConfigError, DivergedError
from semreg.events import OnStep, Step
from semreg.features.extract import Extractor
from semreg.features.inputs import frame_of
from semreg.fields import Field, Volume, jacobian_determinant, restore_order, warp
from semreg.geometry import Grid, canonical_order, reorder
from semreg.itk_bridge import field_of_transform, is_linear, sitk_transform, to_volume
from semreg.matching import Given, Images, Pairing, describe_models, resolve_models
from semreg.memory import SHARE, available_bytes, peak_bytes
from semreg.models import folders_of
from semreg.preparation import Frame, background, canonical, check_pair, clean, plan_frame, working_spacing
from semreg.settings import to_dict

logger = logging.getLogger("semreg")

SMALL_IMAGE = 1 << 19
"""Working voxels up to which an image is small, about 80³: there the best is affordable."""
IMPORTS_BYTES = 330_000_000
"""Memory of a process that has imported torch and SimpleITK."""
INVERSE_ITERATIONS = 10
"""Of the fixed-point iteration between the two directions; each one shrinks the error by about the largest strain."""


@dataclass(frozen=True)
class Registration:
    """The result of ``register``: ``warp(moving, result.field)`` matches the fixed image in feature space."""

    field: Field
    """Displacement on the fixed image's grid, fixed → moving; includes the initial transform."""
    warped: Volume
    """The moving image on the fixed grid, float32, ``background`` where it shows nothing."""
    record: dict[str, Any]
    """What was done, ready for JSON: settings, device, plan, timings, convergence, similarity, Jacobian."""
    deformation: Field
    """``field`` without ``affine``: the same as ``field`` where ``affine`` is None."""
    affine: Any | None = None
    """The initial transform if it is linear (a SimpleITK transform): applied after ``deformation``."""

    def transform(self) -> Any:
        """The result as a SimpleITK transform, points fixed → moving in mm."""
        return sitk_transform(self.field)


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
    config: RegistrationConfig,
    device: torch.device | str = "cpu",
    *,
    initial: bool = False,
    pairings: Sequence[Pairing] | None = None,
    folders: Sequence[Any] = (),
) -> Plan:
    """Decide grids, levels and reach from the two grids and the settings; computes nothing on images.

    Networks that the settings name are loaded (``pairings`` holds them if they are already), to know their channels.
    """
    config = resolve(config, fixed)
    if pairings is None:
        given = Given(folders=folders_of(folders))
        pairings = resolve_models(config, fixed.dimension, torch.device(device), given)
    frame, levels = _layout(fixed, moving, config, initial=initial)
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
            f"Refinement{_mode(refine_config)} with distance {_distances(config)} on features {resolutions} mm apart, "
            f"control points {control:.3g} mm apart at the end, at most {refine_config.iterations} steps a level"
            f"{', in both directions' if refine_config.symmetric else ''}."
        )
    lines.append(f"Device: {device}.")
    return Plan(frame, levels, lines, _memory((fixed, moving), frame, levels, config, pairings))


def _mode(config: RefineConfig) -> str:
    if config.mode == "jacobian":
        return " through the network"
    return f", features renewed every {config.update_every} steps," if config.update_every else ""


def _distances(config: RegistrationConfig) -> str:
    names = [name for model in config.models for name in model.distance or (config.refine.distance,)]
    return ", ".join(dict.fromkeys(names))


def register(  # noqa: PLR0913 - two images, two masks, a start and a hook are what a user has
    fixed: Any,
    moving: Any,
    *,
    model: Any | None = None,
    config: RegistrationConfig | None = None,
    initial: Any | None = None,
    fixed_mask: Any | None = None,
    moving_mask: Any | None = None,
    device: str = "auto",
    models: Sequence[str | Path] | str | Path = (),
    on_step: OnStep | None = None,
) -> Registration:
    """Find the displacement that brings ``moving`` onto ``fixed`` in feature space.

    Images and masks: anything ``semreg.to_volume`` takes (SimpleITK, itk, nibabel, (array, Grid), Volume), 2-D or
    3-D, on any two grids. Masks hold values in [0, 1]; voxels at 0 count nowhere. ``initial`` is a SimpleITK transform
    or a Field, fixed → moving. ``model`` stands for what ``config.models`` names: a ``torch.nn.Module``, a callable, a
    file, a name, or a list of these or of ``matching.Pairing``, models that are loaded already; ``models`` are folders
    with fetched ones. ``device`` is auto, cpu, cuda, cuda:n or mps. ``on_step`` receives ``Step`` events.

    Raises ImageError, GeometryError, ConfigError, ModelError, DeviceError or DivergedError, each with what to do.
    Method: Siebert, Hansen, Heinrich: ConvexAdam, 2024, on MIND-SSC features (Heinrich et al., 2013) by default.
    """
    config = config or RegistrationConfig()
    clock = Clock(on_step)
    chosen = choose_device(device)
    torch.manual_seed(config.seed)
    with clock.stage("prepare"):
        volumes = {"fixed": to_volume(fixed), "moving": to_volume(moving)}
        check_pair(volumes["fixed"].grid, volumes["moving"].grid, initial=initial is not None)
        outside = background(volumes["moving"]) if config.background is None else config.background
        masks = {"fixed": fixed_mask, "moving": moving_mask}
        cleaned = {
            name: clean(volume, None if masks[name] is None else to_volume(masks[name]), name)
            for name, volume in volumes.items()
        }
        target, source = cleaned["fixed"][0].grid, cleaned["moving"][0]
        config = resolve(config, target)
        frame, _ = _layout(target, source.grid, config, initial=initial is not None)
        start = None if initial is None else _as_field(initial, frame.moving)
    with clock.stage("features"):
        if isinstance(model, (list, tuple)) and not model:
            raise ConfigError("expected a model or several, got an empty list: leave it out for those of the settings")
        given = () if model is None else tuple(model) if isinstance(model, (list, tuple)) else (model,)
        if given and all(isinstance(each, Pairing) for each in given):
            pairings = list(given)
        else:
            pairings = resolve_models(config, target.dimension, chosen, Given(given, folders_of(models), on_step))
        images = Images(canonical(cleaned["fixed"]), canonical(cleaned["moving"]), frame, start, config, chosen)
        terms = images.terms(pairings)
    del cleaned, volumes
    grid = frame.fixed.pooled(config.features.pooling or 1)
    matched = _match(terms, grid, images, config, clock)
    del terms, images
    with clock.stage("field"):
        ordered = reorder(target, frame.axes)
        deformation, passes = unfold(*matched.found, ordered)
        deformation = Field(deformation.vox.cpu(), ordered)
        total = deformation if start is None else deformation.then(start)
        if not bool(torch.isfinite(total.vox).all()):
            raise DivergedError("expected a finite displacement, got NaN or infinity: check the images and settings")
        deformation = restore_order(deformation, frame.axes, target)
        total = deformation if start is None else restore_order(total, frame.axes, target)
        jacobian = jacobian_determinant(total)
        warped = warp(source, total, outside=outside)
    record = {
        "device": str(chosen),
        "threads": torch.get_num_threads(),
        "seed": config.seed,
        "settings": to_dict(config),
        "models": describe_models(pairings),
        "plan": plan(target, source.grid, config, chosen, initial=initial is not None, pairings=pairings).lines,
        "background": outside,
        "timings": clock.timings,
        "peak_memory_bytes": peak_memory_bytes(chosen),
        "similarity": {"distance": _distances(config), **matched.similarity},
        "convergence": [asdict(level) for level in matched.levels],
        "spreads": list(matched.spreads),
        "jacobian": {
            "minimum": float(jacobian.min()),
            "folded_share": float((jacobian <= 0).float().mean()),
            "unfolding_passes": passes,
        },
    }
    if initial is not None and _linear(initial):
        return Registration(total, warped, record, deformation, initial)
    return Registration(total, warped, record, total)


@dataclass
class Clock:
    """Wall and CPU seconds of each stage, and the caller's hook."""

    on_step: OnStep | None
    timings: dict[str, dict[str, float]] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage; stages without steps of their own are told to the hook when they end."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        seconds = time.perf_counter() - wall
        self.timings[name] = {"seconds": seconds, "cpu_seconds": time.process_time() - cpu}
        if self.on_step is not None and name not in ("coarse", "refine"):
            self.on_step(
                Step(stage=name, level=1, levels=1, iteration=1, iterations=1, value=math.nan, seconds=seconds)
            )

    def counting(self, config: RefineConfig, directions: int, done: int) -> OnStep | None:
        """The hook for one of several directions: their levels are counted one after the other."""
        hook = self.on_step
        if hook is None or directions == 1:
            return hook
        first, levels = done * config.levels, directions * config.levels
        return lambda step: hook(replace(step, level=step.level + first, levels=levels))


def peak_memory_bytes(device: torch.device) -> dict[str, int]:
    """The most memory this process has held so far, and on a CUDA device what torch has allocated there."""
    peak = {"process": peak_bytes()}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device)
    return peak


def resolve(config: RegistrationConfig, fixed: Grid) -> RegistrationConfig:
    """The settings with all that was left open decided from the fixed image's grid.

    What costs more than it gives on a large image is done on a small one only: features at full resolution, and both
    directions in the refinement.
    """
    spacing = config.features.spacing_mm or working_spacing(reorder(fixed, canonical_order(fixed)))
    small = math.prod(max(1.0, extent / spacing) for extent in fixed.extent_mm) <= SMALL_IMAGE
    pooling = config.features.pooling or (1 if small else 2)
    coarse_mm = config.coarse.spacing_mm or 4 * spacing
    control_mm = config.refine.control_mm or (2 + 2 * pooling) * spacing
    plain = config.refine.mode == "static" and config.refine.update_every == 0
    if config.refine.symmetric and not plain:
        raise ConfigError("expected refine.symmetric=false where features are computed anew, got true: leave it out")
    symmetric = small and plain if config.refine.symmetric is None else config.refine.symmetric
    grid = plan_frame(fixed, fixed, spacing, 0.0, initial=False).fixed.pooled(pooling)
    search = replace(config.coarse, spacing_mm=coarse_mm)
    search = replace(search, reach_mm=sum(level.reach_mm for level in plan_levels(grid, search)))
    return replace(
        config,
        features=replace(config.features, spacing_mm=spacing, pooling=pooling),
        coarse=search,
        refine=replace(config.refine, control_mm=control_mm, symmetric=symmetric),
    )


def _layout(fixed: Grid, moving: Grid, config: RegistrationConfig, *, initial: bool) -> tuple[Frame, list[Level]]:
    """Working grids and levels of the search; the reach of the search decides how much of the moving image is read."""
    features = config.features
    alone = plan_frame(fixed, fixed, features.spacing_mm, 0.0, initial=False)
    levels = plan_levels(alone.fixed.pooled(features.pooling or 1), config.coarse)
    reach = sum(level.reach_mm for level in levels) if config.coarse.enabled else 0.0
    return plan_frame(fixed, moving, features.spacing_mm, reach, initial=initial), levels


@dataclass(frozen=True)
class _Matched:
    """The spline that was found with its coefficients, the distances before and after, and how each stage went."""

    found: tuple[Any, torch.Tensor]
    similarity: dict[str, float]
    levels: tuple[LevelReport, ...] = ()
    spreads: tuple[float, ...] = ()
    """Of the costs of each layer in the search, where they are balanced by that."""


def _match(terms: Sequence[Term], grid: Grid, images: Images, config: RegistrationConfig, clock: Clock) -> _Matched:
    """Search and refine."""
    found = Field.zeros(grid, device=terms[0].fixed.features.data.device)
    before = distance_at(terms, found)
    spread: tuple[float, ...] = ()
    if config.coarse.enabled:
        with clock.stage("coarse"):
            weighed, spread = for_search(terms, grid, found, config.coarse)
            found = coarse(weighed, grid, found, config.coarse, clock.on_step)
    if not config.refine.enabled:
        lattice = lattice_of(grid, config.refine)
        similarity = {"before": before, "after": distance_at(terms, found)}
        return _Matched((lattice, lattice.fit(found)), similarity, spreads=spread)
    with clock.stage("refine"):
        weighed = for_refinement(terms, found, config.refine)
        directions = 2 if config.refine.symmetric else 1
        hook = clock.counting(config.refine, directions, done=0)
        refined = refine(weighed, grid, found, config.refine, hook, images)
        lattice, coefficients, reports = refined.lattice, refined.coefficients, refined.levels
        found = lattice.field(coefficients, grid)
        if config.refine.symmetric:
            there = images.frame.moving.pooled(config.features.pooling or 1)
            start = found.inverse(there, iterations=INVERSE_ITERATIONS)
            hook = clock.counting(config.refine, directions, done=1)
            back = refine([term.swapped() for term in weighed], there, start, config.refine, hook)
            other = back.lattice.field(back.coefficients, there).inverse(grid, iterations=INVERSE_ITERATIONS)
            coefficients = lattice.fit(Field((found.vox + other.vox) / 2, grid))
            found = lattice.field(coefficients, grid)
            reports += back.levels
    similarity = {"before": before, "after": distance_at(terms, found)}
    return _Matched((lattice, coefficients), similarity, reports, spread)


def _as_field(initial: Any, grid: Grid) -> Field:
    return initial.on(grid) if isinstance(initial, Field) else field_of_transform(initial, grid)


def _linear(initial: Any) -> bool:
    return not isinstance(initial, Field) and is_linear(initial)


def _size(grid: Grid) -> str:
    return " × ".join(map(str, grid.size_xyz))


def _memory(
    images: tuple[Grid, Grid],
    frame: Frame,
    levels: list[Level],
    config: RegistrationConfig,
    pairings: Sequence[Pairing],
) -> int:
    """Images as read and as worked on, features of both, the largest of search, refinement and output, the imports."""
    fixed, moving = images
    pooling = config.features.pooling or 1
    grid, there = frame.fixed.pooled(pooling), frame.moving.pooled(pooling)
    channels = sum(_channels(pairing) for pairing in pairings)
    network = max([_network_bytes(pairing, frame) for pairing in pairings])
    held = 4 * (fixed.voxels + moving.voxels + max(frame.fixed.voxels, frame.moving.voxels))
    features = int(4 * channels * (grid.voxels + there.voxels))
    search = memory_bytes(grid, levels) if config.coarse.enabled else 0
    names = {name for model in config.models for name in model.distance or (config.refine.distance,)}
    everything = bool(names & {"ncc", "lncc"})  # such a distance sees all samples at once, with their gradients
    descent = features + 400 * grid.voxels + (grid.voxels * (16 * channels + 100) if everything else 0)
    descent *= 2 if config.refine.symmetric else 1
    output = 4 * fixed.voxels * (fixed.dimension + 2) + 16 * fixed.voxels * fixed.dimension
    return int(held + features + max(search, descent, output, network) + IMPORTS_BYTES)


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
