"""Promises of the plan: it sees what an image is, keeps to the memory there is, and says why."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import grid_at, make_grid, noise, rotation
from semreg.config import FeatureConfig, FineConfig, ModelConfig, RefineConfig, RegistrationConfig
from semreg.core.fields import Volume
from semreg.core.geometry import index_map
from semreg.phantom import make_pair
from semreg.preprocess.modality import Recognised
from semreg.registration.matching import resolve_models
from semreg.registration.plan import ImageFacts, Machine, Plan, image_facts, make_plan, this_machine
from semreg.registration.plan.defaults import resolve
from semreg.registration.plan.image_facts import shares

PLENTY = Machine("cpu", 10**12)


def decided(fixed, moving, config, machine, *, initial=False) -> Plan:
    """The plan for two images, with the models of the settings."""
    pairings = resolve_models(config, fixed.grid.dimension, torch.device("cpu"))
    return make_plan((fixed, moving), config, machine, pairings=pairings, initial=initial)


def grid(size, spacing, centre=(13.0, -7.0, 41.0), degrees=17.0):
    return grid_at(centre[: len(size)], size, spacing, rotation(len(size), degrees))


BRAIN = ImageFacts(grid((160, 224, 192), (1.0, 1.0, 1.0)))
SMALL = ImageFacts(grid((35, 51, 36), (1.0, 1.1, 1.2)))


def volume(values, spacing=1.3):
    data = torch.as_tensor(np.asarray(values, dtype=np.float32))[None]
    return Volume(data, grid(tuple(data.shape[:0:-1]), (spacing,) * (data.ndim - 1)))


def smooth(shape=(12, 13, 14)):
    """A ramp with noise, of many values."""
    z, y, x = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return 40.0 * z + 20.0 * y + 13.0 * x + noise(*shape, seed=4).numpy()


def air_and_tissue():
    """CT: a block of 40 HU in air, both with noise."""
    values = np.full((12, 13, 14), -1000.0)
    values[3:9, 3:10, 4:11] = 40.0
    return values + 20.0 * noise(12, 13, 14, seed=4).numpy()


def pieces(values):
    """Blocks of a few values on a background of 0."""
    data = np.zeros((14, 15, 16))
    for number, value in enumerate(values):
        data[2 + 3 * number : 5 + 3 * number, 3:12, 4:13] = value
    return data


def test_the_kind_of_an_image_is_seen():
    """CT by its air, masks and labels by few values in pieces, pictures by 8 bits in 2-D, the rest is grey values."""
    assert image_facts(volume(air_and_tissue())).kind == "ct"
    assert image_facts(volume(smooth())).kind == "grey"
    assert image_facts(volume(smooth() - 1024.0)).kind == "grey"  # an image shifted
    assert image_facts(volume(np.round(smooth()))).kind == "grey"
    assert image_facts(volume(pieces([7]))).kind == "mask"
    assert image_facts(volume(pieces([3, 9, 17]))).kind == "labels"
    assert image_facts(volume(pieces([0.25, 0.5, 0.75]))).kind == "grey"
    assert image_facts(volume(np.round(smooth()[5] / 4))).kind == "picture"
    few = np.round(np.abs(noise(12, 13, 14).numpy()) * 20)  # 8 bits of noise: few values, not in pieces
    assert image_facts(volume(few)).kind == "grey"
    few[:, 2:] = 0  # a scan in a large empty field
    assert image_facts(volume(few)).kind == "grey"


def test_bad_values_say_nothing_of_the_kind():
    """NaN and infinities do not hide CT, and an image of nothing else is no error here."""
    values = air_and_tissue()
    values[0, 0, 0], values[1, 0, 0] = math.nan, -math.inf
    assert image_facts(volume(values)).kind == "ct"
    assert image_facts(volume(np.full((4, 5, 6), math.nan))).kind == "grey"


def test_real_phantoms_are_seen_as_what_they_are():
    """The CT-like phantom is CT and the MR-like one is not."""
    pair = make_pair(size=24)
    assert (image_facts(pair.fixed).kind, image_facts(pair.moving).kind) == ("ct", "grey")


def test_shares_of_the_boxes_are_those_counted_point_by_point():
    """The overlap agrees with a count over random points, both ways, oblique and of different size."""
    one = grid((20, 17, 13), (1.7, 2.1, 2.9))
    other = grid((11, 19, 23), (2.3, 1.9, 1.3), centre=(20.0, -1.0, 37.0), degrees=-31.0)
    random = np.random.default_rng(0)

    def share(a, b):
        index = np.vstack([random.uniform(-0.5, n - 0.5, 40000) for n in a.shape] + [np.ones(40000)])
        there = (index_map(a, b) @ index)[:-1]
        size = np.array(b.shape)[:, None]
        return float(((there >= -0.5) & (there < size - 0.5)).all(0).mean())

    found = shares(one, other)
    assert found == pytest.approx((share(one, other), share(other, one)), abs=0.02)
    assert found[0] != pytest.approx(found[1], abs=0.05)
    far = grid((11, 19, 23), (2.3, 1.9, 1.3), centre=(900.0, 0.0, 0.0))
    assert shares(one, far) == (0.0, 0.0)


@pytest.mark.parametrize("size", [(160, 224, 192), (166, 195, 25), (35, 51, 36), (4000, 3000), (220, 200)])
def test_with_memory_in_plenty_grids_decide_alone(size):
    """Where an image fits in memory the decisions are those of the plan, whatever its kind: no surprise by content."""
    sight = ImageFacts(grid(size, (1.1, 1.2, 4.0)[: len(size)]), "ct")
    found = decided(sight, sight, RegistrationConfig(), PLENTY)
    assert found.config == resolve(RegistrationConfig(), sight.grid)
    assert "too much" not in " ".join(found.sentences)


def test_little_memory_makes_it_coarser_and_says_so():
    """Settings get coarser just until they fit, features before voxels, and the sentence has both amounts."""
    ample = decided(BRAIN, BRAIN, RegistrationConfig(), PLENTY)
    share = ample.memory_bytes / 0.8
    found = decided(BRAIN, BRAIN, RegistrationConfig(), Machine("cpu", int(0.7 * share)))
    assert found.memory_bytes <= 0.7 * ample.memory_bytes
    assert found.config.fine.enabled is False
    assert (found.config.features.spacing_mm, found.config.features.pooling) == (1.0, 3)
    text = " ".join(found.sentences)
    assert "to fit in memory" in text
    assert "with finer settings it would have taken" in text


def test_voxels_get_larger_where_nothing_else_is_open():
    """With the blocks of features set, larger voxels make it fit, no larger than they must be."""
    config = replace(RegistrationConfig(), features=FeatureConfig(pooling=1))
    ample = decided(BRAIN, BRAIN, config, PLENTY)
    found = decided(BRAIN, BRAIN, config, Machine("cpu", int(0.4 * ample.memory_bytes / 0.8)))
    assert found.config.features.pooling == 1
    assert 1.0 < found.config.features.spacing_mm <= 2.0
    assert found.memory_bytes <= 0.4 * ample.memory_bytes
    assert "coarser than the 1 mm that this image deserves" in " ".join(found.sentences)


def test_what_was_set_is_kept_even_without_memory():
    """A setting is never changed to fit: the sentence says that it does not, and what to do."""
    config = replace(
        RegistrationConfig(),
        features=FeatureConfig(spacing_mm=1.0, pooling=1),
        refine=RefineConfig(symmetric=True),
        fine=FineConfig(enabled=True),
    )
    found = decided(BRAIN, BRAIN, config, Machine("cpu", 10**9))
    assert found.config == resolve(config, BRAIN.grid)
    assert "too much" in found.sentences[-1]
    assert "features.spacing_mm" in found.sentences[-1]


def test_a_field_too_large_for_memory_is_said():
    """Where the displacement on the fixed grid alone is too much, no setting helps and the advice is to crop."""
    huge = ImageFacts(grid((900, 900, 900), (0.3, 0.3, 0.3)))
    found = decided(huge, huge, RegistrationConfig(), Machine("cpu", 2 * 10**9))
    assert found.sentences[-1].endswith("too much: crop the fixed image.")


def test_both_directions_are_given_up_first():
    """A small image that does not fit is refined in one direction, at full resolution still."""
    sight = ImageFacts(grid((80, 81, 79), (1.0, 1.0, 1.0)))
    ample = decided(sight, sight, RegistrationConfig(), PLENTY)
    assert ample.config.refine.symmetric
    found = decided(sight, sight, RegistrationConfig(), Machine("cpu", int(ample.memory_bytes / 0.8) - 10**7))
    assert not found.config.refine.symmetric
    assert found.config.features == ample.config.features


def test_models_count_by_their_channels():
    """Many channels take more memory than few, their principal components less."""

    def needed(**model):
        config = replace(RegistrationConfig(), models=(ModelConfig(**model),))
        return decided(BRAIN, BRAIN, config, PLENTY).memory_bytes

    assert needed(model="mind") > needed(model="mind", pca=4) > needed(model="intensity")


def test_every_line_is_a_sentence_with_numbers_in_mm():
    """Each decision is a sentence; lengths are in mm, and the numbers are those of the settings."""
    found = decided(BRAIN, SMALL, RegistrationConfig(), PLENTY)
    assert all(line.endswith(".") and line[0].isupper() for line in found.sentences)
    assert sum(" mm" in line for line in found.sentences) >= 5
    text = " ".join(found.sentences)
    assert "160 × 224 × 192 voxels of 1 × 1 × 1 mm" in text
    assert "up to 32 mm along each axis" in text
    assert "control points 4 mm apart (8 mm where both turn out to differ in contrast after the search)" in text
    assert "as set" not in text


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("features.spacing_mm", "2.75", "of the moving image: as set"),
        ("features.pooling", "3", "3 mm: as set"),
        ("coarse.reach_mm", "17", "17 mm along each axis as set, rounded up to whole nodes: "),
        ("refine.symmetric", "true", "in both directions (as set)"),
        ("coarse.enabled", "false", "no search, as set"),
        ("align.transform", "none", "no alignment, as set"),
        ("align.transform", "affine", "turned by up to 45°, affine, as set"),
        ("intensities.body", "true", "around the body, as table and air, does not count, as set"),
        ("refine.enabled", "false", "no refinement, as set"),
    ],
)
def test_what_was_set_is_said_to_be_set(name, value, words):
    """The sentences tell what was decided from what was asked for."""
    from semreg.runtime.settings import override

    found = decided(BRAIN, BRAIN, override(RegistrationConfig(), f"{name}={value}"), PLENTY)
    assert words in " ".join(found.sentences)


def test_thick_slices_and_coarser_axes_are_named_in_space():
    """The thick axis is told by its direction in the body, not by the order of storage."""
    fixed = ImageFacts(grid((60, 61, 62), (1.0, 1.0, 1.0), degrees=0.0))
    sagittal = make_grid((64, 62, 12), (1.0, 1.0, 5.0), (0.0, 0.0, 0.0), [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    text = " ".join(decided(fixed, ImageFacts(sagittal), RegistrationConfig(), PLENTY).sentences)
    assert "The moving image's voxels are 5.0 times longer along x (5 mm)" in text
    assert "coarser along x (5 mm against 1 mm)" in text
    assert "along z" not in text.replace("along z (", "")


@pytest.mark.parametrize(
    ("centre", "initial", "words"),
    [
        ((13.0, -7.0, 41.0), False, "show the same box"),
        ((400.0, -7.0, 41.0), False, "do not overlap at all"),
        ((400.0, -7.0, 41.0), True, "as the initial transform says"),
        ((130.0, -7.0, 41.0), False, "which is little"),
    ],
)
def test_overlap_is_said(centre, initial, words):
    """How the headers put the images together, unless a transform says it."""
    moving = ImageFacts(grid((160, 224, 192), (1.0, 1.0, 1.0), centre=centre))
    assert words in " ".join(decided(BRAIN, moving, RegistrationConfig(), PLENTY, initial=initial).sentences)


def test_a_small_moving_image_is_said_to_show_a_part():
    """Where the moving image shows a part of the fixed one, the rest is said to be continued."""
    assert "only continued" in " ".join(decided(BRAIN, SMALL, RegistrationConfig(), PLENTY).sentences)


def test_labels_are_said_to_be_labels():
    """Two label images, or one by mistake, are pointed out."""
    labels, grey = replace(SMALL, kind="labels"), replace(SMALL, kind="grey")
    assert "only their borders" in " ".join(
        decided(labels, replace(SMALL, kind="mask"), RegistrationConfig(), PLENTY).sentences
    )
    assert "right file?" in " ".join(decided(labels, grey, RegistrationConfig(), PLENTY).sentences)
    assert "hold" not in " ".join(decided(grey, grey, RegistrationConfig(), PLENTY).sentences)


def test_who_says_what_an_image_is_is_said():
    """The sentences tell a guess from what a header says and from what was set; by default the whole image counts."""
    for known, words in (
        (Recognised("ct", "values"), "looks like CT in Hounsfield units"),
        (Recognised("ct", "header"), "is CT by its DICOM header"),
        (Recognised("mr", "settings"), "is MR as set"),
        (Recognised("other", "header"), "is neither CT nor MR by its DICOM header"),
    ):
        sight = replace(BRAIN, kind="ct" if known.ct else "grey", recognised=known)
        lines = decided(sight, BRAIN, RegistrationConfig(), PLENTY).sentences
        assert words in lines[0]
        assert "Table" not in " ".join(lines)


@pytest.mark.parametrize("size", [(1, 1, 1), (5, 1, 7), (4, 3, 5), (64, 60, 1), (5, 4)])
def test_tiny_images_are_decided_on(size):
    """Images of a few voxels, or of one slice, get settings and sentences like any other."""
    sight = ImageFacts(grid(size, (1.1, 1.2, 4.0)[: len(size)]))
    found = decided(sight, sight, RegistrationConfig(), PLENTY)
    assert found.config.coarse.reach_mm > 0
    assert "fewer than 20 " in " ".join(found.sentences) or min(n for n in size if n > 1) >= 20


def test_this_machine_has_memory():
    """The CPU's memory is that of the process and what is free, both above 0."""
    machine = this_machine(torch.device("cpu"))
    assert machine.device == "cpu"
    assert machine.usable_bytes > machine.held_bytes > 10**6


def test_the_same_images_are_decided_on_alike():
    """A decision depends on nothing but what it is given."""
    assert decided(BRAIN, SMALL, RegistrationConfig(), PLENTY) == decided(BRAIN, SMALL, RegistrationConfig(), PLENTY)
