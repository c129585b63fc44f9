"""Promises of the demo: it aligns what it shows, says so in mm, and its files open elsewhere."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import SimpleITK as sitk

from semreg.demo import run

SIZE = 72


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A small demo: its lines and its folder."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    return run(folder, size=SIZE), folder


def test_landmarks_come_closer(demo):
    """The error that is printed falls to less than 0.6 of what it was, and is the one in the record."""
    lines, folder = demo
    text = "\n".join(lines)
    before, after = (
        float(re.search(rf"landmark error {when}: +mean ([\d.]+) mm", text)[1]) for when in ("before", "after")
    )
    assert after < 0.6 * before
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    assert record["landmarks"]["after"]["mean_mm"] == pytest.approx(after, abs=0.006)
    assert record["jacobian"]["folded_share"] == 0.0


def test_files_are_there_and_named(demo):
    """The last line names every file there is."""
    lines, folder = demo
    assert lines[-1] == "files: " + ", ".join(str(path) for path in sorted(folder.iterdir()))
    assert {"fixed.nii.gz", "moving.nii.gz", "warped.nii.gz", "transform.h5", "field.nii.gz", "record.json"} < {
        path.name for path in folder.iterdir()
    }
    assert sitk.ReadImage(str(folder / "fixed.nii.gz")).GetPixelIDTypeAsString() == "16-bit signed integer"
    assert sitk.ReadImage(str(folder / "moving.nii.gz")).GetPixelIDTypeAsString() == "16-bit unsigned integer"


def test_simpleitk_finds_the_same_error(demo):
    """The landmark files and transform.h5 give, in SimpleITK, the error that was printed."""
    lines, folder = demo
    fixed, moving = (np.loadtxt(folder / f"{n}_points.csv", delimiter=",", skiprows=1) for n in ("fixed", "moving"))
    transform = sitk.ReadTransform(str(folder / "transform.h5"))
    found = np.array([transform.TransformPoint(point.tolist()) for point in fixed])
    error = np.linalg.norm(found - moving, axis=1)
    printed = f"mean {error.mean():.2f} mm, 95th percentile {np.quantile(error, 0.95):.2f} mm"
    expected = [float(v) for v in re.findall(r"[\d.]+(?= mm)", printed)]
    shown = [float(v) for v in re.findall(r"[\d.]+(?= mm)", lines[2])]
    assert shown == pytest.approx(expected, abs=0.011)  # mm: both are rounded, and so are the landmarks in the file


def test_nothing_is_left_when_it_is_interrupted(tmp_path):
    """Ctrl-C in the middle leaves no folder behind."""

    def stop(_step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", size=24, on_step=stop)
    assert not list(tmp_path.iterdir())
