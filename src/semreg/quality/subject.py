"""What is evaluated: a transform on the fixed grid, the images and a mask. Measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid, Matrix
from semreg.core.sampling import slabs
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.io.bridge import LabelMap, LoadedImage, matrix_of, to_labels, to_volume
from semreg.io.files import in_unit_of, read_image, read_labels, read_mask
from semreg.transforms import Chain, Coverage, Outside, read_chain
from semreg.transforms.base import Matrices, Points
from semreg.transforms.domain import Mask

PIECE = 1 << 20
"""Voxels at which a transform is read at once: bounds the memory of its float64 values."""


@dataclass(frozen=True)
class Way:
    """A transform, points fixed → moving in mm: a chain of ITK's transforms, or a field."""

    source: Chain | Field
    outside: Outside = Outside.IDENTITY
    """What it does beyond the boxes of its fields."""

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return self.source.grid.dimension if isinstance(self.source, Field) else self.source.dimension

    @property
    def grid(self) -> Grid | None:
        """The grid of the field that it is or begins with."""
        return self.source.grid

    @property
    def linear(self) -> Matrix | None:
        """The affine map at its end, homogeneous, points in mm, after all that deforms; None without one."""
        found = None
        for link in reversed(self.source.links if isinstance(self.source, Chain) else ()):
            if not link.is_linear:
                break
            found = matrix_of(link.transform) if found is None else found @ matrix_of(link.transform)
        return found

    def chain(self) -> Chain:
        """As transforms of ITK, which end at the box of a field."""
        return self.source if isinstance(self.source, Chain) else Chain.of(self.source)

    def map(self, points: Points) -> Points:
        """The points (D, N) in mm after it."""
        return self.chain().follow(points, self.outside).points

    def jacobian(self, points: Points) -> Matrices:
        """The derivative of ``map`` at the points (D, N): (N, D, D)."""
        return self.chain().jacobian(points)

    def beyond(self, points: Points) -> Mask:
        """Which of the points (D, N) in mm come to where it says nothing, (N,)."""
        return self.chain().follow(points, self.outside).beyond

    def coverage(self, grid: Grid) -> Coverage:
        """Which voxels of ``grid`` do."""
        own = isinstance(self.source, Field) and self.source.grid == grid
        return Coverage(None) if own else self.chain().coverage(grid)

    def on(self, grid: Grid) -> Field:
        """As one field on ``grid``, float32: exact at its voxel centres."""
        if grid.dimension != self.dimension:
            raise GeometryError(
                f"expected an image in {self.dimension}-D as the transform, got one in {grid.dimension}-D: "
                "give the images that the transform belongs to"
            )
        if isinstance(self.source, Field) and self.source.grid == grid:
            return self.source
        chain = self.chain()
        if not chain.is_forward:
            return chain.field_on(grid, self.outside)
        vox = torch.empty((grid.dimension, *grid.shape))
        rest = grid.shape[1:]
        for part in slabs(grid.shape, PIECE):
            slab = grid.part((part.start, *[0] * len(rest)), (part.stop, *rest))
            vox[:, part] = chain.field_on(slab, self.outside).vox
        return Field(vox, grid)


@dataclass(frozen=True)
class Subject:
    """All that the measures look at."""

    way: Way
    initial: Way | None
    """Where the registration began; None: at the headers of the images."""
    field: Field | None
    """The transform on the fixed grid; None where no grid is known."""
    before: Field | None
    """The initial transform on the fixed grid; None: the identity."""
    fixed: Volume | None = None
    moving: Volume | None = None
    mask: Volume | None = None
    """The voxels of the fixed grid that count, (1, *S) 0 or 1; None: all."""
    inverse: Field | None = None
    """The way back on a grid of its own."""
    left_out: Tensor | None = None
    """Voxels of the fixed grid that do not count, (*S), bool: beyond the boxes of the transform's fields and beside
    them; None: no voxel."""

    @property
    def grid(self) -> Grid | None:
        """The fixed grid."""
        return None if self.field is None else self.field.grid

    @property
    def counted(self) -> Tensor | None:
        """The voxels that count, (*S), bool; None: all."""
        inner = None if self.mask is None else self.mask.data[0] > 0
        if self.left_out is None:
            return inner
        return ~self.left_out if inner is None else inner & ~self.left_out


def prepare(  # noqa: PLR0913 - what a user has
    transform: Any,
    *,
    fixed: Any | None = None,
    moving: Any | None = None,
    fixed_mask: Any | None = None,
    initial: Any | None = None,
    inverse: Any | None = None,
    grid: Grid | None = None,
    outside: Outside = Outside.IDENTITY,
) -> Subject:
    """Read what is a path, and check that all belongs together; for ``measure``.

    A warning says how many voxels lie beyond the boxes of the transforms.

    Args:
        transform: as for ``evaluate``, as all but ``grid`` and ``outside``.
        fixed: the fixed image.
        moving: the moving image.
        fixed_mask: the voxels of the fixed image that count.
        initial: what to compare with.
        inverse: the way back.
        grid: where the transform is looked at without a fixed image; None: the grid of the field that it begins with.
        outside: what the transforms do beyond the boxes of their fields.

    Returns:
        The transform and what it is compared with, on the fixed grid.

    Raises:
        GeometryError: for what has another dimension than the transform, and for a fixed image outside of its box.
        ImageError: for an empty mask and for files that cannot be read.
        ConfigError: for a mask without its image, an inverse without a grid, and an empty list of transforms.
    """
    way = replace(way_of(transform), outside=outside)
    start = None if initial is None else replace(way_of(initial), outside=outside)
    images = {name: None if obj is None else image_of(obj) for name, obj in (("fixed", fixed), ("moving", moving))}
    for name, volume in images.items():
        if volume is not None:
            check_dimension(way, volume.grid, f"{name} image")
    if start is not None and start.dimension != way.dimension:
        raise GeometryError(f"expected an initial transform in {way.dimension}-D, got one in {start.dimension}-D")
    target = images["fixed"].grid if images["fixed"] is not None else grid or way.grid
    if fixed_mask is not None and target is None:
        raise ConfigError("expected the fixed image together with its mask, got the mask alone: give the image too")
    left_out = None if target is None else _left_out(way, target)
    back = inverse if inverse is not None else getattr(transform, "inverse", None)
    return Subject(
        way=way,
        initial=start,
        field=None if target is None else way.on(target),
        before=None if start is None or target is None else start.on(target),
        fixed=images["fixed"],
        moving=images["moving"],
        mask=None if fixed_mask is None or target is None else _mask_on(fixed_mask, target),
        inverse=None if back is None or callable(back) else _inverse_field(back, images["moving"], way),
        left_out=left_out,
    )


def _left_out(way: Way, grid: Grid) -> Tensor | None:
    """The voxels that do not count, said in a warning (GeometryError where no other is left)."""
    coverage = way.coverage(grid)
    coverage.say(way.outside)
    left_out = coverage.touched()
    if left_out is not None and bool(left_out.all()):
        raise GeometryError(
            f"expected a fixed image that the transform says something of, got {grid.box()}, which lies outside of its "
            "box: give the images that the transform belongs to"
        )
    return left_out


def way_of(transform: Any) -> Way:
    """A transform from a file or several (the first applied first), a Field, a SimpleITK transform or a result.

    A result is what ``register`` and ``align`` return: it has a ``field`` or a method ``transform``.
    """
    if isinstance(getattr(transform, "field", None), Field):
        transform = transform.field
    elif callable(getattr(transform, "transform", None)):
        transform = transform.transform()
    if isinstance(transform, (Chain, Field)):
        return Way(transform)
    if isinstance(transform, (str, Path)):
        return Way(read_chain([transform]))
    if isinstance(transform, (list, tuple)):
        return Way(_joined([way_of(each).chain() for each in transform]))
    return Way(Chain.of(transform))


def image_of(obj: Any) -> Volume:
    """A Volume from anything ``semreg.to_volume`` takes, or from a file."""
    if isinstance(obj, (str, Path)):
        return read_image(obj).volume
    return obj.volume if isinstance(obj, LoadedImage) else to_volume(obj)


def labels_of(obj: Any, name: str) -> LabelMap:
    """A label map, exact, from anything ``semreg.to_volume`` takes, or from a file."""
    return read_labels(obj) if isinstance(obj, (str, Path)) else to_labels(obj, name)


def check_dimension(way: Way, grid: Grid, what: str) -> None:
    """Refuse what has another dimension than the transform (GeometryError)."""
    if grid.dimension != way.dimension:
        raise GeometryError(
            f"expected a {what} in {way.dimension}-D as the transform, got one in {grid.dimension}-D: "
            "give what the transform belongs to"
        )


def _joined(chains: Sequence[Chain]) -> Chain:
    if not chains:
        raise ConfigError("expected at least one transform, got none: name one")
    result = chains[0]
    for each in chains[1:]:
        result = result.then(each)
    return result


def _mask_on(mask: Any, grid: Grid) -> Volume:
    """The mask at the nearest voxels of ``grid``, 0 or 1 (ImageError if it is empty there)."""
    volume = read_mask(mask) if isinstance(mask, (str, Path)) else image_of(mask)
    if isinstance(mask, (str, Path)):
        volume = Volume(volume.data, in_unit_of(volume.grid, mask, grid))
    if volume.grid.dimension != grid.dimension:
        raise GeometryError(f"expected a mask in {grid.dimension}-D, got one in {volume.grid.dimension}-D")
    counted = (volume.data.nan_to_num(nan=0.0) > 0).to(torch.float32)
    found = Volume(counted, volume.grid).on(grid, mode="nearest", outside=0.0)
    if not bool(found.data.any()):
        raise ImageError(
            "expected a mask with voxels above 0 inside the fixed image, got an empty one there: "
            f"the mask covers {volume.grid.box()}, the image {grid.box()}"
        )
    return found


def _inverse_field(inverse: Any, moving: Volume | None, way: Way) -> Field:
    """The way back as a field on the grid it has, or else on that of the moving image (ConfigError without)."""
    back = way_of(inverse)
    grid = back.grid or (None if moving is None else moving.grid)
    if grid is None:
        raise ConfigError(
            "expected the moving image, on whose grid the inverse is looked at, as the inverse has none: give it too"
        )
    check_dimension(way, grid, "way back")
    return back.on(grid)
