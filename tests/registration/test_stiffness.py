"""Promises of the stiffness map: what is stiff keeps its shape and may turn, the rest moves as before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_refine import pair_of

from conftest import centre, grid_at, noise, points_of, rotation
from semreg.config import CoarseConfig, RefineConfig, RegistrationConfig
from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.core.kernels import spline_product
from semreg.core.regularity import diffusion, folding
from semreg.errors import ImageError
from semreg.registration.dense.deform import deform
from semreg.registration.dense.objective import Problem
from semreg.registration.dense.prior import Prior
from semreg.registration.dense.smoothness import Smoothness
from semreg.registration.dense.stiffness import checked_stiffness, stiffened
from semreg.registration.dense.terms import Term
from semreg.transforms.bspline import SplineLattice

SIZE = (34, 30, 26)
BLOCK = (slice(8, 20), slice(9, 22), slice(10, 26))
CORE = (slice(10, 18), slice(11, 20), slice(12, 24))


def block_map(grid: Grid, value: float) -> Volume:
    """A map of 1 with a block of ``value``."""
    data = torch.ones(1, *grid.shape)
    data[0][BLOCK] = value
    return Volume(data, grid)


def strain(field: Field) -> torch.Tensor:
    """Size of the symmetric part of the gradient, mm per mm, (*S)."""
    spacing = field.grid.spacing
    mm = [row * s for row, s in zip(field.vox, spacing, strict=True)]
    gradient = torch.stack([torch.stack(torch.gradient(row, spacing=list(spacing))) for row in mm])
    return (0.5 * (gradient + gradient.transpose(0, 1))).square().sum((0, 1)).sqrt()


def result(stiffness: Volume | None, **changes: bool) -> tuple[Field, Field]:
    """The displacement that is found between bent features, and the true one."""
    fixed, moving, truth = pair_of(SIZE, amplitude_mm=4.0)
    refine = RefineConfig(diffusion=0.1, symmetric=changes.get("symmetric", False), enabled=changes.get("refine", True))
    config = RegistrationConfig(refine=refine, coarse=CoarseConfig(enabled=changes.get("coarse", False)))
    found = deform([Term(fixed, moving)], (fixed.grid, moving.grid), config, renewal=None, prior=Prior(stiffness))  # type: ignore[arg-type]
    return found.spline.field(fixed.grid), truth


def far(grid: Grid) -> torch.Tensor:
    """The samples more than four voxels from the block."""
    mask = torch.ones(grid.shape, dtype=torch.bool)
    mask[tuple(slice(max(s.start - 4, 0), s.stop + 4) for s in BLOCK)] = False
    return mask


@pytest.mark.parametrize(
    "changes",
    [{}, {"symmetric": True}, {"coarse": True}, {"coarse": True, "refine": False}],
    ids=["refinement", "both directions", "search and refinement", "search alone"],
)
def test_a_stiff_block_keeps_its_shape(changes: dict[str, bool]) -> None:
    """In a block of stiffness 50 the strain is a fifth of that without or less, further away about the same."""
    free, truth = result(None, **changes)
    stiff, _ = result(block_map(truth.grid, 50.0), **changes)
    before, after = strain(free), strain(stiff)
    assert float(before[CORE].mean()) > 0.2
    assert float(after[CORE].mean()) < 0.2 * float(before[CORE].mean())
    outside = far(truth.grid)
    assert float(after[outside].mean()) == pytest.approx(float(before[outside].mean()), rel=0.2)


def test_ones_change_nothing() -> None:
    """A map of 1 is no map, up to rounding: within 0.01 mm."""
    free, truth = result(None)
    same, _ = result(block_map(truth.grid, 1.0))
    torch.testing.assert_close(same.mm(), free.mm(), rtol=0, atol=0.01)


def test_small_values_set_free() -> None:
    """Where the stiffness is 0.02 and the regularity large, more of the true motion is found than with 1 there."""
    fixed, moving, truth = pair_of(SIZE, amplitude_mm=4.0)
    config = RegistrationConfig(refine=RefineConfig(diffusion=5.0, symmetric=False), coarse=CoarseConfig(enabled=False))
    errors = []
    for stiffness in (None, block_map(fixed.grid, 0.02)):
        found = deform([Term(fixed, moving)], (fixed.grid, moving.grid), config, renewal=None, prior=Prior(stiffness))  # type: ignore[arg-type]
        error = (found.spline.field(fixed.grid).mm() - truth.mm()).norm(dim=0)
        errors.append(float(error[CORE].mean()))
    assert errors[1] < 0.8 * errors[0]


def test_a_turn_is_no_strain() -> None:
    """A block that turns by 5° is left to turn: the stiffened displacement is the same within it to 0.1 mm."""
    grid = grid_at((5.0, -9.0, 30.0), SIZE, (1.7, 2.0, 2.3), rotation(3))
    points = points_of(grid) - torch.as_tensor(centre(grid)).reshape(3, 1, 1, 1)
    turn = torch.as_tensor(rotation(3, 5.0)) - torch.eye(3, dtype=torch.float64)
    field = Field.from_mm(torch.einsum("ij,j...->i...", turn, points).float(), grid)
    lattice = SplineLattice(grid, tuple(8.0 / s for s in grid.spacing))
    coefficients = lattice.fit(field)
    found = lattice.field(stiffened(lattice, coefficients, block_map(grid, 50.0)), grid)
    assert float(field.mm()[(slice(None), *CORE)].norm(dim=0).max()) > 1
    assert float((found.mm() - field.mm())[(slice(None), *CORE)].norm(dim=0).max()) < 0.1


def test_stiffening_is_the_least_of_its_formula() -> None:
    """No small change of the coefficients lowers |u − u₀|²/ℓ² + (w − 1)·strain²: its gradient there is about 0."""
    grid = grid_at((5.0, -9.0), (30, 26), (1.7, 2.0), rotation(2))
    lattice = SplineLattice(grid, (4.0, 5.0))
    start = noise(2, *lattice.shape, dtype=torch.float32)
    data = torch.ones(1, *grid.shape)
    data[:, 8:20, 6:22] = 9.0
    found = stiffened(lattice, start, Volume(data, grid))
    config = RefineConfig(diffusion=1.0, folding=0.0)
    spacing = torch.tensor(grid.spacing).reshape(2, 1, 1)
    length = max(step * s for step, s in zip(lattice.step, grid.spacing, strict=True))

    def slope_at(x: torch.Tensor) -> torch.Tensor:
        strains = [
            Smoothness(lattice, config, torch.device("cpu"), Prior(each)).pull(x, 1.0)[1]
            for each in (Volume(data, grid), None)
        ]
        held = 2 * (x - start) * (spacing / length).square() / x[0].numel()
        return held + strains[0] - strains[1]

    slope, steep = slope_at(found), slope_at(start)
    assert float(slope.norm()) < 0.01 * float(steep.norm())
    assert torch.equal(stiffened(lattice, start, Volume(torch.full_like(data, 0.5), grid)), start)


@pytest.mark.parametrize("n", [2, 3])
def test_weighted_diffusion_is_its_formula(n: int) -> None:
    """Below 1 the squared gradient is weighed, above 1 the squared strain is added; with 1 it is the diffusion."""
    gradient, weight = noise(n, n, *(3, 4, 5)[:n]), 3 * noise(*(3, 4, 5)[:n], seed=1).abs()
    values = []
    for index in np.ndindex(*weight.shape):
        g, w = gradient[(slice(None), slice(None), *index)].numpy(), float(weight[index])
        values.append(min(w, 1) * (g**2).sum() + max(w - 1, 0) * (((g + g.T) / 2) ** 2).sum())
    assert float(diffusion(gradient, weight)) == pytest.approx(np.mean(values))
    assert float(diffusion(gradient, torch.ones_like(weight))) == pytest.approx(float(diffusion(gradient)))


def test_gradient_of_the_weighted_smoothness() -> None:
    """What the refinement pulls with is the derivative of the weighted value, slab by slab, folded places too."""
    fixed, moving, _ = pair_of((20, 18, 16))
    lattice = SplineLattice(fixed.grid, (3.0, 4.0, 5.0))
    data = 4 * noise(1, *fixed.grid.shape, dtype=torch.float32, seed=5).abs()
    problem = Problem([Term(fixed, moving)], lattice, RefineConfig(), prior=Prior(stiffness=Volume(data, fixed.grid)))
    x = (1.5 * noise(3, *lattice.shape, dtype=torch.float32)).requires_grad_()
    of = problem.smoothness
    gradient = torch.stack([spline_product(x, bases) for bases in of.bases], 1) * of.unit
    value = 0.3 * diffusion(gradient, of.stiffness) + 20.0 * folding(gradient, 0.3)  # the usual settings
    (expected,) = torch.autograd.grad(value, x)
    told, pull = of.pull(x.detach(), 2.0)
    assert told == pytest.approx(float(value.detach()), rel=1e-5)
    torch.testing.assert_close(pull, 2 * expected, rtol=1e-3, atol=1e-6 * float(expected.abs().max()) + 1e-7)


def test_map_on_another_grid() -> None:
    """A map on an oblique grid of its own means the same places; beyond its box the stiffness is 1."""
    fixed, _, _ = pair_of(SIZE)
    lattice = SplineLattice(fixed.grid, (3.0, 3.0, 3.0))
    grid = grid_at(centre(fixed.grid), (30, 28, 26), (1.5, 1.4, 1.6), rotation(3, 60.0))
    work = Smoothness(
        lattice, RefineConfig(), torch.device("cpu"), Prior(Volume(torch.full((1, *grid.shape), 7.0), grid))
    )
    assert work.stiffness is not None
    middle = tuple(n // 2 for n in work.stiffness.shape)
    assert float(work.stiffness[middle]) == pytest.approx(7.0)
    assert float(work.stiffness[0, 0, 0]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("value", "message"),
    [(-0.5, "at least 0, got -0.5"), (float("nan"), "1 voxels with NaN"), (float("inf"), "NaN or infinity")],
)
def test_bad_values_are_refused(value: float, message: str) -> None:
    """A negative value, NaN or infinity is refused with what is wrong."""
    grid = Grid.of_shape((4, 5, 6))
    data = torch.ones(1, *grid.shape)
    data[0, 1, 2, 3] = value
    with pytest.raises(ImageError, match=message):
        checked_stiffness(Volume(data, grid), grid.dimension)


def test_empty_maps_are_refused() -> None:
    """A map of zeros and one of several channels are refused; single zeros become the least value."""
    grid = Grid.of_shape((4, 5, 6))
    with pytest.raises(ImageError, match="0 everywhere"):
        checked_stiffness(Volume(torch.zeros(1, *grid.shape), grid), grid.dimension)
    with pytest.raises(ImageError, match="got 3"):
        checked_stiffness(Volume(torch.ones(3, *grid.shape), grid), grid.dimension)
    data = torch.ones(1, *grid.shape, dtype=torch.int16)
    data[0, 0] = 0
    checked = checked_stiffness(Volume(data, grid), grid.dimension)
    assert checked.data.dtype == torch.float32
    assert float(checked.data.min()) > 0
