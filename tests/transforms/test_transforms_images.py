"""Promises of images through transforms: SimpleITK's voxels, the type they had, labels that stay labels."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from conftest import give_header, make_grid, noise_volume, oblique_grid, rotation, smooth_field
from semreg.core.fields import Volume
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.io.bridge import sitk_transform
from semreg.io.files import write_image
from semreg.transforms import Chain, Interpolation, lost_labels, read_any_image, resample

FIXED = make_grid((12, 11, 10), (1.1, 1.4, 1.9), (-31.0, 12.5, 77.0), rotation(3))
MOVING = make_grid((14, 13, 9), (1.3, 1.2, 2.1), (-33.0, 10.0, 76.0), rotation(3, 8.0))
TURN = sitk.Euler3DTransform((-25.0, 20.0, 86.0), 0.05, -0.08, 0.1, (0.4, -0.5, 0.6))
LARGE = ("Int32", "UInt32", "Int64", "UInt64", "Float64")
"""Types that hold what a float32 does not."""
TYPES = ("Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float32", "Float64")


def image_of(grid, kind="Float32", seed=0, scale=30.0):
    """Noise of any voxel type, above 0 where the type has no negative values."""
    values = noise_volume(grid, seed=seed).data[0].numpy() * scale
    values = np.clip(values + 60.0 * kind.startswith("U"), 0 if kind.startswith("U") else -120, 120)
    image = sitk.Cast(sitk.GetImageFromArray(np.rint(values)), getattr(sitk, f"sitk{kind}"))
    return give_header(image, grid)


def reference():
    """The fixed grid as an image."""
    return give_header(sitk.Image(FIXED.size_xyz, sitk.sitkUInt8), FIXED)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("interpolation", [Interpolation.LINEAR, Interpolation.BSPLINE, Interpolation.NEAREST])
def test_every_voxel_type_is_kept(kind, interpolation):
    """The result has the type of the image and SimpleITK's values, rounded and clipped for integers."""
    image = image_of(MOVING, kind)
    chain = Chain.of(smooth_field(FIXED), TURN)
    result = resample(image, chain, FIXED, interpolation, background=7.0)
    method = {"linear": sitk.sitkLinear, "bspline": sitk.sitkBSpline, "nearest": sitk.sitkNearestNeighbor}
    exact = sitk.Resample(image, reference(), chain.sitk(), method[interpolation.value], 7.0, sitk.sitkFloat64)
    expected = sitk.GetArrayFromImage(exact)
    if "Int" in kind:
        limits = np.iinfo(sitk.GetArrayViewFromImage(image).dtype)
        expected = np.clip(np.rint(expected), float(limits.min), float(limits.max))
    assert result.GetPixelID() == image.GetPixelID()
    assert (result.GetOrigin(), result.GetSpacing()) == (FIXED.origin_xyz, FIXED.spacing_xyz)
    np.testing.assert_allclose(sitk.GetArrayFromImage(result), expected, atol=1e-4)


def test_splines_do_not_wrap_around():
    """A B-spline overshoots at an edge; unsigned bytes end at 0 and 255 instead of starting again."""
    values = np.zeros(MOVING.shape, np.uint8)
    values[:, :, 7:] = 255
    image = give_header(sitk.GetImageFromArray(values), MOVING)
    shift = Chain.of(sitk.TranslationTransform(3, (0.3, 0.2, 0.1)))
    result = sitk.GetArrayFromImage(resample(image, shift, MOVING, Interpolation.BSPLINE, background=0.0)).astype(int)
    rows = result[2:-2, 2:-2, 1:-1]
    assert rows[:, :, :5].max() < 60
    assert rows[:, :, 8:].min() > 200


def test_labels_stay_labels():
    """Label interpolation takes the label of the largest share and so invents none; it is not the nearest voxel."""
    grid = make_grid((20, 18, 16), (2.0, 2.1, 1.9), (0.0, 0.0, 0.0), rotation(3))
    index = np.indices(grid.shape)
    labels = np.where((index[0] - 8) ** 2 + (index[1] - 9) ** 2 + (index[2] - 10) ** 2 < 30, 41, 0)
    labels[index[2] > 14] = 7
    image = give_header(sitk.GetImageFromArray(labels.astype(np.uint16)), grid)
    fine = grid.lattice([0.25] * 3, [0.5] * 3, [30, 34, 38])
    chain = Chain.of(sitk.TranslationTransform(3, (0.4, -0.3, 0.5)))
    got = sitk.GetArrayFromImage(resample(image, chain, fine, Interpolation.LABEL))
    shares = [
        sitk.GetArrayFromImage(resample(sitk.Cast(image == label, sitk.sitkFloat64), chain, fine, Interpolation.LINEAR))
        for label in (0, 7, 41)
    ]
    best, second = np.sort(shares, axis=0)[:-3:-1]
    clear = best - second > 1e-6
    np.testing.assert_array_equal(got[clear], np.array([0, 7, 41])[np.argmax(shares, axis=0)][clear])
    assert set(np.unique(got)) == {0, 7, 41}
    nearest = sitk.GetArrayFromImage(resample(image, chain, fine, Interpolation.NEAREST))
    assert (got != nearest).any()


@pytest.mark.parametrize("kind", ["UInt8", "Int16", "UInt64"])
@pytest.mark.parametrize("dimension", [2, 3])
def test_label_interpolation_is_itks(kind, dimension):
    """The label of the largest share, ties, borders and outside are those of ITK's pass for each label."""
    values = np.random.default_rng(0).integers(0, 12, (7, 8, 9)[-dimension:])
    spacing, origin = (2.0, 1.5, 1.25)[:dimension], (3.0, -7.0, 11.0)[:dimension]
    turned = sitk.Euler2DTransform((4.0, -3.0), 0.2, (0.3, 0.4)) if dimension == 2 else TURN
    for axes, start, step in ((np.eye(dimension), -1.0, 0.5), (rotation(dimension), -1.037, 0.4713)):  # ties, none
        grid = make_grid(values.shape[::-1], spacing, origin, axes)
        image = give_header(sitk.Cast(sitk.GetImageFromArray(values), getattr(sitk, f"sitk{kind}")), grid)
        fine = grid.lattice([start] * dimension, [step] * dimension, [2 * n + 3 for n in grid.shape])
        for transform in (
            sitk.Transform(dimension, sitk.sitkIdentity),
            turned,
            sitk_transform(smooth_field(fine, 1.0)),
        ):
            got = resample(image, Chain.of(transform), fine, Interpolation.LABEL, background=3.0)
            expected = sitk.Resample(sitk.Cast(image, sitk.sitkInt32), got, transform, sitk.sitkLabelLinear, 3.0)
            assert got.GetPixelID() == image.GetPixelID()
            np.testing.assert_array_equal(sitk.GetArrayFromImage(got), sitk.GetArrayFromImage(expected))


def test_point_labels_do_not_vanish():
    """Labels of one voxel each come to the voxel where their point lies, on a coarser grid and the other way too."""
    fine = make_grid((24, 22, 20), (1.0, 1.1, 1.2), (3.0, -7.0, 11.0), rotation(3))
    coarse = fine.lattice([1.0] * 3, [2.5] * 3, [8, 9, 10])
    places = np.array([[3, 4, 5], [9, 14, 2], [16, 6, 19], [12, 12, 12]])
    values = np.zeros(fine.shape, np.uint16)
    values[tuple(places.T)] = [7, 900, 3, 41]
    image = give_header(sitk.GetImageFromArray(values), fine)
    shift = sitk.TranslationTransform(3, (2.0, -1.0, 1.5))
    for chain, sign in ((Chain.of(shift), -1.0), (Chain.of(shift).inverse(), 1.0)):
        result = resample(image, chain, coarse, Interpolation.POINTS)
        assert lost_labels(image, result) == []
        for place, label in zip(places.tolist(), (7, 900, 3, 41), strict=True):
            point = np.array(image.TransformIndexToPhysicalPoint(place[::-1])) + sign * np.array([2.0, -1.0, 1.5])
            assert result[result.TransformPhysicalPointToIndex(point.tolist())] == label
    assert lost_labels(image, resample(image, Chain.of(shift), coarse, Interpolation.LABEL)) != []


def test_a_series_is_inverted_once(monkeypatch):
    """The inverse of a field is found once for all frames and components."""
    found, field_on = [], Chain.field_on
    monkeypatch.setattr(Chain, "field_on", lambda *args: (found.append(args), field_on(*args))[1])
    chain = Chain.of(smooth_field(FIXED, 1.0)).inverse()
    series = sitk.JoinSeries([sitk.Compose([image_of(FIXED, "UInt8", seed) for seed in range(2)])] * 3)
    assert resample(series, chain, MOVING, Interpolation.LINEAR).GetSize()[3] == 3
    assert len(found) == 1


def test_the_inverse_brings_the_fixed_image_back():
    """An image that went to the moving side and came back with the inverse is the one it was, where both show it."""
    grid = make_grid((24, 22, 20), (1.1, 1.4, 1.9), (-31.0, 12.5, 77.0), rotation(3))
    values = smooth_field(grid, 30.0).mm()[:1].float()
    chain = Chain.of(smooth_field(grid, 1.0), TURN)
    far = make_grid((40, 40, 40), (1.2, 1.2, 1.6), (-45.0, 0.0, 60.0), rotation(3, 8.0))
    image = give_header(sitk.GetImageFromArray(values[0].numpy()), grid)
    there = resample(image, chain.inverse(), far, Interpolation.BSPLINE, 0.0)
    back = sitk.GetArrayFromImage(resample(there, chain, grid, Interpolation.BSPLINE, 0.0))
    inner = (slice(5, -5),) * 3
    assert np.abs(back[inner] - values[0].numpy()[inner]).max() < 0.6
    assert np.abs(values.numpy()).max() > 20


@pytest.mark.parametrize(
    ("values", "expected"), [((-1000.0, 400.0), -1000.0), ((-700.0, 700.0), -700.0), ((-3.0, np.nan), -3.0)]
)
def test_background(values, expected):
    """Where nothing is shown there is the smallest value of the image, CT or not, and 0 among labels."""
    array = np.full(MOVING.shape, values[0], np.float32)
    array[4, 5, 6] = values[1]
    image = give_header(sitk.GetImageFromArray(array), MOVING)
    away = Chain.of(sitk.TranslationTransform(3, (900.0, 0.0, 0.0)))
    assert set(sitk.GetArrayFromImage(resample(image, away, FIXED, Interpolation.LINEAR)).ravel()) == {expected}
    labels = image_of(MOVING, "UInt8") + 5
    assert not sitk.GetArrayFromImage(resample(labels, away, FIXED, Interpolation.LABEL)).any()


def test_several_components_and_frames():
    """Colours and frames over time go through one by one; their number, spacing and type stay."""
    chain = Chain.of(TURN)
    parts = [image_of(MOVING, "UInt8", seed) for seed in range(3)]
    one = [resample(part, chain, FIXED, Interpolation.LINEAR, 0.0) for part in parts]
    colour = resample(sitk.Compose(parts), chain, FIXED, Interpolation.LINEAR, 0.0)
    assert colour.GetPixelIDTypeAsString() == "vector of 8-bit unsigned integer"
    series = resample(sitk.JoinSeries(parts, 3.0, 2.5), chain, FIXED, Interpolation.LINEAR, 0.0)
    assert (series.GetSize(), series.GetSpacing()[3], series.GetOrigin()[3]) == ((*FIXED.size_xyz, 3), 2.5, 3.0)
    for number, expected in enumerate(one):
        voxels = sitk.GetArrayFromImage(expected)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(colour)[..., number], voxels)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(series)[number], voxels)


def test_what_does_not_fit_is_refused():
    """Another dimension, labels that are floats and complex voxels are refused in one sentence."""
    chain = Chain.of(TURN)
    flat = Chain.of(sitk.TranslationTransform(2))
    with pytest.raises(GeometryError, match="2-D as the transform, got one in 3-D and one in 3-D"):
        resample(image_of(MOVING), flat, FIXED, Interpolation.LINEAR)
    with pytest.raises(GeometryError, match="one in 2-D"):
        resample(sitk.Image((4, 5), sitk.sitkUInt8), chain, FIXED, Interpolation.LINEAR)
    with pytest.raises(GeometryError, match="one in 2-D"):
        resample(image_of(MOVING), chain, oblique_grid(2), Interpolation.LINEAR)
    with pytest.raises(ConfigError, match="nearest"):
        resample(image_of(MOVING), chain, FIXED, Interpolation.LABEL)
    with pytest.raises(ImageError, match="complex"):
        resample(sitk.Image(MOVING.size_xyz, sitk.sitkComplexFloat32), chain, FIXED, Interpolation.LINEAR, 0.0)


@pytest.mark.parametrize("kind", TYPES)
def test_images_are_read_as_they_are(kind, tmp_path):
    """The type and the values of a file are kept, also those that a float32 cannot hold."""
    image = image_of(MOVING, kind) + (2**24 + 1 if kind in LARGE else 0)
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    back = read_any_image(tmp_path / "a.nrrd")
    assert back.GetPixelID() == image.GetPixelID()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))


def test_nan_and_damage_are_noticed(tmp_path):
    """NaN in a NIfTI file stays NaN, as everywhere in semreg; a missing or damaged file is refused by its name."""
    volume = Volume(noise_volume(MOVING).data.float(), MOVING)
    volume.data[0, 3, 4, 5] = torch.nan
    write_image(volume, tmp_path / "a.nii.gz")
    assert np.isnan(sitk.GetArrayFromImage(read_any_image(tmp_path / "a.nii.gz"))[3, 4, 5])
    (tmp_path / "b.nrrd").write_bytes(b"NRRD0004\n")
    for name in ("b.nrrd", "gone.nii.gz"):
        with pytest.raises(ImageError, match=name):
            read_any_image(tmp_path / name)
