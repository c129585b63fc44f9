"""Images and layers of features on coarser grids: block means, and what an excluded voxel may not do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import make_grid, noise, noise_volume, oblique_grid, rotation
from semreg.core.fields import Layer, Volume
from semreg.core.geometry import Grid

EXACT = 1e-12
"""float64 rounding of values of about 1."""

GRID = make_grid((8, 6, 9), (0.8, 1.3, 2.1), (-31.0, 12.5, 77.0), rotation(3))


def weights(grid: Grid) -> Tensor:
    """A weight in [0, 1] of each voxel; about a third are excluded, and the whole first corner."""
    weight = (noise(1, *grid.shape, seed=5) + 0.7).clamp(0.0, 1.0)
    weight[:, :3, :2, :4] = 0.0
    return weight


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Written out: (C,) of values (C, *B) and weights (1, *B)."""
    return (values * weight).flatten(1).sum(1) / weight.sum()


@pytest.mark.parametrize("factor", [2, (3, 1, 2)])
def test_a_pooled_layer_is_the_mean_of_what_counts(factor: int | tuple[int, ...]) -> None:
    """Each pooled feature is the mean of the voxels of its block by their weights; its weight is the weights' mean."""
    layer = Layer(noise_volume(GRID, channels=2), Volume(weights(GRID), GRID))
    pooled = layer.pooled(factor)
    assert pooled.weight is not None
    assert pooled.grid == pooled.weight.grid == GRID.pooled(factor)
    factors = (factor,) * 3 if isinstance(factor, int) else factor
    empty = 0
    for at in np.ndindex(*pooled.grid.shape):
        block = (slice(None), *[slice(i * k, i * k + k) for i, k in zip(at, factors, strict=True)])
        weight = layer.weight.data[block]  # type: ignore[union-attr]
        torch.testing.assert_close(pooled.weight.data[(0, *at)], weight.mean(), rtol=0, atol=EXACT)
        if weight.sum() == 0:
            empty += 1
            assert (pooled.features.data[(slice(None), *at)] == 0).all()
        else:
            expected = weighted_mean(layer.features.data[block], weight)
            torch.testing.assert_close(pooled.features.data[(slice(None), *at)], expected, rtol=0, atol=1e-9)
    assert empty


def test_a_layer_without_weights_stays_without() -> None:
    """Where every voxel counts, pooled and averaged features are those of the image, and no weight appears."""
    layer = Layer(noise_volume(GRID, channels=2))
    grid = GRID.pooled(2)
    pooled, averaged = layer.pooled(2), layer.averaged_on(grid)
    assert pooled.weight is None
    assert averaged.weight is None
    assert pooled.grid == averaged.grid == grid
    torch.testing.assert_close(pooled.features.data, layer.features.averaged_on(grid).data, rtol=0, atol=EXACT)
    torch.testing.assert_close(averaged.features.data, pooled.features.data, rtol=0, atol=EXACT)


def test_averaging_a_layer_on_its_pooled_grid_is_pooling_it() -> None:
    """On the grid of its block centres an averaged layer is the pooled one, excluded voxels left out of both."""
    layer = Layer(noise_volume(GRID, channels=2), Volume(weights(GRID), GRID))
    pooled, averaged = layer.pooled((3, 2, 4)), layer.averaged_on(GRID.pooled((3, 2, 4)))
    assert averaged.grid == pooled.grid
    assert pooled.weight is not None
    assert averaged.weight is not None
    torch.testing.assert_close(averaged.weight.data, pooled.weight.data, rtol=0, atol=EXACT)
    torch.testing.assert_close(averaged.features.data, pooled.features.data, rtol=0, atol=1e-9)


@pytest.mark.parametrize("step", [(1.3, 1.0, 1.7), (2.5, 2.0, 3.4)])
def test_what_is_excluded_has_no_say(step: tuple[float, float, float]) -> None:
    """Whatever stands in excluded voxels, averaged features are the same, and a constant one stays that constant."""
    weight = Volume(weights(GRID), GRID)
    grid = GRID.lattice((0.3, 0.2, 0.4), step, (3, 2, 2))
    constant = torch.full((1, *GRID.shape), 3.7, dtype=torch.float64)
    junk = torch.where(weight.data > 0, constant, constant + 1000.0 * noise(1, *GRID.shape))
    averaged = Layer(Volume(junk, GRID), weight).averaged_on(grid)
    assert averaged.weight is not None
    seen = averaged.weight.data > 1e-3
    assert seen.any()
    torch.testing.assert_close(averaged.features.data[seen], constant[0, 0, 0, 0].expand(int(seen.sum())))
    assert torch.isfinite(averaged.features.data).all()


def test_averaging_on_the_same_grid_changes_nothing() -> None:
    """On its own grid an image is handed back as it is."""
    volume = noise_volume(GRID)
    assert volume.averaged_on(GRID) is volume


@pytest.mark.parametrize("spacing", [(1.9, 1.5, 0.6), (1.0, 1.98, 1.0)])
def test_averaging_on_slightly_larger_voxels_is_interpolation(spacing: tuple[float, float, float]) -> None:
    """Where no voxel is at least twice as large nothing is averaged: finer ones, and all below twice as large."""
    volume = noise_volume(GRID)
    grid = GRID.lattice((0.5, 0.5, 0.5), spacing, (3, 3, 3))
    assert torch.equal(volume.averaged_on(grid).data, volume.on(grid).data)


@pytest.mark.parametrize(
    ("step", "factors"), [((2.0, 1.0, 1.0), (2, 1, 1)), ((3.9, 2.1, 0.5), (3, 2, 1)), ((1.0, 1.995, 3.0), (1, 2, 3))]
)
def test_averaging_takes_whole_blocks(step: tuple[float, float, float], factors: tuple[int, int, int]) -> None:
    """Each axis is averaged over as many voxels as fit into one of the other grid (to 1 %), then interpolated."""
    volume = noise_volume(GRID, channels=2)
    grid = GRID.lattice((0.2, 0.1, 0.3), step, (2, 2, 3))
    blocks = Layer(volume).pooled(factors).features
    torch.testing.assert_close(volume.averaged_on(grid).data, blocks.on(grid).data, rtol=0, atol=EXACT)
    assert (volume.averaged_on(grid).data - volume.on(grid).data).abs().max() > 0.1


def test_a_layer_lies_where_its_features_lie() -> None:
    """The grid of a layer is that of its features, in 2-D as well."""
    grid = oblique_grid(2)
    assert Layer(noise_volume(grid)).grid is grid
