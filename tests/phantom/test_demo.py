"""Promises of the demo: it aligns what it shows, says so in mm, and its files open elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import SimpleITK as sitk

from semreg.errors import ConfigError
from semreg.phantom.demo import KINDS, run, write_images

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo as it is: its lines and its folder."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    return run(folder), folder


def test_the_readme_says_what_is_printed(demo):
    """The landmark errors that the README gives for ``make demo`` are the demo's; processors round differently."""
    printed = [float(x) for line in demo[0][1:3] for x in re.findall(r"(?:mean|percentile) (\d+\.\d+)", line)]
    said = re.search(
        r"(\d\.\d\d) mm before \(95th\s+percentile (\d\.\d\d)\) and (\d\.\d\d) mm after \((\d\.\d\d)\)",
        README.read_text(encoding="utf-8"),
    )
    assert [float(figure) for figure in said.groups()] == pytest.approx(printed, abs=0.1)


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


def test_what_went_wrong_is_printed(demo):
    """Beside the mean the lines give the largest error and how many points got worse; the verdict looks at them."""
    lines, folder = demo
    table = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["landmarks"]
    largest = [float(re.search(r"largest ([\d.]+) mm", line)[1]) for line in lines[1:3]]
    assert largest == pytest.approx([table[when]["maximum"] for when in ("before", "after")], abs=0.006)
    worse = sum(point["after"] > point["before"] for point in table["points"])
    assert f"landmarks that got worse: {worse} of {len(table['points'])}" in lines
    verdict = json.loads((folder / "record.json").read_text(encoding="utf-8"))["verdict"]
    looked = next(each for each in verdict["checks"] if each["name"] == "landmark_maximum")
    assert looked["value"] == pytest.approx(100 * table["after"]["maximum"] / table["before"]["maximum"])
    assert (looked["level"] == "PASS") == (looked["value"] <= looked["review"])
    assert all(each["sentence"] in lines for each in verdict["checks"] if each["level"] in ("REVIEW", "FAIL"))


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
    expected = [error.mean(), np.quantile(error, 0.95), error.max()]
    shown = [float(v) for v in re.findall(r"[\d.]+(?= mm)", lines[2])]
    assert shown == pytest.approx(expected, abs=0.006)  # mm: both are rounded, and so are the landmarks in the file


def test_nothing_is_left_when_it_is_interrupted(tmp_path):
    """Ctrl-C in the middle leaves no folder behind."""

    def stop(_step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", size=24, on_step=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("kind", "suffix"), [("abdomen", ".nii.gz"), ("brain", ".nii.gz"), ("slides", ".png")])
def test_the_images_alone(kind, suffix, tmp_path):
    """Images, labels and landmarks of each kind, about as large as asked for, and nothing that a registration makes."""
    files = write_images(tmp_path / "out", kind=kind, size=24)
    assert {path.name for path in files} == {
        *[f"{side}{what}{suffix}" for side in ("fixed", "moving") for what in ("", "_labels")],
        "fixed_points.csv", "moving_points.csv", "labels.csv",
    }  # fmt: skip
    assert set(files) == set((tmp_path / "out").iterdir())
    assert 16 <= max(sitk.ReadImage(str(tmp_path / "out" / f"fixed{suffix}")).GetSize()) <= 32


def test_a_pair_that_there_is_not(tmp_path):
    """A kind that is none is a sentence that names those there are; the command line offers the same ones."""
    from semreg.cli.demo import Kind

    with pytest.raises(ConfigError, match="abdomen, brain, slides, got 'knee'"):
        run(tmp_path / "out", kind="knee")
    assert not list(tmp_path.iterdir())
    assert set(get_args(Kind)) == set(KINDS)


def test_slides_are_registered_too(tmp_path):
    """The whole demo of another kind says what it shows, and its page knows the files by their names."""
    lines = run(tmp_path / "out", kind="slides", size=64)
    assert "landmarks on two stained slides" in lines[0]
    before, after = (float(re.search(r"mean ([\d.]+) mm", line)[1]) for line in lines[1:3])
    assert after < 0.6 * before
    assert "fixed.png" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
