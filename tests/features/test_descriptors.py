"""Promises of the built-in features: MIND-SSC as the paper has it, blind to intensity scale and masked voxels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from conftest import make_grid, noise, oblique_grid, rotation
from semreg.core.fields import Layer, Volume
from semreg.core.sampling import pool, smooth
from semreg.errors import ConfigError, ModelError
from semreg.features import extract as extraction
from semreg.features.contract import IntensityStats
from semreg.features.descriptors import DESCRIPTORS
from semreg.features.descriptors.intensity import Intensity
from semreg.features.descriptors.mind import NOISE_FLOOR, MindSSC
from semreg.features.extract import describe, intensity_stats
from semreg.features.models import Choice, resolve_model
from semreg.io.bridge import to_volume

CASES = [
    pytest.param((5, 6, 7), 1, 2, id="3-D"),
    pytest.param((5, 4, 6), 0, 1, id="3-D, patches of one voxel"),
    pytest.param((6, 5, 4), 2, 3, id="3-D, large"),
    pytest.param((1, 6, 5), 1, 2, id="one slice"),
    pytest.param((6, 1, 4), 1, 1, id="one row"),
    pytest.param((7, 6), 1, 2, id="2-D"),
    pytest.param((6, 9), 2, 1, id="2-D, large patches"),
    pytest.param((1, 9), 1, 2, id="2-D, one row"),
]


def grid_of(shape):
    """An oblique anisotropic grid for an array of ``shape``."""
    n = len(shape)
    return make_grid(shape[::-1], (0.8, 1.3, 2.1)[:n], (-31.0, 12.5, 77.0)[:n], rotation(n))


def volume_of(shape, seed=0, scale=100.0):
    """Structure and noise, float32."""
    data = noise(1, *shape, seed=seed, dtype=torch.float32)
    return Volume(scale * (smooth(data, passes=1) + 0.2 * data) + 40.0, grid_of(shape))


def neighbour_pairs(dimension, dilation):
    """The pairs of the 2·D nearest neighbours that are √2 apart: all but opposite ones."""
    unit = np.eye(dimension, dtype=int)
    neighbours = [sign * row for row in unit for sign in (-1, 1)]
    pairs = itertools.combinations(neighbours, 2)
    return [(dilation * a, dilation * b) for a, b in pairs if ((a - b) ** 2).sum() == 2]


def mind_by_loops(image, mask, radius, dilation):
    """MIND-SSC (channels, *S) and its weight (*S), voxel by voxel, border values continued.

    A patch distance is the mean over the pairs of valid voxels; the weight is that of the voxel itself, 0 where a
    distance is not known.
    """
    halo, dimension = radius + dilation, image.ndim
    counted = image[mask > 0]
    noise_floor = NOISE_FLOOR * counted.var()
    x, m = np.pad(image, halo, mode="edge"), np.pad(mask, halo, mode="edge")
    patch = [np.array(offset) for offset in itertools.product(range(-radius, radius + 1), repeat=dimension)]
    pairs = neighbour_pairs(dimension, dilation)
    values, weight = np.zeros((len(pairs), *image.shape)), mask.copy()
    for voxel in np.ndindex(*image.shape):
        at = np.array(voxel) + halo
        distances = []
        for a, b in pairs:
            squares = shares = 0.0
            for offset in patch:
                p, q = tuple(at + a + offset), tuple(at + b + offset)
                shares += m[p] * m[q]
                squares += m[p] * m[q] * (x[p] - x[q]) ** 2
            distances.append(squares / shares if shares else np.nan)
        if np.isnan(distances).any():
            weight[voxel] = 0.0
            continue
        above = np.array(distances) - min(distances)
        values[(slice(None), *voxel)] = np.exp(-above / max(above.mean(), noise_floor))
    return values, weight


def assert_same_channels(found, expected, counts):
    """Each expected channel is one found channel; which number a channel has is not promised."""
    assert found.shape == expected.shape
    apart = np.abs(found[:, None] - expected[None]) * counts
    apart = apart.reshape(*apart.shape[:2], -1).max(-1)
    rows, columns = linear_sum_assignment(apart)
    assert apart[rows, columns].max() < 2e-5


@pytest.mark.parametrize(("shape", "radius", "dilation"), CASES)
def test_mind_is_that_of_the_paper(shape, radius, dilation):
    """Every descriptor equals the definition, computed with loops over voxels, pairs and patches."""
    volume = volume_of(shape)
    layer = describe(volume, MindSSC(len(shape), radius, dilation))
    expected, _ = mind_by_loops(volume.data[0].double().numpy(), np.ones(shape), radius, dilation)
    assert len(expected) == {2: 4, 3: 12}[len(shape)] == MindSSC(len(shape)).spec.channels
    assert layer.weight is None
    assert_same_channels(layer.features.data.numpy(), expected, 1.0)


@pytest.mark.parametrize(("shape", "radius", "dilation"), CASES)
def test_mind_with_a_mask_is_that_of_the_paper(shape, radius, dilation):
    """With a mask, patches compare their valid voxels only; a voxel with an unknown comparison weighs nothing."""
    volume = volume_of(shape)
    mask = (noise(1, *shape, seed=3, dtype=torch.float32) > -0.4).float()
    mask.narrow(-1, 0, 2).fill_(0.0)
    mask[mask > 0] *= 0.25 + 0.75 * torch.rand(int((mask > 0).sum()), generator=torch.Generator().manual_seed(1))
    layer = describe(volume, MindSSC(len(shape), radius, dilation), weight=Volume(mask, volume.grid))
    expected, weight = mind_by_loops(volume.data[0].double().numpy(), mask[0].double().numpy(), radius, dilation)
    np.testing.assert_allclose(layer.weight.data[0].numpy(), weight, atol=1e-6)
    assert (weight == 0).any()
    assert (weight > 0).any() or radius == 0 or 1 in shape
    assert_same_channels(layer.features.data.numpy(), expected, weight > 0)


def test_mind_by_slabs_is_mind_of_the_whole(monkeypatch):
    """Cutting the image into slabs changes no value, whatever remains for the last one, masks and pooling included."""
    volume = volume_of((11, 6, 5))
    mask = Volume((noise(1, 11, 6, 5, seed=4, dtype=torch.float32) > -1).float(), volume.grid)
    for pooling, weight in itertools.product((1, 2, 3), (None, mask)):
        whole = describe(volume, MindSSC(3), pooling=pooling, weight=weight)
        for planes in (1, 3, 4):
            monkeypatch.setattr(extraction, "SLAB_VOXELS", planes * 30)
            slabs = describe(volume, MindSSC(3), pooling=pooling, weight=weight)
            torch.testing.assert_close(slabs.features.data, whole.features.data, rtol=0, atol=1e-6)
            if weight is not None:
                torch.testing.assert_close(slabs.weight.data, whole.weight.data, rtol=0, atol=1e-6)
        monkeypatch.undo()


@pytest.mark.parametrize("shape", [(7, 6, 5), (7, 6), (1, 6, 5)])
@pytest.mark.parametrize("pooling", [2, 3])
def test_pooled_features_are_block_means(shape, pooling):
    """Pooled extraction is the block mean of the full features on the grid of the block centres; masks weigh in it."""
    volume = volume_of(shape)
    model = MindSSC(len(shape))
    full = describe(volume, model)
    pooled = describe(volume, model, pooling=pooling)
    assert pooled.grid == volume.grid.pooled(pooling)
    torch.testing.assert_close(pooled.features.data, pool(full.features.data, pooling), rtol=0, atol=1e-6)
    weight = Volume((noise(1, *shape, seed=5, dtype=torch.float32) > -0.8).float(), volume.grid)
    full, pooled = describe(volume, model, weight=weight), describe(volume, model, pooling=pooling, weight=weight)
    expected = full.pooled(pooling)
    seen = expected.weight.data > 0
    assert seen.any()
    torch.testing.assert_close(pooled.weight.data, expected.weight.data, rtol=0, atol=1e-6)
    torch.testing.assert_close(pooled.features.data * seen, expected.features.data * seen, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("scale", "offset"), [(1000.0, 0.0), (0.001, 0.0), (1.0, 1000.0), (-1.0, 0.0), (25.0, -3000.0), (1e-8, 0.0)]
)
@pytest.mark.parametrize("shape", [(6, 7, 5), (8, 9)])
def test_scale_of_intensities_does_not_matter(shape, scale, offset):
    """Intensities in any unit, from any zero, of either sign give the same descriptors beyond rounding."""
    volume = volume_of(shape)
    model = MindSSC(len(shape))
    first = describe(volume, model).features.data
    second = describe(Volume(volume.data * scale + offset, volume.grid), model).features.data
    torch.testing.assert_close(second, first, rtol=0, atol=2e-3)
    assert float((second - first).abs().mean()) < 1e-4


def test_type_of_the_voxels_does_not_matter():
    """The same whole numbers as 8-bit, 16-bit, float32 or float64 give bit-identical descriptors."""
    grid = oblique_grid(3)
    array = np.random.default_rng(0).integers(0, 127, grid.shape)
    found = [
        describe(to_volume((array.astype(kind), grid)), MindSSC(3)).features.data
        for kind in ("uint8", "int8", "int16", "uint16", "int64", "float32", "float64")
    ]
    assert all(torch.equal(found[0], other) for other in found[1:])
    assert float(found[0].std()) > 0.1


@pytest.mark.parametrize("junk", [-1e6, 3e4, 1e30, float("inf"), float("nan")])
@pytest.mark.parametrize("pooling", [1, 2])
@pytest.mark.parametrize("model", [MindSSC(3), Intensity(3)], ids=["mind", "intensity"])
def test_excluded_voxels_do_not_count(model, pooling, junk):
    """Whatever stands in the excluded voxels, features with a weight above zero are bit-identical, and so is it."""
    volume = volume_of((9, 8, 7))
    weight = torch.ones_like(volume.data)
    weight[:, 2:6, :, 4:] = 0.0
    weight[:, 0, 5] = 0.0
    mask = Volume(weight, volume.grid)
    spoilt = Volume(torch.where(weight > 0, volume.data, torch.tensor(junk)), volume.grid)
    first = describe(volume, model, pooling=pooling, weight=mask)
    second = describe(spoilt, model, pooling=pooling, weight=mask)
    seen = (first.weight.data > 0).expand_as(first.features.data)
    assert torch.equal(first.weight.data, second.weight.data)
    assert torch.equal(first.features.data[seen], second.features.data[seen])
    assert 0 < int(seen.sum()) < seen.numel() or pooling > 1
    assert bool(torch.isfinite(second.features.data).all())


def test_weight_of_ones_changes_nothing():
    """A mask that excludes nothing gives the features of no mask, and a weight of one everywhere."""
    volume = volume_of((5, 6, 7))
    ones = Volume(torch.ones_like(volume.data), volume.grid)
    plain, masked = describe(volume, MindSSC(3)), describe(volume, MindSSC(3), weight=ones)
    torch.testing.assert_close(masked.features.data, plain.features.data, rtol=0, atol=1e-5)
    assert torch.equal(masked.weight.data, ones.data)


def test_flat_regions_have_no_structure():
    """Noise far below the image's contrast gives no contrast of the descriptor: all channels stay near one."""
    volume = volume_of((12, 12, 12))
    data = volume.data.clone()
    data[:, :, :, :6] = 0.01 * noise(1, 12, 12, 6, seed=2, dtype=torch.float32)
    features = describe(Volume(data, volume.grid), MindSSC(3)).features.data
    assert float(features[..., :2].min()) > 0.99
    assert float(features[..., 9:].min()) < 0.7


def test_features_follow_the_image():
    """Features of a shifted image are the shifted features, away from the border."""
    volume = volume_of((12, 11, 13))
    moved = volume.data.roll((2, -1, 3), (1, 2, 3))
    stats_are_the_same = Volume(moved, volume.grid)
    first = describe(volume, MindSSC(3)).features.data.roll((2, -1, 3), (1, 2, 3))
    second = describe(stats_are_the_same, MindSSC(3)).features.data
    inner = (slice(None), slice(5, 9), slice(3, 7), slice(6, 10))
    torch.testing.assert_close(second[inner], first[inner], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "parameters", [{"dimension": 4}, {"dimension": 1}, {"radius": -1}, {"dilation": 0}, {"dilation": -2}]
)
def test_impossible_parameters_are_refused(parameters):
    """A dimension, radius or dilation that means nothing is a ConfigError that names the values."""
    with pytest.raises(ConfigError, match=f"expected MIND-SSC .* got .*{next(iter(parameters.values()))}"):
        MindSSC(**parameters)


def test_each_name_of_the_table_is_a_model():
    """What the table names is made for images in 2-D and 3-D, and the catalogue can say what it is for."""
    assert list(DESCRIPTORS) == ["mind", "intensity"]
    for name, row in DESCRIPTORS.rows.items():
        assert row.use
        assert [resolve_model(name, Choice(dimension=n)).spec.dimension for n in (2, 3)] == [2, 3]


def test_parameters_are_the_models_own():
    """MIND takes its radius and dilation from its own description, one or both."""
    assert resolve_model("mind", Choice(spec=("radius=2", "dilation=3"))) == MindSSC(3, 2, 3)
    assert resolve_model("mind", Choice(spec=("dilation=1",), dimension=2)) == MindSSC(2, 1, 1)


@pytest.mark.parametrize(
    ("model", "choice", "message"),
    [
        (
            "mind",
            Choice(spec=("axes=LIA",)),
            "expected radius=... or dilation=... for mind, which is built in, got axes",
        ),
        ("mind", Choice(spec=("radius=1.5",)), "expected radius to be a whole number, got 1.5"),
        ("mind", Choice(spec=("radius=-1",)), "radius >= 0"),
        ("mind", Choice(layers=(1,)), "expected no layers for mind, which has one output, got 1"),
        (
            "intensity",
            Choice(spec=("radius=1",)),
            "expected no description for intensity, which is built in, got radius",
        ),
        (MindSSC(3), Choice(spec=("radius=2",)), "expected no description for mind-ssc"),
    ],
)
def test_what_a_descriptor_has_not_is_refused(model, choice, message):
    """Other parameters, values that cannot be and layers are one sentence."""
    with pytest.raises((ModelError, ConfigError), match=message):
        resolve_model(model, choice)


@pytest.mark.parametrize("dimension", [2, 3])
def test_intensity_is_standardised(dimension):
    """The intensity model gives one channel of mean 0 and standard deviation 1 over the valid voxels."""
    volume = volume_of((9, 8, 7)[-dimension:], scale=700.0)
    layer = describe(volume, Intensity(dimension))
    assert layer.features.data.shape == volume.data.shape
    assert float(layer.features.data.mean()) == pytest.approx(0, abs=1e-5)
    assert float(layer.features.data.std(unbiased=False)) == pytest.approx(1, abs=1e-5)
    weight = Volume((noise(1, *volume.grid.shape, seed=1) > 0).float(), volume.grid)
    masked: Layer = describe(volume, Intensity(dimension), weight=weight)
    inside = masked.features.data[weight.data > 0]
    assert float(inside.mean()) == pytest.approx(0, abs=1e-5)
    assert float(inside.std(unbiased=False)) == pytest.approx(1, abs=1e-5)
    assert torch.equal(masked.weight.data, weight.data)


def test_statistics_are_those_of_the_valid_voxels():
    """Minimum, maximum, mean and standard deviation count the voxels with weight above zero, each once."""
    data = torch.tensor([[[1.0, 2.0, 4.0], [8.0, -500.0, 1e6]]])
    volume = Volume(data, make_grid((3, 2), (1.0, 2.0), (0.0, 5.0), rotation(2)))
    weight = Volume(torch.tensor([[[1.0, 0.5, 1.0], [0.01, 0.0, 0.0]]]), volume.grid)
    assert intensity_stats(volume, weight) == pytest.approx((1.0, 8.0, 3.75, np.std([1, 2, 4, 8])), rel=1e-6)
    values = data.double().numpy()
    assert intensity_stats(volume) == pytest.approx((-500.0, 1e6, values.mean(), values.std()), rel=1e-6)
    assert isinstance(intensity_stats(volume), IntensityStats)


def test_statistics_of_large_offsets_are_exact():
    """The statistics are summed in float64: a million voxels far from zero keep their spread."""
    n = 1 << 20
    data = 30000.0 + (torch.arange(n) % 2).float()
    volume = Volume(data.reshape(1, 1024, 1024), make_grid((1024, 1024), (1.0, 1.0), (0.0, 0.0), np.eye(2)))
    stats = intensity_stats(volume)
    assert stats.mean == pytest.approx(30000.5, abs=1e-6)
    assert stats.std == pytest.approx(0.5, abs=1e-3)
