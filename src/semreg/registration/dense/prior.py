"""What is known of a displacement beside the features that it is found from."""

from __future__ import annotations

from dataclasses import dataclass

from semreg.core.fields import Field, Volume
from semreg.registration.dense.correspondences import Correspondences


@dataclass(frozen=True)
class Prior:
    """What a deformation is held to."""

    stiffness: Volume | None = None
    """A map (1, *S) in the space of the fixed image, on any grid, that weighs the regularity from place to place: 1 is
    the usual weight, see ``checked_stiffness``, which has checked it."""
    points: Correspondences | None = None
    """Points of both images that are led to each other."""
    leading: Correspondences | None = None
    """The same in the search alone: what the images themselves say of points, the refinement sees in all its detail."""
    mean: Field | None = None
    """The displacement whose change is to be smooth, instead of the whole; None: none."""

    @property
    def searched(self) -> Correspondences | None:
        """All points that lead a search."""
        if self.points is None or self.leading is None:
            return self.points or self.leading
        return self.points.and_those(self.leading)


NOTHING = Prior()
"""Where nothing is known."""
