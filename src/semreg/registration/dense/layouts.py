"""Layers of features as a descent reads them: at scattered places, level by level. Each is prepared once."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from semreg.core.fields import Layer
from semreg.core.kernels import read
from semreg.core.sampling import inside
from semreg.core.scattered import Table
from semreg.distances.samples import SMALL
from semreg.registration.dense.terms import Term, pooled


class Readable:
    """A layer laid out for reading at scattered places."""

    def __init__(self, layer: Layer) -> None:
        """Lay out the features, and where there are any, the weights."""
        self.shape = layer.grid.shape
        self.features = Table(layer.features.data)
        self._weight: Table | None = None
        if layer.weight is not None:
            share = layer.weight.data
            self._weight = Table(torch.cat([(share > 0).to(share.dtype), share]))

    def weight(self, index: Tensor) -> Tensor:
        """How much samples at ``index`` (D, P) count, (P,): inside the layer and its mask."""
        weight = inside(index, self.shape).to(index.dtype)
        if self._weight is None:
            return weight
        values = read(self._weight, index)
        # a sample between a known and an excluded feature would mix the two
        return weight * (values[:, 0] > 1 - SMALL) * values[:, 1]


class Layouts:
    """Layers pooled and laid out once for all descents that read them: the trials of a weight, and the last one."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._readable: dict[int, tuple[Layer, Readable]] = {}
        self._pooled: dict[tuple[int, float], tuple[Layer, Layer]] = {}

    def readable(self, layer: Layer) -> Readable:
        """The layer laid out."""
        if id(layer) not in self._readable:
            self._readable[id(layer)] = layer, Readable(layer)  # the layer itself is kept, so that its id stays its own
        return self._readable[id(layer)][1]

    def pooled(self, term: Term, spacing: float) -> Term:
        """``Term.pooled``; the trials differ in what they see of the fixed image, so only the moving layer is kept."""
        key = id(term.moving), spacing
        if key not in self._pooled:
            self._pooled[key] = term.moving, pooled(term.moving, spacing)
        return replace(term, fixed=pooled(term.fixed, spacing), moving=self._pooled[key][1])
