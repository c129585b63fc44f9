"""Where the moving picture may lie: every shift of some rotations, best first, before any descent.

The orientation of the headers is tried first. Where another one may match as well, all rotations up to a limit are
tried, the axes of the arrays and of what they show among them. Scores are those of ``overlap``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from semreg.config import AlignConfig
from semreg.core.geometry import Matrix
from semreg.registration.parametric.overlap import Describe, Picture
from semreg.registration.parametric.rotations import RING_DEG, ball, between_axes, between_moments, ring
from semreg.registration.parametric.shifts import Candidate, ShiftSearch
from semreg.registration.parametric.telling import Telling
from semreg.transforms.maps import angle_deg, largest_move, linear_about

STANDS_OUT = 1.12
"""The orientation of the headers is right where it matches better than all around it by this factor."""
SWEEP_COARSER = 1.4
"""How much larger the voxels are on which all rotations are tried; the best are tried again on those of the search."""
SWEEP_KEEPS = 16
PERHAPS = 1.04
"""Below this factor no closer look is taken."""


@dataclass
class Search:
    """Both pictures and what is known so far."""

    fixed: Picture
    moving: Picture
    describe: Describe
    config: AlignConfig
    telling: Telling
    decisions: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    reports: list[dict[str, float]] = field(default_factory=list)
    evidence: list[tuple[str, float]] = field(default_factory=list)
    """What a map was compared for, and by how many standard errors it is better."""

    @property
    def box(self) -> Matrix:
        """The corners of the fixed image, (2^D, D)."""
        return self.fixed.image.grid.corners_xyz()

    @property
    def diagonal(self) -> float:
        """Of the fixed image's box, in mm."""
        return math.dist(self.box.min(0), self.box.max(0))

    def shifts(self, spacing_mm: float) -> ShiftSearch:
        """The search for shifts on voxels of this size."""
        near, far = self.fixed.at(spacing_mm), self.moving.at(spacing_mm)
        return ShiftSearch(near, far, self.describe, self.config.minimum_overlap)

    def move(self, first: Matrix, second: Matrix) -> float:
        """How far apart two maps bring a point of the fixed image at most, in mm."""
        return largest_move(np.linalg.inv(first) @ second, self.box)


def candidates(search: Search, shifts: ShiftSearch) -> tuple[list[Candidate], list[float]]:
    """Maps to follow, best first, and the matches of the orientations around the headers'."""
    config, n = search.config, search.fixed.image.grid.dimension
    upright = np.eye(n)
    pool = shifts.candidates(upright)
    if config.transform == "translation" or config.rotation_deg == 0:
        search.decisions.append("Every shift was tried, no rotation.")
        return pool, []
    # on larger voxels first, each orientation by its best shift; where that is not decisive, on those of the search
    sweep = search.shifts(SWEEP_COARSER * shifts.spacing)
    straight, others = _around(search, "orientations", sweep)
    if n == 3 and PERHAPS <= straight / max(*others, 1e-6) < STANDS_OUT:
        straight, others = _around(search, "closer", shifts)
    # in 2-D all orientations cost little
    if n == 3 and straight >= STANDS_OUT * max(*others, 1e-6):
        search.decisions.append(
            f"The orientation of the headers matches better ({straight:.2f}) than {len(others)} others "
            f"{RING_DEG:g}° away ({max(others):.2f} at most): no other was searched."
        )
        return pool, [match / straight * pool[0].match for match in others]
    turns = [*ball(n, config.largest_rotation_deg(n)), *_allowed(ring(n), config.rotation_deg)]
    axes = [between_axes(search.fixed.image.grid, search.moving.image.grid)]
    axes += between_moments(search.fixed.content, search.moving.content)
    axes = _allowed(axes, config.rotation_deg)
    search.telling.begin("rotations", len(turns) + SWEEP_KEEPS + len(axes))
    swept = sweep.best(turns, search.telling.piece)
    ranked = [(found[0].match, k) for k, found in enumerate(swept) if found]
    kept = [turns[k] for _, k in sorted(ranked, reverse=True)[:SWEEP_KEEPS]]
    for found in shifts.best([*kept, *axes], search.telling.piece):
        pool += found
    why = "The orientation of the headers does not stand out: " if n == 3 else ""
    search.decisions.append(
        f"{why}{len(turns)} rotations up to {config.largest_rotation_deg(n):g}° "
        f"and {len(axes)} that turn axes onto each other were searched, each with every shift."
    )
    pool = sorted(pool, key=lambda c: -c.match)
    highest = max((match for match, _ in ranked), default=0.0)
    unit = pool[0].match / highest if pool and highest > 0 else 0.0  # matches on the larger voxels are of another size
    return pool, [match * unit for match, _ in ranked]


def _allowed(turns: list[Matrix], largest_deg: float | None) -> list[Matrix]:
    """Those of the rotations (D, D) that are not beyond the limit that was set, if one was."""
    if largest_deg is None:
        return turns
    n = len(turns[0])
    return [turn for turn in turns if angle_deg(linear_about(turn, np.zeros(n), np.zeros(n))) <= largest_deg + 1e-6]


def _around(search: Search, part: str, shifts: ShiftSearch) -> tuple[float, list[float]]:
    """The best match in the orientation of the headers, and in each of those around it; 0 where too little overlaps."""
    dimension = search.fixed.image.grid.dimension
    turns = [np.eye(dimension), *ring(dimension)]
    search.telling.begin(part, len(turns))
    best = shifts.best(turns, search.telling.piece)
    matches = [max((each.match for each in found), default=0.0) for found in best]
    return matches[0], matches[1:]
