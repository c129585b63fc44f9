"""``ImpactCoarseRegistration`` and ``ImpactFineRegistration``: the two stages of ``semreg.register`` as ITK filters.

Options are in the words and units of itk-impact (voxels of the fixed image's finest axis) and become a
``RegistrationConfig`` (``settings``), with which ``semreg.register`` gives the same field. No arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

from semreg.config import AlignConfig, CoarseConfig, FeatureConfig, IntensityConfig, RefineConfig, RegistrationConfig
from semreg.core.fields import Field
from semreg.errors import ConfigError
from semreg.io.bridge import field_of_itk
from semreg.itk.api import checks
from semreg.itk.api.dense import DenseRegistration
from semreg.itk.api.objects import Option
from semreg.registration.matching import Pairing
from semreg.runtime.events import Step

EVEN_POOLING = 2
"""Features of a large image are averaged over this many voxels where the coarse grid is a multiple of it anyway."""


AS_GIVEN = AlignConfig(transform="none")
UNTREATED = IntensityConfig(padding=False, winsorise=False, body=False)
"""As in itk-impact, images are compared where they lie and as they are."""

NO_EFFECT = "Accepted; models see tiles that fit into memory here, whatever it is."


class ImpactCoarseRegistration(DenseRegistration):
    """Discrete search over dense windows of a coarse grid: displacements of many voxels without an initial guess.

    One level of nodes ``GridSpacing`` voxels apart and windows of ± ``DisplacementHalfWidth`` nodes, with the costs,
    the coupled-convex regularisation and the inverse consistency of ``semreg.register``; then a smooth displacement
    through the nodes that folds nowhere. Without a model the standardised intensities are compared, which must mean the
    same in both images. Method: Siebert, Großbröhmer, Hansen, Heinrich: ConvexAdam. IEEE Transactions on Medical
    Imaging, 2024.
    """

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option(
            "BalanceLosses",
            False,
            checks.switch,
            "Whether the costs of several layers are divided by their spread over a window instead.",
            switch=True,
        ),
        Option("GridSpacing", 4, checks.whole(1), "Distance of the nodes in voxels of the finest axis."),
        Option("DisplacementHalfWidth", 3, checks.whole(1), "Half width of the windows in nodes."),
        Option("InverseConsistency", True, checks.switch, "Whether it searches in both directions.", switch=True),
    )

    def GetLayerSpreads(self) -> tuple[float, ...]:  # noqa: N802
        """Range of each kept layer's costs over a window, mean over the nodes; empty without BalanceLosses."""
        return () if self._result is None else self._result.record.spreads

    def _configured(self) -> tuple[RegistrationConfig, Sequence[Pairing] | None]:
        values, finest = self._values, self._finest_mm()
        entries, models = self.models()
        normalised: Literal["first", "raw"] = "first" if values["NormalizeLosses"] else "raw"
        config = RegistrationConfig(
            seed=values["Seed"],
            models=entries,
            align=AS_GIVEN,
            intensities=UNTREATED,
            features=FeatureConfig(pooling=None if values["GridSpacing"] % EVEN_POOLING == 0 else 1),
            coarse=CoarseConfig(
                levels=1,
                spacing_mm=values["GridSpacing"] * finest,
                half_width=values["DisplacementHalfWidth"],
                inverse_consistency=values["InverseConsistency"],
                balance="spread" if values["BalanceLosses"] else normalised,
            ),
            refine=RefineConfig(enabled=False),
        )
        return config, models


class ImpactFineRegistration(DenseRegistration):
    """Adam on a grid of control points, from an initial displacement or none.

    The loss is the weighted sum of the distances plus ``RegularizationWeight`` times the mean squared gradient (mm per
    mm) of the whole displacement, the initial one included. A step that raises it clearly is taken back; the field of
    the least loss is returned, and smoothed where it would fold. Without a model intensities are compared that mean the
    same in both images, and with ``NormalizeLosses`` their loss is relative to that of unrelated images.
    """

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("InitialDisplacementField", None, checks.anything, "Where it starts; None: nothing moves."),
        Option("LNCCKernel", 5, checks.odd, "Edge of the windows of LNCC in voxels."),
        Option("SamplingPercentage", 1.0, checks.SHARE, "Share of the voxels that are compared in an iteration."),
        Option("BatchSize", 0, checks.whole(), NO_EFFECT),
        Option("NumberOfIterations", 80, checks.whole(), "Steps of Adam; 0: the initial displacement stays."),
        Option("LearningRate", 1.0, checks.POSITIVE, "About the step of a control point, voxels of the finest axis."),
        Option("Beta1", 0.9, checks.BELOW_ONE, "Share of the mean gradient that is kept from step to step."),
        Option("Beta2", 0.999, checks.BELOW_ONE, "The same for its square."),
        Option("Epsilon", 1e-8, checks.POSITIVE, "Added to the root of the mean squared gradient."),
        Option("RegularizationWeight", 1.25, checks.NOT_NEGATIVE, "Weight of the diffusion of the displacement."),
        Option("GridShrinkFactor", 1, checks.whole(1), "Distance of the control points, voxels of the finest axis."),
        Option(
            "ControlGridSmoothingIterations", 0, checks.whole(), "Times the control points are averaged over 3 an axis."
        ),
        Option("FeatureMapUpdateInterval", -1, checks.interval, "Iterations after which features are extracted again."),
        Option("Mode", "Static", checks.one_of("Static", "Jacobian"), "Jacobian differentiates through the model."),
        Option("FeatureChunkSize", 32, checks.whole(), NO_EFFECT),
    )

    def __init__(self) -> None:
        """No images, no result."""
        super().__init__()
        self._trace: list[float] = []
        self._scale = 1.0

    def SetInitialDisplacementField(self, value: Any) -> None:  # noqa: N802
        """An ``itk.Image[itk.Vector[itk.F, D], D]`` on any grid, mm, or an ``itk.DisplacementFieldTransform``.

        None: nothing moves. TypeError for anything else, ConfigError for a transform that has no field.
        """
        transform = hasattr(value, "GetDisplacementField") and not hasattr(value, "Update")
        field = value.GetDisplacementField() if transform else value
        if transform and field is None:
            raise ConfigError(
                "expected a DisplacementFieldTransform with a field for InitialDisplacementField, got one without: "
                "call its SetDisplacementField first, or pass None to start from nothing"
            )
        if field is not None and not hasattr(field, "GetLargestPossibleRegion") and not hasattr(field, "GetOutput"):
            raise TypeError(
                "expected an image of vectors or an itk.DisplacementFieldTransform for InitialDisplacementField, got "
                f"{type(value).__name__}: make a field of another transform with itk.TransformToDisplacementFieldFilter"
            )
        self._set_image("InitialDisplacementField", field)

    def inputs(self) -> Iterator[Any]:
        """Images, masks and the initial field."""
        yield from super().inputs()
        if self._values["InitialDisplacementField"] is not None:
            yield self._values["InitialDisplacementField"]

    def GetMetricValuesPerIteration(self) -> tuple[float, ...]:  # noqa: N802
        """Loss and regularity at each iteration so far, the first one at the start; readable while it runs."""
        return tuple(self._trace)

    def GetReturnedIteration(self) -> int:  # noqa: N802
        """After how many iterations the field was as it is returned: the one of the lowest value, 0 for the start."""
        levels = self.result().record.convergence
        return levels[-1].returned

    def GetReturnedMetricValue(self) -> float:  # noqa: N802
        """Loss and regularity of the field that is returned, in the unit of ``GetMetricValuesPerIteration``."""
        values = self.result().record.convergence[-1].objective
        return self._trace[0] * values[self.GetReturnedIteration()] / values[0] if values else self._trace[0]

    def GetCurrentIteration(self) -> int:  # noqa: N802
        """The iteration that is running or was the last, counted from 1; 0 before the first."""
        return len(self._trace)

    def _mode(self) -> Literal["static", "jacobian"]:
        return "jacobian" if self._values["Mode"] == "Jacobian" else "static"

    def _initial(self) -> Field | None:
        field = self._values["InitialDisplacementField"]
        return None if field is None else field_of_itk(field)

    def generate(self) -> None:
        """Refine, and keep the trace."""
        self._trace = []
        super().generate()
        if self._values["NumberOfIterations"]:
            self._trace = self._trace or [0.0]  # equal features: there was nothing to lower

    def _step(self, step: Step) -> None:
        if step.stage == "refine":
            self._trace.append(step.objective * self._scale)
        super()._step(step)

    def _configured(self) -> tuple[RegistrationConfig, Sequence[Pairing] | None]:
        values, finest = self._values, self._finest_mm()
        if values["SamplingPercentage"] < 1 and (self._mode() == "jacobian" or "LNCC" in values["Distance"]):
            raise ConfigError(
                "expected SamplingPercentage 1 in the mode Jacobian and for LNCC, which look at neighbouring voxels, "
                f"got {values['SamplingPercentage']}: use the mode Static and another distance, or 1"
            )
        entries, models = self.models(redraw=self._mode() == "static")
        self._scale = sum(weight for entry in entries for weight in entry.weight)
        axes = int(values["FixedImage"].GetImageDimension())
        config = RegistrationConfig(
            seed=values["Seed"],
            models=entries,
            align=AS_GIVEN,
            intensities=UNTREATED,
            features=FeatureConfig(pooling=1),
            coarse=CoarseConfig(enabled=False),
            refine=RefineConfig(
                enabled=values["NumberOfIterations"] > 0,
                mode=self._mode(),
                update_every=max(0, values["FeatureMapUpdateInterval"]) if self._mode() == "static" else 0,
                optimizer="adam",
                levels=1,
                iterations=max(1, values["NumberOfIterations"]),
                step_mm=values["LearningRate"] * finest,
                beta1=values["Beta1"],
                beta2=values["Beta2"],
                epsilon=values["Epsilon"],
                sampling=values["SamplingPercentage"],
                smoothing=values["ControlGridSmoothingIterations"],
                control_mm=values["GridShrinkFactor"] * finest,
                # the mean over the components there, their sum here; and the core's weights of layers sum to 1
                diffusion=values["RegularizationWeight"] / (axes * self._scale),
                relative_to="unrelated" if self._bare() else "start",
                folding=0.0,  # with the steps of Adam its sixth powers run away; folds are smoothed at the end
                continues=True,
                window=values["LNCCKernel"],
                balance="first" if values["NormalizeLosses"] else "raw",
                symmetric=False,
            ),
        )
        return config, models
