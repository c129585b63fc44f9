"""What is measured of a result before it is judged: from both images and the field alone. Decides nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semreg.config import RegistrationConfig
from semreg.core.fields import Field, Layer, Volume, jacobian_determinant
from semreg.core.geometry import Matrix
from semreg.core.sampling import SLAB_POINTS, slabs
from semreg.errors import ConfigError, GeometryError
from semreg.io.records import Recorded
from semreg.preprocess.image_pair import Cleaned, Pair, prepare_pair
from semreg.quality.coarse_view import SIDE, Shown, features_of, field_of_matrix, linear_part, show, working_grid
from semreg.quality.probes import SIDE as PROBE_SIDE
from semreg.quality.probes import seen, try_mirrors, try_shifts
from semreg.quality.residual import search_again
from semreg.registration.alignment import content_of
from semreg.registration.dense.axes import directions_of, free_axes_of_image
from semreg.registration.parametric.overlap import unrelated
from semreg.registration.result import Registration

VOLUME_FACTOR = 5.0
"""Change of a voxel's volume from which it is implausible: tissue does not do that, except for lungs and bladders."""
JUMP = 2.0
"""Difference of the displacements of two neighbours, in distances between them, from which it is a tear."""
LEAST_MOVE = 0.5
"""Working voxels that a result must move by for its direction to mean anything."""
SMALL = 1e-6


@dataclass(frozen=True)
class Evidence(Recorded):
    """What is seen of a result; shares are 0 to 1, None is what could not be measured."""

    dimension: int
    """2 or 3."""
    voxel_mm: float
    """Edge of the working voxels."""
    diagonal_mm: float
    """Of the fixed image's box."""
    spacing_mm: float
    """The smallest spacing of the fixed image."""
    field_missing: float
    """Share of the field's vectors that are not finite."""
    missing: float | None = None
    """Share of the voxels that are not finite, of the image with more of them."""
    overlap: float | None = None
    """Share of the content of one image that the other one shows too, of the two the larger."""
    seen_voxels: int | None = None
    """Working voxels along the shortest axis of the box that both images show."""
    folded_share: float | None = None
    jacobian_minimum: float | None = None
    volume_share: float | None = None
    """Share of the voxels whose volume changes by more than ``VOLUME_FACTOR``."""
    tear_share: float | None = None
    """Share of the voxels whose displacement differs from a neighbour's by more than ``JUMP`` distances."""
    scale: float | None = None
    """Strongest stretch or shrinkage of the linear part."""
    bending_mm: float | None = None
    """99th percentile of the displacement without its linear part."""
    match: float | None = None
    """1 − d / d₀ between the fixed and the warped image: d the distance of the features, d₀ that of unrelated ones."""
    match_before: float | None = None
    """The same without the transform; None where the images do not lie on each other then."""
    residual_mm: float | None = None
    """Median displacement that one more search would add."""
    residual_p90_mm: float | None = None
    mismatch: float | None = None
    """Share of the cost that one more search takes away."""
    axes: tuple[str, ...] = ()
    """Directions along which alone points were free to move, and one more search was made; empty: all."""
    unfinished: float | None = None
    """⟨r, u⟩ / ⟨u, u⟩ of what the search would add, r, and the displacement without its mean, u."""
    shift_match: tuple[float, float] | None = None
    """Match of the result, and the best one after a shift of the whole."""
    shift_mm: float | None = None
    """That shift."""
    mirror_match: tuple[float, float] | None = None
    """Best match of the moving image under the linear part and any shift: as it is, and mirrored."""
    mirror_axis: int | None = None
    """The tensor axis of the moving image along which the mirrored one matches best."""


def collect_evidence(  # noqa: PLR0913 - two images, two masks and what is between them
    fixed: Any,
    moving: Any,
    field: Field,
    *,
    fixed_mask: Any | None = None,
    moving_mask: Any | None = None,
    config: RegistrationConfig | None = None,
    jacobian: Tensor | None = None,
) -> Evidence:
    """Measure what speaks for and against a displacement as the map between two images, from these alone.

    Args:
        fixed: the fixed image: anything ``semreg.to_volume`` takes, 2-D or 3-D.
        moving: the moving image.
        field: the displacement, fixed → moving, on any grid.
        fixed_mask: values in [0, 1] in the fixed image's space; voxels at 0 count nowhere.
        moving_mask: the same for the moving image.
        config: how intensities are treated, and along which axes points were free to move (``refine.axes``), as for a
            registration. None: the defaults.
        jacobian: the determinants (*S) of ``field`` where they are known already.

    Returns:
        The measures that ``judge`` needs.

    Raises:
        ImageError: for an image without finite voxels or structure, and for an empty mask.
        GeometryError: for images or a field of another dimension.
    """
    pair = prepare_pair(fixed, moving, fixed_mask, moving_mask, config or RegistrationConfig())
    return collect_pair(pair, field, jacobian=jacobian, axes=(config or RegistrationConfig()).refine.axes)


def evidence_of(result: Registration) -> Evidence:
    """The evidence of a registration just made, from the images as it prepared them and its determinants.

    Args:
        result: what ``register`` returned.

    Returns:
        The measures that ``judge`` needs.

    Raises:
        ConfigError: for a result that was read from files, which has no images.
    """
    if result.pair is None:
        raise ConfigError(
            "expected a result of register, got one read from a folder, without its images: use collect_evidence"
        )
    axes = result.config.refine.axes
    return collect_pair(result.pair, result.field, jacobian=result.determinants, axes=axes)


def collect_pair(pair: Pair, field: Field, *, jacobian: Tensor | None = None, axes: Sequence[str] = ()) -> Evidence:
    """The evidence from images that are checked and treated already.

    Args:
        pair: both images.
        field: the displacement, fixed → moving, on any grid.
        jacobian: the determinants (*S) of ``field`` where they are known already.
        axes: ``refine.axes`` of the settings, the axes along which alone points were free to move; none: all.

    Returns:
        The measures that ``judge`` needs.

    Raises:
        GeometryError: for a field of another dimension.
        ConfigError: for axes that the fixed image does not have.
    """
    fixed = pair.grids[0]
    if field.grid.dimension != fixed.dimension:
        raise GeometryError(
            f"expected a field in {fixed.dimension}-D as the fixed image is, got one in {field.grid.dimension}-D: "
            "give the field of this pair"
        )
    bad = field.grid.voxels - int(field.known.count_nonzero())
    corners = fixed.corners_xyz()
    evidence = Evidence(
        dimension=fixed.dimension,
        voxel_mm=min(working_grid(fixed, SIDE[fixed.dimension]).spacing),
        diagonal_mm=math.dist(corners[0], corners[-1]),
        spacing_mm=min(fixed.spacing),
        field_missing=bad / field.grid.voxels,
        missing=max(pair.missing.values()),
        axes=directions_of(axes, fixed),
    )
    if bad:
        return evidence
    return _of_images(evidence, _Images.of(pair), field, jacobian)


@dataclass(frozen=True)
class _Images:
    """Both images, and what of them counts."""

    fixed: Cleaned
    moving: Cleaned
    contents: tuple[Volume, Volume]

    @classmethod
    def of(cls, pair: Pair) -> _Images:
        fixed, moving = pair.treated["fixed"], pair.treated["moving"]
        return cls(fixed, moving, (content_of(fixed, ct=pair.ct[0]), content_of(moving, ct=pair.ct[1])))

    def shown(self, spacing_mm: float) -> tuple[Shown, Shown]:
        """Both on voxels of this size."""
        near, far = self.contents
        return show(self.fixed, near, spacing_mm), show(self.moving, far, spacing_mm)


def _of_images(evidence: Evidence, images: _Images, field: Field, jacobian: Tensor | None) -> Evidence:
    """All that is measured of a finite field."""
    fixed = images.fixed[0].grid
    grid = working_grid(fixed, SIDE[fixed.dimension])
    near, far = images.shown(evidence.voxel_mm)
    on_grid = field.on(grid)
    matrix = linear_part(on_grid, near.weight)
    values = jacobian_determinant(field) if jacobian is None else jacobian
    evidence = _of_shape(_of_field(evidence, field, values, matrix), on_grid, matrix, near.weight)
    warped = far.through(on_grid)
    if not bool((near.weight * warped.known.data[0] > 0).any()):
        return replace(evidence, overlap=0.0)
    seen_voxels = _extent(near.weight * warped.known.data[0] > 0)
    evidence = replace(evidence, overlap=_overlap(near, far, warped, on_grid), seen_voxels=seen_voxels)
    evidence = _of_match(evidence, (features_of(near), features_of(warped)), far, on_grid)
    return _of_probes(evidence, images, field, matrix)


def _of_field(evidence: Evidence, field: Field, jacobian: Tensor, matrix: Matrix) -> Evidence:
    """What the field tells by itself; what its linear part does, a turn or a change of scale, is no deformation."""
    n = field.grid.dimension
    # ITK's differences are halved at the border, where a turn by 90° then looks like a fold
    inner = jacobian[tuple(slice(1, -1) if size > 2 else slice(None) for size in jacobian.shape)]
    relative = inner / max(abs(float(np.linalg.det(matrix[:n, :n]))), SMALL)
    strange = (relative < 1 / VOLUME_FACTOR) | (relative > VOLUME_FACTOR)
    return replace(
        evidence,
        folded_share=int((inner <= 0).count_nonzero()) / inner.numel(),
        jacobian_minimum=float(inner.min()),
        volume_share=int(strange.count_nonzero()) / inner.numel(),
        tear_share=_tears(field, matrix),
    )


def _tears(field: Field, matrix: Matrix) -> float:
    """Share of the voxels that the deformation takes too far from the next one along an axis."""
    grid = field.grid
    spacing = grid.spacing
    turn = grid.point_to_index() @ matrix @ grid.index_to_point()
    straight = turn[:-1, :-1] - np.eye(grid.dimension)  # voxels that the linear part adds from one sample to the next
    torn = 0
    for part in slabs(grid.shape, SLAB_POINTS):
        count = part.stop - part.start
        vox = field.vox[:, part.start : min(part.stop + 1, grid.shape[0])]
        found = torch.zeros((count, *grid.shape[1:]), dtype=torch.bool)
        for axis, step in enumerate(spacing):
            squares = torch.zeros(())
            for v, s, slope in zip(vox, spacing, straight[:, axis], strict=True):
                squares = squares + ((v.diff(dim=axis) - float(slope)) * s).square_()
            wide = (squares > (JUMP * step) ** 2)[:count]
            found[tuple(slice(0, size) for size in wide.shape)] |= wide
        torn += int(found.count_nonzero())
    return torn / grid.voxels


def _extent(shown: Tensor) -> int:
    """The shortest side of the box around what is shown, along the axes of more than one voxel."""
    axes = [axis for axis in range(shown.ndim) if shown.shape[axis] > 1] or [0]
    sides = []
    for axis in axes:
        along = shown.movedim(axis, 0).flatten(1).any(1).nonzero()
        sides.append(int(along[-1] - along[0]) + 1)
    return min(sides)


def _overlap(near: Shown, far: Shown, warped: Shown, field: Field) -> float:
    """Share of the fixed content where the moving image has values, or of the moving content that is brought there."""
    covered = float((near.weight * warped.known.data[0]).sum() / near.weight.sum().clamp(min=SMALL))
    sizes = [math.prod(grid.spacing) for grid in (field.grid, far.image.grid)]
    volume = jacobian_determinant(field).abs()
    brought = float((warped.weight * near.known.data[0] * volume).sum()) * sizes[0]
    whole = float(far.weight.sum()) * sizes[1]
    return min(1.0, max(covered, brought / max(whole, SMALL)))


def _of_shape(evidence: Evidence, field: Field, matrix: Matrix, weight: Tensor) -> Evidence:
    """How much the linear part stretches, and how far the rest goes."""
    n = field.grid.dimension
    sizes = np.linalg.svd(matrix[:n, :n], compute_uv=False)
    bent = field.mm() - field_of_matrix(matrix, field.grid).mm()
    length = bent.square().sum(0).sqrt()[weight > 0]
    strongest = float(max(sizes.max(), 1 / max(sizes.min(), SMALL)))
    bent_mm = float(np.percentile(length.numpy(), 99)) if length.numel() else None
    return replace(evidence, scale=strongest, bending_mm=bent_mm)


def _of_match(evidence: Evidence, layers: tuple[Layer, Layer], far: Shown, field: Field) -> Evidence:
    """How well the images match, before and after, and what one more search would do."""
    own, warped = layers
    before = far.through(Field.zeros(field.grid))
    evidence = replace(evidence, match=match_of(own, warped))
    if bool(before.known.data.any()):
        evidence = replace(evidence, match_before=match_of(own, features_of(before)))
    found = search_again(own, warped, field, free_axes_of_image(evidence.axes, field.grid))
    if found is None:
        return evidence
    moved = found.found - found.found.mean(1, keepdim=True)
    square = float(moved.square().sum(0).mean())
    way = None
    if square > (LEAST_MOVE * evidence.voxel_mm) ** 2:
        way = float((moved * found.wanted).sum(0).mean()) / square
    return replace(
        evidence,
        residual_mm=float(found.length_mm.median()),
        residual_p90_mm=float(np.percentile(found.length_mm.numpy(), 90)),
        mismatch=found.gain,
        unfinished=way,
    )


def match_of(first: Layer, second: Layer) -> float | None:
    """1 − d / d₀ of two layers on one grid; None where both show nothing together, or nothing that could be told."""
    near, far = seen(first), seen(second)
    weight = near.share * far.share
    scale = unrelated(near, far)
    if scale <= 0 or float(weight.sum()) <= SMALL:
        return None
    distance = (near.features - far.features).square().sum(0)
    return 1.0 - float((distance * weight).sum() / (scale * weight.sum()))


def _of_probes(evidence: Evidence, images: _Images, field: Field, matrix: Matrix) -> Evidence:
    """What other shifts and mirrored images would give."""
    fixed = images.fixed[0].grid
    grid = working_grid(fixed, PROBE_SIDE[fixed.dimension])
    shown, far = images.shown(min(grid.spacing))
    near = seen(features_of(shown))
    warped = far.through(field.on(grid))
    shifted = try_shifts(near, seen(features_of(warped))) if bool(warped.known.data.any()) else None
    if shifted is not None:
        evidence = replace(evidence, shift_match=(shifted.rest, shifted.best), shift_mm=shifted.shift_mm)
    ways = [field_of_matrix(matrix, grid)]
    if float(ways[0].vox.abs().max()) > 1:  # what was fitted to a mirrored image need not suit the right one
        ways.append(Field.zeros(grid))
    mirrored = try_mirrors(near, far, ways)
    if mirrored is None:
        return evidence
    return replace(evidence, mirror_match=(mirrored.straight, mirrored.mirrored), mirror_axis=mirrored.axis)
