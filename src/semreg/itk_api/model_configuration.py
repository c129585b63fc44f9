"""From model configurations and lists of scripts to what the core compares: settings and loaded models.

Lists have one value for each kept layer over all models, in the order of the models and of their outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from semreg.config import ModelConfig
from semreg.errors import ConfigError
from semreg.features.extract import Extractor
from semreg.itk_api import checks
from semreg.itk_api.impact_model import (
    ImpactModelConfiguration,
    ModelConfiguration,
    configuration,
    configurations,
)
from semreg.matching import Model, Pairing

__all__ = [
    "Comparison",
    "ImpactModelConfiguration",
    "ModelConfiguration",
    "configuration",
    "configurations",
    "pairings",
]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How features are compared, in the words of the scripts; an empty list is the default for all."""

    dimension: int
    """Axes of the images."""
    distance: tuple[str, ...] = ()
    """One a kept layer over all models; default L2."""
    weight: tuple[float, ...] = ()
    """One a kept layer; default 1."""
    subset: tuple[int, ...] = ()
    """Channels that are drawn of each kept layer, 0 or more than there are: all."""
    pca: tuple[int, ...] = ()
    """Principal components, one number a model; 0: all channels as they are."""
    redraw: bool = False
    """Whether channels are drawn anew for each iteration."""
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
        entries = _entries(near, far, lists[number], options)
        found += [_pairing(entry, near, far, options.dimension, device) for entry in entries]
    return tuple(pairing.config for pairing in found), found


@dataclass(frozen=True)
class _Layers:
    """The entries of the lists for the kept layers of one model."""

    distance: tuple[str, ...]
    weight: tuple[float, ...]
    subset: tuple[int, ...]
    pca: int


def _split(options: Comparison, counts: Sequence[int]) -> list[_Layers]:
    """The lists by model, after their lengths were checked."""
    total = sum(counts)
    distance = _full(options.distance, "L2", total, "Distance", "kept layer")
    weight = _full(options.weight, 1.0, total, "LayersWeight", "kept layer")
    subset = _full(options.subset, 0, total, "SubsetFeatures", "kept layer")
    pca = _full(options.pca, 0, len(counts), "PCA", "model")
    starts = [sum(counts[:number]) for number in range(len(counts))]
    parts = [slice(start, start + count) for start, count in zip(starts, counts, strict=True)]
    return [
        _Layers(distance[part], weight[part], subset[part], components)
        for part, components in zip(parts, pca, strict=True)
    ]


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


def _entries(
    near: ImpactModelConfiguration, far: ImpactModelConfiguration, lists: _Layers, options: Comparison
) -> list[ModelConfig]:
    """One setting for each number of drawn channels among the layers that weigh something."""
    entry, other = near.entry(), far.entry()
    numbers = near.layers or tuple(range(len(lists.weight)))
    if lists.pca and any(0 < drawn < lists.pca for drawn in lists.subset) and not options.redraw:
        raise ConfigError(
            f"expected SubsetFeatures 0 where PCA keeps {lists.pca} components, got {list(lists.subset)}: lower PCA "
            "instead, its first components hold the most"
        )
    entries = []
    for drawn in dict.fromkeys(lists.subset):
        rows = [i for i, (n, w) in enumerate(zip(lists.subset, lists.weight, strict=True)) if n == drawn and w > 0]
        if not rows:
            continue
        everything = len(rows) == len(lists.weight)
        entries.append(
            replace(
                entry,
                moving=None if other.model == entry.model else other.model,
                layers=entry.layers if everything else tuple(numbers[i] for i in rows),
                distance=tuple(_core_distance(lists.distance[i]) for i in rows),
                weight=tuple(lists.weight[i] for i in rows),
                pca=lists.pca,
                subset=drawn,
                redraw=bool(options.redraw and drawn),
            )
        )
    return entries


def _core_distance(name: str) -> Any:
    return next(core for core, there in checks.DISTANCES.items() if there == name)


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
