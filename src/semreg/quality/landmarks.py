"""How far landmarks are from where they should be (target registration error), in mm. Knows nothing of files.

Fitzpatrick and West, The distribution of target registration error in rigid-body point-based registration, IEEE TMI
2001: the distance between a mapped point and the point that it corresponds to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semreg.core.geometry import Grid
from semreg.errors import GeometryError
from semreg.transforms.base import Points, Transform
from semreg.transforms.pointwise import Distances, ErrorSummary, checked_points


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Of the errors of all landmarks, in mm: the standard deviation over N, percentiles linear between neighbours."""

    mean: float
    sd: float
    minimum: float
    median: float
    p75: float
    p90: float
    p95: float
    maximum: float

    @classmethod
    def of(cls, errors: Distances) -> Spread:
        """Of errors (N,)."""
        ranks = np.percentile(errors, [0, 50, 75, 90, 95, 100])
        minimum, median, p75, p90, p95, maximum = map(float, ranks)
        return cls(
            mean=float(errors.mean()), sd=float(errors.std()), minimum=minimum, median=median, p75=p75, p90=p90,
            p95=p95, maximum=maximum,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Landmark:
    """One pair of points in mm, LPS, and its errors in mm."""

    name: str
    fixed: tuple[float, ...]
    moving: tuple[float, ...]
    before: float
    after: float


@dataclass(frozen=True, kw_only=True)
class LandmarkErrors:
    """The errors of all landmarks in mm, before and after."""

    count: int
    worse: int
    """How many points are further off after than before."""
    before: Spread
    after: Spread
    points: tuple[Landmark, ...]


@dataclass(frozen=True, kw_only=True)
class LandmarkSummary:
    """What a record says of landmarks: errors before and after, and how many points got worse."""

    count: int
    worse: int
    before: ErrorSummary
    after: ErrorSummary

    @classmethod
    def of(cls, found: LandmarkErrors) -> LandmarkSummary:
        """Of all errors."""
        sides = {
            name: ErrorSummary(mean_mm=spread.mean, p95_mm=spread.p95, maximum_mm=spread.maximum)
            for name, spread in (("before", found.before), ("after", found.after))
        }
        return cls(count=found.count, worse=found.worse, **sides)


def distances(way: Transform | None, fixed: Points, moving: Points) -> Distances:
    """|T(p) − q| in mm, (N,), for fixed points p and moving points q (D, N); None: the identity."""
    mapped = fixed if way is None else way.map(fixed)
    return np.asarray(np.sqrt(((mapped - moving) ** 2).sum(0)))


def table_of_landmarks(
    way: Transform,
    initial: Transform | None,
    landmarks: tuple[npt.ArrayLike, npt.ArrayLike],
    names: Sequence[str] | None = None,
) -> LandmarkErrors:
    """The errors of all landmarks, before and after.

    The error of a landmark is its target registration error (Fitzpatrick and West, 2001).

    Args:
        way: the transform, fixed → moving.
        initial: the transform before; None: the identity.
        landmarks: fixed and moving points (N, D) in mm, LPS; the n-th ones correspond.
        names: one for each pair of points; None: their numbers.

    Returns:
        The errors in mm of each pair, and their summary.

    Raises:
        GeometryError: for points of another dimension, none, not finite ones, and numbers of points that differ.
    """
    fixed, moving = (
        checked_points(points, name, way.dimension) for points, name in zip(landmarks, ("fixed", "moving"), strict=True)
    )
    count = fixed.shape[1]
    if moving.shape[1] != count:
        raise GeometryError(
            f"expected as many fixed as moving landmarks, got {count} and {moving.shape[1]}: "
            "the n-th point of one must correspond to the n-th of the other"
        )
    called = list(names) if names is not None and len(names) == count else [str(n + 1) for n in range(count)]
    before, after = distances(initial, fixed, moving), distances(way, fixed, moving)
    points = tuple(
        Landmark(name=name, fixed=tuple(p.tolist()), moving=tuple(q.tolist()), before=float(b), after=float(a))
        for name, p, q, b, a in zip(called, fixed.T, moving.T, before, after, strict=True)
    )
    worse = int((after > before).sum())
    return LandmarkErrors(count=count, worse=worse, before=Spread.of(before), after=Spread.of(after), points=points)


def outside(points: npt.ArrayLike, grid: Grid) -> int:
    """How many of the points (N, D) lie outside the box of ``grid``."""
    array = np.asarray(points, dtype=np.float64)
    matrix = grid.point_to_index()
    index = array[:, : grid.dimension] @ matrix[:-1, :-1].T + matrix[:-1, -1]
    within = (index >= -0.5) & (index < np.asarray(grid.shape) - 0.5)
    return int((~within.all(1)).sum())
