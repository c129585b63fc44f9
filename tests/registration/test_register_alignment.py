"""Promises of the alignment inside ``register`` and of ``semreg align``: from any position, said when doubtful."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from conftest import rotation
from semreg import RegistrationConfig, Volume, align, register, write_image
from semreg.cli import main
from semreg.config import AlignConfig, CoarseConfig, RefineConfig
from semreg.core.consistency import inverse_consistency
from semreg.core.geometry import Grid
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.io.bridge import matrix_of
from semreg.phantom import make_pair
from semreg.transforms.maps import linear_about, mapped

QUICK = RegistrationConfig(
    align=AlignConfig(spacing_mm=12.0, rotation_deg=30.0), refine=RefineConfig(iterations=3, levels=1)
)


@pytest.fixture(scope="module")
def phantom():
    return make_pair(size=40)


@pytest.fixture(scope="module")
def straight(phantom):
    """The pair as it is, registered without an alignment."""
    return register(phantom.fixed, phantom.moving, config=replace(QUICK, align=AlignConfig(transform="none")))


def moved(volume: Volume, matrix: np.ndarray) -> Volume:
    """The image with its header moved rigidly: the same voxels elsewhere."""
    grid = volume.grid
    n = grid.dimension
    direction = matrix[:n, :n] @ np.array(grid.direction)
    origin = mapped(matrix, [grid.origin_xyz])[0]
    return Volume(volume.data, Grid(grid.size_xyz, grid.spacing_xyz, tuple(origin), tuple(map(tuple, direction))))


def far_away(pair, degrees=25.0, shift=(150.0, -260.0, 330.0)):
    """The moving image of the pair turned and far from the fixed one, and how it was moved."""
    middle = pair.moving.grid.corners_xyz().mean(0)
    matrix = linear_about(rotation(3, degrees), middle, middle + np.array(shift))
    return moved(pair.moving, matrix), matrix


def landmark_error(field, pair, matrix):
    """Mean distance in mm of the mapped fixed landmarks from the moved moving ones."""
    found = field.point_map()(pair.fixed_points.T).T.numpy()
    return float(np.linalg.norm(found - mapped(matrix, pair.moving_points.numpy()), axis=1).mean())


def test_images_far_apart_are_brought_together(phantom, straight):
    """Two contrasts, 25° and 45 cm apart: the result is about as good as without the move."""
    image, matrix = far_away(phantom)
    result = register(phantom.fixed, image, config=QUICK)
    best = landmark_error(straight.field, phantom, np.eye(4))
    assert landmark_error(result.field, phantom, matrix) < 1.3 * best + 0.3
    found = result.record.alignment
    assert found.transform == "rigid"
    assert found.match_before is None
    assert not found.doubtful
    assert result.affine is not None
    np.testing.assert_allclose(matrix_of(result.affine), found.matrix, atol=1e-9)


def test_headers_that_are_right_stand(phantom, straight):
    """Where the images lie on each other the alignment changes nothing: the field is that without it, bit for bit."""
    result = register(phantom.fixed, phantom.moving, config=QUICK)
    assert result.record.alignment.transform == "none"
    assert straight.record.alignment is None
    assert torch.equal(result.field.vox, straight.field.vox)


def test_without_alignment_images_apart_are_refused(phantom):
    """``--align none`` and no overlap is an error that says what to do, not a field of zeros."""
    image, _ = far_away(phantom)
    config = RegistrationConfig(align=AlignConfig(transform="none"))
    with pytest.raises(GeometryError, match="allow the alignment"):
        register(phantom.fixed, image, config=config)


def test_unrelated_images_are_doubtful(caplog):
    """Noise has no position: the record and the log say so."""
    generator = torch.Generator().manual_seed(3)
    one = Volume(torch.randn((1, 20, 24, 18), generator=generator), Grid.of_shape((20, 24, 18), (2.0, 1.8, 2.2)))
    other = Volume(torch.randn((1, 23, 19, 21), generator=generator), Grid.of_shape((23, 19, 21), (1.9, 2.1, 2.0)))
    result = align(one, other, config=RegistrationConfig(align=AlignConfig(transform="rigid", rotation_deg=20.0)))
    assert result.record.alignment.doubtful
    assert result.record.alignment.doubts


def test_landmarks_are_a_start(phantom):
    """Landmarks bring images together; too few of one side, and a transform beside them, are refused."""
    image, matrix = far_away(phantom, degrees=70.0)
    fixed = phantom.fixed_points.numpy()
    moving = mapped(matrix, phantom.moving_points.numpy())
    result = register(phantom.fixed, image, landmarks=(fixed[::5], moving[::5]), config=QUICK)
    assert landmark_error(result.field, phantom, matrix) < 6.0
    with pytest.raises(GeometryError, match="as many fixed as moving"):
        align(phantom.fixed, image, landmarks=(fixed[:4], moving[:5]))
    with pytest.raises(ConfigError, match="both"):
        align(phantom.fixed, image, landmarks=(fixed, moving), initial=sitk.AffineTransform(3))


def test_inverse_undoes_the_whole_transform(phantom):
    """The way back includes the alignment, lies on the moving grid, and its error is in the record."""
    image, _ = far_away(phantom, degrees=-18.0)
    result = register(phantom.fixed, image, config=QUICK, inverse=True)
    assert result.inverse is not None
    assert result.inverse.grid == image.grid
    for errors in inverse_consistency(result.field, result.inverse).values():
        assert errors.mean_mm < 0.2
    assert result.record.inverse.consistency["fixed"].mean_mm < 0.2
    assert result.record.inverse.residual.points > 1000


def test_stiffness_reaches_the_refinement(phantom):
    """A map of great stiffness takes most of the strain away; one that is no map is refused."""
    stiff = Volume(torch.full_like(phantom.fixed.data, 1e4), phantom.fixed.grid)
    config = replace(QUICK, coarse=CoarseConfig(enabled=False), align=AlignConfig(transform="none"))
    free = register(phantom.fixed, phantom.moving, config=config)
    held = register(phantom.fixed, phantom.moving, config=config, stiffness=stiff)

    def strain(result):
        return float((result.field.vox.diff(dim=1) ** 2).mean())

    assert strain(held) < 0.2 * strain(free)


def test_align_command_writes_a_linear_transform(phantom, tmp_path, capsys):
    """``semreg align`` writes a transform that SimpleITK reads in the right direction, a record and the settings."""
    image, matrix = far_away(phantom)
    write_image(phantom.fixed, tmp_path / "fixed.nii.gz")
    write_image(image, tmp_path / "moving.nii.gz")
    with pytest.raises(SystemExit) as end:
        main(
            [
                "align",
                str(tmp_path / "fixed.nii.gz"),
                str(tmp_path / "moving.nii.gz"),
                "-o",
                str(tmp_path / "out"),
                "--transform",
                "rigid",
                "--set",
                "align.spacing_mm=12",
                "--set",
                "align.rotation_deg=30",
            ]
        )
    assert not end.value.code
    assert "alignment: rigid" in capsys.readouterr().out
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"transform.h5", "warped.nii.gz", "record.json", "config.toml"}
    transform = sitk.ReadTransform(str(tmp_path / "out" / "transform.h5"))
    assert transform.IsLinear()
    points = phantom.fixed_points.numpy()
    found = np.array([transform.TransformPoint(point.tolist()) for point in points])
    errors = np.linalg.norm(found - mapped(matrix, phantom.moving_points.numpy()), axis=1)
    before = np.linalg.norm(phantom.fixed_points.numpy() - phantom.moving_points.numpy(), axis=1)
    assert errors.mean() < 1.1 * before.mean()
    record = json.loads((tmp_path / "out" / "record.json").read_text(encoding="utf-8"))
    assert record["alignment"]["transform"] == "rigid"
    assert record["settings"]["align"]["transform"] == "rigid"


def test_an_initial_transform_that_is_not_linear_is_taken_as_it_is(phantom, straight):
    """A field as a start is not aligned again in ``register``, and refused by ``align``."""
    field = straight.transform()
    result = register(phantom.fixed, phantom.moving, initial=field, config=QUICK)
    assert result.record.alignment is None
    with pytest.raises(GeometryError, match="linear initial transform"):
        align(phantom.fixed, phantom.moving, initial=field)


def test_a_start_that_cannot_be_undone_is_refused(phantom):
    """A singular initial transform is one clear sentence, with and without a deformation."""
    flat = sitk.AffineTransform(3)
    flat.SetMatrix([1, 0, 0, 0, 1, 0, 0, 0, 0])
    for run in (align, register):
        with pytest.raises(GeometryError, match="singular"):
            run(phantom.fixed, phantom.moving, initial=flat)


def test_what_does_not_fit_is_refused(phantom):
    """A start or a stiffness of another dimension is one clear sentence, whatever is aligned."""
    for transform in ("auto", "none"):
        config = RegistrationConfig(align=AlignConfig(transform=transform))
        with pytest.raises(GeometryError, match="in 3-D as the images are, got one in 2-D"):
            register(phantom.fixed, phantom.moving, initial=sitk.Euler2DTransform(), config=config)
    flat = Volume(torch.ones((1, 5, 6)), Grid.of_shape((5, 6)))
    with pytest.raises(ImageError, match="stiffness map in 3-D"):
        register(phantom.fixed, phantom.moving, stiffness=flat)


def test_a_field_as_start_does_not_tear(phantom, straight):
    """The transform of one run as the start of the next folds nothing at the edge of its box."""
    second = register(phantom.fixed, phantom.moving, initial=straight.transform(), config=QUICK)
    assert second.record.jacobian.minimum > 0


def test_results_of_an_earlier_run_do_not_stay(phantom, tmp_path):
    """An inverse of the run before is removed; a file of somebody else is not."""
    write_image(phantom.fixed, tmp_path / "fixed.nii.gz")
    write_image(phantom.moving, tmp_path / "moving.nii.gz")
    command = [
        "align",
        str(tmp_path / "fixed.nii.gz"),
        str(tmp_path / "moving.nii.gz"),
        "-o",
        str(tmp_path / "out"),
        "-q",
    ]
    out = tmp_path / "out"
    out.mkdir()
    for name in ("inverse.h5", "mine.txt"):
        (out / name).write_text("old", encoding="utf-8")
    (out / "record.json").write_text(json.dumps({"outputs": ["inverse.h5", "../moving.nii.gz"]}), encoding="utf-8")
    with pytest.raises(SystemExit):
        main([*command, "--transform", "none"])
    assert {path.name for path in out.iterdir()} == {
        "transform.h5",
        "warped.nii.gz",
        "record.json",
        "config.toml",
        "mine.txt",
    }
    assert (tmp_path / "moving.nii.gz").exists()
