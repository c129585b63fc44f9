"""What a record says of rigid parts, and what a user is told of them. Knows nothing of how they were found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from semreg.core.fields import Field
from semreg.registration.parts.known import KnownParts, named, part_points
from semreg.registration.parts.motion import Motion
from semreg.transforms.maps import angle_deg, mapped
from semreg.transforms.pointwise import ErrorSummary


@dataclass(frozen=True, kw_only=True)
class PartReport:
    """One part that moves rigidly."""

    label: int
    name: str
    """What its file calls it; empty: nothing."""
    volume_mm3: float
    """Of its voxels in the fixed image."""
    rotation_deg: float
    translation_mm: tuple[float, ...]
    """How its centre moves, x, y(, z), LPS."""
    matrix: tuple[tuple[float, ...], ...]
    """Homogeneous, points in mm, fixed → moving."""
    from_rigid_mm: ErrorSummary
    """How far the displacement that was found was from rigid in it."""
    refined_mm: float | None
    """How far its own descent on the images then moved any of its voxels; None: there was none."""
    held_share: float
    """Share of its voxels that are exactly rigid: those beside another part are not."""
    residual_mm: float | None
    """How far the result is from its rigid map there, at most; None: none of its voxels is held."""
    notes: tuple[str, ...] = ()
    """What was not as usual."""

    @property
    def moved_mm(self) -> float:
        """How far its centre moves."""
        return math.hypot(*self.translation_mm)


@dataclass(frozen=True, kw_only=True)
class PartsReport:
    """All parts that move rigidly."""

    parts: tuple[PartReport, ...]
    outside: tuple[int, ...]
    """Labels without a voxel in the fixed image, which were left out."""
    passes: int
    """How often folds between them were opened."""

    @property
    def sentences(self) -> list[str]:
        """What a user should know of them beside the figures."""
        said = [f"rigid parts outside of the fixed image, left out: {named(self.outside)}"] if self.outside else []
        return said + [f"rigid part {each.name or each.label} {note}" for each in self.parts for note in each.notes]

    @classmethod
    def of(
        cls, parts: KnownParts, motions: Sequence[Motion], where: Int64[Tensor, "*s"], total: Field, passes: int
    ) -> PartsReport:
        """The report on the complete displacement ``total``, in which the parts hold the samples ``where``."""
        made = tuple(_of_part(parts, number, motion, where, total) for number, motion in enumerate(motions, 1))
        return cls(parts=made, outside=parts.outside, passes=passes)


def _of_part(parts: KnownParts, number: int, motion: Motion, where: Int64[Tensor, "*s"], total: Field) -> PartReport:
    """The report on one part."""
    label, points = parts.labels[number - 1], part_points(parts, number)
    mask = parts.numbers == number
    kept = mask & (where == number)
    share = float(kept.sum()) / points.shape[1]
    notes = motion.said
    if share < 1:
        beside = f"lies beside another part: {1 - share:.0%} of it is not held, so that both have room to move"
        notes = (*notes, beside)
    residual = None
    if bool(kept.any()):
        place = points[:, kept[mask].numpy()]
        there = place + total.mm()[:, kept].double().numpy()
        residual = float(np.linalg.norm(mapped(motion.matrix, place.T).T - there, axis=0).max())
    centre = points.mean(1)
    return PartReport(
        label=label,
        name=parts.names.get(label, ""),
        volume_mm3=points.shape[1] * float(np.prod(parts.grid.spacing)),
        rotation_deg=angle_deg(motion.matrix),
        translation_mm=tuple(map(float, mapped(motion.matrix, centre[None])[0] - centre)),
        matrix=tuple(tuple(map(float, row)) for row in motion.matrix),
        from_rigid_mm=ErrorSummary.of(motion.off_mm),
        refined_mm=motion.refined_mm,
        held_share=share,
        residual_mm=residual,
        notes=notes,
    )
