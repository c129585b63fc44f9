"""What must not come in by `semreg serve`: other files of the machine, and what grows while it is read."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra serve")

from conftest import grid_at
from semreg import Volume
from semreg.batch.service.archive import unpack
from semreg.batch.service.asked import check_alone
from semreg.errors import ImageError
from semreg.io.files import write_image
from semreg.runtime.texts import parse_toml

MHA = b"ObjectType = Image\nNDims = 2\nDimSize = 32 32\nElementType = MET_UCHAR\n"
NRRD = b"NRRD0004\ntype: uchar\ndimension: 2\nsizes: 32 32\nencoding: raw\n"


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.mha", MHA + b"elementdatafile = LOCAL\nElementDataFile = /etc/hostname\n"),
        ("a.mha", MHA + b"ElementDataFile = /etc/hostname\n"),
        ("a.mha", MHA + b"Comment = a\rElementDataFile = /etc/hostname\nElementDataFile = LOCAL\n"),
        ("a.mha", MHA + b"ElementDataFile: /etc/hostname\nElementDataFile = LOCAL\n"),
        ("a.mha", MHA),
        ("a.nrrd", NRRD + b"#x\rdata file: /etc/hostname\r\n\n"),
        ("a.nrrd", NRRD + b"data file: /etc/hostname\n\n"),
        ("a.nrrd", NRRD + b"DataFile: LIST\n/etc/hostname\n\n"),
        ("a.nrrd", NRRD),
    ],
)
def test_a_header_that_may_name_other_files_is_refused(name, header, tmp_path):
    """Readers differ in letters, blanks and ends of lines, so only lines that are known to be harmless pass."""
    path = tmp_path / name
    path.write_bytes(header + b"P" * (4096 if header not in (MHA, NRRD) else 1 << 17))
    with pytest.raises(ImageError, match="expected an image"):
        check_alone(path)


@pytest.mark.parametrize("ending", ["mha", "nrrd", "nii.gz", "png"])
def test_what_is_written_by_itk_passes(ending, tmp_path):
    """Images as semreg and ITK write them."""
    path = tmp_path / f"a.{ending}"
    grid = grid_at((3.0, -4.0), (40, 48), (1.0, 1.0), np.eye(2))
    write_image(Volume(255 * torch.rand(1, *grid.shape), grid), path, "uint8")
    check_alone(path)


def test_dotted_keys_are_counted_before_they_are_parsed():
    """The parser takes memory by the square of the levels; numbers with points are none."""
    with pytest.raises(ValueError, match="nested in more than"):
        parse_toml("a" + ".a" * 100_000 + "=1")
    with pytest.raises(ValueError, match="nested in more than"):
        parse_toml("x = {" + '"b" . ' * 5000 + "a=1}")
    assert parse_toml("a.b.c = [" + "1.5, " * 5000 + "2.5]")["a"]["b"]["c"][-1] == 2.5


@pytest.mark.parametrize("way", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_that_unpack_all_at_once_are_refused(way, tmp_path):
    """Only what is unpacked piece by piece can be stopped before it is large."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", way) as archive:
        archive.writestr("a.dcm", bytes(1 << 20))
    with pytest.raises(ImageError, match="stored or deflated"):
        unpack(tmp_path / "a.zip", tmp_path / "out", 1 << 30)


def test_a_long_list_of_files_is_not_read(tmp_path):
    """Its size stands at the end of an archive."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(60_000):
            archive.writestr(f"{number}", b"")
    with pytest.raises(ImageError, match="a longer list"):
        unpack(tmp_path / "a.zip", tmp_path / "out", 1 << 30)


def test_damaged_archives_are_told_in_a_sentence(tmp_path):
    """Whatever byte of its list is wrong."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ä.dcm", bytes(1000))
    whole = packed.getvalue()
    for place in range(0, len(whole), 3):
        data = bytearray(whole)
        data[place] ^= 0xFF
        (tmp_path / "a.zip").write_bytes(data)
        with suppress(ImageError):  # and nothing else
            unpack(tmp_path / "a.zip", tmp_path / f"out{place}", 1 << 30)
