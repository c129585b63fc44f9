"""Where one image lies in the other: every shift of some rotations, then descent from the best, from coarse to fine.

The orientation of the headers is tried first. Where another one may match as well, all rotations up to a limit are
tried, the axes of the arrays and of what they show among them. Scores are those of ``overlap``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from semreg.config import AlignConfig
from semreg.core.geometry import Grid, Matrix, boxes_overlap
from semreg.errors import GeometryError
from semreg.registration.parametric.candidates import Search, candidates
from semreg.registration.parametric.choice import NOTHING, SAME_MOVE, Choice
from semreg.registration.parametric.descent import Descent, Placed
from semreg.registration.parametric.evidence import Blocks
from semreg.registration.parametric.overlap import Describe, Picture, describe_picture, unrelated
from semreg.registration.parametric.shifts import Candidate, ShiftSearch
from semreg.registration.parametric.telling import Telling
from semreg.transforms.linear import Linear
from semreg.transforms.maps import angle_deg

SEARCH_SIDE = {2: 96, 3: 32}
"""Voxels a side of the search, if the larger image were a cube."""
FINEST_VOXELS = 1 << 18
"""Voxels of the fixed image at the finest resolution at most."""
LEVELS = 3
"""Resolutions where the settings leave it open."""
DESCENTS = 6
"""Candidates that are followed by descent."""
AMBIGUOUS = 0.9
FAINT = 1.15
LITTLE_OVERLAP = 0.5


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
    evidence: tuple[tuple[str, float], ...] = ()
    """What was compared, and by how many standard errors it was better."""
    levels: tuple[dict[str, float], ...] = ()
    """For each resolution: spacing in mm, steps, match."""

    @property
    def moves(self) -> bool:
        """Whether it is more than the start."""
        return self.family != "none"


def align(  # noqa: PLR0913 - two images, how, where from
    fixed: Picture,
    moving: Picture,
    describe: Describe,
    config: AlignConfig,
    *,
    start: Matrix | None = None,
    reach_mm: float = 0.0,
    telling: Telling | None = None,
) -> Alignment:
    """Find the map that brings the moving picture onto the fixed one.

    ``start`` is a map to start from; without one the headers' is the first, and the best of all is looked for. With
    ``auto`` a map that moves little beside ``reach_mm``, which a later search covers anyway, is
    left out. Raises GeometryError where no map brings enough of both images together.
    """
    search = Search(fixed, moving, describe, config, telling or Telling(None, config.iterations))
    spacings = plan_spacings(fixed.image.grid, moving.image.grid, config)
    search.telling.levels = len(spacings)
    near, far = fixed.at(spacings[0]), moving.at(spacings[0])
    descent = Descent(near, far, describe)
    family: str = "rigid" if config.transform == "auto" else config.transform
    n = fixed.image.grid.dimension
    first = np.eye(n + 1) if start is None else start
    overlapping = start is not None or boxes_overlap(fixed.image.grid, moving.image.grid)
    before = descent.look(Linear(first)) if overlapping else None
    if start is None:
        pool, others = candidates(search, ShiftSearch(near, far, describe, config.minimum_overlap))
        if before is not None:
            pool.insert(0, Candidate(before.matrix, before.match, before.overlap))  # of equal ones the first stays
    else:
        pool, others = [Candidate(start, before.match if before else 0.0, 0.0)], []
    if not pool:
        raise GeometryError(
            f"expected a position where both images show at least {config.minimum_overlap:.0%} of the smaller one's "
            "content, got none: lower align.minimum_overlap, or give an initial transform"
        )
    simple = "rigid" if family == "affine" else family
    placed = _descents(search, descent, pool, simple)
    best = placed[0]
    _judge(search, placed, others)
    for name, seen in (("fixed", descent.seen), ("moving", describe_picture(far, describe))):
        if unrelated(seen, seen) <= 0:
            search.doubts.append(f"the {name} image shows nothing that a place could be told by")
    if config.transform == "auto":
        name = "headers" if start is None else "initial transform"
        found = Choice(search, descent, Blocks.of(descent), before, name, reach_mm).of(placed)
        if found is None and before is not None:
            return _result(search, before, "none", before)
        best, family = found or (best, family)
    elif family == "affine":
        best = descent.descend(descent.begin(family, best.matrix), config.iterations, search.telling.trial())
    return _result(search, _finish(search, best, family, spacings), family, before)


def plan_spacings(fixed: Grid, moving: Grid, config: AlignConfig) -> list[float]:
    """Edges of the voxels in mm, the coarsest first."""
    n = fixed.dimension
    volume = max(math.prod(max(e, s) for e, s in zip(g.extent_mm, g.spacing, strict=True)) for g in (fixed, moving))
    least = max(min(fixed.spacing), (math.prod(fixed.extent_mm) / FINEST_VOXELS) ** (1 / n))
    coarsest = config.spacing_mm or max((volume / SEARCH_SIDE[n] ** n) ** (1 / n), min(fixed.spacing))
    halved = [coarsest / 2**k for k in range(config.levels or LEVELS)]
    return [halved[0], *[s for s in halved[1:] if s >= 0.99 * least]]


def _descents(search: Search, descent: Descent, pool: list[Candidate], family: str) -> list[Placed]:
    """Where descent from the distinct ones of the candidates ends, best first."""
    chosen: list[Candidate] = []
    for candidate in sorted(pool, key=lambda c: -c.match):
        if all(search.move(candidate.matrix, c.matrix) > 2 * descent.spacing for c in chosen):
            chosen.append(candidate)
    chosen = chosen[:DESCENTS]
    search.telling.begin("descents", len(chosen))
    steps, begin = search.config.iterations, partial(descent.begin, family)
    ends = [descent.descend(begin(c.matrix), steps, search.telling.descent(1)) for c in chosen]
    ends.sort(key=lambda placed: -placed.match)
    search.reports.append({"spacing_mm": descent.spacing, "steps": ends[0].steps, "match": ends[0].match})
    return ends


def _judge(search: Search, placed: list[Placed], others: list[float]) -> None:
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


def _finish(search: Search, best: Placed, family: str, spacings: list[float]) -> Placed:
    """The map after the finer resolutions, with the match of the coarsest."""
    fine = best
    lengths = [4.0**level for level in range(len(spacings) - 1)]
    search.telling.begin("finer", sum(lengths))
    for level, spacing in enumerate(spacings[1:], start=2):
        finer = Descent(search.fixed.at(spacing), search.moving.at(spacing), search.describe)
        tell = search.telling.descent(level, lengths[level - 2])
        fine = finer.descend(finer.begin(family, fine.matrix), search.config.iterations, tell)
        search.reports.append({"spacing_mm": spacing, "steps": fine.steps, "match": fine.match})
    return Placed(fine.transform, best.match, best.overlap)


def _result(search: Search, placed: Placed, family: str, before: Placed | None) -> Alignment:
    search.telling.end(search.reports[-1]["match"] if family != "none" else placed.match)
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
        tuple(search.evidence),
        tuple(search.reports),
    )
