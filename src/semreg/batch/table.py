"""Tables of pairs: CSV with one row a pair, or TOML with one ``[[pair]]`` a pair. Reads no image."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from semreg.batch.pairs import Pair, check_pairs
from semreg.errors import ConfigError
from semreg.runtime.texts import parse_table, parse_toml, quoted, read_text, shown

FILES = ("fixed", "moving", "fixed_mask", "moving_mask", "fixed_labels", "moving_labels", "initial")
LISTS = ("fixed_landmarks", "moving_landmarks")
TEXTS = ("name", "preset", "fixed_series", "moving_series")
NOTES = ("what", "licence", "license", "comment", "note", "subject", "session", "group", "site", "source")
"""Names of notes that are common; any other name that does not look like a slip is a note too."""
SETTING = "set."
"""What the name of a setting starts with."""
SEPARATOR = "|"
"""Between several files in one cell of a CSV table."""

TOO_LONG = "\0"
"""Where a row says that it has more cells than the table has columns; no column is called so."""
SLIP = 0.8
"""Names this alike (``difflib``, 1: equal) are taken for a slip."""


def read_table(path: str | Path) -> list[Pair]:
    """The pairs of a table, ``.csv`` (also with semicolons or tabs) or ``.toml``; relative paths start at its folder.

    Keys: ``name``, ``fixed``, ``moving`` (these three are needed), ``fixed_mask``, ``moving_mask``,
    ``fixed_landmarks``, ``moving_landmarks`` (one file or several: a list in TOML, ``a.csv|b.csv`` in CSV),
    ``fixed_labels``, ``moving_labels``, ``initial``, ``preset``, ``fixed_series``, ``moving_series``, and any setting
    as ``set.refine.iterations``; other keys are kept as notes. Raises ConfigError, naming all such rows, for what
    could not run: unknown names that look like a slip, missing files, names that are not unique or not safe.
    """
    path = Path(path)
    rows = _toml_rows(path) if path.suffix.lower() == ".toml" else _csv_rows(path)
    pairs, problems, empty = [], [], True
    for where, row in rows:
        empty = False
        try:
            pairs.append(_pair(row, path.parent.absolute(), where))
        except ConfigError as error:
            problems.append(str(error))
    if empty:
        raise ConfigError(f"expected at least one pair in {path}, got none")
    check_pairs(pairs, problems)
    return pairs


def _text_of(path: Path) -> str:
    return read_text(path, "a table of pairs")


def _toml_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        content = parse_toml(_text_of(path))
    except ValueError as error:
        raise ConfigError(f"expected a table of pairs in TOML, got {path}: {shown(str(error))}") from error
    rows = content.pop("pair", None)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"expected [[pair]] once for each pair in {path}, got none")
    if content:
        raise ConfigError(f"expected nothing but [[pair]] in {path}, got {', '.join(content)}: move it into the pairs")
    for number, row in enumerate(rows, start=1):
        yield _where(path, f"pair {number}", row.get("name")), _flat(row)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """``set`` as a table, also a nested one, becomes ``set.refine.iterations``."""

    def leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield from leaves(f"{name}.{key}", item)
        else:
            yield name, value

    return dict(item for key, value in row.items() for item in leaves(key, value))


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    rows = parse_table(_text_of(path))
    try:
        lines = [(number, _stripped(cells)) for number, cells in rows]
    except ValueError as error:
        raise ConfigError(f"expected a table of pairs in CSV, got {path}, {error}") from error
    titles = lines[0][1] if lines else []
    if len(set(titles)) < len(titles):
        twice = next(title for title in titles if titles.count(title) > 1)
        raise ConfigError(f"expected each column of {path} once, got {shown(twice)!r} twice")
    for number, cells in lines[1:]:
        if cells:
            row: dict[str, Any] = {title: cell for title, cell in zip(titles, cells, strict=False) if cell}
            if len(cells) > len(titles):
                row[TOO_LONG] = f"expected {len(titles)} cells as in the first line, got {len(cells)}"
            yield _where(path, f"line {number}", row.get("name")), row


def _stripped(cells: Sequence[str]) -> list[str]:
    """Without the space around each cell, and without the empty cells that spreadsheets leave at the end."""
    found = [cell.strip() for cell in cells]
    while found and not found[-1]:
        found.pop()
    return found


def _where(path: Path, row: str, name: Any) -> str:
    return f"{path}, {row} ({name})" if isinstance(name, str) and name else f"{path}, {row}"


def _pair(row: Mapping[str, Any], folder: Path, where: str) -> Pair:
    """A pair from one row; ``folder`` is where relative paths start."""
    if TOO_LONG in row:
        raise ConfigError(f"{where}: {row[TOO_LONG]}")
    known: dict[str, Any] = {}
    settings: list[str] = []
    notes: list[tuple[str, str]] = []
    for key, value in row.items():
        if key in FILES:
            known[key] = _path(value, folder, key, where)
        elif key in LISTS:
            known[key] = tuple(_path(item, folder, key, where) for item in _items(value))
        elif key in TEXTS:
            known[key] = _word(value, key, where)
        elif key.startswith(SETTING):
            settings.append(f"{key.removeprefix(SETTING)}={_assigned(value)}")
        else:
            _refuse_slip(key, where)
            notes.append((key, str(value)))
    for key in ("name", "fixed", "moving"):
        if key not in known:
            raise ConfigError(f"{where}: expected {key}, it is not there: name, fixed and moving are needed")
    return Pair(**known, settings=tuple(settings), notes=tuple(notes), where=where)


def _items(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(SEPARATOR) if part.strip()]
    return value if isinstance(value, list) else [value]


def _path(value: Any, folder: Path, key: str, where: str) -> Path:
    """The path as it is written, made absolute; links are not followed, since names may say what a file is."""
    text = _word(value, key, where)
    if "\0" in text:
        raise ConfigError(f"{where}: expected {key} to be a path, got {quoted(text)}")
    return Path(folder, os.path.expanduser(text))  # noqa: PTH111 - as it is where there is no such user


def _word(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{where}: expected {key} to be text, got {quoted(value)}")
    return value


def _assigned(value: Any) -> str:
    """A value of TOML as ``--set`` takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(f'"{item}"' if isinstance(item, str) else _assigned(item) for item in value) + "]"
    return str(value)


def _refuse_slip(key: str, where: str) -> None:
    """Refuse a name that is nearly a known one (ConfigError); others are notes."""
    if key in NOTES:
        return
    known = (*FILES, *LISTS, *TEXTS, *NOTES)
    nearest = difflib.get_close_matches(key.lower(), known, n=1, cutoff=SLIP)
    if nearest or key.lower() == "set":
        raise ConfigError(
            f"{where}: expected a known name, got {shown(key)!r}: did you mean {nearest[0] if nearest else 'set.NAME'}?"
        )
