"""A kind of descriptor: what may be chosen of it, and how one is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from semreg.errors import ModelError
from semreg.features.contract import Descriptor
from semreg.runtime.settings import names, override


@dataclass(frozen=True, kw_only=True)
class NoParameters:
    """Nothing can be chosen."""


@dataclass(frozen=True)
class Kind:
    """What a row of the table points to.

    ``parameters``: a settings class, see ``semreg.runtime.settings``. ``make(dimension, parameters)`` gives the
    descriptor for images of 2 or 3 dimensions.
    """

    parameters: type
    make: Callable[[int, Any], Descriptor]

    def of(self, name: str, dimension: int, assignments: Sequence[str] = ()) -> Descriptor:
        """The descriptor ``name`` with parameters as ``name=value``; ModelError, ConfigError for what it has not."""
        given, known = self.parameters(), names(self.parameters)
        for assignment in assignments:
            if assignment.partition("=")[0].strip() not in known:
                raise ModelError(
                    f"expected {' or '.join(f'{each}=...' for each in known) or 'no description'} for {name}, which is "
                    f"built in, got {assignment}: leave it out"
                )
            given = override(given, assignment)
        return self.make(dimension, given)
