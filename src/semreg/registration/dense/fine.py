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
from semreg.registration.dense.data_term import distance_at
from semreg.registration.dense.deform import Deformed
from semreg.registration.dense.prior import NOTHING, Prior
from semreg.registration.dense.refine import refine
from semreg.registration.dense.terms import Term
from semreg.runtime.events import OnStep


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """How the intensities of both images go together where one lies on the other: means over windows, up to 1."""

    correlation: float
    """Of the local correlation, from −1 on."""
    squared: float
    """Of its square, from 0 on."""

    @property
    def one(self) -> bool:
        """Whether both images show one contrast, as far as that can be seen: their intensities go the same way.

        A correlation is above its square where it is positive, and below where it is negative. Where the images have
        nothing to do with each other its mean is 0 and the mean of its square is not. So no threshold is needed.
        """
        return self.correlation > self.squared


def contrast(intensities: Term, found: Field, spacing_mm: float) -> Contrast:
    """How intensities, averaged over blocks of ``spacing_mm``, go together after the displacement ``found``."""
    term = intensities.pooled(spacing_mm)
    near, squared = (
        1 - distance_at([replace(term, distance=name)], found) / term.factor for name in ("lncc", "lncc_squared")
    )
    return Contrast(correlation=near, squared=squared)


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
        given: terms that guide, whose shares are relative to 1 for the intensities.
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
