"""Writes a chain of transforms in the way each tool reads it. The formats are told apart by the name of the file."""

from __future__ import annotations

from pathlib import Path

from semreg.core.geometry import Grid
from semreg.errors import ConfigError, OutputError
from semreg.transforms.chain import Chain
from semreg.transforms.domain import Outside
from semreg.transforms.formats import FORMATS


def kind_of(path: str | Path) -> str:
    """The format that the name of a file to write says (OutputError if it says none)."""
    for name in reversed(FORMATS.rows):
        if FORMATS.rows[name].named(Path(path).name):
            return name
    *names, last = [row.names for row in FORMATS.rows.values() if row.names]
    raise OutputError(f"expected the name of a file that ends in {', '.join(names)} or {last}, got {path}")


def write_chain(
    chain: Chain,
    path: str | Path,
    reference: Grid | None = None,
    *,
    kind: str | None = None,
    outside: Outside = Outside.IDENTITY,
) -> list[Path]:
    """Write a chain, fixed → moving, in one file or in those that belong together; their names.

    ``kind``: a name of ``FORMATS``, by default what the name of the file says. With a ``reference`` grid what deforms
    becomes one field on it; without, an ITK file keeps all parts and a field is written on the grid it has.
    ``outside``: what such a field holds beyond the boxes of the fields it is made of. Raises ConfigError where a grid
    is needed and none is given, for an unknown format, and for the background, which no field can hold; GeometryError
    for what the format cannot hold, OutputError.
    """
    if outside is Outside.BACKGROUND:
        raise ConfigError(
            "expected the outside continue or identity for a transform, got background: a displacement is a number "
            "everywhere; apply and jacobian know a background"
        )
    found = FORMATS[kind_of(path) if kind is None else FORMATS.check(kind)]
    return found.write(chain, Path(path), reference, outside)
