"""Promises of pictures that belong together: one unit for all of them, whatever resolution each says."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from semreg.cli import main
from semreg.config import RegistrationConfig
from semreg.io.files import in_one_unit, in_unit_of, read_image
from semreg.preprocess.image_pair import prepare_pair

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 24), dtype=np.uint8)


def picture(path, dpi=None, pixels=PIXELS):
    """A picture with or without a resolution; its path."""
    Image.fromarray(pixels).save(path, **({} if dpi is None else {"dpi": (dpi, dpi)}))
    return path


@pytest.fixture
def pair(tmp_path):
    """Two pictures of which the moving one says 300 dots per inch."""
    return {"fixed": picture(tmp_path / "a.tif"), "moving": picture(tmp_path / "b.tif", 300)}


def test_pictures_of_which_one_has_a_resolution_count_in_pixels(pair, caplog):
    """Both count in pixels, 1 mm each, and it is said; for a registration of objects too."""
    images = {name: read_image(path) for name, path in pair.items()}
    assert images["moving"].volume.grid.spacing_xyz[0] == pytest.approx(25.4 / 300, rel=1e-3)
    for found in (in_one_unit(images), in_one_unit(dict(reversed(images.items())))):
        assert {each.volume.grid.spacing_xyz for each in found.values()} == {(1.0, 1.0)}
    assert "both count in pixels" in caplog.text
    grids = prepare_pair(*images.values(), None, None, RegistrationConfig()).grids
    assert grids[0] == grids[1]


def test_pictures_that_all_have_a_resolution_keep_it(tmp_path, caplog):
    """Two resolutions are two sizes of pixels; nothing is changed or said."""
    images = {name: read_image(picture(tmp_path / f"{name}.tif", dpi)) for name, dpi in (("a", 300), ("b", 150))}
    assert in_one_unit(images) == images
    assert caplog.text == ""


def test_a_mask_is_in_the_unit_of_its_picture(pair, tmp_path):
    """A mask or labels beside a picture that counts in pixels do so too; without a resolution it has the picture's."""
    counted, sized = (read_image(pair[name]).volume.grid for name in ("fixed", "moving"))
    assert in_unit_of(sized, pair["moving"], counted) == counted
    assert in_unit_of(counted, pair["fixed"], sized) == sized
    assert in_unit_of(counted, tmp_path / "a.nrrd", sized) == counted  # no picture


def test_register_and_apply_agree(pair, tmp_path):
    """What ``register`` found in pixels, ``apply`` uses in pixels, for a picture with a resolution too."""
    import SimpleITK as sitk

    out = tmp_path / "out"
    with pytest.raises(SystemExit, match="0"):
        main(["register", str(pair["fixed"]), str(pair["moving"]), "-o", str(out), "--align", "none", "--no-report"])
    grid = read_image(pair["fixed"]).volume.grid
    command = ["apply", str(out / "transform.h5"), "-i", str(pair["moving"]), "-o", str(tmp_path / "o.nrrd")]
    with pytest.raises(SystemExit, match="0"):
        main(command)
    result = sitk.ReadImage(str(tmp_path / "o.nrrd"))
    assert result.GetSpacing() == grid.spacing_xyz
    found = sitk.GetArrayFromImage(result).astype(float)
    assert np.corrcoef(found.ravel(), PIXELS.ravel())[0, 1] > 0.95  # both show the same; a 12th of it would not


@pytest.mark.parametrize("name", ["turned.jpg", "turned.jpeg", "turned.png", "turned.tif"])
def test_a_picture_that_is_to_be_turned_is_said(name, tmp_path, caplog):
    """Exif's orientation is not applied, as in ITK, and a warning says so."""
    picture = Image.fromarray(np.arange(30, dtype=np.uint8).reshape(5, 6))
    for orientation in (1, 6):
        exif = picture.getexif()
        exif[0x0112] = orientation
        picture.save(tmp_path / name, exif=exif)
        assert read_image(tmp_path / name).volume.grid.size_xyz == (6, 5)
        assert ("is to be turned before it is shown (Exif orientation 6)" in caplog.text) == (orientation == 6)
