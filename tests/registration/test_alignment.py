"""Promises of the alignment: found from anywhere, left out where it is not needed, and said where it may be wrong."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from conftest import grid_at, noise, rotation
from placed_pair import describe, fixed_grid, linear, moved, moving_grid, placed_pair, shown
from semreg.config import AlignConfig
from semreg.core.fields import Volume
from semreg.core.geometry import AxisOrder
from semreg.errors import GeometryError
from semreg.phantom.anatomy import CENTRE_MM
from semreg.registration.parametric.align import align, plan_spacings
from semreg.registration.parametric.overlap import Picture
from semreg.registration.parametric.telling import Telling
from semreg.transforms.maps import angle_deg, scales

MM = {2: 6.0, 3: 11.0}
"""Voxels of the search; the finest are half as large."""
STRETCH = np.diag([1.15, 0.92, 1.06]) + np.array([[0, 0.06, 0], [0, 0, 0.05], [0.04, 0, 0]])


def settings(dimension, **more):
    """Cheap ones: in 3-D large voxels and rotations up to 20°."""
    cheap = {"spacing_mm": MM[dimension], "levels": 2, "rotation_deg": None if dimension == 2 else 20.0}
    return AlignConfig(**{**cheap, **more})


def aligned(pair, **more):
    start, reach, on_step = (more.pop(name, None) for name in ("start", "reach_mm", "on_step"))
    config = settings(pair.fixed.image.grid.dimension, **more)
    telling = Telling(on_step, config.iterations)
    return align(pair.fixed, pair.moving, describe, config, start=start, reach_mm=reach or 0.0, telling=telling)


def everything(volume):
    """A picture of which all counts."""
    return Picture(volume, None, Volume(torch.ones_like(volume.data), volume.grid))


def pair_of(fixed, moving, truth=None):
    """A pair whose pictures are these."""
    return replace(EMPTY[fixed.image.grid.dimension], fixed=fixed, moving=moving)


EMPTY = {n: placed_pair(np.eye(n + 1), fixed=fixed_grid(n, 8), moving=fixed_grid(n, 8)) for n in (2, 3)}


@pytest.mark.parametrize("dimension", [2, 3])
def test_images_that_share_nothing_in_their_headers(dimension):
    """The right map is found where the boxes of the headers lie far apart, to a fraction of a voxel."""
    pair = placed_pair(linear(dimension, degrees=6.0, shift=(700.0, -420.0, 310.0)))
    found = aligned(pair)
    assert found.moves
    assert found.match_before is None
    assert found.family == "rigid"
    assert found.doubts == ()
    assert pair.error(found.matrix) < 0.35 * MM[dimension] / 2
    assert found.overlap > 0.8


@pytest.mark.parametrize("dimension", [2, 3])
def test_images_that_are_turned_far(dimension):
    """35° and 30 mm away: found, said to be searched, and better than the headers."""
    pair = placed_pair(linear(dimension, degrees=35.0, shift=(30.0, -12.0, 14.0)))
    found = aligned(pair, rotation_deg=None if dimension == 2 else 35.0)
    assert pair.error(found.matrix) < 0.35 * MM[dimension] / 2
    assert found.match > 1.5 * found.match_before
    assert "rotations up to" in found.decisions[0]
    np.testing.assert_allclose(scales(found.matrix), 1.0, atol=1e-9)
    assert found.doubts == ()
    assert [level["spacing_mm"] for level in found.levels] == sorted(
        {level["spacing_mm"] for level in found.levels}, reverse=True
    )


def test_an_image_upside_down():
    """In 2-D any rotation is found by default."""
    pair = placed_pair(linear(2, degrees=171.0, shift=(30.0, -12.0)))
    assert pair.error(aligned(pair).matrix) < 2.0


@pytest.mark.parametrize("dimension", [2, 3])
def test_images_that_share_two_thirds(dimension):
    """Each image shows about two thirds of the body, at opposite ends: found, with the share that both show."""
    truth = linear(dimension, degrees=5.0, shift=(250.0, -60.0, 90.0))
    grids = fixed_grid(dimension), moving_grid(dimension, truth)
    left, right = [
        grid.part((0,) * dimension, (*grid.shape[:-1], round(0.7 * grid.shape[-1])))
        if first
        else grid.part((*[0] * (dimension - 1), round(0.25 * grid.shape[-1])), grid.shape)
        for grid, first in zip(grids, (True, False), strict=True)
    ]
    pair = placed_pair(truth, fixed=left, moving=right)
    found = aligned(pair)
    assert pair.error(found.matrix) < 0.5 * MM[dimension] / 2
    assert 0.4 < found.overlap < 0.8


FAMILY_TRUTHS = {
    "translation": {},
    "rigid": {"degrees": 8.0},
    "similarity": {"degrees": 8.0, "stretch": 1.12 * np.eye(3)},
    "affine": {"degrees": 8.0, "stretch": STRETCH},
}


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("family", list(FAMILY_TRUTHS))
def test_each_family_can_be_asked_for(family, dimension):
    """A map of the family asked for is found to a fraction of a voxel, and it is one of that family."""
    pair = placed_pair(linear(dimension, shift=(20.0, -12.0, 14.0), **FAMILY_TRUTHS[family]))
    found = aligned(pair, transform=family)
    assert found.family == family
    assert pair.error(found.matrix) < 0.45 * MM[dimension] / 2
    sizes = scales(found.matrix)
    if family == "translation":
        np.testing.assert_array_equal(found.matrix[:-1, :-1], np.eye(dimension))
    elif family == "rigid":
        np.testing.assert_allclose(sizes, 1.0, atol=1e-9)
    elif family == "similarity":
        assert max(sizes) - min(sizes) < 1e-9
        assert sizes[0] == pytest.approx(1.12, abs=0.03)


@pytest.mark.parametrize("dimension", [2, 3])
def test_affine_only_where_it_is_needed(dimension):
    """By default a stretched body gets an affine map, a rigidly moved one a rigid map, and the decisions say so."""
    shift = (120.0, -12.0, 14.0)
    stretched = placed_pair(linear(dimension, shift=shift, stretch=STRETCH))
    found = aligned(stretched, rotation_deg=0.0)
    assert found.family == "affine"
    assert stretched.error(found.matrix) < 0.45 * MM[dimension] / 2
    assert re.search(r"An affine map matches better \(0\.\d+\) than a rigid one", found.decisions[-1])
    same = placed_pair(linear(dimension, shift=shift))
    assert aligned(same, rotation_deg=0.0).family == "rigid"


@pytest.mark.parametrize("dimension", [2, 3])
def test_good_headers_are_left_alone(dimension):
    """Where the headers match as well as the best map nothing is applied, and that is said."""
    pair = placed_pair(np.eye(dimension + 1))
    found = aligned(pair)
    assert (found.family, found.moves) == ("none", False)
    np.testing.assert_array_equal(found.matrix, np.eye(dimension + 1))
    assert found.match == found.match_before
    assert "than the headers" in found.decisions[-1]
    assert found.decisions[-1].endswith("no alignment is applied.")
    assert found.doubts == ()


def test_a_shift_is_left_to_a_later_search():
    """A shift within the reach of what follows is left out; beyond it, without a reach, or asked for, it is applied."""
    pair = placed_pair(linear(2, shift=(14.0, -9.0)))
    left = aligned(pair, reach_mm=70.0)
    assert left.family == "none"
    assert "than the headers with the shift that the search covers" in left.decisions[-1]
    assert aligned(pair, reach_mm=20.0).family == "rigid"
    assert aligned(pair).family == "rigid"
    assert aligned(pair, reach_mm=70.0, transform="rigid").family == "rigid"


@pytest.mark.parametrize(
    ("dimension", "spacing_mm", "change"),
    [(2, 3.5, {"degrees": 5.0}), (2, 3.5, {"stretch": 1.05 * np.eye(3)}), (3, 7.0, {"stretch": 1.12 * np.eye(3)})],
)
def test_a_small_turn_or_another_size_is_not_left_to_it(dimension, spacing_mm, change):
    """What is within reach but turned or of another size is aligned: the regularity of what follows resists that."""
    pair = placed_pair(linear(dimension, shift=(4.0, -6.0, 3.0), **change))
    found = aligned(pair, reach_mm=90.0, spacing_mm=spacing_mm)
    assert pair.error(found.matrix) < 0.5 * spacing_mm < pair.error(np.eye(dimension + 1))
    assert min(sure for _, sure in found.evidence) > 1.28


def test_of_two_places_that_match_alike_none_is_taken():
    """A body that is in the moving image twice, turned the second time, gets no alignment, and it is said why."""
    grid = grid_at(CENTRE_MM[:2], (60, 52), (3.0, 3.1), np.eye(2))
    half = shown(grid, "ct", noise=0.0).data
    both = half + half.flip((1, 2))
    pictures = [
        everything(Volume(both + noise(1, *grid.shape, seed=k, dtype=torch.float32), g))
        for k, g in enumerate((grid, moved(grid, (110.0, 40.0))))
    ]
    found = aligned(pair_of(*pictures), reach_mm=30.0)
    assert found.match_before is not None
    assert found.family == "none"
    np.testing.assert_array_equal(found.matrix, np.eye(3))
    assert "is not applied: another one" in " ".join(found.decisions)
    assert any("another position" in doubt for doubt in found.doubts)


@pytest.mark.parametrize("limit", [0.0, 8.0, 25.0])
def test_rotations_stay_within_their_limit(limit):
    """A body turned by 90° is not followed beyond the limit that was set, but for what descent adds."""
    pair = placed_pair(linear(2, degrees=90.0, shift=(15.0, 0.0)))
    assert angle_deg(aligned(pair, transform="rigid").matrix) == pytest.approx(90.0, abs=2.0)
    found = aligned(pair, transform="rigid", rotation_deg=limit, iterations=1)
    assert angle_deg(found.matrix) < limit + 10.0
    words = "no rotation" if limit == 0 else f"rotations up to {limit:g}°"
    assert words in found.decisions[0]


def test_it_starts_where_it_is_told():
    """A start near the truth is refined without a search, and one that is right is kept by default."""
    truth = linear(3, degrees=60.0, shift=(200.0, -40.0, 70.0))
    pair = placed_pair(truth)
    near = truth @ linear(3, degrees=5.0, shift=(8.0, -6.0, 5.0))
    found = aligned(pair, start=near)
    assert pair.error(near) > 9.0
    assert pair.error(found.matrix) < 2.0
    assert not any("searched" in sentence for sentence in found.decisions)
    kept = aligned(pair, start=truth)
    assert kept.family == "none"
    np.testing.assert_array_equal(kept.matrix, truth)
    assert "than the initial transform" in kept.decisions[-1]


def test_a_start_without_overlap_is_doubtful():
    """A start that brings nothing together ends where it was and says that nothing is shared."""
    pair = placed_pair(linear(2))
    away = linear(2, shift=(5000.0, 0.0))
    for transform in ("auto", "affine"):
        found = aligned(pair, start=away, transform=transform)
        assert any("share only 0%" in doubt for doubt in found.doubts)
        np.testing.assert_array_equal(found.matrix, away)
        assert found.overlap == 0.0


def test_a_body_that_fits_twice_is_ambiguous():
    """A body that looks the same upside down is found, with the other position and how far away it is."""
    grid = grid_at(CENTRE_MM[:2], (60, 52), (3.0, 3.1), np.eye(2))
    half = shown(grid, "ct", noise=0.0).data
    both = half + half.flip((1, 2))
    fixed = everything(Volume(both + noise(1, *grid.shape, dtype=torch.float32), grid))
    moving = everything(Volume(both + noise(1, *grid.shape, seed=1, dtype=torch.float32), moved(grid, (300.0, 40.0))))
    found = aligned(pair_of(fixed, moving))
    assert len(found.doubts) == 1
    assert re.match(r"another position, up to \d+ mm and 1(79|80)° away, matches almost as well", found.doubts[0])
    once = everything(Volume(half, grid)), everything(Volume(half, moved(grid, (300.0, 40.0))))
    assert aligned(pair_of(*once)).doubts == ()


def test_stripes_are_ambiguous():
    """Stripes match again a period away, in the orientation of the headers as well: said."""
    grid = grid_at((5.0, 9.0), (70, 50), (3.0, 3.1), np.eye(2))
    x = torch.arange(70, dtype=torch.float32) * 3.0
    y = torch.arange(50, dtype=torch.float32)[:, None] * 3.1
    stripes = torch.sin(2 * np.pi * x / 36.0) + torch.sin(2 * np.pi * y / 41.0)
    for rotation_deg in (0.0, None):
        pictures = [
            everything(Volume(stripes[None] + 0.05 * noise(1, 50, 70, seed=seed, dtype=torch.float32), grid))
            for seed in (1, 2)
        ]
        found = aligned(pair_of(*pictures), rotation_deg=rotation_deg, transform="rigid")
        assert any("another position" in doubt for doubt in found.doubts)


@pytest.mark.parametrize("dimension", [2, 3])
def test_noise_is_doubtful(dimension):
    """Two images of noise get no alignment without a doubt, whether or not their boxes meet."""
    fixed, moving = fixed_grid(dimension, 24), moving_grid(dimension, np.eye(dimension + 1), 24)
    for shift in (0.0, 900.0):
        far = moved(moving, [shift] * dimension)
        pictures = [
            everything(Volume(noise(1, *g.shape, seed=k, dtype=torch.float32), g)) for k, g in enumerate((fixed, far))
        ]
        found = aligned(pair_of(*pictures), rotation_deg=10.0)
        assert found.doubts != ()
        assert found.match < 0.3


def test_little_overlap_is_said():
    """Where the images share less than half of what the smaller one shows, the doubt gives the share."""
    left, right = [
        grid_at(np.add(CENTRE_MM[:2], (side * 42.0, 0.0)), (40, 56), (3.0, 3.1), rotation(2, 3.0)) for side in (-1, 1)
    ]
    pair = placed_pair(np.eye(3), fixed=left, moving=right)
    found = aligned(pair, transform="translation")
    assert pair.error(found.matrix) < 3.0
    shares = [re.fullmatch(r"the images share only (\d+)% of what the smaller one shows", d) for d in found.doubts]
    assert [float(share[1]) for share in shares if share] == [pytest.approx(100 * found.overlap, abs=0.5)]


@pytest.mark.parametrize("dimension", [2, 3])
def test_an_overlap_that_cannot_be_reached_is_refused(dimension):
    """Where no position shows enough of both images: what was expected, what came and what to do."""
    pair = placed_pair(linear(dimension, shift=(900.0, 0.0, 0.0)), contrast="ct")
    with pytest.raises(GeometryError, match=r"at least 100% of the smaller one's content, got none: lower align.min"):
        aligned(pair, minimum_overlap=1.0)


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_same_twice(dimension):
    """The same images give the same map, match and words twice."""
    pair = placed_pair(linear(dimension, degrees=7.0, shift=(200.0, -12.0, 14.0)))
    limit = None if dimension == 2 else 0.0
    first, second = (aligned(pair, rotation_deg=limit) for _ in range(2))
    np.testing.assert_array_equal(first.matrix, second.matrix)
    assert (first.match, first.decisions, first.levels) == (second.match, second.decisions, second.levels)


@cache
def found_as_stored(dimension):
    """The map between the arrays as they are."""
    pair = placed_pair(linear(dimension, degrees=4.0, shift=(200.0, -12.0, 14.0)))
    return aligned(pair, transform="rigid", rotation_deg=0.0)


@pytest.mark.parametrize(
    ("order", "flips"), [((0, 1, 2), (0, 1, 2)), ((2, 0, 1), (0,)), ((1, 0), (1,)), ((0, 1), (0,))]
)
def test_storage_does_not_matter(order, flips):
    """Arrays whose axes are permuted and flipped, with the header that says so, give the same map."""
    dimension = len(order)
    pair = placed_pair(linear(dimension, degrees=4.0, shift=(200.0, -12.0, 14.0)))
    axes = AxisOrder(order, flips)
    stored = [Picture(p.image.reordered(axes), None, p.content.reordered(axes)) for p in (pair.fixed, pair.moving)]
    plain = found_as_stored(dimension)
    for fixed, moving in ((stored[0], pair.moving), (pair.fixed, stored[1])):
        found = aligned(replace(pair, fixed=fixed, moving=moving), transform="rigid", rotation_deg=0.0)
        assert replace(pair, truth=plain.matrix).error(found.matrix) < 0.1 * MM[dimension] / 2
        assert found.match == pytest.approx(plain.match, abs=0.02)


@pytest.mark.parametrize("dimension", [2, 3])
def test_excluded_voxels_influence_nothing(dimension):
    """Whatever excluded voxels of either image hold, the map is the same to the last bit, and it is right."""
    pair = placed_pair(linear(dimension, degrees=4.0, shift=(200.0, -12.0, 14.0)))
    ends = []
    for garbage in (4e9, -3000.0):
        pictures = []
        for side in (pair.fixed, pair.moving):
            weight = torch.ones_like(side.image.data)
            weight[..., :7, 4:16] = 0.0
            values = Volume(torch.where(weight > 0, side.image.data, garbage), side.image.grid)
            pictures.append(Picture(values, Volume(weight, side.image.grid), side.content))
        ends.append(aligned(replace(pair, fixed=pictures[0], moving=pictures[1]), transform="rigid", rotation_deg=0.0))
    assert pair.error(ends[0].matrix) < 0.5 * MM[dimension] / 2
    for other in ends[1:]:
        np.testing.assert_array_equal(ends[0].matrix, other.matrix)
        assert ends[0].match == other.match


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("moving_too", [True, False])
def test_images_that_show_nothing(dimension, moving_too):
    """Constant images are no error and never aligned without a doubt; if both are, the headers stand."""
    grid, other = fixed_grid(dimension, 20), moving_grid(dimension, np.eye(dimension + 1), 20)
    flat = [everything(Volume(torch.full((1, *g.shape), 7.0), g)) for g in (grid, other)]
    fixed = flat[0] if moving_too else everything(shown(grid, "ct"))
    found = aligned(pair_of(fixed, flat[1]), rotation_deg=10.0)
    assert found.doubts != ()
    assert np.isfinite(found.matrix).all()
    assert "the moving image shows nothing that a place could be told by" in found.doubts
    if moving_too:
        assert found.family == "none"
        assert "the features match no better than those of unrelated places" in found.doubts


def test_no_content_is_doubtful():
    """Where nothing counts nothing is shared: the headers stand, with a doubt; without them there is no position."""
    pair = placed_pair(linear(2))
    nothing = [
        Picture(p.image, None, Volume(torch.zeros_like(p.content.data), p.image.grid))
        for p in (pair.fixed, pair.moving)
    ]
    found = aligned(pair_of(*nothing))
    assert found.family == "none"
    assert any("share only 0%" in doubt for doubt in found.doubts)
    away = Picture(Volume(nothing[1].image.data, moved(nothing[1].image.grid, (900.0, 0.0))), None, nothing[1].content)
    away = replace(away, content=Volume(away.content.data, away.image.grid))
    with pytest.raises(GeometryError, match="expected a position where both images show"):
        aligned(pair_of(nothing[0], away))


def test_images_of_one_slice():
    """One slice onto one slice in 3-D: found in its plane, and moved nowhere else."""
    shift = (60.0, -35.0, 0.0)
    grids = [
        grid_at(np.array(CENTRE_MM) + offset, (*size, 1), (4.0, 4.2, 5.0), np.eye(3))
        for offset, size in (((0.0, 0.0, 0.0), (48, 40)), (shift, (45, 43)))
    ]
    truth = linear(3, shift=shift)
    pair = placed_pair(truth, fixed=grids[0], moving=grids[1], contrast="ct")
    found = aligned(pair, transform="rigid", spacing_mm=None, rotation_deg=20.0)
    assert pair.error(found.matrix) < 2.0
    assert abs(found.matrix[2, 3]) < 1.0


def test_one_slice_onto_a_volume():
    """A single slice is found along all three axes of a volume, across it to a voxel of the search."""
    slice_grid = grid_at(np.add(CENTRE_MM, (0.0, 0.0, 10.0)), (50, 42, 1), (4.0, 4.2, 6.0), np.eye(3))
    truth = linear(3, shift=(250.0, 30.0, -40.0))
    pair = placed_pair(truth, fixed=slice_grid, moving=moving_grid(3, truth), contrast="ct")
    found = aligned(pair, transform="translation", spacing_mm=6.0)
    on_slice = [CENTRE_MM + np.array([x, y, 10.0]) for x, y in itertools.product((-60.0, 60.0), (-40.0, 40.0))]
    away = [np.linalg.norm(((found.matrix - truth) @ np.append(point, 1.0))[:3]) for point in on_slice]
    assert max(away) < 6.0


@pytest.mark.parametrize("dimension", [2, 3])
def test_resolutions_go_from_coarse_to_fine(dimension):
    """Each resolution is twice as fine as the one before, and none finer than the fixed image."""
    grid, other = fixed_grid(dimension, 50), moving_grid(dimension, np.eye(dimension + 1), 50)
    spacings = plan_spacings(grid, other, AlignConfig(spacing_mm=16.0, levels=6))
    assert spacings[0] == 16.0
    assert all(a == 2 * b for a, b in itertools.pairwise(spacings))
    assert spacings[-1] >= 0.98 * min(grid.spacing) > spacings[-1] / 2
    assert len(plan_spacings(grid, other, AlignConfig(spacing_mm=16.0, levels=1))) == 1
    tiny = plan_spacings(fixed_grid(dimension, 4), fixed_grid(dimension, 4), AlignConfig())
    assert tiny == [min(fixed_grid(dimension, 4).spacing)]


def test_it_tells_each_step():
    """A listener hears the level of each step of a descent, how many levels there are, and the match."""
    told = []
    found = aligned(placed_pair(linear(2, shift=(200.0, 0.0))), on_step=told.append, transform="rigid")
    steps = [step for step in told if np.isfinite(step.value)]
    assert {step.level for step in steps} == set(range(1, len(found.levels) + 1))
    assert {step.levels for step in told} == {len(found.levels)}
    assert 1 - min(step.value for step in steps if step.level == 1) == pytest.approx(found.match)
    assert 1 - told[-1].value == pytest.approx(found.levels[-1]["match"])


@pytest.mark.parametrize(
    ("dimension", "truth", "searched"),
    [(3, {}, 7), (3, {"degrees": 20.0, "shift": (30.0, -12.0, 14.0)}, 30), (2, {"shift": (200.0, 0.0)}, 30)],
)
def test_what_is_done_is_told_all_along(dimension, truth, searched):
    """The share that is done never falls, moves with each rotation that is tried and with descents, and ends at 1."""
    told = []
    aligned(placed_pair(linear(dimension, **truth)), on_step=told.append)
    shares = [step.done for step in told]
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.2
    assert shares[-1] == 1.0
    tried = [step for step in told if np.isnan(step.value)]
    assert len(tried) > searched
    assert all(1 <= step.iteration <= step.iterations for step in told)
    assert len(set(shares)) > 0.7 * len(shares)
    assert max(np.diff(shares[:-1])) < 0.5  # parts that are not needed are passed over
    assert {step.stage for step in told} == {"align"}
