"""What a network is like, found by running it: its outputs, how far they see, the sizes it takes, the memory it needs.

Knows no files of images and no terminal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from semreg.features.contract import ModelSpec, Network
from semreg.features.engine import TILE_BYTES, Engine
from semreg.features.exported import ExportedModel
from semreg.features.loaded import LoadedNetwork
from semreg.features.probe import OutputTraits
from semreg.features.torchscript import ScriptedModel
from semreg.features.traits import Traits
from semreg.io.records import Recorded

PATCHES = {2: (256, 512, 1024), 3: (96, 128, 192)}
"""Voxels a side of the inputs whose memory is told, by dimension."""


@dataclass(frozen=True, kw_only=True)
class OutputFacts:
    """One output. Tuples have one value a tensor axis of the model, the first axis first."""

    channels: int
    stride: tuple[int, ...]
    """Input voxels from one sample to the next."""
    offset: tuple[float, ...]
    """Index of the input at which the first sample lies."""
    size: tuple[str, ...]
    """Samples from the ``n`` input voxels of an axis, in words: ``n``, ``n / 2``, ``n + 2``."""


@dataclass(frozen=True, kw_only=True)
class Inspection(Recorded):
    """What is known of a network. Tuples have one value a tensor axis of the model, the first axis first."""

    name: str
    kind: str
    """TorchScript, torch.export or Python."""
    parameters: int | None
    sha256: str | None
    spec: ModelSpec
    """The description in force."""
    outputs: tuple[OutputFacts, ...]
    receptive_field: tuple[int | None, ...]
    """Voxels that the outputs see a side, all together; None: the whole image."""
    receptive_field_is: str
    """Where that is from, or why there is none."""
    tile_invariant: bool
    """Whether results do not depend on how an image is cut."""
    multiple: tuple[int, ...]
    """Input sizes are filled up to multiples of this many voxels."""
    fixed_size: tuple[int, ...] | None
    """The only input size that it takes."""
    bytes_per_voxel: float
    """Memory of a pass a voxel of the input, at its peak, beside the weights; outputs are float32."""
    bytes_fixed: float
    """Memory of a pass that does not depend on the input's size."""
    patch_bytes: dict[str, int]
    """Memory of a pass over one input, by its size."""


def inspect_network(network: Network, device: torch.device | str = "cpu") -> Inspection:
    """Run ``network`` on noise of several sizes and say what it does to them. Takes seconds.

    Raises ModelContractError for a network that takes no input of any size, or whose outputs fit no grid.
    """
    traits = Engine(network, device=device).traits
    memory = traits.memory
    per_voxel = memory.per_voxel + TILE_BYTES
    return Inspection(
        name=network.spec.name,
        kind=_kind(network),
        parameters=network.parameters if isinstance(network, LoadedNetwork) else None,
        sha256=network.sha256 if isinstance(network, LoadedNetwork) else None,
        spec=network.spec,
        outputs=tuple(_facts(output) for output in traits.outputs),
        receptive_field=traits.halo,
        receptive_field_is=_receptive_field_is(traits),
        tile_invariant=None not in traits.halo,
        multiple=_multiple(traits),
        fixed_size=traits.fixed_size,
        bytes_per_voxel=per_voxel,
        bytes_fixed=memory.fixed,
        patch_bytes={
            " × ".join(map(str, size)): round(memory.fixed + per_voxel * math.prod(size)) for size in _sizes(traits)
        },
    )


def _kind(network: Network) -> str:
    model = network.model if isinstance(network, LoadedNetwork) else None
    kinds = {ScriptedModel: "TorchScript", ExportedModel: "torch.export"}
    return next((name for kind, name in kinds.items() if isinstance(model, kind)), "Python")


def _facts(output: OutputTraits) -> OutputFacts:
    sizes = []
    for stride, grown in zip(output.stride, output.grown, strict=True):
        divided = "n" if stride == 1 else f"n / {stride}"
        sizes.append(divided if grown == 0 else f"{divided} {'+' if grown > 0 else '-'} {abs(grown)}")
    return OutputFacts(channels=output.channels, stride=output.stride, offset=output.offset, size=tuple(sizes))


def _receptive_field_is(traits: Traits) -> str:
    if traits.spec.receptive_field is not None:
        return "stated by its description"
    if traits.fixed_size is not None:
        return "it takes inputs of one size only"
    if None in traits.halo:
        return "a change in one place reaches everywhere: it normalises over the image, attends to it, or sees very far"
    return "measured"


def _multiple(traits: Traits) -> tuple[int, ...]:
    """The step from one size that nothing is added to, to the next one."""
    if traits.fixed_size is not None:
        return traits.fixed_size
    first = traits.filled([1000] * traits.spec.dimension)
    return tuple(b - a for a, b in zip(first, traits.filled([n + 1 for n in first]), strict=True))


def _sizes(traits: Traits) -> list[tuple[int, ...]]:
    if traits.fixed_size is not None:
        return [traits.fixed_size]
    dimension = traits.spec.dimension
    return [traits.filled([side] * dimension) for side in PATCHES[dimension]]
