"""The image itself as a feature: for images of one contrast."""

from __future__ import annotations

from dataclasses import dataclass, field

from semreg.core.shapes import Mask
from semreg.features.contract import DescriptorSpec, FeatureMap, IntensityStats
from semreg.features.descriptors.kind import Kind, NoParameters


@dataclass(frozen=True)
class Intensity:
    """The image itself as one channel, brought to mean 0 and standard deviation 1 over its valid voxels."""

    dimension: int = 3
    spec: DescriptorSpec = field(init=False)

    def __post_init__(self) -> None:
        """Describe the model."""
        object.__setattr__(self, "spec", DescriptorSpec("intensity", self.dimension, 1, 0))

    def __call__(self, x: Mask, stats: IntensityStats, valid: Mask | None = None) -> FeatureMap:
        """Standardised intensities of ``x`` (1, *S), the same shape."""
        return FeatureMap((x - stats.mean) / (stats.std or 1.0), valid)


INTENSITY = Kind(NoParameters, lambda dimension, _: Intensity(dimension))
