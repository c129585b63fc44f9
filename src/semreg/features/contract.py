"""What a feature model is: the two contracts that the extraction relies on, and how a model is described.

A *descriptor* is a formula: exact on every tile, it weighs its values where voxels are excluded. A *network* is a
pretrained model: it has strides, a receptive field, a voxel size and an orientation that it was trained with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from semreg.core.shapes import Batch, Channels, Direction, Mask, Output
from semreg.runtime.settings import require

LARGEST = 1e6
"""Voxels or mm beyond which a number in a description is a mistake."""


class IntensityStats(NamedTuple):
    """Statistics of the whole image (of its valid voxels), in the units of the image that the model is given."""

    minimum: float
    maximum: float
    mean: float
    std: float


class FeatureMap(NamedTuple):
    """What a descriptor returns for one tile: ``values`` (C, *S), and ``weight`` (1, *S) where voxels are excluded."""

    values: Channels
    weight: Mask | None


@dataclass(frozen=True)
class DescriptorSpec:
    """What is known of a descriptor: ``name``, image ``dimension``, ``channels`` it gives, ``halo`` used a side."""

    name: str
    dimension: int
    channels: int
    halo: int


@runtime_checkable
class Descriptor(Protocol):
    """A formula from a tile of one image to features."""

    @property
    def spec(self) -> DescriptorSpec:
        """What the extraction must know to cut tiles."""

    def __call__(self, x: Mask, stats: IntensityStats, valid: Mask | None = None) -> FeatureMap:
        """Features of ``x`` (1, *S), which carries ``spec.halo`` voxels more on every side than is returned.

        ``valid`` (1, *S) in [0, 1] marks the voxels that count; excluded voxels must not influence any value
        whose weight is above zero.
        """


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """How raw intensities become what a network was trained on. All statistics are of the whole image."""

    kind: Literal["none", "min-max", "z-score", "window", "percentiles"] = "none"
    """``none``: raw. ``min-max``, ``window`` and ``percentiles`` bring an interval to ``to`` and clip what is beyond.
    ``z-score``: mean 0 and standard deviation 1."""
    window: tuple[float, float] | None = None
    """``window``: the interval in raw units, low and high, for example (-1000, 1000) HU."""
    percentiles: tuple[float, float] = (0.5, 99.5)
    """``percentiles``: the interval, in percent."""
    to: tuple[float, float] = (0.0, 1.0)
    """Where the ends of the interval go."""

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        require(
            self.kind != "window" or (self.window is not None and self.window[0] < self.window[1]),
            "normalisation.window with low < high for the kind window",
            self.window,
        )
        low, high = self.percentiles
        require(0 <= low < high <= 100, "normalisation.percentiles as 0 <= low < high <= 100", self.percentiles)
        require(self.to[0] < self.to[1], "normalisation.to with low < high", self.to)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What a network is: how an image must be prepared for it, and what is known of it.

    Read from the TOML file beside a model (``model.pt`` → ``model.toml``), from the catalogue, or given in Python. A
    tuple "per axis" is in the order of the model's own tensor axes.
    """

    name: str = ""
    """For messages and records. Empty: the name of the file."""
    dimension: Literal[2, 3] = 3
    """Spatial axes of its input. A 2-D model sees a volume slice by slice."""
    channels: int = 1
    """Channels of its input; a grey image is repeated."""
    spacing_mm: tuple[float, ...] | None = None
    """Voxel size it was trained at, mm: one number or one per axis. None: whatever the image has."""
    axes: str | None = None
    """Anatomical directions in which its tensor axes grow, first axis first, such as ``LIA`` or ``SPL`` (the order of
    ITK images: z, y, x in LPS). The image's axes are permuted and flipped to the nearest such order and the results
    brought back. For a 2-D model on volumes all three letters of the volume, or two on images. None: as they come."""
    normalisation: Normalisation = field(default_factory=Normalisation)
    """What happens to the intensities before the model sees them."""
    size: tuple[int, ...] | None = None
    """Voxels that every image was resized to in training, whatever its extent: one number or one per axis. Stands in
    place of ``spacing_mm``. None: images keep their extent."""
    patch: tuple[int, ...] | None = None
    """Input size in voxels, one number or one per axis. None: the whole image, or what memory allows."""
    overlap: float = 0.5
    """Overlap of neighbouring patches as a share of the patch, where they must be blended."""
    slices: Literal["axial", "coronal", "sagittal", "all"] = "axial"
    """2-D models on volumes: the planes that are seen. ``all``: the mean of the three."""
    layers: tuple[int, ...] | None = None
    """Outputs that are kept, counted from 0, −1 is the last. None: all."""
    receptive_field: tuple[int, ...] | None = None
    """How far an output sees, voxels a side: one number or one per axis. None: measured."""
    multiple: int | None = None
    """Input sizes must be multiples of this many voxels. None: measured."""
    mixed_precision: bool = False
    """Compute in half precision where the device supports it."""
    sha256: str | None = None
    """Checksum of the file; another file is refused."""
    classes: tuple[str, ...] = ()
    """Names of the channels of the last output, for a segmentation model."""
    licence: str = ""
    source: str = ""
    """Where it comes from: a URL, a paper."""
    contrast: str = ""
    """What it was trained on, in a few words."""

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        require(self.channels >= 1, "channels >= 1", self.channels)
        for name in ("spacing_mm", "size", "patch", "receptive_field"):
            value = getattr(self, name)
            lowest = 0 if name == "receptive_field" else 1e-9
            fits = value is None or (len(value) in (1, self.dimension) and lowest <= min(value) <= max(value) < LARGEST)
            require(fits, f"{name} with one positive number or {self.dimension} of them", value)
        require(
            self.size is None or self.spacing_mm is None,
            "either size or spacing_mm: an image that is resized has no voxel size of its own",
            (self.size, self.spacing_mm),
        )
        if self.axes is not None:
            fits = any(_is_orientation(self.axes, n) for n in {self.dimension, 3})
            require(fits, "axes such as SPL or LIA", self.axes)
        require(0 <= self.overlap < 1, "overlap in 0..1", self.overlap)
        require(self.multiple is None or self.multiple >= 1, "multiple >= 1 voxel", self.multiple)


@runtime_checkable
class Network(Protocol):
    """A pretrained model, ready to be called on one device."""

    @property
    def spec(self) -> ModelSpec:
        """How images must be prepared for it."""

    def __call__(self, x: Batch, stats: IntensityStats, direction: Direction) -> Sequence[Output]:
        """All outputs (B, C_l, *S_l) for a batch of tiles ``x`` (B, spec.channels, *S), on the device of ``x``.

        ``stats`` are those of the whole image as the model sees it, ``direction`` (D, D) is the ITK direction matrix of
        the tile. Raises ModelContractError where the model does not take the input or returns something else.
        """


def _is_orientation(axes: str, dimension: int) -> bool:
    if dimension == 2:
        return len(axes) == 2 and re.fullmatch("[LRAPIS]{2}", axes) is not None
    return len(axes) == 3 and all(sum(letter in pair for letter in axes) == 1 for pair in ("LR", "AP", "IS"))
