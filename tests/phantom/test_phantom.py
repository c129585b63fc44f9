"""Promises of the phantom: its truth is a truth, and its two images differ in everything but the body they show."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semreg.core.fields import Field, jacobian_determinant, warp
from semreg.errors import ConfigError
from semreg.phantom import make_pair, points_of, render

SIZE = 40


@pytest.fixture(scope="module", params=[2, 3])
def pair(request):
    """A small pair in 2-D and in 3-D."""
    return make_pair(size=SIZE, dimension=request.param)


def test_the_true_map_is_invertible(pair):
    """The map and its inverse undo each other at every voxel of both images, to a millionth of a mm."""
    points = points_of(pair.fixed.grid).flatten(1)
    there = pair.true_map(points)
    assert (pair.true_map.inverse(there) - points).abs().max() < 1e-6
    assert (pair.true_map(pair.true_map.inverse(points)) - points).abs().max() < 1e-6


def test_the_true_map_does_not_fold(pair):
    """The Jacobian is positive everywhere and is the one that automatic differences of the map give."""
    points = points_of(pair.fixed.grid).flatten(1)[:, ::97]
    determinant = pair.true_map.jacobian_determinant(points)
    assert determinant.min() > 0.4
    h = 1e-4  # mm: differences of float64 are then exact to about 1e-8
    steps = h * torch.eye(len(points), dtype=points.dtype)
    columns = [(pair.true_map(points + s[:, None]) - pair.true_map(points - s[:, None])) / (2 * h) for s in steps]
    assert torch.allclose(torch.linalg.det(torch.stack(columns, 1).movedim(2, 0)), determinant, atol=1e-6)
    assert jacobian_determinant(pair.true_field()).min() > 0.4


def test_the_deformation_is_as_large_as_asked_for():
    """The largest displacement of landmarks is near ``displacement_mm``, and far from nothing on average."""
    for largest in (6.0, 11.0):
        pair = make_pair(size=SIZE, displacement_mm=largest)
        moved = torch.linalg.vector_norm(pair.moving_points - pair.fixed_points, dim=1)
        assert 0.7 * largest < moved.max() < 1.05 * largest
        assert moved.mean() > 0.35 * largest


def test_landmarks_follow_the_true_map(pair):
    """The landmarks of the moving image are those of the fixed one, moved; all lie inside both images."""
    assert pair.fixed_points.shape == (250, pair.fixed.grid.dimension)
    assert torch.equal(pair.true_map(pair.fixed_points.T).T, pair.moving_points)
    for image, points in ((pair.fixed, pair.fixed_points), (pair.moving, pair.moving_points)):
        index = image.grid.point_to_index() @ np.vstack([points.T.numpy(), np.ones(len(points))])
        assert index[:-1].min() > 0
        assert (index[:-1].max(1) < np.array(image.grid.shape) - 1).all()


@pytest.mark.parametrize(("dimension", "size"), [(2, 160), (3, 96)])
def test_images_agree_with_the_true_map(dimension, size):
    """A third image, the CT of the moving body, warped by the truth is the fixed CT but for what interpolation costs.

    Most voxels away from edges agree to a few HU; the same image without a warp, or warped the wrong way, is far off.
    """
    pair = make_pair(size=size, dimension=dimension)
    ct = render(pair.anatomy, pair.moving.grid, "ct", origin_of=pair.true_map.inverse)
    expected = render(pair.anatomy, pair.fixed.grid, "ct").data
    truth = pair.true_field()

    def difference(field):
        found = warp(ct, field, outside=float("nan")).data
        seen = torch.isfinite(found) & (expected > -500)  # the air around agrees with everything
        assert seen.float().mean() > 0.3
        return (found - expected)[seen].abs()

    right = difference(truth)
    assert right.median() < 2.0
    for wrong in (Field(0 * truth.vox, truth.grid), Field(-truth.vox, truth.grid)):
        assert difference(wrong).mean() > 3 * right.mean()


def test_images_are_those_of_the_map(pair):
    """Each image is its rendering but for noise: the fixed one as the body lies, the moving one moved by the truth."""
    fixed = render(pair.anatomy, pair.fixed.grid, "ct")
    moving = render(pair.anatomy, pair.moving.grid, "mr", origin_of=pair.true_map.inverse)
    wrong = render(pair.anatomy, pair.moving.grid, "mr", origin_of=pair.true_map)
    assert (pair.fixed.data - fixed.data).abs().mean() < 12.0  # HU, the deviation of the noise
    noise = (pair.moving.data - moving.data).abs().mean()
    assert noise < 16.0
    assert (pair.moving.data - wrong.data).abs().mean() > 3 * noise


def test_grids_share_nothing(pair):
    """The oblique grids differ in size, spacing, origin and direction on every axis; no direction is a plain one."""
    fixed, moving = pair.fixed.grid, pair.moving.grid
    for grid in (fixed, moving):
        assert len(set(grid.size_xyz)) == grid.dimension
        assert len({round(s, 3) for s in grid.spacing_xyz}) == grid.dimension
        assert 0.1 < np.abs(np.asarray(grid.direction)).max(0).min() < 0.99
    assert all(a != b for a, b in zip(fixed.size_xyz, moving.size_xyz, strict=True))
    assert np.abs(np.asarray(fixed.origin_xyz) - np.asarray(moving.origin_xyz)).min() > 1.0
    assert np.abs(np.asarray(fixed.direction) - np.asarray(moving.direction)).max() > 0.3


def test_isotropic_grids_are_plain():
    """For the benchmarks both images lie on one grid of cubes; body and deformation are those of the oblique pair."""
    plain, oblique = make_pair(size=SIZE, frames="isotropic"), make_pair(size=SIZE)
    assert plain.fixed.grid == plain.moving.grid
    assert plain.fixed.grid.size_xyz == (SIZE,) * 3
    assert len(set(plain.fixed.grid.spacing_xyz)) == 1
    assert plain.fixed.grid.direction == ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    points = points_of(plain.fixed.grid).flatten(1)
    assert torch.equal(plain.true_map(points), oblique.true_map(points))


def test_the_same_seed_gives_the_same_pair():
    """A pair depends on its parameters alone; another seed is another body, deformation and noise."""
    first, again, other = (make_pair(size=24, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.fixed.data, again.fixed.data)
    assert torch.equal(first.moving.data, again.moving.data)
    assert torch.equal(first.moving_points, again.moving_points)
    assert not torch.equal(first.fixed.data, other.fixed.data)
    assert not torch.equal(first.true_field().vox, other.true_field().vox)


def test_intensities_are_those_of_scanners(pair):
    """CT in whole HU that fit int16, MR in whole numbers that fit uint16, and no monotonic function of one another."""
    for image, low, high in ((pair.fixed, -1024, 2000), (pair.moving, 0, 4000)):
        assert torch.equal(image.data, image.data.round())
        assert image.data.min() >= low
        assert image.data.max() <= high
    ct, mr = (render(pair.anatomy, pair.fixed.grid, contrast).data.flatten() for contrast in ("ct", "mr"))
    means = [float(mr[(ct > a) & (ct < b)].mean()) for a, b in ((-1100, -900), (-130, -70), (35, 75))]
    assert means[0] < means[2] < means[1]  # air, fat, muscle: CT says air, fat, muscle are ascending


def test_impossible_phantoms_are_refused():
    """A dimension or size that makes no phantom is a sentence, not a trace."""
    for wrong in ({"dimension": 4}, {"size": 3}):
        with pytest.raises(ConfigError, match="expected a phantom"):
            make_pair(**wrong)
