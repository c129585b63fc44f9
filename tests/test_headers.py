"""Promises of reading headers: units, spacing, frames and orientations end up as points in mm, or are refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from conftest import ORIENTATIONS, give_header, make_grid, noise_volume, oblique_grid, points_of, rotation
from semreg.errors import GeometryError
from semreg.fields import Volume
from semreg.files import read_grid, read_image, write_image
from semreg.headers import check_nifti
from semreg.preparation import canonical

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


def test_only_nifti_is_checked(tmp_path):
    """Another file, a file that is none, and a two-dimensional one have nothing to be said of."""
    grid = oblique_grid(2)
    write_image(Volume(noise_volume(grid).data.float(), grid), tmp_path / "flat.nii.gz")
    (tmp_path / "rubbish.nii").write_bytes(b"rubbish" * 99)
    for name in ("flat.nii.gz", "rubbish.nii", "missing.nii", "image.nrrd"):
        assert check_nifti(tmp_path / name, grid) == []
