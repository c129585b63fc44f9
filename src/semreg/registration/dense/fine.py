"""The last step of a deformation where both images show one contrast: their intensities, compared at full resolution.

MIND finds the place whatever the contrasts are, and sees little of what moves an edge by less than a voxel. Where both
images brighten and darken alike, their intensities say more: the local correlation (Avants et al., Medical Image
Analysis 2008) is lowered on the working voxels themselves, from what was found and near it: only the change is held to
be smooth, so that a border that slides keeps doing so. Knows nothing of feature models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from semreg.config import FineConfig, RefineConfig
from semreg.registration.dense.deform import Deformed
from semreg.registration.dense.prior import NOTHING, Prior
from semreg.registration.dense.refine import refine
from semreg.registration.dense.terms import Term, terms_of
from semreg.runtime.events import OnStep


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
