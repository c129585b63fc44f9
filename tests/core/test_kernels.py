"""Every backend computes what loops written out compute, for random shapes. One test a function, all backends."""

from __future__ import annotations

import ast
import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import noise
from semreg.core.kernels import BACKENDS, Comparison, Costs, Extended, JointComparison, kernels_for
from semreg.core.kernels.contract import UNSEEN
from semreg.core.kernels.reference import sizes
from semreg.core.kernels.table import backend_for
from semreg.core.scattered import STEP, Table
from semreg.distances import DISTANCES
from semreg.distances.differences import l2_cost, l2_slope

PACKAGE = Path(__file__).parents[2] / "src" / "semreg"
few = settings(max_examples=15, deadline=None)
shapes = st.one_of(st.tuples(*[st.integers(1, 5)] * 2), st.tuples(*[st.integers(1, 4)] * 3))
needs_native = pytest.mark.skipif(not BACKENDS.rows["native"].installed, reason="needs the package semreg-kernels")
backends = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_native if name == "native" else ()) for name in BACKENDS]
)
seeds = st.integers(0, 1000)


def weight_of(shape, seed):
    """Weights of which a third is 0, (1, *S)."""
    return (noise(1, *shape, seed=seed) > -0.4).double()


def smoothed(values):
    """Means over 3 nodes an axis, of the nodes that exist."""
    result = np.zeros_like(values)
    for place in np.ndindex(*values.shape):
        around = [range(max(0, i - 1), min(n, i + 2)) for i, n in zip(place, values.shape, strict=True)]
        result[place] = np.mean([values[other] for other in itertools.product(*around)])
    return result


@backends
@given(
    shape=shapes, stride=st.integers(1, 2), masked=st.booleans(), add=st.booleans(), seed=seeds,
    known=st.sampled_from([None, 0.0, 1.7]),
)  # fmt: skip
@few
def test_cost_volume_is_the_loop(name, *, shape, stride, masked, add, seed, known):
    """Each node and candidate costs what a loop says, with weights, strides, and whatever lay in the result."""
    dimension = len(shape)
    large = tuple(stride * (n - 1) + 1 + 2 for n in shape)
    near, far = noise(2, *shape, seed=seed), noise(2, *large, seed=seed + 1)
    weights = (weight_of(shape, seed + 2), weight_of(large, seed + 3)) if masked else (None, None)
    candidates = torch.tensor(list(itertools.product((-1, 0, 1), repeat=dimension)))[::2]
    how = Costs(compare=l2_cost, formula="l2", smoothing=1, factor=0.7, stride=stride, unseen=known)
    before = noise(near[0].numel(), len(candidates), seed=seed + 4)
    total = before.clone()
    here, there = Extended(near, weights[0], (0,) * dimension), Extended(far, weights[1], (1,) * dimension)
    BACKENDS[name].cost_volume(here, there, candidates, how, total, add=add)
    costs, shares = np.zeros((2, len(candidates), *shape))
    for number, offset in enumerate(candidates.tolist()):
        for node in np.ndindex(*shape):
            other = tuple(stride * i + 1 + o for i, o in zip(node, offset, strict=True))
            share = 1.0 if not masked else float(weights[0][(0, *node)] * weights[1][(0, *other)])
            shares[(number, *node)] = share
            costs[(number, *node)] = share * float(((near[(..., *node)] - far[(..., *other)]) ** 2).sum())
    expected = np.array([smoothed(cost) for cost in costs])
    if masked or known is not None:
        unseen = UNSEEN * (costs.sum() / max(shares.sum(), UNSEEN) if known is None else known)
        expected = (expected + unseen) / (np.array([smoothed(share) for share in shares]) + UNSEEN)
    expected = 0.7 * expected.reshape(len(candidates), -1).T + (before.numpy() if add else 0)
    np.testing.assert_allclose(total.numpy(), expected, rtol=1e-9, atol=1e-12)


@backends
@given(shape=shapes, seed=seeds)
@few
def test_coupled_choice_is_the_loop(name, shape, seed):
    """The first of the cheapest candidates near the displacement, and the mean of these choices, twice."""
    candidates = torch.tensor(list(itertools.product((-1, 0, 1), repeat=len(shape))))
    cost = noise(int(np.prod(shape)), len(candidates), seed=seed).abs()
    soft = np.zeros((len(shape), *shape))
    for coupling in (0.0, 0.3):
        chosen = np.zeros_like(soft)
        for row, node in enumerate(np.ndindex(*shape)):
            away = ((candidates.numpy() - soft[(..., *node)]) ** 2).sum(1)
            best = int(np.argmin(cost[row].numpy() + coupling * away))
            chosen[(..., *node)] = candidates[best].numpy()
        values = [cost[row, _number(candidates, chosen[(..., *node)])] for row, node in enumerate(np.ndindex(*shape))]
        soft = np.array([smoothed(part) for part in chosen])
    found, value = BACKENDS[name].coupled_choice(cost, candidates, shape, (0.0, 0.3))
    np.testing.assert_allclose(found.numpy(), soft, atol=1e-9)
    assert value == pytest.approx(float(np.mean(values)))


def _number(candidates, offset):
    return int((candidates == torch.as_tensor(offset)).all(1).nonzero()[0])


@backends
@given(shape=shapes, seed=seeds)
@few
def test_compare_is_the_distance_and_its_gradient(name, shape, seed):
    """The value is the distance to what is interpolated, and the gradient that of central differences in the index."""
    data, fixed = noise(3, *shape, seed=seed), noise(7, 3, seed=seed + 1)
    size = torch.tensor(shape, dtype=torch.float64)[:, None]
    index = torch.rand(len(shape), 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * (size - 1)
    index = index.floor() + 0.3 * (size > 1)  # in the middle of cells, where there is a gradient
    share = torch.rand(7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    table, backend = Table(data), BACKENDS[name]

    def value(at):
        return float((share * (table.at(at).values() - fixed).square().sum(1)).sum())

    found, gradient = backend.compare(table, fixed, index, share, Comparison(slope=l2_slope, formula="l2"))
    assert found == pytest.approx(value(index))
    step = 1e-3
    for place in np.ndindex(*index.shape):
        change = torch.zeros_like(index)
        change[place] = step if size[place[0]] > 1 else 0.0
        slope = (value(index + change) - value(index - change)) / (2 * step)
        assert float(gradient[place]) == pytest.approx(slope, rel=1e-4, abs=1e-8)


@backends
@given(shape=shapes, outputs=st.integers(1, 6), seed=seeds)
@few
def test_spline_products_are_sums(name, shape, outputs, seed):
    """One matrix an axis, as einsum has it; and the adjoint moves to the other side of a scalar product."""
    x = noise(2, *shape, seed=seed)
    matrices = [noise(outputs + axis, n, seed=seed + axis) for axis, n in enumerate(shape)]
    inner, outer = "abc"[: len(shape)], "xyz"[: len(shape)]
    pairs = ",".join(f"{o}{i}" for i, o in zip(inner, outer, strict=True))
    expected = torch.einsum(f"q{inner},{pairs}->q{outer}", x, *matrices)
    found = BACKENDS[name].spline_product(x, matrices)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    y = noise(*found.shape, seed=seed + 9)
    adjoint = BACKENDS[name].spline_adjoint(y, matrices)
    assert float((found * y).sum()) == pytest.approx(float((x * adjoint).sum()), rel=1e-9)


@backends
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@given(
    counts=st.lists(st.sampled_from([1, 4, 5, 7]), min_size=2, max_size=3), amount=st.floats(0.0, 3.0), seed=seeds
)  # fmt: skip
@few
def test_compression_is_what_determinants_lack(name, dtype, counts, amount, seed):
    """Squared shortfalls at all places, by torch.linalg, and what autograd says of them; bands of up to 4 weights."""
    draw = np.random.default_rng(seed)
    places = [int(draw.integers(1, 9)) for _ in counts]
    matrices = [band_of(draw, rows, columns) for rows, columns in zip(places, counts, strict=True)]
    slopes = [band_of(draw, rows, columns, like=m) for rows, columns, m in zip(places, counts, matrices, strict=True)]
    bases = [[slopes[a] if a == axis else m for a, m in enumerate(matrices)] for axis in range(len(counts))]
    coefficients = (amount * noise(len(counts), *counts, seed=seed)).requires_grad_()
    gradient = torch.stack([BACKENDS["reference"].spline_product(coefficients, along) for along in bases], 1)
    jacobian = gradient.flatten(2).movedim(2, 0) + torch.eye(len(counts), dtype=torch.float64)
    expected = torch.clamp(0.6 - torch.linalg.det(jacobian), min=0).square().sum()
    (slope,) = torch.autograd.grad(expected, coefficients)
    given_bases = [[matrix.to(dtype) for matrix in along] for along in bases]
    value, pull = BACKENDS[name].compression(coefficients.detach().to(dtype), given_bases, 0.6)
    near = 1e-10 if dtype == torch.float64 else 2e-4
    scale = max(1.0, float(expected.detach()), float(slope.abs().max()))
    assert value == pytest.approx(float(expected.detach()), abs=near * scale)
    torch.testing.assert_close(pull.double(), slope, rtol=0, atol=near * scale)


def band_of(draw, rows, columns, like=None):
    """Random weights of 4 control points in a row, or of fewer where there are fewer, at the places of ``like``."""
    width = min(4, columns)
    result = torch.zeros((rows, columns), dtype=torch.float64)
    for row in range(rows):
        seen = None if like is None else like[row].nonzero()[:, 0]
        first = int(seen[0]) if seen is not None else int(draw.integers(0, columns - width + 1))
        result[row, first : first + width] = torch.as_tensor(draw.normal(size=width))
    return result


@needs_native
def test_compression_of_wide_bands():
    """Where a place sees more than 4 control points the compiled kernel leaves it to torch."""
    bases = [[noise(3, 6, seed=a + 3 * b) for b in range(2)] for a in range(2)]
    bases[0][1], bases[1][0] = noise(3, 6, seed=8), noise(3, 6, seed=9)
    x = noise(2, 6, 6, seed=1)
    (value, pull), (expected, slope) = (BACKENDS[name].compression(x, bases, 0.6) for name in ("native", "reference"))
    assert value == expected
    assert torch.equal(pull, slope)


@backends
def test_compression_that_is_no_number(name):
    """A coefficient that is not finite is told by the value."""
    bases = [[torch.full((2, 4), 0.25) for _ in range(2)] for _ in range(2)]
    x = torch.zeros(2, 4, 4)
    x[0, 1, 2] = math.nan
    assert math.isnan(BACKENDS[name].compression(x, bases, 0.6)[0])


@backends
@pytest.mark.parametrize("masked", [False, True])
@given(sides=st.lists(st.integers(1, 3), min_size=2, max_size=3), radius=st.integers(0, 1), seed=seeds)
@few
def test_patch_differences_are_the_loop(name, masked, sides, radius, seed):
    """The pairs of patches of MIND-SSC, patch by patch; in any order of the channels."""
    dilation, dimension = 1, len(sides)
    halo = radius + dilation
    shape = tuple(n + 2 * halo for n in sides)
    image, mask = noise(*shape, seed=seed), weight_of(shape, seed + 1)[0] if masked else None
    found, known = BACKENDS[name].patch_differences(image, mask, radius, dilation)
    steps = [np.eye(dimension, dtype=int)[axis] * sign for axis in range(dimension) for sign in (-dilation, dilation)]
    pairs = [(a, b) for a, b in itertools.combinations(steps, 2) if not (np.abs(a) * np.abs(b)).any()]
    patch = list(itertools.product(range(-radius, radius + 1), repeat=dimension))
    for node in np.ndindex(*sides):
        expected, all_known = [], True
        for a, b in pairs:
            there = [tuple(tuple(np.array(node) + halo + end + np.array(o)) for end in (a, b)) for o in patch]
            share = [1.0 if mask is None else float(mask[p] * mask[q]) for p, q in there]
            square = [float(image[p] - image[q]) ** 2 for p, q in there]
            all_known &= sum(share) > 0
            expected.append(float(np.dot(share, square)) / max(sum(share), 1e-6))
        np.testing.assert_allclose(np.sort(found[(..., *node)].numpy()), np.sort(expected), rtol=1e-6, atol=1e-9)
        assert known is None or bool(known[node]) == all_known


@backends
@pytest.mark.parametrize("masked", [False, True])
def test_patch_differences_are_differentiable(name, masked):
    """By differences of their values; the values are the same with a derivative and without one."""
    image, mask = noise(6, 7, 6, seed=1), weight_of((6, 7, 6), 2)[0] if masked else None
    variable = image.clone().requires_grad_()
    found, _ = BACKENDS[name].patch_differences(variable, mask, 1, 1)
    assert torch.equal(found.detach(), BACKENDS[name].patch_differences(image, mask, 1, 1)[0])
    assert torch.autograd.gradcheck(lambda x: BACKENDS[name].patch_differences(x, mask, 1, 1)[0], (variable,))


@backends
@given(shape=shapes, seed=seeds)
@few
def test_composition_reads_where_the_first_leads(name, shape, seed):
    """The sum of a displacement and of what the second has there, of any index map between the two."""
    n = len(shape)
    first = 0.4 * noise(n, *shape, seed=seed)
    forth, back = np.eye(n + 1), np.eye(n + 1)
    forth[:n, n], back[0, 0] = 0.25, 2.0
    second = torch.zeros(n, *[6] * n, dtype=torch.float64)  # a linear one is interpolated exactly
    for axis, along in enumerate(torch.meshgrid(*[torch.arange(6.0, dtype=torch.float64)] * n, indexing="ij")):
        second[axis] = 0.1 * along
    found = BACKENDS[name].compose(first, second, forth, back)
    for node in np.ndindex(*shape):
        where = np.clip(np.array(node) + first[(..., *node)].numpy() + 0.25, 0, 5)
        more = back[:n, :n] @ (0.1 * where)
        np.testing.assert_allclose(found[(..., *node)].numpy(), first[(..., *node)].numpy() + more, atol=1e-9)


@backends
@given(shape=shapes, seed=seeds)
@few
def test_jacobian_determinant_is_the_loop(name, shape, seed):
    """Central differences of numpy, one-sided and halved at the border, and the determinant of each matrix."""
    vox = noise(len(shape), *shape, seed=seed)
    padded = np.pad(vox.numpy(), [(0, 0), *[(1, 1)] * len(shape)], mode="edge")
    found = BACKENDS[name].jacobian_determinant(vox)
    for node in np.ndindex(*shape):
        matrix = np.eye(len(shape))
        for axis in range(len(shape)):
            above, below = (tuple(i + 1 + s * (a == axis) for a, i in enumerate(node)) for s in (1, -1))
            matrix[:, axis] += (padded[(..., *above)] - padded[(..., *below)]) / 2
        assert float(found[node]) == pytest.approx(np.linalg.det(matrix), rel=1e-9, abs=1e-12)


@backends
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5), (1, 5, 6), (4, 1)])
def test_least_corner_is_that_of_the_cells(name, shape):
    """Per cell the least of the oriented volumes of its tetrahedra or triangles, corner by corner, written out."""
    n = len(shape)
    vox = 0.4 * noise(n, *shape)
    found = BACKENDS[name].least_corner(vox).numpy()
    free = [axis for axis in range(n) if shape[axis] > 1]

    def place(index):
        return np.asarray(index + vox[(slice(None), *index.tolist())].numpy())

    for cell in itertools.product(*[range(max(1, k - 1)) for k in shape]):
        corners = [np.add(cell, c) for c in itertools.product(*[(0, 1) if a in free else (0,) for a in range(n)])]
        volumes = [1.0]
        for corner in corners:
            edges = np.eye(n)
            for axis in free:
                sign = 1 if corner[axis] == cell[axis] else -1
                edges[axis] = sign * (place(corner + sign * np.eye(n, dtype=int)[axis]) - place(corner))
            volumes.append(np.linalg.det(edges))
        if len(free) == 3:
            for odd in (0, 1):
                first, *others = [c for c in corners if (c - cell).sum() % 2 == odd]
                ratio = [np.linalg.det([at(c) - at(first) for c in others]) for at in (place, np.asarray)]
                volumes.append(ratio[0] / ratio[1])
        assert found[cell] == pytest.approx(min(volumes), abs=1e-9)


@pytest.mark.parametrize("sides", [sizes.Sizes(1, 1, 1), sizes.Sizes(40, 40, 3), sizes.OTHER])
def test_how_much_is_done_at_once_changes_nothing(sides, monkeypatch):
    """Costs, choices and comparisons are the same in blocks of any size, also where voxels are left out."""
    shape, candidates = (4, 5), torch.tensor(list(itertools.product((-1, 0, 1), repeat=2)))
    near = Extended(noise(2, *shape, seed=1), weight_of(shape, 2), (0, 0))
    far = Extended(noise(2, 6, 7, seed=3), None, (1, 1))
    table, fixed, index = Table(noise(3, *shape, seed=4)), noise(9, 3, seed=5), noise(2, 9, seed=6).abs()
    share = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)

    def results():
        backend = BACKENDS["reference"]
        cost = torch.empty(20, 9, dtype=torch.float64)
        backend.cost_volume(near, far, candidates, Costs(compare=l2_cost, smoothing=1, counted=2), cost, add=False)
        value, gradient = backend.compare(table, fixed, index, share, Comparison(slope=l2_slope, formula="l2"))
        return [cost, backend.coupled_choice(cost, candidates, shape, (0.1, 1.0))[0], torch.tensor(value), gradient]

    usual = results()
    monkeypatch.setattr(sizes, "CPU", sides)
    for found, expected in zip(results(), usual, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_backends_are_chosen_by_device_and_by_what_loads(monkeypatch, caplog):
    """A backend for one type of device is taken there and nowhere else; one that is not there, or does not load, never.

    The reference is for all.
    """
    row = type(BACKENDS.rows["reference"])
    usual = "native" if BACKENDS.rows["native"].installed else "reference"
    assert backend_for("cpu") == usual
    assert backend_for("mps") == "reference"
    monkeypatch.setitem(BACKENDS.rows, "scratch", row("semreg.core.kernels.reference:__name__", ("cuda",)))
    assert kernels_for(torch.device("cuda")) == "semreg.core.kernels.reference"
    monkeypatch.setitem(BACKENDS.rows, "absent", row("semreg.nowhere:X", needs="not_installed_anywhere"))
    assert backend_for("cpu") == usual
    assert not caplog.records
    monkeypatch.setitem(BACKENDS.rows, "damaged", row("semreg.nowhere:X"))
    assert backend_for("cpu") == usual
    assert "the backend damaged does not load and is not used" in caplog.text


def places(shape, count, seed):
    """Places (D, P) within, on voxel centres, near them, beyond the image, and one that is not a number."""
    size = torch.tensor(shape, dtype=torch.float64)[:, None]
    generator = torch.Generator().manual_seed(seed)
    index = torch.rand(len(shape), count, generator=generator, dtype=torch.float64) * (size + 1) - 1
    kind = torch.randint(0, 4, index.shape, generator=generator)
    near = index.round() + 2 * STEP * (torch.rand(index.shape, generator=generator, dtype=torch.float64) - 0.5)
    index = torch.where(kind == 1, index.round(), torch.where(kind == 2, near, index))
    index[0, 0] = torch.nan
    return index


@needs_native
@pytest.mark.parametrize("distance", ["l2", "l1", "cosine", "l1cosine", "dotproduct", "dice"])
@given(shape=shapes, channels=st.sampled_from([1, 3, 4, 12, 17]), changed=st.booleans(), seed=seeds)
@few
def test_native_comparisons_are_those_of_torch(distance, shape, channels, changed, seed):
    """Every formula, any number of channels, at all kinds of places: value and gradient, in both precisions."""
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-3)):
        index = places(shape, 40, seed).to(dtype)
        table = Table(noise(channels, *shape, seed=seed).to(dtype))
        fixed, share = noise(40, channels, seed=seed + 1).to(dtype), noise(40, seed=seed + 2).abs().to(dtype)
        fixed[3] = 0.0
        change = noise(40, channels, seed=seed + 3).to(dtype) if changed else None
        how = Comparison(slope=DISTANCES[distance].slope, formula=DISTANCES[distance].formula, change=change)
        found, slope = BACKENDS["native"].compare(table, fixed[1:], index[:, 1:], share[1:], _rest(how))
        expected, gradient = BACKENDS["reference"].compare(table, fixed[1:], index[:, 1:], share[1:], _rest(how))
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance)
        if dtype == torch.float64:
            torch.testing.assert_close(slope, gradient, rtol=1e-7, atol=1e-8)
        share[0] = 1.0  # a place that is no number has the same say, or none
        found, expected = (
            BACKENDS[name].compare(table, fixed, index, share, how)[0] for name in ("native", "reference")
        )
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance, nan_ok=True)


@needs_native
@pytest.mark.parametrize("distance", ["ncc", "lncc", "lncc_squared"])
@given(
    shape=st.one_of(st.tuples(*[st.integers(1, 9)] * 2), st.tuples(st.integers(1, 70), *[st.integers(1, 5)] * 2)),
    channels=st.sampled_from([1, 2]), radius=st.sampled_from([1, 2, 3]), masked=st.booleans(), seed=seeds,
)  # fmt: skip
@few
def test_native_correlations_are_those_of_torch(distance, shape, channels, radius, masked, seed):
    """Over all samples and in windows, with parts that are constant or do not count: value and derivative."""
    count = math.prod(shape)
    fixed, moving = noise(count, channels, seed=seed) + 3, noise(count, channels, seed=seed + 1) - 7
    moving += 0.7 * fixed
    moving[: count // 5] = 1.5  # flat windows
    weight = weight_of(shape, seed + 2).flatten() if masked else None
    measure = DISTANCES[distance] if distance == "ncc" else DISTANCES[distance].windows(radius)
    how = JointComparison(value=measure, shape=shape, formula=measure.formula, radius=radius)
    found, slope = BACKENDS["native"].compare_jointly(fixed, moving, weight, how)
    expected, gradient = BACKENDS["reference"].compare_jointly(fixed, moving, weight, how)
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-8)
    torch.testing.assert_close(slope, gradient, rtol=1e-6, atol=1e-9 * max(1, float(gradient.abs().max())))


@needs_native
@pytest.mark.parametrize("distance", ["ncc", "lncc", "lncc_squared"])
def test_native_correlations_in_single_precision(distance):
    """They are those of torch in double precision, beside a constant background too."""
    shape = (40, 12, 13)
    fixed, weight = noise(math.prod(shape), 1, seed=1), weight_of(shape, 2).flatten()
    moving = noise(len(fixed), 1, seed=3) + fixed
    fixed[3000:], moving[2900:] = 900.7, -37.1
    how = JointComparison(value=DISTANCES[distance], shape=shape, formula=distance, radius=2)
    found, slope = BACKENDS["native"].compare_jointly(fixed.float(), moving.float(), weight.float(), how)
    expected, gradient = BACKENDS["reference"].compare_jointly(fixed, moving, weight, how)
    assert found == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(slope.double(), gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


def _rest(how):
    """Without the first sample."""
    return replace(how, change=None if how.change is None else how.change[1:])


@backends
@given(shape=shapes, channels=st.integers(1, 5), seed=seeds)
@few
def test_reading_and_pulling_is_that_of_tables(name, shape, channels, seed):
    """Values at places, and the derivative in them of what has a gradient in the values."""
    table, index = Table(noise(channels, *shape, seed=seed)), places(shape, 30, seed)
    gradient = noise(30, channels, seed=seed + 1)
    for found, expected in (
        (BACKENDS[name].read(table, index), table.at(index).values()),
        (BACKENDS[name].pull(table, index, gradient), table.at(index).pull(gradient)),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, equal_nan=True)


@needs_native
def test_threads_change_no_bit():
    """Values, gradients, costs and choices are the same with one thread and with three."""
    table, index = Table(noise(12, 9, 10, 11, seed=1).float()), places((9, 10, 11), 20000, 2).float()[:, 1:]
    fixed, share = noise(19999, 12, seed=3).float(), noise(19999, seed=4).abs().float()
    near = Extended(noise(3, 9, 10, 11, seed=5).float(), weight_of((9, 10, 11), 6).float(), (0, 0, 0))
    far = Extended(noise(3, 13, 14, 15, seed=7).float(), weight_of((13, 14, 15), 8).float(), (2, 2, 2))
    candidates = torch.tensor(list(itertools.product((-2, -1, 0, 1, 2), repeat=3)))

    def results():
        native = BACKENDS["native"]
        value, slope = native.compare(table, fixed, index, share, Comparison(slope=l2_slope, formula="l2"))
        cost = torch.empty(990, 125)
        native.cost_volume(near, far, candidates, Costs(compare=l2_cost, formula="l2", smoothing=2), cost, add=False)
        joint = JointComparison(value=DISTANCES["lncc"], shape=(99, 101, 2), formula="lncc", radius=2)
        correlation = native.compare_jointly(fixed[:19998, :1], fixed[:19998, 1:2], share[:19998], joint)
        return [
            torch.tensor(value),
            slope,
            cost,
            torch.tensor(correlation[0]),
            correlation[1],
            native.coupled_choice(cost, candidates, (9, 10, 11), (0.1, 1.0))[0],
        ]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = results()
        torch.set_num_threads(3)
        found = results()
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_only_the_seam_knows_the_backends():
    """No module outside of core/kernels imports a backend or its loops: all go through the functions of the seam."""
    for path in PACKAGE.rglob("*.py"):
        if "core/kernels" in path.as_posix():
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            backends = ("semreg.core.kernels.reference", "semreg.core.kernels.native", "semreg_kernels")
            assert not module.startswith(backends), path
            assert not any(name.startswith(backends) for name in names), path
            if module == "semreg.core.kernels":
                assert "reference" not in names, path
