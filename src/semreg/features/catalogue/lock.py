"""The checksums of fetched files, ``models.lock.toml`` beside them: a file is what it was when it was fetched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from semreg.errors import ConfigError, ModelError
from semreg.io.atomic_output import atomic_file
from semreg.io.digests import sha256_of
from semreg.runtime.settings import from_toml, to_toml

LOCK_FILE = "models.lock.toml"


@dataclass(frozen=True, kw_only=True)
class Locked:
    """One fetched file."""

    name: str
    """Its name in the catalogue."""
    repository: str
    path: str
    """In the repository and in the folder."""
    revision: str
    """Commit of the repository."""
    sha256: str
    size: int
    """Bytes."""
    date: str
    """Day it was fetched, ISO 8601, UTC."""


@dataclass(frozen=True, kw_only=True)
class Lock:
    """All that was fetched into one folder."""

    files: tuple[Locked, ...] = ()

    def get(self, name: str) -> Locked | None:
        """What is known of the model called ``name``."""
        return next((file for file in self.files if file.name == name), None)


def read_lock(folder: Path) -> Lock:
    """The lock of a folder, empty where there is none; raises ModelError where it cannot be read."""
    path = folder / LOCK_FILE
    if not path.is_file():
        return Lock()
    try:
        return from_toml(Lock, path)
    except ConfigError as error:
        message = f"expected a lock as `semreg models fetch` writes it, got {path}: {error}; restore it or delete it"
        raise ModelError(message) from error


def write_lock(folder: Path, locked: Locked) -> None:
    """Add ``locked`` to the lock of ``folder``, in the place of what had its name; raises OutputError."""
    lock = read_lock(folder)
    others = [file for file in lock.files if file.name != locked.name]
    files = tuple(sorted([*others, locked], key=lambda file: file.name))
    with atomic_file(folder / LOCK_FILE) as partial:
        partial.write_text(to_toml(replace(lock, files=files)), encoding="utf-8")


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; raises ModelError where it cannot be read."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise ModelError(f"expected a model that can be read, got {path}: {error.strerror or error}") from error


def verify(path: Path, expected: str | None, why: str) -> None:
    """Refuse a file (ModelError) whose checksum is not ``expected``; ``why`` says where that comes from."""
    if expected is None:
        return
    got = checksum(path)
    if got != expected:
        raise ModelError(
            f"expected {path} to have the SHA-256 {expected} ({why}), got {got}: "
            "the file was changed or damaged, delete it and fetch it again"
        )
