"""Promises of the reductions: the components of numpy, one basis for both images, masks, and what cannot vary."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import noise, oblique_grid
from semreg.core.fields import Layer, Volume
from semreg.errors import ConfigError, ModelContractError
from semreg.features import reduce
from semreg.features.reduce import fit_pca, fit_standard, select, subset, unit

CHANNELS = 5
GRID = oblique_grid(3)


def layer_of(seed=0, dtype=torch.float64, weight=None):
    """Correlated channels of different mean and spread on an oblique grid."""
    mixing = noise(CHANNELS, CHANNELS, seed=50) * torch.tensor([3.0, 1.0, 0.5, 2.0, 0.1], dtype=torch.float64)
    mean = 10 * noise(CHANNELS, 1, seed=51)
    values = mixing @ noise(CHANNELS, GRID.voxels, seed=seed) + mean
    data = values.reshape(CHANNELS, *GRID.shape).to(dtype)
    return Layer(Volume(data, GRID), None if weight is None else Volume(weight.to(dtype), GRID))


def weights():
    """Weights between 0 and 1, about a third of them 0."""
    values = torch.rand((1, *GRID.shape), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return torch.where(values < 0.33, 0.0, values)


def rows(layer):
    """Features as numpy (P, C)."""
    return layer.features.data.flatten(1).T.numpy()


@pytest.fixture(params=[1 << 16, 7], ids=["whole", "chunks"])
def chunk(request, monkeypatch):
    """Voxels handled at once: all, or a few, the last part smaller."""
    monkeypatch.setattr(reduce, "CHUNK", request.param)


def test_components_are_those_of_the_singular_value_decomposition(chunk):
    """PCA is numpy's SVD of the centred features, up to a sign, which makes the largest entry positive."""
    layer = layer_of()
    x = rows(layer) - rows(layer).mean(0)
    _, singular, vectors = np.linalg.svd(x, full_matrices=False)
    basis = fit_pca(layer, 3)
    signs = np.sign(vectors[np.arange(CHANNELS), np.abs(vectors).argmax(1)])
    np.testing.assert_allclose(basis.vectors.numpy(), (signs[:, None] * vectors)[:3].T, atol=1e-9)
    np.testing.assert_allclose(basis.variances.numpy(), singular[:3] ** 2 / GRID.voxels, rtol=1e-9)
    np.testing.assert_allclose(basis.explained.numpy(), (singular**2 / (singular**2).sum())[:3], rtol=1e-9)
    np.testing.assert_allclose(rows(basis.apply(layer)), x @ basis.vectors.numpy(), atol=1e-9)


def test_weights_count_voxels(chunk):
    """Mean and covariance are weighted, and both the basis and the standard follow them: numpy's with ``aweights``."""
    weight = weights()
    layer, w = layer_of(weight=weight), weight.flatten().numpy()
    values, vectors = np.linalg.eigh(np.cov(rows(layer).T, aweights=w, ddof=0))
    basis = fit_pca(layer, 2)
    np.testing.assert_allclose(basis.mean.numpy(), np.average(rows(layer), axis=0, weights=w), rtol=1e-9)
    np.testing.assert_allclose(basis.variances.numpy(), values[::-1][:2], rtol=1e-9)
    np.testing.assert_allclose(np.abs(basis.vectors.numpy()), np.abs(vectors[:, ::-1][:, :2]), atol=1e-9)
    standard = rows(fit_standard(layer).apply(layer))
    np.testing.assert_allclose(np.average(standard, axis=0, weights=w), 0, atol=1e-9)
    np.testing.assert_allclose(np.average(standard**2, axis=0, weights=w), 1, rtol=1e-9)


@pytest.mark.parametrize("junk", [1e9, float("nan"), float("inf")])
def test_excluded_voxels_have_no_influence(junk):
    """What lies where the weight is 0, even what is not a number, changes neither basis nor standard."""
    weight = weights()
    layer = layer_of(weight=weight)
    spoiled = Layer(Volume(torch.where(weight > 0, layer.features.data, junk), GRID), layer.weight)
    assert torch.equal(fit_pca(layer, 3).vectors, fit_pca(spoiled, 3).vectors)
    assert torch.equal(fit_pca(layer, 3).mean, fit_pca(spoiled, 3).mean)
    assert torch.equal(fit_standard(layer).scale, fit_standard(spoiled).scale)
    assert torch.equal(fit_standard(layer).mean, fit_standard(spoiled).mean)


def test_both_images_get_the_same_map():
    """Equal features stay equal and differences are only projected, whichever image they belong to."""
    fixed, moving = layer_of(0), layer_of(1, weight=weights())
    basis, standard = fit_pca(fixed, 2), fit_standard(fixed)
    difference = rows(moving) - rows(fixed)
    projected = rows(basis.apply(moving)) - rows(basis.apply(fixed))
    np.testing.assert_allclose(projected, difference @ basis.vectors.numpy(), atol=1e-9)
    scaled = rows(standard.apply(moving)) - rows(standard.apply(fixed))
    np.testing.assert_allclose(scaled, difference / rows(fixed).std(0), atol=1e-9)
    for reduced in (basis.apply(moving), standard.apply(moving), unit(moving)):
        assert reduced.weight is moving.weight
        assert reduced.grid == moving.grid


@pytest.mark.parametrize("kind", ["pca", "standard", "unit", "select"])
def test_gradients_pass(kind, chunk):
    """A reduction is differentiable in the features: gradients are those of finite differences."""
    fixed = layer_of()
    basis, standard = fit_pca(fixed, 2), fit_standard(fixed)
    grid = oblique_grid(3).pooled(4)

    def reduced(data):
        layer = Layer(Volume(data, grid))
        maps = {"pca": basis.apply, "standard": standard.apply, "unit": unit}
        return (maps[kind](layer) if kind in maps else select(layer, torch.tensor([0, 3]))).features.data

    assert torch.autograd.gradcheck(reduced, noise(CHANNELS, *grid.shape, seed=2).requires_grad_())


def test_all_components_keep_all_distances():
    """With as many components as channels the basis is a rotation, and every variance is explained."""
    fixed, moving = layer_of(0), layer_of(1)
    basis = fit_pca(fixed, CHANNELS)
    before = np.linalg.norm(rows(moving) - rows(fixed), axis=1)
    after = np.linalg.norm(rows(basis.apply(moving)) - rows(basis.apply(fixed)), axis=1)
    np.testing.assert_allclose(after, before, rtol=1e-9)
    assert float(basis.explained.sum()) == pytest.approx(1)
    assert np.all(np.diff(basis.variances.numpy()) <= 0)


def test_single_precision_far_from_zero_stays_exact():
    """A basis of float32 features whose mean is 10⁴ times their spread is that of the features without the mean."""
    layer = layer_of(dtype=torch.float32)
    values = (layer.features.data * 64).round() / 64  # so that adding the mean rounds nothing
    near, far = Layer(Volume(values, GRID)), Layer(Volume(values + 32768, GRID))
    assert torch.equal(far.features.data - 32768, values)
    torch.testing.assert_close(fit_pca(far, 2).vectors, fit_pca(near, 2).vectors, atol=1e-8, rtol=0)
    assert fit_pca(far, 2).apply(far).features.data.dtype == torch.float32
    torch.testing.assert_close(
        fit_pca(far, 2).apply(far).features.data, fit_pca(near, 2).apply(near).features.data, atol=0.01, rtol=0
    )


@pytest.mark.parametrize("components", [0, CHANNELS + 1])
def test_too_many_components_are_refused(components):
    """More components than channels, or none, are a ConfigError that says both numbers."""
    with pytest.raises(ConfigError, match=f"between 1 and {CHANNELS} .*{CHANNELS} channels, got {components}"):
        fit_pca(layer_of(), components)


def test_other_channels_are_refused():
    """A layer with another number of channels than the fitted one is refused, with both numbers."""
    fixed = layer_of()
    fewer = select(fixed, torch.tensor([0, 2]))
    for fitted in (fit_pca(fixed, 2), fit_standard(fixed)):
        with pytest.raises(ModelContractError, match=f"expected {CHANNELS} channels.* got 2"):
            fitted.apply(fewer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_channel_without_variation_becomes_zero(dtype):
    """Constant channels, whose rounding must not be blown up, become 0; the others are not touched by it."""
    layer = layer_of(dtype=dtype)
    layer.features.data[1] = 1234.567
    layer.features.data[3] = 0
    standard = fit_standard(layer).apply(layer).features.data
    assert float(standard[[1, 3]].abs().max()) == 0
    others = standard[[0, 2, 4]].flatten(1)
    torch.testing.assert_close(others.std(1, unbiased=False), torch.ones(3, dtype=dtype), atol=1e-4, rtol=0)
    components = fit_pca(layer, CHANNELS)
    assert float(components.vectors[1, :3].abs().max()) < 1e-6
    assert bool(torch.isfinite(components.apply(layer).features.data).all())


@pytest.mark.parametrize("case", ["one voxel", "nothing counts"])
def test_what_has_no_variance_stays_finite(case):
    """One voxel, or a mask of nothing: nothing is explained, all values are finite, and one voxel becomes 0."""
    if case == "one voxel":
        data, weight = noise(CHANNELS, 1, 1, 1, seed=3) + 7, None
        layer = Layer(Volume(data, oblique_grid(3).pooled(10)), weight)
    else:
        layer = layer_of(weight=torch.zeros_like(weights()))
    basis, standard = fit_pca(layer, 2), fit_standard(layer)
    assert basis.explained.tolist() == [0, 0]
    for reduced in (basis.apply(layer), standard.apply(layer)):
        assert bool(torch.isfinite(reduced.features.data).all())
        assert case != "one voxel" or float(reduced.features.data.abs().max()) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unit_vectors(dtype):
    """Vectors get length 1 and keep their direction; zero vectors stay zero."""
    layer = layer_of(dtype=dtype)
    layer.features.data[:, 1, 2, 3] = 0
    result = unit(layer).features.data
    length = result.norm(dim=0)
    assert float(length[1, 2, 3]) == 0
    length[1, 2, 3] = 1
    torch.testing.assert_close(length, torch.ones_like(length))
    torch.testing.assert_close(result * layer.features.data.norm(dim=0), layer.features.data)


def test_subsets_are_drawn_without_repetition():
    """Drawn channels are sorted and different, the same for the same seed, and every channel is drawn at times."""
    generator = torch.Generator().manual_seed(0)
    draws = [subset(9, 4, generator).tolist() for _ in range(40)]
    assert all(draw == sorted(set(draw)) and len(draw) == 4 for draw in draws)
    assert {channel for draw in draws for channel in draw} == set(range(9))
    assert len({tuple(draw) for draw in draws}) > 10
    again = torch.Generator().manual_seed(0)
    assert [subset(9, 4, again).tolist() for _ in range(40)] == draws


@pytest.mark.parametrize("count", [0, CHANNELS, CHANNELS + 3])
def test_a_subset_of_all_is_the_layer(count):
    """0 or at least as many as there are draws all channels, and selecting all copies nothing."""
    layer = layer_of()
    indices = subset(CHANNELS, count, torch.Generator())
    assert indices.tolist() == list(range(CHANNELS))
    assert select(layer, indices) is layer


def test_select_keeps_the_channels_and_the_weight():
    """The selected channels are those of the indices, in their order, with weight and grid."""
    layer = layer_of(weight=weights())
    selected = select(layer, torch.tensor([3, 0]))
    assert torch.equal(selected.features.data, layer.features.data[[3, 0]])
    assert selected.weight is layer.weight
    assert selected.grid == layer.grid
