"""Promises of further contrasts: each is compared in the first pair's space, with its own model, weight and masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import nn

from conftest import grid_at, noise, rotation
from semreg import RegistrationConfig, plan, register, warp, write_image
from semreg.config import AlignConfig, CoarseConfig, ModelConfig, RefineConfig, UncertaintyConfig
from semreg.core.fields import Layer, Volume
from semreg.core.geometry import Grid
from semreg.errors import ConfigError, GeometryError
from semreg.io.channels import read_channels
from semreg.phantom import make_pair, points_of
from semreg.registration.contrasts import Contrast, by_channel
from semreg.registration.dense.terms import Term, joined, terms_of

ALONE = UncertaintyConfig(enabled=False)
STRAIGHT = RegistrationConfig(
    align=AlignConfig(transform="none"), refine=RefineConfig(symmetric=False, diffusion=0.3), uncertainty=ALONE
)
QUICK = replace(
    STRAIGHT, coarse=CoarseConfig(enabled=False), refine=RefineConfig(levels=1, iterations=3, symmetric=False)
)
BESIDE = grid_at((3.0, -7.0, 11.0), (30, 27, 24), (7.1, 6.3, 6.9), rotation(3))
"""A grid on which no image of the phantom is stored, over much of it."""


@pytest.fixture(scope="module")
def phantom():
    """A pair whose landmarks are known."""
    return make_pair(size=36, seed=4)


def half(phantom, side):
    """The pair with the structures of one half, -1 or 1 along x, where both images show the same half of the body."""
    middle = float(points_of(phantom.fixed.grid)[0].mean())

    def shown(image, back):
        points = points_of(image.grid)
        share = torch.sigmoid(side * (back(points.flatten(1)).reshape(points.shape)[0] - middle) / 6.0).float()
        return Volume(image.data * share + image.data.mean() * (1 - share), image.grid)

    return shown(phantom.fixed, lambda p: p), shown(phantom.moving, phantom.true_map.inverse)


def error(result, phantom):
    """The mean landmark error in mm."""
    mapped = result.field.point_map()(phantom.fixed_points.T.double()).T
    return float(torch.linalg.vector_norm(mapped - phantom.moving_points, dim=1).mean())


def elsewhere(image):
    """The image on another grid in the same space, with another number of voxels and other axes."""
    middle = points_of(image.grid).flatten(1).mean(1).numpy()
    there = points_of(BESIDE).flatten(1).mean(1).numpy()
    origin = tuple(np.asarray(BESIDE.origin_xyz) + middle - there)
    return image.on(replace(BESIDE, origin_xyz=origin), outside=0.0)


def test_two_halves_beat_either(phantom):
    """Two contrasts that show half of the structures each find more than either alone, on grids of their own too."""
    left, right = half(phantom, -1), half(phantom, 1)
    alone = [error(register(*pair, config=STRAIGHT), phantom) for pair in (left, right)]
    both = register(*left, config=STRAIGHT, contrasts=[Contrast(*right)])
    other = register(*left, config=STRAIGHT, contrasts=[Contrast(*map(elsewhere, right))])
    assert error(both, phantom) < 0.7 * min(alone)
    assert error(other, phantom) < 0.8 * min(alone)
    (warped,) = both.warped_contrasts
    torch.testing.assert_close(warped.data, warp(right[1], both.field, outside=float(right[1].data.min())).data)
    (found,) = both.record.contrasts
    assert [entry.model for entry in found.settings] == ["mind", "intensity"]


def test_masks_of_a_contrast_are_its_own(phantom):
    """What the mask of a contrast leaves out changes nothing; without one that of the first pair counts."""
    left, right = half(phantom, -1), half(phantom, 1)
    spoilt = Volume(right[0].data.clone(), right[0].grid)
    spoilt.data[:, :12] = noise(1, 12, *right[0].grid.shape[1:], dtype=torch.float32) * 900
    kept = Volume(torch.ones_like(spoilt.data), spoilt.grid)
    kept.data[:, :18] = 0.0
    whole = Volume(torch.ones_like(spoilt.data), spoilt.grid)

    def found(fixed, **masks):
        contrast = Contrast(fixed, right[1], fixed_mask=masks.pop("own", None))
        return register(*left, config=QUICK, contrasts=[contrast], **masks).deformation.vox

    # 6 voxels beyond what is spoilt: the features of a voxel see its neighbours
    reference = found(right[0], own=kept)
    torch.testing.assert_close(found(spoilt, own=kept), reference, atol=1e-3, rtol=0)
    assert float((found(spoilt, own=whole) - reference).abs().max()) > 0.05
    torch.testing.assert_close(found(spoilt, fixed_mask=kept), found(right[0], fixed_mask=kept), atol=1e-3, rtol=0)


def test_weight_and_model_of_a_contrast(phantom):
    """One of nearly no weight changes nearly nothing; another model is compared as it says, and the plan tells."""
    left, right = half(phantom, -1), half(phantom, 1)
    alone = register(*left, config=QUICK).deformation.vox
    light = register(*left, config=QUICK, contrasts=[Contrast(*right, weight=1e-6)])
    torch.testing.assert_close(light.deformation.vox, alone, atol=1e-2, rtol=0)
    entry = ModelConfig(model="intensity", distance=("ncc",))
    other = register(*left, config=QUICK, contrasts=[Contrast(*right, model=entry, weight=2.0)])
    assert other.record.contrasts[0].settings == (entry,)
    assert other.record.contrasts[0].weight == 2.0
    assert float((other.deformation.vox - alone).abs().max()) > 0.1
    named = register(*left, config=QUICK, contrasts=[Contrast(*right, model="intensity")])
    assert [model.name for model in named.record.contrasts[0].models] == ["intensity"]
    before, after = (plan(*left, config=QUICK, contrasts=given) for given in ([], [Contrast(*right, model=entry)]))
    assert after.memory_bytes > before.memory_bytes
    assert any(s.startswith("Contrast 1, ") and "compared by intensity" in s for s in after.sentences)


def test_shares_of_groups():
    """Each group counts by its weight, whatever the number of its terms."""
    grid = Grid.of_shape((4, 5, 6))
    layer = Layer(Volume(noise(2, *grid.shape, dtype=torch.float32), grid), None)
    first, second = (terms_of([Term(layer, layer, share=share) for share in shares]) for shares in ((1, 3), (2, 2, 4)))
    shares = [term.share for term in joined([first, second], (1.0, 0.5))]
    assert shares == pytest.approx([1 / 6, 1 / 2, 1 / 12, 1 / 12, 1 / 6])
    assert joined([first], (1.0,)) == first


def test_what_cannot_be_a_contrast(phantom):
    """Another dimension, another place, a weight of 0 and the mode jacobian are refused in one sentence."""
    pair = phantom.fixed, phantom.moving
    flat = Volume(phantom.fixed.data[:, 3], Grid.of_shape(phantom.fixed.grid.shape[1:]))
    far = Volume(phantom.fixed.data, replace(phantom.fixed.grid, origin_xyz=(5000.0, 0.0, 0.0)))
    for contrast, kind, said in (
        (Contrast(flat, flat), GeometryError, "fixed image of contrast 1 in 3-D as the first pair is, got 2-D"),
        (Contrast(phantom.fixed, far), GeometryError, "the moving image of contrast 1 where the moving image lies"),
        (Contrast(*pair, weight=0.0), ConfigError, "a weight above 0 of contrast 1, got 0.0"),
        (Contrast(*pair, model=[]), ConfigError, "a model or several for a contrast, got an empty list"),
    ):
        with pytest.raises(kind, match=said):
            register(*pair, config=QUICK, contrasts=[contrast])
    through = replace(QUICK, refine=replace(QUICK.refine, mode="jacobian"))
    with pytest.raises(ConfigError, match=r"expected refine.mode=static"):
        register(*pair, model=nn.Conv3d(1, 2, 3, padding=1), config=through, contrasts=[Contrast(*pair)])


def test_features_are_renewed_for_all(phantom):
    """With ``update_every`` the models run again on both contrasts."""
    left, right = half(phantom, -1), half(phantom, 1)
    config = replace(QUICK, refine=RefineConfig(levels=1, iterations=6, update_every=3, symmetric=False))
    with_both = register(*left, config=config, contrasts=[Contrast(*right)])
    assert np.isfinite(with_both.field.vox.numpy()).all()
    assert with_both.record.similarity.after < with_both.record.similarity.before


@pytest.mark.parametrize("kind", ["colours", "vectors", "frames"])
def test_channels(tmp_path, kind):
    """Colours keep their luminance as the first pair, vectors and frames their first channel; the rest is beside."""
    voxels = np.random.default_rng(0).integers(0, 255, (9, 10, 11, 3))
    if kind == "colours":
        image = sitk.GetImageFromArray(voxels.astype(np.uint8), isVector=True)
    elif kind == "vectors":
        image = sitk.GetImageFromArray(voxels.astype(np.float32), isVector=True)
    else:
        image = sitk.JoinSeries([sitk.GetImageFromArray(voxels[..., i].astype(np.float32)) for i in range(3)])
    path = tmp_path / "image.nrrd"
    sitk.WriteImage(image, str(path))
    fixed, moving, contrasts = by_channel(path, path)
    colours = kind == "colours"
    assert len(contrasts) == (3 if colours else 2)
    assert sum(contrast.weight for contrast in contrasts) == pytest.approx(1.0)
    for number, contrast in enumerate(contrasts, 0 if colours else 1):
        np.testing.assert_array_equal(contrast.moving.volume.data[0].numpy(), voxels[..., number])
    expected = voxels @ (0.299, 0.587, 0.114) if colours else voxels[..., 0]
    np.testing.assert_allclose(fixed.volume.data[0].numpy(), expected, rtol=1e-5)
    assert moving.volume.grid == fixed.volume.grid
    assert read_channels(path).channels[1].path == path
    write_image(Volume(torch.rand(1, 9, 10, 11), Grid.of_shape((9, 10, 11))), tmp_path / "grey.nrrd", "float32")
    with pytest.raises(ConfigError, match=r"the same number of channels, 2 to 64, got 3 in .* and 1 in"):
        by_channel(path, tmp_path / "grey.nrrd")


def test_channels_tell_what_grey_does_not():
    """Two colours of one luminance are told apart channel by channel."""
    grid = Grid.of_shape((40, 44), (2.0, 2.0))
    y, x = (points_of(grid)[axis] for axis in (1, 0))

    def disc(shift):
        inside = torch.sigmoid(18.0 - torch.hypot(x - 44.0 - shift, y - 40.0)).float()
        texture = 20 * torch.sin(x * 0.7) * torch.sin(y * 0.5)
        grey = (100 + texture * 0.05).float()
        return [Volume(each[None], grid) for each in (grey, 100 + 60 * inside, 160 - 60 * inside)]

    near, far = disc(0.0), disc(5.0)
    contrasts = [Contrast(a, b, weight=0.5) for a, b in zip(near[1:], far[1:], strict=True)]
    alone, told = (register(near[0], far[0], config=STRAIGHT, contrasts=given) for given in ([], contrasts))
    border = (torch.hypot(x - 44.0, y - 40.0) - 18.0).abs() < 3
    moved = [float(found.field.mm()[0][border].mean()) for found in (alone, told)]
    assert abs(moved[0]) < 2.0
    assert moved[1] == pytest.approx(5.0, abs=1.5)
