"""Promises of templates: the mean shape and position of the images, whichever of them it starts from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cohort_bodies import landmark_error, make_cohort
from conftest import make_grid, oblique_grid, rotation
from pages import blocks
from semreg import RegistrationConfig
from semreg.config import AlignConfig, RefineConfig
from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.registration.template import InProcess, TemplateOptions, build_template, mean_frame, mean_image
from semreg.transforms.maps import linear_about, mapped
from semreg.transforms.mean import MeanMap

QUICK = RegistrationConfig(align=AlignConfig(transform="none"), refine=RefineConfig(iterations=6, levels=1))
VOXEL_MM = 4.0


@pytest.fixture(scope="module")
def cohort():
    """Eight images of one body, deformed by fields whose mean is 0."""
    found = make_cohort(8, size=48)
    assert float((found.mean_landmarks - found.landmarks).norm(dim=0).max()) < 1e-9
    assert found.mean.grid.spacing == (VOXEL_MM, VOXEL_MM)
    return found


@pytest.fixture(scope="module")
def made(cohort):
    """The template of the cohort, and what each round told."""
    told = []
    found = build_template(
        cohort.images, options=TemplateOptions(rounds=2), config=QUICK, on_round=lambda *each: told.append(each)
    )
    return found, told


def test_a_template_has_the_mean_shape(cohort, made):
    """Landmarks carried from all images to the template lie, in the mean, within half a voxel of where they are in the
    body; with the best single image in its place they do not come as near.
    """
    found, _ = made
    error = landmark_error(cohort, found.fields)
    assert error < 0.5 * VOXEL_MM
    off = [float((member.moved - cohort.landmarks).norm(dim=0).mean()) for member in cohort.members]
    best = int(np.argmin(off))
    single = InProcess(cohort.images, QUICK, "cpu").register(cohort.images[best], 1, [np.eye(3)] * 8)
    assert error < 0.5 * landmark_error(cohort, single)


def test_rounds_tell_how_the_mean_displacement_goes(cohort, made):
    """It falls, the template changes less and less, and the last word is on the template that is returned."""
    found, told = made
    assert [each.number for each in found.rounds] == [1, 2, 3]
    assert found.rounds[1].residual_mm < found.rounds[0].residual_mm
    assert found.rounds[1].change < found.rounds[0].change
    assert found.rounds[-1].change is None
    assert told[-1][1] is found.image
    assert [each for each, _ in told] == list(found.rounds)
    spread = [float((m.moved - cohort.landmarks).norm(dim=0).mean()) for m in cohort.members]
    assert found.rounds[-1].deformation_mm == pytest.approx(np.mean(spread), rel=0.4)


def test_images_come_onto_the_template(cohort, made):
    """Read through their fields they are alike, and on its grid."""
    found, _ = made
    before = torch.stack([image.data for image in cohort.images]).std(0).mean()
    after = torch.stack([image.data for image in found.warped(cohort.images)])
    known = torch.isfinite(after).all(0)
    assert after.shape[1:] == found.image.data.shape
    assert float(after[:, known].std(0).mean()) < 0.6 * float(before)


def test_without_a_step_the_mean_displacement_stays():
    """What takes the bias away is the step: without it the template keeps the shape it started with."""
    cohort = make_cohort(3, size=40)
    taken, left = (
        build_template(cohort.images, options=TemplateOptions(rounds=1, step=step), config=QUICK).rounds[-1].residual_mm
        for step in (1.0, 0.0)
    )
    assert taken < left


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_mean_of_turned_maps_does_not_shrink(dimension):
    """Turned by ±40° about the middle, shifted to either side and stretched by 1.2 and 0.8: the mean is no map at all.

    The mean of the displacements would shrink by cos 40°.
    """
    points = np.random.default_rng(1).normal(size=(dimension, 400)) * 20 + 50
    middle = points.mean(1)
    mean = MeanMap(points)
    for sign in (1, -1):
        matrix = linear_about(rotation(dimension, sign * 40) * (1 + sign * 0.2), middle, middle + sign * 7)
        mean.add(mapped(matrix, points.T).T)
    np.testing.assert_allclose(mean.points(), points, atol=1e-9)


def test_what_does_not_count_does_not_turn():
    """Points beside the body that a map throws about change neither pose nor deformation."""
    points = np.random.default_rng(2).normal(size=(2, 100)) * 10
    counts = np.arange(100) < 60
    moved = points.copy()
    moved[:, ~counts] += 30
    mean = MeanMap(points, counts)
    mean.add(moved)
    np.testing.assert_allclose(mean.points(), moved, atol=1e-9)
    assert mean.deformation_mm == pytest.approx(0, abs=1e-9)


def test_the_frame_has_room_for_all_and_lies_in_their_middle():
    """Images on grids of their own, shifted, turned and stretched: each box is within, and the mean map is none."""
    grids = [oblique_grid(3), oblique_grid(3, degrees=40.0), make_grid((9, 4, 6), (1, 2, 1.5), (0, 1, 2), np.eye(3))]
    centres = [grid.corners_xyz().mean(0) for grid in grids]
    shapes = (np.eye(3), rotation(3, 21) * 1.1, rotation(3, -13) * 0.9)
    linear = [linear_about(shape, centres[0], centre) for shape, centre in zip(shapes, centres, strict=True)]
    frame, found = mean_frame(linear, grids, 0)
    assert frame.direction == grids[0].direction
    np.testing.assert_allclose(frame.spacing, grids[0].spacing)
    low, high = -0.51, np.array(frame.shape) - 0.49
    for matrix, grid in zip(found, grids, strict=True):
        index = mapped(frame.point_to_index(), mapped(np.linalg.inv(matrix), grid.corners_xyz()))
        assert (index >= low).all()
        assert (index <= high).all()
    corners = grids[0].corners_xyz()
    inner = mapped(np.linalg.inv(found[0]), corners)
    again = MeanMap(inner.T)
    for matrix in found:
        again.add(mapped(matrix, inner).T)
    np.testing.assert_allclose(again.points().T, inner, atol=0.5)
    # beside it, the mean of the places of the centre is exact
    middle = mapped(np.linalg.inv(found[0]), centres[0][None])
    np.testing.assert_allclose(np.mean([mapped(m, middle)[0] for m in found], 0), middle[0], atol=1e-6)


@pytest.mark.parametrize("grid", [oblique_grid(3), oblique_grid(2), Grid.of_shape((40, 40, 40), (4.8, 4.8, 4.8))])
def test_the_frame_of_images_that_lie_on_each_other_is_theirs(grid):
    """No voxel more, whatever the last digits say."""
    frame, found = mean_frame([np.eye(grid.dimension + 1)] * 3, [grid] * 3, 1)
    assert frame.shape == grid.shape
    np.testing.assert_allclose(frame.index_to_point(), grid.index_to_point(), atol=1e-9)
    np.testing.assert_allclose(found, [np.eye(grid.dimension + 1)] * 3, atol=1e-9)


def test_a_mean_is_over_the_images_that_show_something():
    """By hand: two rows of voxels, one of which ends earlier and has a gap; ranges are made alike."""
    grid, short = (Grid.of_shape(shape) for shape in ((2, 4), (2, 3)))
    one = Volume(torch.arange(8.0).reshape(1, 2, 4), grid)
    two = Volume(100 * torch.arange(6.0).reshape(1, 2, 3), short)
    two.data[0, 0, 1] = torch.nan
    ranges = np.array([[0.0, 10.0], [0.0, 1000.0]])
    found = mean_image([one, two], ranges, [Field.zeros(grid)] * 2, grid)
    expected = [[0.0, 0.1, 0.2, 0.3], [(0.4 + 0.3) / 2, (0.5 + 0.4) / 2, (0.6 + 0.5) / 2, 0.7]]
    np.testing.assert_allclose(found.data[0].numpy(), np.array(expected) * 505, rtol=1e-6)
    sharp = mean_image([one, two], ranges, [Field.zeros(grid)] * 2, grid, 1.0)
    assert float(sharp.data.std()) > float(found.data.std())


def test_what_makes_no_template_is_refused():
    flat = Volume(torch.rand(1, 12, 14), Grid.of_shape((12, 14)))
    deep = Volume(torch.rand(1, 8, 12, 14), Grid.of_shape((8, 12, 14)))
    constant = Volume(torch.ones(1, 12, 14), flat.grid)
    with pytest.raises(ConfigError, match="two images or more for a template, got 1"):
        build_template([flat])
    with pytest.raises(ConfigError, match="one of 2 images, got the number 2"):
        build_template([flat, flat], options=TemplateOptions(start=2))
    with pytest.raises(GeometryError, match="image 2 in 3-D after one in 2-D"):
        build_template([flat, deep])
    with pytest.raises(ImageError, match="image 2 with one value everywhere"):
        build_template([flat, constant])
    with pytest.raises(ConfigError, match=r"a step in 0\.\.1"):
        TemplateOptions(step=2)
    away = linear_about(np.eye(2) * 0.05, (6, 7), (6, 7))
    with pytest.raises(GeometryError, match="lie on each other after the alignment"):
        mean_frame([np.eye(3), away], [flat.grid, flat.grid], 0)


def test_the_page_runs_as_it_is_written(capsys):
    """The example of docs/template.md prints a line a round, and the mean displacement is small."""
    page = (Path(__file__).parents[2] / "docs" / "template.md").read_text(encoding="utf-8")
    for block in blocks("python", page):
        exec(compile(block, "docs/template.md", "exec"), {})  # noqa: S102 - our own page
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["round 1", "round 2", "round 3"]
    assert all(float(line.split()[4]) < 1.0 for line in lines)
