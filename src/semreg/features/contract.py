"""What a feature model is: the contract that the extraction relies on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor


class IntensityStats(NamedTuple):
    """Statistics of the whole image (of its valid voxels), in raw units."""

    minimum: float
    maximum: float
    mean: float
    std: float


class FeatureMap(NamedTuple):
    """What a model returns for one tile: ``values`` (C, *S) and, where voxels are excluded, ``weight`` (1, *S)."""

    values: Tensor
    weight: Tensor | None


@dataclass(frozen=True)
class ModelSpec:
    """What is known of a model: its ``name``, the image ``dimension`` and its ``halo`` (voxels consumed per side)."""

    name: str
    dimension: int
    channels: int
    halo: int


class FeatureModel(Protocol):
    """A function from a tile of one image to features."""

    @property
    def spec(self) -> ModelSpec:
        """What the extraction must know to cut tiles."""

    def __call__(self, x: Tensor, stats: IntensityStats, valid: Tensor | None = None) -> FeatureMap:
        """Features of ``x`` (1, *S), which carries ``spec.halo`` voxels more on every side than is returned.

        ``valid`` (1, *S) in [0, 1] marks the voxels that count; excluded voxels must not influence any value
        whose weight is above zero.
        """
