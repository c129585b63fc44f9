"""Frozen dataclasses as settings: from and to dicts and TOML, single values by dotted name. Knows no setting itself.

A settings class is a frozen, keyword-only dataclass of bool, int, float, str, Literal, tuple, Optional, further such
classes and tuples of them; its ``__post_init__`` checks the values. msgspec makes the objects and checks the types;
the rest is how people write settings, and what they are told. Nothing heavy is imported here.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from semreg.errors import ConfigError
from semreg.runtime.terms import advice
from semreg.runtime.texts import parse_toml, quoted, read_text, shown

T = TypeVar("T")

NONE = "none"
"""How None is written in TOML and on the command line: only where a setting may be None."""


def require(condition: bool, expected: str, got: object) -> None:
    """ConfigError where a setting is not what is expected: both are named."""
    if not condition:
        raise ConfigError(f"expected {expected}, got {got}")


def from_dict(cls: type[T], mapping: Mapping[str, Any]) -> T:
    """Settings of ``cls`` from nested mappings; what is not named keeps its default.

    Raises ConfigError for an unknown name, with the nearest known one, and for a value of the wrong type or range.
    """
    import msgspec  # not for ``semreg --help``, which reads no settings

    for name in _dotted(mapping):
        _refuse_moved(cls, name)
    plain = _spelled(cls, mapping, "", list(_leaves(cls)))
    try:
        return msgspec.convert(plain, cls)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ValueError):  # what a class says of its own values
            raise error.__cause__ from None
        raise ConfigError(_explained(str(error), cls, plain)) from error


def to_dict(config: Any) -> dict[str, Any]:
    """Nested dict of plain values (tuples become lists), as JSON holds it."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def from_toml(cls: type[T], source: str | Path) -> T:
    """Settings of ``cls`` from a TOML file (a ``Path``) or from TOML text (a ``str``); raises ConfigError."""
    where = f" in {source}" if isinstance(source, Path) else ""
    text = read_text(source, "a TOML file with settings") if isinstance(source, Path) else source
    return from_dict(cls, toml_table(text, where))


def toml_table(text: str, where: str = "") -> dict[str, Any]:
    """The tables of TOML with settings; ConfigError, which says ``where``, for anything else."""
    try:
        return parse_toml(text)
    except ValueError as error:
        raise ConfigError(f"expected settings in TOML{where}, got: {shown(str(error))}") from error


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
        raise ConfigError(f"expected a setting as name=value, got {quoted(assignment)}")
    known = list(_leaves(type(config)))
    _refuse_moved(type(config), name)
    if _without_numbers(name) not in known:
        raise _unknown(name, known)
    settings = to_dict(config)
    table, last = _table_named(settings, name)
    table[last] = _parse(text.strip())
    return from_dict(type(config), settings)


def names(cls: type) -> list[str]:
    """The dotted names of all settings of ``cls``, in the order of their definition; those of a table once."""
    return list(_leaves(cls))


def _dotted(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of all values in nested mappings."""
    for key, value in mapping.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")


def _refuse_moved(cls: type, name: str) -> None:
    """ConfigError for a setting that ``cls.MOVED`` says is said elsewhere now."""
    moved: Mapping[str, str] = getattr(cls, "MOVED", {})
    for old in (name, name.partition(".")[0]):
        if old in moved:
            raise ConfigError(f"expected a known setting, got {name!r}: {moved[old]}")


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


def _spelled(hint: Any, value: Any, name: str, known: list[str]) -> Any:
    """``value`` with what people leave out put in: ``none``, one value for a list of them, a list without brackets."""
    plain = _without_none(hint)
    if value == NONE and plain is not hint:
        return None
    if dataclasses.is_dataclass(plain) and isinstance(value, Mapping):
        hints = get_type_hints(plain)
        prefix = f"{name}." if name else ""
        for key in value:
            if key not in hints:
                raise _unknown(f"{prefix}{key}", known)
        return {key: _spelled(hints[key], inner, f"{prefix}{key}", known) for key, inner in value.items()}
    if get_origin(plain) is not tuple:
        return value
    item, *more = get_args(plain)
    several = more == [Ellipsis]
    if _table_of(plain) is None:
        value = _listed(value) if isinstance(value, str) else value
        value = [value] if several and isinstance(value, (bool, int, float)) else value
    if not several or not isinstance(value, (list, tuple)):
        return value
    return [_spelled(item, inner, _numbered(name, item, value, n), known) for n, inner in enumerate(value)]


def _explained(error: str, cls: type, plain: Any) -> str:
    """What msgspec found, as one sentence with the name, what was expected there and what came."""
    said, _, path = error.partition(" - at `$")
    hint, value, name = cls, plain, ""
    for key, number in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        inside = _without_none(hint)
        if key:
            hint, value, name = get_type_hints(inside)[key], value[key], f"{name}.{key}".lstrip(".")
        else:
            kinds = get_args(inside)
            hint = kinds[0] if kinds[-1] is Ellipsis else kinds[int(number)]
            value, name = value[int(number)], _numbered(name, hint, value, int(number))
    if said.startswith("Object missing"):
        return f"expected all values without a default in {name or 'the settings'}, got: {said}"
    kinds = get_args(_without_none(hint))
    if get_origin(_without_none(hint)) is tuple and Ellipsis not in kinds and isinstance(value, (list, tuple)):
        return f"expected {len(kinds)} values for {name}, got {len(value)}: {quoted(value)}"
    return f"expected {name or 'the settings'} to be {_words(hint, name)}, got {quoted(value)}"


def _table_named(settings: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """The innermost table of ``settings`` that the dotted ``name`` leads to, and the last part of the name."""
    table: Any = settings
    path = name.split(".")
    while True:
        if isinstance(table, list):
            number = int(path[0][:9]) if path[0].isdecimal() else 0
            inner = path[1:] if path[0].isdecimal() else path
            if number >= len(table) or (len(table) != 1 and inner is path):
                section = name.removesuffix("." + ".".join(path))
                raise ConfigError(_which_table(section, inner, len(table), name))
            table, path = table[number], inner
        if not isinstance(table, dict) or path[0].isdecimal():
            raise ConfigError(
                f"expected a number only after a list of tables, got {name!r}: name the setting without it"
            )
        if len(path) == 1:
            return table, path[0]
        table, path = table[path[0]], path[1:]


def _which_table(section: str, inner: list[str], count: int, name: str) -> str:
    there = " or ".join(".".join([section, str(n), *inner]) for n in range(count)) or f"a table [[{section}]]"
    return f"expected {there}, got {name!r}: name one of them, or add [[{section}]] in TOML"


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
    if not by_leaf and (foreign := advice(name)):
        return ConfigError(f"expected a known setting, got {quoted(name)}: {foreign}")
    return ConfigError(
        f"expected a known setting, got {quoted(name)}: did you mean {_numbered_as(name, nearest[0])!r}?"
    )


def _numbered_as(name: str, known: str) -> str:
    """``known`` with the number that ``name`` has after the same section."""
    numbered = re.match(r"(.+?)\.(\d+)\.", name)
    if numbered is None or not known.startswith(f"{numbered[1]}."):
        return known
    return numbered[0] + known.removeprefix(f"{numbered[1]}.")


def _numbered(name: str, item: Any, values: Sequence[Any], number: int) -> str:
    """The name of one of ``values``: a table has its number where there are several, any other has that of its list."""
    return f"{name}.{number}" if dataclasses.is_dataclass(item) and len(values) > 1 else name


def _without_none(hint: Any) -> Any:
    """The type that an Optional holds, of several the first."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    return next(option for option in get_args(hint) if option is not type(None))


def _listed(text: str) -> list[Any]:
    """The values of a list that is written without brackets: ``4,2``, ``l1,l2``, ``axes=LIA,patch=[96,96]``."""
    parsed = _parse(f"[{text}]")
    if isinstance(parsed, list):
        return parsed
    return [_parse(part.strip()) for part in re.split(r",(?![^\[]*\])", text)]


def _words(hint: Any, name: str) -> str:
    """The type of the setting ``name`` as a user reads it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(NONE if option is type(None) else _words(option, name) for option in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin is tuple or hint is tuple:
        return "a list" if _table_of(hint) is None else f"a list of tables, [[{name}]] in TOML"
    if dataclasses.is_dataclass(hint):
        return "a table of settings"
    known = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return known.get(hint, str(hint))


def _parse(text: str) -> Any:
    try:
        found = parse_toml(f"value = {text}")
    except ValueError:
        return text
    return found["value"] if len(found) == 1 else text


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
