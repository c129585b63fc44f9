"""Promises of ``register``: the right displacement between any two grids, the same each time, and said how."""

from __future__ import annotations

import itertools
import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from conftest import (
    ORIENTATIONS,
    centre,
    give_header,
    grid_at,
    noise,
    points_of,
    rotation,
    sitk_image,
)
from held_tensors import peak_bytes_of
from semreg import Field, Grid, RegistrationConfig, Volume, plan, read_image, register
from semreg.config import AlignConfig, CoarseConfig, FeatureConfig, ModelConfig, RefineConfig
from semreg.core.fields import jacobian_determinant
from semreg.errors import GeometryError, ImageError
from semreg.io.bridge import field_of_transform, to_volume
from semreg.phantom import make_pair
from semreg.registration.matching import resolve_models
from semreg.registration.plan.memory import IMPORTS_BYTES
from semreg.runtime.settings import from_dict

DATA = Path(__file__).parents[3] / "shared" / "data"

FIXED = grid_at((3.0, -7.0, 11.0), (34, 26, 19), (1.5, 1.9, 2.6), rotation(3))
MOVING = grid_at((4.0, -6.0, 12.0), (31, 29, 37), (1.8, 2.1, 1.6), rotation(3, -21.0)[:, [1, 2, 0]])
WIDE = grid_at((3.0, -7.0, 11.0), (27, 21, 16), (1.9, 2.4, 3.1), rotation(3))
WIDE_MOVING = grid_at((4.0, -6.0, 12.0), (25, 24, 30), (2.2, 2.5, 2.0), rotation(3, -21.0)[:, [1, 2, 0]])
"""The boxes of both in larger voxels, for what runs as it does by default."""
MIDDLE = (3.0, -7.0, 11.0)
FLAT = grid_at((3.0, -7.0), (44, 36), (1.2, 1.6), rotation(2))
FLAT_MOVING = grid_at((4.0, -6.0), (50, 52), (1.1, 1.3), rotation(2, -14.0))


def scene(points, contrast="a"):
    """A textured object around ``MIDDLE``: structure of 12 to 60 mm; ``b`` is the contrast of another scanner."""
    n = points.shape[0]
    away = points - torch.as_tensor(MIDDLE[:n]).reshape(-1, *[1] * n)
    generator = np.random.default_rng(1)
    texture = torch.zeros(points.shape[1:], dtype=torch.float64)
    for wavelength in np.repeat(np.geomspace(12.0, 60.0, 6), 2):
        way = generator.normal(size=n)
        rate = torch.as_tensor(2 * np.pi / wavelength * way / np.linalg.norm(way))
        texture += torch.sin(torch.einsum("d,d...->...", rate, away) + 6 * generator.uniform())
    object_ = torch.sigmoid((22.0 - away.norm(dim=0)) / 1.5)
    value = 0.5 + 0.15 * texture if contrast == "a" else 0.3 + torch.exp(-((0.25 * texture - 0.2) ** 2) / 0.1)
    return 600.0 * object_ * value


def bend(points, amplitude_mm=2.5, shift_mm=(4.0, -3.0, 2.5)):
    """A smooth displacement in mm, far from folding, and a shift."""
    n = points.shape[0]
    rates = torch.tensor([[0.07, 0.04, -0.03], [-0.04, 0.06, 0.05], [0.05, -0.05, 0.06]], dtype=torch.float64)[:n, :n]
    away = points - torch.as_tensor(MIDDLE[:n]).reshape(-1, *[1] * n)
    shift = torch.tensor(shift_mm[:n], dtype=torch.float64).reshape(-1, *[1] * n)
    return shift + amplitude_mm * torch.sin(torch.einsum("ij,j...->i...", rates, away))


def fixed_image(grid=FIXED, **kwargs):
    """What the scene at p + bend(p) looks like: the moving image is found there."""
    points = points_of(grid)
    return Volume(scene(points + bend(points, **kwargs))[None].float(), grid)


def moving_image(grid=MOVING, contrast="a"):
    return Volume(scene(points_of(grid), contrast)[None].float(), grid)


def error_mm(field, **kwargs):
    """Distance in mm between the field and the truth, and between nothing and the truth, inside the object."""
    points = points_of(field.grid)
    truth = bend(points, **kwargs)
    n = points.shape[0]
    away = points + truth - torch.as_tensor(MIDDLE[:n]).reshape(-1, *[1] * n)
    object_ = away.norm(dim=0) < 19
    return (field.mm() - truth).norm(dim=0)[object_], truth.norm(dim=0)[object_]


@pytest.fixture(scope="module")
def result():
    """One registration that several tests look at."""
    steps = []
    return register(fixed_image(WIDE), moving_image(WIDE_MOVING), device="cpu", on_step=steps.append), steps


VOXELS = FeatureConfig(spacing_mm=2.6)
"""Coarser work than by default, where the default costs ten times as much and shows no more."""
DIRECT = RegistrationConfig(align=AlignConfig(transform="none"), features=VOXELS)
"""The deformation alone, between images that lie on each other."""
SHORT = replace(DIRECT, refine=RefineConfig(iterations=4, symmetric=False))
"""The same with few steps: for what must hold whatever the result is worth."""


@pytest.fixture(scope="module")
def short():
    """The same with ``SHORT``."""
    return register(fixed_image(), moving_image(), config=SHORT, device="cpu")


def apart_mm(a, b):
    """Largest distance between two fields in mm."""
    return float((a.mm() - b.on(a.grid).mm()).norm(dim=0).max())


@pytest.mark.parametrize("contrast", ["a", "b"])
def test_deformation_between_oblique_anisotropic_grids(result, contrast):
    """A shift and bend of 5 mm between two oblique anisotropic grids is found to 0.3 mm (other contrast: 1.2 mm)."""
    alone = RegistrationConfig(align=AlignConfig(transform="none"))
    other = (fixed_image(WIDE), moving_image(WIDE_MOVING, contrast="b"))
    found = result[0] if contrast == "a" else register(*other, config=alone, device="cpu")
    error, before = error_mm(found.field)
    assert float(before.mean()) > 5
    assert float(error.mean()) < (0.3 if contrast == "a" else 1.2)
    assert float(error.quantile(0.95)) < (0.6 if contrast == "a" else 3.1)
    assert found.field.grid == found.warped.grid == WIDE
    assert found.record.jacobian.folded_share == 0


def test_known_deformation_of_the_phantom():
    """Of the CT-like and MR-like phantom the landmarks come much nearer, and not one of twenty gets lost."""
    pair = make_pair(size=44)
    config = RegistrationConfig(align=AlignConfig(transform="none"), refine=RefineConfig(symmetric=False))
    found = register(pair.fixed, pair.moving, config=config, device="cpu")
    moved = found.field.point_map()(pair.fixed_points.T).T
    before = (pair.fixed_points - pair.moving_points).norm(dim=1)
    after = (moved - pair.moving_points).norm(dim=1)
    assert float(before.mean()) > 5
    assert float(after.mean()) < 0.65 * float(before.mean())
    assert float(after.quantile(0.95)) < float(before.quantile(0.95))


def test_transform_gives_the_warped_image(result):
    """SimpleITK's Resample with ``transform()`` gives ``warped``: the direction is fixed → moving."""
    found, _ = result
    reference = give_header(sitk.Image(list(WIDE.size_xyz), sitk.sitkFloat32), WIDE)
    resampled = sitk.Resample(
        sitk_image(moving_image(WIDE_MOVING)), reference, found.transform(), sitk.sitkLinear, found.record.background
    )
    difference = np.abs(sitk.GetArrayFromImage(resampled) - found.warped.data[0].numpy())
    assert np.median(difference) < 0.1
    assert np.mean(difference > 1.0) < 0.01  # voxels at the edge, where rounding decides what is inside
    fixed = fixed_image(WIDE).data
    seen = found.warped.data != found.record.background
    before = (moving_image(WIDE).data - fixed).abs()[seen].mean()
    assert float((found.warped.data - fixed).abs()[seen].mean()) < 0.5 * float(before)


def test_warped_shows_the_background_outside():
    """Where the moving image shows nothing, ``warped`` has the background asked for."""
    small = grid_at(MIDDLE, (18, 17, 16), (1.8, 1.9, 1.7), rotation(3, -21.0))
    found = register(fixed_image(), moving_image(small), config=replace(DIRECT, background=-77.0), device="cpu")
    assert float(found.warped.data[0, 0, 0, 0]) == -77.0
    assert found.record.background == -77.0
    assert float(found.warped.data.max()) > 300


def test_image_stays_on_itself(caplog):
    """An image registered to itself stays where it is: below 0.01 mm everywhere, without a warning."""
    image = fixed_image(WIDE)
    with caplog.at_level(logging.WARNING, "semreg"):
        found = register(image, image, device="cpu")
    assert float(found.field.mm().abs().max()) < 0.01
    assert not caplog.records


def stored(volume, orientation):
    """The same samples at the same points, stored with permuted and flipped axes: by numpy, not by semreg."""
    grid = volume.grid
    order = [int(np.abs(column).argmax()) for column in orientation.T]  # new x, y, z ← old axis
    flips = [orientation[axis, new] < 0 for new, axis in enumerate(order)]
    array = volume.data[0].numpy().transpose([2 - axis for axis in order][::-1])
    array = array[tuple(slice(None, None, -1 if flip else 1) for flip in flips[::-1])].copy()
    size, spacing = np.array(grid.size_xyz)[order], np.array(grid.spacing_xyz)[order]
    direction = np.asarray(grid.direction) @ orientation
    return Volume(torch.from_numpy(array)[None], grid_at(centre(grid), tuple(size), tuple(spacing), direction))


TINY = grid_at(MIDDLE, (22, 18, 13), (2.3, 2.6, 3.4), rotation(3))


@pytest.mark.parametrize("number", [10, 27, 36])  # swapped, turned forth, turned back; with one to three axes flipped
def test_image_stays_on_itself_under_other_headers(number):
    """To itself stored with permuted or flipped axes it stays where it is, too, whichever of the two is stored so."""
    image = fixed_image(TINY)
    pair = [image, stored(image, ORIENTATIONS[number])][:: 1 if number % 2 else -1]
    assert float(register(*pair, device="cpu").field.mm().abs().max()) < 0.01


EQUAL_VOXELS = grid_at(MIDDLE, (27, 24, 22), (2.0, 2.0, 2.0), rotation(3))
SLICES = grid_at(MIDDLE, (27, 24, 14), (2.0, 2.0, 3.1), rotation(3))
OFF_BY_ROUNDING = {
    "turned": lambda g: grid_at(centre(g), g.size_xyz, g.spacing_xyz, rotation(3, np.degrees(1e-5)) @ g.direction),
    "stretched": lambda g: grid_at(centre(g), g.size_xyz, np.multiply(g.spacing_xyz, 1 + 1e-5), g.direction),
    "moved": lambda g: replace(g, origin_xyz=tuple(np.add(g.origin_xyz, 1e-4 * np.array(g.spacing_xyz)))),
    "float32": lambda g: Grid(
        g.size_xyz,
        tuple(map(float, np.float32(g.spacing_xyz))),
        tuple(map(float, np.float32(g.origin_xyz))),
        tuple(map(tuple, np.float32(g.direction).tolist())),
    ),
}
"""Headers of one image as two programs may write them."""


@pytest.mark.parametrize(
    ("change", "grid"),
    [("turned", EQUAL_VOXELS), ("stretched", SLICES), ("moved", EQUAL_VOXELS), ("float32", SLICES)],
    ids=["turned cubes", "stretched slices", "moved cubes", "slices in float32"],
)
def test_headers_that_differ_by_rounding_displace_nothing(change, grid):
    """An image stays on itself within a hundredth of a voxel where only the last digits of its header differ."""
    image = fixed_image(grid)
    texture = image.data + 60 * noise(1, *grid.shape, dtype=torch.float32)  # what interpolation would blur
    pair = [Volume(texture, grid), Volume(texture, OFF_BY_ROUNDING[change](grid))]
    field = register(*pair, device="cpu").field
    assert float(field.mm().abs().max()) < 0.02
    assert float((jacobian_determinant(field) - 1).abs().max()) < 0.01


@pytest.mark.parametrize("orientation", ORIENTATIONS[5::14])
def test_order_of_the_axes_does_not_matter(short, orientation):
    """Permuting the axes of both arrays, with their headers, changes the field by less than 0.05 mm."""
    images = (stored(image, orientation) for image in (fixed_image(), moving_image()))
    found = register(*images, config=SHORT, device="cpu")
    expected = stored_field(short.field, orientation)
    assert found.field.grid.size_xyz == expected.grid.size_xyz
    assert float((found.field.mm() - expected.mm()).norm(dim=0).max()) < 0.05


def stored_field(field, orientation):
    """The field stored in another order: its vectors in mm are three images."""
    parts = [stored(Volume(row[None], field.grid), orientation) for row in field.mm()]
    return Field.from_mm(torch.cat([part.data for part in parts]), parts[0].grid)


@pytest.mark.parametrize(("which", "scale"), [("fixed", 1000.0), ("moving", 0.001)])
def test_scale_of_intensities_does_not_matter(short, which, scale):
    """Intensities a thousand times as large or small in one image change the field by less than 0.15 mm.

    Rounding decides at the border of the box between two ways back, where the displacement stops.
    """
    images = {"fixed": fixed_image(), "moving": moving_image()}
    images[which] = Volume(images[which].data * scale, images[which].grid)
    found = register(images["fixed"], images["moving"], config=SHORT, device="cpu")
    assert apart_mm(short.field, found.field) < 0.15
    assert float((short.field.mm() - found.field.mm()).norm(dim=0).mean()) < 0.005
    assert apart_mm(short.field, Field.zeros(FIXED)) > 3


def test_same_inputs_give_the_same_field_twice():
    """The same inputs give a bit-identical field and image on the CPU, through all stages and in both directions."""
    align, refine = AlignConfig(transform="rigid", rotation_deg=0.0), RefineConfig(iterations=3, symmetric=True)
    config = RegistrationConfig(align=align, features=VOXELS, refine=refine)
    first, again = (register(fixed_image(TINY), moving_image(), config=config, device="cpu") for _ in range(2))
    assert first.record.alignment.transform == "rigid"
    assert torch.equal(again.field.vox, first.field.vox)
    assert torch.equal(again.warped.data, first.warped.data)


def half_mask(grid, inside=True):
    """A mask of what lies on one side of the object's middle, and 6 mm beyond."""
    points = points_of(grid)
    return Volume((points[0] < MIDDLE[0] + 6.0 if inside else points[0] >= MIDDLE[0] + 6.0)[None].float(), grid)


@pytest.mark.parametrize(("which", "junk"), [("fixed", float("nan")), ("moving", 5000.0)])
def test_excluded_voxels_have_no_influence(which, junk):
    """Whatever stands where the mask of either image is 0, the field is bit-identical."""
    images = {"fixed": fixed_image(), "moving": moving_image()}
    mask = half_mask(images[which].grid)
    noise = torch.rand(mask.data.shape, generator=torch.Generator().manual_seed(3))
    spoilt = torch.where(mask.data > 0, images[which].data, junk * noise)
    first = register(**images, **{f"{which}_mask": mask}, config=SHORT, device="cpu")
    images[which] = Volume(spoilt, images[which].grid)
    second = register(**images, **{f"{which}_mask": mask}, config=SHORT, device="cpu")
    assert torch.equal(first.field.vox, second.field.vox)
    # and the mask is used: without it the junk, or what was excluded, changes the field
    assert float(first.field.mm().abs().max()) > 1


def test_mask_shields_from_what_is_not_there():
    """A fixed image with an object that the moving one does not have is registered well once a mask excludes it."""
    fixed = fixed_image()
    points = points_of(FIXED)
    away = points - torch.tensor([14.0, -7.0, 11.0]).double().reshape(3, 1, 1, 1)
    spoilt = Volume(
        torch.where(
            away.norm(dim=0) < 9,
            3000.0 * torch.rand(FIXED.shape, generator=torch.Generator().manual_seed(2)),
            fixed.data[0],
        )[None],
        FIXED,
    )
    mask = Volume((away.norm(dim=0) > 10.5)[None].float(), FIXED)
    around = (away.norm(dim=0) > 10.5) & (away.norm(dim=0) < 17) & (fixed.data[0] > 100)
    errors = []
    for given in (None, mask):
        found = register(spoilt, moving_image(), fixed_mask=given, config=DIRECT, device="cpu")
        errors.append(float((found.field.mm() - bend(points)).norm(dim=0)[around].mean()))
    assert errors[1] < 1.5
    assert errors[1] < errors[0]


def test_mask_may_lie_on_another_grid(short):
    """A mask on its own grid is resampled; a coarse one that covers all of the image changes hardly anything."""
    everywhere = grid_at(MIDDLE, (9, 8, 7), (14.0, 15.0, 16.0), rotation(3, 5.0))
    mask = Volume(torch.ones(1, *everywhere.shape), everywhere)
    masked = register(fixed_image(), moving_image(), config=SHORT, fixed_mask=mask, moving_mask=mask, device="cpu")
    error, _ = error_mm(masked.field)
    assert float(error.mean()) < 1.0
    apart = (masked.field.mm() - short.field.mm()).norm(dim=0)[fixed_image().data[0] > 100]
    assert float(apart.mean()) < 1.0


FAR = (250.0, -80.0, 40.0)


def far_moving():
    """The moving image 250 mm away, turned by 12 degrees about its own middle, and the transform to it."""
    turn = sitk.Euler3DTransform()
    turn.SetCenter(MIDDLE)
    turn.SetRotation(0.12, -0.1, 0.15)
    turn.SetTranslation(FAR)
    matrix, origin = np.array(turn.GetMatrix()).reshape(3, 3), turn.TransformPoint(MOVING.origin_xyz)
    grid = Grid(MOVING.size_xyz, MOVING.spacing_xyz, origin, tuple(map(tuple, matrix @ np.asarray(MOVING.direction))))
    return Volume(moving_image().data, grid), turn


def test_initial_affine_brings_far_images_together():
    """With an initial affine transform images that are far apart are registered, and the parts are told apart."""
    moving, turn = far_moving()
    with pytest.raises(GeometryError, match="initial"):
        register(fixed_image(), moving, config=DIRECT, device="cpu")
    config = replace(DIRECT, refine=RefineConfig(symmetric=False))
    found = register(fixed_image(), moving, initial=turn, config=config, device="cpu")
    points = points_of(FIXED)
    bent = (points + bend(points)).flatten(1).T.numpy()
    truth = torch.tensor([turn.TransformPoint(p) for p in bent]).T.reshape(points.shape) - points
    error, _ = error_mm(Field.from_mm(found.field.mm() - truth + bend(points), FIXED))
    assert float(error.mean()) < 0.8
    assert found.affine is turn
    # the found part, then the initial transform, is the whole: in SimpleITK's words a composite
    whole = sitk.CompositeTransform([turn, sitk.DisplacementFieldTransform(_vectors(found.deformation))])
    assert apart_mm(found.field, field_of_transform(whole, FIXED)) < 0.02
    assert float(found.deformation.mm().norm(dim=0).max()) < 30


def _vectors(field):
    image = sitk.GetImageFromArray(field.mm().movedim(0, -1).double().numpy(), isVector=True)
    return give_header(image, field.grid)


def test_initial_may_be_any_transform_or_field():
    """A composite, or a Field, is a start as an affine transform is: the same result to 0.3 mm, no affine part."""
    moving, turn = far_moving()
    expected = register(fixed_image(), moving, initial=turn, config=SHORT, device="cpu")
    composite = sitk.CompositeTransform([sitk.TranslationTransform(3, FAR), _about_the_middle(turn)])
    large = grid_at(MIDDLE, (40, 40, 40), (4.0, 4.0, 4.0), rotation(3, 8.0))
    for start in (composite, field_of_transform(turn, large)):
        found = register(fixed_image(), moving, initial=start, config=SHORT, device="cpu")
        error = (found.field.mm() - expected.field.mm()).norm(dim=0)[fixed_image().data[0] > 100]
        assert float(error.max()) < 0.3
        assert found.affine is None or found.affine.IsLinear()


def _about_the_middle(turn):
    same = sitk.Euler3DTransform(turn)
    same.SetTranslation((0.0, 0.0, 0.0))
    return same


def test_identity_as_initial_changes_little(short):
    """An initial transform that does nothing gives the same displacement where the object is."""
    same = sitk.Transform(3, sitk.sitkIdentity)
    found = register(fixed_image(), moving_image(), initial=same, config=SHORT, device="cpu")
    error = (found.field.mm() - short.field.mm()).norm(dim=0)[fixed_image().data[0] > 100]
    assert float(error.mean()) < 0.6


def test_two_dimensions():
    """A pair in 2-D on two oblique anisotropic grids is registered as one in 3-D is."""
    fixed = fixed_image(grid_at(MIDDLE[:2], (64, 52), (0.9, 1.2), rotation(2)))
    moving = moving_image(grid_at((4.0, -6.0), (60, 58), (1.1, 0.8), rotation(2, -21.0)))
    found = register(fixed, moving, device="cpu")
    error, before = error_mm(found.field)
    assert float(before.mean()) > 3
    assert float(error.mean()) < 0.4
    assert found.record.jacobian.folded_share == 0


def test_one_slice():
    """A single slice in 3-D is registered within its plane and stays in it."""
    grid = grid_at(MIDDLE, (54, 46, 1), (0.9, 1.1, 5.0), rotation(3))
    in_plane = torch.tensor(np.asarray(grid.direction)[:, :2]) @ torch.tensor([3.0, -2.0], dtype=torch.float64)
    fixed = Volume(scene(points_of(grid) + in_plane.reshape(3, 1, 1, 1))[None].float(), grid)
    found = register(fixed, moving_image(grid), device="cpu")
    error = (found.field.mm() - in_plane.reshape(3, 1, 1, 1)).norm(dim=0)[fixed.data[0] > 200]
    assert float(error.mean()) < 0.4
    assert float(found.field.vox[0].abs().max()) < 0.01


def test_every_kind_of_image_gives_the_same_field(tmp_path):
    """SimpleITK, itk and nibabel images and (array, Grid) give the same field as volumes do."""
    import nibabel

    import itk

    images = {}
    for name, volume in (("fixed", fixed_image(TINY)), ("moving", moving_image(TINY))):
        path = tmp_path / f"{name}.nii"
        sitk.WriteImage(sitk_image(volume), str(path))
        images[name] = {
            "sitk": sitk_image(volume),
            "itk": give_itk_header(itk.image_from_array(volume.data[0].numpy()), volume.grid),
            "nibabel": nibabel.load(path),
            "array": (volume.data[0].numpy(), volume.grid),
        }
    expected = register(fixed_image(TINY), moving_image(TINY), config=SHORT, device="cpu").field
    for kind in ("sitk", "itk", "nibabel", "array"):
        found = register(images["fixed"][kind], images["moving"][kind], config=SHORT, device="cpu")
        # NIfTI stores headers in single precision
        assert apart_mm(expected, found.field) < (0.05 if kind == "nibabel" else 1e-4), kind


def give_itk_header(image, grid):
    """An ``itk.Image`` with the header of ``grid``, without semreg."""
    import itk

    image.SetSpacing(grid.spacing_xyz)
    image.SetOrigin(grid.origin_xyz)
    image.SetDirection(itk.matrix_from_array(np.asarray(grid.direction)))
    return image


def test_record_says_what_was_done(result, short):
    """The record is JSON: device, seed, settings, plan, timings, memory, similarity, convergence and Jacobian."""
    found, _ = result
    record = json.loads(json.dumps(found.record.to_dict(), allow_nan=False))
    assert record["device"] == "cpu"
    assert record["seed"] == 0
    effective, default = from_dict(RegistrationConfig, record["settings"]), RegistrationConfig()
    for name in ("features", "coarse", "refine"):  # what was left to the images is filled in, the rest is as given
        pairs = [(vars(getattr(effective, name))[key], value) for key, value in vars(getattr(default, name)).items()]
        assert all(found_value == given for found_value, given in pairs if given is not None)
    assert list(record["timings"]) == [
        "prepare",
        "plan",
        "align",
        "features",
        "coarse",
        "refine",
        "fine",
        "uncertainty",
        "field",
    ]
    assert all(v["seconds"] >= 0 and v["cpu_seconds"] >= 0 for v in record["timings"].values())
    assert record["peak_memory_bytes"]["process"] > 50e6
    assert record["similarity"]["distance"] == "l2"
    assert short.record.similarity.after < 0.5 * short.record.similarity.before  # nothing was aligned before
    assert len(record["convergence"]) == 2 * RefineConfig().levels + 1  # both directions, and the intensities
    for level in record["convergence"]:
        assert level["iterations"] >= 1
        assert len(level["reason"].split()) > 3
    assert record["jacobian"]["folded_share"] == 0
    inner = jacobian_determinant(found.field)[1:-1, 1:-1, 1:-1]
    assert record["jacobian"]["minimum"] == pytest.approx(float(inner.min()))
    assert record["plan"]
    assert record["threads"] >= 1


def test_jacobian_of_the_record_is_itks(result):
    """The smallest Jacobian determinant in the record is what ITK's filter finds in voxel axes, but for the border."""
    found, _ = result
    straight = Grid(WIDE.size_xyz, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3))
    image = sitk.GetImageFromArray(found.field.vox.flip(0).movedim(0, -1).double().numpy(), isVector=True)
    by_itk = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(give_header(image, straight)))
    assert found.record.jacobian.minimum == pytest.approx(float(by_itk[1:-1, 1:-1, 1:-1].min()), abs=1e-4)


def test_steps_are_told_in_the_order_of_the_stages(result):
    """The hook hears each stage in order, levels and iterations counted from one and complete."""
    _, steps = result
    assert [name for name, _ in itertools.groupby(steps, lambda step: step.stage)] == [
        "prepare", "plan", "align", "features", "coarse", "refine", "fine", "uncertainty", "field",
    ]  # fmt: skip
    for stage in ("coarse", "refine"):
        told = [(step.level, step.iteration) for step in steps if step.stage == stage]
        assert told[0] == (1, 1)
        for before, after in itertools.pairwise(told):
            assert after in {(before[0], before[1] + 1), (before[0] + 1, 1), (1, 1)}
        assert {level for level, _ in told} == set(range(1, next(s.levels for s in steps if s.stage == stage) + 1))
        assert min(iteration for _, iteration in told) == 1
        assert all(np.isfinite(step.value) for step in steps if step.stage == stage)
    assert all(step.seconds >= 0 for step in steps)


def test_the_plan_is_what_is_done():
    """``plan`` decides what ``register`` then does: settings and reasons of the record are those of the plan."""
    images = fixed_image(FLAT), moving_image(FLAT_MOVING)
    config = RegistrationConfig(refine=RefineConfig(iterations=1))
    told = plan(*images, config=config, device="cpu")
    assert told.config != config
    done = register(*images, config=config, device="cpu").record
    assert done.settings == told.config
    assert done.plan.reasons == told.reasons
    again = register(*images, config=told.config, device="cpu").record
    assert again.settings == told.config
    assert again.similarity == done.similarity


def test_the_plan_follows_the_settings():
    """A reason is a sentence, in mm, about a stage, and says what was set."""
    images = fixed_image(), moving_image()
    config = RegistrationConfig(
        features=FeatureConfig(spacing_mm=2.75),
        coarse=CoarseConfig(enabled=False),
        refine=RefineConfig(distance="ncc", control_mm=11.0),
    )
    told = {reason.about: reason.sentence for reason in plan(*images, config=config).reasons}
    assert set(told) == {"images", "align", "frame", "features", "coarse", "refine", "memory"}
    assert all(sentence.endswith(".") and sentence[0].isupper() for sentence in told.values())
    assert "2.75 mm" in told["frame"]
    assert "no search" in told["coarse"]
    assert "11 mm" in told["refine"]
    assert "ncc" in told["refine"]


def test_plan_says_the_memory():
    """The estimate of the memory, less what imports take, is within a factor 2.5 of the tensors that a run holds."""
    pair = make_pair(size=36, landmarks=1)
    config = RegistrationConfig(align=AlignConfig(transform="none"), refine=RefineConfig(iterations=1))
    planned = plan(pair.fixed, pair.moving, config=config).memory_bytes - IMPORTS_BYTES
    taken = peak_bytes_of(lambda: register(pair.fixed, pair.moving, config=config, device="cpu"))
    assert taken / 2.5 < planned < 2.5 * taken


def test_hard_pair_does_not_fold():
    """Without regularisation worth the name, between images of different scenes, not one voxel folds."""
    pair = make_pair(size=22, displacement_mm=25.0)
    refine = RefineConfig(diffusion=1e-4, folding=0.0, iterations=8, control_mm=8.0, local_correlation=0.0)
    config = RegistrationConfig(align=AlignConfig(transform="none"), refine=refine)
    found = register(pair.fixed, Volume(-pair.moving.data.flip(1), pair.moving.grid), config=config, device="cpu")
    assert found.record.jacobian.folded_share == 0
    assert float(jacobian_determinant(found.field).min()) > 0
    assert found.record.jacobian.unfolding_passes > 0


@pytest.mark.parametrize("stage", ["coarse", "refine"])
def test_stages_can_be_left_out(stage):
    """Either stage alone brings the images nearer, and the record shows which stages were not there."""
    off = {"coarse": CoarseConfig(enabled=False)} if stage == "refine" else {"refine": RefineConfig(enabled=False)}
    found = register(fixed_image(), moving_image(), config=replace(DIRECT, **off), device="cpu")
    error, before = error_mm(found.field)
    assert float(error.mean()) < {"coarse": 0.9, "refine": 0.1}[stage] * float(before.mean())
    ran = {"coarse": ["coarse", "fit"], "refine": ["refine"]}[stage]
    fine = ["fine"] if "refine" in ran else []
    assert list(found.record.timings) == ["prepare", "plan", "features", *ran, *fine, "uncertainty", "field"]
    assert (found.record.convergence == ()) == (stage == "coarse")


@pytest.mark.parametrize(("features", "distance"), [("intensity", "l2"), ("intensity", "ncc"), ("mind", "ncc")])
def test_every_feature_model_and_distance(features, distance):
    """Intensities and MIND, with either distance, find the deformation between images of one contrast."""
    config = replace(
        DIRECT, models=(ModelConfig(model=features),), refine=RefineConfig(distance=distance, symmetric=False)
    )
    error, _ = error_mm(register(fixed_image(), moving_image(), config=config, device="cpu").field)
    assert float(error.mean()) < 0.9


@pytest.mark.parametrize(
    ("spoil", "error", "sentence"),
    [
        (lambda x: torch.full_like(x, float("nan")), ImageError, "finite voxels in the moving image"),
        (lambda x: torch.full_like(x, 3.0), ImageError, "structure in the moving image"),
    ],
    ids=["nan", "constant"],
)
def test_useless_images_are_refused(spoil, error, sentence):
    """An image of nothing but NaN or of one value is refused by name."""
    moving = moving_image(TINY)
    with pytest.raises(error, match=sentence):
        register(fixed_image(TINY), Volume(spoil(moving.data), TINY), device="cpu")


def test_nan_voxels_count_as_outside(caplog):
    """Some NaN and infinite voxels are counted in a warning and do no harm."""
    moving = moving_image()
    moving.data[0, 5:8, 5:8, 5:8] = float("nan")
    moving.data[0, -1, -1, -1] = float("inf")
    with caplog.at_level(logging.WARNING, "semreg"):
        found = register(fixed_image(), moving, config=DIRECT, device="cpu")
    assert "28 voxels of the moving image are NaN or infinite" in caplog.text
    assert bool(torch.isfinite(found.warped.data).all())
    assert float(error_mm(found.field)[0].mean()) < 0.6


def test_inputs_are_not_changed():
    """The caller's images and masks are as before."""
    fixed, moving, mask = fixed_image(TINY), moving_image(TINY), half_mask(TINY)
    before = [x.data.clone() for x in (fixed, moving, mask)]
    register(fixed, moving, fixed_mask=mask, config=SHORT, device="cpu")
    assert all(torch.equal(x.data, y) for x, y in zip((fixed, moving, mask), before, strict=True))


def dice(a, b):
    """Mean Dice overlap of the labels above 0."""
    labels = np.union1d(np.unique(a), np.unique(b))
    return np.mean([2 * ((a == k) & (b == k)).sum() / ((a == k).sum() + (b == k).sum()) for k in labels if k])


@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real pairs, ../shared/data, is not here")
def test_real_hippocampi():
    """Two real hippocampi come to overlap, labels moved by SimpleITK, and no voxel folds."""
    images, labels = DATA / "hippocampus" / "images", DATA / "hippocampus" / "labels"
    fixed, moving = (read_image(images / f"hippocampus_{number}.nii.gz") for number in ("004", "006"))
    config = replace(DIRECT, features=FeatureConfig(spacing_mm=1.5))  # the headers are right
    found = register(fixed, moving, config=config, device="cpu")
    target, source = (sitk.ReadImage(str(labels / f"hippocampus_{number}.nii.gz")) for number in ("004", "006"))
    overlaps = [
        dice(
            sitk.GetArrayFromImage(target),
            sitk.GetArrayFromImage(sitk.Resample(source, target, transform, sitk.sitkNearestNeighbor)),
        )
        for transform in (sitk.Transform(3, sitk.sitkIdentity), found.transform())
    ]
    assert overlaps[1] > overlaps[0] + 0.12
    assert found.record.jacobian.folded_share == 0
    assert float(jacobian_determinant(found.field).min()) > 0
    assert to_volume(fixed).grid == found.field.grid


def test_models_that_are_loaded_already():
    """Pairings of loaded models, each with its settings, give the field that their settings give by name."""
    config = RegistrationConfig(
        models=(ModelConfig(model="mind", weight=(2.0,)), ModelConfig(model="intensity", distance=("l1",))),
        refine=RefineConfig(iterations=3),
        align=AlignConfig(transform="none"),
    )
    pairings = resolve_models(config, 2, torch.device("cpu"))
    fixed, moving = fixed_image(FLAT), moving_image(FLAT_MOVING)
    named = register(fixed, moving, config=config, device="cpu")
    loaded = register(fixed, moving, config=config, model=pairings, device="cpu")
    assert torch.equal(named.field.vox, loaded.field.vox)
    assert loaded.record.models == named.record.models


@pytest.mark.parametrize("balance", ["unrelated", "first", "spread", "raw"])
def test_layers_are_balanced_in_the_search(balance):
    """However layers are brought to one scale, two of them find the displacement; only by spread it is recorded."""
    config = RegistrationConfig(
        models=(ModelConfig(model="mind"), ModelConfig(model="intensity")),
        coarse=CoarseConfig(balance=balance),
        refine=RefineConfig(balance="raw" if balance == "raw" else "first", symmetric=False),
        align=AlignConfig(transform="none"),
    )
    found = register(fixed_image(FLAT), moving_image(FLAT_MOVING), config=config, device="cpu")
    error, before = error_mm(found.field)
    assert float(error.mean()) < 0.3 * float(before.mean())
    assert len(found.record.spreads) == (2 if balance == "spread" else 0)
