"""Promises of the distances: 0 where features match, exact gradients, closed forms, weights, and what they tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import noise
from semreg.similarity import DISTANCES, l2, ncc

NAMES = ["l2", "ncc"]
SAMPLES, CHANNELS = 60, 3


def features(seed, samples=SAMPLES, channels=CHANNELS):
    """Features (P, C) whose channels differ in mean and spread, float64."""
    spread = torch.tensor([1.0, 0.2, 7.0, 3.0][:channels], dtype=torch.float64)
    return noise(samples, channels, seed=seed) * spread + 5 * noise(1, channels, seed=9)


def weights(samples=SAMPLES):
    """Weights between 0 and 1, a third of them 0."""
    values = torch.rand(samples, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return values * (torch.arange(samples) % 3 > 0)


@pytest.mark.parametrize("weight", [None, weights()], ids=["all", "weighted"])
@pytest.mark.parametrize("name", NAMES)
def test_equal_features_are_at_distance_zero(name, weight):
    """Equal features have distance 0, with a gradient of 0; other features a positive one."""
    fixed = features(0)
    moving = fixed.clone().requires_grad_()
    distance = DISTANCES[name](fixed, moving, weight)
    distance.backward()
    assert float(distance.detach()) == pytest.approx(0, abs=1e-9)
    assert float(moving.grad.abs().max()) < 1e-9
    assert float(DISTANCES[name](fixed, features(1), weight)) > 0.1


@pytest.mark.parametrize("weight", [None, weights(7)], ids=["all", "weighted"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_exact(name, weight):
    """The gradient in both features is that of finite differences, float64."""
    fixed, moving = features(0, 7).requires_grad_(), features(1, 7).requires_grad_()
    assert torch.autograd.gradcheck(lambda f, m: DISTANCES[name](f, m, weight), (fixed, moving))


def test_l2_is_the_mean_of_the_squared_lengths():
    """L2 sums over the channels and averages over the samples, by weight."""
    fixed = torch.tensor([[0.0, 0.0], [1.0, 2.0], [5.0, 5.0]], dtype=torch.float64)
    moving = torch.tensor([[3.0, 4.0], [1.0, 1.0], [0.0, 5.0]], dtype=torch.float64)
    assert float(l2(fixed, moving)) == pytest.approx((25 + 1 + 25) / 3)
    weight = torch.tensor([0.5, 1.0, 0.0], dtype=torch.float64)
    assert float(l2(fixed, moving, weight)) == pytest.approx((0.5 * 25 + 1) / 1.5)


def test_ncc_is_one_minus_pearsons_correlation():
    """NCC is 1 − Pearson's correlation of each channel, mean over the channels."""
    fixed, moving = features(0), 0.5 * features(0) + features(1)
    expected = np.mean([1 - np.corrcoef(fixed[:, c], moving[:, c])[0, 1] for c in range(CHANNELS)])
    assert float(ncc(fixed, moving)) == pytest.approx(expected, abs=1e-9)
    assert 0.05 < expected < 0.95


def test_ncc_ignores_gain_and_offset():
    """NCC does not change with gain and offset of a channel, whichever, and a negative gain is the far end, 2."""
    fixed, moving = features(0), features(1) + features(0)
    gain = torch.tensor([1000.0, 0.01, 3.0], dtype=torch.float64)
    offset = torch.tensor([-40.0, 3.0, 1e4], dtype=torch.float64)
    value = float(ncc(fixed, moving))
    assert float(ncc(fixed, moving * gain + offset)) == pytest.approx(value, abs=1e-6)
    assert float(ncc(fixed * gain + offset, moving)) == pytest.approx(value, abs=1e-6)
    assert float(ncc(fixed, fixed * gain + offset)) == pytest.approx(0, abs=1e-6)
    assert float(ncc(fixed, -fixed * gain + offset)) == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_weights_count_samples(name):
    """A weight of n is a sample that is there n times; the sum of the weights does not matter."""
    fixed, moving = features(0), features(1) + features(0)
    times = torch.arange(SAMPLES) % 4
    repeated = float(DISTANCES[name](fixed.repeat_interleave(times, 0), moving.repeat_interleave(times, 0)))
    for scale in (1.0, 0.01):
        assert float(DISTANCES[name](fixed, moving, scale * times.double())) == pytest.approx(repeated, rel=1e-6)
    assert abs(float(DISTANCES[name](fixed, moving)) - repeated) > 1e-3 * repeated


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_weight_zero_count_nowhere(name):
    """Where the weight is 0 no feature changes the distance, its scale or its curvature, and no gradient flows."""
    fixed, moving, weight = features(0), features(1), weights()
    excluded = (weight == 0)[:, None]
    junk_fixed, junk_moving = torch.where(excluded, 1e6, fixed), torch.where(excluded, -1e7, moving)
    distance = DISTANCES[name]
    assert torch.equal(distance(fixed, moving, weight), distance(junk_fixed, junk_moving, weight))
    assert distance.scale(fixed, weight) == distance.scale(junk_fixed, weight)
    assert distance.curvature(fixed, weight) == distance.curvature(junk_fixed, weight)
    junk_moving.requires_grad_()
    distance(junk_fixed, junk_moving, weight).backward()
    assert float(junk_moving.grad[excluded[:, 0]].abs().max()) == 0
    assert float(junk_moving.grad.abs().max()) > 0


@pytest.mark.parametrize("weight", [None, weights(), torch.zeros(SAMPLES, dtype=torch.float64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_constants_stay_finite(name, dtype, weight):
    """Constant channels in one image or in both, and weights of nothing but 0, give finite values and gradients."""
    varied, constant = features(0).to(dtype), torch.full((SAMPLES, CHANNELS), 3.0, dtype=dtype)
    weight = None if weight is None else weight.to(dtype)
    for fixed, moving in ((varied, constant), (constant, varied), (constant, constant.clone())):
        variable = moving.clone().requires_grad_()
        distance = DISTANCES[name](fixed, variable, weight)
        distance.backward()
        assert bool(torch.isfinite(distance))
        assert bool(torch.isfinite(variable.grad).all())
        assert np.isfinite(DISTANCES[name].scale(fixed, weight))
        assert np.isfinite(DISTANCES[name].curvature(fixed, weight))
    assert float(DISTANCES[name](constant, constant, weight)) == pytest.approx(0, abs=1e-6)


def test_ncc_of_a_constant_is_no_correlation():
    """A channel without variation in one image counts as uncorrelated: distance 1."""
    constant = torch.full((SAMPLES, CHANNELS), 3.0, dtype=torch.float64)
    assert float(ncc(features(0), constant)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("weight", [None, weights(20000)], ids=["all", "weighted"])
@pytest.mark.parametrize("name", NAMES)
def test_scale_is_the_distance_of_unrelated_features(name, weight):
    """``scale`` is the distance of features to themselves in another order, within what chance allows."""
    fixed = features(0, 20000)
    order = torch.randperm(20000, generator=torch.Generator().manual_seed(1))
    expected = float(DISTANCES[name](fixed, fixed[order], weight))
    assert DISTANCES[name].scale(fixed, weight) == pytest.approx(expected, rel=0.1)


def second_derivatives(name, fixed, moving, weight):
    """Second derivative of the distance in each feature of each sample, (P, C)."""

    def value(flat):
        return DISTANCES[name](fixed, flat.reshape(fixed.shape), weight)

    return torch.autograd.functional.hessian(value, moving.flatten()).diagonal().reshape(fixed.shape)


@pytest.mark.parametrize("weight", [None, (torch.arange(40) % 4 > 0).double()], ids=["all", "masked"])
def test_curvature_of_l2_is_exact(weight):
    """For L2 ``curvature`` is the second derivative in one feature of one sample that counts."""
    fixed, moving = features(0, 40), features(1, 40)
    expected = second_derivatives("l2", fixed, moving, weight)
    expected = expected if weight is None else expected[weight > 0]
    torch.testing.assert_close(torch.full_like(expected, DISTANCES["l2"].curvature(fixed, weight)), expected)


@pytest.mark.parametrize("weight", [None, (torch.arange(40) % 4 > 0).double()], ids=["all", "masked"])
def test_curvature_of_ncc_is_of_the_right_order(weight):
    """For NCC ``curvature`` is within a factor 3 of the mean second derivative near the match, in any unit."""
    for scale in (1.0, 1e-3, 50.0):
        fixed = scale * noise(40, CHANNELS, seed=0)
        moving = fixed + 0.1 * scale * noise(40, CHANNELS, seed=1)
        expected = second_derivatives("ncc", fixed, moving, weight)
        expected = float((expected if weight is None else expected[weight > 0]).mean())
        assert expected / 3 < DISTANCES["ncc"].curvature(fixed, weight) < 3 * expected
