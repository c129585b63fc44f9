"""The last step of a deformation where both images show one contrast: their intensities, compared at full resolution.

MIND finds the place whatever the contrasts are, and sees little of what moves an edge by less than a voxel. Where both
images brighten and darken alike, their intensities say more: the local correlation (Avants et al., Medical Image
Analysis 2008) is lowered on the working voxels themselves, from what was found and near it: only the change is held to
be smooth, so that a border that slides keeps doing so. Knows nothing of feature models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from semreg.config import FineConfig, RefineConfig
from semreg.core.fields import Field
from semreg.core.kernels import read
from semreg.core.scattered import Table
from semreg.core.sums import total
from semreg.distances.correlation import local_correlation
from semreg.distances.samples import SMALL
from semreg.registration.dense.data_term import seen_through
from semreg.registration.dense.deform import Deformed
from semreg.registration.dense.prior import NOTHING, Prior
from semreg.registration.dense.refine import refine
from semreg.registration.dense.terms import Term, terms_of
from semreg.runtime.events import OnStep

REVERSED = 0.02
"""Share of the squared correlation that may be negative between images of one contrast. Unrelated images have 0.5,
reversed ones 1, stains of one tissue 0.07, and a texture whose brightest part is dark in the other image 0.022, which
misleads the descent by 40 %; the real pairs of one contrast of the benchmarks have 0.0004 to 0.015."""


@dataclass(frozen=True, kw_only=True)
class IntensityRelation:
    """How the intensities of both images go together where one lies on the other, window by window."""

    correlation: float
    """The local correlation, its mean over all windows, −1 to 1."""
    reversed: float
    """The sum of its squares where it is negative, as a share of the sum of all, 0 to 1."""

    @property
    def one_contrast(self) -> bool:
        """Whether both images show one contrast, as far as that can be seen: they brighten and darken alike."""
        return self.reversed < REVERSED


def relation_of(intensities: Term, found: Field, spacing_mm: float) -> IntensityRelation:
    """How intensities, averaged over blocks of ``spacing_mm``, go together after the displacement ``found``."""
    term = intensities.pooled(spacing_mm)
    index, weight = seen_through(term, found)
    moving = read(Table(term.moving.features.data), index)
    fixed = term.fixed.features.data.flatten(1).T
    correlation = local_correlation(fixed, moving, weight, term.fixed.grid.shape, term.radius).flatten()
    squares = weight * correlation.square()
    every = total(squares)
    return IntensityRelation(
        correlation=total(weight * correlation) / max(total(weight), SMALL),
        reversed=total(squares * (correlation < 0)) / every if every > 0 else 1.0,
    )


def in_place_of_models(intensities: Term, terms: Sequence[Term]) -> tuple[Term, ...]:
    """The intensities in place of all that models give, first, and the terms that guide, which count as they did."""
    given = [term for term in terms if term.given]
    return terms_of([replace(intensities, share=1 - sum(term.share for term in given)), *given])


def refined_finely(  # noqa: PLR0913 - what is compared, from where, how, beside what, and who is told
    intensities: Term,
    given: Sequence[Term],
    deformed: Deformed,
    config: FineConfig,
    base: RefineConfig,
    *,
    prior: Prior = NOTHING,
    on_step: OnStep | None = None,
) -> Deformed:
    """What a descent on the intensities makes of ``deformed``.

    Args:
        intensities: those of both images on their working grids.
        given: terms that guide beside them.
        deformed: what was found before.
        config: how it descends.
        base: what the refinement before keeps to: its axes, and how it deals with compression.
        prior: what the deformation is held to.
        on_step: who is told of each step.

    Returns:
        The displacement on control points of its own, with the levels of before and the new one.

    Raises:
        GeometryError: where no sample of both images can be compared.
        DivergedError: for values that are not finite.
    """
    grid = intensities.fixed.grid
    found = deformed.spline.field(grid)
    settings = RefineConfig(
        levels=1, iterations=config.iterations, control_mm=config.control_mm, diffusion=config.diffusion,
        axes=base.axes, folding=base.folding, minimum_jacobian=base.minimum_jacobian, window=base.window,
        tolerance=base.tolerance,
    )  # fmt: skip
    terms = [replace(intensities, radius=base.window // 2), *given]
    best = refine(terms, grid, found, settings, on_step, prior=replace(prior, mean=found))
    return replace(deformed, spline=best.spline, levels=deformed.levels + best.levels)
