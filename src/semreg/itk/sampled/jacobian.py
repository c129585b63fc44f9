"""Features from models that run on patches around the points: the mode ``jacobian``. Knows no transform.

The models are differentiated, so the derivative is that of the features themselves and not of an interpolation of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from semreg.config import RegistrationConfig
from semreg.core.fields import Layer, Volume
from semreg.core.geometry import Grid
from semreg.features.extract import Extractor
from semreg.itk.sampled.patches import PatchReading, View, views_of
from semreg.registration.dense.terms import Term, terms_of
from semreg.registration.matching import Compared, Images, Pairing, check_channels, compare

STACKED = 256
"""Patches that formulas are given at once: they are small and a formula's steps are many."""
CACHED = 1 << 13
"""Voxels of the patches that a processor is given at once: more of them would leave its cache."""


class PatchFeatures:
    """The models of all pairings on patches of both images."""

    def __init__(self, images: Images, pairings: Sequence[Pairing], batch_size: int) -> None:
        """``images``: both images, the frame that says along which axes models look, and the seed."""
        self._config: RegistrationConfig = images.config
        self._pairings = pairings
        self.device = images.device
        self._fixed = [views_of(p.fixed, images.fixed, images.frame.fixed, self.device) for p in pairings]
        self._moving = [views_of(p.moving, images.moving, images.frame.moving, self.device) for p in pairings]
        self.chunk = self._chunk(batch_size)
        self._compared: list[Compared] = []
        self.terms: tuple[Term, ...] = ()

    def _chunk(self, batch_size: int) -> int:
        """How many patches are handled at once: for networks no more than asked for."""
        networks = any(isinstance(model, Extractor) for p in self._pairings for model in (p.fixed, p.moving))
        if not networks:
            return max(batch_size, STACKED)
        largest = max(math.prod(view.shape) for views in (*self._fixed, *self._moving) for view in views)
        return batch_size if self.device.type != "cpu" else max(1, min(batch_size, CACHED // largest))

    def place(self, points: Tensor) -> list[Tensor]:
        """The fixed features at ``points`` (D, N), mm: (N, C) of each term; reductions are fitted on them."""
        generator = torch.Generator().manual_seed(self._config.seed)
        self._compared, terms = [], []
        for pairing, near, far in zip(self._pairings, self._fixed, self._moving, strict=True):
            fixed = self._all(near, points)
            moving = PatchReading(far, points[:, :1], graph=False).layers
            check_channels(pairing, *[[y.shape[1] for y in layers] for layers in (fixed, moving)])
            compared = compare(pairing, [_as_layer(y) for y in fixed], generator)
            terms += compared.terms(compared.fixed, self._config)
            self._compared.append(compared)
        self.terms = terms_of(terms)
        return [_as_rows(term.fixed) for term in self.terms]

    def read(self, points: Tensor, *, graph: bool = True) -> PatchesReading:
        """The moving features at ``points`` (D, P), mm."""
        return PatchesReading(self._moving, self._compared, points, graph=graph)

    def _all(self, views: Sequence[View], points: Tensor) -> list[Tensor]:
        parts = [
            [y.clone() for y in PatchReading(views, part, graph=False).layers]  # not a view of the whole patches
            for part in torch.split(points, self.chunk, 1)
        ]
        return [torch.cat(same) for same in zip(*parts, strict=True)]


class PatchesReading:
    """The moving features of all terms at some points."""

    def __init__(
        self, views: Sequence[Sequence[View]], compared: Sequence[Compared], points: Tensor, *, graph: bool
    ) -> None:
        """``points`` (D, P), mm, float64; with a ``graph``, ``pull`` can be asked for."""
        self._readings = [PatchReading(same, points, graph=graph) for same in views]
        self._values: list[list[Tensor]] = []
        with torch.set_grad_enabled(graph):
            for reading, entry in zip(self._readings, compared, strict=True):
                reduced = entry.reduced([_as_layer(y) for y in reading.layers])
                self._values.append([_as_rows(reduced[number]) for number in entry.counted])

    def value(self, term: int) -> Tensor:
        """Features of one term, (P, C)."""
        return [value for values in self._values for value in values][term].detach()

    def pull(self, gradients: Sequence[Tensor]) -> Tensor:
        """The derivative in the points (D, P), mm, of what has these gradients (P, C) in the features of each term."""
        rest = list(gradients)
        parts = []
        for reading, values in zip(self._readings, self._values, strict=True):
            own, rest = rest[: len(values)], rest[len(values) :]
            if values:
                parts.append(reading.pull(values, own))
        return torch.stack(parts).sum(0)


def _as_layer(rows: Tensor) -> Layer:
    """Features of points (P, C) in the form that reductions take."""
    return Layer(Volume(rows.T[:, None], Grid.of_shape((1, len(rows)))))


def _as_rows(layer: Layer) -> Tensor:
    return layer.features.data.flatten(1).T
