"""Promises of the refinement: it lowers the distance step by step, ends with a reason, reads nothing masked."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch

from conftest import centre, grid_at, noise, points_of, rotation
from semreg.config import RefineConfig
from semreg.dense import match
from semreg.dense import refine as stage
from semreg.dense.terms import Term
from semreg.errors import DivergedError, GeometryError
from semreg.fields import Field, Layer, Volume
from semreg.geometry import Grid
from semreg.similarity import DISTANCES


def features_at(points, channels=4):
    """Smooth functions of the point in mm, with wavelengths of about 12 to 40 mm."""
    n = points.shape[0]
    rates, phases = 0.16 * noise(channels, 6, n, seed=3), 3 * noise(channels, 6, seed=4)
    waves = torch.sin(torch.einsum("cwd,d...->cw...", rates, points) + phases.reshape(channels, 6, *[1] * n))
    return waves.sum(1).float()


def bend(points, middle, amplitude_mm=2.0):
    """A smooth displacement in mm, far from folding, the same on all grids."""
    n = points.shape[0]
    away = points - torch.as_tensor(middle).reshape(-1, *[1] * n)
    rates = torch.tensor([[0.09, 0.05, -0.03], [-0.04, 0.08, 0.06], [0.05, -0.06, 0.07]], dtype=torch.float64)[:n, :n]
    return amplitude_mm * torch.sin(torch.einsum("ij,j...->i...", rates, away) + 0.7)


def pair_of(size=(26, 22, 18), spacing=2.0, amplitude_mm=2.0):
    """Fixed and moving features on grids that share axes and spacing but not origin and size, and the true field."""
    n = len(size)
    grid = grid_at((5.0, -9.0, 30.0)[:n], size, (spacing,) * n, rotation(n))
    flat = size[-1] == 1
    start = (grid.index_to_point() @ np.array([0.0 if flat else -3.4, -2.7, -4.1, 1.0])[-n - 1 :])[:-1]
    bigger = tuple(s + (0 if s == 1 else e) for s, e in zip(size, (9, 6, 7), strict=False))
    other = Grid(bigger, grid.spacing_xyz, tuple(start), grid.direction)
    points = points_of(grid)
    shift = bend(points, centre(grid), amplitude_mm)
    if flat:
        axis = torch.tensor(np.asarray(grid.direction)[:, 2])
        shift = shift - axis.reshape(-1, 1, 1, 1) * torch.einsum("d,d...->...", axis, shift)
    truth = Field.from_mm(shift, grid)
    fixed = Layer(Volume(features_at(points + shift), grid))
    return fixed, Layer(Volume(features_at(points_of(other)), other)), truth


def refine(fixed, moving, initial, config, on_step=None):
    """The refinement with one layer of features."""
    return stage.refine([Term(fixed, moving, config.distance)], fixed.grid, initial, config, on_step)


def distance_at(fixed, moving, field, distance):
    """The distance of one layer of features."""
    return match.distance_at([Term(fixed, moving, distance)], field)


def found_field(refined, grid):
    """The displacement of the refined spline on ``grid``."""
    return refined.lattice.field(refined.coefficients, grid)


def error_mm(refined, truth):
    """Distance in mm between the refined and the true displacement at the inner samples."""
    error = (found_field(refined, truth.grid).mm() - truth.mm()).norm(dim=0)
    return error[tuple(slice(3, -3) if n > 8 else slice(None) for n in error.shape)]


CONFIG = RefineConfig(iterations=30, diffusion=0.02)


@pytest.mark.parametrize("distance", ["l2", "ncc"])
@pytest.mark.parametrize("size", [(26, 22, 18), (34, 30), (34, 30, 1)])
def test_small_deformation_is_recovered(size, distance):
    """A smooth deformation of 2 mm is found from nothing to a fifth of a voxel of 2 mm, between different grids."""
    fixed, moving, truth = pair_of(size)
    config = RefineConfig(iterations=30, diffusion=0.02, distance=distance)
    refined = refine(fixed, moving, Field.zeros(fixed.grid), config)
    error = error_mm(refined, truth)
    assert float(truth.mm().norm(dim=0).mean()) > 1.5
    assert float(error.mean()) < 0.2
    assert float(error.quantile(0.95)) < 0.6


def test_refinement_starts_at_the_initial_field():
    """What is far away is found from a start near it, and stays lost from none."""
    fixed, moving, truth = pair_of()
    away = torch.tensor([34.0, -21.0, 15.0], dtype=torch.float64)
    origin = tuple(np.array(moving.grid.origin_xyz) + away.numpy())
    far_grid = Grid(moving.grid.size_xyz, moving.grid.spacing_xyz, origin, moving.grid.direction)
    far = Layer(Volume(moving.features.data, far_grid))
    start = Field.from_mm(away.reshape(3, 1, 1, 1).expand(3, *fixed.grid.shape).float(), fixed.grid)
    refined = refine(fixed, far, start, CONFIG)
    moved = Field.from_mm(truth.mm() + away.reshape(3, 1, 1, 1), fixed.grid)
    assert float(error_mm(refined, moved).mean()) < 0.2


@pytest.mark.parametrize("distance", ["l2", "ncc"])
def test_objective_never_rises(distance):
    """The objective after each step is not above that before it, and each level ends nearer than it began."""
    fixed, moving, _ = pair_of(amplitude_mm=4.0)
    config = RefineConfig(iterations=15, distance=distance, step_mm=100.0, diffusion=0.05)  # overshoots
    refined = refine(fixed, moving, Field.zeros(fixed.grid), config)
    assert len(refined.levels) == config.levels
    for level in refined.levels:
        assert len(level.objective) == level.iterations + 1
        assert all(b <= a for a, b in itertools.pairwise(level.objective))
        assert level.objective[-1] < level.objective[0]
    assert refined.levels[0].distance_after < 0.8 * refined.levels[0].distance_before


def test_levels_end_with_a_reason():
    """Each level says in a sentence why it ended: the most iterations with their number, or the tolerance."""
    fixed, moving, _ = pair_of()
    short = refine(fixed, moving, Field.zeros(fixed.grid), RefineConfig(iterations=3, tolerance=0.0))
    assert all(re.fullmatch(r"reached the largest number of iterations, 3", level.reason) for level in short.levels)
    assert [level.iterations for level in short.levels] == [3] * len(short.levels)
    easy = refine(fixed, moving, Field.zeros(fixed.grid), RefineConfig(iterations=200, tolerance=0.05))
    assert all("fell by less than 0.05" in level.reason for level in easy.levels)
    assert all(level.iterations < 200 for level in easy.levels)
    assert [level.spacing_mm for level in easy.levels] == sorted([v.spacing_mm for v in easy.levels], reverse=True)
    assert easy.levels[-1].spacing_mm == pytest.approx(2.0)


@pytest.mark.parametrize("distance", ["l2", "ncc"])
def test_equal_features_stop_at_once(distance):
    """Features that are equal already are not moved, no step is made, and the reason says so."""
    _, moving, _ = pair_of()
    refined = refine(moving, moving, Field.zeros(moving.grid), RefineConfig(distance=distance))
    assert float(found_field(refined, moving.grid).vox.abs().max()) == 0
    assert [level.iterations for level in refined.levels] == [0] * len(refined.levels)
    assert all("equal" in level.reason for level in refined.levels)


def test_ncc_ignores_gain_and_offset_of_a_channel():
    """With NCC other gains and offsets of the channels give the same displacement to 0.02 mm."""
    fixed, moving, _ = pair_of()
    config = RefineConfig(iterations=8, distance="ncc", tolerance=0.0)
    first = refine(fixed, moving, Field.zeros(fixed.grid), config)
    gain = torch.tensor([3.0, 0.4, 20.0, 1.0]).reshape(4, 1, 1, 1)
    other = Layer(Volume(moving.features.data * gain + 5.0, moving.grid))
    second = refine(fixed, other, Field.zeros(fixed.grid), config)
    difference = found_field(first, fixed.grid).mm() - found_field(second, fixed.grid).mm()
    assert float(difference.abs().max()) < 0.02
    assert float(found_field(first, fixed.grid).mm().abs().max()) > 1.0


@pytest.mark.parametrize("distance", ["l2", "ncc"])
def test_unit_of_the_features_does_not_matter(distance):
    """Features a thousand times as large in both images give the same displacement to 0.01 mm."""
    fixed, moving, _ = pair_of()
    config = RefineConfig(iterations=6, distance=distance, tolerance=0.0)
    first = refine(fixed, moving, Field.zeros(fixed.grid), config)
    scaled = [Layer(Volume(1000 * layer.features.data, layer.grid)) for layer in (fixed, moving)]
    second = refine(*scaled, Field.zeros(fixed.grid), config)
    difference = found_field(first, fixed.grid).mm() - found_field(second, fixed.grid).mm()
    assert float(difference.abs().max()) < 0.01


def masked(layer, fraction=0.4):
    """The layer with its far end excluded, and the same with junk there."""
    weight = torch.ones(1, *layer.grid.shape)
    weight[..., : int(fraction * layer.grid.shape[-1])] = 0.0
    mask = Volume(weight, layer.grid)
    junk = torch.where(weight > 0, layer.features.data, 50.0 + 40.0 * noise(*layer.features.data.shape).float())
    return Layer(layer.features, mask), Layer(Volume(junk, layer.grid), mask)


@pytest.mark.parametrize("distance", ["l2", "ncc"])
@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_excluded_samples_do_not_count(which, distance):
    """Whatever features stand where the weight of either image is 0, the displacement is the same to 0.01 mm."""
    fixed, moving, truth = pair_of()
    clean, spoilt = masked(fixed if which == "fixed" else moving)
    config = RefineConfig(iterations=10, distance=distance, tolerance=0.0, diffusion=0.05)
    pairs = [(layer, moving) if which == "fixed" else (fixed, layer) for layer in (clean, spoilt)]
    first, second = (found_field(refine(*pair, Field.zeros(fixed.grid), config), fixed.grid).mm() for pair in pairs)
    assert float((first - second).abs().max()) < 0.01
    right = (first - truth.mm()).norm(dim=0)[3:-3, 3:-3, -8:-3]
    assert float(right.mean()) < 0.6  # and where both count the deformation is found


@pytest.mark.parametrize("spoil", ["apart", "fixed mask", "moving mask"])
def test_nothing_to_compare_is_refused(spoil):
    """Images that do not overlap, or masks that leave nothing, are a GeometryError that says what to check."""
    fixed, moving, _ = pair_of()
    if spoil == "apart":
        origin = tuple(np.array(moving.grid.origin_xyz) + 500.0)
        far = Grid(moving.grid.size_xyz, moving.grid.spacing_xyz, origin, moving.grid.direction)
        moving = Layer(Volume(moving.features.data, far))
    elif spoil == "fixed mask":
        fixed = Layer(fixed.features, Volume(torch.zeros(1, *fixed.grid.shape), fixed.grid))
    else:
        moving = Layer(moving.features, Volume(torch.zeros(1, *moving.grid.shape), moving.grid))
    with pytest.raises(GeometryError, match=r"both images .*check the masks, or give an initial transform"):
        refine(fixed, moving, Field.zeros(fixed.grid), RefineConfig())


@pytest.mark.parametrize("distance", ["l2", "ncc"])
@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_nan_features_are_an_error(which, distance):
    """Features that are not numbers end the refinement with a DivergedError, whatever the distance."""
    fixed, moving, _ = pair_of()
    layer = fixed if which == "fixed" else moving
    layer.features.data[0, 9, 9, 9] = float("nan")
    with pytest.raises(DivergedError, match="expected finite values"):
        refine(fixed, moving, Field.zeros(fixed.grid), RefineConfig(distance=distance))


def test_diffusion_makes_smoother():
    """A larger weight of the diffusion gives a smoother displacement, and one far too large nearly none."""
    fixed, moving, _ = pair_of(amplitude_mm=3.0)
    spread = []
    for weight in (0.01, 0.5, 1000.0):
        config = RefineConfig(iterations=20, diffusion=weight)
        field = found_field(refine(fixed, moving, Field.zeros(fixed.grid), config), fixed.grid)
        spread.append(float(sum(field.vox.diff(dim=axis).square().mean() for axis in (1, 2, 3))))
    assert spread[0] > spread[1] > 20 * spread[2]


@pytest.mark.parametrize("distance", ["l2", "ncc"])
def test_distance_at_is_that_of_the_warped_features(distance):
    """``distance_at`` reads the moving features at p + u(p) and leaves out what is outside: by hand the same."""
    fixed, moving, truth = pair_of()
    points = points_of(fixed.grid)
    warped = features_at(points + truth.mm())
    by_hand = DISTANCES[distance](fixed.features.data.flatten(1).T, warped.flatten(1).T)
    assert float(by_hand) == pytest.approx(0, abs=1e-5)
    scale = DISTANCES[distance].scale(fixed.features.data.flatten(1).T, None)
    zero = Field.zeros(fixed.grid)
    assert distance_at(fixed, moving, Field(truth.vox.float(), truth.grid), distance) < 0.02 * scale
    apart = DISTANCES[distance](fixed.features.data.flatten(1).T, features_at(points).flatten(1).T)
    assert distance_at(fixed, moving, zero, distance) == pytest.approx(float(apart), rel=0.1)


def test_steps_are_told_in_order():
    """Every step of every level is told, with its number, the distance and the seconds since the start."""
    fixed, moving, _ = pair_of()
    steps = []
    config = RefineConfig(iterations=4, tolerance=0.0, levels=2)
    refined = refine(fixed, moving, Field.zeros(fixed.grid), config, steps.append)
    assert [(step.level, step.iteration) for step in steps] == list(itertools.product((1, 2), (1, 2, 3, 4)))
    assert {(step.stage, step.levels, step.iterations) for step in steps} == {("refine", 2, 4)}
    assert [step.seconds for step in steps] == sorted(step.seconds for step in steps)
    assert steps[-1].value == pytest.approx(refined.levels[-1].distance_after)
