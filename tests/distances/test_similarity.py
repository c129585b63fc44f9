"""Promises of the distances: 0 where features match, exact gradients, closed forms, weights, and what they tell."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from conftest import noise
from semreg.config import ModelConfig, RefineConfig
from semreg.distances import DISTANCES, derived
from semreg.distances.angles import cosine, dotproduct, l1cosine
from semreg.distances.contract import Distance
from semreg.distances.correlation import lncc, lncc_squared, ncc
from semreg.distances.differences import l1, l2
from semreg.distances.overlap import dice
from semreg.errors import ConfigError

NAMES = list(DISTANCES)
MATCHING = [name for name in NAMES if DISTANCES[name].zero_at_match]
POINTWISE = [name for name in NAMES if DISTANCES[name].slope is not None]
SAMPLES, CHANNELS = 60, 3
SHAPE = (3, 4, 5)
SMALL_SHAPES = {7: (7,), 20: (4, 5), 24: (2, 3, 4)}


def features(seed, samples=SAMPLES, channels=CHANNELS):
    """Features (P, C) whose channels differ in mean and spread, float64."""
    spread = torch.tensor([1.0, 0.2, 7.0, 3.0][:channels], dtype=torch.float64)
    return noise(samples, channels, seed=seed) * spread + 5 * noise(1, channels, seed=9)


def weights(samples=SAMPLES):
    """Weights between 0 and 1, a third of them 0."""
    values = torch.rand(samples, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return values * (torch.arange(samples) % 3 > 0)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_of_the_table_is_a_setting(name):
    """What the table names is a Distance, and the settings take it."""
    assert isinstance(DISTANCES[name], Distance)
    assert RefineConfig(distance=name).distance == name
    assert ModelConfig(distance=(name,)).distance == (name,)
    assert (DISTANCES[name].windows is not None) == DISTANCES.rows[name].windowed


@pytest.mark.parametrize("setting", [lambda d: RefineConfig(distance=d), lambda d: ModelConfig(distance=("l1", d))])
def test_an_unknown_name_is_told_the_nearest_one(setting):
    """One sentence names the setting, all distances, what came and what it may have meant."""
    with pytest.raises(ConfigError, match=r"distance to be one of l1, l2, .*, got 'lnc': did you mean 'lncc'\?$"):
        setting("lnc")


def test_names_are_known_without_torch():
    """Names are listed and checked, and the settings made, without importing what computes."""
    code = (
        "import sys; from semreg.config import RefineConfig; from semreg.distances import DISTANCES\n"
        "RefineConfig(distance='cosine'); print(*DISTANCES); assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == NAMES


@pytest.mark.parametrize("name", POINTWISE)
def test_what_the_value_tells_is_what_the_row_brings(name):
    """Of a mean over samples the cost that follows from the value alone is each sample's own distance."""
    fixed, moving = (x.T.reshape(-1, *SHAPE).contiguous() for x in (features(0), features(1)))
    plain, row = Distance.of(DISTANCES[name].value), DISTANCES[name]
    found = plain.cost(fixed, moving, torch.empty_like(fixed))
    near, far = row.embed(fixed, None), row.embed(moving, None)
    torch.testing.assert_close(found, row.cost(near, far, torch.empty_like(near)), rtol=1e-8, atol=1e-10)
    assert not found.requires_grad


@pytest.mark.parametrize("name", ["ncc", "lncc", "lncc_squared"])
def test_derived_costs_have_the_value_as_their_mean(name):
    """The mean of the derived costs is the value, also where no sample has a distance of its own."""
    fixed, moving = (x.T.reshape(-1, *SHAPE).contiguous() for x in (features(0), features(1) + features(0)))
    cost = derived.cost_of(DISTANCES[name].value)(fixed, moving, torch.empty_like(fixed))
    value = DISTANCES[name](fixed.flatten(1).T, moving.flatten(1).T, None, SHAPE)
    assert float(cost.mean()) == pytest.approx(float(value), rel=1e-6)


@pytest.mark.parametrize("masked", [False, True], ids=["all", "weighted"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "dotproduct"])
def test_derived_curvature_is_about_that_of_the_row(name, masked):
    """The second difference of the value is within a factor of 5 of what the row knows better."""
    fixed, weight = features(0), weights() if masked else None
    known = DISTANCES[name].curvature(fixed, weight, SHAPE)
    assert known / 5 < derived.curvature_of(DISTANCES[name].value)(fixed, weight, SHAPE) < 5 * known


def test_derived_curvature_without_a_bend():
    """A value that does not bend, or features without any difference, give that of half the squared difference."""
    assert derived.curvature_of(DISTANCES["dotproduct"].value)(features(0), None) == 1 / SAMPLES
    assert derived.curvature_of(DISTANCES["l2"].value)(torch.zeros(SAMPLES, 2), None) == 1 / SAMPLES


@pytest.mark.parametrize("weight", [None, weights()], ids=["all", "weighted"])
@pytest.mark.parametrize("name", MATCHING)
def test_equal_features_are_at_distance_zero(name, weight):
    """Equal features have distance 0, with a gradient of 0; other features a positive one."""
    fixed = features(0)
    moving = fixed.clone().requires_grad_()
    distance = DISTANCES[name](fixed, moving, weight, SHAPE)
    distance.backward()
    assert float(distance.detach()) == pytest.approx(0, abs=1e-9)
    assert float(moving.grad.abs().max()) < 1e-9
    assert float(DISTANCES[name](fixed, features(1), weight, SHAPE)) > 0.005


@pytest.mark.parametrize("masked", [False, True], ids=["all", "weighted"])
@pytest.mark.parametrize("samples", SMALL_SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_exact(name, samples, masked):
    """The gradient in both features is that of finite differences, float64, in 1-D, 2-D and 3-D."""
    fixed, moving = features(0, samples).requires_grad_(), features(1, samples).requires_grad_()
    weight, shape = weights(samples) if masked else None, SMALL_SHAPES[samples]
    assert torch.autograd.gradcheck(lambda f, m: DISTANCES[name](f, m, weight, shape), (fixed, moving))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("zeros", [False, True], ids=["any", "zero vectors"])
@pytest.mark.parametrize("name", POINTWISE)
def test_slope_is_the_derivative(name, zeros, seed):
    """``slope`` gives the value and, as automatic differentiation, its derivative; parts of the samples add up."""
    fixed, moving, share = features(0), features(seed).requires_grad_(), weights() / weights().sum()
    with torch.no_grad():
        moving[3] = fixed[3]
        if zeros:
            fixed[[4, 10]] = 0
            moving[[7, 10]] = 0
    distance = DISTANCES[name](fixed, moving, share)
    distance.backward()
    parts = [slice(0, 17), slice(17, SAMPLES)]
    found = [DISTANCES[name].slope(fixed[part], moving.detach()[part], share[part]) for part in parts]
    assert sum(value for value, _ in found) == pytest.approx(float(distance.detach()), rel=1e-9)
    torch.testing.assert_close(torch.cat([slope for _, slope in found]), moving.grad, rtol=1e-9, atol=1e-12)
    assert float(moving.grad.abs().max()) > 1e-4


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


def loop(term, fixed, moving, weight):
    """Weighted mean of ``term`` of each pair of vectors, numpy, written out."""
    pairs = zip(fixed.numpy(), moving.numpy(), weight.numpy(), strict=True)
    return sum(w * term(f, m) for f, m, w in pairs) / float(weight.sum())


def cosine_of(f, m):
    return f @ m / (np.linalg.norm(f) * np.linalg.norm(m))


TERMS = {
    "l1": (l1, lambda f, m: np.abs(f - m).sum()),
    "l2": (l2, lambda f, m: ((f - m) ** 2).sum()),
    "cosine": (cosine, lambda f, m: 1 - cosine_of(f, m)),
    "l1cosine": (l1cosine, lambda f, m: 1 - np.mean(cosine_of(f, m) * np.exp(-0.1 * np.abs(f - m)))),
    "dotproduct": (dotproduct, lambda f, m: -(f @ m)),
    "dice": (dice, lambda f, m: 1 - 2 * f @ m / (f @ f + m @ m)),
}


@pytest.mark.parametrize("name", POINTWISE)
def test_closed_forms(name):
    """Each distance that is a mean over samples is its formula, sample by sample, by weight."""
    fixed, moving, weight = features(0), features(1), weights()
    value, term = TERMS[name]
    assert float(value(fixed, moving, weight)) == pytest.approx(loop(term, fixed, moving, weight), rel=1e-6)
    assert float(value(fixed, moving)) == pytest.approx(loop(term, fixed, moving, torch.ones(SAMPLES)), rel=1e-6)
    assert torch.equal(value(fixed, moving, weight), DISTANCES[name](fixed, moving, weight, SHAPE))


def test_dice_of_certain_maps_is_the_usual_one():
    """For maps of 0 and 1 the soft Dice is 2 |A ∩ B| / (|A| + |B|) of each sample; two empty maps agree."""
    fixed = torch.tensor([[1.0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=torch.float64)
    moving = torch.tensor([[1.0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)
    assert float(dice(fixed, moving)) == pytest.approx(((1 - 4 / 6) + 0 + 1) / 3, abs=1e-6)


def test_cosine_ignores_the_length_of_vectors():
    """Cosine does not change with the lengths of the vectors; opposite ones are at 2, orthogonal ones at 1."""
    fixed, moving = features(0), features(1)
    lengths = torch.rand((SAMPLES, 1), generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 100 + 0.01
    value = float(cosine(fixed, moving))
    assert float(cosine(fixed, lengths * moving)) == pytest.approx(value, rel=1e-9)
    assert float(cosine(lengths * fixed, moving)) == pytest.approx(value, rel=1e-9)
    assert float(cosine(fixed, -lengths * fixed)) == pytest.approx(2, rel=1e-9)
    across = torch.stack([fixed[:, 1], -fixed[:, 0], torch.zeros(SAMPLES)], 1)
    assert float(cosine(fixed, across)) == pytest.approx(1, rel=1e-9)
    assert float(l1cosine(fixed, lengths * fixed)) > 0.1


@pytest.mark.parametrize("value", [cosine, l1cosine])
def test_zero_vectors_match_each_other_only(value):
    """A zero vector is at 0 from another one and at 1 from all others, with a gradient of 0."""
    other, zero = noise(1, CHANNELS, seed=2), torch.zeros((1, CHANNELS), dtype=torch.float64)
    for fixed, moving, expected in ((zero, zero, 0), (zero, other, 1), (other, zero, 1)):
        variable = moving.clone().requires_grad_()
        distance = value(fixed, variable)
        distance.backward()
        assert float(distance.detach()) == expected
        assert float(variable.grad.abs().max()) == 0


def test_longer_features_are_nearer_by_the_dot_product():
    """The dot product has no match at 0, and says so."""
    fixed = features(0)
    assert float(dotproduct(fixed, 3 * fixed)) < float(dotproduct(fixed, fixed)) < 0
    assert [name for name in NAMES if not DISTANCES[name].zero_at_match] == ["dotproduct"]


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


def windows(shape):
    """For each voxel the flat numbers of the voxels at most 2 away on every axis, itself included."""
    numbers = np.arange(np.prod(shape)).reshape(shape)
    for centre in itertools.product(*map(range, shape)):
        yield numbers[tuple(slice(max(i - 2, 0), i + 3) for i in centre)].ravel()


def naive_lncc(fixed, moving, weight, shape, power=1):
    """1 − Pearson's correlation in each window and channel by numpy, or its square, weighted mean over the voxels."""
    total = 0.0
    for centre, window in enumerate(windows(shape)):
        for channel in range(fixed.shape[1]):
            x, w = np.stack([fixed[window, channel], moving[window, channel]]), weight[window]
            if weight[centre] > 0:
                covariance = np.cov(x, aweights=w, ddof=0)
                correlation = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
                total += weight[centre] * (1 - correlation**power) / fixed.shape[1]
    return total / weight.sum()


@pytest.mark.parametrize("masked", [False, True], ids=["all", "weighted"])
@pytest.mark.parametrize("shape", [(9, 7), (3, 6, 8), (1, 4, 9)], ids=str)
def test_lncc_is_the_correlation_in_windows(shape, masked):
    """LNCC is 1 − Pearson's correlation in windows of 5 voxels, cut at the border and weighted, as a loop has it."""
    samples = int(np.prod(shape))
    fixed, moving = features(0, samples), features(1, samples) + 0.5 * features(0, samples)
    weight = weights(samples) if masked else None
    for distance, power in ((lncc, 1), (lncc_squared, 2)):
        expected = naive_lncc(fixed, moving, np.ones(samples) if weight is None else weight.numpy(), shape, power)
        assert float(distance(fixed, moving, weight, shape)) == pytest.approx(expected, abs=1e-3)
        assert 0.1 < expected < 0.9


def test_squared_lncc_does_not_mind_the_sign():
    """Brightness that is turned over matches, also in a part of the image alone; what is not correlated does not."""
    shape = (12, 14)
    fixed = features(0, 168)
    assert float(lncc_squared(fixed, 3 - 2 * fixed, None, shape)) == pytest.approx(0, abs=1e-3)
    partly = torch.where(torch.arange(168)[:, None] < 84, fixed, 3 - 2 * fixed)
    assert float(lncc_squared(fixed, partly, None, shape)) < 0.35 < float(lncc(fixed, partly, None, shape))
    assert float(lncc_squared(fixed, features(1, 168), None, shape)) > 0.8


def test_lncc_ignores_gain_and_offset():
    """LNCC does not change with gain and offset of a channel, nor, nearly, with those that vary slowly."""
    shape = (60, 7, 8)
    samples = int(np.prod(shape))
    fixed, moving = features(0, samples), features(1, samples) + 2 * features(0, samples)
    gain = torch.tensor([1000.0, 0.01, 3.0], dtype=torch.float64)
    offset = torch.tensor([-40.0, 3.0, 1e4], dtype=torch.float64)
    value = float(lncc(fixed, moving, None, shape))
    assert float(lncc(fixed, moving * gain + offset, None, shape)) == pytest.approx(value, abs=1e-6)
    assert float(lncc(fixed * gain + offset, moving, None, shape)) == pytest.approx(value, abs=1e-6)
    slow = torch.linspace(0, 1, samples, dtype=torch.float64)[:, None]
    varied = (moving - moving.mean(0)) * (1 + 3 * slow) + 10 * moving.std(0) * slow
    assert float(lncc(fixed, varied, None, shape)) == pytest.approx(value, abs=0.02)
    assert abs(float(ncc(fixed, varied)) - float(ncc(fixed, moving))) > 0.1


def test_lncc_far_from_zero_is_exact_in_single_precision():
    """A mean 10⁴ times the spread costs LNCC no more than the rounding of the features themselves."""
    fixed, moving = features(0).float(), (features(1) + features(0)).float()
    exact = float(lncc(fixed.double(), moving.double(), None, SHAPE))
    far = float(lncc(fixed + 1e4, moving + 1e4, None, SHAPE))
    assert far == pytest.approx(exact, abs=1e-2)
    assert float(lncc(fixed, moving, None, SHAPE)) == pytest.approx(exact, abs=1e-5)


def test_lncc_of_a_constant_is_no_correlation():
    """LNCC is 1 where one image is constant and 0 where both are."""
    fixed, constant = features(0), torch.full((SAMPLES, CHANNELS), 3.0, dtype=torch.float64)
    assert float(lncc(fixed, constant, None, SHAPE)) == pytest.approx(1, abs=0.01)
    assert float(lncc(constant, constant + 4, None, SHAPE)) == pytest.approx(0, abs=1e-6)


def test_lncc_does_not_see_faint_noise():
    """Where both images are constant but for noise 10⁴ times below their spread nothing is compared: distance 0 there.

    In two thirds of the image, that is, and in all windows that do not reach the rest, which is not correlated.
    """
    shape, samples = (12, 7, 8), 12 * 7 * 8
    spread = torch.where(torch.arange(samples)[:, None] < samples * 2 // 3, 1e-4, 1.0)
    fixed, moving = (spread * noise(samples, CHANNELS, seed=seed) for seed in (0, 1))
    assert float(lncc(fixed, moving, None, shape)) == pytest.approx(6 / 12, abs=0.05)
    assert float(lncc(fixed / spread, moving / spread, None, shape)) == pytest.approx(1, abs=0.05)


def test_lncc_needs_the_shape():
    """Without the spatial shape LNCC and its curvature are refused, with what to do."""
    for call in (
        lambda: DISTANCES["lncc"](features(0), features(1)),
        lambda: lncc(features(0), features(1), weights()),
    ):
        with pytest.raises(ConfigError, match="expected the spatial shape of the samples for lncc, got none"):
            call()
    with pytest.raises(ConfigError, match="spatial shape"):
        DISTANCES["lncc"].curvature(features(0), None)


@pytest.mark.parametrize(
    "name", [name for name in NAMES if not name.startswith("lncc")]
)  # whose samples have neighbours
def test_weights_count_samples(name):
    """A weight of n is a sample that is there n times; the sum of the weights does not matter."""
    fixed, moving = features(0), features(1) + features(0)
    times = torch.arange(SAMPLES) % 4
    repeated = float(DISTANCES[name](fixed.repeat_interleave(times, 0), moving.repeat_interleave(times, 0)))
    for scale in (1.0, 0.01):
        assert float(DISTANCES[name](fixed, moving, scale * times.double())) == pytest.approx(repeated, rel=1e-6)
    assert abs(float(DISTANCES[name](fixed, moving)) - repeated) > 1e-3 * abs(repeated)


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_weight_zero_count_nowhere(name):
    """Where the weight is 0 no feature changes the distance, its scale or its curvature, and no gradient flows."""
    fixed, moving, weight = features(0), features(1), weights()
    excluded = (weight == 0)[:, None]
    junk_fixed, junk_moving = torch.where(excluded, 1e6, fixed), torch.where(excluded, -1e7, moving)
    distance = DISTANCES[name]
    assert torch.equal(distance(fixed, moving, weight, SHAPE), distance(junk_fixed, junk_moving, weight, SHAPE))
    assert distance.scale(fixed, weight) == distance.scale(junk_fixed, weight)
    assert distance.curvature(fixed, weight, SHAPE) == distance.curvature(junk_fixed, weight, SHAPE)
    junk_moving.requires_grad_()
    distance(junk_fixed, junk_moving, weight, SHAPE).backward()
    assert float(junk_moving.grad[excluded[:, 0]].abs().max()) == 0
    assert float(junk_moving.grad.abs().max()) > 0


@pytest.mark.parametrize("weight", [None, weights(), torch.zeros(SAMPLES, dtype=torch.float64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_constants_stay_finite(name, dtype, weight):
    """Constants, zeros and weights of nothing but 0, in one image or both, give finite values and gradients."""
    varied, constant = features(0).to(dtype), torch.full((SAMPLES, CHANNELS), 3.0, dtype=dtype)
    weight = None if weight is None else weight.to(dtype)
    cases = (varied, constant, torch.zeros_like(constant), torch.full_like(constant, 1234.567))
    for fixed, moving in itertools.product(cases, repeat=2):
        near, far = fixed.clone().requires_grad_(), moving.clone().requires_grad_()
        distance = DISTANCES[name](near, far, weight, SHAPE)
        distance.backward()
        assert bool(torch.isfinite(distance))
        assert bool(torch.isfinite(near.grad).all() and torch.isfinite(far.grad).all())
        assert np.isfinite(DISTANCES[name].scale(fixed, weight))
        assert np.isfinite(DISTANCES[name].curvature(fixed, weight, SHAPE))
        assert fixed is not moving or name == "dotproduct" or float(distance.detach()) == pytest.approx(0, abs=1e-6)


def test_ncc_of_a_constant_is_no_correlation():
    """A channel without variation in one image counts as uncorrelated: distance 1."""
    constant = torch.full((SAMPLES, CHANNELS), 3.0, dtype=torch.float64)
    assert float(ncc(features(0), constant)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("weight", [None, weights(20000)], ids=["all", "weighted"])
@pytest.mark.parametrize("name", MATCHING)
def test_scale_is_the_distance_of_unrelated_features(name, weight):
    """``scale`` is the distance of features to themselves in another order, within what chance allows."""
    fixed = features(0, 20000)
    order = torch.randperm(20000, generator=torch.Generator().manual_seed(1))
    expected = float(DISTANCES[name](fixed, fixed[order], weight, (20, 25, 40)))
    assert DISTANCES[name].scale(fixed, weight) == pytest.approx(expected, rel=0.1)


def test_scale_of_the_dot_product_is_that_of_a_match():
    """For the dot product ``scale`` is the size of its value for equal features, which is not 0."""
    fixed, weight = features(0), weights()
    assert DISTANCES["dotproduct"].scale(fixed, weight) == pytest.approx(-float(dotproduct(fixed, fixed, weight)))


@pytest.mark.parametrize("name", NAMES)
def test_scale_draws_no_random_numbers(name):
    """``scale`` is the same at each call and leaves the global generator as it is."""
    before = torch.random.get_rng_state()
    first = DISTANCES[name].scale(features(0), weights())
    assert DISTANCES[name].scale(features(0), weights()) == first
    assert torch.equal(torch.random.get_rng_state(), before)


def second_derivatives(name, fixed, moving, weight, shape=None):
    """Second derivative of the distance in each feature of each sample, (P, C)."""

    def value(flat):
        return DISTANCES[name](fixed, flat.reshape(fixed.shape), weight, shape)

    return torch.autograd.functional.hessian(value, moving.flatten()).diagonal().reshape(fixed.shape)


@pytest.mark.parametrize("weight", [None, (torch.arange(40) % 4 > 0).double()], ids=["all", "masked"])
def test_curvature_of_l2_is_exact(weight):
    """For L2 ``curvature`` is the second derivative in one feature of one sample that counts."""
    fixed, moving = features(0, 40), features(1, 40)
    expected = second_derivatives("l2", fixed, moving, weight)
    expected = expected if weight is None else expected[weight > 0]
    torch.testing.assert_close(torch.full_like(expected, DISTANCES["l2"].curvature(fixed, weight)), expected)


@pytest.mark.parametrize("weight", [None, (torch.arange(60) % 4 > 0).double()], ids=["all", "masked"])
@pytest.mark.parametrize("name", ["ncc", "lncc", "lncc_squared", "cosine", "l1cosine", "dice"])
def test_curvature_is_of_the_right_order(name, weight):
    """``curvature`` is within a factor 3 of the mean second derivative near the match, in any unit but for L1Cosine."""
    for scale in (1.0,) if name == "l1cosine" else (1.0, 1e-2, 50.0):
        fixed = scale * noise(SAMPLES, CHANNELS, seed=0)
        moving = fixed + 0.1 * scale * noise(SAMPLES, CHANNELS, seed=1)
        expected = second_derivatives(name, fixed, moving, weight, SHAPE)
        expected = float((expected if weight is None else expected[weight > 0]).mean())
        assert expected / 3 < DISTANCES[name].curvature(fixed, weight, SHAPE) < 3 * expected


@pytest.mark.parametrize("name", NAMES)
def test_curvature_falls_with_the_number_of_samples(name):
    """Twice the samples count half each: so does their curvature; a mask of half of them is as half of them."""
    fixed, mask = features(0, 4000), (torch.arange(8000) < 4000).double()
    twice, distance = torch.cat([fixed, fixed]), DISTANCES[name]
    curvature = distance.curvature(fixed, None, (40, 10, 10))
    assert distance.curvature(twice, None, (80, 10, 10)) == pytest.approx(curvature / 2, rel=0.05)
    assert distance.curvature(twice, mask, (80, 10, 10)) == pytest.approx(curvature, rel=0.05)


def test_curvature_of_l1_brings_a_step_of_the_right_length():
    """For L1 one step of gradient over curvature from an unrelated feature about goes to the other one."""
    fixed = features(0, 4000)
    moving = fixed[torch.randperm(4000, generator=torch.Generator().manual_seed(1))].requires_grad_()
    l1(fixed, moving).backward()
    step = moving.grad.abs().mean() / DISTANCES["l1"].curvature(fixed, None)
    assert float(step) == pytest.approx(float((moving.detach() - fixed).abs().mean()), rel=0.1)


def costs(name, fixed, moving, mask=(None, None)):
    """Costs (P,) of each sample, by ``embed`` and ``cost``, with a buffer full of what must not matter."""
    distance = DISTANCES[name]
    images = [x.T.reshape(-1, *SHAPE) for x in (fixed, moving)]
    masks = [None if w is None else w.reshape(1, *SHAPE) for w in mask]
    near, far = (distance.embed(x, w) for x, w in zip(images, masks, strict=True))
    copies = near.clone(), far.clone()
    result = distance.cost(near, far, torch.full_like(near, float("nan")))
    assert result.shape == SHAPE
    assert torch.equal(near, copies[0])
    assert torch.equal(far, copies[1])
    assert torch.equal(images[1], moving.T.reshape(-1, *SHAPE))
    return result.flatten()


@pytest.mark.parametrize("zeros", [False, True], ids=["any", "zero vectors"])
@pytest.mark.parametrize("name", POINTWISE)
def test_costs_are_the_distance_sample_by_sample(name, zeros):
    """The cost of each sample is the distance of this sample alone, so that their mean is the value."""
    fixed, moving = features(0), features(1)
    if zeros:
        fixed[[4, 10]] = 0
        moving[[7, 10]] = 0
    found = costs(name, fixed, moving, (weights(), None))
    expected = [float(DISTANCES[name](fixed[i : i + 1], moving[i : i + 1])) for i in range(SAMPLES)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)
    assert float(found.mean()) == pytest.approx(float(DISTANCES[name](fixed, moving)), rel=1e-9)


@pytest.mark.parametrize("masked", [False, True], ids=["all", "weighted"])
def test_costs_of_ncc_have_its_value_as_their_mean(masked):
    """Of standardised channels half the squared difference is, in the mean by weight, 1 − correlation."""
    fixed, moving, weight = features(0), features(1) + features(0), weights() if masked else None
    found = costs("ncc", fixed, moving, (weight, weight))
    share = torch.ones(SAMPLES) if weight is None else weight
    assert float((found * share).sum() / share.sum()) == pytest.approx(float(ncc(fixed, moving, weight)), rel=1e-6)


@pytest.mark.parametrize("name", ["ncc", "lncc"])
def test_costs_of_correlations_ignore_gain_and_offset(name):
    """Standardised features do not change with gain and offset; equal ones cost nothing, where the weight is 0 too."""
    fixed, moving = features(0), features(1) + features(0)
    mask = (weights(), weights())
    expected = costs(name, fixed, moving, mask)
    torch.testing.assert_close(costs(name, fixed, 100 * moving - 7, mask), expected, rtol=1e-4, atol=1e-6)
    assert float(costs(name, fixed, 100 * fixed - 7, mask).abs().max()) < 1e-6
    assert float(costs(name, fixed, fixed).abs().max()) == 0


def test_costs_of_lncc_compare_what_is_local():
    """Each channel is standardised in its window, as a loop has it, and the cost is half the squared difference."""
    fixed, moving, weight = features(0), features(1), weights()
    standard = np.zeros((2, SAMPLES, CHANNELS))
    for image, x in enumerate((fixed, moving)):
        for centre, window in enumerate(windows(SHAPE)):
            values, w = x[window].numpy(), weight[window].numpy()
            mean = np.average(values, axis=0, weights=w)
            deviation = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=w))
            standard[image, centre] = (x[centre].numpy() - mean) / deviation * float(weight[centre] > 0)
    expected = ((standard[0] - standard[1]) ** 2).sum(1) / (2 * CHANNELS)
    np.testing.assert_allclose(costs("lncc", fixed, moving, (weight, weight)).numpy(), expected, rtol=1e-3, atol=1e-3)


def test_costs_of_l2_are_written_into_the_buffer():
    """For L2 the cost needs no memory but the buffer, and is exactly the sum of the squares of the difference."""
    near, far = noise(CHANNELS, *SHAPE, seed=0), noise(CHANNELS, *SHAPE, seed=1)
    buffer, distance = torch.empty_like(near), DISTANCES["l2"]
    assert distance.embed(near, None) is near
    assert torch.equal(distance.cost(near, far, buffer), (near - far).square().sum(0))
    assert torch.equal(buffer, (near - far).square())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_costs_stay_finite(name, dtype):
    """Constants, zeros and masks of nothing give finite costs."""
    constant = torch.full((SAMPLES, CHANNELS), 3.0, dtype=dtype)
    cases = (features(0).to(dtype), constant, torch.zeros_like(constant), torch.full_like(constant, 1234.567))
    for fixed, moving in itertools.product(cases, repeat=2):
        for weight in (None, weights().to(dtype), torch.zeros(SAMPLES, dtype=dtype)):
            assert bool(torch.isfinite(costs(name, fixed, moving, (weight, weight))).all())
