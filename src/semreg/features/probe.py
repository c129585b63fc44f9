"""What a network does to positions and memory, measured by running it: strides, receptive field, bytes a voxel.

Nothing is assumed of the architecture. The receptive field comes from two probes that see different things: the
gradient of an output with respect to the input, and a change of one plane of the input, which also reveals what
depends on the whole image (instance normalisation, attention). Knows no image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from semreg.errors import ModelContractError
from semreg.features.contract import IntensityStats, Network
from semreg.memory import give_back_memory, held_bytes, is_out_of_memory, watched_peak

MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 7, 14, 28, 56)
"""Input sizes that networks ask to be multiples of, tried in this order."""
SMALLEST = 9
"""Voxels a side of the smallest probe."""
LENGTHS = (64, 160, 512)
"""Voxels along the probed axis, longer ones where the shorter do not suffice; what reaches further sees everything."""
NEAR = 3 / 8
"""Share of the probed length within which a reach must stay to be believed."""
LEAST_SIZES = (SMALLEST, 16, 25, 36, 60, 96)
MOST_SIZE = 224
MEMORY_SIDE = 32
"""Voxels a side of the probe of the memory."""
CLOSE_SIDE = 72
"""The same where it matters how much it is exactly."""
UNMEASURED = 4
"""Bytes held per byte returned where the system does not tell."""
PERIODS = (1, 2, 4, 8, 16, 32, 64)
DISTINCT = 4
"""What a sample sees of its own place is so many times stronger than what it sees of any place far away."""
NOTICEABLE = 1e-6
"""Share of an output's range below which a change is rounding of a GPU."""
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
class Reach:
    """How far the outputs see along one axis, input voxels a side; ``None``: everything, at any distance.

    ``period``: shifts of the input by multiples of it shift the outputs and change nothing else.
    """

    voxels: int | None
    period: int
    offsets: tuple[float, ...]
    """Index of the input at the centre of what sample 0 of each output sees."""


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
    if spec.patch is not None and spec.multiple is None:
        patch = per_axis(spec.patch, spec.dimension)
        if _is_only_size(network, patch, device):
            return Sizes(1, patch, only=True), fixed_outputs(network, patch, device)
    refusal: ModelContractError | None = None
    for multiple in MULTIPLES if spec.multiple is None else (spec.multiple,):
        size = _smallest(network, multiple, device)
        if isinstance(size, int):
            sizes = Sizes(multiple, (size,) * spec.dimension)
            outputs = measure_outputs(network, multiple, sizes.smallest, device)
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


def _is_only_size(network: Network, patch: Sequence[int], device: torch.device) -> bool:
    """Whether the network takes ``patch`` and nothing that is longer along an axis; no, where memory runs out."""
    longer = [[n + 64 * (a == axis) for a, n in enumerate(patch)] for axis in range(len(patch))]
    try:
        taken = _refusal(network, patch, device) is None
        return taken and any(_refusal(network, size, device) is not None for size in longer)
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
            outputs = run(self._network, noise(size, self._device))
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
                "out with layers"
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


def measure_reach(
    network: Network,
    outputs: Sequence[OutputTraits],
    multiple: int,
    size: Sequence[int],
    axis: int,
    device: torch.device,
) -> Reach:
    """The receptive field along one axis, of all outputs together."""
    centred = tuple(output.offset[axis] for output in outputs)
    for length in LENGTHS:
        shape = [_up(length, multiple) if a == axis else n for a, n in enumerate(size)]
        near = NEAR * shape[axis]
        changed = _change_reach(network, outputs, shape, axis, device)
        if changed > near:
            continue
        ends = [_ends(line) for line in _gradients(network, outputs, shape, axis, device)]
        seen = max(max(high, -low) for low, high in ends)
        if seen > near:
            continue
        offsets = tuple((low + high) / 2 for low, high in ends)
        moved = max(abs(a - b) for a, b in zip(offsets, centred, strict=True))
        reach = math.ceil(max(seen, changed + moved))
        period = math.lcm(_period(network, outputs, reach, size, axis, device), multiple)
        if any(period > output.stride[axis] for output in outputs):
            # what a sample sees depends on its place in the period: the first and the last one mirror each other
            halves = [
                [_ends(line) for line in _gradients(network, outputs, shape, axis, device, (period, last))]
                for last in (False, True)
            ]
            offsets = tuple((sum(first) + sum(last)) / 4 for first, last in zip(*halves, strict=True))
        return Reach(reach, period, _known_or(offsets, outputs, axis))
    return Reach(None, multiple, local_offsets(network, outputs, multiple, size, axis, device))


def local_offsets(
    network: Network,
    outputs: Sequence[OutputTraits],
    multiple: int,
    size: Sequence[int],
    axis: int,
    device: torch.device,
) -> tuple[float, ...]:
    """Offsets of outputs that depend on the whole image: the centre of what they see more strongly than all the rest.

    What is so measured is not sharp: where it is near to 0, or to the centred offset, that is taken.
    """
    centred = tuple(output.offset[axis] for output in outputs)
    if all(output.stride[axis] == 1 and output.slack[axis] == 0 for output in outputs):
        return centred
    length = _up(LENGTHS[1], multiple)
    shape = [length if a == axis else n for a, n in enumerate(size)]
    try:
        lines = _gradients(network, outputs, shape, axis, device)
    except ModelContractError:  # no gradient: nothing better is known
        return centred
    offsets = []
    for (strength, place), output in zip(lines, outputs, strict=True):
        far = (torch.arange(length, device=strength.device) - place).abs() > NEAR * length
        above = DISTINCT * float(strength[far].max())
        offset, stride = output.offset[axis], output.stride[axis]
        if bool((strength > above).any()):
            middle = sum(_ends((strength, place), above)) / 2
            likely = min((offset, 0.0), key=lambda known: abs(known - middle))
            offset = likely if abs(likely - middle) <= stride / 4 else middle
        offsets.append(offset)
    return _known_or(offsets, outputs, axis)


def _known_or(offsets: Sequence[float], outputs: Sequence[OutputTraits], axis: int) -> tuple[float, ...]:
    """The offsets, but 0 for outputs with one sample a voxel."""
    plain = [output.stride[axis] == 1 and output.slack[axis] == 0 for output in outputs]
    return tuple(0.0 if known else offset for known, offset in zip(plain, offsets, strict=True))


def _gradients(
    network: Network,
    outputs: Sequence[OutputTraits],
    shape: Sequence[int],
    axis: int,
    device: torch.device,
    phase: tuple[int, bool] | None = None,
) -> list[tuple[Tensor, int]]:
    """How strongly one sample of each output, about the middle, sees each plane; and its index times stride.

    ``phase``: a period, and whether its last sample is wanted or its first one.
    """
    x = noise(shape, device).requires_grad_()
    with torch.enable_grad():
        results = network(x, STANDARD, torch.eye(len(shape), device=device))
        lines = []
        for number, (y, output) in enumerate(zip(results, outputs, strict=True)):
            stride, middle = output.stride[axis], y.shape[axis + 2] // 2
            if phase is not None:
                phases = phase[0] // stride
                middle += (phases - 1 if phase[1] else 0) - middle % phases
            line = y.select(axis + 2, middle)
            weights = torch.randn(line.shape, generator=_generator()).to(line)
            (gradient,) = torch.autograd.grad(line, x, weights, retain_graph=number + 1 < len(outputs))
            lines.append((gradient.abs().amax([a for a in range(x.ndim) if a != axis + 2]), middle * stride))
    if not all(line.any() for line, _ in lines):
        number = next(number for number, (line, _) in enumerate(lines) if not line.any())
        raise ModelContractError(
            f"expected output {number} of {network.spec.name or 'the model'} to depend on the image, it does not (or "
            "its gradient is cut): state receptive_field in its description"
        )
    return lines


def _ends(line: tuple[Tensor, int], above: float = 0.0) -> tuple[float, float]:
    """The first and the last plane that a sample sees more strongly than ``above``, relative to its place."""
    strength, place = line
    seen = (strength > above).nonzero().flatten()
    return float(seen[0]) - place, float(seen[-1]) - place


def _change_reach(
    network: Network, outputs: Sequence[OutputTraits], shape: Sequence[int], axis: int, device: torch.device
) -> float:
    """How far a change of the middle plane of the input reaches, in input voxels."""
    x = noise(shape, device)
    middle = shape[axis] // 2
    other = x.clone()
    other.select(axis + 2, middle).mul_(-3).add_(100.0)
    reach = 0.0
    for before, after, output in zip(run(network, x), run(network, other), outputs, strict=True):
        difference = (after - before).abs()
        least = 0.0 if device.type == "cpu" else NOTICEABLE * float(before.abs().max())
        changed = (difference > least).flatten(0, 1)
        line = changed.any(0)
        for other_axis in reversed([a for a in range(line.ndim) if a != axis]):
            line = line.any(other_axis)
        where = line.nonzero().flatten()
        if len(where) == 0:
            continue
        positions = [output.offset[axis] + int(i) * output.stride[axis] for i in (where[0], where[-1])]
        reach = max(reach, *[abs(p - middle) for p in positions])
    return reach


def _period(
    network: Network,
    outputs: Sequence[OutputTraits],
    reach: int,
    size: Sequence[int],
    axis: int,
    device: torch.device,
) -> int:
    """The smallest shift of the input that only shifts the outputs."""
    length = _up(2 * reach + 2 * max(output.stride[axis] for output in outputs) + 32, size[axis])
    step = math.lcm(*[output.stride[axis] for output in outputs])
    shifts = [step * times for times in PERIODS if step * times <= max(step, PERIODS[-1])]
    shape = [length + shifts[-1] if a == axis else n for a, n in enumerate(size)]
    x = noise(shape, device)
    still = run(network, x.narrow(axis + 2, 0, length).contiguous())
    for shift in shifts:
        moved = run(network, x.narrow(axis + 2, shift, length).contiguous())
        pairs = zip(still, moved, outputs, strict=True)
        if all(_shifted(a, b, shift // o.stride[axis], reach // o.stride[axis] + 1, axis + 2) for a, b, o in pairs):
            return shift
    return shifts[-1]


def _shifted(still: Tensor, moved: Tensor, shift: int, border: int, axis: int) -> bool:
    """Whether ``moved`` is ``still``, ``shift`` samples on, away from the borders."""
    inner = still.shape[axis] - shift - 2 * border
    if inner < 1:
        return True
    a, b = still.narrow(axis, shift + border, inner), moved.narrow(axis, border, inner)
    return float((a - b).abs().max()) <= 1e-4 * float(still.abs().max())


def measure_memory(
    network: Network, size: Sequence[int], multiple: int, device: torch.device, side: int = MEMORY_SIDE
) -> Memory:
    """Bytes of a forward pass by voxel, from the peak of one pass over about ``2 * side³`` voxels.

    With what is returned, without the input. Small passes need more by voxel than large ones do; where memory runs
    out, a smaller one is tried.
    """
    axis = len(size) - 1
    side = round(side ** (3 / len(size)))
    while True:
        shape = [_up(max(n, side), multiple) * (2 if a == axis else 1) for a, n in enumerate(size)]
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


def _peak(network: Network, x: Tensor) -> float:
    """The most bytes that one pass holds beyond what was held before."""
    if x.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(x.device)
        before = torch.cuda.memory_allocated(x.device)
        run(network, x)
        return float(torch.cuda.max_memory_allocated(x.device) - before)
    with watched_peak():  # what is freed is given back, not kept beside the limit
        results = run(network, x)  # what is allocated once and kept does not count
        returned = sum(y.numel() * y.element_size() for y in results)
        del results
    give_back_memory()
    before = held_bytes()
    if not before:
        return float(UNMEASURED * returned)
    with watched_peak() as peak:
        run(network, x)
    return float(max(peak() - before, returned))


def run(network: Network, x: Tensor) -> list[Tensor]:
    """All outputs for noise, without gradients."""
    with torch.inference_mode():
        return list(network(x, STANDARD, torch.eye(x.ndim - 2, device=x.device)))


def noise(size: Sequence[int], device: torch.device) -> Tensor:
    """The same normal noise each time, (1, 1, *size): a grey image."""
    return torch.randn((1, 1, *size), generator=_generator()).to(device)


def per_axis(values: Sequence[int], dimension: int) -> tuple[int, ...]:
    """One number per axis from one for all."""
    return tuple(values) * dimension if len(values) == 1 else tuple(values)


def with_offsets(outputs: Sequence[OutputTraits], reaches: Sequence[Reach]) -> list[OutputTraits]:
    """The outputs with the offsets that were measured, axis by axis."""
    return [
        replace(output, offset=tuple(reach.offsets[number] for reach in reaches))
        for number, output in enumerate(outputs)
    ]


def _refusal(network: Network, size: Sequence[int], device: torch.device) -> ModelContractError | None:
    try:
        run(network, noise(size, device))
    except ModelContractError as error:
        return error
    return None


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
