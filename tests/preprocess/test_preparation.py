"""Promises of the preparation: bad voxels are counted, masks exclude, working grids do not depend on storage."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import (
    ORIENTATIONS,
    centre,
    grid_at,
    make_grid,
    moving_grid,
    noise,
    noise_volume,
    oblique_grid,
    rotation,
    signed_permutations,
    sitk_resample,
    smooth_field,
)
from semreg.core.fields import Field, Volume, background, warp
from semreg.core.geometry import canonical_order, index_map, reorder
from semreg.errors import GeometryError, ImageError
from semreg.preprocess.preparation import (
    Frame,
    Prepared,
    blurred,
    check_dimension,
    check_overlap,
    clean,
    interpolation_blur,
    plan_frame,
    to_frame,
    working_spacing,
)

GRID = oblique_grid(3)


def spoilt_volume():
    """Noise with five voxels that are not finite."""
    volume = noise_volume(GRID)
    data = volume.data.clone()
    data[0, 1, 2, 3], data[0, 4, 0, 0] = float("nan"), float("nan")
    data[0, 0, 0, :2], data[0, 2, 2, 2] = float("inf"), -float("inf")
    return Volume(data, GRID)


def test_voxels_that_are_not_finite_are_counted(caplog):
    """NaN and infinities are excluded with one warning that counts them; all values that remain are finite."""
    volume = spoilt_volume()
    with caplog.at_level(logging.WARNING, "semreg"):
        cleaned, weight = clean(volume, None, "moving")
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "5 voxels of the moving image are NaN or infinite"
    ]
    finite = torch.isfinite(volume.data)
    assert torch.equal(weight.data > 0, finite)
    assert torch.equal(cleaned.data[finite], volume.data[finite])
    assert bool(torch.isfinite(cleaned.data).all())


def test_good_images_pass_unchanged(caplog):
    """An image of finite voxels comes back as it is, without weight and without a word."""
    volume = noise_volume(GRID)
    cleaned, weight = clean(volume, None, "fixed")
    assert torch.equal(cleaned.data, volume.data)
    assert weight is None
    assert not caplog.records


def test_mask_and_bad_voxels_both_exclude():
    """A voxel counts if it is finite and the mask includes it; the mask may be anything in 0..1."""
    volume = spoilt_volume()
    mask = torch.rand(1, *GRID.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask[:, :, :2] = 0.0
    _, weight = clean(volume, Volume(mask, GRID), "fixed")
    torch.testing.assert_close(weight.data, mask * torch.isfinite(volume.data))


def test_mask_on_another_grid_is_resampled():
    """A mask on a grid of its own is read there linearly, as ITK would, and is 0 beyond its box."""
    volume = noise_volume(GRID)
    other = moving_grid(GRID)
    mask = Volume((noise(1, *other.shape, seed=2) > 0).double(), other)
    _, weight = clean(volume, mask, "fixed")
    expected = sitk_resample(mask, GRID, outside=0.0)
    np.testing.assert_allclose(weight.data[0].numpy(), expected, atol=1e-6)
    assert 0 < expected.mean() < 0.6


def test_mask_values_beyond_the_range_are_clipped():
    """A mask of labels (0, 1, 7) and of NaN excludes the zeros and NaN and counts the others once."""
    labels = torch.tensor([0.0, 1.0, 7.0, float("nan"), -3.0]).double()
    mask = labels[torch.arange(GRID.voxels).reshape(1, *GRID.shape) % 5]
    _, weight = clean(noise_volume(GRID), Volume(mask, GRID), "fixed")
    assert torch.equal(weight.data, torch.nan_to_num(mask).clamp(0, 1))


@pytest.mark.parametrize(
    ("volume", "mask", "sentence"),
    [
        (Volume(torch.full((1, *GRID.shape), float("nan")), GRID), None, "finite voxels in the fixed image"),
        (Volume(torch.full((1, *GRID.shape), float("inf")), GRID), None, "finite voxels in the fixed image"),
        (Volume(torch.full((1, *GRID.shape), 4.5), GRID), None, "structure in the fixed image, got the constant 4.5"),
        (noise_volume(GRID), Volume(torch.zeros(1, *GRID.shape), GRID), "got an empty one there: .* mm, .* mm"),
        (noise_volume(GRID), noise_volume(oblique_grid(2)), "mask of the fixed image's dimension"),
        (noise_volume(GRID), noise_volume(GRID, 2), "mask of the fixed image's dimension with one channel"),
    ],
    ids=["nan", "infinite", "constant", "empty mask", "mask in 2-D", "mask of vectors"],
)
def test_useless_images_are_refused(volume, mask, sentence):
    """Images of nothing finite or of one value, and masks of nothing, are an ImageError that names the image."""
    with pytest.raises(ImageError, match=sentence):
        clean(volume, mask, "fixed")


def test_masks_elsewhere_are_refused():
    """A mask that does not touch the image is empty there; the message has both boxes."""
    far = grid_at(centre(GRID) + 300.0, (5, 5, 5), (1.0, 1.0, 1.0), np.eye(3))
    with pytest.raises(ImageError) as caught:
        clean(noise_volume(GRID), Volume(torch.ones(1, *far.shape), far), "moving")
    assert GRID.box() in str(caught.value)
    assert far.box() in str(caught.value)


def test_constant_where_it_counts_is_refused():
    """An image that varies only where the mask excludes it has no structure."""
    data, mask = torch.zeros(1, *GRID.shape), torch.ones(1, *GRID.shape)
    data[0, 1, 1, 1], mask[0, 1, 1, 1] = 8.0, 0.0
    with pytest.raises(ImageError, match="constant 0"):
        clean(Volume(data, GRID), Volume(mask, GRID), "fixed")


@pytest.mark.parametrize("dimension", [2, 3])
def test_images_apart_are_refused_with_both_boxes(dimension):
    """Images that do not overlap are a GeometryError with both boxes in mm that asks for the initial transform."""
    fixed = oblique_grid(dimension)
    far = grid_at(centre(fixed) + 90.0, (6, 5, 4)[:dimension], (1.0,) * dimension, rotation(dimension, 40.0))
    with pytest.raises(GeometryError, match="initial transform") as caught:
        check_overlap(fixed, far)
    assert fixed.box() in str(caught.value)
    assert far.box() in str(caught.value)
    assert "mm" in str(caught.value)
    check_overlap(fixed, moving_grid(fixed))


def test_images_of_different_dimension_are_refused():
    """2-D and 3-D do not go together."""
    with pytest.raises(GeometryError, match="fixed one in 3-D and a moving one in 2-D"):
        check_dimension(oblique_grid(3), oblique_grid(2))


def stored(grid, orientation):
    """A grid of the same samples, its axes stored in another order and direction."""
    columns = np.asarray(grid.direction) @ orientation
    order = [int(np.abs(column).argmax()) for column in orientation.T]
    size, spacing = np.array(grid.size_xyz)[order], np.array(grid.spacing_xyz)[order]
    return grid_at(centre(grid), tuple(size), tuple(spacing), columns)


FIXED = grid_at((5.0, -9.0, 30.0), (14, 12, 9), (0.8, 1.3, 2.1), rotation(3))
MOVING = grid_at((7.0, -8.0, 31.0), (13, 15, 11), (1.1, 0.9, 1.7), rotation(3, -23.0))


def assert_same_grid(a, b):
    """Equal up to rounding."""
    assert a.size_xyz == b.size_xyz
    np.testing.assert_allclose(index_map(a, b), np.eye(a.dimension + 1), atol=1e-6)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_working_grids_do_not_depend_on_the_storage(orientation):
    """Whatever the order and direction in which the arrays of the same samples are stored, the frame is the same."""
    expected = plan_frame(FIXED, MOVING, None, 5.0, initial=False)
    found = plan_frame(stored(FIXED, orientation), stored(MOVING, orientation), None, 5.0, initial=False)
    assert_same_grid(found.fixed, expected.fixed)
    assert_same_grid(found.moving, expected.moving)
    assert found.axes == canonical_order(stored(FIXED, orientation))


@pytest.mark.parametrize("orientation", signed_permutations(2))
def test_working_grids_in_2d_do_not_depend_on_the_storage(orientation):
    """The same in 2-D."""
    fixed, moving = (grid_at(centre(g)[:2], g.size_xyz[:2], g.spacing_xyz[:2], rotation(2)) for g in (FIXED, MOVING))
    expected = plan_frame(fixed, moving, None, 5.0, initial=False)
    found = plan_frame(stored(fixed, orientation), stored(moving, orientation), None, 5.0, initial=False)
    assert_same_grid(found.fixed, expected.fixed)
    assert_same_grid(found.moving, expected.moving)


@pytest.mark.parametrize("spacing", [None, 0.8, 1.7, 6.0])
def test_working_voxels_are_cubes_that_cover_the_fixed_image(spacing):
    """Working voxels are cubic, of the spacing asked for, along the fixed image's axes, and cover its box."""
    frame = plan_frame(FIXED, MOVING, spacing, 4.0, initial=False)
    canonical = reorder(FIXED, canonical_order(FIXED))
    for grid in (frame.fixed, frame.moving):
        assert max(grid.spacing) == pytest.approx(min(grid.spacing))
        assert min(grid.spacing) == pytest.approx(min(FIXED.spacing) if spacing is None else spacing)
        np.testing.assert_allclose(grid.direction, canonical.direction, atol=1e-12)
    corners = np.vstack([FIXED.corners_xyz().T, np.ones(8)])
    index = (frame.fixed.point_to_index() @ corners)[:-1]
    sizes = np.array(frame.fixed.shape)[:, None]
    assert (index >= -0.5 - 1e-3).all()
    assert (index <= sizes - 0.5 + 1e-3).all()
    assert (index.min(1) < 0.5).all()  # and not much more than it


def test_cubic_images_are_worked_on_as_they_are():
    """Where voxels are cubic already no sample of the fixed image is interpolated."""
    grid = grid_at((5.0, -9.0, 30.0), (14, 12, 9), (1.5, 1.5, 1.5), rotation(3))
    frame = plan_frame(grid, MOVING, None, 4.0, initial=False)
    assert_same_grid(frame.fixed, reorder(grid, frame.axes))
    assert not np.allclose(plan_frame(grid, MOVING, 1.2, 4.0, initial=False).fixed.spacing, 1.5)


@pytest.mark.parametrize("initial", [True, False])
def test_working_grid_of_the_moving_image_covers_the_reach(initial):
    """Of a much larger moving image what lies within the reach of the fixed one is read, and not all the rest."""
    large = grid_at(centre(FIXED), (150, 140, 130), (1.1, 1.1, 1.1), rotation(3, -23.0))
    frame = plan_frame(FIXED, large, 1.0, 20.0, initial=initial)
    start = index_map(frame.fixed, frame.moving)[:-1, -1]
    stop = start + np.array(frame.fixed.shape) - 1
    assert (start >= 20.0).all()
    assert (np.array(frame.moving.shape) - 1 - stop >= 20.0).all()
    assert max(frame.moving.shape) < max(frame.fixed.shape) + 80
    assert_same_grid(frame.moving, plan_frame(FIXED, large, 1.0, 20.0, initial=initial).moving)


def test_large_images_are_worked_on_coarser():
    """The working spacing is the smallest spacing, unless cubes of it would be far too many; then it is coarser."""
    assert working_spacing(FIXED) == pytest.approx(0.8)
    huge = make_grid((2000, 1500, 900), (0.2, 0.2, 0.2), (0, 0, 0), np.eye(3))
    assert 0.3 < working_spacing(huge) < 1.5
    needle = make_grid((4000, 300, 300), (0.001, 1.0, 1.0), (0, 0, 0), np.eye(3))
    spacing = working_spacing(needle)
    assert 0.001 < spacing < 1.0
    assert np.prod(needle.extent_mm) / spacing**3 < 40 * 2**20 * 40


def test_images_are_read_linearly_on_the_working_grid():
    """Without mask the image on its working grid is what ITK's linear interpolation gives."""
    volume = noise_volume(GRID)
    inner = grid_at(centre(GRID), (4, 4, 3), (0.9, 0.9, 0.9), rotation(3, 30.0))
    prepared = to_frame(volume, None, inner)
    np.testing.assert_allclose(prepared.volume.data[0].numpy(), sitk_resample(volume, inner), atol=1e-5)
    assert prepared.weight is None or float((prepared.weight.data - 1).abs().max()) < 1e-5


@pytest.mark.parametrize("initial", [None, "field"])
def test_excluded_voxels_take_no_part(initial):
    """Whatever stands in excluded voxels, the working image and its weight are bit-identical."""
    volume = noise_volume(GRID)
    mask = Volume((noise(1, *GRID.shape, seed=3) > -0.3).double(), GRID)
    target = grid_at(centre(GRID), (9, 8, 9), (0.7, 0.7, 0.7), rotation(3, 5.0))
    start = None if initial is None else smooth_field(target)
    spoilt = Volume(torch.where(mask.data > 0, volume.data, 1e9), GRID)
    first, second = to_frame(volume, mask, target, start), to_frame(spoilt, mask, target, start)
    assert torch.equal(first.volume.data, second.volume.data)
    assert torch.equal(first.weight.data, second.weight.data)
    assert float(first.volume.data.abs().max()) <= float(volume.data[mask.data > 0].abs().max()) + 1e-6
    assert 0.2 < float((first.weight.data > 0).double().mean()) < 1.0


def test_what_the_image_does_not_show_weighs_nothing():
    """Where the image does not fill the working grid the weight is 0, elsewhere the interpolation of the mask."""
    target = moving_grid(GRID)
    prepared = to_frame(noise_volume(GRID), None, target)
    ones = Volume(torch.ones(1, *GRID.shape).double(), GRID)
    np.testing.assert_allclose(prepared.weight.data[0].numpy(), sitk_resample(ones, target, outside=0.0), atol=1e-6)
    assert float(prepared.weight.data.min()) == 0
    assert bool(torch.isfinite(prepared.volume.data).all())


def test_initial_field_is_read_through():
    """With an initial field the working image is the image warped by it."""
    target = grid_at(centre(GRID), (5, 5, 4), (0.7, 0.7, 0.7), rotation(3, 5.0))
    field = smooth_field(target, 0.8)
    volume = noise_volume(GRID)
    prepared = to_frame(volume, None, target, field)
    expected = warp(volume, field, outside=0.0).data
    seen = prepared.weight.data == 1
    assert float(seen.double().mean()) > 0.5
    torch.testing.assert_close(prepared.volume.data[seen], expected[seen])


def test_initial_field_that_leads_away_is_refused():
    """An initial transform after which nothing overlaps is a GeometryError that points at its direction."""
    target = grid_at(centre(GRID), (5, 5, 4), (0.7, 0.7, 0.7), rotation(3, 5.0))
    field = smooth_field(target)
    field.vox[0] += 500.0
    with pytest.raises(GeometryError, match="check its direction, it must map points of the fixed image to the moving"):
        to_frame(noise_volume(GRID), None, target, field)


def test_background_is_the_smallest_value():
    """Outside is the smallest finite value of the image, whatever it shows: of CT, field maps and MR."""
    grid = make_grid((3, 1, 1), (1, 1, 1), (0, 0, 0), np.eye(3))
    for lowest in (-3024.0, -1000.0, -700.0, 0.0, -37.5, 12.0):
        assert background(Volume(torch.tensor([[[[lowest, float("nan"), 1200.0]]]]), grid)) == lowest
    assert background(Volume(torch.full((1, 1, 1, 3), float("nan")), grid)) == 0.0


def test_the_blur_of_an_interpolation_is_known():
    """It is that of voxels read as they are, half-way, at any place, and through a field; none where both are read."""
    fixed = make_grid((20, 18, 16), (1.0, 1.0, 1.0), (0, 0, 0), np.eye(3))
    half = make_grid((30, 28, 26), (1.0, 1.0, 2.0), (-5.5, -5.0, -5.0), np.eye(3))
    turned = grid_at(centre(fixed), (30, 30, 30), (1.0, 1.0, 1.0), rotation(3, 25.0))
    frame = Frame(canonical_order(fixed), fixed, fixed, kept=True)
    assert interpolation_blur(frame, fixed) == (0.0, 0.0, 0.0)
    z, y, x = interpolation_blur(frame, half)
    assert (y, x) == (0.0, 0.25)
    assert z == pytest.approx(4 * 0.125, rel=0.05)  # 0 or 1/4, in voxels twice as large
    assert interpolation_blur(frame, turned) == pytest.approx((1 / 6,) * 3, rel=0.1)
    shift = Field(torch.full((3, *fixed.shape), 0.5), fixed)
    assert interpolation_blur(frame, fixed, shift) == (0.25, 0.25, 0.25)
    assert interpolation_blur(replace(frame, kept=False), turned) == (0.0, 0.0, 0.0)
    assert plan_frame(fixed, turned, None, 5.0, initial=False).kept
    assert not plan_frame(half, turned, None, 5.0, initial=False).kept


@pytest.mark.parametrize("kind", ["half", "turned"])
def test_noise_is_as_strong_in_both_images(kind):
    """White noise in the fixed image, blurred as the moving image is by being read, is about as strong as there."""
    fixed = make_grid((40, 40, 40), (1.0, 1.0, 1.0), (0, 0, 0), np.eye(3))
    direction, offset = (rotation(3, 25.0), 0.0) if kind == "turned" else (np.eye(3), 0.5)
    moving = noise_volume(grid_at(centre(fixed) + offset, (60, 60, 60), (1.0, 1.0, 1.0), direction))
    frame = Frame(canonical_order(fixed), fixed, fixed, kept=True)
    near = noise_volume(fixed)
    alike = blurred(Prepared(near, None), interpolation_blur(frame, moving.grid)).volume
    inner = (slice(None), *[slice(4, -4)] * 3)
    read = to_frame(moving, None, fixed).volume.data[inner].std()
    assert float(near.data[inner].std() / read) > 1.5
    assert 0.9 < float(alike.data[inner].std() / read) < 1.35


def test_blurring_moves_nothing_and_reads_nothing_excluded():
    """A slope stays as it is, whatever stands in excluded voxels, which keep what they have."""
    grid = make_grid((9, 8, 7), (1.0, 1.0, 1.0), (0, 0, 0), np.eye(3))
    slope = torch.arange(7.0).reshape(1, 7, 1, 1).expand(1, *grid.shape)
    inner = (slice(None), *[slice(1, -1)] * 3)
    torch.testing.assert_close(
        blurred(Prepared(Volume(slope, grid), None), (1 / 6,) * 3).volume.data[inner], slope[inner]
    )
    weight = (noise(1, *grid.shape, seed=3) > 0).to(slope.dtype)
    seen = [
        blurred(Prepared(Volume(torch.where(weight > 0, slope, value), grid), Volume(weight, grid)), (0.2, 0.1, 0.3))
        for value in (0.0, 1e9)
    ]
    assert torch.equal(*(each.volume.data[weight > 0] for each in seen))
    assert not torch.equal(seen[0].volume.data[weight > 0], slope[weight > 0])
