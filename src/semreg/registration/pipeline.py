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

from semreg.config import RegistrationConfig
from semreg.core.consistency import Inverse, consistency_record, invert
from semreg.core.fields import Field, Volume, jacobian_determinant, restore_order, warp
from semreg.core.geometry import Grid, reorder
from semreg.errors import ConfigError, DivergedError
from semreg.features.models import folders_of
from semreg.io.bridge import (
    field_of_displacements,
    field_of_transform,
    matrix_of,
    sitk_transform,
    to_volume,
)
from semreg.preprocess.image_pair import Pair, take_in
from semreg.preprocess.preparation import Frame, canonical, check_overlap
from semreg.registration.alignment import Points, aligned_start, alignment_record, checked_start, linear_part, start_of
from semreg.registration.automatic import Decision, decide, look, this_machine
from semreg.registration.dense.deform import Deformed, deform
from semreg.registration.dense.stiffness import checked_stiffness
from semreg.registration.dense.terms import Term
from semreg.registration.dense.unfold import unfold
from semreg.registration.matching import Given, Images, Pairing, describe_models, resolve_models
from semreg.registration.plan import distances, layout, plan
from semreg.registration.uncertainty import Uncertainty, estimate
from semreg.runtime.devices import choose_device
from semreg.runtime.events import Clock, OnStep
from semreg.runtime.memory import peak_bytes
from semreg.settings import to_dict

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
    Method: Siebert, Großbröhmer, Hansen, Heinrich: ConvexAdam, 2024, on MIND-SSC features (Heinrich et al., 2013)
    by default.
    """
    run = _Run(config or RegistrationConfig(), choose_device(device), Clock(on_step))
    with run.clock.stage("prepare"):
        pair = take_in(fixed, moving, fixed_mask, moving_mask, run.config)
        dimension = pair.grids[0].dimension
        stiff = None if stiffness is None else checked_stiffness(to_volume(stiffness), dimension)
        begin = start_of(initial, landmarks, run.config.align.transform, dimension)
        checked_start(linear_part(begin), dimension)
        decision = _decided(pair, run, started=begin is not None)
    run = replace(run, config=decision.config)
    begin, aligned = aligned_start(pair, begin, run.config, run.device, run.clock)
    found = _searched(pair, begin, stiff, partial(_pairings, model, models, dimension, run), run)
    placed = _placed(pair, found, run)
    linear = None if run.config.refine.continues else linear_part(begin)
    back = _inverse(placed, linear, pair.grids[1], run.clock) if inverse else None
    record = {
        **_record(pair, found, placed, run),
        "decisions": list(decision.lines),
        "alignment": None if aligned is None else alignment_record(aligned),
        "inverse": None if back is None else consistency_record(placed.total, back),
    }
    return Registration(
        placed.total, placed.warped, record, placed.total if linear is None else placed.deformation, linear,
        None if back is None else back.field, placed.uncertainty,
    )  # fmt: skip


@dataclass(frozen=True)
class _Run:
    """What all stages share."""

    config: RegistrationConfig
    device: torch.device
    clock: Clock


@dataclass(frozen=True)
class _Searched:
    """What was found in the working frame."""

    frame: Frame
    start: Field | None
    """What the moving image was resampled by, on the frame's moving grid; None: it was read as it lies."""
    started: bool
    """Whether it began at a transform and not at the headers of the images."""
    pairings: list[Pairing]
    deformed: Deformed
    doubt: Uncertainty | None


@dataclass(frozen=True)
class _Placed:
    """What was found on the fixed image's own grid."""

    total: Field
    deformation: Field
    """``total`` without the start."""
    warped: Volume
    uncertainty: Volume | None
    jacobian: dict[str, float]
    """What the record says of folding."""


def _decided(pair: Pair, run: _Run, *, started: bool) -> Decision:
    """What is left open, decided from the images and the machine."""
    fixed, moving = (look(pair.cleaned[name][0], pair.recognised[name]) for name in ("fixed", "moving"))
    return decide(fixed, moving, run.config, this_machine(run.device), initial=started)


def _searched(
    pair: Pair, begin: Any, stiffness: Volume | None, load: Callable[[], list[Pairing]], run: _Run
) -> _Searched:
    """Features, search, refinement and its uncertainty; the features are given back when it ends."""
    config, clock = run.config, run.clock
    with clock.stage("features"):
        target, source = pair.grids
        if begin is None:
            check_overlap(target, source)
        frame, _ = layout(target, source, config, initial=begin is not None)
        field = None if begin is None else _as_field(begin, frame.fixed if config.refine.continues else frame.moving)
        start, first = (None, field) if config.refine.continues else (field, None)
        pairings = load()
        treated = canonical(pair.treated["fixed"]), canonical(pair.treated["moving"])
        images = Images(*treated, frame, start, config, run.device)
        terms = images.terms(pairings)
    pooling = config.features.pooling or 1
    grids = frame.fixed.pooled(pooling), frame.moving.pooled(pooling)
    again = partial(
        deform, grids=grids, config=config, clock=Clock(None), renewal=images, stiffness=stiffness, begin=first
    )
    deformed = again(terms, clock=clock)
    doubt = _uncertainty(terms, deformed, config, clock, again)
    return _Searched(frame, start, begin is not None, pairings, deformed, doubt)


def _placed(pair: Pair, found: _Searched, run: _Run) -> _Placed:
    """The displacement on the fixed image's own grid, without folds, and the moving image warped by it, once."""
    with run.clock.stage("field"):
        target, axes, start = pair.grids[0], found.frame.axes, found.start
        ordered = reorder(target, axes)
        deformation, passes = unfold(
            found.deformed.lattice, found.deformed.coefficients, ordered, one_to_one=run.config.refine.diffeomorphic
        )
        deformation = Field(deformation.vox.cpu(), ordered)
        total = deformation if start is None else deformation.then(start)
        if not bool(torch.isfinite(total.vox).all()):
            raise DivergedError("expected a finite displacement, got NaN or infinity: check the images and settings")
        deformation = restore_order(deformation, axes, target)
        total = deformation if start is None else restore_order(total, axes, target)
        # at the border differences are halved: there a start that turns by 90° looks like a fold
        inner = tuple(slice(1, -1) if size > 2 else slice(None) for size in target.shape)
        determinant = jacobian_determinant(total)[inner]
        jacobian = {
            "minimum": float(determinant.min()),
            "folded_share": float((determinant <= 0).float().mean()),
            "unfolding_passes": passes,
        }
        warped = warp(pair.cleaned["moving"][0], total, outside=pair.outside)
        shown = None if found.doubt is None else found.doubt.on_image(axes, target)
    if jacobian["minimum"] <= 0:
        logger.warning(
            "%.2g %% of the voxels are folded: the initial transform folds, or tears at the edge of its field",
            100 * jacobian["folded_share"],
        )
    return _Placed(total, deformation, warped, shown, jacobian)


def _record(pair: Pair, found: _Searched, placed: _Placed, run: _Run) -> dict[str, Any]:
    """What was done, ready for JSON."""
    config, deformed, started = run.config, found.deformed, found.started
    planned = plan(*pair.grids, config=config, device=run.device, initial=started, pairings=found.pairings)
    return {
        "device": str(run.device),
        "threads": torch.get_num_threads(),
        "seed": config.seed,
        "settings": to_dict(config),
        "models": describe_models(found.pairings),
        "modality": {name: known.to_dict() for name, known in pair.recognised.items()},
        "intensities": pair.done,
        "plan": planned.lines,
        "background": pair.outside,
        "timings": run.clock.timings,
        "peak_memory_bytes": peak_memory_bytes(run.device),
        "similarity": {"distance": distances(config), **deformed.similarity},
        "convergence": [asdict(level) for level in deformed.levels],
        "spreads": list(deformed.spreads),
        "jacobian": placed.jacobian,
        "uncertainty": None if found.doubt is None else found.doubt.summary(),
    }


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


def _pairings(model: Any, models: Sequence[str | Path] | str | Path, dimension: int, run: _Run) -> list[Pairing]:
    """The models to compare with: those that are handed over, else those of the settings."""
    if isinstance(model, (list, tuple)) and not model:
        raise ConfigError("expected a model or several, got an empty list: leave it out for those of the settings")
    handed = () if model is None else tuple(model) if isinstance(model, (list, tuple)) else (model,)
    if handed and all(isinstance(each, Pairing) for each in handed):
        return list(handed)
    given = Given(handed, folders_of(models), run.clock.on_step)
    return resolve_models(run.config, dimension, run.device, given)


def _inverse(placed: _Placed, linear: Any, grid: Grid, clock: Clock) -> Inverse:
    """The way back on the moving image's grid; beyond the fixed image the linear part continues."""
    with clock.stage("inverse"):
        if linear is None:
            return invert(placed.total, grid)
        return invert(placed.deformation, grid, after=matrix_of(linear))


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
