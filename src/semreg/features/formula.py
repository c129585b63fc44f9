"""Formulas that autograd can go through, although they work in place. Knows no images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch.autograd.function import once_differentiable

from semreg.core.pullback import pullback
from semreg.core.shapes import Map, Mask
from semreg.features.contract import Descriptor, FeatureMap, IntensityStats

Formula: TypeAlias = Callable[[Mask], Map]


def through(formula: Formula, x: Mask) -> Map:
    """``formula`` of ``x``, with its derivative; it is computed once more on the way back, and nothing is kept."""
    if not (x.requires_grad and torch.is_grad_enabled()):
        return formula(x)
    result: Map = _Formula.apply(x, formula)  # type: ignore[no-untyped-call]
    return result


def described(model: Descriptor, x: Mask, stats: IntensityStats, valid: Mask | None) -> FeatureMap:
    """What ``model`` says of the tile ``x``, with its derivative; ``stats`` count as constants."""
    weight: list[Mask | None] = []

    def values(x: Mask) -> Map:
        found = model(x, stats, valid)
        weight.append(found.weight)
        return found.values

    return FeatureMap(through(values, x), weight[0])


class _Formula(torch.autograd.Function):
    """A formula that works in place, which autograd bears where both directions run in one context: the backward."""

    @staticmethod
    def forward(ctx: Any, x: Mask, formula: Formula) -> Map:
        ctx.save_for_backward(x)
        ctx.formula = formula
        return formula(x.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Map) -> tuple[Mask, None]:
        x = ctx.saved_tensors[0].detach().clone().requires_grad_()
        with torch.enable_grad(), torch.autograd.graph.allow_mutation_on_saved_tensors():
            return pullback([ctx.formula(x)], gradients, [x])[0], None
