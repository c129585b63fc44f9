"""The inverse of a field with what is known about its quality, and how well two fields undo each other, in mm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from semreg.core.fields import Field, apply_linear
from semreg.core.geometry import Grid, Matrix, index_map
from semreg.core.pullback import pullback
from semreg.core.sampling import SLAB_POINTS, base_index, inside, sample, slabs, transform_index
from semreg.core.shapes import Weights
from semreg.errors import DivergedError

UNSOLVED_MM = 0.01
"""An error of the equation above it is not rounding: there the field has no inverse, or none was found."""
SPREAD_POINTS = 1 << 19
"""Samples handled at once where their errors are dealt to others: each time costs an image of zeros."""
OWN_SHARE = 0.5
"""Weight of a sample's own equation against the errors around it, where each sample has a weight of 1 in all."""


@dataclass(frozen=True)
class Errors:
    """Distances in mm over ``points`` points; None where there are none."""

    mean_mm: float | None
    p999_mm: float | None
    """99.9th percentile."""
    max_mm: float | None
    points: int


@dataclass(frozen=True)
class Inverse:
    """The inverse g of a field f on some grid."""

    field: Field
    residual: Errors
    """|f(g(p)) − p| of the equation that was solved, at the samples p of the grid from within the box of f."""
    outside: int
    """Samples that no point within the box of f is mapped to. There g continues with the vectors of its border."""
    unsolved: int
    """Samples from within whose error is above ``UNSOLVED_MM``, as where f folds."""


def invert(
    field: Field, grid: Grid | None = None, *, after: Matrix | None = None, iterations: int = 30, balance: int = 1
) -> Inverse:
    """The inverse of a displacement field, with its errors: it brings the fixed image onto the moving one.

    At the samples of ``grid`` the equation is solved to rounding; the remaining error lies between them, where linear
    interpolation does not follow the true inverse. The balancing moves each vector by the mean error around it at the
    samples of ``field``, so that both orders of the two fields are about equally near to the identity.

    Args:
        field: the displacement, fixed → moving.
        grid: where the inverse lies, usually the moving image's grid; None: the grid of ``field``.
        after: homogeneous (E, E) matrix on points in mm; the inverse is then that of ``field`` followed by this map.
        iterations: steps per point at most, about.
        balance: how often the error is balanced; 0: never.

    Returns:
        The inverse, and what is known of its quality, in mm.

    Raises:
        DivergedError: for a field that is not finite.
        GeometryError: for a matrix that is singular or not finite.
    """
    if not bool(field.known.all()):
        raise DivergedError("expected a finite displacement to invert, got NaN or infinity: check the transform")
    inverse, error = field.inverse_with_error(grid, iterations=iterations, after=after)
    # in pieces: the indices of all at once would be larger than the field
    within = torch.cat([piece[~piece.isnan()] for piece in torch.split(error.flatten(), SLAB_POINTS)])
    del error
    unsolved = int((within > UNSOLVED_MM).sum())
    outside = inverse.grid.voxels - within.numel()
    residual = errors_of(within)
    del within
    for _ in range(balance):
        _balance(field, inverse, after)
    return Inverse(inverse, residual, outside, unsolved)


def _balance(field: Field, inverse: Field, after: Matrix | None) -> None:
    """Move the vectors of ``inverse``, in place, by the mean of the errors p − g(f(p)) that they take part in."""
    shape = inverse.grid.shape
    share = inverse.vox.new_full(shape, OWN_SHARE)
    for part in slabs(field.grid.shape, SPREAD_POINTS):
        index, _ = _landed(field, part, inverse.grid, after)
        share += _spread(torch.ones_like(index[0]), index, shape)
    for axis in range(inverse.grid.dimension):  # one at a time: a third of the memory
        vectors = inverse.vox[axis]
        total = torch.zeros_like(vectors)
        for part in slabs(field.grid.shape, SPREAD_POINTS):
            index, wanted = _landed(field, part, inverse.grid, after)
            total += _spread(wanted[axis] - sample(vectors[None], index)[0], index, shape)
        vectors.add_(total.div_(share))


def _landed(field: Field, part: slice, grid: Grid, after: Matrix | None) -> tuple[Tensor, Tensor]:
    """Where samples of ``field`` land in ``grid``, and the displacement that leads back, (D, P), in its voxels."""
    own = base_index(field.grid.shape, like=field.vox, part=part)
    here = index_map(field.grid, grid)
    way = here if after is None else grid.point_to_index() @ after @ field.grid.index_to_point()
    index = transform_index(way, own + field.vox[:, part]).flatten(1)
    counts = inside(index, grid.shape)
    index = index[:, counts]
    return index, transform_index(here, own).flatten(1)[:, counts] - index


def _spread(values: Tensor, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Deal ``values`` (P,) at ``index`` (D, P) to the samples around by their linear weights, and add up: (*S)."""
    with torch.enable_grad():
        image = values.new_zeros((1, *shape), requires_grad=True)
        read = sample(image, index)  # linear in the image: its gradient is the transposed map
    return pullback([read], [values[None]], [image])[0][0]


def errors_of(distances: Weights) -> Errors:
    """Mean, 99.9th percentile and maximum of distances (P,) in mm."""
    count = distances.numel()
    if count == 0:
        return Errors(None, None, None, 0)
    mean = float(distances.sum(dtype=torch.float64)) / count
    above = count - max(1, math.ceil(0.999 * count)) + 1
    largest = distances.topk(above, sorted=False).values  # few: sorting all would cost their memory twice over
    return Errors(mean, float(largest.min()), float(largest.max()), count)


def inverse_consistency(field: Field, inverse: Field) -> dict[str, Errors]:
    """How well two fields undo each other; only points that land inside the box of the other field count.

    Args:
        field: the displacement f, fixed → moving.
        inverse: the displacement g, moving → fixed.

    Returns:
        The errors in mm, |g(f(p)) − p| at the samples of f's grid as ``fixed``, and |f(g(p)) − p| at those of g's as
        ``moving``.
    """
    return {"fixed": errors_of(disagreement(field, inverse)), "moving": errors_of(disagreement(inverse, field))}


def disagreement(first: Field, second: Field) -> Weights:
    """The distance from p to where it ends after ``first`` and then ``second``.

    Args:
        first: the field whose samples are the points p.
        second: the field that leads back.

    Returns:
        Distances in mm, (P,); points that land outside of the box of ``second`` are left out.
    """
    to_second = index_map(first.grid, second.grid)
    found = []
    for part in slabs(first.grid.shape, SLAB_POINTS):
        index = transform_index(to_second, first.index(part)).flatten(1)
        counts = inside(index, second.grid.shape)
        there = apply_linear(first.grid.index_to_point(), first.vox[:, part].flatten(1)[:, counts])
        back = apply_linear(second.grid.index_to_point(), sample(second.vox, index[:, counts]))
        found.append(back.add_(there).square_().sum(0).sqrt_())
    return torch.cat(found)
