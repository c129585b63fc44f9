"""``ImpactImageToImageMetricv4``: features compared at sample points in ITK's own registration. No arithmetic."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from semreg.config import FeatureConfig
from semreg.core.fields import Volume
from semreg.core.geometry import Grid
from semreg.errors import ConfigError, OutputError
from semreg.io.files import write_image
from semreg.itk.api import checks
from semreg.itk.api.comparing import Comparing
from semreg.itk.api.metricv4 import Points, PythonMetricv4
from semreg.itk.api.model_configuration import Comparison, pairings
from semreg.itk.api.objects import ITKObject, Option
from semreg.itk.sampled.config import SampledConfig
from semreg.itk.sampled.objective import FEWEST, Rows, SampledObjective, check_count, spacing_of_level
from semreg.runtime.devices import choose_device

logger = logging.getLogger("semreg")


class ImpactImageToImageMetricv4(PythonMetricv4, Comparing):
    """The distance between deep features of two images, after Boussot et al., IMPACT, arXiv:2503.24121.

    A metric for ``itk.ImageRegistrationMethodv4`` and ITK's v4 optimisers: ``ImpactImageToImageMetricv4[ImageType,
    ImageType].New()``. A distance is a mean over channels and sample points; several layers add up by their weights.
    In the mode Static features of both images are extracted once at each level and interpolated; in the mode Jacobian
    the models run on patches around the sample points, ``BatchSize`` at a time, and are differentiated.
    """

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option(
            "FeatureMapsPath", "", checks.text, "Folder for the feature maps of the last level; empty: not written."
        ),
        Option("Mode", "", checks.one_of("", "Static", "Jacobian"), "Static or Jacobian; empty: Static."),
        Option("BatchSize", 64, checks.whole(1), "Patches that a model is given at once in the mode Jacobian."),
        Option(
            "FeaturesMapUpdateInterval",
            0,
            checks.interval,
            "Evaluations with a derivative after which moving features are extracted again from the warped image; "
            "0 and -1: never.",
        ),
    )

    def __init__(self) -> None:
        """No models yet."""
        super().__init__()
        self._objective: SampledObjective | None = None
        self._kept: list[Prepared] = []
        self._state: tuple[int, Grid] | None = None
        self._evaluated = False
        self._derivatives = 0
        self._renew = False
        self._total_weight = 1.0

    def UpdateMovingFeaturesMaps(self) -> None:  # noqa: N802 (ITK's name, as below)
        """Extract the moving features again, from the image warped by the transform, in the next evaluation."""
        self._renew = True

    def GetLosses(self) -> tuple[float, ...]:  # noqa: N802
        """The distance of each kept layer at the last evaluation, before it is divided or weighted."""
        return () if self._objective is None else tuple(self._objective.losses)

    def Modified(self) -> None:  # noqa: N802
        """Say that a setting was changed, to ITK too."""
        super().Modified()
        if hasattr(self, "on_modified"):
            self.on_modified()

    def initialize(self) -> None:
        """Load the models, and in the mode Static extract the features of both images.

        Where neither settings nor virtual domain have changed, losses are divided by the same first values as before,
        and features of the same two images are kept: some registrations initialise before every evaluation.
        """
        state = (ITKObject.GetMTime(self), self.virtual)
        if state != self._state:
            self._state, self._objective, self._kept = state, None, []  # the features of the level before make room
        self._evaluated, self._derivatives, self._renew = False, 0, False
        for kept in self._kept:
            if kept.shows(self.fixed, self.moving):
                self._objective = kept.objective
                return
        units = self._kept[-1].objective.units if self._kept else None
        # a registration in both directions swaps the images; others are gone for good
        self._kept = [kept for kept in self._kept[-1:] if kept.shows(self.moving, self.fixed)]
        self._objective = objective = self._prepare()
        objective.units = units
        self._kept.append(Prepared(self.fixed, self.moving, objective))
        if self._values["FeatureMapsPath"]:
            write_maps(objective, Path(self._values["FeatureMapsPath"]))

    def _prepare(self) -> SampledObjective:
        """Models and features."""
        values = self._values
        if not values["FixedModelsConfiguration"] or not values["MovingModelsConfiguration"]:
            raise ConfigError("expected at least one model for the metric, got none: call AddModelConfiguration")
        device = choose_device(values["Device"])
        mode: Literal["static", "jacobian"] = "jacobian" if values["Mode"] == "Jacobian" else "static"
        if mode == "jacobian" and values["FeatureMapsPath"]:
            raise ConfigError(
                "expected no FeatureMapsPath in the mode Jacobian, which has no maps, got one: leave it out"
            )
        comparison = Comparison(
            dimension=self.fixed.grid.dimension,
            distance=values["Distance"],
            weight=values["LayersWeight"],
            subset=values["SubsetFeatures"],
            pca=values["PCA"],
            points=mode == "jacobian",
        )
        models, pairs = pairings(
            values["FixedModelsConfiguration"], values["MovingModelsConfiguration"], comparison, device
        )
        config = SampledConfig(
            mode=mode,
            models=models,
            features=FeatureConfig(spacing_mm=spacing_of_level(pairs, self.fixed.grid, self.virtual)),
            seed=values["Seed"],
            normalise_losses=values["NormalizeLosses"],
            batch_size=values["BatchSize"],
        )
        self._total_weight = sum(weight for entry in models for weight in entry.weight)
        return SampledObjective(self.fixed, self.moving, config, pairs, device)

    def place(self, fixed_points: Points) -> None:
        """Read the fixed features at the sample points; GeometryError where there are too few of them."""
        check_count(len(fixed_points), "in the fixed image: raise the sampling percentage, or enlarge the mask")
        self._prepared().place(fixed_points)

    def evaluate_rows(self, rows: Rows, moving_points: Points, *, derivative: bool) -> tuple[float, Points | None]:
        """The weighted sum of the distances, and its derivative in the moving points, per mm."""
        objective, interval = self._prepared(), self._values["FeaturesMapUpdateInterval"]
        if len(rows) < FEWEST and self._evaluated:  # as ITK has it where no point is left: as bad as it gets
            logger.warning("%d sample points are left in the moving image: the value is the largest number", len(rows))
            return float(np.finfo(np.float64).max), np.zeros_like(moving_points)
        check_count(len(rows), "in the moving image: check the initial transform, or raise the sampling percentage")
        self._evaluated = True
        due = derivative and interval > 0 and self._derivatives and self._derivatives % interval == 0
        if due or self._renew:
            objective.renew(self.moving_points)
            self._renew, self._kept = False, []  # they are no longer those of the image as it lies
        total = self._total_weight  # the objective is a weighted mean, scripts expect the sum
        if not derivative:
            return total * objective.value(rows, moving_points), None
        self._derivatives += 1
        value, slope = objective.evaluate(rows, moving_points)
        return total * value, total * slope

    def _prepared(self) -> SampledObjective:
        if self._objective is None:
            raise ConfigError("expected Initialize() before a value is asked for: call it after the settings")
        return self._objective


@dataclass(frozen=True)
class Prepared:
    """An objective and the images that it was made of."""

    fixed: Volume
    moving: Volume
    objective: SampledObjective

    def shows(self, fixed: Volume, moving: Volume) -> bool:
        """Whether it was made of these images, voxel by voxel."""
        pairs = ((self.fixed, fixed), (self.moving, moving))
        return all(a.grid == b.grid and torch.equal(a.data, b.data) for a, b in pairs)


def write_maps(objective: SampledObjective, folder: Path) -> None:
    """The features that are compared, as ``fixed_0.nrrd``, ``moving_0.nrrd`` and so on; none in the mode Jacobian."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"expected a folder for the feature maps in {folder}, got: {error}: choose another"
        ) from error
    maps = objective.feature_maps
    for image, layers in (("fixed", maps.fixed), ("moving", maps.moving)):
        for number, layer in enumerate(layers):
            write_image(layer.features, folder / f"{image}_{number}.nrrd")
