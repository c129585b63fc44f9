"""Images and label maps through a transform onto any grid, each with the voxel type it has. Reads no transform.

SimpleITK images: any number of components, 2-D or 3-D, or a series of them along a last axis.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from semreg import files
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.geometry import Grid
from semreg.itk_bridge import sitk_image, sitk_transform, with_sitk_header
from semreg.preparation import CT_AIR, CT_BELOW
from semreg.transforms.chain import Chain

BETTER_READ = ("32-bit float",)
"""Types that ``files.read_image`` reads exactly, and better: ITK makes 0 of NaN in NIfTI files."""


class Interpolation(str, Enum):
    """How an image is read between its voxels."""

    LINEAR = "linear"
    BSPLINE = "bspline"
    """Cubic B-spline: sharper, may overshoot; integers are clipped to their type."""
    NEAREST = "nearest"
    LABEL = "label"
    """The label with the largest share after linear interpolation of each: smooth edges, no new labels."""


def read_any_image(path: str | Path) -> Any:
    """A ``SimpleITK.Image`` with the voxel type and the components it has; a DICOM folder or a series over time too.

    Raises ImageError if there is none, GeometryError if its header cannot be used.
    """
    import SimpleITK as sitk

    path = Path(path)
    if path.is_file():
        try:
            image = sitk.ReadImage(str(path))
        except RuntimeError:
            image = None
        plain = image is not None and (image.GetNumberOfComponentsPerPixel() > 1 or image.GetDimension() > 3)
        if plain or (image is not None and image.GetPixelIDTypeAsString() not in BETTER_READ):
            return image
    loaded = files.read_image(path)  # mends what can be mended and says what is wrong with the rest
    return sitk_image(loaded.volume, loaded.pixel_type)


def resample(
    image: Any, chain: Chain, grid: Grid, interpolation: Interpolation, background: float | None = None
) -> Any:
    """The image on ``grid``, read where ``chain`` leads from there (grid → image), a ``SimpleITK.Image`` of its type.

    Integers are rounded and clipped. ``background`` where the image shows nothing: by default −1024 for CT, else the
    smallest value, 0 for labels and for several components. Raises GeometryError for another dimension, ConfigError
    for an interpolation that the image cannot have.
    """
    import SimpleITK as sitk

    transform = chain.sitk() if chain.is_forward else sitk_transform(chain.field_on(grid))
    if image.GetDimension() == chain.dimension + 1:
        return _each_frame(image, lambda frame: resample(frame, chain, grid, interpolation, background))
    if not image.GetDimension() == chain.dimension == grid.dimension:
        raise GeometryError(
            f"expected an image and a reference in {chain.dimension}-D as the transform, got one in "
            f"{image.GetDimension()}-D and one in {grid.dimension}-D: give images of that dimension"
        )
    outside = _default_background(image, interpolation) if background is None else background
    reference = with_sitk_header(sitk.Image(list(grid.size_xyz), sitk.sitkUInt8), grid)
    components = image.GetNumberOfComponentsPerPixel()
    if components == 1:
        return _resample_one(image, reference, transform, interpolation, outside)
    parts = [
        _resample_one(sitk.VectorIndexSelectionCast(image, c), reference, transform, interpolation, outside)
        for c in range(components)
    ]
    return sitk.Compose(parts)


def _resample_one(image: Any, reference: Any, transform: Any, interpolation: Interpolation, outside: float) -> Any:
    """One component onto the grid of ``reference``; ITK cuts decimals off integers, so those are rounded here."""
    import SimpleITK as sitk

    kind, name = image.GetPixelID(), image.GetPixelIDTypeAsString()
    whole = "integer" in name
    if "complex" in name or "label" in name:
        raise ImageError(f"expected voxels that are real numbers, got {name}: convert the image first")
    if interpolation is Interpolation.LABEL and not whole:
        raise ConfigError("expected labels stored as integers, got an image of floats: use --interpolation nearest")
    method = {
        Interpolation.LINEAR: sitk.sitkLinear,
        Interpolation.BSPLINE: sitk.sitkBSpline,
        Interpolation.NEAREST: sitk.sitkNearestNeighbor,
        Interpolation.LABEL: sitk.sitkLabelLinear,
    }[interpolation]
    if interpolation in (Interpolation.NEAREST, Interpolation.LABEL) or not whole:
        return sitk.Resample(image, reference, transform, method, outside, kind)
    result = sitk.Resample(image, reference, transform, method, outside, sitk.sitkFloat64)
    dtype = sitk.GetArrayViewFromImage(image).dtype
    limits = np.iinfo(dtype)
    values = np.clip(np.rint(sitk.GetArrayViewFromImage(result)), limits.min, np.nextafter(float(limits.max) + 1, 0))
    rounded = sitk.GetImageFromArray(values.astype(dtype))
    rounded.CopyInformation(result)
    return rounded


def _each_frame(image: Any, action: Any) -> Any:
    """A series of frames along the last axis, each through ``action``; the axis keeps its spacing and its origin."""
    import SimpleITK as sitk

    whole = [slice(None)] * (image.GetDimension() - 1)
    frames = []
    for number in range(image.GetSize()[-1]):
        where = (*whole, number)
        frames.append(action(image[where]))
    return sitk.JoinSeries(frames, image.GetOrigin()[-1], image.GetSpacing()[-1])


def _default_background(image: Any, interpolation: Interpolation) -> float:
    import SimpleITK as sitk

    if interpolation is Interpolation.LABEL or image.GetNumberOfComponentsPerPixel() > 1:
        return 0.0
    values = sitk.GetArrayViewFromImage(image)
    finite = values[np.isfinite(values)]
    lowest = float(finite.min()) if finite.size else 0.0
    return CT_AIR if lowest < CT_BELOW else lowest
