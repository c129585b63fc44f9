"""Where one image lies in the other: every shift of some rotations, then descent from the best, from coarse to fine.

The orientation of the headers is tried first. Where another one may match as well, all rotations up to a limit are
tried, the axes of the arrays and of what they show among them. Scores are those of ``overlap``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from semreg.config import AlignConfig
from semreg.errors import GeometryError
from semreg.geometry import Grid, Matrix, boxes_overlap
from semreg.parametric.descent import Descent, Placed
from semreg.parametric.maps import angle_deg, largest_move, linear_about, scales
from semreg.parametric.overlap import Describe, Picture, describe_picture, unrelated
from semreg.parametric.rotations import RING_DEG, ball, between_axes, between_moments, ring
from semreg.parametric.shifts import Candidate, ShiftSearch

SEARCH_SIDE = {2: 96, 3: 32}
"""Voxels a side of the search, if the larger image were a cube."""
FINEST_VOXELS = 1 << 18
"""Voxels of the fixed image at the finest resolution at most."""
STANDS_OUT = 1.12
"""The orientation of the headers is right where it matches better than all around it by this factor."""
SWEEP_COARSER = 1.4
"""How much larger the voxels are on which all rotations are tried; the best are tried again on those of the search."""
SWEEP_KEEPS = 16
LEVELS = 3
"""Resolutions where the settings leave it open."""
PERHAPS = 1.04
"""Below this factor no closer look is taken."""
DESCENTS = 6
"""Candidates that are followed by descent."""
SAME_MOVE = 0.1
"""Maps that differ by less than this share of the box's diagonal are one."""
BETTER = 1.05
"""By what factor an affine map must match better than a rigid one."""
CLEARLY_BETTER = 1.15
"""By what factor a map must match better than the headers."""
NEAR = 1 / 2
"""Share of the reach of the dense search up to which a move is left to it: the rest is for the deformation itself."""
NEARLY_UPRIGHT_DEG = 10.0
"""Rotation up to which that is so: descriptors do not turn with the image."""
STRONGEST_SCALE = 1.5
"""An affine map that stretches more is not taken by itself."""
AMBIGUOUS = 0.9
FAINT = 1.15
NOTHING = 0.01
LITTLE_OVERLAP = 0.5

Tell = Callable[[int, int, int, float], None]
"""Level, levels, step, match."""


@dataclass(frozen=True)
class Alignment:
    """A map of points in mm, fixed → moving, and why."""

    matrix: Matrix
    family: str
    """``none`` where the start stands as it is."""
    match: float
    """At the coarsest resolution, up to 1; higher is better."""
    match_before: float | None
    """Of the start; None where the images do not overlap there."""
    overlap: float
    decisions: tuple[str, ...]
    """What was chosen, in sentences."""
    doubts: tuple[str, ...] = ()
    """Why it may be wrong, in sentences; empty: nothing speaks against it."""
    levels: tuple[dict[str, float], ...] = ()
    """For each resolution: spacing in mm, steps, match."""

    @property
    def moves(self) -> bool:
        """Whether it is more than the start."""
        return self.family != "none"


@dataclass
class _Search:
    """Both pictures and what is known so far."""

    fixed: Picture
    moving: Picture
    describe: Describe
    config: AlignConfig
    tell: Tell
    decisions: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    reports: list[dict[str, float]] = field(default_factory=list)

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


def align(  # noqa: PLR0913 - two images, how, where from
    fixed: Picture,
    moving: Picture,
    describe: Describe,
    config: AlignConfig,
    *,
    start: Matrix | None = None,
    reach_mm: float = 0.0,
    tell: Tell | None = None,
) -> Alignment:
    """Find the map that brings the moving picture onto the fixed one.

    ``start`` is a map to start from; without one the headers' is the first, and the best of all is looked for. With
    ``auto`` a map that moves little beside ``reach_mm``, which a later search covers anyway, is
    left out. Raises GeometryError where no map brings enough of both images together.
    """
    search = _Search(fixed, moving, describe, config, tell or (lambda *_: None))
    spacings = plan_spacings(fixed.image.grid, moving.image.grid, config)
    near, far = fixed.at(spacings[0]), moving.at(spacings[0])
    descent = Descent(near, far, describe)
    family: str = "rigid" if config.transform == "auto" else config.transform
    n = fixed.image.grid.dimension
    first = np.eye(n + 1) if start is None else start
    overlapping = start is not None or boxes_overlap(fixed.image.grid, moving.image.grid)
    before = descent.look(first) if overlapping else None
    if start is None:
        pool, others = _candidates(search, ShiftSearch(near, far, describe, config.minimum_overlap))
        if before is not None and len(pool) != 1:
            pool.insert(0, Candidate(before.matrix, before.match, before.overlap))  # of equal ones the first stays
    else:
        pool, others = [Candidate(start, before.match if before else 0.0, 0.0)], []
    if not pool:
        raise GeometryError(
            f"expected a position where both images show at least {config.minimum_overlap:.0%} of the smaller one's "
            "content, got none: lower align.minimum_overlap, or give an initial transform"
        )
    simple = "rigid" if family == "affine" else family
    placed = _descents(search, descent, pool, simple, len(spacings))
    best = placed[0]
    _judge(search, placed, others)
    for name, seen in (("fixed", descent.seen), ("moving", describe_picture(far, describe))):
        if unrelated(seen, seen) <= 0:
            search.doubts.append(f"the {name} image shows nothing that a place could be told by")
    if config.transform == "auto" and before is not None and _stands(search, best, before, reach_mm, start):
        return _result(search, before, "none", before)
    best, family = _finish(search, descent, best, spacings)
    return _result(search, best, family, before)


def plan_spacings(fixed: Grid, moving: Grid, config: AlignConfig) -> list[float]:
    """Edges of the voxels in mm, the coarsest first."""
    n = fixed.dimension
    volume = max(math.prod(max(e, s) for e, s in zip(g.extent_mm, g.spacing, strict=True)) for g in (fixed, moving))
    least = max(min(fixed.spacing), (math.prod(fixed.extent_mm) / FINEST_VOXELS) ** (1 / n))
    coarsest = config.spacing_mm or max((volume / SEARCH_SIDE[n] ** n) ** (1 / n), min(fixed.spacing))
    halved = [coarsest / 2**k for k in range(config.levels or LEVELS)]
    return [halved[0], *[s for s in halved[1:] if s >= 0.99 * least]]


def _candidates(search: _Search, shifts: ShiftSearch) -> tuple[list[Candidate], list[float]]:
    """Maps to follow, best first, and the matches of the orientations around the headers'."""
    config, n = search.config, search.fixed.image.grid.dimension
    upright = np.eye(n)
    pool = shifts.candidates(upright)
    if config.transform == "translation" or config.rotation_deg == 0:
        search.decisions.append("Every shift was tried, no rotation.")
        return pool, []
    # on larger voxels first, each orientation by its best shift; where that is not decisive, on those of the search
    sweep = search.shifts(SWEEP_COARSER * shifts.spacing)
    straight, others = _around(sweep, n)
    if n == 3 and PERHAPS <= straight / max(*others, 1e-6) < STANDS_OUT:
        straight, others = _around(shifts, n)
    # in 2-D all orientations cost little
    if n == 3 and straight >= STANDS_OUT * max(*others, 1e-6):
        search.decisions.append(
            f"The orientation of the headers matches better ({straight:.2f}) than {len(others)} others "
            f"{RING_DEG:g}° away ({max(others):.2f} at most): no other was searched."
        )
        return pool[:1], [match / straight * pool[0].match for match in others]
    turns = [*ball(n, config.largest_rotation_deg(n)), *_allowed(ring(n), config.rotation_deg)]
    axes = [between_axes(search.fixed.image.grid, search.moving.image.grid)]
    axes += between_moments(search.fixed.content, search.moving.content)
    axes = _allowed(axes, config.rotation_deg)
    ranked = [(found[0].match, k) for k, turn in enumerate(turns) if (found := sweep.candidates(turn, 1))]
    kept = [turns[k] for _, k in sorted(ranked, reverse=True)[:SWEEP_KEEPS]]
    for turn in [*kept, *axes]:
        pool += shifts.candidates(turn, 1)
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


def _around(shifts: ShiftSearch, dimension: int) -> tuple[float, list[float]]:
    """The best match in the orientation of the headers, and in each of those around it; 0 where too little overlaps."""
    turns = [np.eye(dimension), *ring(dimension)]
    matches = [max((found.match for found in shifts.candidates(turn, 1)), default=0.0) for turn in turns]
    return matches[0], matches[1:]


def _descents(search: _Search, descent: Descent, pool: list[Candidate], family: str, levels: int) -> list[Placed]:
    """Where descent from the distinct ones of the candidates ends, best first."""
    chosen: list[Candidate] = []
    for candidate in sorted(pool, key=lambda c: -c.match):
        if all(search.move(candidate.matrix, c.matrix) > 2 * descent.spacing for c in chosen):
            chosen.append(candidate)
    ends: list[Placed] = []
    for candidate in chosen[:DESCENTS]:
        end = descent.descend(
            candidate.matrix,
            family,
            search.config.iterations,
            lambda step, match: search.tell(1, levels, step, match),
        )
        ends.append(end)
    ends.sort(key=lambda placed: -placed.match)
    search.reports.append({"spacing_mm": descent.spacing, "steps": ends[0].steps, "match": ends[0].match})
    return ends


def _judge(search: _Search, placed: list[Placed], others: list[float]) -> None:
    """Say what speaks against the best of the ends."""
    best = placed[0]
    limit = SAME_MOVE * search.diagonal
    rivals = [p for p in placed[1:] if search.move(best.matrix, p.matrix) > limit]
    if rivals and rivals[0].match > AMBIGUOUS * best.match:
        rival = rivals[0]
        change = np.linalg.inv(best.matrix) @ rival.matrix
        search.doubts.append(
            f"another position, up to {search.move(best.matrix, rival.matrix):.0f} mm and {angle_deg(change):.0f}° "
            f"away, matches almost as well ({rival.match:.2f} against {best.match:.2f})"
        )
    if others and best.match < FAINT * float(np.median(others)):
        search.doubts.append(
            f"no position stands out: the best matches {best.match:.2f}, orientations known to be others "
            f"{float(np.median(others)):.2f}"
        )
    if best.match < NOTHING:
        search.doubts.append("the features match no better than those of unrelated places")
    if best.overlap < LITTLE_OVERLAP:
        search.doubts.append(f"the images share only {best.overlap:.0%} of what the smaller one shows")


def _stands(search: _Search, best: Placed, before: Placed, reach_mm: float, start: Matrix | None) -> bool:
    """Whether the start is good enough, and say so."""
    move = search.move(before.matrix, best.matrix)
    name = "headers" if start is None else "initial transform"
    if best.match <= max(CLEARLY_BETTER * before.match, NOTHING):
        search.decisions.append(
            f"No rigid map matches clearly better ({best.match:.2f}) than the {name} ({before.match:.2f}): "
            "no alignment is applied."
        )
        return True
    angle = angle_deg(np.linalg.inv(before.matrix) @ best.matrix)
    if move <= NEAR * reach_mm and angle <= NEARLY_UPRIGHT_DEG:
        search.decisions.append(
            f"The best rigid map moves no point by more than {move:.1f} mm and turns by {angle:.1f}°; the search "
            f"reaches {reach_mm:.0f} mm around the {name}: no alignment is applied."
        )
        return True
    return False


def _finish(search: _Search, descent: Descent, best: Placed, spacings: list[float]) -> tuple[Placed, str]:
    """More parameters if asked for or clearly better, then the finer resolutions."""
    config = search.config
    family = "rigid" if config.transform == "auto" else config.transform
    quiet: Callable[[int, float], None] = lambda *_: None  # noqa: E731
    if config.transform == "auto":
        richer = descent.descend(best.matrix, "affine", config.iterations, quiet)
        sizes = scales(richer.matrix)
        plausible = max(*sizes, 1 / max(min(sizes), 1e-6)) <= STRONGEST_SCALE
        if plausible and richer.match > BETTER * best.match:
            search.decisions.append(
                f"An affine map matches better ({richer.match:.2f}) than a rigid one ({best.match:.2f})."
            )
            best, family = richer, "affine"
        else:
            search.decisions.append(f"A rigid map ({best.match:.2f}); an affine one gains little ({richer.match:.2f}).")
    elif family == "affine":
        best = descent.descend(best.matrix, family, config.iterations, quiet)
    coarse = best
    for level, spacing in enumerate(spacings[1:], start=2):
        finer = Descent(search.fixed.at(spacing), search.moving.at(spacing), search.describe)
        tell = _telling(search.tell, level, len(spacings))
        best = finer.descend(best.matrix, family, config.iterations, tell)
        search.reports.append({"spacing_mm": spacing, "steps": best.steps, "match": best.match})
    return Placed(best.matrix, coarse.match, coarse.overlap), family


def _telling(tell: Tell, level: int, levels: int) -> Callable[[int, float], None]:
    return lambda step, match: tell(level, levels, step, match)


def _result(search: _Search, placed: Placed, family: str, before: Placed | None) -> Alignment:
    matrix = placed.matrix.copy()
    matrix[-1] = np.eye(len(matrix))[-1]  # without what rounding left
    return Alignment(
        matrix,
        family,
        placed.match,
        None if before is None else before.match,
        placed.overlap,
        tuple(search.decisions),
        tuple(search.doubts),
        tuple(search.reports),
    )
