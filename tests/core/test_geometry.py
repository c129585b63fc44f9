"""Grids: their matrices, their order of axes, their boxes. The oracle is ITK."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from conftest import (
    ORIENTATIONS,
    Array,
    centre,
    give_header,
    grid_at,
    grids,
    make_grid,
    moving_grid,
    oblique_grid,
    rotation,
    signed_permutations,
)
from semreg.core.geometry import (
    AxisOrder,
    Grid,
    boxes_overlap,
    canonical_order,
    covering_grid,
    index_map,
    nearest_rotation,
    oriented_order,
    orthonormality_error,
    per_axis,
    reorder,
)
from semreg.errors import GeometryError, SemregError

ROUNDING_MM = 1e-9
"""float64 at coordinates of some hundred mm."""


def random_indices(grid: Grid, count: int = 20) -> Array:
    """Homogeneous indices (E, count), fractional, in and around the grid."""
    n = grid.dimension
    index = np.random.default_rng(0).uniform(-2, np.array(grid.shape)[:, None] + 1, (n, count))
    return np.vstack([index, np.ones(count)])


def twin(grid: Grid) -> sitk.Image:
    """An empty SimpleITK image with the header of ``grid``."""
    return give_header(sitk.Image(list(grid.size_xyz), sitk.sitkUInt8), grid)


@pytest.mark.parametrize("orientation", [*ORIENTATIONS, *signed_permutations(2)])
def test_index_to_point_is_itk(orientation: Array) -> None:
    """Under each orientation, oblique and anisotropic, the point of an index is ITK's."""
    grid = oblique_grid(len(orientation), orientation)
    image = twin(grid)
    index = random_indices(grid)
    expected = np.array([image.TransformContinuousIndexToPhysicalPoint(tuple(i[:-1][::-1])) for i in index.T]).T
    np.testing.assert_allclose((grid.index_to_point() @ index)[:-1], expected, atol=ROUNDING_MM)
    whole = tuple(n - 1 for n in grid.size_xyz)
    last = grid.index_to_point() @ np.append(np.array(whole[::-1], dtype=float), 1.0)
    np.testing.assert_allclose(last[:-1], image.TransformIndexToPhysicalPoint(whole), atol=ROUNDING_MM)


@pytest.mark.parametrize("dimension", [2, 3])
def test_point_to_index_is_itk(dimension: int) -> None:
    """The index of a point is ITK's continuous index in tensor order."""
    grid = oblique_grid(dimension)
    image = twin(grid)
    points = grid.index_to_point() @ random_indices(grid)
    expected = [image.TransformPhysicalPointToContinuousIndex(tuple(p[:-1]))[::-1] for p in points.T]
    np.testing.assert_allclose((grid.point_to_index() @ points)[:-1].T, expected, atol=1e-9)  # voxels


@pytest.mark.parametrize("dimension", [2, 3])
def test_index_to_point_is_the_itk_packages(dimension: int) -> None:
    """The itk package (not only SimpleITK) puts the samples of a header at the same points."""
    import itk  # takes seconds

    grid = oblique_grid(dimension, signed_permutations(dimension)[-3])
    image = itk.image_from_array(np.zeros(grid.shape, np.float32))
    image.SetSpacing(grid.spacing_xyz)
    image.SetOrigin(grid.origin_xyz)
    image.SetDirection(itk.matrix_from_array(np.asarray(grid.direction)))
    for index in np.ndindex(*[min(n, 3) for n in grid.shape]):
        expected = np.array(image.TransformIndexToPhysicalPoint([int(i) for i in index[::-1]]))
        point = grid.index_to_point() @ np.append(np.array(index, dtype=float), 1.0)
        np.testing.assert_allclose(point[:-1], expected, atol=ROUNDING_MM)


@given(grids())
def test_point_and_index_are_inverse(grid: Grid) -> None:
    """Any grid: index → point → index is the identity."""
    product = grid.point_to_index() @ grid.index_to_point()
    np.testing.assert_allclose(product, np.eye(grid.dimension + 1), atol=1e-9)


@given(st.data(), st.sampled_from((2, 3)))
def test_index_maps_compose(data: st.DataObject, dimension: int) -> None:
    """Going from a to c directly or by way of b is the same, and a to a is the identity."""
    a, b, c = (data.draw(grids(dimension)) for _ in range(3))
    np.testing.assert_allclose(index_map(b, c) @ index_map(a, b), index_map(a, c), rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(index_map(a, a), np.eye(dimension + 1), atol=1e-9)
    index = random_indices(a, 5)
    np.testing.assert_allclose(
        b.index_to_point() @ index_map(a, b) @ index, a.index_to_point() @ index, atol=1e-8
    )  # mm, coordinates to 500


def test_index_map_keeps_the_frame_out() -> None:
    """Moving both grids rigidly through space changes nothing between them."""
    a, b = oblique_grid(3), moving_grid(oblique_grid(3))
    turn, shift = rotation(3, 71.0), np.array([100.0, -40.0, 3.0])

    def moved(grid: Grid) -> Grid:
        return make_grid(
            grid.size_xyz, grid.spacing_xyz, turn @ grid.origin_xyz + shift, turn @ np.asarray(grid.direction)
        )

    np.testing.assert_allclose(index_map(moved(a), moved(b)), index_map(a, b), atol=1e-9)  # voxels


def test_sizes_and_shapes() -> None:
    """Size and spacing_xyz are in ITK's order, shape, spacing and extent in the tensor's."""
    grid = oblique_grid(3)
    assert grid.size_xyz == (7, 6, 5)
    assert grid.shape == (5, 6, 7)
    assert grid.spacing == (2.1, 1.3, 0.8)
    np.testing.assert_allclose(grid.extent_mm, (10.5, 7.8, 5.6))
    assert (grid.dimension, grid.voxels) == (3, 210)
    assert Grid.of_shape((2, 3, 4)).size_xyz == (4, 3, 2)
    assert Grid.of_shape((2, 3), (0.5, 0.7)).spacing == (0.7, 0.5)


def test_grids_of_equal_values_are_equal() -> None:
    """Whatever sequences a grid was made of, equal values give equal, hashable grids."""
    flat: Any = np.eye(2).ravel()
    sizes: Any = np.array([3, 4])
    a = Grid(sizes, (1, 2), (0, 0), flat)  # type: ignore[arg-type]
    b = Grid((3, 4), (1.0, 2.0), (0.0, 0.0), ((1.0, 0.0), (0.0, 1.0)))
    assert a == b
    assert len({a, b}) == 1


@pytest.mark.parametrize("factor", [1, 2, 3, (2, 1, 3), (4, 3, 2)])
def test_pooled_origin_is_the_centre_of_the_first_block(factor: int | tuple[int, ...]) -> None:
    """The first sample of a pooled grid lies at the mean point of the voxels of its block."""
    grid = oblique_grid(3)
    factors = per_axis(factor, 3)
    pooled = grid.pooled(factor)
    block = np.array([[*i, 1.0] for i in np.ndindex(*factors)]).T
    np.testing.assert_allclose(pooled.origin_xyz, (grid.index_to_point() @ block)[:-1].mean(1), atol=ROUNDING_MM)
    assert pooled.shape == tuple(-(-n // k) for n, k in zip(grid.shape, factors, strict=True))
    np.testing.assert_allclose(pooled.spacing, np.array(grid.spacing) * factors)
    assert pooled.direction == grid.direction


def test_pooling_twice_is_pooling_once() -> None:
    """Pooling by 2 and then by 3 puts the samples where pooling by 6 puts them."""
    grid = make_grid((12, 24, 18), (0.8, 1.3, 2.1), (-31, 12, 77), rotation(3))
    twice, once = grid.pooled(2).pooled(3), grid.pooled(6)
    np.testing.assert_allclose(twice.index_to_point(), once.index_to_point(), atol=ROUNDING_MM)
    assert twice.shape == once.shape


def test_pooling_a_thin_axis_keeps_its_box() -> None:
    """An axis with fewer voxels than the factor becomes one sample at its centre, not beyond its edge."""
    grid = make_grid((7, 1, 3), (0.8, 1.3, 2.1), (-31, 12, 77), rotation(3))
    pooled = grid.pooled((4, 4, 7))
    np.testing.assert_allclose(centre(pooled), centre(grid), atol=ROUNDING_MM)
    np.testing.assert_allclose(pooled.extent_mm, grid.extent_mm)


@pytest.mark.parametrize("number", range(48))
def test_canonical_order_is_nearest_to_lps(number: int) -> None:
    """However an image is stored, its canonical order has axes along z, y, x, ascending, and the same box."""
    grid = oblique_grid(3, ORIENTATIONS[number])
    axes = canonical_order(grid)
    canonical = reorder(grid, axes)
    assert (np.diag(np.asarray(canonical.direction)) > 0.7).all()
    np.testing.assert_allclose(
        sorted(map(tuple, canonical.corners_xyz().round(6))), sorted(map(tuple, grid.corners_xyz().round(6)))
    )
    assert canonical_order(canonical) == AxisOrder((0, 1, 2), ())
    mapped = index_map(canonical, grid)[:3, :3]
    np.testing.assert_allclose(np.abs(mapped), np.abs(mapped).round(), atol=1e-12)  # a permutation with signs


def test_canonical_order_does_not_depend_on_the_storage() -> None:
    """All 48 ways to store the same samples have one canonical grid."""
    base = oblique_grid(3)
    stored = []
    for orientation in ORIENTATIONS:
        order = tuple(int(np.abs(orientation[:, axis]).argmax()) for axis in range(3))
        flips = tuple(axis for axis in range(3) if orientation[:, axis].sum() < 0)
        stored.append(reorder(base, AxisOrder(order, flips)))
    assert len({(g.size_xyz, g.direction) for g in stored}) == 48
    for grid in stored:
        canonical = reorder(grid, canonical_order(grid))
        np.testing.assert_allclose(canonical.index_to_point(), base.index_to_point(), atol=ROUNDING_MM)
        assert canonical.shape == base.shape


@pytest.mark.parametrize("spacing", [(0.7, 0.9, 1.1), (3.0, 2.0, 40.0)])
def test_covering_grid_covers(spacing: tuple[float, ...]) -> None:
    """The covering grid has the axes of one grid, the spacing asked for, and contains the box of the other."""
    frame = oblique_grid(3)
    covered = moving_grid(frame, ORIENTATIONS[13])
    grid = covering_grid(frame, covered, spacing)
    assert grid.direction == frame.direction
    assert grid.spacing == spacing
    corners = np.vstack([covered.corners_xyz().T, np.ones(8)])
    index = (grid.point_to_index() @ corners)[:-1]
    slack = 1e-4  # voxels, the tolerance of the count
    assert (index >= -0.5 - slack).all()
    assert (index <= np.array(grid.shape)[:, None] - 0.5 + slack).all()
    tight = index.max(1) - index.min(1)
    assert (np.array(grid.shape) < tight + 1).all()
    np.testing.assert_allclose(centre(grid), centre(covered), atol=ROUNDING_MM)


def test_covering_itself_is_the_same_grid() -> None:
    """Covering a grid in its own frame at its own spacing adds nothing."""
    grid = oblique_grid(3, ORIENTATIONS[21])
    same = covering_grid(grid, grid, grid.spacing)
    assert same.shape == grid.shape
    np.testing.assert_allclose(same.index_to_point(), grid.index_to_point(), atol=ROUNDING_MM)


@pytest.mark.parametrize("degrees", [0.0006, 0.02, 0.2])
@pytest.mark.parametrize("stretch", [1.0, 1.00001, 1.0002])
def test_a_lattice_that_nearly_agrees_is_kept(degrees: float, stretch: float) -> None:
    """Where headers differ by less than an eighth of a voxel at the faces, samples are read where they are.

    Stored in any order of axes; slices of twice the spacing become two samples each as in the untouched frame.
    """
    frame = grid_at((3.0, -9.0, 20.0), (31, 24, 18), (0.7, 0.7, 1.4), rotation(3))
    turned = rotation(3, degrees) @ np.asarray(frame.direction) @ ORIENTATIONS[13]
    order = [int(np.abs(column).argmax()) for column in ORIENTATIONS[13].T]
    size, spacing = np.array(frame.size_xyz)[order], np.array(frame.spacing_xyz)[order] * stretch
    covered = grid_at(centre(frame), size, spacing, turned)
    assert covering_grid(frame, covered, frame.spacing).shape == frame.shape
    fine = (0.7, 0.7, 0.7)
    assert covering_grid(frame, covered, fine).shape == covering_grid(frame, frame, fine).shape == (36, 24, 31)


@settings(max_examples=60)
@given(st.data(), st.sampled_from((2, 3)))
def test_boxes_overlap_is_what_points_say(data: st.DataObject, dimension: int) -> None:
    """Boxes overlap if a point of one lies in the other; if not, shrinking or growing it would have to find one."""
    a, b = data.draw(grids(dimension)), data.draw(grids(dimension))
    offset = np.array(data.draw(st.lists(st.floats(-1.2, 1.2), min_size=dimension, max_size=dimension)))
    reach = (np.linalg.norm(a.extent_mm) + np.linalg.norm(b.extent_mm)) / 2
    b = grid_at(centre(a) + offset * reach, b.size_xyz, b.spacing_xyz, b.direction)
    lines = [np.linspace(-0.499, n - 0.501, 17) for n in a.shape]
    index = np.stack([m.ravel() for m in np.meshgrid(*lines, indexing="ij")])
    there = (index_map(a, b) @ np.vstack([index, np.ones(index.shape[1])]))[:-1]
    limit = np.array(b.shape)[:, None]
    touched = ((there > -0.5) & (there < limit - 0.5)).all(0).any()
    step = np.linalg.norm(np.array(a.extent_mm) / 16)  # mm between the points tried
    margin = 2 * step / np.array(b.spacing)[:, None]
    near = ((there > -0.5 - margin) & (there < limit - 0.5 + margin)).all(0).any()
    assume(touched == near)  # leave out pairs that only graze
    assert boxes_overlap(a, b) == boxes_overlap(b, a) == touched


def test_boxes_that_only_an_edge_separates() -> None:
    """Two boxes that no face separates, only a plane along two edges, do not overlap."""
    flat = make_grid((10, 10, 10), (1, 1, 1), (-4.5, -4.5, -4.5), np.eye(3))
    about_x = np.array([[1, 0, 0], [0, 1, -1], [0, 1, 1]]) / np.array([[1], [np.sqrt(2)], [np.sqrt(2)]])
    about_z = np.array([[1, -1, 0], [1, 1, 0], [0, 0, np.sqrt(2)]]) / np.sqrt(2)
    edge = about_z @ about_x
    towards = np.cross([0.0, 0.0, 1.0], edge[:, 0])  # across an edge along z of the one, along x of the other
    towards /= np.linalg.norm(towards)
    reach = np.abs(towards).sum() * 5 + np.abs(towards @ edge).sum() * 5
    for factor, expected in ((1.001, False), (0.999, True)):
        other = grid_at(towards * reach * factor, (10, 10, 10), (1, 1, 1), edge)
        assert boxes_overlap(flat, other) is expected


def test_boxes_that_only_a_face_separates() -> None:
    """A box whose corner nearly stands on the face of another, no two edges parallel, is beside it; or just within."""
    flat = make_grid((10, 10, 10), (1, 1, 1), (-4.5, -4.5, -4.5), np.eye(3))
    turned = rotation(3, 40.0) @ rotation(3, 25.0)[::-1]
    for axis, sign in itertools.product(range(3), (-1.0, 1.0)):
        face = np.eye(3)[axis] * sign
        corner = -5 * turned @ np.sign(turned.T @ face)  # of the other box, from its centre
        for factor, expected in ((1.001, False), (0.999, True)):
            other = grid_at(face * 5 * factor - corner, (10, 10, 10), (1, 1, 1), turned)
            assert boxes_overlap(flat, other) is expected
            assert boxes_overlap(other, flat) is expected


@pytest.mark.parametrize("dimension", [2, 3])
def test_boxes_that_touch_share_no_volume(dimension: int) -> None:
    """Two boxes side by side have a face in common and no volume, in either order and along each axis."""
    size = (4, 8, 2)[:dimension]
    here = make_grid(size, (1,) * dimension, (0,) * dimension, np.eye(dimension))
    for axis in range(dimension):
        beside = here.part(
            *(np.eye(dimension)[axis] * here.shape + np.array(c) for c in ((0,) * dimension, here.shape))
        )
        assert not boxes_overlap(here, beside)
        assert not boxes_overlap(beside, here)
    assert boxes_overlap(here, here)


def test_nearest_rotation_repairs() -> None:
    """A rounded or sheared direction becomes the nearest orthonormal one; one that is orthonormal stays."""
    exact = rotation(3) @ ORIENTATIONS[5]
    np.testing.assert_allclose(nearest_rotation(exact), exact, atol=1e-12)
    broken = exact.round(2)
    repaired = nearest_rotation(broken)
    assert orthonormality_error(broken) > 1e-4
    assert orthonormality_error(repaired) < 1e-12
    assert np.linalg.norm(repaired - broken) <= np.linalg.norm(exact - broken)
    assert np.linalg.det(repaired) * np.linalg.det(exact) > 0
    oblique_grid(3)
    make_grid((2, 3, 4), (1, 2, 3), (0, 0, 0), repaired)


@pytest.mark.parametrize(
    "direction", [np.zeros((3, 3)), np.diag([1.0, 1.0, 0.0]), np.full((3, 3), np.nan), np.diag([1.0, np.inf, 1.0])]
)
def test_singular_directions_are_refused(direction: Array) -> None:
    """A direction that no rotation is near to is an error that shows it, whatever is wrong with it."""
    with pytest.raises(GeometryError, match="invertible direction"):
        nearest_rotation(direction)


EYE = ((1.0, 0.0), (0.0, 1.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((3,), (1,), (0,), ((1,),)), "2 or 3 axes, got size (3,)"),
        (((3, 4, 5), (1, 1), (0, 0, 0), np.eye(3)), "of 3 axes as the size (3, 4, 5) has, got 2, 3 and (3, 3)"),
        (((3, 4), (1, 1), (0, 0), np.eye(3)), "got 2, 2 and (3, 3)"),
        (((3, 0), (1, 1), (0, 0), EYE), "at least one voxel per axis, got size (3, 0)"),
        (((3, 4), (1, 0), (0, 0), EYE), "positive spacing in mm, got (1.0, 0.0): correct the header"),
        (((3, 4), (1, -2), (0, 0), EYE), "positive spacing in mm, got (1.0, -2.0)"),
        (((3, 4), (1, np.nan), (0, 0), EYE), "positive spacing in mm"),
        (((3, 4), (1, 1), (0, np.inf), EYE), "finite origin and direction, got (0.0, inf)"),
        (((3, 4), (1, 1), (0, 0), ((1.0, np.nan), (0.0, 1.0))), "finite origin and direction"),
        (
            ((3, 4), (1, 1), (0, 0), ((1.0, 0.1), (0.0, 1.0))),
            "columns, got [[1.0, 0.1], [0.0, 1.0]]: repair it with semreg.core.geometry.nearest_rotation",
        ),
    ],
)
def test_impossible_grids_are_refused(arguments: Any, message: str) -> None:
    """A grid that cannot be says what was expected and what came."""
    with pytest.raises(GeometryError, match=re.escape(message)) as caught:
        Grid(*arguments)
    assert isinstance(caught.value, SemregError)
    assert isinstance(caught.value, ValueError)


def test_per_axis() -> None:
    """One positive number for all axes or one an axis; anything else is refused."""
    assert per_axis(3, 2) == (3, 3)
    assert per_axis((1, 2, 3), 3) == (1, 2, 3)
    for wrong in (0, -1, (1, 2), (1, 0, 2)):
        with pytest.raises(GeometryError, match="one positive integer or 3 of them"):
            per_axis(wrong, 3)


def test_box_in_words() -> None:
    """The box in a message reaches half a voxel beyond the outer centres, along x y z."""
    grid = make_grid((2, 3, 4), (1.0, 2.0, 3.0), (10.0, 20.0, 30.0), np.eye(3))
    assert grid.box() == "[9.5, 11.5] × [19.0, 25.0] × [28.5, 40.5] mm"


def test_lattice_lies_at_start_and_step() -> None:
    """Sample i of a lattice lies at the index ``start + i * step``, fractions and starts before the grid included."""
    grid = oblique_grid(3, ORIENTATIONS[17])
    start, step, shape = (-1.0, 0.5, 1.5), (1.0, 2.0, 4.0), (4, 3, 2)
    lattice = grid.lattice(start, step, shape)
    assert lattice.shape == shape
    assert lattice.direction == grid.direction
    for index in np.ndindex(*shape):
        there = lattice.index_to_point() @ np.append(np.array(index, dtype=float), 1.0)
        expected = grid.index_to_point() @ np.append(np.array(start) + np.array(step) * index, 1.0)
        np.testing.assert_allclose(there, expected, atol=ROUNDING_MM)


def test_lattice_of_one_is_the_grid() -> None:
    """Starting at 0 in steps of 1 the lattice is the grid itself, and of blocks it is the pooled grid."""
    grid = oblique_grid(2)
    assert grid.lattice((0, 0), (1, 1), grid.shape) == grid
    pooled, lattice = grid.pooled((2, 3)), grid.lattice((0.5, 1.0), (2, 3), (3, 3))
    np.testing.assert_allclose(lattice.index_to_point(), pooled.index_to_point(), atol=ROUNDING_MM)
    assert lattice.shape == pooled.shape


DIRECTIONS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


@pytest.mark.parametrize("axes", ["SPL", "LIA", "RAS", "PSR", "IAR"])
def test_oriented_order_grows_as_asked(axes: str) -> None:
    """However an image is stored, its tensor axes then grow along the directions named, first axis first."""
    for orientation in ORIENTATIONS:
        turned = reorder(grid := oblique_grid(3, orientation), oriented_order(grid, axes))
        for axis, letter in enumerate(axes):
            column = np.asarray(turned.direction)[:, ::-1][:, axis]
            assert column @ DIRECTIONS[letter] > 0.7
        np.testing.assert_allclose(
            sorted(map(tuple, turned.corners_xyz().round(6))), sorted(map(tuple, grid.corners_xyz().round(6)))
        )


@pytest.mark.parametrize("axes", ["PL", "RA"])
def test_oriented_order_of_pictures(axes: str) -> None:
    """In 2-D the directions are those of x and y."""
    for orientation in signed_permutations(2):
        turned = reorder(grid := oblique_grid(2, orientation), oriented_order(grid, axes))
        for axis, letter in enumerate(axes):
            assert np.asarray(turned.direction)[:, ::-1][:, axis] @ DIRECTIONS[letter][:2] > 0.7


@pytest.mark.parametrize("axes", ["SP", "SPLR", "SSL", "SPX", "SXL", "XPL", "spl", ""])
def test_directions_that_are_none_are_refused(axes: str) -> None:
    """Letters that do not name each axis once are refused with an example."""
    with pytest.raises(GeometryError, match="3 directions such as SPL, one for each axis, got"):
        oriented_order(oblique_grid(3), axes)


@pytest.mark.parametrize("axes", ["SP", "PP", "L", "XL"])
def test_directions_that_no_picture_has_are_refused(axes: str) -> None:
    """In 2-D the example is one for two axes."""
    with pytest.raises(GeometryError, match=f"2 directions such as PL, one for each axis, got '{axes}'"):
        oriented_order(oblique_grid(2), axes)


def test_of_equally_near_orders_the_stored_one_is_taken() -> None:
    """An image turned by exactly 45° is as near to either order of axes; it keeps that in which it is stored."""
    half = np.sqrt(0.5)
    grid = make_grid((7, 6), (0.8, 1.3), (0, 0), [[half, -half], [half, half]])
    assert canonical_order(grid) == AxisOrder((0, 1), ())
    about_z = make_grid((7, 6, 5), (1, 1, 1), (0, 0, 0), [[half, -half, 0], [half, half, 0], [0, 0, 1]])
    assert canonical_order(about_z) == AxisOrder((0, 1, 2), ())


@pytest.mark.parametrize("number", range(48))
def test_an_order_and_its_inverse_cancel(number: int) -> None:
    """Reordering there and back gives the same grid and the same array, for every permutation and every flip."""
    grid = oblique_grid(3)
    orientation = ORIENTATIONS[number]
    order = tuple(int(np.abs(orientation[:, axis]).argmax()) for axis in range(3))
    axes = AxisOrder(order, tuple(axis for axis in range(3) if orientation[:, axis].sum() < 0))
    back = reorder(reorder(grid, axes), axes.inverse)
    np.testing.assert_allclose(back.index_to_point(), grid.index_to_point(), atol=ROUNDING_MM)
    assert back.shape == grid.shape
    array = np.arange(grid.voxels).reshape(grid.shape)
    there = np.flip(array.transpose(axes.order), axes.flips)
    again = np.flip(there.transpose(axes.inverse.order), axes.inverse.flips)
    assert (again == array).all()
    assert axes.inverse.inverse == axes


def test_a_part_lies_where_its_samples_lay() -> None:
    """The samples from ``start`` to before ``stop`` keep their points, also where they lie before or after the grid."""
    grid = oblique_grid(3, ORIENTATIONS[29])
    start, stop = (1, -2, 3), (4, 3, 9)
    part = grid.part(start, stop)
    assert part.shape == (3, 5, 6)
    assert part.spacing == grid.spacing
    assert part.direction == grid.direction
    first = grid.index_to_point() @ np.array([*start, 1.0])
    last = grid.index_to_point() @ np.array([*(n - 1 for n in stop), 1.0])
    np.testing.assert_allclose(part.origin_xyz, first[:-1], atol=ROUNDING_MM)
    index = np.array([*(n - 1 for n in part.shape), 1.0])
    np.testing.assert_allclose((part.index_to_point() @ index)[:-1], last[:-1], atol=ROUNDING_MM)
    assert grid.part((0, 0, 0), grid.shape) == grid
