"""ITK and SimpleITK images ⇄ torch tensors that share their memory: every pixel type, several components, 2-D and 3-D.

For own training and inference loops. ``to_volume`` is the door to the rest of the package: one value a voxel, float32.
Knows nothing of files and of registration; itk and SimpleITK are imported inside the functions that need them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semreg.core.geometry import Grid
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.io.bridge import check_scalar_image, grid_of_header, import_itk, with_itk_header, with_sitk_header

Kind: TypeAlias = Literal["itk", "sitk"]
"""Whose an image is: that of the Python package itk, or of SimpleITK."""

ITK_VECTORS = {
    torch.uint8: "UC",
    torch.int16: "SS",
    torch.uint16: "US",
    torch.float32: "F",
    torch.float64: "D",
}
"""Types of samples that a VectorImage of the Python package itk can have, and its names of them."""

ITK_SCALARS = (*ITK_VECTORS, torch.int32, torch.uint32, torch.uint64)
"""Types of samples that an Image of the Python package itk can have."""

WIDENED = {torch.bool: torch.uint8, torch.float16: torch.float32, torch.bfloat16: torch.float32}
"""Types of samples that no image has → the type they are stored with."""


def image_to_tensor(
    image: Any,
    *,
    copy: bool = False,
    spacing: float | Sequence[float] | None = None,
    interpolator: Any = None,
    transform: Any = None,
) -> tuple[Tensor, Grid]:
    """The samples of an ITK or SimpleITK image as a tensor, and the grid they lie on.

    Without ``copy`` the tensor shares the image's memory and keeps it alive. What is written into the one is seen in
    the other, with one exception: SimpleITK copies an image before it writes into shared memory, so a tensor keeps what
    a SimpleITK image held. The output of an ITK filter is brought up to date, and copied, since the filter may move it
    when it runs again (after ``image.DisconnectPipeline()`` it is an image like any other). Of an image that is only
    partly in memory, that part is taken.

    Args:
        image: an image of real numbers in 2-D or 3-D, of any pixel type, with any number of components.
        copy: return a contiguous tensor with memory of its own.
        spacing: in mm, one number or x, y(, z); resample the image, to float32, with the number of voxels in the same
            box that is nearest to it (the returned grid has the exact spacing). None: as the image is.
        interpolator: one of itk for float images, or of SimpleITK (``sitk.sitkBSpline``); None: linear.
        transform: resample the image, each point read where this transform, of the package of the image, takes it;
            outside of the image a channel has its lowest value.

    Returns:
        The samples (C, z, y, x) or (C, y, x) on the CPU, of the image's type, components as channels (strided, not
        contiguous, where there are several), and their grid. ``to_volume`` takes the pair, if of one channel.

    Raises:
        ImageError: for anything but such an image that has its samples in memory.
        GeometryError: for a direction that cannot be used.
        ConfigError: for a spacing that is not positive, and an interpolator or transform of another package.
    """
    packages = {base.__module__.partition(".")[0] for base in type(image).__mro__}
    if "SimpleITK" in packages and hasattr(image, "GetPixelIDTypeAsString"):
        tensor, grid = _from_sitk(image)
    elif "itk" in packages and hasattr(image, "GetBufferedRegion"):
        tensor, grid = _from_itk(image)
    else:
        raise ImageError(
            f"expected a SimpleITK or itk image, got {type(image).__module__}.{type(image).__qualname__}: "
            "read files with itk.imread or SimpleITK.ReadImage"
        )
    if spacing is not None or transform is not None:
        target = grid if spacing is None else _spaced(grid, spacing)
        kind: Kind = "sitk" if "SimpleITK" in packages else "itk"
        return _resampled(tensor, grid, target, _Reading(kind, interpolator, transform)), target
    return (tensor.clone(memory_format=torch.contiguous_format) if copy else tensor), grid


def tensor_to_image(tensor: Tensor, grid: Grid, *, kind: Kind = "itk", vector: bool | None = None) -> Any:
    """An image with the samples of a tensor; gradients are left behind, and a tensor on a GPU is copied to the CPU.

    An ITK image shares the tensor's memory and keeps it alive where the channels of a voxel lie beside each other in
    memory (one channel; a tensor of ``image_to_tensor``); else, and for SimpleITK, the samples are copied. As with
    ``itk.image_view_from_array``, an image that an in-place filter makes from a sharing one must not outlive it.

    Args:
        tensor: the samples (C, *S), or (*S) for one channel, where ``S`` is the grid's (z, y, x).
        grid: where they lie.
        kind: ``itk`` for an ``itk.Image`` or ``itk.VectorImage``, ``sitk`` for a ``SimpleITK.Image``.
        vector: whether the image is one of vectors; None: where there is more than one channel.

    Returns:
        The image, of the type of the samples; bool becomes uint8 and half precision float32.

    Raises:
        GeometryError: for samples that do not fit the grid, and for what is no grid.
        ImageError: for what is no tensor, and for samples that such an image cannot have.
        ConfigError: for another ``kind``.
    """
    if kind not in ("itk", "sitk"):
        raise ConfigError(f"expected a kind of image of itk, sitk, got {kind!r}")
    if not isinstance(tensor, Tensor):
        raise ImageError(f"expected a torch tensor, got {type(tensor).__name__}: torch.as_tensor makes one of an array")
    if not isinstance(grid, Grid):
        raise GeometryError(
            f"expected a semreg.Grid for the samples, got {type(grid).__name__}: image_to_tensor gives that of an image"
        )
    channels = tensor.unsqueeze(0) if tensor.ndim == grid.dimension else tensor
    if tuple(channels.shape[1:]) != grid.shape or not len(channels):
        raise GeometryError(
            f"expected a tensor of shape (C, {', '.join(map(str, grid.shape))}) as its grid has, "
            f"got {tuple(tensor.shape)}"
        )
    vectors = len(channels) > 1 if vector is None else vector
    if len(channels) > 1 and not vectors:
        raise ImageError(
            f"expected one channel for an image of scalars, got {len(channels)}: pick one, or let vector be True"
        )
    if channels.dtype.is_complex:
        raise ImageError(f"expected samples that are real numbers, got {channels.dtype}: take the magnitude first")
    values = channels.detach().to("cpu", WIDENED.get(channels.dtype, channels.dtype))
    # channels that lie beside each other are contiguous in this order: then nothing is copied
    values = (values.movedim(0, -1) if vectors else values[0]).contiguous()
    if kind == "sitk":
        return _to_sitk(values.numpy(), grid, vectors=vectors)
    return _to_itk(values, grid, vectors=vectors)


@dataclass(frozen=True)
class _Reading:
    """How an image is read between its samples."""

    kind: Kind
    """Whose the interpolator and the transform are."""
    interpolator: Any
    transform: Any


def _spaced(grid: Grid, spacing: float | Sequence[float]) -> Grid:
    """The lattice in the box of ``grid`` whose spacing is nearest to ``spacing``, x first, mm (ConfigError)."""
    wanted = tuple(spacing) if isinstance(spacing, Sequence) else (spacing,) * grid.dimension
    if len(wanted) != grid.dimension or not all(isinstance(s, Real) and 0 < s < math.inf for s in wanted):
        raise ConfigError(
            f"expected a spacing of one or {grid.dimension} numbers above 0, in mm and x first, got {spacing!r}"
        )
    voxels = [n * old / new for n, old, new in zip(grid.shape, grid.spacing, wanted[::-1], strict=True)]
    shape = tuple(max(1, math.floor(n + 0.5)) for n in voxels)
    steps = [old / new for old, new in zip(grid.shape, shape, strict=True)]
    return grid.lattice([(step - 1) / 2 for step in steps], steps, shape)


def _resampled(tensor: Tensor, grid: Grid, target: Grid, how: _Reading) -> Tensor:
    """The samples (C, *S) at the voxels of ``target``, float32, channel by channel."""
    read = _itk_reader(target, how) if how.kind == "itk" else _sitk_reader(target, how)
    channels = [read(tensor_to_image(one.float(), grid, kind=how.kind), float(one.min())) for one in tensor]
    return torch.cat([image_to_tensor(channel, copy=True)[0] for channel in channels])


def _itk_reader(target: Grid, how: _Reading) -> Callable[[Any, float], Any]:
    """From an image and its value outside to the image at the voxels of ``target``."""
    itk = import_itk()
    if how.interpolator is not None and not hasattr(how.interpolator, "EvaluateAtContinuousIndex"):
        raise ConfigError(f"expected an interpolator of itk, got {type(how.interpolator).__name__}")
    if how.transform is not None and not hasattr(how.transform, "GetInverseTransform"):
        raise ConfigError(f"expected a transform of itk for an image of itk, got {type(how.transform).__name__}")

    def read(image: Any, outside: float) -> Any:
        filter_ = itk.ResampleImageFilter[type(image), type(image)].New(image)
        if how.interpolator is not None:
            filter_.SetInterpolator(how.interpolator)
        if how.transform is not None:
            filter_.SetTransform(how.transform)
        filter_.SetSize(target.size_xyz)
        filter_.SetOutputSpacing(target.spacing_xyz)
        filter_.SetOutputOrigin(target.origin_xyz)
        filter_.SetOutputDirection(itk.matrix_from_array(np.asarray(target.direction)))
        filter_.SetDefaultPixelValue(outside)
        filter_.Update()
        output = filter_.GetOutput()
        output.DisconnectPipeline()
        return output

    return read


def _sitk_reader(target: Grid, how: _Reading) -> Callable[[Any, float], Any]:
    """The same for images of SimpleITK."""
    import SimpleITK as sitk

    if how.transform is not None and not isinstance(how.transform, sitk.Transform):
        raise ConfigError(
            f"expected a SimpleITK.Transform for an image of SimpleITK, got {type(how.transform).__name__}"
        )
    if how.interpolator is not None and not isinstance(how.interpolator, int):
        raise ConfigError(
            f"expected an interpolator such as SimpleITK.sitkBSpline, got {type(how.interpolator).__name__}"
        )
    filter_ = sitk.ResampleImageFilter()
    filter_.SetSize(target.size_xyz)
    filter_.SetOutputSpacing(target.spacing_xyz)
    filter_.SetOutputOrigin(target.origin_xyz)
    filter_.SetOutputDirection(np.asarray(target.direction).ravel().tolist())
    if how.interpolator is not None:
        filter_.SetInterpolator(how.interpolator)
    if how.transform is not None:
        filter_.SetTransform(how.transform)

    def read(image: Any, outside: float) -> Any:
        filter_.SetDefaultPixelValue(outside)
        return filter_.Execute(image)

    return read


def _from_itk(image: Any) -> tuple[Tensor, Grid]:
    itk = import_itk()
    dimension = int(image.GetImageDimension())
    if dimension not in (2, 3):
        raise ImageError(f"expected an image of 2 or 3 axes, got {dimension}: extract one frame first")
    source = image.GetSource()
    if source:
        source.UpdateLargestPossibleRegion()
    if not hasattr(image, "GetBufferPointer") or image.GetBufferPointer() is None:
        raise ImageError(
            f"expected an image with its samples in memory, got a {type(image).__name__} without: "
            "update the filter it comes from, or allocate it, first"
        )
    # A second image of the same samples: they stay in place even if the first one is told to release them.
    holder = type(image).New()
    holder.Graft(image)
    try:
        array = itk.array_view_from_image(holder)
    except RuntimeError as error:
        raise ImageError(
            f"expected samples of a type that itk shares with numpy, got {type(image).__name__}: "
            "cast the image, or pick one component, first"
        ) from error
    array.itk_base = (holder, image)  # the image too: it may be what keeps memory that ITK does not own
    region = image.GetBufferedRegion()
    size = tuple(int(n) for n in region.GetSize())
    origin = image.TransformIndexToPhysicalPoint(region.GetIndex())  # a region need not start at index 0
    direction = itk.array_from_matrix(image.GetDirection())
    grid = grid_of_header(size, tuple(image.GetSpacing()), tuple(origin), direction)
    tensor = _channel_first(array, grid)
    return (tensor.clone() if source else tensor), grid


def _from_sitk(image: Any) -> tuple[Tensor, Grid]:
    import SimpleITK as sitk

    size = tuple(image.GetSize())
    check_scalar_image(size, 1, image.GetPixelIDTypeAsString())
    if len(size) not in (2, 3):
        raise ImageError(f"expected an image of 2 or 3 axes, got {len(size)}: extract one frame first")
    grid = grid_of_header(size, image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return _channel_first(np.asarray(_SharedSamples(sitk, image)), grid), grid


class _SharedSamples:
    """The memory of a SimpleITK image for numpy, which keeps this object, and so the memory, as long as its array."""

    def __init__(self, sitk: Any, image: Any) -> None:
        view = sitk.GetArrayViewFromImage(image)
        self.__array_interface__ = {**view.__array_interface__, "data": (view.ctypes.data, False)}
        self._image = sitk.Image(image)  # shares the samples: SimpleITK copies when either is written into


def _channel_first(array: npt.NDArray[Any], grid: Grid) -> Tensor:
    return torch.from_numpy(array).reshape(*grid.shape, -1).movedim(-1, 0)


def _to_itk(values: Tensor, grid: Grid, *, vectors: bool) -> Any:
    known = tuple(ITK_VECTORS) if vectors else ITK_SCALARS
    if values.dtype not in known:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in known)
        raise ImageError(
            f"expected samples of a type that an itk image of {'vectors' if vectors else 'scalars'} has, {names}, "
            f"got {values.dtype}: convert the tensor first"
        )
    itk = import_itk()
    array = values.numpy()
    wanted = itk.VectorImage[getattr(itk, ITK_VECTORS[values.dtype]), grid.dimension] if vectors else None
    image = itk.image_view_from_array(array, ttype=wanted)
    # The Python object alone keeps the array; filters hold only the C++ image. Its observer lives as long as that.
    image.AddObserver(itk.DeleteEvent(), lambda held=array: None)  # noqa: ARG005 - to hold it is all it is for
    return with_itk_header(image, grid)


def _to_sitk(array: npt.NDArray[Any], grid: Grid, *, vectors: bool) -> Any:
    import SimpleITK as sitk

    return with_sitk_header(sitk.GetImageFromArray(array, isVector=vectors), grid)
