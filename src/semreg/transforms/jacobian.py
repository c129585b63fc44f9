"""The Jacobian determinant of a transform on a grid: where space is stretched, squeezed or folded. Reads no files."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from semreg.core.fields import Field, Volume, jacobian_determinant
from semreg.core.geometry import Grid
from semreg.errors import GeometryError
from semreg.io.bridge import matrix_of
from semreg.transforms.chain import Chain
from semreg.transforms.domain import Outside
from semreg.transforms.formats.displacement import field_of

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
    outside_share: float = 0.0
    """Share of the voxels of the grid that the numbers above leave out: beyond the boxes of the transform's fields, and
    beside them, where the differences reach across the face."""


def jacobian_map(
    chain: Chain, reference: Grid | None = None, *, outside: Outside = Outside.IDENTITY
) -> tuple[Volume, JacobianSummary]:
    """The Jacobian determinants of a transform on a grid, as ITK computes them, and their summary.

    ITK's differences halve at the border; so the matrices at the end count by their own, exact determinant.

    Args:
        chain: the transform, fixed → moving.
        reference: the grid; None: that of the field the chain begins with.
        outside: the map beyond the boxes of the chain's fields; NaN with ``Outside.BACKGROUND``.

    Returns:
        The determinants (1, *S), float64, without unit, and a summary of those inside of the boxes.

    Raises:
        ConfigError: where no grid is known.
        GeometryError: for a reference of another dimension, and one that lies outside of the boxes.
    """
    bent, factor = _without_matrices(chain)
    field = field_of(chain if bent is None else bent, reference, outside)
    left_out = chain.coverage(field.grid).touched()
    determinant = jacobian_determinant(Field(field.vox.double(), field.grid)) * factor
    if bent is None:
        determinant = torch.full(field.grid.shape, factor, dtype=torch.float64)
    if left_out is None:
        return Volume(determinant[None], field.grid), summarise(determinant)
    if bool(left_out.all()):
        raise GeometryError(
            f"expected a reference that the transform says something of, got {field.grid.box()}, which lies outside of "
            "its box: give the fixed image of the transform"
        )
    summary = replace(summarise(determinant[~left_out]), outside_share=float(left_out.double().mean()))
    if outside is Outside.BACKGROUND:
        determinant = determinant.masked_fill(left_out, torch.nan)
    return Volume(determinant[None], field.grid), summary


def _without_matrices(chain: Chain) -> tuple[Chain | None, float]:
    """The chain up to the last link that deforms, None if there is none, and the determinant of what follows."""
    last = max((number for number, link in enumerate(chain.links) if not link.is_linear), default=-1)
    factor = float(np.prod([np.linalg.det(matrix_of(link.transform)) for link in chain.links[last + 1 :]]))
    return (Chain(chain.links[: last + 1]) if last >= 0 else None), factor


def summarise(determinant: Float[Tensor, "..."]) -> JacobianSummary:
    """The numbers for a map of determinants of any shape."""
    values = determinant.flatten().sort().values
    last = len(values) - 1
    low, middle, high = (float(values[round(last * share / 100)]) for share in PERCENTILES)
    folded = float((values <= 0).double().mean())
    return JacobianSummary(float(values[0]), (low, middle, high), float(values[-1]), folded)


def logarithm(determinant: Volume) -> Volume:
    """The natural logarithm of determinants (1, *S); of folded voxels that of a very small one."""
    return Volume(torch.log(determinant.data.clamp(min=SMALLEST)), determinant.grid)
