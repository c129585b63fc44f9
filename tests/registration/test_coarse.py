"""Promises of the coarse search: costs as defined, a reach in mm at bounded memory, and the best match within it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from conftest import grid_at, make_grid, noise, points_of, rotation
from semreg.config import CoarseConfig
from semreg.core.fields import Field, Layer, Volume
from semreg.core.geometry import Grid
from semreg.core.kernels import Costs, Extended, cost_volume
from semreg.core.kernels.contract import UNSEEN
from semreg.core.sampling import base_index, sample, smooth
from semreg.distances.differences import l2_cost
from semreg.errors import ConfigError
from semreg.registration.dense.coarse import (
    coarse,
    coupled_convex,
    make_consistent,
    memory_bytes,
    plan_levels,
    search,
    spreads,
    window,
)
from semreg.registration.dense.terms import Term


def layer_of(grid, channels=6, move=None):
    """Features that are functions of the point in mm with structure of all sizes, 12 to 200 mm."""
    points = points_of(grid) if move is None else move(points_of(grid))
    generator = np.random.default_rng(5)
    result = torch.zeros(channels, *grid.shape, dtype=torch.float64)
    for channel, wavelength in itertools.product(range(channels), np.geomspace(12.0, 200.0, 6)):
        way = generator.normal(size=grid.dimension)
        rate = torch.as_tensor(2 * np.pi / wavelength * way / np.linalg.norm(way))
        result[channel] += torch.sin(torch.einsum("d,d...->...", rate, points) + 6 * generator.uniform())
    return Layer(Volume(result.float(), grid))


def shifted(by_mm):
    """Points moved by ``by_mm`` (x, y, z)."""

    def move(points):
        return points + torch.as_tensor(by_mm, dtype=points.dtype).reshape(-1, *[1] * (points.ndim - 1))

    return move


def costs_by_loops(near, far, near_weight, far_weight, candidates, widths):
    """Weighted squared feature differences and weights (nodes, K), means over the 3^D nodes that exist."""
    shape = near.shape[1:]
    costs, weights = np.zeros((2, int(np.prod(shape)), len(candidates)))
    for column, offset in enumerate(candidates):
        cost, weight = np.zeros(shape), np.ones(shape)
        for node in np.ndindex(*shape):
            other = tuple(np.array(node) + offset + widths)
            cost[node] = ((near[(slice(None), *node)] - far[(slice(None), *other)]) ** 2).sum()
            for w, at in ((near_weight, node), (far_weight, other)):
                weight[node] *= 1.0 if w is None else w[(0, *at)]
        for row, node in enumerate(np.ndindex(*shape)):
            around = [range(max(0, i - 1), min(n, i + 2)) for i, n in zip(node, shape, strict=True)]
            places = list(itertools.product(*around))
            costs[row, column] = np.mean([cost[p] * weight[p] for p in places])
            weights[row, column] = np.mean([weight[p] for p in places])
    return costs, weights


@pytest.mark.parametrize("masks", ["none", "near", "far", "both"])
@pytest.mark.parametrize(("shape", "widths"), [((4, 5, 3), (1, 2, 1)), ((6, 4), (2, 1)), ((1, 5, 4), (0, 1, 2))])
def test_costs_are_squared_differences(shape, widths, masks):
    """The cost of a candidate is the squared feature difference, smoothed over 3 nodes, excluded nodes left out."""
    large = tuple(n + 2 * w for n, w in zip(shape, widths, strict=True))
    near, far = noise(3, *shape, seed=1), noise(3, *large, seed=2)
    near_weight = (noise(1, *shape, seed=3) > -0.5).double() if masks in ("near", "both") else None
    far_weight = (noise(1, *large, seed=4) > -0.5).double() if masks in ("far", "both") else None
    candidates = window(widths)
    zero = tuple(0 for _ in shape)
    found = cost_volume(
        Extended(near, near_weight, zero),
        Extended(far, far_weight, widths),
        candidates,
        Costs(compare=l2_cost, smoothing=1),
    )
    costs, weights = costs_by_loops(
        near.numpy(), far.numpy(), *[None if w is None else w.numpy() for w in (near_weight, far_weight)],
        candidates.numpy(), np.array(widths),
    )  # fmt: skip
    if masks == "none":
        np.testing.assert_allclose(found.numpy(), costs, rtol=1e-9)
        return
    # a typical cost, the same at all nodes, counts a little, so that what nobody has seen has a cost too
    typical = (found.numpy() * (weights + UNSEEN) - costs) / UNSEEN
    np.testing.assert_allclose(typical, typical[:1].repeat(len(typical), 0), rtol=1e-6)
    seen = costs[weights > 0] / weights[weights > 0]
    assert seen.min() < typical.min() <= typical.max() < seen.max()


def test_excluded_nodes_cost_nothing():
    """Features of nodes with weight 0 change no cost, and no smoothing is none."""
    near, far = noise(3, 4, 5, 6, seed=1), noise(3, 6, 7, 8, seed=2)
    near_weight, far_weight = (noise(1, 4, 5, 6, seed=3) > -0.5).double(), (noise(1, 6, 7, 8, seed=4) > -0.5).double()
    candidates, twice = window((1, 1, 1)), Costs(compare=l2_cost, smoothing=2)
    first = cost_volume(Extended(near, near_weight, (0, 0, 0)), Extended(far, far_weight, (1, 1, 1)), candidates, twice)
    junk = [torch.where(w > 0, x, 1e5) for x, w in ((near, near_weight), (far, far_weight))]
    second = cost_volume(
        Extended(junk[0], near_weight, (0, 0, 0)), Extended(junk[1], far_weight, (1, 1, 1)), candidates, twice
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize("widths", [(2, 1, 3), (0, 2, 1), (3, 2), (0, 0, 0)])
def test_window_holds_each_displacement_once(widths):
    """The window has every displacement once, the shortest first: of equal costs the smallest displacement wins."""
    found = [tuple(row) for row in window(widths).tolist()]
    assert sorted(found) == list(itertools.product(*[range(-w, w + 1) for w in widths]))
    lengths = [sum(v * v for v in row) for row in found]
    assert lengths == sorted(lengths)


def test_equal_costs_mean_no_displacement():
    """Where all candidates cost the same nothing moves."""
    candidates = window((2, 2, 2))
    found, _ = coupled_convex(torch.ones(5 * 4 * 3, len(candidates)), candidates, (5, 4, 3))
    assert float(found.abs().max()) == 0


@pytest.mark.parametrize(("shape", "shift"), [((7, 6, 9), (1, -2, 3)), ((12, 10), (-3, 2)), ((1, 9, 8), (0, 2, -1))])
def test_coupled_convex_finds_the_planted_shift(shape, shift):
    """A shift that costs least in most places is found in all, against noise and places that know nothing."""
    candidates = window(tuple(3 if n > 1 else 0 for n in shape))
    nodes = int(np.prod(shape))
    cost = noise(nodes, len(candidates), seed=1, dtype=torch.float32).abs()
    target = (candidates == torch.tensor(shift)).all(1)
    cost[:, target] = 0.0
    cost[::3] = 1.0
    found, value = coupled_convex(cost, candidates, shape)
    expected = torch.tensor(shift, dtype=torch.float32).reshape(-1, *[1] * len(shape)).expand(-1, *shape)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.6)  # the corners have few to ask
    assert float((found - expected).abs().mean()) < 0.05
    assert value == pytest.approx(float(cost.gather(1, _nearest(found, candidates)[:, None]).mean()), abs=0.1)


def _nearest(field, candidates):
    flat = field.reshape(len(field), -1).T
    return torch.cdist(flat, candidates.float()).argmin(1)


GRIDS = [
    make_grid((64, 64, 64), (1.0, 1.0, 1.0), (0, 0, 0), np.eye(3)),
    make_grid((128, 100, 80), (2.0, 2.0, 2.0), (3, 4, 5), rotation(3)),
    make_grid((40, 30, 12), (1.4, 1.4, 1.4), (3, 4, 5), rotation(3)),
    make_grid((250, 210, 15), (1.0, 1.0, 6.0), (0, 0, 0), np.eye(3)),
    make_grid((90, 70, 1), (0.8, 0.8, 5.0), (0, 0, 0), rotation(3)),
    make_grid((512, 300), (0.3, 0.3), (0, 0), rotation(2)),
    make_grid((30, 1), (1.0, 1.0), (0, 0), rotation(2)),
    make_grid((7, 6, 5), (8.0, 8.0, 8.0), (0, 0, 0), np.eye(3)),
    make_grid((200, 200, 200), (0.05, 0.05, 0.05), (0, 0, 0), np.eye(3)),
]


def reach_mm(levels):
    """How far the search gets along each axis."""
    return sum(level.reach_mm for level in levels)


@pytest.mark.parametrize("grid", GRIDS)
def test_search_reaches_30_mm_or_a_quarter(grid):
    """By default the windows add up to 30 mm at least, or a quarter of the shortest extent of more than one voxel."""
    shortest = min(e for e, n in zip(grid.extent_mm, grid.shape, strict=True) if n > 1)
    levels = plan_levels(grid, CoarseConfig())
    assert reach_mm(levels) >= min(30.0, shortest / 4) - 1e-9
    # the nodes are as far apart as the levels say, each level twice as fine as the one before
    assert all(a.spacing_mm == pytest.approx(2 * b.spacing_mm) for a, b in itertools.pairwise(levels))
    for level in levels:
        for spacing, factor in zip(grid.spacing, level.factor, strict=True):
            assert factor >= 1
            assert factor * spacing == pytest.approx(level.spacing_mm, abs=spacing / 2 + 1e-9) or factor == 1


@pytest.mark.parametrize("reach", [5.0, 60.0, 100.0])
@pytest.mark.parametrize("half_width", [1, 4, 8])
@pytest.mark.parametrize("grid", GRIDS[:4])
def test_search_reaches_what_is_asked_for(grid, reach, half_width):
    """An explicit reach is reached, with windows of any size and nodes of any distance."""
    config = CoarseConfig(reach_mm=reach, half_width=half_width)
    assert reach_mm(plan_levels(grid, config)) >= reach - 1e-9
    far_apart = plan_levels(grid, CoarseConfig(reach_mm=reach, half_width=half_width, spacing_mm=4.0))
    assert reach_mm(far_apart) >= reach - 1e-9
    assert far_apart[-1].spacing_mm == pytest.approx(4.0, abs=min(grid.spacing) / 2)


@pytest.mark.parametrize("grid", GRIDS[:4])
def test_memory_does_not_follow_the_cube_of_the_reach(grid):
    """Eight times the reach (15 → 120 mm) would be 512 times the candidates; the memory does not even double.

    The estimate is not below what the largest cost volume takes.
    """
    near, far = (plan_levels(grid, CoarseConfig(reach_mm=reach)) for reach in (15.0, 120.0))
    assert memory_bytes(grid, far) < 2 * memory_bytes(grid, near)
    for levels in (near, far):
        costs = [
            4 * grid.pooled(level.factor).voxels * len(window((level.half_width,) * grid.dimension)) for level in levels
        ]
        assert max(costs) <= memory_bytes(grid, levels) <= 4 * max(costs)


def inconsistency(forward, backward):
    """Mean distance in nodes between a point and where forth and back lead."""
    index = base_index(tuple(forward.shape[1:]), like=forward)
    return float((forward + sample(backward, index + forward)).norm(dim=0).mean())


@pytest.mark.parametrize("shape", [(9, 8, 7), (12, 11), (1, 9, 8)])
def test_consistency_lowers_the_inverse_error(shape):
    """After it, forth and back lead nearer to where one started; what is inverse already stays."""
    n = len(shape)
    forward = smooth(4 * noise(n, *shape, seed=1), passes=3)
    backward = smooth(4 * noise(n, *shape, seed=2), passes=3) - forward
    if shape[0] == 1:
        forward[0], backward[0] = 0.0, 0.0
    there, back = make_consistent(forward, backward), make_consistent(backward, forward)
    assert inconsistency(there, back) < 0.2 * inconsistency(forward, backward)
    constant = torch.tensor([0.0, -2.0, 0.5][-n:]).reshape(n, *[1] * n).expand(n, *shape).double()
    torch.testing.assert_close(make_consistent(constant, -constant), constant)


def test_one_level_finds_a_shift():
    """One search on equal grids finds a shift within its window, before the displacement it starts from."""
    grid = make_grid((18, 15, 14), (2.0, 2.0, 2.0), (5, -3, 8), rotation(3))
    axes = np.asarray(grid.direction)[:, ::-1]
    shift = axes @ (2.0 * np.array([2.0, -1.0, 3.0]))  # mm: 2, −1 and 3 nodes along z, y, x
    start = Field.zeros(grid)
    start.vox[1] = 1.0
    moving = layer_of(grid, move=shifted(-shift))
    update, value = search([Term(layer_of(grid), moving)], start, 3, CoarseConfig())
    expected = torch.tensor([2.0, -2.0, 3.0]).reshape(3, 1, 1, 1)
    error = (update.vox - expected).abs()[:, 4:-4, 4:-4, 4:-4]
    assert float(error.median()) < 0.1
    assert float(error.max()) < 1.0
    assert np.isfinite(value)


def far_grid(grid, offset, extra):
    """A grid with the axes and spacing of ``grid``, ``offset`` voxels (z, y, x) from it and ``extra`` larger."""
    origin = (grid.index_to_point() @ np.append(offset, 1.0))[:-1]
    size = tuple(n + e for n, e in zip(grid.size_xyz, extra, strict=True))
    return Grid(size, grid.spacing_xyz, tuple(origin), grid.direction)


@pytest.mark.parametrize("consistent", [True, False])
@pytest.mark.parametrize(
    ("size", "shift"),
    [((26, 24, 23), (11.0, -13.0, 9.0)), ((52, 44), (16.0, -13.0)), ((52, 44, 1), (15.0, -12.0, 0.0))],
)
def test_search_finds_a_large_translation(size, shift, consistent):
    """A translation of about a fifth of the image is found between different grids, nearly to the node."""
    n = len(size)
    grid = grid_at((5.0, -9.0, 30.0)[:n], size, (2.0,) * n, rotation(n))
    axes = np.asarray(grid.direction)
    by = axes @ np.array(shift)  # in mm along the axes of the grid; none across a single slice
    other = far_grid(grid, (0.0 if size[-1] == 1 else -5.3, 3.6, -7.2)[:n], (9, 4, 0 if size[-1] == 1 else 8)[:n])
    config = CoarseConfig(reach_mm=20.0, spacing_mm=2.0, inverse_consistency=consistent)
    steps = []
    terms = [Term(layer_of(grid), layer_of(other, move=shifted(-by)))]
    found = coarse(terms, grid, Field.zeros(grid), config, steps.append)
    error = (found.mm() - torch.as_tensor(by).float().reshape(-1, *[1] * n)).norm(dim=0)
    middle = error[tuple(slice(s // 3, s - s // 3) for s in found.grid.shape)]
    assert float(middle.quantile(0.9)) < 3.5  # nodes are 2 mm apart
    assert float(error.median()) < 1.9
    assert found.grid.direction == grid.direction
    assert [step.level for step in steps] == list(range(1, steps[0].levels + 1))
    assert {step.stage for step in steps} == {"coarse"}
    assert all(np.isfinite(step.value) for step in steps)


def test_search_starts_at_the_initial_field():
    """A translation beyond the reach is found when the search starts near it."""
    grid = make_grid((22, 21, 20), (2.0, 2.0, 2.0), (5, -3, 8), rotation(3))
    by = np.array([40.0, -6.0, 10.0])
    other = Grid(grid.size_xyz, grid.spacing_xyz, tuple(np.array(grid.origin_xyz) + by), grid.direction)
    start = Field.from_mm(torch.tensor(by - 5.0).float().reshape(3, 1, 1, 1).expand(3, *grid.shape), grid)
    terms = [Term(layer_of(grid), layer_of(other, move=shifted(-by)))]
    found = coarse(terms, grid, start, CoarseConfig(reach_mm=12.0, spacing_mm=2.0))
    error = (found.mm() - torch.as_tensor(by).float().reshape(3, 1, 1, 1)).norm(dim=0)
    assert float(error.median()) < 1.2  # nodes are 2 mm apart


def test_equal_layers_stay_where_they_are():
    """Features that match already are not moved at all."""
    layer = layer_of(make_grid((20, 18, 17), (2.0, 2.0, 2.0), (5, -3, 8), rotation(3)))
    found = coarse([Term(layer, layer)], layer.grid, Field.zeros(layer.grid), CoarseConfig())
    assert float(found.vox.abs().max()) < 1e-5


def test_one_dense_window():
    """With one level the window is as wide as asked for, in nodes as far apart as asked for, whatever the reach."""
    grid = make_grid((40, 33, 21), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3))
    config = CoarseConfig(levels=1, spacing_mm=3.0, half_width=11, reach_mm=5.0)
    (level,) = plan_levels(grid, config)
    assert (level.factor, level.half_width, level.spacing_mm, level.reach_mm) == ((3, 3, 3), 11, 3.0, 33.0)
    factors = [level.factor[0] for level in plan_levels(grid, CoarseConfig(levels=3, spacing_mm=2.0))]
    assert factors == [8, 4, 2]
    with pytest.raises(ConfigError, match=r"coarse\.half_width between 1 and 8"):
        CoarseConfig(half_width=11)


def test_windows_that_do_not_fit_are_refused():
    """A window whose costs exceed the memory there is is refused with both amounts, before anything is computed."""
    grid = make_grid((400, 300, 350), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3))
    small = Field.zeros(make_grid((4, 3, 5), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3)))
    with pytest.raises(ConfigError, match=r"expected windows whose costs fit into .* GB .*, got 5.6e\+04 GB"):
        coarse([], grid, small, CoarseConfig(levels=1, spacing_mm=2.0, half_width=64))


def test_spreads_are_ranges_of_costs():
    """The spread of a term is the largest minus the smallest cost of a node, mean over the nodes, without a factor."""
    grid = make_grid((8, 6), (2.0, 2.0), (0.0, 0.0), np.eye(2))
    near, far = (Layer(Volume(noise(3, 6, 8, seed=seed, dtype=torch.float32), grid)) for seed in (1, 2))
    config = CoarseConfig(levels=1, spacing_mm=2.0, half_width=2, smoothing=0)
    terms = [Term(near, far), Term(near, far, share=5.0, scale=0.3)]
    found = spreads(terms, grid, Field.zeros(grid), config)
    ranges = []
    for y, x in np.ndindex(6, 8):
        places = [(min(max(y + b, 0), 5), min(max(x + a, 0), 7)) for a in range(-2, 3) for b in range(-2, 3)]
        costs = [float((near.features.data[:, y, x] - far.features.data[:, v, u]).square().sum()) for v, u in places]
        ranges.append(max(costs) - min(costs))
    assert found == pytest.approx([np.mean(ranges)] * 2, rel=1e-5)
