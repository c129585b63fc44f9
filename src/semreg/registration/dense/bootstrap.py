"""What a registration finds where its evidence is drawn again: blocks of samples with weights at random.

Kybic: Bootstrap resampling for image registration uncertainty estimation without ground truth. IEEE Transactions on
Image Processing, 2010, draws pixels with replacement. Here whole blocks are drawn, as neighbours are not independent,
and by weights instead of counts (Rubin: The Bayesian bootstrap. Annals of Statistics, 1981), so that none is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from semreg.core.fields import Field, Layer, Volume
from semreg.core.geometry import Grid
from semreg.registration.dense.disagreement import length_mm
from semreg.registration.dense.terms import Term

BLOCK = 4
"""Edge of the blocks in feature voxels: evidence nearer than that is one."""
MOST = 3.0
"""The heaviest weight of a block where the mean is 1: one in twenty would be heavier."""


def spread_mm(
    terms: Sequence[Term], found: Field, again: Callable[[Sequence[Term]], Field], repeats: int, seed: int
) -> Volume:
    """The standard deviation in mm of the displacements of ``repeats`` runs and of ``found``, (1, *S) on its grid.

    ``again`` registers terms again and gives the displacement on that grid; the weights are drawn from ``seed``.
    """
    block_mm = BLOCK * min(found.grid.spacing)
    generator = torch.Generator().manual_seed(seed)
    total, squares = torch.zeros_like(found.vox), torch.zeros_like(found.vox)
    for _ in range(repeats):
        moved = again([drawn(term, block_mm, generator) for term in terms]).vox - found.vox
        total += moved
        squares += moved.square()
    count = repeats + 1
    variance = (squares / count - (total / count).square()).clamp_min_(0)
    return Volume(length_mm(variance.sqrt_(), found.grid), found.grid)


def drawn(term: Term, block_mm: float, generator: torch.Generator) -> Term:
    """The term with weights at random for the blocks of its fixed features, in 0..1."""
    layer = term.fixed
    weight = blocks(layer.grid, block_mm, generator).to(layer.features.data)
    if layer.weight is not None:
        weight = weight * layer.weight.data
    return replace(term, fixed=Layer(layer.features, Volume(weight, layer.grid)))


def blocks(grid: Grid, block_mm: float, generator: torch.Generator) -> torch.Tensor:
    """Exponential weights, cut at ``MOST`` times their mean and divided by it, one for each block; (1, *S)."""
    sizes = [max(1, round(block_mm / s)) for s in grid.spacing]
    counts = [-(-n // size) for n, size in zip(grid.shape, sizes, strict=True)]
    weight = torch.empty((1, *counts)).exponential_(generator=generator).clamp_(max=MOST).div_(MOST)
    for axis, (size, n) in enumerate(zip(sizes, grid.shape, strict=True), start=1):
        weight = weight.repeat_interleave(size, axis).narrow(axis, 0, n)
    return weight.contiguous()
