"""Promises of the loss: it is the registration's own comparison of features, differentiable, for batches of images."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import noise
from semreg.config import ModelConfig, RegistrationConfig
from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.core.sampling import smooth
from semreg.distances import DISTANCES
from semreg.errors import ConfigError, ImageError, ModelContractError, ModelNotFoundError
from semreg.features.contract import ModelSpec
from semreg.features.networks import as_network
from semreg.nn import ImpactLoss, IMPACTReg, Patches
from semreg.preprocess.preparation import plan_frame
from semreg.registration.dense.data_term import distance_at
from semreg.registration.dense.terms import ALIKE
from semreg.registration.matching import Given, Images, resolve_models
from small_networks import Small, save

CPU = torch.device("cpu")


def batch(*sizes: int, seed: int = 0, count: int = 1) -> Tensor:
    """Smooth textures, (N, 1, *sizes)."""
    return torch.stack([smooth(noise(1, *sizes, seed=seed + 7 * n), radius=1) for n in range(count)]).float()


def number(value: Tensor) -> float:
    """A scalar, whatever its graph."""
    return value.detach().item()


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("sizes", [(8, 9), (6, 7, 5)], ids=["2-D", "3-D"])
def test_gradient_of_each_distance(name, sizes):
    """In double precision the gradient in the moving images is that of finite differences, with a mask too."""
    moving, fixed = (batch(*sizes, seed=seed).double() for seed in (1, 2))
    moving.requires_grad_()
    mask = (noise(1, 1, *sizes, seed=3) > -1.2).double()
    config = ModelConfig(distance=(name,), statistics="fixed")
    loss = ImpactLoss("mind", config, dimension=len(sizes))
    assert loss(moving, fixed, mask).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda x: loss(x, fixed, mask), (moving,), fast_mode=len(sizes) == 3)


@pytest.mark.parametrize(
    "config", [ModelConfig(pca=2), ModelConfig(normalise="unit"), ModelConfig(normalise="standard")]
)
def test_gradient_through_reductions(config):
    """What is fitted on the fixed image is a constant; the gradient goes through what it does to the moving one."""
    moving, fixed = (batch(8, 9, seed=seed).double() for seed in (1, 2))
    loss = ImpactLoss("mind", replace(config, statistics="fixed"), dimension=2)
    assert torch.autograd.gradcheck(lambda x: loss(x, fixed), (moving.requires_grad_(),))


def test_whose_statistics():
    """An image is normalised by its own statistics, a constant for the gradient, or by those of the fixed one."""
    fixed = batch(8, 9, seed=1).double()
    moving = (2 * fixed + 3).requires_grad_()
    own, shared = (ImpactLoss("intensity", ModelConfig(statistics=whose), dimension=2) for whose in ("own", "fixed"))
    assert number(own(moving, fixed)) == pytest.approx(0, abs=1e-12)
    assert number(shared(moving, fixed)) == pytest.approx(number((fixed + 3).square().mean() / fixed.var(correction=0)))
    assert torch.autograd.gradcheck(lambda x: shared(x, fixed), (moving,))


def test_gradient_in_the_fixed_images():
    """Both batches get a gradient: that in the fixed one is what it would be as the moving one."""
    first, second = (batch(8, 9, seed=seed).requires_grad_() for seed in (1, 2))
    for model, spec in (("mind", ()), (Small(2), ("dimension=2",))):
        loss = ImpactLoss(model, ModelConfig(distance=("cosine",), spec=spec), dimension=2)
        slopes = torch.autograd.grad(loss(first, second), (first, second))
        turned = torch.autograd.grad(loss(second, first), (first, second))
        torch.testing.assert_close(slopes, turned)


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("model", ["mind", "network"])
def test_the_value_is_that_of_a_registration(name, model):
    """For each distance the loss is what the objective of a registration has for the same images, model and weights."""
    fixed, moving = batch(9, 11, 10, seed=1), batch(9, 11, 10, seed=2)
    network = Small()
    entry = ModelConfig(distance=(name,), weight=(1.0,) if model == "mind" else (1.0, 0.5, 0.25))
    config = RegistrationConfig(models=(entry,))
    grid = Grid.of_shape((9, 11, 10))
    near, far = (Volume(images[0], grid) for images in (fixed, moving))
    frame = plan_frame(grid, grid, 1.0, 0.0, initial=False)
    assert frame.fixed.shape == grid.shape
    images = Images((near, None), (far, None), replace(frame, moving=frame.fixed), None, config, CPU)
    given = Given(() if model == "mind" else (network,))
    terms = images.terms(resolve_models(config, 3, CPU, given))
    wanted = 0.0
    for term, weight in zip(terms, entry.weight, strict=True):
        channels = len(term.fixed.features.data) if term.measure.summed else 1
        alone = replace(term, share=1.0, scale=ALIKE)
        wanted += weight * distance_at([alone], Field.zeros(term.fixed.grid)) / channels
    found = ImpactLoss("mind" if model == "mind" else network, entry)(moving, fixed)
    assert number(found) == pytest.approx(wanted, rel=2e-5, abs=1e-6)


def test_a_network_by_hand():
    """Mean absolute differences of all three layers, weighted and summed, and their gradient, as torch has them."""
    network = Small()
    moving, fixed = batch(16, 18, 20, seed=1, count=2).requires_grad_(), batch(16, 18, 20, seed=5, count=2)
    loss = ImpactLoss(network, ModelConfig(distance=("l1",), weight=(0.5, 2.0, 1.0)))(moving, fixed)
    outputs = zip(network(moving), network(fixed), (0.5, 2.0, 1.0), strict=True)
    wanted = sum(weight * F.l1_loss(a, b) for a, b, weight in outputs)
    torch.testing.assert_close(loss, wanted)
    (found,), (slope,) = torch.autograd.grad(loss, moving), torch.autograd.grad(wanted, moving)
    torch.testing.assert_close(found, slope)


def test_several_models_add_up():
    """Models, given by name, by file and by configuration, add up; each with the settings that are its own."""
    moving, fixed = batch(8, 9, 7, seed=1), batch(8, 9, 7, seed=2)
    configs = [ModelConfig(model="mind", weight=(3.0,)), ModelConfig(model="intensity", distance=("ncc",))]
    both = ImpactLoss(configs)(moving, fixed)
    apart = [ImpactLoss(config)(moving, fixed) for config in configs]
    named = ImpactLoss(["mind", "intensity"], [replace(config, model="x") for config in configs])(moving, fixed)
    assert number(both) == pytest.approx(number(sum(apart)))
    assert number(named) == number(both)
    assert number(ImpactLoss("mind")(moving, fixed)) == pytest.approx(number(apart[0]) / 3)


def test_a_file_and_its_layers(tmp_path):
    """A TorchScript file gives what the module gives; layers are chosen by their numbers."""
    network = Small()
    path = save(network, tmp_path / "small.pt")
    moving, fixed = batch(8, 10, 12, seed=1), batch(8, 10, 12, seed=2)
    whole = [number(ImpactLoss(network, ModelConfig(layers=(n,)))(moving, fixed)) for n in range(3)]
    found = ImpactLoss(path, ModelConfig(layers=(2, 1), weight=(1.0, 10.0)))(moving, fixed)
    assert number(found) == pytest.approx(whole[2] + 10 * whole[1], rel=1e-5)


def test_the_batch_is_a_mean():
    """Each image is compared by itself, with statistics of its own, whatever else is in the batch."""
    moving, fixed = batch(9, 8, seed=1, count=3), batch(9, 8, seed=2, count=3)
    moving[1] *= 500
    loss = ImpactLoss("mind", dimension=2)
    alone = [number(loss(moving[n : n + 1], fixed[n : n + 1])) for n in range(3)]
    assert number(loss(moving, fixed)) == pytest.approx(np.mean(alone), rel=1e-5)
    assert number(loss(fixed, fixed)) == 0


def test_a_mask():
    """What is excluded influences nothing, not even as NaN, and gets no gradient; an image of nothing is left out."""
    moving, fixed = batch(12, 13, seed=1, count=2), batch(12, 13, seed=2, count=2)
    mask = torch.ones(2, 1, 12, 13, dtype=torch.bool)
    mask[:, :, :, :5] = False
    for model, spec in (("mind", ()), (Small(2), ("dimension=2",))):
        loss = ImpactLoss(model, ModelConfig(spec=spec), dimension=2)
        values = []
        for beyond in (7.0, 1e4, torch.nan):
            changed = torch.where(mask, moving, beyond).requires_grad_()
            values.append(loss(changed, torch.where(mask, fixed, -beyond), mask))
            (slope,) = torch.autograd.grad(values[-1], changed)
            assert bool((slope[~mask] == 0).all())
            assert bool((slope[mask] != 0).any())
        assert len({value.item() for value in values}) == 1
        one = mask.clone()
        one[1] = False
        assert number(loss(moving, fixed, one)) == pytest.approx(number(loss(moving[:1], fixed[:1], mask[:1])))
        smaller = mask.clone()
        smaller[1, :, 4:] = False
        alone = [number(loss(moving[n : n + 1], fixed[n : n + 1], smaller[n : n + 1])) for n in range(2)]
        assert number(loss(moving, fixed, smaller)) == pytest.approx(np.mean(alone))  # each image counts alike
        moving.requires_grad_()
        nothing = loss(moving, fixed, torch.zeros_like(mask))
        nothing.backward()
        assert number(nothing.detach()) == 0
        assert not bool(moving.grad.any())
        moving = moving.detach()


def test_patches_cover_the_image():
    """Patches side by side cover every voxel; of a pointwise model their mean is the loss of the whole image."""
    boxes = Patches(size=(4, 5)).boxes((9, 10), None)
    seen = np.zeros((9, 10), dtype=int)
    for box in boxes:
        assert seen[box].shape == (4, 5)
        seen[box] += 1
    assert seen.min() == 1
    moving, fixed = batch(8, 12, seed=1), batch(8, 12, seed=2)
    mask = (noise(1, 1, 8, 12, seed=3) > 0).float()
    mask[..., :4, :4] = 0  # one patch without anything
    whole = ImpactLoss("intensity", dimension=2)(moving, fixed, mask)
    parts = ImpactLoss("intensity", dimension=2, patches=Patches(size=(4,)))(moving, fixed, mask)
    assert number(parts) == pytest.approx(number(whole), rel=1e-5)


def test_random_patches():
    """Random patches come from the generator alone: the same seed is the same loss, and torch's own state stays."""
    moving, fixed = batch(16, 15, 14, seed=1, count=2).requires_grad_(), batch(16, 15, 14, seed=2, count=2)
    patches = Patches(size=(6,), count=2)

    def values(seed):
        loss = ImpactLoss("mind", patches=patches, generator=torch.Generator().manual_seed(seed))
        return [loss(moving, fixed).item() for _ in range(3)]

    before = torch.get_rng_state()
    first = values(0)
    assert first == values(0)
    assert len({*first, *values(1)}) == 6
    assert torch.equal(before, torch.get_rng_state())
    starts = [
        box[0].start for box in Patches(size=(6,), count=200).boxes((16, 15, 14), torch.Generator().manual_seed(0))
    ]
    assert set(starts) == set(range(11))
    loss = ImpactLoss("mind", ModelConfig(subset=3), generator=torch.Generator().manual_seed(0))
    assert loss(moving, fixed).item() != loss(moving, fixed).item()  # other channels


def test_the_models_are_frozen():
    """In evaluation mode whatever the loss is in; nothing to train, nothing to save; the gradient reaches the image."""
    network = nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.BatchNorm3d(3), nn.Dropout(0.5))
    weights = copy.deepcopy(network.state_dict())
    loss = ImpactLoss(network).train()
    moving, fixed = batch(8, 8, 8, seed=1).requires_grad_(), batch(8, 8, 8, seed=2)
    value = loss(moving, fixed)
    value.backward()
    assert number(value) == number(loss(moving, fixed))  # no dropout
    assert bool(moving.grad.any())
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(
        torch.equal(before, after)
        for before, after in zip(weights.values(), network.state_dict().values(), strict=True)
    )
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}
    nn.ModuleDict({"loss": loss}).load_state_dict({})


def test_one_pass_over_each_image():
    """Where there is memory a network runs once over each image, and its graph is kept for the way back."""
    calls = []

    def network(x):
        calls.append(x.shape[-1])
        return torch.tanh(x)

    moving, fixed = batch(17, 18, 19, seed=1).requires_grad_(), batch(17, 18, 19, seed=2)
    loss = ImpactLoss(network)
    loss(moving, fixed).backward()  # what is measured of the network
    calls.clear()
    loss(moving, fixed).backward()
    assert calls == [19, 19]


def test_a_network_in_tiles():
    """In patches of another size the loss and its gradient are the same, with one graph at a time."""
    moving, fixed = batch(30, 18, 16, seed=1).requires_grad_(), batch(30, 18, 16, seed=2)
    network = Small()
    whole, parts = (ImpactLoss(network, ModelConfig(spec=spec))(moving, fixed) for spec in ((), ("patch=14",)))
    torch.testing.assert_close(parts, whole)
    (found,), (wanted,) = torch.autograd.grad(parts, moving), torch.autograd.grad(whole, moving)
    torch.testing.assert_close(found, wanted)


def test_mixed_precision():
    """Under autocast the value is the same; half precision is asked of the model; half images count as float32."""
    network = Small()
    moving, fixed = batch(8, 10, 12, seed=1).requires_grad_(), batch(8, 10, 12, seed=2)
    exact = ImpactLoss(network)(moving, fixed)
    fewer = ImpactLoss(network, ModelConfig(pca=2))
    projected = fewer(moving, fixed)
    with torch.autocast("cpu", torch.bfloat16):
        assert number(ImpactLoss(network)(moving, fixed)) == number(exact)
        assert number(fewer(moving, fixed)) == number(projected)
    half = ImpactLoss(network, ModelConfig(spec=("mixed_precision=true",)))
    value = half(moving, fixed)
    assert value.dtype == torch.float32
    assert 0 < abs(number(value) - number(exact)) < 0.02 * number(exact)
    (slope,), (right,) = torch.autograd.grad(value, moving), torch.autograd.grad(exact, moving)
    assert torch.nn.functional.cosine_similarity(slope.flatten(), right.flatten(), dim=0) > 0.99
    rounded = moving.detach().half()
    assert number(ImpactLoss(network)(rounded, fixed)) == number(ImpactLoss(network)(rounded.float(), fixed))


def test_the_voxel_size():
    """Without a voxel size a model sees the voxels as they are; with one it sees the image at the size it wants."""
    network = as_network(Small(), ModelSpec(name="net", spacing_mm=(2.0,), layers=(0,)), CPU).keep((0,))
    moving, fixed = batch(12, 16, 14, seed=1).requires_grad_(), batch(12, 16, 14, seed=2)
    plain = as_network(Small(), ModelSpec(name="net"), CPU).keep((0,))
    assert number(ImpactLoss(network)(moving, fixed)) == number(ImpactLoss(plain)(moving, fixed))
    by_half = [F.avg_pool3d(images, 2) for images in (moving, fixed)]
    loss = ImpactLoss(network, spacing_mm=1.0)(moving, fixed)
    assert number(loss) == pytest.approx(number(ImpactLoss(plain)(*by_half)), rel=1e-5)
    (slope,) = torch.autograd.grad(loss, moving)
    assert bool((slope != 0).all())
    anisotropic = ImpactLoss(network, spacing_mm=(1.0, 2.0, 2.0))(moving, fixed)
    pooled = [F.avg_pool3d(images, (2, 1, 1)) for images in (moving, fixed)]
    assert number(anisotropic) == pytest.approx(number(ImpactLoss(plain)(*pooled)), rel=1e-5)


def test_slices_and_channels():
    """A network of slices compares volumes; one of three channels takes images of three, which are no more three."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh())
    spec = ModelConfig(spec=("dimension=2", "channels=3"), distance=("l1",))
    moving, fixed = batch(5, 19, 18, seed=1), batch(5, 19, 18, seed=2)
    as_slices = [images.movedim(2, 1).flatten(0, 1).expand(-1, 3, -1, -1) for images in (moving, fixed)]
    wanted = F.l1_loss(*[module(images) for images in as_slices])
    torch.testing.assert_close(ImpactLoss(module, spec)(moving, fixed), wanted)
    colours = [noise(2, 3, 19, 18, seed=seed).float() for seed in (3, 4)]
    found = ImpactLoss(module, spec, dimension=2)(*colours)
    torch.testing.assert_close(found, F.l1_loss(*[module(images) for images in colours]))


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda a: ImpactLoss("mind")(a, a[..., 1:]), ImageError, r"one shape, got \(2, 1, 6, 7, 8\) and"),
        (lambda a: ImpactLoss("mind")(a[0], a[0]), ImageError, r"\(N, C, z, y, x\).*set dimension"),
        (lambda a: ImpactLoss("mind")(a[:0], a[:0]), ImageError, "one shape"),
        (lambda a: ImpactLoss("mind")(a, a, a[:1] > 0), ImageError, r"mask of shape \(2, 1, 6, 7, 8\)"),
        (lambda a: ImpactLoss("mind")(a, a, torch.full_like(a, 3)), ImageError, "0..1, got others: .* mask > 0"),
        (lambda a: ImpactLoss("mind")(a.repeat(1, 2, 1, 1, 1), a.repeat(1, 2, 1, 1, 1)), ModelContractError, "got 2"),
        (lambda a: ImpactLoss(Small(2), dimension=2)(a, a), ImageError, r"\(N, C, y, x\)"),
        (lambda a: ImpactLoss(Small(), ModelConfig(weight=(1.0, 2.0)))(a, a), ConfigError, "one weight for all or 3"),
        (lambda _: ImpactLoss("nothing.pt"), ModelNotFoundError, "nothing.pt"),
        (lambda a: ImpactLoss(lambda x: x.sign().detach())(a.requires_grad_(), a), ModelContractError, "no gradient"),
        (lambda _: ImpactLoss([]), ConfigError, "one model or several"),
        (lambda _: ImpactLoss("mind", [ModelConfig()] * 2), ConfigError, "one for each of 1 models, got 2"),
        (lambda _: ImpactLoss(ModelConfig(), ModelConfig()), ConfigError, "leave it out"),
        (lambda _: ImpactLoss("mind", ModelConfig(redraw=True, subset=2)), ConfigError, "redraw=false"),
        (lambda _: ImpactLoss("mind", patches=Patches(size=(4,), count=1)), ConfigError, "generator"),
        (lambda a: ImpactLoss("mind", patches=Patches(size=(4, 4)))(a, a), ConfigError, "of 3 axes"),
        (lambda _: Patches(size=(0,)), ConfigError, "above 0"),
        (lambda _: ImpactLoss("mind", spacing_mm=(1.0, 2.0)), ConfigError, "spacing_mm above 0"),
        (lambda _: ImpactLoss("mind", dimension=4), ConfigError, "2 or 3"),
        (lambda a: ImpactLoss("mind", ModelConfig(pca=13))(a, a), ConfigError, "between 1 and 12"),
        (lambda _: IMPACTReg("nothing.pt", [0, 0, 0, 0]), ConfigError, "2 or 3 sizes"),
    ],
)
def test_what_does_not_fit_ends_in_a_sentence(make, error, said):
    """Shapes, channels, masks, settings and models that do not fit are said in one sentence, before anything runs."""
    with pytest.raises(error, match=said) as caught:
        make(batch(6, 7, 8, count=2))
    assert "\n" not in str(caught.value)


def test_copies(tmp_path):
    """A copy, and one that went through a file, say the same: they load their models again."""
    moving, fixed = batch(8, 10, 12, seed=1), batch(8, 10, 12, seed=2)
    path = save(Small(), tmp_path / "small.pt")
    loss = ImpactLoss([path, "mind"])
    value = number(loss(moving, fixed))
    assert number(copy.deepcopy(loss)(moving, fixed)) == value
    assert number(pickle.loads(pickle.dumps(loss))(moving, fixed)) == value  # noqa: S301 - made here
    assert "mind-ssc" in repr(loss)


def test_the_public_impact_reg(tmp_path):
    """``IMPACTReg`` by its own arguments: mean absolute differences of the first layers of a file; slice by slice."""
    network, plane = Small(), Small(2)
    output, target = batch(20, 22, 18, seed=1).requires_grad_(), batch(20, 22, 18, seed=2)
    loss = IMPACTReg(str(save(network, tmp_path / "three.pt")), [0, 0, 0], 1, [1, 0.5])
    layers = list(zip(network(output), network(target), strict=True))
    wanted = F.l1_loss(*layers[0]) + 0.5 * F.l1_loss(*layers[1])
    torch.testing.assert_close(loss(output, target), wanted)
    resized = [F.interpolate(x, (16, 18, 19), mode="trilinear", align_corners=False) for x in (output, target)]
    smaller = IMPACTReg(str(tmp_path / "three.pt"), [16, 18, 19], 1, [1])
    torch.testing.assert_close(smaller(output, target), F.l1_loss(*[network(x)[0] for x in resized]))
    slices = [x.movedim(2, 1).flatten(0, 1) for x in (output, target)]
    two = IMPACTReg(str(save(plane, tmp_path / "two.pt", 2)), [0, 0], 1, [0, 1])
    torch.testing.assert_close(two(output, target), F.l1_loss(*[plane(x)[1] for x in slices]))
    assert bool(torch.autograd.grad(two(output, target), output)[0].any())
    other = IMPACTReg(str(tmp_path / "three.pt"), [0, 0, 0], distance="Cosine", pca=2)
    entry = ModelConfig(model=str(tmp_path / "three.pt"), layers=(0,), distance=("cosine",), pca=2)
    assert number(other(output, target)) == number(ImpactLoss(entry)(output, target))
    with pytest.raises(ConfigError, match="distance"):
        IMPACTReg(str(tmp_path / "three.pt"), [0, 0, 0], distance="Nothing")
