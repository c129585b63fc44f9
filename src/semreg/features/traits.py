"""What is known of a network along each axis of the image: measured once, when it is asked for. Cuts no tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

import torch

from semreg.features import probe, reach
from semreg.features.contract import Network
from semreg.features.slices import SliceNetwork

T = TypeVar("T")


class Traits:
    """Sizes, places of outputs, receptive field and memory of a network, per tensor axis of the image."""

    def __init__(self, network: Network, device: torch.device) -> None:
        """Nothing is measured yet."""
        self._slice_axis = network.axis if isinstance(network, SliceNetwork) else None
        self._network: Network = network.network if isinstance(network, SliceNetwork) else network
        self._device = device
        self.spec = network.spec
        self._measured_closely = False

    def _spread(self, values: Sequence[T], across: T) -> tuple[T, ...]:
        """One value an axis of the image; ``across`` for the axis across the slices, where the network does nothing."""
        spread = list(values)
        if self._slice_axis is not None:
            spread.insert(self._slice_axis, across)
        return tuple(spread)

    @cached_property
    def _found(self) -> tuple[probe.Sizes, list[probe.OutputTraits]]:
        return probe.find_sizes(self._network, self._device)

    @property
    def _sizes(self) -> tuple[int, tuple[int, ...]]:
        return self._found[0].multiple, self._found[0].smallest

    @property
    def _measured(self) -> list[probe.OutputTraits]:
        return self._found[1]

    @property
    def fixed_size(self) -> tuple[int, ...] | None:
        """The only input size the network takes, 1 across slices; None if it takes others."""
        sizes = self._found[0]
        return self._spread(sizes.smallest, 1) if sizes.only else None

    @property
    def patch(self) -> tuple[int | None, ...] | None:
        """The input size its description asks for; across slices None, any number of them."""
        if self.spec.patch is None:
            return None
        return self._spread(list[int | None](probe.per_axis(self.spec.patch, self.spec.dimension)), None)

    @cached_property
    def memory(self) -> probe.Memory:
        """What a forward pass holds: about, and rather more than less, until ``measure_memory`` was called."""
        return self._memory(probe.MEMORY_SIDE)

    def measure_memory(self, most: float) -> None:
        """Measure ``memory`` again, more closely, which takes longer, with at most ``most`` voxels."""
        side = min(probe.CLOSE_SIDE, int(max(0.0, most / 2) ** (1 / 3)))
        if self.fixed_size is None and not self._measured_closely and side > probe.MEMORY_SIDE:
            self.memory = self._memory(side)
            self._measured_closely = True

    def _memory(self, side: int) -> probe.Memory:
        multiple, size = self._sizes
        if self.fixed_size is not None:
            peak = probe.fixed_memory(self._network, size, self._device).fixed
            return probe.Memory(peak / math.prod(size), 0.0)
        return probe.measure_memory(self._network, size, multiple, self._device, side)

    @cached_property
    def _reaches(self) -> tuple[reach.Reach, ...]:
        multiple, size = self._sizes
        axes = range(self.spec.dimension)
        if self.fixed_size is not None:
            centred = [tuple(output.offset[axis] for output in self._measured) for axis in axes]
            return tuple(reach.Reach(None, multiple, centred[axis]) for axis in axes)

        def measured(axis: int) -> reach.Reach:
            facts = (self._network, self._measured, multiple, size, axis, self._device)
            if self.spec.receptive_field is None:
                return reach.measure_reach(*facts)
            stated = probe.per_axis(self.spec.receptive_field, self.spec.dimension)[axis]
            return reach.Reach(stated, multiple, reach.local_offsets(*facts))

        return tuple(measured(axis) for axis in axes)

    @property
    def halo(self) -> tuple[int | None, ...]:
        """Voxels around a core that influence it; None: all there are."""
        return self._spread([found.voxels for found in self._reaches], 0)

    @property
    def align(self) -> tuple[int, ...]:
        """Tiles start at multiples of this many voxels, or outputs would not fit together."""
        strides = [[output.stride[axis] for output in self._measured] for axis in range(self.spec.dimension)]
        periods = [math.lcm(self._sizes[0], r.period, *s) for r, s in zip(self._reaches, strides, strict=True)]
        return self._spread(periods, 1)

    @cached_property
    def outputs(self) -> list[probe.OutputTraits]:
        """Channels, strides and places of the outputs."""
        found = self._measured
        if any(any(output.slack) or max(output.stride) > 1 for output in found):
            found = reach.with_offsets(found, self._reaches)  # where they lie is a question only then
        return [
            replace(
                output,
                stride=self._spread(output.stride, 1),
                offset=self._spread(output.offset, 0.0),
                slack=self._spread(output.slack, 0),
            )
            for output in found
        ]

    def filled(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The size that an image must be filled up to."""
        multiple, smallest = self._sizes
        multiples = self.align if self.fixed_size is not None else self._spread([multiple] * self.spec.dimension, 1)
        least = self._spread(smallest, 1)
        return tuple(max(low, -(-n // m) * m) for n, m, low in zip(shape, multiples, least, strict=True))

    def shapes(self, shape: Sequence[int]) -> list[tuple[int, ...]]:
        """Channels and samples (C, *S) of all outputs for an image of ``shape``, without those beyond its end."""
        full = self.filled(shape)
        return [
            (output.channels, *[_samples(output, axis, n, full[axis]) for axis, n in enumerate(shape)])
            for output in self.outputs
        ]


def _samples(output: probe.OutputTraits, axis: int, size: int, full: int) -> int:
    count, stride, offset = output.samples(axis, full), output.stride[axis], output.offset[axis]
    if full == size:
        return count
    last = size - 1 + max(0.0, -offset) + (stride - 1) / 2
    return max(1, min(count, math.floor((last - offset) / stride + 1e-6) + 1))
