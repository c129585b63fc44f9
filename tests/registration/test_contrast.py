"""Promises of the choice of the control points by the contrasts of both images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from semreg import Volume, register
from semreg.config import AlignConfig, EnsembleConfig, FeatureConfig, RefineConfig, RegistrationConfig
from semreg.phantom import PhantomPair, make_pair
from semreg.registration.pipeline import plan

LARGE = RegistrationConfig(align=AlignConfig(transform="none"), features=FeatureConfig(pooling=2))
"""Settings under which a small image is treated as a large one."""


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    """A CT-like and an MR-like image of one body."""
    return make_pair(size=64, frames="isotropic", displacement_mm=8.0)


@pytest.fixture(scope="module")
def reversed_pair() -> tuple[Volume, Volume]:
    """A smaller image, and the same moved, dark where the other is bright."""
    image = make_pair(size=36).fixed
    return image, Volume(-with_grains(image, 2).data.roll(1, -1), image.grid)


def with_grains(volume: Volume, seed: int) -> Volume:
    """The image with other noise, about a hundredth of its range."""
    spread = float(volume.data.max() - volume.data.min())
    grains = torch.randn(volume.data.shape, generator=torch.Generator().manual_seed(seed))
    return Volume(volume.data + 0.01 * spread * grains, volume.grid)


def spacing(record) -> float:
    """Of the control points, in working voxels."""
    return record.settings.refine.control_mm / record.settings.features.spacing_mm


def test_two_contrasts_have_control_points_further_apart(pair):
    """Between CT and MR they are eight working voxels apart, between two images of one contrast four."""
    two = register(pair.fixed, pair.moving, config=LARGE, device="cpu")
    one = register(pair.fixed, with_grains(pair.fixed, 1), config=LARGE, device="cpu")
    assert spacing(two.record) == pytest.approx(8)
    assert spacing(one.record) == pytest.approx(4)
    assert "contrast" in two.record.timings


def test_the_settings_of_the_record_repeat_the_run(reversed_pair):
    """What was chosen is in the settings that are written, which give the same field without looking again."""
    first = register(*reversed_pair, config=LARGE, device="cpu")
    again = register(*reversed_pair, config=first.record.settings, device="cpu")
    assert torch.equal(again.field.vox, first.field.vox)
    assert again.record.settings == first.record.settings
    assert "contrast" not in again.record.timings


def test_the_plan_says_what_is_open(pair):
    """Before the search both distances are told; one that was set, or a small image, leaves nothing open."""
    told = plan(pair.fixed, pair.moving, config=LARGE, device="cpu")
    assert told.config.refine.control_mm is None
    assert "where both turn out to differ in contrast after the search" in " ".join(told.sentences)
    for config in (replace(LARGE, refine=RefineConfig(control_mm=11.0)), replace(LARGE, features=FeatureConfig())):
        settled = plan(pair.fixed, pair.moving, config=config, device="cpu")
        assert settled.config.refine.control_mm is not None
        assert "differ in contrast" not in " ".join(settled.sentences)


def test_without_a_refinement_and_with_an_ensemble(reversed_pair):
    """The spline that stands for a refinement, and the members of an ensemble, take what was chosen."""
    fitted = register(*reversed_pair, config=replace(LARGE, refine=RefineConfig(enabled=False)), device="cpu")
    assert spacing(fitted.record) == pytest.approx(8)
    several = register(*reversed_pair, config=replace(LARGE, ensemble=EnsembleConfig(members=2)), device="cpu")
    assert spacing(several.record) == pytest.approx(8)
    assert several.record.timings["ensemble"].seconds > 0
