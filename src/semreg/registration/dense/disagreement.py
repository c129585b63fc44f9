"""How far two displacements that were found from either side are from undoing each other. Knows nothing of features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.core.sampling import base_index, sample

OnDisagreement: TypeAlias = Callable[[Volume], None]
"""Is told a map in mm, (1, *S)."""


@dataclass(frozen=True)
class Disagreement:
    """What the two directions of a registration say against each other, in mm; None where there was one alone."""

    searches: Volume | None = None
    """Of the discrete search, over all levels, (1, *nodes of the finest level)."""
    refinements: Volume | None = None
    """Between one refinement and the inverse of the other, (1, *S) on the grid of the fixed features."""


def undone_mm(forward: Tensor, backward: Tensor, nodes: Grid) -> Volume:
    """|b(p + f(p)) + f(p)| in mm for displacements (D, *S) in samples of ``nodes``, (1, *S); 0 for inverses."""
    index = base_index(nodes.shape, like=forward)
    return Volume(length_mm(forward + sample(backward, index + forward), nodes), nodes)


def between_mm(first: Field, second: Field) -> Volume:
    """The distance in mm between two displacements on one grid, (1, *S)."""
    return Volume(length_mm(first.vox - second.vox, first.grid), first.grid)


def length_mm(vox: Tensor, grid: Grid) -> Tensor:
    """The length in mm of vectors (D, *S) in samples of ``grid``, (1, *S)."""
    total = torch.zeros_like(vox[:1])
    for vector, spacing in zip(vox, grid.spacing, strict=True):
        total.add_((vector * spacing).square_())
    return total.sqrt_()


def together_mm(parts: Sequence[Volume]) -> Volume | None:
    """The root of the sum of squares of several maps in mm, on the grid of the last; None for none."""
    if not parts:
        return None
    grid = parts[-1].grid
    total = torch.zeros_like(parts[-1].data)
    for part in parts:
        total.add_(part.on(grid).data.square())
    return Volume(total.sqrt_(), grid)
