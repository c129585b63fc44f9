"""Promises of the refinement: it lowers the distance step by step, ends with a reason, reads nothing masked."""

from __future__ import annotations

import dataclasses
import itertools
import re

import numpy as np
import pytest
import torch

from conftest import centre, grid_at, noise, points_of, rotation
from semreg.config import RefineConfig, RegistrationConfig
from semreg.core.fields import Field, Layer, Volume
from semreg.core.geometry import Grid
from semreg.core.kernels import spline_product
from semreg.core.regularity import determinant, diffusion, folding
from semreg.core.sampling import smooth
from semreg.distances import DISTANCES
from semreg.distances.correlation import lncc, lncc_of, ncc
from semreg.errors import ConfigError, DivergedError, GeometryError
from semreg.registration.dense import data_term as match
from semreg.registration.dense import refine as stage
from semreg.registration.dense import smoothness
from semreg.registration.dense.balance import balanced, first_values, raw
from semreg.registration.dense.objective import Problem
from semreg.registration.dense.subsampled import DrawnMatch
from semreg.registration.dense.terms import Term
from semreg.transforms.bspline import SplineLattice


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
    return refined.spline.field(grid)


def error_mm(refined, truth):
    """Distance in mm between the refined and the true displacement at the inner samples."""
    error = (found_field(refined, truth.grid).mm() - truth.mm()).norm(dim=0)
    return error[tuple(slice(3, -3) if n > 8 else slice(None) for n in error.shape)]


CONFIG = RefineConfig(iterations=30, diffusion=0.02)


def test_threads_change_no_bit():
    """A descent is the same with one thread and with three, where sums are long enough to be dealt to threads."""
    fixed, moving, truth = pair_of((44, 40, 36))
    terms = [Term(fixed, moving), Term(fixed, moving, "lncc_squared", share=0.2)]
    config = RefineConfig(iterations=4, diffusion=0.02, levels=1, control_mm=2.0)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(stage.refine(terms, fixed.grid, Field.zeros(truth.grid), config).spline.coefficients)
    finally:
        torch.set_num_threads(before)
    assert found[0].numel() > 1 << 17
    assert torch.equal(*found)


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


ADAM = RefineConfig(optimizer="adam", levels=1, iterations=60, step_mm=0.3, control_mm=8.0, diffusion=0.02)


@pytest.mark.parametrize("sampling", [1.0, 0.4])
def test_adam_recovers_a_small_deformation(sampling):
    """Steps of a third of a millimetre find 2 mm of bending to half a voxel, with all samples or a part of them."""
    fixed, moving, truth = pair_of()
    steps = []
    config = dataclasses.replace(ADAM, sampling=sampling)
    refined = refine(fixed, moving, Field.zeros(fixed.grid), config, steps.append)
    assert float(error_mm(refined, truth).mean()) < 0.5
    (report,) = refined.levels
    assert (report.iterations, report.reason, len(steps)) == (60, "made all 60 steps", 60)
    assert steps[0].objective == pytest.approx(1.0, abs=0.2 if sampling < 1 else 1e-6)
    assert report.distance_after < 0.3 * report.distance_before


def test_adam_is_that_of_torch():
    """Each step is that of ``torch.optim.Adam`` for the same gradients of an objective that starts at 1."""
    fixed, moving, _ = pair_of((14, 12))
    config = dataclasses.replace(ADAM, iterations=7, beta1=0.8, beta2=0.95, epsilon=1e-3, folding=0.0, diffusion=0.1)
    refined = refine(fixed, moving, Field.zeros(fixed.grid), config)
    problem = Problem([Term(fixed, moving)], refined.spline.lattice, config)
    variable = torch.nn.Parameter(refined.spline.lattice.fit(Field.zeros(fixed.grid)))
    optimizer = torch.optim.Adam([variable], lr=0.3 / 2.0, betas=(0.8, 0.95), eps=1e-3)  # in voxels of 2 mm
    first = problem.evaluate(variable.data, None)
    objective = [first.value]
    for _ in range(7):
        variable.grad = problem.evaluate(variable.data, first.distance).gradient / first.distance
        optimizer.step()
        objective.append(problem.evaluate(variable.data, first.distance).value)
    np.testing.assert_allclose(refined.levels[0].objective, objective, rtol=1e-5)
    torch.testing.assert_close(refined.spline.coefficients, variable.data, rtol=0, atol=1e-5)


def test_adam_ends_at_its_best():
    """Steps that are much too long are taken back, and the report says which of the points is returned."""
    fixed, moving, _ = pair_of((14, 12))
    refined = refine(fixed, moving, Field.zeros(fixed.grid), dataclasses.replace(ADAM, step_mm=30.0, iterations=9))
    (report,) = refined.levels
    assert max(report.objective) == report.objective[0]
    assert report.objective[report.returned] == min(report.objective) < report.objective[0]
    after = distance_at(fixed, moving, found_field(refined, fixed.grid), "l2")
    assert after == pytest.approx(report.distance_after, rel=1e-3)
    assert after <= report.distance_before


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_smoothed_control_points(optimizer):
    """Averaged control points make a smoother displacement, and what is reported is what that displacement gives."""
    fixed, moving, _ = pair_of((26, 22))
    config = dataclasses.replace(ADAM, optimizer=optimizer, control_mm=3.0, iterations=15, diffusion=1e-4, folding=0.0)
    rough, fine = (
        refine(fixed, moving, Field.zeros(fixed.grid), dataclasses.replace(config, smoothing=n)) for n in (0, 2)
    )
    after = distance_at(fixed, moving, found_field(fine, fixed.grid), "l2")
    assert after == pytest.approx(fine.levels[-1].distance_after, rel=1e-3)

    def bends(refined):
        return float(sum(refined.spline.coefficients.diff(n=2, dim=axis).square().mean() for axis in (1, 2)))

    assert bends(fine) < 0.5 * bends(rough)


def test_drawn_samples():
    """A share of the samples gives the distance of these alone and no gradient at others; redrawing draws others."""
    fixed, moving, _ = pair_of((14, 12))
    weight = Layer(fixed.features, Volume(noise(1, 12, 14, seed=9).abs().clamp(max=1).float(), fixed.grid))
    term = Term(weight, moving)
    whole = match.TermMatch(term, stage.lattice_of(fixed.grid, ADAM))
    drawn = DrawnMatch(whole, 0.25)
    index = whole.index(torch.zeros(2, *stage.lattice_of(fixed.grid, ADAM).shape)) + 0.3
    assert drawn.data(index)[0] == whole.data(index)[0]
    generator = torch.Generator().manual_seed(3)
    drawn.redraw(generator)
    rows = drawn.rows
    assert len(rows) == len(set(rows.tolist())) == 42
    value, gradient = drawn.data(index)
    expected = DISTANCES["l2"](whole.fixed[rows], whole.table.at(index[:, rows]).values(), whole.weight(index)[rows])
    assert value == pytest.approx(term.factor * float(expected), rel=1e-5)
    others = torch.ones(168, dtype=torch.bool).index_fill(0, rows, value=False)
    assert float(gradient[:, others].abs().max()) == 0 < float(gradient[:, rows].abs().min(1).values.max())
    drawn.redraw(generator)
    assert not torch.equal(drawn.rows, rows)


def test_windows_of_lncc():
    """The window is as wide as asked for: one that holds the whole image gives its normalised cross-correlation."""
    fixed, moving = noise(30, 2, seed=1), noise(30, 2, seed=2)
    assert float(lncc(fixed, moving, None, (5, 6), radius=6)) == pytest.approx(float(ncc(fixed, moving)), rel=1e-3)
    near, far, _ = pair_of((14, 12))
    wide = Term(near, far, "lncc", radius=3)
    rows, other = near.features.data.flatten(1).T, near.features.data.flatten(1).T.flip(0)
    assert float(wide.measure(rows, other, None, (12, 14))) == float(lncc_of(3)(rows, other, None, (12, 14)))
    assert float(wide.measure(rows, other, None, (12, 14))) != float(DISTANCES["lncc"](rows, other, None, (12, 14)))


def test_layers_divided_by_their_first_values():
    """Divided by its first value each layer counts by its weight alone; the scale of the sum stays; raw ones differ."""
    fixed, moving, _ = pair_of((14, 12))
    large = [Layer(Volume(100 * layer.features.data, layer.grid)) for layer in (fixed, moving)]
    terms = [Term(fixed, moving, share=0.25, scale=1.0), Term(*large, share=0.75, scale=3e4)]
    start = Field.zeros(fixed.grid)
    first = first_values(terms, start)
    assert first[1] == pytest.approx(1e4 * first[0], rel=1e-4)
    before = match.distance_at(terms, start)
    parts = [match.distance_at([term], start) for term in balanced(terms, first)]
    assert sum(parts) == pytest.approx(before, rel=1e-5)
    assert parts[1] == pytest.approx(3 * parts[0], rel=1e-4)
    plain = [match.distance_at([term], start) for term in raw(terms)]
    assert plain[1] == pytest.approx(3e4 * plain[0], rel=1e-4)
    assert balanced(terms[:1], [7.0]) == tuple(terms[:1])
    same = first_values([Term(fixed, fixed, scale=2.0)], start)
    assert same == [pytest.approx(2e-3)]  # about 0: no measure


def test_regularity_of_raw_distances():
    """With raw distances the regularity counts against a distance of 1, not against the one at the start."""
    fixed, moving, _ = pair_of((14, 12))
    config = RefineConfig(balance="raw", diffusion=0.7, folding=0.0, control_mm=6.0)
    terms = raw([Term(fixed, moving, share=0.25, scale=0.7), Term(fixed, moving, "l1", share=0.75, scale=1.7)])
    problem = Problem(terms, stage.lattice_of(fixed.grid, config), config)
    bent = noise(2, *problem.lattice.shape, seed=5, dtype=torch.float32)
    here, flat = problem.evaluate(bent, None), problem.evaluate(torch.zeros_like(bent), None)
    distances = [match.distance_at([Term(fixed, moving, n)], Field.zeros(fixed.grid)) for n in ("l2", "l1")]
    unit = problem.unit(flat.distance)
    assert flat.distance / unit == pytest.approx(0.25 * distances[0] + 0.75 * distances[1], rel=1e-4)
    assert (here.value - here.distance) / unit == pytest.approx(float(problem.regularity(bent)), rel=1e-4)


@pytest.mark.parametrize("most", [1, 700, 1 << 18])
@pytest.mark.parametrize("weight", [0.0, 3.0])
@pytest.mark.parametrize("size", [(17, 13, 11), (17, 13), (17, 13, 1)])
def test_regularity_slab_by_slab(size, weight, most, monkeypatch):
    """Its value and pull are those of the formula at all places at once, however many are held, folded ones too."""
    monkeypatch.setattr(smoothness, "SLAB_PLACES", most)
    n = len(size)
    grid = grid_at((5.0, -9.0, 30.0)[:n], size, (0.9, 1.4, 2.3)[:n], rotation(n))
    config = RefineConfig(diffusion=0.7, folding=weight, minimum_jacobian=0.4)
    regularity = smoothness.Smoothness(SplineLattice(grid, (1.0, 2.5, 3.0)[:n]), config, torch.device("cpu"))
    planes = len(regularity.bases[0][0])
    assert len(regularity.slabs) == {1: planes, 700: 2 if size == (17, 13, 11) else 1, 1 << 18: 1}[most]
    shape = [b.shape[1] for b in regularity.bases[0]]
    coefficients = (4 * noise(n, *shape, dtype=torch.float32)).requires_grad_()
    # the oracle: autograd through all derivatives
    gradient = torch.stack([spline_product(coefficients * regularity.unit, bases) for bases in regularity.bases], 1)
    squares = gradient.square().sum((0, 1)).mean()
    expected = 0.7 * squares + weight * folding(gradient, 0.4)
    assert float(squares.detach()) == pytest.approx(float(diffusion(gradient.detach())))
    share = float((determinant(gradient.detach()) < 0.4).float().mean())
    assert 0.1 < share < 0.9
    (slope,) = torch.autograd.grad(5.0 * expected, coefficients)
    value, pull = regularity.pull(coefficients.detach(), 5.0)
    assert value == pytest.approx(float(expected.detach()), rel=1e-5)
    assert float(regularity.value(coefficients.detach())) == pytest.approx(value, rel=1e-5)
    torch.testing.assert_close(pull, slope, rtol=0, atol=1e-5 * float(slope.abs().max()))


@pytest.mark.parametrize("size", [(17, 13, 11), (17, 13), (17, 13, 1)])
def test_what_is_the_same_everywhere_is_smooth(size):
    """A displacement by 30 voxels has no roughness, and does not hide that of a small change by rounding."""
    n = len(size)
    grid = grid_at((5.0, -9.0, 30.0)[:n], size, (0.9, 1.4, 2.3)[:n], rotation(n))
    regularity = smoothness.Smoothness(SplineLattice(grid, (1.0, 2.5, 3.0)[:n]), RefineConfig(), torch.device("cpu"))
    change = 1e-3 * noise(n, *[b.shape[1] for b in regularity.bases[0]], dtype=torch.float32)
    value, pull = regularity.pull(torch.full_like(change, 30.0), 1.0)
    assert value == 0
    assert not pull.any()
    value, pull = regularity.pull(change, 1.0)
    shifted, its = regularity.pull(30.0 + change, 1.0)
    assert shifted == pytest.approx(value, rel=1e-2)  # 30.001 itself is kept to 2e-6
    torch.testing.assert_close(its, pull, rtol=0, atol=1e-2 * float(pull.abs().max()))


def test_regularity_holds_one_slab(monkeypatch):
    """The derivatives of a slab are gone before the next: no tensor of a step holds them at all places."""
    monkeypatch.setattr(smoothness, "SLAB_PLACES", 1 << 11)
    grid = grid_at((5.0, -9.0, 30.0), (34, 31, 29), (1.0, 1.0, 1.0), rotation(3))
    regularity = smoothness.Smoothness(SplineLattice(grid, (1.0, 1.0, 1.0)), RefineConfig(), torch.device("cpu"))
    coefficients = noise(3, 32, 34, 37, dtype=torch.float32)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as record:
        regularity.pull(coefficients, 1.0)
    most = max(event.cpu_memory_usage for event in record.events())
    assert most == coefficients.nbytes  # the pull itself
    assert 2 * most < 9 * 4 * grid.voxels


def test_settings_of_adam_that_mean_nothing():
    """Drawing voxels is for Adam in the static mode and for distances voxel by voxel; windows are odd."""
    for settings in ({"sampling": 0.5}, {"sampling": 0.5, "optimizer": "adam", "mode": "jacobian"}, {"window": 4}):
        with pytest.raises(ConfigError, match=r"expected refine\.(sampling|window)"):
            RefineConfig(**settings)
    with pytest.raises(ConfigError, match=r"expected refine\.sampling=1 for lncc"):
        RegistrationConfig(refine=RefineConfig(optimizer="adam", sampling=0.5, distance="lncc"))


def test_smoothing_reaches_the_coefficients():
    """The coefficients of a problem are averaged before anything is done with them."""
    fixed, moving, _ = pair_of((14, 12))
    config = RefineConfig(smoothing=3, control_mm=6.0)
    problem = Problem([Term(fixed, moving)], stage.lattice_of(fixed.grid, config), config)
    plain = Problem([Term(fixed, moving)], problem.lattice, RefineConfig(control_mm=6.0))
    bent = noise(2, *problem.lattice.shape, seed=5, dtype=torch.float32)
    found, expected = problem.evaluate(bent, 1.0), plain.evaluate(smooth(bent, passes=3), 1.0)
    assert found.value == pytest.approx(expected.value, rel=1e-5)
    assert not torch.allclose(found.gradient, expected.gradient)
