"""The jobs on disk: a folder each, with a small typed file that says how it stands, written whole or not at all.

    FOLDER/jobs/ID/job.json        how it stands
    FOLDER/jobs/ID/fixed.nii.gz    what came in, by its role
    FOLDER/jobs/ID/settings.toml   the settings, checked
    FOLDER/jobs/ID/register.log    what ``semreg register`` said
    FOLDER/jobs/ID/progress.json   how far it is
    FOLDER/jobs/ID/result          what it wrote

Folders whose names begin with a dot are jobs that are still coming in, or are on their way out.
"""

from __future__ import annotations

import logging
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from semreg.batch.service.asked import Asked
from semreg.errors import OutputError
from semreg.io.atomic_output import atomic_file, check_output_folder
from semreg.io.records import stable_json, understood
from semreg.io.result_folder import RECORD
from semreg.runtime.progress import Share
from semreg.runtime.settings import to_toml

logger = logging.getLogger("semreg.service")

State = Literal["waiting", "running", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
JOB, SETTINGS, LOG, PROGRESS, RESULT = "job.json", "settings.toml", "register.log", "progress.json", "result"
IDENTIFIER = re.compile(r"[0-9a-f]{32}")
INCOMING, GONE = ".incoming-", ".gone-"
"""What the names of folders begin with that are no jobs yet, or none any more."""
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Job:
    """How a job stands: what ``job.json`` holds."""

    id: str
    created: str
    """When it came, UTC."""
    files: Mapping[str, str]
    """Names of what came in, by role."""
    flags: tuple[str, ...] = ()
    """Of ``semreg register``."""
    state: State = "waiting"
    attempts: int = 0
    """How often it was begun."""
    started: str | None = None
    ended: str | None = None
    error: str | None = None
    """One sentence if it failed."""
    verdict: str | None = None
    reasons: tuple[str, ...] = ()
    """The sentences of the checks that did not pass, the worst first."""
    outputs: tuple[str, ...] = ()
    """Names of the files of its result, by the record of the result."""
    process: int | None = None
    """Of a running one, and when it began, in seconds since 1970: numbers of processes are used again."""
    process_began: float | None = None
    format: int = FORMAT

    @property
    def has_ended(self) -> bool:
        """Whether nothing happens to it any more."""
        return self.state in ENDED


@dataclass(frozen=True, kw_only=True)
class _Check:
    level: str | None = None
    sentence: str = ""


@dataclass(frozen=True, kw_only=True)
class _Verdict:
    level: str
    checks: tuple[_Check, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Found:
    """What of a record this room reads: no more than msgspec alone can tell, as the types of all bring torch."""

    outputs: tuple[str, ...] = field(default_factory=tuple)
    verdict: _Verdict | None = None

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences of what did not pass, the worst first."""
        checks = () if self.verdict is None else self.verdict.checks
        return tuple(each.sentence for level in ("FAIL", "REVIEW") for each in checks if each.level == level)


def now() -> str:
    """The time, UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Store:
    """All jobs below one folder. One service at a time may have it."""

    def __init__(self, folder: Path) -> None:
        """The folder, made for its owner alone where it is not there (OutputError)."""
        if not folder.exists():
            try:
                folder.mkdir(parents=True, mode=0o700)
            except OSError as error:
                raise OutputError(f"expected to make the folder {folder}, got: {error.strerror or error}") from error
        check_output_folder(folder)
        self.folder = folder
        self.jobs = folder / "jobs"
        self.jobs.mkdir(exist_ok=True, mode=0o700)

    def place(self, identifier: str) -> Path:
        """The folder of a job."""
        if IDENTIFIER.fullmatch(identifier) is None:
            raise ValueError(f"expected the id of a job, got {identifier!r}")
        return self.jobs / identifier

    def read_all(self) -> list[Job]:
        """All jobs in the order they came; what is half there goes."""
        found = []
        for path in sorted(self.jobs.iterdir()):
            if path.name.startswith((INCOMING, GONE)):
                shutil.rmtree(path, ignore_errors=True)
            elif IDENTIFIER.fullmatch(path.name):
                job = understood(Job, path / JOB)
                if job is None or job.format != FORMAT or job.id != path.name:
                    logger.warning("%s holds no job that this version understands: it is left alone", path)
                else:
                    found.append(job)
        return sorted(found, key=lambda job: (job.created, job.id))

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A new folder for what comes in; it disappears at the end of the block unless it has become a job."""
        folder = self.jobs / f"{INCOMING}{uuid.uuid4().hex}"
        try:
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def accept(self, folder: Path, asked: Asked) -> Job:
        """Make a job of what has come in (OutputError)."""
        identifier = uuid.uuid4().hex
        job = Job(id=identifier, created=now(), files=dict(asked.files), flags=asked.flags)
        try:
            (folder / SETTINGS).write_text(to_toml(asked.config), encoding="utf-8")
            with atomic_file(folder / JOB) as partial:
                partial.write_text(stable_json(job), encoding="utf-8")
            folder.rename(self.place(identifier))
        except OSError as error:
            raise OutputError(f"expected room for one more job, got: {error.strerror or error}") from error
        return job

    def write(self, job: Job) -> None:
        """Write how a job stands (OutputError)."""
        with atomic_file(self.place(job.id) / JOB) as partial:
            partial.write_text(stable_json(job), encoding="utf-8")

    def remove(self, identifier: str) -> None:
        """Remove a job at once, and then its files."""
        gone = self.jobs / f"{GONE}{identifier}"
        try:
            self.place(identifier).rename(gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone, ignore_errors=True)

    def progress(self, identifier: str) -> Share | None:
        """How far the job is by its process; None where it has not said so."""
        return understood(Share, self.place(identifier) / PROGRESS)

    def found(self, identifier: str) -> Found | None:
        """What the record of its result says; None where there is none."""
        return understood(Found, self.place(identifier) / RESULT / RECORD)
