"""Files and folders that are not what they should be."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
import torch

from conftest import noise_volume, oblique_grid, smooth_field
from semreg.config import RegistrationConfig
from semreg.errors import ConfigError, DeviceError, ImageError, ModelError, OutputError
from semreg.io.atomic_output import OutputFolder
from semreg.io.dicom import is_dicom
from semreg.io.dicom_frames import read_frames, series_of_image
from semreg.io.files import read_image, write_image, write_warp
from semreg.io.nifti import is_cut_short
from semreg.runtime.devices import choose_device
from semreg.settings import from_dict


def test_a_folder_that_is_not_entered_stages_nothing(tmp_path: Path) -> None:
    """Files are staged inside of the block alone."""
    with pytest.raises(OutputError, match="expected an entered OutputFolder, got one that is closed: use with on"):
        OutputFolder(tmp_path).stage("a")


def test_a_place_that_is_taken_by_a_folder(tmp_path: Path) -> None:
    """Where a folder has the name of a file that is to be put there, it is said, and nothing half-made is left."""
    (tmp_path / "out" / "field.nii.gz").mkdir(parents=True)
    with (
        pytest.raises(OutputError, match=r"expected to write to .*out, got: "),
        OutputFolder(tmp_path / "out") as folder,
    ):
        folder.stage("field.nii.gz").write_text("new")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["field.nii.gz"]


def test_ctrl_c_while_files_are_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When everything is written an interruption waits until all files are in their place, and then stops."""
    replace, calls = Path.replace, []

    def interrupted(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return replace(self, target)

    def write() -> None:
        with OutputFolder(tmp_path / "out") as folder:
            for name in ("a", "b"):
                folder.stage(name).write_text(name)
            monkeypatch.setattr(Path, "replace", interrupted)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b"]


def test_a_folder_that_somebody_else_uses_stays(tmp_path: Path) -> None:
    """What fails leaves no folder that it made, unless there is something of somebody else in it."""

    def fail() -> None:
        with OutputFolder(tmp_path / "new" / "out"):
            (tmp_path / "new" / "theirs").write_text("")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["theirs"]


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


def test_what_is_neither_file_nor_folder_is_no_image(tmp_path: Path) -> None:
    """A named pipe, which would block for ever, is refused."""
    os.mkfifo(tmp_path / "pipe.nii")
    with pytest.raises(ImageError, match=r"expected an image file or a DICOM folder, got .*pipe.nii: it is neither"):
        read_image(tmp_path / "pipe.nii")


def test_files_that_are_no_dicom(tmp_path: Path) -> None:
    """What is too damaged to say that it is no image may be one; asked for its frames it is named."""
    assert not is_dicom(tmp_path / "missing")
    (tmp_path / "broken.dcm").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x00\x00UL")
    assert is_dicom(tmp_path / "broken.dcm")
    assert series_of_image(tmp_path / "broken.dcm") == ""
    (tmp_path / "text.dcm").write_text("no DICOM")
    with pytest.raises(
        ImageError, match=r"expected a DICOM file, got .*text.dcm: its header is damaged; copy it again"
    ):
        read_frames(tmp_path / "text.dcm")


def test_a_machine_without_an_apple_gpu_says_so() -> None:
    """``mps`` where there is none is refused with what to do."""
    if torch.backends.mps.is_available():
        pytest.skip("there is an Apple GPU")
    with pytest.raises(DeviceError, match="expected an Apple GPU for mps, this machine has none: use --device cpu"):
        choose_device("mps")


def test_a_table_of_settings_without_a_value_that_it_needs() -> None:
    """A table that has to say something and does not is refused by its name."""
    from semreg.features.catalogue.lock import Lock

    with pytest.raises(ConfigError, match="expected all values without a default in files"):
        from_dict(Lock, {"files": [{"name": "a"}]})
    assert from_dict(RegistrationConfig, {}) == RegistrationConfig()


def test_a_model_that_cannot_be_read(tmp_path: Path) -> None:
    """A folder in the place of a model's file has no checksum."""
    from semreg.features.catalogue.lock import checksum

    with pytest.raises(ModelError, match=r"expected a model that can be read, got .*: Is a directory"):
        checksum(tmp_path)
