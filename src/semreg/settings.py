"""Frozen dataclasses as settings: from and to dicts and TOML, single values by dotted name. Knows no setting itself.

A settings class is a frozen, keyword-only dataclass of bool, int, float, str, Literal, tuple, Optional, further such
classes and tuples of them; its ``__post_init__`` checks the values. Nothing heavy is imported here.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import tomllib
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from semreg.errors import ConfigError


def require(condition: bool, expected: str, got: object) -> None:
    """ConfigError where a setting is not what is expected: both are named."""
    if not condition:
        raise ConfigError(f"expected {expected}, got {got}")


T = TypeVar("T")

NONE = "none"
"""How None is written in TOML and on the command line: only where a setting may be None."""


def from_dict(cls: type[T], mapping: Mapping[str, Any]) -> T:
    """Settings of ``cls`` from nested mappings; what is not named keeps its default.

    Raises ConfigError for an unknown name, with the nearest known one, and for a value of the wrong type or range.
    """
    result: T = _build(cls, mapping, "", list(_leaves(cls)))
    return result


def to_dict(config: Any) -> dict[str, Any]:
    """Nested dict of plain values (tuples become lists), as JSON holds it."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def from_toml(cls: type[T], source: str | Path) -> T:
    """Settings of ``cls`` from a TOML file (a ``Path``) or from TOML text (a ``str``); raises ConfigError."""
    text = source
    if isinstance(source, Path):
        try:
            text = source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"expected a TOML file with settings, got {source}: {reason}") from error
    try:
        mapping = tomllib.loads(str(text))
    except tomllib.TOMLDecodeError as error:
        where = f" in {source}" if isinstance(source, Path) else ""
        raise ConfigError(f"expected settings in TOML{where}, got: {error}") from error
    return from_dict(cls, mapping)


def to_toml(config: Any) -> str:
    """All settings as TOML text that ``from_toml`` reads back to an equal object."""
    return "\n".join(_toml_lines(to_dict(config), "")).strip() + "\n"


def override(config: T, assignment: str) -> T:
    """``config`` with one value replaced: ``"refine.iterations=40"``.

    The value is written as in TOML; a word needs no quotes, a list no brackets. Of several tables the first is number
    0: ``"models.0.weight=2"``; the number may be left out where there is only one. Raises ConfigError.
    """
    name, equals, text = assignment.partition("=")
    name = name.strip()
    if not equals or not name:
        raise ConfigError(f"expected a setting as name=value, got {assignment!r}")
    known = list(_leaves(type(config)))
    if _without_numbers(name) not in known:
        raise _unknown(name, known)
    result: T = _replace(config, name.split("."), _parse(text.strip()), name)
    return result


def names(cls: type) -> list[str]:
    """The dotted names of all settings of ``cls``, in the order of their definition; those of a table once."""
    return list(_leaves(cls))


def _leaves(cls: type, prefix: str = "") -> Iterator[str]:
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        nested = _table_of(hint) or hint
        if dataclasses.is_dataclass(nested) and isinstance(nested, type):
            yield from _leaves(nested, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def _table_of(hint: Any) -> type | None:
    """The settings class of a ``tuple[cls, ...]``: a list of tables in TOML."""
    cls, end = (*get_args(hint), None, None)[:2]
    is_list = get_origin(hint) is tuple and end is Ellipsis
    return cls if is_list and isinstance(cls, type) and dataclasses.is_dataclass(cls) else None


def _build(cls: type, mapping: Mapping[str, Any], prefix: str, known: list[str]) -> Any:
    hints = get_type_hints(cls)
    fields = {field.name for field in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if key not in fields:
            raise _unknown(name, known)
        hint = hints[key]
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            values[key] = _build(hints[key], value, f"{name}.", known)
        elif (table := _table_of(hint)) is not None:
            values[key] = _build_tables(table, value, name, known)
        else:
            values[key] = _checked(hint, value, name)
    return _made(lambda: cls(**values), prefix)


def _build_tables(cls: type, value: Any, name: str, known: list[str]) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, (Mapping, cls)) for item in value):
        raise ConfigError(f"expected {name} to be a list of tables, [[{name}]] in TOML, got {value!r}")
    prefixes = [f"{name}.{number}." if len(value) > 1 else f"{name}." for number in range(len(value))]
    pairs = zip(value, prefixes, strict=True)
    return tuple(item if isinstance(item, cls) else _build(cls, item, prefix, known) for item, prefix in pairs)


def _replace(config: Any, path: list[str], value: Any, name: str) -> Any:
    head, rest = path[0], path[1:]
    if isinstance(config, tuple):
        return _replace_table(config, path, value, name)
    if head.isdecimal():
        raise ConfigError(f"expected a number only after a list of tables, got {name!r}: name the setting without it")
    if rest:
        new = _replace(getattr(config, head), rest, value, name)
    else:
        new = _checked(get_type_hints(type(config))[head], value, name)
    return _made(lambda: dataclasses.replace(config, **{head: new}), name.removesuffix(".".join(path)))


def _replace_table(tables: tuple[Any, ...], path: list[str], value: Any, name: str) -> tuple[Any, ...]:
    section = name.removesuffix("." + ".".join(path))
    numbered = path[0].isdecimal()
    number = int(path[0]) if numbered else 0
    inner = path[1:] if numbered else path
    if number >= len(tables) or (len(tables) != 1 and not numbered):
        there = " or ".join(".".join([section, str(n), *inner]) for n in range(len(tables))) or f"a table [[{section}]]"
        raise ConfigError(f"expected {there}, got {name!r}: name one of them, or add [[{section}]] in TOML")
    new = _replace(tables[number], inner, value, name)
    return (*tables[:number], new, *tables[number + 1 :])


def _made(make: Any, prefix: str) -> Any:
    """Run a constructor; a missing value is a ConfigError too."""
    try:
        return make()
    except TypeError as error:
        section = prefix.rstrip(".") or "the settings"
        raise ConfigError(f"expected all values without a default in {section}, got: {error}") from error


def _without_numbers(name: str) -> str:
    """``models.0.weight`` as ``names`` lists it."""
    return re.sub(r"\.\d+(?=\.|$)", "", name)


def _unknown(name: str, known: list[str]) -> ConfigError:
    sections = {".".join(key.split(".")[:depth]) for key in known for depth in range(1, key.count(".") + 1)}
    plain = _without_numbers(name)
    if plain in sections:
        inside = [key for key in known if key.startswith(f"{plain}.")]
        return ConfigError(f"expected one setting, got the section {name}: name one of {', '.join(inside)}")
    leaf = plain.rpartition(".")[2]
    by_leaf = [key for key in known if key.rpartition(".")[2] == leaf]
    nearest = difflib.get_close_matches(plain, by_leaf or [*known, *sorted(sections)], n=1, cutoff=0.0)
    return ConfigError(f"expected a known setting, got {name!r}: did you mean {_numbered_as(name, nearest[0])!r}?")


def _numbered_as(name: str, known: str) -> str:
    """``known`` with the number that ``name`` has after the same section."""
    numbered = re.match(r"(.+?)\.(\d+)\.", name)
    if numbered is None or not known.startswith(f"{numbered[1]}."):
        return known
    return numbered[0] + known.removeprefix(f"{numbered[1]}.")


def _checked(hint: Any, value: Any, name: str) -> Any:
    """``value`` as the type ``hint`` (lists become tuples, whole numbers floats), or ConfigError."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _checked_union(arguments, value, name, hint)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple or hint is tuple:
        return _checked_tuple(arguments, value, name, hint)
    if hint is float and type(value) is int:
        return float(value)
    if hint is Any or (isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, hint)):
        return value
    if hint in (bool, int, float, str) and type(value) is hint:
        return value
    raise ConfigError(f"expected {name} to be {_words(hint)}, got {value!r}")


def _checked_union(options: tuple[Any, ...], value: Any, name: str, hint: Any) -> Any:
    if (value is None or value == NONE) and type(None) in options:
        return None
    for option in options:
        if option is not type(None):
            try:
                return _checked(option, value, name)
            except ConfigError:
                continue
    raise ConfigError(f"expected {name} to be {_words(hint)}, got {value!r}")


def _checked_tuple(arguments: tuple[Any, ...], value: Any, name: str, hint: Any) -> tuple[Any, ...]:
    variadic = len(arguments) == 2 and arguments[1] is Ellipsis
    if isinstance(value, str):
        value = _listed(value)
    elif variadic and isinstance(value, (bool, int, float)):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"expected {name} to be {_words(hint)}, got {value!r}")
    if not arguments:
        return tuple(tuple(item) if isinstance(item, list) else item for item in value)
    if variadic:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise ConfigError(f"expected {len(arguments)} values for {name}, got {len(value)}: {value!r}")
    return tuple(_checked(inner, item, name) for inner, item in zip(arguments, value, strict=True))


def _listed(text: str) -> list[Any]:
    """The values of a list that is written without brackets: ``4,2``, ``l1,l2``, ``axes=LIA,patch=[96,96]``."""
    parsed = _parse(f"[{text}]")
    if isinstance(parsed, list):
        return parsed
    return [_parse(part.strip()) for part in re.split(r",(?![^\[]*\])", text)]


def _words(hint: Any) -> str:
    """A type as a user reads it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(NONE if option is type(None) else _words(option) for option in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin is tuple or hint is tuple:
        return "a list"
    if dataclasses.is_dataclass(hint):
        return "a table of settings"
    known = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return known.get(hint, str(hint))


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _toml_lines(table: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, value in table.items():
        if not _is_table(value):
            yield f"{key} = {_toml_value(value)}"
    for key, value in table.items():
        if _is_table(value):
            header = f"[{prefix}{key}]" if isinstance(value, dict) else f"[[{prefix}{key}]]"
            for inner in [value] if isinstance(value, dict) else value:
                yield ""
                yield header
                yield from _toml_lines(inner, f"{prefix}{key}.")


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def _toml_value(value: Any) -> str:
    if value is None:
        return json.dumps(NONE)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
