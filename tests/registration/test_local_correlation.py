"""Promises of the intensities that the refinement compares beside MIND."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from semreg.config import AlignConfig, ModelConfig, RefineConfig, RegistrationConfig
from semreg.errors import ConfigError
from semreg.phantom import make_pair
from semreg.registration.pipeline import plan, register
from semreg.registration.plan.defaults import LOCAL_CORRELATION, with_intensities
from semreg.runtime.settings import override

PLAIN = RegistrationConfig(align=AlignConfig(transform="none"))


@pytest.fixture(scope="module")
def pair():
    """A CT-like and an MR-like image in 2-D."""
    return make_pair(size=96, dimension=2, seed=7)


def error_mm(pair, **refine):
    """The mean landmark error of the defaults with other settings of the refinement."""
    config = replace(PLAIN, refine=RefineConfig(**refine))
    result = register(pair.fixed, pair.moving, config=config, device="cpu")
    found = result.field.point_map()(pair.fixed_points.T.double())
    return float((found - pair.moving_points.T).square().sum(0).sqrt().mean()), result


def test_it_lowers_the_error_between_contrasts(pair):
    """The landmark error of a pair of two contrasts is lower than that of MIND alone."""
    with_it, result = error_mm(pair)
    without, alone = error_mm(pair, local_correlation=0.0)
    assert with_it < 0.97 * without
    assert [model.name for model in result.record.models] == ["mind-ssc(radius=1, dilation=2)", "intensity"]
    assert [model.name for model in alone.record.models] == ["mind-ssc(radius=1, dilation=2)"]
    assert result.record.settings.refine.local_correlation == LOCAL_CORRELATION


def test_the_search_does_not_go_by_it(pair):
    """Without a refinement it changes nothing, bit for bit."""
    found = [error_mm(pair, enabled=False, local_correlation=weight)[1].field.vox for weight in (0.0, 5.0)]
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("changes", "model"),
    [
        ((), "net.pt"),
        (("refine.distance=l1",), None),
        (("refine.balance=raw",), None),
        (("refine.optimizer=adam", "refine.sampling=0.5"), None),
        (("models.model=intensity",), None),
        (("refine.local_correlation=0",), None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_it_is_mixed_with_nothing_that_was_chosen(changes, model):
    """Beside other features, another distance or drawn voxels it has no weight where none is set; a set one stands."""
    config = PLAIN
    assert with_intensities(config, None).refine.local_correlation == LOCAL_CORRELATION
    for change in changes:
        config = override(config, change)
    assert with_intensities(config, model).refine.local_correlation == 0.0
    chosen = replace(PLAIN, models=(ModelConfig(model="intensity"),), refine=RefineConfig(local_correlation=0.4))
    assert with_intensities(chosen, model).refine.local_correlation == 0.4


def test_the_plan_says_so(pair):
    """The plan has the sentence with the weight, and none without; its settings give the same weight again."""
    images = pair.fixed, pair.moving
    made = plan(*images, config=PLAIN)
    assert any("local correlation, squared, with the weight 0.15" in sentence for sentence in made.sentences)
    assert made.config.refine.local_correlation == LOCAL_CORRELATION
    without = plan(*images, config=replace(PLAIN, refine=RefineConfig(local_correlation=0.0)))
    assert not any("local correlation, squared" in sentence for sentence in without.sentences)


def test_it_needs_all_voxels():
    """Neighbours must be there: a weight beside drawn voxels, a negative one or one that is no number is refused."""
    for wrong in (
        {"optimizer": "adam", "sampling": 0.5, "local_correlation": 0.1},
        {"mode": "jacobian", "local_correlation": 1.0},
    ):
        with pytest.raises(ConfigError, match="local_correlation=0 in the mode jacobian, and where voxels are drawn"):
            RefineConfig(**wrong)
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="local_correlation >= 0 and finite"):
            RefineConfig(local_correlation=wrong)
