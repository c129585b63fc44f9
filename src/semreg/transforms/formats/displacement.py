"""Images of displacements in mm: as ITK and 3D Slicer store them, in NIfTI with the intent 1006, and as ANTs, 1007."""

from __future__ import annotations

from pathlib import Path

from semreg.core.fields import Field
from semreg.core.geometry import Grid
from semreg.errors import ConfigError
from semreg.io import files
from semreg.transforms.chain import Chain
from semreg.transforms.domain import Outside
from semreg.transforms.formats.contract import Format


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


def write(chain: Chain, path: Path, reference: Grid | None, outside: Outside) -> list[Path]:
    """One image of displacements."""
    files.write_field(field_of(chain, reference, outside), path)
    return [path]


def write_warp(chain: Chain, path: Path, reference: Grid | None, outside: Outside) -> list[Path]:
    """The same as ANTs writes it."""
    files.write_warp(field_of(chain, reference, outside), path)
    return [path]


FIELD = Format(write)
WARP = Format(write_warp)
