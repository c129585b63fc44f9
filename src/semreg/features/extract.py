"""From an image to layers of features: by a descriptor, slab by slab, or by a network, tile by tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from semreg.core.fields import Layer, Volume, reorder_tensor
from semreg.core.geometry import Grid, index_map, reorder
from semreg.core.sampling import pool
from semreg.core.shapes import Channels, Map, Numbers
from semreg.errors import ModelContractError
from semreg.features.collect import Labels, Maps, label_type
from semreg.features.contract import Descriptor, IntensityStats, ModelSpec, Network
from semreg.features.engine import Engine, Request
from semreg.features.formula import described
from semreg.features.inputs import Frame, frame_of, request_of, stats_of
from semreg.features.slices import AXES, SliceNetwork, slice_axis
from semreg.features.tiles import Plan
from semreg.features.traits import Traits

SMALL = 1e-6
"""Weights below count as none."""

SLAB_VOXELS = 1 << 18
"""Voxels of a slab: small enough that its intermediate results stay in the processor's cache."""


def intensity_stats(volume: Volume, weight: Volume | None = None) -> IntensityStats:
    """Minimum, maximum, mean and standard deviation over the voxels with weight above zero, computed in float64."""
    return stats_of(volume.data if weight is None else volume.data[weight.data > 0])


def describe(
    volume: Volume,
    model: Descriptor,
    *,
    pooling: int = 1,
    weight: Volume | None = None,
    device: torch.device | str = "cpu",
    reference: Numbers | IntensityStats | None = None,
) -> Layer:
    """Features of ``volume`` (1, *S), pooled by ``pooling`` voxels.

    ``weight`` (1, *S) in [0, 1] excludes voxels: where it is zero an intensity influences nothing. Block means are
    then weighted means, and the layer carries the mean weight of its blocks. Slabs are computed on ``device``, where
    the features stay. ``reference``: statistics, or intensities whose statistics, stand for those of the image.
    Differentiable in ``volume`` where its data require a gradient; the statistics count as constants.
    """
    stats = _stats(volume, weight, reference)
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
        tile = described(model, x, stats, valid)
        if tile.weight is None or weights is None:
            features[:, part] = pool(tile.values, pooling)
        else:
            weights[:, part] = pool(tile.weight, pooling)
            features[:, part] = pool(tile.values * tile.weight, pooling) / weights[:, part].clamp(min=SMALL)
    return Layer(Volume(features, grid), None if weights is None else Volume(weights, grid))


def _stats(volume: Volume, weight: Volume | None, reference: Numbers | IntensityStats | None) -> IntensityStats:
    """Those of the image, unless others are known."""
    if isinstance(reference, IntensityStats):
        return reference
    return intensity_stats(volume, weight) if reference is None else stats_of(reference)


class Extractor:
    """A network that gives layers of features; what was measured of it is kept from one image to the next."""

    def __init__(self, network: Network, **options: Any) -> None:
        """``options`` are those of ``Engine``."""
        self.network = network
        self._options = options
        self._engines: dict[int | None, Engine] = {}
        self.plans: list[Plan] = []
        """How the last image was cut, once for each orientation it was seen in."""

    @property
    def spec(self) -> ModelSpec:
        """That of the network."""
        return self.network.spec

    def layers(
        self,
        volume: Volume,
        weight: Volume | None = None,
        *,
        pooled_mm: float | None = None,
        reference: Numbers | None = None,
    ) -> tuple[Layer, ...]:
        """All outputs for ``volume`` (1, *S), each on its own grid, in the axes of the volume.

        ``weight`` (1, *S) in [0, 1] excludes voxels; each layer carries it on its grid. Outputs finer than
        ``pooled_mm`` become block means of about that size. ``reference``: intensities whose statistics stand for those
        of the image.
        Differentiable in ``volume`` where its data require a gradient; where the whole image and its graph have no room
        at once, the network is run once more backwards, tile by tile. Data on another device than the CPU stay there
        under the same condition.
        """
        frame = frame_of(volume.grid, self.spec)
        engines = [self.engine(axis) for axis in _planes(self.spec, frame)]
        engines[0].check_image(frame.grid.voxels * (1 if weight is None else 2))
        request, share = request_of(volume, weight, frame, self.spec, reference)
        seen = [_layers(engine, request, share, frame, pooled_mm) for engine in engines]
        self.plans = [engine.plan for engine in engines if engine.plan is not None]
        return tuple(_on(volume.grid, _mean(same, frame)) for same in zip(*seen, strict=True))

    @property
    def traits(self) -> Traits:
        """What was measured of the network on an image of its own dimension."""
        return self.engine(None).traits

    def engine(self, axis: int | None) -> Engine:
        """The engine for the network itself (None), or slice by slice along a tensor axis."""
        if axis not in self._engines:
            network = self.network if axis is None else SliceNetwork(self.network, axis)
            self._engines[axis] = Engine(network, **self._options)
        return self._engines[axis]


def extract_layers(
    volume: Volume, network: Network, *, weight: Volume | None = None, pooled_mm: float | None = None, **options: Any
) -> tuple[Layer, ...]:
    """``Extractor.layers`` for one image; ``options`` are those of ``Engine``."""
    return Extractor(network, **options).layers(volume, weight, pooled_mm=pooled_mm)


def segment(volume: Volume, network: Network, *, weight: Volume | None = None, **options: Any) -> Volume:
    """The index of the largest channel of the network's only output, (1, *S) integers on the grid of ``volume``.

    The channels of a tile are dropped as soon as they are compared, so they are never held for the whole image. Where
    the network works at another voxel size its output is interpolated first (with blended patches: the label is that
    of the nearest voxel). Voxels where ``weight`` (1, *S) is 0 influence no statistic. ``options`` are those of
    ``Engine``.
    """
    frame = frame_of(volume.grid, network.spec)
    (axis, *more) = _planes(network.spec, frame)
    if more:
        return _segment_of_planes(volume, weight, network, options)
    engine = Extractor(network, **options).engine(axis)
    engine.check_image(frame.grid.voxels)
    request, _ = request_of(volume, weight, frame, network.spec)
    if len(engine.traits.outputs) != 1:
        raise ModelContractError(
            f"expected one output to take labels from, got {len(engine.traits.outputs)} of {engine.name}: name one "
            "with layers"
        )
    turned = reorder(volume.grid, frame.axes)
    output = engine.traits.outputs[0]
    shape = engine.traits.shapes(request.x.shape[1:])[0][1:]
    found = Labels(frame.grid.lattice(output.offset, output.stride, shape), turned)
    engine.run(request, found)
    return Volume(reorder_tensor(found.labels[None], frame.axes.inverse), volume.grid)


def _segment_of_planes(volume: Volume, weight: Volume | None, network: Network, options: Mapping[str, Any]) -> Volume:
    """The same from the mean over three orientations of the slices, which must be held."""
    layers = extract_layers(volume, network, weight=weight, **options)
    if len(layers) != 1:
        raise ModelContractError(f"expected one output to take labels from, got {len(layers)}: name one with layers")
    data = layers[0].features.on(volume.grid).data
    return Volume(data.argmax(0, keepdim=True).to(label_type(len(data))), volume.grid)


def _planes(spec: ModelSpec, frame: Frame) -> list[int | None]:
    """How the image is seen: as it is (None), or slice by slice along one tensor axis or along each of three."""
    if spec.dimension == frame.grid.dimension:
        return [None]
    planes = list(AXES) if spec.slices == "all" else [spec.slices]
    return [slice_axis(plane, frame.letters) for plane in planes]


def _layers(
    engine: Engine, request: Request, share: Volume | None, frame: Frame, pooled_mm: float | None
) -> list[Layer]:
    spacing = min(frame.grid.spacing)
    outputs = engine.traits.outputs
    factors = [1 if pooled_mm is None else max(1, round(pooled_mm / (spacing * min(o.stride)))) for o in outputs]
    if request.x.requires_grad or request.x.device.type != "cpu":
        found = engine.whole(request) or _Run.apply(request.x, engine, request)  # type: ignore[no-untyped-call]
        maps = [pool(y, factor) for y, factor in zip(found, factors, strict=True)]
    else:
        collector = Maps(factors, copied=bool(frame.axes.flips))
        engine.run(request, collector)
        maps = collector.finish()
    shapes = engine.traits.shapes(request.x.shape[1:])
    back = frame.axes.inverse
    layers = []
    for output, shape, factor, data in zip(outputs, shapes, factors, maps, strict=True):
        grid = frame.grid.lattice(output.offset, output.stride, shape[1:]).pooled(factor)
        features = Volume(data, grid).reordered(back)
        weight = None if share is None else share.averaged_on(grid).reordered(back)
        layers.append(Layer(features, weight))
    return layers


class _Run(torch.autograd.Function):
    """A network over an image, tile by tile, forwards and backwards: only one tile's graph is ever held."""

    @staticmethod
    def forward(ctx: Any, x: Channels, engine: Engine, request: Request) -> tuple[Map, ...]:
        ctx.engine, ctx.request = engine, replace(request, x=x.detach())
        collector = Maps()
        engine.run(ctx.request, collector)
        return tuple(collector.finish())

    @staticmethod
    def backward(ctx: Any, *gradients: Map) -> tuple[Channels, None, None]:
        return ctx.engine.pull_back(ctx.request, gradients), None, None


def _mean(layers: Sequence[Layer], frame: Frame) -> Layer:
    """The mean of the same output seen in several orientations, on the network's grid."""
    if len(layers) == 1:
        return layers[0]
    grid = reorder(frame.grid, frame.axes.inverse)
    total = layers[0].features.on(grid).data.clone()
    for layer in layers[1:]:
        total += layer.features.on(grid).data
    weight = layers[0].weight
    return Layer(Volume(total / len(layers), grid), None if weight is None else weight.on(grid))


def _on(grid: Grid, layer: Layer) -> Layer:
    """The layer on ``grid`` itself where its own differs from that by rounding alone."""
    if layer.grid.shape != grid.shape or np.abs(index_map(layer.grid, grid) - np.eye(grid.dimension + 1)).max() > 1e-9:
        return layer
    weight = None if layer.weight is None else Volume(layer.weight.data, grid)
    return Layer(Volume(layer.features.data, grid), weight)


def _padded(x: Float[Tensor, "1 *_s"], start: int, stop: int, halo: int) -> Float[Tensor, "1 *_t"]:
    """Planes ``start`` to ``stop`` of x (1, *S) with ``halo`` voxels more on every side, border values beyond."""
    if halo == 0:
        return x[:, start:stop]
    low, high = max(0, start - halo), min(x.shape[1], stop + halo)
    sides = [halo] * (2 * (x.ndim - 2)) + [low - (start - halo), (stop + halo) - high]
    return F.pad(x[:, low:high][None], sides, mode="replicate")[0]
