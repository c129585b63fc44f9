"""Fetches a known model into a folder, once, and writes down what came."""

from __future__ import annotations

import datetime as dt
import shutil
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

from semreg.errors import ModelError, OutputError
from semreg.features.catalogue.entries import Entry, find
from semreg.features.catalogue.hub import Offer, Progress, Request, ask, download
from semreg.features.catalogue.lock import Locked, checksum, read_lock, verify, write_lock


@dataclass(frozen=True)
class Fetched:
    """A model's file: where it is, its SHA-256, the commit it is from, and whether it was transferred just now."""

    path: Path
    sha256: str
    revision: str
    transferred: bool


def fetch(
    name: str,
    folder: str | Path,
    *,
    mirror: str | None = None,
    token: str | None = None,
    revision: str | None = None,
    on_progress: Progress | None = None,
) -> Fetched:
    """The file of the model called ``name`` in ``folder``, transferred if it is not there.

    ``mirror`` is asked in place of https://huggingface.co. ``revision`` is a commit, branch or tag; None: the one that
    was fetched before, else the catalogue's. ``on_progress`` gets the bytes that have come and their total. What came
    is written to ``models.lock.toml``; a file that is there and is what the lock says opens no connection.

    Raises ModelNotFoundError (unknown name, no connection, refused), ModelError (another content than the lock or the
    catalogue says, with both checksums), OutputError (no place) and ConfigError (no client, no address).
    """
    entry, folder = find(name), Path(folder)
    known, target = read_lock(folder).get(entry.name), folder / entry.path
    if known is not None and target.is_file() and revision in (None, known.revision):
        verify(target, known.sha256, "when it was fetched")
        return Fetched(target, known.sha256, known.revision, transferred=False)
    wanted = revision or (known.revision if known else entry.revision) or "main"
    request = Request(
        repository=entry.repository, path=entry.path, revision=wanted, folder=folder, mirror=mirror, token=token
    )
    offer = ask(request)
    request = replace(request, revision=offer.revision)
    promises = _promises(entry, target, offer, known)
    if offer.sha256 is not None:
        _check(request, offer.sha256, promises)
    there = checksum(target) if target.is_file() else None
    fits = there is not None and (there == offer.sha256 or (known is not None and known.revision == offer.revision))
    if there is None or not fits:
        there = _transfer(request, target, offer, promises, on_progress)
    _write_down(folder, entry, offer.revision, there)
    return Fetched(target, there, offer.revision, transferred=not fits)


def _promises(entry: Entry, target: Path, offer: Offer, known: Locked | None) -> dict[str, str | None]:
    """The checksums that the file must have, by who says so; raises ModelError where the fetched file was changed."""
    if known is not None and target.is_file():
        verify(target, known.sha256, "when it was fetched")
    foreign = known is None and target.is_file()
    return {
        "the catalogue's": entry.spec.sha256,
        "when it was fetched": known.sha256 if known is not None and known.revision == offer.revision else None,
        f"of {target}, which was not fetched": checksum(target) if foreign else None,
        "the hub's own": offer.sha256,
    }


def _check(request: Request, got: str, promises: dict[str, str | None]) -> None:
    for why, expected in promises.items():
        if expected not in (None, got):
            raise ModelError(
                f"expected {request} to have the SHA-256 {expected} ({why}), got {got}: nothing was changed, "
                "ask whoever keeps the model which of the two is right"
            )


def _transfer(
    request: Request, target: Path, offer: Offer, promises: dict[str, str | None], on_progress: Progress | None
) -> str:
    """Bring the file to ``target``, which is whole or not there at any time; returns its SHA-256."""
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
    except OSError as error:
        raise OutputError(f"expected a folder to write to, got {target.parent}: {error.strerror or error}") from error
    if offer.size is not None and offer.size > free:
        raise OutputError(f"expected room for {offer.size} bytes in {target.parent}, got {free}: make room there")
    try:
        sha256 = download(request, part, offer.size, on_progress)
        _check(request, sha256, promises)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return sha256


def _write_down(folder: Path, entry: Entry, revision: str, sha256: str) -> None:
    locked = Locked(
        name=entry.name,
        repository=entry.repository,
        path=entry.path,
        revision=revision,
        sha256=sha256,
        size=(folder / entry.path).stat().st_size,
        date=dt.datetime.now(dt.UTC).date().isoformat(),
    )
    write_lock(folder, locked)
