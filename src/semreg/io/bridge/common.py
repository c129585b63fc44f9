"""What all packages have in common: headers as grids, types of voxels, displacements in mm as files hold them."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.errors import ImageError

logger = logging.getLogger("semreg")
PIXEL_TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
"""Names of the types an image can be stored with."""
PIECE_POINTS = 1 << 18
"""Samples handed over at once where a whole image is converted: bounds the memory beside the image itself."""


def check_scalar_image(size_xyz: tuple[int, ...], components: int, kind: str) -> None:
    """Refuse what is not one real number a voxel in 2-D or 3-D (ImageError); ``kind`` names the pixel type."""
    if components != 1:
        raise ImageError(
            f"expected one value per voxel, got {components} components ({kind}): "
            "convert colour to grey, or pick one component, first"
        )
    if "complex" in kind or "label" in kind:
        raise ImageError(f"expected voxels that are real numbers, got {kind}: convert the image first")
    if any(n != 1 for n in size_xyz[3:]):
        raise ImageError(
            f"expected an image of 2 or 3 axes, got {len(size_xyz)} of size {tuple(size_xyz)}: pick one frame first"
        )


def pixel_type_name(description: str) -> str:
    """SimpleITK's name of a pixel type, as "16-bit signed integer", in the words of ``PIXEL_TYPES``."""
    bits = description.partition("-")[0]
    kind = "float" if "float" in description else "uint" if "unsigned" in description else "int"
    return f"{kind}{bits}"


def to_pixels(values: Tensor, pixel_type: str) -> npt.NDArray[Any]:
    """Values as an array of ``pixel_type``: rounded and clipped for integer types.

    Raises ImageError for an unknown type, and for NaN where the type is an integer.
    """
    if pixel_type not in PIXEL_TYPES:
        raise ImageError(f"expected a voxel type of {', '.join(PIXEL_TYPES)}, got {pixel_type!r}")
    array = values.detach().cpu().numpy()
    dtype = np.dtype(pixel_type)
    if dtype.kind == "f" or array.dtype == dtype:
        return np.ascontiguousarray(array, dtype=dtype)
    if np.isnan(array).any():
        raise ImageError(f"expected finite values to store as {pixel_type}, got NaN: store them as float32")
    limits = np.iinfo(dtype)
    if array.dtype.kind in "biu":
        whole = array.astype(np.int64)
        return np.ascontiguousarray(np.clip(whole, limits.min, min(limits.max, 2**63 - 1)).astype(dtype))
    if dtype.itemsize < 4:  # every value of the type is a float32
        rounded = np.rint(array)
        return np.ascontiguousarray(np.clip(rounded, limits.min, limits.max, out=rounded).astype(dtype))
    exact = np.rint(array.astype(np.float64))
    result = np.clip(exact, limits.min, np.nextafter(limits.max, 0.0)).astype(dtype)
    result[exact >= float(limits.max)] = limits.max
    return np.ascontiguousarray(result)


def quantised_mm(field: Field, component: int, part: slice | None = None) -> Tensor:
    """One component (0 = x) of the displacements of the slab ``part`` in mm, float32 (*S), as all files hold it.

    Rounded to a power of two of a mm that is at most 2⁻¹² of the smallest spacing: no interpolation sees the
    difference, and files become a third smaller.
    """
    row = field.grid.index_to_point()[component]
    vectors = field.vox[:, part or slice(None)].detach()
    total = vectors[0].to(torch.float32) * float(row[0])
    for axis in range(1, field.grid.dimension):
        total.add_(vectors[axis].to(torch.float32), alpha=float(row[axis]))
    step = 2.0 ** math.floor(math.log2(min(field.grid.spacing) * 2.0**-12))
    return total.div_(step).round_().mul_(step).cpu()


def interleaved(field: Field, part: slice, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Displacements of a slab in mm with the components x, y(, z) last, as ITK lays them out."""
    return np.stack(
        [quantised_mm(field, component, part).numpy() for component in range(field.grid.dimension)],
        axis=-1,
        dtype=dtype,
    )


def piece_on(volume: Volume, grid: Grid, part: slice, channels: slice) -> Tensor:
    """Some ``channels`` of a slab of ``grid``, (C, n, …): cut out, or interpolated if the image is on another grid."""
    if grid == volume.grid:
        return volume.data[channels, part]
    rest = grid.shape[1:]
    slab = grid.part((part.start, *[0] * len(rest)), (part.stop, *rest))
    return Volume(volume.data[channels], volume.grid).on(slab).data


def tensor_of(array: npt.NDArray[Any]) -> Tensor:
    """A copy as float32 that nobody else holds."""
    if array.dtype.kind not in "biuf":
        raise ImageError(f"expected voxels that are real numbers, got {array.dtype}: convert the array first")
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
