"""What a registration compares: from two images and the models of the settings to terms of the objective.

Each model sees each image at its own voxel size and in its own axes; what it returns lies in the working frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from semreg.config import ModelConfig, RegistrationConfig
from semreg.core.fields import Field, Layer, Volume
from semreg.core.geometry import Grid, index_map, reorder
from semreg.core.sampling import inside, sample, transform_index
from semreg.errors import ConfigError
from semreg.features.contract import Descriptor, ModelSpec, Network
from semreg.features.descriptors import DESCRIPTORS
from semreg.features.extract import Extractor, describe
from semreg.features.inputs import frame_of
from semreg.features.models import Choice, is_descriptor, resolve_model
from semreg.features.reduce import fit_pca, fit_standard, select, subset, unit
from semreg.preprocess.image_pair import Cleaned
from semreg.preprocess.preparation import Frame, Prepared, blurred, interpolation_blur, to_frame
from semreg.registration.dense.terms import Term, pooled, terms_of
from semreg.runtime.events import OnStep

T = TypeVar("T")
Model: TypeAlias = Descriptor | Extractor
Reduction: TypeAlias = Callable[[Layer], Layer]
"""From the features of a model to those that are compared."""


@dataclass(frozen=True)
class Given:
    """Models that a caller hands over, instead of those the settings name, and where fetched ones lie."""

    models: tuple[Any, ...] = ()
    folders: tuple[Any, ...] = ()
    on_step: OnStep | None = None


@dataclass(frozen=True)
class Pairing:
    """One entry of ``models``: the model for each image, and how its features count."""

    config: ModelConfig
    fixed: Model
    moving: Model

    @property
    def name(self) -> str:
        """The names of the models."""
        same = self.fixed is self.moving
        return self.fixed.spec.name if same else f"{self.fixed.spec.name} and {self.moving.spec.name}"


def resolve_models(
    config: RegistrationConfig, dimension: int, device: torch.device, given: Given | None = None
) -> list[Pairing]:
    """The models of the settings, loaded; those of ``given`` stand for what is named there, in their order."""
    given = given or Given()
    entries = config.models * len(given.models) if len(config.models) == 1 and given.models else config.models
    if given.models and len(entries) != len(given.models):
        raise ConfigError(f"expected one model for each of {len(entries)} entries of models, got {len(given.models)}")

    def load(model: Any, entry: ModelConfig) -> Model:
        choice = Choice(
            spec=entry.spec,
            layers=entry.layers,
            folders=given.folders,
            dimension=dimension,
        )
        found = resolve_model(model, choice, device)
        if is_descriptor(found):
            return found
        return Extractor(cast("Network", found), device=device, on_step=given.on_step)

    pairings = []
    for number, entry in enumerate(entries):
        fixed = load(given.models[number] if given.models else entry.model, entry)
        pairings.append(Pairing(entry, fixed, fixed if entry.moving is None else load(entry.moving, entry)))
    if config.refine.mode == "jacobian" and any(p.config.redraw for p in pairings):
        raise ConfigError("expected models.redraw=false in the mode jacobian, which compares all channels, got true")
    if config.refine.mode == "jacobian" and not all(isinstance(p.moving, Extractor) for p in pairings):
        raise ConfigError("expected networks alone in the mode jacobian, got mind or intensity: use refine.mode=static")
    return pairings


def beside(config: RegistrationConfig, dimension: int) -> list[Pairing]:
    """The intensities that are compared beside the models, by local correlation; none where that has no weight."""
    weight = config.refine.local_correlation
    if not weight:
        return []
    entry = ModelConfig(model="intensity", distance=("lncc_squared",), weight=(weight,))
    found = DESCRIPTORS[entry.model].of(entry.model, dimension, ())
    return [Pairing(entry, found, found)]


def of_ensemble(config: RegistrationConfig, dimension: int, device: torch.device, given: Given) -> tuple[Pairing, ...]:
    """The models of the further members of an ensemble, loaded, one each."""
    if not config.ensemble.models:
        return ()
    return tuple(resolve_models(replace(config, models=config.ensemble.entries), dimension, device, given))


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """One model: which ``image`` it saw (``fixed``, ``moving`` or ``both``), and, of a network, what is known of it."""

    image: str
    name: str
    sha256: str | None = None
    layers: tuple[int, ...] | None = None
    """Outputs that were kept."""
    spec: ModelSpec | None = None


def describe_models(pairings: Sequence[Pairing]) -> tuple[ModelReport, ...]:
    """What the record says of the models."""
    described = []
    for pairing in pairings:
        for image in ("both",) if pairing.fixed is pairing.moving else ("fixed", "moving"):
            model = pairing.moving if image == "moving" else pairing.fixed
            facts = {}
            if isinstance(model, Extractor):
                facts = {name: getattr(model.network, name, None) for name in ("sha256", "layers")}
                facts |= {"spec": model.spec}
            described.append(ModelReport(image=image, name=model.spec.name, **facts))
    return tuple(described)


@dataclass
class Compared:
    """The layers of one pairing: what the fixed image shows, and how features become comparable."""

    pairing: Pairing
    fixed: list[Layer]
    reductions: list[Reduction]

    @property
    def counted(self) -> list[int]:
        """The layers that ``terms`` has one for: those of a weight above 0."""
        weights = _each(self.pairing.config.weight, len(self.fixed), "weight", self.pairing)
        return [number for number, weight in enumerate(weights) if weight > 0]

    def reduced(self, layers: Sequence[Layer]) -> list[Layer]:
        """The features of either image as they are compared."""
        return [reduce(layer).by_samples() for layer, reduce in zip(layers, self.reductions, strict=True)]

    def terms(self, moving: Sequence[Layer], config: RegistrationConfig) -> list[Term]:
        """One term a layer, with these moving features."""
        entry, count = self.pairing.config, len(self.fixed)
        distances = _each(entry.distance or (config.refine.distance,), count, "distance", self.pairing)
        weights = _each(entry.weight, count, "weight", self.pairing)
        drawn = entry.subset if entry.redraw else 0
        return [
            Term(*layers, subset=drawn)
            for layers in zip(self.fixed, moving, distances, weights, strict=True)
            if layers[-1] > 0
        ]


def compare(pairing: Pairing, fixed: Sequence[Layer], generator: torch.Generator) -> Compared:
    """The layers of the fixed image and what makes features comparable, which is fitted on them or drawn."""
    reductions = [_reduction(pairing.config, layer, generator) for layer in fixed]
    compared = Compared(pairing, [], reductions)
    compared.fixed = compared.reduced(fixed)
    return compared


@dataclass
class Images:
    """Both images in their working frame, and what models say of them; it runs the models again for the refinement."""

    fixed: Cleaned
    moving: Cleaned
    """Images and weights, in canonical axes."""
    frame: Frame
    start: Field | None
    """The initial transform on the moving working grid."""
    config: RegistrationConfig
    device: torch.device
    _compared: list[Compared] = field(default_factory=list)

    @property
    def compared(self) -> Sequence[Compared]:
        """What ``terms`` compared, model by model."""
        return self._compared

    @property
    def grid(self) -> Grid:
        """Where the warped image is shown to the models: the fixed image's working grid."""
        return self.frame.fixed

    @cached_property
    def _prepared(self) -> Prepared:
        return to_frame(*self.moving, self.frame.moving, self.start)

    @cached_property
    def _blur(self) -> tuple[float, ...]:
        """What the fixed image lacks of the blur that interpolation gives the moving one: both are to be alike."""
        return interpolation_blur(self.frame, self.moving[0].grid, self.start)

    def described(self, name: str, pooling: int = 1, spacing_mm: float = 0.0) -> tuple[Layer, Layer]:
        """What a descriptor says of both images on their working grids, means of blocks of ``pooling`` voxels.

        Then pooled to ``spacing_mm`` (see ``pooled``), each before the other is made: they may be large.
        """
        model = DESCRIPTORS[name].of(name, self.frame.fixed.dimension, ())
        near = pooled(self._seen(model, self.fixed, self.frame.fixed, None, pooling=pooling)[0], spacing_mm)
        far = pooled(self._seen(model, self.moving, self.frame.moving, self.start, pooling=pooling)[0], spacing_mm)
        return near, far

    def intensities(self, spacing_mm: float = 0.0) -> Term:
        """Both images on their working grids, pooled to ``spacing_mm``, compared by squared local correlation."""
        return Term(*self.described("intensity", spacing_mm=spacing_mm), "lncc_squared")

    @property
    def image(self) -> Volume:
        """The moving image (1, *S) on its working grid."""
        return self._prepared.volume

    def terms(self, pairings: Sequence[Pairing], given: Sequence[Term] = ()) -> tuple[Term, ...]:
        """One term for each layer of each model, with features of both images, and those that are given."""
        generator = torch.Generator().manual_seed(self.config.seed)
        self._compared, terms = [], []
        for pairing in pairings:
            near = self._seen(pairing.fixed, self.fixed, self.frame.fixed, None)
            reference = self._counted_fixed if pairing.config.statistics == "fixed" else None
            far = self._seen(pairing.moving, self.moving, self.frame.moving, self.start, reference)
            check_channels(pairing, *[[len(layer.features.data) for layer in layers] for layers in (near, far)])
            compared = compare(pairing, near, generator)
            self._compared.append(compared)
            terms += compared.terms(compared.reduced(far), self.config)
        return terms_of([*terms, *given])

    def renewed(self, displacement: Field, spacing_mm: float) -> tuple[Term, ...]:
        """The terms with the moving features of the image warped by ``displacement``, about ``spacing_mm`` apart.

        Beyond the moving image its border continues: any other value there would be an edge that the models see.
        """
        on_grid = displacement.on(self.grid)
        image, share = self._prepared.volume, self._prepared.weight
        index = transform_index(index_map(self.grid, image.grid), on_grid.index())
        shown = Volume(inside(index, image.grid.shape)[None].to(image.data.dtype).cpu(), self.grid)
        prepared = Prepared(Volume(sample(image.data.to(index.device), index).cpu(), self.grid), None)
        if share is not None:  # excluded voxels take no part
            total = sample(share.data.to(index.device), index)
            read = sample((image.data * share.data).to(index.device), index) / total.clamp(min=1e-6)
            values = torch.where(total > 0, read, image.data.min().to(index.device))
            prepared = Prepared(Volume(values.cpu(), self.grid), Volume(total.clamp(0, 1).cpu(), self.grid))
        terms = []
        for compared in self._compared:
            layers = self._layers(compared.pairing.moving, prepared, self._reference(compared.pairing))
            terms += compared.terms(compared.reduced([_where(layer, shown) for layer in layers]), self.config)
        return tuple(term.pooled(spacing_mm) for term in terms_of(terms))

    @cached_property
    def _counted(self) -> Tensor:
        """The intensities of the moving image that count: their statistics are those of the image, however it moves."""
        return _that_count(self._prepared)

    @cached_property
    def _counted_fixed(self) -> Tensor:
        """Those of the fixed image."""
        return _that_count(to_frame(*self.fixed, self.frame.fixed))

    def _reference(self, pairing: Pairing) -> Tensor:
        """The intensities whose statistics normalise the moving image of a pairing, however it is warped."""
        return self._counted_fixed if pairing.config.statistics == "fixed" else self._counted

    @property
    def image_weight(self) -> Volume | None:
        """How much each voxel of ``image`` counts, (1, *S); None: all do."""
        return self._prepared.weight

    def features(self, warped: Tensor) -> list[Tensor]:
        """Features (C, *S) of the warped image (1, *S) on ``grid``, one for each term; differentiable in ``warped``."""
        result = []
        for compared in self._compared:
            prepared = Prepared(Volume(warped.cpu(), self.grid), None)
            layers = self._layers(compared.pairing.moving, prepared, self._reference(compared.pairing))
            moving = compared.reduced(layers)
            result += [term.moving.features.data for term in compared.terms(moving, self.config)]
        return result

    def _seen(
        self,
        model: Model,
        image: Cleaned,
        grid: Grid,
        start: Field | None,
        reference: Tensor | None = None,
        pooling: int | None = None,
    ) -> tuple[Layer, ...]:
        """Features of an image over the working grid, read at the voxel size that the model was trained at.

        They are averaged over ``pooling`` voxels, None: as the settings say.
        """
        if isinstance(model, Extractor):
            view = frame_of(grid, model.spec)
            grid = reorder(view.grid, view.axes.inverse)
        prepared = to_frame(*image, grid, None if start is None else start.on(grid))
        if image is self.fixed and grid == self.frame.fixed:
            prepared = blurred(prepared, self._blur)
        return self._layers(model, prepared, reference, pooling)

    def _layers(
        self, model: Model, prepared: Prepared, reference: Tensor | None = None, pooling: int | None = None
    ) -> tuple[Layer, ...]:
        pooling = pooling or self.config.features.pooling or 1
        if not isinstance(model, Extractor):
            return (
                describe(
                    prepared.volume, model, pooling=pooling, weight=prepared.weight, device=self.device,
                    reference=reference,
                ),
            )  # fmt: skip
        pooled_mm = pooling * min(self.frame.fixed.spacing)
        layers = model.layers(prepared.volume, prepared.weight, pooled_mm=pooled_mm, reference=reference)
        return tuple(_on_device(layer, self.device) for layer in layers)


def _reduction(config: ModelConfig, layer: Layer, generator: torch.Generator) -> Reduction:
    """How the features of a layer become comparable; what is fitted is fitted on the fixed image's."""
    steps: list[Reduction] = []
    if config.channels:
        chosen = _channels(config, len(layer.features.data))
        steps.append(partial(select, indices=chosen))
        layer = select(layer, chosen)
    fewer: Reduction | None = None
    if config.pca:
        fewer = fit_pca(layer, config.pca).apply
    elif config.subset and not config.redraw:
        drawn = subset(len(layer.features.data), config.subset, generator)
        fewer = partial(select, indices=drawn)
    if fewer is not None:
        steps.append(fewer)
    if config.normalise == "standard":
        steps.append(fit_standard(layer if fewer is None else fewer(layer)).apply)
    elif config.normalise == "unit":
        steps.append(unit)

    def reduce(other: Layer) -> Layer:
        for step in steps:
            other = step(other)
        return other

    return reduce


def _that_count(prepared: Prepared) -> Tensor:
    """The intensities of the voxels that count."""
    data, weight = prepared.volume.data, prepared.weight
    return data if weight is None else data[weight.data > 0]


def _where(layer: Layer, shown: Volume) -> Layer:
    """The layer with each sample counting as far as ``shown`` (1, *S) says."""
    weight = shown.averaged_on(layer.grid).data.to(layer.features.data.device)
    weight = weight if layer.weight is None else weight * layer.weight.data
    return Layer(layer.features, Volume(weight, layer.grid))


def _channels(config: ModelConfig, count: int) -> Tensor:
    """The numbers of the channels that are compared, which a layer of ``count`` must have (ConfigError)."""
    if max(config.channels) >= count:
        raise ConfigError(
            f"expected models.channels below {count}, the channels of a layer of {config.model}, got "
            f"{list(config.channels)}: leave out what it does not have"
        )
    return torch.tensor(config.channels)


def _on_device(layer: Layer, device: torch.device) -> Layer:
    weight = None if layer.weight is None else replace(layer.weight, data=layer.weight.data.to(device))
    return Layer(replace(layer.features, data=layer.features.data.to(device)), weight)


def check_channels(pairing: Pairing, fixed: Sequence[int], moving: Sequence[int]) -> None:
    """Refuse layers, given by their numbers of channels, that cannot be compared (ConfigError)."""
    if list(fixed) != list(moving):
        raise ConfigError(
            f"expected the same layers and channels of both images, got {fixed} channels of the fixed and "
            f"{moving} of the moving one from {pairing.name}: choose models whose features mean the same"
        )


def _each(values: Sequence[T], count: int, name: str, pairing: Pairing) -> list[T]:
    """One value a layer."""
    if len(values) not in (1, count):
        raise ConfigError(
            f"expected one {name} for all or {count} for the {count} layers of {pairing.name}, got {len(values)}"
        )
    return list(values) * count if len(values) == 1 else list(values)
