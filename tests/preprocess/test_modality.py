"""Promises of what an image is taken for: CT by its air, and what is said over what is guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import grid_at, noise, rotation
from semreg import register
from semreg.config import (
    AlignConfig,
    CoarseConfig,
    IntensityConfig,
    RefineConfig,
    RegistrationConfig,
    UncertaintyConfig,
)
from semreg.core.fields import Volume, background
from semreg.core.geometry import AxisOrder
from semreg.errors import ConfigError
from semreg.io.bridge import LoadedImage
from semreg.phantom import make_pair
from semreg.preprocess.image_pair import prepare_pair
from semreg.preprocess.intensities import Treatment, treat
from semreg.preprocess.modality import Recognised, is_ct_like, recognise
from trunks import View, chest_image, chest_pair

ABDOMEN = make_pair(size=48)
CT, MR = ABDOMEN.fixed, ABDOMEN.moving
CHEST, _ = chest_image(View())


def like(values, volume=MR):
    """Values on the grid of a volume."""
    return Volume(torch.as_tensor(np.asarray(values), dtype=torch.float32).reshape(volume.data.shape), volume.grid)


def spread(low, high, volume=MR):
    """Voxels of any value from ``low`` to ``high``: the noise of phases."""
    return low + (high - low) * torch.rand(volume.data.shape, generator=torch.Generator().manual_seed(3))


def inside(volume=MR):
    """Where the MR shows the body."""
    return volume.data > 150


def field_map(most):
    """Off-resonance in Hz, smooth within the body and noise of the whole range around it."""
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in MR.grid.shape], indexing="ij")
    wave = torch.from_numpy(most * 0.3 * np.sin(3 * x + 2 * y) * np.cos(2 * z)).float()[None]
    return torch.where(inside(), wave, spread(-most, most))


NO_CT = {
    "MR": MR.data,
    "MR, negated": -MR.data,
    "MR, negated and scaled to HU": -0.6 * MR.data,
    "MR - 1000": MR.data - 1000,
    "MR - 1024": MR.data - 1024,
    "MR - 500": MR.data - 500,
    "MR - 32768": MR.data - 32768,
    "MR - 33783, mostly of one value": MR.data.clamp(max=60) - 33783,
    "field map": field_map(700.0),
    "wide field map": field_map(1050.0),
    "phases": torch.where(inside(), 0.4 * spread(-4096, 4094), spread(-4096, 4094)).round(),
    "PET": 40 * MR.data.square() / 1e3,
    "labels": ABDOMEN.moving_labels().data,
    "cone beam stored from 0": (CT.data + 1024).clamp(min=0),
    "cone beam 400 HU too high": CT.data + 400,
    "nothing finite": torch.full_like(MR.data, torch.nan),
}
IS_CT = {
    "abdomen": CT.data,
    "chest": CHEST.data,
    "padded": torch.where(torch.arange(CT.grid.shape[2]) < 5, -3024.0, CT.data),
    "metal": torch.where((CT.data > 600) & (spread(0, 1, CT) < 0.02), 30000.0, CT.data),
    "with padding for the most part": torch.where(torch.arange(CT.grid.shape[2]) > 25, -2000.0, CT.data),
    "NaN outside": torch.where(CT.data < -900, torch.where(spread(0, 1, CT) < 0.5, torch.nan, CT.data), CT.data),
    "noise of 80 HU": (CT.data + 80 * noise(*CT.data.shape).float()).clamp(min=-1024),
}


@pytest.mark.parametrize("name", NO_CT)
def test_what_only_has_low_values_is_no_ct(name):
    """Values below −500 alone make no CT; nothing is done to such an image, and beyond it lies its own smallest value.

    The MR, negated or shifted, has what it had: no padding, no body, nothing refused.
    """
    data = NO_CT[name]
    volume = Volume(data, (CT if data.shape == CT.data.shape else MR).grid)
    assert not is_ct_like(volume)
    assert recognise(volume) == Recognised("other", "values")
    if bool(torch.isfinite(data).any()):
        assert treat(volume, None, IntensityConfig(winsorise=False), "fixed") == (volume, None, Treatment())
        assert background(volume) == float(data.min())


@pytest.mark.parametrize("name", IS_CT)
def test_ct_is_told_by_its_air(name):
    """CT of chest and abdomen is seen, padding, metal, noise and missing voxels or not; its outside is its smallest."""
    volume = Volume(IS_CT[name], (CHEST if name == "chest" else CT).grid)
    assert recognise(volume) == Recognised("ct", "values")
    assert background(volume) == float(volume.data[torch.isfinite(volume.data)].min())


def test_of_ct_without_air_nothing_is_guessed():
    """A crop within the body, where all values could be those of anything, is not taken for CT."""
    inner = tuple(slice(n // 3, 2 * n // 3) for n in CT.grid.shape)
    grid = CT.grid.part([s.start for s in inner], [s.stop for s in inner])
    assert not is_ct_like(Volume(CT.data[(slice(None), *inner)].clamp(min=-150), grid))


def test_padding_is_that_of_ct_alone():
    """A circle of −2000 counts as outside in a chest whose air is that of lungs alone; −4096 of phases is a value."""
    padded, _ = chest_image(View(low=(-120, -90, -60), high=(120, 90, 60), circle=-2000.0))
    _, weight, done = treat(padded, None, IntensityConfig(), "fixed")
    assert torch.equal(weight.data == 0, padded.data == -2000)
    assert done.padding.value == -2000
    phases = like(NO_CT["phases"])
    phases.data[:, :, :, :9] = -4096.0
    assert treat(phases, None, IntensityConfig(), "fixed") == (phases, None, Treatment())


def loaded(volume, modality):
    return LoadedImage(volume, "int16", Path("a folder"), "", modality)


@pytest.mark.parametrize(
    ("said", "header", "values", "expected"),
    [
        ("mr", "ct", CT, ("mr", "settings")),
        ("ct", "mr", MR, ("ct", "settings")),
        ("other", None, CT, ("other", "settings")),
        ("auto", "mr", CT, ("mr", "header")),
        ("auto", "ct", MR, ("ct", "header")),
        ("auto", "other", CT, ("other", "header")),
        ("auto", None, CT, ("ct", "values")),
        ("auto", None, MR, ("other", "values")),
    ],
)
def test_what_is_said_goes_before_the_header_and_that_before_values(said, header, values, expected):
    """A setting wins over DICOM's Modality, which wins over what the values look like."""
    found = recognise(loaded(values, header), said)
    assert (found.modality, found.source) == expected


def test_each_image_is_what_is_said_of_it():
    """One modality holds for both images, two for the fixed and the moving one; padding follows, three are refused."""
    padded = Volume(IS_CT["padded"], CT.grid)
    for said, expected in ((("ct",), (True, True)), (("ct", "mr"), (True, False)), (("mr", "ct"), (False, True))):
        pair = prepare_pair(padded, padded, None, None, RegistrationConfig(intensities=IntensityConfig(modality=said)))
        assert pair.ct == expected
        assert tuple(pair.done[name].padding is not None for name in ("fixed", "moving")) == expected
    with pytest.raises(ConfigError, match=r"intensities\.modality, one or two"):
        IntensityConfig(modality=("ct", "mr", "ct"))


def test_a_registration_knows_what_headers_say():
    """Images as ``read_image`` returns them bring their modality along: into record, sentences and settings."""
    images = [
        loaded(Volume(noise(1, *grid.shape, seed=4).float() * 90, grid), said)
        for grid, said in (
            (grid_at((3, 4, 5), (14, 13, 11), (4.0, 4.2, 5.0), rotation(3, 4.0)), "ct"),
            (grid_at((4, 5, 6), (13, 15, 12), (3.9, 4.4, 5.1), rotation(3, 9.0)), None),
        )
    ]
    quick = RegistrationConfig(
        align=AlignConfig(transform="none"),
        coarse=CoarseConfig(enabled=False),
        refine=RefineConfig(iterations=1, levels=1),
        uncertainty=UncertaintyConfig(enabled=False),
    )
    record = register(*images, config=quick).record
    assert record.modality == {"fixed": Recognised("ct", "header"), "moving": Recognised("other", "values")}
    assert record.settings.intensities.modality == ("ct", "auto")
    assert "is CT by its DICOM header" in record.plan.reasons[0].sentence
    assert record.background == float(images[1].volume.data.min())


def test_ct_is_seen_in_any_order_of_storage():
    """What an image is does not depend on how its array is stored."""
    assert is_ct_like(CHEST.reordered(AxisOrder((2, 0, 1), (1,))))


def test_a_chest_with_cut_skin_registers_as_well_with_the_default():
    """Lungs that the field of view cuts off count: the error is halved by default, and about so with a body mask."""
    fixed = View(low=(-125, -130, -60), high=(125, 150, 60), spacing=(5.6, 6.0, 6.4))
    moving = View(low=(-118, -130, -55), high=(130, 150, 65), spacing=(5.2, 5.8, 6.1), degrees=3.0)
    pair = chest_pair(fixed, moving, seed=1)
    before = float((pair.fixed_points - pair.moving_points).norm(dim=1).mean())
    for body in (False, True):
        intensities = IntensityConfig(body=True) if body else IntensityConfig()
        config = RegistrationConfig(intensities=intensities, uncertainty=UncertaintyConfig(enabled=False))
        found = register(pair.fixed, pair.moving, config=config)
        error = float((found.field.point_map()(pair.fixed_points.T).T - pair.moving_points).norm(dim=1).mean())
        assert error < 0.5 * before
