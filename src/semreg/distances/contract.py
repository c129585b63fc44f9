"""What a distance between features is: its value, and the faster ways that it may bring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from jaxtyping import Float, Int
from torch import Tensor

from semreg.core.kernels.contract import Cost, Slope
from semreg.core.shapes import Channels, Mask, Samples, Scalar, Weights
from semreg.distances import derived

Shape: TypeAlias = tuple[int, ...]
Scale: TypeAlias = Callable[[Samples, Weights | None], float]
Embed: TypeAlias = Callable[[Channels, Mask | None], Float[Tensor, "k *s"]]


class Value(Protocol):
    """A distance as a function: features (P, C), weight (P,) or None, spatial shape → scalar."""

    def __call__(
        self,
        fixed: Samples,
        moving: Samples,
        weight: Weights | None = None,
        shape: Shape | None = None,
    ) -> Scalar:
        """The distance."""


class Curvature(Protocol):
    """What ``Distance.curvature`` is."""

    def __call__(self, fixed: Samples, weight: Weights | None, shape: Shape | None = None) -> float:
        """About the second derivative in one feature of one sample."""


@dataclass(frozen=True)
class Distance:
    """A distance and what an optimiser must know of it. Lower is better, 0 for equal features.

    ``Distance.of(value)`` is all that a new one needs; each of the other fields is a faster or a better way.

    ``value(fixed, moving, weight, shape)``: features (P, C), weight (P,) or None → scalar; samples of weight 0 count
    nowhere. ``shape`` is the spatial shape *S of the P samples, which distances in windows need (else ConfigError).
    ``scale(fixed, weight)``: the distance of unrelated features, what a residual is small or large against; >= 0.
    ``curvature(fixed, weight, shape)``: about the second derivative in one feature of one sample.
    ``embed(features, weight)`` and ``cost(near, far, buffer)`` compare candidates one by one, without gradients:
    ``embed`` (C, *S), (1, *S) or None → (K, *S), once for each image; ``cost`` of two of these (K, *S) → (*S), where
    ``buffer`` (K, *S) is scratch. The mean of the cost over the samples is the value where the distance has a slope.
    ``slope(fixed, moving, share)``: where the distance is a weighted mean over samples, the part of some samples, whose
    ``share`` of all weights is given, and its derivative in ``moving`` (P, C); None for other distances.
    ``zero_at_match``: whether 0 is the least value; if not, the distance has neither a least value nor a fixed sign.
    ``summed``: whether the value is a sum over the channels, of which scripts of itk-impact expect the mean.
    ``windows(radius)``: the same distance in windows of ``2 radius + 1`` samples an axis, where it has windows.
    ``in_cells(fixed, moving, cell)``: the same at scattered points (P, C), ``cell`` (P,) the number of each point's
    window, where it has windows.
    ``leads``: whether a search can go by it; if not, it is left to the other terms where there are any.
    ``formula``: what kernels that compute it themselves call it; empty: none does.
    """

    value: Value
    scale: Scale
    curvature: Curvature
    embed: Embed
    cost: Cost
    slope: Slope | None = None
    zero_at_match: bool = True
    summed: bool = False
    windows: Callable[[int], Distance] | None = None
    in_cells: Callable[[Samples, Samples, Int[Tensor, "p"]], Scalar] | None = None
    leads: bool = True
    formula: str = ""

    @classmethod
    def of(  # noqa: PLR0913 - the value, and each way that may be faster
        cls,
        value: Value,
        *,
        scale: Scale | None = None,
        curvature: Curvature | None = None,
        embed: Embed = derived.as_is,
        cost: Cost | None = None,
        slope: Slope | None = None,
        zero_at_match: bool = True,
        summed: bool = False,
        windows: Callable[[int], Distance] | None = None,
        in_cells: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        leads: bool = True,
        formula: str = "",
    ) -> Distance:
        """A distance with all that it does not bring derived from its value; see the fields."""
        return cls(
            value,
            scale=scale or derived.scale_of(value),
            curvature=curvature or derived.curvature_of(value),
            embed=embed,
            cost=cost or derived.cost_of(value),
            slope=slope,
            zero_at_match=zero_at_match,
            summed=summed,
            windows=windows,
            in_cells=in_cells,
            leads=leads,
            formula=formula,
        )

    def __call__(
        self,
        fixed: Samples,
        moving: Samples,
        weight: Weights | None = None,
        shape: Shape | None = None,
    ) -> Scalar:
        """The distance as a scalar tensor."""
        return self.value(fixed, moving, weight, shape)


def pointwise(function: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> Value:
    """A value that needs no spatial shape."""

    def value(
        fixed: Tensor,
        moving: Tensor,
        weight: Tensor | None = None,
        shape: Shape | None = None,  # noqa: ARG001 (only windows need the grid)
    ) -> Tensor:
        return function(fixed, moving, weight)

    return value


def flat(function: Callable[[Tensor, Tensor | None], float]) -> Curvature:
    """A curvature that needs no spatial shape."""

    def curvature(fixed: Tensor, weight: Tensor | None, shape: Shape | None = None) -> float:  # noqa: ARG001 (as above)
        return function(fixed, weight)

    return curvature
