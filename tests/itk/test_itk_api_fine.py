"""Promises of the fine stage: it does not spoil a good start, and its trace tells what is returned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from small_networks import save

TRUTH = np.array([2.0, -1.5, 1.0])
OFF = np.array([0.5, 0.0, -0.5])
WAVES = {
    "fine": [
        ((0.66, 0.21, -0.35), 0.3),
        ((-0.18, 0.57, 0.41), 1.9),
        ((0.33, -0.29, 0.62), 4.0),
        ((0.1, 0.4, -0.5), 5.1),
    ],
    "coarse": [((0.41, 0.1, -0.2), 0.8), ((-0.12, 0.35, 0.15), 2.9), ((0.2, -0.18, 0.44), 1.3), ((0.3, 0.2, 0.1), 5.6)],
}


@pytest.fixture(scope="module")
def itk():
    """The package itk with the names that the import puts there."""
    import itk
    import semreg.itk.api  # noqa: F401

    return itk


def positions(size):
    """Points (z, y, x, 3) in mm, x first, of a cube of ``size`` voxels of 1 mm."""
    z, y, x = np.meshgrid(*[np.arange(float(size))] * 3, indexing="ij")
    return np.stack([x, y, z], -1)


def texture(points, name):
    """Smooth values of about -2 to 2: sines along four directions."""
    return sum(np.sin(points @ np.array(rate) + phase) for rate, phase in WAVES[name])


def sine(points):
    """A product of sines along the axes, of 11, 13 and 9 mm: it repeats itself and is flat in many places."""
    return np.prod([np.sin(2 * np.pi * points[..., i] / edge + 0.3 * i) for i, edge in enumerate((11, 13, 9))], axis=0)


def refined(itk, fixed, moving, start, network=None, **settings):
    """The fine filter after ``Update`` on two arrays, from a start that is the same everywhere, None: from none."""
    kind = itk.Image[itk.F, 3]
    made = itk.ImpactFineRegistration[kind, kind].New(
        *[itk.image_from_array(np.ascontiguousarray(a, np.float32)) for a in (fixed, moving)], **settings
    )
    if start is not None:
        field = np.broadcast_to(np.asarray(start, np.float32), (*fixed.shape, 3)).copy()
        made.SetInitialDisplacementField(itk.image_from_array(field, ttype=(itk.Image[itk.Vector[itk.F, 3], 3],)))
    if network is not None:
        whole = [0, 0, 0]
        made.AddModelConfiguration(
            itk.ImpactModelConfiguration(str(network), 3, 1, whole, [1.0, 1.0, 1.0], whole, [True], False)
        )
    made.Update()
    return made


def error(itk, made, margin=3):
    """Mean error in mm along each axis, without a rim that the moving image does not show."""
    inner = (slice(margin, -margin),) * 3
    return np.abs(itk.array_from_image(made.GetDisplacementField()) - TRUTH)[inner].mean((0, 1, 2))


@pytest.mark.parametrize("name", list(WAVES))
def test_a_good_start_becomes_better(itk, name):
    """A start half a voxel off comes to 0.06 mm an axis by intensities."""
    points = positions(24)
    near, far = texture(points + TRUTH, name), texture(points, name)
    made = refined(itk, near, far, TRUTH + OFF, number_of_iterations=50, learning_rate=0.1, regularization_weight=0.02)
    assert error(itk, made).max() < 0.06


def test_the_unit_of_the_intensities_does_not_matter(itk):
    """Intensities without a model give the same field in any unit, and the regularity is as strong."""
    points = positions(16)
    near, far = texture(points + TRUTH, "fine"), texture(points, "fine")
    one, other = (
        refined(itk, gain * near + shift, gain * far + shift, TRUTH + OFF, number_of_iterations=10, learning_rate=0.1)
        for gain, shift in ((1, 0), (250, 90))
    )
    np.testing.assert_allclose(other.result().field.vox, one.result().field.vox, atol=0.003)


@pytest.mark.parametrize("weight", [0.02, 1.25])
def test_a_pattern_that_repeats_itself_spoils_no_start(itk, weight):
    """On sines, which match in many places, a start 0.33 mm off an axis comes to 0.06 mm."""
    points = positions(26)
    made = refined(
        itk, sine(points + TRUTH), sine(points), TRUTH + OFF,
        number_of_iterations=45, learning_rate=0.1, regularization_weight=weight,
    )  # fmt: skip
    assert error(itk, made).max() < 0.06


class Patches(nn.Module):
    """Six channels that see 5 voxels an axis, every ``stride`` voxels."""

    def __init__(self, stride):
        """Weights that do not depend on other tests."""
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.first = nn.Conv3d(1, 4, 3, padding=1)
            self.second = nn.Conv3d(4, 6, 3, padding=1, stride=stride)
        self.eval()

    def forward(self, x):
        """One layer."""
        return [self.second(torch.relu(self.first(x)))]


@pytest.mark.parametrize("distance", ["L2", "NCC"])
def test_coarse_layers_are_refined_at_the_usual_rate(itk, tmp_path, distance):
    """With features 4 voxels apart and all else as it is usual the trace falls, and the field is what it ended with."""
    network = save(Patches(4), tmp_path / "coarse.pt")
    points = positions(28)
    near, far = texture(points + TRUTH, "coarse"), texture(points, "coarse")
    made = refined(itk, near, far, None, network, distance=[distance], number_of_iterations=40)
    trace = np.array(made.GetMetricValuesPerIteration())
    assert (trace <= 1.25 * np.minimum.accumulate(trace)).all()
    assert trace[-1] < 0.6 * trace[0]
    number, value = made.GetReturnedIteration(), made.GetReturnedMetricValue()
    assert value <= trace.min()
    assert value == pytest.approx(trace[number] if number < len(trace) else value)
    assert number > 20
    assert error(itk, made).mean() < 0.6 * np.abs(TRUTH).mean()


def test_renewing_is_no_worse_than_not_renewing(itk, tmp_path):
    """Features that are extracted anew leave no larger error than those of the image; a tenth more is chance."""
    network = save(Patches(1), tmp_path / "fine.pt")
    points = positions(24)
    near, far = texture(points + TRUTH, "fine"), texture(points, "fine")
    settings = {"number_of_iterations": 60, "learning_rate": 0.1, "regularization_weight": 0.02, "distance": ["L2"]}
    once = refined(itk, near, far, TRUTH + OFF, network, **settings)
    for interval in (20, 5):
        anew = refined(itk, near, far, TRUTH + OFF, network, feature_map_update_interval=interval, **settings)
        assert error(itk, anew, 5).mean() <= 1.1 * error(itk, once, 5).mean(), interval
