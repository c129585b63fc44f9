"""Promises of guidance: landmarks and labels pull, a wrong landmark spoils nothing, and what is left out is said."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from conftest import grid_at, noise, rotation
from semreg import RegistrationConfig, infer, register, write_image
from semreg.config import AlignConfig, RefineConfig
from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.core.sampling import transform_index
from semreg.errors import ConfigError, GeometryError
from semreg.io.bridge import field_of_transform, matrix_of
from semreg.phantom import make_pair
from semreg.phantom.writing import write_points
from semreg.registration.dense.correspondences import (
    FREEDOM,
    Correspondences,
    PointMatch,
    add_costs,
    corners,
    in_frame,
    student,
)
from semreg.registration.guidance import Guidance, checked_labels
from semreg.transforms.bspline import SplineLattice, SplinePoints
from small_networks import save

STRAIGHT = RegistrationConfig(align=AlignConfig(transform="none"))
COUNT = 20


@pytest.fixture(scope="module")
def phantom():
    """A pair whose landmarks and labels are known."""
    return make_pair(size=48, seed=4)


@pytest.fixture(scope="module")
def alone(phantom):
    """What the images alone give."""
    return register(phantom.fixed, phantom.moving, config=STRAIGHT)


def points_of_pair(phantom, count=COUNT, off=None):
    """Landmarks (N, D) of both images; ``off`` is added to the first moving one."""
    moving = phantom.moving_points[:count].double().numpy().copy()
    if off is not None:
        moving[0] += off
    return phantom.fixed_points[:count].double().numpy(), moving


def errors(result, phantom, of=slice(COUNT, None)):
    """How far the landmarks are off, (N,) in mm; by default of those that guide nothing."""
    mapped = result.field.point_map()(phantom.fixed_points[of].T.double()).T
    return np.linalg.norm((mapped - phantom.moving_points[of]).numpy(), axis=1)


def small_lattice():
    """A lattice on an oblique grid of unequal voxels."""
    return SplineLattice(grid_at((3.0, -7.0, 11.0), (13, 11, 9), (1.5, 2.0, 2.5), rotation(3)), (3.0, 4.0, 2.5))


def test_a_spline_at_points_is_that_on_its_grid():
    """At the voxels the displacement is that of the field; the way back is its transpose."""
    lattice = small_lattice()
    x = noise(3, *lattice.shape, dtype=torch.float32)
    index = torch.tensor([[0, 4, 8], [0, 3, 10], [0, 7, 12]], dtype=torch.float64)
    points = SplinePoints(lattice, index, torch.device("cpu"))
    field = lattice.field(x, lattice.grid).vox
    torch.testing.assert_close(points(x), torch.stack([field[:, *map(int, column)] for column in index.T], 1))
    pull = noise(3, 3, dtype=torch.float32, seed=2)
    assert float((points(x) * pull).sum()) == pytest.approx(float((x * points.adjoint(pull)).sum()), rel=1e-5)


def test_the_pull_is_the_derivative_of_the_value():
    """Against central differences along random directions; the curvature is an upper bound of theirs."""
    lattice = small_lattice()
    fixed = torch.tensor([[2.3, 5.1, 7.7], [1.2, 6.6, 3.3], [4.4, 9.9, 0.5]], dtype=torch.float64)
    points = Correspondences(lattice.grid, fixed, fixed + noise(3, 3, seed=5), torch.tensor([1.0, 2.0, 0.5]).double())
    match = PointMatch(points, lattice, torch.device("cpu"))
    x, along = (noise(3, *lattice.shape, dtype=torch.float32, seed=seed) for seed in (6, 7))
    value, pull = match.pull(x, 3.0)
    step = 1e-2
    ahead, behind = (match.pull(x + sign * step * along, 3.0)[0] for sign in (1, -1))
    assert (ahead - behind) / (2 * step) == pytest.approx(float((pull * along).sum()), rel=1e-3)
    assert (ahead + behind - 2 * value) / step**2 <= float((match.curvature(3.0) * along**2).sum()) * 1.01


def test_a_pair_far_off_pulls_hardly():
    """Near zero the value grows as squares do, far off as a logarithm: the pull falls with the distance."""
    r = torch.tensor([0.1, 1.0, 10.0, 100.0], dtype=torch.float64)
    value, slope = student(r**2, 3)
    assert float(value[0]) == pytest.approx(0.01 * (FREEDOM + 3) / (2 * FREEDOM), rel=1e-2)
    pull = 2 * r * slope
    assert float(pull[3]) < float(pull[2]) < float(pull[1])


def test_corners_interpolate():
    """Reading a linear function by the corners gives its value; beyond the grid that of the border."""
    index = torch.tensor([[0.25, 3.0, -1.0], [1.5, 0.0, 9.0]], dtype=torch.float64)
    rows, shares = corners(index, (4, 5))
    linear = (torch.arange(4)[:, None] * 10.0 + torch.arange(5)[None]).flatten().double()
    np.testing.assert_allclose((linear[rows] * shares).sum(0), [4.0, 30.0, 4.0])


@pytest.mark.parametrize("back", [False, True])
def test_the_search_is_led_to_the_partner(back):
    """Of candidates that cost the same, the one wins at the nodes around a point that leads it to its partner."""
    grid = Grid.of_shape((10, 9, 8), (4.0, 4.0, 4.0))
    here = torch.tensor([[5.0], [4.0], [3.0]], dtype=torch.float64)
    points = Correspondences(grid, here, here + torch.tensor([[2.0], [-1.0], [1.0]]), torch.ones(1).double())
    candidates = torch.cartesian_prod(*[torch.arange(-2, 3)] * 3)
    start = Field(torch.ones(3, *grid.shape) * torch.tensor([0.0, 0.0, 1.0]).reshape(3, 1, 1, 1), grid)
    cost = add_costs(torch.zeros(grid.voxels, len(candidates)), points, candidates, start, back=back)
    at = (here + torch.tensor([[2.0], [-1.0], [0.0]])) if back else here
    z, y, x = (int(v) for v in at.flatten())
    row = cost[(z * 9 + y) * 8 + x]
    assert candidates[row.argmin()].tolist() == ([-2, 1, 0] if back else [2, -1, 0])
    assert int((cost.sum(1) > 0).sum()) == 1


@pytest.mark.parametrize("linear", [True, False])
def test_points_lie_where_the_start_is_undone(linear):
    """A point that a start maps to the moving landmark is its partner in the frame: exactly for a linear one."""
    grid = grid_at((3.0, -7.0, 11.0), (23, 21, 19), (3.0, 4.0, 5.0), rotation(3))
    start = sitk.Euler3DTransform(grid.corners_xyz().mean(0).tolist(), 0.2, 0.1, 1.4, (4.0, -3.0, 2.0))
    partner = transform_index(grid.index_to_point(), torch.tensor([[8.2, 9.0], [9.1, 12.0], [11.5, 10.0]]).double())
    moving = transform_index(matrix_of(start), partner)
    field = field_of_transform(start, grid)
    found = in_frame(partner, moving, torch.ones(2).double(), grid, field, matrix_of(start) if linear else None)
    torch.testing.assert_close(found.moving, found.fixed, atol=1e-9 if linear else 1e-3, rtol=0)


def test_landmarks_pull_what_lies_around_them(phantom, alone):
    """Of 20 landmarks that guide the error falls to a third or less, of the others it falls too."""
    guided = register(
        phantom.fixed, phantom.moving, config=STRAIGHT, guidance=Guidance(landmarks=points_of_pair(phantom))
    )
    used = slice(0, COUNT)
    assert errors(guided, phantom, used).mean() < 0.34 * errors(alone, phantom, used).mean()
    assert errors(guided, phantom).mean() < errors(alone, phantom).mean()
    residual = guided.record.guidance.landmarks
    assert residual.count == COUNT
    assert residual.contradicted == 0
    assert residual.after.mean_mm == pytest.approx(errors(guided, phantom, used).mean(), abs=1e-3)
    assert guided.record.jacobian.minimum > 0


def test_the_search_goes_by_landmarks_too(phantom):
    """Without a refinement they lower the error of those that guide, in the search alone."""
    bare = replace(STRAIGHT, refine=RefineConfig(enabled=False))
    known = Guidance(landmarks=points_of_pair(phantom))
    found = [register(phantom.fixed, phantom.moving, config=bare, guidance=each) for each in (None, known)]
    without, guided = (errors(each, phantom, slice(0, COUNT)).mean() for each in found)
    assert guided < 0.95 * without


def test_one_wrong_pair_does_not_spoil_it(phantom, alone):
    """One landmark of 20 is 35 mm off: it is told, and the error elsewhere is still lower than without landmarks."""
    known = points_of_pair(phantom, off=np.array([25.0, -20.0, 15.0]))
    guided = register(phantom.fixed, phantom.moving, config=STRAIGHT, guidance=Guidance(landmarks=known))
    assert guided.record.guidance.landmarks.contradicted == 1
    assert errors(guided, phantom).mean() < errors(alone, phantom).mean()
    assert guided.record.jacobian.minimum > 0


def test_a_small_deviation_leads_nearer(phantom):
    """What is said to be sure is met better than what is not."""
    quick = replace(STRAIGHT, refine=RefineConfig(iterations=6, levels=1))
    found = [
        register(
            phantom.fixed, phantom.moving, config=quick,
            guidance=Guidance(landmarks=points_of_pair(phantom), landmark_sd_mm=[sd] * COUNT),
        ).record.guidance.landmarks.after.mean_mm
        for sd in (0.5, 30.0)
    ]  # fmt: skip
    assert found[0] < 0.8 * found[1]


def relabelled(volume: Volume, keep: list[int]) -> Volume:
    """The labels ``keep`` alone."""
    return Volume(torch.where(torch.isin(volume.data, torch.tensor(keep).float()), volume.data, 0.0), volume.grid)


def test_labels_pull(phantom, alone):
    """Labels lower the error of landmarks that guide nothing; what only one image has is said and left out."""
    fixed, moving = phantom.fixed_labels(), phantom.moving_labels()
    shared = sorted(set(fixed.data.unique().int().tolist()) & set(moving.data.unique().int().tolist()) - {0})
    known = relabelled(fixed, shared[1:]), relabelled(moving, shared[:-1])
    guided = register(phantom.fixed, phantom.moving, config=STRAIGHT, guidance=Guidance(labels=known))
    assert errors(guided, phantom, slice(None)).mean() < 0.95 * errors(alone, phantom, slice(None)).mean()
    use = guided.record.guidance.labels
    assert use.shared == tuple(shared[1:-1])
    assert (use.fixed_only, use.moving_only) == ((shared[-1],), (shared[0],))


def test_weights_of_labels_reach_the_objective(phantom):
    """Squared differences of a label count by its weight, and the whole term by that of the labels."""
    labels = (phantom.fixed_labels(), phantom.moving_labels())
    grids = (phantom.fixed.grid, phantom.moving.grid)

    def term(**weights):
        known = checked_labels(Guidance(labels=labels, **weights), 3)
        assert known is not None
        return known.term(grids, None, 2, torch.device("cpu"))

    plain, weighed = term(), term(weights={2: 9.0}, label_weight=0.25)
    assert (plain.share, weighed.share) == (1.0, 0.25)
    place = checked_labels(Guidance(labels=labels), 3).use.shared.index(2)
    for image in ("fixed", "moving"):
        before, after = (getattr(each, image).features.data for each in (plain, weighed))
        torch.testing.assert_close(after[place], 3 * before[place])
        torch.testing.assert_close(after[place + 1], before[place + 1])
        assert 0 < float(before[place].max()) <= 1


def test_labels_of_any_number_and_on_any_grid_are_the_same(phantom):
    """Numbers beyond what float32 holds, and label maps on twice the voxels, guide as before, to 0.2 mm in the mean."""
    quick = replace(STRAIGHT, refine=RefineConfig(iterations=4, levels=1))
    fixed, moving = phantom.fixed_labels(), phantom.moving_labels()
    plain = register(phantom.fixed, phantom.moving, config=quick, guidance=Guidance(labels=(fixed, moving)))

    def finer(volume: Volume) -> sitk.Image:
        n = 2
        grid = volume.grid.lattice([-(1 - 1 / n) / 2] * 3, [1 / n] * 3, [n * s for s in volume.grid.shape])
        image = Volume(volume.on(grid, mode="nearest").data, grid).to_sitk()
        return sitk.Cast(image, sitk.sitkInt64) * (1 << 55)

    other = register(
        phantom.fixed, phantom.moving, config=quick, guidance=Guidance(labels=(finer(fixed), finer(moving)))
    )
    apart = (plain.field.mm() - other.field.mm()).square().sum(0).sqrt().mean()
    assert float(apart) < 0.2
    assert other.record.guidance.labels.shared[0] % (1 << 55) == 0


def test_labels_guide_where_features_are_computed_again(phantom):
    """With features renewed while the field changes, labels stay what they are."""
    refine = RefineConfig(iterations=6, levels=1, update_every=3)
    quick = replace(STRAIGHT, refine=refine)
    labels = (phantom.fixed_labels(), phantom.moving_labels())
    free = register(phantom.fixed, phantom.moving, config=quick)
    guided = register(phantom.fixed, phantom.moving, config=quick, guidance=Guidance(labels=labels))
    assert errors(guided, phantom, slice(None)).mean() < errors(free, phantom, slice(None)).mean()


@pytest.mark.parametrize(
    ("guidance", "kind", "words"),
    [
        (lambda p: Guidance(landmarks=(p[0], p[1][:-1])), GeometryError, "as many fixed as moving landmarks"),
        (lambda p: Guidance(landmarks=(p[0][:, :2], p[1][:, :2])), GeometryError, "fixed landmarks of shape"),
        (lambda p: Guidance(landmarks=(p[0] * math.nan, p[1])), GeometryError, "finite coordinates"),
        (lambda p: Guidance(landmarks=p, landmark_sd_mm=0.0), ConfigError, "standard deviation above 0"),
        (lambda p: Guidance(landmarks=p, landmark_sd_mm=[1.0, 2.0]), ConfigError, f"or {COUNT} of them"),
    ],
)
def test_landmarks_that_cannot_guide_are_refused(phantom, guidance, kind, words):
    with pytest.raises(kind, match=words):
        register(phantom.fixed, phantom.moving, config=STRAIGHT, guidance=guidance(points_of_pair(phantom)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": (1, 2)}, "expected labels that both label maps have"),
        ({"label_weight": 0.0}, "weight of the labels above 0"),
        ({"weights": {99: 1.0}}, "weights above 0 of labels that both"),
    ],
)
def test_labels_that_cannot_guide_are_refused(phantom, change, words):
    def one(label: int) -> Volume:
        return Volume(torch.full((1, *phantom.fixed.grid.shape), float(label)), phantom.fixed.grid)

    numbers = change.pop("labels", (3, 3))
    guidance = Guidance(labels=(one(numbers[0]), one(numbers[1])), **change)
    with pytest.raises(ConfigError, match=words):
        register(phantom.fixed, phantom.moving, config=STRAIGHT, guidance=guidance)


def test_the_command_takes_them(run, phantom, tmp_path):
    """Files of points and labels, a deviation for each point, a weight for one label: in the record and the summary."""
    write_image(phantom.fixed, tmp_path / "fixed.nrrd", "int16")
    write_image(phantom.moving, tmp_path / "moving.nrrd", "int16")
    for name, labels in (("fixed", phantom.fixed_labels()), ("moving", phantom.moving_labels())):
        write_image(labels, tmp_path / f"{name}_labels.nii.gz", "int16")
    write_points(phantom.fixed_points[:COUNT], tmp_path / "a.csv")
    write_points(phantom.moving_points[:COUNT], tmp_path / "b.csv")
    (tmp_path / "sd.txt").write_text("1.5\n" * COUNT, encoding="utf-8")
    quick = ("--align", "none", "--no-report", "--set", "refine.iterations=3", "--set", "refine.levels=1")
    pair = ("register", tmp_path / "fixed.nrrd", tmp_path / "moving.nrrd", "-o", tmp_path / "out", *quick)
    points = ("--landmarks", tmp_path / "a.csv", tmp_path / "b.csv", "--landmark-sd", tmp_path / "sd.txt")
    labels = ("--fixed-labels", tmp_path / "fixed_labels.nii.gz", "--moving-labels", tmp_path / "moving_labels.nii.gz")
    code, shown, said = run(*pair, *points, *labels, "--label-weight", "0.5", "--label-weight", "2=3")
    assert code == 0, said
    assert f"{COUNT} landmarks guide the deformation" in said
    assert "labels that guide: 1, 2" in said
    assert "guiding landmarks" in shown
    record = json.loads((tmp_path / "out" / "record.json").read_text(encoding="utf-8"))
    assert record["guidance"]["landmarks"]["count"] == COUNT
    assert 2 in record["guidance"]["labels"]["shared"]
    assert record["inputs"]["fixed_labels"]["sha256"]
    assert record["inputs"]["guiding_moving_landmarks"]["path"].endswith("b.csv")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--fixed-labels", "x.nii"), "--fixed-labels and --moving-labels together"),
        (("--label-weight", "2"), "--label-weight with labels or --segment"),
        (("--segment-spec", "a=1"), "--segment-spec with --segment"),
        (("--segment", "x.pt", "--fixed-labels", "x.nii", "--moving-labels", "y.nii"), "leave one way out"),
        (("--landmark-sd", "1"), "--landmark-sd with --landmarks"),
    ],
)
def test_flags_that_mean_nothing_alone_are_refused(run, tmp_path, words, said):
    code, _, err = run("register", "a.nii", "b.nii", "-o", tmp_path / "out", *words)
    assert code == 2
    assert said in err


class Bright(torch.nn.Module):
    """Two classes of an image from 0 to 1: dark, which is no label, and bright."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The scores of both."""
        return torch.cat([torch.full_like(x, 0.35), x], 1)


def test_a_network_that_segments_both_images_guides(run, tmp_path):
    """Its classes are the labels: the same field as with the labels that it writes, from the command line too."""
    pair = make_pair(size=36, seed=1)
    spec = ("normalisation.kind=min-max",)
    labels = [infer(image, Bright(), spec=spec, argmax=True)[0] for image in (pair.fixed, pair.moving)]
    quick = replace(STRAIGHT, refine=RefineConfig(iterations=3, levels=1))
    by_hand = register(pair.fixed, pair.moving, config=quick, guidance=Guidance(labels=tuple(labels)))
    known = Guidance(segment=Bright(), segment_spec=spec)
    itself = register(pair.fixed, pair.moving, config=quick, guidance=known)
    assert torch.equal(by_hand.field.vox, itself.field.vox)
    assert itself.record.guidance.labels.shared == (1,)
    for name in ("fixed", "moving"):
        write_image(getattr(pair, name), tmp_path / f"{name}.nrrd", "float32")
    network = save(Bright(), tmp_path / "bright.pt")
    images = ("register", tmp_path / "fixed.nrrd", tmp_path / "moving.nrrd", "-o", tmp_path / "out", "--align", "none")
    settings = ("--set", "refine.iterations=3", "--set", "refine.levels=1", "--no-report")
    code, _, said = run(*images, *settings, "--segment", network, "--segment-spec", spec[0])
    assert code == 0, said
    assert "segments both images, and its classes guide" in said
    record = json.loads((tmp_path / "out" / "record.json").read_text(encoding="utf-8"))
    assert record["guidance"]["labels"]["shared"] == [1]
    assert record["inputs"]["segment"]["path"].endswith("bright.pt")


def test_labels_and_a_network_together_are_refused(phantom):
    with pytest.raises(ConfigError, match="labels or a network that segments, got both"):
        register(
            phantom.fixed, phantom.moving, config=STRAIGHT,
            guidance=Guidance(labels=(phantom.fixed_labels(), phantom.moving_labels()), segment=Bright()),
        )  # fmt: skip


def test_labels_that_need_more_memory_than_there_is_are_refused(phantom, monkeypatch):
    """Before a map is made: how many labels, what they take, and what to do."""
    monkeypatch.setattr("semreg.registration.guidance.available_bytes", lambda: 1 << 20)
    labels = (phantom.fixed_labels(), phantom.moving_labels())
    with pytest.raises(ConfigError, match=r"labels that take .* GB: keep those that matter"):
        register(phantom.fixed, phantom.moving, config=STRAIGHT, guidance=Guidance(labels=labels))
