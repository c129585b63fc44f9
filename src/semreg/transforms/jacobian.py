"""The Jacobian determinant of a transform on a grid: where space is stretched, squeezed or folded. Reads no files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from semreg.fields import Field, Volume, jacobian_determinant
from semreg.geometry import Grid
from semreg.itk_bridge import matrix_of
from semreg.transforms.chain import Chain
from semreg.transforms.formats import field_of

PERCENTILES = (1.0, 50.0, 99.0)
SMALLEST = 1e-6
"""The logarithm of a determinant below this, of a folded voxel too, is that of this."""


@dataclass(frozen=True)
class JacobianSummary:
    """The determinants of all voxels in a few numbers, without unit: 1 keeps the volume, 0 and less is folded."""

    minimum: float
    percentiles: tuple[float, float, float]
    """At 1, 50 and 99 %."""
    maximum: float
    folded_share: float
    """Share of the voxels whose determinant is not positive."""


def jacobian_map(chain: Chain, reference: Grid | None = None) -> tuple[Volume, JacobianSummary]:
    """The determinants (1, *S) on the reference grid, or on that of the field, as ITK computes them, and their summary.

    ITK's differences halve at the border; so the matrices at the end count by their own, exact determinant. Raises
    ConfigError where no grid is known, GeometryError for one of another dimension.
    """
    bent, factor = _without_matrices(chain)
    field = field_of(chain if bent is None else bent, reference)
    determinant = jacobian_determinant(Field(field.vox.double(), field.grid)) * factor
    if bent is None:
        determinant = torch.full(field.grid.shape, factor, dtype=torch.float64)
    return Volume(determinant[None], field.grid), summarise(determinant)


def _without_matrices(chain: Chain) -> tuple[Chain | None, float]:
    """The chain up to the last link that deforms, None if there is none, and the determinant of what follows."""
    last = max((number for number, link in enumerate(chain.links) if not link.is_linear), default=-1)
    factor = float(np.prod([np.linalg.det(matrix_of(link.transform)) for link in chain.links[last + 1 :]]))
    return (Chain(chain.links[: last + 1]) if last >= 0 else None), factor


def summarise(determinant: Tensor) -> JacobianSummary:
    """The numbers for a map of determinants of any shape."""
    values = determinant.flatten().sort().values
    last = len(values) - 1
    low, middle, high = (float(values[round(last * share / 100)]) for share in PERCENTILES)
    folded = float((values <= 0).double().mean())
    return JacobianSummary(float(values[0]), (low, middle, high), float(values[-1]), folded)


def logarithm(determinant: Volume) -> Volume:
    """The natural logarithm of the determinants; of folded voxels that of a very small one."""
    return Volume(torch.log(determinant.data.clamp(min=SMALLEST)), determinant.grid)
