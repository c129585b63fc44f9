"""Promises of the uncertainty: it goes with the true error, in mm, on the fixed grid, and changes nothing else."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import semreg
from conftest import centre, grid_at, noise, oblique_grid, rotation
from semreg.config import AlignConfig, CoarseConfig, RefineConfig, RegistrationConfig, UncertaintyConfig
from semreg.core.fields import Field, Layer, Volume
from semreg.core.geometry import Grid
from semreg.errors import ConfigError
from semreg.phantom import PhantomPair, make_pair, points_of
from semreg.phantom.anatomy import REGION
from semreg.registration.dense import sharpness
from semreg.registration.dense.bootstrap import MOST, blocks, spread_mm
from semreg.registration.dense.disagreement import Disagreement, between_mm, together_mm, undone_mm
from semreg.registration.dense.sharpness import affordable, stride_of, strided, widest_mm, width_mm
from semreg.registration.dense.terms import ALIKE, Term
from semreg.registration.uncertainty import NOTE, estimate, statistics

FAST = RegistrationConfig(align=AlignConfig(transform="none"), refine=RefineConfig(symmetric=False, iterations=4))


def volume_term(fixed: Volume, moving: Volume, weight: torch.Tensor | None = None) -> Term:
    """Two feature volumes to compare, squared differences."""
    return Term(Layer(fixed, None if weight is None else Volume(weight, fixed.grid)), Layer(moving))


def plain_grid(*shape: int, spacing: float = 1.5) -> Grid:
    """A grid of ``shape`` (tensor order), oblique, off the origin."""
    size = shape[::-1]
    return grid_at((9.0, -8.0, 7.0)[: len(size)], size, (spacing,) * len(size), rotation(len(size)))


def body_of(pair: PhantomPair) -> torch.Tensor:
    """Which voxels of the fixed image lie in the body, (*S)."""
    grid = pair.fixed.grid
    return torch.from_numpy(REGION.share(points_of(grid).flatten(1).numpy()) < 1).reshape(grid.shape)


def error_of(pair: PhantomPair, field: Field) -> torch.Tensor:
    """The true error in mm, (*S)."""
    return torch.linalg.vector_norm(field.mm() - pair.true_field().mm(), dim=0)


@pytest.mark.parametrize(("dimension", "size", "seed"), [(3, 36, 21), (2, 90, 22)])
def test_larger_uncertainty_goes_with_larger_error(dimension: int, size: int, seed: int) -> None:
    """On phantoms that set no factor the rank correlation over the body and over landmarks is clear, in 2-D and 3-D."""
    pair = make_pair(size=size, seed=seed, dimension=dimension)
    result = semreg.register(pair.fixed, pair.moving, config=FAST, device="cpu")
    assert result.uncertainty is not None
    body = body_of(pair)
    predicted, error = result.uncertainty.data[0][body], error_of(pair, result.field)[body]
    assert spearmanr(predicted, error).statistic > 0.4
    moved = result.field.point_map()(pair.fixed_points.T)
    missed = torch.linalg.vector_norm(moved - pair.moving_points.T, dim=0)
    there = Field.zeros(pair.fixed.grid)
    index = torch.from_numpy(np.linalg.inv(there.grid.index_to_point())) @ torch.cat(
        [pair.fixed_points.T, torch.ones(1, len(pair.fixed_points))]
    )
    nearest = index[:dimension].round().long()
    assert spearmanr(result.uncertainty.data[0][tuple(nearest)], missed).statistic > 0.3
    low, high = predicted <= predicted.quantile(0.2), predicted >= predicted.quantile(0.8)
    assert error[high].mean() > 1.5 * error[low].mean()


@pytest.mark.parametrize("shape", [(9, 11), (6, 7, 8)])
def test_the_width_is_that_of_a_loop_written_out(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without smoothing the width is Σ p d² with p ∝ exp(−cost / temperature), border features continued."""
    monkeypatch.setattr(sharpness, "SMOOTHING", {2: 0, 3: 0})
    monkeypatch.setattr(sharpness, "LEAST_BLOCK", {2: 1, 3: 1})
    monkeypatch.setattr(sharpness, "RADIUS", 0)
    n = len(shape)
    inner = plain_grid(*shape)
    outer = plain_grid(*(size + 4 for size in shape))  # its middle is the same, so it begins two samples earlier
    there = noise(3, *outer.shape, seed=1, dtype=torch.float32)
    here = there[(slice(None), *[slice(2, -2)] * n)] + 0.3 * noise(3, *shape, seed=2, dtype=torch.float32)
    term = volume_term(Volume(here, inner), Volume(there, outer))
    found = width_mm([term], Field.zeros(inner))
    left = (there[(slice(None), *[slice(2, -2)] * n)] - here).square().sum(0)
    temperature = sharpness.TEMPERATURE * float(left.median())
    offsets = list(itertools.product(range(-2, 3), repeat=n))
    for place in itertools.product(*[(0, k // 2, k - 1) for k in shape]):
        costs = []
        for offset in offsets:
            at = tuple(p + o + 2 for p, o in zip(place, offset, strict=True))
            costs.append(float((there[(slice(None), *at)] - here[(slice(None), *place)]).square().sum()))
        chance = np.exp(-(np.array(costs) - min(costs)) / temperature)
        squares = np.array([1.5**2 * sum(o * o for o in offset) for offset in offsets])
        expected = np.sqrt((chance * squares).sum() / chance.sum())
        assert float(found.data[(0, *place)]) == pytest.approx(expected, abs=1e-3)


def test_what_tells_nothing_is_as_uncertain_as_the_window_is_wide() -> None:
    """Flat features, features of weight 0 and places outside the moving image have the widest value, and no NaN."""
    grid = plain_grid(12, 14, 13)
    structure = noise(4, *grid.shape, seed=3, dtype=torch.float32)
    flat = volume_term(Volume(torch.ones_like(structure), grid), Volume(torch.ones_like(structure), grid))
    assert torch.allclose(width_mm([flat], Field.zeros(grid)).data, torch.tensor(widest_mm(grid)))
    same = volume_term(Volume(structure, grid), Volume(structure, grid))
    assert width_mm([same], Field.zeros(grid)).data.max() < 0.1 * widest_mm(grid)
    masked = torch.ones(1, *grid.shape)
    masked[..., 6:] = 0
    width = width_mm([volume_term(Volume(structure, grid), Volume(structure, grid), masked)], Field.zeros(grid)).data
    assert width[..., 11:].min() > 0.95 * widest_mm(grid) > 5 * width[..., :2].max()
    away = Field.zeros(grid)
    away.vox[0] = 100.0  # along one axis: the border that continues there has structure along the others
    assert torch.allclose(width_mm([same], away).data, torch.tensor(widest_mm(grid)), rtol=1e-3)


def test_the_width_is_in_mm() -> None:
    """The same voxels three times as large are three times as uncertain."""
    widths = []
    for spacing in (1.5, 4.5):
        grid = plain_grid(10, 12, 11, spacing=spacing)
        fixed, moving = (Volume(noise(3, *grid.shape, seed=seed, dtype=torch.float32), grid) for seed in (1, 2))
        widths.append(width_mm([volume_term(fixed, moving)], Field.zeros(grid)).data)
    assert torch.allclose(widths[1], 3 * widths[0], rtol=1e-4)


def test_layers_of_many_channels_take_no_more_memory_than_before() -> None:
    """Coarse layers of many channels are compared on blocks, not blown up to the finest grid; so are large images."""
    fine, coarse = plain_grid(24, 20, 28, spacing=1.0), plain_grid(6, 5, 7, spacing=4.0)
    wide = Volume(noise(64, *coarse.shape, dtype=torch.float32), coarse)
    field, terms = affordable([volume_term(wide, wide)], Field.zeros(fine))
    assert 64 * field.grid.voxels <= 2 * wide.data.numel()
    assert terms[0].fixed.grid == field.grid
    large = plain_grid(70, 80, 90)
    thin = Volume(torch.zeros(1, *large.shape), large)
    field, _ = affordable([volume_term(thin, thin)], Field.zeros(large))
    assert field.grid.voxels <= sharpness.MOST_SAMPLES
    nodes = strided(large, stride_of(large))
    assert nodes.voxels <= sharpness.MOST_NODES
    assert np.allclose(nodes.index_to_point()[:, -1], large.index_to_point()[:, -1])
    assert nodes.spacing[0] == stride_of(large) * 1.5


def test_displacements_that_undo_each_other_do_not_disagree() -> None:
    """A shift and its opposite disagree by 0 mm, a shift with nothing by its own length in mm."""
    grid = oblique_grid(3)
    shift = torch.tensor([0.5, -0.25, 0.75]).reshape(3, 1, 1, 1).expand(3, *grid.shape)
    assert undone_mm(shift, -shift, grid).data.abs().max() < 1e-6
    length = float(np.linalg.norm(np.array([0.5, -0.25, 0.75]) * grid.spacing))
    alone = undone_mm(shift, torch.zeros_like(shift), grid)
    assert torch.allclose(alone.data, torch.tensor(length))
    assert torch.allclose(between_mm(Field(shift, grid), Field.zeros(grid)).data, torch.tensor(length))
    both = together_mm([alone, alone])
    assert both is not None
    assert torch.allclose(both.data, torch.tensor(np.sqrt(2.0) * length, dtype=torch.float32))
    assert together_mm([]) is None


def test_the_spread_of_repeats_is_their_standard_deviation_in_mm() -> None:
    """Runs that give known displacements have the standard deviation of these and of the first, in mm."""
    grid = oblique_grid(3)
    term = volume_term(Volume(torch.ones(1, *grid.shape), grid), Volume(torch.ones(1, *grid.shape), grid))
    runs = noise(3, 3, *grid.shape, seed=5)
    left = list(runs)
    found = Field(noise(3, *grid.shape, seed=6), grid)
    spread = spread_mm([term], found, lambda _: Field(left.pop(), grid), 3, seed=0)
    all_mm = torch.cat([runs, found.vox[None]]) * torch.tensor(grid.spacing, dtype=torch.float64).reshape(3, 1, 1, 1)
    assert torch.allclose(spread.data[0], all_mm.var(0, correction=0).sum(0).sqrt())


def test_weights_of_blocks_are_drawn_from_the_seed() -> None:
    """Blocks have one weight each, in 0..1, the same for the same seed and others for another."""
    grid = plain_grid(9, 14, 11, spacing=2.0)
    first, again, other = (blocks(grid, 8.0, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (1, *grid.shape)
    assert torch.equal(first[:, :4, :4, :4], first[:, :1, :1, :1].expand(1, 4, 4, 4))
    assert 0 < first.min() < first.max() <= 1
    assert len(first.unique()) > 20
    assert MOST * float(first.mean()) == pytest.approx(0.95, abs=0.4)


@pytest.fixture(scope="module")
def small() -> PhantomPair:
    """A small pair in oblique frames."""
    return make_pair(size=20, seed=31)


@pytest.fixture(scope="module")
def plain(small: PhantomPair) -> semreg.Registration:
    """Its registration with uncertainty."""
    return semreg.register(small.fixed, small.moving, config=FAST, device="cpu")


def test_the_registration_is_the_same_bit_for_bit(small: PhantomPair, plain: semreg.Registration) -> None:
    """Neither the estimate nor its repeats change the result; without it there is none, in the record neither."""
    off = semreg.register(
        small.fixed, small.moving, config=replace(FAST, uncertainty=UncertaintyConfig(enabled=False)), device="cpu"
    )
    assert torch.equal(off.field.vox, plain.field.vox)
    assert torch.equal(off.warped.data, plain.warped.data)
    assert off.uncertainty is None
    assert off.record.uncertainty is None
    assert "uncertainty" not in off.record.timings
    config = replace(FAST, uncertainty=UncertaintyConfig(repeats=1))
    maps = []
    for _ in range(2):
        repeated = semreg.register(small.fixed, small.moving, config=config, device="cpu")
        assert torch.equal(repeated.field.vox, plain.field.vox)
        assert repeated.uncertainty is not None
        maps.append(repeated.uncertainty.data)
    assert torch.equal(*maps)
    assert plain.uncertainty is not None
    assert not torch.equal(maps[0], plain.uncertainty.data)
    assert repeated.record.uncertainty.parts["repeats"] > 0


def test_the_map_is_a_volume_in_mm_on_the_fixed_grid(small: PhantomPair, plain: semreg.Registration) -> None:
    """One channel of float32 on the fixed image's own oblique grid, finite and not negative; the record sums it up."""
    assert plain.uncertainty is not None
    assert plain.uncertainty.grid == small.fixed.grid
    assert plain.uncertainty.data.dtype == torch.float32
    assert plain.uncertainty.data.shape == (1, *small.fixed.grid.shape)
    assert bool(torch.isfinite(plain.uncertainty.data).all())
    assert plain.uncertainty.data.min() >= 0
    summary = plain.record.uncertainty
    assert 0 < summary.median_mm <= summary.p95_mm <= summary.maximum_mm
    assert summary.parts["window"] > 0
    assert summary.parts["repeats"] is None
    assert summary.note == NOTE
    assert plain.record.timings["uncertainty"].cpu_seconds > 0


def test_axes_in_another_order_permute_the_map(small: PhantomPair, plain: semreg.Registration) -> None:
    """The same image stored along other axes, one of them flipped, has the same uncertainty at the same points."""
    fixed = small.fixed
    turned = fixed.data.permute(0, 2, 3, 1).flip(2)
    direction = np.asarray(fixed.grid.direction)[:, [2, 0, 1]] * np.array([1.0, -1.0, 1.0])
    sizes, spacings = ([values[i] for i in (2, 0, 1)] for values in (fixed.grid.size_xyz, fixed.grid.spacing_xyz))
    grid = grid_at(centre(fixed.grid), sizes, spacings, direction)
    result = semreg.register(Volume(turned, grid), small.moving, config=FAST, device="cpu")
    assert plain.uncertainty is not None
    assert result.uncertainty is not None
    expected = plain.uncertainty.data.permute(0, 2, 3, 1).flip(2)
    assert torch.allclose(result.uncertainty.data, expected, atol=0.05 * float(expected.max()))


@pytest.mark.parametrize(
    "config",
    [
        replace(FAST, coarse=CoarseConfig(enabled=False)),
        replace(FAST, refine=RefineConfig(enabled=False)),
        replace(FAST, refine=RefineConfig(symmetric=True, iterations=3)),
        replace(FAST, refine=RefineConfig(distance="dotproduct", iterations=3)),
    ],
    ids=["no search", "no refinement", "symmetric", "no least value"],
)
def test_it_is_there_whatever_stage_is_left_out(small: PhantomPair, config: RegistrationConfig) -> None:
    """Without search, without refinement, in both directions and with an unsigned distance the map is finite."""
    result = semreg.register(small.fixed, small.moving, config=config, device="cpu")
    assert result.uncertainty is not None
    assert bool(torch.isfinite(result.uncertainty.data).all())
    assert result.uncertainty.data.std() > 0


@pytest.mark.parametrize("size", [(5, 4, 6), (9, 8, 1), (7, 6)])
def test_tiny_images_have_a_map(size: tuple[int, ...]) -> None:
    """A few voxels, a single slice and a small picture end in a finite map."""
    n = len(size)
    grid = grid_at((9.0, -8.0, 7.0)[:n], size, (1.1, 1.4, 2.0)[:n], rotation(n))
    fixed, moving = (Volume(100 * noise(1, *grid.shape, seed=seed, dtype=torch.float32), grid) for seed in (1, 2))
    result = semreg.register(fixed, moving, config=FAST, device="cpu")
    assert result.uncertainty is not None
    assert result.uncertainty.data.shape == (1, *grid.shape)
    assert bool(torch.isfinite(result.uncertainty.data).all())


def test_the_summary_is_of_what_the_fixed_mask_holds() -> None:
    """Nodes outside the fixed weight are in the map, but not in the numbers."""
    grid = plain_grid(12, 14, 13)
    structure = Volume(noise(4, *grid.shape, seed=3, dtype=torch.float32), grid)
    inner = torch.zeros(1, *grid.shape)
    inner[:, 2:10, 2:12, 2:11] = 1
    doubt = estimate([volume_term(structure, structure, inner)], Field.zeros(grid), UncertaintyConfig())
    assert torch.equal(doubt.counts, inner > 0.5)
    assert doubt.summary().maximum_mm == pytest.approx(float(doubt.map.data[inner > 0.5].max()))
    assert doubt.map.data.max() > doubt.summary().maximum_mm


def test_disagreement_adds_to_the_width() -> None:
    """What the two directions say against each other raises the map, by the sum of squares with its factors."""
    grid = plain_grid(12, 14, 13)
    structure = Volume(noise(4, *grid.shape, seed=3, dtype=torch.float32), grid)
    terms, still = [volume_term(structure, structure)], Field.zeros(grid)
    apart = Volume(torch.full((1, *grid.shape), 5.0), grid)
    alone = estimate(terms, still, UncertaintyConfig())
    both = estimate(terms, still, UncertaintyConfig(), disagreement=Disagreement(apart, apart))
    expected = (alone.map.data.square() + (0.02 + 0.1) * 25).sqrt()
    assert torch.allclose(both.map.data, expected, rtol=1e-5)
    assert both.summary().parts["searches"] == pytest.approx(5 * 0.02**0.5)


def test_statistics_are_those_of_numpy() -> None:
    """Mean, median, 95th percentile and maximum agree with NumPy on an odd number of values."""
    values = noise(1, 7, 11, 13, seed=9).abs()
    found = statistics(values)
    assert found["mean_mm"] == pytest.approx(float(values.mean()))
    assert found["median_mm"] == pytest.approx(float(np.median(values.numpy())))
    assert found["p95_mm"] == pytest.approx(float(np.percentile(values.numpy(), 95, method="nearest")))
    assert found["maximum_mm"] == float(values.max())


def test_settings_out_of_range_are_refused() -> None:
    """A number of repeats that is negative or absurd is an error with its name."""
    for repeats in (-1, 101):
        with pytest.raises(ConfigError, match=r"uncertainty\.repeats between 0 and 100"):
            UncertaintyConfig(repeats=repeats)
    assert sharpness.COLDEST < sharpness.UNSIGNED < ALIKE
