"""How far the displacement that was found may be off, in mm, from one run. Knows nothing of files and reports.

    mm² = W² + 0.02 S² + 0.1 R²                     from one run
    mm² = 0.75 (W² + 0.02 S² + 0.1 R² + 4 B²)       with repeats

W: the width of the matching costs around the displacement (``dense.sharpness``). S, R: how far the two directions of
the search, and of the refinement, disagree (``dense.disagreement``). B: the spread of repeats with the evidence drawn
again (``dense.bootstrap``). The factors were set on phantoms, on seeds that no test and no table uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from semreg.config import UncertaintyConfig
from semreg.core.fields import Field, Volume
from semreg.core.geometry import AxisOrder, Grid, index_map, reorder
from semreg.core.sampling import inside, sample, smooth, transform_index
from semreg.registration.dense.bootstrap import spread_mm
from semreg.registration.dense.disagreement import Disagreement
from semreg.registration.dense.sharpness import width_mm
from semreg.registration.dense.terms import Term, leading

SEARCHES = 0.02
"""Of the squared disagreement of the searches; much of it is the size of their steps."""
REFINEMENTS = 0.1
"""Of the squared disagreement of the refinements."""
REPEATS = 4.0
"""Of the squared spread of the repeats, which see the noise of the evidence and not its lack."""
MEMBERS = 4.0
"""Of the squared spread of an ensemble."""
REPEATED = 0.75
"""Of the sum where repeats are in it."""
PARTS = ("window", "searches", "refinements", "ensemble", "repeats")
"""In the order of the summary."""
NOTE = (
    "An estimate of the mean error of the deformation, scaled on phantoms; not of an alignment or an initial "
    "transform. It cannot see errors much larger than the widest of its window."
)
BEFORE_PARTS = "In rigid parts and around them it is that of the displacement before these were held rigid."
"""What more is said of it where there are some."""


@dataclass(frozen=True, kw_only=True)
class UncertaintySummary:
    """The uncertainty in mm over the nodes that count."""

    mean_mm: float
    median_mm: float
    p95_mm: float
    maximum_mm: float
    parts: dict[str, float | None]
    """Root mean square of each part; None where there was none."""
    note: str = NOTE


@dataclass(frozen=True)
class Uncertainty:
    """How far the displacement may be off, on nodes in the frame of the features."""

    map: Volume
    """(1, *nodes) in mm, finite."""
    parts: dict[str, Volume]
    """What each part adds alone, (1, *nodes) in mm: ``window``, and what there is of ``searches``, ``refinements`` and
    ``repeats``."""
    counts: Tensor
    """Which nodes lie where the fixed features count, (1, *nodes), bool: the others are left out of the summary."""

    def summary(self, *, rigid: bool = False) -> UncertaintySummary:
        """What the record says: mm over the nodes that count, of each part the root mean square.

        ``rigid``: whether rigid parts were held after it was estimated.
        """
        parts = {name: part.data[self.counts].square().mean().sqrt() for name, part in self.parts.items()}
        plain = {name: float(parts[name]) if name in parts else None for name in PARTS}
        note = f"{NOTE} {BEFORE_PARTS}" if rigid else NOTE
        values = statistics(self.map.data[self.counts])
        return UncertaintySummary(parts=plain, note=note, **values)

    def on_image(self, axes: AxisOrder, grid: Grid) -> Volume:
        """The map on ``grid``, (1, *S) float32 on the CPU; its axes in the order ``axes`` are those of the nodes."""
        ordered = Volume(self.map.data.float().cpu(), self.map.grid).on(reorder(grid, axes))
        return Volume(ordered.reordered(axes.inverse).data.contiguous(), grid)


def estimate(  # noqa: PLR0913 - what was found, and what more is known of it
    terms: Sequence[Term],
    found: Field,
    config: UncertaintyConfig,
    *,
    disagreement: Disagreement | None = None,
    spread: Volume | None = None,
    again: Callable[[Sequence[Term]], Field] | None = None,
    seed: int = 0,
    axes: Sequence[str] = (),
) -> Uncertainty:
    """The uncertainty of ``found``, a displacement on the grid of the fixed features, on a part of its samples.

    ``terms`` are what was compared; ``again`` registers other terms, for ``config.repeats``, and gives the
    displacement on the same grid; ``seed`` is that of what it draws. ``axes``: the directions along
    which points were free to move, and are in doubt; none: all.
    """
    disagreement = disagreement or Disagreement()
    width = width_mm(leading(terms), found, axes)
    nodes = width.grid
    squares = {"window": width.data.square()}
    if disagreement.searches is not None:
        squares["searches"] = SEARCHES * smoothed_squares(disagreement.searches, nodes)
    if disagreement.refinements is not None:
        squares["refinements"] = REFINEMENTS * smoothed_squares(disagreement.refinements, nodes)
    if spread is not None:
        squares["ensemble"] = MEMBERS * smoothed_squares(spread, nodes)
    if config.repeats and again is not None:
        spread = spread_mm(terms, found, again, config.repeats, seed)
        squares["repeats"] = REPEATS * smoothed_squares(spread, nodes)
        squares = {name: REPEATED * square for name, square in squares.items()}
    total = torch.stack(list(squares.values())).sum(0).sqrt()
    parts = {name: Volume(square.sqrt(), nodes) for name, square in squares.items()}
    return Uncertainty(Volume(total, nodes), parts, _counts(terms, found.on(nodes)))


def on_sides(inner: Uncertainty, outer: Uncertainty, share: Volume) -> Uncertainty:
    """The uncertainty of two displacements, the first where ``share``, (1, *S), is more than a half."""

    def joined(near: Volume, far: Volume) -> Volume:
        inside = share.averaged_on(near.grid).data > 0.5
        return Volume(torch.where(inside.to(near.data.device), near.data, far.data), near.grid)

    counts = joined(*(Volume(each.counts.float(), each.map.grid) for each in (inner, outer))).data > 0
    parts = {name: joined(part, outer.parts[name]) for name, part in inner.parts.items()}
    return Uncertainty(joined(inner.map, outer.map), parts, counts if bool(counts.any()) else torch.ones_like(counts))


def smoothed_squares(part: Volume, nodes: Grid) -> Tensor:
    """The squares of a map in mm on ``nodes``, averaged over about 5 of them an axis: one value alone is chance."""
    return smooth(part.on(nodes).data.square(), passes=2)


def statistics(values: Tensor) -> dict[str, float]:
    """Mean, median, 95th percentile and maximum of values in mm."""
    ordered = values.flatten().sort().values
    last = len(ordered) - 1
    return {
        "mean_mm": float(ordered.double().mean()),
        "median_mm": float(ordered[last // 2]),
        "p95_mm": float(ordered[round(0.95 * last)]),
        "maximum_mm": float(ordered[-1]),
    }


def _counts(terms: Sequence[Term], found: Field) -> Tensor:
    """Which nodes count, (1, *nodes), bool: where the fixed features do and the moving image is seen; all if none."""
    nodes, far = found.grid, terms[0].moving.grid
    index = transform_index(index_map(nodes, far), found.index(slice(0, nodes.shape[0])))
    seen, known = inside(index, far.shape)[None], terms[0].moving.weight
    if known is not None:
        seen = seen & (sample(known.data, index) > 0.5)
    weights = [term.fixed.weight for term in terms]
    if all(weight is not None for weight in weights):
        own = torch.stack([weight.on(nodes).data for weight in weights if weight is not None]).amax(0) > 0.5
        seen = seen & own if bool((seen & own).any()) else own
    return seen if bool(seen.any()) else torch.ones_like(seen)
