"""Promises of the joint: its bones are rigid, what is around them does not fold, and both images show its map."""

from __future__ import annotations

import pytest
import torch

from conftest import points_of
from semreg.core.sampling import sample, transform_index
from semreg.errors import ConfigError
from semreg.phantom import make_bones
from semreg.phantom.joint import BONES, bone_motion
from semreg.transforms.maps import mapped


@pytest.fixture(scope="module")
def pair():
    return make_bones(size=32, landmarks=40)


def test_bones_are_rigid_and_the_rest_does_not_fold(pair):
    """In each bone the true map is its motion; elsewhere it keeps more than a third of each volume, and bends."""
    points = points_of(pair.fixed.grid).flatten(1)
    labels = pair.fixed_labels().data.flatten()
    there = pair.true_map(points)
    for label in BONES:
        own = labels == label
        assert int(own.sum()) > 50
        expected = mapped(bone_motion(label), points[:, own].T.numpy()).T
        assert float((there[:, own] - torch.from_numpy(expected)).abs().max()) < 1e-9
    volumes = pair.true_map.jacobian_determinant(points)
    assert 0.34 < float(volumes.min()) < 0.9
    assert float((pair.true_map.inverse(there) - points).abs().max()) < 1e-5


def test_both_images_show_the_same_places(pair):
    """Landmarks and bones of the moving image lie where the map brings those of the fixed one."""
    assert torch.allclose(pair.true_map(pair.fixed_points.T.double()).T, pair.moving_points.double(), atol=1e-9)
    moving, there = pair.moving_labels(), pair.true_map(points_of(pair.fixed.grid).flatten(1))
    index = transform_index(moving.grid.point_to_index(), there)
    read = sample(moving.data, index.float(), mode="nearest", outside=0.0)[0]
    fixed = pair.fixed_labels().data.flatten()
    for label in BONES:
        assert float((read[fixed == label] == label).float().mean()) > 0.8
    with pytest.raises(ConfigError, match="in ct or mr, got 32 and ct and t1"):
        make_bones(size=32, contrasts=("ct", "t1"))
