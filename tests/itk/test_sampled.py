"""Promises of the comparison at points: its value, its derivative, its renewal, its errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from sampled_cases import (
    CPU,
    extractor,
    fixed_grid,
    images,
    objective,
    pairing,
    points_in,
    slopes,
    smooth_volume,
)
from semreg.config import FeatureConfig, ModelConfig
from semreg.core.fields import Volume
from semreg.distances import DISTANCES
from semreg.errors import ConfigError, DivergedError, GeometryError
from semreg.itk.sampled import SampledConfig, SampledObjective

COUNT = 150


def placed(dimension, models, count=COUNT, **settings):
    """An objective of an unlike pair with points, and where these are in the moving image."""
    pair = images(dimension)
    compared = objective(pair, models, **settings)
    fixed = points_in(pair[0].grid, count)
    compared.place(fixed)
    turn = np.eye(dimension) + 0.02 * np.arange(dimension**2).reshape(dimension, dimension)
    middle = fixed.mean(0)
    return compared, fixed, (fixed - middle) @ turn.T + middle + 0.37


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("mode", ["static", "jacobian"])
@pytest.mark.parametrize("distance", sorted(DISTANCES))
def test_derivative_is_that_of_the_value(distance, mode, dimension):
    """Central differences of the value agree with the derivative to 1e-3, for each distance, mode and dimension."""
    models = [(extractor(dimension), ModelConfig(distance=(distance,)))]
    compared, _, moving = placed(dimension, models, mode=mode)
    said, seen = slopes(compared, np.arange(COUNT), moving)
    assert said == pytest.approx(seen, rel=1e-3)
    assert abs(said) > 1e-4


@pytest.mark.parametrize("mode", ["static", "jacobian"])
@pytest.mark.parametrize("entry", [{"pca": 2}, {"subset": 2}, {"normalise": "standard"}, {"normalise": "unit"}])
def test_derivative_through_reductions(entry, mode):
    """The same with principal components, drawn, standard or unit channels."""
    compared, _, moving = placed(3, [(extractor(3, (0,)), ModelConfig(**entry))], mode=mode)
    said, seen = slopes(compared, np.arange(COUNT), moving)
    assert said == pytest.approx(seen, rel=1e-3)


@pytest.mark.parametrize("mode", ["static", "jacobian"])
def test_terms_add_up_by_their_weights(mode):
    """MIND and two layers of a network with a distance each: value and derivative are the weighted sums."""
    network, mind = ModelConfig(distance=("ncc", "l2"), weight=(2.0, 1.0)), ModelConfig(weight=(5.0,), distance=("l1",))
    settings = {"mode": mode, "normalise_losses": False}
    compared, fixed, moving = placed(3, [(extractor(3), network), ("mind", mind)], count=60, **settings)
    rows = np.arange(60)
    value, derivative = compared.evaluate(rows, moving)
    expected, slope = 0.0, np.zeros_like(moving)
    for model, distance, weight in ((extractor(3, (0,)), "ncc", 2), (extractor(3, (1,)), "l2", 1), ("mind", "l1", 5)):
        alone = objective(images(3), [(model, ModelConfig(distance=(distance,)))], **settings)
        alone.place(fixed)
        part = alone.evaluate(rows, moving)
        expected, slope = expected + weight / 8 * part[0], slope + weight / 8 * part[1]
    assert value == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(derivative, slope, rtol=1e-3, atol=1e-5 * np.abs(slope).max())
    said, seen = slopes(compared, rows, moving)
    assert said == pytest.approx(seen, rel=1e-3)


@pytest.mark.parametrize("dimension", [2, 3])
def test_value_is_the_mean_over_channels_of_interpolated_features(dimension):
    """L2 is what scipy reads from the feature maps at the points, a mean over channels and points."""
    compared, fixed, moving = placed(dimension, [("mind", ModelConfig())], normalise_losses=False)
    maps = compared.feature_maps
    rows = np.random.default_rng(1).permutation(COUNT)[:90]
    read = []
    for layer, points in ((maps.fixed[0], fixed[rows]), (maps.moving[0], moving[rows])):
        matrix = layer.grid.point_to_index()
        index = (points @ matrix[:-1, :-1].T + matrix[:-1, -1]).T
        data = layer.features.data.numpy().astype(float)
        read.append(np.stack([ndimage.map_coordinates(c, index, order=1, mode="nearest") for c in data]))
    assert compared.value(rows, moving[rows]) == pytest.approx(((read[0] - read[1]) ** 2).mean(), rel=1e-5)
    assert compared.evaluate(rows, moving[rows])[0] == compared.value(rows, moving[rows])
    assert maps.names == ["mind-ssc(radius=1, dilation=2), layer 0"]


@pytest.mark.parametrize("mode", ["static", "jacobian"])
@pytest.mark.parametrize("distance", sorted(set(DISTANCES) - {"dotproduct"}))
def test_equal_features_are_at_0(distance, mode):
    """An image and itself at the same points are at 0, and stay so."""
    image = smooth_volume(fixed_grid(2), 1)
    compared = objective((image, image), [("mind", ModelConfig(distance=(distance,)))], mode=mode)
    points = points_in(image.grid, COUNT)
    compared.place(points)
    value, derivative = compared.evaluate(np.arange(COUNT), points)
    assert value == pytest.approx(0, abs=1e-9)
    assert np.abs(derivative).max() < 1e-3


@pytest.mark.parametrize("distance", ["l2", "ncc"])
def test_identical_images_do_no_harm(distance):
    """A first value of about 0 divides nothing: a shifted image is then about as far as unrelated features are."""
    image = smooth_volume(fixed_grid(3), 1)
    compared = objective((image, image), [("mind", ModelConfig(distance=(distance,)))])
    points = points_in(image.grid, COUNT)
    compared.place(points)
    compared.value(np.arange(COUNT), points)
    assert 0.05 < compared.value(np.arange(COUNT), points + 1.0) < 3


@pytest.mark.parametrize("distance", ["l2", "ncc", "dotproduct"])
def test_losses_are_divided_by_their_first_size(distance):
    """The first value is 1 (−1 for a distance that is negative) and stays the unit; ``losses`` are not divided."""
    models = [("mind", ModelConfig(distance=(distance,)))]
    compared, fixed, moving = placed(2, models)
    plain = objective(images(2), models, normalise_losses=False)
    plain.place(fixed)
    rows = np.arange(COUNT)
    first, later = plain.value(rows, moving), plain.value(rows, moving + 0.5)
    assert compared.evaluate(rows, moving)[0] == pytest.approx(np.sign(first))
    assert compared.value(rows, moving + 0.5) == pytest.approx(later / abs(first))
    assert compared.losses == pytest.approx([later])


def bent(points):
    """A rotation by 70°, which no iteration towards its inverse would survive, and a bending."""
    middle = np.array([fixed_grid(3).corners_xyz().mean(0)])[:, : points.shape[1]]
    x = points - middle
    angle = np.deg2rad(70)
    x = np.stack(
        [np.cos(angle) * x[:, 0] - np.sin(angle) * x[:, 1], np.sin(angle) * x[:, 0] + np.cos(angle) * x[:, 1], x[:, 2]],
        1,
    )
    return x + middle + 0.8 * np.sin(x[:, ::-1] / 3) + np.array([0.4, -0.3, 0.2])


def test_renewed_derivative():
    """After the features were extracted again, value and derivative agree as before; the value is another one."""
    compared, fixed, _ = placed(3, [(extractor(3), ModelConfig(distance=("ncc", "l2")))])
    rows, moving = np.arange(COUNT), bent(fixed)
    before = compared.value(rows, moving)
    compared.renew(bent)
    said, seen = slopes(compared, rows, moving + 0.2)
    assert said == pytest.approx(seen, rel=1e-3)
    assert abs(compared.value(rows, moving) - before) > 1e-3


@pytest.mark.parametrize(
    "move", [lambda p: (p - p.mean(0)) * [[1.3, 0.8, -1.1]] + p.mean(0) + 0.6, bent], ids=["affine", "bent"]
)
def test_renewed_features_lie_where_the_map_came_from(move):
    """A point that the map leads to reads the new features at the place that it came from, to 0.04 voxels."""
    compared, _, _ = placed(3, [("intensity", ModelConfig())])
    compared.renew(move)
    grid = compared.feature_maps.moving[0].grid
    fixed = compared._source._images.grid
    assert grid == fixed
    everywhere = (
        torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in grid.shape], indexing="ij")).flatten(1).double()
    )
    points = grid.index_to_point()[:-1] @ np.vstack([everywhere.numpy(), np.ones(everywhere.shape[1])])
    index, _ = compared._source._undo.at(torch.from_numpy(move(points.T).T))
    inner = ((everywhere > 1) & (everywhere < torch.tensor(grid.shape).reshape(-1, 1) - 2)).all(0)
    assert float((index - everywhere)[:, inner].abs().max()) < 0.04


def test_renewed_by_the_truth():
    """With the true map, the renewed features of the moving image match those of the fixed one."""
    fixed = smooth_volume(fixed_grid(3), 1)
    shift = np.array([1.5, -2.0, 1.0])
    grid = fixed.grid
    moving = Volume(
        fixed.data,
        type(grid)(grid.size_xyz, grid.spacing_xyz, tuple(np.array(grid.origin_xyz) + shift), grid.direction),
    )
    compared = objective((fixed, moving), [("mind", ModelConfig())], normalise_losses=False)
    points = points_in(grid, COUNT, margin=3)
    compared.place(points)
    rows = np.arange(COUNT)
    unmatched = compared.value(rows, points)
    compared.renew(lambda p: p + shift)
    assert compared.value(rows, points + shift) < 0.02 * unmatched


@pytest.mark.parametrize("mode", ["static", "jacobian"])
def test_border_values_hold_beyond_the_image(mode):
    """A point in the outer half voxel or beyond reads the border, also of an oblique image, and is not pulled."""
    fixed, moving = images(3)
    compared = objective((fixed, moving), [("intensity", ModelConfig())], mode=mode, normalise_losses=False)
    compared.place(points_in(fixed.grid, 1))
    row = np.zeros(1, dtype=np.int64)
    matrix = moving.grid.index_to_point()

    def at(*index):
        return (matrix[:-1] @ [*index, 1.0])[None]

    inside, edge, beyond = (compared.evaluate(row, at(x, 9.0, 9.0)) for x in (0.0, -0.45, -60.0))
    assert edge[0] == pytest.approx(inside[0], rel=0.5)
    if mode == "jacobian":
        assert edge[0] == pytest.approx(inside[0], rel=1e-5)
        assert np.abs(beyond[1] @ np.asarray(moving.grid.direction)[:, 2]).max() < 1e-6  # only along the border
    assert np.isfinite(beyond[0])


def test_the_edge_of_an_oblique_image_does_not_fade():
    """Of an image of one value in a block and noise elsewhere, the features up to the edge are those of the block."""
    fixed, moving = images(3)
    data = moving.data.clone()
    data[:, :, :6] = 5.0  # the outer voxels on one side
    moving = Volume(data, moving.grid)
    compared = objective((fixed, moving), [("intensity", ModelConfig())])
    source = compared._source
    index = np.stack([np.full(9, 9.0), np.linspace(-0.4, 3, 9), np.full(9, 10.0)])
    points = moving.grid.index_to_point()[:-1] @ np.vstack([index, np.ones(9)])
    values = source.read(torch.from_numpy(points)).value(0)
    torch.testing.assert_close(values, values[-1:].expand_as(values), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["static", "jacobian"])
def test_same_inputs_same_result(mode):
    """The same seed gives the same numbers twice; another seed draws other channels; the order of the rows is free."""
    models = [("mind", ModelConfig(subset=3))]
    results = []
    for seed in (0, 0, 1):
        compared, _, moving = placed(3, models, mode=mode, seed=seed, normalise_losses=False)
        results.append(compared.evaluate(np.arange(COUNT), moving))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])
    assert results[2][0] != results[0][0]
    order = np.random.default_rng(0).permutation(COUNT)
    value, derivative = compared.evaluate(order, moving[order])
    assert value == pytest.approx(results[2][0], rel=1e-12)
    np.testing.assert_allclose(derivative, results[2][1][order], rtol=1e-5, atol=1e-9)


def test_more_channels_than_there_are_is_all():
    """A subset of 0 or of more channels than there are compares all of them."""
    values = set()
    for count in (0, 12, 500):
        compared, _, moving = placed(3, [("mind", ModelConfig(subset=count))], normalise_losses=False)
        values.add(compared.value(np.arange(COUNT), moving))
    assert len(values) == 1


def test_points_that_are_none_are_refused():
    """Wrong shapes, no points, NaN and rows that were not placed say what was expected."""
    compared = objective(images(3), [("mind", ModelConfig())])
    rows, points = np.arange(4), points_in(fixed_grid(3), 4)
    with pytest.raises(GeometryError, match="call place first"):
        compared.value(rows, points)
    for wrong, message in (
        (points[:, :2], "shape"),
        (points[:0], "no sample points overlap"),
        (points * np.nan, "finite"),
    ):
        with pytest.raises(GeometryError, match=message):
            compared.place(wrong)
    compared.place(points)
    for bad_rows, bad_points, message in (
        (rows[:0], points[:0], "no sample points overlap"),
        (rows[:3], points, "rows"),
        (rows + 1, points, "rows from 0 to 3"),
        (rows.astype(float), points, "integers"),
        (rows, points * np.inf, "finite"),
        (rows, points[:, :2], "shape"),
    ):
        with pytest.raises(GeometryError, match=message):
            compared.evaluate(bad_rows, bad_points)


def test_maps_that_cannot_be_undone_are_refused():
    """A renewal by a map that is not finite, flat, of another shape or leads past the image changes nothing."""
    compared, _, moving = placed(3, [("mind", ModelConfig())])
    before = compared.value(np.arange(COUNT), moving)
    for move, message in (
        (lambda p: p * np.nan, "finite"),
        (lambda p: p * [[1, 1, 0]] + [[0, 0, moving[:, 2].mean()]], "inverse"),
        (lambda p: p[:, :2], "points of 3"),
        (lambda p: p + 1e4, "past"),
    ):
        with pytest.raises(GeometryError, match=message):
            compared.renew(move)
    assert compared.value(np.arange(COUNT), moving) == before


def test_settings_that_are_none_are_refused():
    """Unknown modes, no models, channels drawn anew and another number of pairings are refused."""
    entry = ModelConfig()
    for wrong, message in (
        ({"mode": "Dynamic"}, "mode static or jacobian"),
        ({"models": ()}, "at least one model"),
        ({"models": (ModelConfig(redraw=True),)}, "redraw=false"),
        ({"batch_size": 0}, "batch_size"),
    ):
        with pytest.raises(ConfigError, match=message):
            SampledConfig(**{"models": (entry,), **wrong})
    with pytest.raises(ConfigError, match="2 pairings"):
        SampledObjective(*images(3), SampledConfig(models=(entry, entry)), [pairing("mind", entry, 3)], CPU)
    with pytest.raises(GeometryError, match="same dimension"):
        objective((images(3)[0], images(2)[1]), [("mind", entry)])


def test_values_that_are_not_finite_are_told():
    """Features that overflow end in DivergedError, not in NaN."""
    fixed, moving = images(2)
    compared = objective((fixed, moving), [("intensity", ModelConfig())], features=FeatureConfig(spacing_mm=1.0))
    compared.place(points_in(fixed.grid, 5))
    compared._source._moving[0].rows.fill_(np.inf)
    with pytest.raises(DivergedError, match="finite"):
        compared.evaluate(np.arange(5), points_in(fixed.grid, 5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
@pytest.mark.parametrize("mode", ["static", "jacobian"])
def test_the_same_on_a_gpu(mode):
    """Value and derivative on a GPU are those on the CPU, but for rounding."""
    entry = ModelConfig(distance=("ncc",))
    compared, fixed, moving = placed(3, [("mind", entry)], mode=mode)
    config = SampledConfig(models=(entry,), mode=mode, features=FeatureConfig(spacing_mm=1.0))
    other = SampledObjective(*images(3), config, [pairing("mind", entry, 3)], torch.device("cuda"))
    other.place(fixed)
    rows = np.arange(len(fixed))
    for one, two in zip(compared.evaluate(rows, moving), other.evaluate(rows, moving), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-6)
