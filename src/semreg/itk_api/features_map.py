"""``ImageToFeaturesMap``: the features of images as ``itk.VectorImage``, one for each kept layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from semreg.devices import choose_device
from semreg.errors import ConfigError
from semreg.features.extract import Extractor, describe
from semreg.features.inputs import frame_of
from semreg.features.reduce import fit_pca, fit_standard, unit
from semreg.fields import Layer, Volume
from semreg.geometry import Grid, index_map, reorder
from semreg.itk_api import checks
from semreg.itk_api.impact_model import NORMALISATIONS, ImpactModelConfiguration, configuration
from semreg.itk_api.objects import Option, Process, image_of, type_refusal
from semreg.itk_bridge import import_itk, to_volume
from semreg.itk_tensor import tensor_to_image
from semreg.matching import Model
from semreg.sampling import base_index, inside, transform_index


class ImageToFeaturesMap(Process):
    """A model over one image or several: ``GetOutput(i)`` is the map of the i-th kept layer, on its own grid.

    With several inputs the layers of the first come first, then those of the second, and so on. ``PCA`` keeps so many
    principal components of each layer, fitted on the first input and applied to all. Where the model sees voxels of
    another size the image is resampled onto them, by ``Interpolator`` if one is set, else by block means and linear
    interpolation.
    """

    OPTIONS = (
        Option("Interpolator", None, checks.anything, "An interpolator of itk for the image; None: linear."),
        Option("ModelConfiguration", None, checks.anything, "The model and how it sees the image."),
        Option("Device", "cpu", checks.device, "Where it is computed: cpu, cuda, cuda:n, mps or auto."),
        Option("PCA", 0, checks.whole(), "Principal components of each layer that are kept; 0: all channels."),
    )

    def __init__(self) -> None:
        """No input, no result."""
        super().__init__()
        self._images: list[Any] = []
        self._outputs: list[Any] = []

    @classmethod
    def dimension_of(cls, types: Any) -> int:
        """2 or 3 from an image type and, where there is one, the type of an interpolator."""
        given = types if isinstance(types, tuple) else (types,)
        itk = import_itk()
        for dimension in (2, 3):
            image = itk.Image[itk.F, dimension]
            if given[0] is image and (len(given) == 1 or (len(given) == 2 and _interpolates(given[1], dimension))):
                return dimension
        raise type_refusal(cls.__name__, "ImageType, InterpolatorType", given)

    def set_inputs(self, inputs: Sequence[Any]) -> None:
        """Positional arguments are images."""
        for image in inputs:
            self.AddInput(image)

    def SetModelConfiguration(self, value: Any) -> None:  # noqa: N802 (ITK's name, as all below)
        """The model; a copy is kept."""
        self._values["ModelConfiguration"] = configuration("ModelConfiguration", value)
        self.Modified()

    def SetInterpolator(self, value: Any) -> None:  # noqa: N802
        """An ITK interpolator, such as a cubic ``itk.BSplineInterpolateImageFunction``; None: linear."""
        if value is not None and not hasattr(value, "EvaluateAtContinuousIndex"):
            raise TypeError(f"expected an interpolator of itk, got {type(value).__name__}")
        self._values["Interpolator"] = value
        self.Modified()

    def AddInput(self, value: Any) -> None:  # noqa: N802
        """One image more (TypeError for anything else, None too)."""
        self._images.append(self._image("AddInput", value))
        self.Modified()

    def _image(self, name: str, value: Any) -> Any:
        """An image, and not None as where an image may be left out."""
        image = image_of(name, value, self.DIMENSION)
        if image is None:
            raise TypeError(f"expected an image of itk for {name}, got None: itk.imread(path, itk.F) reads one")
        return image

    def SetInput(self, first: Any, second: Any = None) -> None:  # noqa: N802
        """``SetInput(image)`` for the only image, ``SetInput(i, image)`` for the i-th."""
        if second is None:
            self._images = [self._image("SetInput", first)]
            self.Modified()
            return
        index = checks.whole()("the index of SetInput", first)
        if index > len(self._images):
            raise ConfigError(f"expected an index up to {len(self._images)} for SetInput, got {index}: add one by one")
        self._images[index : index + 1] = [self._image("SetInput", second)]
        self.Modified()

    def GetInput(self, index: int = 0) -> Any:  # noqa: N802
        """The i-th image; None if there is none."""
        return self._images[index] if 0 <= index < len(self._images) else None

    def GetNumberOfInputs(self) -> int:  # noqa: N802
        """How many images there are."""
        return len(self._images)

    def GetNumberOfOutputs(self) -> int:  # noqa: N802
        """How many maps there are after ``Update``."""
        return len(self._outputs)

    def GetOutput(self, index: int = 0) -> Any:  # noqa: N802
        """The i-th map, ``itk.VectorImage[itk.F, D]``. ConfigError where there is none."""
        if not 0 <= index < len(self._outputs):
            raise ConfigError(
                f"expected an output below {len(self._outputs)}, got {index}: call Update first, and keep the layer in "
                "LayersMask"
            )
        return self._outputs[index]

    def output(self) -> Any:
        """The map, or a tuple of several."""
        return self._outputs[0] if len(self._outputs) == 1 else tuple(self._outputs)

    def inputs(self) -> Iterator[Any]:
        """The images."""
        if not self._images:
            raise ConfigError("expected an image for ImageToFeaturesMap, got none: call AddInput")
        yield from self._images

    def clear(self) -> None:
        """Drop the maps."""
        self._outputs = []

    def generate(self) -> None:
        """Extract, reduce and hand over to ITK."""
        given: ImpactModelConfiguration | None = self._values["ModelConfiguration"]
        if given is None:
            raise ConfigError("expected a model for ImageToFeaturesMap, got none: call SetModelConfiguration")
        device = choose_device(self._values["Device"])
        layers: list[list[Layer]] = []
        for number, image in enumerate(self._images, start=1):
            model = given.for_images().model(int(image.GetImageDimension()), device)
            layers.append(list(self._layers(image, model, device)))
            self.UpdateProgress(0.9 * number / len(self._images))
        self._outputs = [_vector_image(layer) for each in self._reduced(layers, given) for layer in each]

    def _layers(self, image: Any, model: Model, device: torch.device) -> Sequence[Layer]:
        """The features of one image, in its axes, each layer on its own grid."""
        volume = to_volume(image)
        if not isinstance(model, Extractor):
            return (describe(volume, model, device=device),)
        view = frame_of(volume.grid, model.spec)
        if self._values["Interpolator"] is not None and view.grid != reorder(volume.grid, view.axes):
            volume = self._resampled(image, reorder(view.grid, view.axes.inverse))
        return model.layers(volume)

    def _resampled(self, image: Any, grid: Grid) -> Volume:
        """The image on the grid that the model sees, read by the interpolator; border values beyond its edge."""
        itk = import_itk()
        kind = type(image)
        resampler = itk.ResampleImageFilter[kind, kind].New()
        resampler.SetInput(image)
        resampler.SetInterpolator(self._values["Interpolator"])
        resampler.SetSize(grid.size_xyz)
        resampler.SetOutputSpacing(grid.spacing_xyz)
        resampler.SetOutputOrigin(grid.origin_xyz)
        resampler.SetOutputDirection(itk.matrix_from_array(np.asarray(grid.direction)))
        resampler.Update()
        volume = to_volume(image)
        index = transform_index(index_map(grid, volume.grid), base_index(grid.shape, like=volume.data))
        within = inside(index, volume.grid.shape)
        read = to_volume(resampler.GetOutput()).data
        return Volume(torch.where(within, read, volume.on(grid).data), grid)

    def _reduced(self, layers: list[list[Layer]], given: ImpactModelConfiguration) -> list[list[Layer]]:
        """The components of the first image's features, of all images; and normalised where that is asked for."""
        if self._values["PCA"]:
            bases = [fit_pca(layer, self._values["PCA"]) for layer in layers[0]]
            layers = [[basis.apply(layer) for basis, layer in zip(bases, each, strict=True)] for each in layers]
        how = NORMALISATIONS[given.GetFeatureNormalization()]  # type: ignore[attr-defined]
        if how == "unit":
            return [[unit(layer) for layer in each] for each in layers]
        if how == "standard":
            scales = [fit_standard(layer) for layer in layers[0]]
            return [[scale.apply(layer) for scale, layer in zip(scales, each, strict=True)] for each in layers]
        return layers


def _interpolates(kind: Any, dimension: int) -> bool:
    """Whether a type is that of an interpolator of float images."""
    itk = import_itk()
    return isinstance(kind, type) and issubclass(kind, itk.InterpolateImageFunction[itk.Image[itk.F, dimension], itk.D])


def _vector_image(layer: Layer) -> Any:
    """The features with one component a channel, also where that is one."""
    return tensor_to_image(layer.features.data, layer.grid, kind="itk", vector=True)
