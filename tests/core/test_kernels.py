"""Every backend computes what loops written out compute, for random shapes. One test a function, all backends."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import noise
from semreg.core.kernels import BACKENDS, Costs, Extended, kernels_for
from semreg.core.kernels.contract import UNSEEN
from semreg.core.kernels.reference import sizes
from semreg.core.scattered import Table
from semreg.distances.differences import l2_cost, l2_slope

PACKAGE = Path(__file__).parents[2] / "src" / "semreg"
few = settings(max_examples=15, deadline=None)
shapes = st.one_of(st.tuples(*[st.integers(1, 5)] * 2), st.tuples(*[st.integers(1, 4)] * 3))
backends = pytest.mark.parametrize("name", list(BACKENDS))
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
@given(shape=shapes, stride=st.integers(1, 2), masked=st.booleans(), add=st.booleans(), seed=seeds)
@few
def test_cost_volume_is_the_loop(name, shape, stride, masked, add, seed):
    """Each node and candidate costs what a loop says, with weights, strides, and whatever lay in the result."""
    dimension = len(shape)
    large = tuple(stride * (n - 1) + 1 + 2 for n in shape)
    near, far = noise(2, *shape, seed=seed), noise(2, *large, seed=seed + 1)
    weights = (weight_of(shape, seed + 2), weight_of(large, seed + 3)) if masked else (None, None)
    candidates = torch.tensor(list(itertools.product((-1, 0, 1), repeat=dimension)))[::2]
    how = Costs(compare=l2_cost, smoothing=1, factor=0.7, stride=stride)
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
    if masked:
        unseen = UNSEEN * costs.sum() / max(shares.sum(), UNSEEN)
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

    found, gradient = backend.compare(table, fixed, index, share, l2_slope)
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


@pytest.mark.parametrize("sides", [sizes.Sizes(1, 1, 1), sizes.Sizes(40, 40, 3), sizes.OTHER])
def test_how_much_is_done_at_once_changes_nothing(sides, monkeypatch):
    """Costs, choices and comparisons are the same in blocks of any size, also where voxels are left out."""
    shape, candidates = (4, 5), torch.tensor(list(itertools.product((-1, 0, 1), repeat=2)))
    near = Extended(noise(2, *shape, seed=1), weight_of(shape, 2), (0, 0))
    far = Extended(noise(2, 6, 7, seed=3), None, (1, 1))
    table, fixed, index = Table(noise(3, *shape, seed=4)), noise(9, 3, seed=5), noise(2, 9, seed=6).abs()
    share = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)

    def results():
        backend = kernels_for(torch.device("cpu"))
        cost = torch.empty(20, 9, dtype=torch.float64)
        backend.cost_volume(near, far, candidates, Costs(compare=l2_cost, smoothing=1, counted=2), cost, add=False)
        value, gradient = backend.compare(table, fixed, index, share, l2_slope)
        return [cost, backend.coupled_choice(cost, candidates, shape, (0.1, 1.0))[0], torch.tensor(value), gradient]

    usual = results()
    monkeypatch.setattr(sizes, "CPU", sides)
    for found, expected in zip(results(), usual, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_backends_are_chosen_by_device(monkeypatch):
    """A backend for one type of device is taken there and nowhere else; the reference is for all."""
    row = type(BACKENDS.rows["reference"])("semreg.core.kernels.reference:__name__", ("cuda",))
    monkeypatch.setitem(BACKENDS.rows, "scratch", row)
    assert kernels_for(torch.device("cuda")) == "semreg.core.kernels.reference"
    assert kernels_for(torch.device("cpu")) is BACKENDS["reference"]


def test_only_the_seam_knows_the_backends():
    """No module outside of core/kernels imports a backend or its loops: all go through the functions of the seam."""
    for path in PACKAGE.rglob("*.py"):
        if "core/kernels" in path.as_posix():
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            assert not module.startswith("semreg.core.kernels.reference"), path
            assert not any(name.startswith("semreg.core.kernels.reference") for name in names), path
            if module == "semreg.core.kernels":
                assert "reference" not in names, path
