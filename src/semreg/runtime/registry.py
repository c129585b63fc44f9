"""Tables of things of one kind: each has a name, a row that says where it is written, and is imported when asked for.

So names can be listed, checked and completed without anything heavy, and what is added needs its file and its row.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Generic, TypeVar, cast

from semreg.errors import ConfigError


@dataclass(frozen=True)
class Row:
    """Where one thing is written: ``package.module:NAME``."""

    place: str


R = TypeVar("R", bound=Row)
T = TypeVar("T")


class Table(Mapping[str, T], Generic[R, T]):
    """Name → thing. ``rows`` are what is known of each without importing it, in the order in which they are listed."""

    def __init__(self, kind: str, rows: dict[str, R]) -> None:
        """``kind``: what they are, for messages."""
        self.kind, self.rows = kind, rows

    def __getitem__(self, name: str) -> T:
        """The thing of that name, imported now if it was not yet; KeyError for another name."""
        module, _, attribute = self.rows[name].place.partition(":")
        return cast("T", getattr(import_module(module), attribute))

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self.rows)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.rows)

    def __contains__(self, name: object) -> bool:
        """Whether there is one of that name; nothing is imported."""
        return name in self.rows

    def check(self, name: str, where: str = "") -> str:
        """``name`` itself, if it is one of the table's; else ConfigError, with the nearest one that is.

        ``where``: the setting or flag that it was given for.
        """
        if name in self.rows:
            return name
        nearest = difflib.get_close_matches(name, self.rows, n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"expected {where or f'a {self.kind}'} to be one of {', '.join(self.rows)}, got {name!r}: did you mean "
            f"{nearest!r}?"
        )
