"""Files in text as users give them: read whole or refused in one sentence, and tables written. Knows no content.

Whatever is wrong with a file (no name, no regular file, no UTF-8, no TOML or JSON, nested without end, numbers of
thousands of digits) is said by the error that the caller names.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from semreg.errors import ConfigError, SemregError

DEEPEST = 100
"""Levels of tables and lists in each other."""
LARGEST = 10**300
"""Whole numbers below it are taken: those above have no float."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the start of a formula."""
SHOWN = 200


def shown(value: object) -> str:
    """A value in a message, not longer than a line or two."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def quoted(value: object) -> str:
    """The same as Python writes the value."""
    return shown(repr(value))


def read_bytes(path: Path, expected: str, error: type[SemregError] = ConfigError) -> bytes:
    """The bytes of a regular file; raises ``error``, which says that ``expected`` was expected."""
    try:
        kind = os.stat(path).st_mode  # noqa: PTH116 - no file of the path is opened before it is known what it is
        if stat.S_ISREG(kind):
            return path.read_bytes()
        reason = "it is a folder" if stat.S_ISDIR(kind) else "it is no regular file"
    except FileNotFoundError:
        reason = "there is no such file"
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or "it is no name of a file"
    raise error(f"expected {expected}, got {shown(str(path))}: {reason}")


def read_text(path: Path, expected: str, error: type[SemregError] = ConfigError) -> str:
    """The text of a regular file in UTF-8, without a mark of its order of bytes."""
    try:
        return read_bytes(path, expected, error).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise error(f"expected {expected}, got {path}: it is no text in UTF-8") from None


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of TOML; raises ValueError with the reason."""
    if DOTTED.search(text):  # before it is parsed: that takes memory by the square of the levels
        raise ValueError(TOO_DEEP)
    try:
        found = tomllib.loads(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    _check(found)
    return found


def parse_json(text: str) -> Any:
    """The value of JSON, whose numbers are finite; raises ValueError with the reason."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    _check(found, finite=True)
    return found


DOTTED = re.compile(rf"""(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){{{DEEPEST},}}""")
"""A key of so many parts."""
TOO_DEEP = f"tables or lists nested in more than {DEEPEST} levels"


def _check(value: Any, *, finite: bool = False) -> None:
    """Refuse what cannot be written again: too deep, too many digits, half of a pair of surrogates (ValueError)."""
    todo = [(value, 0)]
    while todo:
        each, depth = todo.pop()
        if depth > DEEPEST:
            raise ValueError(TOO_DEEP)
        if isinstance(each, dict):
            todo += [(inner, depth + 1) for pair in each.items() for inner in pair]
        elif isinstance(each, list):
            todo += [(inner, depth + 1) for inner in each]
        elif isinstance(each, str):
            each.encode()  # UnicodeEncodeError is a ValueError
        elif isinstance(each, int) and abs(each) >= LARGEST:
            raise ValueError("a whole number of more than 300 digits")
        elif finite and isinstance(each, float) and not math.isfinite(each):
            raise ValueError("a number that is not finite")


def without(text: str, names: Mapping[str, str]) -> str:
    """The text with other words for names: the longest first, and of a path all that follows it too."""
    for name in sorted(filter(None, names), key=len, reverse=True):
        rest = r"(?:/[^\s:,;'\"]*)?" if "/" in name else ""
        text = re.sub(rf"(?<![\w./-]){re.escape(name)}{rest}(?![\w-])", names[name].replace("\\", r"\\"), text)
    return text


def delimiter_of(text: str) -> str:
    """What stands between the cells of a table: comma, semicolon or tab, by its first line."""
    return max(",;\t", key=text.partition("\n")[0].count)


def parse_table(text: str, delimiter: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table with the number of the line where each ends; raises ValueError with line and reason."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or delimiter_of(text))
    try:
        yield from ((reader.line_num, row) for row in reader)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def rows_text(rows: Iterable[Iterable[str]], delimiter: str = ",") -> str:
    """Rows as lines of text with a delimiter, each cell as it is."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue()


def table_text(rows: Iterable[Iterable[str]], delimiter: str = ",") -> str:
    """Rows as a table in text; a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    return rows_text([map(_harmless, row) for row in rows], delimiter)


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(FORMULA) and not _is_number(cell) else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
