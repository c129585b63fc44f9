"""The weight of the regularity that fits a pair: the one whose displacement predicts samples it has not seen.

Cross-validation (Stone, Journal of the Royal Statistical Society B, 1974). Half of the samples, blocks in the pattern
of a chessboard, are registered with a weight; the other half says how good that weight is. With too little
regularity the displacement follows the noise of the first half, with too much it follows neither. Blocks, because what
neighbours show is no evidence of its own. Knows nothing of feature models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from semreg.core.fields import Layer, Volume
from semreg.registration.dense.terms import Term

DIFFUSION = 0.3
"""The weight of the diffusion that is tried first, and stands where no other can be tried."""
BLOCK = 8
"""Edge of the blocks in feature voxels: about the reach of a control point."""
MARGIN = 1
"""Feature voxels at the border of a block that are not held out: patches of a descriptor see beyond it."""
FACTOR = math.sqrt(10.0)
"""From one weight that is tried to the next."""
WEIGHTS = tuple(DIFFUSION * FACTOR**step for step in range(3))
"""What is tried. None is below the usual one: what neighbouring samples share, noise and patches, is predicted by
following it, so trials ask for too little regularity (Opsomer, Wang, Yang: Nonparametric regression with correlated
errors. Statistical Science, 2001), and only that they ask for more can be trusted."""


CLEAR = 0.03
"""Share by which more regularity must be worse in one fold for the other not to be asked: of 24 phantoms of six kinds,
2-D and 3-D, none of their sums went the other way then."""


def folds(terms: Sequence[Term]) -> list[tuple[list[Term], list[Term]]]:
    """What is seen and what is held out, both ways: blocks of one colour, and the inner part of those of the other."""
    return [
        ([_in_blocks(term, side, 0) for term in terms], [_in_blocks(term, 1 - side, MARGIN) for term in terms])
        for side in (0, 1)
    ]


def _in_blocks(term: Term, side: int, margin: int) -> Term:
    layer = term.fixed
    parity = torch.zeros(layer.grid.shape, dtype=torch.long)
    within = torch.ones(layer.grid.shape, dtype=torch.bool)
    for axis, n in enumerate(layer.grid.shape):
        number, place = torch.arange(n) // BLOCK, torch.arange(n) % BLOCK
        along = [-1 if a == axis else 1 for a in range(layer.grid.dimension)]
        parity += number.reshape(along)
        if n > BLOCK:  # else there is no other block along this axis
            within &= ((place >= margin) & (place < BLOCK - margin)).reshape(along)
    weight = ((parity % 2 == side) & within)[None].to(layer.features.data)
    weight = weight if layer.weight is None else weight * layer.weight.data
    return replace(term, fixed=Layer(layer.features, Volume(weight, layer.grid)))


def best_weight(attempt: Callable[[float, int], float]) -> float:
    """The one of ``WEIGHTS`` with the lowest distance of unseen samples.

    They are tried upwards while that lowers the distance. A parabola through the lowest one and its neighbours, over
    the logarithm of the weight, says where in between it is lowest.

    Args:
        attempt: gives for a weight and the number of one of both ``folds`` the distance of what was held out.

    Returns:
        The weight, at least the first.
    """
    one = [attempt(weight, 0) for weight in WEIGHTS[:2]]
    if one[1] - one[0] > CLEAR * abs(one[0]):  # a distance such as the dot product may be negative
        return WEIGHTS[0]
    found = [first + attempt(weight, 1) for first, weight in zip(one, WEIGHTS, strict=False)]
    for weight in WEIGHTS[2:]:
        if not found[-1] < found[-2]:
            break
        found.append(attempt(weight, 0) + attempt(weight, 1))
    best = found.index(min(found))
    if not 0 < best < len(found) - 1:
        return WEIGHTS[best]
    below, here, above = found[best - 1 : best + 2]
    return float(WEIGHTS[best] * FACTOR ** ((below - above) / (2 * (below + above - 2 * here))))
