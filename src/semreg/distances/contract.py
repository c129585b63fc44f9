"""What a distance between features is, and what an optimiser must know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from torch import Tensor

Shape: TypeAlias = tuple[int, ...]
Slope: TypeAlias = Callable[[Tensor, Tensor, Tensor], tuple[float, Tensor]]


class Value(Protocol):
    """A distance as a function: features (P, C), weight (P,) or None, spatial shape → scalar."""

    def __call__(
        self, fixed: Tensor, moving: Tensor, weight: Tensor | None = None, shape: Shape | None = None
    ) -> Tensor:
        """The distance."""


class Curvature(Protocol):
    """What ``Distance.curvature`` is."""

    def __call__(self, fixed: Tensor, weight: Tensor | None, shape: Shape | None = None) -> float:
        """About the second derivative in one feature of one sample."""


@dataclass(frozen=True)
class Distance:
    """A distance and what an optimiser must know of it. Lower is better, 0 for equal features.

    ``value(fixed, moving, weight, shape)``: features (P, C), weight (P,) or None → scalar; samples of weight 0 count
    nowhere. ``shape`` is the spatial shape *S of the P samples, which LNCC needs (else ConfigError) and no other uses.
    ``scale(fixed, weight)``: the distance of unrelated features, what a residual is small or large against; >= 0.
    ``curvature(fixed, weight, shape)``: about the second derivative in one feature of one sample.
    ``embed(features, weight)`` and ``cost(near, far, buffer)`` compare candidates one by one, without gradients:
    ``embed`` (C, *S), (1, *S) or None → (K, *S), once for each image; ``cost`` of two of these (K, *S) → (*S), where
    ``buffer`` (K, *S) is scratch. The mean of the cost over the samples is the value where the distance has a slope.
    ``slope(fixed, moving, share)``: where the distance is a weighted mean over samples, the part of some samples, whose
    ``share`` of all weights is given, and its derivative in ``moving`` (P, C); None for other distances.
    ``zero_at_match``: whether 0 is the least value; if not, the distance has neither a least value nor a fixed sign.
    """

    value: Value
    scale: Callable[[Tensor, Tensor | None], float]
    curvature: Curvature
    embed: Callable[[Tensor, Tensor | None], Tensor]
    cost: Callable[[Tensor, Tensor, Tensor], Tensor]
    slope: Slope | None = None
    zero_at_match: bool = True

    def __call__(
        self, fixed: Tensor, moving: Tensor, weight: Tensor | None = None, shape: Shape | None = None
    ) -> Tensor:
        """The distance as a scalar tensor."""
        return self.value(fixed, moving, weight, shape)
