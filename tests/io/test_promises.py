"""Promises of reading what may be large: nothing is allocated that a file cannot hold or that memory cannot."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
import SimpleITK as sitk

from semreg.errors import ImageError
from semreg.io.files import read_grid, read_image, read_stored
from semreg.io.quiet import quiet_readers

HEADER = b"NRRD0005\ntype: short\ndimension: 3\nsizes: 100000 100000 500\nencoding: raw\nendian: little\n\n"


@pytest.mark.parametrize("read", [read_image, read_grid, read_stored])
def test_what_does_not_fit_into_memory_is_said_at_once(read, tmp_path):
    """A file that is as long as its header says, with holes, is not read where memory cannot hold it."""
    path = tmp_path / "long.nrrd"
    path.write_bytes(HEADER)
    os.truncate(path, len(HEADER) + 10**13)
    with pytest.raises(ImageError, match=r"memory, got .*100000 × 100000 × 500 voxels: reading it takes 4e\+04 GB"):
        read(path)


@pytest.mark.parametrize("large", ["IMAGE.NII", "IMAGE.NII.GZ", "IMAGE.MHA", "IMAGE.NRRD", "IMAGE.PNG", "IMAGE.JPEG"])
def test_endings_count_in_any_case(large, tmp_path):
    """A name in capitals is read as the same name in small letters."""
    image = sitk.GetImageFromArray(np.arange(30, dtype=np.uint8).reshape(5, 6))
    path = tmp_path / large.lower()
    sitk.WriteImage(image, str(path))
    expected = read_image(path)
    path.rename(tmp_path / large)
    found = read_image(tmp_path / large)
    assert found.volume.grid == expected.volume.grid
    np.testing.assert_array_equal(found.volume.data, expected.volume.data)


def test_what_readers_print_goes_to_the_log(capfd, caplog):
    """What is printed past Python is told as details, also from threads, and the outputs are as before afterwards."""
    inside, leave = threading.Event(), threading.Event()

    def other():
        with quiet_readers():
            os.write(2, b"from a thread\n")
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with caplog.at_level("DEBUG", "semreg"):
        thread.start()
        inside.wait()
        with quiet_readers():
            os.write(1, b"from here\n")
        leave.set()
        thread.join()
    os.write(2, b"after\n")
    assert caplog.messages == ["from a thread", "from here"]
    assert capfd.readouterr() == ("", "after\n")
