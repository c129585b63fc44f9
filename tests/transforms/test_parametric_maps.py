"""Promises of linear maps and of the rotations that are tried: each family stays itself, fits are the best, no gaps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.optimize
import torch
from scipy.spatial.transform import Rotation

from conftest import centre, grid_at, make_grid, oblique_grid, points_of, rotation, signed_permutations
from semreg.core.fields import Volume
from semreg.errors import ConfigError, GeometryError
from semreg.registration.parametric.rotations import ball, between_axes, between_moments, principal_axes, ring
from semreg.registration.parametric.rotations import rotation as by_vector
from semreg.transforms.maps import (
    FAMILIES,
    angle_deg,
    exponential,
    fit_points,
    generators,
    largest_move,
    linear_about,
    mapped,
    scales,
)

COUNTS = {2: (2, 3, 4, 6), 3: (3, 6, 7, 12)}
"""Parameters of each family."""
ABOUT = np.array([31.0, -84.0, 55.0])


def random(seed=0):
    return np.random.default_rng(seed)


def homogeneous(matrix, points):
    """Points moved one at a time, by the definition of a homogeneous matrix."""
    return np.array([(matrix @ np.append(p, 1.0))[:-1] for p in points])


def angles_between(turns, others):
    """Degrees from each of ``turns`` to the nearest of ``others``."""
    traces = np.einsum("aij,bij->ab", np.array(turns), np.array(others)).max(1)
    n = len(turns[0])
    return np.degrees(np.arccos(np.clip((traces - (n - 2)) / 2, -1, 1)))


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_families_stay_what_they_are(family, dimension):
    """Any product of steps keeps what its family keeps: lengths, shape, or parallel lines."""
    basis = generators(family, ABOUT[:dimension])
    assert len(basis) == COUNTS[dimension][FAMILIES.index(family)]
    draw = random()
    product = np.eye(dimension + 1)
    for _ in range(5):
        product = product @ exponential(draw.normal(scale=0.4, size=len(basis)), basis)
    linear = product[:dimension, :dimension]
    gram = linear.T @ linear
    size = np.linalg.det(linear) ** (2 / dimension)
    np.testing.assert_allclose(product[dimension], np.eye(dimension + 1)[dimension], atol=1e-14)
    assert np.linalg.det(linear) > 0
    if family == "translation":
        np.testing.assert_allclose(linear, np.eye(dimension), atol=1e-14)
    elif family == "rigid":
        np.testing.assert_allclose(gram, np.eye(dimension), atol=1e-12)
        assert angle_deg(product) > 1
    elif family == "similarity":
        np.testing.assert_allclose(gram, size * np.eye(dimension), atol=1e-12)
        assert abs(size - 1) > 0.01
    else:
        assert np.ptp(scales(product)) > 0.1


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_generators_turn_and_stretch_about_the_centre(family, dimension):
    """All but translations leave the centre where it is, and all are independent."""
    basis = generators(family, ABOUT[:dimension])
    for generator in basis[dimension:]:
        np.testing.assert_allclose(mapped(exponential([0.3], [generator]), [ABOUT[:dimension]]), [ABOUT[:dimension]])
    for axis, generator in enumerate(basis[:dimension]):
        np.testing.assert_array_equal(exponential([2.5], [generator])[:-1, -1], 2.5 * np.eye(dimension)[axis])
    assert np.linalg.matrix_rank(np.array(basis).reshape(len(basis), -1)) == len(basis)


def test_no_step_is_the_identity():
    """Parameters of 0 change nothing."""
    basis = generators("affine", ABOUT)
    np.testing.assert_array_equal(exponential(np.zeros(12), basis), np.eye(4))


@pytest.mark.parametrize("make", [lambda: generators("bspline", ABOUT), lambda: fit_points("none", ABOUT, ABOUT)])
def test_unknown_families_are_refused(make):
    """A family that is none is named, with those there are, and not taken for another."""
    with pytest.raises(ConfigError, match=r"translation, rigid, similarity, affine, got '(bspline|none)'"):
        make()


@pytest.mark.parametrize("dimension", [2, 3])
def test_maps_of_points(dimension):
    """A map about two points takes one to the other, and points are moved as homogeneous coordinates are."""
    linear = random(1).normal(size=(dimension, dimension))
    start, end = ABOUT[:dimension], ABOUT[:dimension] * 2 + 7
    matrix = linear_about(linear, start, end)
    points = random(2).normal(scale=50, size=(9, dimension))
    np.testing.assert_allclose(mapped(matrix, [start]), [end])
    np.testing.assert_allclose(mapped(matrix, points), homogeneous(matrix, points))
    np.testing.assert_allclose(mapped(matrix, points) - end, (points - start) @ linear.T)
    moves = [float(np.linalg.norm(q - p)) for p, q in zip(points, homogeneous(matrix, points), strict=True)]
    assert largest_move(matrix, points) == pytest.approx(max(moves))


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("degrees", [0.0, 3.0, 35.0, 179.0])
def test_angles_and_scales(dimension, degrees):
    """The angle is that of the turn whatever the size, and the scales are the stretches along perpendicular axes."""
    turn, stretch = rotation(dimension, degrees), np.diag([1.4, 0.8, 1.1][:dimension])
    assert angle_deg(linear_about(1.3 * turn, ABOUT[:dimension], ABOUT[:dimension])) == pytest.approx(degrees, abs=1e-5)
    assert scales(linear_about(turn @ stretch, [0] * dimension, [0] * dimension)) == pytest.approx(
        sorted(np.diag(stretch), reverse=True)
    )


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_fits_give_back_the_map(family, dimension):
    """Landmarks moved by a map of the family give that map, wherever in space they are."""
    basis = generators(family, ABOUT[:dimension])
    truth = exponential(random(4).normal(scale=0.5, size=len(basis)), basis)
    points = ABOUT[:dimension] + random(5).normal(scale=40, size=(7, dimension))
    np.testing.assert_allclose(fit_points(family, points, mapped(truth, points)), truth, atol=1e-9)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_fits_are_the_best_of_their_family(family, dimension):
    """Of noisy landmarks no other map of the family brings them nearer to their partners."""
    basis = generators(family, ABOUT[:dimension])
    x = ABOUT[:dimension] + random(6).normal(scale=30, size=(8, dimension))
    y = mapped(exponential(random(7).normal(scale=0.3, size=len(basis)), basis), x) + random(8).normal(
        scale=5, size=x.shape
    )
    found = fit_points(family, x, y)

    def residuals(parameters):
        return (mapped(found @ exponential(parameters, basis), x) - y).ravel()

    best = scipy.optimize.least_squares(residuals, np.zeros(len(basis)), x_scale="jac")
    least = float((best.fun**2).sum())
    assert float((residuals(np.zeros(len(basis))) ** 2).sum()) <= least * (1 + 1e-9)
    if family == "rigid":
        np.testing.assert_allclose(found[:-1, :-1].T @ found[:-1, :-1], np.eye(dimension), atol=1e-12)


def test_rigid_fit_as_scipy():
    """The rotation is the one scipy's Rotation.align_vectors finds."""
    x, y = random(1).normal(size=(2, 6, 3)) * (30.0, 12.0, 50.0)
    expected, _ = Rotation.align_vectors(y - y.mean(0), x - x.mean(0))
    np.testing.assert_allclose(fit_points("rigid", x, y)[:3, :3], expected.as_matrix(), atol=1e-9)


@pytest.mark.parametrize("family", ["rigid", "similarity"])
@pytest.mark.parametrize("dimension", [2, 3])
def test_fits_never_mirror(family, dimension):
    """Mirrored landmarks give the best turn, not a mirror."""
    x = random(3).normal(scale=20, size=(9, dimension))
    assert np.linalg.det(fit_points(family, x, x * ([-1.0] + [1.0] * (dimension - 1)))[:-1, :-1]) > 0


def test_landmarks_in_a_plane_determine_a_rigid_map():
    """Three landmarks are enough in 3-D, two in 2-D."""
    for dimension in (2, 3):
        truth = linear_about(rotation(dimension, 40.0), ABOUT[:dimension], ABOUT[:dimension] + 12)
        points = random(9).normal(scale=30, size=(dimension, dimension))
        np.testing.assert_allclose(fit_points("rigid", points, mapped(truth, points)), truth, atol=1e-9)


LINE_3D, POINT, PLANE = [[k, 2.0 * k, -k] for k in range(5)], [[4.0, 5.0]] * 3, [[k, k * k, 7.0] for k in range(6)]


@pytest.mark.parametrize(
    ("family", "fixed", "words"),
    [
        ("rigid", LINE_3D, "at least 3 that do not lie on one line"),
        ("similarity", LINE_3D, "at least 3 that do not lie on one line"),
        ("affine", PLANE, "at least 4 that do not lie on one plane"),
        ("affine", [[0.0, 0.0], [1.0, 2.0]], "at least 3 that do not lie on one line"),
        ("rigid", POINT, "at least 2 that do not lie on one point"),
        ("affine", [[1.0, 2.0, 3.0]], "got 1 in a space of 0 dimensions"),
        ("rigid", np.zeros((0, 3)), r"got \(0, 3\) and \(0, 3\)"),
        ("rigid", [[1.0, 2.0, 3.0, 4.0]], r"each of 2 or 3 coordinates, got \(1, 4\)"),
        ("translation", [[1.0, np.nan]], "expected finite landmarks, got NaN"),
    ],
)
def test_landmarks_that_determine_nothing_are_refused(family, fixed, words):
    """Too few, none, not finite, or all on a line or in a plane: said, with how many of which kind are needed."""
    with pytest.raises(GeometryError, match=words):
        fit_points(family, fixed, fixed)


def test_partners_are_needed():
    """Landmarks that are not as many as their partners are refused."""
    with pytest.raises(GeometryError, match="expected as many fixed as moving landmarks"):
        fit_points("rigid", np.zeros((4, 3)), np.zeros((5, 3)))


def test_rotation_by_a_vector():
    """A vector turns about itself by its length in degrees, as scipy's Rotation; in 2-D from x to y."""
    np.testing.assert_allclose(
        by_vector((10.0, -50.0, 20.0)), Rotation.from_rotvec([10.0, -50.0, 20.0], degrees=True).as_matrix()
    )
    np.testing.assert_allclose(by_vector((30.0,)) @ [1.0, 0.0], [np.cos(np.pi / 6), 0.5])


@pytest.mark.parametrize("largest", [20.0, 45.0, 90.0])
def test_the_ball_leaves_no_gap(largest):
    """Every rotation up to the limit lies within 13.5° of one that is tried, or of none."""
    axes = random(1).normal(size=(4000, 3))
    degrees = largest * random(2).uniform(0, 1, (4000, 1)) ** (1 / 3)
    wanted = Rotation.from_rotvec(axes / np.linalg.norm(axes, axis=1, keepdims=True) * degrees, degrees=True)
    tried = [np.eye(3), *ball(3, largest)]
    assert angles_between(wanted.as_matrix(), tried).max() < 13.5
    assert angles_between(tried, [np.eye(3)]).max() < largest + 6


@pytest.mark.parametrize("largest", [45.0, 180.0])
def test_the_circle_leaves_no_gap(largest):
    """In 2-D every angle up to the limit lies within 5° of one that is tried, each tried once."""
    tried = ball(2, largest)
    angles = sorted(np.degrees(np.arctan2(t[1, 0], t[0, 0])) for t in tried)
    assert np.diff(angles).min() > 9.9
    wanted = [rotation(2, d) for d in np.linspace(-largest, largest, 721)]
    assert angles_between(wanted, [np.eye(2), *tried]).max() < 5 + 1e-6


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_ball_starts_near(dimension):
    """The smallest rotations come first, none is tried twice and none is none."""
    tried = ball(dimension, 60.0)
    angles = [angle_deg(linear_about(t, [0] * dimension, [0] * dimension)) for t in tried]
    assert angles == sorted(angles, key=lambda a: round(a, 6))
    assert min(angles) > 5
    for k, turn in enumerate(tried):
        np.testing.assert_allclose(turn.T @ turn, np.eye(dimension), atol=1e-12)
        assert angles_between([turn], [*tried[:k], np.eye(dimension)])[0] > 5


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_ring_goes_both_ways_about_each_axis(dimension):
    """The orientations that the headers' is compared with are turned by 20°, each with its opposite."""
    turns = ring(dimension)
    assert len(turns) == {2: 2, 3: 6}[dimension]
    np.testing.assert_allclose(angles_between(turns, [np.eye(dimension)]), 20.0)
    np.testing.assert_allclose(angles_between([t.T for t in turns], turns), 0.0, atol=1e-5)
    assert np.linalg.matrix_rank(np.array(turns).reshape(len(turns), -1)) > 1


@pytest.mark.parametrize("dimension", [2, 3])
def test_axes_are_turned_onto_each_other(dimension):
    """A fixed image turned as a whole is turned back, however the arrays are stored."""
    upright = grid_at(
        [1.0, 2.0, 3.0][:dimension], (7, 6, 5)[:dimension], (1.0, 2.0, 3.0)[:dimension], np.eye(dimension)
    )
    for orientation in signed_permutations(dimension):
        turned = oblique_grid(dimension, orientation, degrees=25.0)
        np.testing.assert_allclose(between_axes(upright, turned), rotation(dimension, 25.0), atol=1e-9)
        np.testing.assert_allclose(between_axes(turned, upright), rotation(dimension, 25.0).T, atol=1e-9)


def ellipsoid(turn, radii=(16.0, 10.0, 6.0), spacing=(1.0, 1.3, 1.6)):
    """A solid ellipsoid whose axes are the columns of ``turn``, on an oblique anisotropic grid."""
    n = len(turn)
    size = tuple(int(44 / s) for s in spacing[:n])
    grid = grid_at([20.0, -31.0, 44.0][:n], size, spacing[:n], rotation(n, -19.0))
    away = points_of(grid) - torch.as_tensor(centre(grid)).reshape(-1, *[1] * n)
    along = torch.einsum("ji,j...->i...", torch.as_tensor(turn), away)
    inside = (along / torch.tensor(radii[:n], dtype=torch.float64).reshape(-1, *[1] * n)).square().sum(0) < 1
    return Volume(inside[None].float(), grid)


@pytest.mark.parametrize("dimension", [2, 3])
def test_principal_axes_of_an_ellipsoid(dimension):
    """Its axes in mm, the longest first, on any grid."""
    turn = rotation(dimension, 50.0)
    found = principal_axes(ellipsoid(turn))
    np.testing.assert_allclose(np.abs(found.T @ turn), np.eye(dimension), atol=0.05)


@pytest.mark.parametrize("dimension", [2, 3])
def test_moments_find_the_turn(dimension):
    """The turn between two ellipsoids is among the rotations that match their axes; all are rotations, none twice."""
    first, second = rotation(dimension, 15.0), rotation(dimension, 80.0)
    found = between_moments(ellipsoid(first), ellipsoid(second))
    assert len(found) == {2: 2, 3: 4}[dimension]
    assert angles_between([second @ first.T], found)[0] < 4
    for turn in found:
        np.testing.assert_allclose(turn.T @ turn, np.eye(dimension), atol=1e-9)
        assert np.linalg.det(turn) > 0
    for a, b in itertools.combinations(found, 2):
        assert angles_between([a], [b])[0] > 90


def test_what_has_no_axes_gives_none():
    """A ball, an even square, one voxel and nothing at all have no principal axes, and no rotation comes of them."""
    grid = make_grid((7, 6, 5), (0.8, 1.3, 2.1), (-31.0, 12.5, 77.0), rotation(3))
    nothing, one = torch.zeros(1, *grid.shape), torch.zeros(1, *grid.shape)
    one[0, 2, 3, 1] = 1.0
    round_ones = [
        ellipsoid(rotation(3), radii=(12.0, 12.0, 12.0), spacing=(1.0, 1.0, 1.0)),
        ellipsoid(rotation(3), radii=(16.0, 9.0, 9.0), spacing=(1.0, 1.0, 1.0)),
        ellipsoid(rotation(2), radii=(12.0, 12.0)),
        Volume(nothing, grid),
        Volume(one, grid),
    ]
    for volume in round_ones:
        assert principal_axes(volume) is None
        assert between_moments(volume, volume) == []
