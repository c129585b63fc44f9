"""Promises of the adapters: a pipeline of MONAI or TorchIO holds the pair that was registered, in its own words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semreg import configure
from semreg.core.fields import Volume
from semreg.errors import ImageError
from semreg.io.bridge.nifti1 import ras_affine
from semreg.phantom import make_pair
from semreg.registration.adapters.pairs import Placed

CONFIG = configure("align.transform=none", "refine.enabled=false", "uncertainty.enabled=false", "checks.enabled=false")


@pytest.fixture(scope="module")
def pair():
    """A small pair on oblique grids, as a pipeline keeps it, and labels of the moving image."""
    made = make_pair(size=32)
    like = torch.empty(0)
    bright = Volume((made.moving.data > made.moving.data.mean()).float() * 7, made.moving.grid)
    images = {"fixed": Placed.of(made.fixed, like), "moving": Placed.of(made.moving, like)}
    return made, images | {"labels": Placed.of(bright, torch.empty(0, dtype=torch.int16))}


def check(made, moving, affine, labels, field):
    """The warped image and its labels lie on the fixed grid and are what the field makes of them."""
    assert np.allclose(affine, ras_affine(made.fixed.grid))
    assert tuple(moving.shape) == (1, *made.fixed.grid.size_xyz)
    assert set(np.unique(np.asarray(labels))) == {0, 7}
    assert np.allclose(field.grid.index_to_point(), made.fixed.grid.index_to_point())
    fixed = made.fixed.data[0].numpy().T
    assert np.corrcoef(np.asarray(moving[0]).ravel(), np.asarray(labels[0]).ravel())[0, 1] > 0.5
    assert fixed.shape == tuple(moving.shape[1:])


def test_monai(pair):
    """``Registerd`` brings the moving image and its labels along, and keeps the displacement."""
    pytest.importorskip("monai", reason="needs the package monai")
    from monai.data import MetaTensor

    from semreg.registration.adapters.monai import Registerd

    made, images = pair
    data = {name: MetaTensor(each.data, affine=each.affine) for name, each in images.items()}
    found = Registerd(along=["labels"], labels=["labels"], field="field", config=CONFIG)(data)
    check(made, found["moving"].as_tensor(), found["moving"].affine, found["labels"].as_tensor(), found["field"])
    assert found["labels"].dtype == torch.int16
    assert data["moving"].shape != found["moving"].shape


def test_torchio(pair):
    """``Register`` does the same with a subject."""
    torchio = pytest.importorskip("torchio", reason="needs the package torchio")
    from semreg.registration.adapters.torchio import Register

    made, images = pair
    kinds = {"fixed": torchio.ScalarImage, "moving": torchio.ScalarImage, "labels": torchio.LabelMap}
    subject = torchio.Subject(
        {name: kind(tensor=images[name].data, affine=images[name].affine) for name, kind in kinds.items()}
    )
    found = Register(along=["labels"], field="field", config=CONFIG)(subject)
    check(made, found["moving"].data, found["moving"].affine, found["labels"].data, found["field"])


def test_places_go_there_and_back(pair):
    """An image of a pipeline is where it was after both ways; several channels are refused."""
    made, images = pair
    back = images["moving"].volume()
    assert back.grid.size_xyz == made.moving.grid.size_xyz
    assert np.allclose(back.grid.index_to_point(), made.moving.grid.index_to_point())
    assert torch.equal(back.data, made.moving.data)
    with pytest.raises(ImageError, match="one channel"):
        Placed(torch.zeros(2, 4, 5, 6), np.eye(4)).volume()
