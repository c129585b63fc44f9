"""Promises of the chest: its inside slides along the wall and nothing opens, and both images show its map."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semreg.core.sampling import sample, transform_index
from semreg.errors import ConfigError
from semreg.phantom import make_chests, points_of
from semreg.phantom.chest import CENTRE_MM, RADIUS_MM, sliding_motion


@pytest.fixture(scope="module")
def pair():
    return make_chests(size=32, landmarks=40, slide_mm=9.0, seed=3)


def wall(*, further_mm: float) -> torch.Tensor:
    """Points all around, so far outside of the wall, (3, N) in mm."""
    turns, heights = np.meshgrid(np.linspace(0, 2 * np.pi, 24, endpoint=False), np.linspace(-30, 30, 7))
    away = RADIUS_MM + further_mm
    place = np.stack([away * np.cos(turns), away * np.sin(turns), heights]).reshape(3, -1)
    return torch.from_numpy(place + np.array(CENTRE_MM)[:, None])


def test_the_inside_slides_along_the_wall_and_stays_at_it(pair):
    """Both sides of the wall part by about 9 mm along it; the moved inside still touches the moved outside."""
    near, far = wall(further_mm=-1e-6), wall(further_mm=1e-6)
    inner, outer = pair.true_map(near), pair.true_map(far)
    apart = torch.linalg.vector_norm(inner - outer, dim=0)
    assert 7.0 < float(apart.min()) <= float(apart.max()) < 11.0
    back = pair.true_map.soft.inverse(inner) - torch.tensor(CENTRE_MM, dtype=torch.float64)[:, None]
    assert float((torch.hypot(back[0], back[1]) - RADIUS_MM).abs().max()) < 1e-4
    everywhere = points_of(pair.fixed.grid).flatten(1)
    assert float((pair.true_map.inverse(pair.true_map(everywhere)) - everywhere).abs().max()) < 1e-9
    assert float(pair.true_map.jacobian_determinant(everywhere).min()) > 0.5


def test_directions_differ_and_nothing_slides_by_0_mm():
    """The seed chooses the direction; without a slide the motion is none."""
    assert not np.allclose(sliding_motion(9.0, 1), sliding_motion(9.0, 2), atol=0.1)
    assert np.allclose(sliding_motion(0.0, 1), np.eye(4))


def test_both_images_show_the_same_places(pair):
    """The lung of the moving image lies where the map brings that of the fixed one; other contrasts are refused."""
    assert torch.allclose(pair.true_map(pair.fixed_points.T.double()).T, pair.moving_points.double(), atol=1e-9)
    moving, there = pair.moving_labels(), pair.true_map(points_of(pair.fixed.grid).flatten(1))
    index = transform_index(moving.grid.point_to_index(), there)
    read = sample(moving.data, index.float(), mode="nearest", outside=-1.0)[0]
    fixed = pair.fixed_labels().data.flatten()
    assert float((read[(fixed == 1) & (read >= 0)] == 1).float().mean()) > 0.9
    with pytest.raises(ConfigError, match="in ct or mr, got 32 and ct and t1"):
        make_chests(size=32, contrasts=("ct", "t1"))
