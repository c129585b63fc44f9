"""Promises of ensembles: the mean of several registrations, and how far they are apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import grid_at, rotation
from semreg import RegistrationConfig, plan, register
from semreg.config import AlignConfig, EnsembleConfig, RefineConfig
from semreg.core.fields import Field
from semreg.errors import ConfigError
from semreg.phantom import make_pair
from semreg.preprocess.preparation import plan_frame, shifted
from semreg.registration.stages import ensemble
from semreg.registration.stages.ensemble import offset
from semreg.registration.uncertainty import MEMBERS

FAST = RegistrationConfig(
    align=AlignConfig(transform="none"), refine=RefineConfig(levels=1, iterations=4, symmetric=False)
)
THREE = replace(FAST, ensemble=EnsembleConfig(members=2, models=("intensity",)))


@pytest.fixture(scope="module")
def phantom():
    """A pair with a known deformation."""
    return make_pair(size=36, seed=3)


@pytest.fixture(scope="module")
def seen(phantom):
    """The result of three members, and what each but the first found."""
    members: list[tuple[Field, list[str]]] = []
    member = ensemble.member

    def listening(state, number, pairings):
        members.append((member(state, number, pairings), [pairing.name for pairing in pairings]))
        return members[-1][0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble, "member", listening)
        steps = []
        result = register(phantom.fixed, phantom.moving, config=THREE, on_step=steps.append)
    return result, members, steps


def test_the_result_is_the_mean(phantom, seen):
    """On the lattice of the first: the field is nearer to the mean of all members than to any of them."""
    result, members, steps = seen
    grid = members[0][0].grid
    first = register(phantom.fixed, phantom.moving, config=FAST).field.on(grid).vox
    fields = [first, *(field.vox for field, _ in members)]
    mean = torch.stack(fields).mean(0)
    inner = (slice(None), *[slice(3, -3)] * 3)
    apart = [float((result.field.on(grid).vox - each)[inner].square().mean().sqrt()) for each in (mean, *fields)]
    assert apart[0] < 0.35 * min(apart[1:])
    assert [names for _, names in members] == [["mind-ssc(radius=1, dilation=2)", "intensity"], ["intensity"]]
    assert [step.done for step in steps if step.stage == "ensemble"] == [0.5, 1.0]
    assert result.record.jacobian.folded_share == 0


def test_the_spread_is_the_standard_deviation(phantom, seen):
    """The part of the uncertainty is that of the members in mm; without an ensemble there is none."""
    result, members, _ = seen
    grid = members[0][0].grid
    first = register(phantom.fixed, phantom.moving, config=FAST)
    fields = torch.stack([first.field.on(grid).vox, *(field.vox for field, _ in members)])
    spacing = torch.tensor(grid.spacing)[:, None, None, None]
    spread = float((fields.std(0, correction=0) * spacing).square().sum(0).mean().sqrt())
    assert result.record.uncertainty.parts["ensemble"] == pytest.approx(MEMBERS**0.5 * spread, rel=0.25)
    assert first.record.uncertainty.parts["ensemble"] is None
    assert "ensemble" not in first.record.timings
    assert result.record.timings["ensemble"].seconds > 0


def test_shifted_lattices():
    """Each begins earlier by whole voxels, less than a period, covers what the first covers, and no two are alike."""
    fixed = grid_at((3.0, -7.0, 11.0), (19, 17, 14), (2.0, 2.0, 2.0), rotation(3))
    frame = plan_frame(fixed, fixed, None, 10.0, initial=False)
    seen = set()
    for number in range(1, 9):
        voxels = offset(number, 3, 6)
        moved = shifted(frame, voxels)
        for grid, first in ((moved.fixed, frame.fixed), (moved.moving, frame.moving)):
            index = first.point_to_index() @ grid.index_to_point()[:, 3]
            np.testing.assert_allclose(index[:3], [-v for v in voxels], atol=1e-9)
            assert grid.shape == tuple(n + v for n, v in zip(first.shape, voxels, strict=True))
        assert moved.kept == frame.kept
        assert all(0 <= v < 6 for v in voxels)
        seen.add(voxels)
    assert len(seen) == 8


def test_the_plan_says_what_it_costs(phantom):
    """How many registrations, and their memory."""
    one, three = (plan(phantom.fixed, phantom.moving, config=config) for config in (FAST, THREE))
    assert three.memory_bytes > one.memory_bytes
    (sentence,) = [each for each in three.sentences if "are averaged, as set" in each]
    assert sentence.startswith("3 registrations on shifted lattices, 1 of them by intensity alone")


def test_what_an_ensemble_cannot_be():
    """A number of members that is absurd is an error with its name."""
    for members in (0, 101):
        with pytest.raises(ConfigError, match=r"ensemble\.members between 1 and 100"):
            EnsembleConfig(members=members)
