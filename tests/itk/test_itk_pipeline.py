"""Promises of the filters as ITK process objects: whoever updates an output runs what is out of date, and no more."""

from __future__ import annotations

import gc
from weakref import ref

import numpy as np
import pytest

from semreg.errors import ConfigError

itk = pytest.importorskip("itk", reason="needs the package itk")

import semreg.itk.api  # noqa: E402, F401

SOLID = itk.Image[itk.F, 3]
FIELD = itk.Image[itk.Vector[itk.F, 3], 3]
MAP = itk.VectorImage[itk.F, 3]


def blob(at, kind=np.float32):
    """A blob on 11 × 10 × 9 anisotropic, oblique voxels."""
    z, y, x = np.mgrid[0:9, 0:10, 0:11]
    image = itk.image_from_array((200 * np.exp(-((x - at) ** 2 + (y - 4) ** 2 + (z - 5) ** 2) / 8.0)).astype(kind))
    turn = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    image.SetSpacing((1.0, 1.2, 1.5)), image.SetOrigin((7.0, -3.0, 12.0))
    image.SetDirection(itk.matrix_from_array(turn))
    return image


def coarse(fixed, moving, runs, **settings):
    """A coarse registration that writes each of its runs down."""
    made = itk.ImpactCoarseRegistration[SOLID, SOLID].New(fixed, moving, grid_spacing=3, **settings)
    made.AddObserver(itk.StartEvent(), lambda: runs.append("coarse"))
    return made


def written(image_type, output, path):
    """A writer of ITK behind an output."""
    writer = itk.ImageFileWriter[image_type].New()
    writer.SetInput(output)
    writer.SetFileName(str(path))
    return writer


def values(image):
    """The samples, a copy."""
    return itk.array_from_image(image)


@pytest.mark.parametrize("kind", [np.float32, np.uint8, np.int32], ids=["float", "byte", "int"])
def test_a_writer_runs_the_filters_before_it(tmp_path, kind):
    """``writer.Update()`` runs an ITK filter, both registrations and nothing that is up to date; images of any type."""
    runs, moving, wanted = [], blob(6), type(blob(6, kind))
    shift = itk.CyclicShiftImageFilter[SOLID, SOLID].New(moving, shift=[1, 0, -1])
    cast = itk.CastImageFilter[SOLID, wanted].New(shift)
    first = coarse(blob(5), cast.GetOutput(), runs)
    second = itk.ImpactFineRegistration[SOLID, SOLID].New(blob(5), cast.GetOutput(), number_of_iterations=2)
    second.AddObserver(itk.StartEvent(), lambda: runs.append("fine"))
    second.SetInitialDisplacementField(first.GetDisplacementField())
    writer = written(FIELD, second.GetOutput(), tmp_path / "field.mha")
    writer.Update()
    assert runs == ["coarse", "fine"]
    shown = itk.imread(tmp_path / "field.mha")
    np.testing.assert_array_equal(values(shown), values(second.GetDisplacementField()))
    np.testing.assert_allclose(tuple(shown.GetOrigin()), (7.0, -3.0, 12.0))
    np.testing.assert_allclose(
        itk.array_from_matrix(shown.GetDirection()), itk.array_from_matrix(moving.GetDirection())
    )
    assert np.abs(values(shown)).max() > 0.1
    writer.Update()
    second.Update()
    assert runs == ["coarse", "fine"]
    second.SetLearningRate(0.5)
    writer.Update()
    assert runs == ["coarse", "fine", "fine"]
    shift.SetShift([0, 0, 0])
    writer.Update()
    assert runs == ["coarse", "fine", "fine", "coarse", "fine"]
    again = itk.ImpactCoarseRegistration[SOLID, SOLID].New(blob(5), blob(6, kind), grid_spacing=3)
    again.Update()
    np.testing.assert_array_equal(values(first.GetOutput()), values(again.GetOutput()))


def test_filters_behind_an_output_get_all_of_it():
    """A streaming filter that asks for a part at a time gets the whole field from one run, and the warped image too."""
    runs = []
    made = coarse(blob(5), blob(6), runs)
    for image_type, output in ((FIELD, made.GetOutput()), (SOLID, made.GetWarpedMovingImage())):
        streamed = itk.StreamingImageFilter[image_type, image_type].New(output, number_of_stream_divisions=3)
        streamed.Update()
        np.testing.assert_array_equal(values(streamed.GetOutput()), values(output))
    assert runs == ["coarse"]
    np.testing.assert_array_equal(values(made.GetWarpedMovingImage()), made.result().warped.data[0].numpy())


def test_maps_run_on_demand(tmp_path):
    """A filter behind a map of features runs the model: grid and channels are known before the data are."""
    runs, made = [], itk.ImageToFeaturesMap[SOLID].New()
    made.AddObserver(itk.StartEvent(), lambda: runs.append("map"))
    made.AddInput(blob(5))
    made.SetModelConfiguration(itk.ImpactModelConfiguration("mind"))
    output = made.GetOutput(0)
    output.UpdateOutputInformation()
    assert output.GetNumberOfComponentsPerPixel() == 12
    assert tuple(itk.size(output)) == (11, 10, 9)
    first = itk.VectorIndexSelectionCastImageFilter[MAP, SOLID].New(output, index=7)
    first.Update()
    assert runs == ["map"]
    straight = itk.ImageToFeaturesMap[SOLID].New(blob(5), model_configuration=itk.ImpactModelConfiguration("mind"))
    straight.Update()
    np.testing.assert_array_equal(values(first.GetOutput()), values(straight.GetOutput())[..., 7])
    assert values(first.GetOutput()).max() == 1.0
    made.SetTransform(itk.TranslationTransform[itk.D, 3].New())
    first.Update()
    assert runs == ["map", "map"]
    with pytest.raises(ConfigError, match="expected an output below 1, got 1"):
        made.GetOutput(1)


def test_information_without_data():
    """``UpdateOutputInformation`` gives the grid of the fixed image and computes nothing."""
    runs = []
    made = coarse(blob(5), blob(6), runs)
    made.UpdateOutputInformation()
    output = made.GetOutput()
    assert tuple(itk.size(output)) == (11, 10, 9)
    np.testing.assert_allclose(tuple(output.GetSpacing()), (1.0, 1.2, 1.5))
    assert not runs
    assert not output.GetBufferedRegion().GetNumberOfPixels()
    with pytest.raises(ConfigError, match="expected a FixedImage"):
        itk.ImpactCoarseRegistration[SOLID, SOLID].New().UpdateOutputInformation()


def test_an_error_in_the_pipeline_does_not_end_it(tmp_path, capfd):
    """Where ITK runs the filter it raises RuntimeError and the sentence is printed; no file; mended it runs again."""
    runs, moving = [], blob(6)
    made = coarse(blob(5), moving, runs)
    writer = written(FIELD, made.GetOutput(), tmp_path / "field.mha")
    writer.Update()
    before = values(itk.imread(tmp_path / "field.mha"))
    (tmp_path / "field.mha").unlink()
    made.SetMovingImage(None)
    with pytest.raises(RuntimeError, match="error executing"):
        writer.Update()
    assert "expected a MovingImage for ImpactCoarseRegistration, got none" in capfd.readouterr().err
    assert not (tmp_path / "field.mha").exists()
    made.SetMovingImage(moving)
    writer.Update()
    np.testing.assert_array_equal(values(itk.imread(tmp_path / "field.mha")), before)


def test_it_has_the_words_of_a_process_object():
    """Inputs, outputs, grafting, work units, clones and casts are ITK's, and what is nonsense is refused."""
    fixed, moving = blob(5), blob(6)
    made = coarse(fixed, moving, [], seed=3)
    made.Update()
    assert made.GetNumberOfInputs() == made.GetNumberOfIndexedInputs() == len(made.GetInputs()) == 2
    (output,) = made.GetOutputs()
    assert made.GetNumberOfOutputs() == made.GetNumberOfIndexedOutputs() == 1
    np.testing.assert_array_equal(values(output), values(made.GetDisplacementField()))
    other = made.Clone()
    assert type(other).cast(other) is other
    assert (other.GetSeed(), other.GetGridSpacing(), other.GetFixedImage()) == (3, 3, fixed)
    other.SetSeed(4)
    assert made.GetSeed() == 3
    with pytest.raises(TypeError, match="expected an object of ImpactCoarseRegistrationF3 to cast, got"):
        type(made).cast(fixed)
    kept = values(output)
    other.GraftOutput(output)
    np.testing.assert_array_equal(values(other.GetOutput()), kept)
    time = made.GetMTime()
    made.SetNumberOfWorkUnits(2)
    assert made.GetNumberOfWorkUnits() == 2
    assert made.GetMTime() == time
    with pytest.raises(ConfigError, match="expected NumberOfWorkUnits to be a whole number >= 1"):
        made.SetNumberOfWorkUnits(0)
    output.DisconnectPipeline()
    made.SetGridSpacing(2)
    made.Update()
    np.testing.assert_array_equal(values(output), kept)
    assert np.abs(values(made.GetOutput()) - kept).max() > 0


def test_nothing_outlives_its_filter():
    """A filter with outputs in ITK's pipeline, observers that refer to it and results goes when nobody has it."""
    made = coarse(blob(5), blob(6), [])
    made.AddObserver(itk.ProgressEvent(), made.GetProgress)
    made.GetWarpedMovingImage()
    made.Update()
    gone, output = ref(made), made.GetOutput()
    del made
    gc.collect()
    assert gone() is None
    assert not output.GetSource()


def test_the_image_is_read_through_the_transform():
    """With a transform, and an interpolator for images of bytes too, a map is that of the image as ITK warps it."""
    image = blob(5, np.uint8)
    moved = itk.AffineTransform[itk.D, 3].New()
    moved.Translate((1.3, -0.6, 0.4))
    cubic = itk.BSplineInterpolateImageFunction[SOLID, itk.D, itk.F].New()
    made = itk.ImageToFeaturesMap[SOLID, type(cubic)].New(image, interpolator=cubic, transform=moved)
    made.SetModelConfiguration(itk.ImpactModelConfiguration("intensity"))
    assert made.GetModifiableInterpolator() is cubic
    made.Update()
    resampled = itk.resample_image_filter(
        itk.cast_image_filter(image, ttype=(type(image), SOLID)), transform=moved, interpolator=cubic,
        use_reference_image=True, reference_image=image,
    )  # fmt: skip
    straight = itk.ImageToFeaturesMap[SOLID].New(resampled)
    straight.SetModelConfiguration(itk.ImpactModelConfiguration("intensity"))
    straight.Update()
    np.testing.assert_allclose(values(made.GetOutput()), values(straight.GetOutput()), atol=1e-5)
    runs = []
    made.AddObserver(itk.StartEvent(), lambda: runs.append("map"))
    moved.Translate((0.2, 0.0, 0.0))  # of an object that was handed over
    made.Update()
    assert runs == ["map"]
    with pytest.raises(TypeError, match="expected a transform of itk in 3-D, got itkTranslationTransformD2"):
        made.SetTransform(itk.TranslationTransform[itk.D, 2].New())
    clone = made.Clone()
    assert clone.GetNumberOfInputs() == 1
