"""Promises of the widget for napari, in a real viewer without a screen."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import numpy as np
import pytest

from semreg.core.fields import Volume
from semreg.phantom import make_pair
from semreg.registration.pipeline import register

SCREEN = "DISPLAY" in os.environ
"""Whether a viewer can be opened: its canvas needs OpenGL, which Qt has on a screen alone (xvfb-run is one)."""
if not SCREEN:
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
napari = pytest.importorskip("napari", reason="napari is not installed (pip install 'semreg[napari]')")
npe2 = pytest.importorskip("npe2", reason="npe2 is not installed; it comes with napari")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "src" / "semreg" / "napari.yaml"


def layer_of(volume: Volume, **more):
    """A layer of a volume, by the formula written out: both axes of direction · spacing are flipped."""
    placed = np.eye(4)
    placed[:3, :3] = np.flip(np.array(volume.grid.direction) @ np.diag(volume.grid.spacing_xyz))
    placed[:3, 3] = volume.grid.origin_xyz[::-1]
    return napari.layers.Image(volume.data[0].numpy(), affine=placed, **more)


@pytest.fixture(scope="module")
def pair():
    """A small pair on oblique grids, and its landmarks, (N, 3) in mm, x first."""
    return make_pair(size=32, landmarks=40)


def test_the_manifest_is_valid():
    """npe2 takes it, and what it names can be imported."""
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    assert entry["napari.manifest"] == {manifest.name: "semreg:napari.yaml"}
    (command,), (widget,) = manifest.contributions.commands, manifest.contributions.widgets
    assert widget.command == command.id


def test_layers_are_read_where_they_lie(pair):
    """Scale, translation, affine and unit of a layer give the grid in mm; the way back gives the affine again."""
    from semreg.registration.adapters.napari import affine_of, mm_of, volume_of

    found = volume_of(layer_of(pair.fixed)).grid
    np.testing.assert_allclose(found.origin_xyz, pair.fixed.grid.origin_xyz, atol=1e-4)
    np.testing.assert_allclose(found.spacing_xyz, pair.fixed.grid.spacing_xyz, rtol=1e-5)
    np.testing.assert_allclose(found.direction, pair.fixed.grid.direction, atol=1e-5)
    data = np.zeros((4, 5, 6), np.float32)
    plain = napari.layers.Image(data, scale=(3000, 2000, 1000), translate=(10, 20, 30), units=["um"] * 3)
    grid = volume_of(plain).grid
    np.testing.assert_allclose(grid.spacing_xyz, (1, 2, 3))
    np.testing.assert_allclose(grid.origin_xyz, (0.03, 0.02, 0.01))
    np.testing.assert_allclose(affine_of(grid, mm_of(plain)) @ (1, 1, 1, 1), [*plain.data_to_world((1, 1, 1)), 1])


def test_arrows_start_and_end_in_the_world(pair):
    """Each arrow leads from a voxel of the fixed layer to where the field brings it."""
    from semreg.config import RegistrationConfig
    from semreg.registration.adapters.napari import arrows_of
    from semreg.runtime.settings import override

    config = override(RegistrationConfig(), "refine.iterations=2")
    result = register(pair.fixed, pair.moving, config=config)
    arrows = arrows_of(result.field, np.ones(3))
    starts, ends = (points[:, ::-1].copy() for points in (arrows[:, 0], arrows.sum(axis=1)))
    assert len(starts) > 500
    np.testing.assert_allclose(result.field.map(starts.T).T, ends, atol=1e-2)


def test_the_widget_registers_in_another_thread(pair, qtbot):
    """The button starts a worker; what it returns are the layers: the warped image on the fixed one, and arrows."""
    from semreg.registration.adapters.napari import register_widget

    fixed, moving = layer_of(pair.fixed, name="fixed"), layer_of(pair.moving, name="moving")
    widget = register_widget()
    widget.fixed.choices = widget.moving.choices = (fixed, moving)
    widget.fixed.value, widget.moving.value = fixed, moving
    assert "ct-mr-abdomen" in widget.preset.choices
    told = []
    widget.called.connect(lambda worker: worker.returned.connect(told.append))
    qtbot.addWidget(widget.native)
    widget.native.show()
    widget.call_button.native.click()
    qtbot.waitUntil(lambda: bool(told), timeout=120_000)
    warped, arrows = (napari.layers.Layer.create(*each) for each in told[0])
    assert warped.data.shape == fixed.data.shape
    np.testing.assert_allclose(warped.data_to_world((3, 2, 1)), fixed.data_to_world((3, 2, 1)), atol=1e-3)
    assert arrows.ndim == 3
    same = register(pair.fixed, pair.moving).warped.data[0]
    assert np.abs(warped.data - same.numpy()).mean() < 0.01 * np.ptp(same.numpy())  # of a grid in another precision


@pytest.mark.skipif(not SCREEN, reason="needs a screen: xvfb-run")
def test_a_viewer_adds_the_layers(pair, make_napari_viewer, qtbot, tmp_path):
    """In a whole viewer: the layers are offered, the button registers, and what was found is shown."""
    from semreg.registration.adapters.napari import register_widget

    viewer = make_napari_viewer(show=True)
    for name, volume in (("fixed", pair.fixed), ("moving", pair.moving)):
        viewer.add_layer(layer_of(volume, name=name))
    widget = register_widget()
    viewer.window.add_dock_widget(widget, name="semreg")
    assert [layer.name for layer in widget.fixed.choices] == ["fixed", "moving"]
    widget.fixed.value, widget.moving.value = viewer.layers
    widget.call_button.native.click()
    qtbot.waitUntil(lambda: len(viewer.layers) == 4, timeout=120_000)
    assert [layer.name for layer in viewer.layers] == ["fixed", "moving", "moving on fixed", "displacement"]
    viewer.layers["displacement"].visible = True
    picture = viewer.screenshot(str(tmp_path / "napari.png"), canvas_only=False)
    assert picture.std() > 10
