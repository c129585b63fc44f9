"""What a run of a network over one image leaves in its record: what was read, what ran, what was written."""

from __future__ import annotations

from typing import Any, Self

import msgspec

from semreg.core.geometry import Grid
from semreg.features.contract import DescriptorSpec, ModelSpec


class OnGrid(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A file on a grid: its size, spacing and origin in the order x, y(, z), and the direction row by row."""

    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    origin_mm: tuple[float, ...]
    direction: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, grid: Grid, **more: Any) -> Self:
        """The file on ``grid``, with ``more`` of what it is."""
        return cls(
            size=grid.size_xyz, spacing_mm=grid.spacing_xyz, origin_mm=grid.origin_xyz, direction=grid.direction, **more
        )


class ReadImage(OnGrid, kw_only=True):
    """The image."""

    path: str
    sha256: str
    pixel_type: str


class ReadMask(msgspec.Struct, kw_only=True):
    """Its mask."""

    path: str
    sha256: str


class Inputs(msgspec.Struct, kw_only=True, omit_defaults=True):
    """All that was read."""

    image: ReadImage
    mask: ReadMask | None = None


class RanModel(msgspec.Struct, kw_only=True):
    """What ran; None for what a formula has not."""

    name: str
    path: str | None
    sha256: str | None
    spec: ModelSpec | DescriptorSpec
    layers: tuple[int, ...] | None


class Written(OnGrid, kw_only=True, omit_defaults=True):
    """A file that was written."""

    file: str
    channels: int
    weight: str | None = None
    """The file of its weight, of a layer that has one."""
    pixel_type: str | None = None
    labels: bool | None = None
    """Whether it holds labels; None for features."""


class InferenceRecord(msgspec.Struct, kw_only=True):
    """How ``semreg infer`` went."""

    inputs: Inputs
    model: RanModel
    outputs: tuple[Written, ...]
    tiles: int
    device: str
    threads: int
    memory_limit_bytes: int | None
    peak_memory_bytes: int
    seconds: dict[str, float]
    versions: dict[str, str]
    command: tuple[str, ...]


class FeaturesRecord(InferenceRecord, kw_only=True):
    """How ``semreg features`` went."""

    receptive_field: list[int | None] | None
    """Voxels a side along each axis, None in it for the whole image; None where it was not measured."""
    tile_sizes: list[tuple[int, ...]]
