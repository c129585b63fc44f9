from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import weakref
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import rotation

itk = pytest.importorskip("itk", reason="needs the package itk")

from semreg.core.sampling import sample, transform_index  # noqa: E402
from semreg.itk.api.metricv4 import Points, PythonMetricv4  # noqa: E402

SIZE, SPACING, ORIGIN = (23, 20, 17), (1.1, 1.6, 2.3), (-31.0, 12.5, 77.0)


class Waves(PythonMetricv4):
    """Σ a(fixed) sin(k·moving) / M: smooth in the moving points, so that differences show the chain rule alone."""

    def evaluate(self, fixed_points: Points, moving_points: Points) -> tuple[float, Points]:  # noqa: D102
        k = np.array([0.11, -0.07, 0.05])[: moving_points.shape[1]]
        size = 1 + 0.3 * np.cos(0.1 * fixed_points).sum(1)
        phase = moving_points @ k
        return float((size * np.sin(phase)).mean()), (size * np.cos(phase))[:, None] * k / len(size)


class Squares(PythonMetricv4):
    """ITK's mean squares, in a dozen lines."""

    def evaluate(self, fixed_points: Points, moving_points: Points) -> tuple[float, Points]:  # noqa: D102
        near, far = self.values(self.fixed, fixed_points), self.values(self.moving, moving_points)
        return float(((far - near) ** 2).mean()), np.zeros_like(moving_points)

    def values(self, volume: Any, points: Points) -> Any:
        """Linear interpolation, float64."""
        index = transform_index(np.linalg.inv(volume.grid.index_to_point()), torch.from_numpy(points.T.copy()))
        return sample(volume.data.double(), index)[0].numpy()


class Quadratic(PythonMetricv4):
    """Squared distance between where points go and where they should: 4 mm, −3 mm, 2 mm further."""

    def evaluate(self, fixed_points: Points, moving_points: Points) -> tuple[float, Points]:  # noqa: D102
        away = moving_points - fixed_points - np.array([4.0, -3.0, 2.0])[: fixed_points.shape[1]]
        return float((away**2).sum(1).mean()), 2 * away / len(away)


class Failing(PythonMetricv4):
    """Raises in the third evaluation."""

    count = 0

    def evaluate(self, fixed_points: Points, moving_points: Points) -> tuple[float, Points]:  # noqa: D102
        self.count += 1
        if self.count == 3:
            raise LookupError("no such organ")
        return float(moving_points[:, 0].mean()), np.full_like(fixed_points, 1 / len(fixed_points))


def image(dimension: int = 3, seed: int = 0, shift: float = 0.0) -> Any:
    """A smooth oblique image."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.arange(n) * s for n, s in zip(SIZE, SPACING, strict=True)][:dimension], indexing="ij")
    waves = [np.sin(0.3 * (a + shift) + rng.uniform(0, 6)) for a in axes]
    result = itk.image_from_array(np.ascontiguousarray(sum(waves).T, dtype=np.float32))
    result.SetSpacing(SPACING[:dimension])
    result.SetOrigin(ORIGIN[:dimension])
    result.SetDirection(itk.matrix_from_array(rotation(dimension)))
    return result


def new(metric: type[PythonMetricv4], dimension: int = 3, **settings: Any) -> Any:
    """An initialised ITK metric on two smooth images."""
    fixed = image(dimension)
    moving = image(dimension, shift=1.0)
    kind = type(fixed)
    return metric[kind, kind].New(fixed_image=fixed, moving_image=moving, **settings)


def inner_points(dimension: int, count: int = 300) -> Any:
    """A point set well inside of the image, off its voxel centres."""
    rng = np.random.default_rng(1)
    size, spacing = np.array(SIZE[:dimension]), np.array(SPACING[:dimension])
    index = rng.uniform(0.3, 0.7, (count, dimension)) * (size - 1)
    points = (index * spacing) @ rotation(dimension).T + np.array(ORIGIN[:dimension])
    result = itk.PointSet[itk.F, dimension].New()
    for number, point in enumerate(points):
        result.SetPoint(number, itk.Point[itk.F, dimension](point.tolist()))
    return result


def affine(dimension: int) -> Any:
    transform = itk.AffineTransform[itk.D, dimension].New()
    transform.SetCenter([-20.0, 30.0, 90.0][:dimension])
    transform.SetMatrix(itk.matrix_from_array(rotation(dimension, 3.0) * 1.02))
    transform.Translate([0.5, -0.7, 0.3][:dimension])
    return transform


def spline(dimension: int) -> Any:
    """A cubic B-spline over the image with random coefficients."""
    transform = itk.BSplineTransform[itk.D, dimension, 3].New()
    fixed = image(dimension)
    transform.SetTransformDomainOrigin(fixed.GetOrigin())
    transform.SetTransformDomainDirection(fixed.GetDirection())
    transform.SetTransformDomainPhysicalDimensions([n * s for n, s in zip(SIZE, SPACING, strict=True)][:dimension])
    transform.SetTransformDomainMeshSize([4, 3, 2][:dimension])
    set_parameters(transform, np.random.default_rng(2).normal(0, 0.8, transform.GetNumberOfParameters()))
    return transform


def displacement_field(dimension: int) -> Any:
    """A displacement field on the image's grid, random and small."""
    like = image(dimension)
    field = itk.Image[itk.Vector[itk.D, dimension], dimension].New()
    field.CopyInformation(like)
    field.SetRegions(like.GetLargestPossibleRegion())
    field.Allocate()
    values = itk.array_view_from_image(field)
    values[:] = np.random.default_rng(3).normal(0, 0.3, values.shape)
    transform = itk.DisplacementFieldTransform[itk.D, dimension].New()
    transform.SetDisplacementField(field)
    return transform


def composite(*transforms: Any, optimise: str = "last") -> Any:
    """A composite; all of its transforms or the most recent one are optimised."""
    result = itk.CompositeTransform[itk.D, transforms[0].GetInputSpaceDimension()].New()
    for transform in transforms:
        result.AddTransform(transform)
    if optimise == "last":
        result.SetOnlyMostRecentTransformToOptimizeOn()
    return result


def euler(dimension: int) -> Any:
    transform = (itk.Euler3DTransform if dimension == 3 else itk.Euler2DTransform)[itk.D].New()
    transform.SetCenter([-20.0, 30.0, 90.0][:dimension])
    set_parameters(transform, [0.02, -0.01, 0.03, 0.4, -0.3, 0.2] if dimension == 3 else [0.02, 0.4, -0.3])
    return transform


def translation(dimension: int) -> Any:
    transform = itk.TranslationTransform[itk.D, dimension].New()
    set_parameters(transform, [0.4, -0.3, 0.2][:dimension])
    return transform


TRANSFORMS = {
    "translation": translation,
    "euler": euler,
    "affine": affine,
    "b-spline": spline,
    "displacement field": displacement_field,
    "composite, affine then b-spline": lambda d: composite(affine(d), spline(d)),
    "composite, b-spline then affine": lambda d: composite(spline(d), affine(d)),
    # without a spline: ITK crashes when the parameters of several transforms are set and one is a spline
    "composite, all optimised": lambda d: composite(euler(d), translation(d), affine(d), optimise="all"),
    "composite, nested": lambda d: composite(affine(d), composite(euler(d), affine(d), optimise="all"), spline(d)),
    "composite, nested last": lambda d: composite(spline(d), composite(euler(d), affine(d), optimise="all")),
    "composite, behind a displaced grid": lambda d: composite(displacement_field(d), affine(d)),
    "composite, displacement field": lambda d: composite(affine(d), displacement_field(d)),
}


def parameters(values: Any) -> Any:
    """ITK's array of parameters."""
    result = itk.OptimizerParameters[itk.D](len(values))
    for number, value in enumerate(values):
        result[number] = float(value)
    return result


def set_parameters(transform: Any, values: Any) -> None:
    transform.SetParameters(parameters(values))


def derivative(metric: Any) -> Any:
    """The descent direction ITK gets."""
    result = itk.Array[itk.D](metric.GetNumberOfParameters())
    metric.GetDerivative(result)
    return np.array([result[i] for i in range(len(result))])


def differences(metric: Any, chosen: Any, step: float) -> Any:
    """−d(value)/d(parameter) by central differences, for some of the parameters."""
    transform = metric.GetMovingTransform()
    start = np.array([transform.GetParameters()[i] for i in range(transform.GetNumberOfParameters())])
    found = []
    for number in chosen:
        values = []
        for sign in (1, -1):
            moved = start.copy()
            moved[number] += sign * step
            metric.SetParameters(parameters(moved))
            values.append(metric.GetValue())
        found.append(-(values[0] - values[1]) / (2 * step))
    metric.SetParameters(parameters(start))
    return np.array(found)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_derivative_is_that_of_the_value_through_any_transform(name: str, dimension: int) -> None:
    """The chain rule through translation, Euler, affine, B-spline, displacement field and composites is exact."""
    metric = new(Waves, dimension, moving_transform=TRANSFORMS[name](dimension))
    if "field" not in name:  # a field has a parameter for each node; samples between nodes share it in ITK
        metric.SetFixedSampledPointSet(inner_points(dimension))
        metric.UseSampledPointSetOn()
    metric.Initialize()
    found = derivative(metric)
    largest = np.argsort(-np.abs(found))[:12]
    inner = largest if "field" not in name else largest[:4]
    expected = differences(metric, inner, 1e-4)
    np.testing.assert_allclose(found[inner], expected, rtol=1e-6, atol=1e-9 * np.abs(found).max())
    assert np.abs(found).max() > 1e-5


def test_the_points_are_those_of_itk() -> None:
    """Mean squares of the arrays of points equals ITK's own metric: mapping, borders and number of valid points."""
    mine, reference = new(Squares), None
    kind = type(mine.GetFixedImage())
    reference = itk.MeanSquaresImageToImageMetricv4[kind, kind].New(
        fixed_image=mine.GetFixedImage(), moving_image=mine.GetMovingImage()
    )
    for metric in (mine, reference):
        metric.SetFixedTransform(translation(3))
        metric.SetMovingTransform(affine(3))
        metric.Initialize()
    assert mine.GetValue() == pytest.approx(reference.GetValue(), rel=1e-5)  # ITK interpolates float32 as we do
    assert 0 < mine.GetNumberOfValidPoints() == reference.GetNumberOfValidPoints() < np.prod(SIZE)


def test_masks_and_virtual_domain_choose_the_points() -> None:
    """Both masks, in their own spaces, and the virtual domain decide which points are compared, as in ITK."""
    counts = []
    for made in (Squares, None):
        metric = new(Squares)
        if made is None:
            kind = type(metric.GetFixedImage())
            metric = itk.MeanSquaresImageToImageMetricv4[kind, kind].New(
                fixed_image=metric.GetFixedImage(), moving_image=metric.GetMovingImage()
            )
        for setter, low in ((metric.SetFixedImageMask, 4), (metric.SetMovingImageMask, 7)):
            array = np.zeros(SIZE[::-1], np.uint8)
            array[3:12, low : low + 9, 5:] = 1
            mask = itk.image_from_array(array)
            mask.SetSpacing(SPACING)
            mask.SetOrigin(ORIGIN)
            mask.SetDirection(itk.matrix_from_array(rotation(3)))
            spatial = itk.ImageMaskSpatialObject[3].New()
            spatial.SetImage(mask)
            spatial.Update()
            setter(spatial)
        region = itk.ImageRegion[3]()
        region.SetSize([15, 13, 11])
        metric.SetVirtualDomain([1.7, 1.9, 2.1], ORIGIN, itk.matrix_from_array(rotation(3)), region)
        metric.SetMovingTransform(translation(3))
        metric.Initialize()
        metric.GetValue()
        counts.append(metric.GetNumberOfValidPoints())
    assert counts[0] == counts[1] > 100


def test_samples_at_one_node_of_a_field_add_up() -> None:
    """With sampled points, a displacement field's node gets the derivatives of all samples nearest to it."""
    metric = new(Waves, moving_transform=displacement_field(3))
    metric.SetFixedSampledPointSet(inner_points(3, count=4000))
    metric.UseSampledPointSetOn()
    metric.Initialize()
    found = derivative(metric)
    shifted = new(Waves, moving_transform=composite(displacement_field(3), translation(3)))
    shifted.SetFixedSampledPointSet(inner_points(3, count=4000))
    shifted.UseSampledPointSetOn()
    set_parameters(shifted.GetMovingTransform(), [0.0, 0.0, 0.0])
    shifted.Initialize()
    # moving all nodes is about a translation of all points
    np.testing.assert_allclose(found.reshape(-1, 3).sum(0), derivative(shifted), rtol=0.15)


def test_the_same_for_any_number_of_threads() -> None:
    """Derivatives are added in an order that does not depend on the number of threads."""
    metric = new(Waves, moving_transform=affine(3))
    metric.Initialize()
    results = []
    for threads in (1, 2, 5):
        metric.SetMaximumNumberOfWorkUnits(threads)
        results.append(derivative(metric).tolist())
    assert results[0] == results[1] == results[2]


def lbfgsb() -> Any:
    optimiser = itk.LBFGSBOptimizerv4.New(number_of_iterations=40)
    optimiser.SetLowerBound([-20.0] * 3)
    optimiser.SetUpperBound([20.0] * 3)
    optimiser.SetBoundSelection([2] * 3)
    return optimiser


def one_plus_one() -> Any:
    generator = itk.NormalVariateGenerator.New()
    generator.Initialize(7)
    optimiser = itk.OnePlusOneEvolutionaryOptimizerv4[itk.D].New(maximum_iteration=400, epsilon=1e-5)
    optimiser.SetNormalVariateGenerator(generator)
    optimiser.Initialize(2.0)
    return optimiser


def exhaustive() -> Any:
    optimiser = itk.ExhaustiveOptimizerv4[itk.D].New()
    optimiser.SetNumberOfSteps([4] * 3)
    optimiser.SetScales(parameters([1.0] * 3))
    return optimiser


OPTIMISERS = {
    "RegularStepGradientDescent": lambda: itk.RegularStepGradientDescentOptimizerv4[itk.D].New(
        number_of_iterations=60, learning_rate=2.0, relaxation_factor=0.5, minimum_step_length=1e-4
    ),
    "GradientDescent": lambda: itk.GradientDescentOptimizerv4Template[itk.D].New(
        number_of_iterations=60, learning_rate=0.3
    ),
    "ConjugateGradientLineSearch": lambda: itk.ConjugateGradientLineSearchOptimizerv4Template[itk.D].New(
        number_of_iterations=20, learning_rate=0.3
    ),
    "LBFGS2": lambda: itk.LBFGS2Optimizerv4Template[itk.D].New(number_of_iterations=50),
    "LBFGSB": lbfgsb,
    "OnePlusOne": one_plus_one,
    "Amoeba": lambda: itk.AmoebaOptimizerv4.New(number_of_iterations=1000),
    "Powell": lambda: itk.PowellOptimizerv4[itk.D].New(maximum_iteration=50, step_length=1.0),
    "Exhaustive": exhaustive,
}


def registration(metric: Any, optimiser: Any, initial: Any = None, levels: int = 1) -> Any:
    """ITK's registration with a tenth of the points, and the images of the metric."""
    kind = type(metric.GetFixedImage())
    method = itk.ImageRegistrationMethodv4[kind, kind].New(
        fixed_image=metric.GetFixedImage(), moving_image=metric.GetMovingImage()
    )
    method.SetMetric(metric)
    method.SetOptimizer(optimiser)
    start = itk.TranslationTransform[itk.D, 3].New() if initial is None else initial
    if initial is None:
        start.SetIdentity()
    method.SetInitialTransform(start)
    method.SetNumberOfLevels(levels)
    method.SetShrinkFactorsPerLevel([2**n for n in reversed(range(levels))])
    method.SetSmoothingSigmasPerLevel([float(n) for n in reversed(range(levels))])
    method.SetMetricSamplingStrategy(itk.ImageRegistrationMethodv4Enums.MetricSamplingStrategy_RANDOM)
    method.SetMetricSamplingPercentage(0.1)
    method.MetricSamplingReinitializeSeed(5)
    return method


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_of_v4_finds_the_minimum(name: str) -> None:
    """Each optimiser runs through ImageRegistrationMethodv4 and ends at the known translation (mm)."""
    optimiser = OPTIMISERS[name]()
    method = registration(new(Quadratic), optimiser)
    method.Update()
    found = method.GetModifiableTransform().GetParameters()
    if name == "Exhaustive":  # leaves the transform where its walk ended
        found = optimiser.GetMinimumMetricValuePosition()
    away = np.abs(np.array([found[i] for i in range(3)]) - [4, -3, 2]).max()
    assert away < (0.1 if name in ("OnePlusOne", "Amoeba", "RegularStepGradientDescent") else 0.02)


def test_scales_estimators_take_the_class_as_their_parameter() -> None:
    """itk.RegistrationParameterScalesFromPhysicalShift[type(metric)] works, as with a metric of ITK."""
    metric = new(Quadratic)
    estimator = itk.RegistrationParameterScalesFromPhysicalShift[type(metric)].New(metric=metric)
    optimiser = itk.GradientDescentOptimizerv4Template[itk.D].New(number_of_iterations=100, learning_rate=1.0)
    optimiser.SetScalesEstimator(estimator)
    optimiser.DoEstimateLearningRateOnceOff()
    optimiser.DoEstimateLearningRateAtEachIterationOff()
    method = registration(metric, optimiser, affine(3), levels=2)
    method.Update()
    scales = optimiser.GetScales()
    assert scales.Size() == 12
    assert scales[0] > 10 * scales[11] > 0  # a step of the matrix moves points further than one of the translation
    assert 0 < optimiser.GetValue() < 25  # 29 mm² at the identity


@pytest.mark.parametrize("name", OPTIMISERS)
def test_an_exception_arrives_with_its_type_text_and_traceback(name: str) -> None:
    """Through each optimiser: RuntimeError from Update(), the original error on the metric, no crash."""
    metric = new(Failing)
    with pytest.raises(RuntimeError, match="LookupError: no such organ") as caught:
        registration(metric, OPTIMISERS[name]()).Update()
    assert isinstance(metric.error, LookupError)
    assert 'raise LookupError("no such organ")' in str(caught.value)
    assert "test_metricv4.py" in str(caught.value)


def test_no_overlap_is_said_at_the_start_and_survived_later() -> None:
    """No sample in the moving image: an error at the start; later the largest value, as ITK has it."""
    metric = new(Waves)
    away = itk.TranslationTransform[itk.D, 3].New()
    set_parameters(away, [1000.0, 0.0, 0.0])
    metric.SetMovingTransform(away)
    metric.Initialize()
    with pytest.raises(RuntimeError, match="expected sample points that fall into the moving image"):
        metric.GetValue()
    set_parameters(away, [0.0, 0.0, 0.0])
    assert abs(metric.GetValue()) < 2
    set_parameters(away, [1000.0, 0.0, 0.0])
    assert metric.GetValue() > 1e300
    assert (derivative(metric) == 0).all()


def test_an_empty_mask_is_an_error() -> None:
    """A fixed mask without voxels leaves nothing to compare: said in a sentence by Initialize()."""
    metric = new(Waves)
    mask = itk.image_from_array(np.zeros((4, 5, 6), np.uint8))
    spatial = itk.ImageMaskSpatialObject[3].New()
    spatial.SetImage(mask)
    spatial.Update()
    metric.SetFixedImageMask(spatial)
    with pytest.raises(RuntimeError, match="expected sample points inside the fixed image and its mask, got none"):
        metric.Initialize()


def test_a_value_needs_initialize() -> None:
    """GetValue() before Initialize() is an error and no crash."""
    with pytest.raises(RuntimeError, match=r"expected Initialize\(\) before"):
        new(Waves).GetValue()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((float("nan"), None), "expected a finite value"),
        ((1.0, None), "to give a derivative"),
        ((1.0, np.zeros((2, 3))), "expected a derivative of shape"),
        (None, "cannot unpack"),
    ],
)
def test_a_wrong_answer_is_said(answer: Any, expected: str) -> None:
    """NaN, no derivative or one of another shape: an error that says what was expected."""

    class Wrong(PythonMetricv4):
        def evaluate(self, fixed_points: Points, moving_points: Points) -> Any:  # noqa: ARG002
            return answer

    metric = new(Wrong)
    metric.Initialize()
    with pytest.raises(RuntimeError, match=expected):
        derivative(metric)


@pytest.mark.parametrize("types", [lambda: itk.Image[itk.D, 3], lambda: itk.Image[itk.F, 4]])
def test_other_images_are_refused(types: Any) -> None:
    """Only float images in 2-D and 3-D: a TypeError that names them."""
    with pytest.raises(TypeError, match=r"itk.Image\[itk.F, 3\]"):
        Waves[types(), types()]


def test_points_may_be_mapped_during_an_evaluation_only() -> None:
    """``moving_points`` maps any points through the current transform, and refuses once the evaluation has ended."""

    class Mapping(Waves):
        seen: Any = None

        def evaluate(self, fixed_points: Points, moving_points: Points) -> tuple[float, Points]:
            self.seen = (self.moving_points(fixed_points), moving_points)
            return super().evaluate(fixed_points, moving_points)

    metric = new(Mapping, moving_transform=affine(3))
    metric.SetFixedSampledPointSet(inner_points(3))
    metric.UseSampledPointSetOn()
    metric.Initialize()
    metric.GetValue()
    np.testing.assert_array_equal(*metric.seen)
    with pytest.raises(RuntimeError, match="the call it belongs to has ended"):
        metric.python.moving_points(np.zeros((1, 3)))


def test_nothing_dangles_and_nothing_stays() -> None:
    """The Python part lives as long as ITK needs it, and goes with the last reference."""
    metric = new(Quadratic)
    python = weakref.ref(metric.python)
    method = registration(metric, OPTIMISERS["LBFGS2"]())
    del metric
    gc.collect()
    assert python() is not None  # the registration still needs it
    method.Update()
    del method
    gc.collect()
    assert python() is None


def test_a_loop_of_registrations_does_not_grow() -> None:
    """Of metrics, values, derivatives and errors nothing stays: no ITK object, no Python part, no array of points."""
    deleted: Counter[str] = Counter()
    seen: list[weakref.ref[Any]] = []

    class Seen(Failing):
        """Remembers what it was given, without holding it."""

        def evaluate(self, fixed_points: Points, moving_points: Points) -> tuple[float, Points]:
            seen.extend(map(weakref.ref, (self, self.fixed, fixed_points, moving_points)))
            return super().evaluate(fixed_points, moving_points)

    def once() -> None:
        metric = new(Seen, moving_transform=affine(3))
        parts = {"metric": metric, "fixed": metric.GetFixedImage(), "moving": metric.GetMovingImage()}
        for name, part in {**parts, "transform": metric.GetMovingTransform()}.items():
            part.AddObserver(itk.DeleteEvent(), partial(deleted.update, [name]))
        metric.Initialize()
        derivative(metric)
        metric.GetValue()
        with pytest.raises(RuntimeError):
            metric.GetValue()

    for _ in range(3):
        once()
    gc.collect()  # an exception holds its frames, in a cycle,
    gc.collect()  # and with the ITK object of the cycle goes what that held
    assert deleted == {"metric": 3, "fixed": 3, "moving": 3, "transform": 3}
    assert len(seen) == 3 * 3 * 4
    assert [part() for part in seen if part() is not None] == []


@pytest.mark.skipif(sys.platform != "linux", reason="sends a signal as Linux does")
@pytest.mark.usefixtures("interruptible")
def test_control_c_stops_a_registration() -> None:
    """SIGINT in the middle of Update(): it ends at once with a RuntimeError that names KeyboardInterrupt."""
    calls: list[int] = []

    class Interrupted(Quadratic):
        """The third evaluation is interrupted."""

        def evaluate(self, fixed_points: Points, moving_points: Points) -> tuple[float, Points]:
            """As it is, after the signal."""
            calls.append(len(calls))
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return super().evaluate(fixed_points, moving_points)

    metric = new(Interrupted)
    optimiser = itk.GradientDescentOptimizerv4Template[itk.D].New(number_of_iterations=100, learning_rate=1e-9)
    optimiser.SetMinimumConvergenceValue(-1.0)
    with pytest.raises(RuntimeError, match="KeyboardInterrupt"):
        registration(metric, optimiser).Update()
    assert isinstance(metric.error, KeyboardInterrupt)
    assert len(calls) == 3


def test_another_itk_is_refused(tmp_path: Path) -> None:
    """With an itk of another series the module is not loaded: one sentence says why and what to do."""
    info = tmp_path / "itk_core-6.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: itk-core\nVersion: 6.0.0\n", encoding="utf-8")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import semreg_itkv4; semreg_itkv4.check()"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (
        result.stderr.strip()
        .splitlines()[-1]
        .startswith("ImportError: expected itk 5.4.x, which semreg-itkv4 is built for, got itk 6.0.0")
    )


def test_nothing_crashes_where_parts_are_taken_away() -> None:
    """None for a transform or an interpolator, and a field transform without a field: errors, where ITK crashes."""

    def broken(take: Any) -> None:
        metric = new(Waves, moving_transform=affine(3))
        metric.Initialize()
        take(metric)
        with pytest.raises(RuntimeError, match="expected a"):
            metric.GetValue()
        with pytest.raises(RuntimeError, match=r"xpected a|not present"):
            metric.Initialize()

    broken(lambda metric: metric.SetMovingTransform(None))
    broken(lambda metric: metric.SetFixedTransform(None))
    broken(lambda metric: metric.SetMovingInterpolator(None))
    broken(lambda metric: metric.SetMovingTransform(itk.DisplacementFieldTransform[itk.D, 3].New()))


def test_another_transform_than_the_samples_are_for_is_an_error() -> None:
    """A small field set after Initialize(), or other parameters or samples set while it is evaluated: no crash."""
    metric = new(Waves, moving_transform=affine(3))
    metric.Initialize()
    field = itk.Image[itk.Vector[itk.D, 3], 3].New()
    region = itk.ImageRegion[3]()
    region.SetSize([2, 2, 2])
    field.SetRegions(region)
    field.Allocate()
    itk.array_view_from_image(field)[:] = 0
    small = itk.DisplacementFieldTransform[itk.D, 3].New()
    small.SetDisplacementField(field)
    metric.SetMovingTransform(small)
    with pytest.raises(RuntimeError, match="expected a displacement field on the virtual domain"):
        derivative(metric)

    class Meddling(Waves):
        meddle: Any = None

        def evaluate(self, fixed_points: Points, moving_points: Points) -> tuple[float, Points]:
            self.meddle()
            return super().evaluate(fixed_points, moving_points)

    metric = new(Meddling, moving_transform=affine(3))
    metric.python.meddle = lambda: metric.SetMovingTransform(spline(3))
    metric.Initialize()
    result = itk.Array[itk.D](12)
    metric.GetDerivative(result)  # of the transform it was asked for
    assert result.Size() == 12
    metric = new(Meddling, moving_transform=affine(3))
    metric.python.meddle = metric.Initialize
    metric.Initialize()
    with pytest.raises(RuntimeError, match="expected the samples to stay while the metric is evaluated"):
        derivative(metric)
    metric.python.meddle = None


def test_a_metric_that_asks_itself_is_stopped() -> None:
    """GetValue() from inside of an evaluation: an error and no endless recursion."""

    class Recursive(Waves):
        itself: Any = None

        def evaluate(self, fixed_points: Points, moving_points: Points) -> tuple[float, Points]:  # noqa: ARG002
            return self.itself.GetValue(), moving_points

    metric = new(Recursive)
    metric.python.itself = metric
    metric.Initialize()
    with pytest.raises(RuntimeError, match="expected Recursive to be evaluated by ITK alone"):
        metric.GetValue()
    metric.python.itself = None


def test_new_takes_settings_in_both_spellings_and_says_what_there_is_not() -> None:
    """Images by position, settings in ITK's spelling or in snake case; a typing error names the nearest."""
    kind = itk.Image[itk.F, 3]
    fixed, moving = image(), image(shift=1.0)
    metric = Waves[kind, kind].New(fixed, moving, UseSampledPointSet=True, moving_transform=affine(3))
    assert metric.GetMovingImage() == moving
    assert metric.GetUseSampledPointSet()
    with pytest.raises(TypeError, match=r"got 'fixd_image': did you mean fixed_image\?"):
        Waves[kind, kind].New(fixd_image=fixed)


def test_metrics_need_image_types_and_evaluate() -> None:
    """A metric of one's own is made with image types in brackets, and has to say how it is evaluated."""

    class Mine(PythonMetricv4):
        """Forgets evaluate."""

    with pytest.raises(TypeError, match=r"expected image types, as in Mine\[ImageType, ImageType\]"):
        Mine.New()
    with pytest.raises(NotImplementedError, match="expected Mine to override evaluate"):
        Mine().evaluate(np.zeros((3, 2)), np.zeros((3, 2)))
