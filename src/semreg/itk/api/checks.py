"""What a setter accepts: functions that return the value as it is kept, or raise a sentence. Knows no class of ITK."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any, TypeAlias

from semreg.distances import DISTANCES
from semreg.errors import ConfigError
from semreg.runtime.devices import choose_device

Check: TypeAlias = Callable[[str, Any], Any]
"""From the name of an option and what came to what is kept; raises ConfigError or TypeError."""


def distances() -> dict[str, str]:
    """The core's names of distances, and those of the scripts."""
    return {name: row.itk_name or name for name, row in DISTANCES.rows.items()}


def refusal(name: str, expected: str, got: Any) -> ConfigError:
    """The error of a setter."""
    return ConfigError(f"expected {name} to be {expected}, got {got!r}")


def whole(least: int = 0) -> Check:
    """A whole number from ``least`` on."""

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
            raise refusal(name, f"a whole number >= {least}", value)
        return int(value)

    return check


def number(expected: str, fits: Callable[[float], bool]) -> Check:
    """A finite real number that ``fits``; ``expected`` says which in words."""

    def check(name: str, value: Any) -> float:
        real = isinstance(value, Real) and not isinstance(value, bool)
        if not real or not math.isfinite(value) or not fits(float(value)):
            raise refusal(name, expected, value)
        return float(value)

    return check


NOT_NEGATIVE = number("a finite number >= 0", lambda value: value >= 0)
POSITIVE = number("a finite number above 0", lambda value: value > 0)
BELOW_ONE = number("a number from 0 to below 1", lambda value: 0 <= value < 1)
SHARE = number("a share above 0 and up to 1", lambda value: 0 < value <= 1)


def interval(name: str, value: Any) -> int:
    """A whole number of iterations; 0 and below: never."""
    return int(number("a whole number of iterations, -1 for never", float.is_integer)(name, value))


def odd(name: str, value: Any) -> int:
    """An odd number of voxels from 3 on."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 3 or int(value) % 2 == 0:
        raise refusal(name, "an odd whole number >= 3", value)
    return int(value)


def switch(name: str, value: Any) -> bool:
    """True or false, 1 or 0."""
    if value not in (True, False):
        raise refusal(name, "True or False", value)
    return bool(value)


def text(name: str, value: Any) -> str:
    """Any text."""
    if not isinstance(value, str):
        raise refusal(name, "a text", value)
    return value


def one_of(*words: str) -> Check:
    """One of some words in any case of letters; kept as it is written here. The empty one is not told to users."""
    known = {word.lower(): word for word in words}

    def check(name: str, value: Any) -> str:
        found = known.get(value.lower()) if isinstance(value, str) else None
        if found is None:
            raise refusal(name, f"one of {', '.join(filter(None, words))}", value)
        return found

    return check


def distance(name: str, value: Any) -> str:
    """A distance, by the name it has in scripts."""
    return str(one_of(*distances().values())(name, value))


def listed(item: Check) -> Check:
    """A list of what ``item`` accepts, kept as a tuple. A text is no list."""

    def check(name: str, values: Any) -> tuple[Any, ...]:
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise refusal(name, "a list", values)
        return tuple(item(f"{name}[{position}]", value) for position, value in enumerate(values))

    return check


def device(name: str, value: Any) -> str:
    """``cpu``, ``cuda``, ``cuda:n``, ``mps`` or ``auto``, if it is there (DeviceError)."""
    choose_device(text(name, value))
    return str(value)


def anything(_name: str, value: Any) -> Any:
    """What an ITK object is asked for later."""
    return value


def weights(name: str, values: Any) -> tuple[float, ...]:
    """Weights of layers: finite, not negative, not all 0."""
    found: tuple[float, ...] = listed(NOT_NEGATIVE)(name, values)
    if found and not any(found):
        raise refusal(name, "a list with a weight above 0", list(found))
    return found
