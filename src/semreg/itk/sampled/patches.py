"""A model on patches around points of one image, and the way back from its features to the points.

The patch lies along the axes that the model wants, in voxels of the size that it wants, its middle voxel (size // 2) on
the point; the intensities are interpolated linearly. What the model says of the middle is the feature of the point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semreg.core.fields import Volume
from semreg.core.geometry import Grid, index_map, per_axis
from semreg.core.pullback import pullback
from semreg.core.sampling import base_index, pool, transform_index
from semreg.core.scattered import read_blocks, read_image
from semreg.errors import ModelContractError
from semreg.features.contract import Descriptor, IntensityStats
from semreg.features.extract import Extractor, intensity_stats
from semreg.features.formula import through
from semreg.features.inputs import Frame, frame_of, normalised, stats_of
from semreg.features.probe import OutputTraits
from semreg.features.slices import AXES, slice_axis
from semreg.features.traits import Traits

LARGEST = 31
"""Voxels a side of a patch whose size is measured, at most."""
SAME = 1e-9
"""Difference of matrices below which the voxels of a patch are those of the image."""
Layers: TypeAlias = Callable[[Tensor], list[Tensor]]
"""From patches (B, 1, *S) to the features of their centres, (B, C) for each layer."""


@dataclass(frozen=True)
class View:
    """How a model looks at an image: through patches of ``shape`` along the axes and in the voxels of ``grid``."""

    image: Volume
    """Intensities as the model wants them, (1, *S)."""
    grid: Grid
    shape: tuple[int, ...]
    layers: Layers

    def read(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (P, 1, *shape) around ``points`` (D, P), mm, and their derivative in the image's index (D, P, V)."""
        linear = index_map(self.grid, self.image.grid)[:-1, :-1]
        centre = transform_index(self.image.grid.point_to_index(), points)
        if np.abs(linear - np.eye(len(linear))).max() > SAME:
            return self._read(centre, linear)
        values, slopes, inside = read_blocks(self.image.data[0], centre, self.shape)
        if not bool(inside.all()):  # patches across the border see its values continued
            beyond = self._read(centre[:, ~inside], linear)
            count = points.shape[1]
            values, read = values.new_empty((count, *self.shape)), values
            slopes, slope = slopes.new_empty((len(points), count, *self.shape)), slopes
            values[inside], values[~inside] = read, beyond[0][:, 0]
            slopes[:, inside], slopes[:, ~inside] = slope, beyond[1].reshape(len(points), -1, *self.shape)
        return values[:, None], slopes.flatten(2)

    def _read(self, centre: Tensor, linear: npt.NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """The same around any ``centre`` (D, P) of the image's index, with patches along any axes."""
        middle = torch.tensor([n // 2 for n in self.shape], dtype=centre.dtype, device=centre.device)
        places = base_index(self.shape, like=centre).flatten(1) - middle[:, None]
        steps = torch.as_tensor(linear, dtype=centre.dtype, device=centre.device) @ places
        index = (centre[:, :, None] + steps[:, None]).flatten(1)
        values, slopes = read_image(self.image.data[0], index)
        count = centre.shape[1]
        return values.reshape(count, 1, *self.shape), slopes.reshape(len(centre), count, -1)

    def pull(self, slopes: Tensor, gradient: Tensor) -> Tensor:
        """The derivative in the points (D, P), mm, of what has the ``gradient`` (P, 1, *shape) in the patches."""
        along = (slopes * gradient.flatten(1)).sum(2, dtype=torch.float64)
        n = len(along)
        linear = torch.as_tensor(self.image.grid.point_to_index()[:n, :n], device=along.device)
        return linear.T @ along


class PatchReading:
    """What a model says of some points: the mean over its views."""

    def __init__(self, views: Sequence[View], points: Tensor, *, graph: bool) -> None:
        """Run the model on patches around ``points`` (D, P), mm; with a ``graph``, ``pull`` can be asked for."""
        self._views = views
        self._inputs, self._slopes, seen = [], [], []
        for view in views:
            patches, slopes = view.read(points)
            with torch.set_grad_enabled(graph):
                seen.append(view.layers(patches.requires_grad_(graph)))
            self._inputs.append(patches)
            self._slopes.append(slopes if graph else None)
        self.layers = [torch.stack(same).mean(0) if len(same) > 1 else same[0] for same in zip(*seen, strict=True)]

    def pull(self, values: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
        """The derivative in the points (D, P) of what has these gradients in ``values``, computed from ``layers``."""
        pairs = [(v, g.to(v)) for v, g in zip(values, gradients, strict=True) if v.requires_grad]
        if not pairs:
            raise ModelContractError(
                "expected models that are differentiable in the mode jacobian, got none with a gradient: use the mode "
                "static"
            )
        pulled = pullback([v for v, _ in pairs], [g for _, g in pairs], self._inputs)
        parts = [
            view.pull(slopes, gradient)
            for view, slopes, gradient in zip(self._views, self._slopes, pulled, strict=True)
            if slopes is not None
        ]
        return torch.stack(parts).sum(0)


def views_of(
    model: Descriptor | Extractor, image: tuple[Volume, Volume | None], grid: Grid, device: torch.device
) -> list[View]:
    """How ``model`` looks at ``image`` (a volume and the weight of its voxels); ``grid`` is the working grid.

    One view, or three where a model of slices is asked in all planes. Raises ModelContractError and ConfigError.
    """
    volume, weight = image
    if not isinstance(model, Extractor):
        stats = intensity_stats(volume, weight)
        shape = (2 * model.spec.halo + 1,) * grid.dimension
        return [View(_on(_resolved(volume, grid), device), grid, shape, _formula(model, stats))]
    spec, frame = model.spec, frame_of(grid, model.spec)
    counted = volume.data if weight is None else volume.data[weight.data > 0]
    seen = Volume(normalised(volume.data, counted, spec.normalisation), volume.grid)
    stats = stats_of(normalised(counted, counted, spec.normalisation))
    seen = _on(_resolved(seen, frame.grid), device)
    size = patch_shape(model, device)
    if spec.dimension == grid.dimension:
        return [View(seen, frame.grid, size, _network(model, stats, frame, None, device))]
    planes = [slice_axis(plane, frame.letters) for plane in (AXES if spec.slices == "all" else [spec.slices])]
    return [
        View(seen, frame.grid, (*size[:axis], 1, *size[axis:]), _network(model, stats, frame, axis, device))
        for axis in planes
    ]


def patch_shape(model: Extractor, device: torch.device) -> tuple[int, ...]:
    """The size of a patch: what the description states, the only size the network takes, or what its centre sees.

    What is measured is at most ``LARGEST`` voxels a side, but no smaller than the network takes.
    """
    spec, traits = model.spec, model.traits
    if spec.patch is not None:
        return per_axis(spec.patch if len(spec.patch) > 1 else spec.patch[0], spec.dimension)
    if traits.fixed_size is not None:
        return traits.fixed_size
    shape = tuple(_side(traits, axis) for axis in range(spec.dimension))
    return shape if max(traits.align) == 1 and _taken(model, shape, device) else traits.filled(shape)


def _side(traits: Traits, axis: int) -> int:
    halo, stride = traits.halo[axis], max(output.stride[axis] for output in traits.outputs)
    between = stride if stride > 1 else 0  # the centre lies between two samples
    return LARGEST if halo is None else min(LARGEST, 2 * (halo + between) + 1)


def _taken(model: Extractor, shape: Sequence[int], device: torch.device) -> bool:
    """Whether the network takes patches that are smaller than those it was measured with."""
    patch = torch.randn((1, 1, *shape), generator=torch.Generator().manual_seed(0)).to(device)
    try:
        with torch.no_grad():
            model.network(patch, IntensityStats(-3.0, 3.0, 0.0, 1.0), torch.eye(len(shape), device=device))
    except ModelContractError:
        return False
    return True


def _network(model: Extractor, stats: IntensityStats, frame: Frame, across: int | None, device: torch.device) -> Layers:
    """The network on patches; ``across``: the tensor axis across the slices that it sees."""
    dimension = frame.grid.dimension
    inner = [column for column in range(dimension) if across is None or column != dimension - 1 - across]
    direction = torch.tensor(frame.grid.direction, dtype=torch.float32)[inner][:, inner].to(device)
    outputs = model.traits.outputs

    def layers(patches: Tensor) -> list[Tensor]:
        x = patches if across is None else patches.squeeze(2 + across)
        found = model.network(x, stats, direction)
        return [_centre(y, output, x.shape[2:]) for y, output in zip(found, outputs, strict=True)]

    return layers


def _centre(y: Tensor, output: OutputTraits, size: Sequence[int]) -> Tensor:
    """An output (B, C, *S_l) at the middle voxel of an input of ``size``, between its samples if need be, (B, C)."""
    for n, offset, stride in zip(size, output.offset, output.stride, strict=True):
        place = min(max((n // 2 - offset) / stride, 0.0), y.shape[2] - 1.0)
        low = min(int(place), max(y.shape[2] - 2, 0))
        share = place - low
        lower = y.select(2, low)
        y = lower if share < 1e-6 else torch.lerp(lower, y.select(2, low + 1), share)
    return y


def _formula(model: Descriptor, stats: IntensityStats) -> Layers:
    """A descriptor on patches, which stand in a row along the first axis: only the centre of each is read."""

    def centres(patches: Tensor) -> Tensor:
        row = patches.flatten(0, 2)[None]
        values = model(row, stats).values.flatten(2)[:, :: patches.shape[2], 0]
        return values.T

    def layers(patches: Tensor) -> list[Tensor]:
        return [through(centres, patches)]

    return layers


def _resolved(volume: Volume, grid: Grid) -> Volume:
    """Block means where the voxels of ``grid`` are at least twice as large as those of the image."""
    factor = [max(1, int(min(grid.spacing) / spacing + 0.01)) for spacing in volume.grid.spacing]
    if max(factor) == 1:
        return volume
    return Volume(pool(volume.data, tuple(factor)), volume.grid.pooled(tuple(factor)))


def _on(volume: Volume, device: torch.device) -> Volume:
    return Volume(volume.data.to(device), volume.grid)
