"""``register``: the stages one after the other, and what they leave. No arithmetic.

The contract: the moving image, read through the field, matches the fixed one in feature space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from semreg.config import RegistrationConfig
from semreg.io.bridge import LabelMap
from semreg.io.bridge.kinds import ImageLike, TransformLike
from semreg.registration.alignment import Points, settings_of
from semreg.registration.contrasts import Contrast, ContrastReport
from semreg.registration.guidance import Guidance, GuidanceReport
from semreg.registration.matching import describe_models
from semreg.registration.plan import Plan
from semreg.registration.plan.defaults import distances
from semreg.registration.result import (
    AlignmentReport,
    FeatureDistance,
    InverseReport,
    PlanReport,
    Record,
    Registration,
    finite,
)
from semreg.registration.stages import STAGES, Request, State
from semreg.registration.stages.inverse import linear_of
from semreg.registration.stages.plan import PLAN
from semreg.runtime.devices import choose_device
from semreg.runtime.events import Clock, OnStep
from semreg.runtime.memory import peak_bytes


def register(  # noqa: PLR0913 - two images, two masks, a start and a hook are what a user has
    fixed: ImageLike,
    moving: ImageLike,
    *,
    preset: str | None = None,
    model: Any | None = None,
    config: RegistrationConfig | None = None,
    initial: TransformLike | None = None,
    start: Any | None = None,
    landmarks: Points | None = None,
    fixed_mask: ImageLike | None = None,
    moving_mask: ImageLike | None = None,
    stiffness: ImageLike | None = None,
    rigid: ImageLike | LabelMap | None = None,
    sliding: ImageLike | LabelMap | None = None,
    guidance: Guidance | None = None,
    contrasts: Sequence[Contrast] = (),
    inverse: bool = False,
    device: str = "auto",
    models: Sequence[str | Path] | str | Path = (),
    on_plan: Callable[[Plan], None] | None = None,
    on_step: OnStep | None = None,
) -> Registration:
    """Find the displacement that brings ``moving`` onto ``fixed`` in feature space.

    Method: Siebert, Großbröhmer, Hansen, Heinrich: ConvexAdam, 2024, on MIND-SSC features (Heinrich et al., 2013) by
    default.

    Args:
        fixed: the image that stays: a file, a folder of DICOM, or anything ``semreg.to_volume`` takes (SimpleITK, itk,
            nibabel, (array, Grid), Volume), 2-D or 3-D, on any grid.
        moving: the image that is moved, of the same dimension, on any other grid.
        preset: name of settings for a common pair (``semreg presets list``), in place of ``config``.
        model: stands for what ``config.models`` names: a ``torch.nn.Module``, a callable, a file, a name, or a list of
            these or of ``matching.Pairing``, models that are loaded already.
        config: the settings; what they leave open is decided from images and machine. None: the defaults.
        initial: a SimpleITK transform, a Field or a file of any tool, fixed → moving, to start from.
        start: stands for what ``config.start`` names: a file, a module with a ``spec``, or a
            ``semreg.features.registrar.Registrar``, a network whose displacement is where the deformation begins.
        landmarks: corresponding points (N, D) in mm of both images; they stand for the map between them, rigid unless
            ``config.align`` names another.
        fixed_mask: values in [0, 1] in the fixed image's space; voxels at 0 count nowhere.
        moving_mask: the same for the moving image.
        stiffness: an image of the weight of the regularity, 1 as usual, in the fixed image's space.
        rigid: labels of the fixed image, exact, on any grid: each, or each that ``config.parts`` names, is a part that
            moves rigidly.
        sliding: labels or a mask of the fixed image, on any grid: what lies inside, or what ``config.sliding`` names of
            it, may slide along what lies outside. Not together with ``rigid``.
        guidance: landmarks and labels that pull during the whole deformation.
        contrasts: further images of the same two scenes, in the same space, that are compared too.
        inverse: find the way back too.
        device: auto, cpu, cuda, cuda:n or mps.
        models: folders with fetched models.
        on_plan: receives the plan before it is executed.
        on_step: receives ``Step`` events.

    Returns:
        The displacement, the warped image, and what was done.

    Raises:
        ImageError: for an image, a mask or a stiffness map that cannot be used.
        GeometryError: for images of two dimensions or without overlap, and for a start that does not fit.
        ConfigError: for settings that contradict each other, do not fit the models, or need more memory than there is.
        ModelError: for a model that cannot be loaded or does not fit the images.
        DeviceError: for a device that is unknown or not there.
        DivergedError: for a displacement that is not finite.
    """
    asked = Request(
        fixed=fixed, moving=moving, fixed_mask=fixed_mask, moving_mask=moving_mask, model=model, folders=models,
        initial=initial, landmarks=landmarks, stiffness=stiffness, rigid=rigid, sliding=sliding,
        guidance=guidance, start=start, contrasts=tuple(contrasts), inverse=inverse, on_plan=on_plan,
    )  # fmt: skip
    state = _state(asked, settings_of(config, preset), device, on_step)
    for stage in STAGES:
        state.clock.run(stage, state)
    linear, structure = linear_of(state), state.known_parts or state.wall
    return Registration(
        field=state.total,
        warped=state.warped,
        record=_record(state),
        deformation=state.total if linear is None else state.deformation,
        affine=linear,
        inverse=None if state.inverse is None else state.inverse.field,
        uncertainty=state.uncertainty,
        pair=state.pair,
        determinants=state.determinants,
        warped_contrasts=state.warped_contrasts,
        structure=None if structure is None else structure.as_labels(),
        keypoints=None if state.keypoints is None else state.keypoints.points,
    )


def plan(  # noqa: PLR0913 - what register takes
    fixed: ImageLike,
    moving: ImageLike,
    *,
    preset: str | None = None,
    model: Any | None = None,
    config: RegistrationConfig | None = None,
    initial: TransformLike | None = None,
    start: Any | None = None,
    landmarks: Points | None = None,
    fixed_mask: ImageLike | None = None,
    moving_mask: ImageLike | None = None,
    stiffness: ImageLike | None = None,
    rigid: ImageLike | LabelMap | None = None,
    sliding: ImageLike | LabelMap | None = None,
    guidance: Guidance | None = None,
    contrasts: Sequence[Contrast] = (),
    device: str = "auto",
    models: Sequence[str | Path] | str | Path = (),
) -> Plan:
    """What ``register`` would do with the same arguments: it runs the stages up to the plan and no further.

    Args:
        fixed: as for ``register``, as all that follow.
        moving: the image that would be moved.
        preset: name of settings for a common pair.
        model: stands for what ``config.models`` names.
        config: the settings.
        initial: the transform to start from.
        start: the network that proposes where to begin.
        landmarks: corresponding points.
        fixed_mask: what counts of the fixed image.
        moving_mask: what counts of the moving image.
        stiffness: the weight of the regularity.
        rigid: the parts that would move rigidly.
        sliding: what would slide.
        guidance: what would pull; its network is loaded, and not run.
        contrasts: what would be compared too.
        device: where it would be computed.
        models: folders with fetched models.

    Returns:
        The settings that would be in force, the working grids, the memory, and a reason for each decision.

    Raises:
        ImageError: for an image, a mask or labels that cannot be used.
        GeometryError: for images of two dimensions, and for a start that does not fit.
        ConfigError: for settings that contradict each other or do not fit the models.
        ModelError: for a model that cannot be loaded or does not fit the images.
        DeviceError: for a device that is unknown or not there.
    """
    asked = Request(
        fixed=fixed, moving=moving, fixed_mask=fixed_mask, moving_mask=moving_mask, model=model, folders=models,
        initial=initial, start=start, landmarks=landmarks, stiffness=stiffness, rigid=rigid, sliding=sliding,
        guidance=guidance, contrasts=tuple(contrasts), only_plan=True,
    )  # fmt: skip
    state = _state(asked, settings_of(config, preset), device, None)
    for stage in STAGES[: STAGES.index(PLAN) + 1]:
        state.clock.run(stage, state)
    return state.plan


def _state(asked: Request, config: RegistrationConfig, device: str, on_step: OnStep | None) -> State:
    """The beginning of a run."""
    return State(asked, config, choose_device(device), Clock(on_step))


def _record(state: State) -> Record:
    """What was done."""
    config, deformed, pair = state.config, state.deformed, state.pair
    before, after = (finite(deformed.similarity[when]) for when in ("before", "after"))
    return Record(
        device=str(state.device),
        threads=torch.get_num_threads(),
        seed=config.seed,
        settings=config,
        modality=pair.recognised,
        intensities=pair.done,
        background=pair.outside,
        alignment=None if state.alignment is None else AlignmentReport.of(state.alignment),
        timings=state.clock.timings,
        plan=PlanReport(reasons=state.plan.reasons, memory_bytes=state.plan.memory_bytes),
        models=describe_models([*state.pairings, *state.others]),
        peak_memory_bytes=peak_memory_bytes(state.device),
        similarity=FeatureDistance(distance=distances(config), before=before, after=after),
        convergence=deformed.levels,
        intensity_relation=state.relation,
        spreads=deformed.spreads,
        jacobian=state.folding,
        start=state.proposal,
        guidance=_guidance(state),
        parts=state.parts,
        sliding=state.sliding,
        contrasts=tuple(map(ContrastReport.of, state.contrasts)),
        uncertainty=None if state.doubt is None else state.doubt.summary(rigid=state.parts is not None),
        inverse=None if state.inverse is None else InverseReport.of(state.total, state.inverse),
    )


def _guidance(state: State) -> GuidanceReport | None:
    """What guided, and how well it is obeyed; None: nothing did."""
    points, labels, keypoints = state.known_points, state.known_labels, state.keypoints
    if points is None and labels is None and keypoints is None:
        return None
    residual = None
    if points is not None:
        residual = points.residual(points.fixed, state.total.map(points.fixed))
    return GuidanceReport(
        landmarks=residual,
        labels=None if labels is None else labels.use,
        keypoints=None if keypoints is None else keypoints.report(state.total),
    )


def peak_memory_bytes(device: torch.device) -> dict[str, int]:
    """The most memory this process has held so far, and on a CUDA device what torch has allocated there."""
    peak = {"process": peak_bytes()}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device)
    return peak
