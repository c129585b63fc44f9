"""Promises of elastix's parameter files as settings: what has a meaning is set, what has none is named."""

from __future__ import annotations

import pytest

from blobs import blobs
from conftest import grid_at, rotation
from semreg import RegistrationConfig, write_image
from semreg.config import ModelConfig
from semreg.errors import ConfigError
from semreg.itk.elastix import read_parameters
from small_networks import Small, save

RIGID = """\
// a rigid stage
(Transform "EulerTransform")
(Metric "AdvancedMattesMutualInformation")
(NumberOfResolutions 4)
"""
SPLINE = """\
(Transform "BSplineTransform")  // the deformation
(Metric "Impact" "TransformBendingEnergyPenalty")
(NumberOfResolutions 2)
(MaximumNumberOfIterations 300 20)
(FinalGridSpacingInPhysicalUnits 9 9 7)
(NumberOfSpatialSamples 2000)
(Optimizer "AdaptiveStochasticGradientDescent")
(FixedImagePyramid "FixedSmoothingImagePyramid")
(RandomSeed 7)
(DefaultPixelValue -1000)
(ResultImageFormat "mha")
(Strange 1)
"""
NUMBERED = """\
(ImpactModelsPath0 "coarse.pt")
(ImpactVoxelSize0 6 6 6)
(ImpactLayersMask0 "1")
(ImpactModelsPath1 "NET" "flat.pt")
(ImpactDimension1 3 2)
(ImpactNumberOfChannels1 1 3)
(ImpactPatchSize1 0 0 0 0 0)
(ImpactVoxelSize1 1 2 3 4 5)
(ImpactLayersMask1 "101" "01")
(ImpactSubsetFeatures1 0 0 8)
(ImpactPCA1 0)
(ImpactDistance1 "L1" "Cosine" "NCC")
(ImpactLayersWeight1 0.5 0.25 1)
(ImpactMode "Static")
(ImpactGPU 0)
(ImpactFeaturesMapUpdateInterval 10)
"""


@pytest.fixture
def written(tmp_path):
    """Writes parameter files beside two models and returns their paths."""
    for name in ("NET", "flat.pt", "coarse.pt"):
        save(Small(), tmp_path / name)

    def write(*texts):
        paths = []
        for number, text in enumerate(texts):
            paths.append(tmp_path / f"parameters_{number}.txt")
            paths[-1].write_text(text, encoding="utf-8")
        return paths

    return write


def test_transforms_resolutions_and_iterations(written):
    """The linear stage is the alignment, the spline the refinement; each entry without a meaning is named once."""
    config, notes = read_parameters(written(RIGID, SPLINE + NUMBERED), RegistrationConfig())
    refine = config.refine
    assert config.align.transform == "rigid"
    assert (refine.levels, refine.iterations, refine.control_mm, refine.mode) == (2, 300, 7.0, "static")
    assert refine.update_every == 10
    assert (config.seed, config.background) == (7, -1000.0)
    for name in ("NumberOfSpatialSamples", "Optimizer", "FixedImagePyramid", "ResultImageFormat", "ImpactGPU"):
        (note,) = [each for each in notes if f" {name} has no meaning here" in each]
        assert "not known" not in note
    assert "parameters_1.txt: Strange has no meaning here, it is not known" in notes
    assert any("TransformBendingEnergyPenalty is left out" in each for each in notes)


def test_the_models_of_the_finest_resolution(written, tmp_path):
    """Sizes in the order of the tensor, layers of the mask, distances and weights a layer, drawn channels a model."""
    config, notes = read_parameters(written(SPLINE + NUMBERED), RegistrationConfig())
    first, second = config.models
    assert first == ModelConfig(
        model=str(tmp_path / "NET"), layers=(0, 2), distance=("l1", "cosine"), weight=(0.5, 0.25),
        spec=("dimension=3", "channels=1", "spacing_mm=3.0,2.0,1.0"),
    )  # fmt: skip
    assert (second.layers, second.subset, second.distance) == ((1,), 8, ("ncc",))
    assert second.spec == ("dimension=2", "channels=3", "spacing_mm=5.0,4.0")
    assert any("the finest resolution" in note for note in notes)


def test_the_form_without_numbers(written, tmp_path):
    """A word a resolution: the last one counts; stars part sizes; each image may have a model of its own."""
    plain = """\
(ImpactFixedModelsPath "coarse.pt" "NET")
(ImpactMovingModelsPath "coarse.pt" "flat.pt")
(ImpactVoxelSize "6*6*6" "1.5*1.5*1.5")
(ImpactPatchSize "5*5*5")
(ImpactLayersMask "1" "001")
(ImpactDistance "L2")
(ImpactPCA "3")
(ImpactMode "Jacobian")
"""
    config, _ = read_parameters(written(SPLINE + plain), RegistrationConfig())
    (entry,) = config.models
    assert (entry.model, entry.moving) == (str(tmp_path / "NET"), str(tmp_path / "flat.pt"))
    assert (entry.layers, entry.pca, entry.distance) == ((2,), 3, ("l2",))
    assert entry.spec == ("dimension=3", "channels=1", "spacing_mm=1.5")
    assert config.refine.mode == "jacobian"


def test_other_metrics_leave_the_models(written):
    """Without IMPACT the models of the settings are compared, and it is said; without a spline nothing deforms."""
    text = SPLINE.replace('"Impact"', '"AdvancedNormalizedCorrelation"')
    config, notes = read_parameters(written(text), RegistrationConfig())
    assert config.models == (ModelConfig(),)
    assert config.align.transform == "none"
    assert any("AdvancedNormalizedCorrelation is not here" in note for note in notes)
    config, notes = read_parameters(written(RIGID), RegistrationConfig())
    assert not config.refine.enabled
    assert not config.coarse.enabled
    assert any("semreg align" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing", r"a line \(Transform ...\)"),
        ('(Transform "WeirdTransform")', "got WeirdTransform: leave this file out"),
        (RIGID + "(TransformParameters 0 0 0)", "says how to register, got .* a result"),
        (SPLINE, "expected ImpactModelsPath with the metric Impact"),
        (SPLINE + NUMBERED.replace('"NCC"', '"Odd"'), "ImpactDistance of .*, got Odd"),
        (SPLINE + NUMBERED.replace("4 5)", "4 x)"), r"numbers as \(ImpactVoxelSize ...\)"),
        (SPLINE.replace("Resolutions 2", "Resolutions nan") + NUMBERED, r"numbers as \(NumberOfResolutions ...\)"),
        (SPLINE.replace("Resolutions 2", "Resolutions two") + NUMBERED, r"numbers as \(NumberOfResolutions ...\)"),
    ],
)
def test_what_cannot_be_read(written, text, said):
    """One sentence that names the file."""
    with pytest.raises(ConfigError, match=said):
        read_parameters(written(text), RegistrationConfig())


def test_the_flag(run, written, tmp_path):
    """``--elastix`` registers by the files: settings in the record, what has no meaning on the terminal."""
    fixed = grid_at((3.0, -7.0, 11.0), (19, 17, 14), (1.9, 2.1, 2.8), rotation(3))
    write_image(blobs(fixed), tmp_path / "fixed.nii.gz", "float32")
    write_image(blobs(fixed, (2.0, -1.5, 1.0)), tmp_path / "moving.nii.gz", "float32")
    single = '(ImpactModelsPath0 "NET")\n(ImpactVoxelSize0 0 0 0)\n(ImpactLayersMask0 "100")\n'
    rigid, spline = written(RIGID, SPLINE.replace(" 300 20", " 3") + single)
    (tmp_path / "NET").rename(tmp_path / "NET.pt")
    spline.write_text(spline.read_text(encoding="utf-8").replace('"NET"', '"NET.pt"'), encoding="utf-8")
    code, _, err = run(
        "register", tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz", "--elastix", rigid, "--elastix", spline,
        "-o", tmp_path / "out", "--no-report", "--align", "none",
    )  # fmt: skip
    assert code == 0, err
    assert "Strange has no meaning here" in err
    text = (tmp_path / "out" / "record.json").read_text(encoding="utf-8")
    assert '"control_mm": 7' in text
    assert '"elastix_2"' in text
