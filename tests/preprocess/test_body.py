"""Promises of the masks: the body without its table, gas included, and content of any modality."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ORIENTATIONS, make_grid, noise, rotation
from semreg.core.fields import Volume
from semreg.core.geometry import AxisOrder, Grid, canonical_order, reorder
from semreg.io.files import read_image
from semreg.preprocess.body import MARGIN_MM, body_mask, content_mask
from trunks import View, chest_image

DATA = Path(__file__).parents[3] / "shared" / "data" / "totalseg_ct_mr"
SPACING = (2.0, 2.5, 5.0)
SHAPE = (20, 120, 160)
TILTED = rotation(3, 8.0)


def scene(table="flat", *, arm=True, shape=SHAPE, direction=TILTED):
    """CT of an ellipse with lungs, a spine, gas and an arm that touches it, on a table; (volume, body, table) masks.

    The body is 220 × 150 mm across with lungs behind a chest wall of 9 mm, and leaves both ends of the slab.
    """
    grid = make_grid(shape[::-1], SPACING, (-151.0, -93.0, 20.0), direction)
    z, y, x = np.meshgrid(
        *[(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, SPACING[::-1], strict=True)], indexing="ij"
    )
    y = y + 15.0  # nearer to the front
    body = (x / 110) ** 2 + (y / 75) ** 2 < 1
    limb = ((x - 128) / 22) ** 2 + ((y - 10) / 24) ** 2 < 1
    values = np.full(shape, -1000.0) + noise(*shape).numpy() * 15
    values[body] = 40
    for side in (-1, 1):
        values[((x - side * 52) / 38) ** 2 + ((y + 5) / 52) ** 2 < 1] = -850
    values[(x / 14) ** 2 + ((y - 50) / 14) ** 2 < 1] = 700
    values[(np.abs(x) < 12) & (np.abs(y + 40) < 9) & (np.abs(z) < 30)] = -950
    if arm:
        values[limb & ~body] = 30
        body = body | limb
    plate = np.zeros(shape, dtype=bool)
    if table == "flat":
        plate = (np.abs(y - 79) < 3.0) & (np.abs(x) < 140)
    elif table == "curved":
        plate = np.abs(y - 92 + (x / 90) ** 2 * 12) < 3.0
    elif table == "shell":
        plate = (np.abs(y - 88) < 16) & (np.abs(x) < 130) & ~((np.abs(y - 88) < 11) & (np.abs(x) < 125))
    plate &= ~body
    values[plate] = 800 if table == "shell" else -80  # so dense that its averages are tissue, whatever their grid
    return Volume(torch.from_numpy(values).float()[None], grid), body, plate


def numpy_of(mask):
    """A mask as booleans, after a check of its form."""
    assert mask.data.dtype == torch.float32
    assert set(mask.data.unique().tolist()) <= {0.0, 1.0}
    return mask.data[0].numpy() > 0


@pytest.mark.parametrize("table", ["none", "flat", "curved", "shell"])
def test_body_without_its_table(table):
    """The whole body, its lungs and gas and an arm that touches it are in; most of the table is not."""
    volume, body, plate = scene(table)
    mask = numpy_of(body_mask(volume))
    assert mask[body].mean() > 0.999
    close = numpy_of(body_mask(volume, margin_mm=0.0))
    assert close[body].mean() > 0.97
    assert (close & ~body).sum() < (0.3 if table == "shell" else 0.15) * body.sum()  # the outline is convex
    if plate.any():
        assert mask[plate].mean() < 0.5  # what is near the back
        assert close[plate].mean() < 0.4


def test_margin_is_in_mm():
    """The mask reaches about the margin beyond the skin, up to a coarse voxel, in front where there is nothing."""
    volume, body, _ = scene("flat", arm=False)
    column = (SHAPE[0] // 2, slice(None), SHAPE[2] // 2)
    skin = np.flatnonzero(body[column])[0]
    edge = np.flatnonzero(numpy_of(body_mask(volume))[column])[0]
    assert (skin - edge) * SPACING[1] == pytest.approx(MARGIN_MM, abs=5.0)


@pytest.mark.parametrize("number", [0, 5, 17, 29, 46])
def test_mask_does_not_depend_on_storage(number):
    """The same image stored in another order of axes has the same mask, voxel by voxel."""
    volume, _, _ = scene("curved")
    direction = ORIENTATIONS[number]
    order = tuple(2 - int(np.abs(column).argmax()) for column in direction.T[::-1])
    flips = tuple(axis for axis, column in enumerate(direction.T[::-1]) if column.sum() < 0)
    axes = AxisOrder(order, flips)
    for make in (body_mask, content_mask):
        stored = make(volume.reordered(axes))
        assert stored.grid == reorder(volume.grid, axes)
        assert torch.equal(stored.data, make(volume).reordered(axes).data)


def test_body_that_fills_the_image_is_everything(caplog):
    """A crop inside the body has no air: everything counts, without a word."""
    volume, _, _ = scene("none", arm=False)
    inner = (slice(None), slice(None), slice(40, 60), slice(74, 86))
    grid = volume.grid.part((0, 40, 74), (SHAPE[0], 60, 86))
    with caplog.at_level(logging.INFO, "semreg"):
        assert bool((body_mask(Volume(volume.data[inner].clamp(min=-100), grid)).data == 1).all())
    assert caplog.text == ""


def test_no_body_is_everything_and_said(caplog):
    """Where there is only air and a plate, nothing is left out and the log says why."""
    volume, body, _ = scene("flat")
    empty = torch.where(torch.from_numpy(body), -1000.0, volume.data[0])[None]
    assert bool((body_mask(Volume(empty, volume.grid)).data == 1).all())
    assert "no body is found in the image" in caplog.text


def test_slice_of_ct_is_masked():
    """One slice in 2-D is masked as a slab is."""
    volume, body, _ = scene("flat")
    grid = Grid(SHAPE[:0:-1], SPACING[:2], (3.0, -4.0), ((1.0, 0.0), (0.0, 1.0)))
    mask = numpy_of(body_mask(Volume(volume.data[:, 10], grid)))
    assert mask[body[10]].mean() > 0.999
    assert mask.mean() < 0.9


VIEWS = {
    "whole": View(),
    "left": View(high=(120, 150, 75)),
    "right": View(low=(-120, -130, -75)),
    "front": View(low=(-190, -75, -75)),
    "back": View(high=(190, 70, 75)),
    "both sides": View(low=(-120, -130, -75), high=(120, 150, 75)),
    "a corner": View(low=(-95, -60, -75)),
    "a circle of padding": View(low=(-130, -120, -75), high=(130, 140, 75), circle=-2000.0),
    "a circle of air": View(low=(-130, -120, -75), high=(130, 140, 75), circle=-1000.0),
    "on a table": View(low=(-215, -130, -75), high=(215, 170, 75), table=128.0),
    "prone": View(low=(-190, -160, -75), table=-128.0),
    "a slab": View(low=(-120, -130, -10), high=(120, 150, 10)),
    "a tilted box": View(degrees=20.0),
    "all of the lungs": View(low=(-190, -130, -180), high=(190, 150, 190), spacing=(5.6, 5.4, 8.0)),
    "with arms": View(low=(-250, -130, -75), high=(250, 150, 75)),
    "with one arm cut": View(low=(-215, -130, -75), high=(250, 150, 75)),
    "with arms on a table": View(low=(-250, -130, -20), high=(250, 170, 20), table=128.0),
}


@pytest.mark.parametrize("name", VIEWS)
def test_nothing_of_the_body_is_left_out(name):
    """Wherever the skin is cut off, and whatever lies beside the body: with the margin no voxel of it is excluded.

    Without a margin, as for the content that an alignment looks at, the rim may be, of less than a coarse voxel, and
    nothing of the lungs. The table stays out where there is one.
    """
    view = VIEWS[name]
    volume, body = chest_image(view, arms="arm" in name)
    mask = numpy_of(body_mask(volume))
    assert not (body & ~mask).any()
    close = numpy_of(content_mask(volume))
    assert (body & ~close).sum() < 2e-3 * body.sum()
    if view.table is not None:
        plate = ~body & (volume.data[0].numpy() > 70)
        assert plate.sum() > 500
        assert close[plate].mean() < 0.1


def test_the_outline_is_that_of_every_plane():
    """Separate parts of the body count, and what lies between them in their plane; other planes and specks do not."""
    grid = make_grid((100, 60, 8), (3.0, 3.0, 6.0), (5.0, 6.0, 7.0), np.eye(3))
    y, x = np.meshgrid(np.arange(60) * 3 - 90, np.arange(100) * 3 - 150, indexing="ij")
    legs = [((x - c) / r) ** 2 + (y / r) ** 2 < 1 for c, r in ((-60, 45), (50, 40))]
    speck = ((x - 130) / 4) ** 2 + ((y - 50) / 4) ** 2 < 1
    values = np.stack([np.where(legs[0] | legs[1] | speck, 40.0, -1000.0)] * 8)
    values[6:, legs[1]] = -1000.0
    mask = numpy_of(body_mask(Volume(torch.from_numpy(values).float()[None], grid), margin_mm=0.0))
    assert all(mask[:4, leg].mean() > 0.97 for leg in legs)
    between = (np.abs(y) < 30) & (x > -60) & (x < 50)
    assert mask[:4, between].all()
    assert not mask[7, legs[1]].any()
    assert not mask[:, speck].any()


@pytest.mark.parametrize("bright", [True, False])
@pytest.mark.parametrize("dimension", [2, 3])
def test_content_of_other_images(dimension, bright):
    """Tissue is found against noise (MR) and a bright background (histology), in 2-D and 3-D, holes included."""
    shape = (24, 90, 110)[-dimension:]
    grid = make_grid(shape[::-1], (1.1, 0.9, 3.0)[:dimension], (-7.0, 8.0, 9.0)[:dimension], rotation(dimension, 12.0))
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    tissue = (axes[-1] / 0.7) ** 2 + (axes[-2] / 0.6) ** 2 < 1
    values = np.abs(noise(*shape).numpy()) * 12
    values[tissue] = 150 + 400 * np.abs(np.sin(9 * axes[-1] + 5 * axes[-2]))[tissue]
    values[(axes[-1] / 0.2) ** 2 + (axes[-2] / 0.2) ** 2 < 1] = 5
    mask = numpy_of(content_mask(Volume(torch.from_numpy(values if bright else 700 - values).float()[None], grid)))
    assert mask[tissue].mean() > 0.98
    assert mask[~tissue].mean() < 0.1


def test_content_of_a_crop_is_everything():
    """Smooth tissue from edge to edge has no background, nor has a constant image or one without finite values."""
    grid = make_grid((30, 26, 22), (1, 1.2, 1.4), (1, 2, 3), rotation(3))
    ramp = torch.linspace(100, 300, grid.voxels).reshape(1, *grid.shape)
    for data in (ramp, torch.full_like(ramp, 7.0), torch.full_like(ramp, float("nan"))):
        assert bool((content_mask(Volume(data, grid)).data == 1).all())


def test_content_of_ct_is_the_body():
    """CT content is the body without a margin; NaN outside of it changes nothing."""
    volume, _, _ = scene("flat")
    expected = body_mask(volume, 0.0).data
    assert torch.equal(content_mask(volume).data, expected)
    holed = volume.data.clone()
    holed[..., :3] = float("nan")
    assert torch.equal(content_mask(Volume(holed, volume.grid)).data, expected)


@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real pairs, ../shared/data, is not here")
def test_labels_of_a_real_ct_lie_in_the_body():
    """At least 99.9 % of all labelled organs, muscles and bones of a real CT lie in its mask, its table does not."""
    volume = read_image(DATA / "ct_3mm.nii.gz").volume
    labels = read_image(DATA / "ct_3mm_totalseg117.nii.gz").volume
    mask = body_mask(volume).reordered(canonical_order(volume.grid))
    labelled = labels.reordered(canonical_order(labels.grid)).data > 0
    assert float(mask.data[labelled].mean()) >= 0.999
    assert 0.5 < float(mask.data.mean()) < 0.8
    assert float(mask.data[0, :, -4:, :20].mean()) < 0.01  # the table's curved plate
