"""Promises of checksums: every byte of an image counts, also where its voxels stand in files of their own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from conftest import grid_at, noise_volume, rotation, sitk_image
from semreg.errors import ImageError
from semreg.io.files import checksum, read_image
from semreg.io.image_files import data_files

LISTED = ("list.mhd", "pattern.mhd", "list.nhdr", "pattern.nhdr")
ENDINGS = ("one.mhd", "one.nhdr", "one.hdr", "one.img", *LISTED)


def write(folder: Path, name: str) -> tuple[Path, list[Path]]:
    """An image whose voxels are in files of their own, as SimpleITK writes it; of lists, a file for each slice."""
    grid = grid_at((3.0, -7.0, 11.0), (5, 4, 3), (1.9, 2.1, 2.8), rotation(3))
    image, path = sitk.Cast(sitk_image(noise_volume(grid)) * 1000, sitk.sitkInt16), folder / name
    sitk.WriteImage(image, str(path))
    if name not in LISTED:
        return path, [file for file in folder.iterdir() if file.suffix in {".raw", ".img"}]
    whole = next(folder.glob("*.raw"))
    slices = [folder / f"slice {number:02d}.bin" for number in range(1, 4)]
    if name.startswith("pattern"):
        slices = [folder / f"slice{number:02d}.bin" for number in range(1, 4)]
    for file, values in zip(slices, np.split(np.frombuffer(whole.read_bytes(), np.int16), 3), strict=True):
        file.write_bytes(values.tobytes())
    text = path.read_text(encoding="utf-8").rstrip("\n")
    named = "slice%02d.bin 1 3 1" if name.startswith("pattern") else "\n".join(["LIST", *(s.name for s in slices)])
    path.write_text(text.replace(whole.name, named) + "\n", encoding="utf-8")
    whole.unlink()
    return path, slices


@pytest.mark.parametrize("name", ENDINGS)
def test_voxels_beside_the_header_count(tmp_path, name):
    """SimpleITK reads those files, each of them is found, and another voxel in any one is another checksum."""
    path, files = write(tmp_path, name)
    before = read_image(path)
    assert set(data_files(path)) == set(files) | set(tmp_path.glob("*.[mnh]*"))
    assert before.sha256 == checksum(path)
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        again = read_image(path)
        assert again.sha256 == checksum(path) != before.sha256
        assert not np.array_equal(again.volume.data.numpy(), before.volume.data.numpy())
        file.write_bytes(content)
    assert checksum(path) == before.sha256


@pytest.mark.parametrize("name", ["one.mhd", "one.nhdr", "one.hdr"])
def test_the_header_counts_too(tmp_path, name):
    """The same voxels with another header are another image, and the name of the folder does not count."""
    (tmp_path / "moved").mkdir()
    path, _ = write(tmp_path, name)
    same, _ = write(tmp_path / "moved", name)
    assert checksum(path) == checksum(same)
    path.write_bytes(path.read_bytes() + b"\n")
    assert checksum(path) != checksum(same)


@pytest.mark.parametrize("name", ["one.mha", "one.nrrd", "one.nii.gz", "one.nii"])
def test_a_single_file_has_the_checksum_of_its_bytes(tmp_path, name):
    """Where header and voxels are one file the checksum is that of any other tool, whatever stands beside it."""
    path, _ = write(tmp_path, "one.mhd")
    single = tmp_path / name
    sitk.WriteImage(sitk.ReadImage(str(path)), str(single))
    assert checksum(single) == read_image(single).sha256 == hashlib.sha256(single.read_bytes()).hexdigest()


def test_both_halves_of_a_pair_are_one_image(tmp_path):
    """Named by its header or by its voxels, an Analyze pair has one checksum."""
    write(tmp_path, "one.hdr")
    assert checksum(tmp_path / "one.hdr") == checksum(tmp_path / "one.img")


@pytest.mark.parametrize("name", ["one.mhd", "one.nhdr"])
def test_missing_voxels_are_one_sentence(tmp_path, name):
    """A header whose voxels are gone is an ImageError with the name of the file that is missing."""
    path, (voxels,) = write(tmp_path, name)
    voxels.unlink()
    with pytest.raises(ImageError, match=rf"got .*{voxels.name}: there is no such file") as caught:
        checksum(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (b"a\0b.raw", "null byte|no such file"),
        (b"x" * 5000, "too long"),
        (b"a%02d\0.raw 1 2", None),
        (b"", None),
        (b"/dev/zero", "a pipe or a device"),
        (b"/etc/passwd", "in its folder or below it"),
        (b"../../passwd", "no such file|in its folder or below it"),
        (b"LIST\n/dev/zero", "a pipe or a device"),
    ],
)
def test_names_that_are_none_do_no_harm(tmp_path, named, said):
    """Zero bytes, endless names, devices, other folders: a sentence or the checksum of the header alone."""
    path = tmp_path / "odd.mhd"
    path.write_bytes(b"NDims = 3\nElementDataFile = " + named + b"\n")
    if said is None:
        assert checksum(path) == hashlib.sha256(path.read_bytes()).hexdigest()
        return
    with pytest.raises(ImageError, match=rf"odd\.mhd.*({said})"):
        checksum(path)


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
@pytest.mark.parametrize("kind", ["UInt8", "Int16", "Float32"])
def test_voxels_elsewhere_are_read_where_their_size_is_that_of_the_header(tmp_path, name, kind):
    """A file that lies beside the folder of the header is read if it has the bytes that are promised, and no other."""
    for folder in ("headers", "raw"):
        (tmp_path / folder).mkdir()
    image = sitk.Cast(sitk.GetImageFromArray(np.arange(120).reshape(4, 5, 6)), getattr(sitk, f"sitk{kind}"))
    path = tmp_path / "headers" / name
    sitk.WriteImage(image, str(path), useCompression=False)
    (voxels,) = (each for each in path.parent.iterdir() if each != path)
    moved = tmp_path / "raw" / voxels.name
    voxels.rename(moved)
    for said in (f"../raw/{moved.name}", str(moved)):
        path.write_text(path.read_text().replace(voxels.name, said), encoding="utf-8")
        assert data_files(path)[1].samefile(moved)
        assert read_image(path).volume.data.flatten().tolist() == list(range(120))
        path.write_text(path.read_text().replace(said, voxels.name), encoding="utf-8")
    path.write_text(path.read_text().replace(voxels.name, f"../raw/{moved.name}"), encoding="utf-8")
    for wrong in (moved.read_bytes() + b"a", moved.read_bytes()[:-1]):
        moved.write_bytes(wrong)
        with pytest.raises(ImageError, match="exactly the size that it promises"):
            read_image(path)
