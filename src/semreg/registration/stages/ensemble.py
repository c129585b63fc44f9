"""The stage that registers again on other lattices and by other models, and takes the mean of all displacements."""

from __future__ import annotations

import copy
import math
import time

import torch

from semreg.core.fields import Field, Volume
from semreg.preprocess.preparation import shifted
from semreg.registration.dense.deform import averaged, deform, feature_grids
from semreg.registration.dense.disagreement import length_mm
from semreg.registration.matching import Pairing
from semreg.registration.stages.features import compare
from semreg.registration.stages.stage import Stage, State
from semreg.runtime.events import Step

GENERATOR = {2: 1.32471795724474602596, 3: 1.22074408460575947536}
"""Of the sequence of offsets, by dimension: the root of x^(d+1) = x + 1 (Roberts: The unreasonable effectiveness of
quasirandom sequences, 2018)."""


def run(state: State) -> None:
    """Register as often as is wanted; the mean, and how far the members are apart."""
    began, grid = time.perf_counter(), feature_grids(state.frame, state.config)[0]
    first = state.deformed.spline.field(grid).vox
    total, squares = torch.zeros_like(first), torch.zeros_like(first)
    again = [state.pairings] * (state.config.ensemble.members - 1) + [[pairing] for pairing in state.others]
    for number, pairings in enumerate(again, start=1):
        moved = member(state, number, pairings).vox.to(first) - first
        total += moved
        squares += moved.square()
        if state.clock.on_step is not None:
            state.clock.on_step(
                Step(
                    stage="ensemble", level=1, levels=1, iteration=number, iterations=len(again), value=math.nan,
                    seconds=time.perf_counter() - began, done=number / len(again),
                )
            )  # fmt: skip
    count = len(again) + 1
    variance = (squares / count - (total / count).square()).clamp_min_(0)
    state.spread = Volume(length_mm(variance.sqrt_(), grid), grid)
    mean = Field(first + total / count, grid)
    state.deformed = averaged(state.deformed, mean, state.terms, state.config.refine, state.prior)


def member(state: State, number: int, pairings: list[Pairing]) -> Field:
    """What one more registration finds on a lattice of its own, on the grid of the fixed features of the first."""
    other, config = copy.copy(state), state.config
    other.pairings = pairings
    period = (config.refine.control_mm or 0.0) / min(state.frame.fixed.spacing)
    compare(other, shifted(state.frame, offset(number, state.frame.fixed.dimension, round(period))))
    if state.proposal is not None and state.proposal.used:
        other.first = state.first
    found = deform(
        other.terms, feature_grids(other.frame, config), config,
        renewal=other.images, prior=other.prior, begin=other.first,
    )  # fmt: skip
    return found.spline.field(feature_grids(state.frame, config)[0])


def offset(number: int, dimension: int, period: int) -> tuple[int, ...]:
    """By how many working voxels the lattices of a member begin earlier along each axis, less than ``period`` of them.

    Whole ones: a fixed image that is read between its voxels is blurred, and its members are worse than the first. So
    blocks of features, nodes of the search and control points change their places, and images do not.
    """
    parts = (number / GENERATOR[dimension] ** axis % 1 for axis in range(1, dimension + 1))
    return tuple(math.floor(part * period) for part in parts)


ENSEMBLE = Stage(name="ensemble", run=run, wanted=lambda state: state.config.ensemble.count > 1, tells=True, share=0.5)
