"""Promises of the ITK-style objects: names and defaults of itk-impact, setters that check, updates that are needed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from semreg.errors import ConfigError, DeviceError, ImageError
from semreg.itk.api.checks import one_of
from semreg.itk.api.objects import snake_case
from semreg.itk.api.process import ProcessAborted

COARSE = {
    "FixedImage": None, "MovingImage": None, "FixedMask": None, "MovingMask": None, "FixedModelsConfiguration": [],
    "MovingModelsConfiguration": [], "SubsetFeatures": [], "PCA": [], "Distance": [], "LayersWeight": [],
    "NormalizeLosses": True, "BalanceLosses": False, "Device": "cpu", "Seed": 0, "GridSpacing": 4,
    "DisplacementHalfWidth": 3, "InverseConsistency": True,
}  # fmt: skip
FINE = {
    "FixedImage": None, "MovingImage": None, "FixedMask": None, "MovingMask": None, "InitialDisplacementField": None,
    "FixedModelsConfiguration": [], "MovingModelsConfiguration": [], "Distance": [], "NormalizeLosses": True,
    "LayersWeight": [], "SubsetFeatures": [], "LNCCKernel": 5, "SamplingPercentage": 1.0, "BatchSize": 0, "PCA": [],
    "Device": "cpu", "Seed": 0, "NumberOfIterations": 80, "LearningRate": 1.0, "Beta1": 0.9, "Beta2": 0.999,
    "Epsilon": 1e-08, "RegularizationWeight": 1.25, "GridShrinkFactor": 1, "ControlGridSmoothingIterations": 0,
    "FeatureMapUpdateInterval": -1, "Mode": "Static", "FeatureChunkSize": 32,
}  # fmt: skip
MODEL = {
    "ModelPath": "", "Dimension": 0, "NumberOfChannels": 0, "PatchSize": [], "VoxelSize": [], "Overlaps": [],
    "PatchCombine": "cosinus", "LayersMask": [], "FeatureNormalization": "none", "PatchIndex": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def itk():
    """The package itk with the names that the import puts there."""
    import itk
    import semreg.itk.api  # noqa: F401

    return itk


@pytest.fixture(scope="module")
def pair(itk):
    """Two images of 14 × 12 pixels: a blob, and the same two pixels further."""
    y, x = np.mgrid[0:12, 0:14]
    images = [itk.image_from_array(np.exp(-((x - at) ** 2 + (y - 5) ** 2) / 9.0).astype(np.float32)) for at in (6, 8)]
    for image in images:
        image.SetSpacing((1.2, 1.2))
    return images


def fine(itk, pair, **settings):
    """A short refinement."""
    image_type = itk.Image[itk.F, 2]
    return itk.ImpactFineRegistration[image_type, image_type].New(*pair, number_of_iterations=3, **settings)


@pytest.mark.parametrize(
    ("name", "defaults"),
    [("ImpactCoarseRegistration", COARSE), ("ImpactFineRegistration", FINE), ("ImpactModelConfiguration", MODEL)],
)
def test_defaults_are_those_of_the_scripts(itk, name, defaults):
    """Every option has its getter with the default of itk-impact 0.1.6, and its setter takes that default back."""
    made = getattr(itk, name)() if name == "ImpactModelConfiguration" else getattr(itk, name).New()
    for option, default in defaults.items():
        value = getattr(made, f"Get{option}")()
        assert (list(value) if isinstance(value, (tuple, list)) else value) == default, option
        getattr(made, f"Set{option}")(value)
    for option in [option for option, default in defaults.items() if isinstance(default, bool)]:
        getattr(made, f"{option}Off")()
        assert getattr(made, f"Get{option}")() is False
        getattr(made, f"{option}On")()
        assert getattr(made, f"Get{option}")() is True


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("GridSpacing", 0), ("GridSpacing", 2.5), ("GridSpacing", True), ("DisplacementHalfWidth", 0), ("Seed", -1),
        ("LayersWeight", [-1.0]), ("LayersWeight", [float("nan")]), ("LayersWeight", [0.0, 0.0]), ("LayersWeight", 1.0),
        ("Distance", ["MSE"]), ("Distance", "L2"), ("SubsetFeatures", [-1]), ("PCA", [1.5]), ("NormalizeLosses", "on"),
        ("LNCCKernel", 4), ("LNCCKernel", 1), ("SamplingPercentage", 0.0), ("SamplingPercentage", 1.1),
        ("NumberOfIterations", -1), ("LearningRate", 0.0), ("LearningRate", float("inf")), ("Beta1", 1.0),
        ("Beta2", -0.1), ("Epsilon", 0.0), ("RegularizationWeight", -1.0), ("GridShrinkFactor", 0),
        ("ControlGridSmoothingIterations", -1), ("FeatureMapUpdateInterval", 0.5), ("Mode", "Dynamic"), ("Mode", ""),
        ("BatchSize", -1), ("FeatureChunkSize", -1),
    ],
)  # fmt: skip
def test_setters_refuse_at_once(itk, option, value):
    """A value that means nothing is refused by the setter, names the option, and leaves the old value."""
    made = (itk.ImpactCoarseRegistration if hasattr(itk.ImpactCoarseRegistration, f"Set{option}")
            else itk.ImpactFineRegistration).New()  # fmt: skip
    before, time = getattr(made, f"Get{option}")(), made.GetMTime()
    with pytest.raises(ConfigError, match=rf"expected {option}\b.* to be .*got"):
        getattr(made, f"Set{option}")(value)
    assert getattr(made, f"Get{option}")() == before
    assert made.GetMTime() == time


def test_devices_are_refused_at_once(itk):
    """A device that is not there, or that does not exist, is refused by the setter."""
    made = itk.ImpactCoarseRegistration.New()
    for name in ("gpu", "cuda:99"):
        with pytest.raises(DeviceError, match="expected a"):
            made.SetDevice(name)


def test_words_in_any_case(itk):
    """Names of distances and modes may be written in any case and come back as itk-impact writes them."""
    made = itk.ImpactFineRegistration.New(Mode="jacobian", distance=["lncc", "COSINE", "l1cosine", "Dotproduct"])
    assert made.GetMode() == "Jacobian"
    assert made.GetDistance() == ("LNCC", "Cosine", "L1Cosine", "DotProduct")


def test_the_empty_word_is_not_told():
    """Where an empty text stands for the default, the sentence names the words that one can write."""
    check = one_of("", "Static", "Jacobian")
    assert check("Mode", "") == ""
    with pytest.raises(ConfigError, match=r"^expected Mode to be one of Static, Jacobian, got 'Dynamic'$"):
        check("Mode", "Dynamic")


def test_keywords(itk):
    """``New`` takes options in snake case and as ITK spells them; an unknown one is a TypeError with the nearest."""
    made = itk.ImpactCoarseRegistration.New(grid_spacing=3, DisplacementHalfWidth=2, inverse_consistency=False)
    assert (made.GetGridSpacing(), made.GetDisplacementHalfWidth(), made.GetInverseConsistency()) == (3, 2, False)
    with pytest.raises(TypeError, match=r"expected a setting of ImpactCoarseRegistration, .* mean grid_spacing\?"):
        itk.ImpactCoarseRegistration.New(gridspacings=3)
    assert [snake_case(name) for name in ("LNCCKernel", "PCA", "Beta1")] == ["lncc_kernel", "pca", "beta1"]


def test_types_in_brackets(itk):
    """Float images in 2-D and 3-D have classes, which know their name; all other types are a TypeError that says so."""
    flat = itk.Image[itk.F, 2]
    made = itk.ImpactFineRegistration[flat, flat].New()
    assert isinstance(made, itk.ImpactFineRegistration)
    assert type(made) is itk.ImpactFineRegistration[flat, flat]
    assert made.GetNameOfClass() == "ImpactFineRegistration"
    for types in ((itk.Image[itk.SS, 3],) * 2, (flat, itk.Image[itk.F, 3]), (flat,) * 3, (itk.F, 2)):
        with pytest.raises(TypeError, match=r"expected ImpactFineRegistration\[ImageType, ImageType\] .* got"):
            itk.ImpactFineRegistration[types]


def picture(itk: Any, value: float) -> Any:
    """A small image of one value."""
    return itk.image_from_array(np.full((4, 5), value, np.float32))


def test_a_class_with_types_takes_no_more(itk: Any) -> None:
    """Types in brackets are given once."""
    kind = itk.Image[itk.F, 2]
    with pytest.raises(TypeError, match="expected no further types for"):
        itk.ImpactFineRegistration[kind, kind][kind, kind]


def test_more_inputs_than_there_are(itk: Any) -> None:
    """A third image without a name is refused with the number that there may be."""
    kind = itk.Image[itk.F, 2]
    images = [picture(itk, value) for value in (0, 1, 2)]
    with pytest.raises(TypeError, match=r"expected at most 2 inputs for .*, got 3: name the others"):
        itk.ImpactFineRegistration[kind, kind].New(*images)


def test_images_of_another_dimension(itk, pair):
    """An image that does not fit the types in brackets, or is none, is refused by the setter."""
    solid = itk.Image[itk.F, 3]
    made = itk.ImpactFineRegistration[solid, solid].New()
    with pytest.raises(ConfigError, match="expected a 3-D image for FixedImage"):
        made.SetFixedImage(pair[0])
    with pytest.raises(TypeError, match="expected an image of itk for MovingMask, got str"):
        made.SetMovingMask("mask.nii.gz")
    with pytest.raises(ConfigError, match="expected a FixedImage for ImpactFineRegistration, got none"):
        made.Update()
    with pytest.raises(ConfigError, match="to be updated, it was not"):
        made.GetDisplacementFieldTransform()


def test_inputs_are_replaced_by_their_index(itk: Any) -> None:
    """``SetInput(i, image)`` replaces the i-th image or adds the next one, and refuses a gap."""
    made = itk.ImageToFeaturesMap.New()
    first, second, third = (picture(itk, value) for value in (0, 1, 2))
    made.SetInput(first)
    made.SetInput(1, second)
    made.SetInput(0, third)
    assert [itk.array_from_image(made.GetInput(i))[0, 0] for i in range(2)] == [2, 1]
    with pytest.raises(ConfigError, match="expected an index up to 2 for SetInput, got 4: add one by one"):
        made.SetInput(4, first)


def test_one_output_is_all_there_is(itk: Any) -> None:
    """A second output is refused."""
    with pytest.raises(ConfigError, match=r"expected output 0 of .*, got 1: it has one"):
        itk.ImpactFineRegistration.New().GetOutput(1)


@pytest.mark.parametrize("name", ["FixedImage", "MovingImage", "FixedMask"])
def test_empty_images(itk, pair, name):
    """An image without voxels, with a size or without, is refused in one sentence when it is wanted."""
    image_type = itk.Image[itk.F, 2]
    sized = image_type.New()
    region = itk.ImageRegion[2]()
    region.SetSize((7, 6))
    sized.SetRegions(region)
    for image in (image_type.New(), sized):
        made = fine(itk, pair)
        made.set_option(name, image)
        with pytest.raises(ImageError, match="expected an image with voxels, got an empty itkImageF2: read one with"):
            made.Update()


def test_what_is_no_initial_field(itk):
    """A number, a transform of another kind and one that has no field yet are refused, and the old field stays."""
    old = itk.Image[itk.Vector[itk.F, 2], 2].New()
    made = itk.ImpactFineRegistration.New(initial_displacement_field=old)
    for value in (5, itk.AffineTransform[itk.D, 2].New()):
        with pytest.raises(TypeError, match=r"expected an image of vectors or an itk.DisplacementFieldTransform for"):
            made.SetInitialDisplacementField(value)
    with pytest.raises(ConfigError, match=r"expected a DisplacementFieldTransform with a field .*, got one without"):
        made.SetInitialDisplacementField(itk.DisplacementFieldTransform[itk.D, 2].New())
    assert made.GetInitialDisplacementField() is old
    made.SetInitialDisplacementField(None)
    assert made.GetInitialDisplacementField() is None


@pytest.mark.parametrize("reason", ["no image", "wrong list", "stopped"])
def test_no_output_after_a_failure(itk, pair, reason):
    """After an ``Update`` that failed there is no field of the one before, and the next one computes it anew."""
    made = fine(itk, pair)
    made.Update()
    first = itk.array_from_image(made.GetDisplacementField())
    made.GetDisplacementFieldTransform(), made.GetWarpedMovingImage()
    tag = None
    if reason == "no image":
        made.SetMovingImage(None)
    elif reason == "wrong list":
        made.SetDistance(["L2", "L2"])
    else:
        made.Modified()
        tag = made.AddObserver(itk.IterationEvent(), made.AbortGenerateDataOn)
    with pytest.raises(ProcessAborted if tag else ConfigError):
        made.Update()
    for get in (made.GetDisplacementFieldTransform, made.result):
        with pytest.raises(ConfigError, match="to be updated, it was not, or that failed: call Update first"):
            get()
    for image in (made.GetOutput(), made.GetDisplacementField(), made.GetWarpedMovingImage()):
        assert image.GetDataReleased()
    made.SetMovingImage(pair[1])
    made.SetDistance([])
    if tag:
        made.RemoveObserver(tag)
    made.Update()
    np.testing.assert_array_equal(itk.array_from_image(made.GetDisplacementField()), first)


@pytest.mark.parametrize("start", [None, 1.5])
def test_no_iterations(itk, pair, start):
    """With 0 iterations the initial displacement comes back, or none, and the trace is empty."""
    made = fine(itk, pair)
    made.SetNumberOfIterations(0)
    expected = np.zeros((12, 14, 2), np.float32)
    if start is not None:
        expected += np.float32([start, -0.25])
        field = itk.image_from_array(expected, ttype=itk.Image[itk.Vector[itk.F, 2], 2])
        field.CopyInformation(pair[0])
        made.SetInitialDisplacementField(field)
    made.Update()
    np.testing.assert_allclose(itk.array_from_image(made.GetDisplacementField()), expected, atol=1e-6)
    assert made.GetMetricValuesPerIteration() == ()


def test_it_computes_what_is_out_of_date(itk, pair):
    """``Update`` computes again after a setter, a change of an image or of a filter before it, and only then."""
    image_type = itk.Image[itk.F, 2]
    flip = itk.FlipImageFilter[image_type].New(pair[0], flip_axes=[False, False])
    runs = []
    made = fine(itk, (flip.GetOutput(), pair[1]))
    made.AddObserver(itk.StartEvent(), lambda: runs.append(made.GetMTime()))
    made.Update()
    first = itk.array_from_image(made.GetOutput())
    made.UpdateLargestPossibleRegion()
    assert len(runs) == 1
    made.SetLearningRate(0.5)
    made.Update()
    flip.SetFlipAxes([False, True])
    made.Update()
    pair[1].Modified()
    made.Update()
    made.Update()
    assert len(runs) == 4
    assert runs == sorted(runs)
    assert np.abs(itk.array_from_image(made.GetOutput()) - first).max() > 0


def test_observers(itk, pair):
    """Observers hear start, iterations, progress up to 1 and end; what is known so far can be read meanwhile."""
    made, seen, progress = fine(itk, pair), [], []
    made.AddObserver(itk.StartEvent(), lambda: seen.append("start"))
    made.AddObserver(itk.EndEvent(), lambda: seen.append("end"))
    made.AddObserver(
        itk.IterationEvent(),
        lambda: seen.append((made.GetCurrentIteration(), len(made.GetMetricValuesPerIteration()))),
    )
    made.AddObserver(itk.ProgressEvent(), lambda: progress.append(made.GetProgress()))
    silent = made.AddObserver(itk.AnyEvent(), lambda: seen.append("removed"))
    assert made.HasObserver(itk.ModifiedEvent())
    made.RemoveObserver(silent)
    assert not made.HasObserver(itk.ModifiedEvent())
    made.Update()
    assert seen == ["start", (1, 1), (2, 2), (3, 3), "end"]
    assert progress == sorted(progress)
    assert progress[-1] == made.GetProgress() == 1.0
    made.RemoveAllObservers()
    made.Modified()
    made.Update()
    assert len(seen) == 5
    with pytest.raises(TypeError, match="expected an event"):
        made.AddObserver("IterationEvent", print)


def test_observers_are_functions(itk: Any) -> None:
    """A number is no observer; an ITK command, which has Execute, is one."""
    made = itk.ImpactFineRegistration.New()
    with pytest.raises(TypeError, match="expected a function without parameters, got 3"):
        made.AddObserver(itk.ModifiedEvent(), 3)
    heard: list[str] = []

    class Command:
        def Execute(self) -> None:  # noqa: N802 (ITK's name)
            heard.append("modified")

    made.AddObserver(itk.ModifiedEvent(), Command())
    made.Modified()
    assert heard == ["modified"]


def test_abort(itk, pair):
    """It stops at the step after it was asked to, says so, and computes everything when it is asked again."""
    made, heard = fine(itk, pair), []

    def stop():
        heard.append(made.GetCurrentIteration())
        if len(heard) == 2:
            made.AbortGenerateDataOn()

    tag = made.AddObserver(itk.IterationEvent(), stop)
    made.AddObserver(itk.AbortEvent(), lambda: heard.append("abort"))
    with pytest.raises(ProcessAborted, match="was stopped at"):
        made.Update()
    assert heard == [1, 2, "abort"]
    assert issubclass(ProcessAborted, RuntimeError)
    made.RemoveObserver(tag)
    made.Update()
    assert made.GetCurrentIteration() == 3


def test_abort_can_be_taken_back(itk: Any) -> None:
    """On, off, and asked for."""
    made = itk.ImpactFineRegistration.New()
    assert not made.GetAbortGenerateData()
    made.AbortGenerateDataOn()
    assert made.GetAbortGenerateData()
    made.AbortGenerateDataOff()
    assert not made.GetAbortGenerateData()


def test_repr_shows_what_was_set(itk, pair):
    """The text of an object names its class and what differs from the defaults."""
    shown = repr(itk.ImpactCoarseRegistration.New(*pair, grid_spacing=3))
    assert "ImpactCoarseRegistration" in shown
    assert "GridSpacing: 3" in shown
    assert "itkImageF2 of 14 × 12 voxels" in shown
    assert "Seed" not in shown


def test_a_configuration_shows_what_was_set(itk: Any) -> None:
    """The text of a configuration names what differs from the defaults."""
    made = itk.ImpactModelConfiguration()
    assert repr(made) == "ImpactModelConfiguration()"
    made.SetDimension(2)
    assert repr(made) == "ImpactModelConfiguration(Dimension=2)"


def test_import_puts_names_into_itk(tmp_path):
    """After the import both spellings work and no part of ITK is loaded; the log names an installed itk-impact."""
    info = tmp_path / "itk_impact-0.1.6.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: itk-impact\nVersion: 0.1.6\n", encoding="utf-8")
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r})\n"
        "import semreg.itk.api, itk\n"
        "from itk import ImpactModelConfiguration, ModelConfiguration, impact_fine_registration\n"
        "assert itk.ImpactCoarseRegistration is semreg.itk.api.ImpactCoarseRegistration\n"
        "assert itk.ModelConfiguration is ImpactModelConfiguration is ModelConfiguration\n"
        "assert 'semreg' in repr(itk.ImpactImageToImageMetricv4)\n"
        "loaded = [name for name in sys.modules if name.startswith('itk.itk')]\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "itk-impact 0.1.6 is installed too" in done.stderr
