"""Files that hold several transforms which nothing joins: refused, or one of them taken by its number.

ITK writes such files from a list of transforms. A composite is one transform: it says itself how its parts are joined.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from semreg.errors import GeometryError
from semreg.io import files

CHOSEN = re.compile(r"(.+)#([0-9]{1,9})")


def chosen(path: str | Path) -> tuple[Path, int | None]:
    """The file that a name stands for, and the number behind it.

    Args:
        path: ``pair.tfm#2`` is the second transform of pair.tfm; a file whose own name ends so is that file.

    Returns:
        The file, and the number, from 1, or None where none is given.
    """
    path = Path(path)
    found = CHOSEN.fullmatch(path.name)
    if found is None or path.exists():
        return path, None
    return path.with_name(found[1]), int(found[2])


def read_one(path: Path, number: int | None = None) -> Any:
    """The transform of a file, or the ``number``-th of several, from 1, as a SimpleITK transform.

    Raises GeometryError where there are fewer, and where there are several and no number: the file does not say which
    is meant, or in which order.
    """
    found = files.read_transforms(path)
    total = len(found)
    if number is not None and not 1 <= number <= total:
        raise GeometryError(f"expected a number from 1 to {total}, got {number} for {path}: it holds {total}")
    if number is None and total > 1:
        raise GeometryError(
            f"expected one transform or a composite, got {total} transforms side by side in {path}: choose one by its "
            f"number, {path.name}#1 to {path.name}#{total}, or join them in the order they are meant, "
            f"semreg compose {path.name}#1 {path.name}#2 -o joined.h5"
        )
    return found[(number or 1) - 1]
