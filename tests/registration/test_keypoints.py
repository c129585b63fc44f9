"""Promises of keypoints: partners are right and far away, wrong and excluded ones go, and they lead the search."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import grid_at, noise, rotation, smooth_field
from semreg import RegistrationConfig, plan, register, write_image
from semreg.cli import main
from semreg.config import AlignConfig, CoarseConfig, KeypointConfig, RefineConfig
from semreg.core.fields import Field, Layer, Volume, warp
from semreg.core.geometry import Grid
from semreg.core.sampling import smooth
from semreg.errors import ConfigError
from semreg.features.descriptors import DESCRIPTORS
from semreg.features.extract import describe
from semreg.io.bridge import sitk_transform
from semreg.registration.dense import keypoints
from semreg.registration.dense.keypoints import Matches, distinctive, matches
from semreg.registration.dense.prior import Prior
from semreg.runtime.memory import give_back_memory, held_bytes, watched_peak
from semreg.transforms.points.reading import read_points
from semreg.transforms.points.writing import ending_of, write_points

QUICK = RegistrationConfig(
    align=AlignConfig(transform="none"), refine=RefineConfig(iterations=2, symmetric=False, local_correlation=0.0),
    coarse=CoarseConfig(reach_mm=6.0),
)  # fmt: skip
LOOKED = replace(QUICK, keypoints=KeypointConfig(enabled=True, reach_mm=30.0))
SHIFT = (21.0, -17.0)


def texture(grid: Grid, seed: int = 0) -> Volume:
    """Blobs of a few voxels."""
    return Volume(100 * smooth(noise(1, *grid.shape, seed=seed, dtype=torch.float32), passes=2), grid)


def described(volume: Volume, weight: Volume | None = None) -> Layer:
    """Its MIND-SSC."""
    return describe(volume, DESCRIPTORS["mind"].of("mind", volume.grid.dimension, ()), weight=weight)


def shifted(grid: Grid, steps: tuple[int, ...], seed: int = 0) -> tuple[Volume, Volume]:
    """Two views of one texture: what lies at an index in the first lies ``steps`` voxels further in the second."""
    margin = [abs(step) for step in steps]
    whole = texture(grid.part([-m for m in margin], [n + m for n, m in zip(grid.shape, margin, strict=True)]), seed)
    cut = [
        whole.data[(slice(None), *[slice(m - s, m - s + n) for n, m, s in zip(grid.shape, margin, by, strict=True)])]
        for by in ((0,) * len(steps), steps)
    ]
    return Volume(cut[0].contiguous(), grid), Volume(cut[1].contiguous(), grid)


def found_in(fixed: Volume, moving: Volume, reach_mm: float, axes: tuple[str, ...] = ()) -> Matches:
    """The pairs of two images on one grid."""
    return matches(fixed, described(fixed), described(moving), reach_mm, axes)


@pytest.fixture(scope="module")
def apart() -> tuple[Volume, Volume]:
    """Two pictures of 96 pixels, one 27 pixels away from where the other is: further than the search goes."""
    grid = grid_at((5.0, -20.0), (96, 96), (1.0, 1.0), np.eye(2))
    return shifted(grid, (int(SHIFT[1]), int(SHIFT[0])))


@pytest.mark.parametrize(
    ("shape", "steps"), [((30, 28, 26), (9, -7, 5)), ((80, 70), (-19, 12)), ((1, 60, 60), (0, 9, 9))]
)
def test_partners_are_found_far_away(shape, steps):
    """In 3-D, 2-D and a single slice, of voxels that are not 1 mm: nearly all that both images show, exactly."""
    grid = Grid.of_shape(shape, (1.5,) * len(shape))
    fixed, moving = shifted(grid, steps)
    found = found_in(fixed, moving, 1.5 * 21)
    end = found.points.fixed + torch.tensor(steps)[:, None]
    seen = ((end >= 0) & (end <= torch.tensor(shape)[:, None] - 1)).all(0)
    assert int(seen.sum()) > 20
    assert int(seen.sum()) > 0.8 * found.points.fixed.shape[1]
    off = (found.points.moving - end)[:, seen].abs().amax(0)
    assert float(off.median()) < 0.2
    assert float(off.quantile(0.9)) < 1.0
    assert float(found.points.sd_mm[seen].median()) < 1.5


def test_a_warp_is_followed_between_the_voxels():
    """The error of a smooth deformation is a part of a voxel, and about what the standard deviation says."""
    grid = Grid.of_shape((40, 40, 40), (2.0, 2.0, 2.0))
    field = smooth_field(grid, 5.0)
    moving = texture(grid)
    found = found_in(warp(moving, Field(field.vox.float(), grid), outside=0.0), moving, 16.0).points
    index = found.fixed.long()
    off = (found.moving - found.fixed - field.vox[(slice(None), *index)]) * 2.0
    inner = ((index > 6) & (index < 33)).all(0)
    error = off[:, inner].norm(dim=0)
    assert float(error.median()) < 1.6
    assert float((error / found.sd_mm[inner]).median()) < 2.0


def test_what_the_way_back_contradicts_is_left_out():
    """Where the moving image shows other tissue most points go, elsewhere nearly all are kept."""
    grid = Grid.of_shape((110, 110), (1.0, 1.0))
    fixed = texture(grid)
    moving = Volume(fixed.data.clone(), grid)
    moving.data[:, :, 55:] = texture(grid, seed=5).data[:, :, 55:]
    looked = distinctive(fixed.data[0])
    found = found_in(fixed, moving, 12.0)
    there = [int((points > 60).sum()) for points in (looked[:, 1], found.points.fixed[1])]
    here = [int((points < 50).sum()) for points in (looked[:, 1], found.points.fixed[1])]
    assert found.looked == len(looked)
    assert here[1] > 0.95 * here[0] > 40
    assert there[1] < 0.4 * there[0]  # by chance each of two can be the other's best


def test_neighbours_choose_between_candidates():
    """One whose own costs say little goes where its neighbours go; groups that slide along each other stay apart."""
    places = torch.stack([torch.arange(12.0), torch.zeros(12)], 1).double() * 5
    true = torch.where(places[:, :1] < 30, torch.tensor([[20.0, 0.0]]), torch.tensor([[0.0, 0.0]])).double()
    wrong = torch.tensor([-10.0, 30.0]).double().expand(12, 2)
    steps = torch.stack([wrong, true, -true - 7], 1)
    costs = torch.tensor([2.0, 0.5, 2.0]).double().repeat(12, 1)
    costs[3] = torch.tensor([0.5, 1.0, 2.0])
    assert int(costs.argmin(1)[3]) == 0
    assert keypoints._beliefs(places, steps, costs, 2.0).argmin(1).tolist() == [1] * 12
    assert keypoints._beliefs(places[:1], steps[:1], costs[:1], 2.0).argmin(1).tolist() == [1]


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_plan_knows_what_neighbours_take(dimension):
    """As many points as there may be, with all their candidates: no more memory than is planned, and much of it."""
    generator, grid = torch.Generator().manual_seed(0), Grid.of_shape((64,) * dimension, (1.0,) * dimension)
    places = 64 * torch.rand(keypoints.MOST_POINTS, dimension, generator=generator).double()
    steps = torch.randint(-24, 25, (len(places), keypoints.CANDIDATES, dimension), generator=generator).double()
    costs = torch.rand(len(places), keypoints.CANDIDATES, generator=generator).double()
    give_back_memory()
    before = held_bytes()
    with watched_peak() as peak:
        keypoints._beliefs(places, steps, costs, 1.0)
    taken, planned = peak() - before, keypoints.memory_bytes(grid, grid, 24.0)
    assert 0.6 * planned < taken < planned


@pytest.mark.parametrize("shape", [(1000, 1000), (72, 72, 72)])
def test_the_plan_knows_what_structure_takes(monkeypatch, shape):
    """Beside the features of both images, which are held meanwhile: no more than is planned, and much of it."""
    monkeypatch.setattr(keypoints, "MOST_POINTS", 30)
    grid = Grid.of_shape(shape, (1.0,) * len(shape))
    image = texture(grid).data[0]
    give_back_memory()
    before = held_bytes()
    with watched_peak() as peak:
        distinctive(image)
    features = 8 * ({2: 4, 3: 12}[len(shape)] + 2) * 2 * grid.voxels
    planned = keypoints.memory_bytes(grid, grid, 24.0) - features
    assert 0.3 * planned < peak() - before < planned


def test_points_lie_in_both_masks():
    """Of a fixed and a moving mask; and the intensities outside of them change nothing."""
    grid = Grid.of_shape((60, 60), (1.0, 1.0))
    fixed, moving = shifted(grid, (6, 4))
    inside = [torch.zeros(1, 60, 60) for _ in range(2)]
    inside[0][:, 10:45, 8:50], inside[1][:, 20:50, 12:48] = 1, 1
    results = []
    for junk in (0.0, 1e4):
        seen = [
            Volume(torch.where(mask > 0, each.data, junk * noise(1, 60, 60, dtype=torch.float32)), grid)
            for mask, each in zip(inside, (fixed, moving), strict=True)
        ]
        layers = [described(each, Volume(mask, grid)) for each, mask in zip(seen, inside, strict=True)]
        image = Volume(torch.where(inside[0] > 0, seen[0].data, 0.0), grid)
        results.append(matches(image, *layers, 15.0).points)
    found = results[0]
    assert found.fixed.shape[1] > 20
    for mask, points in ((inside[0], found.fixed), (inside[1], found.moving)):
        assert bool((mask[0][tuple(points.round().long())] == 1).all())
    torch.testing.assert_close(found.moving, results[1].moving)


def test_a_place_outside_of_the_mask_is_no_candidate():
    """Even where enough of the patch around it is seen; nor is one of which too little is."""
    window = torch.ones(4, 9, 9)
    window[-1, 4, 4] = 0
    window[-1, :, 7:] = 0
    taps = [(row, column) for row in (0, 1, 2) for column in (0, 1, 2)]
    costs = keypoints._costs(torch.ones(9, 4), window, taps, (7, 7))
    assert bool(torch.isinf(costs[3, 3]))
    assert bool(torch.isinf(costs[:, 6]).all())
    assert int(torch.isinf(costs).sum()) == 8


def test_flat_places_and_edges_are_not_distinctive():
    """Points lie where the image changes along all axes; a ramp has none; too many become fewer, evenly."""
    image = torch.zeros(40, 40, 40)
    image[10:20, 10:20, 10:20] = 100.0
    corners = distinctive(image)
    assert 8 <= len(corners) <= 24
    assert bool((((corners - 9.5).abs() <= 2) | ((corners - 19.5).abs() <= 2)).all())
    ramp = torch.arange(30.0)[:, None, None].expand(30, 30, 30)
    assert len(distinctive(ramp)) == 0
    assert len(distinctive(torch.full((9, 9), 3.0))) == 0
    many = distinctive(texture(Grid.of_shape((300, 300), (1.0, 1.0))).data[0])
    assert 200 < len(many) <= keypoints.MOST_POINTS
    assert np.unique((many.numpy() // 60), axis=0).shape == (25, 2)


@pytest.mark.parametrize("shape", [(180, 180), (1, 180, 180), (48, 48, 48)])
def test_patterns_whose_points_are_all_alike_come_to_an_end(shape):
    """A chessboard has thousands of equal corners, which no neighbourhood parts: some from all over it."""
    board = torch.stack(torch.meshgrid(*[torch.arange(n) // 4 for n in shape], indexing="ij")).sum(0) % 2
    found = distinctive(board.float())
    assert keypoints.MOST_POINTS // 3 < len(found) <= keypoints.MOST_POINTS
    assert int(found.amax() - found.amin()) > 0.7 * max(shape)


def test_nothing_is_random_and_axes_are_kept(apart):
    """Twice the same bits; along one axis alone where the deformation moves along one."""
    first, again = (found_in(*apart, 30.0).points for _ in range(2))
    assert torch.equal(first.fixed, again.fixed)
    assert torch.equal(first.moving, again.moving)
    assert torch.equal(first.sd_mm, again.sd_mm)
    along = found_in(*apart, 30.0, ("x",)).points
    assert torch.equal(along.moving[0], along.fixed[0])


def errors(result, apart):
    """How far the displacement is from the shift in the inner part that both pictures show, in mm."""
    off = result.field.mm() - torch.tensor(SHIFT).reshape(2, 1, 1)
    return off.norm(dim=0)[25:85, 10:60]


def test_motion_beyond_the_search_is_found(apart, caplog):
    """A shift of 27 mm where the search reaches 6: lost without, found with keypoints; plan and record say it."""
    without = register(*apart, config=QUICK)
    assert float(errors(without, apart).median()) > 15
    told: list[str] = []
    found = register(*apart, config=LOOKED, on_plan=lambda plan: told.extend(plan.sentences))
    assert float(errors(found, apart).median()) < 0.5
    report = found.record.guidance.keypoints
    assert report.kept == report.residual.count == found.keypoints.fixed.shape[1] <= report.looked
    assert report.residual.before.mean_mm > 25
    assert report.residual.after.mean_mm < 5
    assert f"Of {report.looked} distinctive points {report.kept} were found" in report.sentence
    assert 21.0 <= found.config.coarse.reach_mm < 31.0
    assert any("distinctive points of the fixed image are looked for within 30 mm" in line for line in told)
    away = found.keypoints.moving - found.keypoints.fixed
    assert np.abs(np.median(away, axis=1) - SHIFT).max() < 0.2
    assert not caplog.records
    again = register(*apart, config=found.config)
    assert torch.equal(again.field.vox, found.field.vox)


def test_the_plan_leaves_nothing_open(apart):
    """Half as far again as the search; off by default; more of the moving image is read."""
    assert plan(*apart, config=QUICK).config.keypoints.reach_mm is None
    here = plan(*apart, config=replace(QUICK, keypoints=KeypointConfig(enabled=True)))
    assert here.config.keypoints.reach_mm == 1.5 * here.config.coarse.reach_mm
    along = plan(*apart, config=replace(LOOKED, refine=replace(LOOKED.refine, axes=("x",))))
    assert any("within 30 mm along x (as set)" in reason.sentence for reason in along.reasons)
    far = plan(*apart, config=LOOKED)
    assert far.frame.moving.shape >= here.frame.moving.shape
    assert any("as set" in reason.sentence for reason in far.reasons if reason.about == "keypoints")
    with pytest.raises(ConfigError, match=r"keypoints\.reach_mm > 0"):
        KeypointConfig(reach_mm=0.0)
    with pytest.raises(ConfigError, match=r"keypoints\.enabled=false with coarse\.enabled=false"):
        replace(LOOKED, coarse=CoarseConfig(enabled=False))


@pytest.mark.parametrize(("thickness", "between"), [(1.0, 0.0), (1.0, 0.3), (5.0, 0.0), (5.0, 2.0)])
def test_single_slices_have_points(thickness, between):
    """However thick they are, whose working voxels repeat them, and also where they lie ``between`` mm apart."""
    here, there = (grid_at((0.0, 0.0, z), (60, 60, 1), (1.0, 1.0, thickness), np.eye(3)) for z in (0.0, between))
    fixed, moving = shifted(here, (0, 9, -8))
    found = register(fixed, Volume(moving.data, there), config=replace(LOOKED, keypoints=KeypointConfig(enabled=True)))
    away = found.keypoints.moving - found.keypoints.fixed
    assert away.shape[1] > 20
    assert np.abs(np.median(away[:2], axis=1) - (-8, 9)).max() < 0.2


def test_a_reach_beyond_all_images_finds_none():
    """Nodes are then so far apart that one holds all of the image: nothing is distinctive there."""
    assert distinctive(torch.ones(1, 1)).shape == (0, 2)
    assert distinctive(torch.ones(1, 1, 1)).shape == (0, 3)


def test_the_refinement_goes_without_them(apart):
    """They are in the search alone; landmarks that are given are in both."""
    found = found_in(*apart, 30.0).points
    assert Prior(leading=found).points is None
    assert Prior(leading=found).searched is found
    both = Prior(points=found, leading=found).searched
    assert both.fixed.shape[1] == 2 * found.fixed.shape[1] == len(both.sd_mm)


def test_points_lie_in_the_images_whatever_the_start_is(apart):
    """Behind an initial transform the moving points are those of the moving image itself; also on turned arrays."""
    fixed, moving = apart
    start = Field.from_mm(torch.tensor(SHIFT).reshape(2, 1, 1).expand(2, 96, 96).contiguous() + 3.0, fixed.grid)
    found = register(fixed, moving, config=LOOKED, initial=sitk_transform(start)).keypoints
    away = found.moving - found.fixed
    assert away.shape[1] > 25
    assert np.abs(np.median(away, axis=1) - SHIFT).max() < 0.2
    turned = rotation(2)
    there = shifted(grid_at((5.0, -20.0), (96, 96), (1.0, 1.0), turned), (int(SHIFT[1]), int(SHIFT[0])))
    away = register(*there, config=LOOKED).keypoints
    away = away.moving - away.fixed
    assert np.abs(np.median(away, axis=1) - turned @ np.array(SHIFT)).max() < 0.2


def test_where_none_is_found_the_run_goes_on(caplog):
    """A ramp has no distinctive point: one sentence, and what comes out is what comes out without."""
    grid = Grid.of_shape((40, 40), (1.0, 1.0))
    ramp = Volume((100 * torch.arange(40.0)[:, None].expand(40, 40).sqrt())[None].contiguous(), grid)
    plain = register(ramp, ramp, config=QUICK)
    with caplog.at_level(logging.WARNING):
        found = register(ramp, ramp, config=LOOKED)
    said = [record.getMessage() for record in caplog.records if "points" in record.getMessage()]
    assert len(said) == 1
    assert "got none of 0: the images alone decide" in said[0]
    assert found.record.guidance.keypoints.residual is None
    assert "the images alone decide" in found.record.guidance.keypoints.sentence
    assert torch.equal(found.field.vox, plain.field.vox)


def test_files_are_read_by_slicer_and_as_landmarks(tmp_path):
    """FCSV says LPS and has the points in mm; read back they are the same; in 2-D a table of x and y."""
    points = np.array([[1.5, -2.25], [3.0, 4.0], [-7.125, 0.0]])
    write_points(points, tmp_path / "points.fcsv")
    lines = (tmp_path / "points.fcsv").read_text("utf-8").splitlines()
    assert lines[1] == "# CoordinateSystem = LPS"
    assert lines[3].split(",")[:4] == ["1", "1.500000", "3.000000", "-7.125000"]
    assert len(lines[3].split(",")) == len(lines[2].split(","))
    for shown in (points, points[:2]):
        path = tmp_path / f"points.{ending_of(shown)}"
        write_points(shown, path)
        np.testing.assert_allclose(read_points(path).points, shown)


def code_of(*words: str) -> int:
    """How the command leaves."""
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


def test_the_flag_writes_them(tmp_path, apart):
    """Files, summary and record; an input of that name is not written over."""
    for name, image in zip(("fixed", "moving"), apart, strict=True):
        write_image(image, tmp_path / f"{name}.nii.gz")
    words = [
        "register", str(tmp_path / "fixed.nii.gz"), str(tmp_path / "moving.nii.gz"), "-o", str(tmp_path / "out"),
        "--align", "none", "--keypoints", "--no-report",
        *(f"--set={each}" for each in (
            "keypoints.reach_mm=30", "coarse.reach_mm=6", "refine.iterations=2", "refine.symmetric=false",
            "checks.enabled=false", "uncertainty.enabled=false",
        )),
    ]  # fmt: skip
    assert code_of(*words) == 0
    record = json.loads((tmp_path / "out" / "record.json").read_text("utf-8"))
    names = ["keypoints_fixed.csv", "keypoints_moving.csv"]
    assert set(names) <= set(record["outputs"])
    fixed, moving = (np.loadtxt(tmp_path / "out" / name, delimiter=",", skiprows=1) for name in names)
    assert len(fixed) == record["guidance"]["keypoints"]["kept"]
    assert np.abs(np.median(moving - fixed, axis=0) - SHIFT).max() < 0.2
    places = [str(tmp_path / "out" / name) for name in names]
    assert code_of(*words, "--landmarks", *places) == 2
    assert code_of(*words[:4], str(tmp_path / "again"), *words[5:], "--landmarks", *places, "--no-keypoints") == 0
    assert code_of(*words) == 0
    assert code_of(*words, "--no-keypoints") == 0
    assert not (tmp_path / "out" / names[0]).exists()
