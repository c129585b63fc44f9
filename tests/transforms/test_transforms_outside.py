"""Promises of transforms beyond the box of their fields: it is said how much lies there, and what is done is chosen."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from conftest import make_grid, noise_volume, points_of, rotation, sitk_transform, smooth_field
from semreg.core.fields import Field, Volume
from semreg.errors import ConfigError, GeometryError
from semreg.io.bridge import sitk_image
from semreg.io.files import write_field, write_image, write_transform
from semreg.quality import EvaluationConfig, evaluate
from semreg.transforms import Chain, Interpolation, Outside, jacobian_map, move_points, resample, write_chain
from semreg.transforms import read_transform as read_any

WHOLE = make_grid((21, 18, 16), (1.1, 1.4, 1.9), (-31.0, 12.5, 77.0), rotation(3))
SLAB = WHOLE.part((5, 0, 2), (11, 18, 19))
"""A part of the fixed image: its box is what the field knows."""
SHIFT = np.array([18.0, -3.0, 2.0])
TURN = sitk.Euler3DTransform((-25.0, 20.0, 86.0), 0.05, -0.08, 0.1, (0.4, -0.5, 0.6))


def shifted(grid=SLAB):
    """A translation that is stored as a field on a grid."""
    mm = torch.as_tensor(SHIFT).reshape(3, 1, 1, 1).expand(3, *grid.shape)
    return Field.from_mm(mm.float(), grid)


def inside_slab(grid=WHOLE):
    """The oracle: which voxels (*S) of a grid ITK's field moves, one after the other."""
    transform = sitk_transform(shifted())
    points = points_of(grid).flatten(1).numpy().T.tolist()
    moved = np.array([transform.TransformPoint(point) for point in points])
    return np.linalg.norm(moved - points, axis=1).reshape(grid.shape) > 1


def displacements(field):
    """In mm, (*S, 3)."""
    return field.mm().movedim(0, -1).numpy()


def test_what_lies_beyond_is_what_itk_leaves_in_place():
    """The voxels that are counted are those that ITK's field does not move; a grid within the box has none."""
    found = Chain.of(shifted()).coverage(WHOLE)
    np.testing.assert_array_equal(~found.beyond.numpy(), inside_slab())
    assert found.share == pytest.approx(1 - inside_slab().mean())
    assert Chain.of(shifted()).coverage(SLAB).beyond is None
    assert Chain.of(TURN).coverage(WHOLE).beyond is None


def test_beyond_a_field_nothing_moves_or_its_border_is_continued():
    """The identity is the map of ITK; continued, a translation is a translation; inside both are the same."""
    chain = Chain.of(shifted())
    identity, continued = (displacements(chain.field_on(WHOLE, each)) for each in (Outside.IDENTITY, Outside.CONTINUE))
    np.testing.assert_allclose(identity, inside_slab()[..., None] * SHIFT, atol=1e-4)  # float32
    np.testing.assert_allclose(continued, np.broadcast_to(SHIFT, continued.shape), atol=1e-4)
    bent = Chain.of(smooth_field(SLAB))
    both = [displacements(bent.field_on(WHOLE, each))[inside_slab()] for each in (Outside.IDENTITY, Outside.CONTINUE)]
    np.testing.assert_allclose(*both, atol=1e-5)


@pytest.mark.parametrize("order", ["field first", "matrix first"])
def test_in_a_chain_each_field_has_its_own_box(order):
    """A point counts where it is when it comes to the field: behind a matrix another part of the image is beyond."""
    field = sitk_transform(shifted())
    parts = [field, TURN] if order == "field first" else [TURN, field]
    chain = Chain.of(*parts)
    points = points_of(WHOLE).flatten(1).numpy()
    arriving = points if order == "field first" else np.array([TURN.TransformPoint(p) for p in points.T.tolist()]).T
    stays = np.array([np.allclose(field.TransformPoint(p), p) for p in arriving.T.tolist()])
    assert 0.2 < stays.mean() < 0.9
    np.testing.assert_array_equal(chain.follow(points).beyond, stays)
    np.testing.assert_array_equal(chain.coverage(WHOLE).beyond.flatten().numpy(), stays)
    whole = Chain.of(*[sitk.TranslationTransform(3, SHIFT) if part is field else part for part in parts])
    moved = chain.follow(points, Outside.CONTINUE).points
    np.testing.assert_allclose(moved, whole.map(points), atol=1e-4)


def test_a_control_lattice_has_a_box_too():
    """Beyond the lattice of a B-spline ITK moves nothing either; continued, the vector of the nearest face holds."""
    image = sitk_image(noise_volume(SLAB))
    spline = sitk.BSplineTransformInitializer(image, [3, 2, 2])
    values = np.repeat(SHIFT, len(spline.GetParameters()) // 3)
    spline.SetParameters(values.tolist())
    chain = Chain.of(spline)
    points = points_of(WHOLE).flatten(1).numpy()
    stays = np.array([np.allclose(spline.TransformPoint(p), p) for p in points.T.tolist()])
    assert 0.2 < stays.mean() < 0.9
    np.testing.assert_array_equal(chain.follow(points).beyond, stays)
    np.testing.assert_allclose(chain.follow(points, Outside.CONTINUE).points, points + SHIFT[:, None], atol=1e-6)


def test_the_inverse_counts_what_does_not_come_from_the_box():
    """On the way back what the field does not reach is beyond, whether it stays or is continued."""
    chain = Chain.of(shifted())
    points = points_of(WHOLE).flatten(1).numpy()
    known = inside_slab().flatten()
    back = chain.inverse().follow(points[:, known] + SHIFT[:, None])
    np.testing.assert_allclose(back.points, points[:, known], atol=1e-3)
    assert not back.beyond.any()
    far = points[:, :4] + 500.0
    stays, continued = (chain.inverse().follow(far, each) for each in (Outside.IDENTITY, Outside.CONTINUE))
    assert stays.beyond.all()
    assert continued.beyond.all()
    np.testing.assert_array_equal(stays.points, far)
    np.testing.assert_allclose(continued.points, far - SHIFT[:, None], atol=1e-3)


def test_images_beyond_are_read_as_chosen():
    """Identity is SimpleITK's own result; continued, that of the translation; background where nothing is known."""
    moving = make_grid((30, 26, 24), (1.3, 1.2, 2.1), (-30.0, 5.0, 70.0), rotation(3, 8.0))
    image, chain = sitk_image(noise_volume(moving)), Chain.of(shifted())
    reference = sitk_image(noise_volume(WHOLE))

    def read(outside):
        found = resample(image, chain, WHOLE, Interpolation.LINEAR, -5.0, outside=outside)
        return sitk.GetArrayFromImage(found)

    def oracle(transform):
        return sitk.GetArrayFromImage(sitk.Resample(image, reference, transform, sitk.sitkLinear, -5.0))

    np.testing.assert_allclose(read(Outside.IDENTITY), oracle(sitk_transform(shifted())), atol=1e-5)  # float32
    continued, translated = read(Outside.CONTINUE), oracle(sitk.TranslationTransform(3, SHIFT))
    seen = (continued != -5) & (translated != -5)  # at the very edge of the moving image rounding decides
    assert 0.3 < seen.mean() > np.mean((continued != -5) | (translated != -5)) - 0.01
    np.testing.assert_allclose(continued[seen], translated[seen], atol=1e-3)  # noise of 1 a voxel, a field in float32
    known = read(Outside.BACKGROUND)
    np.testing.assert_allclose(known[inside_slab()], read(Outside.IDENTITY)[inside_slab()], atol=1e-5)
    assert (known[~inside_slab()] == -5.0).all()


def test_determinants_beyond_are_left_out():
    """A translation keeps all volumes: the summary says so, though ITK's map is torn at the faces of the box."""
    chain = Chain.of(shifted())
    for outside in Outside:
        determinant, summary = jacobian_map(chain, WHOLE, outside=outside)
        assert (summary.minimum, summary.maximum) == pytest.approx((1.0, 1.0), abs=1e-4)
        assert summary.folded_share == 0.0
        assert (~inside_slab()).mean() < summary.outside_share < 1.0
        values = determinant.data[0].numpy()
        torn = np.abs(np.nan_to_num(values, nan=1.0) - 1) > 0.1
        assert torn.any() == (outside is Outside.IDENTITY)
        assert np.isnan(values).mean() == (summary.outside_share if outside is Outside.BACKGROUND else 0.0)
    assert jacobian_map(chain)[1].outside_share == 0.0
    far = make_grid((6, 5, 4), (1.0, 1.0, 1.0), (900.0, 0.0, 0.0), rotation(3))
    with pytest.raises(GeometryError, match="lies outside of its box"):
        jacobian_map(chain, far)


def test_evaluation_leaves_out_what_is_beyond():
    """Jacobian, displacement, labels and similarity are of the known voxels; landmarks are counted or left out."""
    labels = torch.zeros(1, *WHOLE.shape)
    labels[0, 6:10, 4:14, 5:16] = 1
    labels[0, 13:15, 4:14, 5:16] = 2  # beyond the slab
    fixed = Volume(labels, WHOLE)
    moving = Volume(labels, make_grid(WHOLE.size_xyz, WHOLE.spacing_xyz, WHOLE.origin_xyz + SHIFT, WHOLE.direction))
    images = noise_volume(WHOLE), Volume(noise_volume(WHOLE).data, moving.grid)
    index = np.array([[7, 8, 9], [14, 8, 9]])  # z y x: one in the slab, one beyond
    points = np.array([points_of(WHOLE)[:, z, y, x].numpy() for z, y, x in index])
    found = {
        outside: evaluate(
            shifted(), fixed=images[0], moving=images[1], labels=(fixed, moving), landmarks=(points, points + SHIFT),
            config=EvaluationConfig(outside=outside),
        )
        for outside in ("identity", "continue", "background")
    }  # fmt: skip
    for each in found.values():
        assert each.jacobian.minimum == pytest.approx(1.0, abs=1e-4)
        assert each.jacobian.region == "image"
        assert each.displacement.mean_mm == pytest.approx(np.linalg.norm(SHIFT), abs=1e-3)
        assert each.similarity.correlation.after == pytest.approx(1.0, abs=1e-3)
        assert each.labels.each[0].after.dice == pytest.approx(1.0)
        assert each.labels.each[1].after.dice is None
        assert any("voxels are left out" in note for note in each.notes)
    assert [each.landmarks.count for each in found.values()] == [2, 2, 1]
    largest = [each.landmarks.after.maximum for each in found.values()]
    assert largest == pytest.approx([np.linalg.norm(SHIFT), 0.0, 0.0], abs=1e-3)
    with pytest.raises(ConfigError, match="outside"):
        EvaluationConfig(outside="mirror")


def test_what_has_no_background_is_refused(tmp_path):
    """A displacement is a number everywhere, and a point is somewhere."""
    with pytest.raises(ConfigError, match="continue or identity for a transform"):
        write_chain(Chain.of(shifted()), tmp_path / "out.nii.gz", WHOLE, outside=Outside.BACKGROUND)
    (tmp_path / "a.csv").write_text("x,y,z\n1,2,3\n")
    with pytest.raises(ConfigError, match="continue or identity for points"):
        move_points(tmp_path / "a.csv", tmp_path / "b.csv", Chain.of(shifted()), outside=Outside.BACKGROUND)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_every_command_says_the_share_and_takes_the_choice(run, tmp_path):
    """apply, convert, compose, jacobian and evaluate warn with one share and one number of voxels."""
    write_field(shifted(), tmp_path / "slab.nii.gz")
    write_transform(shifted(), tmp_path / "slab.h5")
    sitk.WriteTransform(TURN, str(tmp_path / "turn.tfm"))
    for name in ("fixed", "moving"):
        write_image(Volume((noise_volume(WHOLE).data * 100).float(), WHOLE), tmp_path / f"{name}.nrrd", "int16")
    np.savetxt(
        tmp_path / "points.csv", points_of(WHOLE)[:, 7:15:7, 8, 9].numpy().T, delimiter=",", header="x,y,z", comments=""
    )
    fixed, slab = tmp_path / "fixed.nrrd", tmp_path / "slab.h5"
    beyond = int((~inside_slab()).sum())
    said = f"warning: {beyond} of {WHOLE.voxels} voxels"
    lines = {
        "apply": (slab, "-i", tmp_path / "moving.nrrd", "-o", tmp_path / "out.nrrd", "-r", fixed),
        "convert": (slab, tmp_path / "out.nii.gz", "-r", fixed),
        "compose": (slab, tmp_path / "turn.tfm", "-o", tmp_path / "out.h5", "-r", fixed),
        "jacobian": (slab, "-o", tmp_path / "jacobian.nrrd", "-r", fixed),
        "evaluate": (slab, "--fixed", fixed, "--moving", tmp_path / "moving.nrrd"),
    }
    for name, arguments in lines.items():
        for outside in ("identity", "continue"):
            code, _, err = run(name, *arguments, "--outside", outside)
            assert code == 0, err
            assert said in err, name
            assert err.count("outside of the box") >= 1
    continued = read_any(tmp_path / "out.nii.gz").TransformPoint(points_of(WHOLE)[:, 14, 8, 9].tolist())
    assert continued == pytest.approx(points_of(WHOLE)[:, 14, 8, 9].numpy() + SHIFT, abs=1e-3)
    code, out, err = run(
        "apply", slab, "-i", tmp_path / "points.csv", "-o", tmp_path / "there.csv", "--outside", "continue", "--json"
    )
    assert "1 of 2 points (50 %)" in err
    assert json.loads(out)["outside_share"] == 0.5
    moved = np.loadtxt(tmp_path / "there.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(moved, points_of(WHOLE)[:, 7:15:7, 8, 9].numpy().T + SHIFT, atol=1e-3)
    code, out, _ = run("jacobian", *lines["jacobian"], "--json")
    assert json.loads(out)["jacobian"]["folded_share"] == 0.0
    assert json.loads(out)["jacobian"]["outside_share"] > beyond / WHOLE.voxels
    code, out, _ = run("evaluate", *lines["evaluate"], "--json")
    checks = {check["name"]: check["value"] for check in json.loads(out)["verdict"]["checks"]}
    assert (checks["folding"], checks["tears"]) == (0.0, 0.0)  # the verdict does not look at the faces of the box
    assert run("convert", *lines["convert"], "--outside", "background")[0] == 2
    code, _, err = run("apply", slab, "--inverse", "-i", fixed, "-o", tmp_path / "back.nrrd", "-r", fixed)
    assert code == 0
    assert "continued, which is a guess" in err  # an inverse on a grid
    assert run("apply", slab, "-i", fixed, "-o", tmp_path / "own.nrrd")[2] == ""  # on its own grid nothing is beyond
