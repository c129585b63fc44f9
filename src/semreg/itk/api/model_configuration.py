"""From model configurations and lists of scripts to what the core compares: settings and loaded models.

Lists have one value for each kept layer over all models, in the order of the models and of their outputs. Those of
itk-impact 0.1.0 and 0.1.1 are taken too where their lengths tell: one value a model, and lists of channel numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from semreg.config import ModelConfig
from semreg.errors import ConfigError
from semreg.features.extract import Extractor
from semreg.itk.api import checks
from semreg.itk.api.impact_model import (
    ImpactModelConfiguration,
    ModelConfiguration,
    configuration,
    configurations,
)
from semreg.registration.matching import Model, Pairing

__all__ = [
    "Comparison",
    "ConfigurationVector",
    "ImpactModelConfiguration",
    "ModelConfiguration",
    "configuration",
    "configurations",
    "pairings",
]

T = TypeVar("T")

logger = logging.getLogger("semreg")


class ConfigurationVector(list[ImpactModelConfiguration]):
    """``itk.vector[itk.ImpactModelConfiguration]``: a list with the words of C++ too."""

    def push_back(self, value: ImpactModelConfiguration) -> None:
        """One more at the end."""
        self.append(value)

    def pop_back(self) -> None:
        """Without the last one."""
        del self[-1]

    def front(self) -> ImpactModelConfiguration:
        """The first one."""
        return self[0]

    def back(self) -> ImpactModelConfiguration:
        """The last one."""
        return self[-1]

    def size(self) -> int:
        """How many there are."""
        return len(self)

    def empty(self) -> bool:
        """Whether there are none."""
        return not self


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How features are compared, in the words of the scripts; an empty list is the default for all."""

    dimension: int
    """Axes of the images."""
    distance: tuple[str, ...] = ()
    """One a kept layer over all models, or one a model; default L2."""
    weight: tuple[float, ...] = ()
    """Likewise; default 1."""
    subset: tuple[int, ...] = ()
    """Channels that are drawn of each kept layer, 0 or more than there are: all."""
    channels: bool = False
    """Whether ``subset``, where it is longer, may be the numbers of the channels that all layers keep."""
    pca: tuple[int, ...] = ()
    """Principal components, one number a model; 0: all channels as they are."""
    redraw: bool = False
    """Whether channels are drawn again for each iteration."""
    jacobian: bool = False
    """Whether the models are differentiated, which formulas are not."""
    points: bool = False
    """Whether they run on patches around points and not on images."""


def pairings(
    fixed: Sequence[ImpactModelConfiguration],
    moving: Sequence[ImpactModelConfiguration],
    options: Comparison,
    device: torch.device,
) -> tuple[tuple[ModelConfig, ...], list[Pairing]]:
    """The core's settings and loaded models for lists of configurations, the n-th of one with the n-th of the other.

    A model whose layers have different numbers of drawn channels is there once for each number; one whose layers all
    weigh 0 is left out. Raises ConfigError for lists of another length than there are layers or models, and what
    loading a model raises.
    """
    if len(fixed) != len(moving) or not fixed:
        raise ConfigError(
            f"expected as many model configurations for the moving image as for the fixed one, at least one, got "
            f"{len(fixed)} for the fixed and {len(moving)} for the moving image"
        )
    if not options.points:
        fixed, moving = ([one.for_images() for one in configurations] for configurations in (fixed, moving))
    pairs = [
        (near, far, near.model(options.dimension, device), far.model(options.dimension, device))
        for near, far in zip(fixed, moving, strict=True)
    ]
    counts = [_kept(near, model) for near, _, model, _ in pairs]
    lists = _split(options, counts)
    found: list[Pairing] = []
    for number, (near, far, _, _) in enumerate(pairs):
        _check_pair(near, far, options)
        listed = entries(near, far, lists[number], options)
        found += [_pairing(entry, near, far, options.dimension, device) for entry in listed]
    return tuple(pairing.config for pairing in found), found


@dataclass(frozen=True)
class Layers:
    """The entries of the lists for the kept layers of one model."""

    distance: tuple[str, ...]
    weight: tuple[float, ...]
    subset: tuple[int, ...]
    channels: tuple[int, ...]
    pca: int


def _split(options: Comparison, counts: Sequence[int]) -> list[Layers]:
    """The lists by model, after their lengths were checked."""
    channels = _channels(options, counts)
    distance = _by_layer(options.distance, "L2", counts, "Distance")
    weight = _by_layer(options.weight, 1.0, counts, "LayersWeight")
    subset = _by_layer(() if channels else options.subset, 0, counts, "SubsetFeatures")
    pca = _full(options.pca, 0, len(counts), "PCA", "model")
    starts = [sum(counts[:number]) for number in range(len(counts))]
    parts = [slice(start, start + count) for start, count in zip(starts, counts, strict=True)]
    return [
        Layers(distance[part], weight[part], subset[part], channels, components)
        for part, components in zip(parts, pca, strict=True)
    ]


def _channels(options: Comparison, counts: Sequence[int]) -> tuple[int, ...]:
    """``subset`` where it lists channel numbers, else empty: it is longer than a list of counts can be."""
    total = sum(counts)
    longer = len(options.subset) > total and len(set(options.subset)) == len(options.subset)
    if not options.channels or not longer:
        return ()
    logger.warning(
        "SubsetFeatures %s is taken as the numbers of the channels that each layer keeps, as by itk-impact up to "
        "0.1.1: since then it has one number of channels for each of the %d kept layers",
        list(options.subset),
        total,
    )
    return options.subset


def _by_layer(values: tuple[T, ...], default: T, counts: Sequence[int], name: str) -> tuple[T, ...]:
    """One value a kept layer; those that came one a model stand for all layers of it."""
    if values and len(values) == len(counts) != sum(counts):
        return tuple(value for value, count in zip(values, counts, strict=True) for _ in range(count))
    return _full(values, default, sum(counts), name, "kept layer")


def _full(values: tuple[T, ...], default: T, count: int, name: str, what: str) -> tuple[T, ...]:
    if values and len(values) != count:
        raise ConfigError(
            f"expected {name} with one value a {what}, {count} over all models, got {len(values)}: give {count}, or an "
            "empty list for the default"
        )
    return values or (default,) * count


def _kept(near: ImpactModelConfiguration, model: Model) -> int:
    """How many layers of a model are compared."""
    if near.layers is not None:
        return len(near.layers)
    return len(model.traits.outputs) if isinstance(model, Extractor) else 1


def _check_pair(near: ImpactModelConfiguration, far: ImpactModelConfiguration, options: Comparison) -> None:
    a, b = near.entry(), far.entry()
    if a.normalise != b.normalise:
        raise ConfigError(
            f"expected the same FeatureNormalization for both images, got {a.normalise} and {b.normalise}"
        )
    if options.jacobian and (near.built_in or far.built_in):
        raise ConfigError(
            f"expected networks alone in the mode Jacobian, got {a.model} and {b.model}: SetMode('Static')"
        )


def entries(
    near: ImpactModelConfiguration, far: ImpactModelConfiguration, lists: Layers, options: Comparison
) -> list[ModelConfig]:
    """One setting for each number of drawn channels among the layers that weigh something."""
    entry, other = near.entry(), far.entry()
    numbers = near.layers or tuple(range(len(lists.weight)))
    if lists.pca and any(0 < drawn < lists.pca for drawn in lists.subset) and not options.redraw:
        raise ConfigError(
            f"expected SubsetFeatures 0 where PCA keeps {lists.pca} components, got {list(lists.subset)}: lower PCA "
            "instead, its first components hold the most"
        )
    found = []
    for drawn in dict.fromkeys(lists.subset):
        rows = [i for i, (n, w) in enumerate(zip(lists.subset, lists.weight, strict=True)) if n == drawn and w > 0]
        if not rows:
            continue
        everything = len(rows) == len(lists.weight)
        found.append(
            replace(
                entry,
                moving=None if other.model == entry.model else other.model,
                layers=entry.layers if everything else tuple(numbers[i] for i in rows),
                distance=tuple(_core_distance(lists.distance[i]) for i in rows),
                weight=tuple(lists.weight[i] for i in rows),
                channels=lists.channels,
                pca=lists.pca,
                subset=drawn,
                redraw=bool(options.redraw and drawn),
            )
        )
    return found


def _core_distance(name: str) -> Any:
    return next(core for core, there in checks.distances().items() if there == name)


def _pairing(
    entry: ModelConfig,
    near: ImpactModelConfiguration,
    far: ImpactModelConfiguration,
    dimension: int,
    device: torch.device,
) -> Pairing:
    """The models of one setting; the same object for both images where they are seen in the same way."""
    fixed = _with_layers(near, entry).model(dimension, device)
    same = near.entry() == far.entry()
    return Pairing(entry, fixed, fixed if same else _with_layers(far, entry).model(dimension, device))


def _with_layers(which: ImpactModelConfiguration, entry: ModelConfig) -> ImpactModelConfiguration:
    """The configuration with the layers of ``entry`` alone."""
    if which.built_in or entry.layers is None or entry.layers == which.layers:
        return which
    return which.keeping(entry.layers)
