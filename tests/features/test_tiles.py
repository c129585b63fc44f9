"""Tiles: they cover every axis once, see as far as the network does, start where they may, and blend without a seam."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from semreg.features.tiles import Axis, Cut, Span, plan_patches, plan_tiles, window


@st.composite
def axes(draw, *, blind=None):
    halo = draw(st.integers(0, 30))
    everything = draw(st.booleans()) if blind is None else blind
    align = draw(st.sampled_from((1, 1, 2, 3, 4, 8)))
    overlap, lost = draw(st.sampled_from((0.0, 0.25, 0.5, 0.7))), draw(st.integers(0, 6))
    return Axis(draw(st.integers(1, 200)), None if everything else halo, align, overlap, lost)


def check_exact(axis, cut):
    """Every voxel is in one core; each tile sees the halo around its core, or the end of the axis; starts align."""
    assert not cut.blended
    assert cut.spans[0].first == 0
    assert cut.spans[-1].last == axis.size == cut.spans[-1].stop
    for span, after in zip(cut.spans, cut.spans[1:], strict=False):
        assert span.last == after.first
    for span in cut.spans:
        assert 0 <= span.start <= span.first < span.last <= span.stop <= axis.size
        assert span.start == 0 or span.first - span.start >= axis.halo
        assert span.stop == axis.size or span.stop - span.last >= axis.halo
        assert span.start % axis.align == 0
        assert span.first % axis.align == 0


def check_blended(axis, cut):
    """Tiles have one size, start where they may, leave no gap, and end less than an alignment beyond the axis."""
    assert len({span.size for span in cut.spans}) == 1
    assert cut.spans[0].start == 0
    assert axis.size <= cut.spans[-1].stop < axis.size + axis.align
    for span, after in zip(cut.spans, cut.spans[1:], strict=False):
        assert span.start < after.start <= span.stop - axis.lost
    assert all(span.start % axis.align == 0 for span in cut.spans)


@settings(max_examples=300, deadline=None)
@given(axes(), st.integers(1, 300))
def test_an_axis_is_cut_as_it_must_be(axis, tile):
    """Whatever the size, halo, alignment and tile: cores partition the axis, or blended tiles cover it."""
    tile = -(-tile // axis.align) * axis.align
    cut = axis.tiles_of(tile)
    if cut is None:
        shared = axis.lost if axis.halo is None else 2 * axis.halo
        assert tile < shared + 2 * axis.align
    elif len(cut.spans) > 1 and axis.halo is None:
        check_blended(axis, cut)
        assert cut.longest == tile
    else:
        check_exact(Axis(axis.size, axis.halo or 0, axis.align), cut)
        assert cut.longest <= max(tile, 0) or cut.longest == axis.size <= tile


@settings(max_examples=100, deadline=None)
@given(axes(), st.integers(1, 12))
def test_parts_are_as_many_as_asked_for(axis, count):
    """Asked for so many parts, an axis has at most that many where they are exact, and all of it is there."""
    cut = axis.parts(count)
    assume(cut is not None)
    if axis.halo is None and len(cut.spans) > 1:
        check_blended(axis, cut)
    else:
        check_exact(Axis(axis.size, axis.halo or 0, axis.align), cut)
        assert len(cut.spans) <= count


@settings(max_examples=40, deadline=None)
@given(st.lists(axes(), min_size=2, max_size=3), st.floats(0.0, 1.0))
def test_no_tile_has_more_voxels_than_allowed(given_axes, share):
    """A plan keeps to the limit, cuts what can be cut exactly first, and is whole where the whole fits."""
    size = math.prod(axis.size for axis in given_axes)
    most = size**share
    plan = plan_tiles(given_axes, most)
    assume(plan is not None)
    assert plan.largest <= most or plan.largest == 1
    assert len(plan.tiles) == math.prod(len(cut.spans) for cut in plan.cuts)
    if share == 1.0:
        assert len(plan.tiles) == 1
    exact = plan_tiles(
        [axis if axis.halo is not None else Axis(axis.size, axis.size, axis.size) for axis in given_axes], most
    )
    assert not plan.blended or exact is None


def test_the_cheapest_cut_is_found():
    """Of all cuts that fit, none of equal parts computes fewer voxels: tried one by one."""
    given_axes, most = [Axis(60, 5), Axis(70, 5, 2), Axis(50, 5)], 40_000
    cuts = [[axis.parts(count) for count in range(1, 9)] for axis in given_axes]
    fitting = [
        a.computed * b.computed * c.computed
        for a in cuts[0]
        for b in cuts[1]
        for c in cuts[2]
        if a and b and c and a.longest * b.longest * c.longest <= most
    ]
    plan = plan_tiles(given_axes, most)
    assert plan.computed == min(fitting)
    assert plan.computed < 60 * 70 * 50 * 2


def test_what_cannot_be_cut_has_no_plan():
    """Where the halo leaves no core in a tile of the size allowed, there is no plan instead of a wrong one."""
    assert plan_tiles([Axis(100, 20), Axis(100, 20)], 30 * 30) is None
    assert plan_tiles([Axis(100, 20), Axis(100, 20)], 60 * 60) is not None


def test_patches_are_exact_or_blended():
    """A patch wider than twice the halo is exact, a narrower one is blended, per axis; a wide one is the whole."""
    plan = plan_patches([Axis(100, 10), Axis(100, 30), Axis(40, None)], (48, 48, 48))
    assert [cut.blended for cut in plan.cuts] == [False, True, False]
    assert [cut.longest for cut in plan.cuts] == [48, 48, 40]
    check_exact(Axis(100, 10), plan.cuts[0])
    check_blended(Axis(100, None), plan.cuts[1])


def test_patches_that_would_leave_gaps_are_none():
    """Tiles that lose more at their ends than they share cannot cover the axis."""
    assert plan_patches([Axis(100, 30, lost=20)], (20,)) is None
    (cut,) = plan_patches([Axis(100, 30, lost=20)], (24,)).cuts
    check_blended(Axis(100, None, lost=20), cut)


@settings(max_examples=100, deadline=None)
@given(axes(blind=True), st.integers(2, 60))
def test_windows_cover_the_axis(axis, tile):
    """Weights are above 0 everywhere, 1 at the ends of the axis, and no tile that is alone fades."""
    tile = -(-tile // axis.align) * axis.align
    assume(tile < axis.size)
    cut = axis.tiles_of(tile)
    assume(cut is not None)
    total = torch.zeros(cut.spans[-1].stop)
    for span in cut.spans:
        weights = window(span, cut)
        assert weights.shape == (span.size,)
        assert 0 < weights.min() <= weights.max() <= 1
        total[span.start : span.stop] += weights
    assert total.min() > 0
    assert window(cut.spans[0], cut)[0] == 1 or len(cut.spans) > 1
    if cut.spans[1].start > 0:
        assert window(cut.spans[0], cut)[0] == window(cut.spans[-1], cut)[-1] == 1


def test_windows_of_halves_sum_to_one():
    """Tiles that overlap by half fade into each other: rising and falling cosines sum to 1."""
    cut = Cut(tuple(Span(a, a + 16, a, a + 16) for a in (0, 8, 16)), blended=True)
    total = torch.zeros(32)
    for span in cut.spans:
        total[span.start : span.stop] += window(span, cut)
    torch.testing.assert_close(total, torch.ones(32), rtol=0, atol=1e-6)
    rising = 0.5 - 0.5 * torch.cos(math.pi * (torch.arange(8) + 0.5) / 8)
    torch.testing.assert_close(window(cut.spans[1], cut)[:8], rising)


def test_exact_tiles_have_no_window():
    """Where cores fit together every voxel of a tile counts alike."""
    cut = Axis(50, 4).tiles_of(20)
    assert all(torch.equal(window(span, cut), torch.ones(span.size)) for span in cut.spans)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_overlap_is_kept(overlap):
    """Neighbours that are blended share at least the overlap that was asked for."""
    cut = Axis(100, None, 1, overlap).tiles_of(20)
    shared = [a.stop - b.start for a, b in zip(cut.spans, cut.spans[1:], strict=False)]
    assert min(shared) >= 20 * overlap
