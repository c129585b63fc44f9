"""Promises of rigid parts: each moves exactly rigidly, as the images say, and the rest follows without folds."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import distance_transform_edt

import semreg
from conftest import centre, grid_at, points_of, rotation
from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid, canonical_order
from semreg.errors import ConfigError, GeometryError
from semreg.io.bridge import to_labels
from semreg.io.records import record_of
from semreg.phantom import make_bones
from semreg.phantom.joint import BONES, MOTIONS
from semreg.registration.parts.held import folded, held, relaxed
from semreg.registration.parts.known import checked_parts, part_points
from semreg.registration.parts.motion import Compared, motion_of
from semreg.registration.parts.report import PartsReport
from semreg.registration.result import Record
from semreg.registration.uncertainty import BEFORE_PARTS
from semreg.transforms.maps import linear_about, mapped

PLACE = (12.0, -31.0, 58.0)
GRID = grid_at(PLACE, (34, 29, 31), (1.3, 1.7, 2.1), rotation(3))
QUICK = (
    "coarse.reach_mm=12", "refine.symmetric=false", "refine.diffusion=0.3", "fine.enabled=false",
    "uncertainty.enabled=false", "align.transform=none",
)  # fmt: skip


def labels_on(grid: Grid, **boxes: tuple[slice, ...]):
    """A label map with a box for each label, ``l3=(slices…)``."""
    data = torch.zeros(1, *grid.shape)
    for name, box in boxes.items():
        data[0][box] = int(name[1:])
    return to_labels(Volume(data, grid), "test")


def turned(grid: Grid, place: np.ndarray, degrees: float, shift: tuple[float, ...]) -> np.ndarray:
    """A rigid map about a point: the rotation of ``conftest`` and a shift in mm."""
    return linear_about(rotation(grid.dimension, degrees), place, place + np.array(shift))


TWO = {"l3": (slice(6, 14), slice(5, 12), slice(6, 13)), "l7": (slice(17, 26), slice(16, 24), slice(15, 25))}


@pytest.fixture(scope="module")
def two():
    """Two parts in a wavy displacement, their maps, and what becomes of it."""
    parts = checked_parts(labels_on(GRID, **TWO), (), GRID)
    points = points_of(GRID)
    waves = torch.stack([2 * torch.sin(points[(a + 1) % 3] / 9 + a) for a in range(3)])
    field = Field.from_mm(waves.float(), GRID)
    motions = [turned(GRID, part_points(parts, n).mean(1), 9.0 * n, (2.0, -1.0, 1.5 * n)) for n in (1, 2)]
    return parts, field, motions, held(field, parts.held(), motions, 4.0)


def test_parts_are_rigid_between_voxels_too(two):
    """Anywhere in a part and half a voxel around it ITK reads the field as its rigid map to 1e-3 mm."""
    parts, _, motions, found = two
    transform = found.field.to_sitk()
    random = np.random.default_rng(2)
    for number, motion in enumerate(motions, 1):
        index = (parts.numbers == number).nonzero().numpy().T[:, ::7]
        index = index + random.uniform(-0.5, 0.5, index.shape)
        points = mapped(GRID.index_to_point(), index.T)
        there = np.array([transform.TransformPoint(point) for point in points.tolist()])
        assert np.abs(there - mapped(motion, points)).max() < 1e-3


def test_around_parts_nothing_folds_and_far_away_nothing_changes(two):
    """No fold where parts turn by 9° and 18°; far away hardly anything of the change is left."""
    parts, field, _, found = two
    assert not bool(folded(field.vox).any())
    assert not bool(folded(found.field.vox).any())
    away = distance_transform_edt((parts.held() == 0).numpy(), sampling=GRID.spacing)
    far = torch.from_numpy(away > 2 * 4 * 4.0)
    assert bool(far.any())
    change = (found.field.vox - field.vox).abs()
    assert float(change[:, far].max()) < 0.02 * float(change.max())
    near = torch.from_numpy((away > 0) & (away < 4))
    assert float(change[:, near].mean()) > 0.1


def test_membranes_are_the_solution_of_their_equations():
    """The least of the sum over neighbours is that of a dense system written out as a loop."""
    shape, weights, hold = (4, 3, 5), (0.7, 1.9, 0.4), 0.13
    generator = torch.Generator().manual_seed(3)
    known = torch.rand(shape, generator=generator) < 0.3
    values = torch.where(known, torch.randn(shape, generator=generator), 0.0)
    count = int(np.prod(shape))
    system, right = np.eye(count) * hold, np.zeros(count)
    for here in np.ndindex(shape):
        for axis, weight in enumerate(weights):
            for step in (-1, 1):
                there = list(here)
                there[axis] += step
                if 0 <= there[axis] < shape[axis]:
                    row = np.ravel_multi_index(here, shape)
                    system[row, row] += weight
                    system[row, np.ravel_multi_index(there, shape)] -= weight
    for row in np.flatnonzero(known.numpy().ravel()):
        system[row] = np.eye(count)[row]
        right[row] = values.flatten()[row]
    expected = np.linalg.solve(system, right).reshape(shape)
    found = relaxed(values, known, weights, hold).numpy()
    assert np.abs(found - expected).max() < 1e-3


def test_parts_that_press_their_surroundings_are_opened():
    """Where the change and the displacement together would fold, what is free moves, and nothing folds."""
    grid = grid_at(PLACE, (28, 30, 40), (1.0, 1.2, 1.1), rotation(3))
    a, b = (slice(8, 14), slice(8, 22), slice(8, 22)), (slice(22, 28), slice(8, 22), slice(8, 22))
    parts = checked_parts(labels_on(grid, l1=a, l2=b), (), grid)
    way = grid.index_to_point()[:3, 0]
    motions = [linear_about(np.eye(3), np.zeros(3), sign * 2.0 * way) for sign in (1, -1)]
    index = torch.arange(40.0).reshape(-1, 1, 1).expand(grid.shape)
    field = Field(torch.stack([2.5 * torch.sin(index / 3), 0 * index, 0 * index]), grid)
    found = held(field, parts.held(), motions, 3.0)
    assert found.passes > 0
    assert not bool(folded(found.field.vox).any())


def test_parts_that_touch_leave_room_between_them():
    """Voxels beside both are held by none; all others of them are."""
    touching = {"l1": (slice(4, 12), slice(4, 20), slice(4, 20)), "l2": (slice(12, 20), slice(4, 20), slice(4, 20))}
    parts = checked_parts(labels_on(GRID, **touching), (), GRID)
    where = parts.held()
    assert not bool(where[11:13, 4:20, 4:20].any())
    assert bool((where[4:11, 4:20, 4:20] == 1).all())
    assert bool((where[13:20, 4:20, 4:20] == 2).all())
    assert bool((where[3, 4:20, 4:20] == 1).all()), "a voxel around a part goes with it"
    motions = [motion_of(parts, n, lambda p: p + 1.0, None) for n in (1, 2)]
    still = Field.from_mm(torch.ones(3, *GRID.shape), GRID)
    report = PartsReport.of(parts, motions, where, still, 0)
    assert report.parts[0].held_share == pytest.approx(7 / 8)
    assert "12% of it is not held" in report.sentences[0]
    assert report.parts[0].residual_mm == pytest.approx(0, abs=1e-5)


def test_labels_on_finer_and_turned_grids_find_their_voxels():
    """A part is where its labels are, on whatever grid; one that is smaller than a voxel is not lost."""
    fine = grid_at(PLACE, (90, 80, 84), (0.5, 0.6, 0.7), rotation(3, 40.0))
    points = points_of(fine).flatten(1).numpy()
    middle = centre(GRID)
    data = torch.zeros(1, *fine.shape)
    ball = np.linalg.norm(points - middle[:, None], axis=0) < 6
    data.view(-1)[torch.from_numpy(ball)] = 5
    spot = int(np.argmin(np.linalg.norm(points - middle[:, None] - [[9.0], [2.0], [-3.0]], axis=0)))
    data.view(-1)[spot] = 9
    parts = checked_parts(to_labels(Volume(data, fine), "test"), (), GRID)
    assert parts.labels == (5, 9)
    here = points_of(GRID).flatten(1).numpy()
    away = np.linalg.norm(here - middle[:, None], axis=0)
    found = (parts.numbers == 1).flatten().numpy()
    assert found[away < 5].all()
    assert not found[away > 7.5].any()
    assert int((parts.numbers == 2).sum()) == 1
    assert np.abs(part_points(parts, 2)[:, 0] - points[:, spot]).max() < max(GRID.spacing)


def test_what_a_turn_cannot_be_told_from_is_shifted_and_what_is_not_seen_is_not_followed():
    """Few voxels, a line and what the moving image does not show are each said, with the motion of the displacement."""
    few = (slice(3, 5), slice(3, 5), slice(3, 5))
    parts = checked_parts(
        labels_on(GRID, l1=few, l2=(10, 10, slice(0, 30)), l3=(slice(12, 20), slice(12, 20), slice(12, 20))), (), GRID
    )
    motion = turned(GRID, centre(GRID), 20.0, (1.0, 2.0, 3.0))

    def through(points):
        return mapped(motion, points.T).T

    noise = Volume(torch.rand(1, *GRID.shape, generator=torch.Generator().manual_seed(1)), GRID)
    far = replace(GRID, origin_xyz=tuple(np.array(GRID.origin_xyz) + 400.0))
    images = Compared((noise, None), (Volume(noise.data, far), None), 2.0, torch.device("cpu"))
    shifted, line, unseen = (motion_of(parts, n, through, images) for n in (1, 2, 3))
    for each, word in ((shifted, "has 8 voxels"), (line, "is a line")):
        assert np.allclose(each.matrix[:3, :3], np.eye(3))
        assert word in each.said[0]
        assert "only shifted" in each.said[0]
    place = part_points(parts, 1).mean(1)
    assert np.allclose(mapped(shifted.matrix, place[None]), mapped(motion, place[None]))
    assert np.allclose(unseen.matrix, motion, atol=1e-9)
    assert "lies in the moving image" in unseen.said[0]
    assert unseen.refined_mm is None


def test_labels_that_cannot_be_used_are_refused():
    """Unknown labels, none at all, another place and another dimension: each in one sentence."""
    found = labels_on(GRID, **TWO)
    with pytest.raises(ConfigError, match="got a label map with 3, 7: name labels that it has"):
        checked_parts(found, (3, 4), GRID)
    with pytest.raises(ConfigError, match="above 0, got a label map with none"):
        checked_parts(labels_on(GRID), (), GRID)
    with pytest.raises(GeometryError, match="in the box of the fixed image"):
        checked_parts(found, (), replace(GRID, origin_xyz=(900.0, 0.0, 0.0)))
    with pytest.raises(GeometryError, match="in 2-D as the images are, got labels in 3-D"):
        checked_parts(found, (), Grid.of_shape((9, 9)))
    with pytest.raises(ConfigError, match=r"refine\.axes of all axes with rigid parts"):
        semreg.register(
            Volume(torch.rand(1, *GRID.shape), GRID), Volume(torch.rand(1, *GRID.shape), GRID),
            rigid=found, config=semreg.configure("refine.axes=x"),
        )  # fmt: skip
    assert checked_parts(found, (7,), GRID).labels == (7,)


def test_labels_beside_the_image_are_left_out_and_said():
    """A label without a voxel in the fixed image is named; the others keep their own voxels."""
    wide = GRID.lattice((-40.0, 0.0, 0.0), (1.0, 1.0, 1.0), (74, *GRID.shape[1:]))
    labels = labels_on(wide, l2=(slice(0, 10), slice(4, 9), slice(4, 9)), l5=(slice(50, 60), slice(4, 9), slice(4, 9)))
    parts = checked_parts(labels, (), GRID)
    assert (parts.labels, parts.outside) == ((5,), (2,))
    assert bool((parts.numbers[10:20, 4:9, 4:9] == 1).all())
    report = PartsReport(parts=(), outside=parts.outside, passes=0)
    assert report.sentences == ["rigid parts outside of the fixed image, left out: 2"]


def test_parts_are_the_same_in_other_axes():
    """Permuted and flipped, a part keeps its points."""
    parts = checked_parts(labels_on(GRID, **TWO), (), GRID)
    turned_grid = grid_at(PLACE, (34, 29, 31), (1.3, 1.7, 2.1), rotation(3)[:, [2, 0, 1]] * [-1, 1, 1])
    other = checked_parts(labels_on(turned_grid, **TWO), (), turned_grid)
    for each in (parts, other):
        ordered = each.reordered(canonical_order(each.grid))
        before, after = (np.sort(part_points(p, 2).round(6), axis=1) for p in (each, ordered))
        assert np.allclose(before, after)


@pytest.fixture(scope="module")
def bones():
    """A joint of 40 voxels, from a start that is affine, without and with its bones as rigid parts."""
    pair = make_bones(size=40, landmarks=20)
    start = sitk.AffineTransform(3)
    start.SetCenter(centre(pair.fixed.grid).tolist())
    start.Scale((1.03, 0.98, 1.02))
    asked = {"initial": start, "config": semreg.configure(*QUICK)}
    return pair, [semreg.register(pair.fixed, pair.moving, rigid=r, **asked) for r in (None, pair.fixed_labels())]


def errors(pair, result):
    """In mm in each bone."""
    off = torch.linalg.vector_norm(result.field.mm() - pair.true_field().mm(), dim=0)
    return [float(off[pair.fixed_labels().data[0] == label].mean()) for label in BONES]


def test_bones_move_as_they_do(bones):
    """The error in each bone falls to less than two thirds, and its middle goes where it goes within 0.8 mm."""
    pair, (free, rigid) = bones
    for before, after in zip(errors(pair, free), errors(pair, rigid), strict=True):
        assert after < 0.67 * before
    for part in rigid.record.parts.parts:
        assert part.translation_mm == pytest.approx(MOTIONS[part.label][2], abs=0.8)


def test_the_result_is_rigid_in_bones_whatever_it_starts_from(bones):
    """Field and transform are each bone's rigid map, though the start scales; nothing folds; the record says so."""
    pair, (free, rigid) = bones
    labels, report = pair.fixed_labels().data[0], rigid.record.parts
    assert free.record.parts is None
    chain = sitk.CompositeTransform([rigid.affine, rigid.deformation.to_sitk()])  # the last one is applied first
    for part in report.parts:
        points = points_of(pair.fixed.grid)[:, labels == part.label].numpy().T
        matrix = np.array(part.matrix)
        assert np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-9)
        there = mapped(matrix, points)
        shift = rigid.field.mm()[:, labels == part.label].double().numpy().T
        assert np.abs(points + shift - there).max() < 1e-3
        through = np.array([chain.TransformPoint(point) for point in points[::9].tolist()])
        assert np.abs(through - there[::9]).max() < 1e-3
        assert part.residual_mm < 1e-3
        assert part.held_share == 1
        assert part.volume_mm3 == pytest.approx(len(points) * np.prod(pair.fixed.grid.spacing))
        assert part.from_rigid_mm.mean_mm > 0.005
        assert part.refined_mm > 0
    assert rigid.record.jacobian.folded_share == 0
    assert record_of(Record, rigid.record.to_dict(), Path("record.json")).parts == report


def test_without_refinement_the_map_is_the_nearest_one(bones):
    """``parts.refine=false`` fits the displacement and asks no image."""
    pair, _ = bones
    config = semreg.configure(*QUICK, "parts.refine=false", "parts.labels=2", "refine.levels=1")
    found = semreg.register(pair.fixed, pair.moving, rigid=pair.fixed_labels(), config=config).record.parts
    assert [each.label for each in found.parts] == [2]
    assert found.parts[0].refined_mm is None
    assert found.parts[0].residual_mm < 1e-3


def test_a_bent_start_is_rigid_in_parts_too(bones):
    """From a displacement field, and in 2-D from none: the written field is rigid in the part."""
    pair, (_, rigid) = bones
    again = semreg.register(
        pair.fixed, pair.moving, initial=rigid.field, rigid=pair.fixed_labels(),
        config=semreg.configure(*QUICK, "coarse.enabled=false"),
    )  # fmt: skip
    assert again.affine is None
    assert max(part.residual_mm for part in again.record.parts.parts) < 1e-3
    flat = grid_at(PLACE[:2], (60, 50), (1.1, 0.9), rotation(2))
    points = points_of(flat).numpy()
    middle = centre(flat)
    motion = turned(flat, middle, 8.0, (2.0, -1.0))

    def scene(places):
        x, y = places - middle[:, None, None]
        return torch.from_numpy(np.sin(x / 3) * np.cos(y / 4) + np.sin((x + y) / 7))[None].float()

    fixed = scene(mapped(motion, points.reshape(2, -1).T).T.reshape(points.shape))
    labels = labels_on(flat, l4=(slice(15, 35), slice(20, 40)))
    config = semreg.configure("uncertainty.enabled=false")
    found = semreg.register(Volume(fixed, flat), Volume(scene(points), flat), rigid=labels, config=config)
    (part,) = found.record.parts.parts
    assert part.residual_mm < 1e-3
    assert np.abs(np.array(part.matrix) - motion)[:2, :2].max() < 0.01
    assert part.rotation_deg == pytest.approx(8.0, abs=0.6)


def test_what_is_not_as_usual_is_said(caplog):
    """A part of few voxels is named in a warning of a run; the record says what the uncertainty is of."""
    pair = make_bones(size=24, landmarks=5)
    data = torch.zeros_like(pair.fixed_labels().data)
    data[0, 10:12, 10:12, 10:12] = 6
    with caplog.at_level(logging.WARNING, "semreg"):
        found = semreg.register(
            pair.fixed, pair.moving, rigid=Volume(data, pair.fixed.grid),
            config=semreg.configure(*QUICK, "uncertainty.enabled=true"),
        )  # fmt: skip
    assert found.record.uncertainty.note.endswith(BEFORE_PARTS)
    assert any("rigid part 6 has 8 voxels" in line for line in caplog.messages)
