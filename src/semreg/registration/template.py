"""An unbiased template of several images: their mean intensity in their mean shape and position.

All images are registered to the template, the mean of what they show there becomes the next one, and it is moved so
that the displacements from it to the images are 0 in the mean. Guimond, Meunier, Thirion: Average brain models: a
convergence study. Computer Vision and Image Understanding, 2000; Avants et al.: The optimal template effect in
hippocampus studies of diseased populations. NeuroImage, 2010.

Knows nothing of files and processes: ``batch.template`` registers in processes, here it is done one after the other.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from semreg.config import RegistrationConfig
from semreg.core.fields import Field, Volume, warp
from semreg.core.geometry import Grid, Matrix
from semreg.core.sampling import smooth
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.io.bridge import LoadedImage, field_of_transform, to_volume, transform_of
from semreg.io.bridge.kinds import ImageLike
from semreg.preprocess.body import content_mask
from semreg.preprocess.image_pair import opened
from semreg.preprocess.modality import recognise
from semreg.registration.alignment import align
from semreg.registration.pipeline import register
from semreg.runtime.settings import require
from semreg.transforms.chain import voxel_points
from semreg.transforms.maps import fit_points, mapped
from semreg.transforms.mean import MeanMap

logger = logging.getLogger("semreg")

RANGE_PERCENT = (1.0, 99.0)
"""Of the intensities: what lies between is made alike in all images."""
MOST_ROOM = 16
"""How many times the voxels of the largest image the template may have: more is no room but images that lie apart."""
ROUNDING = 0.01
"""Share of a voxel by which an image may stick out of the template: numbers are no further exact."""
LEAST_CONTENT = 0.01
"""Share of the voxels that show something below which all count."""


@dataclass(frozen=True, kw_only=True)
class TemplateOptions:
    """How a template is made."""

    start: int = 0
    """The image that all are aligned to at first, which gives axes and voxel size, from 0."""
    rounds: int = 4
    """How often all images are registered and the template is made anew."""
    step: float = 1.0
    """Share of the mean displacement that is taken back in each round; 0: none, the template stays as it started."""
    sharpening: float = 0.0
    """How much of what a smoothing over 3 voxels takes away is added to each mean; 0: nothing."""

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        require(self.start >= 0, "a start of 0 or more", self.start)
        require(1 <= self.rounds <= 100, "rounds between 1 and 100", self.rounds)
        require(0 <= self.step <= 1, "a step in 0..1", self.step)
        require(0 <= self.sharpening <= 10, "a sharpening in 0..10", self.sharpening)


@dataclass(frozen=True, kw_only=True)
class Round:
    """What a round has found; the last one, 0 changes, tells of the template that is there."""

    number: int
    residual_mm: float
    """Mean length of the mean displacement from the template to the images, before it is taken back."""
    deformation_mm: float
    """Mean length of the displacement from the template to an image, without rotation and shift."""
    change: float | None
    """Difference of the new template from the one before, root mean square, in standard deviations of that;
    None: none was made."""


class Registrar(Protocol):
    """What registers the images; ``InProcess`` does it here, another one may do it elsewhere."""

    def align(self, start: int) -> Sequence[Matrix]:
        """Linear maps from the image ``start`` to each image, homogeneous (E, E) on points in mm."""

    def register(self, template: Volume, number: int, initial: Sequence[Matrix]) -> Iterable[Field]:
        """The fields template → image in the order of the images, to be gone through more than once."""


@dataclass(frozen=True)
class Template:
    """A template, and how it lies to the images that it is of."""

    image: Volume
    """(1, *S), float32, in the mean of the intensity ranges of the images."""
    fields: Iterable[Field]
    """Template → image, on the grid of the template, in the order of the images."""
    linear: tuple[Matrix, ...]
    """Template → image without deformation, homogeneous (E, E) on points in mm, as it was at first."""
    rounds: tuple[Round, ...]
    """One a round, and that of the template as it is at last."""

    def warped(self, images: Sequence[ImageLike]) -> Iterator[Volume]:
        """Each image as the template shows it, in its own intensities, NaN where it shows nothing.

        Args:
            images: those of ``build_template``, in the same order.

        Yields:
            An image (1, *S) on the grid of the template.
        """
        for image, field in zip(images, self.fields, strict=True):
            yield warp(_volume(image), field, outside=math.nan)


def build_template(
    images: Sequence[ImageLike],
    *,
    options: TemplateOptions | None = None,
    config: RegistrationConfig | None = None,
    device: str = "auto",
    registrar: Registrar | None = None,
    on_round: Callable[[Round, Volume], None] | None = None,
) -> Template:
    """Make the mean of images in intensity, shape and position.

    Args:
        images: two or more of one dimension, each as for ``register``; files are read when they are needed.
        options: how it is made.
        config: the settings of all registrations. None: the defaults.
        device: where they are computed.
        registrar: what registers in place of ``config`` and ``device``.
        on_round: is told what each round has found, and the template that it was found with.

    Returns:
        The template and the maps from it to the images.

    Raises:
        ConfigError: for fewer than two images, and a start that is none of them.
        ImageError: for an image that shows the same value everywhere.
        GeometryError: for images of two dimensions, and where the alignment does not bring them together; all that
            ``register`` raises.
    """
    options = options or TemplateOptions()
    if len(images) < 2:
        raise ConfigError(f"expected two images or more for a template, got {len(images)}: add more")
    if options.start >= len(images):
        raise ConfigError(f"expected a start that is one of {len(images)} images, got the number {options.start}")
    ranges, grids = _ranges(images)
    registrar = registrar or InProcess(images, config or RegistrationConfig(), device)
    grid, linear = mean_frame(registrar.align(options.start), grids, options.start)
    starts = [field_of_transform(transform_of(matrix), grid) for matrix in linear]
    template = mean_image(images, ranges, starts, grid, options.sharpening)
    rounds = []
    for number in range(1, options.rounds + 1):
        fields = registrar.register(template, number, linear)
        mean, found = measured(fields, template, number)
        back = scaled(mean, options.step).inverse()
        new = mean_image(images, ranges, (back.then(field) for field in fields), grid, options.sharpening)
        rounds.append(replace(found, change=_change(template, new)))
        if on_round is not None:
            on_round(rounds[-1], template)
        template = new
    fields = registrar.register(template, options.rounds + 1, linear)
    rounds.append(measured(fields, template, options.rounds + 1)[1])
    if on_round is not None:
        on_round(rounds[-1], template)
    return Template(template, fields, linear, tuple(rounds))


@dataclass(frozen=True)
class InProcess:
    """Registers one image after the other in this process and keeps all fields."""

    images: Sequence[ImageLike]
    config: RegistrationConfig
    device: str

    def align(self, start: int) -> Sequence[Matrix]:
        """Linear maps from the image ``start`` to each."""
        return [
            np.eye(_volume(image).grid.dimension + 1)
            if number == start
            else align(self.images[start], image, config=self.config, device=self.device).matrix
            for number, image in enumerate(self.images)
        ]

    def register(self, template: Volume, number: int, initial: Sequence[Matrix]) -> Iterable[Field]:
        """The fields template → image."""
        del number
        quick = for_rounds(self.config)
        return [
            register(template, image, config=quick, initial=transform_of(start), device=self.device).field
            for image, start in zip(self.images, initial, strict=True)
        ]


def for_rounds(config: RegistrationConfig) -> RegistrationConfig:
    """The settings without what only tells of the result: uncertainty and checks."""
    return replace(
        config,
        uncertainty=replace(config.uncertainty, enabled=False),
        checks=replace(config.checks, enabled=False),
    )


def mean_frame(linear: Sequence[Matrix], grids: Sequence[Grid], start: int) -> tuple[Grid, tuple[Matrix, ...]]:
    """The grid of a template that has room for all images in their mean position and shape, and the maps to them.

    Args:
        linear: maps from the image ``start`` to each, homogeneous (E, E) on points in mm.
        grids: those of the images.
        start: whose axes and voxel size the grid has.

    Returns:
        The grid, and maps from it to each image, homogeneous (E, E), whose mean is the identity.

    Raises:
        GeometryError: where the images lie so far apart, or differ so much in size, that nobody wants such a grid.
    """
    own = grids[start]
    corners = own.corners_xyz()
    mean = MeanMap(corners.T)
    for matrix in linear:
        mean.add(mapped(matrix, corners).T)
    to_mean = fit_points("affine", corners, mean.points().T)
    found = tuple(np.asarray(matrix @ np.linalg.inv(to_mean)) for matrix in linear)
    places = np.concatenate(
        [mapped(np.linalg.inv(each), grid.corners_xyz()) for each, grid in zip(found, grids, strict=True)]
    )
    index = mapped(own.point_to_index(), places)
    first, last = np.floor(index.min(0) + 0.5 + ROUNDING), np.ceil(index.max(0) - 0.5 - ROUNDING)
    shape = (last - first + 1).astype(int)
    largest = max(grid.voxels for grid in grids)
    if np.prod(shape.astype(float)) > MOST_ROOM * largest:
        raise GeometryError(
            f"expected images that lie on each other after the alignment, got a frame of {' × '.join(map(str, shape))} "
            "voxels around all of them: start from another image, or choose another --align"
        )
    return own.lattice(first.tolist(), [1.0] * len(shape), shape.tolist()), found


def mean_image(
    images: Sequence[ImageLike],
    ranges: npt.NDArray[np.float64],
    fields: Iterable[Field],
    grid: Grid,
    sharpening: float = 0.0,
) -> Volume:
    """The mean of images read through fields, each voxel over the images that show it.

    Args:
        images: as for ``build_template``.
        ranges: what counts as 0 and as 1 of each (N, 2).
        fields: template → image, on ``grid``.
        grid: of the template.
        sharpening: as in ``TemplateOptions``.

    Returns:
        The mean (1, *S), in the mean of the ranges; where no image shows anything its smallest value.
    """
    total, count = torch.zeros(1, *grid.shape, dtype=torch.float64), torch.zeros(1, *grid.shape)
    for image, (low, high), field in zip(images, ranges, fields, strict=True):
        seen = (warp(_volume(image), field, outside=math.nan).data - low) / (high - low)
        known = torch.isfinite(seen)
        total += torch.where(known, seen, 0.0)
        count += known
    low, high = ranges.mean(0)
    mean = torch.where(count > 0, total / count.clamp(min=1) * (high - low) + low, math.inf)
    mean = torch.where(count > 0, mean, mean.amin())
    if sharpening:
        mean = mean + sharpening * (mean - smooth(mean))
    return Volume(mean.float(), grid)


def measured(fields: Iterable[Field], template: Volume, number: int) -> tuple[Field, Round]:
    """The mean of the displacements template → image, and what it says of the round."""
    grid = template.grid
    points = voxel_points(grid)
    counts = (content_mask(template).on(grid).data > 0.5).flatten().numpy()
    counts |= counts.mean() < LEAST_CONTENT
    mean = MeanMap(points, counts)
    for field in fields:
        mean.add(points + field.mm().double().flatten(1).numpy())
    shift = torch.from_numpy(mean.points() - points).reshape(grid.dimension, *grid.shape)
    residual = float(np.linalg.norm((mean.points() - points)[:, counts], axis=0).mean())
    found = Round(number=number, residual_mm=residual, deformation_mm=mean.deformation_mm, change=None)
    return Field(Field.from_mm(shift, grid).vox.float(), grid), found


def scaled(field: Field, factor: float) -> Field:
    """The displacements times a factor."""
    return Field(field.vox * factor, field.grid)


def _change(old: Volume, new: Volume) -> float:
    return float((new.data - old.data).double().square().mean().sqrt() / old.data.double().std().clamp(min=1e-12))


def _ranges(images: Sequence[ImageLike]) -> tuple[npt.NDArray[np.float64], list[Grid]]:
    """What counts as 0 and as 1 of each image (N, 2), and their grids; Hounsfield units stay what they are."""
    found: list[tuple[float, float]] = []
    grids: list[Grid] = []
    ct = True
    for number, image in enumerate(images, start=1):
        loaded = opened(image)
        volume = to_volume(loaded)
        if grids and volume.grid.dimension != grids[0].dimension:
            raise GeometryError(
                f"expected images of one dimension, got image {number} in {volume.grid.dimension}-D "
                f"after one in {grids[0].dimension}-D"
            )
        finite = volume.data[torch.isfinite(volume.data)].double().numpy()
        low, high = np.percentile(finite, RANGE_PERCENT) if finite.size else (0.0, 0.0)
        if not high > low and finite.size:
            low, high = finite.min(), finite.max()  # little is shown, on a background of one value
        if not high > low:
            raise ImageError(f"expected images that show something, got image {number} with one value everywhere")
        found.append((float(low), float(high)))
        grids.append(volume.grid)
        ct = ct and recognise(loaded).ct
    if ct:
        return np.tile([0.0, 1.0], (len(found), 1)), grids
    return np.array(found), grids


def _volume(image: ImageLike) -> Volume:
    """The image, read now if it is a file."""
    loaded: ImageLike | LoadedImage = opened(image)
    return to_volume(loaded)
