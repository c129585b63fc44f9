"""Volumes and displacement fields. The oracle is ITK's own transform, resampler and Jacobian filter."""

from __future__ import annotations

import re

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from conftest import (
    ORIENTATIONS,
    Array,
    centre,
    grid_at,
    grids,
    make_grid,
    moving_grid,
    noise,
    noise_volume,
    oblique_grid,
    points_of,
    rotation,
    signed_permutations,
    sitk_resample,
    sitk_transform,
    sitk_vectors,
    smooth_field,
)
from semreg.core import fields, sampling
from semreg.core.fields import Field, Layer, Volume, jacobian_determinant, restore_order, warp
from semreg.core.geometry import AxisOrder, Grid, canonical_order, covering_grid, index_map, reorder
from semreg.core.sampling import inside, transform_index
from semreg.core.scattered import Table
from semreg.errors import GeometryError

INTERPOLATION = 1e-6
"""float64 against ITK's linear interpolation, which rounds continuous indices to 2^-26 voxels; values are about 1."""
ROUNDING_MM = 1e-9
"""float64 at coordinates of some hundred mm."""

MATRIX = torch.tensor([[0.03, -0.05, 0.02], [0.04, 0.06, -0.01], [-0.02, 0.01, 0.05]], dtype=torch.float64)


def linear_mm(points: Tensor) -> Tensor:
    """A displacement in mm that is linear in the point."""
    n = points.shape[0]
    shift = torch.tensor([1.5, -0.7, 2.2], dtype=points.dtype)[:n]
    return torch.einsum("ij,j...->i...", MATRIX[:n, :n], points) + shift.reshape(-1, *[1] * (points.ndim - 1))


def linear_field(grid: Grid) -> Field:
    """That displacement on a grid."""
    return Field.from_mm(linear_mm(points_of(grid)), grid)


def inner_grid(outer: Grid, orientation: Array | None = None) -> Grid:
    """A grid in another frame well inside ``outer``."""
    n = outer.dimension
    direction = rotation(n, 40.0) @ (np.eye(n) if orientation is None else orientation)
    return grid_at(centre(outer) + np.array([0.2, -0.1, 0.3])[:n], (4, 3, 5)[:n], (0.5, 0.6, 0.4)[:n], direction)


def undo(axes: AxisOrder) -> AxisOrder:
    """The order of axes that takes an image back."""
    return AxisOrder(axes.inverse_order, tuple(axes.order[axis] for axis in axes.flips))


@pytest.mark.parametrize("dimension", [2, 3])
def test_mm_and_voxels_round_trip(dimension: int) -> None:
    """Displacements in mm become voxels and mm again."""
    grid = oblique_grid(dimension)
    mm = noise(dimension, *grid.shape)
    torch.testing.assert_close(Field.from_mm(mm, grid).mm(), mm, rtol=0, atol=1e-12)  # mm of about 1


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_mm_is_the_way_between_points(orientation: Array) -> None:
    """A displacement of whole voxels is, in mm, ITK's way between the two samples, under each orientation."""
    grid = oblique_grid(3, orientation)
    image = sitk.Image(list(grid.size_xyz), sitk.sitkUInt8)
    image.SetSpacing(grid.spacing_xyz)
    image.SetOrigin(grid.origin_xyz)
    image.SetDirection(np.asarray(grid.direction).ravel().tolist())
    start, steps = (2, 3, 1), (1, -2, 3)
    vox = torch.zeros(3, *grid.shape, dtype=torch.float64)
    vox[(slice(None), *start)] = torch.tensor(steps, dtype=torch.float64)
    end = [a + b for a, b in zip(start, steps, strict=True)]
    here, there = (image.TransformIndexToPhysicalPoint([int(i) for i in at[::-1]]) for at in (start, end))
    mm = Field(vox, grid).mm()[(slice(None), *start)]
    np.testing.assert_allclose(mm, np.array(there) - np.array(here), atol=ROUNDING_MM)


@pytest.mark.parametrize("number", range(48))
def test_warp_is_itk_under_every_orientation(number: int) -> None:
    """The warped image is SimpleITK's Resample with the field as its transform, however both images are stored."""
    fixed = oblique_grid(3, ORIENTATIONS[number])
    moving = noise_volume(moving_grid(fixed, ORIENTATIONS[(7 * number + 3) % 48]))
    field = smooth_field(fixed)
    expected = torch.from_numpy(sitk_resample(moving, fixed, sitk_transform(field)))
    ours = warp(moving, field, outside=-9.0)
    assert ours.grid == fixed
    assert 0.2 < (expected != -9.0).double().mean() < 0.98
    torch.testing.assert_close(ours.data[0], expected, rtol=0, atol=INTERPOLATION)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("orientation", signed_permutations(2))
def test_warp_is_itk_in_two_dimensions(orientation: Array, mode: sampling.Mode) -> None:
    """In 2-D as well, labels included."""
    fixed = oblique_grid(2, orientation)
    moving = noise_volume(moving_grid(fixed))
    field = smooth_field(fixed)
    expected = sitk_resample(moving, fixed, sitk_transform(field), nearest=mode == "nearest")
    ours = warp(moving, field, mode=mode, outside=-9.0).data[0]
    torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=0, atol=INTERPOLATION)


def test_warp_nearest_is_itk_and_takes_channels() -> None:
    """Nearest-neighbour warping gives ITK's labels; all channels move together."""
    fixed = oblique_grid(3)
    moving = noise_volume(moving_grid(fixed, ORIENTATIONS[30]), channels=2)
    field = smooth_field(fixed)
    ours = warp(moving, field, mode="nearest", outside=-9.0)
    assert torch.equal(
        ours.data[0], torch.from_numpy(sitk_resample(moving, fixed, sitk_transform(field), nearest=True))
    )
    second = warp(Volume(moving.data[1:], moving.grid), field, mode="nearest", outside=-9.0)
    assert torch.equal(ours.data[1:], second.data)


@pytest.mark.parametrize("dimension", [2, 3])
def test_warp_is_the_itk_packages(dimension: int) -> None:
    """itk.ResampleImageFilter with an itk.DisplacementFieldTransform gives the same image as ``warp``."""
    import itk  # takes seconds

    fixed = oblique_grid(dimension)
    moving = noise_volume(moving_grid(fixed))
    field = smooth_field(fixed)

    def header(image: object, grid: Grid) -> None:
        image.SetSpacing(grid.spacing_xyz)  # type: ignore[attr-defined]
        image.SetOrigin(grid.origin_xyz)  # type: ignore[attr-defined]
        image.SetDirection(itk.matrix_from_array(np.asarray(grid.direction)))  # type: ignore[attr-defined]

    vectors = itk.Image[itk.Vector[itk.D, dimension], dimension].New()
    vectors.SetRegions(list(fixed.size_xyz))
    vectors.Allocate()
    itk.array_view_from_image(vectors)[...] = field.mm().movedim(0, -1).numpy()
    header(vectors, fixed)
    transform = itk.DisplacementFieldTransform[itk.D, dimension].New()
    transform.SetDisplacementField(vectors)
    image = itk.image_from_array(moving.data[0].float().numpy())
    header(image, moving.grid)
    reference = itk.image_from_array(np.zeros(fixed.shape, np.float32))
    header(reference, fixed)
    resampler = itk.ResampleImageFilter.New(
        image, Transform=transform, UseReferenceImage=True, ReferenceImage=reference, DefaultPixelValue=-9.0
    )
    resampler.Update()
    expected = torch.from_numpy(itk.array_from_image(resampler.GetOutput()))
    ours = warp(moving, field, outside=-9.0).data[0].float()
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)  # float32 values of about 1


def test_slabs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warping, composing and the determinant, done slab by slab, give what all at once gives."""
    fixed = oblique_grid(3)
    moving = noise_volume(moving_grid(fixed))
    field, other = smooth_field(fixed), smooth_field(moving.grid, seed=3)

    def everything() -> tuple[Tensor, ...]:
        return warp(moving, field, outside=0.0).data, field.then(other).vox, jacobian_determinant(field)

    whole = everything()
    for points in (8, 8 * 85):
        monkeypatch.setattr(fields, "SLAB_POINTS", points)
        for a, b in zip(everything(), whole, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)  # rounding


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_linear_field_survives_another_grid(dimension: int) -> None:
    """A displacement linear in the point has the same mm on any other grid within its box, oblique and finer."""
    grid = oblique_grid(dimension)
    for orientation in signed_permutations(dimension)[::3]:
        inner = inner_grid(grid, orientation)
        moved = linear_field(grid).on(inner)
        assert moved.grid == inner
        torch.testing.assert_close(moved.mm(), linear_mm(points_of(inner)), rtol=0, atol=ROUNDING_MM)


@pytest.mark.parametrize("factor", [2, (1, 3, 2)])
def test_a_field_survives_pooled_grids(factor: int | tuple[int, ...]) -> None:
    """Between a grid and its pooled grid vectors keep their mm: a constant everywhere, a linear one in the inside."""
    grid = oblique_grid(3)
    constant = Field.from_mm(torch.ones(3, *grid.shape, dtype=torch.float64) * 1.7, grid)
    torch.testing.assert_close(constant.on(grid.pooled(factor)).mm().amin(), torch.tensor(1.7, dtype=torch.float64))
    coarse = grid.pooled(factor)
    fine = linear_field(coarse).on(grid)
    index = transform_index(index_map(grid, coarse), sampling.base_index(grid.shape, like=fine.vox))
    limit = torch.tensor(coarse.shape).reshape(3, 1, 1, 1) - 1
    between = ((index >= 0) & (index <= limit)).all(0)
    assert between.double().mean() > 0.2
    error = (fine.mm() - linear_mm(points_of(grid))).abs()
    assert error[:, between].max() < ROUNDING_MM
    assert fine.on(grid) is fine


@settings(max_examples=25)
@given(st.data(), st.sampled_from((2, 3)))
def test_a_constant_keeps_its_mm_on_any_grid(data: st.DataObject, dimension: int) -> None:
    """Resampling between any two grids rescales and turns the vectors so that the displacement in mm stays."""
    source, target = data.draw(grids(dimension)), data.draw(grids(dimension))
    wanted = torch.tensor([1.5, -0.7, 2.2], dtype=torch.float64)[:dimension].reshape(-1, *[1] * dimension)
    field = Field.from_mm(wanted.expand(dimension, *source.shape), source)
    expected = wanted.expand(dimension, *target.shape)
    torch.testing.assert_close(field.on(target).mm(), expected, rtol=0, atol=1e-9)  # mm


@pytest.mark.parametrize("dimension", [2, 3])
def test_point_map_is_itk(dimension: int) -> None:
    """A field moves points as SimpleITK's DisplacementFieldTransform does, within the box and beyond."""
    grid = oblique_grid(dimension, signed_permutations(dimension)[5])
    field = smooth_field(grid)
    corners = torch.as_tensor(grid.corners_xyz())
    unit = torch.rand(200, dimension, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = corners.amin(0) - 1 + unit * (corners.amax(0) - corners.amin(0) + 2)
    transform = sitk_transform(field)
    expected = np.array([transform.TransformPoint(p) for p in points.tolist()])
    moved = field.point_map()(points.T)
    np.testing.assert_allclose(moved.T, expected, atol=INTERPOLATION)
    stays = (points == moved.T).all(1)
    assert 0 < int(stays.sum()) < 200
    index = transform_index(grid.point_to_index(), points.T)
    assert torch.equal(stays, ~inside(index, grid.shape))
    assert field.point_map()(points.T[:, :0]).shape == (dimension, 0)
    assert field.point_map()(points.T.float()).dtype == torch.float32


def test_point_map_reads_the_field_at_its_samples() -> None:
    """At the centre of a voxel the displacement is that voxel's, in mm."""
    field = smooth_field(oblique_grid(3))
    points = points_of(field.grid)
    moved = field.point_map()(points.flatten(1))
    torch.testing.assert_close(moved, (points + field.mm()).flatten(1), rtol=0, atol=ROUNDING_MM)


def test_point_map_computes_in_double_precision() -> None:
    """A float32 field moves points as the same vectors in float64 do, and float32 points lose their own rounding only.

    The grid lies a metre off with small voxels and steep vectors: indices in float32 would be off by 1e-3 voxels.
    """
    grid = grid_at((1000.0, -900.0, 800.0), (7, 6, 5), (0.1, 0.2, 0.15), rotation(3))
    field = Field.from_mm(10.0 * noise(3, *grid.shape), grid)
    single = Field(field.vox.float(), grid)
    points = points_of(grid).flatten(1).float()
    exact = Field(single.vox.double(), grid).point_map()(points.double())
    torch.testing.assert_close(single.point_map()(points.double()), exact, rtol=0, atol=1e-9)  # mm
    moved = single.point_map()(points)
    assert moved.dtype == torch.float32
    torch.testing.assert_close(moved.double(), exact, rtol=0, atol=2e-4)  # mm: float32 at a metre


def test_inverse_point_map_computes_in_double_precision() -> None:
    """Where the field contracts to a tenth a metre off, the origins of float32 points are those of float64 ones."""
    grid = grid_at((1000.0, -900.0, 800.0), (7, 6, 5), (0.1, 0.2, 0.15), rotation(3))
    middle = torch.as_tensor(centre(grid))[:, None]
    field = Field.from_mm(-0.9 * (points_of(grid) - middle.reshape(3, 1, 1, 1)), grid)
    points = (middle + 0.1 * (points_of(grid)[:, 1:-1, 1:-1, 1:-1].flatten(1) - middle)).float()
    expected = middle + 10.0 * (points.double() - middle)
    origins = field.inverse_point_map()(points)
    torch.testing.assert_close(origins.double(), expected, rtol=0, atol=2e-4)  # mm: float32 at a metre


@pytest.mark.parametrize("dimension", [2, 3])
def test_inverse_point_map_undoes_points_of_either_precision(dimension: int) -> None:
    """Points moved by the field come back, float32 ones as float32 and to its rounding."""
    grid = oblique_grid(dimension)
    field = smooth_field(grid, 0.4)
    points = points_of(grid)[(slice(None), *[slice(1, -1)] * dimension)].flatten(1)
    moved = field.point_map()(points)
    torch.testing.assert_close(field.inverse_point_map()(moved), points, rtol=0, atol=1e-6)  # mm
    single = field.inverse_point_map()(moved.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), points, rtol=0, atol=1e-4)  # mm: float32 at about 100 mm


@pytest.mark.parametrize("dimension", [2, 3])
def test_then_is_itks_composite(dimension: int) -> None:
    """First one field, then the other, on another grid: the points of SimpleITK's composite transform."""
    grid = inner_grid(oblique_grid(dimension))
    first, second = smooth_field(grid, 0.4), smooth_field(oblique_grid(dimension), 0.6, seed=2)
    both = first.then(second)
    assert both.grid == grid
    composite = sitk.CompositeTransform([sitk_transform(second), sitk_transform(first)])  # the last is applied first
    points = points_of(grid)
    expected = np.array([composite.TransformPoint(p) for p in points.flatten(1).T.tolist()]).T
    np.testing.assert_allclose((points + both.mm()).flatten(1), expected, atol=INTERPOLATION)
    other_way = points + second.on(grid).then(first).mm()
    assert (other_way.flatten(1) - torch.from_numpy(expected)).abs().max() > 0.01  # mm: the order matters


def test_then_the_identity() -> None:
    """The identity before or after a field changes nothing."""
    field = smooth_field(oblique_grid(3))
    other = moving_grid(field.grid)
    nothing = Field(torch.zeros(3, *other.shape, dtype=torch.float64), other)
    torch.testing.assert_close(field.then(nothing).vox, field.vox, rtol=0, atol=1e-12)
    before = Field(torch.zeros_like(field.vox), field.grid)
    torch.testing.assert_close(before.then(field).vox, field.vox, rtol=0, atol=1e-9)
    zeros = Field.zeros(field.grid)
    assert zeros.vox.dtype == torch.float32
    assert not zeros.vox.any()


@pytest.mark.parametrize("dimension", [2, 3])
def test_inverse_undoes(dimension: int) -> None:
    """The inverse followed by the field leaves the samples where they are; the other way round interpolation shows."""
    size, spacing = (19, 13, 15)[:dimension], (0.8, 1.3, 1.1)[:dimension]
    grid = grid_at((9.0, -8.0, 7.0)[:dimension], size, spacing, rotation(dimension))
    window = torch.ones(grid.shape, dtype=torch.float64)
    for axis, n in enumerate(grid.shape):
        ramp = torch.sin(torch.linspace(0, torch.pi, n, dtype=torch.float64)) ** 2  # no motion at the border
        window = window * ramp.reshape([-1 if a == axis else 1 for a in range(dimension)])
    field = Field(smooth_field(grid).vox * window, grid)
    assert field.mm().abs().max() > 0.5
    inverse = field.inverse()
    assert inverse.then(field).mm().abs().max() < 1e-6  # mm: the equation that is iterated
    bends = [inverse.mm().diff(n=2, dim=axis + 1).abs().max() for axis in range(dimension)]
    error = field.then(inverse).mm().abs().max()
    assert error < sum(float(bend) for bend in bends) / 4  # mm: reading a function with a kink between two samples


@pytest.mark.parametrize("dimension", [2, 3])
def test_an_inverse_on_another_grid_undoes_at_its_points(dimension: int) -> None:
    """Asked for on another grid the inverse lies there: each of its points, moved back and forth, is where it was."""
    field = smooth_field(oblique_grid(dimension), 0.5)
    inner = inner_grid(field.grid)
    inverse = field.inverse(inner)
    assert inverse.grid == inner
    points = points_of(inner).flatten(1)
    origins = points + inverse.mm().flatten(1)
    torch.testing.assert_close(field.point_map()(origins), points, rtol=0, atol=1e-6)  # mm
    start = field.inverse(inner, iterations=0)
    assert (start.mm() - inverse.mm()).abs().max() > 1e-3  # mm: without a step there is only what it starts from


@pytest.mark.parametrize("dimension", [2, 3])
def test_index_is_where_samples_are_found(dimension: int) -> None:
    """The index of a sample plus its displacement, of all samples or of a slab of them."""
    field = smooth_field(oblique_grid(dimension))
    expected = sampling.base_index(field.grid.shape, like=field.vox) + field.vox
    assert torch.equal(field.index(), expected)
    assert torch.equal(field.index(slice(2, 4)), expected[:, 2:4])


def test_inverse_of_a_linear_field_is_exact() -> None:
    """Where linear interpolation is exact so is the inverse, both ways."""
    grid = oblique_grid(3)
    points = points_of(grid) - torch.as_tensor(centre(grid)).reshape(3, 1, 1, 1)
    field = Field.from_mm(torch.einsum("ij,j...->i...", MATRIX, points), grid)
    expected = torch.einsum("ij,j...->i...", torch.linalg.inv(torch.eye(3) + MATRIX) - torch.eye(3), points)
    error = (field.inverse().mm() - expected).abs()[:, 1:-1, 1:-1, 1:-1]
    assert error.max() < 1e-9  # mm, within the box


@pytest.mark.parametrize("size", [(7, 6, 5), (4, 2, 3), (6, 1, 4), (1, 1, 1), (7, 6), (5, 1), (2, 3)])
def test_jacobian_determinant_is_itk(size: tuple[int, ...]) -> None:
    """On an axis-aligned grid the determinant is that of ITK's filter, borders and thin axes included."""
    n = len(size)
    grid = make_grid(size, (0.8, 1.3, 2.1)[:n], (-31.0, 12.5, 77.0)[:n], np.eye(n))
    field = Field.from_mm(noise(n, *grid.shape) * 0.3, grid)
    expected = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(sitk_vectors(field)))
    np.testing.assert_allclose(jacobian_determinant(field), expected, atol=1e-6)  # without unit; ITK's result is float


@pytest.mark.parametrize("dimension", [2, 3])
def test_jacobian_determinant_of_a_linear_field(dimension: int) -> None:
    """A linear displacement A has det(1 + A) in the inside, on any oblique grid (ITK's filter ignores directions)."""
    expected = float(torch.linalg.det(torch.eye(dimension) + MATRIX[:dimension, :dimension]))
    for orientation in signed_permutations(dimension)[::7]:
        values = jacobian_determinant(linear_field(oblique_grid(dimension, orientation)))
        inner = values[(slice(1, -1),) * dimension]
        torch.testing.assert_close(inner, torch.full_like(inner, expected), rtol=0, atol=1e-9)
    folded = Field(-1.5 * sampling.base_index((5, 4), like=MATRIX), Grid.of_shape((5, 4)))
    folded.vox[1] = 0
    assert (jacobian_determinant(folded)[1:-1] < 0).all()


def test_nothing_depends_on_the_frame() -> None:
    """The same voxels with all headers turned and moved through space: the same field in voxels, the same images."""
    turn, shift = rotation(3, 71.0) @ ORIENTATIONS[1], np.array([100.0, -40.0, 3.0])

    def moved(grid: Grid) -> Grid:
        return make_grid(
            grid.size_xyz, grid.spacing_xyz, turn @ grid.origin_xyz + shift, turn @ np.asarray(grid.direction)
        )

    fixed = oblique_grid(3)
    moving, field = noise_volume(moving_grid(fixed)), smooth_field(fixed)
    other = smooth_field(moving.grid, seed=4)
    moving_there, field_there = Volume(moving.data, moved(moving.grid)), Field(field.vox, moved(fixed))
    other_there = Field(other.vox, moved(other.grid))
    for here, there in (
        (warp(moving, field, outside=0.0).data, warp(moving_there, field_there, outside=0.0).data),
        (field.then(other).vox, field_there.then(other_there).vox),
        (field.on(other.grid).vox, field_there.on(other_there.grid).vox),
        (field.inverse().vox, field_there.inverse().vox),
        (jacobian_determinant(field), jacobian_determinant(field_there)),
        (
            torch.linalg.vector_norm(field.mm(), dim=0),
            torch.linalg.vector_norm(field_there.mm(), dim=0),
        ),
    ):
        torch.testing.assert_close(there, here, rtol=0, atol=1e-9)  # voxels, values of about 1


@pytest.mark.parametrize("number", range(48))
def test_reordering_and_back_is_exact(number: int) -> None:
    """Into canonical order and back, volumes and fields are the same to the bit, and so is their grid to rounding."""
    grid = oblique_grid(3, ORIENTATIONS[number])
    axes = canonical_order(grid)
    volume, field = noise_volume(grid, channels=2), smooth_field(grid)
    there = volume.reordered(axes)
    back = there.reordered(undo(axes))
    assert torch.equal(back.data, volume.data)
    np.testing.assert_allclose(back.grid.index_to_point(), grid.index_to_point(), atol=ROUNDING_MM)
    restored = restore_order(field.reordered(axes), axes, grid)
    assert restored.grid == grid
    assert torch.equal(restored.vox, field.vox)
    assert torch.equal(field.reordered(axes).reordered(undo(axes)).vox, field.vox)


@pytest.mark.parametrize("orientation", [*ORIENTATIONS, *signed_permutations(2)])
def test_reordering_moves_nothing_in_space(orientation: Array) -> None:
    """In canonical order every value, and every vector in mm, is still at its point."""
    grid = oblique_grid(len(orientation), orientation)
    axes = canonical_order(grid)
    volume = Volume(points_of(grid), grid).reordered(axes)
    torch.testing.assert_close(volume.data, points_of(volume.grid), rtol=0, atol=ROUNDING_MM)
    field = linear_field(grid).reordered(axes)
    assert field.grid == volume.grid == reorder(grid, axes)
    torch.testing.assert_close(field.mm(), linear_mm(points_of(field.grid)), rtol=0, atol=ROUNDING_MM)


def test_warping_in_canonical_order_is_warping() -> None:
    """Reordering field and moving image, warping and going back gives the image warped as stored."""
    fixed = oblique_grid(3, ORIENTATIONS[17])
    moving, field = noise_volume(moving_grid(fixed, ORIENTATIONS[40])), smooth_field(fixed)
    axes = canonical_order(fixed)
    result = warp(moving.reordered(canonical_order(moving.grid)), field.reordered(axes), outside=-9.0)
    expected = warp(moving, field, outside=-9.0)
    torch.testing.assert_close(result.reordered(undo(axes)).data, expected.data, rtol=0, atol=1e-9)


def test_a_volume_on_a_covering_grid_is_whole() -> None:
    """On a covering grid of its own spacing, turned, no voxel centre of the image is left out."""
    frame = oblique_grid(3)
    volume = noise_volume(moving_grid(frame, ORIENTATIONS[11]))
    cover = covering_grid(frame, volume.grid, frame.spacing)
    index = transform_index(index_map(volume.grid, cover), sampling.base_index(volume.grid.shape, like=volume.data))
    assert inside(index, cover.shape).all()


META = torch.device("meta")
"""A device with shapes and no numbers: what meets a tensor of another device there is an error, as on a GPU."""


def test_everything_stays_on_its_device() -> None:
    """What is computed from tensors of a device lies on that device; nothing is made on the CPU to meet them there."""
    fixed = oblique_grid(3)
    there = moving_grid(fixed)
    moving = Volume(torch.zeros(2, *there.shape, device=META), there)
    field, other = Field.zeros(fixed, device=META), Field.zeros(there, device=META)
    points = torch.zeros(3, 50, dtype=torch.float64, device=META)
    axes = AxisOrder((1, 0, 2), (0,))
    index = torch.zeros(3, 50, device=META)
    read = Table(moving.data).at(index).values()
    layer = Layer(moving, Volume(moving.data[:1], there)).pooled(2)
    assert layer.weight is not None
    for found in (
        *(warp(moving, field, mode=mode, outside=0.0).data for mode in ("linear", "nearest")),
        *(moving.on(fixed, outside=outside).data for outside in (None, 1.0)),
        moving.averaged_on(there.pooled(2)).data,
        moving.on(there.lattice((-1.0, 1.0, 0.3), (1.0, 1.0, 0.7), (4, 3, 9)), outside=1.0).data,
        moving.reordered(axes).data,
        *(layer.features.data, layer.weight.data),
        *(field.vox, field.mm(), field.then(other).vox, field.on(there).vox, Field.from_mm(field.vox, fixed).vox),
        *(field.reordered(axes).vox, restore_order(field.reordered(axes), axes, fixed).vox),
        *(field.point_map()(points), jacobian_determinant(field)),
        *(sampling.pool(moving.data, 2), sampling.smooth(moving.data), inside(index, fixed.shape)),
        read,
    ):
        assert found.device == META


def test_wrong_shapes_are_refused() -> None:
    """Samples that do not fit their grid say what was expected and what came."""
    grid = oblique_grid(3)
    message = "expected data of shape (C, 5, 6, 7) for a grid of size (7, 6, 5) (x, y, z), got (1, 7, 6, 5)"
    with pytest.raises(GeometryError, match=re.escape(message)):
        Volume(torch.zeros(1, 7, 6, 5), grid)
    with pytest.raises(GeometryError, match=re.escape("expected vectors of shape (3, 5, 6, 7), got (2, 5, 6, 7)")):
        Field(torch.zeros(2, 5, 6, 7), grid)


def test_gradients_flow_through_warp() -> None:
    """The warped image has the right derivative with respect to the field: gradcheck in float64."""
    fixed = make_grid((3, 2), (0.8, 1.3), (-31.0, 12.5), rotation(2))
    moving = noise_volume(grid_at(centre(fixed), (6, 5), (0.7, 0.9), rotation(2, 40.0)))
    vox = smooth_field(fixed, 0.3).vox.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: warp(moving, Field(v, fixed), outside=0.0).data, vox)


def test_layers_by_samples_are_rows_already():
    """The same values; what a descent reads row by row is a view of them and no copy, pooled it is what it was."""
    grid = oblique_grid(3)
    layer = Layer(Volume(noise(7, *grid.shape), grid))
    turned = layer.by_samples()
    assert torch.equal(turned.features.data, layer.features.data)
    assert Table(turned.features.data).rows.data_ptr() == turned.features.data.data_ptr()
    assert torch.equal(turned.pooled(2).features.data, layer.pooled(2).features.data)


def test_finite_values_in_a_row():
    """All that are numbers, in their order; where all are, no copy."""
    values = noise(1, 3, 4, 5)
    assert fields.finite(values).data_ptr() == values.data_ptr()
    values[0, 1, 2, 3], values[0, 2, 0, 0] = torch.nan, torch.inf
    assert torch.equal(fields.finite(values), values[torch.isfinite(values)])


def test_known_vectors_have_no_component_that_is_not_finite():
    """One that is not a number is enough, whichever it is."""
    grid = oblique_grid(3)
    for component in range(3):
        vox = noise(3, *grid.shape)
        vox[component, 1, 2, 3] = torch.nan
        known = Field(vox, grid).known
        assert not known[1, 2, 3]
        assert int(known.count_nonzero()) == grid.voxels - 1
