"""Promises of the last descent, on the intensities at full resolution, for images of one contrast."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from conftest import grid_at, noise, rotation
from semreg import Volume, register
from semreg.config import AlignConfig, CoarseConfig, FineConfig, ModelConfig, RefineConfig, RegistrationConfig
from semreg.core.fields import Field, Layer, warp
from semreg.core.sampling import smooth
from semreg.errors import ConfigError
from semreg.phantom import make_brains, make_pair
from semreg.registration.dense.contrast import relation_of
from semreg.registration.dense.fine import in_place_of_models
from semreg.registration.dense.prior import Prior
from semreg.registration.dense.smoothness import Smoothness
from semreg.registration.dense.terms import Term, terms_of
from semreg.registration.guidance import Guidance
from semreg.registration.pipeline import plan
from semreg.registration.plan.defaults import with_intensities
from semreg.runtime.settings import override
from semreg.transforms.bspline import SplineLattice

PLAIN = RegistrationConfig(align=AlignConfig(transform="none"))


@dataclass(frozen=True)
class Scene:
    """Two noisy images of one texture, and the displacement between them."""

    fixed: Volume
    moving: Volume
    truth: Field


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Both as bright as each other, in 2-D."""
    grid = grid_at((3.0, -4.0), (84, 76), (1.0, 1.0), rotation(2))
    waves = [torch.linspace(0, 2 * torch.pi, n) for n in grid.shape]
    rows, columns = torch.meshgrid(*waves, indexing="ij")
    truth = Field(3 * torch.stack([rows.sin() * columns.cos(), (rows + columns).sin()]), grid)
    texture = smooth(noise(1, *grid.shape, seed=1), radius=1, passes=2).float()
    moving = Volume(100 * texture / texture.std(), grid)
    fixed = warp(moving, truth, outside=0.0)
    grains = [10 * noise(1, *grid.shape, seed=seed).float() for seed in (2, 3)]
    return Scene(Volume(fixed.data + grains[0], grid), Volume(moving.data + grains[1], grid), truth)


def registered(scene, **changes):
    """A registration and its mean error in the inner part."""
    result = register(scene.fixed, scene.moving, config=replace(PLAIN, **changes), device="cpu")
    error = (result.field.mm() - scene.truth.mm()).norm(dim=0)
    return result, float(error[8:-8, 8:-8].mean())


def test_it_lowers_the_error_where_both_darken_alike(scene):
    """The landmark error is lower than without it, and the record says why it was done and how it ended."""
    with_it, error = registered(scene)
    without, before = registered(scene, fine=FineConfig(enabled=False))
    assert error < 0.95 * before
    found = with_it.record.intensity_relation
    assert found.correlation > 0.3
    assert 0 <= found.reversed < 0.02
    assert len(with_it.record.convergence) == len(without.record.convergence) + 1
    last = with_it.record.convergence[-1]
    assert last.spacing_mm < 1.01 * min(scene.fixed.grid.spacing)
    assert last.distance_after < last.distance_before
    assert without.record.intensity_relation is None
    assert "fine" in with_it.record.timings
    assert "fine" not in without.record.timings
    assert with_it.record.jacobian.folded_share == 0


@pytest.mark.parametrize(
    "pair",
    [make_pair(size=96, dimension=2, seed=7), make_brains(size=40, seed=2, contrasts=("t1", "t2"))],
    ids=["CT and MR", "T1 and T2"],
)
def test_between_contrasts_nothing_changes(pair):
    """Where intensities go different ways the result is that without it, bit for bit, unless it is asked for."""
    found, without, asked = (
        register(pair.fixed, pair.moving, config=replace(PLAIN, fine=FineConfig(enabled=fine)), device="cpu")
        for fine in (None, False, True)
    )
    assert not found.record.intensity_relation.one_contrast
    assert torch.equal(found.field.vox, without.field.vox)
    assert not torch.equal(asked.field.vox, without.field.vox)


def correlated(moving: torch.Tensor, fixed: torch.Tensor):
    """How the intensities of two images (y, x) on one grid go together."""
    grid = grid_at((0.0, 0.0), tuple(fixed.shape[::-1]), (1.0, 1.0), rotation(2))
    near, far = (Layer(Volume(data[None].float(), grid)) for data in (fixed, moving))
    return relation_of(Term(near, far, "lncc_squared"), Field.zeros(grid))


def test_one_contrast_is_one_sign():
    """Brighter or darker by any factor it is one contrast; reversed, in part reversed or unrelated it is not."""
    fixed = smooth_noise(48, 40, seed=1)
    same = correlated(3 * fixed + 5, fixed)
    assert same.correlation == pytest.approx(1, abs=1e-3)
    assert same.reversed == 0
    assert correlated(fixed + 0.3 * smooth_noise(48, 40, seed=2), fixed).one_contrast
    assert correlated(-fixed, fixed).reversed == pytest.approx(1)
    assert correlated(smooth_noise(48, 40, seed=3), fixed).reversed == pytest.approx(0.5, abs=0.15)
    assert correlated(torch.zeros_like(fixed), fixed).correlation == pytest.approx(0, abs=0.05)
    half = torch.cat([fixed[:24], -fixed[24:]])
    assert not correlated(half, fixed).one_contrast


def smooth_noise(*shape: int, seed: int) -> torch.Tensor:
    """Noise whose neighbours go together."""
    return smooth(noise(1, *shape, seed=seed), radius=1)[0]


def test_the_change_alone_is_held_to_be_smooth():
    """Diffusion and pull with a mean displacement are those of what is added; compression is that of the whole."""
    grid = grid_at((5.0, -9.0), (30, 26), (1.7, 2.0), rotation(2))
    lattice = SplineLattice(grid, (4.0, 5.0))
    mean, change = (2 * noise(2, *lattice.shape, dtype=torch.float32, seed=seed) for seed in (1, 2))
    field = lattice.field(mean, grid)
    for stiffness in (None, Volume(9 * noise(1, *grid.shape, seed=3).abs().float(), grid)):
        config = RefineConfig(diffusion=0.7, folding=0.0)
        around = Smoothness(lattice, config, torch.device("cpu"), Prior(stiffness, mean=field))
        free = Smoothness(lattice, config, torch.device("cpu"), Prior(stiffness))
        fitted = lattice.fit(field)
        told, pull = around.pull(fitted + change, 2.0)
        expected, slope = free.pull(change, 2.0)
        assert told == pytest.approx(expected, rel=1e-3)
        assert around.value(fitted + change) == pytest.approx(expected, rel=1e-3)
        torch.testing.assert_close(pull, slope, rtol=1e-3, atol=1e-4 * float(slope.abs().max()))
    whole = RefineConfig(diffusion=0.0)
    pressed = [
        Smoothness(lattice, whole, torch.device("cpu"), prior).pull(fitted + change, 2.0)
        for prior in (Prior(mean=field), Prior())
    ]
    assert pressed[0][0] == pytest.approx(pressed[1][0])
    assert pressed[0][0] > 0


def test_guidance_pulls_to_the_end(scene):
    """Landmarks that the images contradict by 1 mm pull in the last descent too, and labels go through it."""
    places = scene.fixed.grid.index_to_point() @ np.array([[20, 40, 60], [30, 50, 20], [1, 1, 1]])
    chosen = places[:2]
    led = scene.truth.point_map()(torch.as_tensor(chosen)).numpy() + np.array([[1.0], [0.0]])
    free, _ = registered(scene)
    missed = np.linalg.norm(free.field.point_map()(torch.as_tensor(chosen)).numpy() - led, axis=0).mean()
    guided = Guidance(landmarks=(chosen.T, led.T), landmark_sd_mm=0.3)
    result = register(scene.fixed, scene.moving, config=PLAIN, guidance=guided, device="cpu")
    assert "fine" in result.record.timings
    assert result.record.guidance.landmarks.after.mean_mm < 0.75 * missed
    labels = [Volume((volume.data > 0).float(), volume.grid) for volume in (scene.fixed, scene.moving)]
    result = register(scene.fixed, scene.moving, config=PLAIN, guidance=Guidance(labels=tuple(labels)), device="cpu")
    assert result.record.intensity_relation.one_contrast


def test_labels_count_as_much_as_before(scene):
    """The intensities stand for all models together: what guides keeps its share of the objective."""
    layers = Layer(scene.fixed), Layer(scene.moving)
    terms = terms_of([Term(*layers), Term(*layers, share=0.15), Term(*layers, share=0.6, given=True)])
    found = in_place_of_models(Term(*layers, "lncc_squared"), terms)
    assert [term.distance for term in found] == ["lncc_squared", "l2"]
    assert [term.share for term in found] == pytest.approx([1.15 / 1.75, 0.6 / 1.75])
    assert [term.share for term in in_place_of_models(Term(*layers), terms[:2])] == [1.0]


def test_it_keeps_to_the_axes(scene):
    """What may not move along an axis does not in the end either."""
    result, _ = registered(scene, refine=RefineConfig(axes=("x",)), fine=FineConfig(enabled=True))
    assert bool((result.field.vox[0] == 0).all())
    assert bool((result.field.vox[1] != 0).any())


@pytest.mark.parametrize(
    ("changes", "model"),
    [
        ((), "net.pt"),
        (("refine.distance=l1",), None),
        (("models.model=intensity",), None),
        (("refine.enabled=false",), None),
    ],
    ids=["a network", "a distance", "intensities", "no refinement"],
)
def test_with_what_somebody_chose_nothing_is_mixed(changes, model):
    """It is left open beside MIND as it is by default, else it is off, unless somebody asks for it."""
    assert with_intensities(PLAIN, None).fine.enabled is None
    config = PLAIN
    for change in changes:
        config = override(config, change)
    assert with_intensities(config, model).fine.enabled is False
    asked = replace(config, fine=FineConfig(enabled=True))
    assert with_intensities(asked, model).fine.enabled is True


def test_it_follows_any_model(scene):
    """Asked for, it follows a search without refinement, and a model that somebody chose."""
    short = CoarseConfig(smoothing=1)
    alone, _ = registered(scene, coarse=short, refine=RefineConfig(enabled=False))
    found, _ = registered(scene, coarse=short, refine=RefineConfig(enabled=False), fine=FineConfig(enabled=True))
    assert len(found.record.convergence) == 1
    assert not torch.equal(found.field.vox, alone.field.vox)
    chosen, _ = registered(scene, models=(ModelConfig(model="intensity"),), fine=FineConfig(enabled=True))
    assert chosen.record.intensity_relation is not None


def test_the_plan_says_it(scene):
    """What is decided on the way is said before, with its condition; what was set without."""

    def sentences(**fine):
        found = plan(scene.fixed, scene.moving, config=replace(PLAIN, fine=FineConfig(**fine)))
        return [reason.sentence for reason in found.reasons if reason.about == "fine"]

    (usual,) = sentences()
    assert usual.startswith("Last, where both images turn out to brighten and darken alike, their intensities")
    (asked,) = sentences(enabled=True)
    assert asked.endswith("as set.")
    assert sentences(enabled=False) == []


def test_steps_are_told(scene):
    """Each step is told as one of this stage."""
    told = []
    register(scene.fixed, scene.moving, config=PLAIN, device="cpu", on_step=told.append)
    steps = [step for step in told if step.stage == "fine"]
    assert [step.iteration for step in steps] == list(range(1, len(steps) + 1))
    assert len(steps) > 3


@pytest.mark.parametrize("wrong", [{"control_mm": 0.0}, {"diffusion": -1.0}, {"iterations": 0}])
def test_wrong_settings(wrong):
    """One sentence for each."""
    with pytest.raises(ConfigError, match="fine"):
        FineConfig(**wrong)
