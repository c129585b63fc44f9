"""How the intensities of both images go together once they lie on each other: one contrast, or two.

Two decisions follow from it: how finely a refinement may follow features, and whether intensities themselves may be
compared. Knows nothing of feature models.
"""

from __future__ import annotations

from dataclasses import dataclass

from semreg.core.fields import Field
from semreg.core.kernels import read
from semreg.core.scattered import Table
from semreg.core.sums import total
from semreg.distances.correlation import local_correlation
from semreg.distances.samples import SMALL
from semreg.registration.dense.data_term import seen_through
from semreg.registration.dense.terms import Term

REVERSED = 0.02
"""Share of the squared correlation that may be negative between images of one contrast. Unrelated images have 0.5,
reversed ones 1, stains of one tissue 0.07, and a texture whose brightest part is dark in the other image 0.022, which
misleads the descent by 40 %; the real pairs of one contrast of the benchmarks have 0.0004 to 0.015."""
REVERSED_AFTER_SEARCH = 0.03
"""The same before the refinement, over blocks twice as wide, as images lie on each other within a block alone. The real
pairs of one contrast of the benchmarks have at most 0.007 there, those of two at least 0.1."""


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


def relation_of(term: Term, found: Field) -> IntensityRelation:
    """How the intensities of a term go together after the displacement ``found``."""
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
