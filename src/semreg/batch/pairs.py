"""One pair of a cohort: its files and what is said of it. Reads no image."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from semreg.errors import ConfigError

FORBIDDEN = set('/\\:*?"<>|')
"""What some file systems do not allow in a name."""

RESERVED = {"index.html", "cohort.csv", "batch.json", "batch.log", "batch.lock"}
"""What a batch writes beside the folders of the pairs."""

MOST_SAID = 20
"""How many problems of a table are said at once."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two images to register, what they are judged with, and what is set for them alone. Paths are absolute."""

    name: str
    """Name of the pair's folder in the output."""
    fixed: Path
    moving: Path
    fixed_series: str | None = None
    """Which series, by its description or UID, where ``fixed`` is a folder of DICOM."""
    moving_series: str | None = None
    fixed_mask: Path | None = None
    moving_mask: Path | None = None
    fixed_landmarks: tuple[Path, ...] = ()
    """Files of points, as many as of the moving image; the n-th point corresponds to the n-th of the other file."""
    moving_landmarks: tuple[Path, ...] = ()
    fixed_labels: Path | None = None
    moving_labels: Path | None = None
    initial: Path | None = None
    """Transform to start from, fixed → moving."""
    preset: str | None = None
    """Instead of the preset of the whole batch."""
    settings: tuple[str, ...] = ()
    """Assignments ``name=value``, on top of those of the whole batch."""
    notes: tuple[tuple[str, str], ...] = ()
    """What else is said of the pair, name and text; shown and not used."""
    where: str = ""
    """Where it was named: a row of the table; for messages."""

    @property
    def files(self) -> dict[str, Path]:
        """All files that are read, by their role; those of a list are numbered: ``fixed_landmarks.0``."""
        single = {
            "fixed": self.fixed,
            "moving": self.moving,
            "fixed_mask": self.fixed_mask,
            "moving_mask": self.moving_mask,
            "initial": self.initial,
            "fixed_labels": self.fixed_labels,
            "moving_labels": self.moving_labels,
        }
        found = {role: path for role, path in single.items() if path is not None}
        for role in ("fixed_landmarks", "moving_landmarks"):
            found |= {f"{role}.{number}": path for number, path in enumerate(getattr(self, role))}
        return found


def check_pairs(pairs: Sequence[Pair], problems: Sequence[str] = ()) -> None:
    """Refuse what cannot run (ConfigError), naming each row: names, halves of pairs, missing files.

    Names must differ whatever their case and however their accents are written, since some file systems do not see
    that. ``problems``: sentences on rows that are no pairs.
    """
    seen: dict[str, Pair] = {}
    found = list(problems)
    for pair in pairs:
        found += [f"{pair.where}: {problem}" for problem in _problems(pair)]
        other = seen.setdefault(same_name(pair.name), pair)
        if other is not pair:
            found.append(
                f"{pair.where}: expected a name of its own, got {pair.name!r}, "
                f"which {other.where} has: name one of them otherwise"
            )
    if found:
        more = f"; and {len(found) - MOST_SAID} more" if len(found) > MOST_SAID else ""
        said = "; ".join(found[:MOST_SAID]) + more
        raise ConfigError(said.encode(errors="backslashreplace").decode())


def same_name(name: str) -> str:
    """What two names have in common that a file system may take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def check_name(name: str) -> str | None:
    """What is wrong with a name as that of a folder; None if nothing is."""
    unsafe = sorted({letter for letter in name if letter in FORBIDDEN or not letter.isprintable()})
    if unsafe:
        return (
            f"expected a name that is safe as that of a folder, got {name!r}: leave out {' '.join(map(repr, unsafe))}"
        )
    if not name or name[0] in ".-" or name[-1] in ". " or name != name.strip() or len(name.encode()) > 200:
        return f"expected a name of 1 to 200 bytes with no dot or dash in front and no dot at its end, got {name!r}"
    if name.casefold() in RESERVED:
        return f"expected a name that the batch does not use itself, got {name!r}"
    return None


def _is_text(path: Path) -> bool:
    """Whether a path can be written into a record: names of other encodings hold surrogates."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _problems(pair: Pair) -> Iterator[str]:
    if (problem := check_name(pair.name)) is not None:
        yield problem
    numbers = len(pair.fixed_landmarks), len(pair.moving_landmarks)
    if numbers[0] != numbers[1]:
        yield (
            "expected as many files of fixed_landmarks as of moving_landmarks, "
            f"got {numbers[0]} and {numbers[1]}: name both of each, or leave both out"
        )
    if (pair.fixed_labels is None) != (pair.moving_labels is None):
        given, missing = ("fixed", "moving") if pair.moving_labels is None else ("moving", "fixed")
        yield f"expected {given}_labels and {missing}_labels, got {given}_labels alone: name both or leave both out"
    for role, path in pair.files.items():
        kind = role.partition(".")[0]
        if not _is_text(path):
            yield f"expected the path of {kind} to be text in UTF-8, got {str(path)!r}: rename the file or folder"
            continue
        if os.path.isdir(path):  # noqa: PTH112 - False where a name is too long
            if kind not in ("fixed", "moving"):
                yield f"expected {kind} to be a file, got the folder {path}"
        elif not os.path.exists(path):  # noqa: PTH110 - the same
            yield f"expected {kind} to be a file that is there, got {path}: there is no such file"
        elif not os.path.isfile(path):  # noqa: PTH113 - the same
            yield f"expected {kind} to be a regular file, got {path}: it is a pipe or a device"
