"""Tables of pairs: CSV with one row a pair, or TOML with one ``[[pair]]`` a pair. Reads no image."""

from __future__ import annotations

import csv
import difflib
import io
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from semreg.batch.pairs import Pair, check_pairs
from semreg.errors import ConfigError

FILES = ("fixed", "moving", "fixed_mask", "moving_mask", "fixed_labels", "moving_labels", "initial")
LISTS = ("fixed_landmarks", "moving_landmarks")
TEXTS = ("name", "preset", "fixed_series", "moving_series")
NOTES = ("what", "licence", "license", "comment", "note", "subject", "session", "group", "site", "source")
"""Names of notes that are common; any other name that does not look like a slip is a note too."""
SETTING = "set."
"""What the name of a setting starts with."""
SEPARATOR = "|"
"""Between several files in one cell of a CSV table."""

SLIP = 0.8
"""Names this alike (``difflib``, 1: equal) are taken for a slip."""


def read_table(path: str | Path) -> list[Pair]:
    """The pairs of a table, ``.csv`` (also with semicolons or tabs) or ``.toml``; relative paths start at its folder.

    Keys: ``name``, ``fixed``, ``moving`` (these three are needed), ``fixed_mask``, ``moving_mask``,
    ``fixed_landmarks``, ``moving_landmarks`` (one file or several: a list in TOML, ``a.csv|b.csv`` in CSV),
    ``fixed_labels``, ``moving_labels``, ``initial``, ``preset``, ``fixed_series``, ``moving_series``, and any setting
    as ``set.refine.iterations``; other keys are kept as notes. Raises ConfigError, naming the row, for anything that
    could not run: unknown names that look like a slip, missing files, names that are not unique or not safe.
    """
    path = Path(path)
    rows = _toml_rows(path) if path.suffix.lower() == ".toml" else _csv_rows(path)
    pairs = [_pair(row, path.parent.absolute(), where) for where, row in rows]
    if not pairs:
        raise ConfigError(f"expected at least one pair in {path}, got none")
    check_pairs(pairs)
    return pairs


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"expected a table of pairs, got {path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise ConfigError(f"expected a table of pairs, got {path}: {reason}") from error


def _toml_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        content = tomllib.loads(_text_of(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"expected a table of pairs in TOML, got {path}: {error}") from error
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
    text = _text_of(path)
    head = text.partition("\n")[0]
    delimiter = max((",", ";", "\t"), key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        titles = _stripped(next(reader, []))
        for cells in map(_stripped, reader):
            if not cells:
                continue
            where = f"{path}, line {reader.line_num}"
            if len(cells) > len(titles):
                raise ConfigError(f"{where}: expected {len(titles)} cells as in the first line, got {len(cells)}")
            row = {title: cell for title, cell in zip(titles, cells, strict=False) if cell}
            yield _where(path, f"line {reader.line_num}", row.get("name")), row
    except csv.Error as error:
        raise ConfigError(f"expected a table of pairs in CSV, got {path}, line {reader.line_num}: {error}") from error
    if len(set(titles)) < len(titles):
        twice = next(title for title in titles if titles.count(title) > 1)
        raise ConfigError(f"expected each column of {path} once, got {twice!r} twice")


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
        raise ConfigError(f"{where}: expected {key} to be a path, got {text!r}")
    return Path(folder, Path(text).expanduser())


def _word(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{where}: expected {key} to be text, got {value!r}")
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
            f"{where}: expected a known name, got {key!r}: did you mean {nearest[0] if nearest else 'set.NAME'}?"
        )
