"""How sharply the costs single out the displacement that was found: a small dense window around it.

The costs of the candidates in the window stand for a distribution, exp(−cost / temperature), as in Heinrich et al.:
Deformable image registration by combining uncertainty estimates from supervoxel belief propagation. Medical Image
Analysis, 2016. Its width is small where structure holds the displacement, and that of the whole window where nothing
does. Knows nothing of feature models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from semreg.core.fields import Field, Layer, Volume
from semreg.core.geometry import Grid, index_map
from semreg.core.kernels import Costs, Extended, cost_volume
from semreg.core.sampling import base_index, inside, sample, smooth, transform_index
from semreg.errors import ConfigError
from semreg.registration.dense.axes import free_axes
from semreg.registration.dense.coarse import window
from semreg.registration.dense.terms import ALIKE, Term

HALF_WIDTH = 2
"""Half width of the window in steps of one feature voxel."""
MOST_NODES = 1 << 15
"""Nodes at which the window is looked at: more would cost time and tell nothing that lasts over a few voxels."""
MOST_SAMPLES = 300_000
"""Samples of the fixed features up to which they are compared as they are, on blocks of them beyond: in a large image
the window would else be a small one in mm."""
SMOOTHING = {2: 4, 3: 2}
"""How many times the costs are smoothed over 3 nodes, by the number of thick axes: a plane has fewer neighbours."""
LEAST_BLOCK = {2: 2, 3: 1}
"""Edge of the blocks at least, in feature voxels, for the same reason."""
COUNTED = 16
"""Candidates whose mean cost stands for what nobody has seen."""
RADIUS = 1
"""Half width of the boxes over which the squared width is averaged, in nodes."""
TEMPERATURE = 0.12
"""Of the median cost at the displacement itself: what is left there is noise, and differences as small tell nothing."""
COLDEST = 1e-3 * ALIKE
"""The temperature at least, where features are equal and nothing is left."""
UNSIGNED = 0.025 * ALIKE
"""The temperature for distances without a least value, of which nobody can say what is left: that of usual images."""
TELLS = 1e-3 * ALIKE
"""Range of costs over a window below which a node tells nothing."""


def width_mm(terms: Sequence[Term], found: Field, axes: Sequence[str] = ()) -> Volume:
    """How far candidates that match about as well lie from ``found``: root mean square in mm, (1, *nodes).

    ``found`` lies on the grid of the fixed features; the result on every second, third … sample of it. Between 0 and
    ``widest_mm``, which it is where nothing tells candidates apart or nothing is seen. ``axes``: the directions in
    which candidates lie; none: all.
    """
    found, terms = affordable(terms, found)
    stride = stride_of(found.grid)
    nodes = strided(found.grid, stride)
    free = free_axes(axes, found.grid.dimension)
    candidates = window(
        tuple(HALF_WIDTH if n > 1 and may else 0 for n, may in zip(found.grid.shape, free, strict=True))
    )
    costs = _costs(terms, found, stride, candidates)
    steps = torch.tensor(found.grid.spacing, device=costs.device)
    squares = (candidates.to(costs) * steps).square().sum(1)
    temperature = _temperature(costs) if all(term.measure.zero_at_match for term in terms) else UNSIGNED
    chance = costs.sub_(costs.amin(0)).mul_(-1 / temperature).exp_()
    square = torch.tensordot(squares, chance, 1) / chance.sum(0)
    return Volume(smooth(square[None], radius=RADIUS).sqrt(), nodes)


def widest_mm(grid: Grid) -> float:
    """The width where all candidates of the window match alike, in mm, for features on ``grid``."""
    share = HALF_WIDTH * (HALF_WIDTH + 1) / 3
    return math.sqrt(share * sum(s**2 for s, n in zip(grid.spacing, grid.shape, strict=True) if n > 1))


def affordable(terms: Sequence[Term], found: Field) -> tuple[Field, Sequence[Term]]:
    """The field and terms on blocks so large that there are few and that they take no more memory than all layers now.

    A layer with many channels and large voxels would grow where the candidates are one small voxel apart.
    """
    held = sum(layer.features.data.numel() for term in terms for layer in (term.fixed, term.moving))
    channels = max(len(term.fixed.features.data) for term in terms)
    factor, grid = 0, found.grid
    while factor < LEAST_BLOCK[thick(grid)] or grid.voxels > MOST_SAMPLES or channels * grid.voxels > held:
        factor += 1
        grid = found.grid.pooled(factor)
    return found.on(grid), [_on_blocks(term, found.grid, grid, factor) for term in terms]


def thick(grid: Grid) -> int:
    """How many axes have more than one voxel; 2 at least, 3 at most."""
    return max(2, sum(n > 1 for n in grid.shape))


def stride_of(grid: Grid) -> int:
    """Every how many samples of ``grid`` there is a node."""
    stride = 1
    while math.prod(-(-n // stride) for n in grid.shape) > MOST_NODES:
        stride += 1
    return stride


def strided(grid: Grid, stride: int) -> Grid:
    """Every ``stride``-th sample of ``grid`` from the first on."""
    size = tuple(-(-n // stride) for n in grid.size_xyz)
    return replace(grid, size_xyz=size, spacing_xyz=tuple(stride * s for s in grid.spacing_xyz))


def _on_blocks(term: Term, grid: Grid, blocks: Grid, factor: int) -> Term:
    """A term with its fixed features on ``blocks``, and its moving ones about as far apart."""
    if term.fixed.grid == grid:
        fixed = term.fixed if factor == 1 else term.fixed.pooled(factor)
    else:
        fixed = term.fixed.averaged_on(blocks)
    spacing = term.moving.grid.spacing
    far = tuple(max(1, round(b / s)) for b, s in zip(blocks.spacing, spacing, strict=True))
    return replace(term, fixed=fixed, moving=term.moving if max(far) == 1 else term.moving.pooled(far))


def _temperature(costs: Tensor) -> float:
    """A share of the noise: of the median of what is left at the displacement, where the costs (K, *S) tell at all."""
    low, high = torch.aminmax(costs, dim=0)
    left = costs[0][high - low > TELLS]
    return max(TEMPERATURE * float(left.median()), COLDEST) if len(left) else COLDEST


def _costs(terms: Sequence[Term], found: Field, stride: int, candidates: Tensor) -> Tensor:
    """The weighted sum of the smoothed costs of all terms, (K, *nodes); ``candidates`` (K, D) are in samples."""
    if not terms:
        raise ConfigError("expected at least one layer of features to look at, got none")
    shape = strided(found.grid, stride).shape
    total = terms[0].fixed.features.data.new_empty((len(candidates), *shape))
    widths = tuple(int(w) for w in candidates.amax(0))
    every = (slice(None), *[slice(None, None, stride) for _ in shape])
    for number, term in enumerate(terms):
        near, seen = _embedded(term, term.fixed)[every].contiguous(), term.fixed.weight
        here = Extended(near, None if seen is None else seen.data[every], (0,) * len(shape))
        how = Costs(
            compare=term.measure.cost, formula=term.measure.formula, smoothing=SMOOTHING[thick(found.grid)],
            factor=term.factor, stride=stride, counted=COUNTED,
        )  # fmt: skip
        cost_volume(here, _far(term, found, widths), candidates, how, total.flatten(1).T, add=number > 0)
    return total


def _far(term: Term, found: Field, widths: Sequence[int]) -> Extended:
    """The moving features as the samples of ``found`` see them, and ``widths`` beyond; outside nothing counts."""
    moving = term.moving
    x = _embedded(term, moving)
    margin = torch.tensor(widths, dtype=x.dtype, device=x.device).reshape(-1, *[1] * len(widths))
    index = base_index(tuple(n + 2 * w for n, w in zip(found.grid.shape, widths, strict=True)), like=x) - margin
    index += sample(found.vox, index)
    index = transform_index(index_map(found.grid, moving.grid), index)
    weight = inside(index, moving.grid.shape)[None].to(x.dtype)
    if moving.weight is not None:
        weight *= sample(moving.weight.data, index)
    whole = moving.weight is None and bool(weight.all())
    return Extended(sample(x, index), None if whole else weight, tuple(widths))


def _embedded(term: Term, layer: Layer) -> Tensor:
    return term.measure.embed(layer.features.data, None if layer.weight is None else layer.weight.data)
