"""The discrete search at a resolution that is held in blocks: the finest level of ``dense.coarse``, over all nodes.

The costs of a node follow from the features around it, so blocks compute them and keep them in files. Of all other
nodes the coupled choice needs the smooth displacement alone, which is small and held in one place: each block chooses
by the costs of its nodes, and all choices are smoothed together. So it is one choice, whatever the size of the blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semreg.core.fields import Field
from semreg.core.geometry import Grid, index_map
from semreg.core.kernels import Costs, Extended, cost_volume
from semreg.core.sampling import sample, smooth, transform_index
from semreg.core.sums import total
from semreg.distances import DISTANCES
from semreg.distances.contract import Distance
from semreg.distances.correlation import RADIUS
from semreg.registration.blocks.boxes import Box, blocks_of
from semreg.registration.blocks.features import Maps, Name
from semreg.registration.blocks.store import Store
from semreg.registration.blocks.sums import rounded
from semreg.registration.blocks.windows import POWER
from semreg.registration.dense.coarse import COUPLING, FINEST_HALF_WIDTH, make_consistent, widths_of, window
from semreg.registration.dense.terms import ALIKE, Term, unrelated

START, FOUND = "start.npy", "found.npy"


@dataclass(frozen=True)
class Nodes:
    """The nodes of both images, in blocks, and how their features are compared."""

    maps: Maps
    factor: int
    """Feature samples from node to node along each axis."""
    smoothing: int
    """How many times costs are averaged over 3 nodes."""
    both_ways: bool
    """Whether the moving image searches in the fixed one too."""
    axes: tuple[str, ...] = ()
    """Along which windows extend; none: all."""

    @property
    def store(self) -> Store:
        """Where its files are."""
        return self.maps.store.inner("search")

    @property
    def distance(self) -> Distance:
        """Between features."""
        return DISTANCES[self.maps.compared.distance]

    @property
    def boxes(self) -> list[Box]:
        """The blocks of nodes."""
        return blocks_of(self.grid("fixed").shape, max(1, self.maps.block // self.factor))

    @property
    def widths(self) -> tuple[int, ...]:
        """Half widths of the windows per axis, in nodes."""
        return widths_of(FINEST_HALF_WIDTH, self.grid("fixed"), self.axes)

    def grid(self, name: Name) -> Grid:
        """Where the nodes of an image lie."""
        return self.maps.grid(name).pooled(self.factor)

    def pair(self, box: Box, widths: tuple[int, ...]) -> tuple[Extended, Extended]:
        """What a box of nodes sees of both images where the search starts, with so many nodes more on every side.

        As in ``dense.coarse`` the features and displacements of the outermost nodes hold beyond them.
        """
        own, there = self.grid("fixed"), self.grid("moving")
        spans = [np.arange(a - w, b + w) for a, b, w in zip(box.start, box.stop, widths, strict=True)]
        held = [np.clip(span, 0, n - 1) for span, n in zip(spans, own.shape, strict=True)]
        around = Box(tuple(int(each[0]) for each in held), tuple(int(each[-1]) + 1 for each in held))
        rows = [torch.from_numpy(each - first) for each, first in zip(held, around.start, strict=True)]
        features, weight = (_rows(x, rows) for x in self._layer("fixed", around))
        start = _rows(self.store.part(START, (slice(None), *around.slices)), rows)
        index = start + torch.from_numpy(np.stack(np.meshgrid(*spans, indexing="ij")))
        places = rounded(transform_index(index_map(own, there), index.double())).clamp_(min=0)
        for row, n in zip(places, there.shape, strict=True):
            row.clamp_(max=n - 1)
        region = Box.around(places, there.shape)
        if region is None:
            raise RuntimeError("expected places within the moving image, got none")
        for row, first in zip(places, region.start, strict=True):
            row.sub_(first)
        seen = [sample(x, places.float()) for x in self._layer("moving", region)]
        return Extended(features, weight, widths), Extended(seen[0], seen[1], widths)

    def _layer(self, name: Name, box: Box) -> tuple[Tensor, Tensor]:
        """The features of a box of nodes as they are compared, (K, *S), and how each counts, (1, *S)."""
        outer = box.grown(RADIUS if self.maps.compared.distance in POWER else 0, self.grid(name).shape)
        layer = self.maps.layer(name, outer.times(self.factor, self.maps.grid(name).shape)).pooled(self.factor)
        features, part = layer.features.data, (slice(None), *box.within(outer))
        weight = torch.ones_like(features[:1]) if layer.weight is None else layer.weight.data
        return self.distance.embed(features, weight)[part], weight[part]


@dataclass(frozen=True)
class MeanTask:
    """What the nodes of a block cost where the search starts: the mean of all stands for what nobody has seen."""

    nodes: Nodes
    box: Box
    name: str

    def run(self) -> None:
        """Compute and write it."""
        here, there = self.nodes.pair(self.box, (0,) * self.nodes.grid("fixed").dimension)
        cost = self.nodes.distance.cost(here.features, there.features, torch.empty_like(here.features))
        weight = torch.ones_like(cost)
        for side in (here, there):
            if side.weight is not None:
                weight *= side.weight[0]
        self.nodes.store.save(self.name, {"value": total(cost * weight), "weight": total(weight)})


@dataclass(frozen=True)
class CostTask:
    """The costs of all candidates of the nodes of a block, (ways, nodes, K)."""

    nodes: Nodes
    box: Box
    unseen: float
    scale: float
    """The distance of unrelated features."""
    name: str

    def run(self) -> None:
        """Compute and write them."""
        nodes, distance = self.nodes, self.nodes.distance
        how = Costs(
            compare=distance.cost, formula=distance.formula, smoothing=nodes.smoothing, factor=ALIKE / self.scale,
            unseen=self.unseen,
        )  # fmt: skip
        outer = self.box.grown(nodes.smoothing, nodes.grid("fixed").shape)
        here, there = nodes.pair(outer, nodes.widths)
        candidates, costs = window(nodes.widths), []
        for near, far in [(here, there), (there, here)][: 1 + nodes.both_ways]:
            cost = cost_volume(near.inner(), far, candidates, how).reshape(*outer.shape, -1)
            costs.append(cost[self.box.within(outer)].flatten(0, -2))
        nodes.store.save_one(self.name, torch.stack(costs))


@dataclass(frozen=True)
class ChoiceTask:
    """The best candidate of each node of a block near a smooth displacement that is in a file, (ways, D, *S)."""

    nodes: Nodes
    box: Box
    costs: str
    soft: str
    weight: float
    name: str

    def run(self) -> None:
        """Choose, as ``Kernels.coupled_choice`` does, and write what was chosen."""
        store, candidates = self.nodes.store, window(self.nodes.widths)
        soft = store.part(self.soft, (slice(None), slice(None), *self.box.slices))
        offsets, chosen = candidates.to(soft), []
        for way, near in enumerate(soft):
            cost = torch.addmm(
                store.part(self.costs, (slice(way, way + 1),))[0], near.flatten(1).T, offsets.T, alpha=-2 * self.weight
            )
            best = cost.add_(offsets.square().sum(1), alpha=self.weight).argmin(1)
            chosen.append(candidates[best].T.reshape(near.shape))
        store.save_one(self.name, torch.stack(chosen).to(torch.int8))


def searched(nodes: Nodes, start: Field, run: Callable[[Sequence[Any]], None]) -> Field:
    """The displacement on the nodes of the fixed image that matches the features best in a window around ``start``.

    Args:
        nodes: what is compared; their files are found by a search that goes on.
        start: where the search starts, on any grid along the same axes.
        run: has all of some tasks done.

    Returns:
        The displacement, in voxels of the nodes' grid.
    """
    store, grid = nodes.store, nodes.grid("fixed")
    start, boxes = start.on(grid), list(enumerate(nodes.boxes))
    if not store.has(FOUND):
        store.save_one(START, start.vox)
        means = [MeanTask(nodes, box, f"mean/{number}.npz") for number, box in boxes]
        _done(means, store, run)
        value, weight = (math.fsum(float(store.load(task.name)[key]) for task in means) for key in ("value", "weight"))
        sparse = nodes.maps.sparse("fixed")
        scale, unseen = unrelated(Term(sparse, sparse, nodes.maps.compared.distance)), value / max(weight, 1e-30)
        costs = [CostTask(nodes, box, unseen, scale, f"costs/{number}.npy") for number, box in boxes]
        _done(costs, store, run)
        soft = torch.zeros((1 + nodes.both_ways, grid.dimension, *grid.shape))
        for step, coupling in enumerate(COUPLING):
            name = f"soft-{step}.npy"
            store.save_one(name, soft)
            choices = [
                ChoiceTask(nodes, task.box, task.name, name, coupling, f"chosen-{step}/{number}.npy")
                for number, task in enumerate(costs)
            ]
            _done(choices, store, run)
            for choice in choices:
                soft[(slice(None), slice(None), *choice.box.slices)] = store.part(choice.name, ()).to(soft)
            soft = torch.stack([smooth(each) for each in soft])
        update = make_consistent(soft[0], soft[1]) if nodes.both_ways else soft[0]
        store.save_one(FOUND, Field(update, grid).then(start).vox)
    store.remove("costs")
    return Field(store.part(FOUND, ()), grid)


def _rows(x: Tensor, rows: Sequence[Tensor]) -> Tensor:
    """Some samples along each axis of (C, *S), some of them several times."""
    for axis, each in enumerate(rows, start=1):
        x = x.index_select(axis, each)
    return x


def _done(tasks: Sequence[Any], store: Store, run: Callable[[Sequence[Any]], None]) -> None:
    """Have done what is missing."""
    run([task for task in tasks if not store.has(task.name)])
