"""What a format of transforms is: how a chain is written, and how a file of it is known and read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from semreg.core.geometry import Grid
from semreg.transforms.chain import Chain
from semreg.transforms.domain import Outside

Write: TypeAlias = Callable[[Chain, Path, Grid | None, Outside], list[Path]]
"""Writes a chain, fixed → moving: the files that were written, that of the path and those that belong to it."""


@dataclass(frozen=True)
class Format:
    """A format of transforms.

    ``recognises(path)``: whether a file is of this format, by what is in it, and ``read(path)``: the SimpleITK
    transforms it holds, the first applied first. None for both where ITK's own reader knows it.
    """

    write: Write
    recognises: Callable[[Path], bool] | None = None
    read: Callable[[Path], list[Any]] | None = None
