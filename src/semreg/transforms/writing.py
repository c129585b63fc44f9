"""Writes a chain of transforms in the way each tool reads it. The formats are told apart by the name of the file."""

from __future__ import annotations

from pathlib import Path

from semreg.core.geometry import Grid
from semreg.errors import ConfigError, OutputError
from semreg.transforms.chain import Chain
from semreg.transforms.domain import Outside
from semreg.transforms.formats import FORMATS


def kind_of(path: str | Path) -> str:
    """The format that the name of a file to write stands for.

    Args:
        path: the file.

    Returns:
        A name of ``semreg.transforms.formats.FORMATS``.

    Raises:
        OutputError: for a name that stands for none.
    """
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
    """Write a chain, fixed → moving, in one file or in several that belong together.

    Args:
        chain: the transform.
        path: the file, or the beginning of the names of several.
        reference: a grid on which all parts that deform become one field. None: an ITK file keeps all parts, and a
            field is written on the grid it has.
        kind: a name of ``semreg.transforms.formats.FORMATS``; None: as the name of the file says.
        outside: what a new field holds beyond the boxes of the fields it is made of.

    Returns:
        The files that were written.

    Raises:
        ConfigError: for an unknown format, a missing grid, and for the background, which no field can hold.
        GeometryError: for what the format cannot hold.
        OutputError: for a name that stands for no format, and where the files cannot be written.
    """
    if outside is Outside.BACKGROUND:
        raise ConfigError(
            "expected the outside continue or identity for a transform, got background: a displacement is a number "
            "everywhere; apply and jacobian know a background"
        )
    found = FORMATS[kind_of(path) if kind is None else FORMATS.check(kind)]
    return found.write(chain, Path(path), reference, outside)
