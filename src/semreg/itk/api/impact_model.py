"""``ImpactModelConfiguration``: which model sees an image and how, as scripts say it, and what that is for the core.

Sizes are in ITK's order x, y(, z), as itk-impact reads them; the core's are in the order of the tensor.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from semreg.config import ModelConfig, RegistrationConfig
from semreg.errors import ConfigError, ModelNotFoundError
from semreg.features.agreement import sample
from semreg.features.catalogue.entries import find
from semreg.features.descriptors import DESCRIPTORS
from semreg.features.extract import Extractor
from semreg.features.loaded import LoadedNetwork
from semreg.features.models import is_file_name
from semreg.io.ordinary_file import check_file
from semreg.itk.api import checks
from semreg.itk.api.objects import ITKObject, Option
from semreg.registration.matching import Model, resolve_models

logger = logging.getLogger("semreg")

SMALL_PATCH = 16
"""Voxels an axis below which a patch is what the mode Jacobian looks at around a point, not a tile of an image."""

Normalise = Literal["none", "unit", "standard"]

NORMALISATIONS: dict[str, Normalise] = {"none": "none", "l2": "unit", "unit": "unit", "standard": "standard"}
"""Names of ``FeatureNormalization``; ``l2`` is itk-impact's word for vectors of length 1."""


def _model_path(name: str, value: Any) -> str:
    """A file that exists, a built-in model or a name from the catalogue (ModelNotFoundError); empty: none yet."""
    path = str(value) if isinstance(value, Path) else checks.text(name, value)
    if path in ("", *DESCRIPTORS):
        return path
    if not is_file_name(path):
        find(path)
    else:
        check_file(path, f"the file of a model for {name}", ModelNotFoundError)
    return path


def _normalisation(name: str, value: Any) -> str:
    if isinstance(value, str) and value.lower() == "standardized":
        raise ConfigError(
            f"expected {name} to be none, l2 or standard, got {value!r}: feature vectors of mean 0 and deviation 1 are "
            "not computed here, l2 differs from them by the mean of the channels alone"
        )
    return str(checks.one_of(*NORMALISATIONS)(name, value))


def _overlaps(name: str, value: Any) -> tuple[int, ...]:
    """One number an axis, or one for all."""
    values = [value] if not isinstance(value, str) and not hasattr(value, "__iter__") else value
    found: tuple[int, ...] = checks.listed(checks.whole())(name, values)
    return found


class ImpactModelConfiguration(ITKObject):
    """A feature model and how it sees an image; a filter keeps a copy of what it is given.

    ``ImpactModelConfiguration(path, dimension, channels, patch_size, voxel_size, overlaps, layers_mask,
    mixed_precision)``; all can be set later. ``path`` is a file of TorchScript or ``torch.export``, ``mind``,
    ``intensity`` or a name from the catalogue. Where a description lies beside the file it holds for what is not said
    here; without one intensities go to the model as they are. Wrong values raise ConfigError or ModelNotFoundError.
    """

    OPTIONS = (
        Option("ModelPath", "", _model_path, "File of the model, or its name."),
        Option("Dimension", 0, checks.whole(), "Spatial axes of the model's input, 2 or 3; 0: as described, or 3."),
        Option("NumberOfChannels", 0, checks.whole(), "Channels of its input; 0: as described, or 1."),
        Option(
            "PatchSize", (), checks.listed(checks.whole()), "Voxels of its input, x, y(, z); all 0 or none: the image."
        ),
        Option(
            "VoxelSize", (), checks.listed(checks.NOT_NEGATIVE), "Voxels it sees, mm, x, y(, z); 0: those of the image."
        ),
        Option("Overlaps", (), _overlaps, "Voxels that patches share, x, y(, z), or one number for all axes."),
        Option(
            "PatchCombine",
            "cosinus",
            checks.one_of("cosinus", "mean", "gaussian", "trim"),
            "How patches are joined. Tiles are exact here wherever the model allows it, and then all are the same; "
            "where they must be blended it is by cosines, whatever is said.",
        ),
        Option("LayersMask", (), checks.listed(checks.switch), "Which outputs are compared, one each; none: all."),
        Option(
            "FeatureNormalization",
            "none",
            _normalisation,
            "none, l2 (vectors of length 1) or standard (channels of mean 0, deviation 1); after PCA and subsets.",
        ),
        Option("MixedPrecision", False, checks.switch, "Half precision where the device has it.", switch=True),
    )

    def __init__(  # noqa: PLR0913, PLR0917 - the parameters of itk-impact's constructor, in its order
        self,
        path: str | Path = "",
        dimension: int = 0,
        channels: int = 0,
        patch_size: Sequence[int] = (),
        voxel_size: Sequence[float] = (),
        overlaps: Sequence[int] | int = (),
        layers_mask: Sequence[bool] = (),
        mixed_precision: bool = False,
    ) -> None:
        """See the class."""
        super().__init__()
        self._models: dict[Any, Model] = {}
        given = {
            "ModelPath": path,
            "Dimension": dimension,
            "NumberOfChannels": channels,
            "PatchSize": patch_size,
            "VoxelSize": voxel_size,
            "Overlaps": overlaps,
            "LayersMask": layers_mask,
            "MixedPrecision": mixed_precision,
        }
        for name, value in given.items():
            self.set_option(name, value)
        if path:
            self.entry()  # what does not fit together is said here, where it was written

    def Clone(self) -> ImpactModelConfiguration:  # noqa: N802 (ITK's name, as below)
        """Another one with the same values; a model that one of them has loaded serves both."""
        other = super().Clone()
        other._models = self._models  # noqa: SLF001 (it is one of these)
        return other

    def SetOverlap(self, value: Any) -> None:  # noqa: N802
        """One number of voxels for all axes, as up to itk-impact 0.1.5."""
        self.set_option("Overlaps", checks.whole()("Overlap", value))

    def GetOverlap(self) -> int:  # noqa: N802
        """The largest overlap of an axis."""
        return max(self._values["Overlaps"], default=0)

    def for_images(self) -> ImpactModelConfiguration:
        """Itself, or a copy without a PatchSize that would cut an image into thousands of tiles."""
        patch = self._values["PatchSize"]
        if not any(patch) or min(patch) >= SMALL_PATCH:
            return self
        logger.warning(
            "PatchSize %s is for the mode Jacobian: here the model sees tiles as large as memory allows", list(patch)
        )
        whole = self.Clone()
        whole.set_option("PatchSize", ())
        return whole

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImpactModelConfiguration) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]  # its values may change

    def GetPatchIndex(self) -> list[list[float]]:  # noqa: N802 (ITK's name)
        """Offsets in mm of the voxels of a patch from the point it is for, x fastest; empty for whole images."""
        patch, voxel = self._values["PatchSize"], self._values["VoxelSize"]
        if not any(patch):
            return []
        sizes = voxel if len(voxel) == len(patch) else (*voxel, 1.0)[:1] * len(patch)
        axes = [[(i - n // 2) * s for i in range(n)] for n, s in zip(patch, sizes, strict=True)]
        return [list(offset[::-1]) for offset in itertools.product(*reversed(axes))]

    def SetPatchIndex(self, value: Any) -> None:  # noqa: N802 (ITK's name)
        """Accepts what follows from PatchSize and VoxelSize, and nothing else (ConfigError)."""
        if [list(offset) for offset in value] not in ([], self.GetPatchIndex()):
            raise ConfigError(
                "expected PatchIndex to be the offsets that follow from PatchSize and VoxelSize, got others: leave it"
                " out"
            )

    def __repr__(self) -> str:
        given = [f"{o.name}={self._values[o.name]!r}" for o in self.options() if self._values[o.name] != o.default]
        return f"ImpactModelConfiguration({', '.join(given)})"

    @property
    def built_in(self) -> bool:
        """Whether it names a formula and not a network."""
        return self._values["ModelPath"] in DESCRIPTORS

    @property
    def layers(self) -> tuple[int, ...] | None:
        """Outputs that are kept; None: all."""
        mask = self._values["LayersMask"]
        if mask and not any(mask):
            raise ConfigError(f"expected LayersMask to keep a layer, got {list(mask)}: set one of them to True")
        return tuple(number for number, kept in enumerate(mask) if kept) if mask else None

    def keeping(self, layers: tuple[int, ...]) -> ImpactModelConfiguration:
        """A copy that keeps these outputs only."""
        part = self.Clone()
        count = max(len(self._values["LayersMask"]), max(layers) + 1)
        part.set_option("LayersMask", [number in layers for number in range(count)])
        return part

    def entry(self) -> ModelConfig:
        """The core's setting for this model alone. Raises ConfigError for values that do not fit together."""
        path = self._values["ModelPath"]
        if not path:
            raise ConfigError("expected a model in the configuration, got none: SetModelPath names a file, or mind")
        dimension, channels = self._values["Dimension"], self._values["NumberOfChannels"]
        if dimension not in (0, 2, 3):
            raise ConfigError(f"expected Dimension 2 or 3, got {dimension}: set that of the model, or 0 for its own")
        normalise = NORMALISATIONS[self._values["FeatureNormalization"]]
        if self.built_in:
            if channels > 1:
                raise ConfigError(f"expected NumberOfChannels 1 for {path}, which takes one, got {channels}: set that")
            if len(self._values["LayersMask"]) > 1 or self.layers not in (None, (0,)):
                mask = list(self._values["LayersMask"])
                raise ConfigError(f"expected LayersMask [True] for {path}, which has one output, got {mask}")
            return ModelConfig(model=path, normalise=normalise)
        return ModelConfig(model=path, spec=self._description(), layers=self.layers, normalise=normalise)

    def _description(self) -> tuple[str, ...]:
        """What its description is to say, as ``name=value``."""
        values = self._values
        dimension = values["Dimension"]
        said = [f"dimension={dimension}"] if dimension else []
        if values["NumberOfChannels"]:
            said.append(f"channels={values['NumberOfChannels']}")
        voxel, patch = self._along("VoxelSize", dimension or 3), self._along("PatchSize", dimension or 3)
        if voxel:
            said.append(f"spacing_mm={_numbers(voxel)}")
        if patch:
            said += [f"patch={_numbers(patch)}", f"overlap={self._overlap(patch)!r}"]
        if values["MixedPrecision"]:
            said.append("mixed_precision=true")
        return tuple(said)

    def _along(self, name: str, dimension: int) -> tuple[Any, ...]:
        """Sizes in the order of the tensor; empty where they are left open by zeros."""
        values: tuple[Any, ...] = self._values[name]
        if not any(values):
            return ()
        if len(values) not in (1, dimension) or not all(values):
            raise ConfigError(
                f"expected {name} to be {dimension} numbers above 0 in the order x, y{', z' * (dimension - 2)}, or all "
                f"0, got {list(values)}"
            )
        return (values * dimension if len(values) == 1 else values)[::-1]

    def _overlap(self, patch: Sequence[int]) -> float:
        """The largest share of a patch that neighbours have in common."""
        voxels = self._values["Overlaps"] or (0,)
        each = (voxels * len(patch) if len(voxels) == 1 else voxels)[::-1]
        if len(each) != len(patch) or any(a >= b for a, b in zip(each, patch, strict=True)):
            raise ConfigError(
                f"expected Overlaps below the patch size {list(patch[::-1])}, one number or one an axis, got "
                f"{list(voxels)}"
            )
        return float(max(a / b for a, b in zip(each, patch, strict=True)))

    def model(self, dimension: int, device: torch.device) -> Model:
        """The model for images of ``dimension`` axes; loaded once. Raises ModelError and its kin, ConfigError."""
        entry = self.entry()
        self._check_dimension(dimension)
        key = (entry.model, entry.spec, entry.layers, dimension, device)
        if key not in self._models:
            single = RegistrationConfig(models=(replace(entry, normalise="none", layers=None),))
            found = resolve_models(single, dimension, device)[0].fixed
            if isinstance(found, Extractor) and isinstance(found.network, LoadedNetwork):
                found = self._kept(found.network)
            elif self.built_in and any(self._values["VoxelSize"]):
                logger.warning(
                    "%s works on the voxels that both images are compared in: VoxelSize %s is not used",
                    entry.model,
                    list(self._values["VoxelSize"]),
                )
            self._models[key] = found
        return self._models[key]

    def _check_dimension(self, images: int) -> None:
        """Refuse a Dimension that images of so many axes do not have; a 2-D network sees slices of 3-D images."""
        said = self._values["Dimension"]
        if said and (said > images or (said < images and self.built_in)):
            raise ConfigError(
                f"expected Dimension {images} for {self._values['ModelPath']} on {images}-D images, got {said}: set it "
                "to that of the images, or to 0"
                if self.built_in
                else f"expected Dimension {images} or less for {self._values['ModelPath']} on {images}-D images, got "
                f"{said}: use a model for {images}-D images"
            )

    def _kept(self, network: LoadedNetwork) -> Extractor:
        """The network with the outputs of the mask, which must have one value for each."""
        mask = self._values["LayersMask"]
        if self.layers is None:
            return Extractor(network, device=network.device)
        whole = replace(network, layers=None, short=None)
        exact = replace(whole, spec=replace(network.spec, mixed_precision=False))
        seen = sample(exact.values, exact.spec, network.device)
        # a model that stops at the last layer it is asked for may have a mask that ends there
        stops = any(parameter.role == "layers" for parameter in network.model.parameters)
        if seen is not None and (len(mask) > len(seen.outputs) or (len(mask) < len(seen.outputs) and not stops)):
            raise ConfigError(
                f"expected LayersMask with one value for each of the {len(seen.outputs)} outputs of "
                f"{self._values['ModelPath']}, got {len(mask)}"
            )
        return Extractor(whole.keep(self.layers), device=network.device)


def _numbers(values: Sequence[float]) -> str:
    """As a setting is written: one number where all are the same."""
    return ",".join(map(repr, values[:1] if len(set(values)) == 1 else values))


ModelConfiguration = ImpactModelConfiguration


def configuration(name: str, value: Any) -> ImpactModelConfiguration:
    """A copy of a model configuration with a model in it (TypeError, ConfigError)."""
    if not isinstance(value, ImpactModelConfiguration):
        raise TypeError(f"expected an itk.ImpactModelConfiguration for {name}, got {type(value).__name__}")
    value.entry()
    return value.Clone()


def configurations(name: str, value: Any) -> tuple[ImpactModelConfiguration, ...]:
    """Copies of a list of model configurations, or of one."""
    values = [value] if isinstance(value, ImpactModelConfiguration) else value
    found: tuple[ImpactModelConfiguration, ...] = checks.listed(configuration)(name, values)
    return found
