"""How far the outputs of a network see and where they lie, measured by running it.

Two probes see different things: the gradient of an output with respect to the input, and a change of one plane of the
input, which also reveals what depends on the whole image (instance normalisation, attention). Knows no image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from semreg.core.pullback import pullback
from semreg.errors import ModelContractError
from semreg.features.contract import Network
from semreg.features.probe import STANDARD, OutputTraits, generator, noise, run, up

LENGTHS = (64, 160, 512)
"""Voxels along the probed axis, longer ones where the shorter do not suffice; what reaches further sees everything."""
NEAR = 3 / 8
"""Share of the probed length within which a reach must stay to be believed."""
PERIODS = (1, 2, 4, 8, 16, 32, 64)
DISTINCT = 4
"""What a sample sees of its own place is so many times stronger than what it sees of any place far away."""
NOTICEABLE = 1e-6
"""Share of an output's range below which a change is rounding of a GPU."""


@dataclass(frozen=True)
class Reach:
    """How far the outputs see along one axis, input voxels a side; ``None``: everything, at any distance.

    ``period``: shifts of the input by multiples of it shift the outputs and change nothing else.
    """

    voxels: int | None
    period: int
    offsets: tuple[float, ...]
    """Index of the input at the centre of what sample 0 of each output sees."""


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
        shape = [up(length, multiple) if a == axis else n for a, n in enumerate(size)]
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
    if all(output.stride[axis] == 1 and output.slack[axis] == 0 for output in outputs):
        return Reach(None, multiple, centred)  # there is one place for them
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
    length = up(LENGTHS[1], multiple)
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
) -> list[tuple[Float[Tensor, "_n"], int]]:
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
            weights = torch.randn(line.shape, generator=generator()).to(line)
            (gradient,) = pullback([line], [weights], [x], keep=number + 1 < len(outputs))
            lines.append((gradient.abs().amax([a for a in range(x.ndim) if a != axis + 2]), middle * stride))
    if not all(line.any() for line, _ in lines):
        number = next(number for number, (line, _) in enumerate(lines) if not line.any())
        raise ModelContractError(
            f"expected output {number} of {network.spec.name or 'the model'} to depend on the image, it does not (or "
            "its gradient is cut): state receptive_field in its description"
        )
    return lines


def _ends(line: tuple[Float[Tensor, "n"], int], above: float = 0.0) -> tuple[float, float]:
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
    length = up(2 * reach + 2 * max(output.stride[axis] for output in outputs) + 32, size[axis])
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


def _shifted(
    still: Float[Tensor, "b c *s"], moved: Float[Tensor, "b c *_t"], shift: int, border: int, axis: int
) -> bool:
    """Whether ``moved`` is ``still``, ``shift`` samples on, away from the borders."""
    inner = still.shape[axis] - shift - 2 * border
    if inner < 1:
        return True
    a, b = still.narrow(axis, shift + border, inner), moved.narrow(axis, border, inner)
    return float((a - b).abs().max()) <= 1e-4 * float(still.abs().max())


def with_offsets(outputs: Sequence[OutputTraits], reaches: Sequence[Reach]) -> list[OutputTraits]:
    """The outputs with the offsets that were measured, axis by axis.

    Where everything is seen they are not sharp: axes of one stride and slack then have one offset, the middle one.
    """
    found = []
    for number, output in enumerate(outputs):
        offsets = [reach.offsets[number] for reach in reaches]
        vague = all(reach.voxels is None for reach in reaches)
        if vague and len(set(output.stride)) == len(set(output.slack)) == 1:
            offsets = [sorted(offsets)[(len(offsets) - 1) // 2]] * len(offsets)
        found.append(replace(output, offset=tuple(offsets)))
    return found
