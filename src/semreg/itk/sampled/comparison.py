"""Distances of all terms at points, and their derivative, part by part. Knows neither images nor models.

A distance that is a mean over points needs one pass over them. One that sees all points at once needs two: the features
without a derivative, then, with the derivative in each feature known, the way back to the points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from semreg.itk.sampled.distances import additive, is_additive, joint
from semreg.registration.dense.terms import Term


class Reading(Protocol):
    """The moving features of all terms at some points."""

    def value(self, term: int) -> Tensor:
        """Features of one term, (P, C)."""

    def pull(self, gradients: Sequence[Tensor]) -> Tensor:
        """The derivative in the points (D, P), mm, of what has these gradients (P, C) in the features of each term."""


class Source(Protocol):
    """Where features at points come from."""

    @property
    def terms(self) -> tuple[Term, ...]:
        """What is compared; only distance, share and scale are asked for here."""

    @property
    def chunk(self) -> int:
        """Points handled at once."""

    def place(self, points: Tensor) -> list[Tensor]:
        """The fixed features at ``points`` (D, N), mm: (N, C) of each term."""

    def read(self, points: Tensor, *, graph: bool) -> Reading:
        """The moving features at ``points`` (D, P), mm; ``pull`` is asked for only with a ``graph``."""


@dataclass(frozen=True)
class Batch:
    """The points of one evaluation: ``fixed`` features (M, C) of each term and ``moving`` points (D, M), mm, float64.

    ``cell`` (M,): the cells of the points, where a term needs them.
    """

    fixed: list[Tensor]
    moving: Tensor
    cell: Tensor | None

    @property
    def count(self) -> int:
        """Number of points."""
        return self.moving.shape[1]


def losses(source: Source, batch: Batch) -> list[float]:
    """The distance of each term."""
    result = [0.0] * len(source.terms)
    values = _joint_values(source, batch)
    for part in _parts(batch.count, source.chunk):
        reading = source.read(batch.moving[:, part], graph=False)
        for number, term in enumerate(source.terms):
            if number in values:
                values[number][part] = reading.value(number)
            else:
                near = batch.fixed[number][part]
                result[number] += additive(term.distance, near, reading.value(number), batch.count)[0]
    for number, features in values.items():
        result[number] = float(_joint(source, batch, number, features))
    return result


def derivative(source: Source, batch: Batch, factors: Sequence[float]) -> tuple[list[float], Tensor]:
    """The distance of each term, and the derivative (D, M), mm, of their sum weighted by ``factors``."""
    result = [0.0] * len(source.terms)
    known = _joint_slopes(source, batch, result)
    total = torch.empty_like(batch.moving)
    for part in _parts(batch.count, source.chunk):
        reading = source.read(batch.moving[:, part], graph=True)
        gradients = []
        for number, (term, factor) in enumerate(zip(source.terms, factors, strict=True)):
            if number in known:
                gradient = known[number][part]
            else:
                near, far = batch.fixed[number][part], reading.value(number)
                value, gradient = additive(term.distance, near, far, batch.count)
                result[number] += value
            gradients.append(gradient * factor)
        total[:, part] = reading.pull(gradients)
    return result, total


def _joint_slopes(source: Source, batch: Batch, sums: list[float]) -> dict[int, Tensor]:
    """The derivative in the features (M, C) of each term that sees all points at once; its value goes to ``sums``."""
    values = _joint_values(source, batch)
    if values:
        for part in _parts(batch.count, source.chunk):
            reading = source.read(batch.moving[:, part], graph=False)
            for number, features in values.items():
                features[part] = reading.value(number)
    for number in values:
        with torch.enable_grad():
            features = values[number].requires_grad_()
            value = _joint(source, batch, number, features)
            (values[number],) = torch.autograd.grad(value, features)
        sums[number] = float(value.detach())
    return values


def _joint_values(source: Source, batch: Batch) -> dict[int, Tensor]:
    """Room for the features (M, C) of the terms that see all points at once, by their numbers."""
    numbers = [number for number, term in enumerate(source.terms) if not is_additive(term.distance)]
    return {number: torch.empty_like(batch.fixed[number]) for number in numbers}


def _joint(source: Source, batch: Batch, number: int, features: Tensor) -> Tensor:
    return joint(source.terms[number].distance, batch.fixed[number], features, batch.cell)


def _parts(count: int, size: int) -> Iterator[slice]:
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))
