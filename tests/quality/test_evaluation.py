"""Promises of an evaluation: each number is that of an independent implementation, whatever the grid, in mm."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

from conftest import (
    ORIENTATIONS,
    make_grid,
    moving_grid,
    noise_volume,
    oblique_grid,
    points_of,
    rotation,
    sitk_resample,
    sitk_transform,
    sitk_vectors,
    smooth_field,
)
from semreg.core.consistency import inverse_consistency, invert
from semreg.core.fields import Field, Volume
from semreg.core.sampling import SLAB_POINTS
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.features.descriptors.mind import MindSSC
from semreg.features.extract import describe, intensity_stats
from semreg.io.files import write_field, write_image, write_transform
from semreg.io.records import record_of
from semreg.quality import Evaluation, EvaluationConfig, evaluate, prepare, write_evaluation
from semreg.quality import subject as subject_module
from semreg.quality.deformation import displacement_statistics, jacobian_statistics
from semreg.quality.image_similarity import correlation, mind_distances, mutual_information
from semreg.transforms import Chain

GRID = make_grid((13, 12, 11), (1.1, 1.4, 1.9), (-31.0, 12.5, 77.0), rotation(3))
TURN = sitk.Euler3DTransform((-25.0, 20.0, 86.0), 0.05, -0.08, 0.1, (0.4, -0.5, 0.6))
QUIET = EvaluationConfig(similarity=False)


def random_field(grid, voxels=0.6, seed=0):
    """Noise of so many voxels: it folds here and there."""
    noise = np.random.default_rng(seed).normal(size=(grid.dimension, *grid.shape)) * voxels
    return Field(torch.from_numpy(noise), grid)


def inner_points(grid, count=20, seed=0):
    """Points (N, D) in the middle of the grid, between voxels."""
    share = np.random.default_rng(seed).uniform(0.25, 0.75, size=(count, grid.dimension))
    index = np.c_[share * (np.array(grid.shape) - 1), np.ones(count)]
    return (index @ grid.index_to_point().T)[:, :-1]


def flat(values):
    """The numbers of nested dicts, by their names."""
    result = {}
    for name, value in values.items():
        inner = flat(value) if isinstance(value, dict) else {"": value}
        result |= {f"{name} {key}": number for key, number in inner.items() if not isinstance(number, str)}
    return result


def learn2reg(vox, mask=None):
    """SDlogJ after the published evaluation of Learn2Reg: displacements (D, *S) in voxels along the array axes."""
    n = len(vox)
    jacobian = np.empty((n, n, *vox.shape[1:]))
    for i in range(n):
        for axis in range(n):
            kernel = np.reshape([-0.5, 0.0, 0.5], [3 if a == axis else 1 for a in range(n)])
            jacobian[i, axis] = ndimage.correlate(vox[i], kernel, mode="constant", cval=0.0) + (i == axis)
    core = (slice(2, -2),) * n
    determinant = np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1)))[core]
    logarithm = np.log((determinant + 3).clip(0.000000001, 1000000000))
    return logarithm.std() if mask is None else np.ma.MaskedArray(logarithm, 1 - mask[core].astype(int)).std()


# landmarks


def test_landmark_errors_are_those_of_simpleitk():
    """Each error is the distance that SimpleITK's TransformPoint leaves, before with the initial transform."""
    fixed = inner_points(GRID)
    moving = fixed + np.random.default_rng(1).normal(size=fixed.shape)
    field = sitk_transform(smooth_field(GRID))
    found = evaluate([field, TURN], landmarks=(fixed, moving, [f"F-{n}" for n in range(20)]), initial=TURN).landmarks
    after = [
        np.linalg.norm(np.subtract(TURN.TransformPoint(field.TransformPoint(p)), q))
        for p, q in zip(fixed.tolist(), moving.tolist(), strict=True)
    ]
    before = [
        np.linalg.norm(np.subtract(TURN.TransformPoint(p), q))
        for p, q in zip(fixed.tolist(), moving.tolist(), strict=True)
    ]
    for side, wanted in (("before", before), ("after", after)):
        np.testing.assert_allclose([getattr(point, side) for point in found.points], wanted, atol=1e-6)
        assert vars(getattr(found, side)) == pytest.approx(
            {
                "mean": np.mean(wanted), "sd": np.std(wanted), "minimum": min(wanted), "median": np.median(wanted),
                "p75": np.percentile(wanted, 75), "p90": np.percentile(wanted, 90),
                "p95": np.percentile(wanted, 95), "maximum": max(wanted),
            },
            abs=1e-6,
        )  # fmt: skip
    assert found.count == 20
    assert [point.name for point in found.points][:2] == ["F-0", "F-1"]
    assert found.points[3].fixed == pytest.approx(fixed[3])
    assert found.points[3].moving == pytest.approx(moving[3])


def test_before_is_the_identity_by_default():
    """Without an initial transform the error before is the distance of the points as they are; names are numbers."""
    fixed = inner_points(GRID)
    found = evaluate(TURN, landmarks=(fixed, np.add(fixed, (3.0, 4.0, 0.0)))).landmarks
    assert found.before.mean == pytest.approx(5.0)
    assert found.before.sd == pytest.approx(0.0, abs=1e-9)
    assert [point.name for point in found.points] == [str(n + 1) for n in range(20)]


def test_landmarks_need_no_image():
    """Landmarks alone are measured with a matrix; all that needs a grid is left out."""
    result = evaluate(TURN, landmarks=(inner_points(GRID), inner_points(GRID)))
    given = result.to_dict()
    assert {name for name, value in given.items() if value is not None} == {"landmarks", "notes"}
    assert evaluate(smooth_field(GRID)).jacobian.voxels == 11 * 10 * 9


def test_points_in_a_plane_are_2d():
    """3D Slicer gives points of a 2-D image a third coordinate of 0."""
    fixed = np.c_[inner_points(oblique_grid(2)), np.zeros(20)]
    found = evaluate(sitk.TranslationTransform(2, (3.0, 4.0)), landmarks=(fixed, fixed)).landmarks
    assert found.before.mean == 0
    assert found.after.mean == pytest.approx(5.0)


def test_points_outside_of_an_image_are_counted():
    """A landmark outside of its image is measured, and said."""
    fixed = inner_points(GRID)
    moving = fixed.copy()
    moving[:2] += 500.0
    image = noise_volume(GRID)
    notes = evaluate(TURN, fixed=image, moving=image, landmarks=(fixed, moving), config=QUIET).notes
    assert notes == ("2 of 20 moving landmarks lie outside of the moving image.",)


# deformation


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_sdlogj_is_that_of_learn2reg(dimension, masked):
    """SD of log(clip(det + 3)) without two layers at each face, of a field that folds, with and without a mask."""
    field = random_field(
        make_grid((14, 13, 12)[:dimension], (0.8, 1.3, 2.1)[:dimension], (1, 2, 3)[:dimension], rotation(dimension))
    )
    mask = np.random.default_rng(1).random(field.grid.shape) > 0.4 if masked else None
    found = jacobian_statistics(field, None if mask is None else torch.from_numpy(mask))
    assert found.sd_log == pytest.approx(learn2reg(field.vox.numpy(), mask), abs=1e-9)
    assert found.folded_share > 0
    assert found.region == ("mask" if masked else "image")


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7], ids=str)
def test_the_direction_of_the_grid_does_not_matter(orientation):
    """The same displacements in mm and the same points in an array with permuted and flipped axes: the same numbers."""
    field = random_field(GRID)
    plain = make_grid(GRID.size_xyz, GRID.spacing_xyz, (0, 0, 0), np.eye(3))
    turned = make_grid(GRID.size_xyz, GRID.spacing_xyz, (4, 5, 6), rotation(3, 71.0) @ orientation)
    wanted = jacobian_statistics(Field(field.vox, plain))
    for grid in (GRID, turned):
        assert flat(asdict(jacobian_statistics(Field(field.vox, grid)))) == pytest.approx(flat(asdict(wanted)))


def test_jacobian_is_that_of_itk():
    """Minimum, percentiles, mean, maximum and folded share are those of SimpleITK's determinant, but for the border."""
    field = random_field(GRID)
    turned = sitk.GetArrayFromImage(sitk_vectors(field)) @ np.asarray(GRID.direction)  # ITK's ignores the direction
    image = sitk.GetImageFromArray(turned, isVector=True)
    image.SetSpacing(GRID.spacing_xyz)
    wanted = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(image))
    mask = np.random.default_rng(1).random(GRID.shape) > 0.5
    inner = np.zeros_like(mask)
    inner[1:-1, 1:-1, 1:-1] = True
    for region in (None, mask):
        values = wanted[inner if region is None else inner & region]
        found = evaluate(
            field,
            fixed=noise_volume(GRID),
            fixed_mask=None if region is None else (region.astype(np.float32), GRID),
        ).jacobian
        assert found.voxels == values.size
        assert found.minimum == pytest.approx(values.min(), abs=1e-3)
        assert found.maximum == pytest.approx(values.max(), abs=1e-3)
        assert found.mean == pytest.approx(values.mean(), abs=1e-3)
        assert found.folded_share == pytest.approx((values <= 0).mean(), abs=1e-6)
        assert list(found.percentiles) == ["1", "5", "50", "95", "99"]
        for name, value in found.percentiles.items():
            assert value == pytest.approx(np.percentile(values, float(name)), abs=1e-3)


def test_a_matrix_has_one_determinant():
    """Of an affine transform each voxel has the determinant of the matrix, up to the faces, and SDlogJ is 0."""
    stretch = sitk.AffineTransform((0.8, 0.1, 0.0, 0.0, 1.1, 0.2, 0.0, 0.0, 0.9), (3.0, 1.0, -2.0), (-25.0, 20.0, 86.0))
    found = evaluate(stretch, fixed=noise_volume(GRID)).jacobian
    for value in (found.minimum, found.maximum, found.mean, *found.percentiles.values()):
        assert value == pytest.approx(0.8 * 1.1 * 0.9, abs=1e-5)
    assert found.sd_log == pytest.approx(0, abs=1e-5)
    assert found.folded_share == 0


def test_thin_grids_keep_their_layers():
    """An axis of a few voxels has no layers to leave out: a single slice is measured as the 2-D image that it is."""
    plane = random_field(make_grid((14, 13), (0.8, 1.3), (1, 2), rotation(2)))
    slab = make_grid((14, 13, 1), (0.8, 1.3, 2.0), (1, 2, 3), rotation(3))
    vox = torch.cat([torch.zeros(1, 13, 14), plane.vox])[:, None]
    found, wanted = (flat(asdict(jacobian_statistics(field))) for field in (Field(vox, slab), plane))
    assert found == pytest.approx(wanted)


def test_displacements_are_in_mm():
    """Mean, median, 95th percentile and maximum of |T(p) − p| over the mask, as SimpleITK moves the voxels."""
    chain = [sitk_transform(smooth_field(GRID)), TURN]
    mask = np.random.default_rng(1).random(GRID.shape) > 0.5
    points = points_of(GRID).flatten(1).numpy().T[mask.ravel()].tolist()
    lengths = [np.linalg.norm(np.subtract(TURN.TransformPoint(chain[0].TransformPoint(p)), p)) for p in points]
    found = evaluate(chain, fixed=noise_volume(GRID), fixed_mask=(mask.astype(np.float32), GRID)).displacement
    assert vars(found) == pytest.approx(
        {
            "mean_mm": np.mean(lengths), "median_mm": np.median(lengths),
            "p95_mm": np.percentile(lengths, 95), "maximum_mm": max(lengths),
        },
        abs=1e-4,
    )  # fmt: skip


def test_overlap_is_what_comes_to_lie_inside():
    """The share of the mask whose points lie in the moving image's box, before and after, counted point by point."""
    moving = noise_volume(moving_grid(GRID))
    mask = np.random.default_rng(1).random(GRID.shape) > 0.5
    shift = sitk.TranslationTransform(3, (4.0, -7.0, 2.0))
    found = evaluate(
        shift, fixed=noise_volume(GRID), moving=moving, fixed_mask=(mask.astype(np.float32), GRID), config=QUIET
    ).overlap
    points = points_of(GRID).flatten(1).numpy().T[mask.ravel()]
    for side, moved in (("before", points), ("after", np.add(points, (4.0, -7.0, 2.0)))):
        index = np.c_[moved, np.ones(len(moved))] @ moving.grid.point_to_index().T
        inside = ((index[:, :3] >= -0.5) & (index[:, :3] < np.array(moving.grid.shape) - 0.5)).all(1)
        assert getattr(found, side) == pytest.approx(inside.mean())
    assert found.before != found.after


# similarity


def test_mutual_information_and_correlation():
    """Mutual information in nats and Pearson's correlation are those of NumPy's histogram and corrcoef."""
    rng = np.random.default_rng(0)
    count = SLAB_POINTS + 4321  # more than one piece
    a = rng.normal(size=count)
    b = 0.7 * a**2 + 0.3 * a + rng.normal(size=count)
    tensors = [torch.from_numpy(x.astype(np.float32)) for x in (a, b)]
    edges = (-2.0, 2.5), (-1.5, 3.0)
    clipped = [np.clip(x.numpy(), low, np.nextafter(high, low)) for x, (low, high) in zip(tensors, edges, strict=True)]
    joint = np.histogram2d(*clipped, bins=20, range=edges)[0] / count
    apart = np.outer(joint.sum(1), joint.sum(0))
    wanted = (joint[joint > 0] * np.log(joint[joint > 0] / apart[joint > 0])).sum()
    assert mutual_information(*tensors, edges, 20) == pytest.approx(wanted, abs=1e-4)
    assert correlation(*tensors) == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-6)
    assert correlation(tensors[0], torch.full((count,), 1000.1)) is None


@pytest.mark.parametrize("dimension", [2, 3])
def test_mind_is_that_of_the_features(dimension):
    """The distance of MIND, slab by slab, is the mean squared difference of the descriptors of whole images."""
    grid = make_grid((14, 13, 12)[:dimension], (0.8, 1.3, 2.1)[:dimension], (1, 2, 3)[:dimension], rotation(dimension))
    first, second = (Volume(noise_volume(grid, seed=n).data.float(), grid) for n in (1, 2))
    counts = torch.rand(grid.shape, generator=torch.Generator().manual_seed(0)) > 0.5
    a, b = (describe(volume, MindSSC(dimension=dimension)).features.data for volume in (first, second))
    wanted = float((a - b).square().mean(0)[counts].mean())
    stats = intensity_stats(first), intensity_stats(second)
    assert mind_distances(first.data, [second.data, first.data], counts, stats)[0] == pytest.approx(wanted, abs=1e-6)


def test_slabs_change_nothing(monkeypatch):
    """Whether images are compared in one piece or in many, and with or without voxels that are not finite beside."""
    fixed, moving = (
        Volume(noise_volume(GRID).data.float(), GRID),
        Volume(noise_volume(moving_grid(GRID), seed=1).data.float(), moving_grid(GRID)),
    )
    whole = evaluate(smooth_field(GRID), fixed=fixed, moving=moving).to_dict()
    for module in ("image_similarity", "deformation"):
        monkeypatch.setattr(f"semreg.quality.{module}.SLAB_POINTS", 300)
    parts = evaluate(smooth_field(GRID), fixed=fixed, moving=moving).to_dict()
    for name in ("similarity", "displacement", "overlap"):
        assert flat(parts[name]) == pytest.approx(flat(whole[name]), rel=1e-5), name


def test_inverted_contrast():
    """Against its own negative an image has the correlation −1, all mutual information and no distance of MIND."""
    fixed = Volume(noise_volume(GRID).data.float(), GRID)
    same = evaluate(Field.zeros(GRID), fixed=fixed, moving=fixed).similarity
    negative = evaluate(Field.zeros(GRID), fixed=fixed, moving=Volume(100 - 3 * fixed.data, GRID)).similarity
    assert same.correlation.after == pytest.approx(1.0)
    assert vars(negative.correlation) == {
        "before": pytest.approx(-1.0),
        "after": pytest.approx(-1.0),
        "better": "higher",
    }
    assert negative.mutual_information.after == pytest.approx(same.mutual_information.after, abs=0.02)
    assert same.mind.before == 0.0
    assert same.mind.after == pytest.approx(0, abs=1e-9)
    assert negative.mind.after == pytest.approx(0, abs=1e-6)


def test_only_what_is_seen_both_times_is_compared():
    """Before and after are over the same voxels: those the moving image shows both times, as SimpleITK resamples it."""
    fixed = noise_volume(GRID)
    moving = noise_volume(moving_grid(GRID), seed=1)
    moving.data[0, 3, 4, 3] = float("nan")
    fixed.data[0, 5, 5, 5] = float("inf")
    field = smooth_field(GRID)
    found = evaluate(field, fixed=fixed, moving=moving).similarity.correlation
    reads = [sitk_resample(moving, GRID, each, outside=np.nan) for each in (None, sitk_transform(field))]
    counts = np.isfinite(reads[0]) & np.isfinite(reads[1]) & np.isfinite(fixed.data[0].numpy())
    assert 50 < counts.sum() < 0.7 * counts.size
    for side, read in zip(("before", "after"), reads, strict=True):
        wanted = np.corrcoef(fixed.data[0].numpy()[counts], read[counts])[0, 1]
        assert getattr(found, side) == pytest.approx(wanted, abs=1e-3)


def test_similarity_before_is_with_the_initial_transform_and_in_the_mask():
    """Before is what the initial transform shows, and only voxels of the mask count, as SimpleITK resamples them."""
    fixed, moving = noise_volume(GRID), noise_volume(moving_grid(GRID), seed=1)
    mask = np.random.default_rng(1).random(GRID.shape) > 0.4
    start = sitk.TranslationTransform(3, (0.7, -0.4, 0.9))
    found = evaluate(
        TURN, fixed=fixed, moving=moving, initial=start, fixed_mask=(mask.astype(np.float32), GRID)
    )  # fmt: skip
    reads = [sitk_resample(moving, GRID, each, outside=np.nan) for each in (start, TURN)]
    counts = mask & np.isfinite(reads[0]) & np.isfinite(reads[1])
    for side, read in zip(("before", "after"), reads, strict=True):
        wanted = np.corrcoef(fixed.data[0].numpy()[counts], read[counts])[0, 1]
        assert getattr(found.similarity.correlation, side) == pytest.approx(wanted, abs=1e-3)
        assert getattr(found.overlap, side) == pytest.approx(np.isfinite(read[mask]).mean(), abs=1e-6)


def test_images_that_the_headers_keep_apart():
    """Where nothing is shared before, there is no similarity before; where nothing is after, none and a note."""
    fixed = noise_volume(GRID)
    far = make_grid(GRID.size_xyz, GRID.spacing_xyz, np.add(GRID.origin_xyz, 900.0), GRID.direction)
    moving = Volume(fixed.data, far)
    back = sitk.TranslationTransform(3, (900.0, 900.0, 900.0))
    found = evaluate(back, fixed=fixed, moving=moving)
    assert vars(found.overlap) == {"before": 0.0, "after": pytest.approx(1.0)}
    assert vars(found.similarity.correlation) == {
        "before": None,
        "after": pytest.approx(1.0, abs=1e-3),
        "better": "higher",
    }
    lost = evaluate(back.GetInverse(), fixed=fixed, moving=moving)
    assert lost.similarity is None
    assert lost.notes == ("The moving image shows nothing of what counts of the fixed image after the transform.",)


# the door


@dataclass(frozen=True)
class Result:
    """What a registration returns, as far as an evaluation sees it."""

    field: Field
    inverse: Field | None = None


def test_a_transform_may_come_in_any_form(tmp_path):
    """A Field, a SimpleITK transform, a file, a list and a result of a registration give the same numbers."""
    field = Field(smooth_field(GRID).vox.float(), GRID)
    write_field(field, tmp_path / "field.nii.gz")
    write_transform(field, tmp_path / "transform.h5")
    image = Volume(noise_volume(GRID).data.float(), GRID)
    write_image(image, tmp_path / "image.nrrd")
    options = {"fixed": image, "moving": tmp_path / "image.nrrd", "landmarks": (inner_points(GRID), inner_points(GRID))}
    wanted = evaluate(field, **options).to_dict()
    forms = [sitk_transform(field), tmp_path / "field.nii.gz", str(tmp_path / "transform.h5"), Result(field), [field]]
    for form in forms:
        found = evaluate(form, **options).to_dict()
        assert found["landmarks"]["after"] == pytest.approx(wanted["landmarks"]["after"], abs=1e-3)
        assert found["displacement"] == pytest.approx(wanted["displacement"], abs=1e-3)
        assert found["jacobian"]["sd_log"] == pytest.approx(wanted["jacobian"]["sd_log"], abs=1e-4)
        assert found["similarity"]["mind"] == pytest.approx(wanted["similarity"]["mind"], abs=1e-3)


def test_the_way_back():
    """With an inverse, given or of a result, there is its consistency, as ``inverse_consistency`` has it."""
    field = Field(smooth_field(GRID).vox.float(), GRID)
    back = invert(field, moving_grid(GRID)).field
    wanted = inverse_consistency(field, back)
    for result in (evaluate(Result(field, back)), evaluate(field, inverse=back)):
        assert set(vars(result.consistency)) == {"fixed", "moving"}
        for name, errors in wanted.items():
            assert vars(getattr(result.consistency, name)) == pytest.approx(
                {
                    "mean_mm": errors.mean_mm,
                    "p999_mm": errors.p999_mm,
                    "maximum_mm": errors.max_mm,
                    "count": errors.points,
                },
                abs=1e-4,
            )
    assert evaluate(field).consistency is None


def test_a_transform_is_put_on_the_grid_in_pieces(monkeypatch):
    """The field that is measured is that of the whole transform, whatever the pieces."""
    chain = Chain.of(smooth_field(moving_grid(GRID)), TURN)
    whole = prepare(chain, fixed=noise_volume(GRID)).field
    monkeypatch.setattr(subject_module, "PIECE", 200)
    torch.testing.assert_close(prepare(chain, fixed=noise_volume(GRID)).field.vox, whole.vox, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"landmarks": (np.zeros((3, 3)), np.zeros((4, 3)))}, GeometryError, "as many fixed as moving landmarks, got"),
        ({"landmarks": (np.zeros((3, 2)), np.zeros((3, 3)))}, GeometryError, r"fixed landmarks of shape \(N, 3\)"),
        ({"landmarks": (np.zeros((0, 3)), np.zeros((0, 3)))}, GeometryError, "at least one fixed landmark"),
        ({"landmarks": (np.zeros((1, 3)), np.full((1, 3), np.nan))}, GeometryError, "moving landmarks with finite"),
        ({"landmarks": (np.zeros((1, 3)),)}, ConfigError, "two sets of landmarks"),
        ({"fixed": noise_volume(oblique_grid(2))}, GeometryError, "fixed image in 3-D"),
        ({"moving": noise_volume(oblique_grid(2))}, GeometryError, "moving image in 3-D"),
        ({"initial": sitk.TranslationTransform(2)}, GeometryError, "initial transform in 3-D, got one in 2-D"),
        ({"fixed_mask": noise_volume(GRID)}, ConfigError, "fixed image together with its mask"),
        ({"fixed": noise_volume(GRID), "fixed_mask": noise_volume(oblique_grid(2))}, GeometryError, "mask in 3-D"),
        ({"fixed": noise_volume(GRID), "fixed_mask": (np.zeros(GRID.shape), GRID)}, ImageError, "mask with voxels"),
        ({"inverse": TURN}, ConfigError, "the moving image, on whose grid"),
        ({"fixed": "nothing.nrrd"}, ImageError, "nothing.nrrd: there is no such file"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_in_one_sentence(options, error, said):
    """Wrong numbers, dimensions, empty masks and missing files are refused, with what came and what to do."""
    with pytest.raises(error, match=said) as caught:
        evaluate(TURN, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [{"tolerance_mm": -1.0}, {"tolerance_mm": float("nan")}, {"bins": 1}])
def test_settings_are_checked(settings):
    """A tolerance below 0 and a histogram of one class are refused."""
    with pytest.raises(ConfigError):
        EvaluationConfig(**settings)


def test_no_transform_is_refused():
    """Something that is no transform, or none at all, is refused."""
    for nothing in (7, noise_volume(GRID)):
        with pytest.raises(GeometryError, match="SimpleITK transforms or Fields"):
            evaluate(nothing)
    with pytest.raises(ConfigError, match="at least one transform"):
        evaluate([])


def test_files_of_an_evaluation(tmp_path):
    """evaluation.json is valid JSON of the measures; evaluation.csv has a row a measure, a point, a label's measure."""
    fixed, moving = noise_volume(GRID), noise_volume(moving_grid(GRID), seed=1)
    labels = Volume((fixed.data > 0).float() + 1, GRID), Volume((moving.data > 0).float() + 2, moving.grid)
    field = smooth_field(GRID)
    result = evaluate(
        field, fixed=fixed, moving=moving, labels=labels, label_names={2: 'a, "b"'}, inverse=invert(field).field,
        landmarks=(inner_points(GRID, 3), inner_points(GRID, 3)),
    )  # fmt: skip
    files = write_evaluation(result, tmp_path)
    assert [path.name for path in files] == ["evaluation.csv", "evaluation.json"]
    written = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(result.to_dict()))
    assert record_of(Evaluation, written, tmp_path) == result
    rows = list(csv.DictReader(io.StringIO((tmp_path / "evaluation.csv").read_text(encoding="utf-8"))))
    assert list(rows[0]) == ["group", "name", "measure", "unit", "before", "after"]
    found = {(row["group"], row["name"], row["measure"]): row for row in rows}
    assert len(found) == len(rows)
    assert float(found["landmark", "2", "error"]["after"]) == pytest.approx(result.landmarks.points[1].after)
    assert float(found["landmarks", "", "p95"]["before"]) == pytest.approx(result.landmarks.before.p95)
    assert float(found["label", 'a, "b"', "hd95"]["before"]) == pytest.approx(result.labels.each[1].before.hd95_mm)
    assert found["label", "1", "dice"]["after"] == ""
    assert found["jacobian", "image", "sd_log"]["before"] == ""
    assert float(found["jacobian", "image", "p5"]["after"]) == pytest.approx(result.jacobian.percentiles["5"])
    assert float(found["similarity", "", "mind"]["after"]) == pytest.approx(result.similarity.mind.after)
    assert float(found["consistency", "moving", "p999"]["after"]) == pytest.approx(result.consistency.moving.p999_mm)
    assert {row["unit"] for row in rows} == {"", "mm", "nat"}


def test_lengths_of_long_fields_are_exact():
    """Far displacements keep their length: the statistics of a shift by 300 mm are 300 mm."""
    field = Field.from_mm(torch.zeros(3, *GRID.shape) + torch.tensor([180.0, -240.0, 0.0]).reshape(3, 1, 1, 1), GRID)
    assert vars(displacement_statistics(field)) == pytest.approx(
        dict.fromkeys(("mean_mm", "median_mm", "p95_mm", "maximum_mm"), 300.0), abs=1e-3
    )
