"""Whether a shortened model returns what the whole one does: both on one small random input. Knows nothing of files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from semreg.core.shapes import Batch, Direction
from semreg.features.contract import IntensityStats, ModelSpec
from semreg.runtime.memory import is_out_of_memory

SIZES = {2: (16, 32, 64, 128, 224, 256), 3: (8, 16, 32, 64)}
"""Input sizes that are tried, by dimension, voxels."""
FAILURES = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError)
"""What models raise for an input that they do not take."""

Run: TypeAlias = Callable[[Batch, IntensityStats, Direction], Sequence[Any]]
"""A model with its outputs as it makes them: from a tile, the statistics and the direction."""


@dataclass(frozen=True)
class Sample:
    """An input that a model takes, and all that it returns for it."""

    x: Batch
    outputs: Sequence[Any]


def sample(run: Run, spec: ModelSpec, device: torch.device) -> Sample | None:
    """The first of some small random inputs that ``run`` takes; None if it takes none of them."""
    generator = torch.Generator().manual_seed(0)
    for sizes in _sizes(spec):
        x = torch.rand((1, spec.channels, *sizes), generator=generator).to(device)
        try:
            return Sample(x, run(x, *_facts(spec.dimension)))
        except FAILURES as error:
            if is_out_of_memory(error):
                return None
    return None


def agrees(run: Run, wanted: Sample, layers: Sequence[int], dimension: int) -> bool:
    """Whether ``run`` gives the outputs ``layers`` of the sample, except for the rounding of folded constants."""
    try:
        values = run(wanted.x, *_facts(dimension))
    except FAILURES:
        return False
    expected = [wanted.outputs[layer] for layer in layers]
    return len(values) == len(expected) and all(map(_is_close, values, expected))


def attempt(run: Run, spec: ModelSpec, device: torch.device) -> None:
    """Let ``run`` see one small input, the first that it takes. Raises what says that memory ran out."""
    for sizes in _sizes(spec):
        try:
            run(torch.rand((1, spec.channels, *sizes), device=device), *_facts(spec.dimension))
        except FAILURES as error:
            if is_out_of_memory(error):
                raise
        else:
            return


def _sizes(spec: ModelSpec) -> Iterator[tuple[int, ...]]:
    """Sizes to try, small ones first; the patch too unless it is large."""
    sizes = SIZES[spec.dimension]
    step = spec.multiple or 1
    for size in sizes:
        yield (math.ceil(size / step) * step,) * spec.dimension
    stated = spec.patch or spec.size
    patch = stated if stated is None or len(stated) > 1 else stated * spec.dimension
    if patch is not None and math.prod(patch) <= 2 * sizes[-1] ** spec.dimension:
        yield patch


def _facts(dimension: int) -> tuple[IntensityStats, Direction]:
    return IntensityStats(0.0, 1.0, 0.5, 0.3), torch.eye(dimension)


def _is_close(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor) or a.shape != b.shape or a.dtype != b.dtype:
        return False
    scale = float(b.abs().max()) if b.numel() and b.is_floating_point() else 0.0
    tolerance = 1e-4 * scale if math.isfinite(scale) else 0.0
    return torch.allclose(a, b, rtol=1e-4, atol=tolerance, equal_nan=True)
