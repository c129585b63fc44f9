"""What the deformation does, in numbers for the page: its lengths and its determinants, without the alignment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from semreg.core.fields import Field, Volume, jacobian_determinant
from semreg.quality.deformation import RIM, DisplacementStatistics, displacement_statistics
from semreg.report.case import Case


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Of the whole fixed image."""

    alone: DisplacementStatistics
    """Of the deformation alone."""
    total: DisplacementStatistics | None
    """Together with the alignment; None without one."""
    smallest: float
    """Determinant of the deformation alone, without the outermost voxels."""
    largest: float
    folded_share: float


def _determinants(case: Case, alone: Field) -> Tensor:
    """The determinants (*S) of the complete displacement; of what slides each side goes straight on."""
    inside = case.inside()
    if inside is None:
        return jacobian_determinant(case.field)
    index = torch.stack(torch.meshgrid(*map(torch.arange, alone.grid.shape), indexing="ij"))
    ends = torch.tensor(alone.grid.shape).reshape(-1, *[1] * inside.ndim) - 1
    found = []
    for side in (inside, ~inside):
        away = distance_transform_edt(~side.numpy(), alone.grid.spacing, return_distances=False, return_indices=True)
        border = torch.from_numpy(away).long()
        behind = torch.minimum((2 * border - index).clamp(min=0), ends)
        behind = torch.where(side[tuple(behind)], behind, border)  # as far in as the voxel is out
        beyond = 2 * alone.vox[:, *border] - alone.vox[:, *behind]
        found.append(jacobian_determinant(Field(torch.where(side, alone.vox, beyond), alone.grid)))
    whole = 1.0 if case.linear is None else float(np.linalg.det(case.linear[:-1, :-1]))
    return whole * torch.where(inside, found[0], found[1])


def motion_of(case: Case) -> tuple[Motion, Volume]:
    """The numbers of a case, and the determinants (1, *S) of the deformation alone on the fixed image's grid."""
    alone = case.without_linear(case.field)
    values = _determinants(case, alone).float() if case.jacobian is None else case.jacobian.data[0]
    rims = [RIM if n > 2 * RIM else 0 for n in values.shape]
    inner = values[tuple(slice(rim, n - rim) for rim, n in zip(rims, values.shape, strict=True))]
    if case.linear is not None:  # differences are one-sided in the rim, so an alignment does not divide out there
        n = values.ndim
        inner = inner / float(np.linalg.det(case.linear[:n, :n]))
        ends = [rim for each in reversed(rims) for rim in (each, each)]
        values = torch.nn.functional.pad(inner[None, None], ends, mode="replicate")[0, 0]
    motion = Motion(
        alone=displacement_statistics(alone),
        total=None if case.linear is None else displacement_statistics(case.field),
        smallest=float(inner.min()),
        largest=float(inner.max()),
        folded_share=int((inner <= 0).count_nonzero()) / inner.numel(),
    )
    return motion, Volume(values[None], case.fixed.grid)
