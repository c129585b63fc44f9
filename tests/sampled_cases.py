"""Images, networks and checks that the tests of comparisons at points share."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from conftest import centre, grid_at, make_grid, noise, rotation
from semreg.config import FeatureConfig, ModelConfig, RegistrationConfig
from semreg.core.fields import Volume
from semreg.core.geometry import Grid
from semreg.core.sampling import smooth
from semreg.features.contract import ModelSpec
from semreg.features.extract import Extractor
from semreg.features.networks import as_network
from semreg.itk.sampled import SampledConfig, SampledObjective
from semreg.registration.matching import Pairing, resolve_models

CPU = torch.device("cpu")


def fixed_grid(dimension: int) -> Grid:
    """Anisotropic, off the origin, oblique."""
    return make_grid(
        (15, 17, 13)[:dimension], (1.0, 1.2, 1.5)[:dimension], (-31, 12, 77)[:dimension], rotation(dimension)
    )


def moving_grid(dimension: int) -> Grid:
    """In another oblique frame, larger than the fixed one."""
    return grid_at(
        centre(fixed_grid(dimension)) + np.array([0.7, -0.4, 1.1])[:dimension],
        (24, 21, 19)[:dimension],
        (1.1, 0.9, 1.3)[:dimension],
        rotation(dimension, -9.0),
    )


def smooth_volume(grid: Grid, seed: int) -> Volume:
    """Smooth noise, float32: its linear interpolant has weak kinks."""
    return Volume(10 * smooth(noise(1, *grid.shape, seed=seed, dtype=torch.float32), radius=2), grid)


class Layers(nn.Module):
    """Two layers with fixed weights: one sample a voxel, and one a block of 2 voxels."""

    def __init__(self, dimension: int) -> None:
        """For images of ``dimension`` axes."""
        super().__init__()
        convolution = nn.Conv3d if dimension == 3 else nn.Conv2d
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.fine = convolution(1, 4, 3, padding=1)
            self.coarse = convolution(4, 6, 2, stride=2)

    def forward(self, x):
        """Both."""
        y = torch.tanh(self.fine(x))
        return [y, torch.tanh(self.coarse(y))]


@cache
def extractor(dimension: int, layers: tuple[int, ...] = (0, 1), **spec) -> Extractor:
    """The network, measured once for all tests."""
    network = as_network(Layers(dimension).eval(), ModelSpec(name="net", dimension=dimension, **spec), "cpu")
    return Extractor(network.keep(layers), device=CPU)


def pairing(model: str | Extractor, entry: ModelConfig, dimension: int) -> Pairing:
    """One model for both images."""
    if isinstance(model, Extractor):
        return Pairing(entry, model, model)
    config = RegistrationConfig(models=(ModelConfig(model=model),))
    return Pairing(entry, *[resolve_models(config, dimension, CPU)[0].fixed] * 2)


def objective(images, models, **settings) -> SampledObjective:
    """``models``: pairs of a model and its entry; the features in voxels of 1 mm."""
    dimension = images[0].grid.dimension
    settings.setdefault("features", FeatureConfig(spacing_mm=1.0))
    config = SampledConfig(models=tuple(entry for _, entry in models), **settings)
    return SampledObjective(*images, config, [pairing(*model, dimension) for model in models], CPU)


def images(dimension: int) -> tuple[Volume, Volume]:
    """A pair without likeness."""
    return smooth_volume(fixed_grid(dimension), 1), smooth_volume(moving_grid(dimension), 2)


def points_in(grid: Grid, count: int, seed: int = 0, margin: float = 2.0) -> npt.NDArray[np.float64]:
    """Points at random, ``margin`` voxels or more within the grid, (count, D) mm."""
    share = np.random.default_rng(seed).uniform(size=(count, grid.dimension))
    index = margin + share * (np.array(grid.shape) - 1 - 2 * margin)
    matrix = grid.index_to_point()
    return index @ matrix[:-1, :-1].T + matrix[:-1, -1]


def slopes(compared: SampledObjective, rows, points) -> tuple[float, float]:
    """The derivative along some direction as the objective says it and as central differences of its value say it.

    The direction is uphill with as much at random added, so that no component can be missing or wrong unseen.
    """
    # some voxel of a patch is always near the border of an image's voxel, where its intensity has a kink
    step = 1e-4 if compared.config.mode == "jacobian" else 1e-3
    _, derivative = compared.evaluate(rows, points)
    uphill = derivative / np.abs(derivative).max()
    along = uphill + np.abs(uphill) * np.random.default_rng(3).uniform(-1, 1, uphill.shape)
    ahead, behind = (compared.value(rows, points + s * along) for s in (step, -step))
    return float((derivative * along).sum()), (ahead - behind) / (2 * step)
