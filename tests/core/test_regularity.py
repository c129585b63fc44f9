"""Promises of the regularity: mm per mm, so the same number on any grid; folding is punished and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import grid_at, make_grid, noise, rotation
from semreg.config import RefineConfig
from semreg.core.fields import Layer, Volume
from semreg.core.kernels import spline_product
from semreg.core.regularity import cofactors, determinant, diffusion, folding
from semreg.registration.dense.refine import Problem
from semreg.registration.dense.terms import Term
from semreg.transforms.bspline import SplineLattice

MATRIX = np.array([[0.11, -0.04, 0.07], [0.02, -0.09, 0.05], [-0.06, 0.03, 0.13]])
"""A linear displacement in mm per mm, in tensor axes (component, axis)."""


def slopes(lattice, coefficients):
    """∂u_i/∂x_j in mm per mm (D, D, *S) from the derivatives of the spline."""
    spacing = lattice.grid.spacing
    positions = [np.linspace(0, n - 1, 7) for n in lattice.grid.shape]
    columns = []
    for axis, step in enumerate(spacing):
        column = spline_product(coefficients, lattice.bases(positions, axis))
        columns.append(torch.stack([row * mm / step for row, mm in zip(column, spacing, strict=True)]))
    return torch.stack(columns, 1).double()


def linear_spline(lattice, matrix):
    """Control points of the displacement ``matrix`` · (p − centre) along the tensor axes, exact, without the ridge."""
    grid, n = lattice.grid, lattice.grid.dimension
    positions = [np.linspace(0, size - 1, 5 * size) for size in grid.shape]
    mm = [torch.as_tensor((p - p.mean()) * s) for p, s in zip(positions, grid.spacing, strict=True)]
    away = torch.stack(torch.meshgrid(*mm, indexing="ij"))
    vox = torch.einsum("ij,j...->i...", torch.as_tensor(matrix), away)
    vox = vox / torch.tensor(grid.spacing, dtype=torch.float64).reshape(-1, *[1] * n)
    return spline_product(vox, [torch.linalg.pinv(b.double()) for b in lattice.bases(positions)]).float()


LATTICES = [
    SplineLattice(grid_at((5, -9, 30), (21, 13, 9), (0.8, 1.3, 2.1), rotation(3)), (3.0, 4.0, 5.0)),
    SplineLattice(grid_at((5, -9, 30), (7, 11, 12), (2.4, 1.5, 1.6), rotation(3, -23.0)), (2.0, 2.5, 3.7)),
    SplineLattice(grid_at((5, -9), (17, 11), (0.7, 1.9), rotation(2)), (2.0, 3.0)),
    SplineLattice(grid_at((5, -9), (8, 23), (1.5, 0.9), rotation(2, 60.0)), (1.5, 6.3)),
]


@pytest.mark.parametrize("dimension", [2, 3])
def test_cofactors_are_the_derivative_of_the_determinant(dimension):
    """In every element, as autograd has it."""
    gradient = noise(dimension, dimension, 7, 5).requires_grad_()
    (wanted,) = torch.autograd.grad(determinant(gradient).sum(), gradient)
    torch.testing.assert_close(cofactors(gradient.detach()), wanted)


@pytest.mark.parametrize("lattice", LATTICES)
def test_diffusion_of_a_linear_displacement(lattice):
    """The diffusion of a linear displacement is the sum of its squared slopes in mm per mm, on whatever grid."""
    n = lattice.grid.dimension
    matrix = MATRIX[:n, :n]
    gradient = slopes(lattice, linear_spline(lattice, matrix))
    assert float(diffusion(gradient)) == pytest.approx((matrix**2).sum(), rel=2e-3)


@pytest.mark.parametrize("lattice", LATTICES)
def test_diffusion_in_the_refinement(lattice):
    """The refinement's regularity is that number too, times its weight, whatever grid and control points it has."""
    grid, n = lattice.grid, lattice.grid.dimension
    matrix = MATRIX[:n, :n]
    config = RefineConfig(diffusion=0.7, folding=0.0)
    layer = Layer(Volume(noise(2, *grid.shape, dtype=torch.float32), grid))
    coefficients = linear_spline(lattice, matrix)
    value = Problem([Term(layer, layer)], lattice, config).regularity(coefficients)
    assert float(value) == pytest.approx(0.7 * (matrix**2).sum(), rel=2e-3)


def constant_gradient(matrix):
    """The gradient of a linear displacement at a few samples."""
    n = len(matrix)
    return torch.as_tensor(matrix).reshape(n, n, *[1] * n).expand(n, n, *(2, 3, 4)[:n]).contiguous()


@pytest.mark.parametrize("n", [2, 3])
def test_determinant_is_that_of_the_jacobian(n):
    """The determinant is that of 1 + ∂u/∂x, sample by sample, also of matrices that fold."""
    gradient = noise(n, n, *(2, 3, 4)[:n])
    expected = np.linalg.det(np.eye(n) + np.moveaxis(gradient.numpy(), (0, 1), (-2, -1)))
    np.testing.assert_allclose(determinant(gradient).numpy(), expected, rtol=1e-10)
    assert (expected < 0).any()
    assert (expected > 0).any()


@pytest.mark.parametrize("n", [2, 3])
def test_folding_punishes_compression_only(n):
    """Nothing above the limit is punished; below it the penalty is the mean squared shortfall."""
    assert float(folding(constant_gradient(np.zeros((n, n))), 0.3)) == 0
    assert float(folding(constant_gradient(MATRIX[:n, :n]), 0.3)) == 0
    assert float(folding(constant_gradient(2.0 * np.eye(n)), 0.9)) == 0
    flat = np.diag([-1.5, 0.0, 0.0][:n])  # turned over along one axis: determinant −0.5
    assert float(folding(constant_gradient(flat), 0.3)) == pytest.approx(0.8**2)
    half = constant_gradient(flat).clone()
    half[:, :, 0] = 0.0
    assert float(folding(half, 0.3)) == pytest.approx(0.8**2 / 2)


@pytest.mark.parametrize("n", [2, 3])
def test_gradients_are_exact(n):
    """Diffusion and folding have the gradient of finite differences, float64, where samples are folded too."""
    gradient = (0.8 * noise(n, n, *(2, 2, 3)[:n], seed=2)).requires_grad_()
    assert float(folding(gradient.detach(), 0.3)) > 0.01
    assert torch.autograd.gradcheck(diffusion, (gradient,))
    assert torch.autograd.gradcheck(lambda g: folding(g, 0.3), (gradient,))


def test_axis_of_one_voxel_has_no_slope():
    """Along an axis of one voxel a displacement has no slope: no diffusion and no folding from it."""
    grid = make_grid((9, 8, 1), (1.0, 1.2, 5.0), (0.0, 3.0, 9.0), rotation(3))
    lattice = SplineLattice(grid, (1.0, 3.0, 3.0))
    coefficients = torch.ones(3, *lattice.shape)
    coefficients[0] *= 50.0
    gradient = slopes(lattice, coefficients)
    assert float(diffusion(gradient)) < 1e-8
    assert float((determinant(gradient) - 1).abs().max()) < 1e-4
