"""Promises of the formats that nibabel reads: values are where its affine puts them; damaged files are refused."""

from __future__ import annotations

import gc
import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from conftest import rotation
from semreg.errors import GeometryError, ImageError
from semreg.io.image_files import checksum, data_files
from semreg.io.images import read_grid, read_image, read_labels, read_stored

nibabel = pytest.importorskip("nibabel")
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # nibabel leaves files open
SAMPLES = Path(nibabel.__file__).parent / "tests" / "data"
"""Files of scanners and of other programs that nibabel is tested with."""
AFFINE = np.eye(4)
AFFINE[:3, :3], AFFINE[:3, 3] = np.reshape(rotation(3, 25.0), (3, 3)) * (1.5, 1.2, 2.5), (-10.0, 20.0, 5.0)
ARRAY = np.random.default_rng(0).integers(-100, 1000, (7, 6, 5)).astype(np.int16)


def saved(kind, path, array=ARRAY):
    nibabel.save(kind(array, AFFINE), path)
    return path


def made(path: Path) -> Path:
    """A file of the kind that its name says."""
    if path.suffix in (".REC", ".PAR"):
        for ending in (".PAR", ".REC"):
            shutil.copy(SAMPLES / f"phantom_EPI_asc_CLEAR_2_1{ending}", path.with_suffix(ending))
    elif path.suffix in (".HEAD", ".BRIK"):
        for ending in (".HEAD", ".BRIK"):
            shutil.copy(SAMPLES / f"scaled+tlrc{ending}", path.with_suffix(ending))
    elif path.suffix == ".mnc":
        shutil.copy(SAMPLES / path.name, path)
    else:
        kinds = {"mgz": nibabel.MGHImage, "mgh": nibabel.MGHImage}
        saved(kinds.get(path.name[-3:], nibabel.Nifti2Image), path)
    return path


ONE_VALUE = ("a.nii", "a.nii.gz", "a.hdr", "a.mgz", "a.mgh", "tiny.mnc", "minc1_1_scale.mnc", "minc2_1_scale.mnc",
             "small.mnc", "a+tlrc.HEAD", "a+tlrc.BRIK")  # fmt: skip


@pytest.mark.parametrize("name", ONE_VALUE)
def test_values_and_places_are_those_of_nibabel(name, tmp_path):
    """Every voxel is where nibabel's affine puts it, in mm, LPS, with its value; the grid alone is the same."""
    if name == "a.hdr":
        made(tmp_path / "a.img")
    path = tmp_path / name if name == "a.hdr" else made(tmp_path / name)
    other = nibabel.load(path)
    values, affine = np.asarray(other.dataobj).reshape(other.shape[:3]), other.affine
    if name.endswith(".mnc"):  # nibabel keeps z, y, x, as they are stored
        values, affine = values.T, affine[:, [2, 1, 0, 3]]
    volume = read_image(path).volume
    np.testing.assert_allclose(volume.data[0].numpy(), values.T, rtol=1e-6)
    matrix = volume.grid.index_to_point()
    for index in ((0, 0, 0), (3, 1, 2), tuple(n - 1 for n in values.shape)):
        place = np.diag([-1, -1, 1]) @ (affine @ [*index, 1])[:3]
        np.testing.assert_allclose((matrix @ [*index[::-1], 1])[:3], place, atol=1e-4)
    assert read_grid(path) == volume.grid


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("example4d+orig.HEAD", 3),
        ("phantom_varscale.PAR", 3),
        ("minc1_4d.mnc", 2),
        ("minc2_4d.mnc", 2),
        ("test.mgz", 2),
    ],
)
def test_frames_are_kept_and_refused_as_one_image(name, frames, tmp_path):
    """Of a series over time all frames are there, the first axis; as one image it is refused, not cut to one."""
    stored = read_stored(SAMPLES / name)
    other = nibabel.load(SAMPLES / name)
    values = np.asarray(other.dataobj)
    values = values if name.endswith(".mnc") else values.T
    np.testing.assert_allclose(stored.array, values, rtol=1e-6)
    assert len(stored.array) == frames
    with pytest.raises(ImageError, match="of 2 or 3 axes, got 4"):
        read_image(SAMPLES / name)
    assert read_grid(SAMPLES / name) == stored.grid


def test_pairs_of_files_belong_together(tmp_path):
    """Of AFNI and Philips both files count, whichever is named; labels and types stay exact."""
    for name in ("a+tlrc.HEAD", "b.PAR"):
        header = made(tmp_path / name)
        voxels = header.with_suffix(".BRIK" if name.endswith("HEAD") else ".REC")
        assert data_files(header) == data_files(voxels) == (header, voxels)
        before = checksum(header)
        voxels.write_bytes(voxels.read_bytes()[:-1] + bytes([voxels.read_bytes()[-1] ^ 1]))
        assert checksum(header) != before
    labels = np.zeros((4, 5, 6), np.int32)
    labels[1, 2, 3] = 2**30 + 1
    saved(nibabel.MGHImage, tmp_path / "labels.mgz", labels)
    assert read_labels(tmp_path / "labels.mgz").labels == (0, 2**30 + 1)
    assert read_image(saved(nibabel.MGHImage, tmp_path / "c.mgz")).pixel_type == "int16"
    floats = np.full((4, 4, 4), np.nan, np.float32)
    assert read_image(saved(nibabel.Nifti2Image, tmp_path / "n.nii", floats)).volume.data.isnan().all()


def test_frames_of_nifti_2_are_chosen_as_those_of_nifti_1(tmp_path, caplog):
    """Of sform and qform ITK's choice holds, with the same sentence, and units count."""
    image = nibabel.Nifti2Image(ARRAY, None)
    other = AFFINE + np.outer([1, 0, 0, 0], [0, 0, 0, 8.0])
    image.set_sform(AFFINE, code=2)
    image.set_qform(other, code=1)
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "a.nii")
    origin = read_image(tmp_path / "a.nii").volume.grid.origin_xyz
    np.testing.assert_allclose(origin, np.diag([-1e-3, -1e-3, 1e-3]) @ other[:3, 3], atol=1e-9)
    assert "its sform and qform differ by up to 0.008 mm: the qform is used" in caplog.text
    assert "in micrometres" in caplog.text


def broken(data: bytes, at: int, kind: str, *values: float) -> bytes:
    """The bytes with other numbers at a place."""
    changed = bytearray(data)
    struct.pack_into(kind, changed, at, *values)
    return bytes(changed)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("a.nii", lambda data: data[:700], "could the file be damaged"),
        ("a.nii", lambda data: broken(data, 24, "<3q", 100000, 100000, 100000), "cut short or damaged"),
        ("a.nii", lambda data: broken(data, 24, "<q", -5), "positive number of voxels"),
        ("a.nii", lambda data: broken(data, 16, "<q", 99), "1 to 7 axes"),
        ("a.nii", lambda data: broken(data, 168, "<q", 1 << 60), "where its voxels start"),
        ("a.nii", lambda data: broken(data, 400, "<d", np.nan), "finite numbers in the sform"),
        ("a.nii", lambda data: broken(data, 104 + 8, "<d", 0.0), "positive spacing"),
        ("a.nii", lambda data: broken(data, 12, "<h", 1792), "real numbers|cut short"),
        ("a.nii.gz", lambda data: data[:-20], "nibabel reads"),
        ("a.mgh", lambda data: broken(data, 4, ">3i", 1000, 1000, 1000), "cut short or damaged"),
        ("a.mgh", lambda data: broken(data, 4, ">i", -3), "positive number of voxels"),
        ("a.mgh", lambda data: broken(data, 4, ">i", 0), "nibabel reads"),
        ("a.mgh", lambda data: broken(data, 30, ">3f", 0, 0, 0), "invertible|nibabel reads"),
        ("a.mgh", lambda data: data[:100], "cut short or damaged"),
        ("a.mgz", lambda _: gzip.compress(b"nothing"), "nibabel reads"),
        ("tiny.mnc", lambda data: data[:300], "nibabel reads"),
        ("tiny.mnc", lambda _: b"CDF\1" + b"\xff" * 300, "nibabel reads"),
        ("minc2_1_scale.mnc", lambda data: data[: len(data) // 2], "a complete image"),
        ("a+tlrc.HEAD", lambda data: data.replace(b"47 54 43", b"9999 9999 999"), "cut short or damaged"),
        ("a+tlrc.HEAD", lambda _: b"hello", "nibabel reads"),
        ("a+tlrc.BRIK", lambda data: data[:100], "cut short or damaged"),
        ("a.PAR", lambda data: data[:2000], "nibabel reads"),
        ("a.PAR", lambda data: data.replace(b"64   64", b"64000 64000"), "cut short or damaged|nibabel reads"),
        ("a.REC", lambda data: data[:100], "cut short or damaged"),
    ],
)
def test_what_is_damaged_is_refused(name, change, said, tmp_path):
    """Headers that promise too much or say nothing, and files that are cut short, end in one sentence."""
    path = made(tmp_path / name)
    path.write_bytes(change(path.read_bytes()))
    for read in (read_image, read_stored):
        with pytest.raises((ImageError, GeometryError), match=said) as refused:
            read(path)
        assert "\n" not in str(refused.value)
        assert name in str(refused.value)
    del refused
    gc.collect()  # what nibabel left open is closed within this test, which does not mind


def test_the_header_alone_needs_the_voxels_beside_it(tmp_path):
    """A header whose file of voxels is not there is no image."""
    path = made(tmp_path / "a+tlrc.HEAD")
    path.with_suffix(".BRIK").unlink()
    with pytest.raises(ImageError, match=r"a\+tlrc.HEAD"):
        read_image(path)


def test_without_nibabel_it_is_said_what_to_install(tmp_path, monkeypatch):
    """Where nibabel is missing the sentence names it, and no other format needs it."""
    path = made(tmp_path / "a.mgz")
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(
        ImageError, match=r"nibabel to read .*a.mgz, it is not installed: pip install 'semreg\[nibabel\]'"
    ):
        read_image(path)


@pytest.mark.parametrize("name", ["a.mgz", "a.mnc", "a.nii", "a.mha"])
def test_a_file_that_may_not_be_read_is_one_sentence(name, tmp_path, monkeypatch):
    """Also of formats that ITK does not read: the reason, and no trace."""
    (tmp_path / name).write_bytes(b"anything")
    there = Path.open

    def refusing(path: Path, *words: str) -> object:
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return there(path, *words)

    monkeypatch.setattr(Path, "open", refusing)
    for read in (read_image, read_grid):
        with pytest.raises(ImageError, match=f"can be read, got .*{name}: Permission denied"):
            read(tmp_path / name)
