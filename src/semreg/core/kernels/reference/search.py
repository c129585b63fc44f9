"""The discrete search in torch: costs of candidates, and the choice that is smooth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from semreg.core.kernels.contract import UNSEEN, Costs, Extended
from semreg.core.kernels.reference.sizes import sizes_of
from semreg.core.sampling import smooth


def cost_volume(near: Extended, far: Extended, candidates: Tensor, how: Costs, total: Tensor, *, add: bool) -> None:
    """See ``Kernels.cost_volume``."""
    nodes, shape = near.features[0].numel(), near.features.shape[1:]
    buffer = torch.empty_like(near.features)
    counted = how.counted_of(len(candidates), nodes)
    block = min(len(candidates), max(counted, sizes_of(near.features.device).costs // nodes))
    unseen = near.features.new_tensor(UNSEEN * (how.unseen or 0.0))
    for first in range(0, len(candidates), block):
        part = candidates[first : first + block].tolist()
        costs = near.features.new_empty((len(part), *shape))
        plain = near.weight is None and far.weight is None and how.unseen is None
        weights = None if plain else torch.ones_like(costs)
        for row, offset in enumerate(part):
            features, weight = far.shifted(tuple(offset), how.stride)
            costs[row] = how.compare(near.features, features, buffer)
            for one in (near.weight, weight):
                if weights is not None and one is not None:
                    weights[row] *= one[0]
        if weights is None:
            smoothed = smooth(costs, passes=how.smoothing)
        else:
            costs *= weights
            if first == 0 and how.unseen is None:  # the same for all candidates
                unseen = UNSEEN * costs[:counted].sum() / weights[:counted].sum().clamp(min=UNSEEN)
            smoothed = (smooth(costs, passes=how.smoothing) + unseen) / (smooth(weights, passes=how.smoothing) + UNSEEN)
        columns = total[:, first : first + len(part)]
        if add:
            columns.add_(smoothed.flatten(1).T, alpha=how.factor)
        else:
            columns.copy_(smoothed.mul_(how.factor).flatten(1).T)


def coupled_choice(
    cost: Tensor, candidates: Tensor, shape: tuple[int, ...], coupling: Sequence[float]
) -> tuple[Tensor, float]:
    """See ``Kernels.coupled_choice``."""
    dimension = len(shape)
    offsets = candidates.to(cost)
    squares = offsets.square().sum(1)
    soft = cost.new_zeros((dimension, *shape))
    best = torch.empty(cost.shape[0], dtype=torch.long, device=cost.device)
    block = max(1, sizes_of(cost.device).choices // cost.shape[1])
    for weight in coupling:
        flat = soft.reshape(dimension, -1).T
        for first in range(0, cost.shape[0], block):
            part = slice(first, first + block)
            total = torch.addmm(cost[part], flat[part], offsets.T, alpha=-2 * weight)
            best[part] = total.add_(squares, alpha=weight).argmin(1)
        soft = smooth(offsets[best].T.reshape(dimension, *shape))
    return soft, float(cost.gather(1, best[:, None]).mean())
