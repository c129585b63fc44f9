"""Promises of the fold-free displacement: positive determinants by ITK's own filter, whatever comes in."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from conftest import grid_at, noise, rotation
from semreg.core.fields import Field, jacobian_determinant
from semreg.core.geometry import Grid
from semreg.core.kernels import least_corner
from semreg.registration.dense import unfold as stage
from semreg.registration.dense.unfold import SAFE_CORNER, SAFE_JACOBIAN, unfold
from semreg.transforms.bspline import SplineLattice

GRIDS = [
    grid_at((9.0, -8.0, 7.0), (38, 31, 25), (0.8, 1.3, 1.9), rotation(3, 31.0)),
    grid_at((9.0, -8.0, 7.0), (49, 25, 1), (0.8, 1.3, 1.9), rotation(3, 31.0)),
    grid_at((9.0, -8.0), (57, 43), (0.8, 1.3), rotation(2)),
    grid_at((9.0, -8.0), (2, 50), (2.8, 1.3), rotation(2)),
]


def lattice_on(grid: Grid, mm: float = 6.0) -> SplineLattice:
    """Control points ``mm`` apart."""
    return SplineLattice(grid, tuple(mm / s for s in grid.spacing))


def wild(lattice: SplineLattice, amplitude: float, seed: int = 0) -> torch.Tensor:
    """Control points of noise, ``amplitude`` in voxels."""
    return amplitude * noise(lattice.grid.dimension, *lattice.shape, seed=seed, dtype=torch.float32)


def itk_determinant(field: Field) -> np.ndarray:
    """By SimpleITK's filter, which ignores directions: the vectors are given along the axes of the grid, in mm."""
    along = field.vox.double() * torch.tensor(field.grid.spacing).reshape(-1, *[1] * field.grid.dimension)
    image = sitk.GetImageFromArray(along.flip(0).movedim(0, -1).numpy(), isVector=True)
    image.SetSpacing(field.grid.spacing_xyz)
    return np.asarray(sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(image)))


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: "x".join(map(str, grid.size_xyz)))
@pytest.mark.parametrize("amplitude", [1.5, 8.0, 300.0])
def test_whatever_comes_in_nothing_folds(grid: Grid, amplitude: float) -> None:
    """From mild to absurd noise the determinant of ITK's filter is positive at each voxel, and so is each cell."""
    lattice = lattice_on(grid)
    coefficients = wild(lattice, amplitude)
    if amplitude > 2:
        assert itk_determinant(lattice.field(coefficients, grid)).min() < 0
    for one_to_one in (False, True):
        field, passes = unfold(lattice, coefficients, grid, one_to_one=one_to_one)
        assert itk_determinant(field).min() > 0.9 * SAFE_JACOBIAN
        assert passes <= stage.MOST_PASSES
        assert bool(torch.isfinite(field.vox).all())
    assert float(least_corner(field.vox).min()) > 0.9 * SAFE_CORNER


def test_central_differences_are_not_enough() -> None:
    """What zigzags from voxel to voxel folds with good central determinants; one-to-one that is seen and removed."""
    grid = GRIDS[2]
    lattice = SplineLattice(grid, (0.5, 0.5))
    vox = torch.zeros(2, *grid.shape)
    vox[1] = 0.7 * (1 - 2 * (torch.arange(grid.shape[1]) % 2))  # neighbours change places, next but one do not
    zigzag = lattice.fit(Field(vox, grid))
    plain, passes = unfold(lattice, zigzag, grid)
    assert passes == 0
    assert float(least_corner(plain.vox).min()) < 0
    strict, passes = unfold(lattice, zigzag, grid, one_to_one=True)
    assert passes > 0
    assert float(least_corner(strict.vox).min()) > 0.9 * SAFE_CORNER


def test_more_is_kept_than_a_translation() -> None:
    """A field that folds all over keeps part of its motion: it is not shrunk to its mean."""
    lattice = lattice_on(GRIDS[0])
    field, _ = unfold(lattice, wild(lattice, 8.0), GRIDS[0], one_to_one=True)
    spread = field.vox - field.vox.flatten(1).mean(1).reshape(3, 1, 1, 1)
    assert float(spread.square().mean().sqrt()) > 0.3  # voxels


def test_it_ends_where_smoothing_cannot_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the passes run out, a translation is left: without folds too."""
    monkeypatch.setattr(stage, "MOST_PASSES", 1)
    lattice = lattice_on(GRIDS[0])
    field, passes = unfold(lattice, wild(lattice, 300.0), GRIDS[0])
    assert passes == 1
    torch.testing.assert_close(jacobian_determinant(field), torch.ones(GRIDS[0].shape), rtol=0, atol=1e-3)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: "x".join(map(str, grid.size_xyz)))
def test_without_folds_nothing_changes(grid: Grid) -> None:
    """A displacement without folds is the spline's own to the bit."""
    lattice = lattice_on(grid)
    coefficients = wild(lattice, 0.4)
    field, passes = unfold(lattice, coefficients, grid, one_to_one=True)
    assert passes == 0
    assert torch.equal(field.vox, lattice.field(coefficients, grid).vox)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: "x".join(map(str, grid.size_xyz)))
def test_no_fold_is_overlooked(grid: Grid) -> None:
    """The blocks that are not looked at hold no fold: all determinants, over the whole, are what was asked for."""
    lattice = lattice_on(grid)
    for seed, amplitude in itertools.product(range(3), (0.6, 0.9, 1.2)):
        work = stage._Unfolding(lattice, grid, wild(lattice, amplitude, seed), one_to_one=True)
        work.check(work.suspected())
        whole = jacobian_determinant(work.field) <= SAFE_JACOBIAN
        corners = least_corner(work.field.vox) <= SAFE_CORNER
        whole[tuple(slice(0, n) for n in corners.shape)] |= corners
        assert torch.equal(work.folded, whole)


def test_quiet_blocks_are_passed_over() -> None:
    """Where nothing moves no block is looked at, and one wild control point brings in only those that see it."""
    grid = grid_at((9.0, -8.0), (200, 150), (0.8, 1.3), rotation(2))
    lattice = lattice_on(grid)
    coefficients = torch.zeros(2, *lattice.shape)
    assert stage._Unfolding(lattice, grid, coefficients, one_to_one=True).suspected() == []
    coefficients[0, 8, 9] = 30.0
    found = stage._Unfolding(lattice, grid, coefficients, one_to_one=True).suspected()
    assert 0 < len(found) < 30
    field, _ = unfold(lattice, coefficients, grid, one_to_one=True)
    assert not field.vox[:, -30:].any()
    assert itk_determinant(field).min() > 0
