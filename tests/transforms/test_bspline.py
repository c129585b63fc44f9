"""Promises of the spline: a smooth displacement that any aligned grid can ask for, and that need not fold."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from conftest import grid_at, make_grid, noise, rotation, sitk_vectors
from semreg.core.fields import Field
from semreg.core.geometry import Grid
from semreg.core.kernels import spline_product
from semreg.core.kernels.bands import blocks
from semreg.core.sampling import smooth
from semreg.registration.dense.refine import unfold
from semreg.transforms.bspline import SplineIndex, SplineLattice

GRID = grid_at((12.0, -30.0, 55.0), (19, 14, 11), (0.9, 1.4, 2.3), rotation(3))
FLAT = grid_at((12.0, -30.0), (19, 14), (0.9, 1.4), rotation(2))
SLICE = grid_at((12.0, -30.0, 55.0), (19, 14, 1), (0.9, 1.4, 2.3), rotation(3))
LATTICES = [
    pytest.param(SplineLattice(GRID, (2.0, 3.0, 4.5)), id="3-D"),
    pytest.param(SplineLattice(GRID, (0.7, 1.0, 30.0)), id="3-D, finer and coarser than the grid"),
    pytest.param(SplineLattice(FLAT, (3.0, 2.6)), id="2-D"),
    pytest.param(SplineLattice(SLICE, (1.0, 2.6, 3.0)), id="one slice"),
]


def inner_positions(grid, count=23):
    """Places between the outer voxel centres on each axis."""
    return [np.sort(np.random.default_rng(axis).uniform(0, n - 1, count)) for axis, n in enumerate(grid.shape)]


@pytest.mark.parametrize("lattice", LATTICES)
def test_basis_sums_to_one(lattice):
    """Equal control points give that displacement everywhere; half a voxel beyond the outer centres nearly so."""
    positions = [np.linspace(-0.5, n - 0.5, 31) for n in lattice.grid.shape]
    centres = [np.linspace(0, n - 1, 31) for n in lattice.grid.shape]
    for axis, count in enumerate(lattice.shape):
        inner, outer = lattice.bases(centres)[axis], lattice.bases(positions)[axis]
        assert inner.shape == outer.shape == (31, count)
        torch.testing.assert_close(inner.sum(1), torch.ones(31), rtol=0, atol=1e-5)
        most = (0.5 / lattice.step[axis]) ** 3 / 6  # the end of one more control point's bump
        torch.testing.assert_close(outer.sum(1), torch.ones(31), rtol=0, atol=most + 1e-5)
        assert float(outer.min()) >= 0
    # positions beyond the box hold its border value
    far = lattice.bases([np.array([-7.0, -0.5, n - 0.5, n + 9.0]) for n in lattice.grid.shape])
    assert all(torch.equal(basis[0], basis[1]) and torch.equal(basis[2], basis[3]) for basis in far)


@pytest.mark.parametrize("lattice", LATTICES)
def test_derivatives_are_those_of_finite_differences(lattice):
    """The derivative matrices are the slopes of the value matrices per voxel; an axis of one voxel has none."""
    where, step = inner_positions(lattice.grid), 1e-2
    ahead = lattice.bases([w + step for w in where])
    behind = lattice.bases([w - step for w in where])
    for axis, n in enumerate(lattice.grid.shape):
        slopes = lattice.bases(where, axis)
        expected = (ahead[axis] - behind[axis]) / (2 * step)
        torch.testing.assert_close(slopes[axis], expected, rtol=0, atol=1e-3 / min(1.0, lattice.step[axis]) ** 3)
        assert (float(slopes[axis].abs().max()) > 0.01) == (n > 1)
        others = [a for a in range(len(where)) if a != axis]
        assert all(torch.equal(slopes[a], lattice.bases(where)[a]) for a in others)


@pytest.mark.parametrize("grid", [GRID, FLAT, SLICE])
def test_fit_reproduces_polynomials(grid):
    """A displacement that is linear or cubic along the axes is a spline: its fit returns it, borders included."""
    lattice = SplineLattice(grid, (2.0, 3.0, 4.5)[: grid.dimension])
    ramps = [torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in grid.shape]
    mesh = torch.stack(torch.meshgrid(*ramps, indexing="ij"))
    linear = torch.stack([0.5 + mesh[0] - 2 * mesh[-1], 1.5 * mesh[1], mesh.sum(0)][: grid.dimension])
    cubic = torch.stack([mesh[0] ** 3 - mesh[-1], mesh[1] ** 2 * mesh[-1] ** 3, mesh[0] * mesh[1]][: grid.dimension])
    for vox in (linear, cubic):
        found = lattice.field(lattice.fit(Field(vox, grid)), grid)
        torch.testing.assert_close(found.vox, vox, rtol=0, atol=0.02)  # the ridge, at the corners
        assert float((found.vox - vox).abs().mean()) < 4e-3


@pytest.mark.parametrize("lattice", LATTICES[2:])
def test_fit_returns_the_spline_it_is_given(lattice):
    """Fitting the samples of a spline that bends from one control point to the next gives its displacement back."""
    coefficients = smooth(noise(lattice.grid.dimension, *lattice.shape, dtype=torch.float32))
    field = lattice.field(coefficients, lattice.grid)
    again = lattice.field(lattice.fit(field), lattice.grid)
    torch.testing.assert_close(again.vox, field.vox, rtol=0, atol=1e-2)
    assert float(field.vox.std()) > 0.1


def test_fit_does_not_run_away_where_hardly_a_sample_sees():
    """Coefficients at the edges continue their neighbours: none is larger than a few times the displacement."""
    for lattice in (SplineLattice(GRID, (4.0, 4.0, 4.0)), SplineLattice(GRID, (3.7, 2.9, 4.3))):
        for seed in range(3):
            coarse = noise(3, 4, 4, 4, seed=seed, dtype=torch.float32)
            field = Field(torch.nn.functional.interpolate(coarse[None], GRID.shape, mode="trilinear")[0], GRID)
            assert float(lattice.fit(field).abs().max()) < 8 * float(field.vox.abs().max())


def test_fit_is_the_nearest_spline():
    """What the fit leaves of a displacement that is no spline is orthogonal to all splines, up to its stiffness."""
    lattice = SplineLattice(GRID, (4.0, 4.0, 4.0))
    vox = noise(3, *GRID.shape, dtype=torch.float32)
    rest = vox - lattice.field(lattice.fit(Field(vox, GRID)), GRID).vox
    bases = lattice.bases(lattice.positions(GRID))
    assert float(spline_product(rest, [b.T for b in bases]).abs().max()) < 0.03 * float(
        spline_product(vox, [b.T for b in bases]).abs().max()
    )
    assert float(rest.std()) > 0.3


OTHERS = [
    pytest.param(GRID.pooled((1, 2, 3)), id="coarser, not the same on each axis"),
    pytest.param(GRID.part([2, 3, 4], [9, 11, 15]), id="a part"),
    pytest.param(
        make_grid((40, 29, 17), (0.31, 0.52, 1.1), GRID.corners_xyz().mean(0) - 3.0, rotation(3)), id="finer, shifted"
    ),
]


@pytest.mark.parametrize("target", OTHERS)
def test_field_on_another_grid_is_the_same_displacement(target):
    """On any aligned grid the spline gives the same displacement in mm at the same point."""
    lattice = SplineLattice(GRID, (5.0, 6.0, 7.0))
    coefficients = noise(3, *lattice.shape, dtype=torch.float32)
    found = lattice.field(coefficients, target).mm()
    # the oracle: a very fine sampling of the spline, read at the points of the target
    fine = Grid(
        tuple(8 * (n - 1) + 1 for n in GRID.size_xyz), tuple(s / 8 for s in GRID.spacing_xyz), GRID.origin_xyz,
        GRID.direction,
    )  # fmt: skip
    positions = [np.arange(n) / 8 for n in fine.shape]
    dense = spline_product(coefficients, lattice.bases(positions))
    linear = torch.as_tensor(GRID.index_to_point()[:3, :3], dtype=torch.float32)
    mm = torch.einsum("ij,jzyx->izyx", linear, dense)
    expected = Field.from_mm(mm.double(), fine).on(target).mm()
    index = lattice.positions(target)
    known = [torch.as_tensor((at >= 0) & (at <= n - 1)) for at, n in zip(index, GRID.shape, strict=True)]
    inner = (slice(None), *torch.meshgrid(*[torch.nonzero(k)[:, 0] for k in known], indexing="ij"))
    torch.testing.assert_close(found[inner].double(), expected[inner], rtol=0, atol=0.02)
    assert expected[inner].numel() > 0.3 * expected.numel()
    assert float(found.std()) > 0.2


BANDS = [
    pytest.param((97, 113, 75), (1.0, 1.0, 1.0), id="as fine as the grid"),
    pytest.param((97, 131, 149), (0.6, 1.3, 2.1), id="finer, and not a whole number of voxels"),
    pytest.param((97, 9, 301), (1.0, 2.0, 4.0), id="one axis with few"),
    pytest.param((141, 97), (2.0, 1.4), id="2-D"),
]


def einsums(x, matrices):
    """Each matrix along its axis, as whole matrices."""
    for axis, matrix in enumerate(matrices, start=1):
        x = torch.tensordot(x, matrix, dims=([axis], [1])).movedim(-1, axis)
    return x


@pytest.mark.parametrize(("shape", "step"), BANDS)
@pytest.mark.parametrize("derivative", [None, 1])
def test_bands_give_what_whole_matrices_give(shape, step, derivative):
    """On fine lattices a product and its gradient are those of the whole matrices, the transposed ones too."""
    n = len(shape)
    grid = grid_at((12.0, -30.0, 55.0)[:n], shape[::-1], (0.9, 1.4, 2.3)[:n], rotation(n))
    lattice = SplineLattice(grid, step)
    bases = lattice.bases(lattice.positions(lattice.grid), derivative)
    x = noise(1, *lattice.shape, dtype=torch.float32).requires_grad_()
    found, expected = spline_product(x, bases), einsums(x, bases)
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-6 * float(expected.detach().abs().max()))
    weight = noise(1, *shape, seed=1, dtype=torch.float32)
    (pulled,) = torch.autograd.grad(found, x, weight)
    (known,) = torch.autograd.grad(expected, x, weight)
    torch.testing.assert_close(pulled, known, rtol=0, atol=3e-6 * float(known.abs().max()))
    torch.testing.assert_close(
        spline_product(weight, [b.T for b in bases]), known, rtol=0, atol=3e-6 * float(known.abs().max())
    )


def test_bands_take_any_layout():
    """The memory of the coefficients may be any: a part of a larger tensor, or axes in another order."""
    matrices = [SplineLattice(GRID, (1.0,) * 3).bases([np.linspace(0, 10, 70)] * 3)[2]] * 3
    wide = torch.cat([torch.eye(70)] * 2, 1)  # 70 × 140, a band in each half
    band = torch.block_diag(torch.ones(40, 30), torch.zeros(30, 50), torch.ones(20, 60))
    assert matrices[0].shape[1] < 64  # whole
    parts = noise(3, 140, 2, 5, 140, dtype=torch.float32)[:, :, 1]
    for x in (parts, parts.permute(0, 3, 2, 1), parts[:, 20:], parts[..., 20:]):
        chosen = [wide if n == 140 else band[:, :n] if n == 120 else torch.eye(5) for n in x.shape[1:]]
        torch.testing.assert_close(spline_product(x, chosen), einsums(x, chosen), rtol=0, atol=1e-3)


def test_blocks_hold_all_that_is_not_zero():
    """The blocks cover all rows, and outside of them the matrix is 0; rows of zeros see nothing."""
    matrix = torch.zeros(11, 9)
    matrix[0, 2] = matrix[1, 5] = matrix[3, 8] = matrix[10, 0] = 1.0
    assert blocks(matrix, 4) == [
        (slice(0, 4), slice(2, 9)), (slice(4, 8), slice(0, 0)), (slice(8, 11), slice(0, 1))
    ]  # fmt: skip


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_far_control_points_are_not_read(axis):
    """A fine lattice is multiplied as a band: what is not a number spoils no sample far from it."""
    shape = [70 if a == axis else 3 for a in (1, 2, 3)]
    lattice = SplineLattice(grid_at((12.0, -30.0, 55.0), shape[::-1], (0.9, 1.4, 2.3), rotation(3)), (1.0,) * 3)
    coefficients = torch.ones(1, *lattice.shape)
    coefficients.select(axis, 72)[:] = torch.nan
    spoiled = spline_product(coefficients, lattice.bases(lattice.positions(lattice.grid))).isnan()
    assert not bool(spoiled.narrow(axis, 0, 32).any())
    assert bool(spoiled.narrow(axis, 69, 1).all())


def itk_minimum(field):
    """The least Jacobian determinant of ITK's filter, which knows only axes along x, y, z."""
    return float(sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(sitk_vectors(field))).min())


STRAIGHT = [
    make_grid((24, 21, 15), (0.9, 1.4, 2.3), (-3.0, 11.0, 7.0), np.eye(3)),
    make_grid((31, 24), (0.9, 1.4), (-3.0, 11.0), np.eye(2)),
    make_grid((24, 21, 1), (0.9, 1.4, 2.3), (-3.0, 11.0, 7.0), np.eye(3)),
]


@pytest.mark.parametrize("grid", STRAIGHT)
@pytest.mark.parametrize("amplitude", [3.0, 5.0])
def test_unfold_removes_all_folds(grid, amplitude):
    """A displacement with planted folds comes out without a single one, by ITK's Jacobian determinant."""
    lattice = SplineLattice(grid.pooled(2), (2.0, 2.5, 3.0)[: grid.dimension])
    coefficients = amplitude * noise(grid.dimension, *lattice.shape, dtype=torch.float32)
    assert itk_minimum(lattice.field(coefficients, grid)) < -0.1
    field, passes = unfold(lattice, coefficients, grid)
    assert itk_minimum(field) > 0
    assert passes > 0
    assert float(field.vox.abs().max()) > 0.05
    assert field.grid == grid


@pytest.mark.parametrize("grid", STRAIGHT)
def test_unfold_leaves_what_does_not_fold(grid):
    """A displacement without folds is returned as it is."""
    lattice = SplineLattice(grid.pooled(2), (4.0, 4.0, 4.0)[: grid.dimension])
    coefficients = 0.3 * noise(grid.dimension, *lattice.shape, dtype=torch.float32)
    assert itk_minimum(lattice.field(coefficients, grid)) > 0.1
    field, passes = unfold(lattice, coefficients, grid)
    assert passes == 0
    assert torch.equal(field.vox, lattice.field(coefficients, grid).vox)


def test_unfold_changes_nothing_far_from_a_fold():
    """Far from a fold the displacement stays as it was."""
    grid = STRAIGHT[0]
    lattice = SplineLattice(grid, (2.0, 2.0, 2.0))
    coefficients = 0.1 * noise(3, *lattice.shape, dtype=torch.float32)
    coefficients[2, 4, 5, 4] += 9.0
    before = lattice.field(coefficients, grid)
    assert itk_minimum(before) < 0
    after, _ = unfold(lattice, coefficients, grid)
    assert itk_minimum(after) > 0
    assert torch.equal(after.vox[..., -6:], before.vox[..., -6:])
    assert not torch.equal(after.vox, before.vox)


@pytest.mark.parametrize("lattice", LATTICES)
def test_where_a_moving_image_is_read_and_the_way_back(lattice):
    """The index counts in voxels of the moving grid, whatever its spacing, and the adjoint is that of the index."""
    grid = lattice.grid
    n, spacing = grid.dimension, (1.7, 0.6, 1.1)
    target = grid.lattice([0.5] * n, spacing[:n], [20] * n)
    index = SplineIndex(lattice, grid, target, torch.device("cpu"))
    coefficients = noise(n, *lattice.shape, seed=1, dtype=torch.float32)
    seen, still = index(coefficients), index(torch.zeros_like(coefficients))
    moved = lattice.field(coefficients, grid).mm().flatten(1)  # LPS
    points = torch.as_tensor(target.index_to_point()[:n, :n]) @ (seen - still).double()
    torch.testing.assert_close(points.float(), moved, rtol=1e-4, atol=1e-4)
    pull = noise(*seen.shape, seed=2, dtype=torch.float32)
    there, back = float(((seen - still) * pull).sum()), float((coefficients * index.adjoint(pull)).sum())
    assert back == pytest.approx(there, rel=1e-4, abs=1e-3)
