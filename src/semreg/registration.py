"""The order of the stages: prepare, extract features, search, refine, write down what was done. No arithmetic.

The contract of ``register``: the moving image, read through the field, matches the fixed one in feature space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from semreg.config import RegistrationConfig
from semreg.dense.deform import deform
from semreg.dense.refine import unfold
from semreg.devices import choose_device
from semreg.errors import ConfigError, DivergedError
from semreg.events import Clock, OnStep
from semreg.fields import Field, Volume, jacobian_determinant, restore_order, warp
from semreg.geometry import Grid, reorder
from semreg.itk_bridge import field_of_transform, is_linear, sitk_transform, to_volume
from semreg.matching import Given, Images, Pairing, describe_models, resolve_models
from semreg.memory import peak_bytes
from semreg.models import folders_of
from semreg.planning import distances, layout, plan, resolve
from semreg.preparation import background, canonical, check_pair, clean
from semreg.settings import to_dict


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
        frame, _ = layout(target, source.grid, config, initial=initial is not None)
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
    pooling = config.features.pooling or 1
    deformed = deform(terms, (frame.fixed.pooled(pooling), frame.moving.pooled(pooling)), config, clock, images)
    del terms, images
    with clock.stage("field"):
        ordered = reorder(target, frame.axes)
        deformation, passes = unfold(deformed.lattice, deformed.coefficients, ordered)
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
        "similarity": {"distance": distances(config), **deformed.similarity},
        "convergence": [asdict(level) for level in deformed.levels],
        "spreads": list(deformed.spreads),
        "jacobian": {
            "minimum": float(jacobian.min()),
            "folded_share": float((jacobian <= 0).float().mean()),
            "unfolding_passes": passes,
        },
    }
    if initial is not None and _linear(initial):
        return Registration(total, warped, record, deformation, initial)
    return Registration(total, warped, record, total)


def peak_memory_bytes(device: torch.device) -> dict[str, int]:
    """The most memory this process has held so far, and on a CUDA device what torch has allocated there."""
    peak = {"process": peak_bytes()}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device)
    return peak


def _as_field(initial: Any, grid: Grid) -> Field:
    return initial.on(grid) if isinstance(initial, Field) else field_of_transform(initial, grid)


def _linear(initial: Any) -> bool:
    return not isinstance(initial, Field) and is_linear(initial)
