"""Promises of labels from file to file: exact ids, nothing invented outside, losses said, names kept."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk

from conftest import give_header, make_grid, rotation
from semreg.core.fields import Field
from semreg.io.bridge import to_labels
from semreg.io.files import read_labels
from semreg.quality import evaluate
from semreg.transforms import Chain, Interpolation, lost_labels, resample

GRID = make_grid((9, 8, 7), (1.1, 1.4, 1.9), (-31.0, 12.5, 77.0), rotation(3))
LARGE = (2**53 + 1, 2**62 + 3, 2**63 - 1)
"""Ids that float64 does not hold."""


def label_image(ids, dtype=np.int64, background=0):
    """Blocks of labels, asymmetric, the last one in a corner."""
    values = np.full(GRID.shape, background, dtype)
    values[1:4, 1:5, 2:6], values[4:6, 2:7, 1:4], values[6:, 6:, 7:] = ids
    return give_header(sitk.GetImageFromArray(values), GRID)


@pytest.mark.parametrize("interpolation", [Interpolation.NEAREST, Interpolation.LABEL])
@pytest.mark.parametrize(("dtype", "ids"), [(np.int64, LARGE), (np.uint64, (2**53 + 1, 2**63 + 1, 2**64 - 1))])
def test_ids_of_64_bits_stay_exact(interpolation, dtype, ids):
    """Labels that no float holds come through a transform as they are."""
    image = label_image(ids, dtype)
    shift = Chain.of(sitk.TranslationTransform(3, (0.2, -0.1, 0.3)))
    found = sitk.GetArrayFromImage(resample(image, shift, GRID, interpolation))
    assert found.dtype == dtype
    assert {int(label) for label in np.unique(found)} == {0, *ids}


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32])
def test_nothing_is_0_among_labels(dtype):
    """What lies outside a label map is 0 and not its smallest label, be it 3 or, for what is unknown, −1."""
    away = Chain.of(sitk.TranslationTransform(3, (900.0, 0.0, 0.0)))
    for background in (3, 3 if np.dtype(dtype).kind == "u" else -1):
        image = label_image((4, 5, 6), dtype, background)
        assert not sitk.GetArrayFromImage(resample(image, away, GRID, Interpolation.NEAREST)).any()
    grey = give_header(sitk.GetImageFromArray(np.full(GRID.shape, 2.5, np.float32)), GRID)
    assert (sitk.GetArrayFromImage(resample(grey, away, GRID, Interpolation.NEAREST)) == 2.5).all()


def test_labels_that_vanish_are_said(tmp_path, run):
    """A label that has no voxel in the result is named in the log and in --json, and only such a label."""
    sitk.WriteImage(label_image((2, 41, 7), np.uint8), str(tmp_path / "labels.nrrd"))
    direction = np.array(GRID.direction)
    shift = direction @ np.array([-3.0, 0.0, 0.0]) * 1.1  # the label in the corner leaves the image
    sitk.WriteTransform(sitk.TranslationTransform(3, tuple(shift)), str(tmp_path / "t.tfm"))
    command = ["apply", tmp_path / "t.tfm", "-i", tmp_path / "labels.nrrd", "-r", tmp_path / "labels.nrrd"]
    for kind in ("nearest", "label"):
        code, out, err = run(*command, "-o", tmp_path / "o.nrrd", "--interpolation", kind, "--json")
        assert (code, json.loads(out)["labels_lost"], json.loads(out)["background"]) == (0, [7], 0.0)
        assert "no voxel in the result: 7" in err
    there = label_image((2, 41, 7), np.uint8)
    assert lost_labels(there, there) == []


def slicer_segmentation(path):
    """A .seg.nrrd as 3D Slicer writes one."""
    image = label_image((1, 2, 5), np.uint8)
    for number, (label, name) in enumerate(((1, "liver"), (2, "left kidney"), (5, "tumour"))):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", str(label))
        image.SetMetaData(f"Segment{number}_Layer", "0")
        image.SetMetaData(f"Segment{number}_Color", f"0.{number + 1} 0.5 0.25")
        image.SetMetaData(f"Segment{number}_Extent", "0 8 0 7 0 6")
    image.SetMetaData("Segmentation_ReferenceImageExtentOffset", "3 4 5")
    sitk.WriteImage(image, str(path))
    return path


def test_segments_keep_names_and_colours(tmp_path, run):
    """Names and colours of segments go to the result, with the extents that they have there; elsewhere it is said."""
    source = slicer_segmentation(tmp_path / "a.seg.nrrd")
    assert read_labels(source).names == {1: "liver", 2: "left kidney", 5: "tumour"}
    direction = np.array(GRID.direction)
    sitk.WriteTransform(sitk.TranslationTransform(3, tuple(direction @ [1.1, 0.0, 0.0])), str(tmp_path / "t.tfm"))
    command = ["apply", tmp_path / "t.tfm", "-i", source, "-r", source, "--interpolation", "nearest", "-o"]
    assert run(*command, tmp_path / "b.seg.nrrd")[0] == 0
    image = sitk.ReadImage(str(tmp_path / "b.seg.nrrd"))
    assert image.GetMetaData("Segment1_Name") == "left kidney"
    assert image.GetMetaData("Segment2_Color") == "0.3 0.5 0.25"
    assert image.GetMetaData("Segment0_Extent") == "1 4 1 4 1 3"  # one voxel nearer to the start along x
    assert image.GetMetaData("Segmentation_ReferenceImageExtentOffset") == "0 0 0"
    code, _, err = run(*command, tmp_path / "b.nii.gz")
    assert code == 0
    assert "the names and colours of the segments are lost" in err


def test_ids_of_64_bits_are_measured_by_their_names():
    """An evaluation tells ids apart that float64 does not, and calls each by its own number."""
    fixed, moving = label_image(LARGE), label_image((LARGE[0] - 1, *LARGE[1:]))  # its neighbour
    found = evaluate(Field.zeros(GRID), labels=(fixed, moving))
    rows = {row.label: row.after.dice for row in found.labels.each}
    assert rows == {LARGE[0] - 1: None, LARGE[0]: None, LARGE[1]: 1.0, LARGE[2]: 1.0}
    assert to_labels(fixed).labels == (0, *LARGE)
    highest = to_labels(label_image((2**64 - 3, 2**64 - 2, 2**64 - 1), np.uint64, 2**64 - 4))
    assert highest.labels == (0, *range(2**64 - 4, 2**64))


def test_names_of_segments_are_those_of_the_evaluation(tmp_path):
    """Without a table of names those of the file count."""
    source = slicer_segmentation(tmp_path / "a.seg.nrrd")
    found = evaluate(Field.zeros(GRID), labels=(source, source))
    assert [row.name for row in found.labels.each] == ["liver", "left kidney", "tumour"]
