"""Writes a chain of transforms in the way each tool reads it. The kinds are told apart by the name of the file."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import Any

from semreg.core.fields import Field
from semreg.core.geometry import Grid
from semreg.errors import ConfigError, GeometryError, OutputError
from semreg.io import files
from semreg.transforms import elastix
from semreg.transforms.chain import Chain
from semreg.transforms.domain import Outside

ITK_NAMES = (".h5", ".hdf5", ".tfm", ".txt")
LINEAR_NAMES = (".mat",)
FIELD_NAMES = (".nii.gz", ".nii", ".nrrd", ".mha")
NAMES = (
    ".h5, .tfm or .txt (ITK), .mat (linear), .nii.gz, .nrrd or .mha (a field), *Warp.nii.gz (ANTs) or "
    "TransformParameters*.txt (elastix)"
)


class Kind(StrEnum):
    """How a transform is stored."""

    ITK = "itk"
    """A transform file of ITK with all parts as they are."""
    LINEAR = "linear"
    """One matrix, ``.mat``."""
    FIELD = "field"
    """An image of displacements in mm; in NIfTI with the intent 1006."""
    WARP = "warp"
    """An image of displacements as ANTs writes it, NIfTI with the intent 1007."""
    ELASTIX = "elastix"
    """A parameter file of elastix, with an image of displacements beside it where the transform deforms."""
    ANTS = "ants"
    """Two files with the names of ANTs, ``PREFIX1Warp.nii.gz`` and ``PREFIX0GenericAffine.mat``."""


def kind_of(path: str | Path) -> Kind:
    """What the name of a file to write says (OutputError if it says nothing)."""
    name = Path(path).name
    if name.endswith(("Warp.nii.gz", "Warp.nii")):
        return Kind.WARP
    if name.endswith(FIELD_NAMES):
        return Kind.FIELD
    if name.startswith("TransformParameters") and name.endswith(".txt"):
        return Kind.ELASTIX
    if name.endswith(LINEAR_NAMES):
        return Kind.LINEAR
    if name.endswith(ITK_NAMES):
        return Kind.ITK
    raise OutputError(f"expected the name of a file that ends in {NAMES}, got {path}")


def write_chain(
    chain: Chain,
    path: str | Path,
    reference: Grid | None = None,
    *,
    kind: Kind | None = None,
    outside: Outside = Outside.IDENTITY,
) -> list[Path]:
    """Write a chain, fixed → moving, in one file or in those that belong together; their names.

    ``kind`` by default as the name says. With a ``reference`` grid what deforms becomes one field on it; without, an
    ITK file keeps all parts and a field is written on the grid it has. ``outside``: what such a field holds beyond the
    boxes of the fields it is made of. Raises ConfigError where a grid is needed and none is given, and for the
    background, which no field can hold; GeometryError for what the kind cannot hold, OutputError.
    """
    path = Path(path)
    kind = kind or kind_of(path)
    if outside is Outside.BACKGROUND:
        raise ConfigError(
            "expected the outside continue or identity for a transform, got background: a displacement is a number "
            "everywhere; apply and jacobian know a background"
        )
    if kind is Kind.LINEAR:
        files.write_sitk_transform(_matrix_transform(chain, path), path)
        return [path]
    if kind is Kind.ITK:
        _write_itk(chain, path, reference, outside)
        return [path]
    if kind is Kind.ANTS:
        return _write_ants(chain, path, reference, outside)
    if kind is Kind.ELASTIX:
        return _write_elastix(chain, path, reference, outside)
    field = field_of(chain, reference, outside)
    (files.write_warp if kind is Kind.WARP else files.write_field)(field, path)
    return [path]


def field_of(chain: Chain, reference: Grid | None, outside: Outside = Outside.IDENTITY) -> Field:
    """A chain as one field on the reference, or else on the grid of the field it begins with (ConfigError).

    A warning says how much of it lies beyond the boxes of its parts.
    """
    grid = reference or chain.grid
    if grid is None:
        raise ConfigError(
            "expected a reference image, whose grid the field gets, as the transform does not start with a field: "
            "give --reference, the image that the points lie in"
        )
    field = chain.field_on(grid, outside)
    chain.coverage(grid).say(outside)
    return field


def _write_itk(chain: Chain, path: Path, reference: Grid | None, outside: Outside) -> None:
    if reference is not None and not chain.is_linear:
        files.write_transform(field_of(chain, reference, outside), path)
        return
    values = sum(chain.dimension * math.prod(_field_size(link.transform)) for link in chain.links if link.is_field)
    files.write_sitk_transform(chain.sitk(), path, values=values)


def _field_size(transform: Any) -> tuple[int, ...]:
    return tuple(transform.GetDisplacementField().GetSize())


def _matrix_transform(chain: Chain, path: Path) -> Any:
    """The linear whole as one AffineTransform, which is what ANTs reads too."""
    if not chain.is_linear:
        raise GeometryError(
            f"expected a linear transform for {path.name}, got one that deforms: choose .h5, .nii.gz or --format ants"
        )
    return chain.affine()


def _write_ants(chain: Chain, prefix: Path, reference: Grid | None, outside: Outside) -> list[Path]:
    """The field, and behind it the matrix of all linear parts that follow; both or none."""
    cut = max((number for number, link in enumerate(chain.links) if not link.is_linear), default=-1) + 1
    deforming, linear = chain.links[:cut], chain.links[cut:]
    written = []
    with files.OutputFolder(prefix.parent) as folder:
        if deforming:
            written.append(f"{prefix.name}1Warp.nii.gz")
            files.write_warp(field_of(Chain(deforming), reference, outside), folder.stage(written[-1]))
        if linear:
            written.append(f"{prefix.name}0GenericAffine.mat")
            files.write_sitk_transform(Chain(linear).affine(), folder.stage(written[-1]))
    return [prefix.with_name(name) for name in written]


def _write_elastix(chain: Chain, path: Path, reference: Grid | None, outside: Outside) -> list[Path]:
    """A parameter file; where the chain deforms, it names the image of displacements beside it; both or none."""
    if chain.is_linear:
        if reference is None:
            raise ConfigError(
                "expected a reference image, whose grid transformix writes its results on: "
                "give --reference, the fixed image"
            )
        single = chain.links[0].transform if len(chain.links) == 1 else chain.affine()
        _write_text(elastix.linear_text(single, reference), path)
        return [path]
    field = field_of(chain, reference, outside)
    image = path.with_name(f"{path.stem}.field.mha")
    with files.OutputFolder(path.parent) as folder:
        files.write_field(field, folder.stage(image.name))
        _write_text(elastix.field_text(image.name, field.grid), folder.stage(path.name))
    return [path, image]


def _write_text(text: str, path: Path) -> None:
    with files.atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
