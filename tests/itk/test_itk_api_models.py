"""Promises of model configurations: what a script says is what the model sees; lists reach the layers they are for."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import grid_at, noise_volume, rotation
from semreg import Volume
from semreg.config import ModelConfig
from semreg.errors import ConfigError, ImageError, ModelNotFoundError
from semreg.features.descriptors.mind import MindSSC
from semreg.features.extract import describe, extract_layers
from semreg.features.networks import load_network
from semreg.features.reduce import fit_pca
from semreg.io.bridge import itk_image, to_volume
from semreg.itk.api.model_configuration import Comparison, ImpactModelConfiguration, pairings
from semreg.itk.tensor import image_to_tensor
from small_networks import Small, save

CPU = torch.device("cpu")
GRID = grid_at((3.0, -7.0, 11.0), (13, 10, 8), (1.0, 1.2, 1.7), rotation(3))


@pytest.fixture(scope="module")
def itk():
    """The package itk with the names that the import puts there."""
    import itk
    import semreg.itk.api  # noqa: F401

    return itk


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A file of TorchScript with three outputs, without a description."""
    return save(Small(), tmp_path_factory.mktemp("network") / "small.pt")


def image_of(seed=0):
    """Noise on an oblique anisotropic grid, float32."""
    volume = noise_volume(GRID, seed=seed)
    return Volume(volume.data.float(), volume.grid)


def test_what_is_said_is_what_the_model_sees(network):
    """Sizes are in ITK's order x, y, z; overlap is in voxels; intensities are as they are; only kept layers come."""
    given = ImpactModelConfiguration(
        str(network), 3, 1, [32, 24, 16], [1.5, 2.0, 3.0], [8, 6, 0], [True, False, True], False
    )
    model = given.model(3, CPU)
    spec = model.spec
    assert (spec.dimension, spec.channels, spec.normalisation.kind) == (3, 1, "none")
    assert spec.spacing_mm == (3.0, 2.0, 1.5)
    assert spec.patch == (16, 24, 32)
    assert spec.overlap == 0.25
    assert not spec.mixed_precision
    assert model.network.layers == (0, 2)
    assert given.model(3, CPU) is model
    assert given.Clone().model(3, CPU) is model


def test_zeros_leave_it_open(network):
    """A patch and a voxel size of 0 mean the whole image at its own voxel size; overlaps may be one number or none."""
    for overlaps in ([0, 0, 0], 0, []):
        given = ImpactModelConfiguration(network, 3, 1, [0, 0, 0], [0, 0, 0], overlaps, [True] * 3)
        assert given.entry() == ModelConfig(model=str(network), spec=("dimension=3", "channels=1"), layers=(0, 1, 2))
    assert ImpactModelConfiguration(network, patch_size=[8] * 3, overlaps=2).entry().spec[-1] == "overlap=0.25"


def test_a_description_beside_the_file_holds(network, tmp_path):
    """What the configuration leaves open is as the TOML file beside the model says, and what it says overrides it."""
    path = tmp_path / "small.pt"
    path.write_bytes(network.read_bytes())
    path.with_suffix(".toml").write_text(
        'spacing_mm = [2.0]\naxes = "SPL"\n[normalisation]\nkind = "z-score"\n', encoding="utf-8"
    )
    described = ImpactModelConfiguration(path).model(3, CPU).spec
    assert (described.spacing_mm, described.axes, described.normalisation.kind) == ((2.0,), "SPL", "z-score")
    assert ImpactModelConfiguration(path, voxel_size=[1.5] * 3).model(3, CPU).spec.spacing_mm == (1.5,)


def test_patch_index():
    """The offsets of the voxels of a patch are told in mm, x fastest; others are refused."""
    given = ImpactModelConfiguration(patch_size=[3, 2, 1], voxel_size=[1.0, 2.0, 4.0])
    assert given.GetPatchIndex() == [[-1, -2, 0], [0, -2, 0], [1, -2, 0], [-1, 0, 0], [0, 0, 0], [1, 0, 0]]
    given.SetPatchIndex(given.GetPatchIndex())
    with pytest.raises(ConfigError, match="expected PatchIndex to be the offsets that follow"):
        given.SetPatchIndex([[0.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch_size": [8, 8]}, "expected PatchSize to be 3 numbers above 0"),
        ({"patch_size": [8, 0, 8]}, "expected PatchSize to be 3 numbers above 0"),
        ({"voxel_size": [1.0, 2.0]}, "expected VoxelSize to be 3 numbers above 0"),
        ({"voxel_size": [1.0, -2.0, 1.0]}, r"expected VoxelSize\[1\] to be a finite number >= 0"),
        ({"patch_size": [8] * 3, "overlaps": [8, 0, 0]}, "expected Overlaps below the patch size"),
        ({"layers_mask": [False, False, False]}, "expected LayersMask to keep a layer"),
        ({"dimension": 4}, "expected Dimension 2 or 3, got 4"),
    ],
)
def test_what_does_not_fit_together(network, settings, message):
    """Sizes that fit no model are refused where the configuration is written."""
    with pytest.raises(ConfigError, match=message):
        ImpactModelConfiguration(network, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dimension": 5}, "expected Dimension 2 or 3, got 5: set that of the model"),
        ({"channels": 7}, "expected NumberOfChannels 1 for mind, which takes one, got 7"),
    ],
)
def test_formulas_have_settings_too(settings, message):
    """A built-in model refuses a dimension that no image has, and channels, where the configuration is written."""
    with pytest.raises(ConfigError, match=message):
        ImpactModelConfiguration("mind", **settings)
    assert ImpactModelConfiguration("mind", channels=1).entry() == ModelConfig(model="mind")


def test_dimensions_are_those_of_the_images(itk, network, tmp_path):
    """A Dimension of other images is refused, by the filters too; a 2-D network still sees slices of 3-D images."""
    with pytest.raises(ConfigError, match="expected Dimension 3 for mind on 3-D images, got 2: set it"):
        ImpactModelConfiguration("mind", 2).model(3, CPU)
    with pytest.raises(ConfigError, match="expected Dimension 2 for mind on 2-D images, got 3: set it"):
        ImpactModelConfiguration("mind", 3).model(2, CPU)
    with pytest.raises(ConfigError, match=r"expected Dimension 2 or less for .*small.pt on 2-D images, got 3: use a"):
        ImpactModelConfiguration(network, 3).model(2, CPU)
    with pytest.raises(ConfigError, match="expected Dimension 3 for mind on 3-D images, got 2"):
        itk.image_to_features_map(itk_image(image_of()), model_configuration=ImpactModelConfiguration("mind", 2))
    assert ImpactModelConfiguration("mind", 2).model(2, CPU).spec.dimension == 2
    flat = save(Small(2), tmp_path / "flat.pt", dimension=2)
    assert ImpactModelConfiguration(flat, 2).model(3, CPU).spec.dimension == 2


def test_models_that_are_not_there():
    """A file or a name that does not exist is an error of one sentence, at once."""
    for path in ("nowhere/model.pt", "ts/m999"):
        with pytest.raises(ModelNotFoundError, match="expected"):
            ImpactModelConfiguration(path)


def test_words_of_the_configuration(network):
    """Ways to join patches and to normalise are known by itk-impact's names; what cannot be done is said."""
    given = ImpactModelConfiguration(network)
    for word in ("mean", "Cosinus", "gaussian", "TRIM"):
        given.SetPatchCombine(word)
        assert given.GetPatchCombine() == word.lower()
    with pytest.raises(ConfigError, match="expected PatchCombine to be one of"):
        given.SetPatchCombine("median")
    given.SetFeatureNormalization("l2")
    assert given.entry().normalise == "unit"
    with pytest.raises(ConfigError, match="expected FeatureNormalization to be none, l2 or standard"):
        given.SetFeatureNormalization("standardized")


def test_masks_of_the_wrong_length(network):
    """A mask has one value for each output of the model; the error says both numbers."""
    for mask in ([True, True], [True] * 4):
        given = ImpactModelConfiguration(network, layers_mask=mask)
        with pytest.raises(ConfigError, match=rf"one value for each of the 3 outputs .*, got {len(mask)}"):
            given.model(3, CPU)
    with pytest.raises(ConfigError, match=r"expected LayersMask \[True\] for mind"):
        ImpactModelConfiguration("mind", layers_mask=[True, True])


def test_a_filter_keeps_a_copy(itk):
    """What is changed in a configuration after it was handed over does not change the filter."""
    given = itk.ImpactModelConfiguration("mind")
    made = itk.ImpactCoarseRegistration.New(models_configuration=[given])
    given.SetModelPath("intensity")
    assert made.GetFixedModelsConfiguration()[0].GetModelPath() == "mind"
    assert made.GetModelsConfiguration() == made.GetMovingModelsConfiguration()
    with pytest.raises(TypeError, match=r"expected an itk.ImpactModelConfiguration .*, got str"):
        made.AddModelConfiguration("mind")
    with pytest.raises(ConfigError, match="expected a model in the configuration, got none"):
        made.AddModelConfiguration(itk.ImpactModelConfiguration())


def test_voxel_sizes_of_formulas_are_said_to_have_no_use(caplog):
    """A formula works on the voxels both images are compared in: another voxel size is named in the log."""
    with caplog.at_level(logging.WARNING, "semreg"):
        ImpactModelConfiguration("mind", 3, 1, [0, 0, 0], [1.5] * 3, [0, 0, 0], [True]).model(3, CPU)
    assert "VoxelSize [1.5, 1.5, 1.5] is not used" in caplog.text


def test_lists_are_dealt_to_models_and_layers(network):
    """Distance, weight and drawn channels go to the kept layers over all models in order, PCA to the models."""
    both = [ImpactModelConfiguration(network, layers_mask=[True, False, True]), ImpactModelConfiguration("mind")]
    options = Comparison(
        dimension=3, distance=("L1", "Cosine", "LNCC"), weight=(1.0, 2.0, 3.0), subset=(0, 0, 5), pca=(2, 0)
    )
    configs, found = pairings(both, both, options, CPU)
    assert [p.config for p in found] == list(configs)
    assert all(p.fixed is p.moving for p in found)
    assert (configs[0].layers, configs[0].distance, configs[0].weight) == ((0, 2), ("l1", "cosine"), (1.0, 2.0))
    assert (configs[0].pca, configs[0].subset, configs[0].redraw) == (2, 0, False)
    assert (configs[1].model, configs[1].distance, configs[1].weight) == ("mind", ("lncc",), (3.0,))
    assert (configs[1].pca, configs[1].subset) == (0, 5)


def test_drawn_channels_and_weights_by_layer(network):
    """Layers with other numbers of drawn channels are there by themselves, and layers of weight 0 are left out."""
    one = [ImpactModelConfiguration(network, layers_mask=[True, True, True])]
    options = Comparison(dimension=3, subset=(2, 0, 2), weight=(1.0, 0.0, 4.0), redraw=True)
    (entry,), (pairing,) = pairings(one, one, options, CPU)
    assert (entry.layers, entry.weight, entry.subset, entry.redraw) == ((0, 2), (1.0, 4.0), 2, True)
    assert pairing.fixed.network.layers == (0, 2)
    entries, _ = pairings(one, one, Comparison(dimension=3, subset=(2, 0, 3)), CPU)
    assert [(e.layers, e.subset, e.redraw) for e in entries] == [((0,), 2, False), ((1,), 0, False), ((2,), 3, False)]
    with pytest.raises(ConfigError, match="expected SubsetFeatures 0 where PCA keeps 3 components"):
        pairings(one, one, Comparison(dimension=3, subset=(2, 0, 0), pca=(3,)), CPU)


def test_lists_of_the_first_versions(network, caplog):
    """One value a model stands for all its kept layers; more numbers than layers are channels, which is said."""
    both = [ImpactModelConfiguration(network, layers_mask=[True, False, True]), ImpactModelConfiguration("mind")]
    configs, _ = pairings(both, both, Comparison(dimension=3, distance=("L1", "NCC"), weight=(2.0, 3.0)), CPU)
    assert [(c.distance, c.weight) for c in configs] == [(("l1", "l1"), (2.0, 2.0)), (("ncc",), (3.0,))]
    one = [ImpactModelConfiguration(network, layers_mask=[True, False, True])]
    (entry,), _ = pairings(one, one, Comparison(dimension=3, subset=(2,), distance=("Cosine",)), CPU)
    assert (entry.subset, entry.channels, entry.distance) == (2, (), ("cosine", "cosine"))
    assert not caplog.records
    dense = Comparison(dimension=3, subset=(2, 0, 1), channels=True)
    (entry,), _ = pairings(one, one, dense, CPU)
    assert (entry.subset, entry.channels) == (0, (2, 0, 1))
    assert "is taken as the numbers of the channels" in caplog.text
    for confused in (replace(dense, channels=False), replace(dense, subset=(4, 4, 4))):
        with pytest.raises(ConfigError, match="expected SubsetFeatures with one value a kept layer, 2 over all models"):
            pairings(one, one, confused, CPU)


def test_vectors_and_one_overlap(itk, network):
    """``itk.vector`` of configurations is a list in C++'s words; Overlap is one number for all axes."""
    given = itk.vector[itk.ImpactModelConfiguration]()
    assert given.empty()
    for name in (network, "mind"):
        given.push_back(itk.ImpactModelConfiguration(name))
    assert (given.size(), given.front().GetModelPath(), given.back().GetModelPath()) == (2, str(network), "mind")
    image_type = itk.Image[itk.F, 3]
    made = itk.ImpactFineRegistration[image_type, image_type].New(models_configuration=given)
    given.pop_back()
    assert [one.GetModelPath() for one in made.GetModelsConfiguration()] == [str(network), "mind"]
    one = itk.ModelConfiguration(network, 3, 1, [32, 24, 16], [1.0] * 3, 4, [True] * 3, False)
    assert (one.GetOverlap(), one.GetOverlaps()) == (4, (4,))
    one.SetOverlap(6)
    other = one.Clone()
    other.SetOverlap(2)
    assert (one.GetOverlap(), other.GetOverlap(), other.GetPatchSize()) == (6, 2, (32, 24, 16))
    assert itk.vector[itk.F]([1.5])[0] == 1.5


def test_a_model_for_each_image(network, tmp_path):
    """Fixed and moving images may have models, and voxel sizes, of their own; lists of other lengths are refused."""
    other = tmp_path / "other.pt"
    other.write_bytes(network.read_bytes())
    near = ImpactModelConfiguration(network, voxel_size=[1.0] * 3)
    far = ImpactModelConfiguration(other, voxel_size=[2.0] * 3)
    (entry,), (pairing,) = pairings([near], [far], Comparison(dimension=3), CPU)
    assert (entry.model, entry.moving) == (str(network), str(other))
    assert (pairing.fixed.spec.spacing_mm, pairing.moving.spec.spacing_mm) == ((1.0,), (2.0,))
    with pytest.raises(ConfigError, match="got 1 for the fixed and 2 for the moving image"):
        pairings([near], [far, far], Comparison(dimension=3), CPU)
    far.SetFeatureNormalization("l2")
    with pytest.raises(ConfigError, match="expected the same FeatureNormalization for both images"):
        pairings([near], [far], Comparison(dimension=3), CPU)


def features_map(itk, given, *inputs, **settings):
    """The map of some volumes."""
    image_type = itk.Image[itk.F, 3]
    interpolator = itk.BSplineInterpolateImageFunction[image_type, itk.D, itk.F]
    made = itk.ImageToFeaturesMap[image_type, interpolator].New(model_configuration=given, **settings)
    for volume in inputs:
        made.AddInput(itk_image(volume))
    made.Update()
    return made


def test_maps_are_the_features_of_the_core(itk, network):
    """Each kept layer is a VectorImage with the features and the grid that the core gives them."""
    made = features_map(itk, ImpactModelConfiguration(network, layers_mask=[True, True, False]), image_of())
    assert made.GetNumberOfOutputs() == 2
    assert made.GetInput(0).GetLargestPossibleRegion().GetSize()[0] == 13
    expected = extract_layers(image_of(), load_network(network).keep((0, 1)))
    for number, layer in enumerate(expected):
        image = made.GetOutput(number)
        assert type(image) is itk.VectorImage[itk.F, 3]
        data, grid = image_to_tensor(image)
        torch.testing.assert_close(data, layer.features.data)
        assert grid.size_xyz == layer.grid.size_xyz
        np.testing.assert_allclose(grid.index_to_point(), layer.grid.index_to_point(), atol=1e-9)
    with pytest.raises(ConfigError, match="expected an output below 2, got 2"):
        made.GetOutput(2)
    made.AddInput(itk.Image[itk.F, 3].New())
    with pytest.raises(ImageError, match=r"expected an image with voxels, got an empty itkImageF3: read one"):
        made.Update()
    assert made.GetNumberOfOutputs() == 0
    single = itk.image_to_features_map(itk_image(image_of()), model_configuration=ImpactModelConfiguration("mind"))
    mind = describe(image_of(), MindSSC(3, 1, 2)).features.data
    torch.testing.assert_close(image_to_tensor(single)[0], mind)


def test_components_are_those_of_the_first_input(itk, network):
    """With PCA the basis of each layer is fitted on the first image and applied to all; maps come image by image."""
    given = ImpactModelConfiguration(network, layers_mask=[True, False, True])
    made = features_map(itk, given, image_of(0), image_of(1), pca=2)
    layers = [extract_layers(image_of(seed), load_network(network).keep((0, 2))) for seed in (0, 1)]
    bases = [fit_pca(layer, 2) for layer in layers[0]]
    expected = [basis.apply(layer) for each in layers for basis, layer in zip(bases, each, strict=True)]
    assert made.GetNumberOfOutputs() == 4
    for number, layer in enumerate(expected):
        data, _ = image_to_tensor(made.GetOutput(number))
        torch.testing.assert_close(data, layer.features.data, atol=1e-5, rtol=1e-5)


def test_the_interpolator_reads_the_image(itk, network):
    """Where the model sees other voxels the interpolator makes them, as ITK's own resampler does; else nothing is."""
    image_type = itk.Image[itk.F, 3]
    cubic = itk.BSplineInterpolateImageFunction[image_type, itk.D, itk.F].New()
    same = ImpactModelConfiguration(network, layers_mask=[True, False, False])
    plain, given = features_map(itk, same, image_of()), features_map(itk, same, image_of(), interpolator=cubic)
    assert torch.equal(image_to_tensor(plain.GetOutput(0))[0], image_to_tensor(given.GetOutput(0))[0])
    finer = ImpactModelConfiguration(network, 3, 1, [0] * 3, [0.8, 0.9, 1.1], [0] * 3, [True, False, False])
    made = features_map(itk, finer, image_of(), interpolator=cubic)
    output = made.GetOutput(0)
    np.testing.assert_allclose(tuple(output.GetSpacing()), (0.8, 0.9, 1.1))
    resampled = itk.resample_image_filter(
        itk_image(image_of()), interpolator=itk.BSplineInterpolateImageFunction[image_type, itk.D, itk.F].New(),
        size=output.GetLargestPossibleRegion().GetSize(), output_spacing=output.GetSpacing(),
        output_origin=output.GetOrigin(), output_direction=output.GetDirection(),
    )  # fmt: skip
    (expected,) = extract_layers(to_volume(resampled), load_network(network).keep((0,)))
    inner = (slice(None), *[slice(3, -3)] * 3)  # beyond the edge ITK's resampler has 0, the filter border values
    torch.testing.assert_close(image_to_tensor(output)[0][inner], expected.features.data[inner], atol=1e-5, rtol=1e-5)
    linear = features_map(itk, finer, image_of())
    assert not torch.allclose(image_to_tensor(output)[0], image_to_tensor(linear.GetOutput(0))[0], atol=1e-2)


def test_maps_without_what_they_need(itk):
    """Without an image or a model it says so; types that it has no class for are a TypeError."""
    made = itk.ImageToFeaturesMap.New()
    with pytest.raises(ConfigError, match="expected an image for ImageToFeaturesMap, got none"):
        made.Update()
    made.SetInput(itk_image(image_of()))
    with pytest.raises(ConfigError, match="expected a model for ImageToFeaturesMap, got none"):
        made.Update()
    for give in (made.AddInput, made.SetInput):
        with pytest.raises(TypeError, match=r"expected an image of itk for .*Input, got None: itk.imread"):
            give(None)
    assert made.GetNumberOfInputs() == 1
    with pytest.raises(TypeError, match="expected an interpolator of itk"):
        made.SetInterpolator("cubic")
    with pytest.raises(TypeError, match=r"expected ImageToFeaturesMap\[ImageType, InterpolatorType\]"):
        itk.ImageToFeaturesMap[itk.Image[itk.SS, 3]]


def test_a_patch_around_points_does_not_cut_an_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """PatchSize 7 is for the mode Jacobian: elsewhere the model sees whole tiles, which the log says."""
    path = save(Small(), tmp_path / "small.pt")
    given = ImpactModelConfiguration(str(path), 3, 1, [7, 7, 7], [1.0] * 3, 0, [True, False, False])
    options = Comparison(dimension=3)
    with caplog.at_level(logging.WARNING, logger="semreg"):
        _, (images,) = pairings([given], [given], options, torch.device("cpu"))
    _, (points,) = pairings([given], [given], replace(options, points=True), torch.device("cpu"))
    assert images.fixed.spec.patch is None
    assert points.fixed.spec.patch == (7,)
    assert "PatchSize [7, 7, 7] is for the mode Jacobian" in caplog.text
