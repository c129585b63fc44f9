"""Promises of the commands for transforms: right direction, one sentence for what is wrong, nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from conftest import make_grid, noise_volume, points_of, rotation, sitk_transform, smooth_field
from semreg.core.fields import Volume
from semreg.io.files import write_field, write_image, write_transform
from semreg.transforms import read_chain

FIXED = make_grid((12, 11, 10), (1.1, 1.4, 1.9), (-31.0, 12.5, 77.0), rotation(3))
MOVING = make_grid((14, 13, 12), (1.3, 1.2, 2.1), (-30.0, 10.0, 78.0), rotation(3, 8.0))
TURN = sitk.Euler3DTransform((-25.0, 20.0, 86.0), 0.05, -0.08, 0.1, (0.4, -0.5, 0.6))


@pytest.fixture
def folder(tmp_path):
    """A field, a rotation, both together, two images, and points of the fixed one."""
    field = smooth_field(FIXED)
    write_field(field, tmp_path / "field.nii.gz")
    sitk.WriteTransform(TURN, str(tmp_path / "turn.tfm"))
    write_transform(field, tmp_path / "both.h5", TURN)
    for name, grid in (("fixed", FIXED), ("moving", MOVING)):
        write_image(Volume((noise_volume(grid).data * 100).float(), grid), tmp_path / f"{name}.nrrd", "int16")
    np.savetxt(tmp_path / "points.csv", inner(), delimiter=",", header="x,y,z", comments="")
    return tmp_path


def inner():
    """Some voxel centres inside the fixed grid, one a row."""
    return points_of(FIXED)[:, 2:-2:2, 2:-2:2, 2:-2:2].flatten(1).numpy().T


def both(points):
    """SimpleITK's way from the fixed to the moving image: the field, then the rotation."""
    field = sitk_transform(smooth_field(FIXED))
    return np.array([TURN.TransformPoint(field.TransformPoint(point)) for point in points.tolist()])


def rows(path):
    """The points of a CSV file, one a row."""
    return np.loadtxt(path, delimiter=",", skiprows=1)


def test_points_go_to_the_moving_image_and_back(run, folder):
    """Two files in their order, and the composite, bring points to the moving image; --inverse back."""
    moving = folder / "moving.csv"
    for transforms in (("field.nii.gz", "turn.tfm"), ("both.h5",)):
        paths = [folder / name for name in transforms]
        code, out, err = run("apply", *paths, "--input", folder / "points.csv", "-o", moving)
        assert code == 0, err
        assert "points of the side that the transform starts from, to the side that it leads to" in out
        np.testing.assert_allclose(rows(moving), both(inner()), atol=1e-3)
        code, out, err = run("apply", *paths, "--inverse", "--input", moving, "-o", folder / "back.csv")
        assert code == 0, err
        assert "points of the side that the transform leads to, to the side that it starts from" in out
        np.testing.assert_allclose(rows(folder / "back.csv"), inner(), atol=1e-3)


def test_the_moving_image_comes_onto_the_fixed_grid(run, folder):
    """Without --inverse the moving image gets the grid of the field; SimpleITK makes the same image."""
    code, out, err = run("apply", folder / "both.h5", "-i", folder / "moving.nrrd", "-o", folder / "warped.nii.gz")
    assert code == 0, err
    assert "the image of the side that the transform leads to, onto the grid of the field on the side that it st" in out
    got = sitk.ReadImage(str(folder / "warped.nii.gz"))
    assert (got.GetSize(), got.GetPixelID()) == (FIXED.size_xyz, sitk.sitkInt16)
    moving = sitk.ReadImage(str(folder / "moving.nrrd"))
    lowest = float(sitk.GetArrayViewFromImage(moving).min())
    transform = sitk.ReadTransform(str(folder / "both.h5"))
    fixed = sitk.ReadImage(str(folder / "fixed.nrrd"))
    expected = sitk.GetArrayFromImage(
        sitk.Resample(moving, fixed, transform, sitk.sitkLinear, lowest, sitk.sitkFloat64)
    )
    assert np.abs(sitk.GetArrayFromImage(got) - expected).max() <= 0.51


def test_the_fixed_image_goes_onto_the_moving_grid(run, folder):
    """With --inverse the fixed image gets the reference's grid: a voxel shows what lies where the inverse leads."""
    arguments = ("-i", folder / "fixed.nrrd", "-r", folder / "moving.nrrd", "-o", folder / "there.nrrd", "--json")
    code, out, err = run("apply", folder / "both.h5", "--inverse", *arguments, "--interpolation", "nearest")
    assert code == 0, err
    assert json.loads(out)["from"] == "fixed"
    image, fixed = (sitk.ReadImage(str(folder / name)) for name in ("there.nrrd", "fixed.nrrd"))
    assert image.GetSize() == MOVING.size_xyz
    centres = points_of(MOVING).flatten(1).numpy()
    found = read_chain([folder / "both.h5"]).inverse().follow(centres)
    origins, residual = found.points, found.residual
    checked = 0
    for value, origin, left in zip(sitk.GetArrayFromImage(image).ravel(), origins.T.tolist(), residual, strict=True):
        index = np.array(fixed.TransformPhysicalPointToContinuousIndex(origin))
        inside = (index > 0).all() and (index < np.array(FIXED.size_xyz) - 1).all()
        if left < 1e-3 and inside and np.abs(index - np.rint(index)).max() < 0.49:
            checked += 1
            assert value == fixed.GetPixel([int(i) for i in np.rint(index)])
    assert checked > 100
    out = run("apply", folder / "both.h5", "--inverse", *arguments[:-1])[1]
    assert "direction: the image of the side that the transform starts from, onto the grid of moving.nrrd on" in out


@pytest.mark.parametrize(
    "output",
    [
        "out.h5",
        "out.nii.gz",
        "out1Warp.nii.gz",
        "TransformParameters.0.txt",
        "OUT.H5",
        "A.TFM",
        "a.NII.GZ",
        "a.NRRD",
    ],
)
def test_convert_keeps_the_points(run, folder, output):
    """Whatever is written moves points as before within 1e-3 mm."""
    code, out, err = run("convert", folder / "both.h5", folder / output)
    assert code == 0, err
    assert str(folder / output) in out
    np.testing.assert_allclose(read_chain([folder / output]).map(inner().T).T, both(inner()), atol=1e-3)


def test_convert_for_ants_writes_two_files(run, folder):
    """The format ants makes a warp and a matrix, that compose in the order they are named in."""
    code, out, err = run("convert", folder / "both.h5", folder / "out_", "--format", "ants")
    assert code == 0, err
    files = [folder / "out_1Warp.nii.gz", folder / "out_0GenericAffine.mat"]
    assert ", ".join(map(str, files)) in out
    np.testing.assert_allclose(read_chain(files).map(inner().T).T, both(inner()), atol=1e-3)


def test_compose_joins_in_order(run, folder):
    """The first named is applied to the fixed points first; with a reference the result is one field."""
    parts = (folder / "field.nii.gz", folder / "turn.tfm")
    for more, kind in (((), "CompositeTransform"), (("-r", folder / "fixed.nrrd"), "DisplacementFieldTransform")):
        code, _, err = run("compose", *parts, "-o", folder / "joined.h5", *more)
        assert code == 0, err
        transform = sitk.ReadTransform(str(folder / "joined.h5"))
        assert transform.GetName() == kind
        got = [transform.TransformPoint(point) for point in inner().tolist()]
        np.testing.assert_allclose(got, both(inner()), atol=1e-3)


def test_invert_says_how_exact_it_is(run, folder):
    """The inverse brings points back within what is said, and the record holds the numbers in mm."""
    code, out, err = run("invert", folder / "both.h5", "-o", folder / "inverse.h5", "--json")
    assert code == 0, err
    quality = json.loads(out)["quality"]
    assert quality["residual_mm"] < 1e-3
    assert 0 < quality["round_trip_max_mm"] < 0.5
    inverse = sitk.ReadTransform(str(folder / "inverse.h5"))
    points = inner()
    back = np.array([inverse.TransformPoint(point) for point in both(points).tolist()])
    assert np.linalg.norm(back - points, axis=1).max() <= 1.5 * quality["round_trip_max_mm"]
    code, out, _ = run("invert", folder / "turn.tfm", "-o", folder / "back.mat")
    assert code == 0
    assert "residual: 0 mm" in out


def test_jacobian_writes_a_map_and_its_numbers(run, folder):
    """The map lies on the grid of the field; its logarithm is 0 for what keeps volumes."""
    code, out, err = run("jacobian", folder / "field.nii.gz", "-o", folder / "jacobian.nii.gz", "--json")
    assert code == 0, err
    summary = json.loads(out)["jacobian"]
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "jacobian.nii.gz")))
    assert values.shape == FIXED.shape
    assert summary["minimum"] == pytest.approx(float(values.min()), abs=1e-5)
    assert summary["folded_share"] == 0
    arguments = ("-r", folder / "fixed.nrrd", "--log", "-o", folder / "log.nrrd")
    code, out, _ = run("jacobian", folder / "turn.tfm", *arguments)
    assert code == 0
    assert "folded: 0 %" in out
    assert np.abs(sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "log.nrrd")))).max() < 1e-6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("apply", "gone.h5", "-i", "points.csv", "-o", "out.csv"), "no such file"),
        (("apply", "turn.tfm", "-i", "moving.nrrd", "-o", "out.nrrd"), "--reference"),
        (("apply", "both.h5", "-i", "moving.nrrd", "-o", "out.doc"), "ends in"),
        (("apply", "both.h5", "-i", "gone.nrrd", "-o", "out.nrrd"), "gone.nrrd"),
        (("apply", "both.h5", "-i", "points.csv", "-o", "points.csv"), "written over"),
        (("apply", "both.h5", "-i", "points.csv", "-o", "out.fcsv"), "as they are stored"),
        (("apply", "both.h5", "--inverse", "-i", "fixed.nrrd", "-o", "out.nrrd"), "--reference"),
        (("convert", "turn.tfm", "out.nii.gz"), "--reference"),
        (("convert", "both.h5", "out.mat"), "deforms"),
        (("convert", "both.h5", "out.zip"), "ends in"),
        (("convert", "both.h5", "gone/out.h5"), "make the folder"),
        (("compose", "both.h5", "fixed.nrrd", "-o", "out.h5"), "fixed.nrrd"),
        (("invert", "both.h5", "-o", "both.h5"), "written over"),
        (("jacobian", "turn.tfm", "-o", "out.nii.gz"), "--reference"),
    ],
)
def test_what_is_wrong_is_one_sentence(run, folder, monkeypatch, arguments, said):
    """Code 2, one line that says what to do, and no new file."""
    monkeypatch.chdir(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: expected")
    assert err.count("\n") == 1
    assert said in err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_one_of_several_transforms_is_named_by_its_number(run, folder):
    """A file with two is refused with their number; each is taken with #n, and its file is not written over."""
    text = "".join(
        f"#Transform {n}\nTransform: TranslationTransform_double_3_3\nParameters: {x} 0 0\nFixedParameters:\n"
        for n, x in enumerate((3, 5))
    )
    path = folder / "two.tfm"
    path.write_text(f"#Insight Transform File V1.0\n{text}")
    code, out, err = run("convert", path, folder / "out.h5")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "got 2 transforms side by side" in err
    assert not (folder / "out.h5").exists()
    code, _, err = run("compose", f"{path}#2", f"{path}#1", "-o", path)
    assert code == 2
    assert "written over" in err
    assert run("compose", f"{path}#2", folder / "turn.tfm", "-o", folder / "joined.h5")[0] == 0
    moved = read_chain([folder / "joined.h5"]).map(np.array([[1.0], [2.0], [3.0]]))
    assert moved[:, 0] == pytest.approx(TURN.TransformPoint((6.0, 2.0, 3.0)), abs=1e-9)
    np.savetxt(folder / "there.csv", np.add(inner(), [5, 0, 0]), delimiter=",", header="x,y,z", comments="")
    given = ("--fixed-landmarks", folder / "points.csv", "--moving-landmarks", folder / "there.csv", "--json")
    code, out, _ = run("evaluate", f"{path}#2", *given)
    assert code == 0
    assert json.loads(out)["landmarks"]["after"]["maximum"] == pytest.approx(0, abs=1e-5)


def test_quiet_says_nothing(run, folder):
    """With --quiet nothing is printed where nothing is wrong."""
    for arguments in (
        ("apply", folder / "both.h5", "-i", folder / "points.csv", "-o", folder / "out.csv"),
        ("convert", folder / "both.h5", folder / "out.h5"),
        ("compose", folder / "both.h5", "-o", folder / "out.h5"),
        ("invert", folder / "both.h5", "-o", folder / "out.h5"),
        ("jacobian", folder / "field.nii.gz", "-o", folder / "out.nrrd"),
    ):
        assert run(*arguments, "--quiet") == (0, "", "")


FULL_DISK = """
import resource, signal, sys
import SimpleITK, semreg.transforms
from semreg.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (256, 256))
for words in sys.argv[1:]:
    try:
        main(words.split())
    except SystemExit as end:
        print(end.code)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_leaves_nothing(folder):
    """Where files cannot grow, each command ends with one sentence and leaves no part of a file."""
    before = sorted(path.name for path in folder.iterdir())
    commands = (
        "convert both.h5 out.h5",
        "apply both.h5 -i moving.nrrd -o a.nii.gz",
        "jacobian field.nii.gz -o j.nii.gz",
    )
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *commands], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.stdout.split() == ["2"] * len(commands), result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == len(commands)
    assert all(line.startswith("error: expected to write") for line in lines)
    assert sorted(path.name for path in folder.iterdir()) == before
