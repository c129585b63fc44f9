"""What a record says of a wall along which its inside slides, and what a user is told. Knows nothing of images."""

from __future__ import annotations

from dataclasses import dataclass

from semreg.transforms.pointwise import ErrorSummary

WIDE_VOXELS = 1.0
"""Of a gap or an overlap, in voxels of the fixed image, that a user is told of."""


@dataclass(frozen=True, kw_only=True)
class SlidingReport:
    """How the inside of a wall slides along it."""

    labels: tuple[int, ...]
    """Those that lie inside."""
    area: float
    """Of the wall, mm²; its length in mm in 2-D."""
    slide_mm: ErrorSummary
    """How far both sides of a place of the wall are moved apart along it."""
    most_at: tuple[float, ...] = ()
    """The place where that is most, x, y(, z) in mm, LPS, in the fixed image; empty in a record without it."""
    gap_mm: ErrorSummary
    """How far the moved surfaces of both sides are apart, as gap or overlap."""
    unmatched_share: float
    """Share of the wall whose inside is moved to where the other side has no wall, as at the end of an image."""
    across_share: float
    """Share of the voxels at which differences across the wall have a determinant of 0 or below: there the field jumps.
    The determinants of each side, ``jacobian``, leave them out."""
    voxel_mm: float
    """The smallest edge of a voxel of the fixed image."""

    @property
    def sentences(self) -> list[str]:
        """What a user should know of it beside the figures."""
        if self.gap_mm.p95_mm <= WIDE_VOXELS * self.voxel_mm:
            return []
        return [f"both sides of the wall that slides are up to {self.gap_mm.p95_mm:.2g} mm apart: look at its mask"]
