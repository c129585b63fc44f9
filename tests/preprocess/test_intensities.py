"""Promises of the treatment of intensities: what needs nothing is left alone, and what is done is on record."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import make_grid, noise, rotation
from semreg.config import IntensityConfig
from semreg.core.fields import Volume
from semreg.core.geometry import canonical_order
from semreg.errors import ImageError
from semreg.preprocess.body import MARGIN_MM, body_mask
from semreg.preprocess.intensities import Body, Padding, Treatment, treat

SHAPE = (12, 60, 80)
GRID = make_grid(SHAPE[::-1], (4.0, 4.5, 6.0), (-100.0, 50.0, 7.0), rotation(3, 9.0))
BODY = IntensityConfig(body=True)


def ct():
    """A body of 40 HU in noisy air, float32."""
    _, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    values = np.where((x / 0.7) ** 2 + (y / 0.6) ** 2 < 1, 40.0, -1000.0) + noise(*SHAPE).numpy() * 12
    return Volume(torch.from_numpy(values).float()[None], GRID)


def corner():
    """The voxels outside of a circle, as a reconstruction pads them."""
    _, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    return torch.from_numpy(x**2 + y**2 > 1)[None]


def padded(value=-3024.0):
    """``ct`` with padding in its corners."""
    volume = ct()
    return Volume(torch.where(corner(), torch.tensor(value), volume.data), GRID)


def mr():
    """Positive noise, as no CT is."""
    return Volume(noise(1, *SHAPE).float().abs() * 100, GRID)


@pytest.mark.parametrize("weighted", [True, False])
def test_what_needs_nothing_is_the_same_object(weighted):
    """An image without padding, extremes and air comes back as it is, with its weight and without an entry."""
    weight = Volume(torch.ones(1, *SHAPE), GRID) if weighted else None
    for volume in (mr(), Volume(mr().data.clamp(max=1).round() - 0.0, GRID)):
        treated, kept, done = treat(volume, weight, IntensityConfig(), "fixed")
        assert treated is volume
        assert kept is weight
        assert done == Treatment()


@pytest.mark.parametrize("value", [-3024.0, -2000.0, -2048.0, -1500.0, -32768.0])
def test_padding_is_outside_and_air(value):
    """Padding of any value gets the weight 0 and the value of air; every other voxel stays bit for bit."""
    volume = padded(value)
    treated, weight, done = treat(volume, None, IntensityConfig(), "fixed")
    assert torch.equal(weight.data == 0, corner())
    assert bool((treated.data[corner()] == -1024).all())
    assert torch.equal(treated.data[~corner()], volume.data[~corner()])
    assert done == Treatment(padding=Padding(voxels=int(corner().sum()), value=value))


def test_interpolated_edge_of_padding_is_outside():
    """Where padding was interpolated with air the values between are outside, too."""
    volume = padded()
    volume.data[0, :, 3, 5:15] = -2100.0
    _, weight, done = treat(volume, None, IntensityConfig(), "fixed")
    assert bool((weight.data[0, :, 3, 5:15] == 0).all())
    assert done.padding.value == -3024


def test_weight_and_padding_multiply():
    """What a mask excludes stays excluded and its weights remain."""
    weight = Volume(torch.full((1, *SHAPE), 0.5), GRID)
    weight.data[:, :4] = 0
    _, both, _ = treat(padded(), weight, IntensityConfig(), "fixed")
    assert torch.equal(both.data, torch.where(corner(), torch.zeros(()), weight.data))


def test_single_low_voxels_and_wide_ranges_are_no_padding():
    """A few voxels that ring below air, and an image of phases from -4096 to 4095, lose nothing."""
    ringing = ct()
    ringing.data[0, 2, 3, 4] = -1300.0
    phases = Volume(torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(1)) * 8191 - 4096, GRID)
    for volume in (ringing, phases):
        treated, weight, done = treat(volume, None, IntensityConfig(), "fixed")
        assert treated is volume
        assert (weight, done) == (None, Treatment())


def test_padding_can_be_kept():
    """With padding=False nothing is taken for padding."""
    volume = padded()
    treated, weight, done = treat(volume, None, IntensityConfig(padding=False, winsorise=False), "fixed")
    assert treated is volume
    assert (weight, done) == (None, Treatment())


def test_padding_alone_is_refused():
    """A mask that leaves nothing but padding is an error that says how to go on."""
    weight = Volume(corner().float(), GRID)
    with pytest.raises(ImageError, match=r"expected voxels above -1200 HU that count in the moving image, got padding"):
        treat(padded(), weight, IntensityConfig(), "moving")


def test_few_extreme_voxels_are_cut_off():
    """Voxels far beyond all others are cut off at the percentiles, on record; the others stay bit for bit."""
    volume = mr()
    volume.data[0, 3, 10:13, 20] = 50000.0
    treated, weight, done = treat(volume, None, IntensityConfig(), "fixed")
    flat = np.sort(volume.data.numpy().ravel())
    low, high = (float(flat[round(p / 100 * (flat.size - 1))]) for p in (0.05, 99.95))
    assert torch.equal(treated.data, volume.data.clamp(low, high))
    assert weight is None
    cut = done.winsorised
    assert (cut.low, cut.high, cut.highest) == (low, high, 50000.0)
    assert cut.voxels == int(((volume.data < low) | (volume.data > high)).sum()) < 0.002 * flat.size


def test_percentiles_are_of_voxels_that_count():
    """Extremes that a mask excludes do not trigger, and do not move, the cut."""
    volume = mr()
    volume.data[:, 0] = 90000.0
    weight = Volume(torch.ones(1, *SHAPE), GRID)
    weight.data[:, 0] = 0
    assert treat(volume, weight, IntensityConfig(), "fixed")[2] == Treatment()
    done = treat(volume, weight, IntensityConfig(winsorise=True, percentiles=(0, 90)), "fixed")[2]
    assert done.winsorised.high == pytest.approx(np.percentile(volume.data[:, 1:], 90), rel=1e-3)


def test_winsorising_on_demand_and_never():
    """True cuts any image at the percentiles given, False none."""
    volume = mr()
    treated, _, done = treat(volume, None, IntensityConfig(winsorise=True, percentiles=(5, 95)), "fixed")
    assert float(treated.data.max()) == done.winsorised.high < float(volume.data.max())
    volume.data[0, 0, 0, 0] = 1e6
    assert treat(volume, None, IntensityConfig(winsorise=False), "fixed")[0] is volume


def test_sparse_images_are_not_flattened():
    """Where nearly all voxels have one value (a few labels) there is no range to cut to: nothing is done."""
    volume = Volume(torch.zeros(1, *SHAPE), GRID)
    volume.data[0, 5, 5, 5:9] = 3.0
    for winsorise in (None, True):
        assert treat(volume, None, IntensityConfig(winsorise=winsorise), "fixed")[0] is volume


def test_body_of_ct_on_demand():
    """By default all of CT counts; on demand its body does, times the weight it has, and the share is on record."""
    volume = ct()
    assert treat(volume, None, IntensityConfig(), "fixed") == (volume, None, Treatment())
    treated, weight, done = treat(volume, None, BODY, "fixed")
    expected = body_mask(volume)
    assert treated is volume
    assert torch.equal(weight.data, expected.data)
    assert done == Treatment(body=Body(share=float(expected.data.mean()), margin_mm=MARGIN_MM))
    given = Volume(torch.full((1, *SHAPE), 0.5), GRID)
    assert torch.equal(treat(volume, given, BODY, "fixed")[1].data, expected.data * 0.5)


def test_padded_ct_is_masked_as_unpadded():
    """Padding does not disturb the body mask, and both are on record."""
    _, weight, done = treat(padded(), None, BODY, "fixed")
    assert [name for name, what in vars(done).items() if what is not None] == ["padding", "body"]
    air = ct()
    air.data[corner()] = -1024
    assert torch.equal(weight.data, body_mask(air).data * ~corner())


def test_body_of_mr_on_demand():
    """On demand the content of an image that is no CT counts, without a margin."""
    volume = Volume((ct().data + 1100).clamp(min=0), GRID)
    assert treat(volume, None, IntensityConfig(), "fixed") == (volume, None, Treatment())
    _, weight, done = treat(volume, None, IntensityConfig(body=True), "fixed")
    assert done.body.margin_mm == 0
    assert float(weight.data[ct().data > 0].mean()) > 0.97
    assert float(weight.data.mean()) < 0.5


def test_mask_beside_the_body_stands(caplog):
    """A mask that has nothing in common with the body is not made empty; the log says so."""
    weight = Volume(torch.zeros(1, *SHAPE), GRID)
    weight.data[..., :3, :3] = 1
    _, kept, done = treat(ct(), weight, IntensityConfig(body=True), "fixed")
    assert kept is weight
    assert done == Treatment()
    assert "no voxel in common" in caplog.text


def test_result_does_not_depend_on_storage():
    """The same image in another order of axes is treated the same, number by number."""
    volume = padded()
    volume.data[0, 3, 30, 40] = 1e5
    axes = canonical_order(make_grid((2, 2, 2), (1, 1, 1), (0, 0, 0), np.eye(3)[:, [2, 0, 1]] * [1, -1, 1]))
    treated, weight, done = treat(volume, None, BODY, "fixed")
    others = treat(volume.reordered(axes), None, BODY, "fixed")
    assert torch.equal(others[0].data, treated.reordered(axes).data)
    assert torch.equal(others[1].data, weight.reordered(axes).data)
    assert others[2] == done
    assert None not in vars(done).values()
