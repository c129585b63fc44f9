"""Alignment by a few parameters of two images as users have them: ``align``, and the first stage of ``register``."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import maximum_filter

from semreg.config import AlignConfig, RegistrationConfig
from semreg.core.fields import Field, Layer, Volume, warp
from semreg.core.geometry import Matrix, covering_grid
from semreg.errors import ConfigError, GeometryError
from semreg.features.descriptors.mind import MindSSC
from semreg.features.extract import describe
from semreg.io.bridge import field_of_transform, is_linear, matrix_of, transform_of
from semreg.io.bridge.kinds import ImageLike, TransformLike
from semreg.preprocess.body import content_mask
from semreg.preprocess.image_pair import Cleaned, Pair, prepare_pair
from semreg.preprocess.preparation import canonical
from semreg.presets import configure
from semreg.registration.parametric.align import Alignment
from semreg.registration.parametric.align import align as align_pictures
from semreg.registration.parametric.overlap import Picture
from semreg.registration.parametric.telling import Telling
from semreg.registration.result import AlignmentReport, AlignRecord
from semreg.runtime.devices import choose_device
from semreg.runtime.events import Clock, OnStep
from semreg.transforms import read_transform
from semreg.transforms.maps import fit_points

logger = logging.getLogger("semreg")

Points: TypeAlias = tuple[npt.ArrayLike, npt.ArrayLike]
"""Fixed and moving landmarks, (N, D) each, x y(, z) in mm; the n-th of one belongs to the n-th of the other."""

CONTENT_VOXELS = 48
"""Voxels a side of the content, if the image were a cube."""
RIM = 3
"""Voxels around the content that count too: its outline says much."""
LEVELS, LEVELS_BEFORE = 3, 2
"""Resolutions, and those of an alignment that a deformation follows."""
MOST_CONDITION = 1e6
"""Ratio of the scales of an initial transform along its axes from which it counts as singular."""
RADIUS, DILATION = 1, 1
"""Of MIND, on the voxels of each resolution."""


@dataclass(frozen=True)
class Aligned:
    """The result of ``align``: a map of points in mm, fixed → moving."""

    matrix: Matrix
    """Homogeneous, (E, E), float64."""
    warped: Volume
    """The moving image on the fixed grid, float32, ``background`` where it shows nothing."""
    record: AlignRecord
    """What was done; ``alignment`` says what speaks against it in ``doubts``."""

    def transform(self) -> Any:
        """The map as a SimpleITK transform."""
        return transform_of(self.matrix)

    def __repr__(self) -> str:
        found = self.record.alignment
        kind = "none" if found is None else found.transform
        doubts = f", {len(found.doubts)} doubts" if found is not None and found.doubts else ""
        return f"Aligned({kind}, {self.warped.grid.sentence}{doubts})"


def align(  # noqa: PLR0913 - two images, two masks, a start and a hook are what a user has
    fixed: ImageLike,
    moving: ImageLike,
    *,
    preset: str | None = None,
    config: RegistrationConfig | None = None,
    initial: TransformLike | None = None,
    landmarks: Points | None = None,
    fixed_mask: ImageLike | None = None,
    moving_mask: ImageLike | None = None,
    device: str = "auto",
    on_step: OnStep | None = None,
) -> Aligned:
    """Find the map with few parameters that brings ``moving`` onto ``fixed`` in feature space, from any position.

    Without a start every shift of many rotations is tried. The features are MIND-SSC (Heinrich et al., 2013).

    Args:
        fixed: the image that stays: a file, a folder of DICOM, or anything ``semreg.to_volume`` takes, 2-D or 3-D, on
            any grid.
        moving: the image that is moved, of the same dimension, on any other grid.
        preset: name of settings for a common pair (``semreg presets list``), in place of ``config``.
        config: the settings; ``config.align`` names the kind of map. None: the defaults.
        initial: a linear SimpleITK transform, or a file of one, fixed → moving, to start from.
        landmarks: corresponding points (N, D) in mm, LPS, of both images; they stand for the map between them.
        fixed_mask: values in [0, 1] in the fixed image's space; voxels at 0 count nowhere.
        moving_mask: the same for the moving image.
        device: auto, cpu, cuda, cuda:n or mps.
        on_step: receives ``Step`` events.

    Returns:
        The map as a matrix (E, E) on points in mm, the warped image on the fixed grid, and what was done.

    Raises:
        ImageError: for an image or a mask that cannot be read or has nothing that counts.
        GeometryError: for images of two dimensions, a start that does not fit or is not linear, and images without a
            position where both show enough.
        ConfigError: for a start and landmarks together.
        DeviceError: for a device that is unknown or not there.
    """
    config = settings_of(config, preset)
    clock = Clock(on_step)
    chosen = choose_device(device)
    with clock.stage("prepare"):
        pair = prepare_pair(fixed, moving, fixed_mask, moving_mask, config)
        start = start_of(initial, landmarks, config.align.transform, pair.grids[0].dimension)
        if start is not None and not is_linear(start):
            raise GeometryError("expected a linear initial transform for an alignment, got another: use register")
    before = checked_start(start, pair.grids[0].dimension)
    with clock.stage("align", tells=True):
        if config.align.transform == "none":
            n = pair.grids[0].dimension
            found = Alignment(np.eye(n + 1) if before is None else before, "none", math.nan, None, math.nan, ())
        else:
            treated = canonical(pair.treated["fixed"]), canonical(pair.treated["moving"])
            found = find_alignment(*treated, config.align, chosen, ct=pair.ct, start=before, on_step=on_step)
    with clock.stage("field"):
        field = field_of_transform(transform_of(found.matrix), pair.grids[0])
        warped = warp(pair.cleaned["moving"][0], field, outside=pair.outside)
    record = AlignRecord(
        device=str(chosen),
        threads=torch.get_num_threads(),
        seed=config.seed,
        settings=config,
        modality=pair.recognised,
        intensities=pair.done,
        background=pair.outside,
        alignment=AlignmentReport.of(found),
        timings=clock.timings,
    )
    return Aligned(found.matrix, warped, record)


def settings_of(config: RegistrationConfig | None, preset: str | None) -> RegistrationConfig:
    """The settings as given, those of a preset, or the defaults (ConfigError for both)."""
    if preset is None:
        return config or RegistrationConfig()
    if config is not None:
        raise ConfigError(
            f"expected config or preset, got both: semreg.configure(…, preset={preset!r}) gives settings over a preset"
        )
    return configure(preset=preset)


def looks_for_alignment(pair: Pair, begin: Any, config: RegistrationConfig) -> bool:
    """Whether there is an alignment to look for before a deformation.

    A start that is not linear is taken as it is; a single slice does not tell where it lies in space.
    """
    thin = min(min(grid.shape) for grid in pair.grids) == 1 and config.align.transform == "auto"
    bent = begin is not None and linear_part(begin) is None
    if bent and config.align.transform not in ("auto", "none"):
        logger.warning("the initial transform is not linear: it is taken as it is, without an alignment")
    return not (config.align.transform == "none" or thin or bent)


def aligned_start(
    pair: Pair, begin: Any, config: RegistrationConfig, device: torch.device, on_step: OnStep | None
) -> tuple[Any, Alignment]:
    """What a deformation starts from after the alignment, None for the headers; and what was found."""
    linear = linear_part(begin)
    reach = (config.coarse.reach_mm or 0.0) if config.coarse.enabled else 0.0
    found = find_alignment(
        canonical(pair.treated["fixed"]), canonical(pair.treated["moving"]), config.align, device,
        ct=pair.ct, start=None if linear is None else matrix_of(linear), reach_mm=reach, on_step=on_step,
    )  # fmt: skip
    for doubt in found.doubts:
        logger.warning("the alignment is doubtful: %s", doubt)
    return (transform_of(found.matrix) if found.moves else begin), found


def linear_part(begin: Any) -> Any | None:
    """The start if it is a linear transform, None else."""
    return None if begin is None or isinstance(begin, Field) or not is_linear(begin) else begin


def checked_start(transform: Any, dimension: int) -> Matrix | None:
    """The matrix of a linear start, None without one. Raises GeometryError where it does not fit or is singular."""
    if transform is None:
        return None
    if transform.GetDimension() != dimension:
        raise GeometryError(
            f"expected an initial transform in {dimension}-D as the images are, got one in "
            f"{transform.GetDimension()}-D: give another"
        )
    matrix = matrix_of(transform)
    if not np.isfinite(matrix).all() or np.linalg.cond(matrix[:-1, :-1]) > MOST_CONDITION:
        raise GeometryError("expected an initial transform that can be undone, got a singular one: check its file")
    return matrix


def start_of(initial: Any, landmarks: Points | None, family: str, dimension: int) -> Any:
    """The transform to start from: as given, or the map that brings landmarks together; None if there is neither."""
    if landmarks is None:
        return read_transform(initial) if isinstance(initial, (str, Path)) else initial
    if initial is not None:
        raise ConfigError("expected an initial transform or landmarks, got both: leave one out")
    fixed, moving = (np.asarray(points, dtype=np.float64) for points in landmarks)
    if fixed.ndim != 2 or fixed.shape[1] != dimension:
        raise GeometryError(f"expected landmarks of {dimension} coordinates, got an array of shape {fixed.shape}")
    kind = "rigid" if family in ("auto", "none") else family
    return transform_of(fit_points(kind, fixed, moving))


def picture(image: Cleaned, device: torch.device, *, ct: bool | None = None) -> Picture:
    """An image in canonical axes as the alignment sees it; ``ct`` as for ``content_of``."""
    volume, weight = image
    return Picture(volume, weight, content_of(image, ct=ct)).to(device)


def content_of(image: Cleaned, *, ct: bool | None = None) -> Volume:
    """How much each place counts, (1, *S) at a coarse resolution: what shows something, and a rim around it.

    ``ct``: whether its values are Hounsfield units; None: as they look.
    """
    volume, weight = image
    n = volume.grid.dimension
    spacing = (math.prod(max(e, s) for e, s in zip(volume.grid.extent_mm, volume.grid.spacing, strict=True))) ** (1 / n)
    spacings = tuple(max(spacing / CONTENT_VOXELS, s) for s in volume.grid.spacing)
    grid = covering_grid(volume.grid, volume.grid, spacings)
    share = content_mask(_without_excluded(volume, weight), ct=ct).averaged_on(grid).data
    grown = torch.from_numpy(maximum_filter(share[0].numpy(), size=2 * RIM + 1))[None]
    if weight is not None:
        grown = grown * weight.averaged_on(grid).data
    return Volume(grown, grid)


def _without_excluded(volume: Volume, weight: Volume | None) -> Volume:
    """The image with the smallest of the values that count where none counts: what is excluded decides nothing."""
    if weight is None:
        return volume
    counts = weight.data > 0
    return Volume(volume.data.where(counts, volume.data[counts].min()), volume.grid)


def find_alignment(  # noqa: PLR0913 - two images, how, where, and from where
    fixed: Cleaned,
    moving: Cleaned,
    config: AlignConfig,
    device: torch.device,
    *,
    ct: tuple[bool | None, bool | None] = (None, None),
    start: Matrix | None = None,
    reach_mm: float = 0.0,
    on_step: OnStep | None = None,
) -> Alignment:
    """The map that brings ``moving`` onto ``fixed``, both in canonical axes with the weight of their voxels.

    ``ct``: whether the values of either are Hounsfield units; None: as they look. ``reach_mm`` is what a deformation
    that follows can cover, 0 without one. Raises GeometryError as ``align``.
    """
    mind = MindSSC(fixed[0].grid.dimension, RADIUS, DILATION)

    def described(volume: Volume, weight: Volume | None) -> Layer:
        return describe(volume, mind, weight=weight, device=volume.data.device)

    levels = config.levels or (LEVELS_BEFORE if reach_mm else LEVELS)
    telling = Telling(on_step, config.iterations)
    telling.begin("pictures", 2)
    near = picture(fixed, device, ct=ct[0])
    telling.piece()
    far = picture(moving, device, ct=ct[1])
    telling.piece()
    return align_pictures(
        near,
        far,
        described,
        replace(config, levels=levels),
        start=start,
        reach_mm=reach_mm,
        telling=telling,
    )
