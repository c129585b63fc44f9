"""Promises of ``semreg slicer`` about the files it is asked for: no input is lost, and all come or none."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from semreg.cli import app
from semreg.phantom import make_pair, write_pair


@pytest.fixture
def pair(tmp_path):
    """The files of a small pair."""
    write_pair(make_pair(size=24, landmarks=8), tmp_path)
    for name in ("fixed", "moving"):
        image = sitk.ReadImage(str(tmp_path / f"{name}.nii.gz"))
        sitk.WriteImage(sitk.Cast(image * 0 + 1, sitk.sitkUInt8), str(tmp_path / f"{name}_mask.nrrd"))
    sitk.WriteTransform(sitk.TranslationTransform(3), str(tmp_path / "start.h5"))
    return tmp_path


def slicer(pair, *words):
    """Run it with words that begin with the pair; the result of the runner."""
    images = (str(pair / "fixed.nii.gz"), str(pair / "moving.nii.gz"))
    return CliRunner().invoke(app, ["slicer", *images, "--fast", *map(str, words)])


def contents(folder):
    """Each file below a folder, and its bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(pair, *words):
    """What it says of words that it refuses: one sentence, before it begins, and all files as they were."""
    before = contents(pair)
    done = slicer(pair, *words)
    assert contents(pair) == before
    assert done.exit_code == 2, done.output
    assert "<filter-start>" not in done.stdout
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("flag", "name", "more"),
    [
        ("--output-volume", "fixed.nii.gz", ()),
        ("--output_volume", "moving.nii.gz", ()),
        ("--uncertainty-volume", "fixed_mask.nrrd", ("--fixed-mask", "fixed_mask.nrrd")),
        ("--output-transform", "start.h5", ("--initial", "start.h5")),
        ("--output-transform", "start.h5", ("--initial", "start.h5#1")),
        (
            "--output-volume",
            "moving_mask.nrrd",
            ("--fixed-labels", "fixed_mask.nrrd", "--moving-labels", "moving_mask.nrrd"),
        ),
        (
            "--returnparameterfile",
            "fixed_points.csv",
            ("-o", "out", "--fixed-landmarks", "fixed_points.csv", "--moving-landmarks", "moving_points.csv"),
        ),
    ],
)
def test_no_input_is_written_over(pair, flag, name, more):
    """An output that is an image, a mask, labels, landmarks or a start is refused before anything runs."""
    given = [word if word.startswith("-") else pair / word for word in more]
    assert re.search(r"which is read, would be written over", refused(pair, flag, pair / name, *given))


def test_places_are_checked_before_anything_runs(pair):
    """Folders that are not there or not writable, names of no format, and one place for two outputs are refused."""
    assert "in a folder that exists" in refused(pair, "--output-volume", pair / "none" / "w.nrrd")
    assert "in a folder that exists" in refused(
        pair, "-o", pair / "out", "--returnparameterfile", pair / "none" / "r.txt"
    )
    assert "ends in .h5" in refused(pair, "--output-transform", pair / "t.xyz")
    assert "a deformation alone" in refused(pair, "--output-transform", pair / "t.mat")
    assert "one of the endings" in refused(pair, "--output-volume", pair / "w.xyz")
    both = refused(pair, "--output-volume", pair / "w.nrrd", "--uncertainty-volume", pair / "w.nrrd")
    assert "a name of its own for each output" in both
    (pair / "out").mkdir()
    own = refused(pair, "-o", pair / "out", "--output-volume", pair / "out" / "warped.nrrd")
    assert "a name of its own for each output" in own
    if Path("/proc/version").is_file():
        assert "expected to write to /proc" in refused(pair, "--output-volume", "/proc/w.nrrd")


def test_all_come_or_none_and_the_result_is_kept(pair, monkeypatch):
    """Where the second file cannot be written the first does not come either, and the sentence says where all is."""
    copy = shutil.copyfile

    def full(source, target):
        if str(target).endswith("w.nrrd"):
            raise OSError(28, "No space left on device")
        return copy(source, target)

    before = contents(pair)
    monkeypatch.setattr(shutil, "copyfile", full)
    done = slicer(pair, "--output-transform", pair / "t.h5", "--output-volume", pair / "w.nrrd")
    assert done.exit_code == 2, done.output
    assert contents(pair) == before
    line = done.stderr.splitlines()[-1]
    assert "No space left on device" in line
    kept = Path(line.rpartition("the result is kept in ")[2])
    assert {"transform.h5", "warped.nrrd", "record.json"} <= {path.name for path in kept.iterdir()}
    shutil.rmtree(kept)


def test_the_transform_is_what_its_name_says(pair):
    """A .tfm is text of ITK and a .nrrd a field on the grid of the fixed image; both map as the HDF5 of the folder."""
    done = slicer(pair, "-o", pair / "out", "--output-transform", pair / "t.tfm")
    assert done.exit_code == 0, done.output
    assert (pair / "t.tfm").read_bytes().startswith(b"#Insight Transform File")
    known = sitk.ReadTransform(str(pair / "out" / "transform.h5"))
    done = slicer(pair, "--output-transform", pair / "t.nrrd")
    assert done.exit_code == 0, done.output
    fixed, field = (
        sitk.ReadImage(str(pair / "fixed.nii.gz")),
        sitk.ReadImage(str(pair / "t.nrrd"), sitk.sitkVectorFloat64),
    )
    assert field.GetSize() == fixed.GetSize()
    points = [fixed.TransformIndexToPhysicalPoint(index) for index in ((8, 9, 10), (14, 12, 11))]
    for found in (sitk.ReadTransform(str(pair / "t.tfm")), sitk.DisplacementFieldTransform(field)):
        for point in points:
            np.testing.assert_allclose(found.TransformPoint(point), known.TransformPoint(point), atol=0.01)
