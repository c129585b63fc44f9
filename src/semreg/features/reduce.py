"""Fewer and comparable channels: principal components, standard channels, unit vectors, channels drawn at random.

What is fitted is fitted on the fixed features and applied to both images, so that their channels keep meaning the same.
Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from semreg.core.fields import Layer, Volume
from semreg.core.shapes import Map
from semreg.distances.samples import SMALL
from semreg.errors import ConfigError, ModelContractError

CHUNK = 1 << 16
"""Voxels handled at once: bounds the memory of what is computed in double precision."""


@dataclass(frozen=True)
class Basis:
    """Principal components: ``mean`` (C,) and orthonormal columns ``vectors`` (C, K), the first explains the most.

    ``variances`` (K,) along the columns and ``total``, that of all channels, in squared units of the features.
    """

    mean: Float[Tensor, "c"]
    vectors: Float[Tensor, "c k"]
    variances: Float[Tensor, "k"]
    total: float

    @property
    def explained(self) -> Float[Tensor, "k"]:
        """The share of the variance that each component explains, (K,); 0 where nothing varies."""
        return self.variances / self.total if self.total > 0 else torch.zeros_like(self.variances)

    def apply(self, layer: Layer) -> Layer:
        """The components of ``layer``: (C, *S) → (K, *S), the mean of the fitted features subtracted; differentiable.

        Raises ModelContractError where the layer has another number of channels.
        """
        x = _channels(layer, len(self.mean))
        mean, vectors = self.mean.to(x)[:, None], self.vectors.to(x)
        return _with(layer, torch.cat([vectors.T @ (part - mean) for part in torch.split(x, CHUNK, 1)], 1))


@dataclass(frozen=True)
class Standard:
    """``mean`` and ``scale`` of each channel, (C,); the scale is 1 / standard deviation, 0 where nothing varies."""

    mean: Float[Tensor, "c"]
    scale: Float[Tensor, "c"]

    def apply(self, layer: Layer) -> Layer:
        """The standardised channels, (C, *S) → (C, *S); ModelContractError for another number of channels."""
        x = _channels(layer, len(self.mean))
        return _with(layer, (x - self.mean.to(x)[:, None]).mul_(self.scale.to(x)[:, None]))


def fit_pca(layer: Layer, components: int) -> Basis:
    """The first principal components of the features (C, *S), each voxel counted by its weight.

    From the covariance in double precision; the largest entry of each component is positive, so that the signs do not
    depend on the solver. Raises ConfigError for fewer than 1 component or more than channels.
    """
    channels = layer.features.data.shape[0]
    if not 1 <= components <= channels:
        raise ConfigError(
            f"expected between 1 and {channels} principal components of a layer with {channels} channels, got "
            f"{components}: lower models.pca"
        )
    mean, count = _mean(layer)
    covariance = torch.zeros((channels, channels), dtype=torch.float64, device=mean.device)
    for x, weight in _chunks(layer):
        centred = x - mean[:, None]
        covariance.addmm_(centred * weight, centred.T)
    values, vectors = torch.linalg.eigh(covariance / max(count, SMALL))
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return Basis(mean, (vectors * largest.sign())[:, :components], values[:components], float(values.sum()))


def fit_standard(layer: Layer) -> Standard:
    """What brings each channel of the features (C, *S) to mean 0 and standard deviation 1, by weight.

    Channels whose deviation is rounding, below 1e-6 of their mean, become 0.
    """
    mean, count = _mean(layer)
    squares = torch.zeros_like(mean)
    for x, weight in _chunks(layer):
        squares += ((x - mean[:, None]).square_() * weight).sum(1)
    deviation = (squares / max(count, SMALL)).sqrt()
    varies = deviation > SMALL * mean.abs()
    return Standard(mean, torch.where(varies, 1 / torch.where(varies, deviation, 1), 0))


def unit(layer: Layer) -> Layer:
    """Feature vectors of length 1; those shorter than 1e-6 become 0."""
    x = layer.features.data.flatten(1)
    length = torch.linalg.vector_norm(x, dim=0, keepdim=True)
    known = length > SMALL
    return _with(layer, torch.where(known, x / torch.where(known, length, 1), 0))


def subset(channels: int, count: int, generator: torch.Generator) -> Int[Tensor, "k"]:
    """``count`` of ``channels`` channels drawn at random, sorted, int64; all where ``count`` is 0 or not less."""
    if count == 0 or count >= channels:
        return torch.arange(channels, device=generator.device)
    return torch.randperm(channels, generator=generator, device=generator.device)[:count].sort().values


def select(layer: Layer, indices: Int[Tensor, "k"]) -> Layer:
    """The channels ``indices`` (K,) of the features, (C, *S) → (K, *S); the layer itself where these are all."""
    x = layer.features.data
    if torch.equal(indices.cpu(), torch.arange(len(x))):
        return layer
    return _with(layer, x.index_select(0, indices.to(x.device)))


def _mean(layer: Layer) -> tuple[Float[Tensor, "c"], float]:
    """Mean of each channel (C,), 0 where no voxel counts, and the sum of the weights."""
    total, count = torch.zeros(()), 0.0
    for x, weight in _chunks(layer):
        total = (x * weight).sum(1) + total.to(x)
        count += float(weight.sum())
    return total / max(count, SMALL), count


def _chunks(layer: Layer) -> Iterator[tuple[Float[Tensor, "c n"], Float[Tensor, "n"]]]:
    """Features (C, n) and weights (n,) of the voxels that count, part by part, in double precision."""
    x = layer.features.data.flatten(1)
    # Apple's GPUs know no double precision
    device = torch.device("cpu") if x.device.type == "mps" else x.device
    weights = x.new_ones(x.shape[1]) if layer.weight is None else layer.weight.data.flatten()
    for first in range(0, x.shape[1], CHUNK):
        weight, part = weights[first : first + CHUNK], x[:, first : first + CHUNK]
        if layer.weight is not None:
            counts = weight > 0  # what is excluded may hold anything, also what is not a number
            weight, part = weight[counts], part[:, counts]
        yield part.to(device, torch.float64), weight.to(device, torch.float64)


def _channels(layer: Layer, channels: int) -> Float[Tensor, "{channels} n"]:
    """The features as (C, P), or ModelContractError."""
    x = layer.features.data
    if len(x) != channels:
        raise ModelContractError(
            f"expected {channels} channels, as the features this was fitted on have, got {len(x)}: "
            "choose models or layers for the two images whose channels mean the same"
        )
    return x.flatten(1)


def _with(layer: Layer, flat: Map) -> Layer:
    """The layer with other features, given as (C, P) or as (C, *S)."""
    return Layer(Volume(flat.reshape(-1, *layer.grid.shape), layer.grid), layer.weight)
