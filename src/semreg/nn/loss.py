"""Batches of images compared by the features of pretrained models, as a module of torch. Knows no training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from semreg.config import ModelConfig, RegistrationConfig
from semreg.core.fields import Layer, Volume
from semreg.core.geometry import Grid, reorder
from semreg.errors import ConfigError, ImageError, ModelContractError
from semreg.features.extract import Extractor, describe
from semreg.features.inputs import frame_of
from semreg.nn.patches import Box, Patches
from semreg.registration.dense.terms import Term
from semreg.registration.matching import Compared, Given, Model, Pairing, check_channels, compare, resolve_models
from semreg.runtime.settings import require

AXES = {2: "(N, C, y, x)", 3: "(N, C, z, y, x)"}


class ImpactLoss(torch.nn.Module):
    """How far the features of two batches of images are apart; lower is better, differentiable in both batches.

    The sum over all models and layers of weight · distance, as the mean over the images of the batch. Distances are
    those of ``semreg.distances``, and those that are sums over the channels (l1, l2, dotproduct) are divided by their
    number. The models are frozen: in evaluation mode whatever the mode of this module, without gradients, and neither
    among its parameters nor in its ``state_dict``. They run on the device of the images. It knows no random numbers but
    those of ``generator``.

    After Boussot et al., IMPACT, arXiv:2503.24121.

    Args:
        models: what features come from, one or several: a name (``mind``, ``intensity``, one of the catalogue), the
            path of a file, a ``torch.nn.Module`` or another callable; or a ``ModelConfig``, which says so by its
            ``model``.
        config: how the features of ``models`` count, one for all or one for each: layers, distance (empty: l2),
            weight, principal components, channels. Nothing where ``models`` are configurations already.
        dimension: spatial axes of the images, 2 or 3.
        spacing_mm: voxel size of the images, one number or one for each spatial axis in the order of the tensor. None:
            each model sees the voxels as they are, as if they had the size that it was trained at.
        patches: compare patches; None: whole images.
        generator: what random patches and drawn channels (``ModelConfig.subset``) come from, on the CPU.

    Raises:
        ModelNotFoundError, ModelError: for a model that is not there, or is none.
        ConfigError: for settings that do not fit, and where something is to be drawn without a generator.
    """

    def __init__(
        self,
        models: Any = "mind",
        config: ModelConfig | Sequence[ModelConfig] | None = None,
        *,
        dimension: Literal[2, 3] = 3,
        spacing_mm: float | Sequence[float] | None = None,
        patches: Patches | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Load the models on the CPU."""
        super().__init__()
        require(dimension in AXES, "images of 2 or 3 dimensions", dimension)
        self._models, self._config = _entries(models, config)
        self.dimension = dimension
        self.spacing_mm = None if spacing_mm is None else _spacing(spacing_mm, dimension)
        self.patches = patches
        self.generator = generator
        drawn = any(entry.subset for entry in self._config.models) or (
            patches is not None and patches.count is not None
        )
        require(not drawn or generator is not None, "a generator for what is drawn at random", "none: pass one")
        self._loaded: dict[torch.device, list[Pairing]] = {}
        self._on(torch.device("cpu"))

    def forward(
        self,
        moving: Shaped[Tensor, "n c *s"],
        fixed: Shaped[Tensor, "n c *s"],
        mask: Shaped[Tensor, "n 1 *s"] | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of a batch.

        Args:
            moving: the warped images (N, C, z, y, x), or (N, C, y, x) in 2-D. C is 1, or the number of channels that
                all models take. Other types than float64 count as float32.
            fixed: the images that they are to match, of the same shape.
            mask: where the images count, (N, 1, *S) in 0..1 or bool: what is excluded influences nothing, not even by
                being no number. None: everywhere. An image, or a patch, without a voxel that counts is passed over.

        Returns:
            The loss, a scalar; 0 where nothing counts.

        Raises:
            ImageError: for images or masks of shapes that do not fit.
            ModelContractError: for channels that a model does not take.
            ConfigError: for weights or distances that are not as many as the layers, and other settings that the
                features do not fit.
        """
        pairings = self._on(moving.device)
        self._check(moving, fixed, mask, pairings)
        counts = None if mask is None else mask.to(torch.float32)
        with torch.autocast(moving.device.type, enabled=False):  # half precision is the models' choice
            found = [
                self._of_image(pairings, moving[n], fixed[n], None if counts is None else counts[n])
                for n in range(len(moving))
            ]
            return _mean([value for value, _ in found], [min(1.0, share) for _, share in found], moving)

    def extra_repr(self) -> str:
        """The models and how they are compared."""
        found = zip(self._on(torch.device("cpu")), self._models, strict=True)
        names = [pairing.name or type(model).__name__ for pairing, model in found]
        distances = [" ".join(entry.distance) or "l2" for entry in self._config.models]
        return ", ".join(f"{name}: {how}" for name, how in zip(names, distances, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        """Without what was loaded: a copy loads the models again where it is used."""
        return {**self.__dict__, "_loaded": {}}

    def _on(self, device: torch.device) -> list[Pairing]:
        """The models on a device."""
        if device not in self._loaded:
            given = Given(models=self._models)
            self._loaded[device] = resolve_models(self._config, self.dimension, device, given)
        return self._loaded[device]

    def _of_image(
        self, pairings: Sequence[Pairing], moving: Tensor, fixed: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, float]:
        """The loss of one image (C, *S), the mean over its patches, and how many voxels count."""
        boxes: Sequence[Box] = [(slice(None),) * self.dimension]
        if self.patches is not None:
            boxes = self.patches.boxes(moving.shape[1:], self.generator)
        values, shares = [], []
        for box in boxes:
            part = (slice(None), *box)
            count = float(moving[part][0].numel()) if mask is None else float(mask[part].sum())
            shares.append(count)
            if count > 0:
                whole = moving, fixed, mask
                values.append(torch.stack([self._of_model(pairing, whole, part) for pairing in pairings]).sum())
            else:
                values.append(moving.new_zeros(()))
        return _mean(values, shares, moving), sum(shares)

    def _of_model(
        self, pairing: Pairing, whole: tuple[Tensor, Tensor, Tensor | None], part: tuple[slice, ...]
    ) -> Tensor:
        """The sum over the layers of one model, from a part of an image."""
        moving, fixed, mask = whole
        grid = self._grid(pairing, tuple(fixed[part].shape[1:]))
        weight = None if mask is None else Volume(mask[part], grid)
        references = [_counted(image, mask) for image in (fixed, moving)]
        if pairing.config.statistics == "fixed":
            references[1] = references[0]
        near, far = (
            _layers(model, Volume(image[part], grid), weight, reference)
            for model, image, reference in zip(
                (pairing.fixed, pairing.moving), (fixed, moving), references, strict=True
            )
        )
        check_channels(pairing, *[[len(layer.features.data) for layer in layers] for layers in (near, far)])
        # what is fitted or drawn is a constant
        compared = compare(pairing, [_detached(layer) for layer in near], self.generator or torch.Generator())
        compared.fixed = compared.reduced(near)
        return _total(compared, far, self._config)

    def _grid(self, pairing: Pairing, shape: tuple[int, ...]) -> Grid:
        """Where a patch lies; without a voxel size, that of the model."""
        if self.spacing_mm is not None:
            return Grid.of_shape(shape, self.spacing_mm[::-1])
        found = {_wanted(model, shape) for model in (pairing.fixed, pairing.moving)}
        if len(found) > 1:
            raise ConfigError(
                f"expected spacing_mm, the voxel size of the images, for {pairing.name}, which were trained at "
                "different ones, got none: pass it"
            )
        return Grid.of_shape(shape, found.pop()[::-1])

    def _check(self, moving: Tensor, fixed: Tensor, mask: Tensor | None, pairings: Sequence[Pairing]) -> None:
        """Refuse batches that do not fit each other, the dimension or the models."""
        shape = tuple(moving.shape)
        if len(shape) != self.dimension + 2 or tuple(fixed.shape) != shape or 0 in shape:
            raise ImageError(
                f"expected two batches {AXES[self.dimension]} of one shape, got {shape} and {tuple(fixed.shape)}: "
                "bring them onto one grid, or set dimension"
            )
        if fixed.device != moving.device or (mask is not None and mask.device != moving.device):
            raise ImageError(f"expected images and mask on {moving.device}, as the first batch: move the others there")
        if mask is not None:
            wanted = (shape[0], 1, *shape[2:])
            if tuple(mask.shape) != wanted:
                raise ImageError(f"expected a mask of shape {wanted}, got {tuple(mask.shape)}: give each image one")
            if mask.dtype != torch.bool and not bool(((mask >= 0) & (mask <= 1)).all()):
                raise ImageError("expected a mask of values in 0..1, got others: say which labels count, mask > 0")
        for model in (model for pairing in pairings for model in (pairing.fixed, pairing.moving)):
            takes = model.spec.channels if isinstance(model, Extractor) else 1
            if shape[1] not in (1, takes):
                others = f" or {takes}" if takes > 1 else ""
                raise ModelContractError(
                    f"expected images of 1{others} channels for {model.spec.name}, got {shape[1]}: compare channel by "
                    "channel, or set channels in its description"
                )


def _entries(models: Any, config: ModelConfig | Sequence[ModelConfig] | None) -> tuple[tuple[Any, ...], Any]:
    """The models as they are loaded, and the settings that name them."""
    given = tuple(models) if isinstance(models, (list, tuple)) else (models,)
    if not given:
        raise ConfigError("expected one model or several, got none: name one, such as mind")
    if config is not None and any(isinstance(model, ModelConfig) for model in given):
        raise ConfigError("expected no config beside models that are configurations, got one: leave it out")
    how = (config,) if isinstance(config, ModelConfig) else tuple(config or (ModelConfig(),))
    if len(how) not in (1, len(given)):
        raise ConfigError(f"expected one config for all or one for each of {len(given)} models, got {len(how)}")
    each = how * len(given) if len(how) == 1 else how
    entries = [_entry(model, own) for model, own in zip(given, each, strict=True)]
    if any(entry.redraw for entry in entries):
        raise ConfigError("expected redraw=false in a loss, where subset draws anew in each call, got true")
    named = [model.model if isinstance(model, ModelConfig) else model for model in given]
    return tuple(named), RegistrationConfig(models=tuple(entries))


def _entry(model: Any, config: ModelConfig) -> ModelConfig:
    if isinstance(model, ModelConfig):
        return model
    return replace(config, model=str(model)) if isinstance(model, (str, Path)) else config


def _spacing(spacing_mm: float | Sequence[float], dimension: int) -> tuple[float, ...]:
    """One voxel size for each axis (ConfigError)."""
    found = tuple(spacing_mm) if isinstance(spacing_mm, Sequence) else (float(spacing_mm),) * dimension
    known = len(found) == dimension and all(0 < s < float("inf") for s in found)
    require(known, f"spacing_mm above 0, one number or {dimension} of them", spacing_mm)
    return found


def _wanted(model: Model, shape: tuple[int, ...]) -> tuple[float, ...]:
    """The voxel size that a model was trained at, for each axis of an image as it comes; 1 mm where it has none."""
    grid = Grid.of_shape(shape)
    if not isinstance(model, Extractor):
        return grid.spacing
    frame = frame_of(grid, model.spec)
    return reorder(frame.grid, frame.axes.inverse).spacing


def _counted(image: Tensor, mask: Tensor | None) -> Tensor:
    """The intensities of an image (C, *S) whose statistics are those of the image, on the CPU."""
    counted = image if mask is None else image[(mask > 0).expand_as(image)]
    return _as_float(counted.detach()).cpu()


def _layers(model: Model, image: Volume, weight: Volume | None, reference: Tensor) -> list[Layer]:
    """The layers of one model, on the device of the image."""
    device = image.data.device
    if not isinstance(model, Extractor):
        seen = Volume(_as_float(image.data), image.grid)
        share = None if weight is None else Volume(weight.data.to(seen.data.dtype), weight.grid)
        return [describe(seen, model, weight=share, device=device, reference=reference)]
    seen = Volume(image.data.to(torch.float32), image.grid)
    found = model.layers(seen, weight, reference=reference.to(torch.float32))
    return [replace(layer, features=replace(layer.features, data=layer.features.data.to(device))) for layer in found]


def _total(compared: Compared, moving: Sequence[Layer], config: RegistrationConfig) -> Tensor:
    """The weighted sum of the distances of all layers."""
    return torch.stack([_value(term) for term in compared.terms(compared.reduced(moving), config)]).sum()


def _value(term: Term) -> Tensor:
    fixed = term.fixed
    moving = term.moving if term.moving.grid == fixed.grid else term.moving.averaged_on(fixed.grid)
    weight = None if fixed.weight is None else fixed.weight.data.flatten()
    near, far = (layer.features.data.flatten(1).T for layer in (fixed, moving))
    distance = term.measure(near, far, weight, fixed.grid.shape)
    return term.share * distance / (near.shape[1] if term.measure.summed else 1)


def _mean(values: Sequence[Tensor], shares: Sequence[float], like: Tensor) -> Tensor:
    """The mean of some values by their shares; 0, with a gradient of 0, where none counts."""
    total = sum(shares)
    if total == 0:
        return 0.0 * _as_float(like[:0]).sum()
    return torch.stack([value * (share / total) for value, share in zip(values, shares, strict=True)]).sum()


def _detached(layer: Layer) -> Layer:
    return replace(layer, features=replace(layer.features, data=layer.features.data.detach()))


def _as_float(image: Tensor) -> Tensor:
    return image if image.dtype == torch.float64 else image.to(torch.float32)
