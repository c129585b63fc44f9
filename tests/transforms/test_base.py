"""Promises of the one type of transforms: each maps points, knows its derivative, and those with parameters descend."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from conftest import grid_at, noise, rotation
from placed_pair import fixed_grid, moving_grid
from semreg.core.fields import Field
from semreg.core.sampling import base_index, smooth
from semreg.io.bridge import transform_of
from semreg.quality.subject import Way
from semreg.transforms import families
from semreg.transforms.base import chained
from semreg.transforms.bspline import Spline, SplineLattice
from semreg.transforms.chain import Chain
from semreg.transforms.families import TRANSFORMS
from semreg.transforms.linear import Linear
from semreg.transforms.maps import linear_about

GRIDS = {
    2: grid_at((12.0, -30.0), (19, 14), (0.9, 1.4), rotation(2)),
    3: grid_at((12.0, -30.0, 55.0), (19, 14, 11), (0.9, 1.4, 2.3), rotation(3)),
}


def matrix(n):
    """An affine map that is no similarity."""
    stretch = np.diag([1.1, 0.9, 1.2][:n]) + 0.1 * np.eye(n, k=1)
    return linear_about(rotation(n, 17.0) @ stretch, [1.0] * n, [4.0, -2.0, 3.0][:n])


def spline(n, amplitude=0.4):
    """A spline that bends, and an affine map after it."""
    lattice = SplineLattice(GRIDS[n], (4.0, 5.0, 3.0)[:n])
    return Spline(lattice, amplitude * noise(n, *lattice.shape, dtype=torch.float32), matrix(n))


def field(n):
    """A displacement that is smooth, as a field."""
    return Field(1.5 * smooth(noise(n, *GRIDS[n].shape), radius=2, passes=2), GRIDS[n])


def cubic(n):
    """A B-spline of SimpleITK, whose derivative no formula gives."""
    grid = GRIDS[n]
    made = sitk.BSplineTransform(n, 3)
    made.SetTransformDomainOrigin(grid.origin_xyz)
    made.SetTransformDomainDirection(np.asarray(grid.direction).ravel().tolist())
    made.SetTransformDomainPhysicalDimensions([s * k for s, k in zip(grid.spacing_xyz, grid.size_xyz, strict=True)])
    made.SetTransformDomainMeshSize([3] * n)
    count = len(made.GetParameters())
    made.SetParameters((0.5 * np.random.default_rng(2).normal(size=count)).tolist())
    return made


KINDS = {
    "linear": lambda n: Linear(matrix(n)),
    "spline": spline,
    "field": field,
    "chain": lambda n: Chain.of(transform_of(matrix(n)), cubic(n)),
    "chain of a field": lambda n: Chain.of(field(n), transform_of(matrix(n))),
    "inverse": lambda n: Chain.of(field(n), transform_of(matrix(n))).inverse(),
    "way": lambda n: Way(Chain.of(field(n))),
}


def inner_points(grid, count=40):
    """Points in mm between the voxel centres, where no field has a kink, away from the border."""
    draw = np.random.default_rng(5)
    index = np.stack([draw.integers(2, n - 3, count) + draw.uniform(0.1, 0.9, count) for n in grid.shape])
    return grid.index_to_point()[:-1] @ np.vstack([index, np.ones(count)])


def quotient(transform, points, step=1e-4):
    """The derivative by differences, (N, D, D)."""
    columns = []
    for axis in range(len(points)):
        shift = step * np.eye(len(points))[:, [axis]]
        columns.append((transform.map(points + shift) - transform.map(points - shift)).T / (2 * step))
    return np.stack(columns, -1)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_derivative_is_that_of_the_map(kind, dimension):
    """Whatever a transform is, its Jacobian is what differences of its map give, and is not that of the identity."""
    transform = KINDS[kind](dimension)
    points = inner_points(GRIDS[dimension])
    if kind == "inverse":
        points = Chain.of(field(dimension), transform_of(matrix(dimension))).map(points)
    assert transform.dimension == dimension
    found = transform.jacobian(points)
    step = 1e-2 if kind == "inverse" else 1e-4  # an inverse is known within 1e-6 mm
    np.testing.assert_allclose(found, quotient(transform, points, step), atol=2e-3)
    assert np.abs(found - np.eye(dimension)).max() > 0.05


@pytest.mark.parametrize("dimension", [2, 3])
def test_transforms_of_all_kinds_follow_each_other(dimension):
    """The derivative of a linear map, a spline and a field one after the other is that of what they do together."""
    parts = [Linear(linear_about(rotation(dimension, 2.0), [0.0] * dimension, [0.2] * dimension)), field(dimension)]
    parts.insert(1, spline(dimension, 0.1))

    class Together:
        def map(self, points):
            for part in parts:
                points = part.map(points)
            return points

    points = inner_points(GRIDS[dimension])
    np.testing.assert_allclose(chained(parts, points), quotient(Together(), points, 1e-5), atol=3e-3)


def test_beyond_its_box_a_spline_does_not_bend():
    """There its border value holds: along the axis that leads out nothing changes but by the linear map."""
    transform = spline(2)
    n, grid = 2, transform.lattice.grid
    points = grid.index_to_point()[:-1] @ np.array([[-4.0, 30.0], [5.0, 50.0], [1.0, 1.0]])
    np.testing.assert_allclose(transform.jacobian(points), quotient(transform, points), atol=2e-3)
    corner = transform.jacobian(points)[1]
    np.testing.assert_allclose(corner, transform.matrix[:n, :n], atol=1e-9)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_steps_are_what_the_equations_say(name, dimension, monkeypatch):
    """The normal equations of each family are those of a loop over voxels and parameters, by differences.

    A step moves what is seen at a voxel as a displacement of it would: the inverse derivative of the map times the
    change of the map.
    """
    monkeypatch.setattr(families, "INTERVALS", 2)
    grid = fixed_grid(dimension, {2: 12, 3: 7}[dimension])
    centre = grid.corners_xyz().mean(0)
    transform = TRANSFORMS[name](matrix(dimension), grid, centre)
    draw = np.random.default_rng(3)
    transform = transform.changed(0.05 * draw.normal(size=transform.count))
    for seen in (grid, grid.pooled((2, 3, 1)[:dimension])):
        factor = noise(dimension, dimension, seen.voxels, dtype=torch.float32)
        square, pull = torch.einsum("ijn,kjn->ikn", factor, factor), noise(dimension, seen.voxels, seed=4).float()
        normal, right = transform.equations(seen, square, pull, 0.0)
        index = base_index(seen.shape, like=torch.zeros(1, dtype=torch.float64)).flatten(1).numpy()
        points = seen.index_to_point()[:-1] @ np.vstack([index, np.ones(seen.voxels)])
        inverse = np.linalg.inv(transform.jacobian(points))
        moves = []
        for unit in np.eye(transform.count):
            change = (transform.changed(1e-2 * unit).map(points) - transform.changed(-1e-2 * unit).map(points)) / 2e-2
            moves.append(seen.point_to_index()[:-1, :-1] @ np.einsum("nij,jn->in", inverse, change))
        moved = np.stack(moves)
        expected = np.einsum("kin,ijn,ljn->kl", moved, square.double().numpy(), moved)
        np.testing.assert_allclose(normal, expected, atol=3e-3 * np.abs(expected).max())
        expected = np.einsum("kin,in->k", moved, pull.double().numpy())
        np.testing.assert_allclose(right, expected, atol=3e-3 * np.abs(expected).max())


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_images_are_read_where_points_are_mapped(name, dimension):
    """Where voxels are read in another image, of a finer grid of the same axes too, is where the map leads to."""
    grid, target = fixed_grid(dimension, 20), moving_grid(dimension, np.eye(dimension + 1), 16)
    transform = TRANSFORMS[name](matrix(dimension), grid, grid.corners_xyz().mean(0))
    transform = transform.changed(0.3 * np.random.default_rng(3).normal(size=transform.count))
    for seen in (grid, grid.pooled(2)):
        where = transform.index(seen, target, like=torch.zeros(1)).flatten(1).double().numpy()
        points = seen.index_to_point()[:-1] @ np.vstack(
            [base_index(seen.shape, like=torch.zeros(1)).flatten(1).numpy(), np.ones(seen.voxels)]
        )
        expected = target.point_to_index()[:-1] @ np.vstack([transform.map(points), np.ones(seen.voxels)])
        np.testing.assert_allclose(where, expected, atol=2e-3)


@pytest.mark.parametrize("dimension", [2, 3])
def test_what_bends_costs(dimension):
    """The energy of a spline is 0 without bends, the square of its size with them, and its equations are its slope."""
    grid = fixed_grid(dimension, 8)
    flat = TRANSFORMS["bspline"](np.eye(dimension + 1), grid, np.zeros(dimension))
    ramp = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in flat.lattice.shape], indexing="ij"))
    assert flat.energy == 0.0
    assert flat.changed(ramp.numpy()).energy < 1e-12
    step = np.random.default_rng(1).normal(size=flat.count)
    bent = flat.changed(step)
    assert bent.energy == pytest.approx(flat.changed(2 * step).energy / 4, rel=1e-5)
    nothing = torch.zeros(dimension, dimension, grid.voxels), torch.zeros(dimension, grid.voxels)
    normal, right = bent.equations(grid, *nothing, 7.0)
    np.testing.assert_allclose(right, 7.0 * (normal / 7.0) @ step, rtol=1e-4, atol=1e-6)
    assert step @ normal @ step == pytest.approx(7.0 * bent.energy, rel=1e-4)
    away = bent.largest_move(step, grid.corners_xyz())
    points = inner_points(grid) if dimension == 2 else grid.corners_xyz().T
    assert np.linalg.norm(bent.map(points) - flat.map(points), axis=0).max() <= away


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_same_on_a_gpu(name):
    """Where voxels are read and the equations of a step are, on a GPU, those on the CPU, but for rounding."""
    grid = fixed_grid(3, 9)
    transform = TRANSFORMS[name](matrix(3), grid, grid.corners_xyz().mean(0))
    transform = transform.changed(0.05 * np.random.default_rng(3).normal(size=transform.count))
    square, pull = noise(3, 3, grid.voxels, dtype=torch.float32), noise(3, grid.voxels, seed=4).float()
    here = transform.equations(grid, square, pull, 1.0)
    there = transform.equations(grid, square.cuda(), pull.cuda(), 1.0)
    for expected, found in zip(here, there, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    where = [transform.index(grid, grid, like=like).cpu() for like in (pull, pull.cuda())]
    torch.testing.assert_close(where[1], where[0], rtol=0, atol=1e-4)
