"""``ImageToFeaturesMap``: the features of images as ``itk.VectorImage``, one for each kept layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from semreg.core.fields import Layer, Volume
from semreg.core.geometry import Grid, index_map, reorder
from semreg.core.sampling import base_index, inside, transform_index
from semreg.errors import ConfigError
from semreg.features.extract import Extractor, describe
from semreg.features.inputs import frame_of
from semreg.features.reduce import fit_pca, fit_standard, unit
from semreg.io.bridge import grid_of_itk, import_itk, itk_image, to_volume, with_itk_header
from semreg.itk.api import checks
from semreg.itk.api.impact_model import NORMALISATIONS, ImpactModelConfiguration, configuration
from semreg.itk.api.objects import Option, image_of, type_refusal
from semreg.itk.api.process import Process
from semreg.registration.matching import Model
from semreg.runtime.devices import choose_device


class ImageToFeaturesMap(Process):
    """A model over one image or several: ``GetOutput(i)`` is the map of the i-th kept layer, on its own grid.

    With several inputs the layers of the first come first, then those of the second, and so on. ``PCA`` keeps so many
    principal components of each layer, fitted on the first input and applied to all. Where the model sees voxels of
    another size the image is resampled onto them, by ``Interpolator`` if one is set, else by block means and linear
    interpolation. With a ``Transform`` the maps are those of the warped image: at each point it is read where the
    transform takes the point, and has its lowest value where that is outside.
    """

    OPTIONS = (
        Option("Interpolator", None, checks.anything, "An interpolator of itk for the image; None: linear."),
        Option("Transform", None, checks.anything, "A transform of itk through which images are read; None: none."),
        Option("ModelConfiguration", None, checks.anything, "The model and how it sees the image."),
        Option("Device", "cpu", checks.device, "Where it is computed: cpu, cuda, cuda:n, mps or auto."),
        Option("PCA", 0, checks.whole(), "Principal components of each layer that are kept; 0: all channels."),
    )

    def __init__(self) -> None:
        """No input, no result."""
        super().__init__()
        self._images: list[Any] = []
        self._maps: list[Any] = []

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

    def GetModifiableInterpolator(self) -> Any:  # noqa: N802
        """The interpolator that was set, to be changed."""
        return self._values["Interpolator"]

    def SetTransform(self, value: Any) -> None:  # noqa: N802
        """A transform of itk from the points of the map to those of the image; None: the image as it is."""
        dimension = self.DIMENSION
        fits = hasattr(value, "TransformPoint") and dimension in (None, value.GetInputSpaceDimension())
        if value is not None and not fits:
            raise TypeError(
                f"expected a transform of itk{f' in {dimension}-D' if dimension else ''}, got {type(value).__name__}"
            )
        self._values["Transform"] = value
        self.Modified()

    def GetMTime(self) -> int:  # noqa: N802
        """When it, its interpolator or its transform was changed last."""
        parts = [self._values[name] for name in ("Interpolator", "Transform")]
        return max([super().GetMTime(), *(int(part.GetMTime()) for part in parts if part is not None)])

    def Clone(self) -> ImageToFeaturesMap:  # noqa: N802
        """Another one with the same settings and images."""
        other = super().Clone()
        other._images = list(self._images)  # noqa: SLF001 (it is one of these)
        return other

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

    def inputs(self) -> Iterator[Any]:
        """The images."""
        return iter(self._images)

    def check_inputs(self) -> None:
        """ConfigError without an image."""
        if not self._images:
            raise ConfigError("expected an image for ImageToFeaturesMap, got none: call AddInput")

    def GetNumberOfOutputs(self) -> int:  # noqa: N802
        """How many maps there are after ``Update``."""
        return len(self._maps)

    def image_type(self, index: int, dimension: int) -> Any:
        """Vectors, also of one channel; ConfigError where it is known that there is no such map."""
        if self._done is not None:
            self.made(index)
        itk = import_itk()
        return itk.VectorImage[itk.F, dimension]

    def layout(self, index: int) -> tuple[Grid, int]:
        """The grid and the channels of a layer, which the model itself tells: it runs for them."""
        self.compute()
        made = self.made(index)
        return grid_of_itk(made), int(made.GetNumberOfComponentsPerPixel())

    def made(self, index: int) -> Any:
        """The i-th map, ``itk.VectorImage[itk.F, D]``. ConfigError where there is none."""
        if not 0 <= index < len(self._maps):
            raise ConfigError(f"expected an output below {len(self._maps)}, got {index}: keep the layer in LayersMask")
        return self._maps[index]

    def clear(self) -> None:
        """Drop the maps."""
        self._maps = []

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
        self._maps = [_vector_image(layer) for each in self._reduced(layers, given) for layer in each]

    def _layers(self, image: Any, model: Model, device: torch.device) -> Sequence[Layer]:
        """The features of one image, in its axes, each layer on its own grid."""
        volume = to_volume(image)
        grid, moved = volume.grid, self._values["Transform"] is not None
        if isinstance(model, Extractor):
            view = frame_of(volume.grid, model.spec)
            if view.grid != reorder(volume.grid, view.axes):
                grid = reorder(view.grid, view.axes.inverse)
        if moved or (self._values["Interpolator"] is not None and grid != volume.grid):
            volume = self._resampled(volume, grid)
        return model.layers(volume) if isinstance(model, Extractor) else (describe(volume, model, device=device),)

    def _resampled(self, volume: Volume, grid: Grid) -> Volume:
        """The image on the grid that the model sees; border values beyond its edge, its lowest where it was moved."""
        itk, image, transform = import_itk(), itk_image(volume), self._values["Transform"]
        resampler = itk.ResampleImageFilter[type(image), type(image)].New()
        resampler.SetInput(image)
        if self._values["Interpolator"] is not None:
            resampler.SetInterpolator(self._values["Interpolator"])
        resampler.SetSize(grid.size_xyz)
        resampler.SetOutputSpacing(grid.spacing_xyz)
        resampler.SetOutputOrigin(grid.origin_xyz)
        resampler.SetOutputDirection(itk.matrix_from_array(np.asarray(grid.direction)))
        if transform is not None:
            resampler.SetTransform(transform)
            resampler.SetDefaultPixelValue(float(volume.data.min()))
        resampler.Update()
        read = to_volume(resampler.GetOutput())
        if transform is not None:
            return read
        index = transform_index(index_map(grid, volume.grid), base_index(grid.shape, like=volume.data))
        within = inside(index, volume.grid.shape)
        return Volume(torch.where(within, read.data, volume.on(grid).data), grid)

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
    """The features with one component a channel, also where that is one, in memory of ITK's own."""
    itk, data = import_itk(), layer.features.data
    image = itk.VectorImage[itk.F, layer.grid.dimension].New()
    image.SetRegions(layer.grid.size_xyz)
    image.SetNumberOfComponentsPerPixel(len(data))
    image.Allocate()
    itk.array_view_from_image(image)[...] = data.movedim(0, -1).float().cpu().numpy()
    return with_itk_header(image, layer.grid)
