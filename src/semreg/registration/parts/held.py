"""The displacement around rigid parts: exactly theirs within, and near what was found elsewhere.

What a part's motion changes is carried on by the smoothest change: the least of ∫ |∇e|² + |e|²/ℓ² with e given in the
parts, so it fades over the length ℓ. Where the sum folds, what is free around moves until no cell is turned over.
Knows nothing of images.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64
from scipy.ndimage import binary_dilation, find_objects, label
from torch import Tensor

from semreg.core.fields import Field
from semreg.core.geometry import Matrix
from semreg.core.kernels import jacobian_determinant, least_corner
from semreg.core.regularity import determinant
from semreg.core.sampling import base_index, transform_index
from semreg.core.shapes import Values, Vectors
from semreg.registration.dense.unfold import SAFE_CORNER, SAFE_JACOBIAN

FADED = 4.0
"""Lengths from the parts where nothing of a change is left."""
EXACT = 1e-4
"""Share of the first residual at which conjugate gradients end."""
STEPS = 300
PASSES = 3
"""Times at most that folds are opened, each reaching further."""
LONGER = (1.0, 2.0, 4.0)
"""What the length is multiplied with where folds cannot be opened."""
REACH = 2
"""Samples that each reaches further."""
ROOM = 0.3
"""Of their volume that cells keep where folds are opened."""
CHANGED = 1e-3
"""Weight of the squared gradient of the change."""
DESCENT = 100
"""Steps of one descent, at most."""


@dataclass(frozen=True)
class Held:
    """A displacement that is rigid in some places."""

    field: Field
    passes: int
    """How often folds were opened."""


def held(field: Field, where: Int64[Tensor, "*s"], matrices: Sequence[Matrix], length_mm: float) -> Held:
    """The displacement that follows rigid maps where they hold, and ``field`` far from there.

    Args:
        field: what was found.
        where: of each sample the number of the map that holds it, from 1; 0: none.
        matrices: the maps, homogeneous (E, E) on points in mm.
        length_mm: over which their change fades.

    Returns:
        The displacement, without folds unless the maps leave no room for one.
    """
    fixed = where > 0
    if not bool(fixed.any()):
        return Held(field, 0)
    wanted = written(field, where, matrices)
    for longer in LONGER:
        found, left = _spread(field, wanted, fixed, longer * length_mm)
        if not left:
            break
    return found


def _spread(field: Field, wanted: Field, fixed: Bool[Tensor, "*s"], length_mm: float) -> tuple[Held, bool]:
    """The same for one length, and whether it still folds."""
    spacing = field.grid.spacing
    box = _around(fixed, [FADED * length_mm / each for each in spacing])
    vox = field.vox.clone()
    known = fixed[box].clone()
    _close(known, box, field.grid.shape)
    for axis, row in enumerate((wanted.vox - vox)[:, *box]):
        vox[axis][box] += relaxed(row, known, [1 / each**2 for each in spacing], 1 / length_mm**2)
    vox[:, fixed] = wanted.vox[:, fixed]
    for passes in range(PASSES + 1):
        folds = torch.zeros_like(fixed)
        folds[box] = folded(vox[:, *box])
        if passes == PASSES or not bool(folds.any()):
            break
        free = _grown(folds, REACH * (passes + 1)) & ~fixed
        pieces, _ = label(free.numpy(), np.ones([3] * free.ndim))
        for number, piece in enumerate(find_objects(pieces), 1):
            around = tuple(slice(max(each.start - 1, 0), each.stop + 1) for each in piece)
            vox[:, *around] = opened(vox[:, *around], torch.from_numpy(pieces[around] == number))
    return Held(Field(vox, field.grid), passes), bool(folds.any())


def written(field: Field, where: Int64[Tensor, "*s"], matrices: Sequence[Matrix]) -> Field:
    """The field with the displacement of each map at the samples that it holds."""
    vox = field.vox.clone()
    index = base_index(field.grid.shape, like=torch.zeros(1, dtype=torch.float64))
    for number, matrix in enumerate(matrices, 1):
        chosen = where == number
        here = index[:, chosen]
        moved = transform_index(field.grid.point_to_index() @ matrix @ field.grid.index_to_point(), here)
        vox[:, chosen] = (moved - here).to(vox)
    return Field(vox, field.grid)


def folded(vox: Vectors) -> Bool[Tensor, "*s"]:
    """Which samples are folded, by central differences or within a cell beside them."""
    result = jacobian_determinant(vox) <= SAFE_JACOBIAN
    if min(result.shape) > 1:
        cells = (least_corner(vox) <= SAFE_CORNER).nonzero()
        for corner in torch.cartesian_prod(*[torch.arange(2)] * result.ndim):
            result[tuple((cells + corner).T)] = True
    return result


def opened(vox: Vectors, free: Bool[Tensor, "*s"]) -> Vectors:
    """The displacement with little compression: what is free moves until each corner of a cell keeps ``ROOM``.

    The least of Σ max(0, ``ROOM`` − det)² over the corners of all cells, and a little of the change's gradient, by
    L-BFGS.
    """
    start = vox.double()
    change = torch.zeros_like(start, requires_grad=True)
    descent = torch.optim.LBFGS([change], max_iter=DESCENT, line_search_fn="strong_wolfe")

    def energy() -> float:
        descent.zero_grad()
        moved = change * free
        pressed = sum(torch.clamp(ROOM - each, min=0).square().sum() for each in corners(start + moved))
        bent = sum(moved.diff(dim=axis + 1).square().sum() for axis in range(len(moved)))
        value = torch.as_tensor(pressed + CHANGED * bent)
        torch.autograd.backward(value)
        return float(value.detach())

    descent.step(energy)  # type: ignore[no-untyped-call]
    return (start + (change * free).detach()).to(vox)


def corners(vox: Vectors) -> Iterator[Values]:
    """The Jacobian determinants at each corner of all cells, by differences along its edges: 2^D times (*S − 1)."""
    n = len(vox)
    for ends in itertools.product((slice(None, -1), slice(1, None)), repeat=n):
        columns = []
        for axis in range(n):
            others = (slice(None) if other == axis else end for other, end in enumerate(ends))
            columns.append(vox.diff(dim=axis + 1)[:, *others])
        yield determinant(torch.stack(columns, 1))


def relaxed(values: Values, known: Bool[Tensor, "*s"], weights: Sequence[float], hold: float) -> Values:
    """The least of Σ w (difference of neighbours)² + hold · value² with the values that are known.

    Args:
        values: (*S); what is not known begins there.
        known: which stay.
        weights: of the differences along each axis.
        hold: of the values themselves.

    Returns:
        All values, (*S), by conjugate gradients.
    """
    free = (~known).to(torch.float64)

    def curved(x: Tensor) -> Tensor:
        result = hold * x
        for axis, weight in enumerate(weights):
            slope = weight * x.diff(dim=axis)
            count = x.shape[axis] - 1
            result.narrow(axis, 1, count).add_(slope)
            result.narrow(axis, 0, count).sub_(slope)
        return result.mul_(free)

    found = values.double()
    left = -curved(found)
    direction, size = left, float(left.square().sum())
    enough = EXACT**2 * size
    for _ in range(STEPS):
        if size <= enough or size == 0:
            break
        bent = curved(direction)
        step = size / float((direction * bent).sum())
        found, left = found + step * direction, left - step * bent
        before, size = size, float(left.square().sum())
        direction = left + size / before * direction
    return found.to(values)


def _around(mask: Bool[Tensor, "*s"], margin: Sequence[float]) -> tuple[slice, ...]:
    """The box of all that a mask holds, with a margin in samples."""
    found = mask.nonzero()
    ends = zip(found.amin(0).tolist(), found.amax(0).tolist(), margin, mask.shape, strict=True)
    return tuple(slice(max(int(low - more), 0), min(int(high + more) + 2, n)) for low, high, more, n in ends)


def _close(known: Bool[Tensor, "*s"], box: tuple[slice, ...], shape: Sequence[int]) -> None:
    """Let the outer samples of a box be known, but for those at the border of the whole."""
    for axis, (part, count) in enumerate(zip(box, shape, strict=True)):
        if part.start > 0:
            known.narrow(axis, 0, 1).fill_(True)
        if part.stop < count:
            known.narrow(axis, known.shape[axis] - 1, 1).fill_(True)


def _grown(mask: Bool[Tensor, "*s"], reach: int) -> Bool[Tensor, "*s"]:
    """A mask and what lies within some samples of it."""
    return torch.from_numpy(binary_dilation(mask.numpy(), iterations=reach))
