"""Volumes and fields as images of nibabel, which is imported when it is used."""

from __future__ import annotations

from typing import Any

import numpy as np

from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid, Matrix
from semreg.io.bridge.common import to_pixels

VECTOR = 1007
"""The intent of NIfTI for one displacement a voxel."""


def nibabel_image(volume: Volume, pixel_type: str = "float32") -> Any:
    """The image as a ``nibabel.Nifti1Image`` of ``pixel_type``: axes x, y(, z), the affine to mm in RAS."""
    import nibabel

    image = nibabel.Nifti1Image(to_pixels(volume.data[0], pixel_type).T, ras_affine(volume.grid))
    image.header.set_xyzt_units("mm")
    return image


def nibabel_field(field: Field) -> Any:
    """The displacements as ITK writes them in NIfTI: (x, y, z, 1, D), mm, components in RAS; 2-D: in LPS."""
    import nibabel

    n = field.grid.dimension
    vectors = np.moveaxis(field.mm().float().numpy(), 0, -1)  # (z, y, x, D)
    if n == 3:  # ITK turns vectors of three components alone
        vectors = vectors * np.array([-1, -1, 1], np.float32)
    axes = (*reversed(range(n)), n)
    array = vectors.transpose(axes).reshape(*field.grid.size_xyz, *[1] * (4 - n), n)
    image = nibabel.Nifti1Image(array, ras_affine(field.grid))
    image.header.set_intent(VECTOR)
    image.header.set_xyzt_units("mm")
    return image


def ras_affine(grid: Grid) -> Matrix:
    """From (i, j, k) to mm in RAS, (4, 4)."""
    n = grid.dimension
    result = np.eye(4)
    result[:n, :n] = np.asarray(grid.direction) * np.asarray(grid.spacing_xyz)
    result[:n, 3] = grid.origin_xyz
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ result)
