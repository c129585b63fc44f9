"""Reading at scattered places: values by loops, and derivatives by differences of them, on voxel centres too."""

from __future__ import annotations

import pytest
import torch
from test_sampling import EXACT, SHAPES, THIN, linear_by_loop, random_indices
from torch import Tensor

from conftest import noise
from semreg.core.sampling import base_index, sample
from semreg.core.scattered import STEP, Table, read_blocks, read_image

QUOTIENT = 1e-9
"""float64 rounding of values of about 1, divided by ``2 * STEP``."""


def everywhere(shape: tuple[int, ...]) -> Tensor:
    """Places (D, P) in cells, on voxel centres, just beside them along some axes, and beyond the image."""
    index = random_indices(shape, 80)
    centres = index.round()
    beside = centres + STEP * (noise(*index.shape, seed=3)).clamp(-1.5, 1.5)
    return torch.cat([index, centres, beside, torch.where(noise(*index.shape, seed=4) > 0, centres, index)], 1)


@pytest.mark.parametrize("shape", [*SHAPES, *THIN])
def test_values_are_linear_interpolation(shape: tuple[int, ...]) -> None:
    """Both ways to read are the loop, border values beyond the edge and axes of one voxel included."""
    data, index = noise(3, *shape), everywhere(shape)
    expected = linear_by_loop(data, index)
    torch.testing.assert_close(Table(data).at(index).values().T, expected, rtol=0, atol=EXACT)
    torch.testing.assert_close(read_image(data[0], index)[0], expected[0], rtol=0, atol=EXACT)
    assert torch.equal(Table(data).data, data)
    assert Table(data).at(index[:, :0]).values().shape == (0, 3)


@pytest.mark.parametrize("shape", [*SHAPES, *THIN])
def test_derivatives_are_symmetric_differences(shape: tuple[int, ...]) -> None:
    """In cells, on voxel centres, between the two, at the border and beyond: what a step to both sides changes."""
    data, index = noise(3, *shape), everywhere(shape)
    weight = noise(index.shape[1], 3, seed=2)
    pulled, (_, slopes) = Table(data).at(index).pull(weight), read_image(data[0], index)
    for axis in range(len(shape)):
        shift = torch.zeros_like(index)
        shift[axis] = STEP
        change = (linear_by_loop(data, index + shift) - linear_by_loop(data, index - shift)) / (2 * STEP)
        torch.testing.assert_close(pulled[axis], (change.T * weight).sum(1), rtol=0, atol=QUOTIENT)
        torch.testing.assert_close(slopes[axis], change[0], rtol=0, atol=QUOTIENT)


def test_the_slope_on_a_voxel_centre_is_the_mean_of_both_sides() -> None:
    """On a corner of 0, 1, 5 it is 2.5, in single precision too; at the outer centres half of that within."""
    ramp = torch.tensor([[0.0, 1.0, 5.0]]).expand(4, 3)
    index = torch.tensor([[1.0, 2.0, 1.0, 1.0], [1.0, 1.0 + 1e-6, 0.0, 2.0]])
    expected = torch.tensor([[0.0, 0.0, 0.0, 0.0], [2.5, 2.5, 0.5, 2.0]])
    pulled = Table(ramp[None]).at(index).pull(torch.ones(4, 1))
    torch.testing.assert_close(pulled, expected, rtol=0, atol=0.02)  # 1e-6 of a voxel is not a side
    torch.testing.assert_close(read_image(ramp, index)[1], expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("shape", [*SHAPES, *THIN])
def test_within_cells_the_derivative_is_that_of_grid_sample(shape: tuple[int, ...]) -> None:
    """Where no voxel centre is near, the derivative is the gradient of ``sample``; beyond the edge it is 0."""
    data, index = noise(3, *shape), random_indices(shape, 200).requires_grad_()
    weight = noise(3, 200, seed=1)
    (expected,) = torch.autograd.grad((sample(data, index) * weight).sum(), index)
    found = Table(data).at(index.detach()).pull(weight.T)
    within = (index - index.round()).abs() > STEP
    assert within.float().mean() > 0.9
    torch.testing.assert_close(found[within], expected[within], rtol=0, atol=1e-10)  # values of about 1 per voxel
    beyond = (index < -STEP) | (index > torch.tensor(shape)[:, None] - 1 + STEP)
    assert beyond.any()
    assert (found[beyond] == 0).all()


@pytest.mark.parametrize(("shape", "block"), [((9, 8), (3, 2)), ((8, 9, 7), (3, 2, 1))])
@pytest.mark.parametrize("place", ["between", "on voxel centres", "both"])
def test_blocks_are_read_as_their_voxels_are(shape: tuple[int, ...], block: tuple[int, ...], place: str) -> None:
    """Values and derivatives of blocks are those of each of their voxels; blocks across the border are left out."""
    image, centre = noise(*shape), random_indices(shape, 60)
    if place != "between":
        centre[:, ::2] = centre[:, ::2].round() + 0.3 * STEP * noise(len(shape), 30, seed=5).sign()
    if place == "on voxel centres":
        centre = centre[:, ::2]
    values, slopes, inside = read_blocks(image, centre, block)
    assert 0 < int(inside.sum()) < len(inside)
    middle = torch.tensor([n // 2 for n in block]).reshape(-1, *[1] * len(block))
    places = base_index(block, like=centre) - middle
    index = centre[:, inside].reshape(len(shape), -1, *[1] * len(block)) + places[:, None]
    expected, derivative = read_image(image, index.flatten(1))
    torch.testing.assert_close(values.flatten(), expected, rtol=0, atol=EXACT)
    torch.testing.assert_close(slopes.flatten(1), derivative, rtol=0, atol=QUOTIENT)


def test_small_steps_are_told_apart_in_a_large_image() -> None:
    """At index 4000 a step of 1e-5 voxel changes single-precision features by what it should, to 1 %."""
    ramp = torch.arange(5000, dtype=torch.float32).remainder(2).reshape(1, 1, -1)  # 0 1 0 1: a slope of 1
    table, place = Table(ramp), torch.tensor([[0.0], [4000.001]], dtype=torch.float64)
    step = torch.tensor([[0.0], [1e-5]], dtype=torch.float64)
    change = table.at(place + step).values() - table.at(place).values()
    assert float(change) == pytest.approx(1e-5, rel=0.01)


@pytest.mark.parametrize("shape", [(5, 4), (3, 5, 4), (3, 4, 5)])
def test_what_is_not_a_number_is_shown(shape: tuple[int, ...]) -> None:
    """An index that is not a number gives values that are not, rather than a crash or a value from somewhere."""
    x = noise(2, *shape)
    index = torch.full((len(shape), 2), float("nan"), dtype=x.dtype)
    index[:, 1] = 1.0
    reading = Table(x).at(index)
    assert reading.values()[0].isnan().all()
    assert torch.equal(reading.values()[1], x[(slice(None), *[1] * len(shape))])
    assert reading.pull(torch.ones(2, 2, dtype=x.dtype))[:, 0].isnan().all()
