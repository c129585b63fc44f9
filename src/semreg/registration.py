"""The order of the stages: prepare, extract features, search, refine, write down what was done. No arithmetic.

The contract of ``register``: the moving image, read through the field, matches the fixed one in feature space.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from semreg.alignment import Points, alignment_record, checked_start, find_alignment, start_of
from semreg.automatic import decide, look, this_machine
from semreg.config import RegistrationConfig
from semreg.consistency import Inverse, consistency_record, invert
from semreg.dense.deform import Deformed, deform
from semreg.dense.stiffness import checked_stiffness
from semreg.dense.terms import Term
from semreg.dense.unfold import unfold
from semreg.devices import choose_device
from semreg.errors import ConfigError, DivergedError
from semreg.events import Clock, OnStep
from semreg.fields import Field, Volume, jacobian_determinant, restore_order, warp
from semreg.geometry import Grid, reorder
from semreg.intake import Pair, take_in
from semreg.itk_bridge import (
    field_of_displacements,
    field_of_transform,
    is_linear,
    matrix_of,
    sitk_transform,
    to_volume,
    transform_of,
)
from semreg.matching import Given, Images, Pairing, describe_models, resolve_models
from semreg.memory import peak_bytes
from semreg.models import folders_of
from semreg.parametric.align import Alignment
from semreg.planning import distances, layout, plan
from semreg.preparation import canonical, check_overlap
from semreg.settings import to_dict
from semreg.uncertainty import Uncertainty, estimate

logger = logging.getLogger("semreg")


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
    """The alignment or the initial transform if it is linear (a SimpleITK transform): applied after ``deformation``."""
    inverse: Field | None = None
    """The way back, moving → fixed, on the moving image's grid, if it was asked for."""
    uncertainty: Volume | None = None
    """How far ``deformation`` may be off, (1, *S) float32 in mm on the fixed image's grid; None: not estimated."""

    def transform(self) -> Any:
        """The result as a SimpleITK transform, points fixed → moving in mm."""
        return sitk_transform(self.field)


def register(  # noqa: PLR0913 - two images, two masks, a start and a hook are what a user has
    fixed: Any,
    moving: Any,
    *,
    model: Any | None = None,
    config: RegistrationConfig | None = None,
    initial: Any | None = None,
    landmarks: Points | None = None,
    fixed_mask: Any | None = None,
    moving_mask: Any | None = None,
    stiffness: Any | None = None,
    inverse: bool = False,
    device: str = "auto",
    models: Sequence[str | Path] | str | Path = (),
    on_step: OnStep | None = None,
) -> Registration:
    """Find the displacement that brings ``moving`` onto ``fixed`` in feature space.

    Images and masks: anything ``semreg.to_volume`` takes (SimpleITK, itk, nibabel, (array, Grid), Volume), 2-D or
    3-D, on any two grids. Masks hold values in [0, 1]; voxels at 0 count nowhere. ``initial`` is a SimpleITK transform
    or a Field, fixed → moving; ``landmarks`` stand for the map between fixed and moving points (N, D) in mm, rigid
    unless ``align`` names another. ``stiffness``: an image of the weight of the regularity, 1 as usual, in the fixed
    image's space. ``inverse``: find the way back too. ``model`` stands for what ``config.models`` names: a
    ``torch.nn.Module``, a callable, a file, a
    name, or a list of these or of ``matching.Pairing``, models that are loaded already; ``models`` are folders with
    fetched ones. ``device`` is auto, cpu, cuda, cuda:n or mps. ``on_step`` receives ``Step`` events.

    Raises ImageError, GeometryError, ConfigError, ModelError, DeviceError or DivergedError, each with what to do.
    Method: Siebert, Hansen, Heinrich: ConvexAdam, 2024, on MIND-SSC features (Heinrich et al., 2013) by default.
    """
    config = config or RegistrationConfig()
    clock = Clock(on_step)
    chosen = choose_device(device)
    torch.manual_seed(config.seed)
    with clock.stage("prepare"):
        pair = take_in(fixed, moving, fixed_mask, moving_mask, config)
        target, source = pair.grids[0], pair.cleaned["moving"][0]
        stiff = None if stiffness is None else checked_stiffness(to_volume(stiffness), target.dimension)
        begin = start_of(initial, landmarks, config.align.transform, target.dimension)
        checked_start(_linear_part(begin), target.dimension)
        sights = look(pair.cleaned["fixed"][0]), look(source)
        decision = decide(*sights, config, this_machine(chosen), initial=begin is not None)
        config = decision.config
    begin, found = _aligned(pair, begin, config, chosen, clock)
    with clock.stage("features"):
        if begin is None:
            check_overlap(target, source.grid)
        frame, _ = layout(target, source.grid, config, initial=begin is not None)
        start = None if begin is None else _as_field(begin, frame.moving)
        pairings = _pairings(model, config, target.dimension, chosen, Given((), folders_of(models), on_step))
        images = Images(
            canonical(pair.treated["fixed"]), canonical(pair.treated["moving"]), frame, start, config, chosen
        )
        terms = images.terms(pairings)
    pooling = config.features.pooling or 1
    grids = frame.fixed.pooled(pooling), frame.moving.pooled(pooling)
    deformed = deform(terms, grids, config, clock, images, stiff)
    again = partial(deform, grids=grids, config=config, clock=Clock(None), renewal=images, stiffness=stiff)
    doubt = _uncertainty(terms, deformed, config, clock, again)
    del terms, images, again
    with clock.stage("field"):
        ordered = reorder(target, frame.axes)
        deformation, passes = unfold(
            deformed.lattice, deformed.coefficients, ordered, one_to_one=config.refine.diffeomorphic
        )
        deformation = Field(deformation.vox.cpu(), ordered)
        total = deformation if start is None else deformation.then(start)
        if not bool(torch.isfinite(total.vox).all()):
            raise DivergedError("expected a finite displacement, got NaN or infinity: check the images and settings")
        deformation = restore_order(deformation, frame.axes, target)
        total = deformation if start is None else restore_order(total, frame.axes, target)
        # at the border differences are halved: there a start that turns by 90° looks like a fold
        inner = tuple(slice(1, -1) if size > 2 else slice(None) for size in target.shape)
        jacobian = jacobian_determinant(total)[inner]
        warped = warp(source, total, outside=pair.outside)
        shown = None if doubt is None else doubt.on_image(frame.axes, target)
    linear = _linear_part(begin)
    back = _inverse(total, deformation, linear, source.grid, clock) if inverse else None
    record = {
        "device": str(chosen),
        "threads": torch.get_num_threads(),
        "seed": config.seed,
        "settings": to_dict(config),
        "models": describe_models(pairings),
        "decisions": list(decision.lines),
        "intensities": pair.done,
        "alignment": None if found is None else alignment_record(found),
        "plan": plan(target, source.grid, config, chosen, initial=begin is not None, pairings=pairings).lines,
        "background": pair.outside,
        "timings": clock.timings,
        "peak_memory_bytes": peak_memory_bytes(chosen),
        "similarity": {"distance": distances(config), **deformed.similarity},
        "convergence": [asdict(level) for level in deformed.levels],
        "spreads": list(deformed.spreads),
        "jacobian": {
            "minimum": float(jacobian.min()),
            "folded_share": float((jacobian <= 0).float().mean()),
            "unfolding_passes": passes,
        },
        "uncertainty": None if doubt is None else doubt.summary(),
        "inverse": None if back is None else consistency_record(total, back),
    }
    if float(jacobian.min()) <= 0:
        logger.warning(
            "%.2g %% of the voxels are folded: the initial transform folds, or tears at the edge of its field",
            100 * float((jacobian <= 0).float().mean()),
        )
    way_back = None if back is None else back.field
    return Registration(total, warped, record, total if linear is None else deformation, linear, way_back, shown)


def _uncertainty(
    terms: Sequence[Term],
    deformed: Deformed,
    config: RegistrationConfig,
    clock: Clock,
    again: Callable[[Sequence[Term]], Deformed],
) -> Uncertainty | None:
    """How far the displacement may be off, in the frame of the features; None where it is not asked for."""
    if not config.uncertainty.enabled:
        return None
    with clock.stage("uncertainty"):
        return estimate(
            terms,
            _displacement(deformed),
            config.uncertainty,
            disagreement=deformed.disagreement,
            again=lambda others: _displacement(again(others)),
            seed=config.seed,
        )


def _displacement(deformed: Deformed) -> Field:
    """What was found, on the grid of the fixed features."""
    return deformed.lattice.field(deformed.coefficients, deformed.lattice.grid)


def _linear_part(begin: Any) -> Any | None:
    """The start if it is a linear transform, None else."""
    return None if begin is None or isinstance(begin, Field) or not is_linear(begin) else begin


def _aligned(
    pair: Pair, begin: Any, config: RegistrationConfig, device: torch.device, clock: Clock
) -> tuple[Any, Alignment | None]:
    """The transform to start from after the alignment, None for the headers, and what was found; None: not looked for.

    A start that is not linear is taken as it is; a single slice does not tell where it lies in space.
    """
    thin = min(min(grid.shape) for grid in pair.grids) == 1 and config.align.transform == "auto"
    linear = _linear_part(begin)
    if begin is not None and linear is None and config.align.transform not in ("auto", "none"):
        logger.warning("the initial transform is not linear: it is taken as it is, without an alignment")
    if config.align.transform == "none" or thin or (begin is not None and linear is None):
        return begin, None
    reach = (config.coarse.reach_mm or 0.0) if config.coarse.enabled else 0.0
    with clock.stage("align"):
        found = find_alignment(
            canonical(pair.treated["fixed"]), canonical(pair.treated["moving"]), config.align, device,
            start=None if linear is None else matrix_of(linear), reach_mm=reach, on_step=clock.on_step,
        )  # fmt: skip
    for doubt in found.doubts:
        logger.warning("the alignment is doubtful: %s", doubt)
    return (transform_of(found.matrix) if found.moves else begin), found


def _pairings(
    model: Any, config: RegistrationConfig, dimension: int, device: torch.device, given: Given
) -> list[Pairing]:
    """The models to compare with: those that are handed over, else those of the settings."""
    if isinstance(model, (list, tuple)) and not model:
        raise ConfigError("expected a model or several, got an empty list: leave it out for those of the settings")
    handed = () if model is None else tuple(model) if isinstance(model, (list, tuple)) else (model,)
    if handed and all(isinstance(each, Pairing) for each in handed):
        return list(handed)
    return resolve_models(config, dimension, device, replace(given, models=handed))


def _inverse(total: Field, deformation: Field, linear: Any, grid: Grid, clock: Clock) -> Inverse:
    """The way back on the moving image's grid; beyond the fixed image the linear part continues."""
    with clock.stage("inverse"):
        if linear is None:
            return invert(total, grid)
        return invert(deformation, grid, after=matrix_of(linear))


def peak_memory_bytes(device: torch.device) -> dict[str, int]:
    """The most memory this process has held so far, and on a CUDA device what torch has allocated there."""
    peak = {"process": peak_bytes()}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device)
    return peak


def _as_field(initial: Any, grid: Grid) -> Field:
    """The start on ``grid``; a field continues beyond its box."""
    field = initial if isinstance(initial, Field) else field_of_displacements(initial)
    return field_of_transform(initial, grid) if field is None else field.on(grid)
