"""What itk-impact promises of its filters and its metric, measured on textures with a known answer, as JSON.

python benchmarks/run_promises.py MODELS [--only NAME ...]

The same script in both environments: the classes are semreg's where semreg is installed, else itk-impact's. MODELS is a
folder for two small networks, which are written there if they are missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

SEMREG = importlib.util.find_spec("semreg") is not None
SHIFT = (1.5, -2.0, 1.0)
"""Voxels along x, y, z by which the moving texture lies further."""
DISTANCES = ("L1", "L2", "NCC", "Cosine", "L1Cosine", "Dice")
"""Those of both packages; itk-impact 0.1.6 has DotProduct no more."""
WAVES = 60
MOST_ITERATIONS = 300
"""Of a refinement; the tests, which ask for the same figures, lower it."""
TURN = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What is measured, its bar, and how."""

    name: str
    bar: float
    """The figure must be below it."""
    measure: Callable[[Path], float]
    unit: str = "mm"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Two images of one texture: size, spacing, direction, and the shift in voxels."""

    size: int = 20
    shift: Sequence[float] = SHIFT
    spacing: Sequence[float] = (1.0, 1.0, 1.0)
    turned: bool = False

    @property
    def direction(self) -> np.ndarray:
        """Direction cosines."""
        axes = len(self.shift)
        return TURN[:axes, :axes] if self.turned else np.eye(axes)

    @property
    def truth(self) -> np.ndarray:
        """The displacement in mm, x first."""
        found: np.ndarray = self.direction @ (np.asarray(self.spacing)[: len(self.shift)] * np.asarray(self.shift))
        return found

    def image(self, shift: Sequence[float] | None = None) -> Any:
        """The texture, moved by ``shift`` voxels."""
        import itk

        axes = len(self.shift)
        grid = np.meshgrid(*[np.arange(self.size)] * axes, indexing="ij")[::-1]
        values = texture([x - s for x, s in zip(grid, shift or [0.0] * axes, strict=True)])
        image = itk.image_from_array(values.astype(np.float32))
        image.SetSpacing([float(s) for s in self.spacing[:axes]])
        image.SetDirection(itk.matrix_from_array(self.direction))
        return image

    def pair(self) -> tuple[Any, Any]:
        """Fixed and moving image."""
        return self.image(), self.image(self.shift)

    def error(self, displacement: Any, margin: int = 6) -> float:
        """Mean distance from the truth on the worst axis, mm, in the inner voxels."""
        import itk

        inner = (slice(margin, -margin),) * len(self.shift)
        found = itk.array_from_image(displacement)[inner].reshape(-1, len(self.shift))
        return float(np.abs(found - self.truth).mean(0).max())


def texture(axes: Sequence[np.ndarray]) -> np.ndarray:
    """A smooth random pattern of mean square 1: 60 waves of 8 to 20 voxels in all directions."""
    random = np.random.default_rng(5)
    pattern = np.zeros_like(axes[0], dtype=np.float64)
    for _ in range(WAVES):
        direction = random.normal(size=len(axes))
        per_voxel = 2 * np.pi / random.uniform(8.0, 20.0) * direction / np.linalg.norm(direction)
        pattern += np.sin(sum(k * x for k, x in zip(per_voxel, axes, strict=True)) + random.uniform(0, 2 * np.pi))
    return np.asarray(pattern * np.sqrt(2 / WAVES))


def networks(folder: Path) -> None:
    """Two networks in TorchScript: both layers of the image's size, and both at half of it."""
    import torch
    from torch import Tensor, nn

    class Two(nn.Module):
        """Four channels of a convolution, and the image with its square."""

        def __init__(self, pooling: int) -> None:
            super().__init__()
            torch.manual_seed(11)
            self.convolution = nn.Conv3d(1, 4, 3, padding=1, padding_mode="replicate")
            self.pool = nn.AvgPool3d(pooling)

        def forward(self, x: Tensor) -> list[Tensor]:
            """Both layers."""
            return [self.pool(self.convolution(x)), self.pool(torch.cat([x, 0.25 * x * x], 1))]

    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript itself
        for name, pooling in (("whole.pt", 1), ("half.pt", 2)):
            if not (folder / name).exists():
                torch.jit.trace(Two(pooling).eval(), torch.rand(1, 1, 12, 12, 12), strict=False).save(
                    str(folder / name)
                )


def classes() -> Any:
    """The package itk, with the classes of whoever is installed."""
    import itk

    if SEMREG:
        import semreg.itk.api  # noqa: F401
    return itk


def configuration(path: Path, mask: Sequence[bool] = (True, True)) -> Any:
    """A network on the whole image, voxels of 1 mm."""
    return classes().ImpactModelConfiguration(str(path), 3, 1, [0] * 3, [1.0] * 3, [0] * 3, list(mask), False)


@dataclass(frozen=True, kw_only=True)
class Fine:
    """A refinement: the scene, the network and the settings that differ from the defaults."""

    scene: Scene = field(default_factory=Scene)
    network: str | None = None
    mask: tuple[bool, bool] = (True, True)
    settings: tuple[tuple[str, Any], ...] = ()
    iterations: int = MOST_ITERATIONS
    rate: float = 0.2

    def run(self, models: Path, start: Any = None) -> Any:
        """The filter after ``Update``."""
        itk = classes()
        fixed, moving = self.scene.pair()
        made = itk.ImpactFineRegistration[type(fixed), type(fixed)].New()
        made.SetFixedImage(fixed)
        made.SetMovingImage(moving)
        if start is not None:
            made.SetInitialDisplacementField(start)
        if self.network:
            made.AddModelConfiguration(configuration(models / self.network, self.mask))
            made.SetDistance(["L2"] * sum(self.mask))
            made.SetLayersWeight([1.0] * sum(self.mask))
        made.SetNumberOfIterations(min(self.iterations, MOST_ITERATIONS))
        made.SetLearningRate(self.rate)
        made.SetRegularizationWeight(0.02)
        for name, value in self.settings:
            getattr(made, f"Set{name}")(list(value) if isinstance(value, tuple) else value)
        made.Update()
        return made

    def error(self, models: Path) -> float:
        """Of its field, mm."""
        return self.scene.error(ran(self, models).GetDisplacementField())


@cache
def ran(fine: Fine, models: Path) -> Any:
    """The refinement without a start, run once."""
    return fine.run(models)


@cache
def coarse(scene: Scene) -> Any:
    """The filter of a search in steps of two voxels."""
    itk = classes()
    fixed, moving = scene.pair()
    made = itk.ImpactCoarseRegistration[type(fixed), type(fixed)].New()
    made.SetFixedImage(fixed)
    made.SetMovingImage(moving)
    made.SetGridSpacing(2)
    made.SetDisplacementHalfWidth(4)
    made.Update()
    return made


FAR = Scene(size=28, shift=(5.0, -4.0, 3.0))


def searched(scene: Scene) -> Callable[[Path], float]:
    """The error of the search alone."""
    return lambda _: scene.error(coarse(scene).GetDisplacementField(), 8)


@cache
def refined_after_search(models: Path) -> float:
    """The error after the search and a refinement from there."""
    made = Fine(scene=FAR, iterations=150, rate=0.1).run(models, coarse(FAR).GetDisplacementField())
    return FAR.error(made.GetDisplacementField(), 8)


def gained_by_refinement(models: Path) -> float:
    """By how much the refinement is worse than the search that it starts from; negative: better."""
    return refined_after_search(models) - searched(FAR)(models)


def constant_field(image: Any, displacement: Iterable[float]) -> Any:
    """The same displacement, mm, everywhere on the grid of ``image``."""
    itk = classes()
    values = np.broadcast_to(np.float32(list(displacement)), (*itk.array_view_from_image(image).shape, 3))
    made = itk.image_from_array(np.ascontiguousarray(values), ttype=itk.Image[itk.Vector[itk.F, 3], 3])
    made.CopyInformation(image)
    return made


def warm_start(models: Path) -> float:
    """From a start that is off by half a voxel along two axes."""
    scene = Scene(size=28, shift=(2.0, -1.5, 1.0))
    start = constant_field(scene.image(), scene.truth + np.array([0.5, 0.0, -0.5]))
    return scene.error(Fine(scene=scene, iterations=80, rate=0.1).run(models, start).GetDisplacementField())


def identity(_: Path) -> float:
    """The largest displacement, and intensity of the warped image, that no iteration leaves, on an oblique grid."""
    itk = classes()
    scene = Scene(spacing=(1.3, 0.8, 1.1), turned=True, shift=(0.0, 0.0, 0.0))
    made = Fine(scene=scene, iterations=0).run(Path())
    difference = itk.array_from_image(made.GetWarpedMovingImage()) - itk.array_from_image(scene.image())
    return float(max(np.abs(itk.array_from_image(made.GetDisplacementField())).max(), np.abs(difference).max()))


def trace_left(settings: Fine) -> Callable[[Path], float]:
    """What is left of the objective at the end."""

    def measure(models: Path) -> float:
        trace = list(ran(settings, models).GetMetricValuesPerIteration())
        return trace[-1] / trace[0]

    return measure


def one_control_point(_: Path) -> float:
    """0 where a control grid of one point gives a finite field, else infinity."""
    itk = classes()
    scene = Scene(size=16, shift=(1.0, -1.0, 0.5))
    found = Fine(scene=scene, iterations=10, settings=(("GridShrinkFactor", 16),)).run(Path()).GetDisplacementField()
    return 0.0 if np.isfinite(itk.array_from_image(found)).all() else math.inf


def metric_of(models: Path, distance: str, moving: Any, transform: Any) -> Any:
    """The metric of four channels, in the mode Static."""
    itk = classes()
    fixed = Scene(size=16).image()
    made = itk.ImpactImageToImageMetricv4[type(fixed), type(fixed)].New()
    made.AddModelConfiguration(configuration(models / "whole.pt", (True, False)))
    for name, value in {"Distance": [distance], "LayersWeight": [1.0], "SubsetFeatures": [4], "PCA": [0], "Seed": 1,
                        "Mode": "Static", "Device": "cpu"}.items():  # fmt: skip
        getattr(made, f"Set{name}")(value)
    made.SetFixedImage(fixed)
    made.SetMovingImage(moving)
    made.SetFixedTransform(itk.IdentityTransform[itk.D, 3].New())
    made.SetMovingTransform(transform)
    made.SetMaximumNumberOfWorkUnits(1)
    made.Initialize()
    return made


def same_is_not_lower(models: Path) -> float:
    """The number of distances for which two equal images do not score below two different ones."""
    itk = classes()
    scene = Scene(size=16)
    worse = 0
    for distance in DISTANCES:
        same, other = (
            metric_of(models, distance, image, itk.AffineTransform[itk.D, 3].New()).GetValue()
            for image in (scene.image(), scene.image((4.0, -5.0, 6.0)))
        )
        worse += not same < other
    return float(worse)


def slope_error(offset: Sequence[float], distances: Sequence[str] = DISTANCES) -> Callable[[Path], float]:
    """How far the derivative of an affine transform is from central differences, in %, the worst distance.

    ``offset`` moves it off the identity, in voxels: (0, 0, 0) puts all points on voxel centres.
    """

    def measure(models: Path) -> float:
        itk, worst = classes(), 0.0
        for distance in distances:
            transform = itk.AffineTransform[itk.D, 3].New()
            transform.Translate([float(x) for x in offset])
            metric = metric_of(models, distance, Scene(size=16).image((0.6, -0.9, 0.4)), transform)
            worst = max(worst, 100 * _slope_error(itk, metric, transform))
        return worst

    return measure


def _slope_error(itk: Any, metric: Any, transform: Any, step: float = 1e-3) -> float:
    count = transform.GetNumberOfParameters()
    at = [transform.GetParameters()[j] for j in range(count)]

    def value(parameters: Sequence[float]) -> float:
        given = itk.OptimizerParameters[itk.D](count)
        for j, parameter in enumerate(parameters):
            given.SetElement(j, parameter)
        transform.SetParameters(given)
        return float(metric.GetValue())

    found = itk.Array[itk.D]()
    metric.GetDerivative(found)
    slope = np.array([-found.GetElement(j) for j in range(count)])  # of a metric it is the way down
    moved = np.eye(count) * step
    central = np.array([(value(at + d) - value(at - d)) / (2 * step) for d in moved])
    return float(np.abs(slope - central).max() / np.abs(central).max())


def translation_by_optimiser(models: Path) -> float:
    """The shift that ITK's gradient descent finds with the metric, distance from the truth in voxels, worst axis."""
    itk = classes()
    scene = Scene(size=16, shift=(2.0, -1.0, 1.5))
    transform = itk.TranslationTransform[itk.D, 3].New()
    metric = metric_of(models, "NCC", scene.image(scene.shift), transform)
    scales = itk.RegistrationParameterScalesFromPhysicalShift[type(metric)].New(metric=metric)
    optimizer = itk.RegularStepGradientDescentOptimizerv4[itk.D].New()
    optimizer.SetMetric(metric)
    optimizer.SetScalesEstimator(scales)
    optimizer.SetNumberOfIterations(60)
    optimizer.SetLearningRate(1.0)
    optimizer.SetMinimumStepLength(1e-4)
    optimizer.SetRelaxationFactor(0.7)
    optimizer.StartOptimization()
    found = [transform.GetParameters()[j] for j in range(3)]
    return float(np.abs(np.array(found) - scene.truth).max())


OBLIQUE = Scene(spacing=(1.3, 0.8, 1.1), turned=True)
PLANE = Scene(size=40, shift=(4.0, -3.0))
PROMISES = (
    Promise(name="no iterations on an oblique grid: the identity", bar=1e-4, measure=identity),
    Promise(name="a shift by intensities", bar=0.3, measure=Fine().error),
    Promise(name="a shift by intensities, oblique anisotropic grid", bar=0.3, measure=Fine(scene=OBLIQUE).error),
    Promise(name="a shift by features of two layers", bar=0.3, measure=Fine(network="whole.pt").error),
    Promise(
        name="a shift by two principal components of four channels", bar=0.3,
        measure=Fine(network="whole.pt", mask=(True, False), settings=(("PCA", (2,)),)).error,
    ),
    Promise(
        name="a shift by features that are renewed every 50 iterations", bar=0.3,
        measure=Fine(network="whole.pt", mask=(True, False), settings=(("FeatureMapUpdateInterval", 50),)).error,
    ),
    Promise(
        name="a shift on a control grid of half the resolution", bar=0.3,
        measure=Fine(rate=0.3, settings=(("GridShrinkFactor", 2), ("ControlGridSmoothingIterations", 1))).error,
    ),
    Promise(name="a shift by layers of half the resolution", bar=0.6, measure=Fine(network="half.pt", rate=0.3).error),
    Promise(
        name="what is left of the objective, intensities", bar=0.1, unit="of the first value",
        measure=trace_left(Fine()),
    ),
    Promise(
        name="what is left of the objective, layers of half the resolution", bar=0.6, unit="of the first value",
        measure=trace_left(Fine(network="half.pt", rate=0.3)),
    ),
    Promise(name="one control point: a finite field", bar=1.0, unit="", measure=one_control_point),
    Promise(name="a start that is off by half a voxel", bar=0.06, measure=warm_start),
    Promise(name="a shift of 5 voxels by the search", bar=1.5, measure=searched(FAR)),
    Promise(name="the refinement after the search", bar=0.4, measure=refined_after_search),
    Promise(name="the refinement less the search", bar=1e-6, measure=gained_by_refinement),
    Promise(name="2-D: a shift by the search", bar=1.5, measure=searched(PLANE)),
    Promise(name="2-D: a shift by intensities", bar=0.3, measure=Fine(scene=Scene(size=28, shift=(1.5, -2.0))).error),
    Promise(
        name="distances that score equal images no lower than others", bar=1.0, unit="distances",
        measure=same_is_not_lower,
    ),
    Promise(name="derivative of the metric between voxels", bar=1.0, unit="%", measure=slope_error((0.31, 0.27, 0.36))),
    Promise(name="derivative of the metric on voxel centres", bar=1.0, unit="%", measure=slope_error((0.0, 0.0, 0.0))),
    Promise(
        name="the same of DotProduct", bar=1.0, unit="%", measure=slope_error((0.0, 0.0, 0.0), ("DotProduct",)),
    ),
    Promise(name="a shift by ITK's optimiser and the metric", bar=0.3, measure=translation_by_optimiser),
)  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--only", nargs="*", default=[promise.name for promise in PROMISES])
    given = parser.parse_args()
    networks(given.models)
    print(json.dumps([attempt(promise, given.models) for promise in PROMISES if promise.name in given.only]))


def attempt(promise: Promise, models: Path) -> dict[str, Any]:
    """The figure, or what was raised: that is a result too."""
    entry = {name: value for name, value in asdict(promise).items() if name != "measure"}
    try:
        return entry | {"figure": promise.measure(models), "error": None}
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        return entry | {"figure": None, "error": f"{type(error).__name__}: {str(error).strip().splitlines()[-1][:160]}"}


if __name__ == "__main__":
    main()
