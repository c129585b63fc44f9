"""How far the moving image would still move: one more discrete search between the fixed and the warped image.

Method: the coupled-convex search of the coarse stage (Siebert, Großbröhmer, Hansen, Heinrich: ConvexAdam, 2024), at a
working size, in one direction. Knows no check.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from semreg.core.fields import Field, Layer
from semreg.core.kernels import Costs, Extended, cost_volume
from semreg.distances.differences import l2_cost
from semreg.registration.dense.coarse import coupled_convex, window

HALF_WIDTH = 3
"""Half width of the search window in nodes: further than that counts as that far."""
NODE = 2
"""Spacing of the nodes in working voxels."""
SMOOTHING = {2: 3, 3: 2}
"""How many times the costs are smoothed over 3 nodes; a neighbourhood in 2-D has fewer nodes."""
COUNTED = 0.25
"""Weight of a node from which it counts."""
SMALL = 1e-6


@dataclass(frozen=True)
class Residual:
    """What one more search would do, over the nodes that count."""

    length_mm: Tensor
    """How far it would move each of them, (P,)."""
    wanted: Tensor
    """Where to, (D, P), mm."""
    found: Tensor
    """What the result moved them by, (D, P), mm."""
    gain: float
    """Share of the cost at rest that the best candidate of each takes away, 0 to 1."""


def search_again(fixed: Layer, moving: Layer, field: Field, free: Sequence[bool] | None = None) -> Residual | None:
    """The displacement that the features, both on the grid of ``field``, prefer to none; None where nothing is seen.

    ``free``: for each tensor axis whether points may move along it; None: along all.
    """
    factor = tuple(min(NODE, n) for n in fixed.grid.shape)
    near, far = fixed.pooled(factor), moving.pooled(factor)
    nodes = near.grid
    may = (True,) * nodes.dimension if free is None else free
    widths = tuple(HALF_WIDTH if n > 1 and moves else 0 for n, moves in zip(nodes.shape, may, strict=True))
    candidates = window(widths)
    candidates = candidates[candidates.square().sum(1) <= (HALF_WIDTH + 0.5) ** 2]  # as far in every direction
    here = Extended(near.features.data, _weight(near), (0,) * nodes.dimension)
    how = Costs(compare=l2_cost, formula="l2", smoothing=SMOOTHING[nodes.dimension])
    cost = cost_volume(here, _grown(far, widths), candidates, how)
    counts = (_weight(near) * _weight(far))[0].flatten() > COUNTED
    if not bool(counts.any()):
        return None
    rest, least = cost[counts, 0].sum(), cost[counts].amin(1).sum()
    more, _ = coupled_convex(cost, candidates, nodes.shape)
    wanted = Field(more, nodes).mm().flatten(1)[:, counts]
    found = field.on(nodes).mm().flatten(1)[:, counts]
    return Residual(wanted.square().sum(0).sqrt(), wanted, found, float((rest - least) / rest.clamp(min=SMALL)))


def _weight(layer: Layer) -> Tensor:
    return torch.ones_like(layer.features.data[:1]) if layer.weight is None else layer.weight.data


def _grown(layer: Layer, widths: tuple[int, ...]) -> Extended:
    """With ``widths`` nodes more on every side, where nothing counts."""
    sides = [width for w in reversed(widths) for width in (w, w)]
    features = F.pad(layer.features.data[None], sides, mode="replicate")[0]
    return Extended(features, F.pad(_weight(layer), sides), widths)
