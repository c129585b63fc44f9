"""Promises of the plan: what grids decide stays as it is measured, and slides are read as slides."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from conftest import grid_at, rotation
from semreg.config import CoarseConfig, FeatureConfig, RegistrationConfig
from semreg.registration.plan.defaults import control_spacing, is_small, resolve
from semreg.registration.plan.memory import Load, output_bytes, peak_bytes

MIND = Load(12.0)


def grid(size, spacing, degrees=17.0):
    """An oblique grid of that size and spacing, off the origin."""
    return grid_at((13.0, -7.0, 41.0)[: len(size)], size, spacing, rotation(len(size), degrees))


@pytest.mark.parametrize(
    ("size", "spacing", "expected"),
    [
        ((160, 224, 192), (1.0, 1.0, 1.0), (1.0, 2, True, 4.0, 32.0, (4.0, 8.0))),
        ((166, 195, 25), (1.367, 1.367, 4.0), (1.367, 2, True, 5.468, 32.81, (5.468, 10.936))),
        ((35, 51, 36), (1.0, 1.0, 1.0), (1.0, 1, True, 4.0, 24.0, (4.0, 4.0))),
        ((60, 55, 52), (1.0, 1.0, 1.0), (1.0, 1, True, 4.0, 32.0, (4.0, 4.0))),
        ((117, 91, 20), (3.0, 3.0, 3.0), (3.0, 1, True, 12.0, 48.0, (12.0, 12.0))),
        ((400, 390, 300), (0.7, 0.7, 1.0), (1.1102, 2, True, 4.441, 35.53, (4.441, 8.882))),
        ((220, 200), (0.9, 1.1), (0.9, 1, True, 3.6, 36.0, (3.6, 3.6))),
    ],
    ids=["brain", "liver", "hippocampus", "spine", "abdomen", "large", "slice"],
)
def test_what_grids_decide_stays_as_it_was_measured(size, spacing, expected):
    """The figures of the benchmarks hold for these: spacing, pooling, both ways, nodes, reach, control points."""
    found = resolve(RegistrationConfig(), grid(size, spacing))
    numbers = (
        found.features.spacing_mm, found.features.pooling, found.refine.symmetric,
        found.coarse.spacing_mm, found.coarse.reach_mm,
    )  # fmt: skip
    *others, apart = expected
    assert numbers == pytest.approx(others, rel=1e-3)
    wide = tuple(control_spacing(found, one_contrast=one) for one in (True, False))
    assert wide == pytest.approx(apart, rel=1e-3)
    assert found.refine.control_mm == (wide[0] if wide[0] == wide[1] else None)  # open where the images decide


@pytest.mark.parametrize("size", [(35, 51, 36), (166, 195, 25), (3000, 2600), (220, 200)])
def test_what_was_decided_decides_the_same_again(size):
    """Settings that leave nothing open are left as they are: config.toml given back changes nothing."""
    fixed = grid(size, (1.367, 1.367, 4.0)[: len(size)])
    once = resolve(RegistrationConfig(), fixed)
    assert resolve(once, fixed) == once
    coarser = replace(RegistrationConfig(), features=FeatureConfig(coarseness=1.4))
    once = resolve(coarser, fixed)
    assert resolve(once, fixed) == once


def test_slides_are_read_at_about_a_thousand_pixels_an_axis():
    """A slide of 12 million pixels is worked on at a million and searched over a twelfth, whatever the unit."""
    found = [resolve(RegistrationConfig(), grid((4000, 3000), (unit, unit))) for unit in (1.0, 0.002)]
    for config, unit in zip(found, (1.0, 0.002), strict=True):
        assert config.features.spacing_mm == pytest.approx(unit * math.sqrt(12.0 * 1e6 / (1 << 20)), rel=1e-3)
        assert 250 * unit <= config.coarse.reach_mm <= 600 * unit
    set_by_hand = replace(RegistrationConfig(), features=FeatureConfig(spacing_mm=1.0))
    assert resolve(set_by_hand, grid((4000, 3000), (1.0, 1.0))).features.spacing_mm == 1.0
    set_by_hand = replace(RegistrationConfig(), coarse=CoarseConfig(reach_mm=31.0))
    assert resolve(set_by_hand, grid((4000, 3000), (1.0, 1.0))).coarse.reach_mm < 100


def test_coarseness_changes_the_spacing_of_large_images_only():
    """Coarser or finer voxels for a large image; a small one is read as before."""
    large, small = grid((160, 224, 192), (1.0, 1.0, 1.0)), grid((35, 51, 36), (1.0, 1.0, 1.0))
    spacings = [
        [
            resolve(replace(RegistrationConfig(), features=FeatureConfig(coarseness=c)), g).features.spacing_mm
            for c in (1.4, 0.8)
        ]
        for g in (large, small)
    ]
    assert spacings == [[pytest.approx(1.4), pytest.approx(0.8)], [1.0, 1.0]]
    assert is_small(small, 1.0)
    assert not is_small(large, 1.4)


def test_estimate_of_the_memory_follows_the_settings():
    """Coarser voxels, fewer features and one direction each take less; the field on the fixed grid is what remains."""
    fixed = grid((160, 224, 192), (1.0, 1.0, 1.0))

    def needed(**features):
        config = resolve(replace(RegistrationConfig(), features=FeatureConfig(**features)), fixed)
        return peak_bytes(fixed, fixed, config, MIND)

    amounts = [needed(pooling=1), needed(pooling=2), needed(pooling=2, spacing_mm=2.0)]
    assert amounts == sorted(amounts, reverse=True)
    assert amounts[0] > 2 * amounts[1]
    assert needed(spacing_mm=8.0) > output_bytes(fixed) > 0.6 * needed(spacing_mm=8.0) - 330e6
