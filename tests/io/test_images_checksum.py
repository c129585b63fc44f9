"""Promises of checksums: every byte of an image counts, also where its voxels stand in files of their own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import SimpleITK as sitk

from conftest import grid_at, noise_volume, rotation, sitk_image
from semreg.errors import ImageError
from semreg.io.files import checksum, read_grid, read_image, read_stored
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
        (b"a\0b.raw", "lines of fields and values"),
        (b"x" * 5000, "too long"),
        (b"a%02d\0.raw 1 2", "lines of fields and values"),
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
    with pytest.raises(ImageError, match=rf"(?=.*odd\.mhd).*({said})"):
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


META = b"ObjectType = Image\nNDims = 2\nDimSize = 8 8\nElementType = MET_UCHAR\n"
NRRD = b"NRRD0004\ntype: uchar\ndimension: 2\nsizes: 8 8\nencoding: raw\n"


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (b"elementdatafile = LOCAL\nElementDataFile = other\n", ["other"]),
        (b"ElementDataFile := other\n", ["other"]),
        (b"ElementDataFile == other\n", ["other"]),
        (b"ElementDataFile = LoCaL\n", ["LoCaL"]),
        (b"ElementDataFile = LIST2\n" + b"other\n" * 8, ["other"] * 8),
        (b"ELEMENTDATAFILE = other\nElementDataFile = Local\n", []),
        (b"# a\nElementDataFile = LOCAL\nElementDataFile = other\n", ["other"]),
        (b"0010|4000 = a\r\nb\nc = d\nElementDataFile = LOCAL\n", []),
        (b"0010|0010 = A=\x1b$B;3ED\x1b(B\nElementDataFile = LOCAL\n", []),
        (b"ElementDataFile\nComment = other\n", ["other"]),
    ],
)
def test_a_header_of_meta_image_is_understood_as_by_its_reader(lines, named, tmp_path):
    """In the letters, marks and words that it takes, and no others: of what it reads every file counts."""
    check_named(tmp_path / "a.mha", META + lines, named)


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (b"Data File: other\n\n", ["other"]),
        (b"data file: LOCAL\n\n", ["LOCAL"]),
        (b"data file: LIST2\nother\n", ["other"]),
        (b"data file:=other\n\n", []),
    ],
)
def test_a_header_of_nrrd_is_understood_as_by_its_reader(lines, named, tmp_path):
    """The same of NRRD."""
    check_named(tmp_path / "a.nrrd", NRRD + lines, named)


def check_named(path: Path, header: bytes, named: list[str]) -> None:
    """The files that are found are those that SimpleITK reads: their voxels are 238, those after the header 80."""
    for name in ("other", "LOCAL", "LoCaL", "LIST2"):
        path.with_name(name).write_bytes(b"\xee" * 64)
    path.write_bytes(header + (b"" if named else b"P" * 64))
    assert data_files(path) == (path, *(path.with_name(name) for name in named))
    assert set(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).ravel()) == ({238} if named else {80})


@pytest.mark.parametrize(
    "header",
    [
        META + b"Offset = 0\nElementDataFile = LOCAL\nElementDataFile = other\n",
        META + b"ID =\nElementDataFile = LOCAL\nElementDataFile = other\n",
        META.replace(b"= 2", b"= 2x") + b"ElementDataFile = LOCAL\n",
        META + b"Comment = a\n",
        META + b"ElementDataFile\r= other\n",
        META + b"ElementDataFile\0x = other\nElementDataFile = LOCAL\n",
        META + b"Comment = a\rElementDataFile = other\nElementDataFile = LOCAL\n",
        META + b"Comment = " + b"a" * (1 << 20) + b"\nElementDataFile = LOCAL\n",
        META + (b"Comment = " + b"a" * 400 + b"\n") * (1 << 16) + b"ElementDataFile = other\n",
        NRRD + b"# a\rdata file: other\n\n",
        NRRD + b"#" + b" " * (1 << 21) + b"\ndata file: other\n\n",
        NRRD + b"PPPP\ndata file: other\n\n",
    ],
    ids=range(12),
)
def test_a_header_that_its_reader_may_part_otherwise_is_refused(header, tmp_path):
    """Lone carriage returns, bytes that end a text, numbers that run on into the next line, headers without an end."""
    (tmp_path / "other").write_bytes(b"\xee" * 64)
    path = tmp_path / ("a.mha" if header.startswith(b"O") else "a.nrrd")
    path.write_bytes(header + b"P" * 64)
    for read in (data_files, read_image, checksum):
        with pytest.raises(ImageError, match="expected a header in lines of fields and values") as said:
            read(path)
        assert "other" not in str(said.value)  # a header may hold names of patients


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
@pytest.mark.parametrize(
    ("named", "there", "found"),
    [
        ("o%d -1 -1 1", "o-1", True),
        ("in%d/o 1 1 1", "in1/o", False),
        ("o%%d 1 1 1", "o%d", False),
        ("o%s%d 1 1 1", "o1", False),
        ("o%d 1 1 1", "o", False),
        ("50%.raw", "50%.raw", None),
    ],
)
def test_a_pattern_has_one_counter_in_the_name_of_its_files(ending, named, there, found, tmp_path):
    """The readers print the number wherever a pattern says so: no file is read that was not found."""
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_bytes(b"\xee" * 64)
    path, header, key = tmp_path / f"a{ending}", META, b"ElementDataFile = "
    if ending == ".nhdr":
        header, key = NRRD, b"data file: "
    header = header.replace(b"2\n", b"3\n").replace(b"8 8", b"8 8 1")
    path.write_bytes(header + key + named.encode() + b"\n")
    if found or (found is None and ending == ".nhdr"):  # where only a counter makes a pattern
        assert data_files(path) == (path, tmp_path / there)
        assert set(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).ravel()) == {238}
    else:
        with pytest.raises(ImageError, match=r"expected a pattern with one counter|there is no such file"):
            read_image(path)


def test_texts_of_dicom_in_a_header_are_read(tmp_path):
    """ITK writes them as they are: of several lines, and with the controls of other alphabets."""
    image = sitk.GetImageFromArray(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    image.SetMetaData("0010|0010", "Yamada=\x1b$B;3ED\x1b(B")
    image.SetMetaData("0010|4000", "one\r\ntwo\nthree: 3\nfour")
    image.SetMetaData("0010|9999", "five")
    for name in ("a.mha", "a.mhd", "a.nrrd", "a.nhdr"):
        sitk.WriteImage(image, str(tmp_path / name))
        assert read_image(tmp_path / name).volume.data.flatten().tolist() == list(range(24))


def test_only_the_size_that_its_reader_takes_counts_for_voxels_elsewhere(tmp_path):
    """A field in other letters promises nothing: else any file could be read in part."""
    (tmp_path / "other").write_bytes(b"\xee" * 400)
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.mha"
    path.write_bytes(META + b"dimsize = 20 20\nElementDataFile = ../other\n")
    with pytest.raises(ImageError, match="exactly the size"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.h5", "a.mnc", "a.mha", "a.nii.gz", "a.png", "a.any"])
@pytest.mark.parametrize("kind", ["external", "virtual", "link", "group"])
def test_hdf5_holds_its_voxels_itself(name, kind, tmp_path):
    """ITK knows it by its content, whatever its name, and its library reads other files where a part says so."""
    path, other = tmp_path / name, tmp_path / "other"
    written = path if name == "a.mnc" else tmp_path / "a.h5"
    sitk.WriteImage(sitk.GetImageFromArray(np.arange(60, dtype=np.uint8).reshape(3, 4, 5)), str(written))
    written.rename(path)
    if path.suffix in {".h5", ".mnc"}:
        assert read_image(path).volume.data.unique().tolist() == list(range(60))
    else:
        for read in (read_image, read_grid, read_stored):
            with pytest.raises(ImageError, match="in the format that its name says, got HDF5"):
                read(path)
    place = "minc-2.0/image/0/image" if name == "a.mnc" else "ITKImage/0/VoxelData"
    with h5py.File(path, "r+") as file, h5py.File(other, "w") as beside:
        group = place.rpartition("/")[0]
        beside["x"] = np.full((3, 4, 5), 9, np.uint8)
        file.copy(group, beside, "group")
        attributes = dict(file[place].attrs)
        del file[group if kind == "group" else place]
        if kind == "group":
            file[group] = h5py.ExternalLink(str(other), "group")
        elif kind == "link":
            file[place] = h5py.ExternalLink(str(other), "x")
        elif kind == "external":
            (tmp_path / "raw").write_bytes(b"\t" * 60)
            file.create_dataset(place, (3, 4, 5), np.uint8, external=[(str(tmp_path / "raw"), 0, 60)])
        else:
            layout = h5py.VirtualLayout((3, 4, 5), np.uint8)
            layout[...] = h5py.VirtualSource(str(other), "x", (3, 4, 5))
            file.create_virtual_dataset(place, layout)
        if kind in {"external", "virtual"}:
            file[place].attrs.update(attributes)
    with pytest.raises(ImageError, match="got HDF5" if path.suffix not in {".h5", ".mnc"} else "is in another"):
        read_image(path)
