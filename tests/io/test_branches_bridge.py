"""Objects of SimpleITK, itk and nibabel that cannot be used: one sentence each, before anything is computed."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from conftest import noise, oblique_grid
from semreg.core.fields import Volume
from semreg.errors import GeometryError, ImageError
from semreg.io.bridge import field_of_displacements, field_of_transform, sitk_image, to_volume
from semreg.itk.tensor import image_to_tensor


def test_a_transform_of_another_dimension_is_refused() -> None:
    """A transform in 2-D for a grid in 3-D, and what is no transform at all."""
    with pytest.raises(GeometryError, match="expected a SimpleITK transform in 3-D, got one in 2-D"):
        field_of_transform(sitk.TranslationTransform(2), oblique_grid(3))
    with pytest.raises(GeometryError, match="expected a SimpleITK transform in 3-D, got <class 'str'>"):
        field_of_transform("transform.h5", oblique_grid(3))


def test_a_transform_that_is_not_finite_is_refused() -> None:
    """NaN in a matrix or in a field of displacements is an error and no field."""
    broken = sitk.AffineTransform(3)
    broken.SetTranslation((0.0, np.nan, 0.0))
    with pytest.raises(GeometryError, match="finite displacements, got NaN or infinity: check its file"):
        field_of_transform(broken, oblique_grid(3))
    vectors = np.zeros((4, 5, 2))
    vectors[1, 2, 0] = np.inf
    field = sitk.DisplacementFieldTransform(sitk.GetImageFromArray(vectors, isVector=True))
    with pytest.raises(GeometryError, match="finite displacements, got NaN or infinity: check its file"):
        field_of_displacements(field)


def test_voxel_types_that_there_are_not_are_refused() -> None:
    """An unknown voxel type is refused with those that there are, for one channel and for several."""
    grid = oblique_grid(3)
    for channels in (1, 2):
        with pytest.raises(ImageError, match=r"expected a voxel type of int8, uint8, .*, got 'int128'"):
            sitk_image(Volume(noise(channels, *grid.shape), grid), "int128")


def test_an_affine_without_extent_is_refused() -> None:
    """An image of nibabel whose voxels have no size on one axis, or that lies nowhere, has no grid."""
    nibabel = pytest.importorskip("nibabel")
    for wrong in (np.diag([1.0, 0.0, 1.0, 1.0]), np.diag([1.0, np.nan, 1.0, 1.0])):
        image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.float32), np.eye(4))
        image._affine = wrong  # as a damaged header gives it
        with pytest.raises(GeometryError, match=r"expected an invertible direction matrix, .* \(LPS\): correct"):
            to_volume(image)


def test_images_of_four_axes_have_no_tensor() -> None:
    """A sequence of frames, even of one, is no image: one frame has to be taken out."""
    with pytest.raises(ImageError, match="expected an image of 2 or 3 axes, got 4: extract one frame first"):
        image_to_tensor(sitk.Image([3, 4, 5, 1], sitk.sitkFloat32))


def test_itk_fields_of_another_kind_are_refused() -> None:
    """A field of displacements for itk has one component an axis; what is no image is named."""
    itk = pytest.importorskip("itk")
    from semreg.io.bridge import field_of_itk

    flat = itk.image_from_array(np.zeros((4, 5, 3), np.float32), is_vector=True)
    with pytest.raises(GeometryError, match="expected displacements of 2 components for a field in 2-D, got 3: use"):
        field_of_itk(flat)
    with pytest.raises(ImageError, match="a displacement field, got int: make one with"):
        field_of_itk(3)
    with pytest.raises(ImageError, match=r"expected voxels that are real numbers, got torch.complex64"):
        to_volume((torch.zeros(oblique_grid(2).shape, dtype=torch.complex64), oblique_grid(2)))
