"""Promises of a part that slides: its displacement may jump along the wall, and both sides stay in contact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

import semreg
from conftest import centre, grid_at, points_of, rotation
from semreg.core.fields import Field, Layer, Volume
from semreg.core.geometry import Grid, canonical_order
from semreg.core.sampling import sample, transform_index
from semreg.errors import ConfigError, GeometryError
from semreg.io.bridge import to_labels
from semreg.io.records import record_of
from semreg.phantom import make_chests
from semreg.registration import uncertainty
from semreg.registration.dense.correspondences import Correspondences
from semreg.registration.dense.data_term import distance_at
from semreg.registration.dense.objective import Problem
from semreg.registration.dense.prior import Prior
from semreg.registration.dense.terms import Term
from semreg.registration.guidance import Guidance
from semreg.registration.result import Record
from semreg.registration.sliding.contact import Contact
from semreg.registration.sliding.descent import points_on, side_of
from semreg.registration.sliding.objective import Sides
from semreg.registration.sliding.report import SlidingReport
from semreg.registration.sliding.wall import Wall, checked_wall
from semreg.registration.stages import uncertainty as stage
from semreg.transforms.bspline import SplineLattice
from semreg.transforms.maps import linear_about, mapped
from semreg.transforms.pointwise import ErrorSummary

GRID = grid_at((12.0, -31.0, 58.0), (44, 39, 35), (1.3, 1.5, 1.7), rotation(3))
CPU = torch.device("cpu")
RADIUS = 18.0


def ball(grid: Grid, radius: float = RADIUS) -> Wall:
    """The inside of a ball around the middle of a grid."""
    away = torch.linalg.vector_norm(points_of(grid) - torch.from_numpy(centre(grid)).reshape(3, 1, 1, 1), dim=0)
    return Wall(away < radius, grid)


def motion_of(grid: Grid, degrees: float, shift: tuple[float, ...]) -> Field:
    """The displacement of a rigid map about the middle of the grid."""
    points, middle = points_of(grid).flatten(1), centre(grid)
    matrix = linear_about(rotation(3, degrees), middle, middle + np.array(shift))
    moved = torch.from_numpy(mapped(matrix, points.T.numpy()).T)
    return Field.from_mm((moved - points).reshape(3, *grid.shape).float(), grid)


@pytest.fixture(scope="module")
def contact():
    """Of a ball, on a lattice of 6 mm."""
    lattice = SplineLattice(GRID, tuple(6.0 / s for s in GRID.spacing))
    return Contact(ball(GRID).points(), lattice, 2.0, CPU), lattice


def test_points_lie_on_the_wall_with_its_normals_and_area():
    """Of a ball: at its radius to a third of a voxel, normals to the outside, together its surface to 5 %."""
    found = ball(GRID).points()
    place = transform_index(GRID.index_to_point(), found.index) - torch.from_numpy(centre(GRID))[:, None]
    away = torch.linalg.vector_norm(place, dim=0)
    assert float((away - RADIUS).abs().mean()) < 0.4
    assert float((away - RADIUS).abs().max()) < 1.0
    along = transform_index(GRID.index_to_point(), found.normals / torch.tensor(GRID.spacing)[:, None])
    along = along - torch.from_numpy(GRID.index_to_point()[:3, 3])[:, None]
    facing = (along * place / away).sum(0)
    assert float(facing.min()) > 0.95
    assert float(found.areas.sum()) == pytest.approx(4 * np.pi * RADIUS**2, rel=0.05)


def test_a_turn_within_a_ball_leaves_no_gap_and_a_shift_does(contact):
    """By 25° the inside slides by up to 7.8 mm, and the surfaces stay together; 1.5 mm of shift are seen as such."""
    term, lattice = contact
    still = torch.zeros(3, *lattice.shape)
    turned = lattice.fit(motion_of(GRID, 25.0, (0.0, 0.0, 0.0)))
    term.meet(turned, still)
    assert term.slides_mm(turned, still).max() == pytest.approx(2 * RADIUS * np.sin(np.deg2rad(12.5)), rel=0.08)
    assert term.gaps_mm(turned, still).mean() < 0.15
    shifted = lattice.fit(motion_of(GRID, 0.0, (0.0, 0.0, 1.5)))
    term.meet(shifted, still)
    up = transform_index(np.linalg.inv(np.block([[GRID.index_to_point()[:3, :3], np.zeros((3, 1))], [0, 0, 0, 1]])),
                         torch.tensor([[0.0], [0.0], [1.5]], dtype=torch.float64))  # fmt: skip
    expected = (up * torch.tensor(GRID.spacing)[:, None] * term.normals.double()).sum(0)
    assert float((term.gaps(shifted, still).double() - expected).abs().mean()) < 0.1


def test_contact_has_the_gradient_of_its_value_and_both_sides_have(contact):
    """By central differences, in the coefficients of the inside and of the outside."""
    term, lattice = contact
    generator = torch.Generator().manual_seed(1)
    both = 0.4 * torch.randn(6, *lattice.shape, generator=generator)
    term.meet(*both.chunk(2))
    features = [Layer(Volume(torch.randn(2, *GRID.shape, generator=generator), GRID), None) for _ in range(2)]
    terms, wall = (Term(*features),), ball(GRID)
    config = semreg.configure("refine.diffusion=0.5").refine
    problems = [
        Problem(side_of(wall, terms, inner=inner), lattice, config, prior=Prior(stiffness=wall.share(inner=inner)))
        for inner in (True, False)
    ]
    objective = Sides(*problems, term)
    found = objective.evaluate(both, 2.0)
    _, inner, outer = term.pull(*both.chunk(2), 2.0)
    direction = torch.randn(both.shape, generator=generator)
    step = 1e-2
    ends = [term.pull(*(both + sign * step * direction).chunk(2), 2.0)[0] for sign in (1, -1)]
    slope = float((torch.cat([inner, outer]) * direction).sum())
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope, rel=1e-3)
    parts = [problem.evaluate(half, 2.0) for problem, half in zip(problems, both.chunk(2), strict=True)]
    assert found.value == pytest.approx(parts[0].value + parts[1].value + term.pull(*both.chunk(2), 2.0)[0], rel=1e-6)
    assert torch.allclose(found.gradient, torch.cat([p.gradient for p in parts]) + torch.cat([inner, outer]))


def test_both_sides_together_count_as_all_samples_did():
    """The distance of one displacement for both is that of both terms summed."""
    generator = torch.Generator().manual_seed(2)
    features = [Layer(Volume(torch.randn(2, *GRID.shape, generator=generator), GRID), None) for _ in range(2)]
    terms, still = (Term(*features),), Field.zeros(GRID)
    whole = distance_at(terms, still)
    sides = [distance_at(side_of(ball(GRID), terms, inner=inner), still) for inner in (True, False)]
    assert sum(sides) == pytest.approx(whole, rel=1e-5)
    assert min(sides) > 0.05 * whole


@pytest.fixture(scope="module")
def slid():
    """A chest of 40 voxels whose inside slides, without and with the wall."""
    pair = make_chests(size=40, slide_mm=11.0, seed=0, landmarks=20, displacement_mm=4.0)
    lung = Volume((pair.fixed_labels().data == 1).float(), pair.fixed.grid)
    config = semreg.configure("align.transform=none", "uncertainty.enabled=false", "refine.symmetric=false")
    plain = semreg.register(pair.fixed, pair.moving, config=config)
    return pair, lung, plain, semreg.register(pair.fixed, pair.moving, config=config, sliding=lung)


def test_near_the_wall_the_error_is_less_than_half(slid):
    """Inside, within 6 mm of the wall; further away it is no larger, and what is said agrees with the truth."""
    pair, lung, plain, found = slid
    inside = lung.data[0].numpy() > 0
    near = distance_transform_edt(inside, sampling=pair.fixed.grid.spacing)
    errors = [
        torch.linalg.vector_norm(each.field.mm() - pair.true_field().mm(), dim=0).numpy() for each in (plain, found)
    ]
    close, deep = inside & (near < 6), near >= 6
    assert errors[1][close].mean() < 0.5 * errors[0][close].mean()
    assert errors[1][deep].mean() < errors[0][deep].mean() + 0.1
    said = found.record.sliding
    assert said.slide_mm.mean_mm == pytest.approx(11.0, abs=2.5)
    assert said.gap_mm.mean_mm < 0.5
    assert found.record.jacobian.folded_share == 0.0
    assert 0 < said.across_share < 0.02
    assert plain.record.sliding is None


def test_the_longest_slide_is_where_it_is_said(slid):
    """There are voxels of both sides around it, whose displacements are as far apart as the longest slide."""
    _, lung, _, found = slid
    said = found.record.sliding
    place = mapped(lung.grid.point_to_index(), np.array([said.most_at]))[0].round().astype(int)
    box = tuple(slice(at - 2, at + 3) for at in place)
    moved, inside = found.field.mm()[(slice(None), *box)], lung.data[0][box] > 0
    apart = torch.linalg.vector_norm(moved[:, inside].mean(1) - moved[:, ~inside].mean(1))
    assert float(apart) == pytest.approx(said.slide_mm.maximum_mm, rel=0.1)


def test_itk_reads_the_jump_and_the_record_is_read_again(slid):
    """At voxel centres ITK maps points as the field does, on both sides; the record keeps what slides."""
    pair, lung, _, found = slid
    transform, grid = found.field.to_sitk(), pair.fixed.grid
    beside = np.argwhere(np.diff(lung.data[0].numpy(), axis=1) != 0)[::37]
    jumps = []
    for index in beside:
        ends = []
        for step in (0, 1):
            place = index + np.array([0, step, 0])
            point = mapped(grid.index_to_point(), place[None].astype(float))[0]
            moved = np.array(transform.TransformPoint(point.tolist())) - point
            assert np.allclose(moved, found.field.mm()[:, *place].numpy(), atol=1e-3)
            ends.append(moved)
        jumps.append(np.linalg.norm(ends[0] - ends[1]))
    assert np.median(jumps) > 5.0
    assert record_of(Record, found.record.to_dict(), Path("record.json")).sliding == found.record.sliding


def test_a_wall_that_lets_gaps_open_is_said():
    """What is more than a voxel apart is a sentence; what is less is none."""
    small, large = (ErrorSummary(mean_mm=1.0, p95_mm=p95, maximum_mm=4.0) for p95 in (1.2, 2.5))
    usual = SlidingReport(
        labels=(1,),
        area=10.0,
        slide_mm=large,
        most_at=(0.0, 0.0),
        gap_mm=small,
        unmatched_share=0.0,
        across_share=0.0,
        voxel_mm=2.0,
    )
    assert usual.sentences == []
    assert replace(usual, gap_mm=large).sentences == [
        "both sides of the wall that slides are up to 2.5 mm apart: look at its mask"
    ]


def test_masks_that_cannot_be_used_are_refused():
    """No voxel, all voxels, unknown labels, another dimension, rigid parts besides, no refinement."""
    data = torch.zeros(1, *GRID.shape)
    data[0, 5:20, 5:20, 5:20] = 2
    found, image = to_labels(Volume(data, GRID), "test"), Volume(torch.rand(1, *GRID.shape), GRID)
    assert checked_wall(found, (), GRID).labels == (2,)
    with pytest.raises(ConfigError, match="of what slides 3, got a label map with 2: name labels"):
        checked_wall(found, (3,), GRID)
    with pytest.raises(ConfigError, match="above 0, got a label map with none"):
        checked_wall(to_labels(Volume(torch.zeros(1, *GRID.shape), GRID), "test"), (), GRID)
    with pytest.raises(GeometryError, match="got one with all of them inside"):
        checked_wall(to_labels(Volume(torch.ones(1, *GRID.shape), GRID), "test"), (), GRID)
    with pytest.raises(GeometryError, match="got one with none of them inside"):
        checked_wall(found, (), replace(GRID, origin_xyz=(900.0, 0.0, 0.0)))
    with pytest.raises(GeometryError, match="in 2-D as the images are, got labels in 3-D"):
        checked_wall(found, (), Grid.of_shape((9, 9)))
    with pytest.raises(ConfigError, match="expected rigid parts or a part that slides, got both"):
        semreg.register(image, image, sliding=found, rigid=found)
    with pytest.raises(ConfigError, match=r"expected refine\.enabled=true with a part that slides"):
        semreg.register(image, image, sliding=found, config=semreg.configure("refine.enabled=false"))
    with pytest.raises(ConfigError, match=r"sliding\.labels other than 0"):
        semreg.configure("sliding.labels=0")


def test_walls_are_the_same_in_other_axes():
    """Permuted and flipped, the wall keeps its points in mm and its area."""
    wall = ball(GRID)
    turned = wall.reordered(canonical_order(GRID))
    ends = [
        transform_index(each.grid.index_to_point(), each.points().index).numpy().round(4) for each in (wall, turned)
    ]
    assert np.allclose(*(np.sort(end, axis=1) for end in ends), atol=1e-3)


def test_two_dimensions_and_landmarks_work_too():
    """A disc that moves in a ring, in 2-D, with a landmark on each side: less of an error on both than without."""
    grid = Grid.of_shape((72, 64))
    points = points_of(grid)
    middle = torch.tensor([32.0, 36.0], dtype=torch.float64).reshape(2, 1, 1)
    generator = torch.Generator().manual_seed(5)
    rough = torch.nn.functional.interpolate(
        torch.randn(1, 1, 24, 22, generator=generator), size=(72, 64), mode="bicubic", align_corners=True
    )[0]
    fixed = Volume(rough, grid)
    inside = torch.linalg.vector_norm(points - middle, dim=0) < 18
    angle = np.deg2rad(20.0)
    turn = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    back = torch.einsum("ij,jyx->iyx", turn.T, points - middle) + middle
    back = torch.where(inside, back, points)
    index = transform_index(grid.point_to_index(), back.flatten(1)).float()
    moving = Volume(sample(fixed.data, index).reshape(1, 72, 64), grid)
    wall = to_labels(Volume(inside.float()[None], grid), "test")
    marks = np.array([[32.0, 26.0], [6.0, 8.0]])
    there = marks.copy()
    there[0] = (turn.numpy() @ (marks[0] - [32, 36])) + [32, 36]
    guidance = Guidance(landmarks=(marks, there), landmark_sd_mm=1.0)
    config = semreg.configure("align.transform=none", "uncertainty.enabled=false", "features.spacing_mm=1")
    plain, found = (
        semreg.register(fixed, moving, sliding=given, guidance=guidance, config=config) for given in (None, wall)
    )
    truth = torch.where(inside, torch.einsum("ij,jyx->iyx", turn, points - middle) + middle - points, 0.0)
    before, after = (torch.linalg.vector_norm(each.field.mm() - truth, dim=0) for each in (plain, found))
    for side in (inside, ~inside):
        assert float(after[side].mean()) < 0.9 * float(before[side].mean())
    assert found.record.guidance.landmarks.after.maximum_mm < 1.5


def test_landmarks_belong_to_their_side():
    """A point inside counts for the inside alone."""
    index = torch.tensor([[17.0, 1.0], [19.0, 1.0], [22.0, 1.0]], dtype=torch.float64)
    points = Correspondences(GRID, index, index + 1, torch.ones(2))
    near, far = (points_on(points, ball(GRID), inner=inner) for inner in (True, False))
    assert torch.equal(near.fixed, index[:, :1])
    assert torch.equal(far.fixed, index[:, 1:])
    assert points_on(replace(points, fixed=index[:, :1]), ball(GRID), inner=False) is None


def test_masks_that_leave_one_side_out_are_told():
    """The mask of what slides as the mask of the fixed image leaves nothing to compare outside of it."""
    pair = make_chests(size=32, landmarks=5)
    lung = Volume((pair.fixed_labels().data == 1).float(), pair.fixed.grid)
    with pytest.raises(GeometryError, match="masks that leave nothing outside"):
        semreg.register(
            pair.fixed, pair.moving, sliding=lung, fixed_mask=lung, config=semreg.configure("align.transform=none")
        )


def test_each_side_is_in_doubt_of_its_own(monkeypatch):
    """The map is that around the displacement of its side, from features on that side alone; both are joined."""
    pair, calls = make_chests(size=32, landmarks=5), []
    lung = Volume((pair.fixed_labels().data == 1).float(), pair.fixed.grid)

    def told(terms, found, *args, **more):
        calls.append((terms, found, uncertainty.estimate(terms, found, *args, **more)))
        return calls[-1][2]

    monkeypatch.setattr(stage, "estimate", told)
    config = semreg.configure("align.transform=none", "fine.enabled=false")
    result = semreg.register(pair.fixed, pair.moving, sliding=lung, config=config)
    inside, axes = lung.data[0] > 0, canonical_order(lung.grid)
    assert len(calls) == 2
    assert result.record.uncertainty.note == uncertainty.NOTE
    for (terms, found, doubt), side in zip(calls, (inside, ~inside), strict=True):
        near = found.on(lung.reordered(axes).grid).reordered(axes.inverse).mm()
        off = torch.linalg.vector_norm(near - result.deformation.mm(), dim=0)
        assert float(off[side].mean()) < 0.1
        assert float(off[~side].mean()) > 1.0
        share = Volume(side.float()[None], lung.grid).reordered(axes).averaged_on(terms[0].fixed.grid)
        assert torch.allclose(terms[0].fixed.weight.data, share.data, atol=1e-5)
        deep = torch.from_numpy(distance_transform_edt(side.numpy()) > 4)
        assert torch.allclose(result.uncertainty.data[0][deep], doubt.on_image(axes, lung.grid).data[0][deep])
