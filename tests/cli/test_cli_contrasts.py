"""Promises of the flags of further contrasts: what is read and written, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from blobs import blobs
from conftest import grid_at, rotation
from secrets_in import SECRET, secrets_in
from semreg import Registration
from semreg.core.fields import Volume
from semreg.io.files import write_image
from small_networks import Small, save

FIXED = grid_at((3.0, -7.0, 11.0), (19, 17, 14), (1.9, 2.1, 2.8), rotation(3))
MOVING = grid_at((4.0, -6.0, 12.0), (20, 17, 18), (1.8, 2.3, 2.4), rotation(3, -21.0))
OTHER = grid_at((3.5, -6.0, 11.5), (14, 15, 13), (2.4, 2.3, 3.0), rotation(3, 8.0))
QUICK = ("--align", "none", "--set", "refine.iterations=3", "--set", "refine.symmetric=false", "-q")


@pytest.fixture
def files(tmp_path):
    """Two pairs and masks in a folder whose name is a secret."""
    folder = tmp_path / SECRET
    folder.mkdir()
    write_image(blobs(FIXED), folder / "t1_fixed.nii.gz", "float32")
    write_image(blobs(MOVING, (2.0, -1.5, 1.0)), folder / "t1_moving.nrrd", "int16")
    write_image(blobs(OTHER), folder / "t2_fixed.nii.gz", "float32")
    write_image(blobs(MOVING, (2.0, -1.5, 1.0)), folder / "t2_moving.nrrd", "uint8")
    write_image(Volume(blobs(OTHER).data > 20, OTHER), folder / "mask.nrrd", "uint8")
    save(Small(), folder / f"{SECRET}.pt")
    return folder


def given(folder):
    """The words that name both pairs."""
    return (
        "register", folder / "t1_fixed.nii.gz", folder / "t1_moving.nrrd",
        "--fixed-contrast", folder / "t2_fixed.nii.gz", "--moving-contrast", folder / "t2_moving.nrrd",
    )  # fmt: skip


def test_a_contrast_is_read_compared_and_written(run, files, tmp_path):
    """The record says what was compared; the warped contrast is written in its own type and read back; a next run
    without it leaves none behind; and no file of a private run names anything.
    """
    out = tmp_path / "out"
    network = ("--contrast-model", files / f"{SECRET}.pt", "--contrast-weight", "0.5")
    masks = ("--fixed-contrast-mask", files / "mask.nrrd")
    code, said, err = run(*given(files), *network, *masks, "-o", out, *QUICK[:-1], "--json", "--private")
    assert code == 0, err
    record = json.loads(said)
    assert {"fixed_contrast_1", "moving_contrast_1", "fixed_contrast_1_mask"} <= set(record["inputs"])
    (contrast,) = record["contrasts"]
    assert contrast["weight"] == 0.5
    assert contrast["settings"][0]["model"] == contrast["models"][0]["sha256"][:12]
    assert secrets_in(out) == {}
    assert SECRET not in said
    warped = sitk.ReadImage(str(out / "warped_contrast_1.nii.gz"))
    assert warped.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    result = Registration.load(out)
    np.testing.assert_array_equal(result.warped_contrasts[0].data[0].numpy(), sitk.GetArrayFromImage(warped))
    code, _, err = run(*given(files)[:3], "-o", out, *QUICK)
    assert code == 0, err
    assert not (out / "warped_contrast_1.nii.gz").exists()


def test_a_dry_run_tells_of_contrasts(run, files, tmp_path):
    """The plan names them, and takes more memory."""
    out = ("-o", tmp_path / "out", "--dry-run", "--json", *QUICK[:-1])
    code, said, err = run(*given(files), *out)
    assert code == 0, err
    code, alone, err = run(*given(files)[:3], *out)
    assert code == 0, err
    plans = [json.loads(text) for text in (said, alone)]
    assert any(line.startswith("Contrast 1, ") for line in plans[0]["lines"])
    assert plans[0]["memory_bytes"] > plans[1]["memory_bytes"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--fixed-contrast", "x.nii"), "as many --moving-contrast as --fixed-contrast, got 1 and 2"),
        (
            ("--contrast-weight", "1", "--contrast-weight", "2"),
            "--contrast-weight once, or once for each of 1 contrasts",
        ),
        (("--contrast-weight", "-1"), "a weight above 0 of contrast 1, got -1.0"),
        (("--by-channel",), "--by-channel or --fixed-contrast and --moving-contrast, got both"),
    ],
)
def test_what_does_not_fit_is_refused(run, files, tmp_path, more, said):
    """One sentence, exit code 2, and nothing is written."""
    code, _, err = run(*given(files), *more, "-o", tmp_path / "out", *QUICK)
    assert code == 2
    assert said in err
    assert not (tmp_path / "out" / "record.json").exists()


def test_flags_of_a_contrast_need_one(run, files, tmp_path):
    """A weight without a contrast is a slip."""
    code, _, err = run(*given(files)[:3], "--contrast-weight", "2", "-o", tmp_path / "out", *QUICK)
    assert code == 2
    assert "each of 0 contrasts, got it 1 times" in err


def test_an_input_is_not_written_over(run, files):
    """A contrast that lies where a warped one would go is kept."""
    moving = files / "warped_contrast_1.nii.gz"
    write_image(blobs(OTHER), moving, "float32")
    code, _, err = run(*given(files)[:-1], moving, "-o", files, *QUICK)
    assert code == 2
    assert "the moving contrast 1, would be written over" in err


def test_channels_of_colours(run, files, tmp_path):
    """``--by-channel`` compares the three channels beside the luminance."""
    rng = np.random.default_rng(1)
    colours = gaussian_filter(rng.random((3, 40, 44)), (0, 2, 2))
    colours = np.moveaxis(255 * (colours - colours.min()) / np.ptp(colours), 0, -1).astype(np.uint8)
    paths = tmp_path / "near.png", tmp_path / "far.png"
    for path, shift in zip(paths, (0, 2), strict=True):
        sitk.WriteImage(sitk.GetImageFromArray(np.roll(colours, shift, axis=1), isVector=True), str(path))
    code, said, err = run("register", *paths, "--by-channel", "-o", tmp_path / "out", *QUICK[:-1], "--json")
    assert code == 0, err
    record = json.loads(said)
    assert [each["weight"] for each in record["contrasts"]] == pytest.approx([1 / 3] * 3)
    assert record["outputs"] == sorted(record["outputs"])
    assert not list((tmp_path / "out").glob("warped_contrast*"))
    code, _, err = run("register", *given(files)[1:3], "--by-channel", "-o", tmp_path / "two", *QUICK)
    assert code == 2
    assert "the same number of channels, 2 to 64, got 1 in" in err
