"""Promises of the parts of the comparison at points: reading, distances, and models on patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from conftest import make_grid, noise, rotation
from sampled_cases import CPU, Layers, extractor, fixed_grid, images, objective, points_in, slopes, smooth_volume
from semreg.config import FeatureConfig, ModelConfig
from semreg.core.fields import Volume
from semreg.core.geometry import oriented_order, reorder
from semreg.core.sampling import transform_index
from semreg.distances import DISTANCES
from semreg.distances.correlation import scattered_lncc
from semreg.errors import ConfigError, GeometryError, ModelContractError
from semreg.features.contract import ModelSpec, Normalisation
from semreg.features.extract import Extractor
from semreg.features.networks import as_network
from semreg.itk.sampled import SampledConfig, SampledObjective, distances
from semreg.itk.sampled.patches import View, patch_shape
from semreg.registration.matching import Pairing


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("spread", ["box", "clusters", "plane"])
def test_cells_hold_enough_points(spread, dimension):
    """On average at least 27 points an occupied cell, and not many more, wherever the points lie."""
    points = np.random.default_rng(0).uniform(-50, 90, (4000, dimension))
    if spread == "clusters":
        points = np.concatenate([points[:2000] * 0.05, points[2000:] * 0.05 + 300])
    if spread == "plane":
        points[:, 0] = 7.0
    occupied = len(torch.unique(distances.lattice_of(points).cell))
    assert 27 <= 4000 / occupied < 80


@pytest.mark.parametrize("count", [1, 20])
def test_few_points_share_one_cell(count):
    """Fewer points than a cell should hold are all in one, also where they coincide."""
    assert set(distances.lattice_of(np.random.default_rng(0).normal(size=(count, 3))).cell.tolist()) == {0}
    assert set(distances.lattice_of(np.ones((count, 3))).cell.tolist()) == {0}


def test_lncc_is_the_mean_correlation_within_cells():
    """A loop over cells: correlation of each channel by numpy, averaged over the points; small cells count nowhere."""
    fixed, moving = noise(200, 3), noise(200, 3, seed=1) + noise(200, 3)
    cell = torch.randint(0, 9, (200,), generator=torch.Generator().manual_seed(0))
    cell[cell == 7] = 6
    cell[:2] = 7  # too few to correlate
    total, count = 0.0, 0
    for number in set(cell.tolist()) - {7}:
        f, m = fixed[cell == number].numpy(), moving[cell == number].numpy()
        total += len(f) * np.mean([1 - np.corrcoef(f[:, c], m[:, c])[0, 1] for c in range(3)])
        count += len(f)
    value = float(scattered_lncc(fixed, moving, cell))
    assert value == pytest.approx(total / count, abs=1e-4)  # what counts as flat
    assert float(scattered_lncc(fixed, -fixed, cell)) == pytest.approx(2, abs=1e-3)
    assert float(scattered_lncc(fixed, 3 * fixed + 5, cell)) == pytest.approx(0, abs=1e-3)


def test_lncc_of_flat_cells():
    """Where both are flat the distance is 0, where only one is, 1."""
    fixed, cell = noise(90, 1), torch.arange(90) % 3
    both, one = fixed.clone(), fixed.clone()
    both[cell == 0] = 1.0
    one[cell == 1] = 1.0
    assert float(scattered_lncc(both, both, cell)) == pytest.approx(0, abs=1e-9)
    assert float(scattered_lncc(fixed, one, cell)) == pytest.approx(1 / 3, abs=2e-3)
    with pytest.raises(GeometryError, match="lncc"):
        scattered_lncc(fixed[:4], fixed[:4], torch.tensor([0, 0, 1, 1]))


@pytest.mark.parametrize("name", sorted(set(DISTANCES) - {"lncc", "lncc_squared"}))
def test_distances_are_means_over_the_channels(name):
    """Features repeated in twice as many channels are as far from each other as before."""
    fixed, moving = noise(60, 4), noise(60, 4, seed=1)

    def value(f, m):
        if distances.is_additive(name):
            return sum(distances.additive(name, f[part], m[part], 60)[0] for part in (slice(25), slice(25, 60)))
        return float(distances.joint(name, f, m, None))

    assert value(fixed.repeat(1, 2), moving.repeat(1, 2)) == pytest.approx(value(fixed, moving), rel=1e-5)


class Planes(nn.Module):
    """A network of images with weights that no flip or transposition leaves as they are."""

    def __init__(self):
        """Fixed weights."""
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(2)
            self.first = nn.Conv2d(1, 3, (3, 5), padding=(1, 2))

    def forward(self, x):
        """One layer."""
        return torch.tanh(self.first(x))


def made(module, **spec):
    """The module as an extractor."""
    return Extractor(as_network(module.eval(), ModelSpec(name="net", **spec), "cpu"), device=CPU)


def on_every_voxel(case):
    """Weights that leave out the layer of the network that lies between the voxels."""
    whole = case in ("mind", "intensity", "a patch of 8", "every second voxel") or "slices" in case
    return ModelConfig(weight=(1.0,) if whole else (1.0, 0))


CASES = {
    "as it is": lambda: extractor(3),
    "another orientation": lambda: extractor(3, axes="LIA"),
    "normalised": lambda: extractor(3, normalisation=Normalisation(kind="z-score")),
    "a patch of 8": lambda: extractor(3, (0,), patch=(8, 8, 8)),
    "axial slices": lambda: made(Planes(), dimension=2),
    "sagittal slices": lambda: made(Planes(), dimension=2, slices="sagittal", axes="LIA"),
    "every second voxel": lambda: made(nn.Conv3d(1, 4, 3, stride=2), patch=(7, 7, 7)),
    "mind": lambda: "mind",
    "intensity": lambda: "intensity",
}


@pytest.mark.parametrize("case", CASES)
def test_patches_say_what_the_whole_image_says(case):
    """On the voxel centres of a grid of cubic voxels, the mode jacobian has the value of the mode static."""
    grid = make_grid((17, 15, 16), (1.0, 1.0, 1.0), (-31, 12, 77), rotation(3))
    pair = smooth_volume(grid, 1), smooth_volume(grid, 2)
    model = CASES[case]()
    on_voxels = on_every_voxel(case)
    index = 2 * np.random.default_rng(0).integers(2, 5, (60, 3)) + 1  # where a network of stride 2 has its samples
    matrix = grid.index_to_point()
    points = index @ matrix[:-1, :-1].T + matrix[:-1, -1]
    values = []
    for mode in ("static", "jacobian"):
        compared = objective(pair, [(model, on_voxels)], mode=mode, normalise_losses=False)
        compared.place(points)
        values.append(compared.value(np.arange(60), points + 2 * matrix[:-1, 0]))
    assert values[1] == pytest.approx(values[0], rel=1e-4)
    assert values[0] > 1e-3


def test_patches_have_the_spacing_and_the_axes_that_are_asked_for():
    """A network that wants voxels of 2 mm sees a ramp of 3 per mm as one of 6 a voxel, along its own first axis."""

    class Ramp(nn.Module):
        def forward(self, x):  # along the first axis
            return x[:, :, 2:, 1:-1, 1:-1] - x[:, :, :-2, 1:-1, 1:-1]

    grid = make_grid((17, 15, 16), (1.0, 1.0, 1.0), (-31, 12, 77), rotation(3))
    along = np.asarray(grid.direction)[:, 1]  # nearest to P
    pair = []
    for slope in (0.0, 3.0):
        image = smooth_volume(grid, 1)
        everywhere = torch.meshgrid(*[torch.arange(float(n)) for n in grid.shape], indexing="ij")
        pair.append(Volume((slope * everywhere[1] + 1e-3 * image.data[0])[None], grid))
    model = made(Ramp(), dimension=3, spacing_mm=(2.0,), axes="AIL", patch=(5, 5, 5), receptive_field=(1,), multiple=1)
    compared = objective(pair, [(model, ModelConfig(distance=("l1",)))], mode="jacobian", normalise_losses=False)
    points = points_in(grid, 20, margin=5)
    compared.place(points)
    assert compared.value(np.arange(20), points) == pytest.approx(3 * 2 * 2, rel=1e-2)
    assert np.abs(compared.evaluate(np.arange(20), points)[1] @ along).max() < 0.01  # a ramp is the same everywhere


def test_the_direction_is_that_of_the_patch():
    """A network that asks for the direction matrix gets that of the axes along which its patches lie."""

    def told(x, stats, direction):
        return 1e-9 * x + (direction * torch.arange(9.0).reshape(3, 3)).sum()

    pair = images(3)
    spec = ModelSpec(name="told", axes="LIA", patch=(3, 3, 3), receptive_field=(1,))
    model = Extractor(as_network(told, spec, "cpu"), device=CPU)
    compared = objective(pair, [(model, ModelConfig())], mode="jacobian")
    (rows,) = compared._source.place(torch.from_numpy(points_in(pair[0].grid, 4).T.copy()))
    turned = reorder(pair[0].grid, oriented_order(pair[0].grid, "LIA"))
    np.testing.assert_allclose(rows, (np.asarray(turned.direction) * np.arange(9).reshape(3, 3)).sum(), rtol=1e-5)


def test_mean_over_all_planes():
    """A network of images in all three planes: the derivative is that of the value."""
    compared = objective(images(3), [(made(Planes(), dimension=2, slices="all"), ModelConfig())], mode="jacobian")
    fixed = points_in(fixed_grid(3), 40)
    compared.place(fixed)
    said, seen = slopes(compared, np.arange(40), fixed + 0.3)
    assert said == pytest.approx(seen, rel=1e-3)


def test_batches_change_nothing():
    """One patch at a time gives what all at once give, for additive distances and for those that see all points."""
    for distance in ("l2", "ncc"):
        results = []
        for size in (1, 7, 64):
            models = [(extractor(2), ModelConfig(distance=(distance,)))]
            compared = objective(images(2), models, mode="jacobian", batch_size=size)
            fixed = points_in(fixed_grid(2), 30)
            compared.place(fixed)
            results.append(compared.evaluate(np.arange(30), fixed + 0.3))
        for value, derivative in results[1:]:
            assert value == pytest.approx(results[0][0], rel=1e-6)
            np.testing.assert_allclose(derivative, results[0][1], rtol=1e-4, atol=1e-6)


def test_size_of_a_patch():
    """What the description states; else what an output sees, with one sample more where the centre lies between two."""
    assert patch_shape(extractor(3, (0,)), CPU) == (3, 3, 3)
    assert patch_shape(extractor(3, (0,), patch=(8, 8, 8)), CPU) == (8, 8, 8)
    assert min(patch_shape(extractor(3), CPU)) >= 2 * 3 + 1
    blind = made(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.InstanceNorm2d(2)), dimension=2)
    assert patch_shape(blind, CPU) == (31, 31)


def test_models_that_do_not_fit_are_refused():
    """Other channels for the moving image, and a model without a gradient, say so."""
    near, far = extractor(3, (0,)), extractor(3, (1,))
    config = SampledConfig(models=(ModelConfig(),), mode="jacobian", features=FeatureConfig(spacing_mm=1.0))
    unlike = SampledObjective(*images(3), config, [Pairing(ModelConfig(), near, far)], CPU)
    with pytest.raises(ConfigError, match="same layers and channels"):
        unlike.place(points_in(fixed_grid(3), 5))

    class Cut(Layers):
        def forward(self, x):
            return self.fine(x).detach()

    cut = objective(images(3), [(made(Cut(3), receptive_field=(1,)), ModelConfig())], mode="jacobian")
    points = points_in(fixed_grid(3), 5)
    cut.place(points)
    with pytest.raises(ModelContractError, match="differentiable"):
        cut.evaluate(np.arange(5), points + 0.5)


@pytest.mark.parametrize("dimension", [2, 3])
def test_patches_along_the_image_are_read_as_any_patches(dimension):
    """Patches in the image's own voxels, inside and across its border: the same bits as voxel by voxel."""
    image = smooth_volume(fixed_grid(dimension), 1)
    view = View(image, image.grid, (7, 4, 5)[:dimension], lambda x: [x])
    points = torch.from_numpy(points_in(image.grid, 200, margin=-1.0).T.copy())
    centre = transform_index(image.grid.point_to_index(), points)
    for read, expected in zip(view.read(points), view._read(centre, np.eye(dimension)), strict=True):
        assert torch.equal(read, expected)
