"""Promises of reading and writing: values and places survive, files are there completely or not at all."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from conftest import ORIENTATIONS, make_grid, noise_volume, oblique_grid, points_of, rotation, smooth_field
from held_tensors import peak_bytes_of
from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.errors import GeometryError, ImageError, OutputError, SemregError
from semreg.features.networks import load_network
from semreg.io.bridge import sitk_field, sitk_image, sitk_transform
from semreg.io.files import (
    PIXEL_TYPES,
    checksum,
    read_grid,
    read_image,
    read_mask,
    read_transforms,
    write_field,
    write_image,
    write_sitk_transform,
    write_transform,
    write_warp,
)
from semreg.io.nifti import is_cut_short
from semreg.transforms import read_transform

FORMATS = ("nii.gz", "nii", "nrrd", "mha")


def volume_on(grid, scale=100.0):
    return Volume((noise_volume(grid).data * scale).float(), grid)


def assert_close_grids(a, b, tolerance=1e-4):
    assert a.size_xyz == b.size_xyz
    np.testing.assert_allclose(a.index_to_point(), b.index_to_point(), atol=tolerance)


@pytest.mark.parametrize("affine", [None, sitk.TranslationTransform(3, (1.0, 2.0, 3.0))])
def test_no_time_and_no_system_is_in_a_transform_file(affine, tmp_path):
    """HDF5 can keep times of each object, ITK writes the system's name: without both, runs and machines agree."""
    import h5py

    field = smooth_field(oblique_grid(3))
    write_transform(field, tmp_path / "field.h5", affine)
    write_sitk_transform(sitk.ReadTransform(str(tmp_path / "field.h5")), tmp_path / "any.h5")
    for path in (tmp_path / "field.h5", tmp_path / "any.h5"):
        kept = []
        with h5py.File(path) as file:
            file.visititems(lambda name, item, kept=kept: kept.append((name, item)))
            assert {"ITKVersion", "TransformGroup/0/TransformType"} < {name for name, _ in kept}
            assert not any("OS" in name for name, _ in kept)
            tables = [item for _, item in kept if isinstance(item, h5py.Dataset)]
            assert not any(table.id.get_create_plist().get_obj_track_times() for table in tables)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("offset", [None, (1.0, 2.0, 3.0)])
def test_a_streamed_transform_is_that_of_itk(offset, dimension, tmp_path):
    """What is written number by number maps as what ITK would have written, for SimpleITK, for itk and for us."""
    import itk

    affine = None if offset is None else sitk.TranslationTransform(dimension, offset[:dimension])
    field = smooth_field(oblique_grid(dimension))
    path = tmp_path / "transform.h5"
    write_transform(field, path, affine)
    expected = sitk_transform(field)
    if affine is not None:
        expected = sitk.CompositeTransform([affine, expected])
    read = [sitk.ReadTransform(str(path)), *read_transforms(path)]
    assert read[0].GetName() == expected.GetName()
    for place in points_of(field.grid).flatten(1).T[::7].tolist():
        for transform in read:
            assert transform.TransformPoint(place) == pytest.approx(expected.TransformPoint(place), abs=1e-9)
    if dimension == 3:
        chain = itk.transformread(str(path))
        place = points_of(field.grid)[:, 2, 2, 2].tolist()
        assert list(chain[0].TransformPoint(place)) == pytest.approx(expected.TransformPoint(place), abs=1e-9)
    assert path.stat().st_size < 4 * field.vox.numel() + 16384  # in single precision
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_a_streamed_transform_takes_no_copy_of_the_field(tmp_path):
    """The tensors that a large field is written through are pieces of it."""
    field = Field(torch.zeros(3, 96, 96, 96), Grid((96, 96, 96), (1.0,) * 3, (0.0,) * 3, np.eye(3)))
    field.vox.uniform_(-1, 1)
    tracemalloc.start()
    write_transform(field, tmp_path / "a.h5")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < field.vox.numel() * 4  # of numpy; a copy in double precision would be twice that


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("ending", FORMATS)
def test_images_survive_writing(ending, dimension, tmp_path):
    """An image that is written and read again has the same bits and lies in the same place, in every format."""
    volume = volume_on(oblique_grid(dimension))
    path = tmp_path / f"image.{ending}"
    write_image(volume, path)
    back = read_image(path)
    assert torch.equal(back.volume.data, volume.data)
    assert back.pixel_type == "float32"
    assert_close_grids(back.volume.grid, volume.grid)
    assert_close_grids(read_grid(path), volume.grid)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7], ids=str)
def test_nifti_bytes_are_those_of_sitk(orientation, tmp_path):
    """What is streamed to .nii is byte for byte what SimpleITK writes, header and voxels, in any orientation."""
    volume = volume_on(oblique_grid(3, orientation))
    for pixel_type in ("float32", "int16", "uint8"):
        write_image(volume, tmp_path / "ours.nii", pixel_type)
        sitk.WriteImage(sitk_image(volume, pixel_type), str(tmp_path / "theirs.nii"))
        assert (tmp_path / "ours.nii").read_bytes() == (tmp_path / "theirs.nii").read_bytes()


@pytest.mark.parametrize("pixel_type", PIXEL_TYPES)
def test_pixel_type_is_kept(pixel_type, tmp_path):
    """Each type can be written, is named when it is read, and holds the rounded values."""
    volume = volume_on(oblique_grid(3), scale=30.0)
    write_image(volume, tmp_path / "image.nii.gz", pixel_type)
    back = read_image(tmp_path / "image.nii.gz")
    assert back.pixel_type == pixel_type
    low = 0.0 if pixel_type.startswith("u") else -128.0
    expected = volume.data if "float" in pixel_type else volume.data.round().clamp(low, 127.0)
    assert torch.equal(back.volume.data.clamp(max=127.0), expected.clamp(max=127.0))


def test_the_same_image_gives_the_same_bytes(tmp_path):
    """No name and no time are stored: a file depends on nothing but what it holds."""
    field, volume = smooth_field(oblique_grid(3)), volume_on(oblique_grid(3))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_field(field, tmp_path / folder / f"{folder}.nii.gz")
        write_image(volume, tmp_path / folder / f"image_{folder}.nii.gz", "int16")
    assert checksum(tmp_path / "a" / "a.nii.gz") == checksum(tmp_path / "b" / "b.nii.gz")
    assert checksum(tmp_path / "a" / "image_a.nii.gz") == checksum(tmp_path / "b" / "image_b.nii.gz")


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("ending", FORMATS)
def test_fields_survive_writing(ending, dimension, tmp_path):
    """SimpleITK reads back from every format exactly the vectors, LPS in mm, that ``sitk_field`` gives."""
    field = smooth_field(oblique_grid(dimension))
    write_field(field, tmp_path / f"field.{ending}")
    image = sitk.ReadImage(str(tmp_path / f"field.{ending}"))
    assert image.GetNumberOfComponentsPerPixel() == dimension
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(sitk_field(field)))
    assert image.GetOrigin() == pytest.approx(field.grid.origin_xyz, abs=1e-4)
    assert image.GetDirection() == pytest.approx([v for row in field.grid.direction for v in row], abs=1e-6)


def test_nifti_field_says_that_it_is_one(tmp_path):
    """The NIfTI field has five axes, the intent 1006 and RAS vectors, as that standard wants; nibabel is the judge."""
    nibabel = pytest.importorskip("nibabel")
    field = smooth_field(oblique_grid(3))
    write_field(field, tmp_path / "field.nii.gz")
    image = nibabel.load(tmp_path / "field.nii.gz")
    assert int(image.header["intent_code"]) == 1006
    assert image.shape == (*field.grid.size_xyz, 1, 3)
    ras = np.asarray(image.dataobj)[..., 0, :].transpose(2, 1, 0, 3)
    np.testing.assert_array_equal(ras * [-1, -1, 1], sitk.GetArrayFromImage(sitk_field(field)))


def test_itk_reads_the_nifti_field(tmp_path):
    """The package itk reads the same LPS vectors from the NIfTI field."""
    itk = pytest.importorskip("itk")
    field = smooth_field(oblique_grid(3))
    write_field(field, tmp_path / "field.nii.gz")
    image = itk.imread(str(tmp_path / "field.nii.gz"))
    np.testing.assert_array_equal(itk.array_from_image(image), sitk.GetArrayFromImage(sitk_field(field)))


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("name", ["transform.h5", "transform.tfm", "field.nii.gz", "field.mha"])
def test_transforms_survive_writing(name, dimension, tmp_path):
    """Every written transform, and every field image, moves points as the field does."""
    field = smooth_field(oblique_grid(dimension))
    (write_transform if name.startswith("t") else write_field)(field, tmp_path / name)
    back, direct = read_transform(tmp_path / name), sitk_transform(field)
    inner = tuple(slice(1, -1) for _ in range(dimension))  # NIfTI's float32 origin may put outer voxels outside
    for point in points_of(field.grid)[(slice(None), *inner)].flatten(1).T.tolist():
        assert back.TransformPoint(point) == pytest.approx(direct.TransformPoint(point), abs=1e-5)


def test_field_and_transform_hold_identical_values(tmp_path):
    """field.nii.gz and transform.h5 are the same numbers, bit for bit."""
    field = smooth_field(oblique_grid(3), amplitude_mm=17.3)
    write_field(field, tmp_path / "field.nii.gz")
    write_transform(field, tmp_path / "transform.h5")
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "field.nii.gz")))
    transform = sitk.DisplacementFieldTransform(sitk.ReadTransform(str(tmp_path / "transform.h5")))
    np.testing.assert_array_equal(image, sitk.GetArrayFromImage(transform.GetDisplacementField()))


def test_composite_moves_by_the_field_first(tmp_path):
    """With an affine part a point moves by the field and then by the affine transform."""
    field = smooth_field(oblique_grid(3))
    affine = sitk.AffineTransform(3)
    affine.SetMatrix((rotation(3, 31.0) * 1.2).ravel())
    affine.SetTranslation((3.0, -4.0, 5.0))
    write_transform(field, tmp_path / "transform.h5", affine)
    composite = sitk.ReadTransform(str(tmp_path / "transform.h5"))
    assert composite.GetName() == "CompositeTransform"
    point = points_of(field.grid)[:, 2, 2, 3].tolist()
    expected = affine.TransformPoint(sitk_transform(field).TransformPoint(point))
    assert composite.TransformPoint(point) == pytest.approx(expected)


def test_loaded_image_says_where_it_came_from(tmp_path):
    """Type, path and the checksum of the very bytes of the file come with an image."""
    path = tmp_path / "ct.nrrd"
    write_image(volume_on(oblique_grid(3)), path, "int16")
    image = read_image(str(path))
    assert (image.pixel_type, image.path) == ("int16", path)
    assert image.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == checksum(path)


@pytest.mark.parametrize("name", ["grey.png", "grey.jpg", "grey.tif"])
def test_grey_pictures_are_images(name, tmp_path):
    """A grey picture is a 2-D image."""
    sitk.WriteImage(sitk.Image((7, 5), sitk.sitkUInt8) + 9, str(tmp_path / name))
    image = read_image(tmp_path / name)
    assert image.volume.data.shape == (1, 5, 7)
    assert image.pixel_type == "uint8"
    assert bool((image.volume.data == 9).all())


@pytest.mark.parametrize(
    ("name", "kind", "channels"),
    [
        ("a.png", "uint8", 3),
        ("a.png", "uint8", 4),
        ("a.tif", "uint16", 3),
        ("a.mha", "uint8", 3),
        ("a.nrrd", "uint8", 3),
    ],
)
def test_colours_become_their_luminance(name, kind, channels, tmp_path, caplog):
    """A colour picture is a grey one on the grid that ``read_grid`` says, and the log says so; opacity is left out."""
    colours = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (5, 7, channels)).astype(kind)
    sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(tmp_path / name))
    with caplog.at_level("INFO", "semreg"):
        image = read_image(tmp_path / name)
    expected = 0.299 * colours[..., 0] + 0.587 * colours[..., 1] + 0.114 * colours[..., 2]
    np.testing.assert_allclose(image.volume.data[0], expected, rtol=1e-5)
    assert image.pixel_type == kind
    assert "luminance" in caplog.text
    assert read_grid(tmp_path / name) == image.volume.grid


def test_grey_jpeg_and_colour_jpeg_agree(tmp_path):
    """A colour JPEG of a grey picture reads as that picture, but for what JPEG loses (3 grey values)."""
    grey = (np.add.outer(np.arange(40) * 3, np.arange(24) * 4)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([grey] * 3, -1), isVector=True), str(tmp_path / "colour.jpg"))
    np.testing.assert_allclose(read_image(tmp_path / "colour.jpg").volume.data[0], grey, atol=3)


def test_size_of_pixels_is_said(tmp_path, caplog):
    """The log says that a picture has no spacing, or which one its resolution gives; both readers use the same."""
    for name, spacing, text in (("a.png", (1, 1), "pixels count as 1 mm"), ("b.png", (0.5, 0.25), "0.5 × 0.25 mm")):
        image = sitk.Image((7, 5), sitk.sitkUInt8) + 9
        image.SetSpacing(spacing)
        sitk.WriteImage(image, str(tmp_path / name))
        with caplog.at_level("INFO", "semreg"):
            assert read_image(tmp_path / name).volume.grid.spacing_xyz == pytest.approx(spacing)
        assert text in caplog.text
        assert read_grid(tmp_path / name).spacing_xyz == pytest.approx(spacing)


@pytest.mark.parametrize("ending", FORMATS)
def test_voxels_that_are_not_finite_survive(ending, tmp_path):
    """NaN and infinite voxels are read as they are from every format; ITK alone makes them 0 in NIfTI files."""
    volume = volume_on(oblique_grid(3))
    volume.data[0, 1, 2, 3:5] = torch.tensor([torch.nan, -torch.inf])
    for pixel_type in ("float32", "float64"):
        write_image(volume, tmp_path / f"image.{ending}", pixel_type)
        back = read_image(tmp_path / f"image.{ending}")
        assert back.pixel_type == pixel_type
        np.testing.assert_array_equal(back.volume.data, volume.data)


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", ">f8", "<i2", ">i2", "<u1"])
def test_nifti_of_nibabel_is_read_as_it_is(kind, tmp_path):
    """Byte order, slope and intercept of a NIfTI file are respected for floats and integers; nibabel is the judge."""
    nibabel = pytest.importorskip("nibabel")
    values = np.random.default_rng(0).integers(0, 200, (3, 4, 5)).astype(kind)
    for slope, intercept in ((1.0, 0.0), (0.5, -3.0)):
        image = nibabel.Nifti1Image(values, np.diag([1.0, 2.0, 3.0, 1.0]), dtype=kind)
        header = nibabel.Nifti1Header(endianness=kind[0] if kind[0] != "|" else "<")
        header.set_data_dtype(kind)
        header.set_data_shape(values.shape)
        header.set_qform(image.affine, 1)
        header.set_slope_inter(slope, intercept)
        header["vox_offset"] = 352
        raw = header.binaryblock[:344] + b"n+1\0" + bytes(4) + values.tobytes(order="F")
        (tmp_path / "image.nii").write_bytes(raw)
        expected = np.asarray(nibabel.load(tmp_path / "image.nii").dataobj).T
        np.testing.assert_allclose(expected, values.T * slope + intercept)
        np.testing.assert_allclose(read_image(tmp_path / "image.nii").volume.data[0], expected)


def test_mask_is_between_zero_and_one(tmp_path):
    """Labels and 255 count as inside, fractions as weights, NaN and negative values as outside."""
    values = torch.tensor([0.0, 255.0, 2.0, 0.25, torch.nan, -3.0]).reshape(1, 1, 2, 3)
    write_image(Volume(values, make_grid((3, 2, 1), (1, 2, 3), (4, 5, 6), rotation(3))), tmp_path / "mask.nii.gz")
    assert read_mask(tmp_path / "mask.nii.gz").data.flatten().tolist() == [0.0, 1.0, 1.0, 0.25, 0.0, 0.0]


def write_series(folder, uid, shift=0):
    """A DICOM series of 4 slices, 3 mm apart, pixel (z, y, x) = 100 z + 10 y + x + shift."""
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z in range(4):
        y, x = np.mgrid[0:5, 0:6]
        image = sitk.GetImageFromArray((100 * z + 10 * y + x + shift).astype(np.int16))
        image.SetSpacing((0.7, 0.9))
        for key, value in {
            "0008|0060": "CT",
            "0008|0018": f"{uid}.{z + 1}",
            "0020|000e": uid,
            "0020|000d": "1.2.826.0.1.3680043.2.1125.9",
            "0020|0032": f"-20\\30\\{7 + 3 * z}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0013": str(z + 1),
        }.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{uid}_{9 - z}.dcm"))  # the order of names is not that of slices
        writer.Execute(image)


SERIES = "1.2.826.0.1.3680043.2.1125.1.5"


def test_dicom_folder_is_an_image(tmp_path):
    """A folder with one DICOM series is a volume with its slices in order of position, and has a checksum."""
    write_series(tmp_path / "ct", SERIES)
    image = read_image(tmp_path / "ct")
    assert image.pixel_type == "int16"
    assert image.volume.grid.size_xyz == (6, 5, 4)
    assert image.volume.grid.spacing_xyz == pytest.approx((0.7, 0.9, 3.0))
    assert image.volume.grid.origin_xyz == pytest.approx((-20, 30, 7))
    assert float(image.volume.data[0, 3, 2, 5]) == 325
    content = b"".join(path.read_bytes() for path in sorted((tmp_path / "ct").iterdir()))
    assert image.sha256 == hashlib.sha256(content).hexdigest() == checksum(tmp_path / "ct")
    assert_close_grids(read_grid(tmp_path / "ct"), image.volume.grid)


def test_dicom_folder_with_two_series_lists_them(tmp_path):
    """With several series nothing is guessed: the error lists them."""
    write_series(tmp_path / "ct", SERIES)
    write_series(tmp_path / "ct", SERIES + "1", shift=1)
    with pytest.raises(ImageError, match="with one DICOM series") as caught:
        read_image(tmp_path / "ct")
    assert SERIES in str(caught.value)
    assert SERIES + "1" in str(caught.value)


def _write_bad(path, what):
    if what == "4-D":
        sitk.WriteImage(sitk.Image((3, 4, 5, 2), sitk.sitkInt16), str(path))
    elif what == "vector":
        sitk.WriteImage(sitk.Image((3, 4, 5), sitk.sitkVectorFloat32, 3), str(path))
    elif what == "three":
        sitk.WriteImage(sitk.Image((9, 8), sitk.sitkVectorInt16, 3), str(path))
    elif what == "folder":
        path.mkdir()
    elif what == "rubbish":
        path.write_bytes(b"no image" * 99)
    elif what == "empty":
        path.touch()
    elif what == "cut":
        write_image(volume_on(oblique_grid(3)), path)
        path.write_bytes(path.read_bytes()[:-200])


BAD_FILES = [
    ("4-D", "image.nii.gz", r"image.nii.gz: expected an image of 2 or 3 axes, got 4 of size \(3, 4, 5, 2\)"),
    ("vector", "image.nrrd", "image.nrrd: expected one value per voxel, got 3 components"),
    ("three", "image.mha", "image.mha: expected one value per voxel, got 3 components"),
    ("missing", "image.nii", "got .*image.nii: there is no such file"),
    ("folder", "folder", "with a DICOM series, got .*folder, which holds none"),
    ("rubbish", "image.nii.gz", "expected an image that SimpleITK reads, got .*image.nii.gz: "),
    ("rubbish", "image.dcm", "expected an image that SimpleITK reads, got .*image.dcm: "),
    ("empty", "image.nrrd", "expected an image that SimpleITK reads, got .*image.nrrd: "),
    ("cut", "image.nii.gz", "expected a complete image, got .*image.nii.gz: the file is cut short"),
    ("cut", "image.nii", "expected a complete image, got .*image.nii: the file is cut short"),
    ("cut", "image.nrrd", "expected an image that SimpleITK reads, got .*image.nrrd: "),
]


@pytest.mark.parametrize(("what", "name", "sentence"), BAD_FILES, ids=lambda value: str(value)[:12])
def test_bad_files_are_refused_in_one_sentence(what, name, sentence, tmp_path, capfd):
    """What cannot be read is refused with the file's name and the reason, in one line, and nothing else is printed."""
    _write_bad(tmp_path / name, what)
    for read in (read_image, read_mask):
        with pytest.raises(ImageError, match=sentence) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kept", [100, 400, 1000])
def test_a_file_that_ends_early_is_cut_short(kept: int, tmp_path: Path) -> None:
    """A compressed file is complete only if it unpacks to the size its header promises."""
    write_image(noise_volume(oblique_grid(3)), tmp_path / "a.nii.gz", "float64")
    data = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    assert not is_cut_short(tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(data[:-8]))
    assert is_cut_short(tmp_path / "b.nii.gz")
    (tmp_path / "c.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes()[:kept])
    assert is_cut_short(tmp_path / "c.nii.gz")
    (tmp_path / "d.nii.gz").write_bytes(
        gzip.compress(data) + gzip.compress(b"")
    )  # the size at its end is that of nothing
    assert not is_cut_short(tmp_path / "d.nii.gz")


def test_warps_of_ants_are_nifti(tmp_path: Path) -> None:
    """ANTs reads warps in NIfTI alone."""
    with pytest.raises(OutputError, match=r"expected the name of a warp to end in .nii.gz or .nii, got .*w.nrrd"):
        write_warp(smooth_field(oblique_grid(3)), tmp_path / "w.nrrd")


@pytest.mark.parametrize("read", [read_image, read_grid, checksum, read_transform, load_network])
@pytest.mark.parametrize("name", ["pipe.nii", "/dev/zero"])
def test_what_has_no_end_is_refused(read, name, tmp_path: Path) -> None:
    """A named pipe, which would block for ever, and a device, which never ends, are no files for any reader."""
    os.mkfifo(tmp_path / "pipe.nii")
    with pytest.raises(SemregError, match=rf"expected .*file.*, got .*{name}: it is a pipe or a device"):
        read(tmp_path / name)


def test_file_without_permission_is_refused(tmp_path):
    """A file that may not be read is refused with the system's reason."""
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    write_image(volume_on(oblique_grid(2)), tmp_path / "image.nrrd")
    (tmp_path / "image.nrrd").chmod(0)
    with pytest.raises(ImageError, match="Permission denied"):
        read_image(tmp_path / "image.nrrd")


def sheared_nifti(path, matrix):
    """A NIfTI file with only an sform, of any axes."""
    write_image(volume_on(make_grid((3, 4, 5), (1, 2, 3), (4, 5, 6), np.eye(3))), path)
    data = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<2h", data, 252, 0, 1)
    struct.pack_into("<12f", data, 280, *np.asarray(matrix, dtype=float).ravel())
    path.write_bytes(gzip.compress(bytes(data)))


def test_singular_nifti_is_refused(tmp_path):
    """Axes that span no volume cannot be mended."""
    sheared_nifti(tmp_path / "flat.nii.gz", [[1.0, 1.0, 0, -4], [1.0, 1.0, 0, -5], [0, 0, 3.0, 6]])
    with pytest.raises(GeometryError, match=r"flat\.nii\.gz: expected an invertible direction matrix"):
        read_image(tmp_path / "flat.nii.gz")


@pytest.mark.parametrize("what", ["missing", "rubbish", "folder"])
def test_bad_transforms_are_refused(what, tmp_path):
    """A transform that cannot be read is refused by name."""
    _write_bad(tmp_path / "bad.tfm", what)
    with pytest.raises(GeometryError, match=r"expected a transform.*bad\.tfm"):
        read_transform(tmp_path / "bad.tfm")


def test_nifti_refuses_what_it_cannot_hold(tmp_path):
    """An axis of more voxels than NIfTI-1 can count is an error that names a way out, not a broken header."""
    grid = make_grid((40000, 2), (1, 1), (0, 0), np.eye(2))
    with pytest.raises(OutputError, match="at most 32767 voxels an axis"):
        write_image(Volume(torch.zeros(1, 2, 40000), grid), tmp_path / "long.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_unknown_format_is_refused(tmp_path):
    """A name whose ending no writer knows leaves nothing behind."""
    with pytest.raises(OutputError, match=r"expected to write image\.xyz"):
        write_image(volume_on(oblique_grid(3)), tmp_path / "image.xyz")
    assert list(tmp_path.iterdir()) == []


def held_while(work):
    """The most bytes of tensors, and of what Python and numpy allocate, that are held while ``work`` runs, twice."""
    tensors = peak_bytes_of(work)
    tracemalloc.start()
    try:
        work()
        return tensors + tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_writing_needs_little_memory(tmp_path, monkeypatch):
    """Fields and features are written as NIfTI in pieces: less than half, and a fifth, of a copy is made of them."""
    copied, copy = [], sitk.GetImageFromArray  # into memory that nobody here counts
    monkeypatch.setattr(sitk, "GetImageFromArray", lambda x, **more: (copied.append(x.nbytes), copy(x, **more))[1])
    field = Field(torch.rand(3, 96, 96, 96), Grid.of_shape((96, 96, 96)))
    taken = held_while(lambda: write_field(field, tmp_path / "field.nii"))
    assert taken + sum(copied) < 0.5 * field.vox.nbytes
    copied.clear()
    features = Volume(torch.ones(16, 64, 64, 64), Grid.of_shape((64, 64, 64)))
    taken = held_while(lambda: write_image(features, tmp_path / "features.nii"))
    assert taken + sum(copied) < 0.2 * features.data.nbytes


@pytest.mark.parametrize("channels", [2, 3, 4, 7])
@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("ending", FORMATS)
def test_channels_become_components(ending, dimension, channels, tmp_path):
    """SimpleITK reads every channel, bit by bit, at its place from every format; three are no displacements."""
    grid = oblique_grid(dimension)
    volume = Volume((noise_volume(grid, channels).data * 100).float(), grid)
    write_image(volume, tmp_path / f"image.{ending}")
    image = sitk.ReadImage(str(tmp_path / f"image.{ending}"))
    assert image.GetNumberOfComponentsPerPixel() == channels
    assert image.GetSize() == grid.size_xyz
    values = np.moveaxis(sitk.GetArrayFromImage(image), -1, 0)
    np.testing.assert_array_equal(values, volume.data.numpy())
    last = [n - 1 for n in grid.size_xyz]
    point = points_of(grid)[(slice(None), *[-1] * dimension)]
    assert image.TransformIndexToPhysicalPoint(last) == pytest.approx(point.tolist(), abs=1e-4)


@pytest.mark.parametrize("orientation", ORIENTATIONS[::11], ids=str)
def test_nifti_bytes_of_components_are_those_of_sitk(orientation, tmp_path):
    """What is streamed to .nii, channel after channel, is byte for byte what SimpleITK writes."""
    grid = oblique_grid(3, orientation)
    volume = Volume((noise_volume(grid, 5).data * 100).float(), grid)
    for pixel_type in ("float32", "int16"):
        write_image(volume, tmp_path / "ours.nii", pixel_type)
        sitk.WriteImage(sitk_image(volume, pixel_type), str(tmp_path / "theirs.nii"))
        assert (tmp_path / "ours.nii").read_bytes() == (tmp_path / "theirs.nii").read_bytes()


def test_components_for_nibabel(tmp_path):
    """The NIfTI file has the channels on its fifth axis and says that they are a vector; nibabel is the judge."""
    nibabel = pytest.importorskip("nibabel")
    volume = Volume(noise_volume(oblique_grid(3), 4).data.float(), oblique_grid(3))
    write_image(volume, tmp_path / "image.nii.gz")
    image = nibabel.load(tmp_path / "image.nii.gz")
    assert int(image.header["intent_code"]) == 1007
    assert image.shape == (*volume.grid.size_xyz, 1, 4)
    np.testing.assert_array_equal(np.asarray(image.dataobj)[..., 0, :].T, volume.data.numpy())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ending", FORMATS)
def test_writing_onto_another_grid(ending, channels, tmp_path):
    """An image written onto another grid holds what interpolating the whole there gives, though done in pieces."""
    coarse = oblique_grid(3)
    fine = coarse.lattice((0.5, 0.0, -0.5), (0.5, 1 / 3, 0.25), (9, 17, 27))
    volume = Volume(noise_volume(coarse, channels).data.float(), coarse)
    with pytest.MonkeyPatch.context() as patch:  # several pieces
        patch.setattr("semreg.io.files.PIECE_POINTS", 1500)
        patch.setattr("semreg.io.bridge.common.PIECE_POINTS", 1500)
        write_image(volume, tmp_path / f"image.{ending}", on=fine)
    image = sitk.ReadImage(str(tmp_path / f"image.{ending}"))
    assert image.GetSize() == fine.size_xyz
    assert image.GetOrigin() == pytest.approx(fine.origin_xyz, abs=1e-4)
    values = sitk.GetArrayFromImage(image).reshape(*fine.shape, channels)
    np.testing.assert_allclose(np.moveaxis(values, -1, 0), volume.on(fine).data, atol=1e-5)


@pytest.mark.parametrize("stored", ["uint8", "int16", "float32", "uint64"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
def test_labels_are_written_as_they_are(dtype, stored, tmp_path):
    """Integer labels keep their values in any type that holds them, and are clipped where it does not."""
    grid = oblique_grid(3)
    labels = torch.arange(grid.voxels).reshape(1, *grid.shape) % 7
    labels[0, 0, 0, 0] = torch.iinfo(dtype).max
    write_image(Volume(labels.to(dtype), grid), tmp_path / "labels.nii.gz", stored)
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "labels.nii.gz")))
    assert image.dtype == np.dtype(stored)
    np.testing.assert_array_equal(image, labels[0].clamp(max=np.iinfo(stored).max if "8" in stored else 2**31))
