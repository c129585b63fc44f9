"""Which inputs a network takes, which outputs it gives and what it holds meanwhile, measured by running it.

Nothing is assumed of the architecture. How far outputs see is measured in ``reach``. Knows no image.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from semreg.core.shapes import Batch, Output
from semreg.errors import ModelContractError
from semreg.features.contract import IntensityStats, Network
from semreg.features.tensor_memory import TensorTally
from semreg.runtime.memory import give_back_memory, held_bytes, is_out_of_memory, watched_peak

MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 7, 14, 28, 56)
"""Input sizes that networks ask to be multiples of, tried in this order."""
SMALLEST = 9
"""Voxels a side of the smallest probe."""
LEAST_SIZES = (SMALLEST, 16, 25, 36, 60, 96)
MOST_SIZE = 224
MEMORY_SIDE = 32
"""Voxels a side of the probe of the memory."""
CLOSE_SIDE = 60
"""The same where it matters how much it is exactly."""
LONG_ENOUGH = 0.15
"""Seconds in which the peak of the memory is seen for sure."""
MOST_PASSES = 30
STANDARD = IntensityStats(-3.0, 3.0, 0.0, 1.0)
"""Statistics of the noise that is shown."""


@dataclass(frozen=True)
class OutputTraits:
    """Where the samples of one output lie: sample i of an axis at the input's index ``offset + i * stride``."""

    channels: int
    stride: tuple[int, ...]
    """Input voxels from one sample to the next, per tensor axis."""
    offset: tuple[float, ...]
    slack: tuple[int, ...]
    """Voxels that the input counts more (padding) or less (negative) where strides are counted."""

    @property
    def grown(self) -> tuple[int, ...]:
        """Samples more (or fewer, negative) than input voxels over stride, where the stride divides them."""
        return tuple(slack // stride for slack, stride in zip(self.slack, self.stride, strict=True))

    def samples(self, axis: int, size: int) -> int:
        """Number of samples along an axis of ``size`` input voxels."""
        return (size + self.slack[axis]) // self.stride[axis]


@dataclass(frozen=True)
class Memory:
    """Bytes a forward pass holds at its peak, beyond weights: ``fixed + per_voxel * voxels`` of the input."""

    per_voxel: float
    fixed: float


@dataclass(frozen=True)
class Sizes:
    """Input sizes that a network takes: ``multiple`` of them, ``smallest`` seen to work, or, if ``only``, no other."""

    multiple: int
    smallest: tuple[int, ...]
    only: bool = False


def find_sizes(network: Network, device: torch.device) -> tuple[Sizes, list[OutputTraits]]:
    """The input sizes that a network takes, and the outputs that it then has (``measure_outputs``).

    Raises ModelContractError, with the network's own complaint, if it takes none.
    """
    spec = network.spec
    stated = spec.patch or spec.size
    if stated is not None and spec.multiple is None:
        patch = per_axis(stated, spec.dimension)
        if _is_only_size(network, patch, device):
            return Sizes(1, patch, only=True), fixed_outputs(network, patch, device)
    refusal: ModelContractError | None = None
    for multiple in MULTIPLES if spec.multiple is None else (spec.multiple,):
        size = _smallest(network, multiple, device)
        if isinstance(size, int):
            sizes = Sizes(multiple, (size,) * spec.dimension)
            try:
                outputs = measure_outputs(network, multiple, sizes.smallest, device)
            except _SizeRefusedError as error:  # it took the smallest by chance: sums of roundings that happen to meet
                refusal = refusal or error
                continue
            if outputs is not None:
                return sizes, outputs
        else:
            refusal = refusal or size
    name = spec.name or "the model"
    if refusal is None:
        raise ModelContractError(
            f"expected the outputs of {name} to grow evenly with its input, at most one sample a voxel, they do not: "
            "leave such outputs out with layers, or set patch to the size it was made for"
        )
    raise ModelContractError(
        f"expected {name} to take some input of {SMALLEST} to {MOST_SIZE} voxels a side, it took none, and of the "
        f"smallest it said: {refusal}; or set patch to the size it was made for"
    ) from refusal


class _SizeRefusedError(ModelContractError):
    """What a network says of a size that was tried."""


def _is_only_size(network: Network, patch: Sequence[int], device: torch.device) -> bool:
    """Whether the network takes ``patch`` and nothing that is longer along an axis, or makes the same of it.

    The latter is one that resizes what it gets: outputs keep their size. No, where memory runs out.
    """
    longer = [[n + 64 * (a == axis) for a, n in enumerate(patch)] for axis in range(len(patch))]
    try:
        given = _shapes(network, patch, device)
        return given is not None and any(_shapes(network, size, device) in (None, given) for size in longer)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False


def _smallest(network: Network, multiple: int, device: torch.device) -> int | ModelContractError | None:
    """The first size, a multiple, that the network takes on all axes; what it said of the smallest one if none."""
    refusal = None
    for size in sorted({multiple * (math.ceil(least / multiple) // 2 * 2 + 1) for least in LEAST_SIZES}):
        problem = _refusal(network, [size] * network.spec.dimension, device) if size <= MOST_SIZE else refusal
        if problem is None and size <= MOST_SIZE:
            return size
        refusal = refusal or problem
    return refusal


def measure_outputs(
    network: Network, multiple: int, size: Sequence[int], device: torch.device
) -> list[OutputTraits] | None:
    """Channels and strides of all outputs; offsets as if both ends of the input were padded alike.

    None where the number of samples does not grow evenly over multiples of ``multiple``. Raises ModelContractError for
    an output that does not grow with the input: it fits no grid.
    """
    axes = [_Lengths(network, size, axis, multiple, device) for axis in range(network.spec.dimension)]
    axes[0].count(0, 0)
    outputs = []
    for number, channels in enumerate(axes[0].channels):
        steps = [lengths.step(number) for lengths in axes]
        known = [step for step in steps if step is not None]
        if len(known) < len(steps):
            return None
        outputs.append(_traits(channels, [stride for stride, _ in known], [slack for _, slack in known]))
    return outputs


class _Lengths:
    """How many samples the outputs have along one axis, for inputs that are longer along it by some multiples."""

    def __init__(self, network: Network, size: Sequence[int], axis: int, multiple: int, device: torch.device) -> None:
        self._network, self._size, self._axis, self._multiple, self._device = network, size, axis, multiple, device
        self._known: dict[int, list[int]] = {}
        self.channels: list[int] = []

    def count(self, number: int, more: int) -> int:
        """Samples of an output for ``more`` multiples than the smallest input has."""
        if more not in self._known:
            size = [n + more * self._multiple * (a == self._axis) for a, n in enumerate(self._size)]
            try:
                outputs = run(self._network, noise(size, self._device))
            except ModelContractError as error:
                raise _SizeRefusedError(str(error)) from error
            self.channels = [y.shape[1] for y in outputs]
            self._known[more] = [y.shape[self._axis + 2] for y in outputs]
        return self._known[more][number]

    def step(self, number: int) -> tuple[int, int] | None:
        """Stride and slack of an output; None where its samples do not come evenly."""
        size, multiple = self._size[self._axis], self._multiple
        more = 64 if multiple < 4 else 16
        count, many = self.count(number, 0), self.count(number, more)
        if many <= count:
            raise ModelContractError(
                f"expected output {number} of {self._network.spec.name or 'the model'} to grow with its input, got "
                f"{count} samples for {size} voxels and {many} for {size + more * multiple}: it fits no grid; leave it "
                "out with layers, or set size to what the network resizes its input to"
            )
        each = self.count(number, 1) - count
        if (
            each > 0
            and multiple % each == 0
            and (self.count(number, 2), many) == (count + 2 * each, count + more * each)
        ):
            stride = multiple // each
            return stride, stride * count - size
        first = self._first_above(number, count, more)
        second = self._first_above(number, count + 1, 2 * more)
        stride = (second - first) * multiple
        if self.count(number, first) != count + 1 or self.count(number, second) != count + 2:
            return None
        if abs(more * multiple - stride * (many - count)) >= stride:
            return None
        return stride, stride * (count + 1) - size - first * multiple

    def _first_above(self, number: int, count: int, high: int) -> int:
        """The fewest multiples more that give more than ``count`` samples, by bisection up to ``high``."""
        low = 0
        while high - low > 1:
            middle = (low + high) // 2
            if self.count(number, middle) > count:
                high = middle
            else:
                low = middle
        return high


def fixed_outputs(network: Network, size: Sequence[int], device: torch.device) -> list[OutputTraits]:
    """The same for a network that takes one size only: strides are the ratios of input and output size."""
    outputs = run(network, noise(size, device))
    found = []
    for number, y in enumerate(outputs):
        counts = y.shape[2:]
        strides = [max(1, round(n / m)) for n, m in zip(size, counts, strict=True)]
        if min(counts) < 2 <= min(size) or any(n % s for n, s in zip(size, strides, strict=True)):
            raise ModelContractError(
                f"expected output {number} of {network.spec.name or 'the model'} to be a map, got {tuple(counts)} "
                f"for {tuple(size)} voxels: leave it out with layers"
            )
        slacks = [s * m - n for n, m, s in zip(size, counts, strides, strict=True)]
        found.append(_traits(y.shape[1], strides, slacks))
    return found


def _traits(channels: int, stride: Sequence[int], slack: Sequence[int]) -> OutputTraits:
    """The traits with as much padding at one end as at the other."""
    offset = tuple((n - 1 - more) / 2 for n, more in zip(stride, slack, strict=True))
    return OutputTraits(channels, tuple(stride), offset, tuple(slack))


def measure_memory(
    network: Network, size: Sequence[int], multiple: int, device: torch.device, side: int = MEMORY_SIDE
) -> Memory:
    """Bytes of a forward pass by voxel, from the peak of one pass over about ``2 * side³`` voxels.

    With what is returned, without the input. Small passes need more by voxel than large ones do; where memory runs
    out, a smaller one is tried.
    """
    axis = len(size) - 1
    if device.type == "cpu":
        run(network, noise(size, device))  # what is allocated once and kept does not count
    side = round(side ** (3 / len(size)))
    while True:
        shape = [up(max(n, side), multiple) * (2 if a == axis else 1) for a, n in enumerate(size)]
        try:
            return Memory(_peak(network, noise(shape, device)) / math.prod(shape), 0.0)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or side <= min(size):
                raise
        side //= 2
        give_back_memory()


def fixed_memory(network: Network, size: Sequence[int], device: torch.device) -> Memory:
    """The same for a network that takes one size only."""
    return Memory(0.0, _peak(network, noise(size, device)))


def _peak(network: Network, x: Batch) -> float:
    """The most bytes that one pass holds beyond what was held before."""
    if x.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(x.device)
        before = torch.cuda.memory_allocated(x.device)
        run(network, x)
        return float(torch.cuda.max_memory_allocated(x.device) - before)
    give_back_memory()
    before = held_bytes()
    started, passes = time.perf_counter(), 0
    with watched_peak() as peak, TensorTally() as tally:
        # a short pass is repeated: on a busy machine its peak could pass between two looks, and what operations take
        # for themselves is seen in no other way
        while passes == 0 or (time.perf_counter() - started < LONG_ENOUGH and passes < MOST_PASSES):
            run(network, x)
            passes += 1
    return float(max(peak() - before, tally.peak))


def run(network: Network, x: Batch) -> list[Output]:
    """All outputs for noise, without gradients."""
    with torch.inference_mode():
        return list(network(x, STANDARD, torch.eye(x.ndim - 2, device=x.device)))


def noise(size: Sequence[int], device: torch.device) -> Float[Tensor, "1 1 *s"]:
    """The same normal noise each time, (1, 1, *size): a grey image."""
    return torch.randn((1, 1, *size), generator=generator()).to(device)


def per_axis(values: Sequence[int], dimension: int) -> tuple[int, ...]:
    """One number per axis from one for all."""
    return tuple(values) * dimension if len(values) == 1 else tuple(values)


def _shapes(network: Network, size: Sequence[int], device: torch.device) -> list[tuple[int, ...]] | None:
    """The shapes of all outputs for an input of ``size``, None where it is refused."""
    try:
        return [tuple(y.shape) for y in run(network, noise(size, device))]
    except ModelContractError:
        return None


def _refusal(network: Network, size: Sequence[int], device: torch.device) -> ModelContractError | None:
    try:
        run(network, noise(size, device))
    except ModelContractError as error:
        return error
    return None


def generator() -> torch.Generator:
    """The same random numbers each time."""
    return torch.Generator().manual_seed(0)


def up(value: int, multiple: int) -> int:
    """The next multiple."""
    return -(-value // multiple) * multiple
