"""Promises of motion: frames of a series come together, smoothly in time, and carried labels come back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from cohort_bodies import frame_errors, make_breath, roughness, trajectories
from pages import blocks
from semreg import RegistrationConfig, write_image
from semreg.cli.motion import MotionFlags
from semreg.cli.register_flags import Alignment, SettingFlags
from semreg.config import AlignConfig, RefineConfig
from semreg.core.fields import Field, Volume, warp
from semreg.core.geometry import Grid
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.io.bridge import LabelMap, field_of_transform, transform_of
from semreg.io.files import write_series
from semreg.io.series import read_frames
from semreg.phantom import make_pair
from semreg.registration.carried import carry
from semreg.registration.motion import Kind, Motion, MotionOptions, correct_motion, measured, smoothed
from semreg.transforms.maps import linear_about, mapped

QUICK = RegistrationConfig(align=AlignConfig(transform="none"), refine=RefineConfig(iterations=6, levels=1))
VOXEL_MM = 4.0
MEAN = MotionOptions(kind=Kind.DEFORMABLE, cyclic=True, rounds=1)


@pytest.fixture(scope="module")
def breath():
    """Ten frames of a breath; in the middle of it points have moved by nearly two voxels."""
    found = make_breath(10, size=48)
    assert float((found.members[5].moved - found.members[0].moved).norm(dim=0).mean()) > 1.5 * VOXEL_MM
    return found


@pytest.fixture(scope="module")
def rough(breath):
    """Its motion as each frame has it."""
    return correct_motion(breath.images, options=MEAN, config=QUICK)


@pytest.fixture(scope="module")
def steady(breath):
    """Its motion, smoothed over five frames around the cycle."""
    options = MotionOptions(kind=Kind.DEFORMABLE, cyclic=True, rounds=1, smooth=5)
    return correct_motion(breath.images, options=options, config=QUICK)


def test_landmarks_of_a_breath_are_followed(breath, steady):
    """From the first frame on to each other one, within a voxel; without motion they would be off by more."""
    errors = frame_errors(breath, steady.fields)
    still = frame_errors(breath, [Field.zeros(steady.reference.grid)] * 10)
    assert float(errors.max()) < VOXEL_MM
    assert float(errors.mean()) < 0.6 * float(still.mean())


def test_smoothing_follows_the_breath_and_not_the_noise(breath, rough, steady):
    """Paths bend about as little as the true ones, and are no farther from them."""
    true = torch.stack([member.moved for member in breath.members])
    bends = [roughness(trajectories(breath, each.fields)) for each in (rough, steady)]
    assert bends[1] < 0.8 * bends[0]
    assert abs(bends[1] - roughness(true)) < abs(bends[0] - roughness(true))
    assert float(frame_errors(breath, steady.fields).mean()) < 1.1 * float(frame_errors(breath, rough.fields).mean())


def test_smoothing_goes_around_a_cycle_and_keeps_extremes():
    """Which frame of a cycle is the first does not matter; a sine keeps 95 % of its height; a parabola stays itself."""
    around = MotionOptions(smooth=5, cyclic=True)
    values = np.random.default_rng(3).normal(size=(10, 4))
    np.testing.assert_allclose(smoothed(np.roll(values, 3, 0), around), np.roll(smoothed(values, around), 3, 0))
    wave = np.sin(2 * np.pi * np.arange(10) / 10)
    assert 0.95 < np.ptp(smoothed(wave, around)) / np.ptp(wave) <= 1
    assert np.std(smoothed(values, around)) < 0.8 * np.std(values)
    parabola = (np.arange(10.0) - 3) ** 2
    np.testing.assert_allclose(smoothed(parabola, MotionOptions(smooth=5)), parabola, atol=1e-9)


def test_the_corrected_series_stands_still(breath, steady):
    """Where all frames show something it changes less from frame to frame, and the numbers say how much it moved."""
    moved = torch.stack([image.data for image in breath.images]).std(0).mean()
    still = torch.stack([image.data for image in steady.corrected(breath.images)]).std(0).mean()
    assert float(still) < 0.7 * float(moved)
    true = torch.stack([member.moved for member in breath.members])
    steps = (true - true.roll(1, 0)).norm(dim=1).mean(1)
    assert np.corrcoef([each.framewise_mm for each in steady.frames], steps)[0, 1] > 0.5
    assert steady.frames[0].framewise_mm > 0  # from the last frame, in a cycle


def test_carried_labels_come_back(breath, steady):
    """Forth and back through all frames: within a tenth of a voxel of where they were, and alike on both ways."""
    labels = _labels(breath)
    found = carry(labels, 2, steady)
    assert [each.way for each in found.drift] == ["forth", "back"]
    assert all(each.mean_mm < 0.1 * VOXEL_MM for each in found.drift)
    assert max(found.apart_mm) < 0.2 * VOXEL_MM
    assert torch.equal(found.labels[2].data, 5 * labels.numbers.data)
    for number in (4, 7):
        direct = steady.fields[number].inverse().then(steady.fields[2])
        expected = 5 * warp(labels.numbers, direct, mode="nearest", outside=0.0).data
        assert float((found.labels[number].data == expected).double().mean()) > 0.97
        assert not torch.equal(found.labels[number].data, found.labels[2].data)


def test_a_step_that_leads_astray_is_seen():
    """With a map that folds, which nothing undoes, labels do not come back: the drift is more than a voxel."""
    grid = Grid.of_shape((24, 24))
    fold = Field.zeros(grid)
    fold.vox[1, :, 8:16] = -1.6 * (torch.arange(8) - 3.5)
    image = Volume(torch.rand(1, 24, 24), grid)
    motion = Motion(image, (Field.zeros(grid), fold, Field.zeros(grid)), (), MotionOptions(cyclic=True))
    found = carry(LabelMap(Volume(torch.ones(1, 24, 24), grid), (0, 1)), 0, motion)
    assert max(each.maximum_mm for each in found.drift) > 1.0
    straight = Motion(image, (Field.zeros(grid),) * 3, (), MotionOptions(cyclic=True))
    assert all(each.maximum_mm < 1e-6 for each in carry(LabelMap(image, (0, 1)), 0, straight).drift)


def test_without_a_cycle_labels_go_to_the_ends_and_back(rough, breath):
    """Every frame has labels; those of the last frame have one way only."""
    motion = Motion(rough.reference, rough.fields[:4], rough.frames[:4], MotionOptions(kind=Kind.DEFORMABLE))
    found = carry(_labels(breath), 3, motion)
    assert [each.way for each in found.drift] == ["back"]
    assert all(bool((each.data != 0).any()) for each in found.labels)


def test_a_head_that_moves_is_found():
    """Rotation and shift of each frame as it was moved, within 0.3 mm and half a degree; frame 0 is kept."""
    pair = make_pair(size=64, dimension=2, frames="isotropic")
    grid = pair.fixed.grid
    middle = np.asarray(grid.corners_xyz().mean(0))
    truth = [(0.0, (0.0, 0.0)), (2.0, (1.0, -2.0)), (-3.0, (2.0, 1.5)), (1.0, (-1.0, 0.5))]
    frames = []
    for angle, shift in truth:
        c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        matrix = linear_about([[c, -s], [s, c]], middle, middle + shift)
        back = field_of_transform(transform_of(np.linalg.inv(matrix)), grid)
        frames.append(warp(pair.moving, back, outside=0.0))
    frames[2] = Volume(1.5 * frames[2].data + 100, grid)  # brighter, as coils and contrast agent may have it
    found = correct_motion(frames, options=MotionOptions(reference=0))
    assert float(found.fields[0].vox.abs().max()) == 0
    for (angle, shift), field in zip(truth, found.fields, strict=True):
        at = field.point_map()(torch.from_numpy(middle)[:, None])[:, 0].numpy() - middle
        np.testing.assert_allclose(at, shift, atol=0.3)
        corner = field.point_map()(torch.from_numpy(middle + np.array([40, 0]))[:, None])[:, 0].numpy() - at - middle
        assert np.degrees(np.arctan2(corner[1], corner[0])) == pytest.approx(angle, abs=0.5)
    assert [each.rotation_deg[0] for each in found.frames] == pytest.approx([a for a, _ in truth], abs=0.5)
    assert max(each.deformation_mm for each in found.frames) < 1e-3


def test_the_table_measures_what_was_moved():
    """By hand: a rotation about z and a shift in 3-D, and the distance from the frame before, if there is one."""
    grid = Grid.of_shape((6, 8, 10), (1.0, 2.0, 3.0))
    image = Volume(torch.rand(1, 6, 8, 10), grid)
    c, s = np.cos(np.deg2rad(10)), np.sin(np.deg2rad(10))
    middle = np.array(grid.index_to_point() @ [2.5, 3.5, 4.5, 1])[:3]
    matrix = linear_about([[c, -s, 0], [s, c, 0], [0, 0, 1]], middle, middle + np.array([1, 2, 3]))
    fields = (Field.zeros(grid), field_of_transform(transform_of(matrix), grid))
    first, second = measured(image, fields, cyclic=False)
    assert first.framewise_mm == 0
    np.testing.assert_allclose(second.rotation_deg, (0, 0, 10), atol=1e-4)
    assert second.deformation_mm == pytest.approx(0, abs=1e-4)
    corners = grid.corners_xyz()
    assert second.framewise_mm < np.linalg.norm(mapped(matrix, corners) - corners, axis=1).max()
    assert measured(image, fields, cyclic=True)[0].framewise_mm == pytest.approx(second.framewise_mm)


def test_what_is_no_series_is_refused(breath):
    images = breath.images
    with pytest.raises(ConfigError, match="two frames or more, got 1"):
        correct_motion(images[:1])
    with pytest.raises(ConfigError, match="window of at most 3 frames, as the series has, got 5"):
        correct_motion(images[:3], options=MotionOptions(smooth=5))
    with pytest.raises(ConfigError, match="odd number of frames from 5 on, got 4"):
        MotionOptions(smooth=4)
    with pytest.raises(ConfigError, match="one of 3 frames, got 3"):
        correct_motion(images[:3], options=MotionOptions(reference=3))
    other = Volume(torch.rand(1, 12, 14), Grid.of_shape((12, 14)))
    with pytest.raises(GeometryError, match="all frames on the grid of the first"):
        correct_motion([images[0], other])
    motion = Motion(images[0], (Field.zeros(images[0].grid),) * 2, (), MotionOptions())
    with pytest.raises(GeometryError, match="labels on the grid of the series"):
        carry(LabelMap(other, (0, 1)), 0, motion)
    with pytest.raises(ImageError, match="labels with a number that is not 0"):
        carry(LabelMap(Volume(torch.zeros_like(images[0].data), images[0].grid), (0,)), 0, motion)
    with pytest.raises(ConfigError, match="labels of one of 2 frames, got frame 2"):
        carry(_labels(breath), 2, motion)


def test_the_command_writes_series_table_plot_and_labels(run, tmp_path):
    """A 4-D file with its times; the table has a row a frame; labels of frame 1 in all frames; frames as files too."""
    pair = make_pair(size=16, frames="isotropic")
    step = np.eye(4)
    frames = []
    for number in range(3):
        step[0, 3] = 6.0 * number
        frames.append(warp(pair.moving, field_of_transform(transform_of(step), pair.moving.grid), outside=0.0))
    write_series(frames, tmp_path / "series.nii.gz", "int16", timing=(0.0, 2.5))
    write_image(Volume((frames[1].data > 300).float() * 7, frames[1].grid), tmp_path / "labels.nii.gz", "uint8")
    read = read_frames([tmp_path / "series.nii.gz"])
    assert len(read.frames) == 3
    assert read.timing == (0.0, 2.5)
    np.testing.assert_allclose(read.frames[2].data, frames[2].data.round(), atol=1)
    out = tmp_path / "out"
    code, said, err = run(
        "motion", tmp_path / "series.nii.gz", "-o", out, "--reference", 0, "--kind", "rigid", "--figures",
        "--labels", tmp_path / "labels.nii.gz", "--labels-frame", 1,
    )  # fmt: skip
    assert code == 0, err
    assert "framewise displacement" in said
    assert "drift of labels, forth" in said
    names = {path.name for path in out.iterdir()}
    assert names == {
        "corrected.nii.gz", "reference.nii.gz", "motion.csv", "motion.png", "transforms", "labels.nii.gz",
        "record.json", "config.toml",
    }  # fmt: skip
    corrected = sitk.ReadImage(str(out / "corrected.nii.gz"))
    assert corrected.GetSize()[3] == 3
    assert corrected.GetSpacing()[3] == pytest.approx(2.5)
    assert corrected.GetPixelIDTypeAsString() == "16-bit signed integer"
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "labels.nii.gz")))
    assert labels.shape[0] == 3
    assert set(np.unique(labels)) == {0, 7}
    lines = (out / "motion.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("frame,shift_x_mm,shift_y_mm,shift_z_mm,rotation_x_deg")
    assert float(lines[3].split(",")[1]) == pytest.approx(-12.0, abs=2.4)  # a fifth of a voxel
    record = json.loads((out / "record.json").read_text(encoding="utf-8"))
    assert record["options"]["kind"] == "rigid"
    assert sitk.ReadTransform(str(out / "transforms" / "0002.h5")).GetDimension() == 3
    code, _, err = run("motion", tmp_path / "labels.nii.gz", "-o", tmp_path / "other")
    assert code == 2
    assert "expected a series over time" in err
    code, _, err = run("motion", tmp_path / "series.nii.gz", "--reference", "first", "-o", tmp_path / "other")
    assert code == 2
    assert "--reference mean or the number of a frame" in err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("found", "words", "transform"),
    [
        ("seed = 7\n", {}, "none"),
        ("seed = 7\n[align]\niterations = 9\n", {}, "none"),
        ("[align]\ntransform = 'rigid'\n", {}, "rigid"),
        ("seed = 7\n", {"assignments": ("align.transform=affine",)}, "affine"),
        ("seed = 7\n", {"align": Alignment.AUTO}, "auto"),
        ("seed = 7\n", {"preset": "lung-ct"}, "none"),
        ("seed = 7\n[align]\ntransform = 'affine'\n", {"preset": "lung-ct"}, "affine"),
        ("seed = 7\n", {"preset": "lung-ct", "align": Alignment.RIGID}, "rigid"),
        ("", {"config": Path("semreg.toml")}, "none"),
        ("", {"elastix": (Path("affine.txt"),)}, "affine"),
        ("", {"config": Path("none"), "fast": True}, "none"),
    ],
)
def test_frames_are_aligned_before_only_where_that_is_said(found, words, transform, tmp_path, monkeypatch):
    """A file of settings that does not name the alignment leaves the default of the command as it is."""
    monkeypatch.chdir(tmp_path)
    Path("semreg.toml").write_text(found, encoding="utf-8")
    Path("affine.txt").write_text('(Transform "AffineTransform")\n', encoding="utf-8")
    config = MotionFlags(series=(), output=Path("out"), settings=SettingFlags(**words)).config()
    assert config.align.transform == transform
    assert config.seed == (7 if "seed" in found else 0)


def test_the_page_runs_as_it_is_written(capsys):
    """The example of docs/motion.md prints a line a frame, and finds what it made."""
    page = (Path(__file__).parents[2] / "docs" / "motion.md").read_text(encoding="utf-8")
    for block in blocks("python", page):
        exec(compile(block, "docs/motion.md", "exec"), {})  # noqa: S102 - our own page
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"frame {number}" for number in range(6)]
    shifts = [float(line.split()[3]) for line in lines]
    np.testing.assert_allclose(shifts, -4 * np.sin(2 * np.pi * np.arange(6) / 6), atol=0.4)


def _labels(breath) -> LabelMap:
    """What is bright in frame 2, as a label."""
    return LabelMap(Volume((breath.images[2].data > 450).float(), breath.images[2].grid), (0, 5))
