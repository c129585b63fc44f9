"""Promises of the verdict: levels follow thresholds, what is not known does not count, each number is what it says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import centre, grid_at, make_grid, noise, oblique_grid, points_of, rotation, smooth_field
from run_records import make_run
from semreg.config import CheckConfig, RegistrationConfig
from semreg.core.consistency import Errors
from semreg.core.fields import Field, Layer, Volume, warp
from semreg.core.geometry import AxisOrder, Grid
from semreg.core.sampling import smooth
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.quality import Evaluation, Evidence, collect_evidence, judge, table_of_landmarks
from semreg.quality.checks import CHECKS
from semreg.quality.coarse_view import SIDE, field_of_matrix, linear_part, working_grid
from semreg.quality.deformation import Consistency, RoundTrip
from semreg.quality.evidence import match_of
from semreg.quality.overlap import LabelOverlaps, MeanOverlap, Overlap
from semreg.quality.probes import seen, try_shifts
from semreg.quality.residual import search_again
from semreg.registration.result import AlignmentReport, Folding, InverseReport
from semreg.registration.sliding.report import SlidingReport
from semreg.registration.uncertainty import UncertaintySummary
from semreg.runtime.settings import from_toml, override, to_toml
from semreg.transforms.pointwise import ErrorSummary

FINE = Evidence(
    dimension=3, voxel_mm=4.0, diagonal_mm=300.0, spacing_mm=1.5, field_missing=0.0, missing=0.0, overlap=0.95,
    folded_share=0.0, jacobian_minimum=0.6, volume_share=0.0, tear_share=0.0, scale=1.05, bending_mm=9.0, match=0.8,
    match_before=0.5, residual_mm=0.4, residual_p90_mm=2.0, mismatch=0.02, unfinished=0.03, shift_match=(0.6, 0.6),
    shift_mm=0.0, mirror_match=(0.6, 0.3), mirror_axis=1,
)  # fmt: skip
"""A result that nothing speaks against."""


def textured(grid, seed=0, radius=2):
    """Smooth noise (1, *S) on a grid: structure everywhere, no background."""
    return Volume(smooth(noise(1, *grid.shape, seed=seed).float(), radius=radius, passes=2) * 100, grid)


def check(verdict, name):
    """One check by its name."""
    return next(each for each in verdict.checks if each.name == name)


def affine(grid, matrix, shift_mm):
    """P → A (p − c) + c + t about the centre of a grid, as a matrix of points (E, E)."""
    n, middle = grid.dimension, centre(grid)
    result = np.eye(n + 1)
    result[:n, :n] = matrix
    result[:n, n] = middle - matrix @ middle + shift_mm
    return result


# What follows from evidence


def test_nothing_against_it_passes():
    """A result that no check stops passes, without reasons; what is not known is said and does not count."""
    verdict = judge(FINE)
    assert verdict.level == "PASS"
    assert verdict.reasons == ()
    unknown = {each.name for each in verdict.checks if each.level is None}
    assert unknown == {
        "uncertainty",
        "consistency",
        "landmarks",
        "landmark_p95",
        "landmark_maximum",
        "landmark_worse",
        "labels",
        "doubts",
    }
    assert all(each.sentence for each in verdict.checks)


@pytest.mark.parametrize(
    ("change", "name", "level"),
    [
        ({"missing": 0.6}, "missing", "REVIEW"),
        ({"overlap": 0.4}, "overlap", "REVIEW"),
        ({"overlap": 0.0}, "overlap", "FAIL"),
        ({"folded_share": 0.002}, "folding", "REVIEW"),
        ({"folded_share": 0.02}, "folding", "FAIL"),
        ({"volume_share": 0.2}, "volume", "FAIL"),
        ({"tear_share": 0.02}, "tears", "REVIEW"),
        ({"scale": 2.0}, "scale", "REVIEW"),
        ({"bending_mm": 100.0}, "bending", "FAIL"),
        ({"match": 0.05}, "match", "FAIL"),
        ({"match": 0.45}, "gain", "REVIEW"),
        ({"residual_mm": 4.4}, "residual", "REVIEW"),
        ({"residual_mm": 8.4}, "residual", "FAIL"),
        ({"mismatch": 0.2}, "mismatch", "REVIEW"),
        ({"unfinished": -0.7}, "unfinished", "FAIL"),
        ({"shift_match": (0.5, 0.55)}, "elsewhere", "REVIEW"),
        ({"mirror_match": (0.4, 0.6)}, "mirror", "FAIL"),
        ({"field_missing": 0.001}, "finite", "FAIL"),
    ],
)
def test_each_gate_stops_alone(change, name, level):
    """Each kind of evidence alone changes the level of its check and of the whole, and gives its sentence as reason."""
    verdict = judge(replace(FINE, **change))
    assert check(verdict, name).level == level
    assert verdict.level == level
    assert check(verdict, name).sentence in verdict.reasons


def test_what_slides_may_part_along_its_wall():
    """Neighbours that part there stop nothing, and folds are those of both sides; without a wall both count."""
    torn = replace(FINE, tear_share=0.2, folded_share=0.02)
    side = ErrorSummary(mean_mm=1.0, p95_mm=2.0, maximum_mm=3.0)
    said = SlidingReport(
        labels=(1,), area=10.0, slide_mm=side, most_at=(0.0, 0.0, 0.0), gap_mm=side, unmatched_share=0.0,
        across_share=0.02, voxel_mm=1.0,
    )  # fmt: skip
    assert judge(torn, record=make_run()).level == "FAIL"
    found = judge(torn, record=make_run(sliding=said))
    assert found.level == "PASS"
    assert check(found, "tears").sentence.startswith("Not measured: both sides of what slides part")
    folded = Folding(minimum=-1.0, folded_share=0.02, unfolding_passes=0)
    assert check(judge(FINE, record=make_run(sliding=said, jacobian=folded)), "folding").level == "FAIL"


def test_thresholds_are_the_settings_in_the_units_of_the_value():
    """A check shows the thresholds of the settings beside its value, those in working voxels as mm."""
    config = CheckConfig(residual=(0.5, 3.0), folding=(0.0, 50.0))
    verdict = judge(replace(FINE, residual_mm=2.5, folded_share=0.4), config=config)
    assert (check(verdict, "residual").review, check(verdict, "residual").fail) == (2.0, 12.0)
    assert check(verdict, "residual").unit == "mm"
    assert check(verdict, "residual").level == "REVIEW"
    assert (check(verdict, "folding").value, check(verdict, "folding").level) == (40.0, "REVIEW")


def test_a_value_at_its_threshold_passes():
    """Thresholds are the last value of the better level."""
    assert check(judge(replace(FINE, folded_share=0.001)), "folding").level == "PASS"
    assert check(judge(replace(FINE, overlap=0.5)), "overlap").level == "PASS"
    assert check(judge(replace(FINE, overlap=0.1)), "overlap").level == "REVIEW"


def test_the_worst_level_counts_and_comes_first():
    """The level is the worst of all checks, and its reasons come before the others."""
    verdict = judge(replace(FINE, tear_share=0.02, mirror_match=(0.4, 0.6)))
    assert verdict.level == "FAIL"
    assert verdict.reasons == (check(verdict, "mirror").sentence, check(verdict, "tears").sentence)
    assert "axis y" in verdict.reasons[0]


def test_what_cannot_be_measured_does_not_count():
    """None and NaN are not measured: no level, and a sentence that says so."""
    verdict = judge(replace(FINE, match_before=None, unfinished=None, shift_match=None, mismatch=math.nan))
    assert verdict.level == "PASS"
    for name in ("gain", "unfinished", "elsewhere", "mismatch"):
        assert check(verdict, name).level is None
        assert check(verdict, name).value is None
        assert check(verdict, name).sentence.startswith("Not measured: ")


def test_the_verdict_is_json():
    """``to_dict`` holds the level and every part of each check, in plain JSON without NaN; the evidence too."""
    verdict = judge(replace(FINE, mismatch=math.nan, overlap=0.3))
    read = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
    assert read["level"] == "REVIEW"
    parts = {"name", "title", "level", "value", "unit", "review", "fail", "better", "sentence"}
    assert all(set(each) == parts for each in read["checks"])
    assert {each["better"] for each in read["checks"]} == {"lower", "higher"}
    assert json.loads(json.dumps(FINE.to_dict(), allow_nan=False))["shift_match"] == [0.6, 0.6]


def test_every_setting_has_its_gate_and_words():
    """Each threshold of the settings belongs to a check with a title and a sentence for either outcome."""
    thresholds = set(vars(CheckConfig())) - {"enabled"}
    names = {each.name for each in judge(FINE).checks}
    assert names == thresholds | {"finite", "doubts"}
    assert len(CHECKS) == len(names)
    assert {check.name for check in CHECKS if check.limits is None} == thresholds
    for check in CHECKS:
        assert all(text.endswith((".", "?")) for text in (check.passed, check.stopped, check.missing))


@pytest.mark.parametrize("check", [check for check in CHECKS if check.limits is None], ids=lambda check: check.name)
def test_thresholds_lie_in_the_direction_of_their_check(check):
    """Where higher is better a result fails below the number from which a person should review it, else above."""
    review, fail = getattr(CheckConfig(), check.name)
    assert (review > fail) == (check.better == "higher")
    with pytest.raises(ConfigError, match=f"checks.{check.name}: two finite numbers, review not"):
        CheckConfig(**{check.name: (fail, review)})


@pytest.mark.parametrize(
    ("before", "after", "level"),
    [(8.0, 2.0, "PASS"), (8.0, 8.2, "PASS"), (8.0, 8.8, "REVIEW"), (8.0, 10.4, "FAIL"), (0.2, 0.9, "PASS")],
)
def test_landmarks_that_got_worse_are_noticed(before, after, level):
    """A mean error above that before stops the result; errors below a voxel are no worse than another."""
    verdict = judge(FINE, evaluation=landmarks([before], [after]))
    assert check(verdict, "landmarks").level == level
    assert verdict.level == level


def landmarks(before, after):
    """An evaluation of points on one line that are off by these numbers of mm."""
    fixed = np.zeros((len(before), 3))
    moving = fixed + np.array([[1.0, 0.0, 0.0]]) * np.array(before)[:, None]
    way = SimpleNamespace(dimension=3, map=lambda _: moving.T + np.array([[1.0], [0.0], [0.0]]) * np.array(after))
    return Evaluation(landmarks=table_of_landmarks(way, None, (fixed, moving)))


def test_single_landmarks_that_went_wrong_are_noticed():
    """Where the mean halves and the largest error rises, or some points get worse, PASS is not said; in mm."""
    before = np.linspace(2.0, 10.0, 100)
    better = judge(FINE, evaluation=landmarks(before, before / 2))
    assert better.level == "PASS"
    assert check(better, "landmark_worse").value == 0.0
    table = landmarks(before, np.where(np.arange(100) == 99, 15.0, before / 2))
    assert (table.landmarks.worse, table.landmarks.count) == (1, 100)
    one = judge(FINE, evaluation=table)
    assert [one.level, check(one, "landmark_maximum").level] == ["REVIEW", "REVIEW"]
    assert check(one, "landmark_p95").level == "PASS"
    assert "rose from 10 to 15 mm" in one.reasons[0]
    voxel = FINE.spacing_mm
    for rise, level in ((1.1 * voxel, "REVIEW"), (0.9 * voxel, "PASS")):  # of 6 in 100: by less than a voxel is no harm
        some = judge(FINE, evaluation=landmarks(before, before + rise * (np.arange(100) < 6) - 0.1))
        assert check(some, "landmark_worse").level == level
    many = judge(FINE, evaluation=landmarks(before, np.where(before < 5, 9.0, before / 2)))
    assert check(many, "landmarks").level == "PASS"
    assert check(many, "landmark_worse").level == "FAIL"
    for end, level in ((9.0, "PASS"), (12.5, "REVIEW"), (20.0, "FAIL")):
        tail = judge(FINE, evaluation=landmarks(before, np.where(before > 9, end, before / 2)))
        assert check(tail, "landmark_p95").level == level


def mean_dice(before, after):
    """An evaluation of labels of which the mean Dice alone is known."""
    mean = MeanOverlap(before=Overlap(dice=before), after=Overlap(dice=after))
    return Evaluation(labels=LabelOverlaps(tolerance_mm=2.0, each=(), mean=mean))


def median(mm):
    """An uncertainty with this median."""
    return UncertaintySummary(mean_mm=mm, median_mm=mm, p95_mm=mm, maximum_mm=mm, parts={})


def doubted(*doubts):
    """The record of an alignment with these doubts, as a user has it from a registration or from an alignment."""
    alignment = AlignmentReport(
        transform="rigid", matrix=(), match=0.5, match_before=0.4, overlap=0.9, decisions=(), evidence=(),
        doubts=doubts, doubtful=bool(doubts), levels=(),
    )  # fmt: skip
    return make_run(alignment=alignment)


@pytest.mark.parametrize(("after", "level"), [(0.8, "PASS"), (0.68, "REVIEW"), (0.55, "FAIL"), (0.695, "PASS")])
def test_labels_that_overlap_less_are_noticed(after, level):
    """A mean Dice below that before stops the result."""
    verdict = judge(FINE, evaluation=mean_dice(0.7, after))
    assert check(verdict, "labels").level == level
    assert check(verdict, "labels").value == pytest.approx(after - 0.7)


def test_labels_without_a_mean_are_not_judged():
    """Where Dice is null on one side nothing is judged."""
    assert check(judge(FINE, evaluation=mean_dice(None, 0.5)), "labels").level is None


def test_uncertainty_and_consistency_count_where_they_are_known():
    """Medians and means in mm are compared with working voxels of 4 mm here; a measured inverse counts first."""
    way = RoundTrip(mean_mm=30.0, p999_mm=40.0, maximum_mm=50.0, count=9)
    known = Evaluation(consistency=Consistency(fixed=way, moving=way))
    assert check(judge(FINE, evaluation=known), "consistency").level == "FAIL"
    near = Errors(mean_mm=0.1, p999_mm=0.2, max_mm=0.3, points=9)
    inverse = InverseReport(residual=near, outside_share=0.0, unsolved=0, consistency={"fixed": near, "moving": near})
    record = make_run(inverse=inverse)
    assert check(judge(FINE, record=record), "consistency").level == "PASS"
    assert check(judge(FINE, evaluation=known, record=record), "consistency").level == "FAIL"
    assert check(judge(FINE, uncertainty=median(9.0)), "uncertainty").level == "REVIEW"
    of_record = make_run(uncertainty=median(9.0))
    assert check(judge(FINE, record=of_record), "uncertainty").level == "REVIEW"
    assert check(judge(FINE, record=of_record, uncertainty=median(0.5)), "uncertainty").level == "PASS"
    assert check(judge(FINE, uncertainty=median(0.5)), "uncertainty").level == "PASS"


def test_doubts_of_the_alignment_are_passed_on():
    """What the alignment says against itself is a reason to review it, word by word."""
    verdict = judge(FINE, record=doubted("another position matches almost as well"))
    assert verdict.level == "REVIEW"
    assert verdict.reasons == ("The alignment is in doubt: another position matches almost as well.",)
    assert check(judge(FINE, record=doubted()), "doubts").level == "PASS"
    assert check(judge(FINE, record=make_run()), "doubts").level is None


def test_thresholds_are_settings():
    """Thresholds are set by name and travel through TOML; disorder, NaN and unknown names are refused."""
    config = override(RegistrationConfig(), "checks.folding=0.5,2")
    assert config.checks.folding == (0.5, 2.0)
    assert from_toml(RegistrationConfig, to_toml(config)) == config
    for wrong in ("folding=2,1", "overlap=10,50", "match=nan,1", "folding=1", "fold=1,2"):
        with pytest.raises(ConfigError, match="expected"):
            override(RegistrationConfig(), f"checks.{wrong}")
    with pytest.raises(ConfigError, match="those of checks now"):
        override(RegistrationConfig(), "gates.folding=0.5,2")


# What is measured


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_linear_part_is_the_affine_map(dimension):
    """Of an affine field on an oblique anisotropic grid the linear part is that map; of a bent one nearly."""
    grid = oblique_grid(dimension)
    matrix = affine(
        grid, rotation(dimension, 25.0) @ np.diag([1.2, 0.9, 1.1][:dimension]), [5.0, -3.0, 2.0][:dimension]
    )
    field = field_of_matrix(matrix, grid)
    corners = points_of(grid).flatten(1)
    moved = field.point_map()(corners).numpy()
    assert np.abs(matrix[:-1, :-1] @ corners.numpy() + matrix[:-1, -1:] - moved).max() < 1e-4  # mm
    assert np.abs(linear_part(field, torch.ones(grid.shape)) - matrix).max() < 1e-3
    bent = smooth_field(grid, 0.5)
    found = linear_part(Field((field.vox + bent.vox).float(), grid), torch.ones(grid.shape))
    assert np.abs(found - matrix)[:-1, :-1].max() < 0.2


def test_the_linear_part_of_a_slice_stretches_nothing_across():
    """Along an axis of one sample the linear part is 1."""
    grid = make_grid((9, 8, 1), (1.0, 1.5, 4.0), (-3.0, 7.0, 11.0), np.eye(3))
    field = field_of_matrix(affine(grid, np.diag([1.1, 0.8, 1.0]), [1.0, 2.0, 0.0]), grid)
    found = linear_part(field, torch.ones(grid.shape))
    assert np.abs(np.diag(found) - [1.1, 0.8, 1.0, 1.0]).max() < 1e-4


@pytest.mark.parametrize("degrees", [90.0, 180.0])
def test_a_turn_is_no_deformation(degrees):
    """However far the whole is turned, and if it grows eightfold, nothing is folded, torn, bent or strange."""
    grid = grid_at([3.0, -8.0, 21.0], (19, 17, 15), (2.0, 2.3, 2.7), rotation(3))
    image = textured(grid)
    field = field_of_matrix(affine(grid, 2 * rotation(3, degrees), [2.0, 1.0, -3.0]), grid)
    found = collect_evidence(image, image, field)
    assert (found.folded_share, found.tear_share, found.volume_share) == (0.0, 0.0, 0.0)
    assert found.bending_mm < 2.0  # mm; beyond the outer centres vectors continue unchanged
    assert found.scale == pytest.approx(2.0, abs=0.01)


def test_tears_and_folds_are_counted_exactly():
    """A cut along one plane tears the voxels before it; what is turned over is folded."""
    grid = make_grid((16, 14, 12), (1.0, 1.4, 2.1), (4.0, -9.0, 33.0), rotation(3))
    vox = torch.zeros(3, *grid.shape)
    vox[2, :, 7:] = 4.0  # 4 mm along x between rows 1.4 mm apart
    found = collect_evidence(textured(grid), textured(grid), Field(vox, grid))
    assert found.tear_share == pytest.approx(1 / 14)
    assert found.folded_share == 0.0
    vox = torch.zeros(3, *grid.shape)
    vox[1, :, 6:] = -4.0
    found = collect_evidence(textured(grid), textured(grid), Field(vox, grid))
    assert found.folded_share == pytest.approx(2 / 12)  # rows 5 and 6 of the 12 that are not at the border
    assert found.volume_share == pytest.approx(2 / 12)
    assert found.jacobian_minimum == pytest.approx(-1.0)


def test_given_determinants_are_used():
    """Determinants that are known are not computed again."""
    grid = make_grid((12, 11, 10), (1.0, 1.4, 2.1), (4.0, -9.0, 33.0), rotation(3))
    found = collect_evidence(textured(grid), textured(grid), Field.zeros(grid), jacobian=torch.full(grid.shape, -1.0))
    assert found.folded_share == 1.0


def test_overlap_is_the_share_that_both_show():
    """Of images without background the overlap is the share of points inside the other box, whichever way is more."""
    fixed = make_grid((30, 20, 16), (1.0, 1.5, 2.0), (0.0, 0.0, 0.0), np.eye(3))
    moving = make_grid((30, 20, 16), (1.0, 1.5, 2.0), (12.0, 0.0, 0.0), np.eye(3))
    found = collect_evidence(textured(fixed), textured(moving, 1), Field.zeros(fixed))
    assert found.overlap == pytest.approx(0.6, abs=0.04)
    small = make_grid((10, 10, 8), (1.0, 1.5, 2.0), (4.0, 3.0, 4.0), np.eye(3))
    found = collect_evidence(textured(fixed), textured(small, 1), Field.zeros(fixed))
    assert found.overlap == pytest.approx(1.0, abs=0.05)
    found = collect_evidence(textured(small), textured(fixed, 1), Field.zeros(small))
    assert found.overlap == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("dimension", [2, 3])
def test_what_is_left_to_move_is_found_in_mm(dimension):
    """A shift that is left is found in length and direction on an oblique grid; none is left where images agree."""
    grid = grid_at([3.0, -8.0, 21.0][:dimension], (40, 36, 34)[:dimension], (2.0,) * dimension, rotation(dimension))
    shift = np.array([6.0, -4.0, 5.0][:dimension])
    image = textured(grid)
    there = field_of_matrix(affine(grid, np.eye(dimension), shift), grid)
    moved = warp(image, there, outside=0.0)
    weight = Volume(torch.ones((1, *grid.shape)), grid)
    first, second = (Layer(Volume(torch.cat([v.data, v.data.square()]), grid), weight) for v in (moved, image))
    found = search_again(first, second, Field.zeros(grid))
    assert found.length_mm.median() == pytest.approx(float(np.linalg.norm(shift)), abs=2.0)  # half a node
    assert np.abs(found.wanted.median(1).values.numpy() - shift).max() < 2.0
    at_rest = search_again(first, first, Field.zeros(grid))
    assert float(at_rest.length_mm.max()) == 0.0
    assert at_rest.gain == 0.0


def test_nothing_seen_leaves_nothing_to_move():
    """Where no voxel counts the search says so."""
    grid = oblique_grid(3)
    layer = Layer(textured(grid), Volume(torch.zeros((1, *grid.shape)), grid))
    assert search_again(layer, layer, Field.zeros(grid)) is None


def test_the_best_shift_is_that_of_a_loop():
    """The match at rest, the best of all shifts and its length in mm are those of trying every shift one by one."""
    grid = make_grid((9, 8, 7), (1.0, 1.5, 2.5), (4.0, -9.0, 33.0), rotation(3))
    features = noise(2, *grid.shape).float()
    share = 0.7 + 0.3 * torch.rand(grid.shape, generator=torch.Generator().manual_seed(1))
    near = seen(Layer(Volume(features, grid), Volume(share[None], grid)))
    shifted = torch.roll(features, (1, -1, 2), (1, 2, 3)) + 0.3 * noise(2, *grid.shape, seed=5).float()
    far = seen(Layer(Volume(shifted, grid), Volume(share.flip(0)[None], grid)))
    found = try_shifts(near, far)
    scale = _unrelated(near, far)
    offsets = [(k - 3, j - 4, i - 4) for k, j, i in np.ndindex(7, 9, 9)]
    matches = {offset: _match(near, far, offset, scale) for offset in offsets}
    best = max(matches, key=lambda o: matches[o])
    assert best == (1, -1, 2)
    assert found.rest == pytest.approx(matches[0, 0, 0], abs=1e-4)
    assert found.best == pytest.approx(matches[best], abs=1e-4)
    assert found.shift_mm == pytest.approx(math.hypot(1 * 2.5, 1 * 1.5, 2 * 1.0))


def _unrelated(near, far):
    """Mean squared difference of all pairs of places, written out."""
    a, b = near.features.flatten(1).double(), far.features.flatten(1).double()
    wa, wb = (s.share.flatten().double() / s.share.double().sum() for s in (near, far))
    return float(((a[:, :, None] - b[:, None, :]).square().sum(0) * wa[:, None] * wb[None]).sum())


def _match(near, far, offset, scale):
    """Σ w (d₀ − d) / (d₀ √(Σw · W)), written out."""
    shape = near.share.shape
    here = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, shape, strict=True))
    there = tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, shape, strict=True))
    weight = near.share[here] * far.share[there]
    most = min(float(near.share.sum()), float(far.share.sum()))
    overlap = float(weight.sum())
    if overlap < 0.3 * most:
        return -1.0
    distance = (near.features[(slice(None), *here)] - far.features[(slice(None), *there)]).square().sum(0)
    return float((weight * (scale - distance)).sum()) / (scale * math.sqrt(overlap * most))


def test_the_match_is_one_minus_the_share_of_chance():
    """1 for equal features, about 0 for unrelated ones, by the distance of all pairs written out; None for none."""
    grid = make_grid((9, 8, 7), (1.0, 1.5, 2.5), (4.0, -9.0, 33.0), rotation(3))
    layer = Layer(Volume(noise(3, *grid.shape).float(), grid))
    other = Layer(Volume(noise(3, *grid.shape, seed=9).float(), grid))
    assert match_of(layer, layer) == pytest.approx(1.0)
    expected = (layer.features.data - other.features.data).square().sum(0).mean() / _unrelated(seen(layer), seen(other))
    assert match_of(layer, other) == pytest.approx(1 - float(expected), abs=1e-4)
    assert abs(match_of(layer, other)) < 0.1
    assert match_of(Layer(layer.features, Volume(torch.zeros((1, *grid.shape)), grid)), other) is None


def test_the_working_size_is_bounded():
    """Images of any size are looked at on about as many voxels, and never on finer ones than their own."""
    large = Grid.of_shape((512, 400, 300), (0.4, 0.5, 0.9))
    assert working_grid(large, SIDE[3]).voxels < 1.2 * SIDE[3] ** 3
    small = Grid.of_shape((20, 18, 16), (1.0, 1.5, 2.0))
    assert min(working_grid(small, SIDE[3]).spacing) == 1.0


def test_the_order_of_the_axes_changes_nothing():
    """The same voxels stored in another order of axes give the same evidence."""
    grid = grid_at([3.0, -8.0, 21.0], (22, 20, 18), (2.0, 2.0, 2.0), rotation(3))
    image, other = textured(grid), textured(grid, 3)
    field = smooth_field(grid, 3.0)
    field = Field(field.vox.float(), grid)
    turned = AxisOrder((1, 2, 0), (0,))
    here = collect_evidence(image, other, field)
    there = collect_evidence(image.reordered(turned), other.reordered(turned), field.reordered(turned))
    for name in ("overlap", "scale", "bending_mm", "match", "residual_mm", "mismatch", "tear_share"):
        assert getattr(there, name) == pytest.approx(getattr(here, name), rel=0.05, abs=0.02), name


# Bad input


def test_a_field_with_nan_fails():
    """A field that is not finite fails with its share, and nothing else is measured."""
    grid = oblique_grid(3)
    field = Field.zeros(grid)
    field.vox[1, 2] = torch.nan
    verdict = judge(collect_evidence(textured(grid), textured(grid, 1), field))
    assert verdict.level == "FAIL"
    assert check(verdict, "finite").value == pytest.approx(100 / 5)
    assert "NaN" in verdict.reasons[0]
    assert check(verdict, "match").level is None
    assert "not finite" in check(verdict, "match").sentence


def test_missing_voxels_are_counted_and_left_out():
    """NaN in an image is counted and influences nothing else; an image of NaN alone is refused with what to do."""
    grid = grid_at([3.0, -8.0, 21.0], (22, 20, 18), (2.0, 2.0, 2.0), rotation(3))
    image = textured(grid)
    holed = Volume(image.data.clone(), grid)
    holed.data[:, :12] = torch.nan
    found = collect_evidence(image, holed, Field.zeros(grid))
    assert found.missing == pytest.approx(12 / 18)
    assert found.match == pytest.approx(1.0, abs=0.05)
    assert check(judge(found), "missing").level == "REVIEW"
    with pytest.raises(ImageError, match="check the file"):
        collect_evidence(image, Volume(torch.full_like(image.data, torch.nan), grid), Field.zeros(grid))


def test_images_apart_fail():
    """Where nothing overlaps the verdict is FAIL by the overlap, and what needs both images is not measured."""
    grid = oblique_grid(3)
    away = Field.from_mm(torch.full((3, *grid.shape), 900.0), grid)
    verdict = judge(collect_evidence(textured(grid), textured(grid, 1), away))
    assert check(verdict, "overlap").value == 0.0
    assert check(verdict, "overlap").level == verdict.level == "FAIL"
    assert check(verdict, "match").level is None


def test_a_field_of_another_dimension_is_refused():
    """A field in 2-D for images in 3-D is an error in one sentence, not a verdict."""
    grid = oblique_grid(3)
    with pytest.raises(GeometryError, match="got one in 2-D"):
        collect_evidence(textured(grid), textured(grid), Field.zeros(oblique_grid(2)))


@pytest.mark.parametrize("size", [(24, 20, 1), (1, 20, 24), (6, 5, 4)])
def test_thin_and_tiny_images_have_a_verdict(size):
    """Slices and images of a few voxels are judged without an error, and equal ones are not failed."""
    grid = make_grid(size, (1.0, 1.5, 4.0), (4.0, -9.0, 33.0), rotation(3))
    image = textured(grid, radius=1)
    assert judge(collect_evidence(image, image, Field.zeros(grid))).level != "FAIL"
