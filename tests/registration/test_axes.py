"""Promises of a deformation along some axes alone: the other components are 0, and what moves is found as well."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from test_refine import pair_of

from conftest import grid_at, rotation
from semreg import collect_evidence, judge
from semreg.config import AlignConfig, CoarseConfig, RefineConfig, RegistrationConfig
from semreg.core.fields import Field, Volume, warp
from semreg.core.geometry import AxisOrder, Grid, canonical_order, oriented_order, reorder
from semreg.core.sampling import base_index, transform_index
from semreg.errors import ConfigError
from semreg.phantom import make_pair
from semreg.registration.dense.axes import directions_of, free_axes, free_axes_of_image, restricted
from semreg.registration.dense.coarse import coarse
from semreg.registration.dense.deform import deform
from semreg.registration.dense.prior import Prior
from semreg.registration.dense.terms import Term
from semreg.registration.pipeline import register
from semreg.runtime.terms import advice

PLAIN = RegistrationConfig(align=AlignConfig(transform="none"))


def along(*axes, config=PLAIN, **refine):
    """The settings with a deformation along ``axes`` alone."""
    return replace(config, refine=replace(config.refine, axes=axes, **refine))


def distorted(size=36, dimension=3, axis=1):
    """A phantom and the same distorted along one direction of LPS, as by echo planar imaging, with noise; the truth."""
    fixed = make_pair(size=size, frames="isotropic", dimension=dimension).fixed
    grid = fixed.grid
    points = transform_index(grid.index_to_point(), base_index(grid.shape, like=torch.zeros(1, dtype=torch.float64)))
    middle = torch.tensor(grid.corners_xyz().mean(0)).reshape(-1, *[1] * dimension)
    offset = points - middle
    shift = torch.zeros_like(points)
    others = [offset[d] for d in range(dimension) if d != axis]
    shift[axis] = 9 * torch.exp(-offset.square().sum(0) / (2 * 60**2)) * torch.sin(others[0] / 35 + 0.4)
    truth = Field.from_mm(shift.float(), grid)
    moving = warp(fixed, truth.inverse(), outside=-1000.0).data
    moving = moving + 12 * torch.randn(moving.shape, generator=torch.Generator().manual_seed(3))
    return fixed, Volume(moving, grid), truth


def error_mm(found: Field, truth: Field, fixed: Volume) -> float:
    """Mean error in mm within the body."""
    return float((found.mm() - truth.mm()).square().sum(0).sqrt()[fixed.data[0] > -500].mean())


def components(field: Field) -> list[float]:
    """The largest size of each component along the tensor axes."""
    return field.vox.abs().flatten(1).amax(1).tolist()


def test_a_distortion_along_one_axis():
    """The other components are 0 in the field, the inverse's too, the error is smaller, and less of it is in doubt."""
    fixed, moving, truth = distorted()
    free = register(fixed, moving, config=PLAIN, device="cpu")
    found = register(fixed, moving, config=along("y"), inverse=True, device="cpu")
    mm = found.field.mm()
    assert bool((mm[[0, 2]] == 0).all())
    assert float(mm[1].abs().max()) > 5
    assert bool((free.field.mm().abs().flatten(1).amax(1) > 1).all())
    assert error_mm(found.field, truth, fixed) < 0.9 * error_mm(free.field, truth, fixed)
    assert error_mm(found.field, truth, fixed) < 0.25 * error_mm(Field.zeros(fixed.grid), truth, fixed)
    sizes = components(found.inverse)
    assert max(sizes[0], sizes[2]) < 1e-6
    assert sizes[1] > 1
    assert float(found.uncertainty.data.mean()) < 0.5 * float(free.uncertainty.data.mean())
    assert found.record.jacobian.folded_share == 0
    (sentence,) = [reason.sentence for reason in found.record.plan.reasons if "alone" in reason.sentence]
    assert "along y (j of the fixed image's array, direction 0.00, 1.00, 0.00) alone" in sentence
    assert found.config.refine.axes == ("y",)


@pytest.mark.parametrize(
    "refine",
    [
        {"optimizer": "adam", "smoothing": 1},
        {"enabled": False},
        {"symmetric": False, "sampling": 0.5, "optimizer": "adam"},
        {"levels": 1, "symmetric": True, "iterations": 5},
    ],
    ids=["adam", "search alone", "drawn", "both ways"],
)
def test_every_way_of_refining(refine):
    """Whatever refines, or if nothing does, the components along other axes are 0; with a map of the stiffness too."""
    fixed, moving, truth = pair_of((20, 22, 18), amplitude_mm=4.0)
    config = along("x", "z", **refine)
    stiffness = Volume(torch.full((1, *fixed.grid.shape), 1.0), fixed.grid)
    stiffness.data[0, 4:12, 5:14, 6:12] = 30.0
    for given in (None, stiffness):
        found = deform([Term(fixed, moving)], (fixed.grid, moving.grid), config, renewal=None, prior=Prior(given))
        sizes = components(found.spline.field(fixed.grid))
        assert sizes[1] == 0
        assert min(sizes[0], sizes[2]) > 0.1
    assert float(truth.vox[1].abs().max()) > 1  # what it may not follow


def test_the_search_goes_along_the_axes_alone():
    """No candidate lies beside the axes, so what a search finds does not either, and it finds the way along them."""
    fixed, moving, truth = pair_of((20, 22, 18), amplitude_mm=4.0)
    still = Field.zeros(fixed.grid)
    found = coarse([Term(fixed, moving)], fixed.grid, still, CoarseConfig(), axes=("x",)).on(fixed.grid)
    assert max(components(found)[:2]) < 1e-6
    inner = (2, *[slice(4, -4)] * 3)
    assert np.corrcoef(found.vox[inner].flatten(), truth.vox[inner].flatten())[0, 1] > 0.8


def test_a_search_without_refinement():
    """Both ways to register search along the axes, in place of searching everywhere and leaving the rest out."""
    fixed, moving, _ = pair_of((20, 22, 18), amplitude_mm=4.0)
    config = along("x", enabled=False)
    grids = (fixed.grid, moving.grid)
    alone = deform([Term(fixed, moving)], grids, config, renewal=None)
    found = coarse([Term(fixed, moving)], fixed.grid, Field.zeros(fixed.grid), CoarseConfig(), axes=("x",))
    assert torch.equal(alone.spline.coefficients[2], alone.spline.lattice.fit(found)[2])
    image, other, _ = distorted(44, axis=0)
    uncertainty, nodes = replace(PLAIN.uncertainty, enabled=False), CoarseConfig(spacing_mm=4.4)
    quiet = replace(PLAIN, uncertainty=uncertainty, coarse=nodes)  # so near that the distortion is several of them
    bound = register(image, other, config=along("x", config=quiet, enabled=False), device="cpu").field.vox[2]
    everywhere = register(image, other, config=along(config=quiet, enabled=False), device="cpu").field.vox[2]
    assert float((bound - everywhere).abs().max()) > 0.05


def test_the_repeats_of_the_uncertainty():
    """Repeats move along the same axes: the field stays as it is, and the doubt is finite."""
    fixed, moving, _ = distorted(24)
    config = along("y", config=replace(PLAIN, uncertainty=replace(PLAIN.uncertainty, repeats=1)))
    found = register(fixed, moving, config=config, device="cpu")
    assert components(found.field)[0] == components(found.field)[2] == 0
    assert bool(torch.isfinite(found.uncertainty.data).all())


def test_names_of_axes():
    """A direction means the nearest axis of the fixed image, i, j, k the axes of its array, whatever their order."""
    grid = grid_at((1.0, 2.0, 3.0), (9, 8, 7), (1.0, 1.5, 2.0), rotation(3))
    assert directions_of(("k", "i"), grid) == ("x", "z")
    for letters in ("SPL", "LIA", "PRS", "ASL"):
        turned = reorder(grid, oriented_order(grid, letters))
        order: AxisOrder = canonical_order(turned)
        for place, direction in enumerate("zyx"):
            stored = "kji"[order.order[place]]
            assert directions_of((stored,), turned) == directions_of((direction,), turned) == (direction,)
            free = free_axes_of_image((direction,), turned)
            assert free == tuple(axis == order.order[place] for axis in range(3))
            row = "xyz".index(direction)  # it is the axis nearest to the direction
            column = 2 - order.order[place]
            assert np.abs(np.asarray(turned.direction)[row]).argmax() == column
    assert directions_of((), grid) == ()
    assert free_axes((), 3) == (True, True, True)
    assert free_axes(("x",), 2) == (False, True)
    vectors = torch.full((2, 3, 4), torch.nan)
    assert restricted(vectors, ()) is vectors
    assert bool((restricted(vectors, ("x",))[0] == 0).all())


def test_an_image_that_is_stored_in_another_order():
    """The fixed image's axis nearest to the direction is meant however the array lies; the other components are 0."""
    fixed, moving, truth = distorted(28)
    axes = oriented_order(fixed.grid, "LIA")
    turned = fixed.reordered(axes)
    config = along("y", config=replace(PLAIN, uncertainty=replace(PLAIN.uncertainty, enabled=False)))
    found = register(turned, moving, config=config, device="cpu")
    sizes = components(found.field)
    assert [size > 0 for size in sizes] == [False, False, True]  # A, the last tensor axis
    assert bool((found.field.mm()[[0, 2]] == 0).all())
    assert error_mm(found.field, truth.reordered(axes), turned) < 1.0
    plain = register(fixed, moving, config=config, device="cpu")
    torch.testing.assert_close(found.field.mm(), plain.field.reordered(axes).mm(), atol=1e-3, rtol=0)


def test_two_dimensions_and_a_start():
    """In 2-D as well; the deformation is along the axis, and the alignment that follows it is free."""
    fixed, moving, _ = distorted(48, 2, axis=0)
    shifted = Volume(moving.data, replace(moving.grid, origin_xyz=tuple(o + 7.0 for o in moving.grid.origin_xyz)))
    start = sitk.TranslationTransform(2, (7.0, 7.0))
    config = along("x", config=RegistrationConfig(align=AlignConfig(transform="none")))
    still = register(fixed, moving, config=config, device="cpu")
    assert components(still.field)[0] == 0
    assert components(still.field)[1] > 0.5
    moved = register(fixed, shifted, initial=start, config=config, device="cpu")
    np.testing.assert_allclose(moved.field.mm()[1], 7.0, atol=1e-3)  # the start alone
    apart = (moved.field.mm()[0] - still.field.mm()[0] - 7.0)[fixed.data[0] > -500]
    assert float(apart.abs().mean()) < 0.3


def test_the_checks_search_along_the_axes_alone():
    """What could be gained along other axes does not count against the result, and the sentence says so."""
    fixed, moving, _ = distorted(36, axis=0)
    still = Field.zeros(fixed.grid)
    free, bound = (collect_evidence(fixed, moving, still, config=along(*axes)) for axes in ((), ("z",)))
    assert (free.axes, bound.axes) == ((), ("z",))
    assert bound.mismatch < 0.5 * free.mismatch
    texts = {check.name: check.sentence for check in judge(bound).checks}
    assert texts["residual"].startswith("One more search along z would move")
    assert texts["mismatch"].startswith("One more search along z would take")
    assert "along" not in {check.name: check.sentence for check in judge(free).checks}["residual"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RefineConfig(axes=("y", "y")), "all different"),
        (
            lambda: RegistrationConfig(
                align=AlignConfig(transform="none"), coarse=CoarseConfig(enabled=False),
                refine=RefineConfig(axes=("y",), continues=True),
            ),
            "refine.continues",
        ),
        (lambda: directions_of(("z",), Grid.of_shape((5, 6))), "x, y for an image in 2-D, got z|i, j, x, y.*got z"),
        (lambda: directions_of(("k",), Grid.of_shape((5, 6))), "got k"),
        (lambda: directions_of(("z",), Grid.of_shape((1, 5, 6))), "several voxels .*, got z"),
    ],
)  # fmt: skip
def test_axes_that_cannot_be(make, said):
    """Axes that are named twice, that the image does not have, or that a start does not keep to, are refused."""
    with pytest.raises(ConfigError, match=said):
        make()


def test_the_flag(run, tmp_path):
    """``--restrict-axes`` is the setting; a wrong letter is one sentence; ANTs' word leads to it."""
    fixed, moving, _ = distorted(24)
    from semreg import write_image

    write_image(fixed, tmp_path / "fixed.nii.gz")
    write_image(moving, tmp_path / "moving.nii.gz")
    files = (tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz", "-o", tmp_path / "out")
    code, said, error = run("register", *files, "--restrict-axes", "x,y", "--align", "none", "--dry-run")
    assert code == 0, error
    assert "along x (i of the fixed image's array" in said + error
    code, _, error = run("register", *files, "--restrict-axes", "w", "--align", "none")
    assert code == 2
    assert "refine.axes" in error
    code, _, error = run("register", *files, "--restrict-deformation", "0x1x0")
    assert code == 2
    assert "--restrict-axes" in error
    assert "--restrict-axes y" in advice("--restrict-deformation")
