"""Promises of the agreement of labels: equal to DeepMind's package and to SimpleITK, on any grid, in mm."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage
from surface_distance import metrics as oracle
from surface_distance.lookup_tables import (
    ENCODE_NEIGHBOURHOOD_2D_KERNEL,
    ENCODE_NEIGHBOURHOOD_3D_KERNEL,
    create_table_neighbour_code_to_contour_length,
    create_table_neighbour_code_to_surface_area,
)

from conftest import (
    centre,
    grid_at,
    make_grid,
    moving_grid,
    oblique_grid,
    rotation,
    sitk_resample,
    sitk_transform,
    smooth_field,
)
from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.errors import GeometryError, ImageError
from semreg.io.bridge import to_labels
from semreg.io.files import read_image
from semreg.quality import evaluate, label_overlap
from semreg.quality.overlap import Overlap, brought, table_of_labels
from semreg.quality.surfaces import element_areas

DATA = Path(__file__).parents[3] / "shared" / "data"
REAL = pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real pairs, ../shared/data, is not here")
FIXED = make_grid((17, 15, 13), (0.8, 1.3, 2.1), (-31.0, 12.5, 77.0), rotation(3))


def blobs(shape, seed, smoothing=1.5, share=0.7):
    """A random mask of about 1 − ``share`` of the voxels, in blobs; some touch the border."""
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), smoothing)
    return values > np.quantile(values, share)


def expected(fixed, other, spacing, tolerance):
    """What DeepMind's package says of two masks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it uses names that SciPy is about to drop
        found = oracle.compute_surface_distances(fixed, other, spacing)
    names = ("distances_gt_to_pred", "surfel_areas_gt", "distances_pred_to_gt", "surfel_areas_pred")
    there, area, back, area_back = (found[name] for name in names)
    return {
        "dice": oracle.compute_dice_coefficient(fixed, other),
        "hd95_mm": oracle.compute_robust_hausdorff(found, 95.0),
        "assd_mm": ((there * area).sum() + (back * area_back).sum()) / (area.sum() + area_back.sum()),
        "surface_dice": oracle.compute_surface_dice_at_tolerance(found, tolerance),
    }


def label_volume(grid, seed=0, labels=3, smoothing=1.2):
    """A label map of blobs on a grid."""
    noise = np.random.default_rng(seed).normal(size=(labels + 1, *grid.shape))
    values = np.stack([ndimage.gaussian_filter(each, smoothing) for each in noise])
    return Volume(torch.from_numpy(values.argmax(0).astype(np.float32))[None], grid)


@pytest.mark.parametrize("spacing", [(0.7, 1.9, 3.1), (1.0, 1.0, 1.0), (0.4, 2.5)])
def test_areas_of_elements_are_those_of_the_package(spacing):
    """Each of the 16 or 256 neighbourhoods has the length or area that DeepMind's table gives it, at any spacing."""
    if len(spacing) == 2:
        kernel, table = ENCODE_NEIGHBOURHOOD_2D_KERNEL, create_table_neighbour_code_to_contour_length(spacing)
    else:
        kernel, table = ENCODE_NEIGHBOURHOOD_3D_KERNEL, create_table_neighbour_code_to_surface_area(spacing)
    corners = list(itertools.product((0, 1), repeat=len(spacing)))
    for code, area in enumerate(element_areas(spacing)):
        theirs = sum(int(kernel[corner]) for bit, corner in enumerate(corners) if code >> bit & 1)
        assert area == pytest.approx(table[theirs], abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spacing", [(2.1, 1.3, 0.8), (0.3, 0.1, 0.2), (1.7, 0.9)])
def test_measures_are_those_of_the_package(spacing, seed):
    """Dice, HD95, average distance and surface Dice of random masks, anisotropic, equal DeepMind's to 1e-3.

    The tolerance is a distance that occurs: what is exactly as far counts.
    """
    shape = (9, 14, 11)[: len(spacing)]
    fixed, other = blobs(shape, seed, 0.4 + 0.4 * seed), blobs(shape, seed + 50, 0.9)
    tolerance = 3 * spacing[-1]
    found = label_overlap(fixed, other, spacing, tolerance)
    for name, value in expected(fixed, other, spacing, tolerance).items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-9 if name != "dice" else 1e-12), name


def test_equal_masks_agree_and_empty_ones_do_not():
    """Equal masks are at Dice 1 and distance 0; against an empty one the Dice are 0 and there is no distance."""
    mask = blobs((9, 14, 11), 3)
    nothing = np.zeros_like(mask)
    same = Overlap(dice=1.0, hd95_mm=0.0, assd_mm=0.0, surface_dice=1.0)
    assert label_overlap(mask, mask, (2.1, 1.3, 0.8), 0.0) == same
    alone = Overlap(dice=0.0, hd95_mm=None, assd_mm=None, surface_dice=0.0)
    assert label_overlap(mask, nothing, (1.0, 1.0, 1.0), 2.0) == alone
    assert label_overlap(nothing, mask, (1.0, 1.0, 1.0), 2.0) == alone
    assert label_overlap(nothing, nothing, (1.0, 1.0, 1.0), 2.0) == Overlap()


@pytest.mark.parametrize("dimension", [2, 3])
def test_labels_come_by_nearest_neighbour_through_the_transform(dimension):
    """Labels on another oblique grid, read through a field, are those of SimpleITK's resampler at nearly all voxels."""
    grid = oblique_grid(dimension)
    labels, field = label_volume(moving_grid(grid), smoothing=0.7), smooth_field(grid)
    wanted = sitk_resample(labels, grid, sitk_transform(field), nearest=True, outside=0.0)
    assert (brought(to_labels(labels), Field(field.vox.float(), grid), grid) == wanted).mean() > 0.995
    assert len(np.unique(wanted)) == 4


def test_table_of_labels_is_that_of_other_tools():
    """Before and after a transform between oblique grids: SimpleITK's Dice, distances of DeepMind's package."""
    fixed, moving = label_volume(FIXED, 1), label_volume(moving_grid(FIXED), 2)
    field = smooth_field(FIXED)
    result = evaluate(sitk_transform(field), labels=(fixed, moving), label_names={2: "liver"})
    table = result.labels
    assert [row.name for row in table.each] == ["1", "liver", "3"]
    for side, transform in (("before", None), ("after", sitk_transform(field))):
        read = sitk_resample(moving, FIXED, transform, nearest=True, outside=0.0).astype(np.uint8)
        target = fixed.data[0].numpy().astype(np.uint8)
        overlap = sitk.LabelOverlapMeasuresImageFilter()
        overlap.Execute(sitk.GetImageFromArray(target), sitk.GetImageFromArray(read))
        for row in table.each:
            label, found = row.label, getattr(row, side)
            wanted = expected(target == label, read == label, FIXED.spacing, 2.0)
            assert found.dice == pytest.approx(overlap.GetDiceCoefficient(label), abs=1e-9)
            for name in ("hd95_mm", "assd_mm", "surface_dice"):
                assert getattr(found, name) == pytest.approx(wanted[name], abs=1e-9), (side, label, name)
        for name in ("dice", "hd95_mm", "assd_mm", "surface_dice"):
            each = [getattr(getattr(row, side), name) for row in table.each]
            assert getattr(getattr(table.mean, side), name) == pytest.approx(np.mean(each))


def test_true_transform_brings_labels_together():
    """The transform that made the moving labels brings the Dice near 1; in the wrong direction it does not."""
    shift = sitk.TranslationTransform(3, (2.4, -2.6, 4.2))
    fixed = label_volume(FIXED, 1, smoothing=2.0)
    grid = grid_at(np.add(centre(FIXED), (2.4, -2.6, 4.2)), (44, 41, 37), (0.6, 0.7, 1.1), rotation(3, -9.0))
    moving = Volume(
        torch.from_numpy(sitk_resample(fixed, grid, shift.GetInverse(), nearest=True, outside=0.0))[None], grid
    )
    right = evaluate(shift, labels=(fixed, moving)).labels.mean
    wrong = evaluate(shift.GetInverse(), labels=(fixed, moving)).labels.mean
    assert right.after.dice > 0.85
    assert right.after.hd95_mm < 2.2  # half a voxel of each grid
    assert wrong.after.dice < right.before.dice < 0.7


def test_what_is_missing_is_said_and_does_not_count():
    """A label of one map has no numbers; one that leaves the image has Dice 0; means are over what is on both sides."""
    data = torch.zeros(1, *FIXED.shape)
    data[0, 2:6, 3:9, 3:9] = 1
    data[0, 8:11, 3:9, 9:15] = 2
    other = data.clone()
    data[0, 12, 12, 12] = 7
    other[0, 0, 0, 0] = 9
    away = Field(torch.zeros(3, *FIXED.shape), FIXED)
    away.vox[0] = -9.0  # of label 1 two slices stay in the image, label 2 leaves it
    table = table_of_labels(
        to_labels(Volume(data, FIXED)), to_labels(Volume(other, FIXED)), (None, away), tolerance_mm=1.0
    )
    rows = {row.label: row for row in table.each}
    assert list(rows) == [1, 2, 7, 9]
    for label in (7, 9):
        assert rows[label].before == rows[label].after == Overlap()
    assert rows[1].before.dice == 1.0
    assert rows[2].after == Overlap(dice=0.0, surface_dice=0.0)
    assert table.mean.before.dice == 1.0
    assert table.mean.after.dice == pytest.approx(rows[1].after.dice / 2)
    assert table.mean.before.hd95_mm == 0.0
    assert table.mean.after.hd95_mm == rows[1].after.hd95_mm > 9
    notes = evaluate(away, labels=(Volume(data, FIXED), Volume(other, FIXED))).notes
    assert notes == (
        "Only one of the two label maps has: 7, 9.",
        "No voxel of the fixed image has these moving labels after, so no distance is known: 2.",
    )


def test_where_nothing_is_known_before_the_mean_after_stands_alone():
    """Of images that do not overlap before, the mean distance after is that over the labels; Dice has both sides."""
    labels = label_volume(FIXED)
    away = Field(torch.full((3, *FIXED.shape), 500.0), FIXED)
    found = table_of_labels(to_labels(labels), to_labels(labels), (away, None), tolerance_mm=1.0)
    assert found.mean.before == Overlap(dice=0.0, surface_dice=0.0)
    assert found.mean.after == Overlap(dice=1.0, hd95_mm=0.0, assd_mm=0.0, surface_dice=1.0)


@pytest.mark.parametrize(("value", "said"), [(0.5, "whole numbers"), (float("nan"), "NaN")])
def test_what_is_no_label_is_refused(value, said):
    """Probabilities and NaN are refused in one sentence."""
    labels = label_volume(FIXED)
    odd = Volume(labels.data.clone(), FIXED)
    odd.data[0, 3, 2, 1] = value
    for pair, name in (((odd, labels), "fixed"), ((labels, odd), "moving")):
        with pytest.raises(ImageError, match=said) as error:
            evaluate(Field.zeros(FIXED), labels=pair)
        assert f"{name} label map" in str(error.value)


def test_label_maps_that_do_not_belong_together_are_refused():
    """Maps without a label in common, of another dimension than the transform, or one alone, are refused."""
    labels = label_volume(FIXED)
    others = Volume(labels.data + 10 * (labels.data > 0), FIXED)
    with pytest.raises(ImageError, match="labels in common, got 1, 2, 3 in the fixed and 11, 12, 13 in the moving"):
        evaluate(Field.zeros(FIXED), labels=(labels, others))
    flat = label_volume(oblique_grid(2))
    with pytest.raises(GeometryError, match="moving label map in 3-D"):
        evaluate(Field.zeros(FIXED), labels=(labels, flat))
    with pytest.raises(ValueError, match="two label maps"):
        evaluate(Field.zeros(FIXED), labels=(labels,))


HIPPOCAMPI = [f"hippocampus/labels/hippocampus_{n:03d}.nii.gz" for n in (1, 3, 4, 6, 7, 8, 1)]
PAIRS = [*itertools.pairwise(HIPPOCAMPI), ("sct_spine/t2w_cord.nii.gz", "sct_spine/t1w_cord.nii.gz")]
"""Label maps of the fixed and of the moving image."""


@REAL
@pytest.mark.parametrize("pair", PAIRS, ids=[Path(moving).name.partition(".")[0] for _, moving in PAIRS])
def test_real_label_maps_measure_as_with_other_tools(pair):
    """Label maps of real pairs, as their headers place them: equal to SimpleITK and DeepMind's package to 1e-3."""
    fixed, moving = (read_image(DATA / name).volume for name in pair)
    table = table_of_labels(to_labels(fixed), to_labels(moving), (None, None))
    read = sitk.GetArrayFromImage(
        sitk.Resample(
            sitk.ReadImage(str(DATA / pair[1])), sitk.ReadImage(str(DATA / pair[0])),
            sitk.Transform(), sitk.sitkNearestNeighbor, 0,
        )
    )  # fmt: skip
    target = fixed.data[0].numpy()
    for row in table.each:
        wanted = expected(target == row.label, read == row.label, fixed.grid.spacing, 2.0)
        for name, value in wanted.items():
            assert getattr(row.after, name) == pytest.approx(value, abs=1e-3), name


def test_a_grid_of_one_slice_is_measured():
    """A label map of a single slice in 3-D is measured as one in 2-D: its faces above and below do not count."""
    grid = Grid.of_shape((1, 9, 8), (0.7, 1.1, 2.0))
    mask = np.zeros(grid.shape, bool)
    mask[0, 2:6, 3:7] = True
    other = np.roll(mask, 1, axis=2)
    found = label_overlap(mask, other, grid.spacing, 0.1)
    for name, value in expected(mask[0], other[0], grid.spacing[1:], 0.1).items():
        assert getattr(found, name) == pytest.approx(value), name
