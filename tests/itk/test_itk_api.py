"""Promises of the dense ITK filters: scripts run, fields are those of ``register``, options mean what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import grid_at, points_of, rotation
from semreg import Field, Volume, register
from semreg.config import (
    AlignConfig,
    CoarseConfig,
    FeatureConfig,
    IntensityConfig,
    ModelConfig,
    RefineConfig,
    RegistrationConfig,
)
from semreg.core.fields import jacobian_determinant, warp
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.io.bridge import field_of_itk, itk_field, itk_image, to_volume
from semreg.phantom import make_pair
from small_networks import Small, save


@pytest.fixture(scope="module")
def itk():
    """The package itk with the names that the import puts there."""
    import itk
    import semreg.itk.api  # noqa: F401

    itk.DisplacementFieldTransform[itk.D, 2].New()  # loading this part of ITK takes seconds
    return itk


def scene(points, seed=0):
    """Smooth structure of 8 to 40 mm."""
    generator = np.random.default_rng(seed)
    total = torch.zeros(points.shape[1:], dtype=torch.float64)
    for wavelength in np.repeat(np.geomspace(8.0, 40.0, 5), 3):
        way = generator.normal(size=points.shape[0])
        rate = torch.as_tensor(2 * np.pi / wavelength * way / np.linalg.norm(way))
        total += torch.sin(torch.einsum("d,d...->...", rate, points) + 6 * generator.uniform())
    return 100 * total


def shift(points):
    """A displacement of about 4 mm that bends a little."""
    n = points.shape[0]
    base = torch.tensor([3.0, -2.0, 1.5], dtype=torch.float64)[:n].reshape(-1, *[1] * n)
    return base + 0.8 * torch.sin(0.12 * points.flip(0))


def volumes(dimension):
    """A fixed and a moving image on two oblique anisotropic grids: moving at p + shift(p) shows fixed at p."""
    size, spacing = ((26, 22, 12), (1.0, 1.3, 2.2)) if dimension == 3 else ((46, 38), (1.0, 1.3))
    middle = (3.0, -7.0, 11.0)[:dimension]
    fixed = grid_at(middle, size, spacing, rotation(dimension))
    other = tuple(n + e for n, e in zip(size, (7, 9, 6), strict=False))
    moving = grid_at(middle, other, spacing[::-1], rotation(dimension, -12.0))
    near, far = points_of(fixed), points_of(moving)
    return Volume(scene(near + shift(near))[None].float(), fixed), Volume(scene(far)[None].float(), moving)


def images(dimension):
    """The two as images of itk."""
    return [itk_image(volume) for volume in volumes(dimension)]


def field_error(field):
    """Mean distance in mm from the true displacement, inside; and that of no displacement."""
    points = points_of(field.grid)
    inner = tuple(slice(n // 5, -(n // 5)) for n in field.grid.shape)
    truth = shift(points)
    return float((field.mm() - truth).norm(dim=0)[inner].mean()), float(truth.norm(dim=0)[inner].mean())


def classes(itk, dimension):
    """The two filters for images of this dimension."""
    image_type = itk.Image[itk.F, dimension]
    return itk.ImpactCoarseRegistration[image_type, image_type], itk.ImpactFineRegistration[image_type, image_type]


@pytest.mark.parametrize("dimension", [2, 3])
def test_coarse_is_the_search_of_register(itk, dimension):
    """The coarse field is bit for bit that of ``register`` with one dense window in the same units."""
    coarse, _ = classes(itk, dimension)
    found = coarse.New(*images(dimension), grid_spacing=3, displacement_half_width=2, seed=5)
    found.AddModelConfiguration(itk.ImpactModelConfiguration("mind"))
    found.Update()
    config = RegistrationConfig(
        seed=5,
        align=AlignConfig(transform="none"),
        intensities=IntensityConfig(padding=False, winsorise=False, body=False),
        models=(ModelConfig(model="mind", distance=("l2",)),),
        features=FeatureConfig(pooling=1),
        coarse=CoarseConfig(levels=1, spacing_mm=3.0, half_width=2, balance="first"),
        refine=RefineConfig(enabled=False),
    )
    expected = register(*volumes(dimension), config=config, device="cpu")
    assert torch.equal(found.result().field.vox, expected.field.vox)
    mm = itk.array_from_image(found.GetDisplacementField())
    np.testing.assert_array_equal(mm, itk.array_from_image(itk_field(expected.field)))
    assert found.settings() == RegistrationConfig(**{**vars(config), "models": found.settings().models})
    error, before = field_error(expected.field)
    assert error < 0.6 * before


@pytest.mark.parametrize("dimension", [2, 3])
def test_fine_is_the_refinement_of_register(itk, dimension):
    """The refined field, its transform and the warped image are those of ``register`` with Adam in the same units."""
    _, fine = classes(itk, dimension)
    start = Field.from_mm(0.5 * shift(points_of(volumes(dimension)[0].grid)).float(), volumes(dimension)[0].grid)
    found = fine.New(
        *images(dimension), number_of_iterations=8, learning_rate=0.2, regularization_weight=0.6, grid_shrink_factor=3,
        control_grid_smoothing_iterations=1, distance=["lncc"], lncc_kernel=7, beta1=0.8,
        initial_displacement_field=itk_field(start),
    )  # fmt: skip
    found.AddModelConfiguration(itk.ImpactModelConfiguration("mind"))
    found.Update()
    config = RegistrationConfig(
        align=AlignConfig(transform="none"),
        models=(ModelConfig(model="mind", distance=("lncc",)),),
        features=FeatureConfig(pooling=1),
        coarse=CoarseConfig(enabled=False),
        refine=RefineConfig(
            optimizer="adam", levels=1, iterations=8, step_mm=0.2, diffusion=0.6 / dimension, control_mm=3.0,
            smoothing=1, window=7, beta1=0.8, balance="first", symmetric=False, continues=True, folding=0.0,
        ),
    )  # fmt: skip
    given = field_of_itk(itk_field(start))
    expected = register(*volumes(dimension), config=config, initial=given, device="cpu")
    assert torch.equal(found.result().field.vox, expected.field.vox)
    warped = to_volume(found.GetWarpedMovingImage())
    assert torch.equal(warped.data, expected.warped.data)
    assert type(found.GetDisplacementFieldTransform()) is itk.DisplacementFieldTransform[itk.D, dimension]
    error, before = field_error(expected.field)
    assert error < 0.3 * before


def test_the_dense_script_runs(itk, tmp_path):
    """A script for itk-impact runs as it is, without folds; landmarks come nearer, ITK resamples to the same image."""
    pair = make_pair(size=44)
    still = warp(pair.moving, pair.true_field(), outside=0.0)  # the fixed image in the contrast of the moving one
    for name, volume in (("fixed", still), ("moving", pair.moving)):
        itk.imwrite(itk_image(volume), str(tmp_path / f"{name}.mha"))
    fixed = itk.imread(str(tmp_path / "fixed.mha"), itk.F)
    moving = itk.imread(str(tmp_path / "moving.mha"), itk.F)
    ImageType = itk.Image[itk.F, 3]  # noqa: N806

    coarse = itk.ImpactCoarseRegistration[ImageType, ImageType].New()
    coarse.SetFixedImage(fixed)
    coarse.SetMovingImage(moving)
    coarse.SetGridSpacing(4)
    coarse.SetDisplacementHalfWidth(5)
    coarse.SetDevice("cpu")
    coarse.Update()
    cfg = itk.ImpactModelConfiguration("mind", 3, 1, [0, 0, 0], [0.0, 0.0, 0.0], [0, 0, 0], [True], False)
    fine = itk.ImpactFineRegistration[ImageType, ImageType].New()
    fine.SetFixedImage(fixed)
    fine.SetMovingImage(moving)
    fine.SetInitialDisplacementField(coarse.GetDisplacementField())
    fine.AddModelConfiguration(cfg)
    fine.SetDistance(["L2"])
    fine.SetNumberOfIterations(15)
    fine.SetLearningRate(0.1)
    fine.SetRegularizationWeight(1.0)
    fine.Update()
    field = fine.GetDisplacementField()

    assert type(field) is itk.Image[itk.Vector[itk.F, 3], 3]
    assert type(fine.GetWarpedMovingImage()) is ImageType
    displacement = field_of_itk(field)
    assert float(jacobian_determinant(displacement).min()) > 0
    moved = displacement.point_map()(pair.fixed_points.T).T
    before = (pair.fixed_points - pair.moving_points).norm(dim=1)
    after = (moved - pair.moving_points).norm(dim=1)
    assert float(after.mean()) < 0.6 * float(before.mean())
    resampled = itk.resample_image_filter(
        moving, transform=fine.GetDisplacementFieldTransform(), use_reference_image=True, reference_image=fixed
    )
    own, theirs = itk.array_from_image(fine.GetWarpedMovingImage()), itk.array_from_image(resampled)
    difference = np.abs(own - theirs)  # ITK's edge of what the moving image shows differs by rounding
    assert np.quantile(difference, 0.99) < 1e-3 * own.max()


def test_landmarks_across_contrasts(itk):
    """CT-like onto MR-like: with MIND in both stages, as scripts of the peer use them, landmarks come much nearer."""
    pair = make_pair(size=40)
    fixed, moving = itk_image(pair.fixed), itk_image(pair.moving)
    coarse, fine = classes(itk, 3)
    cfg = itk.ImpactModelConfiguration("mind")
    first = coarse.New(fixed, moving, models_configuration=[cfg], displacement_half_width=5)
    second = fine.New(fixed, moving, models_configuration=[cfg], number_of_iterations=25, learning_rate=0.3)
    first.Update()
    second.SetInitialDisplacementField(first.GetDisplacementFieldTransform())
    second.SetRegularizationWeight(1.0)
    second.Update()
    moved = second.result().field.point_map()(pair.fixed_points.T).T
    before = (pair.fixed_points - pair.moving_points).norm(dim=1)
    after = (moved - pair.moving_points).norm(dim=1)
    assert float(after.mean()) < 0.75 * float(before.mean())
    assert second.result().record.jacobian.folded_share == 0


def test_functions_in_snake_case(itk):
    """The functions return what the filters do."""
    fixed, moving = images(2)
    coarse, _ = classes(itk, 2)
    made = coarse.New(fixed, moving, grid_spacing=3)
    made.Update()
    field = itk.impact_coarse_registration(fixed, moving, grid_spacing=3)
    np.testing.assert_array_equal(itk.array_from_image(field), itk.array_from_image(made.GetOutput()))
    refined = itk.impact_fine_registration(fixed, moving, number_of_iterations=2, initial_displacement_field=field)
    assert type(refined) is itk.Image[itk.Vector[itk.F, 2], 2]


def test_initial_fields_of_any_geometry(itk):
    """An initial field on another grid, or as a transform, means the same displacement in mm; NaN in it is refused."""
    fixed, moving = images(2)
    _, fine = classes(itk, 2)
    grid = grid_at((3.0, -7.0), (31, 33), (2.1, 1.9), rotation(2, 33.0))  # covers the fixed image
    given = Field.from_mm(torch.tensor([3.0, -2.0]).reshape(2, 1, 1).expand(2, *grid.shape).contiguous(), grid)
    there = fine.New(fixed, moving, number_of_iterations=3, initial_displacement_field=itk_field(given))
    there.Update()
    here = Field.from_mm(
        torch.tensor([3.0, -2.0]).reshape(2, 1, 1).expand(2, 38, 46).contiguous(), to_volume(fixed).grid
    )
    own = fine.New(fixed, moving, number_of_iterations=3)
    own.SetInitialDisplacementField(itk_field(here))
    own.Update()
    np.testing.assert_allclose(there.result().field.vox, own.result().field.vox, atol=2e-3)  # quantised to 2^-12 voxel
    broken = itk_field(here)
    itk.array_view_from_image(broken)[5, 6, 0] = np.nan
    own.SetInitialDisplacementField(broken)
    with pytest.raises(GeometryError, match="expected finite displacements in the initial field"):
        own.Update()


def test_masks(itk):
    """A mask on a foreign grid counts where it lies; an empty one is an error and not a field of zeros."""
    fixed, moving = images(2)
    coarse, _ = classes(itk, 2)
    grid = grid_at((3.0, -7.0), (40, 44), (1.7, 1.5), rotation(2, 70.0))
    ones = Volume(torch.ones(1, *grid.shape), grid)  # covers all of the fixed image
    whole, masked = coarse.New(fixed, moving), coarse.New(fixed, moving, fixed_mask=itk_image(ones))
    whole.Update()
    masked.Update()
    np.testing.assert_allclose(masked.result().field.vox, whole.result().field.vox, atol=0.05)
    masked.SetFixedMask(itk_image(Volume(torch.zeros(1, *grid.shape), grid)))
    with pytest.raises(ImageError, match="expected a fixed mask with voxels above 0"):
        masked.Update()


def test_equal_images_stay_where_they_are(itk):
    """Losses divided by a first value of 0 do no harm: equal images get no displacement, and the trace is finite."""
    fixed, _ = images(2)
    coarse, fine = classes(itk, 2)
    for made in (coarse.New(fixed, fixed), fine.New(fixed, fixed, number_of_iterations=20, learning_rate=1.0)):
        made.Update()
        assert float(made.result().field.vox.abs().max()) < 1e-6
    assert np.isfinite(made.GetMetricValuesPerIteration()).all()


def test_the_trace(itk):
    """The trace starts at the sum of the weights where losses are normalised, else at the loss itself, and falls."""
    fixed, moving = images(2)
    _, fine = classes(itk, 2)
    models = [itk.ImpactModelConfiguration("mind"), itk.ImpactModelConfiguration("intensity")]
    made = fine.New(
        fixed, moving, models_configuration=models, layers_weight=[1.0, 2.5], distance=["L2", "L1"],
        number_of_iterations=12, learning_rate=0.3,
    )  # fmt: skip
    made.Update()
    trace = made.GetMetricValuesPerIteration()
    assert len(trace) == 12
    assert trace[0] == pytest.approx(3.5, rel=1e-5)
    assert trace[-1] < 0.9 * trace[0]
    single = [fine.New(fixed, moving, models_configuration=[m], distance=[d], number_of_iterations=1)
              for m, d in zip(models, ("L2", "L1"), strict=True)]  # fmt: skip
    raw = []
    for each in single:
        each.NormalizeLossesOff()
        each.Update()
        raw.append(each.GetMetricValuesPerIteration()[0])
    made.NormalizeLossesOff()
    made.Update()
    assert made.GetMetricValuesPerIteration()[0] == pytest.approx(raw[0] + 2.5 * raw[1], rel=1e-4)
    near, far = (volume.data for volume in volumes(2))
    assert 0 < raw[1] < 2 * float(((near - near.mean()) / near.std()).abs().mean() + far.std() / far.std())


def test_regularisation_counts_as_said(itk):
    """The weight multiplies the mean squared gradient in mm per mm: the trace holds exactly that much more."""
    fixed, moving = images(2)
    _, fine = classes(itk, 2)
    grid = to_volume(fixed).grid
    settings = {"learning_rate": 0.5, "normalize_losses": False, "grid_shrink_factor": 7}
    settings["models_configuration"] = [itk.ImpactModelConfiguration("intensity")]
    made = fine.New(fixed, moving, number_of_iterations=2, **settings)
    values = []
    for weight in (0.0, 1e-9, 1e-3):
        made.SetRegularizationWeight(weight)
        made.Update()
        values.append(made.GetMetricValuesPerIteration()[1])
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    field = fine.New(fixed, moving, number_of_iterations=1, regularization_weight=1e-3, **settings)
    field.Update()
    gradient = np.stack(np.gradient(field.result().field.mm().numpy(), *grid.spacing, axis=(1, 2)))
    diffusion = (gradient**2).mean((1, 2, 3)).sum()  # mean over samples and components, sum over directions
    assert values[2] - values[1] == pytest.approx(1e-3 * diffusion, rel=0.1)  # finite differences


def test_balanced_layers(itk):
    """With BalanceLosses the spread of each layer that counts is told, before its weight; without none is."""
    fixed, moving = images(2)
    coarse, _ = classes(itk, 2)
    models = [itk.ImpactModelConfiguration("mind"), itk.ImpactModelConfiguration("intensity")]
    made = coarse.New(fixed, moving, models_configuration=models, grid_spacing=3)
    made.Update()
    assert made.GetLayerSpreads() == ()
    made.BalanceLossesOn()
    made.Update()
    spreads = made.GetLayerSpreads()
    assert len(spreads) == 2
    assert min(spreads) > 0
    made.SetLayersWeight([1.0, 0.0])
    made.Update()
    assert made.GetLayerSpreads() == pytest.approx(spreads[:1])


def test_drawn_voxels(itk):
    """With a share of the voxels in each iteration the result is the same twice, near that of all, and seeded."""
    fixed, moving = images(2)
    _, fine = classes(itk, 2)
    settings = {"number_of_iterations": 30, "learning_rate": 0.2, "regularization_weight": 0.3}

    def field(**more):
        made = fine.New(fixed, moving, **settings, **more)
        made.Update()
        return made.result().field

    some, again, other = (field(sampling_percentage=0.3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(some.vox, again.vox)
    assert not torch.equal(some.vox, other.vox)
    error, before = field_error(some)
    assert error < 0.6 * before
    with pytest.raises(ConfigError, match=r"expected SamplingPercentage 1 in the mode Jacobian and for LNCC"):
        field(sampling_percentage=0.3, distance=["LNCC"])


def test_renewed_features(itk):
    """Extracting the moving features anew from the warped image changes the result and not its quality."""
    fixed, moving = images(2)
    _, fine = classes(itk, 2)
    made = fine.New(fixed, moving, number_of_iterations=20, learning_rate=0.2, regularization_weight=0.3)
    made.AddModelConfiguration(itk.ImpactModelConfiguration("mind"))
    fields = []
    for interval in (-1, 0, 5):
        made.SetFeatureMapUpdateInterval(interval)
        made.Update()
        fields.append(made.result().field)
    assert torch.equal(fields[0].vox, fields[1].vox)
    assert not torch.equal(fields[0].vox, fields[2].vox)
    error, before = field_error(fields[2])
    assert error < 0.6 * before


def test_modes_and_channels_of_a_network(itk, tmp_path):
    """Through a network file the mode Jacobian, layers, weights and drawn channels are those of ``register``."""
    path = save(Small(2), tmp_path / "small.pt", 2)
    fixed, moving = images(2)
    _, fine = classes(itk, 2)
    made = fine.New(fixed, moving, number_of_iterations=3, learning_rate=0.2, grid_shrink_factor=4, mode="jacobian")
    made.AddModelConfiguration(
        itk.ImpactModelConfiguration(str(path), 2, 1, [0, 0], [1.0, 1.0], [0, 0], [True, False, True], False)
    )
    made.SetDistance(["L1", "L2"])
    made.SetLayersWeight([1.0, 2.0])
    entry = ModelConfig(
        model=str(path), spec=("dimension=2", "channels=1", "spacing_mm=1.0"), layers=(0, 2), distance=("l1", "l2"),
        weight=(1.0, 2.0),
    )  # fmt: skip
    refine = RefineConfig(
        optimizer="adam", levels=1, iterations=3, step_mm=0.2, diffusion=1.25 / 6, control_mm=4.0, balance="first",
        symmetric=False, mode="jacobian", continues=True, folding=0.0,
    )  # fmt: skip
    config = RegistrationConfig(
        align=AlignConfig(transform="none"),
        models=(entry,),
        features=FeatureConfig(pooling=1),
        coarse=CoarseConfig(enabled=False),
        refine=refine,
    )
    made.Update()
    expected = register(*volumes(2), config=config, device="cpu").field
    assert float(expected.vox.abs().max()) > 0.1
    assert torch.equal(made.result().field.vox, expected.vox)
    made.SetMode("Static")
    made.SetSubsetFeatures([2, 2])
    made.Update()
    drawn = replace(config, models=(replace(entry, subset=2, redraw=True),), refine=replace(refine, mode="static"))
    assert torch.equal(made.result().field.vox, register(*volumes(2), config=drawn, device="cpu").field.vox)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distance": ["L2"]}, "expected Distance with one value a kept layer, 2 over all models, got 1"),
        ({"layers_weight": [1.0] * 3}, "expected LayersWeight with one value a kept layer, 2 .*, got 3"),
        ({"subset_features": [1]}, "expected SubsetFeatures with one value a kept layer, 2 .*, got 1"),
        ({"pca": [2, 0, 0]}, "expected PCA with one value a model, 2 over all models, got 3"),
        ({"mode": "Jacobian"}, "expected networks alone in the mode Jacobian"),
    ],
)
def test_lists_of_the_wrong_length(itk, settings, message):
    """A list that does not fit the kept layers or models is an error that says both numbers."""
    _, fine = classes(itk, 2)
    models = [itk.ImpactModelConfiguration("mind"), itk.ImpactModelConfiguration("intensity")]
    made = fine.New(*images(2), models_configuration=models, **settings)
    with pytest.raises(ConfigError, match=message):
        made.Update()
