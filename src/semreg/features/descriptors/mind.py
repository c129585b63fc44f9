"""MIND-SSC: what a place is like by its likeness to its neighbours. Whatever the contrast, nothing to download."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import torch
from torch import Tensor

from semreg.errors import ConfigError
from semreg.features.contract import DescriptorSpec, FeatureMap, IntensityStats
from semreg.features.descriptors.kind import Kind

NOISE_FLOOR = 1e-4
"""Lower bound of the local variance estimate as a share of the image's variance: flat regions have no structure."""

Offset = tuple[int, ...]


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

    def __call__(self, x: Tensor, stats: IntensityStats, valid: Tensor | None = None) -> FeatureMap:
        """Descriptors of the inner voxels of ``x`` (1, *S): (12 or 4, *(S − 2·halo))."""
        image = (x[0] - stats.mean) / (stats.std or 1.0)
        mask = None if valid is None else valid[0]
        distances, known = self._patch_distances(image, mask)
        distances -= distances.amin(0, keepdim=True)
        # the floor is absolute, because the image has unit variance
        variance = distances.mean(0, keepdim=True).clamp_(min=NOISE_FLOOR)
        values = distances.div_(variance.neg_()).exp_()
        if mask is None or known is None:
            return FeatureMap(values, None)
        h = self.spec.halo
        inner = mask[tuple(slice(h, n - h) for n in mask.shape)]
        return FeatureMap(values, (inner * known)[None])

    def _patch_distances(self, image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Mean squared patch differences (channels, *inner), and where all of them are known (*inner), 0 or 1."""
        inner = tuple(n - 2 * self.spec.halo for n in image.shape)
        distances = image.new_empty((self.spec.channels, *inner))
        known = None if mask is None else image.new_ones(inner)
        channel = 0
        for difference, starts in _pairs_by_difference(self.dimension, self.dilation):
            squared, corner = _squared_difference(image, difference)
            means = _box(squared, self.radius)
            both = None
            if mask is not None:
                pair, _ = _both_valid(mask, difference)
                both = _box(pair, self.radius)
                means = _box(squared.mul_(pair), self.radius).div_(both.clamp(min=1e-6))
            for start in starts:
                # means[j] belongs to the patch around position j + corner + radius of the image
                at = [self.spec.halo + s - c - self.radius for s, c in zip(start, corner, strict=True)]
                window = tuple(slice(a, a + n) for a, n in zip(at, inner, strict=True))
                distances[channel] = means[window]
                if known is not None and both is not None:
                    known *= both[window] > 1e-6
                channel += 1
        return distances.div_((2 * self.radius + 1) ** self.dimension if mask is None else 1), known


def _pairs_by_difference(dimension: int, dilation: int) -> list[tuple[Offset, list[Offset]]]:
    """Pairs of neighbours on different axes, grouped by their difference: each group needs one patch comparison.

    A pair (a, b) is stored by its first offset a under the difference b − a.
    """
    neighbours = []
    for axis, sign in itertools.product(range(dimension), (-dilation, dilation)):
        neighbours.append(tuple(sign if i == axis else 0 for i in range(dimension)))
    groups: dict[Offset, list[Offset]] = {}
    for a, b in itertools.combinations(neighbours, 2):
        if any(u and v for u, v in zip(a, b, strict=True)):
            continue  # opposite neighbours on one axis are not compared
        difference = tuple(v - u for u, v in zip(a, b, strict=True))
        opposite = tuple(-v for v in difference)
        if opposite in groups:
            groups[opposite].append(b)
        else:
            groups.setdefault(difference, []).append(a)
    return list(groups.items())


def _two_views(x: Tensor, difference: Offset) -> tuple[Tensor, Tensor, Offset]:
    """``x`` at p and at p + difference wherever both exist, and the p of the first element."""
    here = tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip(difference, x.shape, strict=True))
    there = tuple(slice(max(0, d), n - max(0, -d)) for d, n in zip(difference, x.shape, strict=True))
    return x[here], x[there], tuple(max(0, -d) for d in difference)


def _squared_difference(x: Tensor, difference: Offset) -> tuple[Tensor, Offset]:
    here, there, corner = _two_views(x, difference)
    return torch.sub(here, there).square_(), corner


def _both_valid(mask: Tensor, difference: Offset) -> tuple[Tensor, Offset]:
    here, there, corner = _two_views(mask, difference)
    return here * there, corner


def _box(x: Tensor, radius: int) -> Tensor:
    """Sums over (2·radius+1)^D voxels, only where the whole box exists."""
    for axis in reversed(range(x.ndim)):
        n = x.shape[axis] - 2 * radius
        total = x.narrow(axis, 0, n)
        for shift in range(1, 2 * radius + 1):
            total = total.add(x.narrow(axis, shift, n)) if shift == 1 else total.add_(x.narrow(axis, shift, n))
        x = total
    return x


MIND = Kind(MindParameters, lambda dimension, given: MindSSC(dimension, given.radius, given.dilation))
