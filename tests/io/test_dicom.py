"""Promises of reading DICOM: the right series, each value at its place in mm, and what is repaired is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from conftest import points_of, rotation
from dicom_files import CT_IMAGE, ENHANCED_CT, STRUCTURES, STUDY, pixel_tags, slice_tags, write_dicom
from semreg.errors import GeometryError, ImageError
from semreg.io.dicom_files import is_dicom, look_at
from semreg.io.dicom_frames import read_frames
from semreg.io.files import checksum, read_grid, read_image, read_mask

UID = "1.2.826.0.1.3680043.2.1125.1.5"
SPACING = (0.7, 0.9)
SIZE_YX = (8, 9)
AXES = rotation(3, 21.0)
START = np.array([-20.0, 30.0, 7.0])
SLOPE = np.array([3.0, -2.0, 5.0])


def truth(points):
    """A linear image of points (D, …) in mm: linear interpolation keeps it exactly."""
    return np.tensordot(SLOPE, np.asarray(points), 1)


def positions(heights, tilt=0.0, axes=AXES):
    """First pixels of slices at ``heights`` in mm along the normal, shifted along the columns by a tilt in degrees."""
    along = np.tan(np.deg2rad(tilt))
    return [START + axes @ np.array([0.0, (h - heights[0]) * along, h]) for h in heights]


def write_stack(folder, places, *, axes=AXES, uid=UID, extra=None, order=None):
    """One file a place; the stored value is the linear image times ten, and slope 0.1 brings it back."""
    folder.mkdir(exist_ok=True, parents=True)
    rows, columns = np.mgrid[: SIZE_YX[0], : SIZE_YX[1]]
    for number, place in enumerate(places):
        offsets = axes[:, :2] @ np.stack([columns.ravel() * SPACING[0], rows.ravel() * SPACING[1]])
        values = truth(place[:, None] + offsets).reshape(SIZE_YX)
        tags = slice_tags(uid, number + 1, place, axes[:, :2].T.ravel(), SPACING)
        tags |= pixel_tags(np.rint(values * 50).astype(np.int16))
        tags |= {0x00281052: ("DS", 0), 0x00281053: ("DS", 0.02)} | (extra or {})
        name = number if order is None else order[number]
        write_dicom(folder / f"{uid}_{name}.dcm", tags)


def assert_true(image, *, margin=0):
    """Every voxel (but the outer ones in the plane) holds the value of its point; rounding is half of 0.02."""
    inner = (..., slice(margin, -margin or None), slice(margin, -margin or None))
    expected = truth(points_of(image.volume.grid))[inner]
    np.testing.assert_allclose(image.volume.data[0].numpy()[inner], expected, atol=0.011)


def test_oblique_series_in_any_order_of_files(tmp_path, caplog):
    """Slices of an oblique stack come in order of position, whatever their names, exactly as ITK's series reader."""
    write_stack(tmp_path / "ct", positions([0, 3, 6, 9, 12]), order=[3, 0, 4, 1, 2])
    image = read_image(tmp_path / "ct")
    assert image.volume.grid.size_xyz == (9, 8, 5)
    assert image.volume.grid.spacing_xyz == pytest.approx((0.7, 0.9, 3.0), abs=1e-6)
    np.testing.assert_allclose(image.volume.grid.direction, AXES, atol=1e-6)
    assert_true(image)
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "ct"))
    theirs = sitk.ReadImage(names)
    np.testing.assert_allclose(image.volume.data[0], sitk.GetArrayFromImage(theirs), atol=1e-4)
    assert image.volume.grid.origin_xyz == pytest.approx(theirs.GetOrigin(), abs=1e-5)
    assert caplog.text == ""


def test_left_handed_series(tmp_path):
    """A stack whose columns run the other way keeps every value at its point."""
    axes = AXES * np.array([1.0, -1.0, -1.0])  # its normal, row × column, points down
    write_stack(tmp_path / "ct", positions([0, 3, 6], axes=axes), axes=axes)
    assert_true(read_image(tmp_path / "ct"))


def test_missing_slices_are_filled_and_said(tmp_path, caplog):
    """Two missing slices are interpolated; those that are there stay bit for bit where they were measured."""
    heights = [0, 3, 6, 15, 18, 21]
    write_stack(tmp_path / "ct", positions(heights))
    image = read_image(tmp_path / "ct")
    assert image.volume.grid.size_xyz == (9, 8, 8)
    assert image.volume.grid.spacing_xyz[2] == pytest.approx(3.0)
    assert_true(image)
    last = sitk.ReadImage(str(tmp_path / "ct" / f"{UID}_3.dcm"))
    np.testing.assert_array_equal(image.volume.data[0, 5], sitk.GetArrayFromImage(last)[0].astype(np.float32))
    assert "6 slices lie between 3 and 9 mm apart" in caplog.text
    assert read_grid(tmp_path / "ct") == image.volume.grid


def test_uneven_distances_are_resampled(tmp_path, caplog):
    """Distances of 2, 3 and 5 mm become one, and every value stays at its place."""
    write_stack(tmp_path / "ct", positions([0, 2, 5, 10, 12, 15, 18]))
    image = read_image(tmp_path / "ct")
    assert image.volume.grid.size_xyz[2] == 7
    assert_true(image)
    assert "between 2 and 5 mm apart" in caplog.text


def test_rounded_positions_are_even(tmp_path, caplog):
    """Positions that a scanner rounds to 0.1 mm are an even stack without a warning, of the mean distance."""
    write_stack(tmp_path / "ct", positions([0, 0.6, 1.3, 1.9, 2.5]))
    image = read_image(tmp_path / "ct")
    assert image.volume.grid.spacing_xyz[2] == pytest.approx(0.625)
    assert caplog.text == ""


def test_long_gap_is_refused(tmp_path):
    """What is not there is not made up: a gap of many slices is refused with its place and length."""
    write_stack(tmp_path / "ct", positions([0, 3, 6, 46, 49]))
    with pytest.raises(GeometryError, match=r"about 3 mm apart in .*ct, got a gap of 40 mm after slice 3 of 5"):
        read_image(tmp_path / "ct")


@pytest.mark.parametrize("tilt", [-20.0, 12.0])
def test_gantry_tilt_is_straightened(tilt, tmp_path, caplog):
    """Slices of a tilted gantry are resampled so that each value lies at its point; the angle is said."""
    write_stack(tmp_path / "ct", positions([0, 3, 6, 9, 12], tilt))
    image = read_image(tmp_path / "ct")
    grid = image.volume.grid
    assert grid.size_xyz[1] > SIZE_YX[0]
    found, expected = image.volume.data[0].numpy(), truth(points_of(grid))
    outside = found == found.min()
    assert 0.1 < outside.mean() < 0.6
    exact = np.abs(found - expected) < 0.02
    # the border value holds for half a pixel around each slice: at most one row of pixels there is not exact
    assert (~exact & ~outside).sum(axis=1).max() <= 1
    assert f"a tilt of {abs(tilt):.3g} degrees" in caplog.text


def test_tilt_and_missing_slice_together(tmp_path, caplog):
    """A tilted stack with a missing slice is right in the middle, and both are said."""
    write_stack(tmp_path / "ct", positions([0, 3, 9, 12], 6.0))
    image = read_image(tmp_path / "ct")
    inner = (slice(None), slice(3, 7), slice(1, -1))
    expected = truth(points_of(image.volume.grid))[inner]
    np.testing.assert_allclose(image.volume.data[0].numpy()[inner], expected, atol=0.02)
    assert "tilt of 6 degrees" in caplog.text
    assert "missing slices" in caplog.text


def test_two_time_points_are_refused(tmp_path):
    """Two slices at each position are never stacked on each other."""
    write_stack(tmp_path / "ct", positions([0, 3, 6, 0, 3, 6]))
    with pytest.raises(GeometryError, match=r"one slice at each position in .*ct, got 6 slices at 3 positions"):
        read_image(tmp_path / "ct")


def test_copies_of_a_file_count_once(tmp_path, caplog):
    """A copy under another name is left out, and that is said."""
    write_stack(tmp_path / "ct", positions([0, 3, 6]))
    shutil.copy(tmp_path / "ct" / f"{UID}_1.dcm", tmp_path / "ct" / "copy.dcm")
    assert_true(read_image(tmp_path / "ct"))
    assert "1 files are copies" in caplog.text


@pytest.mark.parametrize(("place", "count"), [(9, 4), (3, None)])
def test_the_same_uid_is_no_copy_of_other_pixels(place, count, tmp_path, caplog):
    """A file that has the SOP instance UID of another one, but other pixels or another position, is a slice."""
    write_stack(tmp_path, positions([0, 3, 6]))
    tags = slice_tags(UID, 2, positions([place])[0], AXES[:, :2].T.ravel(), SPACING)
    write_dicom(tmp_path / "other.dcm", tags | pixel_tags(np.full(SIZE_YX, 7, np.int16)))
    if count is None:
        with pytest.raises(GeometryError, match="one slice at each position"):
            read_image(tmp_path)
    else:
        assert read_image(tmp_path).volume.grid.shape[0] == count
    assert "copies" not in caplog.text


OF_ANOTHER_SERIES = {
    "samples": ({0x00280002: ("US", 0)}, "its SamplesPerPixel is 0"),
    "palette": ({0x00280004: ("CS", "PALETTE COLOR")}, "its palette is missing"),
    "bits": ({0x00280100: ("US", 7)}, "its BitsAllocated is 7"),
    "rows": ({0x00280010: ("US", 0)}, "its Rows is 0"),
    "bomb": ({0x00280010: ("US", 65535), 0x00280008: ("IS", 9999)}, "it is cut short"),
    "spacing": ({0x00280030: ("DS", "nan\\1")}, "its PixelSpacing is no pair"),
    "segments": ({0x00080060: ("CS", "SEG")}, "is left out; if it is meant, choose it by its UID"),
}


@pytest.mark.parametrize("what", OF_ANOTHER_SERIES)
def test_one_odd_file_does_not_spoil_a_folder(what, tmp_path, caplog, capfd):
    """What cannot be read, or is made of images, is left out by name; of the series itself it is refused by name."""
    write_stack(tmp_path, positions([0, 3, 6]))
    tags, said = OF_ANOTHER_SERIES[what]
    for uid in (UID + ".9", UID):
        odd = slice_tags(uid, 9, positions([9])[0], AXES[:, :2].T.ravel(), SPACING)
        odd |= pixel_tags(np.full(SIZE_YX, 7, np.int16)) | tags
        write_dicom(tmp_path / "odd.dcm", odd)
        if uid == UID and what != "segments":
            with pytest.raises(ImageError, match=rf"files? that cannot be read such as .*odd\.dcm \(.*{said}"):
                read_image(tmp_path)
        elif uid != UID:
            assert_true(read_image(tmp_path))
            assert said in caplog.text
    assert capfd.readouterr() == ("", "")


def test_a_segmentation_within_a_series_is_left_out(tmp_path, caplog):
    """A file of another class than the others of its series is left out, and the log names it."""
    write_stack(tmp_path, positions([0, 3, 6]))
    tags = slice_tags(UID, 9, positions([9])[0], AXES[:, :2].T.ravel(), SPACING)
    tags |= pixel_tags(np.ones((2, *SIZE_YX), np.uint8))
    write_dicom(tmp_path / "segments.dcm", tags, sop_class="1.2.840.10008.5.1.4.1.1.66.4")
    assert_true(read_image(tmp_path))
    assert "segments.dcm is left out: it is of another kind (Segmentation Storage)" in caplog.text


def test_damaged_is_said_of_damage_alone(tmp_path):
    """A file of another kind, and pixels that are compressed in a way nobody reads, are called what they are."""
    write_stack(tmp_path, positions([0]))
    path = next(tmp_path.iterdir())
    data = pydicom.dcmread(path)
    data.PixelData = pydicom.encaps.encapsulate([b"no stream"])
    data["PixelData"].VR = "OB"
    for syntax, said in (("1.2.840.10008.1.2.4.102", "with MPEG-4 .*: decompress"), ("1.2.840.10008.1.2.5", "damaged")):
        data.file_meta.TransferSyntaxUID = syntax
        data.save_as(path)
        with pytest.raises(ImageError, match=said):
            read_image(path)
    write_dicom(path, {0x00080018: ("UI", "1.2.9"), 0x0020000E: ("UI", "1.2.8")}, sop_class=STRUCTURES)
    with pytest.raises(ImageError, match=r"it is of another kind \(RT Structure Set Storage\)$"):
        read_image(path)


def test_slices_in_two_directions_are_refused(tmp_path):
    """Scouts in several planes are no volume."""
    write_stack(tmp_path / "ct", positions([0, 3]))
    other = AXES[:, [0, 2, 1]]
    write_stack(tmp_path / "more", [START + 30], axes=other)
    shutil.copy(next((tmp_path / "more").iterdir()), tmp_path / "ct" / "scout.dcm")
    tags = slice_tags(UID, 77, START + 30, other[:, :2].T.ravel()) | pixel_tags(np.zeros(SIZE_YX, np.int16))
    write_dicom(tmp_path / "ct" / "scout.dcm", tags)
    with pytest.raises(GeometryError, match=r"slices of one direction in .*ct"):
        read_image(tmp_path / "ct")


def test_slices_of_two_sizes_are_refused(tmp_path):
    """A series whose slices differ in size is refused with both sizes."""
    write_stack(tmp_path / "ct", positions([0, 3]))
    tags = slice_tags(UID, 9, START + AXES[:, 2] * 6, AXES[:, :2].T.ravel()) | pixel_tags(np.zeros((4, 5), np.int16))
    write_dicom(tmp_path / "ct" / "small.dcm", tags)
    with pytest.raises(GeometryError, match=r"one size in .*ct, got 5 × 4, 9 × 8"):
        read_image(tmp_path / "ct")


def test_slices_without_position_are_refused(tmp_path):
    """Without a position there is no geometry to trust."""
    for number in (1, 2):
        tags = slice_tags(UID, number, START, AXES[:, :2].T.ravel()) | pixel_tags(np.zeros(SIZE_YX, np.int16))
        del tags[0x00200032]
        write_dicom(tmp_path / f"{number}.dcm", tags)
    with pytest.raises(GeometryError, match="position and direction of each slice"):
        read_image(tmp_path)


def test_each_slice_has_its_own_scale(tmp_path):
    """Slope and intercept of each slice are applied, whatever those of the first one are (as PET needs)."""
    scales = [(1.0, 0.0), (2.5, 10.0), (0.25, -3.5)]
    for number, (slope, intercept) in enumerate(scales):
        tags = slice_tags(UID, number + 1, (0, 0, 3 * number), (1, 0, 0, 0, 1, 0))
        tags |= pixel_tags(np.arange(72).reshape(SIZE_YX).astype(np.int16))
        write_dicom(tmp_path / f"{number}.dcm", tags | {0x00281052: ("DS", intercept), 0x00281053: ("DS", slope)})
    image = read_image(tmp_path)
    for number, (slope, intercept) in enumerate(scales):
        expected = np.arange(72).reshape(SIZE_YX) * slope + intercept
        np.testing.assert_array_equal(image.volume.data[0, number], expected)
    assert image.pixel_type == "float64"


def two_series(folder):
    """A folder with a thin and a thick series, structures, and a text file."""
    for uid, number, text, count in ((UID + ".1", 4, "Abdomen thin", 5), (UID + ".2", 12, "Abdomen Thick 5.0", 3)):
        extra = {0x0008103E: ("LO", text), 0x00200011: ("IS", number)}
        write_stack(folder, positions(list(range(0, 3 * count, 3))), uid=uid, extra=extra)
    tags = {0x00080018: ("UI", "1.2.9"), 0x00080060: ("CS", "RTSTRUCT"), 0x0020000E: ("UI", "1.2.8")}
    write_dicom(folder / "structures.dcm", {**tags, 0x0020000D: ("UI", STUDY)}, sop_class=STRUCTURES)
    (folder / "notes.txt").write_text("no DICOM")


def test_several_series_are_listed(tmp_path):
    """Without a choice the error lists number, description, modality, slices, size and UID of each, by number."""
    two_series(tmp_path)
    with pytest.raises(ImageError, match=r"with one DICOM series, got .* with 2: ") as caught:
        read_image(tmp_path)
    first, second = str(caught.value).split("; ")[:2]
    assert f"4 'Abdomen thin' (CT, 5 slices of 9 × 8, {UID}.1)" in first
    assert f"12 'Abdomen Thick 5.0' (CT, 3 slices of 9 × 8, {UID}.2)" in second


@pytest.mark.parametrize("wanted", ["thick", "ABDOMEN THICK 5.0", UID + ".2"])
def test_series_is_chosen(wanted, tmp_path):
    """A part of the description, the whole of it or the UID choose the series, for images, grids, masks, checksums."""
    two_series(tmp_path)
    image = read_image(tmp_path, series=wanted)
    assert image.volume.grid.size_xyz == (9, 8, 3)
    assert read_grid(tmp_path, wanted) == image.volume.grid
    assert read_mask(tmp_path, series=wanted).grid == image.volume.grid
    assert checksum(tmp_path, wanted) == image.sha256 != checksum(tmp_path, "thin")


def test_whole_description_goes_before_a_part(tmp_path):
    """A series whose whole description is asked for is not confused with one that has more words."""
    for number, text in ((1, "Thorax"), (2, "Thorax lung")):
        extra = {0x0008103E: ("LO", text), 0x00200011: ("IS", number)}
        write_stack(tmp_path, positions([0, 3, 6][: number + 1]), uid=f"{UID}.{number}", extra=extra)
    assert read_image(tmp_path, series="thorax").volume.grid.size_xyz == (9, 8, 2)


def test_type_holds_all_slices(tmp_path):
    """The type of the voxels is one that holds those of every slice, whichever comes first."""
    for number, kind in enumerate((np.int16, np.uint16)):
        tags = slice_tags(UID, number + 1, (0, 0, 3 * number), (1, 0, 0, 0, 1, 0))
        write_dicom(tmp_path / f"{number}.dcm", tags | pixel_tags(np.full(SIZE_YX, 7, kind)))
    assert read_image(tmp_path).pixel_type == "int32"


@pytest.mark.parametrize(("wanted", "count"), [("abdomen", 2), ("liver", 0), ("", 0)])
def test_unclear_choice_is_refused(wanted, count, tmp_path):
    """A description that fits none or several series is refused with the list of what it could be."""
    two_series(tmp_path)
    with pytest.raises(ImageError, match=f"that {wanted!r} describes, got {count}: .*thin.*; .*Thick"):
        read_image(tmp_path, series=wanted)


def test_series_of_a_file_is_refused(tmp_path):
    """A series can be chosen in a folder only."""
    write_stack(tmp_path, positions([0]))
    with pytest.raises(ImageError, match="expected a DICOM folder to choose the series 'a' from"):
        read_image(tmp_path / f"{UID}_0.dcm", series="a")


def test_folders_below_are_searched_where_there_is_no_series(tmp_path):
    """A series in sub-folders, even in several, is found where the folder itself holds none."""
    write_stack(tmp_path / "all" / "1", positions([0, 3, 6]))
    (tmp_path / "all" / "2").mkdir()
    (tmp_path / "all" / "1" / f"{UID}_1.dcm").rename(tmp_path / "all" / "2" / "moved.dcm")
    assert_true(read_image(tmp_path / "all"))
    write_stack(tmp_path / "all", positions([0, 3]), uid=UID + ".7")
    assert read_image(tmp_path / "all").volume.grid.size_xyz == (9, 8, 2)


def test_folder_without_pixels_is_refused(tmp_path, capfd):
    """Structures alone are no image; nothing else is printed."""
    two_series(tmp_path)
    for path in tmp_path.glob(f"{UID}*"):
        path.unlink()
    with pytest.raises(ImageError, match=r"expected a folder with a DICOM series, got .*, which holds none"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match=r"expected a DICOM file that holds an image, got .*structures\.dcm"):
        read_image(tmp_path / "structures.dcm")
    assert capfd.readouterr() == ("", "")


def test_damaged_slice_is_refused(tmp_path, capfd):
    """A slice that is cut short, which GDCM passes over in silence, is refused by its name."""
    write_stack(tmp_path, positions([0, 3, 6]))
    path = tmp_path / f"{UID}_1.dcm"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ImageError, match=f"{UID}_1.dcm"):
        read_image(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_files_that_are_no_dicom(tmp_path: Path) -> None:
    """What is too damaged to say that it is no image may be one; asked for its frames it is named."""
    assert not is_dicom(tmp_path / "missing")
    (tmp_path / "broken.dcm").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x00\x00UL")
    assert is_dicom(tmp_path / "broken.dcm")
    assert look_at(tmp_path / "broken.dcm").trouble
    (tmp_path / "text.dcm").write_text("no DICOM")
    with pytest.raises(
        ImageError, match=r"expected a DICOM file, got .*text.dcm: its header is damaged .*; copy it again"
    ):
        read_frames(tmp_path / "text.dcm")


def frames(heights, slopes=None):
    """The tags of an enhanced multi-frame CT whose frames lie at ``heights``; values as in ``write_stack``."""
    rows, columns = np.mgrid[: SIZE_YX[0], : SIZE_YX[1]]
    offsets = AXES[:, :2] @ np.stack([columns.ravel() * SPACING[0], rows.ravel() * SPACING[1]])
    slopes = slopes or [0.02] * len(heights)
    pixels, own = [], []
    for place, slope in zip(positions(heights), slopes, strict=True):
        pixels.append(np.rint(truth(place[:, None] + offsets).reshape(SIZE_YX) / slope))
        scale = {0x00281052: ("DS", 0), 0x00281053: ("DS", slope), 0x00281054: ("LO", "HU")}
        own.append({0x00209113: ("SQ", [{0x00200032: ("DS", place)}]), 0x00289145: ("SQ", [scale])})
    measures = {0x00280030: ("DS", SPACING[::-1]), 0x00180050: ("DS", 3)}
    orientation = {0x00200037: ("DS", AXES[:, :2].T.ravel())}
    shared = {0x00209116: ("SQ", [orientation]), 0x00289110: ("SQ", [measures])}
    return pixel_tags(np.array(pixels).astype(np.int16)) | {
        0x00080018: ("UI", UID + ".1"), 0x00080060: ("CS", "CT"), 0x0020000D: ("UI", STUDY), 0x0020000E: ("UI", UID),
        0x52009229: ("SQ", [shared]), 0x52009230: ("SQ", own),
    }  # fmt: skip


@pytest.mark.parametrize("heights", [[0, 3, 6, 9], [9, 6, 3, 0], [0, 3, 6, 12], [6, 0, 9, 3]], ids=str)
def test_frames_of_one_file_lie_where_they_say(heights, tmp_path):
    """Frames in any order, and with a missing one, become a volume of the right values at the right places."""
    write_dicom(tmp_path / "frames.dcm", frames(heights), sop_class=ENHANCED_CT)
    for path in (tmp_path / "frames.dcm", tmp_path):
        image = read_image(path)
        assert image.volume.grid.size_xyz == (9, 8, 5 if 12 in heights else 4)
        assert image.volume.grid.spacing_xyz == pytest.approx((0.7, 0.9, 3.0), abs=1e-6)
        assert_true(image)
        assert read_grid(path) == image.volume.grid


def test_frames_have_their_own_scale(tmp_path):
    """Slope and intercept of each frame are applied."""
    write_dicom(tmp_path / "frames.dcm", frames([0, 3, 6], [0.02, 0.01, 0.015]), sop_class=ENHANCED_CT)
    assert_true(read_image(tmp_path / "frames.dcm"))


def test_frames_at_one_place_are_refused(tmp_path):
    """Several echoes or times in one file are never stacked on each other."""
    write_dicom(tmp_path / "frames.dcm", frames([0, 3, 0, 3]), sop_class=ENHANCED_CT)
    with pytest.raises(GeometryError, match="got 4 slices at 2 positions"):
        read_image(tmp_path / "frames.dcm")


def test_frames_without_position_are_said(tmp_path, caplog):
    """Frames without positions (a film, a scanned image) are read as slices, with a warning."""
    tags = frames([0, 3, 6])
    del tags[0x52009230]
    write_dicom(tmp_path / "frames.dcm", tags, sop_class=CT_IMAGE)
    assert read_image(tmp_path / "frames.dcm").volume.grid.size_xyz == (9, 8, 3)
    assert "no position for each of the 3 frames" in caplog.text


def test_colour_slice_becomes_grey(tmp_path):
    """A colour DICOM image (a photograph, a screenshot) is read as its luminance."""
    colours = np.random.default_rng(0).integers(0, 255, (*SIZE_YX, 3)).astype(np.uint8)
    tags = slice_tags(UID, 1, START, AXES[:, :2].T.ravel()) | pixel_tags(colours, samples=3)
    write_dicom(tmp_path / "colour.dcm", tags)
    expected = colours @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(read_image(tmp_path / "colour.dcm").volume.data[0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(("said", "known"), [("CT", "ct"), ("MR", "mr"), ("PT", "other"), ("", None)])
def test_modality_is_read(said, known, tmp_path):
    """An image knows what its header says that it is, be it a folder or one file; other formats say nothing."""
    write_stack(tmp_path / "series", positions([0, 3, 6]), extra={0x00080060: ("CS", said)})
    image = read_image(tmp_path / "series")
    assert image.modality == known
    assert read_image(next((tmp_path / "series").iterdir())).modality == known
    sitk.WriteImage(sitk.Image((4, 5, 6), sitk.sitkInt16), str(tmp_path / "a.nii"))
    assert read_image(tmp_path / "a.nii").modality is None
