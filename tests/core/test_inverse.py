"""Promises of the inverse: it undoes the field in mm, strong ones too, says how well, and where there is none."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from conftest import (
    centre,
    grid_at,
    moving_grid,
    noise,
    oblique_grid,
    points_of,
    rotation,
    sitk_transform,
    smooth_field,
)
from semreg.core import inversion
from semreg.core.consistency import (
    Inverse,
    disagreement,
    errors_of,
    inverse_consistency,
    invert,
)
from semreg.core.fields import Field, jacobian_determinant
from semreg.core.geometry import Grid
from semreg.core.sampling import base_index, inside, sample, transform_index
from semreg.errors import DivergedError, GeometryError
from semreg.io.records import plain
from semreg.registration.result import InverseReport


def grid_of(dimension: int, size: tuple[int, ...] = (26, 21, 17)) -> Grid:
    """An oblique, anisotropic grid that is large enough for bending."""
    return grid_at(
        (9.0, -8.0, 7.0)[:dimension], size[:dimension], (0.8, 1.3, 1.1)[:dimension], rotation(dimension, 31.0)
    )


def strong_field(grid: Grid, phase: float = 0.3, slope: float = 1.3) -> Field:
    """Shears along each axis, one after the other: no volume changes and nothing folds, but the strain is above 1.

    Fixed-point steps diverge in places and −u is no start there.
    """
    index = base_index(grid.shape, like=torch.zeros(1, dtype=torch.float64))
    moved = index.clone()
    for axis in range(grid.dimension):
        moved[axis] += slope / 0.35 * torch.sin(0.35 * moved[axis - 1] + phase + axis)
    return Field((moved - index).float(), grid)


def larger(grid: Grid) -> Grid:
    """Another oblique frame that sticks out of the box of ``grid``."""
    size = tuple(n + 4 for n in grid.size_xyz)
    spacing = tuple(1.1 * s for s in grid.spacing_xyz)
    return grid_at(centre(grid) + 0.4, size, spacing, rotation(grid.dimension, -12.0))


@pytest.mark.parametrize("dimension", [2, 3])
def test_residual_is_that_of_the_definition(dimension: int) -> None:
    """The residual in mm is |f(g(p)) − p| by SimpleITK's transform of the field, at the points the inverse gives."""
    field = strong_field(grid_of(dimension))
    grid = larger(field.grid)
    inverse, error = field.inverse_with_error(grid)
    origins = (points_of(grid) + inverse.mm().double()).flatten(1)
    forth = sitk_transform(Field(field.vox.double(), field.grid))
    back = np.array([forth.TransformPoint(point) for point in origins.T.tolist()])
    distance = np.linalg.norm(back - points_of(grid).flatten(1).T.numpy(), axis=1)
    within = inside(transform_index(field.grid.point_to_index(), origins), field.grid.shape).numpy()
    told = error.flatten().double().numpy()
    sure = within & ~np.isnan(told)
    assert (np.isnan(told) == within).mean() < 0.01  # rounding at the faces of the box
    assert 100 < sure.sum() < grid.voxels
    np.testing.assert_allclose(distance[sure], told[sure], atol=2e-4)  # mm
    assert distance[sure].max() < 1e-3  # mm


@pytest.mark.parametrize("dimension", [2, 3])
def test_strong_fields_are_inverted(dimension: int) -> None:
    """Where the strain is above 1 and fixed-point steps diverge, the inverse is exact to 0.002 mm everywhere."""
    for phase in (0.3, 1.1, 2.7):
        field = strong_field(grid_of(dimension), phase)
        assert float(jacobian_determinant(field).min()) > 0
        found = invert(field, larger(field.grid), balance=0)
        assert found.unsolved == 0
        assert found.residual.max_mm < 2e-3
        assert found.residual.points > 0.2 * found.field.grid.voxels


def skipped(*_: object) -> bool:
    """A step of the search that does nothing."""
    return False


def test_newton_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixed-point steps alone leave many points unsolved: what the test above rests on."""
    field = strong_field(grid_of(3))
    for step in ("_newton", "_across_kinks", "_from_nearest"):
        monkeypatch.setattr(inversion, step, skipped)
    assert invert(field, larger(field.grid), balance=0).unsolved > 100


def test_steps_across_kinks_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newton's steps alone stop at kinks of noise: what the next test rests on."""
    grid = grid_of(3, (9, 8, 7))
    for step in ("_across_kinks", "_from_nearest"):
        monkeypatch.setattr(inversion, step, skipped)
    assert invert(Field(0.16 * noise(3, *grid.shape), grid), balance=0).residual.max_mm > 1e-4


def test_kinks_do_not_stop_it() -> None:
    """In a field of noise, a kink at each voxel, all points are found to rounding, float64."""
    grid = grid_of(3, (9, 8, 7))
    field = Field(0.16 * noise(3, *grid.shape), grid)
    found = invert(field, balance=0)
    assert found.residual.max_mm < 1e-9
    assert found.unsolved == 0


@pytest.mark.parametrize("degrees", [40.0, 120.0, 180.0])
def test_affine_map_after_the_field(degrees: float) -> None:
    """With a large rotation, scaling and shift after the field the inverse undoes both, inside the box and beyond."""
    field = smooth_field(grid_of(3), 1.5)
    affine = np.eye(4)
    affine[:3, :3] = rotation(3, degrees) @ np.diag([1.1, 0.9, 1.2])
    affine[:3, 3] = (40.0, -25.0, 12.0)
    middle = affine[:3, :3] @ centre(field.grid) + affine[:3, 3]
    grid = grid_at(middle, (23, 27, 25), (1.0, 1.2, 1.3), rotation(3, degrees - 9.0))
    found = invert(field, grid, after=affine, balance=0)
    points = points_of(grid).flatten(1)
    origins = points + found.field.mm().flatten(1)
    index = transform_index(field.grid.point_to_index(), origins)
    moved = origins + transform_index(linear(field.grid.index_to_point()), sample(field.vox, index))
    np.testing.assert_allclose(transform_index(affine, moved), points, atol=1e-6)  # mm
    assert 0 < found.outside < grid.voxels
    assert found.outside == int((~inside(index, field.grid.shape)).sum())
    total = Field.from_mm(
        transform_index(affine, points_of(field.grid) + field.mm()) - points_of(field.grid), field.grid
    )
    alone = invert(total, grid, balance=0)  # the same as one field
    assert alone.unsolved == 0
    assert alone.residual.max_mm < 1e-6


def linear(matrix: np.ndarray) -> np.ndarray:
    """The matrix without its shift."""
    result = matrix.copy()
    result[:-1, -1] = 0
    return result


def test_affine_map_that_cannot_be_undone() -> None:
    """A map that flattens space, or one of no numbers, is refused with what to check."""
    field = smooth_field(oblique_grid(3))
    for spoiled in (0.0, np.nan):
        affine = np.eye(4)
        affine[1, 1] = spoiled
        with pytest.raises(GeometryError, match="can be undone"):
            invert(field, after=affine)


def test_fields_that_are_not_finite() -> None:
    """A field with NaN is refused before anything is computed from it."""
    field = smooth_field(oblique_grid(3))
    field.vox[1, 2, 3, 1] = torch.nan
    with pytest.raises(DivergedError, match="finite displacement"):
        invert(field)


def test_folded_fields_are_counted() -> None:
    """Where a field folds and nothing leads to a point within, the points without an inverse are counted."""
    grid = Grid.of_shape((9, 31))
    x = torch.arange(31.0).expand(9, 31)
    vox = torch.stack([torch.zeros_like(x), torch.where(x > 15, 40.0, 0.0)])  # torn: nothing lands at 17 … 54
    found = invert(Field(vox, grid), Grid((60, 9), (1.0, 1.0), (0.0, 0.0), ((1, 0), (0, 1))), balance=0)
    assert found.unsolved == 0  # linear interpolation crosses the tear
    folded = Field(torch.stack([torch.zeros_like(x), 9 * torch.sin(x * 0.9)]), grid)
    assert bool((jacobian_determinant(folded) < 0).any())
    both = invert(folded, balance=0)
    assert math.isfinite(both.residual.max_mm)
    assert both.unsolved + both.outside < grid.voxels


@pytest.mark.parametrize("dimension", [2, 3])
def test_points_are_brought_back(dimension: int) -> None:
    """Points moved by the field and brought back by its inverse point map are within 0.001 mm of where they were."""
    field = strong_field(grid_of(dimension), slope=0.7)
    corners = torch.as_tensor(field.grid.corners_xyz())
    unit = torch.rand(300, dimension, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    points = (corners.amin(0) + unit * (corners.amax(0) - corners.amin(0))).T
    moved = field.point_map()(points)
    within = inside(transform_index(field.grid.point_to_index(), points), field.grid.shape)
    back = field.inverse_point_map()(moved)
    assert int(within.sum()) > 50
    torch.testing.assert_close(field.point_map()(back)[:, within], moved[:, within], rtol=0, atol=1e-6)
    assert float((back - points)[:, within].norm(dim=0).max()) < 1e-3
    assert field.inverse_point_map()(points[:, :0]).shape == (dimension, 0)


def test_consistency_is_that_of_its_definition() -> None:
    """Both orders are measured at the points that land inside of the other box, and by SimpleITK they are the same."""
    field = strong_field(grid_of(3))
    inverse = field.inverse(larger(field.grid))
    found = inverse_consistency(field, inverse)
    for name, first, second in (("fixed", field, inverse), ("moving", inverse, field)):
        forth, back = (sitk_transform(Field(f.vox.double(), f.grid)) for f in (first, second))
        points = points_of(first.grid).flatten(1).T
        moved = np.array([forth.TransformPoint(p) for p in points.tolist()])
        index = transform_index(second.grid.point_to_index(), torch.as_tensor(moved.T))
        counts = inside(index, second.grid.shape).numpy()
        again = np.array([back.TransformPoint(p) for p in moved[counts].tolist()])
        distance = np.linalg.norm(again - points[counts].numpy(), axis=1)
        assert abs(found[name].points - counts.sum()) <= 3  # rounding at the faces of the box
        assert found[name].mean_mm == pytest.approx(distance.mean(), abs=1e-4)
        assert found[name].p999_mm == pytest.approx(np.quantile(distance, 0.999), abs=0.1)
        assert found[name].max_mm == pytest.approx(distance.max(), abs=1e-3)


def test_balance_shares_the_error() -> None:
    """Balanced, the order fixed → moving → fixed is clearly better than with the samples solved to rounding."""
    field = strong_field(grid_of(3))
    grid = larger(field.grid)
    exact, shared = invert(field, grid, balance=0), invert(field, grid)
    before, after = (inverse_consistency(field, each.field) for each in (exact, shared))
    assert before["moving"].mean_mm < 1e-3
    assert after["fixed"].mean_mm < 0.7 * before["fixed"].mean_mm
    assert after["fixed"].p999_mm < before["fixed"].p999_mm
    assert after["moving"].mean_mm < before["fixed"].mean_mm
    assert exact.residual == shared.residual  # of the equation


def test_balance_with_an_affine_map() -> None:
    """With a map after the field the errors that are shared are those of both together."""
    field = strong_field(grid_of(3))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation(3, 25.0), (3.0, -2.0, 5.0)
    middle = affine[:3, :3] @ centre(field.grid) + affine[:3, 3]
    grid = grid_at(middle, (30, 25, 21), (0.9, 1.4, 1.2), rotation(3, 50.0))
    points = points_of(field.grid)
    total = Field.from_mm((transform_index(affine, points + field.mm().double()) - points).float(), field.grid)
    exact, shared = (invert(field, grid, after=affine, balance=n) for n in (0, 1))
    before, after = (errors_of(disagreement(total, each.field)) for each in (exact, shared))
    assert after.mean_mm < 0.7 * before.mean_mm


def test_identity_is_its_own_inverse() -> None:
    """The identity has the identity for its inverse on any grid, to the bit, balanced or not."""
    field = Field.zeros(oblique_grid(3))
    found = invert(field, moving_grid(field.grid))
    assert not found.field.vox.any()
    assert found.residual.max_mm == 0


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slab by slab the inverse is the same, to the bit, as at once."""
    field = strong_field(grid_of(3))
    whole = field.inverse()
    for module in ("fields", "consistency"):
        monkeypatch.setattr(f"semreg.core.{module}.SLAB_POINTS", 700)
    monkeypatch.setattr("semreg.core.consistency.SPREAD_POINTS", 700)
    torch.testing.assert_close(field.inverse().vox, whole.vox, rtol=0, atol=1e-5)
    invert(field)


def test_errors_of_distances() -> None:
    """Mean, 99.9th percentile and maximum; without any distance there is none of them."""
    distances = torch.arange(1.0, 2001.0)[torch.randperm(2000, generator=torch.Generator().manual_seed(0))]
    found = errors_of(distances)
    assert (found.mean_mm, found.p999_mm, found.max_mm, found.points) == (1000.5, 1998.0, 2000.0, 2000)
    nothing = errors_of(distances[:0])
    assert (nothing.mean_mm, nothing.p999_mm, nothing.max_mm, nothing.points) == (None, None, None, 0)


def test_what_the_record_keeps_is_plain() -> None:
    """What the record says is JSON: the residual, shares and counts, and both orders in mm."""
    field = strong_field(grid_of(3))
    found = invert(field, larger(field.grid))
    record = json.loads(json.dumps(plain(InverseReport.of(field, found))))
    assert record["residual"]["max_mm"] == pytest.approx(found.residual.max_mm)
    assert record["outside_share"] == pytest.approx(found.outside / found.field.grid.voxels)
    assert set(record["consistency"]) == {"fixed", "moving"}
    away = Grid((5, 5, 5), (1.0, 1.0, 1.0), (900.0, 0.0, 0.0), ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    nowhere = plain(InverseReport.of(field, Inverse(Field.zeros(away), errors_of(torch.zeros(0)), 125, 0)))
    assert nowhere["consistency"]["moving"]["mean_mm"] is None
    json.dumps(nowhere, allow_nan=False)


def test_inverse_resamples_like_itk() -> None:
    """Written as a SimpleITK transform on the moving grid, the inverse undoes SimpleITK's forward transform."""
    field = strong_field(grid_of(3))
    found = invert(field, larger(field.grid))
    forth, back = (sitk_transform(Field(f.vox.double(), f.grid)) for f in (field, found.field))
    both = sitk.CompositeTransform([back, forth])  # the last is applied first
    inner = Grid(field.grid.size_xyz, field.grid.spacing_xyz, field.grid.origin_xyz, field.grid.direction)
    points = points_of(inner)[:, 6:-6, 6:-6, 6:-6].flatten(1).T.tolist()
    errors = [math.dist(both.TransformPoint(p), p) for p in points]
    assert np.mean(errors) < 0.2
