"""Points that correspond, found in the images: distinctive ones, each looked for in a window, both ways.

Distinctive points are those of Förstner and Gülch (A fast operator for detection and precise location of distinct
points, corners and centres of circular features, 1987), in 2-D and 3-D. Each is looked for by the features of a patch,
and kept where the search back confirms it, as in Rühaak et al.: Estimation of large motion in lung CT by integrating
regularized keypoint correspondences into dense deformable registration. IEEE Transactions on Medical Imaging, 2017.
Which of several candidates it is, neighbours tell, by belief propagation on a graph of the points: Hansen, Heinrich:
GraphRegNet. IEEE Transactions on Medical Imaging, 2021. Knows nothing of feature models.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semreg.core.fields import Layer, Volume
from semreg.core.geometry import Grid, index_map
from semreg.core.sampling import smooth
from semreg.registration.dense.axes import free_axes
from semreg.registration.dense.correspondences import Correspondences, student

PATCH = {2: (-4, -2, 0, 2, 4), 3: (-2, 0, 2)}
"""Where a patch is compared along each axis, in nodes, by dimension: a plane has fewer neighbours and channels."""
MOST_POINTS = 1000
"""Distinctive points that are looked for at most."""
MOST_HALF_WIDTH = 24
"""Half width of the window in nodes at most, 10⁵ candidates: it decides how far apart nodes are."""
FLAT = 0.01
"""Share of the image's mean squared gradient that a distinctive point has along each axis, about."""
COUNTS = 0.5
"""Weight from which a place counts, and share of a patch that both images must show."""
CANDIDATES = 32
"""Least costs in a window, each of its neighbourhood, that are a choice."""
TEMPERATURE = 0.5
"""Share of the cost that is left at the best candidates, in the median, by which costs of a patch differ by chance."""
NEIGHBOURS = 8
"""Nearest points of each that have a say in the choice."""
STRAIN = 0.2
"""By how much displacements of neighbours differ, mm per mm: what breathing does to tissue; more is believed less."""
PASSES = 10
"""How many edges far the choice of a point is told."""


@dataclass(frozen=True)
class Matches:
    """What was found."""

    looked: int
    """Distinctive points of the fixed image."""
    points: Correspondences
    """Those whose partners the search back confirms."""


def blocks(spacing_mm: float, reach_mm: float) -> int:
    """How many working voxels of ``spacing_mm`` lie between two nodes."""
    return max(1, math.ceil(reach_mm / spacing_mm / MOST_HALF_WIDTH - 1e-6))


def memory_bytes(fixed: Grid, moving: Grid, reach_mm: float) -> int:
    """What is held while points are looked for on working grids, about: features of both, and the largest step."""
    block, dimension = blocks(min(fixed.spacing), reach_mm), fixed.dimension
    channels, taps = {2: 4, 3: 12}[dimension] + 2, int(len(PATCH[dimension]) ** dimension)
    window = 4 * (channels + taps) * int((2 * MOST_HALF_WIDTH + 1 + 2 * max(PATCH[dimension])) ** dimension)
    near, far = fixed.pooled(block).voxels, moving.pooled(block).voxels
    # of two neighbours half are each other's; 6 numbers of 8 bytes for each pair of their candidates
    edges = min(MOST_POINTS, near // 2**dimension) * NEIGHBOURS * 4 // 3
    structure = 36 * dimension**2 * near  # tensors, their inverses and what is between
    return int(8 * channels * (near + far) + max(structure, window, 48 * edges * CANDIDATES**2))


def matches(image: Volume, fixed: Layer, moving: Layer, reach_mm: float, axes: Sequence[str] = ()) -> Matches:
    """Distinctive points of an image and their partners in another one.

    ``image`` (1, *S) is the fixed one on the grid of its features, the nodes; those of the moving image lie as far
    apart along the same axes. Partners lie up to ``reach_mm`` away along each of ``axes``; none: along all.
    """
    grid = fixed.grid
    free = free_axes(axes, grid.dimension)
    widths = tuple(
        math.ceil(reach_mm / spacing - 1e-6) if n > 1 and may else 0
        for n, spacing, may in zip(grid.shape, grid.spacing, free, strict=True)
    )
    near, far = _Side.of(fixed, grid), _Side.of(moving, grid)
    places = distinctive(image.data[0], None if fixed.weight is None else fixed.weight.data[0]).cpu()
    looked = len(places)
    there = _chosen(_candidates(near, far, places, widths), grid)
    # neighbours that err together would lead each other back too: the way back goes by the costs alone
    back = _chosen(_candidates(far, near, there.places + there.steps, widths), grid, alone=True)
    there = there.part(back.which)
    returned = there.steps + back.steps
    kept = returned.abs().amax(1) <= 1
    there, back = there.part(kept), back.part(kept)
    # both searches err alike, so half of the square by which they miss each other is the variance of one
    missed = (there.steps + there.shifts + back.steps + back.shifts) * torch.tensor(grid.spacing).double()
    variance = there.variance + missed.square().sum(1) / (2 * max(1, sum(w > 0 for w in widths)))
    end = there.places + there.steps + there.shifts
    return Matches(looked, Correspondences(grid, there.places.double().T, end.T, variance.sqrt()))


def distinctive(image: Tensor, weight: Tensor | None = None) -> Tensor:
    """Indices (N, D) of the distinctive points of an image (*S), the most distinctive of their neighbourhoods.

    The measure is 1 / tr(A⁻¹) of the structure tensor A: large where the image changes along all axes. Where there
    would be too many the neighbourhoods are larger, so that points are spread evenly; of too many that are equal, as in
    a pattern, some are left out. There may be none.
    """
    thick = [axis for axis, n in enumerate(image.shape) if n > 1]
    if not thick:
        return torch.zeros((0, image.ndim), dtype=torch.long, device=image.device)
    seen = torch.ones_like(image) if weight is None else weight
    gradients = torch.stack([torch.gradient(image, dim=axis)[0] for axis in thick]) * (smooth(seen[None]) >= 1 - 1e-3)
    floor = FLAT * float(gradients.square().mean())
    if floor == 0:
        return torch.zeros((0, image.ndim), dtype=torch.long, device=image.device)
    tensors = smooth((gradients[:, None] * gradients[None]).flatten(0, 1), passes=2) / floor
    tensors = tensors.reshape(len(thick), len(thick), -1).permute(2, 0, 1) + 1e-3 * torch.eye(len(thick)).to(tensors)
    score = len(thick) / torch.linalg.inv(tensors).diagonal(dim1=1, dim2=2).sum(1).reshape(image.shape)
    score = torch.where((score >= 1) & (seen >= COUNTS), score, 0)
    highest = score
    for radius in itertools.count(1):
        highest = _highest(highest)
        found = torch.nonzero((score == highest) & (score > 0))
        # more than there are boxes of this size are equally distinctive, as in a pattern: no larger one parts them
        if len(found) <= MOST_POINTS or math.prod(math.ceil(n / (radius + 1)) for n in image.shape) <= MOST_POINTS:
            return found[:: max(1, math.ceil(len(found) / MOST_POINTS))]
    raise AssertionError


def _highest(x: Tensor) -> Tensor:
    """The largest value (*S) within one sample along each axis."""
    for axis, n in enumerate(x.shape):  # one after the other: pooling in three at once takes a hundred times as long
        if n > 1:
            higher = x.clone()
            higher.narrow(axis, 0, n - 1).copy_(torch.maximum(x.narrow(axis, 0, n - 1), x.narrow(axis, 1, n - 1)))
            higher.narrow(axis, 1, n - 1).copy_(torch.maximum(higher.narrow(axis, 1, n - 1), x.narrow(axis, 0, n - 1)))
            x = higher
    return x


@dataclass(frozen=True)
class _Side:
    """One image on the nodes: its features and their squares, times its weights, and these, (C + 2, *S)."""

    stack: Tensor
    first: tuple[int, ...]
    """The node of the first sample."""

    @classmethod
    def of(cls, layer: Layer, nodes: Grid) -> _Side:
        """A layer on all nodes within its grid, which may reach beyond that of ``nodes``; where there is none, one."""
        last = np.array([[n - 1, 0] for n in layer.grid.shape] + [[1, 1]])
        ends = (index_map(layer.grid, nodes) @ last)[:-1]
        nearest = np.rint(ends.mean(1))  # as of a slice between two nodes
        start = np.minimum(np.ceil(ends[:, 1] - 1e-6), nearest).astype(int).tolist()
        stop = np.maximum(np.floor(ends[:, 0] + 1e-6), nearest).astype(int).tolist()
        grid = nodes.part(start, [n + 1 for n in stop])
        data = layer.features.on(grid).data
        weight = data.new_ones((1, *grid.shape)) if layer.weight is None else layer.weight.on(grid).data.to(data)
        return cls(torch.cat([data * weight, data.square().sum(0, keepdim=True) * weight, weight]), tuple(start))

    def box(self, middle: Sequence[int], widths: Sequence[int]) -> Tensor:
        """What lies up to ``widths`` nodes from ``middle``; 0 beyond the image."""
        part, margins = [slice(None)], list[int]()
        for m, width, first, n in zip(middle, widths, self.first, self.stack.shape[1:], strict=True):
            low, high = m - width - first, m + width + 1 - first
            inner = min(max(low, 0), n), min(max(high, 0), n)
            before = min(max(-low, 0), high - low)
            part.append(slice(*inner))
            margins[:0] = [before, high - low - before - (inner[1] - inner[0])]
        return F.pad(self.stack[tuple(part)], margins)


@dataclass(frozen=True)
class _Candidates:
    """Where each of N points may lead, and at which cost; M candidates each."""

    places: Tensor
    """(N, D), nodes."""
    steps: Tensor
    """(N, M, D), nodes."""
    costs: Tensor
    """(N, M), infinite for none."""
    around: Tensor
    """Costs of the nodes around each, (N, M, 3 an axis)."""


def _candidates(near: _Side, far: _Side, places: Tensor, widths: tuple[int, ...]) -> _Candidates:
    """The least costs around each of ``places`` (N, D), the best first."""
    dimension = len(widths)
    reach = [max(PATCH[dimension]) if w else 0 for w in widths]
    taps = sorted(set(itertools.product(*[[o + r for o in PATCH[dimension]] if r else [0] for r in reach])))
    size = tuple(2 * w + 1 for w in widths)
    count = min(CANDIDATES, math.prod(size))
    around = torch.tensor(list(itertools.product((-1, 0, 1), repeat=dimension))).T
    edge = torch.tensor(size)[:, None, None] - 1
    steps, costs, beside = [], [], []
    for place in places.tolist():
        patch = near.box(place, reach)
        templates = patch[(slice(None), *torch.tensor(taps).T)].T
        window = far.box(place, [w + r for w, r in zip(widths, reach, strict=True)])
        cost = _costs(templates, window, taps, size)
        # the least cost at the edge of a window may be no least one: beyond it there may be less
        inner = tuple(slice(1, -1) if w else slice(None) for w in widths)
        least = torch.full_like(cost, math.inf)
        least[inner] = torch.where(cost == -_highest(-cost), cost, math.inf)[inner]
        value, flat = (each.cpu() for each in least.flatten().topk(count, largest=False))
        at = torch.stack(torch.unravel_index(flat, size))
        index = (at[:, :, None] + around[:, None]).clamp(min=0).minimum(edge)
        steps.append(at.T - torch.tensor(widths))
        costs.append(value)
        beside.append(cost[tuple(index.to(cost.device))].cpu())
    shapes = (0, count, dimension), (0, count), (0, count, 3**dimension)
    found = [torch.stack(x) if x else torch.zeros(s) for x, s in zip((steps, costs, beside), shapes, strict=True)]
    return _Candidates(places, found[0].long(), found[1].double(), found[2].double())


def _costs(templates: Tensor, window: Tensor, taps: list[tuple[int, ...]], size: tuple[int, ...]) -> Tensor:
    """Weighted mean squared differences of a patch, ``templates`` (P, C + 2), at all places of ``window``; (*size).

    Infinite where too little of the patch is seen or its middle is not.
    """
    weight = templates[:, -1:]
    # w v (f - m)² of the weights w, v and features f, m: the patch holds w f, w f² and w, the window v m, v m² and v
    patch = torch.cat([-2 * templates[:, :-2], weight, templates[:, -2:-1]], 1)
    products = (patch @ window.flatten(1)).reshape(-1, *window.shape[1:])
    total, seen = window.new_zeros(size), window.new_zeros(size)
    for tap, product, share in zip(taps, products, weight, strict=True):
        part = tuple(slice(o, o + n) for o, n in zip(tap, size, strict=True))
        total += product[part]
        seen.addcmul_(window[-1][part], share)
    middle = tuple(slice((m - n) // 2, (m + n) // 2) for m, n in zip(window.shape[1:], size, strict=True))
    total /= seen.clamp(min=1e-6)
    return torch.where((seen >= COUNTS * len(taps)) & (window[-1][middle] >= COUNTS), total, math.inf)


@dataclass(frozen=True)
class _Chosen:
    """The candidate of each point, N of them."""

    which: Tensor
    """The numbers of these points among all, (N,)."""
    places: Tensor
    """(N, D), nodes, as all that follow."""
    steps: Tensor
    shifts: Tensor
    """What is between two nodes."""
    variance: Tensor
    """(N,), of one axis, mm²."""

    def part(self, which: Tensor) -> _Chosen:
        """Some of them."""
        return replace(self, **{name: value[which] for name, value in vars(self).items()})


def _chosen(found: _Candidates, grid: Grid, *, alone: bool = False) -> _Chosen:
    """The candidate that a point and its neighbours believe in, or ``alone`` the point, of all points that have one."""
    which = torch.nonzero(torch.isfinite(found.costs[:, 0]))[:, 0]
    places, steps, costs, around = found.places[which], found.steps[which], found.costs[which], found.around[which]
    spacing = torch.tensor(grid.spacing).double()
    left = float(costs[:, 0].median()) if len(costs) else 1.0
    costs, around = costs / max(TEMPERATURE * left, 1e-6), around / max(TEMPERATURE * left, 1e-6)
    belief = costs if alone else _beliefs(places * spacing, steps * spacing, costs, max(grid.spacing))
    rows, best = torch.arange(len(which)), belief.argmin(1)
    chosen, around = steps[rows, best], around[rows, best]
    thick = max(1, sum(n > 1 for n in grid.shape))
    # how wide the choice is, among all candidates, around the chosen one, and within a node
    apart = ((steps - chosen[:, None]) * spacing).square().sum(2)
    wide = (apart * torch.softmax(-belief, 1)).sum(1)
    offsets = torch.tensor(list(itertools.product((-1, 0, 1), repeat=grid.dimension))).double()
    wide += (offsets * spacing).square().sum(1) @ torch.softmax(-around, 1).T + (spacing**2).sum() / 12
    return _Chosen(which, places, chosen, _shifts(around, grid.dimension), wide / thick)


def _shifts(around: Tensor, dimension: int) -> Tensor:
    """Where parabolas along the axes through costs (N, 3 an axis) are least, up to half a node away, (N, D)."""
    cube = around.reshape(-1, *[3] * dimension)
    found = []
    for axis in range(dimension):
        low, middle, high = cube.movedim(axis + 1, -1).flatten(1, -2)[:, 3 ** (dimension - 1) // 2].unbind(1)
        shift = (low - high) / (2 * (low + high - 2 * middle)).clamp(min=1e-12)
        found.append(torch.where(torch.isfinite(shift), shift, 0).clamp(-0.5, 0.5))
    return torch.stack(found, 1)


def _beliefs(places: Tensor, steps: Tensor, costs: Tensor, spacing: float) -> Tensor:
    """What speaks against each candidate (N, M), by its own cost and by the candidates of its neighbours.

    Of places (N, D) and steps (N, M, D) in mm. Messages of least sums go along the edges of a graph of nearest
    neighbours. As it has more edges than a tree, each counts by the share of them that a tree has.
    """
    total = len(places)
    count = min(NEIGHBOURS, total - 1)
    if count < 1:
        return costs
    apart = torch.cdist(places, places).fill_diagonal_(math.inf)
    nearest = apart.topk(count, largest=False).indices.flatten()
    own = torch.arange(total).repeat_interleave(count)
    edges = torch.unique(torch.cat([own * total + nearest, nearest * total + own]))
    there, here = edges // total, edges % total
    opposite = (here * total + there).argsort()  # edges are in the order of there, then here
    width = spacing + STRAIN * apart[there, here]
    squares = (steps[there][:, :, None] - steps[here][:, None]).square().sum(3) / width[:, None, None] ** 2
    differ = student(squares, steps.shape[2])[0] * (2 * (total - 1) / len(here))
    told = costs.new_zeros((len(here), costs.shape[1]))
    for _ in range(PASSES):
        belief = costs.index_add(0, here, told)
        told = ((belief[there] - told[opposite])[:, :, None] + differ).amin(1)
        told -= told.amin(1, keepdim=True)
    return costs.index_add(0, here, told)
