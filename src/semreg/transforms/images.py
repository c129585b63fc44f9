"""Images and label maps through a transform onto any grid, each with the voxel type it has. Reads no transform.

SimpleITK images: any number of components, 2-D or 3-D, or a series of them along a last axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semreg.core.geometry import Grid
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.io import files
from semreg.io.bridge import sitk_transform, straightened, to_pixels, with_sitk_header
from semreg.io.segments import on_labels
from semreg.io.stored import Stored
from semreg.preprocess.modality import are_hounsfield
from semreg.transforms.chain import Chain
from semreg.transforms.domain import Outside
from semreg.transforms.labels import at_points, largest_share

MOST_LABELS = 4096
"""Images with more different values are no label maps."""


class Interpolation(StrEnum):
    """How an image is read between its voxels."""

    LINEAR = "linear"
    BSPLINE = "bspline"
    """Cubic B-spline: sharper, may overshoot; integers are clipped to their type."""
    NEAREST = "nearest"
    LABEL = "label"
    """The label with the largest share after linear interpolation of each: smooth edges, no new labels."""
    POINTS = "points"
    """Each label at the voxel where its centre comes to lie: for labels that mark points, which would vanish."""

    @property
    def keeps_labels(self) -> bool:
        """Whether the result has no values but those of the image."""
        return self in (Interpolation.NEAREST, Interpolation.LABEL, Interpolation.POINTS)


def read_any_image(
    path: str | Path, *, nearest: bool = False, beside: Grid | None = None, series: str | None = None
) -> Any:
    """Read an image with the voxel type and the components it has; a DICOM folder or a series over time too.

    What 3D Slicer stores of segments becomes metadata of the image.

    Args:
        path: the file or the folder.
        nearest: resample sheared axes by the nearest voxel, so that labels stay labels.
        beside: the grid of the image it belongs to, in whose unit a picture is read. None: in its own.
        series: which one of a folder, as ``read_image`` chooses it.

    Returns:
        A ``SimpleITK.Image``.

    Raises:
        ImageError: for a file that is no image.
        GeometryError: for a header that cannot be used.
    """
    stored = files.read_stored(path, series=series)
    if beside is not None:
        stored = replace(stored, grid=files.in_unit_of(stored.grid, path, beside))
    return _sitk_of(stored, nearest=nearest)


def _sitk_of(stored: Stored, *, nearest: bool) -> Any:
    """A ``SimpleITK.Image`` of the type that is stored, on its grid, with what is said of segments as metadata."""
    import SimpleITK as sitk

    array = stored.array
    if array.dtype.name != stored.pixel_type:  # DICOM is put together as float32
        array = to_pixels(torch.from_numpy(array), stored.pixel_type)
    several = stored.components > 1
    parts = []
    for frame in array if stored.frames is not None else array[None]:
        channels = np.moveaxis(frame, -1, 0) if several else frame[None]
        straight = [straightened(each, stored.grid, stored.index, nearest=nearest) for each in channels]
        image = sitk.GetImageFromArray(np.stack(straight, -1) if several else straight[0], isVector=several)
        parts.append(with_sitk_header(image, stored.grid))
    image = parts[0] if stored.frames is None else sitk.JoinSeries(parts, *stored.frames)
    for key, value in stored.segments.items():
        image.SetMetaData(key, value)
    return image


def resample(
    image: Any,
    chain: Chain,
    grid: Grid,
    interpolation: Interpolation,
    background: float | None = None,
    *,
    outside: Outside = Outside.IDENTITY,
) -> Any:
    """The image on a grid, read where a transform leads from there.

    Integers are rounded and clipped; labels stay exact whatever their size.

    Args:
        image: a ``SimpleITK.Image``, or a series of them along a last axis.
        chain: the transform, grid → image.
        grid: the grid of the result, usually the fixed image's.
        interpolation: how the image is read between its voxels.
        background: the value where the image shows nothing. None: that of ``background_of``.
        outside: what is read beyond the boxes of the chain's fields; with ``Outside.BACKGROUND`` the background.

    Returns:
        A ``SimpleITK.Image`` of the same voxel type on ``grid``.

    Raises:
        GeometryError: for an image or a grid of another dimension than the transform.
        ImageError: for voxels that are not real numbers.
        ConfigError: for an interpolation that the image cannot have.
    """
    frames = image.GetDimension() == chain.dimension + 1
    if grid.dimension != chain.dimension or not (frames or image.GetDimension() == chain.dimension):
        raise GeometryError(
            f"expected an image and a reference in {chain.dimension}-D as the transform, got one in "
            f"{image.GetDimension()}-D and one in {grid.dimension}-D: give images of that dimension"
        )
    way = _Way.of(chain, grid, interpolation, outside)
    return _each_frame(image, lambda each: way.all_of(each, background)) if frames else way.all_of(image, background)


@dataclass(frozen=True)
class _Way:
    """How images come onto a grid: the same for all components and frames, and found once."""

    chain: Chain
    grid: Grid
    interpolation: Interpolation
    transform: Any
    """SimpleITK's, grid → image; None for points, which go the other way."""
    beyond: Tensor | None
    """Where the background is besides what the image does not show, (*S)."""

    @classmethod
    def of(cls, chain: Chain, grid: Grid, interpolation: Interpolation, outside: Outside) -> _Way:
        plain = chain.is_forward and outside is not Outside.CONTINUE
        transform = None
        if interpolation is not Interpolation.POINTS:
            transform = chain.sitk() if plain else sitk_transform(chain.field_on(grid, outside))
        beyond = chain.coverage(grid).beyond if outside is Outside.BACKGROUND else None
        return cls(chain, grid, interpolation, transform, beyond)

    def all_of(self, image: Any, background: float | None) -> Any:
        """All components of an image."""
        import SimpleITK as sitk

        value = background_of(image, self.interpolation) if background is None else background
        components = image.GetNumberOfComponentsPerPixel()
        if components == 1:
            return self._one(image, value)
        return sitk.Compose([self._one(sitk.VectorIndexSelectionCast(image, c), value) for c in range(components)])

    def _one(self, image: Any, value: float) -> Any:
        if self.transform is None:
            _check_real(image, Interpolation.POINTS)
            result = at_points(image, self.grid, self.chain)
        else:
            result = _resample_one(image, self.grid, self.transform, self.interpolation, value)
        return result if self.beyond is None else _without(result, self.beyond, value)


def _without(image: Any, beyond: Tensor, value: float) -> Any:
    """The image with ``value`` where ``beyond`` (*S) is true."""
    import SimpleITK as sitk

    kept = sitk.GetImageFromArray((~beyond).numpy().astype(np.uint8))
    kept.CopyInformation(image)
    return sitk.Mask(image, kept, value)


def _resample_one(image: Any, grid: Grid, transform: Any, interpolation: Interpolation, outside: float) -> Any:
    """One component onto ``grid``; ITK cuts decimals off integers, so those are rounded here."""
    import SimpleITK as sitk

    whole = _check_real(image, interpolation)
    if interpolation is Interpolation.LABEL:
        return largest_share(image, grid, transform, outside)
    kind, name = image.GetPixelID(), image.GetPixelIDTypeAsString()
    method = {
        Interpolation.LINEAR: sitk.sitkLinear,
        Interpolation.BSPLINE: sitk.sitkBSpline,
        Interpolation.NEAREST: sitk.sitkNearestNeighbor,
    }[interpolation]
    reference = with_sitk_header(sitk.Image(list(grid.size_xyz), sitk.sitkUInt8), grid)
    if whole and "64-bit" in name and interpolation.keeps_labels:
        return _through_table(image, reference, transform, outside)
    if interpolation.keeps_labels or not whole:
        return sitk.Resample(image, reference, transform, method, outside, kind)
    result = sitk.Resample(image, reference, transform, method, outside, sitk.sitkFloat64)
    dtype = sitk.GetArrayViewFromImage(image).dtype
    limits = np.iinfo(dtype)
    values = np.clip(np.rint(sitk.GetArrayViewFromImage(result)), limits.min, np.nextafter(float(limits.max) + 1, 0))
    rounded = sitk.GetImageFromArray(values.astype(dtype))
    rounded.CopyInformation(result)
    return rounded


def _check_real(image: Any, interpolation: Interpolation) -> bool:
    """Whether the voxels are whole numbers. Refuses what the interpolation cannot read (ImageError, ConfigError)."""
    name = image.GetPixelIDTypeAsString()
    if "complex" in name or "label" in name:
        raise ImageError(f"expected voxels that are real numbers, got {name}: convert the image first")
    whole = "integer" in name
    if interpolation in (Interpolation.LABEL, Interpolation.POINTS) and not whole:
        raise ConfigError("expected labels stored as integers, got an image of floats: use --interpolation nearest")
    return whole


def _through_table(image: Any, reference: Any, transform: Any, outside: float) -> Any:
    """Nearest labels of 64 bits, which ITK reads as float64, by their places in a table."""
    import SimpleITK as sitk

    array = sitk.GetArrayViewFromImage(image)
    labels, place = np.unique(array, return_inverse=True)
    numbers = sitk.GetImageFromArray((place.reshape(array.shape) + 1).astype(np.uint32))
    numbers.CopyInformation(image)
    nearest = sitk.Resample(numbers, reference, transform, sitk.sitkNearestNeighbor, 0.0, sitk.sitkUInt32)
    moved = sitk.GetArrayFromImage(nearest)
    table = np.concatenate([np.array([int(outside)], array.dtype), labels])
    result = sitk.GetImageFromArray(table[moved])
    result.CopyInformation(reference)
    return result


def set_segments(segments: Mapping[str, str], image: Any) -> None:
    """Give a resampled label image the names and colours of segments, with the extents that they have in it.

    Args:
        segments: what 3D Slicer stores of segments, by its keys.
        image: the ``SimpleITK.Image``, which is changed.
    """
    import SimpleITK as sitk

    array = sitk.GetArrayViewFromImage(image)
    layers = array if image.GetNumberOfComponentsPerPixel() > 1 else array[..., None]
    for key, value in on_labels(segments, layers).items():
        image.SetMetaData(key, value)


def lost_labels(image: Any, result: Any) -> list[int]:
    """The labels that an image has and its resampled version lacks.

    Args:
        image: the ``SimpleITK.Image`` before.
        result: the one after.

    Returns:
        The labels, ascending; none where the values are no labels.
    """
    before, after = _labels_of(image), _labels_of(result)
    return sorted(before - after) if len(before) <= MOST_LABELS else []


def _labels_of(image: Any) -> set[int]:
    import SimpleITK as sitk

    values = np.unique(sitk.GetArrayViewFromImage(image))
    whole = values.dtype.kind in "iu" or bool((np.isfinite(values) & (values == np.rint(values))).all())
    return {int(value) for value in values} - {0} if whole else set()


def _each_frame(image: Any, action: Any) -> Any:
    """A series of frames along the last axis, each through ``action``; the axis keeps its spacing and its origin."""
    import SimpleITK as sitk

    whole = [slice(None)] * (image.GetDimension() - 1)
    frames = []
    for number in range(image.GetSize()[-1]):
        where = (*whole, number)
        frames.append(action(image[where]))
    return sitk.JoinSeries(frames, image.GetOrigin()[-1], image.GetSpacing()[-1])


def background_of(image: Any, interpolation: Interpolation) -> float:
    """The value outside of an image: 0 for labels and for several components, else the smallest value of the image.

    Whole numbers that are read at the nearest voxel are taken for labels, unless they look like CT.

    Args:
        image: a ``SimpleITK.Image``.
        interpolation: how it is read between its voxels.

    Returns:
        The value.
    """
    import SimpleITK as sitk

    if interpolation in (Interpolation.LABEL, Interpolation.POINTS) or image.GetNumberOfComponentsPerPixel() > 1:
        return 0.0
    values = sitk.GetArrayViewFromImage(image)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0
    labels = interpolation is Interpolation.NEAREST and bool((finite == np.rint(finite)).all())
    if labels and not are_hounsfield(torch.from_numpy(finite.astype(np.float32))):
        return 0.0
    return float(finite.min())
