"""Promises of the parts of the alignment: the match is its formula, shifts are all tried, descent reaches the map."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from conftest import centre, grid_at, make_grid, noise, noise_volume, oblique_grid, rotation, sitk_resample
from placed_pair import ANATOMY, describe, fixed_grid, linear, moving_grid, picture, placed_pair, shown
from semreg.core.fields import Layer, Volume
from semreg.core.geometry import Grid
from semreg.errors import ConfigError
from semreg.phantom import render
from semreg.phantom.anatomy import CENTRE_MM
from semreg.registration.parametric import shifts
from semreg.registration.parametric.descent import Descent
from semreg.registration.parametric.overlap import (
    Picture,
    Seen,
    describe_picture,
    describe_through,
    match,
    turned_grid,
    unrelated,
)
from semreg.registration.parametric.shifts import IMPOSSIBLE, ShiftSearch
from semreg.transforms.linear import Linear
from semreg.transforms.maps import FAMILIES, exponential, generators, linear_about, mapped, scales

MM = {2: 3.0, 3: 5.5}
"""Voxels on which pairs are compared."""
STRETCH = np.diag([1.12, 0.93, 1.05]) + np.array([[0, 0.06, 0], [0, 0, 0.05], [0.04, 0, 0]])
SILENT = lambda *_: None  # noqa: E731


def as_they_are(volume, weight):
    """Intensities as features."""
    return Layer(volume, weight)


def seen(shape, channels=3, seed=0):
    """Random features, a random share of which a third is 0."""
    share = (noise(1, *shape, seed=seed + 100)[0] + 0.5).clamp(0, 1)
    grid = Grid.of_shape(shape)
    return Seen(noise(channels, *shape, seed=seed), share, grid)


def unrelated_by_loops(fixed, moving):
    """The mean over all pairs of places."""
    f, m = (s.features.flatten(1).numpy().T for s in (fixed, moving))
    w, v = (s.share.flatten().numpy() for s in (fixed, moving))
    pairs = sum(w[i] * v[j] * ((f[i] - m[j]) ** 2).sum() for i in range(len(f)) for j in range(len(m)))
    return pairs / (w.sum() * v.sum())


def shifts_by_loops(fixed, moving, most):
    """{shift: (match, overlap)}, the voxel i of the fixed image over the voxel i + shift of the moving one."""
    scale, found = unrelated_by_loops(fixed, moving), {}
    ranges = [range(-(a - 1), b) for a, b in zip(fixed.share.shape, moving.share.shape, strict=True)]
    for shift in itertools.product(*ranges):
        gain = overlap = 0.0
        for i in np.ndindex(*fixed.share.shape):
            j = tuple(int(k) for k in np.add(i, shift))
            if all(0 <= k < n for k, n in zip(j, moving.share.shape, strict=True)):
                w = float(fixed.share[i] * moving.share[j])
                d = float((fixed.features[(slice(None), *i)] - moving.features[(slice(None), *j)]).square().sum())
                gain, overlap = gain + w * (scale - d), overlap + w
        found[shift] = (gain / (scale * np.sqrt(max(overlap, 1e-6) * most)), overlap)
    return found


@pytest.mark.parametrize(("near", "far"), [((3, 4, 2), (2, 3, 4)), ((5, 4), (3, 6)), ((1, 4, 3), (2, 2, 5))])
def test_every_shift_is_the_formula(near, far):
    """All matches and overlaps that come of Fourier transforms are those of a loop over shifts and voxels."""
    fixed, moving = seen(near), seen(far, seed=7)
    layer = Layer(Volume(fixed.features, fixed.grid), None)
    content = Volume(fixed.share[None], fixed.grid)
    still = Picture(Volume(fixed.share[None], fixed.grid), None, content)
    other = Picture(Volume(moving.share[None], moving.grid), None, Volume(moving.share[None], moving.grid))
    search = ShiftSearch(still, other, lambda *_: layer, 0.3)
    most = min(float(fixed.share.sum()), float(moving.share.sum()))
    matches, overlap = search._all_shifts(moving)
    left = torch.ones_like(matches, dtype=torch.bool)
    for shift, (value, shared) in shifts_by_loops(fixed, moving, most).items():
        assert float(overlap[shift]) == pytest.approx(shared, abs=1e-9)
        expected = value if shared >= 0.3 * most else IMPOSSIBLE
        assert float(matches[shift]) == pytest.approx(expected, abs=1e-9)
        left[shift] = False
    assert bool((matches[left] == IMPOSSIBLE).all())
    assert bool((matches > IMPOSSIBLE).any())


def test_unrelated_places_are_all_pairs():
    """The difference of unrelated places is the mean over all pairs of voxels, each counted by its share."""
    fixed, moving = seen((3, 4, 2)), seen((2, 5, 3), seed=3)
    assert unrelated(fixed, moving) == pytest.approx(unrelated_by_loops(fixed, moving), rel=1e-9)


def test_less_of_the_image_matches_less():
    """Of two overlaps that match equally well per voxel the larger matches better; a full one that is equal is 1."""
    scale, most = 3.0, 100.0
    found = [
        float(match(torch.tensor(share * scale), torch.tensor(share), most, scale)) for share in (1.0, 25.0, 100.0)
    ]
    np.testing.assert_allclose(found, [0.1, 0.5, 1.0])


@pytest.mark.parametrize("dimension", [2, 3])
def test_equal_images_match_best_where_they_are(dimension):
    """An image matches itself with 1, and no shift, turn or stretch, out of view or not, matches as well."""
    grid = fixed_grid(dimension, 20)
    image = shown(grid, "ct")
    itself = Picture(image, None, Volume(torch.ones_like(image.data), grid)).at(max(grid.spacing))
    descent = Descent(itself, itself, describe)
    inner = descent.look(Linear(np.eye(dimension + 1)))
    everywhere = describe_through(itself, Linear(np.eye(dimension + 1)), itself.image.grid, describe)
    # only what is compared at the border, where features of the resampled image are unknown, is missing
    assert inner.match == pytest.approx(float((everywhere.share.mean()) ** 0.5), abs=0.02)
    basis = generators("affine", centre(grid))
    for seed in range(12):
        draw = np.random.default_rng(seed).normal(size=len(basis))
        draw[:dimension] *= 12.0
        draw[dimension:] *= 0.15
        assert descent.look(Linear(exponential(draw, basis))).match < inner.match - 0.05
    matches, overlap = ShiftSearch(itself, itself, describe, 1e-3)._all_shifts(describe_picture(itself, describe))
    assert int(matches.argmax()) == 0
    assert float(matches.max()) == pytest.approx(1.0, abs=1e-4)
    slid = (overlap < 0.2 * overlap.max()) & (matches > IMPOSSIBLE)
    assert bool(slid.any())
    assert float(matches[slid].max()) < 0.5


def test_sliding_out_of_view_never_wins():
    """With next to no overlap demanded, the right shift of an image in CT and MR still matches best of all."""
    pair = placed_pair(linear(2, shift=(60.0, -45.0)))
    search = ShiftSearch(pair.fixed.at(5.0), pair.moving.at(5.0), describe, 0.01)
    assert pair.error(search.candidates(np.eye(2))[0].matrix) < 5.0


@pytest.mark.parametrize("dimension", [2, 3])
def test_shifts_after_the_right_turn(dimension):
    """On oblique grids of different sizes the best shift after the true rotation is within a voxel of the truth."""
    pair = placed_pair(linear(dimension, degrees=33.0, shift=(80.0, -45.0, 60.0)))
    fixed, moving = pair.fixed.at(MM[dimension]), pair.moving.at(MM[dimension])
    search = ShiftSearch(fixed, moving, describe, 0.3)
    first, second = search.candidates(pair.truth[:dimension, :dimension])
    assert pair.error(first.matrix) < MM[dimension]
    np.testing.assert_allclose(first.matrix[:-1, :-1], pair.truth[:-1, :-1], atol=1e-12)
    assert first.match > second.match
    apart = np.linalg.norm(
        mapped(first.matrix, [centre(fixed.image.grid)]) - mapped(second.matrix, [centre(fixed.image.grid)])
    )
    assert apart > 2 * MM[dimension]
    there = Descent(fixed, moving, describe).look(Linear(first.matrix))
    assert (there.match, there.overlap) == pytest.approx((first.match, first.overlap), abs=0.06)


def test_rotations_together_are_those_one_by_one(monkeypatch):
    """In the order they are given, each told once; spectra of the fixed picture are made once for each shape."""
    pair = placed_pair(linear(3, degrees=20.0))
    fixed, moving = pair.fixed.at(MM[3]), pair.moving.at(MM[3])
    turns = [rotation(3, degrees) for degrees in (0.0, 40.0, 0.0, 80.0, 40.0)]
    shapes, told = [], []
    made = shifts.spectra
    monkeypatch.setattr(shifts, "spectra", lambda seen, shape: shapes.append(shape) or made(seen, shape))
    together = ShiftSearch(fixed, moving, describe, 0.3).best(turns, lambda: told.append(1))
    assert len(told) == len(turns)
    assert len(shapes) == len(set(shapes)) > 1
    for turn, (found,) in zip(turns, together, strict=True):
        (alone,) = ShiftSearch(fixed, moving, describe, 0.3).candidates(turn, 1)
        np.testing.assert_array_equal(found.matrix, alone.matrix)
        assert found.match == alone.match


def test_no_shift_with_enough_overlap_gives_no_candidate():
    """A strip across and one along the body share less than asked for at any shift: there is no candidate then."""
    across = grid_at(CENTRE_MM[:2], (60, 14), (3.0, 3.1), rotation(2, 5.0))
    along = grid_at(CENTRE_MM[:2], (13, 50), (3.2, 3.0), rotation(2, 8.0))
    still, other = [
        Picture(shown(grid, kind), None, Volume(torch.ones(1, *grid.shape), grid)).at(4.0)
        for grid, kind in ((across, "ct"), (along, "mr"))
    ]
    assert ShiftSearch(still, other, describe, 0.5).candidates(np.eye(2)) == []
    assert len(ShiftSearch(still, other, describe, 0.2).candidates(np.eye(2), 5)) == 5


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_turned_grid_holds_the_picture(dimension):
    """All corners of the turned picture lie in its box, which has the other image's axes and the voxels asked for."""
    grid = oblique_grid(dimension)
    frame = oblique_grid(dimension, degrees=-40.0)
    turn = linear_about(rotation(dimension, 28.0), centre(grid), centre(grid) + 5)
    found = turned_grid(picture(noise_volume(grid)), turn, 0.7, frame)
    assert found.direction == frame.direction
    assert found.spacing == (0.7,) * dimension
    index = mapped(found.point_to_index(), mapped(turn, grid.corners_xyz()))
    assert (index >= -0.5 - 1e-3).all()
    assert (index <= np.array(found.shape) - 0.5 + 1e-3).all()
    assert (np.ptp(index, axis=0) > np.array(found.shape) - 1.001).all()


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_identity_shows_the_picture(dimension):
    """Features read through the identity are those of the picture, but for the border."""
    image = picture(shown(fixed_grid(dimension, 20), "ct"))
    plain = describe_picture(image, describe)
    through = describe_through(image, Linear(np.eye(dimension + 1)), image.image.grid, describe)
    inner = (slice(2, -2),) * dimension
    np.testing.assert_allclose(
        through.features[(slice(None), *inner)], plain.features[(slice(None), *inner)], atol=2e-3
    )
    np.testing.assert_allclose(through.share[inner], plain.share[inner], atol=1e-5)


@pytest.mark.parametrize("dimension", [2, 3])
def test_images_are_read_through_the_map_as_simpleitk_does(dimension):
    """What is described is SimpleITK's resampling by the same affine map, and counts only where the image is."""
    grid, n = oblique_grid(dimension), dimension
    onto = grid_at(centre(grid) + 0.4, (9, 8, 7)[:n], (0.9, 1.1, 1.4)[:n], rotation(n, 5.0))
    matrix = linear_about(rotation(dimension, 12.0) * 1.1, centre(grid), centre(grid) + 0.6)
    image = noise_volume(grid)
    content = Volume(image.data.abs().clamp(max=1.0), grid)
    found = describe_through(Picture(image, None, content), Linear(matrix), onto, as_they_are)
    transform = sitk.AffineTransform(dimension)
    transform.SetMatrix(matrix[:-1, :-1].ravel().tolist())
    transform.SetTranslation(matrix[:-1, -1].tolist())
    expected = sitk_resample(image, onto, transform)
    where = expected > -9
    assert 0.2 < where.mean() < 0.95
    np.testing.assert_allclose(found.features[0].numpy()[where], expected[where], atol=1e-6)
    np.testing.assert_allclose(found.share, sitk_resample(content, onto, transform, outside=0.0), atol=1e-6)
    assert (found.features[0].numpy()[~where] == float(image.data.min())).all()


def test_pictures_of_larger_voxels_are_means_of_what_counts():
    """A picture on larger voxels is the mean of the voxels that are not excluded; a constant stays one."""
    grid = make_grid((24, 18, 12), (1.0, 1.0, 2.0), (5.0, -3.0, 8.0), rotation(3))
    weight = Volume((noise(1, *grid.shape, seed=2) > -0.3).float(), grid)
    image = Volume(torch.where(weight.data > 0, 7.0, 3e8), grid)
    content = Volume(torch.ones(1, *grid.shape), grid)
    coarse = Picture(image, weight, content).at(4.0)
    assert coarse.image.grid.spacing == (4.0, 4.0, 4.0)
    assert coarse.image.grid == coarse.weight.grid == coarse.content.grid
    full = coarse.weight.data > 0.01
    np.testing.assert_allclose(coarse.image.data[full], 7.0, rtol=1e-5)
    assert coarse.weight.data.mean() == pytest.approx(float(weight.data.mean()), abs=0.05)
    assert Picture(image, None, content).at(4.0).weight is None
    assert Picture(image, weight, content).to(torch.device("cpu")).weight is not None


def sought(family, dimension):
    """A map of the family, as far away as descent is expected to reach."""
    turn, shift = 0.0 if family == "translation" else 8.0, (9.0, -7.0, 6.0)
    stretch = {"similarity": 1.08 * np.eye(3), "affine": STRETCH}.get(family)
    return linear(dimension, degrees=turn, shift=shift, stretch=stretch)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_descent_reaches_the_map(family, dimension):
    """From the headers, CT onto MR on unlike oblique grids, to a fraction of a voxel of the comparison."""
    truth = sought(family, dimension)
    start = np.eye(dimension + 1)
    pair = placed_pair(truth, moving=moving_grid(dimension, start))
    descent = Descent(pair.fixed.at(MM[dimension]), pair.moving.at(MM[dimension]), describe)
    told = []
    found = descent.descend(descent.begin(family, start), 40, lambda step, value: told.append((step, value)))
    assert pair.error(start) > 1.5 * MM[dimension]
    assert pair.error(found.matrix) < 0.25 * MM[dimension]
    assert [value for _, value in told] == sorted(value for _, value in told)  # the best so far
    assert told[-1][1] == found.match == descent.look(found.transform).match
    if family in ("translation", "rigid"):
        np.testing.assert_allclose(scales(found.matrix), 1.0, atol=1e-9)


@pytest.mark.parametrize(("dimension", "mm", "share"), [(2, 3.0, 0.55), (3, 8.0, 0.75)])
def test_descent_reaches_a_deformation(dimension, mm, share):
    """A spline found by the same descent, CT onto MR, takes away what no affine map can of a smooth deformation."""
    n, wavelength = dimension, 220.0

    def deformed(points):
        """Waves of 10 mm along each axis, (D, N) in mm."""
        from_middle = points - torch.tensor(CENTRE_MM[:n], dtype=points.dtype)[:, None]
        return points + 10.0 * torch.stack(
            [
                torch.sin(2 * torch.pi * from_middle[(axis + 1) % n] / wavelength + 0.7 * axis)
                * torch.cos(torch.pi * from_middle[axis] / wavelength)
                for axis in range(n)
            ]
        )

    def origin(points):
        """By fixed-point steps: the waves are flat enough."""
        flat = points.reshape(n, -1)
        found = flat.clone()
        for _ in range(60):
            found = found - (deformed(found) - flat)
        return found.reshape(points.shape)

    grid = moving_grid(n, np.eye(n + 1))
    clean = render(ANATOMY, grid, "mr", origin_of=origin).data
    moving = Volume(clean + 10.0 * noise(*clean.shape, dtype=clean.dtype), grid)
    descent = Descent(picture(shown(fixed_grid(n), "ct")).at(mm), picture(moving).at(mm), describe)
    inner = np.array(CENTRE_MM[:n])[:, None] + [[60.0], [45.0], [50.0]][:n] * np.random.default_rng(8).uniform(
        -1, 1, (n, 200)
    )
    truth = deformed(torch.as_tensor(inner)).numpy()

    def error(found):
        return float(np.linalg.norm(found.transform.map(inner) - truth, axis=0).mean())

    affine = descent.descend(descent.begin("affine", np.eye(n + 1)), 30, SILENT)
    found = descent.descend(descent.begin("bspline", affine.matrix), 30, SILENT)
    assert error(found) < share * error(affine) < share * error(descent.look(Linear(np.eye(n + 1))))
    assert found.match > 1.05 * affine.match
    assert found.value > affine.value
    assert np.linalg.det(found.transform.jacobian(inner)).min() > 0.3


def test_a_family_that_is_none_is_refused():
    """A name of no family is refused with those that there are."""
    pair = placed_pair(linear(2))
    descent = Descent(pair.fixed.at(12.0), pair.moving.at(12.0), describe)
    with pytest.raises(ConfigError, match="translation, rigid, similarity, affine, bspline, got 'spline'"):
        descent.begin("spline", np.eye(3))


def test_descent_never_ends_worse():
    """From anywhere, good or hopeless, the match at the end is at least that of the start, and twice the same."""
    pair = placed_pair(linear(2))
    descent = Descent(pair.fixed.at(5.0), pair.moving.at(5.0), describe)
    basis = generators("affine", np.array([12.0, -37.0]))
    for seed in range(10):
        draw = np.random.default_rng(seed).normal(size=6) * (40.0, 40.0, 0.4, 0.4, 0.4, 0.4)
        start = exponential(draw, basis)
        ends = [descent.descend(descent.begin("affine", start), 10, SILENT) for _ in range(2)]
        assert ends[0].match >= descent.look(Linear(start)).match
        np.testing.assert_array_equal(ends[0].matrix, ends[1].matrix)


def test_descent_without_overlap_stays():
    """Where the images share nothing there is no match and no way, and that is no error."""
    pair = placed_pair(linear(3))
    descent = Descent(pair.fixed.at(12.0), pair.moving.at(12.0), describe)
    away = linear(3, shift=(4000.0, 0.0, 0.0))
    found = descent.descend(descent.begin("affine", away), 5, SILENT)
    assert (found.match, found.overlap) == (0.0, 0.0)
    np.testing.assert_array_equal(found.matrix, away)


def test_excluded_voxels_do_not_pull():
    """Whatever excluded voxels of either image hold, matches and descents are the same."""
    ends = []
    for garbage in (0.0, -3e7):
        pair = placed_pair(linear(2, degrees=6.0, shift=(6.0, -5.0)))
        pictures = []
        for image in (pair.fixed, pair.moving):
            weight = torch.ones_like(image.image.data)
            weight[:, :9, 4:20] = 0.0
            values = torch.where(weight > 0, image.image.data, garbage)
            grid = image.image.grid
            pictures.append(Picture(Volume(values, grid), Volume(weight, grid), image.content).at(5.5))
        descent = Descent(*pictures, describe)
        ends.append(descent.descend(descent.begin("rigid", np.eye(3)), 20, SILENT))
        ends.append(ShiftSearch(*pictures, describe, 0.3).candidates(rotation(2, 6.0))[0])
    for first, second in (ends[::2], ends[1::2]):
        np.testing.assert_array_equal(first.matrix, second.matrix)
        assert (first.match, first.overlap) == (second.match, second.overlap)


def test_voxels_count_by_how_much_of_them_is_known():
    """Between known voxels and excluded ones the value is the mean of the known, whatever the excluded ones hold."""
    grid = oblique_grid(3)
    weight = noise(1, *grid.shape, seed=2).clamp(0, 1)
    values = torch.where(weight > 0, 7.0, -3e8).double()
    known = Picture(Volume(values, grid), Volume(weight, grid), Volume(torch.ones_like(weight), grid))
    shifted = linear_about(np.eye(3), (0.0, 0.0, 0.0), (0.3, 0.2, -0.5))
    found = describe_through(known, Linear(shifted), grid, as_they_are)
    assert 10 < int((found.share > 0).sum()) < grid.voxels
    np.testing.assert_allclose(found.features[0][found.share > 0], 7.0)
