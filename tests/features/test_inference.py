"""Promises of ``extract`` and ``infer``: what a network gives, where it lies, and one sentence where it cannot be."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

import semreg
from conftest import make_grid, noise_volume, oblique_grid, rotation, sitk_image, sitk_resample
from semreg.core.fields import Volume
from semreg.core.geometry import AxisOrder, Grid
from semreg.errors import ConfigError, DeviceError, ImageError, ModelContractError, ModelError, ModelNotFoundError
from semreg.features.contract import IntensityStats
from semreg.features.inspection import inspect_network
from semreg.features.networks import as_network, load_network
from semreg.runtime.memory import held_bytes
from small_networks import Small, outputs_of, save

DATA = Path(__file__).parents[3] / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real models, ../shared/data, is not here")

GRID = make_grid((14, 12, 10), (0.8, 1.3, 2.1), (-31.0, 12.5, 77.0), rotation(3))


def image_on(grid, seed=0):
    return Volume(noise_volume(grid, seed=seed).data.float(), grid)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(Small(), tmp_path_factory.mktemp("models") / "small.pt")


def assert_close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["file", "text", "loaded", "module", "function"])
def test_extract_gives_what_the_network_gives(model, kind):
    """However a network is named, layers are its outputs, and each lies on the voxels it was computed at."""
    module = Small()
    given = {"file": model, "text": str(model), "module": module, "function": module.forward}
    image = image_on(GRID)
    layers = semreg.extract(image, given[kind] if kind in given else semreg.load_network(model), device="cpu")
    for layer, expected in zip(layers, outputs_of(module, image.data), strict=True):
        assert_close(layer.features.data, expected)
        assert layer.weight is None
    assert [layer.grid for layer in layers][::2] == [GRID, GRID]
    second, points = layers[1].grid, GRID.lattice((0.5,) * 3, (2.0,) * 3, (5, 6, 7)).index_to_point()
    np.testing.assert_allclose(second.index_to_point(), points, atol=1e-9)
    assert second.size_xyz == (7, 6, 5)


def test_images_of_other_packages(model):
    """An image of SimpleITK gives the same as the volume."""
    image = image_on(GRID)
    a, b = semreg.extract(sitk_image(image), model, layers=1), semreg.extract(image, model, layers=[1])
    assert torch.equal(a[0].features.data, b[0].features.data)


def test_layers_are_kept_in_the_order_asked_for(model):
    """``layers`` chooses outputs, −1 is the last."""
    image = image_on(GRID)
    scores, first = semreg.extract(image, model, layers=(-1, 0))
    assert (len(scores.features.data), len(first.features.data)) == (4, 3)


def test_an_image_is_resized_whatever_its_extent():
    """``size`` shows the network the box of the image in so many voxels, as an image resized by torch is."""
    small = make_grid((14, 12, 10), (0.8, 1.3, 2.1), (0.0, 0.0, 0.0), np.eye(3))
    image = image_on(small)
    (layer,) = semreg.extract(image, torch.nn.Identity(), spec=["size=[16,18,20]"])
    expected = torch.nn.functional.interpolate(image.data[None], (16, 18, 20), mode="trilinear")[0]
    torch.testing.assert_close(layer.features.data, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(layer.grid.extent_mm, small.extent_mm)
    (back,) = semreg.infer(image, torch.nn.Identity(), spec=["size=16"], device="cpu")
    assert back.grid == small


def test_slices_are_resized_in_their_plane():
    """A 2-D network's ``size`` is that of a slice; the slices stay, and three planes have no one size."""
    image = image_on(make_grid((14, 12, 10), (0.8, 1.3, 2.1), (0.0, 0.0, 0.0), np.eye(3)))
    (layer,) = semreg.extract(image, torch.nn.Identity(), spec=["dimension=2", "size=[16,20]"])
    assert layer.grid.shape == (10, 16, 20)
    with pytest.raises(ModelContractError, match="one plane of slices"):
        semreg.extract(image, torch.nn.Identity(), spec=["dimension=2", "size=16", "slices=all"])


def test_size_or_spacing():
    """A size and a voxel size contradict each other."""
    with pytest.raises(ConfigError, match="either size or spacing_mm"):
        semreg.extract(image_on(GRID), torch.nn.Identity(), spec=["size=16", "spacing_mm=2"])


def test_description_can_be_changed(model):
    """``spec`` turns the image for the network and the result back."""
    image = image_on(make_grid((14, 12, 10), (0.8, 1.3, 2.1), (0.0, 0.0, 0.0), np.eye(3)))
    (layer,) = semreg.extract(image, model, layers=0, spec=["axes=LIA"])  # (z, y, x) in LPS grow as S, P, L
    turned = AxisOrder((2, 0, 1), (1, 2))
    moved = image.reordered(turned)
    expected = Volume(outputs_of(Small(), moved.data)[0], moved.grid).reordered(turned.inverse)
    assert_close(layer.features.data, expected.data)
    assert layer.grid == image.grid
    assert not torch.allclose(semreg.extract(image, model, layers=0)[0].features.data, layer.features.data)
    assert torch.equal(semreg.extract(image, model, layers=0, spec="axes=LIA")[0].features.data, layer.features.data)


@pytest.mark.parametrize(("name", "channels"), [("mind", 12), ("intensity", 1)])
def test_formulas_are_models_too(name, channels):
    """What is built in gives its features on the grid of the image."""
    (layer,) = semreg.extract(image_on(GRID), name)
    assert layer.features.data.shape == (channels, *GRID.shape)
    (output,) = semreg.infer(image_on(GRID), name)
    assert torch.equal(output.data, layer.features.data)


def test_masked_voxels_count_nowhere(model):
    """Voxels that the mask excludes influence no statistic, and layers carry the mask on their grids."""
    image, other = image_on(GRID), image_on(GRID)
    mask = torch.ones(1, *GRID.shape)
    mask[:, :, :, :4] = 0
    other.data[:, :, :, :4] = 1e4
    layers = [
        semreg.extract(one, model, mask=Volume(mask, GRID), spec="normalisation.kind=z-score") for one in (image, other)
    ]
    for a, b in zip(*layers, strict=True):
        assert_close(a.features.data, b.features.data)
    assert torch.equal(layers[0][0].weight.data, mask)
    assert layers[0][1].weight.grid == layers[0][1].grid
    with pytest.raises(ImageError, match="mask with voxels above 0"):
        semreg.extract(image, model, mask=Volume(torch.zeros_like(mask), GRID))


def test_infer_brings_all_outputs_onto_the_image(model):
    """Outputs at every second voxel are interpolated onto the grid of the image, as SimpleITK does it."""
    image = image_on(GRID)
    outputs = semreg.infer(image, model)
    layers = semreg.extract(image, model)
    assert all(output.grid == GRID for output in outputs)
    assert torch.equal(outputs[0].data, layers[0].features.data)
    for channel in range(5):
        one = Volume(layers[1].features.data[channel : channel + 1], layers[1].grid)
        inside = (slice(0, 9), slice(0, 11), slice(0, 13))  # SimpleITK has no values beyond the last sample's voxel
        expected = sitk_resample(one, GRID)[inside]
        np.testing.assert_allclose(outputs[1].data[channel][inside], expected, atol=1e-5)


def test_infer_in_two_dimensions(tmp_path):
    """A 2-D network sees a 2-D image, and a volume slice by slice."""
    path = save(Small(2), tmp_path / "flat.pt", 2)
    flat = image_on(make_grid((14, 12), (0.8, 1.3), (-31.0, 12.5), rotation(2)))
    (output,) = semreg.infer(flat, path, layers=0, spec="dimension=2")
    assert_close(output.data, outputs_of(Small(2), flat.data)[0])
    volume = image_on(make_grid((13, 12, 11), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3)))
    (output,) = semreg.infer(volume, path, layers=0, spec="dimension=2")
    assert_close(output.data[:, 4], outputs_of(Small(2), volume.data[:, 4])[0])


@pytest.mark.parametrize("spacing", [None, 1.0])
def test_labels_are_the_largest_channel(model, spacing):
    """With ``argmax`` there is one map of integers on the grid of the image, the same as from the scores."""
    image = image_on(GRID)
    spec = [] if spacing is None else [f"spacing_mm={spacing}"]
    (labels,) = semreg.infer(image, model, layers=-1, argmax=True, spec=spec)
    (scores,) = semreg.infer(image, model, layers=-1, spec=spec)
    assert labels.data.dtype == torch.uint8
    assert labels.grid == GRID
    assert (labels.data[0] == scores.data.argmax(0)).float().mean() > (0.999 if spacing is None else 0.98)
    assert len(labels.data.unique()) > 2


def test_labels_come_from_the_last_output_that_is_kept(model, caplog):
    """Without ``layers`` labels are those of the last output, which the log says; of one alone it says nothing."""
    image = image_on(GRID)
    with caplog.at_level(logging.INFO, "semreg"):
        (given,) = semreg.infer(image, model, argmax=True)
        assert "small has several outputs: the last one is taken" in caplog.text
        caplog.clear()
        (named,) = semreg.infer(image, model, argmax=True, layers=2)
        (alone,) = semreg.infer(image, lambda x: Small()(x)[2], argmax=True)
        (described,) = semreg.infer(image, model, argmax=True, spec="layers=2")
        assert caplog.text == ""
    assert torch.equal(given.data, named.data)
    assert torch.equal(given.data, alone.data)
    assert torch.equal(given.data, described.data)
    with pytest.raises(ModelContractError, match="expected one output to take labels from, got 2"):
        semreg.infer(image, model, argmax=True, layers=(0, 2))
    with pytest.raises(ModelContractError, match="channels are classes, got the formula mind"):
        semreg.infer(image, "mind", argmax=True)


def test_steps_are_tiles(model):
    """``on_step`` hears of each tile and of their number."""
    steps = []
    semreg.extract(image_on(GRID), model, spec="patch=8", on_step=steps.append)
    assert [step.iteration for step in steps] == list(range(1, steps[0].iterations + 1))
    assert len(steps) > 1
    assert {step.stage for step in steps} == {"features"}


def test_a_limit_of_memory_is_kept_or_refused(model):
    """A limit that cannot be kept is one sentence before anything is computed; it may be text or a number."""
    image = image_on(GRID)
    for limit in ("100MB", 10**8):
        with pytest.raises(ConfigError, match=r"GB of memory or more for small .* got 0.1 GB"):
            semreg.extract(image, model, memory=limit)
        with pytest.raises(ConfigError, match=r"GB of memory or more for small .* got 0.1 GB"):
            semreg.infer(image, model, memory=limit, argmax=True)
    with pytest.raises(ConfigError, match="for the result on the image's grid"):
        semreg.extract(image, "mind", memory=held_bytes() + 1000)
    with pytest.raises(ConfigError, match="amount of memory such as 3GB"):
        semreg.infer(image, model, memory="much")
    assert len(semreg.extract(image, model, memory="100GB")) == 3


def test_result_on_the_grid_of_the_image_counts(model):
    """What is interpolated onto the grid of the image is part of the limit of memory."""
    image = image_on(make_grid((96, 96, 96), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3)))
    coarse = ["spacing_mm=4"]
    (layer,) = semreg.extract(image, model, layers=2, spec=coarse)
    assert layer.features.data.numel() < 10**6
    limit = held_bytes() + 12_000_000  # 14 MB on the grid of the image
    with pytest.raises(ConfigError, match="GB of memory"):
        semreg.infer(image, model, layers=2, spec=coarse, memory=limit)


def test_voxels_that_are_not_finite_are_counted(model, caplog):
    """NaN and infinite voxels are counted in a warning, and all results are finite."""
    image = image_on(GRID)
    image.data[0, 2, 3, :4] = torch.nan
    (output,) = semreg.infer(image, model, layers=0)
    assert "4 voxels of the given image are NaN or infinite" in caplog.text
    assert torch.isfinite(output.data).all()
    image.data[:] = torch.nan
    with pytest.raises(ImageError, match="only NaN"):
        semreg.infer(image, model)


def test_what_cannot_be_is_one_error(model, tmp_path):
    """Each kind of mistake has its error."""
    image = image_on(GRID)
    with pytest.raises(ModelContractError, match="expected a 3-D image for small, got a 2-D one"):
        semreg.extract(image_on(oblique_grid(2)), model)
    with pytest.raises(ModelNotFoundError, match="semreg models fetch ts/m730"):
        semreg.extract(image, "ts/m730", models=tmp_path)
    with pytest.raises(ModelNotFoundError, match="did you mean 'ts/m730'"):
        semreg.extract(image, "ts/m7300")
    with pytest.raises(ModelError, match="got a int"):
        semreg.extract(image, 3)
    with pytest.raises(ImageError, match="read it with semreg"):
        semreg.extract("image.nii", model)
    with pytest.raises(DeviceError):
        semreg.extract(image, model, device="gpu")
    with pytest.raises(ConfigError, match="did you mean"):
        semreg.extract(image, model, spec="spacing=1")


def test_inspection_finds_what_the_network_is(model):
    """Channels, strides, places and the receptive field are those that follow from the layers of the network."""
    found = inspect_network(load_network(model))
    assert (found.kind, found.name) == ("TorchScript", "small")
    assert found.parameters == sum(p.numel() for p in Small().parameters())
    assert [output.channels for output in found.outputs] == [3, 5, 4]
    assert [output.stride for output in found.outputs] == [(1, 1, 1), (2, 2, 2), (1, 1, 1)]
    assert found.outputs[1].offset == (0.5, 0.5, 0.5)
    assert found.outputs[1].size == ("n / 2",) * 3
    assert set(found.receptive_field) == {2}  # from between two voxels, a convolution of 2 and one of 3
    assert found.tile_invariant
    assert found.multiple == (1, 1, 1)
    sizes = list(found.patch_bytes.values())
    assert sizes == sorted(sizes)
    assert sizes[0] > 4 * 8 * 96**3  # eight channels that are held at once


def test_inspection_says_why_tiles_matter():
    """A network that normalises over the image sees all of it, and the inspection says so."""
    module = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3, padding=1), torch.nn.InstanceNorm3d(2)).eval()
    found = inspect_network(as_network(module))
    assert found.receptive_field == (None, None, None)
    assert not found.tile_invariant
    assert "normalises over the image" in found.receptive_field_is


@real
def test_a_published_network_gives_what_torch_gives():
    """The features of a real image by a published network are those of calling its file."""
    image = semreg.read_image(min((DATA / "hippocampus" / "images").iterdir())).volume
    file = DATA / "models" / "M730_1_Layers.pt"
    (layer,) = semreg.extract(image, file)
    stats = [image.data.min(), image.data.max(), image.data.mean(), image.data.std(correction=0)]
    direction = torch.tensor(image.grid.direction, dtype=torch.float32)
    direct = load_network(file)(image.data[None], IntensityStats(*map(float, stats)), direction)
    assert_close(layer.features.data, direct[0][0])
    assert layer.grid == image.grid
    assert len(layer.features.data) == 32


def test_voxels_that_are_not_finite_do_not_count_in_infer():
    """``infer`` normalises with the statistics of the finite voxels, as ``extract`` does."""
    data = torch.rand(1, 12, 13, 14)
    data[:, :6] = float("nan")
    volume = Volume(data, Grid.of_shape((12, 13, 14)))
    (found,) = semreg.infer(volume, lambda x: x * 1.0, spec="normalisation.kind=z-score", device="cpu")
    good = found.data[:, 6:]
    assert float(good.mean()) == pytest.approx(0, abs=1e-3)
    assert float(good.std()) == pytest.approx(1, abs=1e-2)


def test_outputs_are_kept_once():
    """A network that was shortened keeps what it was shortened to, whatever its description keeps."""
    many = lambda x: [x, 2 * x, 3 * x]  # noqa: E731 - the smallest network with three outputs
    network = as_network(many, semreg.ModelSpec(layers=(1,))).keep((2, 1))
    volume = Volume(torch.rand(1, 9, 10, 11), Grid.of_shape((9, 10, 11)))
    layers = semreg.extract(volume, network, device="cpu")
    assert len(layers) == 2
    torch.testing.assert_close(layers[0].features.data, 3 * volume.data)


def test_memory_is_checked_before_the_image_is_resampled():
    """A voxel size that alone would exceed the limit is refused before anything of that size is made."""
    volume = Volume(torch.rand(1, 36, 44, 40), Grid.of_shape((36, 44, 40)))
    with pytest.raises(semreg.errors.ConfigError, match="to read the image at the voxel size"):
        semreg.extract(volume, lambda x: x, spec="spacing_mm=0.03", memory="900MB", device="cpu")
