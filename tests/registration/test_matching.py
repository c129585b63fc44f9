"""Promises of feature models in a registration: layers of any grid, several models, reductions, both special modes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_registration import DIRECT, FIXED, error_mm, fixed_image, moving_image
from torch import nn

from conftest import noise
from semreg.config import CoarseConfig, FineConfig, ModelConfig, RefineConfig, RegistrationConfig
from semreg.core.fields import Field, Layer, Volume
from semreg.core.geometry import Grid, canonical_order
from semreg.core.kernels import spline_product
from semreg.core.sampling import base_index, transform_index
from semreg.errors import ConfigError, ModelContractError
from semreg.features.contract import ModelSpec, Normalisation
from semreg.features.extract import Extractor
from semreg.features.networks import as_network
from semreg.preprocess.preparation import plan_frame
from semreg.registration.dense.data_term import ImageMatch, TermMatch, distance_at
from semreg.registration.dense.objective import Problem
from semreg.registration.dense.refine import refine
from semreg.registration.dense.terms import ALIKE, Term, terms_of
from semreg.registration.matching import Given, Images, Pairing, resolve_models
from semreg.registration.parametric.rotations import rotation
from semreg.registration.pipeline import register
from semreg.transforms.bspline import SplineLattice

CPU = torch.device("cpu")


def blocks(seed=0, stride=1, channels=6):
    """Two convolutions with random weights: features of edges and blobs."""
    torch.manual_seed(seed)
    first = nn.Conv3d(1, channels, 3, padding=1, stride=stride)
    return nn.Sequential(first, nn.Tanh(), nn.Conv3d(channels, channels, 3, padding=1))


class TwoScales(nn.Module):
    """Returns a layer at full resolution and one of stride 2."""

    def __init__(self):
        """Fixed random weights."""
        super().__init__()
        self.fine, self.coarse = blocks(0), blocks(1, stride=2, channels=8)

    def forward(self, x):
        """Both layers."""
        return [self.fine(x), self.coarse(x)]


def error_with(model=None, **settings):
    """Mean error in mm after a registration with ``model``; 5.1 mm before."""
    found = register(fixed_image(), moving_image(), model=model, config=replace(DIRECT, **settings), device="cpu")
    return float(error_mm(found.field)[0].mean()), found.record


@pytest.mark.parametrize(
    ("model", "entry"),
    [
        (blocks(), ModelConfig()),
        (TwoScales(), ModelConfig()),
        (TwoScales(), ModelConfig(distance=("ncc", "cosine"), weight=(1.0, 0.5))),
        (blocks(), ModelConfig(pca=3, normalise="standard")),
        (blocks(), ModelConfig(subset=4, normalise="unit")),
        (blocks(), ModelConfig(subset=4, redraw=True)),
        (blocks(), ModelConfig(channels=(5, 0, 3, 2), normalise="standard")),
        (lambda x: [x, x.square()], ModelConfig(layers=None)),
    ],
    ids=["module", "two scales", "a distance and a weight a layer", "pca", "subset", "redrawn", "channels", "callable"],
)
def test_networks_find_the_deformation(model, entry):
    """A module or callable of one or two layers, whatever is done to its channels, brings 5.1 mm below 0.9 mm."""
    error, record = error_with(model, models=(entry,), refine=RefineConfig(symmetric=False))
    assert error < 0.9
    assert record.jacobian.folded_share == 0


def test_channels_that_are_compared():
    """``channels`` keeps these of each layer, in their order, before PCA; one that a layer has not is refused."""
    images, config = images_of(fixed_image(), moving_image(FIXED), RegistrationConfig()), ModelConfig(channels=(4, 1))
    (whole,) = images.terms(resolve_with(RegistrationConfig(), blocks(), None))
    (kept,) = images.terms(resolve_with(RegistrationConfig(models=(config,)), blocks(), None))
    for image in ("fixed", "moving"):
        expected = getattr(whole, image).features.data[[4, 1]]
        torch.testing.assert_close(getattr(kept, image).features.data, expected)
    (reduced,) = images.terms(resolve_with(RegistrationConfig(models=(replace(config, pca=1),)), blocks(), None))
    assert len(reduced.fixed.features.data) == 1
    with pytest.raises(ConfigError, match=r"expected models.channels below \d+, .*, got \[4, 99\]"):
        images.terms(resolve_with(RegistrationConfig(models=(replace(config, channels=(4, 99)),)), blocks(), None))
    with pytest.raises(ConfigError, match=r"models\.channels different"):
        ModelConfig(channels=(1, 1))


def test_several_models_add_up():
    """MIND and a network together: both are in the record, and the result is near that of each."""
    error, record = error_with(["mind", blocks()], models=(ModelConfig(), ModelConfig(weight=(0.5,))))
    assert error < 0.6
    assert record.models[0].name.startswith("mind")
    assert len(record.models) == 2


@pytest.mark.parametrize("mode", [{"mode": "jacobian"}, {"update_every": 3}])
def test_features_of_the_warped_image(mode):
    """The network in the loop of the refinement, differentiated or run again, brings the images nearer."""
    refine = RefineConfig(iterations=8, **mode)
    search_alone, _ = error_with(blocks(), refine=RefineConfig(enabled=False))
    error, _ = error_with(blocks(), refine=refine)
    assert error < 0.7 * search_alone


def test_another_model_for_the_moving_image():
    """With the moving contrast inverted, a model for it that inverts it back gives the features of equal contrasts."""
    fixed, moving = fixed_image(), moving_image(FIXED)
    inverted = Volume(-moving.data, moving.grid)
    net = blocks()
    config = RegistrationConfig()
    pairings = resolve_with(config, net, lambda x: net(-x))
    images = images_of(fixed, inverted, config)
    terms = images.terms(pairings)
    same = images_of(fixed, moving, config).terms(resolve_with(config, net, None))
    torch.testing.assert_close(terms[0].moving.features.data, same[0].moving.features.data, rtol=1e-4, atol=1e-5)


def resolve_with(config, fixed, moving):
    """Pairings of modules, without files."""
    near = Extractor(as_network(fixed, ModelSpec(name="fixed")), device="cpu")
    far = near if moving is None else Extractor(as_network(moving, ModelSpec(name="moving")), device="cpu")
    return [Pairing(config.models[0], near, far)]


def images_of(fixed, moving, config):
    """Both images in a working frame of 2.5 mm."""
    features = replace(config.features, spacing_mm=2.5, pooling=1)
    config = replace(config, features=features)
    frame = plan_frame(fixed.grid, moving.grid, 2.5, 6.0, initial=False)
    seen = [(image.reordered(canonical_order(image.grid)), None) for image in (fixed, moving)]
    return Images(*seen, frame, None, config, CPU)


@pytest.mark.parametrize("distance", ["l2", "ncc", "cosine"])
def test_gradient_through_the_network(distance):
    """In the mode jacobian the gradient is that of finite differences of its own value, to 2 %."""
    config = RegistrationConfig(refine=RefineConfig(mode="jacobian", distance=distance))
    images = images_of(fixed_image(), moving_image(), config)
    terms = images.terms(resolve_with(config, TwoScales(), None))
    lattice = SplineLattice(images.grid, (4.0, 4.0, 4.0))
    match = ImageMatch(terms, lattice, images)
    start = 0.4 * noise(3, *lattice.shape, dtype=torch.float32)
    index = match.index(start)
    _, gradient = match.data(index)
    ahead = spline_product(gradient.reshape(3, *images.grid.shape), [b.T for b in match.index.bases])
    ahead = ahead / ahead.abs().max()
    along = float((gradient * (match.index(start + ahead) - index)).sum())
    step = 2e-3
    values = [match.data(match.index(start + s * ahead))[0] for s in (step, -step)]
    assert along == pytest.approx((values[0] - values[1]) / (2 * step), rel=0.02)
    assert abs(along) > 1e-4


@pytest.mark.parametrize("distance", ["l1", "l2", "ncc"])
def test_gradient_where_the_samples_coincide(distance):
    """At no displacement between equal grids, on voxel centres, the gradient is that of finite differences, to 1 %."""
    fixed, moving = (Layer(Volume(noise(3, *FIXED.shape, seed=s, dtype=torch.float32), FIXED)) for s in (0, 1))
    lattice = SplineLattice(FIXED, (4.0, 4.0, 4.0))
    match = TermMatch(Term(fixed, moving, distance), lattice)
    index = match.index(torch.zeros(3, *lattice.shape))
    torch.testing.assert_close(index, index.round(), rtol=0, atol=1e-5)  # but for rounding
    _, gradient = match.data(index)
    ahead = gradient / gradient.abs().max()
    step = 2e-3
    values = [match.data(index + s * ahead)[0] for s in (step, -step)]
    assert float((gradient * ahead).sum()) == pytest.approx((values[0] - values[1]) / (2 * step), rel=0.01)


def test_renewed_features_of_no_displacement_are_those_of_the_image():
    """Extracting again from the image warped by nothing gives the features that were there, where both are inside."""
    same = fixed_image()
    images = images_of(same, same, RegistrationConfig())
    terms = images.terms(resolve_with(RegistrationConfig(), blocks(), None))
    again = images.renewed(Field.zeros(images.grid), 2.5)
    assert distance_at(terms, Field.zeros(images.grid)) == pytest.approx(0, abs=1e-6)
    inner = (slice(None), *[slice(4, -4)] * 3)
    torch.testing.assert_close(
        again[0].moving.features.data[inner], terms[0].fixed.features.data[inner], rtol=1e-3, atol=1e-4
    )


def test_renewing_changes_nothing_where_features_only_move():
    """Intensities move with the image: through a displacement near the one they were renewed at they match as before.

    Noise is the hard case: read between voxels a second time it becomes less, and matches better for that alone.
    """
    grid = Grid.of_shape((14, 15, 16), (2.0, 2.0, 2.0))
    fixed, moving = (Volume(noise(1, *grid.shape, seed=s, dtype=torch.float32), grid) for s in (0, 1))
    config = replace(RegistrationConfig(), refine=RefineConfig(update_every=1))
    images = images_of(fixed, moving, config)
    terms = images.terms(resolve_models(config, 3, CPU, Given(("intensity",))))
    lattice = SplineLattice(grid, (4.0, 4.0, 4.0))
    problem = Problem(terms, lattice, config.refine, images)
    anchor = torch.full((3, *lattice.shape), 0.3)
    near = [anchor + step * torch.ones_like(anchor) for step in (0.0, 0.1, -0.4, 0.7)]
    before = [problem.evaluate(coefficients, 1.0) for coefficients in near]
    problem.renew(anchor)
    for one, other in zip(before, [problem.evaluate(coefficients, 1.0) for coefficients in near], strict=True):
        assert other.distance == pytest.approx(one.distance, rel=0.01)
        torch.testing.assert_close(other.gradient, one.gradient, rtol=0, atol=0.05 * float(one.gradient.abs().max()))


def texture(points):
    """A texture of waves of 9 to 16 mm at points (x, y, z in mm, last)."""
    rates = torch.tensor([[0.5, 0.2, -0.3], [-0.2, 0.45, 0.35], [0.25, -0.3, 0.5], [0.1, 0.4, -0.4]])
    return torch.sin(points @ rates.T + torch.arange(4.0)).sum(-1)


def test_renewing_serves_what_turns():
    """Where the moving image is turned by 25° features that are renewed leave less than half of the error.

    MIND does not turn with the image, so that of the upright image pulls to wrong places.
    """
    grid = Grid((28, 28, 28), (2.0,) * 3, (-27.0,) * 3, tuple(map(tuple, np.eye(3))))
    index = base_index(grid.shape, like=torch.empty(0)).flatten(1)
    points = transform_index(grid.index_to_point(), index).T
    turn = torch.tensor(rotation((8.0, 10.0, 21.0)), dtype=torch.float32)
    there = points @ turn.T
    fixed, moving = (Volume(texture(p).reshape(1, *grid.shape), grid) for p in (there, points))
    start = Field.from_mm((there + torch.tensor([0.8, -0.6, 0.7]) - points).T.reshape(3, *grid.shape), grid)
    inner = (points.abs() < 14).all(1)
    errors = []
    for interval in (0, 3):
        settings = RefineConfig(update_every=interval, levels=1, diffusion=0.02, relative_to="unrelated")
        images = images_of(fixed, moving, RegistrationConfig(refine=settings))
        terms = images.terms(resolve_models(RegistrationConfig(), 3, CPU))
        found = refine(terms, grid, start, settings, renewal=images)
        moved = found.spline.field(grid).mm().flatten(1).T + points
        errors.append(float((moved - there)[inner].norm(dim=1).mean()))
    assert errors[1] < 0.5 * errors[0]


def test_layers_count_by_their_weights_alone():
    """A layer a thousand times as large counts as before; the shares sum to 1; scales are powers of two."""
    grid = FIXED
    fixed, moving = (Layer(Volume(noise(5, *grid.shape, seed=s, dtype=torch.float32), grid)) for s in (0, 1))
    large = [Layer(Volume(1024 * layer.features.data, grid)) for layer in (fixed, moving)]
    terms = terms_of([Term(fixed, moving, share=3.0), Term(*large, share=1.0)])
    assert [term.share for term in terms] == [0.75, 0.25]
    lattice = SplineLattice(grid, (6.0, 6.0, 6.0))
    values = []
    for term in terms:
        match = TermMatch(term, lattice)
        values.append(match.data(match.index(torch.zeros(3, *lattice.shape)))[0])
    assert values[0] == pytest.approx(3 * values[1], rel=1e-5)
    assert 0.5 < sum(values) / ALIKE < 2


@pytest.mark.parametrize(
    ("entry", "refine", "model", "sentence"),
    [
        (ModelConfig(weight=(1.0, 2.0, 3.0)), {}, TwoScales(), "one weight for all or 2 for the 2 layers"),
        (ModelConfig(distance=("l1", "l2", "l1")), {}, TwoScales(), "one distance for all or 2"),
        (ModelConfig(pca=7), {}, blocks(), "between 1 and 6 principal components"),
        (ModelConfig(), {"mode": "jacobian"}, "mind", "networks alone in the mode jacobian"),
        (ModelConfig(), {"update_every": 2, "symmetric": True}, blocks(), "refine.symmetric=false"),
        (ModelConfig(layers=(4,)), {}, TwoScales(), "2"),
    ],
    ids=["weights", "distances", "pca", "jacobian of mind", "symmetric", "layers"],
)
def test_what_does_not_fit_is_refused(entry, refine, model, sentence):
    """Numbers of weights, distances, components and outputs that do not fit are one sentence with both numbers."""
    config = replace(DIRECT, models=(entry,), refine=RefineConfig(**refine), coarse=CoarseConfig(enabled=False))
    with pytest.raises((ConfigError, ModelContractError), match=sentence):
        register(fixed_image(), moving_image(), model=model, config=config, device="cpu")


def test_models_that_do_not_go_together_are_refused():
    """Two models with other numbers of channels for the two images are refused with these numbers."""
    config = RegistrationConfig()
    images = images_of(fixed_image(), moving_image(), config)
    with pytest.raises(ConfigError, match=r"\[6\] channels of the fixed and \[8\]"):
        images.terms(resolve_with(config, blocks(), blocks(1, channels=8)))
    with pytest.raises(ConfigError, match="one model for each of 2 entries"):
        resolve_models(RegistrationConfig(models=(ModelConfig(), ModelConfig())), 3, CPU, Given(models=(blocks(),)))


def standardised(x):
    """A network whose features are its input: with z-score they show the statistics that were used."""
    return x * 1.0


@pytest.mark.parametrize("mode", [{"mode": "jacobian"}, {"update_every": 5}])
def test_statistics_are_those_of_what_counts(mode):
    """Features of the warped image are normalised as those of the image were: what lies outside it does not count."""
    config = RegistrationConfig(
        models=(ModelConfig(spec=("normalisation.kind=z-score",)),), refine=RefineConfig(**mode), seed=0
    )
    images = images_of(fixed_image(), moving_image(), config)
    spec = ModelSpec(name="itself", normalisation=Normalisation(kind="z-score"))
    network = Extractor(as_network(standardised, spec), device="cpu")
    terms = images.terms([Pairing(config.models[0], network, network)])
    inside = terms[0].moving.weight.data > 0
    again = images.renewed(Field.zeros(images.grid), 2.5)[0].moving
    read = terms[0].moving.features.on(images.grid, outside=0.0).data
    both = (terms[0].moving.weight.on(images.grid, outside=0.0).data > 0.999) & (again.weight.data > 0.999)
    assert float(terms[0].moving.features.data[inside].std()) == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(again.features.data[both], read[both], rtol=0, atol=0.05)


def test_a_layer_without_structure_changes_nothing():
    """A layer of one value beside MIND leaves the result as MIND alone gives it, to a hundredth of a mm."""
    flat = lambda x: torch.full_like(x, 0.3) + 0 * x  # noqa: E731 - the smallest network there is
    plain = {"refine": replace(DIRECT.refine, local_correlation=0.0), "fine": FineConfig(enabled=False)}
    alone, _ = error_with("mind", **plain)
    both, record = error_with(["mind", flat], models=(ModelConfig(), ModelConfig()))
    assert both == pytest.approx(alone, abs=0.05)
    assert record.similarity.after < record.similarity.before


def test_a_network_without_gradient_is_refused():
    """What cannot be differentiated is one sentence in the mode jacobian."""
    config = replace(DIRECT, refine=RefineConfig(mode="jacobian"))
    with pytest.raises(ModelContractError, match="to be differentiable in the mode jacobian"):
        register(fixed_image(), moving_image(), model=lambda x: (x > x.mean()).float(), config=config, device="cpu")


def test_drawing_anew_is_for_the_static_mode():
    """``redraw`` is refused where all channels are compared anyway."""
    config = RegistrationConfig(models=(ModelConfig(subset=2, redraw=True),), refine=RefineConfig(mode="jacobian"))
    with pytest.raises(ConfigError, match="redraw=false"):
        register(fixed_image(), moving_image(), model=blocks(), config=config, device="cpu")


def test_intensities_that_mean_the_same_have_one_scale():
    """With statistics of the fixed image one intensity is one feature in both, whatever else the moving shows."""
    fixed, moving = fixed_image(), moving_image()
    moving.data[:, :3] = 5 * moving.data.max()  # only the moving image shows this
    config = RegistrationConfig(models=(ModelConfig(model="intensity", statistics="fixed"),))
    images = images_of(fixed, moving, config)
    (term,) = images.terms(resolve_models(config, 3, CPU))
    near, far = term.fixed.features.data, term.moving.features.data
    seen = fixed.reordered(canonical_order(fixed.grid)).on(images.grid).data
    gain = float((seen.max() - seen.min()) / (near.max() - near.min()))
    assert float(far.max() - far.min()) * gain == pytest.approx(
        float(images.image.data.max() - images.image.data.min())
    )
    (again,) = images.renewed(Field.zeros(images.grid), 2.5)
    read = term.moving.features.on(images.grid).data
    both = again.moving.weight.data > 0.999
    torch.testing.assert_close(again.moving.features.data[both], read[both], rtol=0, atol=0.02)


def test_a_start_is_continued_without_search_and_alignment_alone():
    """What would look for another start cannot continue the one that is given: one sentence says what to set."""
    with pytest.raises(ConfigError, match=r"coarse.enabled=false and align.transform=none"):
        RegistrationConfig(refine=RefineConfig(continues=True))


def test_both_images_are_blurred_alike():
    """Noise is as strong in the features of a fixed image that keeps its voxels as in those of a resampled one."""
    turned = tuple(map(tuple, rotation((20.0, 9.0, -9.0))))
    grids = Grid.of_shape((24, 24, 24), (2.5,) * 3), Grid((40,) * 3, (2.5,) * 3, (-25.0, -20.0, -20.0), turned)
    pair = [Volume(noise(1, *grid.shape, seed=seed).float(), grid) for seed, grid in enumerate(grids)]
    (term,) = images_of(*pair, RegistrationConfig()).terms(resolve_with(RegistrationConfig(), lambda x: x, None))
    far = term.moving.features.data[term.moving.weight.data == 1]
    assert float(term.fixed.features.data.std() / far.std()) == pytest.approx(1, abs=0.15)
