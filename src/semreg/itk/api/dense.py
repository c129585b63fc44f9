"""What ``ImpactCoarseRegistration`` and ``ImpactFineRegistration`` share: images, masks, models and the field.

Each stage says what its options are in the core's settings; ``semreg.register`` does the work. No arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from semreg.config import ModelConfig, RegistrationConfig
from semreg.core.fields import Field
from semreg.core.geometry import Grid
from semreg.errors import ConfigError
from semreg.io.bridge import grid_of_itk, import_itk, itk_field, itk_image, itk_transform, to_volume
from semreg.itk.api import checks
from semreg.itk.api.comparing import Comparing
from semreg.itk.api.model_configuration import Comparison, ImpactModelConfiguration, pairings
from semreg.itk.api.objects import Option, image_of
from semreg.itk.api.process import Process
from semreg.registration.matching import Pairing
from semreg.registration.pipeline import register
from semreg.registration.result import Registration
from semreg.registration.stages import STAGES
from semreg.runtime.devices import choose_device
from semreg.runtime.events import Step

FIELD, WARPED = 0, 1
"""The images of ITK's pipeline: the only output with an index, and that of ``GetWarpedMovingImage``."""


class DenseRegistration(Comparing, Process):
    """What both stages share: images, masks, models, how they are compared, and the field that comes out."""

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("FixedImage", None, checks.anything, "The image whose grid the field lies on."),
        Option("MovingImage", None, checks.anything, "The image that is brought onto it."),
        Option("FixedMask", None, checks.anything, "Where the fixed image counts, values 0 to 1; None: everywhere."),
        Option("MovingMask", None, checks.anything, "Where the moving image counts; None: everywhere."),
    )
    IMAGES = ("FixedImage", "MovingImage", "FixedMask", "MovingMask")

    def __init__(self) -> None:
        """No images, no result."""
        super().__init__()
        self.clear()

    def clear(self) -> None:
        """Drop the result and what was made of it."""
        self._result: Registration | None = None
        self._transform: Any = None

    def SetFixedImage(self, value: Any) -> None:  # noqa: N802 (ITK's name, as all below)
        """The image whose grid the field lies on; any scalar type in 2-D or 3-D."""
        self._set_image("FixedImage", value)

    def SetMovingImage(self, value: Any) -> None:  # noqa: N802
        """The image that is brought onto it, on any grid."""
        self._set_image("MovingImage", value)

    def SetFixedMask(self, value: Any) -> None:  # noqa: N802
        """Where the fixed image counts, values 0 to 1 on any grid; None: everywhere."""
        self._set_image("FixedMask", value)

    def SetMovingMask(self, value: Any) -> None:  # noqa: N802
        """Where the moving image counts, values 0 to 1 on any grid; None: everywhere."""
        self._set_image("MovingMask", value)

    def _set_image(self, name: str, value: Any) -> None:
        self._values[name] = image_of(name, value, self.DIMENSION)
        self.Modified()

    def inputs(self) -> Iterator[Any]:
        """Images and masks that were set."""
        return (self._values[name] for name in self.IMAGES if self._values[name] is not None)

    def check_inputs(self) -> None:
        """ConfigError where one of the two images was not set."""
        for name in ("FixedImage", "MovingImage"):
            if self._values[name] is None:
                raise ConfigError(f"expected a {name} for {self.GetNameOfClass()}, got none: call Set{name}")

    def models(self, *, redraw: bool = False) -> tuple[tuple[ModelConfig, ...], Sequence[Pairing] | None]:
        """The core's settings of the models, and the loaded models; None where the intensities are compared."""
        values = self._values
        near, far = values["FixedModelsConfiguration"], values["MovingModelsConfiguration"]
        if self._bare():
            near = far = (ImpactModelConfiguration("intensity"),)
        comparison = Comparison(
            dimension=int(values["FixedImage"].GetImageDimension()),
            distance=values["Distance"],
            weight=values["LayersWeight"],
            subset=values["SubsetFeatures"],
            channels=True,
            pca=values["PCA"],
            redraw=redraw,
            jacobian=self._mode() == "jacobian",
        )
        entries, models = pairings(near, far, comparison, choose_device(values["Device"]))
        if self._bare():  # the intensities mean the same in both images
            models = [replace(each, config=replace(each.config, statistics="fixed")) for each in models]
            entries = tuple(each.config for each in models)
        return entries, models

    def _bare(self) -> bool:
        """Whether there is no model, so that the intensities themselves are compared."""
        return not self._values["FixedModelsConfiguration"] and not self._values["MovingModelsConfiguration"]

    def _mode(self) -> Literal["static", "jacobian"]:
        return "static"

    def _finest_mm(self) -> float:
        """The voxel that scripts count in: the finest axis of the fixed image, mm."""
        return float(min(self._values["FixedImage"].GetSpacing()))

    def settings(self) -> RegistrationConfig:
        """What ``semreg.register`` does the same with. Raises ConfigError, and what loading a model raises."""
        return self._configured()[0]

    def _configured(self) -> tuple[RegistrationConfig, Sequence[Pairing] | None]:
        raise NotImplementedError

    def _initial(self) -> Field | None:
        return None

    def generate(self) -> None:
        """Register; the result is kept until something changes and ``Update`` runs again."""
        values = self._values
        config, models = self._configured()
        masks = {
            name: None if values[name] is None else to_volume(values[name]) for name in ("FixedMask", "MovingMask")
        }
        self.UpdateProgress(0.02)
        self._result = register(
            to_volume(values["FixedImage"]),
            to_volume(values["MovingImage"]),
            model=models,
            config=config,
            initial=self._initial(),
            fixed_mask=masks["FixedMask"],
            moving_mask=masks["MovingMask"],
            device=values["Device"],
            on_step=self._step,
        )

    def _step(self, step: Step) -> None:
        """What a step of the core is for observers; stops where somebody asked for it."""
        self.UpdateProgress(max(self._progress, _progress(step)))
        if step.stage in ("coarse", "refine"):
            self._invoke("IterationEvent")
        self.check_abort()

    def result(self) -> Registration:
        """What ``semreg.register`` returned, with its record. ConfigError before ``Update`` and where it failed."""
        if self._result is None:
            raise ConfigError(
                f"expected {self.GetNameOfClass()} to be updated, it was not, or that failed: call Update first"
            )
        return self._result

    def image_type(self, index: int, dimension: int) -> Any:
        """Vectors for the displacement, scalars for the warped image."""
        itk = import_itk()
        if index not in (FIELD, WARPED):
            raise ConfigError(f"expected output 0 of {self.GetNameOfClass()}, got {index}: it has one")
        return itk.Image[itk.Vector[itk.F, dimension] if index == FIELD else itk.F, dimension]

    def layout(self, index: int) -> tuple[Grid, int]:
        """That of the fixed image."""
        self.check_inputs()
        grid = grid_of_itk(self._values["FixedImage"])
        return grid, grid.dimension if index == FIELD else 1

    def made(self, index: int) -> Any:
        """The displacement in mm, or the moving image on the fixed grid."""
        result = self.result()
        return itk_field(result.field) if index == FIELD else itk_image(result.warped)

    def GetDisplacementField(self) -> Any:  # noqa: N802
        """``itk.Image[itk.Vector[itk.F, D], D]`` on the fixed grid: displacements in mm, x first, fixed → moving."""
        return self._output(FIELD).image

    def GetOutput(self, index: int = 0) -> Any:  # noqa: N802
        """The displacement field."""
        if index != 0:
            raise ConfigError(f"expected output 0 of {self.GetNameOfClass()}, got {index}: it has one")
        return self.GetDisplacementField()

    def GetDisplacementFieldTransform(self) -> Any:  # noqa: N802
        """The field as an ``itk.DisplacementFieldTransform[itk.D, D]`` for ``itk.ResampleImageFilter``."""
        if self._transform is None:
            self._transform = itk_transform(self.result().field)
        return self._transform

    def GetWarpedMovingImage(self) -> Any:  # noqa: N802
        """The moving image on the fixed grid, ``itk.Image[itk.F, D]``; of ITK's pipeline, as the field is."""
        return self._output(WARPED).image


def _progress(step: Step) -> float:
    """The share of a run that is done when a step ends."""
    names = [stage.name for stage in STAGES]
    number = names.index(step.stage) if step.stage in names else 0
    within = (step.level - 1 + step.iteration / step.iterations) / step.levels
    return sum(stage.share for stage in STAGES[:number]) + within * STAGES[number].share
