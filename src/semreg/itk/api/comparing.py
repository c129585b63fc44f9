"""What the registrations and the metric share: which models see the two images, and how their features are compared."""

from __future__ import annotations

from typing import Any, ClassVar

from semreg.itk.api import checks
from semreg.itk.api.impact_model import ImpactModelConfiguration, configurations
from semreg.itk.api.objects import ITKObject, Option


class Comparing(ITKObject):
    """Options of models and distances, with one value for each kept layer over all models, or for each model."""

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("FixedModelsConfiguration", (), configurations, "Models of the fixed image."),
        Option("MovingModelsConfiguration", (), configurations, "Models of the moving image, one for each of those."),
        Option("SubsetFeatures", (), checks.listed(checks.whole()), "Channels drawn of each kept layer; 0: all."),
        Option("PCA", (), checks.listed(checks.whole()), "Principal components, one number a model; 0: all channels."),
        Option("Distance", (), checks.listed(checks.distance), "How each kept layer is compared; none: L2."),
        Option("LayersWeight", (), checks.weights, "Weight of each kept layer; none: 1."),
        Option(
            "NormalizeLosses",
            True,
            checks.switch,
            "Whether losses are divided by their first value; in the search the scale of their sum stays.",
            switch=True,
        ),
        Option("Device", "cpu", checks.device, "Where it is computed: cpu, cuda, cuda:n, mps or auto."),
        Option("Seed", 0, checks.whole(), "Seed of all random numbers."),
    )

    def SetModelsConfiguration(self, value: Any) -> None:  # noqa: N802 (ITK's name, as all below)
        """The same models for both images."""
        self.set_option("FixedModelsConfiguration", value)
        self.set_option("MovingModelsConfiguration", value)

    def GetModelsConfiguration(self) -> tuple[ImpactModelConfiguration, ...]:  # noqa: N802
        """The models of the fixed image."""
        found: tuple[ImpactModelConfiguration, ...] = self._values["FixedModelsConfiguration"]
        return found

    def AddModelConfiguration(self, value: Any) -> None:  # noqa: N802
        """One more model, for both images."""
        self.AddFixedModelConfiguration(value)
        self.AddMovingModelConfiguration(value)

    def AddFixedModelConfiguration(self, value: Any) -> None:  # noqa: N802
        """One more model for the fixed image."""
        self._add("FixedModelsConfiguration", value)

    def AddMovingModelConfiguration(self, value: Any) -> None:  # noqa: N802
        """One more model for the moving image."""
        self._add("MovingModelsConfiguration", value)

    def _add(self, name: str, value: Any) -> None:
        self._values[name] += configurations(name, [value])
        self.Modified()
