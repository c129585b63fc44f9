"""Promises of reading headers: units, spacing, frames and orientations end up as points in mm, or are refused."""

from __future__ import annotations

import locale
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from conftest import ORIENTATIONS, give_header, make_grid, noise_volume, oblique_grid, points_of, rotation
from semreg.core.fields import Volume
from semreg.errors import GeometryError, ImageError, OutputError
from semreg.io.bridge import to_volume
from semreg.io.files import read_grid, read_image, read_labels, write_image
from semreg.preprocess.preparation import canonical
from semreg.transforms import read_any_image

nibabel = pytest.importorskip("nibabel")

SIZE = (3, 4, 5)
VALUES = np.arange(60, dtype=np.int16).reshape(SIZE)
AFFINE = np.eye(4)
AFFINE[:3, :3] = rotation(3, 25.0) * (0.8, 1.3, 2.1)
AFFINE[:3, 3] = (-31.0, 12.5, 77.0)


def nifti(path, affine=AFFINE, *, sform=None, codes=(1, 1), unit="mm", values=VALUES):
    """A NIfTI file of nibabel: ``affine`` is the qform and, unless ``sform`` is given, the sform."""
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units(unit)
    image.set_qform(affine, codes[0])
    image.set_sform(affine if sform is None else sform, codes[1])
    nibabel.save(image, path)
    return path


def set_pixdim(path, pixdim):
    """Overwrite the spacing in an uncompressed NIfTI file without an sform."""
    data = bytearray(path.read_bytes())
    struct.pack_into(f"<{len(pixdim)}f", data, 80, *pixdim)
    path.write_bytes(data)


def corner_lps(affine, scale=1.0):
    """The last voxel in mm, LPS, by the affine (RAS) of a file in units of ``scale`` mm."""
    return (affine @ [*(n - 1 for n in SIZE), 1])[:3] * [-scale, -scale, scale]


def last_point(grid):
    """The point of the last voxel in mm."""
    return points_of(grid)[:, -1, -1, -1].numpy()


@pytest.mark.parametrize(("unit", "scale", "word"), [("meter", 1000.0, "metres"), ("micron", 0.001, "micrometres")])
def test_units_become_mm(unit, scale, word, tmp_path, caplog):
    """A header in metres or micrometres is read in mm, and a warning says so; both readers agree."""
    path = nifti(tmp_path / "image.nii.gz", unit=unit)
    grid = read_image(path).volume.grid
    np.testing.assert_allclose(last_point(grid), corner_lps(AFFINE, scale), rtol=1e-5)
    assert f"its header is in {word}: multiplied by {scale:g}" in caplog.text
    assert read_grid(path) == grid


@pytest.mark.parametrize("unit", ["mm", "unknown"])
def test_plain_headers_are_read_without_a_word(unit, tmp_path, caplog):
    """A header in mm, or that names no unit, is read as mm and nothing is said."""
    grid = read_image(nifti(tmp_path / "image.nii", unit=unit)).volume.grid
    np.testing.assert_allclose(last_point(grid), corner_lps(AFFINE), rtol=1e-5)
    assert caplog.text == ""


@pytest.mark.parametrize(("codes", "used"), [((1, 1), "sform"), ((1, 2), "qform"), ((4, 1), "sform")])
@pytest.mark.parametrize(("unit", "scale"), [("mm", 1.0), ("micron", 0.001)])
def test_two_frames_are_said(codes, used, unit, scale, tmp_path, caplog):
    """Where sform and qform differ, the log says by how much and which of them ITK's reader takes."""
    sform = AFFINE.copy()
    sform[:3, 3] += (3.0, -4.0, 0.0)
    grid = read_image(nifti(tmp_path / "image.nii.gz", sform=sform, codes=codes, unit=unit)).volume.grid
    expected = corner_lps(sform if used == "sform" else AFFINE, scale)
    np.testing.assert_allclose(last_point(grid), expected, atol=1e-4 * scale)
    assert f"its sform and qform differ by up to {5 * scale:g} mm: the {used} is used" in caplog.text


@pytest.mark.parametrize("unit", ["mm", "micron"])
@pytest.mark.parametrize("number", [0, 11, 22, 33, 47])
def test_equal_frames_are_no_difference(number, unit, tmp_path, caplog):
    """The same frame in both forms, mirrored or not, in any unit, is not said to differ."""
    affine = AFFINE.copy()
    affine[:3, :3] = rotation(3, 25.0) @ ORIENTATIONS[number] * (0.8, 1.3, 2.1)
    read_image(nifti(tmp_path / "image.nii.gz", affine, unit=unit))
    assert "differ" not in caplog.text


def test_one_frame_is_enough(tmp_path, caplog):
    """A qform with the code 0 says nothing, whatever it holds."""
    sform = AFFINE.copy()
    sform[:3, 3] += 50
    nifti(tmp_path / "image.nii", sform=sform, codes=(0, 1))
    np.testing.assert_allclose(last_point(read_image(tmp_path / "image.nii").volume.grid), corner_lps(sform), atol=1e-4)
    assert caplog.text == ""


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_missing_spacing_is_refused(bad, tmp_path):
    """A spacing of 0 or no number, which ITK would take for 1 mm, is refused by both readers."""
    path = nifti(tmp_path / "image.nii", codes=(1, 0))
    set_pixdim(path, (0.8, 1.3, bad))
    for read in (read_image, read_grid):
        with pytest.raises(GeometryError, match=rf"image\.nii: expected a positive spacing in the header, got {bad:g}"):
            read(path)


def test_missing_spacing_of_one_slice_is_1_mm(tmp_path, caplog):
    """The thickness of a single slice may be missing: 1 mm, with a warning."""
    path = nifti(tmp_path / "image.nii", codes=(1, 0), values=VALUES[:, :, :1])
    set_pixdim(path, (0.8, 1.3, 0.0))
    assert read_image(path).volume.grid.spacing_xyz == pytest.approx((0.8, 1.3, 1.0))
    assert "along an axis of one voxel is missing (0.8, 1.3, 0)" in caplog.text


@pytest.mark.parametrize("name", ["image.nii", "image.mha"])
@pytest.mark.parametrize("kind", ["int16", "float32"])
def test_negative_spacing_is_an_axis_the_other_way(kind, name, tmp_path, caplog):
    """A negative spacing flips the axis, as it does in the image ITK returns; both readers agree and it is said."""
    path = tmp_path / name
    if name.endswith("nii"):
        set_pixdim(nifti(path, codes=(1, 0), values=VALUES.astype(kind)), (0.8, -1.3, 2.1))
    else:
        image = sitk.GetImageFromArray(VALUES.astype(kind))
        sitk.WriteImage(give_header(image, make_grid(VALUES.shape[::-1], (2, 3, 4), (1, 2, 3), np.eye(3))), str(path))
        path.write_bytes(path.read_bytes().replace(b"ElementSpacing = 2 3 4", b"ElementSpacing = 2 -3 4"))
    grid, theirs = read_image(path).volume.grid, sitk.ReadImage(str(path))
    assert grid.spacing_xyz == pytest.approx(theirs.GetSpacing())
    np.testing.assert_allclose(np.ravel(grid.direction), theirs.GetDirection(), atol=1e-6)
    assert min(theirs.GetSpacing()) > 0
    assert "is negative along an axis" in caplog.text
    assert read_grid(path) == grid


@pytest.mark.parametrize("header", [b"0 1 1", b"nan 1 1"])
def test_bad_spacing_of_other_formats_is_refused(header, tmp_path):
    """Formats whose reader refuses such a spacing are refused in one sentence."""
    image = give_header(sitk.Image(SIZE, sitk.sitkInt16), make_grid(SIZE, (1, 2, 3), (0, 0, 0), np.eye(3)))
    sitk.WriteImage(image, str(tmp_path / "image.mha"))
    data = (tmp_path / "image.mha").read_bytes()
    assert b"ElementSpacing = 1 2 3" in data
    (tmp_path / "image.mha").write_bytes(data.replace(b"ElementSpacing = 1 2 3", b"ElementSpacing = " + header))
    with pytest.raises((GeometryError, ValueError), match=r"image\.mha") as caught:
        read_image(tmp_path / "image.mha")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["nii.gz", "nrrd", "mha"])
def test_all_orientations_are_one_image(kind, tmp_path):
    """However an array is stored, of 48 ways, it is read and brought to the same values at the same points.

    All of them in every format: NIfTI holds left-handed axes too, by its qfac.
    """
    volume = Volume(noise_volume(oblique_grid(3)).data.float(), oblique_grid(3))
    expected, _ = canonical((volume, None))
    for number, direction in enumerate(ORIENTATIONS):
        stored = sitk.GetImageFromArray(volume.data[0].numpy())
        stored = give_header(stored, volume.grid)
        order = [int(np.abs(column).argmax()) for column in direction.T]
        stored = sitk.Flip(sitk.PermuteAxes(stored, order), [bool(column.sum() < 0) for column in direction.T])
        path = tmp_path / f"{number}.{kind}"
        sitk.WriteImage(stored, str(path))
        image = read_image(path).volume
        found, _ = canonical((image, None))
        assert torch.equal(found.data, expected.data)
        np.testing.assert_allclose(points_of(found.grid), points_of(expected.grid), atol=1e-4)
        np.testing.assert_allclose(points_of(read_grid(path)), points_of(image.grid), atol=1e-9)


def test_left_handed_axes_are_no_error(tmp_path, caplog):
    """A mirrored direction is a legitimate header: read as it is, without a word."""
    grid = oblique_grid(3, np.diag([1.0, -1.0, 1.0]))
    assert np.linalg.det(np.array(grid.direction)) < 0
    write_image(Volume(noise_volume(grid).data.float(), grid), tmp_path / "image.nrrd")
    np.testing.assert_allclose(read_image(tmp_path / "image.nrrd").volume.grid.direction, grid.direction, atol=1e-12)
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["a.nii", "A.NII.GZ", "p.hdr", "P.HDR", "series.nii"])
def test_what_is_no_number_stays_in_every_nifti_name(name, tmp_path):
    """NaN and infinity stay in pairs, in capital names and over time, where ITK's reader makes them 0."""
    values = VALUES.astype(np.float32)
    values[1, 2, 3], values[0, 1, 2] = np.nan, np.inf
    series = name.startswith("series")
    kind = nibabel.Nifti1Pair if name.lower().endswith("hdr") else nibabel.Nifti1Image
    nibabel.save(kind(np.stack([values, values], -1) if series else values, AFFINE), tmp_path / name)
    found = sitk.GetArrayFromImage(read_any_image(tmp_path / name))
    for frame in found if series else [found, read_image(tmp_path / name).volume.data[0].numpy()]:
        np.testing.assert_array_equal(frame, values.T)


SHEARED = np.array([[-1.1, 0.35, 0.1, 20.0], [0.2, -1.6, 0.5, -7.0], [0.1, 0.3, 2.3, 11.0], [0, 0, 0, 1]])
"""RAS; no axis is at a right angle to another."""
SLOPE = np.array([3.0, -2.0, 5.0])


def plane_of_values(matrix, shape):
    """A linear image of the points (LPS) of voxels (i, j, k), which linear interpolation keeps exactly."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    return np.tensordot(SLOPE, np.tensordot(matrix[:3, :3], index, 1) + matrix[:3, 3, None, None, None], 1)


def sheared_image(kind, folder):
    """A linear image on sheared axes as a file or an object of each kind that can have them."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ SHEARED
    values = plane_of_values(lps, (9, 8, 7))
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T).astype(np.float32))
    image.SetSpacing(spacing)
    image.SetOrigin(lps[:3, 3])
    image.SetDirection((lps[:3, :3] / spacing).ravel())
    if kind == "SimpleITK":
        return image
    if kind in ("a.nrrd", "a.mha"):
        sitk.WriteImage(image, str(folder / kind))
        return folder / kind
    found = nibabel.Nifti1Image(values.astype(np.float32), SHEARED)
    if kind != "b.nii":  # and a qform of the scanner, the nearest orthonormal axes, which ITK would take
        found.set_qform(SHEARED, 1)
        found.set_sform(SHEARED, 1)
    if kind == "nibabel":
        return found
    nibabel.save(found, folder / kind)
    return folder / kind


@pytest.mark.parametrize("kind", ["a.nii", "b.nii", "a.nii.gz", "a.nrrd", "a.mha", "nibabel", "SimpleITK"])
def test_sheared_axes_keep_every_value_at_its_place(kind, tmp_path, caplog):
    """An image on sheared axes is resampled: each voxel of the result holds the value of its point, and it is said."""
    image = sheared_image(kind, tmp_path)
    volume = read_image(image).volume if isinstance(image, Path) else to_volume(image)
    values = volume.data[0].numpy()
    points = points_of(volume.grid).numpy()
    expected = np.tensordot(SLOPE, points, 1)
    inner = np.abs(values - expected) < 0.01  # of values over a range of about 100
    index = np.linalg.inv(np.diag([-1.0, -1.0, 1.0]) @ SHEARED[:3, :3]) @ (
        points.reshape(3, -1) - (np.diag([-1.0, -1.0, 1.0]) @ SHEARED[:3, 3])[:, None]
    )
    within = ((index > 0) & (index < np.array([[8], [7], [6]]))).all(0).reshape(values.shape)
    assert within.sum() > 250
    assert inner[within].all()
    assert "are sheared" in caplog.text
    if isinstance(image, Path):
        assert read_grid(image) == volume.grid
        theirs = read_any_image(image)
        assert theirs.GetOrigin() == pytest.approx(volume.grid.origin_xyz)
        np.testing.assert_allclose(sitk.GetArrayFromImage(theirs), values, rtol=1e-5)


def test_sheared_labels_stay_labels(tmp_path):
    """Labels on sheared axes are read at the nearest voxel, exact; outside there is none."""
    labels = np.where(np.arange(9 * 8 * 7).reshape(9, 8, 7) % 2, 2**62 + 1, 2**62 + 3)
    nibabel.save(nibabel.Nifti1Image(labels, SHEARED, dtype=np.int64), tmp_path / "labels.nii.gz")
    assert read_labels(tmp_path / "labels.nii.gz").labels == (0, 2**62 + 1, 2**62 + 3)
    found = sitk.GetArrayFromImage(read_any_image(tmp_path / "labels.nii.gz", nearest=True))
    assert set(np.unique(found)) == {0, 2**62 + 1, 2**62 + 3}


@pytest.mark.parametrize("codes", [(1, 1), (1, 2), (2, 1), (2, 2), (1, 4), (0, 2), (1, 0), (0, 0)], ids=str)
@pytest.mark.parametrize("unit", ["mm", "micron"])
def test_a_file_and_its_object_are_one_place(codes, unit, tmp_path, caplog):
    """A NIfTI file and its nibabel object lie at one place, ITK's, whichever frames it has and in which unit."""
    sform = AFFINE.copy()
    sform[:3, 3] += (30.0, -40.0, 10.0)
    path = nifti(tmp_path / "image.nii", sform=sform, unit=unit)
    data = bytearray(path.read_bytes())
    struct.pack_into("<2h", data, 252, *codes)
    path.write_bytes(data)
    grid = read_image(path).volume.grid
    theirs = sitk.ReadImage(str(path))
    np.testing.assert_allclose(grid.origin_xyz, theirs.GetOrigin(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.ravel(grid.direction), theirs.GetDirection(), atol=1e-5)
    caplog.clear()
    other = to_volume(nibabel.load(path)).grid
    assert other.origin_xyz == pytest.approx(grid.origin_xyz, rel=1e-5, abs=1e-6)
    assert other.spacing_xyz == pytest.approx(grid.spacing_xyz, rel=1e-5)
    np.testing.assert_allclose(other.direction, grid.direction, atol=1e-5)
    assert ("says no place" in caplog.text) == (codes == (0, 0))
    assert ("sform and qform differ" in caplog.text) == (min(codes) > 0)


def test_an_affine_that_was_given_counts(tmp_path):
    """An object of nibabel whose affine is not its header's lies where the affine says."""
    loaded = nibabel.load(nifti(tmp_path / "image.nii", codes=(1, 2)))
    moved = AFFINE.copy()
    moved[:3, 3] += (5.0, 6.0, 7.0)
    grid = to_volume(nibabel.Nifti1Image(VALUES, moved, loaded.header)).grid
    np.testing.assert_allclose(last_point(grid), corner_lps(moved), atol=1e-4)


def test_no_place_is_said(tmp_path, caplog):
    """A header whose codes are 0 says no place: ITK's is taken, and the log says so."""
    path = nifti(tmp_path / "image.nii", codes=(0, 0))
    assert read_image(path).volume.grid.origin_xyz == (0.0, 0.0, 0.0)
    assert "the codes of sform and qform are 0" in caplog.text


def test_the_locale_stays_what_it_is(tmp_path):
    """ITK's reader of VTK sets the locale of C, and with it that of all texts; it is given back."""
    sitk.WriteImage(sitk.Image([5, 6, 7], sitk.sitkUInt8), str(tmp_path / "a.vtk"))
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
        read_image(tmp_path / "a.vtk")
        read_grid(tmp_path / "a.vtk")
        assert locale.setlocale(locale.LC_CTYPE) == "C.UTF-8"
    finally:
        locale.setlocale(locale.LC_ALL, before)


def test_a_place_of_spm_beside_analyze_is_said(tmp_path, caplog):
    """SPM says the place of an Analyze image in a file of MATLAB, which nothing here reads: a warning names it."""
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Spm99AnalyzeImage(VALUES, np.diag([-1.0, 2.0, 3.0, 1.0])), tmp_path / "a.img")
    read_image(tmp_path / "a.img")
    assert "a.mat beside it, in which SPM may say its place, is not read" in caplog.text


def test_minc_is_turned_to_lps(tmp_path):
    """MINC is RAS: SimpleITK writes and reads its numbers as they are, so that what it calls x and y changes sign."""
    image = sitk.Image([5, 6, 7], sitk.sitkFloat32)
    image[1, 2, 3] = 5.0
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetOrigin((10.0, 20.0, 30.0))
    image.SetDirection((0, -1, 0, 1, 0, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / "a.mnc"))
    x, y, z = image.TransformIndexToPhysicalPoint((1, 2, 3))
    volume = read_image(tmp_path / "a.mnc").volume
    index = [int(i[0]) for i in np.nonzero(volume.data[0].numpy())]
    np.testing.assert_allclose(volume.grid.index_to_point() @ [*index, 1], (-x, -y, z, 1))
    assert read_grid(tmp_path / "a.mnc") == volume.grid
    with pytest.raises(OutputError, match="MINC, which ITK writes turned"):
        write_image(volume, tmp_path / "b.mnc")


@pytest.mark.parametrize("where", ["qoffset", "quaternion", "sform", "nan.mha", "abc.mha", "nan.vtk"])
def test_a_place_that_is_no_number_is_refused(where, tmp_path):
    """Offsets and axes that are no finite numbers, which ITK takes for 0, are refused."""
    path = tmp_path / (where if "." in where else "image.nii")
    if path.suffix == ".nii":
        nifti(path, codes=(0, 1) if where == "sform" else (1, 0))
        data = bytearray(path.read_bytes())
        struct.pack_into("<f", data, {"qoffset": 268, "quaternion": 256, "sform": 292}[where], np.nan)
        path.write_bytes(data)
    else:
        image = give_header(
            sitk.GetImageFromArray(VALUES), make_grid(VALUES.shape[::-1], (2, 3, 4), (1, 2, 3), np.eye(3))
        )
        sitk.WriteImage(image, str(path))
        word = where[:3].encode()
        data = path.read_bytes()
        found = re.search(rb"(Offset = |ORIGIN )(\S+)", data)
        path.write_bytes(data[: found.start(2)] + word + data[found.end(2) :])
    for read in (read_image, read_grid, read_any_image):
        with pytest.raises(GeometryError, match="finite numbers"):
            read(path)


@pytest.mark.parametrize("kind", ["int16", "float32", "series"])
def test_headers_of_all_images_are_checked(kind, tmp_path):
    """Whatever its voxels are and whatever it is read for, a header is checked: here a spacing of 0."""
    values = np.stack([VALUES, VALUES], -1) if kind == "series" else VALUES.astype(kind)
    path = nifti(tmp_path / "image.nii", codes=(1, 0), values=values)
    set_pixdim(path, (0.8, 1.3, 0.0))
    with pytest.raises(GeometryError, match="expected a positive spacing in the header, got 0"):
        read_any_image(path)


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha"])
def test_a_series_over_time_has_the_grid_of_its_frames(ending, tmp_path):
    """As a reference its header says the grid; as one image it is refused."""
    frame = sitk.GetImageFromArray(np.zeros((4, 5, 6), np.int16))
    frame.SetSpacing((1.0, 1.5, 2.0))
    frame.SetOrigin((3.0, 4.0, 5.0))
    for name, image in (("one", frame), ("series", sitk.JoinSeries([frame] * 3, 0.0, 2.5))):
        sitk.WriteImage(image, str(tmp_path / f"{name}.{ending}"))
    assert read_grid(tmp_path / f"series.{ending}") == read_grid(tmp_path / f"one.{ending}")
    with pytest.raises(ImageError, match="of 2 or 3 axes, got 4"):
        read_image(tmp_path / f"series.{ending}")
