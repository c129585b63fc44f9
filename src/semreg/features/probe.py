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
from semreg.features.contract import IntensityStats, ModelSpec, Network
from semreg.memory import give_back_memory, held_bytes, peak_bytes, reset_peak

MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 7, 14, 28, 56)
"""Input sizes that networks ask to be multiples of, tried in this order."""
SMALLEST = 9
"""Voxels a side of the smallest probe."""
LENGTHS = (64, 160, 512)
"""Voxels along the probed axis, longer ones where the shorter do not suffice; what reaches further sees everything."""
NEAR = 3 / 8
"""Share of the probed length within which a reach must stay to be believed."""
LEAST_SIZES = (SMALLEST, 36, 96)
MOST_SIZE = 224
MEMORY_SIDE = 40
"""Voxels a side of the smaller probe of the memory."""
UNMEASURED = 4
"""Bytes held per byte returned where the system does not tell."""
PERIODS = (1, 2, 4, 8, 16, 32, 64)
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
    grown: tuple[int, ...]
    """Samples more (or fewer, negative) than input voxels over stride."""

    def samples(self, axis: int, size: int) -> int:
        """Number of samples along an axis of ``size`` input voxels (a multiple of the stride)."""
        return size // self.stride[axis] + self.grown[axis]


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


def find_sizes(network: Network, device: torch.device) -> tuple[int, tuple[int, ...]]:
    """The multiple that input sizes must be of, and the smallest size that was seen to work, per axis.

    Raises ModelContractError, with the network's own complaint, if none does.
    """
    spec = network.spec
    if spec.patch is not None and spec.multiple is None:
        patch = per_axis(spec.patch, spec.dimension)
        if _refusal(network, patch, device) is None and _refusal(network, [n + 64 for n in patch], device) is not None:
            return math.gcd(*patch), tuple(patch)
    refusal: ModelContractError | None = None
    for multiple in MULTIPLES if spec.multiple is None else (spec.multiple,):
        for size in sorted({multiple * (math.ceil(least / multiple) // 2 * 2 + 1) for least in LEAST_SIZES}):
            if size > MOST_SIZE:
                continue
            problem = _refusal(network, [size] * spec.dimension, device)
            if problem is None:
                return multiple, (size,) * spec.dimension
            refusal = refusal or problem
    raise ModelContractError(
        f"expected {spec.name or 'the model'} to take an input of {SMALLEST} to {MOST_SIZE} voxels a side, it took "
        f"none: set patch to the size it was made for, or channels and dimension. It said: {refusal}"
    ) from refusal


def measure_outputs(network: Network, multiple: int, size: Sequence[int], device: torch.device) -> list[OutputTraits]:
    """Channels and strides of all outputs; offsets as if the centres of input and output coincide.

    Raises ModelContractError for an output that does not grow with the input: it fits no grid.
    """
    first = run(network, noise(network.spec, size, device))
    strides: list[list[int]] = [[] for _ in first]
    for axis in range(network.spec.dimension):
        longer = [n + (64 * multiple if multiple < 4 else 16 * multiple) * (a == axis) for a, n in enumerate(size)]
        second = run(network, noise(network.spec, longer, device))
        for number, (a, b) in enumerate(zip(first, second, strict=True)):
            more = b.shape[axis + 2] - a.shape[axis + 2]
            stride, rest = divmod(longer[axis] - size[axis], more) if more > 0 else (0, 1)
            if rest:
                raise ModelContractError(
                    f"expected output {number} of {network.spec.name or 'the model'} to grow with its input, got "
                    f"{tuple(a.shape[2:])} for {tuple(size)} and {tuple(b.shape[2:])} for {tuple(longer)} voxels: it "
                    "fits no grid; leave it out with layers"
                )
            strides[number].append(stride)
    return [_traits(y, tuple(stride), size) for y, stride in zip(first, strides, strict=True)]


def fixed_outputs(network: Network, size: Sequence[int], device: torch.device) -> list[OutputTraits]:
    """The same for a network that takes one size only: strides are the ratios of input and output size."""
    outputs = run(network, noise(network.spec, size, device))
    for number, y in enumerate(outputs):
        if min(y.shape[2:]) < 2 <= min(size):
            raise ModelContractError(
                f"expected output {number} of {network.spec.name or 'the model'} to be a map, got {tuple(y.shape[2:])} "
                f"for {tuple(size)} voxels: leave it out with layers"
            )
    return [_traits(y, tuple(round(n / m) for n, m in zip(size, y.shape[2:], strict=True)), size) for y in outputs]


def _traits(y: Tensor, stride: tuple[int, ...], size: Sequence[int]) -> OutputTraits:
    counts = tuple(y.shape[2:])
    offset = tuple((n - 1) / 2 - s * (m - 1) / 2 for n, m, s in zip(size, counts, stride, strict=True))
    grown = tuple(m - n // s for n, m, s in zip(size, counts, stride, strict=True))
    return OutputTraits(y.shape[1], stride, offset, grown)


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
        ends = _gradient_reach(network, outputs, shape, axis, device)
        seen = max(max(high, -low) for low, high in ends)
        if seen > near:
            continue
        offsets = tuple((low + high) / 2 for low, high in ends)
        moved = max(abs(a - b) for a, b in zip(offsets, centred, strict=True))
        reach = math.ceil(max(seen, changed + moved))
        return Reach(reach, _period(network, outputs, reach, multiple, size, axis, device), offsets)
    return Reach(None, multiple, centred)


def _gradient_reach(
    network: Network, outputs: Sequence[OutputTraits], shape: Sequence[int], axis: int, device: torch.device
) -> list[tuple[float, float]]:
    """What the sample in the middle of each output sees, relative to sample index times stride: low and high."""
    x = noise(network.spec, shape, device).requires_grad_()
    with torch.enable_grad():
        results = network(x, STANDARD, torch.eye(len(shape), device=device))
        ends = []
        for number, (y, output) in enumerate(zip(results, outputs, strict=True)):
            middle = y.shape[axis + 2] // 2
            line = y.select(axis + 2, middle)
            weights = torch.randn(line.shape, generator=_generator()).to(line)
            (gradient,) = torch.autograd.grad(line, x, weights, retain_graph=number + 1 < len(outputs))
            seen = gradient.abs().amax([a for a in range(x.ndim) if a != axis + 2]).nonzero().flatten()
            if len(seen) == 0:
                raise ModelContractError(
                    f"expected output {number} of {network.spec.name or 'the model'} to depend on the image, it does "
                    "not (or its gradient is cut): state receptive_field in its description"
                )
            start = middle * output.stride[axis]
            ends.append((float(seen[0]) - start, float(seen[-1]) - start))
    return ends


def _change_reach(
    network: Network, outputs: Sequence[OutputTraits], shape: Sequence[int], axis: int, device: torch.device
) -> float:
    """How far a change of the middle plane of the input reaches, in input voxels."""
    x = noise(network.spec, shape, device)
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
    multiple: int,
    size: Sequence[int],
    axis: int,
    device: torch.device,
) -> int:
    """The smallest shift of the input that only shifts the outputs."""
    length = _up(2 * reach + 2 * max(output.stride[axis] for output in outputs) + 32, multiple)
    shape = [length + PERIODS[-1] if a == axis else n for a, n in enumerate(size)]
    x = noise(network.spec, shape, device)
    still = run(network, x.narrow(axis + 2, 0, length).contiguous())
    for shift in PERIODS:
        if any(shift % output.stride[axis] for output in outputs):
            continue
        moved = run(network, x.narrow(axis + 2, shift, length).contiguous())
        pairs = zip(still, moved, outputs, strict=True)
        if all(_shifted(a, b, shift // o.stride[axis], reach // o.stride[axis] + 1, axis + 2) for a, b, o in pairs):
            return math.lcm(shift, multiple)
    return math.lcm(PERIODS[-1], multiple)


def _shifted(still: Tensor, moved: Tensor, shift: int, border: int, axis: int) -> bool:
    """Whether ``moved`` is ``still``, ``shift`` samples on, away from the borders."""
    inner = still.shape[axis] - shift - 2 * border
    if inner < 1:
        return True
    a, b = still.narrow(axis, shift + border, inner), moved.narrow(axis, border, inner)
    return float((a - b).abs().max()) <= 1e-4 * float(still.abs().max())


def measure_memory(network: Network, size: Sequence[int], multiple: int, device: torch.device) -> Memory:
    """Bytes of a forward pass by voxel, from the peaks of two passes, with what is returned but without the input.

    The larger pass is large enough that what it holds is more than what an allocator keeps back.
    """
    axis = len(size) - 1
    sides = [_up(max(n, MEMORY_SIDE), multiple) for n in size]
    large = [2 * n if a == axis else n for a, n in enumerate(sides)]
    peaks = [_peak(network, noise(network.spec, shape, device)) for shape in (sides, large)]
    voxels = [math.prod(shape) for shape in (sides, large)]
    slope = max((peaks[1] - peaks[0]) / (voxels[1] - voxels[0]), 0.75 * peaks[1] / voxels[1])
    return Memory(slope, max(0.0, peaks[1] - slope * voxels[1]))


def fixed_memory(network: Network, size: Sequence[int], device: torch.device) -> Memory:
    """The same for a network that takes one size only."""
    return Memory(0.0, _peak(network, noise(network.spec, size, device)))


def _peak(network: Network, x: Tensor) -> float:
    """The most bytes that one pass holds beyond what was held before."""
    if x.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(x.device)
        before = torch.cuda.memory_allocated(x.device)
        run(network, x)
        return float(torch.cuda.max_memory_allocated(x.device) - before)
    results = run(network, x)  # what is allocated once and kept does not count
    returned = sum(y.numel() * y.element_size() for y in results)
    del results
    give_back_memory()
    before = held_bytes()
    if not reset_peak():
        return float(UNMEASURED * returned)
    run(network, x)
    return float(max(peak_bytes() - before, returned))


def run(network: Network, x: Tensor) -> list[Tensor]:
    """All outputs for noise, without gradients."""
    with torch.inference_mode():
        return list(network(x, STANDARD, torch.eye(x.ndim - 2, device=x.device)))


def noise(spec: ModelSpec, size: Sequence[int], device: torch.device) -> Tensor:
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
        run(network, noise(network.spec, size, device))
    except ModelContractError as error:
        return error
    return None


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
