"""Promises of the heads, the slides, the labels and the moved pairs: their truth is a truth, and files hold them."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from conftest import rotation
from semreg.core.fields import Volume, warp
from semreg.errors import ConfigError
from semreg.phantom import make_brains, make_pair, make_slides, points_of, render, write_pair
from semreg.quality.reading import of_pixels

MAKERS = {
    "abdomen": lambda: make_pair(size=32),
    "heads": lambda: make_brains(size=40, contrasts=("t1", "t2")),
    "slides": lambda: make_slides(size=128),
}


@pytest.fixture(scope="module", params=MAKERS)
def pair(request):
    """A small pair of each kind."""
    return MAKERS[request.param]()


def motion(dimension, shift=(60.0, -25.0, 14.0)):
    """A turn of 30° and a shift, homogeneous, mm."""
    matrix = np.eye(dimension + 1)
    matrix[:-1, :-1], matrix[:-1, -1] = rotation(dimension, 30.0), shift[:dimension]
    return matrix


def dice(a, b, label):
    """The overlap of one label of two maps."""
    a, b = a == label, b == label
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_the_truth_brings_the_labels_together(pair):
    """The moving labels, read where the true map leads, are the fixed ones but for the voxels at their borders.

    Without the map, or with its inverse, most structures are elsewhere.
    """
    fixed, moving = pair.fixed_labels(), pair.moving_labels()
    points = points_of(fixed.grid).flatten(1)

    def overlap(brought):
        index = moving.grid.point_to_index() @ np.vstack([brought.numpy(), np.ones(points.shape[1])])
        index = np.rint(index[:-1]).astype(int)
        limits = np.array(moving.grid.shape)[:, None]
        seen = ((index >= 0) & (index < limits)).all(0)
        found = np.zeros(points.shape[1])
        found[seen] = moving.data[0].numpy()[tuple(index[:, seen])]
        inside = fixed.data.flatten().numpy() * seen  # the images need not show the same
        return np.mean([dice(inside, found, label) for label in pair.label_names if (inside == label).sum() > 60])

    right = overlap(pair.true_map(points))
    assert right > 0.75
    assert max(overlap(points), overlap(pair.true_map.inverse(points))) < right - 0.1


def test_every_label_is_there(pair):
    """All numbers that have a name are in both maps, and no other but 0."""
    for labels in (pair.fixed_labels(), pair.moving_labels()):
        assert set(labels.data.unique().tolist()) == {0, *pair.label_names}


def test_labels_are_what_the_image_shows():
    """The ventricles, fluid, are dark in T1 and bright in T2, and white matter the other way round."""
    pair = make_brains(size=48, contrasts=("t1", "t1"))
    labels = pair.fixed_labels().data
    t1, t2 = (render(pair.anatomy, pair.fixed.grid, contrast).data for contrast in ("t1", "t2"))
    names = {name: number for number, name in pair.label_names.items()}
    fluid, white = labels == names["ventricles"], labels == names["white matter"]
    assert t1[fluid].mean() < 0.6 * t1[white].mean()
    assert t2[fluid].mean() > 1.5 * t2[white].mean()


def test_landmarks_follow_the_true_map(pair):
    """There are enough landmarks, and those of the moving image are those of the fixed one, moved."""
    assert len(pair.fixed_points) >= 100
    assert torch.equal(pair.true_map(pair.fixed_points.T).T, pair.moving_points)
    assert (pair.true_map.inverse(pair.moving_points.T).T - pair.fixed_points).abs().max() < 1e-6


@pytest.mark.parametrize(("make", "contrast", "most"), [(make_brains, "t1", 30.0), (make_slides, "eosin", 8.0)])
def test_images_agree_with_the_true_map(make, contrast, most):
    """The moving body in the contrast of the fixed image, warped by the truth, is the fixed image without noise."""
    pair = make(size=64 if make is make_brains else 256)
    body, grid = pair.anatomy, pair.moving.grid
    moving = body.intensity(pair.true_map.inverse(points_of(grid).flatten(1)).numpy(), contrast)
    fixed = body.intensity(points_of(pair.fixed.grid).flatten(1).numpy(), contrast)
    volume = Volume(torch.from_numpy(moving).reshape(1, *grid.shape), grid)
    found = warp(volume, pair.true_field(), outside=float("nan")).data.flatten()
    seen = torch.isfinite(found)
    wrong = (found - torch.from_numpy(fixed))[seen].abs()
    assert seen.float().mean() > 0.6
    assert wrong.mean() < most
    assert wrong.median() < most / 3


def test_a_moved_pair_shows_the_same_elsewhere(pair):
    """Moving a pair changes no voxel; grid, points, labels and truth go along."""
    n = pair.fixed.grid.dimension
    other = pair.moved(motion(n))
    assert torch.equal(other.moving.data, pair.moving.data)
    assert other.fixed.grid == pair.fixed.grid
    index = [
        p.moving.grid.point_to_index() @ np.vstack([p.moving_points.T.numpy(), np.ones(len(p.moving_points))])
        for p in (pair, other)
    ]
    assert np.allclose(*index, atol=1e-6)  # voxels
    assert torch.equal(other.moving_labels().data, pair.moving_labels().data)
    assert (other.true_map(pair.fixed_points.T).T - other.moving_points).abs().max() < 1e-6
    assert (other.true_map.inverse(other.moving_points.T).T - pair.fixed_points).abs().max() < 1e-6
    some = pair.fixed_points.T
    assert torch.equal(other.true_map.jacobian_determinant(some), pair.true_map.jacobian_determinant(some))
    assert (other.moving_points - pair.moving_points).norm(dim=1).mean() > 10  # mm


def test_slides_are_turned_and_heads_are_stored_apart():
    """The second slide lies ``degrees`` further round; the second head is stored in another order of axes."""
    slides = make_slides(size=128, degrees=40.0, displacement_mm=1.0)
    a, b = (points - points.mean(0) for points in (slides.fixed_points, slides.moving_points))
    turn = torch.atan2((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum(), (a * b).sum())
    assert float(turn.rad2deg()) == pytest.approx(40.0, abs=2.0)
    assert slides.fixed.grid.origin_xyz == slides.moving.grid.origin_xyz == (0.0, 0.0)
    heads = make_brains(size=16)
    near, far = (np.abs(np.array(image.grid.direction)).argmax(0).tolist() for image in (heads.fixed, heads.moving))
    assert (near, far) == ([0, 1, 2], [1, 2, 0])


def test_the_same_seed_gives_the_same_pair():
    """A pair depends on its parameters alone; another seed has other folds, glands and noise."""
    for make in (make_brains, make_slides):
        first, again, other = (make(size=24, seed=seed) for seed in (3, 3, 4))
        assert torch.equal(first.fixed.data, again.fixed.data)
        assert torch.equal(first.moving.data, again.moving.data)
        assert not torch.equal(first.fixed_labels().data, other.fixed_labels().data)


@pytest.mark.parametrize(("kind", "suffix"), [("abdomen", ".nii.gz"), ("heads", ".nii.gz"), ("slides", ".png")])
def test_files_hold_the_pair(kind, suffix, tmp_path):
    """What is written is what the pair says, to the voxel and the last digit of a point, of pictures in pixels."""
    pair = MAKERS[kind]()
    files = write_pair(pair, tmp_path, suffix=suffix)
    assert {path.name for path in files} == {path.name for path in tmp_path.iterdir()}
    volumes = {
        "fixed": pair.fixed,
        "moving": pair.moving,
        "fixed_labels": pair.fixed_labels(),
        "moving_labels": pair.moving_labels(),
    }
    for name, volume in volumes.items():
        image = sitk.ReadImage(str(tmp_path / f"{name}{suffix}"))
        assert np.array_equal(sitk.GetArrayFromImage(image), volume.data[0].numpy())
        assert image.GetOrigin() == pytest.approx(volume.grid.origin_xyz, abs=1e-3)
        assert image.GetSpacing() == pytest.approx(volume.grid.spacing_xyz, rel=1e-5)
    for name, points in (("fixed", pair.fixed_points), ("moving", pair.moving_points)):
        read = np.loadtxt(tmp_path / f"{name}_points.csv", delimiter=",", skiprows=1)
        shown = of_pixels(read, volumes[name].grid) if suffix == ".png" else read  # as evaluate takes them
        assert np.allclose(shown, points.numpy(), rtol=0, atol=1e-3)  # mm
    names = (tmp_path / "labels.csv").read_text(encoding="utf-8").splitlines()
    assert names == ["label,name", *[f"{number},{name}" for number, name in pair.label_names.items()]]


def test_impossible_phantoms_are_refused():
    """A size or contrast that makes no phantom is a sentence, not a trace."""
    with pytest.raises(ConfigError, match="expected heads"):
        make_brains(contrasts=("t1", "flair"))
    with pytest.raises(ConfigError, match="expected heads"):
        make_brains(size=3)
    with pytest.raises(ConfigError, match="expected slides"):
        make_slides(size=3)
    with pytest.raises(ConfigError, match="expected frames of oblique or isotropic"):
        make_pair(size=9, frames="straight")
    with pytest.raises(ConfigError, match="one landmark or more"):
        make_slides(size=24, landmarks=0)
