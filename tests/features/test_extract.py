"""From an image to layers on grids: samples at their places, excluded voxels without influence, labels of the maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import ORIENTATIONS, make_grid, noise, oblique_grid, points_of, rotation
from semreg.core.fields import Volume
from semreg.core.geometry import AxisOrder, Grid, canonical_order, covering_grid, reorder
from semreg.core.sampling import pool
from semreg.errors import ModelContractError
from semreg.features.contract import IntensityStats, ModelSpec, Normalisation
from semreg.features.extract import Extractor, extract_layers, segment
from semreg.features.inputs import PIECE, frame_of, letters_of, request_of, stats_of
from semreg.features.networks import as_network, load_network
from semreg.features.slices import SliceNetwork
from small_networks import seeded

MODELS = Path(__file__).parents[3] / "shared" / "data" / "models"
real = pytest.mark.skipif(not MODELS.is_dir(), reason="the folder of real models, ../shared/data/models, is not here")

GRID = make_grid((23, 20, 17), (0.8, 1.3, 2.1), (-31.0, 12.5, 77.0), rotation(3))
SLOPE = torch.tensor([0.7, -1.1, 0.4], dtype=torch.float64)


def ramp(grid):
    """A linear function of the point in mm."""
    n = grid.dimension
    return torch.einsum("i,i...->...", SLOPE[:n], points_of(grid))[None].float()


def image(grid, seed=0):
    return Volume(noise(1, *grid.shape, seed=seed, dtype=torch.float32), grid)


def stored_as(volume, number):
    """The same samples stored in another order of the axes."""
    orientation = ORIENTATIONS[number]
    order = tuple(int(np.abs(orientation[:, axis]).argmax()) for axis in range(3))
    return volume.reordered(AxisOrder(order, tuple(axis for axis in range(3) if orientation[:, axis].sum() < 0)))


def delta(stride, kernel=3, padding=1):
    """A convolution that copies the centre of its kernel."""
    module = nn.Conv3d(1, 1, kernel, stride, padding, bias=False)
    module.weight.data.zero_()
    module.weight.data[0, 0, kernel // 2, kernel // 2, kernel // 2] = 1
    return module


COPIES = {
    "identity": (lambda x: 1 * x, (0.0, 1.0)),
    "means of 2": (nn.AvgPool3d(2), (0.5, 2.0)),
    "every second": (delta(2), (0.0, 2.0)),
    "every third": (delta(3), (0.0, 3.0)),
    "every fourth of four": (nn.AvgPool3d(4), (1.5, 4.0)),
    "one more on each side": (nn.ReplicationPad3d(1), (-1.0, 1.0)),
    "two fewer on each side": (lambda x: 1 * x[:, :, 2:-2, 2:-2, 2:-2], (2.0, 1.0)),
    "halved and doubled": (lambda x: F.interpolate(F.avg_pool3d(x, 2), scale_factor=2.0, mode="trilinear"), (0.0, 1.0)),
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("axes", [None, "LIA", "RSP"])
def test_samples_lie_where_they_were_taken(name, axes):
    """A network that copies or averages a ramp in mm gives the value of the ramp at the point of every sample."""
    module, (offset, stride) = COPIES[name]
    for number in (0, 13, 29):
        volume = stored_as(Volume(ramp(GRID), GRID), number)
        (layer,) = extract_layers(volume, as_network(module, ModelSpec(axes=axes)))
        data, expected = layer.features.data, ramp(layer.grid)
        assert layer.grid.direction == volume.grid.direction
        np.testing.assert_allclose(layer.grid.spacing, np.array(volume.grid.spacing) * stride)
        inner = (slice(None), *[slice(2, -2)] * 3)  # borders are continued, ramps are not
        inner = inner if "more" in name or "doubled" in name else (slice(None),)
        torch.testing.assert_close(data[inner], expected[inner], rtol=0, atol=1e-4)
        if axes is None:
            start = GRID.lattice((offset,) * 3, (stride,) * 3, (1, 1, 1)).origin_xyz
            if number == 0:
                np.testing.assert_allclose(layer.grid.origin_xyz, start, atol=1e-9)


@pytest.mark.parametrize("spacing", [(1.5,), (1.9, 0.9, 1.2), (2.1, 1.3, 0.8)])
def test_samples_at_another_voxel_size(spacing):
    """Resampled to the network's voxel size, in its axes, samples lie at the points their grid says."""
    spec = ModelSpec(axes="LIA", spacing_mm=spacing)
    (layer,) = extract_layers(Volume(ramp(GRID), GRID), as_network(delta(2), spec))
    turned = reorder(layer.grid, frame_of(GRID, spec).axes)
    np.testing.assert_allclose(np.array(turned.spacing) / 2, np.broadcast_to(spacing, 3))
    corners = np.vstack([points_of(layer.grid).reshape(3, -1).numpy(), np.ones(layer.grid.voxels)])
    index = (GRID.point_to_index() @ corners)[:3]
    within = ((index >= 2.5) & (index <= np.array(GRID.shape)[:, None] - 3.5)).all(0)  # there borders do not count
    assert within.mean() > 0.2
    found, expected = layer.features.data.flatten()[within], ramp(layer.grid).flatten()[within]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("number", range(0, 48, 5))
def test_the_network_sees_its_axes(number):
    """However the image is stored, a network that wants LIA gets the same array, and the layer fits the image."""
    seen = []

    class Watching(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x * 1

    base = image(GRID)
    for volume in (base, stored_as(base, number)):
        (layer,) = extract_layers(volume, as_network(Watching(), ModelSpec(axes="LIA", receptive_field=(0,))))
        assert layer.grid == volume.grid
        assert torch.equal(layer.features.data, volume.data)
        shown = seen[-1]
    first = next(x for x in seen if x.numel() == shown.numel())
    assert torch.equal(first, shown)


@pytest.mark.parametrize("kind", ["z-score", "min-max", "window", "percentiles", "none"])
def test_intensities_are_normalised(kind):
    """Each kind is its formula over the whole image, clipped where it is an interval, whatever the tile."""
    how = Normalisation(kind=kind, window=(-0.5, 1.5), percentiles=(10.0, 80.0), to=(-1.0, 3.0))
    volume = image(GRID)
    x = volume.data.double()
    low, high = {
        "min-max": (x.min(), x.max()),
        "window": (-0.5, 1.5),
        "percentiles": tuple(np.percentile(x.numpy(), (10.0, 80.0))),
    }.get(kind, (0.0, 1.0))
    expected = {"none": x, "z-score": (x - x.mean()) / x.std(correction=0)}.get(
        kind, ((x - low) / (high - low)).clamp(0, 1) * 4 - 1
    )
    for patch in (None, (12,)):
        spec = ModelSpec(normalisation=how, patch=patch)
        (layer,) = extract_layers(volume, as_network(lambda x: 1 * x, spec))
        torch.testing.assert_close(layer.features.data.double(), expected, rtol=0, atol=1e-5)


def test_the_network_is_told_the_image():
    """Every tile comes with the statistics of the whole normalised image and the direction of its axes."""
    told = []

    def network(x, nb_layers, stats, direction):
        told.append((tuple(x.shape), stats, direction))
        return x * 1

    spec = ModelSpec(axes="LIA", normalisation=Normalisation(kind="min-max", to=(0.0, 2.0)), patch=(12,))
    volume = image(GRID)
    extractor = Extractor(as_network(network, spec))
    _ = extractor.traits.halo, extractor.traits.outputs, extractor.traits.memory
    told.clear()
    extractor.layers(volume)
    x = volume.data.double()
    x = (x - x.min()) / (x.max() - x.min()) * 2
    expected = torch.stack([x.min(), x.max(), x.mean(), x.std(correction=0)])
    turned = frame_of(GRID, spec).grid
    of_image = [(stats, direction) for shape, stats, direction in told if max(shape) == 12]
    assert len(of_image) > 4
    for stats, direction in of_image:
        torch.testing.assert_close(torch.as_tensor(stats).double(), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(direction.double(), torch.tensor(turned.direction).double(), rtol=0, atol=1e-6)


def test_constant_images():
    """An image of one value stays finite in every normalisation."""
    for kind in ("z-score", "min-max", "percentiles"):
        volume = Volume(torch.full((1, 10, 11, 12), 7.0), make_grid((12, 11, 10), (1, 1, 1), (0, 0, 0), np.eye(3)))
        spec = ModelSpec(normalisation=Normalisation(kind=kind))
        (layer,) = extract_layers(volume, as_network(lambda x: 1 * x, spec))
        assert torch.equal(layer.features.data, torch.zeros_like(layer.features.data))


def test_letters_of_a_grid():
    """The letters of a grid are those of its canonical order, however it is stored."""
    assert letters_of(reorder(GRID, canonical_order(GRID))) == "SPL"
    for orientation in ORIENTATIONS:
        grid = oblique_grid(3, orientation)
        for axis, letter in enumerate(letters_of(grid)):
            column = np.asarray(grid.direction)[:, ::-1][:, axis]
            place, sign = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}[letter]
            assert column[place] * sign > 0.7


FLAT = seeded(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 3, 2, 2))


def by_hand(data, axis):
    """FLAT on every slice along a tensor axis, one after the other."""
    with torch.no_grad():
        return torch.stack([FLAT(data.select(axis + 1, i)[None])[0] for i in range(data.shape[axis + 1])], axis + 1)


@pytest.mark.parametrize(("plane", "across"), [("axial", "SI"), ("coronal", "PA"), ("sagittal", "LR")])
@pytest.mark.parametrize("number", [0, 7, 22, 41])
def test_slices_of_a_plane(plane, across, number):
    """A picture network sees the slices of its plane, wherever that axis is stored, one by one."""
    volume = stored_as(image(GRID), number)
    axis = next(axis for axis, letter in enumerate(letters_of(volume.grid)) if letter in across)
    for patch in (None, (8,)):
        spec = ModelSpec(dimension=2, slices=plane, patch=patch)
        (layer,) = extract_layers(volume, as_network(FLAT, spec))
        torch.testing.assert_close(layer.features.data, by_hand(volume.data, axis), rtol=0, atol=1e-5)
        stride = [1.0 if a == axis else 2.0 for a in range(3)]
        np.testing.assert_allclose(layer.grid.spacing, np.array(volume.grid.spacing) * stride)


@pytest.mark.parametrize(("axis", "columns"), [(0, (0, 1)), (1, (0, 2)), (2, (1, 2))])
def test_slices_are_told_their_direction(axis, columns):
    """A slice comes with the rows and columns of direction that belong to its own two axes, in the order x, y, z."""
    told = []

    def network(x, nb_layers, stats, direction):
        told.append(direction)
        return x * 1

    direction = torch.tensor(GRID.direction).float()
    network = SliceNetwork(as_network(network, ModelSpec(dimension=2)), axis)
    network(torch.rand(1, 1, 4, 5, 6), IntensityStats(0.0, 1.0, 0.5, 0.3), direction)
    torch.testing.assert_close(told[0], direction[list(columns)][:, list(columns)])


def test_all_planes_are_a_mean():
    """``all`` is the mean of the three planes, brought to the image's grid."""
    volume = image(GRID)
    (layer,) = extract_layers(volume, as_network(FLAT, ModelSpec(dimension=2, slices="all")))
    parts = [
        extract_layers(volume, as_network(FLAT, ModelSpec(dimension=2, slices=plane)))[0].features.on(GRID).data
        for plane in ("axial", "coronal", "sagittal")
    ]
    torch.testing.assert_close(layer.features.data, sum(parts) / 3, rtol=0, atol=1e-5)
    assert layer.grid == GRID


def test_constant_slices_are_zero():
    """Slices of one value of which a network makes NaN have no features instead, and do not change the others."""
    module = seeded(nn.Conv2d(1, 2, 1), nn.InstanceNorm2d(2, eps=0.0))
    volume = image(GRID)
    data = volume.data.clone()
    data[:, 3:6] = 5.0
    (layer,) = extract_layers(Volume(data, GRID), as_network(module, ModelSpec(dimension=2)))
    (plain,) = extract_layers(volume, as_network(module, ModelSpec(dimension=2)))
    assert torch.equal(layer.features.data[:, 3:6], torch.zeros(2, 3, 20, 23))
    torch.testing.assert_close(layer.features.data[:, 6:], plain.features.data[:, 6:], rtol=0, atol=1e-5)


@real
def test_two_pixels_more():
    """The 2-D model of IMPACT on a volume: slices by hand, and its first sample one pixel before the image."""
    network = load_network(MODELS / "R1D2_2D.pt", spec=ModelSpec(dimension=2))
    grid = make_grid((26, 24, 5), (0.8, 1.3, 2.1), (-31.0, 12.5, 77.0), rotation(3))
    volume = image(grid)
    (layer,) = extract_layers(volume, network)
    plane = torch.tensor(grid.direction)[:2, :2].float()
    request, _ = request_of(volume, None, frame_of(grid, network.spec), network.spec)
    for i in range(5):
        with torch.no_grad():
            (expected,) = network(volume.data[:, i][None], request.stats, plane)
        torch.testing.assert_close(layer.features.data[:, i], expected[0], rtol=0, atol=1e-5)
    start = grid.lattice((0, -1, -1), (1, 1, 1), (5, 26, 28))
    np.testing.assert_allclose(layer.grid.index_to_point(), start.index_to_point(), atol=1e-9)


SCORES = seeded(nn.Conv3d(1, 4, 3, padding=1), nn.LeakyReLU(), nn.Conv3d(4, 5, 3, padding=1))
HALF = seeded(nn.Conv3d(1, 4, 3, 2, 1), nn.LeakyReLU(), nn.Conv3d(4, 5, 3, padding=1))


@pytest.mark.parametrize("patch", [None, (14,), (20, 16, 18)])
@pytest.mark.parametrize("axes", [None, "LIA"])
def test_labels_are_the_largest_channel(patch, axes):
    """On the image's own grid labels are the argmax of the maps, whole or in tiles."""
    spec = ModelSpec(axes=axes, patch=patch)
    volume = image(GRID)
    labels = segment(volume, as_network(SCORES, spec))
    (layer,) = extract_layers(volume, as_network(SCORES, ModelSpec(axes=axes)))
    assert labels.grid == GRID
    assert labels.data.dtype == torch.uint8
    assert (labels.data != layer.features.data.argmax(0, keepdim=True)).float().mean() < 1e-3  # ties by rounding


@pytest.mark.parametrize("module", [SCORES, HALF])
@pytest.mark.parametrize("spacing", [None, (1.7,), (0.9,)])
@pytest.mark.parametrize("patch", [None, (16,), (16, 14, 18)])
def test_labels_of_interpolated_channels(module, spacing, patch):
    """Where the network's grid is another one channels are interpolated, and tiles do not show anywhere."""
    volume = image(GRID)
    labels = segment(volume, as_network(module, ModelSpec(axes="LIA", spacing_mm=spacing, patch=patch)))
    (layer,) = extract_layers(volume, as_network(module, ModelSpec(axes="LIA", spacing_mm=spacing)))
    expected = layer.features.on(GRID).data.argmax(0, keepdim=True)
    assert (labels.data != expected).float().mean() < 1e-3  # ties by rounding


def test_blended_labels():
    """Where tiles are blended, labels are the argmax of the blended maps."""
    module = seeded(nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.Conv3d(4, 5, 1))
    volume, spec = image(GRID), ModelSpec(patch=(12,))
    labels = segment(volume, as_network(module, spec))
    (layer,) = extract_layers(volume, as_network(module, spec))
    assert (labels.data != layer.features.data.argmax(0, keepdim=True)).float().mean() < 1e-3


def test_many_classes():
    """Labels above 255 are kept."""

    def network(x):
        return torch.cat([x.expand(-1, 299, -1, -1, -1) * 0, x.abs() + 1], 1) + 1e-9 * x

    labels = segment(image(GRID), as_network(network, ModelSpec(receptive_field=(0,))))
    assert labels.data.dtype == torch.int16
    assert (labels.data == 299).all()


def test_labels_of_several_outputs_are_refused():
    """Labels are taken from one output; with more, it must be said from which."""
    with pytest.raises(ModelContractError, match="expected one output to take labels from, got 2"):
        segment(image(GRID), as_network(lambda x: [x * 1, x * 2]))


@pytest.mark.parametrize("junk", [1e6, -1e6, float("nan"), float("inf")])
@pytest.mark.parametrize("spacing", [None, (1.7,)])
def test_excluded_voxels_do_not_count(junk, spacing):
    """Whatever is in voxels of weight 0, no feature changes; the layer carries the weight on its grid."""
    weight = torch.ones(1, *GRID.shape)
    weight[:, :6] = 0
    volume = image(GRID)
    spec = ModelSpec(normalisation=Normalisation(kind="z-score"), spacing_mm=spacing)
    network = as_network(nn.Sequential(SCORES, nn.AvgPool3d(2)), spec)
    layers = []
    for value in (0.3, junk):
        data = torch.where(weight > 0, volume.data, value)
        (layer,) = extract_layers(Volume(data, GRID), network, weight=Volume(weight, GRID))
        layers.append(layer)
    near = layers[0].weight.data > 0
    assert near.any()
    a, b = (torch.where(near, layer.features.data, 0) for layer in layers)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert layers[0].weight.grid == layers[0].grid
    assert layers[0].weight.data.min() == 0
    assert layers[0].weight.data.max() == 1


@pytest.mark.parametrize("patch", [None, (16,)])
@pytest.mark.parametrize("module", [SCORES, HALF])
def test_pooled_layers_are_pooled_afterwards(module, patch):
    """Asked for coarser layers, block means come from the tiles, and are those of the whole."""
    volume = image(GRID)
    (layer,) = extract_layers(volume, as_network(module, ModelSpec(patch=patch)), pooled_mm=3.2)
    (fine,) = extract_layers(volume, as_network(module))
    factor = 4 if module is SCORES else 2
    torch.testing.assert_close(layer.features.data, pool(fine.features.data, factor), rtol=0, atol=1e-5)
    assert layer.grid == fine.grid.pooled(factor)


@pytest.mark.parametrize("axes", [None, "LIA"])
@pytest.mark.parametrize("patch", [None, (14,)])
def test_gradients_are_those_of_the_network(axes, patch):
    """The gradient in the image is autograd's through the network run directly, whole and in tiles."""
    module = nn.ModuleList([SCORES, HALF])

    def network(x):
        return [part(x) for part in module]

    pulls = None
    x = image(GRID).data.clone().requires_grad_()
    layers = extract_layers(Volume(x, GRID), as_network(network, ModelSpec(axes=axes, patch=patch)))
    pulls = [noise(*layer.features.data.shape, seed=i, dtype=torch.float32) for i, layer in enumerate(layers)]
    sum((layer.features.data * pull).sum() for layer, pull in zip(layers, pulls, strict=True)).backward()
    direct = image(GRID).data.clone().requires_grad_()
    order = frame_of(GRID, ModelSpec(axes=axes)).axes
    moved = Volume(direct, GRID).reordered(order)
    outputs = network(moved.data[None])
    back = [
        Volume(y[0], reorder(layer.grid, order)).reordered(order.inverse)
        for y, layer in zip(outputs, layers, strict=True)
    ]
    for found, expected in zip(layers, back, strict=True):
        torch.testing.assert_close(found.features.data, expected.data, rtol=0, atol=1e-5)
    sum((y.data * pull).sum() for y, pull in zip(back, pulls, strict=True)).backward()
    torch.testing.assert_close(x.grad, direct.grad, rtol=1e-4, atol=1e-4)
    assert x.grad.abs().max() > 1


def test_gradients_through_normalisation_and_filling():
    """Normalised, resampled and filled up, the gradient is the slope of the features."""
    module = seeded(nn.Conv3d(1, 2, 3, padding=1), nn.Tanh(), nn.MaxPool3d(4), nn.Upsample(scale_factor=4))
    spec = ModelSpec(normalisation=Normalisation(kind="window", window=(-9.0, 9.0)), spacing_mm=(1.6,))
    extractor = Extractor(as_network(module, spec))
    step = noise(1, *GRID.shape, seed=5, dtype=torch.float32)

    def total(x):
        return (extractor.layers(Volume(x, GRID))[0].features.data.double() ** 2).sum()

    x = image(GRID).data.clone().requires_grad_()
    total(x).backward()
    slope = (total(x.detach() + 1e-2 * step) - total(x.detach() - 1e-2 * step)) / 2e-2
    assert float((x.grad * step).sum()) == pytest.approx(float(slope), rel=0.02)


def test_measured_once():
    """What was measured of a network is kept from one image to the next."""
    calls = []

    def network(x):
        calls.append(1)
        return x * 1

    extractor = Extractor(as_network(network))
    extractor.layers(image(GRID))
    first = len(calls)
    extractor.layers(image(GRID, seed=1))
    assert len(calls) == first + 1


def test_frames_cover_the_image():
    """A voxel size that differs by less than a percent is the image's own; another one covers its box."""
    assert frame_of(GRID, ModelSpec(spacing_mm=(2.11, 1.3, 0.8))).grid == GRID
    grid = frame_of(GRID, ModelSpec(spacing_mm=(1.0,))).grid
    assert grid == covering_grid(GRID, GRID, (1.0,) * 3)


def test_pictures_are_no_volumes():
    """A network of volumes refuses a picture."""
    grid = oblique_grid(2)
    with pytest.raises(ModelContractError, match="expected a 3-D image for the model, got a 2-D one"):
        extract_layers(Volume(torch.rand(1, *grid.shape), grid), as_network(SCORES))


def test_tensors_of_maps():
    """A 2-D network on a picture gives its maps on the picture's grid."""
    grid = make_grid((22, 18), (0.8, 1.3), (-31.0, 12.5), rotation(2))
    data = noise(1, 18, 22, dtype=torch.float32)
    (layer,) = extract_layers(Volume(data, grid), as_network(FLAT, ModelSpec(dimension=2)))
    with torch.no_grad():
        expected: Tensor = FLAT(data[None])[0]
    assert torch.equal(layer.features.data, expected)
    np.testing.assert_allclose(layer.grid.origin_xyz, grid.lattice((0.5, 0.5), (2, 2), (9, 11)).origin_xyz, atol=1e-9)


def test_small_tiles_of_slices_are_whole_slices():
    """A tile of one value in a slice that has structure is seen by a 2-D network as in the whole slice."""
    torch.manual_seed(0)
    network = as_network(nn.Conv2d(1, 3, 3, padding=1), ModelSpec(dimension=2))
    data = torch.zeros(1, 6, 64, 64)
    data[:, :, 40:60, 5:30] = torch.rand(1, 6, 20, 25)
    volume = Volume(data, Grid.of_shape((6, 64, 64)))
    (whole,) = extract_layers(volume, network)
    tiled_network = as_network(network, replace(network.spec, patch=(32, 32)))
    (tiled,) = extract_layers(volume, tiled_network)
    torch.testing.assert_close(tiled.features.data, whole.features.data, rtol=0, atol=1e-5)


def test_axes_of_a_network_of_slices():
    """On a volume a 2-D network is turned by three letters; two are refused, they do not say which way slices lie."""
    torch.manual_seed(0)
    volume = Volume(torch.rand(1, 5, 12, 14), Grid.of_shape((5, 12, 14)))
    net = nn.Conv2d(1, 2, 3, padding=1)
    (plain,) = extract_layers(volume, as_network(net, ModelSpec(dimension=2, axes="SPL")))
    (turned,) = extract_layers(volume, as_network(net, ModelSpec(dimension=2, axes="SLP")))
    assert turned.grid == plain.grid
    assert float((turned.features.data - plain.features.data).abs().max()) > 1e-2
    flat = as_network(net, ModelSpec(dimension=2, axes="PL"))
    with pytest.raises(ModelContractError, match="3 letters in axes"):
        extract_layers(volume, flat)


def test_all_planes_at_one_voxel_size():
    """``slices=all`` shows all three planes at the voxel size that is asked for; two sizes are refused."""
    volume = Volume(torch.rand(1, 6, 20, 21), Grid.of_shape((6, 20, 21), (0.7, 0.7, 5.0)))
    network = as_network(nn.Conv2d(1, 2, 3, padding=1), ModelSpec(dimension=2, spacing_mm=(1.0,), slices="all"))
    (layer,) = extract_layers(volume, network)
    assert layer.grid.spacing_xyz == pytest.approx((1.0, 1.0, 1.0))
    two = as_network(nn.Conv2d(1, 2, 3, padding=1), ModelSpec(dimension=2, spacing_mm=(1.0, 2.0), slices="all"))
    with pytest.raises(ModelContractError, match="one voxel size for all three planes"):
        extract_layers(volume, two)


def test_statistics_are_those_of_double_precision():
    """Over more values than are squared at a time, with a mean that single precision would lose."""
    values = torch.randn(PIECE + 12345, generator=torch.Generator().manual_seed(0)) + 1000
    found, exact = stats_of(values), values.double()
    assert found.mean == pytest.approx(float(exact.mean()), rel=1e-12)
    assert found.std == pytest.approx(float(exact.std(correction=0)), rel=1e-6)
    assert (found.minimum, found.maximum) == (float(values.min()), float(values.max()))
