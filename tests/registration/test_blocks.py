"""Promises of the registration in blocks: that of the whole for blocks of any size, which goes on where it ended."""

from __future__ import annotations

import json
import logging
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import map_coordinates

from semreg.config import CoarseConfig, RefineConfig, RegistrationConfig
from semreg.core.fields import Volume
from semreg.core.geometry import Grid, canonical_order
from semreg.distances.correlation import local_correlation
from semreg.errors import ConfigError
from semreg.features.descriptors import DESCRIPTORS
from semreg.features.extract import describe, intensity_stats
from semreg.runtime.settings import override

pytest.importorskip("zarr", reason="the extra semreg[zarr] is not installed")
pytest.importorskip("ome_zarr", reason="the extra semreg[zarr] is not installed")

from semreg.io.ngff.writing import PyramidWriter
from semreg.registration.blocks import objective as objectives
from semreg.registration.blocks import pipeline
from semreg.registration.blocks import store as stores
from semreg.registration.blocks.boxes import Box, blocks_of
from semreg.registration.blocks.features import Compared, Maps, feature_tasks
from semreg.registration.blocks.objective import BlockObjective
from semreg.registration.blocks.pipeline import DIFFUSION, Large, register_in_blocks
from semreg.registration.blocks.plan import Input, Options, make_plan
from semreg.registration.blocks.run import Pair, register_large
from semreg.registration.blocks.search import Nodes, searched
from semreg.registration.blocks.sides import Intensities, Side, Source
from semreg.registration.blocks.store import Store
from semreg.registration.blocks.windows import correlated
from semreg.registration.blocks.workers import Here, Processes, workers_at
from semreg.registration.blocks.writing import StoredSpline, write_spline
from semreg.registration.dense.coarse import search
from semreg.registration.dense.objective import Problem
from semreg.registration.dense.prior import Prior
from semreg.registration.dense.terms import Term
from semreg.transforms.bspline import LatticePart, Spline, SplineLattice

ROOM = Options(memory_bytes=2_000_000_000)


def grid_of(size, spacing=(1.5, 1.2, 1.1), origin=(5.0, -7.0, 11.0)):
    return Grid(size, spacing, origin, ((1, 0, 0), (0, 1, 0), (0, 0, 1)))


FIXED, MOVING = grid_of((41, 44, 37)), grid_of((46, 41, 39), (1.4, 1.3, 1.0), (3.0, -6.0, 12.0))


def texture(points):
    """Structure of some mm at points (3, *S), values of some hundred."""
    x, y, z = points
    total = np.sin(x / 3.1 + 0.4 * np.sin(y / 5)) + np.sin(y / 2.7 - z / 9) + np.cos(z / 3.7 + x / 11)
    return 300 + 60 * total + 40 * np.sin((x + y) / 1.9) * np.cos(z / 2.3)


def moved(points):
    """Where points of the fixed image lie in the moving one, mm: some mm, smoothly."""
    x, y, z = points - np.array([33.0, 20.0, 30.0]).reshape(3, *[1] * (points.ndim - 1))
    return points + np.stack([1.6 * np.cos(y / 22), 1.2 * np.sin(z / 19) - 0.5, 0.9 * np.cos(x / 24)])


def origin_of(points):
    """The inverse of ``moved``, by fixed-point steps."""
    found = points.copy()
    for _ in range(30):
        found = points - (moved(found) - found)
    return found


def points_of(grid):
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij")).reshape(3, -1)
    matrix = grid.index_to_point()
    return (matrix[:3, :3] @ index + matrix[:3, 3:]).reshape(3, *grid.shape)


def write(folder, name, grid, values):
    writer = PyramidWriter(folder / f"{name}.ome.zarr", grid, "int16", chunk=16)
    writer.create()
    for box in writer.boxes():
        writer.write(box, np.rint(values[tuple(slice(*span) for span in box)]).astype(np.int16))
    for level in range(1, len(writer.grids)):
        for box in writer.boxes(level):
            writer.coarsen(level, box)
    return Input(str(writer.path))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Both images as OME-Zarr of one resolution, and as they were made."""
    folder = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(0)
    values = [texture(points_of(FIXED)), texture(origin_of(points_of(MOVING)))]
    values = [np.rint(v + noise.normal(0, 3, v.shape)) for v in values]
    pair = [write(folder, name, grid, v) for name, grid, v in
            zip(("fixed", "moving"), (FIXED, MOVING), values, strict=True)]  # fmt: skip
    return (*pair, *values)


def maps_of(images, folder, compared, block):
    """Features of both images, computed in blocks."""
    near, far, *values = images
    frame = FIXED, MOVING.lattice([0, 0, 0], [1.2 / 1.3 * 1.1, 1.1, 1.2], (33, 40, 41))
    sides = [
        Side(Source(each.path, None, 0), grid, Intensities(stats=intensity_stats(volume(v, own))))
        for each, grid, v, own in zip((near, far), frame, values, (FIXED, MOVING), strict=True)
    ]
    made = Maps(str(folder), *sides, compared, block)
    made.create()
    for task in feature_tasks(made):
        task.run()
    return made


def volume(values, grid):
    return Volume(torch.from_numpy(values.astype(np.float32))[None], grid)


MIND = Compared("mind", (), "l2", 2, 2)
WINDOWS = Compared("intensity", (), "lncc_squared", 1, 2)


@pytest.mark.parametrize("power", [1, 2])
def test_the_derivative_of_the_correlation_is_that_of_autograd(power):
    """In a part of two images, with samples that do not count."""
    generator = torch.Generator().manual_seed(0)
    f, m = (torch.randn((2, 9, 11, 10), generator=generator) for _ in range(2))
    m = 0.5 * f + m
    weight = (torch.rand((9, 11, 10), generator=generator) > 0.2).float()
    f, m = ((x - (x * weight).mean()) / x.std() for x in (f, m))
    core = torch.zeros_like(weight)
    core[2:6, 3:9, 1:7] = 1
    value, slope = correlated((f, m), weight, core * weight, power, 2)
    variable = m.double().requires_grad_()
    rows = [x.double().flatten(1).T for x in (f, variable)]
    found = local_correlation(*rows, weight.flatten().double(), tuple(weight.shape), 2)
    total = ((1 - found.pow(power).mean(0)) * core * weight).sum()
    total.backward()
    assert value == pytest.approx(float(total.detach()), rel=1e-4)
    assert torch.allclose(slope.double(), variable.grad, atol=1e-4 * float(variable.grad.abs().max()))


@pytest.mark.parametrize("compared", [MIND, WINDOWS], ids=["mind", "windows"])
def test_features_in_blocks_are_those_of_the_whole(images, tmp_path, compared):
    """Computed with what is around a block they have no seam; half precision is all that differs."""
    made = maps_of(images, tmp_path, compared, 6)
    whole = Box((0, 0, 0), made.grid("fixed").shape)
    expected = describe(
        volume(images[2], FIXED), DESCRIPTORS[compared.model].of(compared.model, 3, ()), pooling=compared.pooling
    )
    found = made.layer("fixed", whole)
    assert found.weight is None
    atol = 6e-4 if compared is MIND else 1e-5
    assert torch.allclose(found.features.data, expected.features.data, atol=atol)
    far = made.layer("moving", Box((0, 0, 0), made.grid("moving").shape))
    assert far.weight is not None  # the frame is larger than the image
    assert 0 < float((far.weight.data == 0).float().mean()) < 0.5


def whole_of(made):
    """The layers of all samples."""
    return [made.layer(name, Box((0, 0, 0), made.grid(name).shape)) for name in ("fixed", "moving")]


def bent(lattice, seed=0):
    return 0.6 * torch.randn((3, *lattice.shape), generator=torch.Generator().manual_seed(seed))


def test_the_objective_of_blocks_is_that_of_the_whole(images, tmp_path):
    """Value, gradient and curvature at any control points, by the code that registers images in one piece."""
    made = maps_of(images, tmp_path, MIND, 7)
    lattice = SplineLattice(FIXED.pooled(2), (2.1, 2.3, 2.2))
    config, prior = RefineConfig(diffusion=1.0, iterations=5), Prior(mean=lattice.field(bent(lattice, 3), lattice.grid))
    blocks = BlockObjective(made, lattice, config, prior, Here(), lambda _: None)
    whole = Problem([Term(*whole_of(made))], lattice, config, prior=prior)
    at = bent(lattice)
    mine, theirs = blocks.evaluate(at, 1.3), whole.evaluate(at, 1.3)
    assert mine.distance == pytest.approx(theirs.distance, rel=1e-5)
    assert mine.value == pytest.approx(theirs.value, rel=1e-5)
    assert torch.allclose(mine.gradient, theirs.gradient, atol=2e-5 * float(theirs.gradient.abs().max()))
    bounds = blocks.curvature(1.3), whole.curvature(1.3)
    assert torch.allclose(*bounds, rtol=0.01, atol=1e-3 * float(bounds[1].max()))


@pytest.mark.parametrize("compared", [MIND, WINDOWS], ids=["mind", "windows"])
def test_the_objective_does_not_depend_on_the_blocks(images, tmp_path, compared):
    """One block or many: the same but for the order of the sums, at the faces of the blocks too."""
    lattice = SplineLattice(FIXED.pooled(2), (1.6, 1.7, 1.9))
    at, found = bent(lattice), []
    for block in (64, 9, 14):
        made = maps_of(images, tmp_path / str(block), compared, block)
        blocks = BlockObjective(made, lattice, RefineConfig(diffusion=0.5), Prior(), Here(), lambda _: None)
        found.append((blocks.evaluate(at, 1.0), blocks.curvature(1.0)))
    (one, curved), *others = found
    for other, bound in others:
        assert other.value == pytest.approx(one.value, rel=1e-5)
        assert torch.allclose(other.gradient, one.gradient, atol=2e-6 * float(one.gradient.abs().max()))
        assert torch.allclose(bound, curved, rtol=1e-3, atol=1e-5 * float(curved.max()))


def test_the_gradient_is_that_of_the_value(images, tmp_path):
    """By central differences, for a distance in windows, across faces of blocks."""
    made = maps_of(images, tmp_path, WINDOWS, 12)
    lattice = SplineLattice(FIXED.pooled(3), (2.0, 2.0, 2.0))
    blocks = BlockObjective(made, lattice, RefineConfig(diffusion=0.2), Prior(), Here(), lambda _: None)
    at, way = bent(lattice), torch.zeros_like(bent(lattice))
    way[:, 4:-4, 4:-4, 4:-4] = bent(lattice, 7)[:, 4:-4, 4:-4, 4:-4]  # no sample leaves the image
    slope = float((blocks.evaluate(at, 1.0).gradient * way).sum())
    ends = [blocks.evaluate(at + sign * 0.01 * way, 1.0).value for sign in (1, -1)]
    assert (ends[0] - ends[1]) / 0.02 == pytest.approx(slope, rel=0.002)


def test_a_part_of_a_lattice_is_what_a_box_sees():
    """The displacement of a box from the control points that it sees is that of the whole spline."""
    lattice = SplineLattice(FIXED, (4.3, 5.1, 3.9))
    coefficients = bent(lattice)
    box = Box((11, 20, 3), (19, 37, 20)).of(FIXED)
    part = LatticePart.of(lattice, box)
    assert part.cut(coefficients).shape[1:] == part.shape != lattice.shape
    found = Spline.of(part, part.cut(coefficients)).field(box).vox
    assert torch.allclose(found, lattice.field(coefficients, box).vox, atol=1e-6)


def quick(**more):
    config = RegistrationConfig()
    for name, value in {"align.transform": "none", "uncertainty.enabled": "false", "refine.symmetric": "false",
                        "coarse.reach_mm": "6", "refine.iterations": "6", **more}.items():  # fmt: skip
        config = override(config, f"{name}={value}")
    return config


def options(block=32, **more):
    """So that half the resolution is registered in one piece, and the finest in blocks."""
    return replace(ROOM, coarse_voxels=36_000, block=block, **more)


def error_mm(transform):
    inner = points_of(FIXED)[:, 4:-4:5, 4:-4:5, 4:-4:5].reshape(3, -1)
    found = np.array([transform.TransformPoint(p) for p in inner.T.tolist()]).T
    return float(np.linalg.norm(found - moved(inner), axis=0).mean())


def test_the_result_does_not_depend_on_the_blocks(images, tmp_path):
    """Fields from blocks of two sizes differ by less than a thousandth of a voxel, and are better than the start."""
    near, far, *_ = images
    fields, errors = [], []
    for block in (32, 48):
        config = quick()
        run = Large(make_plan(near, far, config, options(block)), config, Store(tmp_path / str(block)), Here(), 10**9)
        found = register_in_blocks(run)
        assert [level.pooling for level in found.levels] == [1]
        fields.append(found.spline.field(FIXED).vox)
        write_spline(found.spline, tmp_path / f"{block}.h5")
        errors.append(error_mm(sitk.ReadTransform(str(tmp_path / f"{block}.h5"))))
        start = found.coarse.deformation
    assert float((fields[0] - fields[1]).abs().max()) < 0.001
    before = error_mm(start.to_sitk())
    assert max(errors) < 0.9 * before
    assert max(errors) < 0.25


def test_a_run_writes_what_others_read(images, tmp_path):
    """The transform is ITK's; the warped image is what ITK makes of it; a second run in the folder replaces it."""
    near, far, _, moving = images
    record = register_large(Pair(near, far), tmp_path / "out", config=quick(), options=options())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "config.toml", "record.json", "transform.h5", "warped.ome.zarr",
    ]  # fmt: skip
    transform = sitk.ReadTransform(str(tmp_path / "out" / "transform.h5"))
    assert error_mm(transform) < 0.25
    warped = Input(str(tmp_path / "out" / "warped.ome.zarr")).open().finest
    assert warped.dtype == "int16"
    image, reference = volume(moving, MOVING).to_sitk(), volume(np.zeros(FIXED.shape), FIXED).to_sitk()
    expected = sitk.GetArrayFromImage(
        sitk.Resample(image, reference, transform, sitk.sitkLinear, record.coarse.background)
    )
    assert np.abs(warped.whole().data[0].numpy() - expected).max() <= 0.6
    assert record.jacobian.minimum > 0
    assert json.loads((tmp_path / "out" / "record.json").read_text(encoding="utf-8"))["levels"][0]["blocks"] == 8
    again = register_large(Pair(near, far), tmp_path / "out", config=quick(), options=options(finest=0))
    assert again.levels[0].report == record.levels[0].report


class KilledError(RuntimeError):
    """In place of a signal."""


@pytest.mark.parametrize("after", [3, 17, 40, 150])
def test_a_run_that_was_ended_goes_on(images, tmp_path, monkeypatch, after):
    """Ended at any file that it writes: the next one has the same result to the bit, and does nothing twice."""
    near, far, *_ = images
    config = quick(**{"fine.enabled": "false"})  # features, and a search before
    whole = tmp_path / "whole"
    register_large(Pair(near, far), whole, config=config, options=options())
    place, count = stores.Store._place, [0]

    def counted(self, name, action):
        place(self, name, action)
        count[0] += 1
        if count[0] == after:
            raise KilledError

    monkeypatch.setattr(stores.Store, "_place", counted)
    with pytest.raises(KilledError):
        register_large(Pair(near, far), tmp_path / "out", config=config, options=options())
    assert not (tmp_path / "out" / "record.json").exists()
    computed = list[str]()
    run = objectives.SumTask.run
    monkeypatch.setattr(objectives.SumTask, "run", lambda self: (computed.append(self.name), run(self))[1])
    there = {p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.npz")}
    register_large(Pair(near, far), tmp_path / "out", config=config, options=options())
    assert not {p for p in there if any(str(p).endswith(name) for name in computed)}
    for name in ("transform.h5", "warped.ome.zarr/0/c/1/1/1"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes()


def test_two_contrasts_are_searched_and_get_wide_control_points(images, tmp_path):
    """A moving image whose brightness is folded: the result does not depend on the blocks here either."""
    near, _, _, values = images
    middle = np.median(values)
    far = write(tmp_path, "folded", MOVING, 900 - values + 60 * np.sin(values / 20) * (values > middle))
    config, fields = quick(), []
    for block in (32, 48):
        run = Large(make_plan(near, far, config, options(block)), config, Store(tmp_path / str(block)), Here(), 10**9)
        found = register_in_blocks(run)
        assert found.coarse.facts.one_contrast is False
        (level,) = found.levels
        assert level.compared == "mind"
        assert level.nodes == (14, 12, 10)  # of 61.5 × 52.8 × 40.7 mm, 4 voxels of 1.1 mm apart
        assert level.report.diffusion == DIFFUSION
        assert found.spline.lattice.control_grid.spacing[0] == pytest.approx(8 * 1.1, rel=0.02)
        fields.append(found.spline.field(FIXED).vox)
    assert float((fields[0] - fields[1]).abs().max()) < 0.001
    write_spline(found.spline, tmp_path / "t.h5")
    assert error_mm(sitk.ReadTransform(str(tmp_path / "t.h5"))) < 0.6


def test_features_hold_the_displacement_smooth_and_intensities_its_change(images, tmp_path, monkeypatch):
    """A regularity of the change would keep what a part in one piece of few voxels got from their noise."""
    near, far, *_ = images
    seen, descend = list[tuple[str, bool, float | None, int]](), pipeline.descend

    def noted(objective, start, config, report):
        about = objective.maps.compared.model, objective.prior.mean is None
        seen.append((*about, config.diffusion, config.steps))
        return descend(objective, start, replace(config, iterations=1), report)

    monkeypatch.setattr(pipeline, "descend", noted)
    config = quick()
    config = replace(config, refine=replace(config.refine, iterations=None))
    plan = make_plan(near, far, config, options())
    plan = replace(plan, fine=plan.fine * 2)  # the last one compares intensities alone
    register_in_blocks(Large(plan, config, Store(tmp_path), Here(), 10**9))
    assert seen == [("mind", True, DIFFUSION, 100), *[("intensity", False, 8.0, 12)] * 2]


def test_what_another_run_left_is_not_taken(images, tmp_path, monkeypatch):
    """Other settings in a folder with an unfinished run are refused in one sentence."""
    near, far, *_ = images
    monkeypatch.setattr(
        "semreg.registration.blocks.run.register_in_blocks", lambda _: (_ for _ in ()).throw(KilledError())
    )
    with pytest.raises(KilledError):
        register_large(Pair(near, far), tmp_path, config=quick(), options=options())
    with pytest.raises(ConfigError, match="same images, settings, memory and versions"):
        register_large(Pair(near, far), tmp_path, config=quick(**{"fine.diffusion": "3"}), options=options())


def test_a_process_that_is_killed_costs_its_blocks_alone(images, tmp_path):
    """One of two processes is killed in the middle: the result is that of one process, to the bit."""
    near, far, *_ = images
    register_large(Pair(near, far), tmp_path / "one", config=quick(), options=options())
    processes = Processes(2, 1)
    killed = []

    def say(line):
        if "step 1" in line and not killed:
            killed.append(processes.numbers[0])
            os.kill(killed[0], signal.SIGKILL)

    try:
        record = register_large(
            Pair(near, far), tmp_path / "two", config=quick(), options=options(), workers=processes, say=say
        )
    finally:
        processes.close()
    assert killed
    assert record.workers >= 3
    assert (tmp_path / "two" / "transform.h5").read_bytes() == (tmp_path / "one" / "transform.h5").read_bytes()


@pytest.mark.filterwarnings("ignore")  # Dask warns of what it does itself
def test_a_cluster_gives_what_one_process_gives(images, tmp_path):
    """On two workers of a Dask cluster, of which one is killed in the middle: the same result, to the bit."""
    distributed = pytest.importorskip("distributed", reason="the extra semreg[dask] is not installed")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    near, far, *_ = images
    register_large(Pair(near, far), tmp_path / "one", config=quick(), options=options())
    killed = []
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(tmp_path)
    ) as cluster:

        def say(line):
            if "step 1" in line and not killed:
                killed.append(next(iter(cluster.workers.values())).pid)
                os.kill(killed[0], signal.SIGKILL)

        with workers_at(cluster.scheduler_address, 1, 1, [tmp_path]) as workers:
            register_large(
                Pair(near, far), tmp_path / "two", config=quick(), options=options(), workers=workers, say=say
            )
    assert killed
    assert (tmp_path / "two" / "transform.h5").read_bytes() == (tmp_path / "one" / "transform.h5").read_bytes()


def test_the_plan_goes_from_what_fits_to_the_finest(images):
    """Each resolution has at most about twice as fine voxels as the one before; the moving one goes with it."""
    near, far, *_ = images
    plan = make_plan(near, far, RegistrationConfig(), ROOM)
    assert plan.fine == ()
    assert "nothing is left for blocks" in plan.sentences[-1]
    with pytest.raises(ConfigError, match=r"at most .* voxels for this --memory"):
        make_plan(near, far, RegistrationConfig(), Options(memory_bytes=340_000_000, block=128))
    with pytest.raises(ConfigError, match="mind or intensity"):
        make_plan(near, far, override(RegistrationConfig(), "models.model=net.pt"), ROOM)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "at the finest resolution, if the images show two contrasts, with"),
        ({"fine.enabled": "false"}, "at the finest resolution, with"),
        ({"refine.distance": "lncc"}, "at the finest resolution, with"),
        ({"fine.enabled": "true"}, None),
        ({"coarse.enabled": "false"}, None),
        ({"models.model": "intensity", "refine.distance": "lncc_squared"}, None),
    ],
)
def test_the_plan_tells_of_a_search_where_there_is_one(images, settings, said):
    """The one resolution in blocks compares features of two contrasts, or by settings; intensities lead nowhere."""
    plan = make_plan(*images[:2], quick(**settings), options())
    assert len(plan.fine) == 1
    told = [line for line in plan.sentences if "search first" in line]
    assert [said in line for line in told] == ([] if said is None else [True])


def test_axes_of_another_order_lead_to_the_same_places(tmp_path):
    """A fixed image whose axes are permuted and flipped is read through the spline where its voxels lie."""
    turned = Grid((6, 5, 4), (1.5, 1.2, 1.1), (9.0, 3.0, 4.0), ((0, 0, -1), (0, 1, 0), (1, 0, 0)))
    axes = canonical_order(turned)
    assert axes.flips
    assert axes.order != (0, 1, 2)
    lattice = SplineLattice(grid_of((9, 9, 9), (2, 2, 2), (-5.0, 0.0, 0.0)), (3.0, 3.0, 3.0))
    coefficients = bent(lattice)
    Store(tmp_path).save_one("coefficients.npy", coefficients)
    matrix = np.array([[1, 0.1, 0, 2], [-0.1, 1, 0, 1], [0, 0, 1.1, -3], [0, 0, 0, 1]])
    way = StoredSpline(str(tmp_path), lattice, tuple(map(tuple, matrix.tolist())), axes)
    points = points_of(turned).reshape(3, -1)
    expected = Spline(lattice, coefficients, matrix).map(points)
    index = way.index(turned, MOVING).flatten(1).numpy()
    to_points = MOVING.index_to_point()
    assert np.allclose(to_points[:3, :3] @ index + to_points[:3, 3:], expected, atol=1e-4)
    whole = way.determinants(turned, Box((0, 0, 0), turned.shape))
    parts = [way.determinants(turned, box) for box in blocks_of(turned.shape, 3)]
    assert sum(p.numel() for p in parts) == whole.numel() == 2 * 3 * 4
    assert min(float(p.min()) for p in parts if p.numel()) == pytest.approx(float(whole.min()), rel=1e-5)
    inner = points_of(turned)[:, 1:-1, 1:-1, 1:-1].reshape(3, -1)
    exact = np.linalg.det(Spline(lattice, coefficients, matrix).jacobian(inner))
    assert float(whole.mean()) == pytest.approx(exact.mean(), abs=0.02)


def test_blocks_cover_everything_once():
    """Each sample is in one block."""
    count = np.zeros((7, 10, 5), int)
    for box in blocks_of(count.shape, 4):
        count[box.slices] += 1
    assert (count == 1).all()


def nodes_in(images, folder, block, **more):
    """The nodes of a search on MIND, two feature samples apart, and where it starts: some mm off the truth."""
    made = maps_of(images, folder, MIND, block)
    nodes = Nodes(made, 2, **({"smoothing": 2, "both_ways": True} | more))
    grid = nodes.grid("fixed")
    lattice = SplineLattice(grid, (3.0, 3.0, 3.0))
    return nodes, lattice.field(0.4 * bent(lattice, 5), grid)


def here(tasks):
    for task in tasks:
        task.run()


def test_blocks_find_what_no_coarser_resolution_shows(tmp_path):
    """A texture of 3 to 4 voxels, which means of blocks take away: without a search blocks end 2.4 mm off."""
    n, margin = 72, 8
    grid = grid_of((n, n, n), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    wide = n + 2 * margin
    waves = np.sqrt(sum(f**2 for f in np.meshgrid(*[np.fft.fftfreq(wide)] * 3, indexing="ij")))
    noise = np.random.default_rng(0)
    seen = np.fft.fftn(noise.normal(size=(wide,) * 3)) * ((waves > 1 / 4) & (waves < 1 / 2.8))
    whole = torch.from_numpy(np.fft.ifftn(seen).real)[None]
    whole = 300 + 100 * whole / whole.std()

    def moved_by(p):
        return np.stack([5 * np.cos(p[1] / 25), 4 * np.sin(p[2] / 22) + 1, 4 * np.cos(p[0] / 24)])

    points = points_of(grid)
    origin = points.copy()
    for _ in range(60):
        origin = points - moved_by(origin)
    fixed = whole[0].numpy()[(slice(margin, -margin),) * 3]
    moving = map_coordinates(whole[0].numpy(), (origin + margin)[::-1], order=3)
    near, far = (
        write(tmp_path, name, grid, values + noise.normal(0, 5, values.shape))
        for name, values in (("fixed", fixed), ("moving", moving))
    )
    config = quick(**{"refine.iterations": "30", "fine.enabled": "false"})
    plan = make_plan(near, far, config, replace(ROOM, coarse_voxels=40_000, block=48))
    found = register_in_blocks(Large(plan, config, Store(tmp_path / "run"), Here(), 10**9))
    assert [level.nodes for level in found.levels] == [(9, 9, 9), (18, 18, 18)]
    inner = points[:, 10:-10:6, 10:-10:6, 10:-10:6].reshape(3, -1)
    begin = found.coarse.deformation
    lattice = SplineLattice(begin.grid, (2.0, 2.0, 2.0))
    errors = [
        np.linalg.norm(spline.map(inner) - inner - moved_by(inner), axis=0).mean()
        for spline in (Spline.of(lattice, lattice.fit(begin)), found.spline)
    ]
    assert errors[0] > 4
    assert errors[1] < 0.2


@pytest.mark.parametrize("both_ways", [True, False], ids=["both", "one"])
def test_the_search_in_blocks_is_that_of_the_whole(images, tmp_path, monkeypatch, both_ways):
    """The code that searches images in one piece finds the same, whatever the size of the blocks."""
    monkeypatch.setattr("semreg.core.kernels.contract.COUNTED_COSTS", 1)  # the mean over large images, of no shift
    found = []
    for block in (64, 6, 9):
        nodes, start = nodes_in(images, tmp_path / str(block), block, both_ways=both_ways)
        found.append(searched(nodes, start, here).vox)
    assert len(nodes.boxes) > 8
    for other in found[1:]:
        assert torch.equal(found[0], other)
    grid = nodes.grid("fixed")
    near, far = (layer.pooled(2) for layer in whole_of(nodes.maps))
    assert far.weight is not None
    config = CoarseConfig(inverse_consistency=both_ways)
    update, _ = search([Term(near, far)], start, 2, config)
    expected = update.then(start).vox
    assert expected.sub(start.vox).abs().max() > 0.5
    assert torch.allclose(found[0], expected, atol=1e-3)
    assert grid.shape == tuple(expected.shape[1:])


def test_a_search_that_was_ended_goes_on(images, tmp_path, monkeypatch):
    """Ended at any file: the next one finds the same to the bit, and runs no task again that was done."""
    nodes, start = nodes_in(images, tmp_path / "whole", 9)
    every = list[str]()
    expected = searched(nodes, start, lambda tasks: (every.extend(t.name for t in tasks), here(tasks))).vox
    place = stores.Store._place
    for after in (5, 60):
        nodes, start = nodes_in(images, tmp_path / str(after), 9)
        count, done = [0], list[str]()

        def counted(self, name, action, count=count, after=after):
            place(self, name, action)
            count[0] += 1
            if count[0] == after:
                raise KilledError

        def noted(tasks, done=done):
            for task in tasks:
                task.run()
                done.append(task.name)

        monkeypatch.setattr(stores.Store, "_place", counted)
        with pytest.raises(KilledError):
            searched(nodes, start, noted)
        monkeypatch.setattr(stores.Store, "_place", place)
        assert torch.equal(searched(nodes, start, noted).vox, expected)
        assert len(done) == len(set(done))
        assert set(done) <= set(every)
        assert len(every) - len(done) <= 1  # the file of the task in which it was ended is there
        assert searched(nodes, start, noted).vox.equal(expected)
        assert not (tmp_path / str(after) / "search" / "costs").exists()
