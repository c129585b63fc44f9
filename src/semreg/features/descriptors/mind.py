"""MIND-SSC: describes a voxel by the similarity of the patches around it. Independent of contrast, no download."""

from __future__ import annotations

from dataclasses import dataclass, field

from semreg.core.kernels import patch_differences
from semreg.core.shapes import Mask
from semreg.errors import ConfigError
from semreg.features.contract import DescriptorSpec, FeatureMap, IntensityStats
from semreg.features.descriptors.kind import Kind

NOISE_FLOOR = 1e-4
"""Lower bound of the local variance estimate as a share of the image's variance: flat regions have no structure."""


@dataclass(frozen=True, kw_only=True)
class MindParameters:
    """What may be chosen of MIND-SSC, in voxels of the image it is given."""

    radius: int = 1
    """Half width of the compared patches."""
    dilation: int = 2
    """Distance of the compared neighbours."""


@dataclass(frozen=True)
class MindSSC:
    """Self-similarity context of the modality independent neighbourhood descriptor (MIND-SSC).

    Each of the 12 channels (4 in 2-D) compares two patches of (2·radius+1)^D voxels around neighbours of the voxel,
    ``dilation`` voxels away along two different axes: exp(−(SSD − min SSD) / mean(SSD − min SSD)), in (0, 1].
    Scaling or shifting the intensities changes nothing, and locally neither does inverting the contrast.

    Heinrich, Jenkinson, Papież, Brady, Schnabel: Towards realtime multimodal fusion for image-guided interventions
    using self-similarities. MICCAI 2013.
    """

    dimension: int = 3
    radius: int = 1
    dilation: int = 2
    spec: DescriptorSpec = field(init=False)

    def __post_init__(self) -> None:
        """Check the parameters (ConfigError)."""
        if self.dimension not in (2, 3) or self.radius < 0 or self.dilation < 1:
            raise ConfigError(
                "expected MIND-SSC with dimension 2 or 3, radius >= 0 and dilation >= 1, "
                f"got {self.dimension}, {self.radius} and {self.dilation}"
            )
        channels = {2: 4, 3: 12}[self.dimension]
        name = f"mind-ssc(radius={self.radius}, dilation={self.dilation})"
        spec = DescriptorSpec(name, self.dimension, channels, self.radius + self.dilation)
        object.__setattr__(self, "spec", spec)

    def __call__(self, x: Mask, stats: IntensityStats, valid: Mask | None = None) -> FeatureMap:
        """Descriptors of the inner voxels of ``x`` (1, *S): (12 or 4, *(S − 2·halo))."""
        image = (x[0] - stats.mean) / (stats.std or 1.0)
        mask = None if valid is None else valid[0]
        distances, known = patch_differences(image, mask, self.radius, self.dilation)
        distances -= distances.amin(0, keepdim=True)
        # the floor is absolute, because the image has unit variance
        variance = distances.mean(0, keepdim=True).clamp_(min=NOISE_FLOOR)
        values = distances.div_(variance.neg_()).exp_()
        if mask is None or known is None:
            return FeatureMap(values, None)
        h = self.spec.halo
        inner = mask[tuple(slice(h, n - h) for n in mask.shape)]
        return FeatureMap(values, (inner * known)[None])


MIND = Kind(MindParameters, lambda dimension, given: MindSSC(dimension, given.radius, given.dilation))
