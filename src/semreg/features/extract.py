"""From an image to layers of features: slab by slab with a halo, pooled on the way, so memory stays small."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from semreg.features.contract import Descriptor, IntensityStats
from semreg.fields import Layer, Volume
from semreg.sampling import pool

SMALL = 1e-6
"""Weights below count as none."""

SLAB_VOXELS = 1 << 18
"""Voxels of a slab: small enough that its intermediate results stay in the processor's cache."""


def intensity_stats(volume: Volume, weight: Volume | None = None) -> IntensityStats:
    """Minimum, maximum, mean and standard deviation over the voxels with weight above zero, computed in float64."""
    values = volume.data if weight is None else volume.data[weight.data > 0]
    mean = values.mean(dtype=torch.float64)
    std = torch.sqrt(((values - mean.to(values.dtype)) ** 2).mean(dtype=torch.float64))
    return IntensityStats(float(values.min()), float(values.max()), float(mean), float(std))


def describe(
    volume: Volume,
    model: Descriptor,
    *,
    pooling: int = 1,
    weight: Volume | None = None,
    device: torch.device | str = "cpu",
) -> Layer:
    """Features of ``volume`` (1, *S), pooled by ``pooling`` voxels.

    ``weight`` (1, *S) in [0, 1] excludes voxels: where it is zero an intensity influences nothing. Block means are
    then weighted means, and the layer carries the mean weight of its blocks. Slabs are computed on ``device``, where
    the features stay.
    """
    stats = intensity_stats(volume, weight)
    halo = model.spec.halo
    shape = volume.grid.shape
    plane = max(1, volume.grid.voxels // shape[0])
    thickness = max(1, SLAB_VOXELS // plane // pooling) * pooling
    grid = volume.grid.pooled(pooling)
    features = volume.data.new_empty((model.spec.channels, *grid.shape), device=device)
    weights = None if weight is None else volume.data.new_empty((1, *grid.shape), device=device)
    for start in range(0, shape[0], thickness):
        stop = min(start + thickness, shape[0])
        part = slice(start // pooling, -(-stop // pooling))
        x = _padded(volume.data, start, stop, halo).to(device)
        valid = None if weight is None else _padded(weight.data, start, stop, halo).to(device)
        if valid is not None:
            x = torch.where(valid > 0, x, stats.mean)  # excluded voxels may hold anything, NaN included
        tile = model(x, stats, valid)
        if tile.weight is None or weights is None:
            features[:, part] = pool(tile.values, pooling)
        else:
            weights[:, part] = pool(tile.weight, pooling)
            features[:, part] = pool(tile.values * tile.weight, pooling) / weights[:, part].clamp(min=SMALL)
    return Layer(Volume(features, grid), None if weights is None else Volume(weights, grid))


def _padded(x: Tensor, start: int, stop: int, halo: int) -> Tensor:
    """Planes ``start`` to ``stop`` of x (1, *S) with ``halo`` voxels more on every side, border values beyond."""
    if halo == 0:
        return x[:, start:stop]
    low, high = max(0, start - halo), min(x.shape[1], stop + halo)
    sides = [halo] * (2 * (x.ndim - 2)) + [low - (start - halo), (stop + halo) - high]
    return F.pad(x[:, low:high][None], sides, mode="replicate")[0]
