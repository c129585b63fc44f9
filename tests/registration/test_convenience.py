"""What makes a result easy to use: files in, a preset by name, objects of other packages out, the folder read again."""

from __future__ import annotations

import re

import numpy as np
import pytest
import SimpleITK as sitk
import torch

import semreg
from conftest import rotation, smooth_field
from run_records import input_of, make_run, write_run
from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.errors import ConfigError
from semreg.io.files import write_field, write_image, write_sitk_transform, write_transform
from semreg.phantom import make_pair

CONFIG = semreg.configure(
    "align.transform=none",
    "refine.iterations=2",
    "uncertainty.enabled=false",
    "checks.enabled=false",
    "refine.symmetric=false",
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small pair, a mask and a start as files, and the pair itself."""
    folder, pair = tmp_path_factory.mktemp("pair"), make_pair(size=28)
    write_image(pair.fixed, folder / "fixed.nii.gz", "float32")
    write_image(pair.moving, folder / "moving.nii.gz", "float32")
    mask = torch.ones_like(pair.fixed.data)
    mask[:, :6] = 0
    write_image(Volume(mask, pair.fixed.grid), folder / "mask.nii.gz", "uint8")
    write_sitk_transform(sitk.TranslationTransform(3, (2.0, -1.0, 3.0)), folder / "start.tfm")
    return folder, pair


@pytest.fixture(scope="module")
def result(files):
    """The pair registered from its files."""
    folder, _ = files
    return semreg.register(
        folder / "fixed.nii.gz", str(folder / "moving.nii.gz"), fixed_mask=folder / "mask.nii.gz",
        initial=folder / "start.tfm", config=CONFIG,
    )  # fmt: skip


def test_files_are_what_they_hold(files, result):
    """Names of files stand for images, masks and transforms: the displacement is the same to the last digit."""
    folder, _ = files
    same = semreg.register(
        semreg.read_image(folder / "fixed.nii.gz"), semreg.read_image(folder / "moving.nii.gz"),
        fixed_mask=semreg.read_mask(folder / "mask.nii.gz"), initial=semreg.read_transform(folder / "start.tfm"),
        config=CONFIG,
    )  # fmt: skip
    assert torch.equal(same.field.vox, result.field.vox)
    aligned = semreg.align(folder / "fixed.nii.gz", folder / "moving.nii.gz", config=CONFIG)
    assert repr(aligned).startswith("Aligned(none, 28 × ")


def test_a_preset_by_its_name(files):
    """``preset`` gives the settings of that name, and not together with others."""
    folder, _ = files
    names = folder / "fixed.nii.gz", folder / "moving.nii.gz"
    settings = semreg.plan(*names, preset="ct-mr-abdomen").config
    assert settings.models == semreg.plan(*names, config=semreg.configure(preset="ct-mr-abdomen")).config.models
    with pytest.raises(ConfigError, match="config or preset"):
        semreg.register(*names, preset="fast", config=CONFIG)
    with pytest.raises(ConfigError, match="did you mean"):
        semreg.register(*names, preset="fsat")


def test_a_result_says_little_and_shows_much(result):
    """Its repr is one line; in a notebook it shows three planes with sliders, and no script but that of the sliders."""
    said = repr(result)
    assert said.count("\n") == 0
    assert len(said) < 200
    assert "28 × " in said
    assert repr(result.warped).startswith("Volume(28 × ")
    assert repr(result.field).startswith("Field(28 × ")
    page = result._repr_html_()
    assert re.findall(r'aria-label="(\w+) slice"', page) == ["axial", "coronal", "sagittal"]
    assert page.count("data:image/jpeg") == 6
    assert "<script" not in page


def test_show_opens_the_page(result, monkeypatch):
    """Without a notebook the page is written and opened in the browser."""
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    path = result.show()
    assert opened == [path.as_uri()]
    assert "<title>" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("dimension", [2, 3])
def test_objects_of_other_packages(dimension, tmp_path):
    """Images and fields become those of SimpleITK, nibabel and numpy, at the same place, as their files do."""
    nibabel = pytest.importorskip("nibabel", reason="needs the package nibabel")
    size = (7, 6, 5)[:dimension]
    grid = Grid(size, (1.1, 1.4, 1.9)[:dimension], (-31.0, 12.5, 77.0)[:dimension],
                tuple(map(tuple, rotation(dimension).tolist())))  # fmt: skip
    volume = Volume(torch.arange(grid.voxels, dtype=torch.float32).reshape(1, *grid.shape), grid)
    field = Field(smooth_field(grid).vox.float(), grid)
    write_image(volume, tmp_path / "image.nii.gz", "float32")
    write_field(field, tmp_path / "field.nii.gz")
    assert np.array_equal(volume.numpy(), volume.data[0].numpy())
    assert volume.to_sitk("int16").GetPixelIDTypeAsString() == "16-bit signed integer"
    assert np.array_equal(sitk.GetArrayViewFromImage(volume.to_sitk()), volume.numpy())
    for made, path in ((volume.to_nibabel(), "image.nii.gz"), (field.to_nibabel(), "field.nii.gz")):
        read = nibabel.load(tmp_path / path)
        assert made.shape == read.shape
        assert np.allclose(made.get_fdata(), read.get_fdata(), atol=2e-4)
        assert np.allclose(made.affine[:dimension, :dimension], read.affine[:dimension, :dimension], atol=1e-4)
    assert np.allclose(semreg.to_volume(volume.to_nibabel()).data, volume.data)
    point = tuple(float(v) for v in grid.corners_xyz().mean(0))
    moved = np.subtract(field.to_sitk().TransformPoint(point), point)
    index = tuple(n // 2 for n in grid.shape)
    if all(n % 2 for n in grid.shape):
        assert np.allclose(moved, field.numpy()[index], atol=1e-5)
    assert field.numpy().shape == (*grid.shape, dimension)


def test_open_gives_the_result_back(files, result, tmp_path):
    """``semreg.open`` reads the folder of a run, with both images where they still are."""
    folder, _ = files
    write_image(result.warped, tmp_path / "warped.nii.gz", "float32")
    write_transform(result.deformation, tmp_path / "transform.h5", result.affine)
    inputs = {name: input_of(folder / f"{name}.nii.gz") for name in ("fixed", "moving")}
    write_run(tmp_path, make_run(inputs))
    found = semreg.open(tmp_path)
    assert np.allclose(found.field.mm(), result.field.mm(), atol=1e-2)
    assert [image.grid.size_xyz for image in found.images] == [image.grid.size_xyz for image in result.images]
    assert "axial slice" in found._repr_html_()
    gone = semreg.Registration.load(tmp_path)
    assert gone._repr_html_() is None
    with pytest.raises(ConfigError, match=r"semreg\.open"):
        gone.show()
