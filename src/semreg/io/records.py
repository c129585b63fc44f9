"""Records as files: plain data, stable JSON, the versions that made it, and typed reading. Knows no record itself.

The one place where what was found becomes JSON, and is read from it.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import msgspec

import semreg
from semreg.errors import ConfigError

T = TypeVar("T")


class Recorded:
    """A dataclass that is written into files as JSON, by the names of its fields."""

    def to_dict(self) -> dict[str, Any]:
        """What the file holds of it; a number that is not finite is None."""
        return dict(plain(self))


def plain(value: Any) -> Any:
    """Dataclasses, tuples and mappings as JSON holds them; a number that is not finite becomes None."""
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=_built_in))


def stable_json(value: Any) -> str:
    """The same as text with sorted keys."""
    return json.dumps(plain(value), sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def record_of(kind: type[T], found: Mapping[str, Any], place: Path) -> T:
    """The record of type ``kind`` that the file at ``place`` holds (ConfigError for what does not fit).

    What a later version adds to a record needs a default: then it reads the folders of an earlier one.
    """
    try:
        return msgspec.convert(dict(found), kind)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"expected {place} as this version writes it, got another: {error}; run the command that wrote it again"
        ) from error


def understood(kind: type[T], path: Path) -> T | None:
    """The record in the file at ``path``, None where there is none or where it cannot be understood."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, ValueError, RecursionError):
        return None


def versions() -> dict[str, str]:
    """Versions of semreg, Python and the packages that compute, read from their metadata."""
    found = {"semreg": semreg.__version__, "python": platform.python_version()}
    for name in ("torch", "SimpleITK", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def _built_in(value: Any) -> Any:
    """Numbers of NumPy that are Python's too."""
    if isinstance(value, float):
        return float(value)
    raise TypeError(f"expected what JSON holds, got {type(value).__name__}")
