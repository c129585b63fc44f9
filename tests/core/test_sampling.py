"""Interpolation, pooling and smoothing. The oracles are ITK and loops in plain numpy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import (
    ORIENTATIONS,
    grid_at,
    make_grid,
    moving_grid,
    noise,
    noise_volume,
    oblique_grid,
    rotation,
    sitk_resample,
)
from semreg.core import sampling
from semreg.core.fields import Volume
from semreg.core.geometry import Grid, index_map
from semreg.core.sampling import (
    base_index,
    inside,
    pool,
    resample,
    sample,
    slabs,
    smooth,
    transform_index,
)
from semreg.core.scattered import Table
from semreg.errors import GeometryError

INTERPOLATION = 1e-6
"""float64 against ITK's linear interpolation, which rounds continuous indices to 2^-26 voxels; values are about 1."""
EXACT = 1e-12
"""float64 rounding of values of about 1."""

SHAPES = [(4, 5), (5, 3, 4)]
THIN = [(1, 5), (4, 1), (1, 1), (2, 2), (1, 4, 3), (4, 1, 3), (4, 3, 1), (1, 1, 3), (1, 1, 1), (2, 3, 2), (3, 2, 1)]


def random_indices(shape: tuple[int, ...], count: int = 300, seed: int = 0) -> Tensor:
    """Indices (D, count) in and up to two voxels around an image of ``shape``."""
    unit = torch.rand(len(shape), count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return unit * (torch.tensor(shape)[:, None] + 4) - 2.5


def linear_by_loop(x: Tensor, index: Tensor) -> Tensor:
    """Multilinear interpolation written out, indices clamped to the voxel centres; (C, P)."""
    shape = x.shape[1:]
    result = torch.zeros(x.shape[0], index.shape[1], dtype=x.dtype)
    for p, where in enumerate(index.T):
        clamped = [min(max(float(i), 0.0), n - 1.0) for i, n in zip(where, shape, strict=True)]
        for corner in itertools.product((0, 1), repeat=len(shape)):
            low = [int(np.floor(c)) for c in clamped]
            weight = np.prod([c - a if up else 1 - c + a for c, a, up in zip(clamped, low, corner, strict=True)])
            at = [min(a + up, n - 1) for a, up, n in zip(low, corner, shape, strict=True)]
            result[:, p] += weight * x[(slice(None), *at)]
    return result


@pytest.mark.parametrize("shape", [*SHAPES, *THIN])
def test_linear_sampling_is_the_loop(shape: tuple[int, ...]) -> None:
    """Linear sampling is multilinear interpolation, axes of one voxel included, border values beyond the centres."""
    x, index = noise(2, *shape), random_indices(shape, 60)
    torch.testing.assert_close(sample(x, index), linear_by_loop(x, index), rtol=0, atol=EXACT)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("dimension", [2, 3])
def test_resampling_is_itk(dimension: int, mode: sampling.Mode) -> None:
    """Between two oblique anisotropic grids, values and background are those of ITK's resampler."""
    target = oblique_grid(dimension)
    volume = noise_volume(moving_grid(target))
    ours = volume.on(target, mode=mode, outside=-9.0).data[0]
    expected = torch.from_numpy(sitk_resample(volume, target, nearest=mode == "nearest"))
    assert 0.02 < (expected == -9.0).double().mean() < 0.9  # both kinds of sample are there
    torch.testing.assert_close(ours, expected, rtol=0, atol=INTERPOLATION)


@pytest.mark.parametrize("shape_xyz", [(6, 1, 4), (1, 5, 4), (6, 5, 1), (1, 1, 1)])
def test_one_voxel_axes_are_sampled_as_itk(shape_xyz: tuple[int, ...]) -> None:
    """An axis of one voxel holds its value over the thickness of the voxel, as ITK, and is background beyond."""
    grid = grid_at((3.0, -4.0, 5.0), shape_xyz, (1.1, 0.9, 3.7), rotation(3))
    volume = noise_volume(grid)
    target = grid_at((3.1, -4.2, 5.3), (5, 6, 7), (0.7, 0.8, 0.6), rotation(3, 40.0))
    expected = torch.from_numpy(sitk_resample(volume, target))
    assert (expected != -9.0).any()
    torch.testing.assert_close(volume.on(target, outside=-9.0).data[0], expected, rtol=0, atol=INTERPOLATION)


def line(low: float, high: float, step: float) -> Grid:
    """A line of points along x; steps that are binary fractions make every position exact."""
    return make_grid((round((high - low) / step) + 1, 1), (step, 1.0), (low, 0.0), np.eye(2))


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("fast", [False, True])
def test_border_is_itks(nearest: bool, fast: bool) -> None:
    """Border values hold up to the edges, −0.5 inside and N−0.5 not, and halves round up: exactly ITK's rule."""
    n = 4
    source = Volume(torch.tensor([[[3.0, -1.0, 7.0, 2.0]]], dtype=torch.float64), Grid.of_shape((1, n)))
    target = line(-2.0, n + 1.0, 0.125)
    expected = torch.from_numpy(sitk_resample(source, target, nearest=nearest))
    x = base_index(target.shape, like=source.data)[1] * 0.125 - 2.0
    mode: sampling.Mode = "nearest" if nearest else "linear"
    if fast:
        ours = source.on(target, mode=mode, outside=-9.0).data[0]
    else:
        ours = sample(source.data, torch.stack([torch.zeros_like(x), x]), mode=mode, outside=-9.0)[0]
    torch.testing.assert_close(ours, expected, rtol=0, atol=EXACT)
    assert torch.equal(expected != -9.0, (x >= -0.5) & (x < n - 0.5))
    assert ours[0, x[0] == -0.5] == 3.0
    assert ours[0, x[0] == n - 0.5] == -9.0


def test_inside_is_the_itk_packages() -> None:
    """``inside`` is where itk.ResampleImageFilter finds the image, on every face, edge and corner."""
    import itk  # takes seconds

    shape, step = (3, 4, 5), 0.25
    counts = [round((n + 1) / step) + 1 for n in shape]
    resampler = itk.ResampleImageFilter.New(
        itk.image_from_array(np.ones(shape, np.float32)),
        Size=counts[::-1],
        OutputSpacing=[step] * 3,
        OutputOrigin=[-1.0] * 3,
        DefaultPixelValue=0.0,
    )
    resampler.Update()
    expected = torch.from_numpy(itk.array_from_image(resampler.GetOutput())) == 1.0
    index = base_index(tuple(counts), like=torch.zeros(1)) * step - 1.0
    assert torch.equal(inside(index, shape), expected)
    assert 0 < int(expected.sum()) < expected.numel()


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_and_outside(shape: tuple[int, ...]) -> None:
    """Any shape of points is kept, channels come first, no points give no values, None continues the border."""
    x = noise(2, *shape)
    index = random_indices(shape, 12)
    flat = sample(x, index, outside=4.0)
    assert torch.equal(sample(x, index.reshape(-1, 3, 4), outside=4.0), flat.reshape(2, 3, 4))
    assert torch.equal(flat[0] == 4.0, ~inside(index, shape))
    assert not (sample(x, index) == 4.0).any()
    assert set(sample(x, index, outside=0.1)[0, ~inside(index, shape)].tolist()) == {0.1}  # to the last digit
    for mode in ("linear", "nearest"):
        assert sample(x, index[:, :0], mode=mode, outside=1.0).shape == (2, 0)
    assert sample(x, index.reshape(-1, 3, 4)[:, :, :0]).shape == (2, 3, 0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [4998, 4999, 5000])
def test_many_points_are_few_points(shape: tuple[int, ...], count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dealing points to three threads changes no value and no order, whether or not they come out even."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)  # threads themselves do not survive a fork
    x, index = noise(2, *shape), random_indices(shape, count)
    one_by_one = torch.cat([sample(x, part) for part in index.split(1000, dim=1)], dim=1)
    assert torch.equal(sample(x, index), one_by_one)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("outside", [None, -9.0])
def test_axis_by_axis_is_the_general_way(mode: sampling.Mode, outside: float | None) -> None:
    """Resampling that keeps the axes gives the same values computed axis by axis, flipped and thin axes included."""
    target = oblique_grid(3)
    flip = np.diag([1.0, -1.0, 1.0])
    for size, spacing in [((6, 9, 8), (1.1, 0.7, 1.7)), ((1, 4, 20), (3.0, 1.3, 0.5)), ((7, 6, 5), (0.8, 1.2, 2.1))]:
        volume = noise_volume(
            grid_at((-28.3, 13.9, 80.2), size, spacing, np.asarray(target.direction) @ flip), channels=2
        )
        matrix = index_map(target, volume.grid)
        index = transform_index(matrix, base_index(target.shape, like=volume.data))
        general = sample(volume.data, index, mode=mode, outside=outside)
        fast = resample(volume.data, matrix, target.shape, mode=mode, outside=outside)
        torch.testing.assert_close(fast, general, rtol=0, atol=1e-9)  # float64, indices of about 10
        if outside is not None:
            expected = torch.from_numpy(sitk_resample(volume, target, nearest=mode == "nearest"))
            torch.testing.assert_close(fast[0], expected, rtol=0, atol=INTERPOLATION)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_grid_is_exact(dtype: torch.dtype) -> None:
    """Resampling on the image's own grid, or on a crop of it, changes no bit."""
    volume = Volume(noise(2, 5, 6, 7, dtype=dtype), oblique_grid(3))
    grid = volume.grid
    assert torch.equal(volume.on(grid, outside=-9.0).data, volume.data)
    assert volume.on(grid, outside=-9.0).data.data_ptr() == volume.data.data_ptr()  # nothing is copied
    start = (grid.index_to_point() @ np.array([1.0, 2.0, 3.0, 1.0]))[:3]
    crop = make_grid((4, 3, 3), grid.spacing_xyz, start, grid.direction)
    assert torch.equal(volume.on(crop, outside=-9.0).data, volume.data[:, 1:4, 2:5, 3:7])


def test_a_crop_takes_over_nothing_from_beside() -> None:
    """Voxels that are read at their centres keep their values, whatever is beside them: no NaN spreads."""
    volume = noise_volume(oblique_grid(3))
    volume.data[:, ::2, 1::2, :] = torch.nan
    volume.data[:, 1::2, :, 2] = torch.inf
    crop = volume.grid.part((0, 1, 2), (3, 6, 7))
    torch.testing.assert_close(volume.on(crop).data, volume.data[:, 0:3, 1:6, 2:7], equal_nan=True, rtol=0, atol=0)


def test_slabs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Working through a volume in slabs gives what all at once gives; the slabs tile the first axis."""
    target = oblique_grid(3)
    volume = noise_volume(moving_grid(target, ORIENTATIONS[9]))
    whole = volume.on(target, outside=-9.0).data
    monkeypatch.setattr(sampling, "SLAB_POINTS", 85)
    assert len(slabs(target.shape, 85)) == 3
    assert torch.equal(volume.on(target, outside=-9.0).data, whole)
    covered = [i for part in slabs((7, 9, 9), 200) for i in range(part.start, part.stop)]
    assert covered == list(range(7))
    assert len(slabs((7, 9, 9), 1)) == 7


@pytest.mark.parametrize(
    ("shape", "points", "expected"),
    [((10, 1), 4, [4, 4, 2]), ((5, 2, 3), 12, [2, 2, 1]), ((3, 5), 4, [1, 1, 1]), ((4, 0), 8, [4]), ((6,), 6, [6])],
)
def test_slabs_hold_as_many_points_as_are_allowed(shape: tuple[int, ...], points: int, expected: list[int]) -> None:
    """A slab is as thick as the number of points allows and never thinner than one sample."""
    assert [part.stop - part.start for part in slabs(shape, points)] == expected


@pytest.mark.parametrize("factor", [2, 3, (1, 2, 3), (3, 1, 1), 9])
def test_pool_is_the_mean_of_the_voxels_there_are(factor: int | tuple[int, ...]) -> None:
    """Each sample of a pooled volume is the mean of its block; partial blocks count only voxels that exist."""
    x = noise(2, 5, 6, 7)
    factors = (factor,) * 3 if isinstance(factor, int) else factor
    pooled = pool(x, factor)
    assert tuple(pooled.shape[1:]) == oblique_grid(3).pooled(factor).shape
    for at in np.ndindex(*pooled.shape[1:]):
        block = tuple(slice(i * k, i * k + k) for i, k in zip(at, factors, strict=True))
        torch.testing.assert_close(
            pooled[(slice(None), *at)], x[(slice(None), *block)].mean((1, 2, 3)), rtol=0, atol=EXACT
        )


def test_pool_in_two_dimensions_and_by_one() -> None:
    """2-D volumes pool as well; a factor of 1 changes nothing; a factor of 0 is refused; gradients flow."""
    x = noise(1, 5, 3)
    assert torch.equal(pool(x, 1), x)
    torch.testing.assert_close(pool(x, (5, 3))[0, 0, 0], x.mean(), rtol=0, atol=EXACT)
    with pytest.raises(GeometryError, match="positive integer"):
        pool(x, 0)
    assert torch.autograd.gradcheck(lambda y: pool(y, 2), x.requires_grad_())


@pytest.mark.parametrize("factor", [2, 3, (1, 2, 4), 8])
def test_pooling_the_index_ramp_is_the_index_map(factor: int | tuple[int, ...]) -> None:
    """What pooling does to samples, ``Grid.pooled`` does to their places: whole blocks, and axes of one block."""
    grid = oblique_grid(3)
    pooled = grid.pooled(factor)
    ramp = base_index(grid.shape, like=torch.zeros(1, dtype=torch.float64))
    places = transform_index(index_map(pooled, grid), base_index(pooled.shape, like=ramp))
    factors = (factor,) * 3 if isinstance(factor, int) else factor
    whole = tuple(slice(0, max(n // k, 1)) for n, k in zip(grid.shape, factors, strict=True))
    torch.testing.assert_close(pool(ramp, factor)[(slice(None), *whole)], places[(slice(None), *whole)])


@pytest.mark.parametrize("shape", [*SHAPES, *THIN])
@pytest.mark.parametrize("radius", [1, 2, 5])
def test_smoothing_keeps_a_constant(shape: tuple[int, ...], radius: int) -> None:
    """A constant stays that constant to the border and in the corners, whatever the radius."""
    x = torch.full((2, *shape), 3.7, dtype=torch.float64)
    torch.testing.assert_close(smooth(x, radius=radius, passes=3), x, rtol=0, atol=EXACT)


@pytest.mark.parametrize("shape", [(4, 5), (5, 3, 4), (1, 4, 3)])
@pytest.mark.parametrize("radius", [0, 1, 2, 4])
def test_smooth_is_the_loop(shape: tuple[int, ...], radius: int) -> None:
    """Box means run over the voxels of the box that exist."""
    x = noise(2, *shape)
    means = smooth(x, radius=radius)
    for at in np.ndindex(*shape):
        box = x[(slice(None), *[slice(max(i - radius, 0), i + radius + 1) for i in at])].flatten(1)
        torch.testing.assert_close(means[(slice(None), *at)], box.mean(1), rtol=0, atol=EXACT)


def test_smoothing_is_once_over_three_voxels() -> None:
    """Unless something else is asked for, the box has three voxels along each axis and is applied once."""
    x = noise(2, 5, 6, 7)
    assert torch.equal(smooth(x), smooth(x, radius=1, passes=1))
    torch.testing.assert_close(smooth(x)[:, 2, 3, 4], x[:, 1:4, 2:5, 3:6].mean((1, 2, 3)), rtol=0, atol=EXACT)


def test_smoothing_leaves_its_input_alone() -> None:
    """Smoothing and pooling are pure functions with gradients."""
    x = noise(1, 3, 4)
    kept = x.clone()
    smooth(x, passes=2), pool(x, 2)
    assert torch.equal(x, kept)
    assert torch.autograd.gradcheck(lambda y: smooth(y, radius=1, passes=2), x.requires_grad_())


@pytest.mark.parametrize("shape", [(4, 5), (5, 3, 4), (4, 1, 3)])
def test_gradients_are_derivatives(shape: tuple[int, ...]) -> None:
    """Gradients are those of differences (gradcheck, float64) in index and samples, in cells and beyond the border."""
    index = random_indices(shape, 12)
    index = (index.floor() + 0.2 + 0.6 * (index - index.floor())).requires_grad_()  # away from the kinks
    x = noise(2, *shape).requires_grad_()
    assert torch.autograd.gradcheck(sample, (x, index))
    assert torch.autograd.gradcheck(lambda y, i: sample(y, i, outside=2.0), (x, index))


def test_single_precision_is_close() -> None:
    """float32 indices of a large image cost less than 2e-4 of a voxel's difference, sampled either way."""
    x = noise(1, 3, 500, 400)
    index = random_indices((3, 500, 400), 2000)
    exact = sample(x, index)
    rounded = index.float()
    for values in (sample(x.float(), rounded), Table(x.float()).at(rounded).values().T):
        assert (values.double() - exact).abs().max() < 2e-4 * (x.max() - x.min())


def test_values_keep_the_type_of_the_samples() -> None:
    """An index of another precision is rounded to that of the samples, and the values have their type."""
    x, index = noise(2, 5, 3, 4), random_indices((5, 3, 4), 50)
    single = sample(x.float(), index)
    assert single.dtype == torch.float32
    assert torch.equal(single, sample(x.float(), index.float()))
    assert sample(x, index.float(), outside=1.0).dtype == torch.float64
