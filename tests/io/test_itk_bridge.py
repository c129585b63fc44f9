"""Promises of the door to SimpleITK, itk, nibabel and numpy: no sample and no position changes on the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import (
    ORIENTATIONS,
    give_header,
    grids,
    make_grid,
    noise,
    noise_volume,
    oblique_grid,
    points_of,
    sitk_resample,
    smooth_field,
)
from semreg.core.fields import Field, Volume, warp
from semreg.core.geometry import Grid, nearest_rotation
from semreg.errors import GeometryError, ImageError
from semreg.io.bridge import (
    PIXEL_TYPES,
    LoadedImage,
    field_of_displacements,
    field_of_transform,
    itk_field,
    itk_image,
    itk_transform,
    pixel_type_name,
    sitk_field,
    sitk_image,
    sitk_transform,
    to_pixels,
    to_volume,
)

SHEARED = ((1.0, 0.3, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def volume_on(grid):
    return Volume(noise_volume(grid).data.float(), grid)


def assert_same_grid(a: Grid, b: Grid, tolerance=1e-5):
    assert a.size_xyz == b.size_xyz
    np.testing.assert_allclose(a.index_to_point(), b.index_to_point(), atol=tolerance)


@given(grids())
@settings(max_examples=30, deadline=None)
def test_sitk_round_trip_is_exact(grid):
    """Volume → SimpleITK → Volume changes no bit of the samples and no position, in 2-D and 3-D."""
    volume = volume_on(grid)
    back = to_volume(sitk_image(volume))
    assert torch.equal(back.data, volume.data)
    assert_same_grid(back.grid, grid, 1e-9)


@pytest.mark.parametrize("dimension", [2, 3])
def test_points_of_a_sitk_image_are_itks(dimension):
    """Every voxel of the Volume lies where SimpleITK says it lies, and holds the value SimpleITK gives."""
    image = give_header(
        sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(5, 6, 7)[-dimension:])), oblique_grid(dimension)
    )
    volume = to_volume(image)
    points = points_of(volume.grid)
    for index in ((0, 0, 0), (3, 1, 2), (6, 5, 4)):
        xyz = index[:dimension]
        there = tuple(points[(slice(None), *xyz[::-1])].tolist())
        assert there == pytest.approx(image.TransformIndexToPhysicalPoint(xyz), abs=1e-9)
        assert float(volume.data[(0, *xyz[::-1])]) == pytest.approx(image.GetPixel(xyz), abs=1e-6)


def test_import_of_semreg_doors_leaves_itk_alone():
    """The package itk, seconds of loading, is not imported for SimpleITK and numpy objects."""
    code = (
        "import sys, SimpleITK, semreg; semreg.to_volume(SimpleITK.Image(3, 4, 5, SimpleITK.sitkInt16));"
        "sys.exit('itk' in sys.modules or 'nibabel' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("dimension", [2, 3])
def test_itk_round_trip_is_exact(dimension):
    """Volume → itk.Image → Volume changes no bit and no position."""
    pytest.importorskip("itk")
    volume = volume_on(oblique_grid(dimension))
    back = to_volume(itk_image(volume))
    assert torch.equal(back.data, volume.data)
    assert_same_grid(back.grid, volume.grid, 1e-9)


def test_itk_region_that_starts_elsewhere():
    """An itk image whose region does not start at index 0, as after a crop, keeps its place in space."""
    itk = pytest.importorskip("itk")
    whole = itk_image(volume_on(oblique_grid(3)))
    crop = itk.RegionOfInterestImageFilter.New(whole)
    region = itk.ImageRegion[3]()
    region.SetIndex((2, 1, 3))
    region.SetSize((4, 3, 2))
    crop.SetRegionOfInterest(region)
    extracted = itk.extract_image_filter(whole, extraction_region=region)  # keeps the index, where the other resets it
    crop.Update()
    one, other = to_volume(crop.GetOutput()), to_volume(extracted)
    assert tuple(extracted.GetLargestPossibleRegion().GetIndex()) == (2, 1, 3)
    assert_same_grid(one.grid, other.grid)
    assert torch.equal(one.data, other.data)


@pytest.mark.parametrize("orientation", ORIENTATIONS[::5], ids=str)
def test_nibabel_agrees_with_itk(orientation, tmp_path):
    """An image loaded with nibabel is the image SimpleITK reads from the same file, in every orientation."""
    nibabel = pytest.importorskip("nibabel")
    path = tmp_path / "image.nii"
    volume = volume_on(oblique_grid(3, orientation))
    sitk.WriteImage(sitk_image(volume), str(path))
    loaded = to_volume(nibabel.load(path))
    read = to_volume(sitk.ReadImage(str(path)))
    assert torch.equal(loaded.data, read.data)
    assert_same_grid(loaded.grid, read.grid, 1e-4)


def test_nibabel_scales_and_slices(tmp_path):
    """The slope and intercept of a NIfTI file are applied; 2-D and trailing axes of one are accepted."""
    nibabel = pytest.importorskip("nibabel")
    array = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    image = nibabel.Nifti1Image(array, np.diag([1.0, 2.0, 3.0, 1.0]))
    image.header.set_slope_inter(2.0, -1024.0)
    nibabel.save(image, tmp_path / "scaled.nii")
    scaled = np.asarray(nibabel.load(tmp_path / "scaled.nii").dataobj)
    np.testing.assert_allclose(to_volume(nibabel.load(tmp_path / "scaled.nii")).data[0], scaled.T)
    trailing = nibabel.Nifti1Image(array[..., None], np.eye(4))
    assert to_volume(trailing).grid.size_xyz == (4, 3, 2)
    flat = to_volume(nibabel.Nifti1Image(array[..., 0], np.diag([-1.0, -2.0, 1.0, 1.0])))
    assert flat.grid.size_xyz == (4, 3)
    assert flat.grid.spacing_xyz == (1.0, 2.0)
    assert flat.grid.direction == ((1.0, 0.0), (0.0, 1.0))


def test_arrays_come_with_their_grid():
    """Arrays and tensors, alone with ``grid`` or in a pair, with or without a channel axis, are the same Volume."""
    grid = oblique_grid(3)
    array = np.random.default_rng(0).normal(size=grid.shape)
    expected = torch.from_numpy(array.astype(np.float32))[None]
    given_as = [
        to_volume(array, grid=grid),
        to_volume((array, grid)),
        to_volume(torch.from_numpy(array), grid=grid),
        to_volume((torch.from_numpy(array)[None], grid)),
        to_volume(np.asfortranarray(array)[::-1][::-1], grid=grid),
        to_volume(Volume(torch.from_numpy(array)[None], grid)),
        to_volume(LoadedImage(Volume(torch.from_numpy(array)[None], grid), "float64", Path("x"), "")),
    ]
    for volume in given_as:
        assert volume.grid == grid
        assert volume.data.dtype == torch.float32
        assert volume.data.is_contiguous()
        assert torch.equal(volume.data, expected)


def test_arrays_are_copied():
    """What happens to the caller's numpy array later does not reach the Volume."""
    grid = oblique_grid(2)
    array = np.ones(grid.shape, dtype=np.float32)
    volume = to_volume(array, grid=grid)
    array[:] = 7
    assert bool((volume.data == 1).all())


@pytest.mark.parametrize("pixel_type", PIXEL_TYPES)
def test_every_pixel_type_comes_in_and_goes_out(pixel_type):
    """Integers and floats of any width become float32, and an image can be made in each of the types."""
    grid = oblique_grid(3)
    values = torch.arange(grid.voxels, dtype=torch.float32).reshape(1, *grid.shape) % 100
    image = sitk_image(Volume(values, grid), pixel_type)
    assert pixel_type_name(image.GetPixelIDTypeAsString()) == pixel_type
    assert torch.equal(to_volume(image).data, values)
    array = values[0].numpy().astype(pixel_type)
    assert torch.equal(to_volume(array, grid=grid).data, values)


@given(
    st.sampled_from(PIXEL_TYPES),
    st.lists(st.floats(-(2.0**70), 2.0**70, width=32) | st.floats(-300, 300, width=32), min_size=1),
)
@settings(max_examples=200, deadline=None)
def test_pixels_are_rounded_and_clipped(pixel_type, values):
    """Integer types get the nearest integer they can hold, never a wrapped one; float types the value."""
    result = to_pixels(torch.tensor(values), pixel_type)
    assert result.dtype == np.dtype(pixel_type)
    if result.dtype.kind == "f":
        np.testing.assert_array_equal(result, np.array(values))
        return
    limits = np.iinfo(result.dtype)
    expected = [min(max(round(value), limits.min), limits.max) for value in values]
    assert [int(value) for value in result] == expected


def test_pixels_refuse_what_they_cannot_hold():
    """NaN is not stored as some integer, and an unknown type is named."""
    with pytest.raises(ImageError, match="expected finite values to store as int16, got NaN"):
        to_pixels(torch.tensor([1.0, torch.nan]), "int16")
    with pytest.raises(ImageError, match=r"expected a voxel type of int8, .* got 'half'"):
        to_pixels(torch.tensor([1.0]), "half")


@pytest.mark.parametrize("dimension", [2, 3])
def test_sitk_transform_is_the_field(dimension):
    """SimpleITK moves every voxel's point by the field in mm, within 2⁻¹² of the smallest spacing; nothing beyond."""
    grid = oblique_grid(dimension)
    field = smooth_field(grid)
    transform = sitk_transform(field)
    points = points_of(grid).flatten(1).T
    moved = torch.tensor([transform.TransformPoint(point) for point in points.tolist()], dtype=torch.float64)
    tolerance = min(grid.spacing) * 2.0**-12
    assert float((moved - points - field.mm().flatten(1).T).abs().max()) < tolerance
    far = [500.0, -500.0, 400.0][:dimension]
    assert transform.TransformPoint(far) == pytest.approx(far)


def test_sitk_resamples_with_the_transform_as_warp_does():
    """SimpleITK's Resample with the transform gives what ``warp`` gives: the direction is fixed → moving."""
    fixed, moving = oblique_grid(3), oblique_grid(3, degrees=25.0)
    field, volume = smooth_field(fixed), noise_volume(moving)
    expected = warp(volume, field, outside=-9.0).data[0].numpy()
    result = sitk_resample(volume, fixed, sitk_transform(field))
    same = np.isclose(result, expected, atol=2e-3)
    assert same.mean() > 0.99  # the rest lies on the edge of the moving box, where rounding decides


@pytest.mark.parametrize("dimension", [2, 3])
def test_itk_objects_hold_the_values_of_sitk(dimension):
    """itk_field and itk_transform are the same numbers in the same places as their SimpleITK twins."""
    itk = pytest.importorskip("itk")
    grid = oblique_grid(dimension)
    field = smooth_field(grid)
    vectors = itk_field(field)
    np.testing.assert_array_equal(itk.array_from_image(vectors), sitk.GetArrayFromImage(sitk_field(field)))
    assert tuple(vectors.GetOrigin()) == pytest.approx(grid.origin_xyz)
    np.testing.assert_allclose(itk.array_from_matrix(vectors.GetDirection()), np.array(grid.direction))
    ours, twin = itk_transform(field), sitk_transform(field)
    for point in points_of(grid).flatten(1).T[::17].tolist():
        assert tuple(ours.TransformPoint(point)) == pytest.approx(twin.TransformPoint(point), abs=1e-9)


@given(grids(), st.floats(0.0, 200.0))
@settings(max_examples=30, deadline=None)
def test_fields_are_rounded_below_what_matters(grid, amplitude):
    """The displacements handed on differ from the field by at most 2⁻¹² of the smallest spacing (and float32's own)."""
    field = smooth_field(grid, amplitude)
    handed = torch.from_numpy(sitk.GetArrayFromImage(sitk_field(field))).movedim(-1, 0).double()
    assert float((handed - field.mm()).abs().max()) <= min(grid.spacing) * 2.0**-12 + amplitude * 4e-7


def test_field_of_one_voxel_axes():
    """A field of a single slice, row or voxel is handed on like any other."""
    for size in ((7, 6, 1), (1, 6, 5), (1, 1, 1)):
        field = smooth_field(make_grid(size, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), oblique_grid(3).direction))
        assert sitk_field(field).GetSize() == size
        values = sitk.GetArrayFromImage(sitk_field(field))
        np.testing.assert_allclose(values, field.mm().movedim(0, -1), atol=1e-3)


def test_rounded_direction_is_repaired_with_a_warning(caplog):
    """A direction that is orthonormal but for its digits becomes the nearest rotation, and the log says so."""
    image = sitk.Image((3, 4, 5), sitk.sitkInt16)
    assert to_volume(image).grid.direction == ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    assert caplog.text == ""
    rounded = ((1.0, 0.005, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    image.SetDirection([value for row in rounded for value in row])
    np.testing.assert_allclose(to_volume(image).grid.direction, nearest_rotation(rounded), atol=1e-4)
    assert "not orthonormal" in caplog.text


def test_sheared_affine_is_resampled_with_a_warning(caplog):
    """A sheared affine of nibabel gets orthonormal axes; a singular one is an error."""
    nibabel = pytest.importorskip("nibabel")
    affine = np.eye(4)
    affine[:3, :3] = np.array(SHEARED) * [1.0, 2.0, 3.0]
    grid = to_volume(nibabel.Nifti1Image(np.zeros((3, 4, 5)), affine)).grid
    assert np.allclose(np.array(grid.direction).T @ np.array(grid.direction), np.eye(3))
    assert "not orthonormal" in caplog.text
    affine[:3, 1] = affine[:3, 0]
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5)), np.eye(4))
    image._affine = affine  # nibabel itself refuses to make one
    with pytest.raises(GeometryError, match="invertible direction matrix"):
        to_volume(image)


def _refused():
    grid = oblique_grid(3)
    yield "4-D", sitk.Image((3, 4, 5, 2), sitk.sitkInt16), r"2 or 3 axes, got 4 of size \(3, 4, 5, 2\): pick one frame"
    yield "vector", sitk.Image((3, 4, 5), sitk.sitkVectorFloat32, 3), "one value per voxel, got 3 components"
    yield "colour", sitk.Image((3, 4), sitk.sitkVectorUInt8, 3), "one value per voxel, got 3 components"
    yield "complex", sitk.Image((3, 4), sitk.sitkComplexFloat32), "real numbers, got complex"
    yield "labels", sitk.Image((3, 4), sitk.sitkLabelUInt8), "real numbers, got label"
    yield "array alone", np.zeros((3, 4, 5)), r"together with its grid, got an array of shape \(3, 4, 5\) alone"
    yield "channels", (np.zeros((2, *grid.shape)), grid), "one value per voxel, got 2 channels"
    yield "shape", (np.zeros((3, 4, 5)), grid), r"expected an array of shape \(5, 6, 7\)"
    yield "complex array", (np.zeros(grid.shape, complex), grid), "real numbers, got complex128"
    yield "complex tensor", (torch.zeros(grid.shape, dtype=torch.complex64), grid), "real numbers, got torch.complex64"
    yield "words", (np.full(grid.shape, "a"), grid), "real numbers, got <U1"
    yield "channels in a Volume", Volume(torch.zeros(2, *grid.shape), grid), "one value per voxel, got 2 channels"
    yield "path", "image.nii", r"got builtins.str: read it with semreg.read_image"
    yield "nothing", None, "got builtins.NoneType"
    yield "transform", sitk.Transform(3, sitk.sitkIdentity), "expected a SimpleITK, itk or nibabel image"
    yield "field", Field.zeros(grid), "got semreg.core.fields.Field"


@pytest.mark.parametrize(("obj", "sentence"), [pytest.param(o, s, id=name) for name, o, s in _refused()])
def test_what_is_no_scalar_image_is_refused(obj, sentence):
    """What is not one real number a voxel in 2-D or 3-D is refused in one sentence: expected, got, what to do."""
    with pytest.raises((ImageError, GeometryError), match=sentence) as caught:
        to_volume(obj)
    assert "\n" not in str(caught.value)


def test_nibabel_vectors_and_series_are_refused():
    """A nibabel image with several frames, vectors or colours is refused as SimpleITK's are."""
    nibabel = pytest.importorskip("nibabel")
    rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    for array, sentence in (
        (np.zeros((3, 4, 5, 2)), "2 or 3 axes, got 4"),
        (np.zeros((3, 4, 5, 1, 3)), "got 3 components"),
        (np.zeros((3, 4, 5), rgb), "got 3 components"),
    ):
        with pytest.raises(ImageError, match=sentence):
            to_volume(nibabel.Nifti1Image(array, np.eye(4)))


def test_itk_vectors_are_refused():
    """An itk image of vectors is refused."""
    pytest.importorskip("itk")
    with pytest.raises(ImageError, match="got 3 components"):
        to_volume(itk_field(Field.zeros(oblique_grid(3))))


def test_four_axes_with_one_frame_are_an_image():
    """A fourth axis of one frame is no reason to refuse an image."""
    image = sitk.Image((3, 4, 5, 1), sitk.sitkInt16)
    assert to_volume(image).grid.size_xyz == (3, 4, 5)


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
