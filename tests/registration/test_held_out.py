"""The weight of the regularity: found where unseen samples are predicted best, and it pays where the truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from conftest import noise
from semreg import RegistrationConfig, register
from semreg.core.fields import Field, Layer, Volume, warp
from semreg.core.geometry import Grid
from semreg.core.sampling import smooth
from semreg.registration.dense.held_out import DIFFUSION, WEIGHTS, best_weight, folds
from semreg.registration.dense.terms import Term
from semreg.runtime.settings import override


def told(distance, tried):
    """What trials give whose distance is ``distance`` of the weight in both folds; ``tried`` keeps what was asked."""

    def attempt(weight, fold):
        tried.append((weight, fold))
        return distance(weight)

    return attempt


@pytest.mark.parametrize("best", [0.8, 0.9, 1.3])
def test_the_lowest_is_found(best):
    """Of a parabola over the logarithm of the weight it is the vertex itself, and nothing is tried twice."""
    tried = []
    found = best_weight(told(lambda weight: 1 + 0.1 * (math.log(weight) - math.log(best)) ** 2, tried))
    assert found == pytest.approx(best, rel=1e-6)
    assert len(set(tried)) == len(tried) == 2 * len(WEIGHTS)


def test_less_than_usual_is_not_believed():
    """Where unseen samples ask for less regularity than usual, or tell nothing, the usual one stands."""
    for distance in (lambda weight: 1 + 0.01 * weight, lambda _: 0.5, lambda _: math.nan):
        tried = []
        assert best_weight(told(distance, tried)) == DIFFUSION
        assert sorted(tried) == [(weight, fold) for weight in WEIGHTS[:2] for fold in (0, 1)]


def test_what_is_clear_in_one_fold_is_not_asked_again():
    """Where more of it is much worse in the first fold, the second is left; where it is a little worse, it decides."""
    tried = []
    assert best_weight(told(lambda weight: 1 + weight, tried)) == DIFFUSION
    assert tried == [(weight, 0) for weight in WEIGHTS[:2]]
    negative = [-0.5, -0.514, -0.6]
    assert best_weight(lambda weight, _: negative[WEIGHTS.index(weight)]) == max(WEIGHTS)
    against = best_weight(lambda weight, fold: 1 + (0.02 if fold == 0 else -0.05) * weight)
    assert against == max(WEIGHTS)


def test_the_range_ends():
    """Where they ask for ever more, the last weight of the range is taken, and none beyond is tried."""
    tried = []
    assert best_weight(told(lambda weight: -weight, tried)) == max(tried)[0]
    assert sorted(tried) == [(weight, fold) for weight in WEIGHTS for fold in (0, 1)]


def test_what_is_seen_and_what_is_held_out():
    """Blocks of one colour are seen, the inner part of the others is held out, both ways; masked ones never count."""
    grid = Grid.of_shape((17, 20))
    weight = (noise(1, 17, 20, seed=2) > 0).float()
    features = Volume(noise(3, 17, 20, seed=1).float(), grid)
    for mask in (None, weight):
        layer = Layer(features, None if mask is None else Volume(mask, grid))
        there = torch.ones_like(weight) if mask is None else mask
        first, second = folds([Term(layer, layer)])
        shown = [part[0][0].fixed.weight.data for part in (first, second)]
        held = [part[1][0].fixed.weight.data for part in (first, second)]
        assert torch.equal(shown[0] + shown[1], there)
        for seen, other, out in zip(shown, reversed(shown), held, strict=True):
            assert not (seen * out).any()
            assert ((out > 0) <= (other > 0)).all()
    assert torch.equal(held[0][0, 1:7, 9:15], weight[0, 1:7, 9:15])
    assert not held[0][0, :, 8].any()
    assert not held[0][0, :8, :8].any()


def scene(seed, noisy, wide):
    """A texture, the same moved by a field that varies over ``wide`` voxels with noise on both, and the field."""
    grid = Grid.of_shape((96, 96))
    vox = smooth(noise(2, 96, 96, seed=seed).float(), radius=wide, passes=3)
    truth = Field(2.5 * vox / vox.std(), grid)
    texture = Volume(smooth(noise(1, 96, 96, seed=seed + 1).float(), radius=2, passes=2), grid)
    texture = Volume(texture.data / texture.data.std(), grid)
    fixed = warp(texture, truth, outside=0.0)
    add = [noisy * noise(1, 96, 96, seed=seed + n).float() for n in (2, 3)]
    return Volume(fixed.data + add[0], grid), Volume(texture.data + add[1], grid), truth


def test_it_pays_where_the_truth_is_known():
    """Over noise and roughness of the truth the error falls, and no scene gets worse than with one weight for all.

    What is noisy and smooth is held more than what is clear and rough.
    """
    ratios, weights = [], []
    for number, (noisy, wide) in enumerate([(0.0, 5), (0.1, 12), (0.35, 12)]):
        fixed, moving, truth = scene(10 * number, noisy, wide)
        config = override(RegistrationConfig(), "align.transform=none")
        errors = []
        for each in (config, override(config, f"refine.diffusion={DIFFUSION}")):
            result = register(fixed, moving, config=each)
            apart = (result.field.vox - truth.vox)[:, 12:-12, 12:-12]
            errors.append(float(apart.square().sum(0).sqrt().mean()))
            weights.append(result.record.convergence[0].diffusion)
        ratios.append(errors[0] / errors[1])
    assert max(ratios) < 1.03
    assert np.prod(ratios) < 0.85
    assert weights[0] < weights[4]
    assert set(weights[1::2]) == {DIFFUSION}
