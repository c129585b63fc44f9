"""``done.json`` in the folder of a pair: which steps are done, for which fingerprint, and what they wrote.

It is in the folder before the folder gets its name, so a folder with it is complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from semreg.batch.jobs import Job, Step, file_digest
from semreg.errors import ImageError
from semreg.io.atomic_output import atomic_file
from semreg.io.records import stable_json, understood

DONE_FILE = "done.json"
LOG_FILE = "log.txt"
"""What the commands said."""

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """A step that is done."""

    fingerprint: str
    """Empty for one that counts for nothing: its files are being replaced."""
    seconds: float
    outputs: Mapping[str, str]
    """SHA-256 of what it wrote, by relative path."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What is known of the folder of a pair."""

    steps: Mapping[str, StepDone] = field(default_factory=dict)
    """By name."""
    error: str | None = None
    """Why the step after these failed, or a later attempt."""
    name: str = ""
    semreg: str = ""
    """The version that the fingerprints hold for."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of every file that was read, by role."""
    notes: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT

    def holds(self, folder: Path, step: Step) -> bool:
        """Whether the step was done with this fingerprint and all that it wrote is there, unchanged."""
        found = self.steps.get(step.name)
        if found is None or found.fingerprint != step.fingerprint:
            return False
        return all(_is_unchanged(folder / name, digest) for name, digest in found.outputs.items())

    @property
    def outputs(self) -> set[str]:
        """Relative paths of all that the steps wrote."""
        return {name for step in self.steps.values() for name in step.outputs}

    def of(self, job: Job) -> Done:
        """The same, with what is known of the job."""
        return replace(self, name=job.name, semreg=job.semreg, inputs=job.inputs, notes=dict(job.notes))


def read_done(folder: Path) -> Done | None:
    """What ``done.json`` says; None where there is none or where it cannot be understood."""
    found = understood(Done, folder / DONE_FILE)
    return found if found is not None and found.format == FORMAT else None


def write_done(folder: Path, done: Done) -> None:
    """Write ``done.json``, as the last file. Raises OutputError."""
    with atomic_file(folder / DONE_FILE) as partial:
        partial.write_text(stable_json(done), encoding="utf-8")


def steps_left(folder: Path, job: Job) -> tuple[Step, ...]:
    """The steps that are still to be done, in order: after one that is, all are, since they read what it writes."""
    done = read_done(folder)
    if done is None:
        return job.steps
    for number, step in enumerate(job.steps):
        if not done.holds(folder, step):
            return job.steps[number:]
    return ()


def digests_in(folder: Path) -> dict[str, str]:
    """SHA-256 of all files in a folder and below, by relative path; without the log and ``done.json``."""
    return {name: file_digest(folder / name) for name in sorted(_names(folder))}


def _names(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (DONE_FILE, LOG_FILE):
            yield name


def _is_unchanged(path: Path, digest: str) -> bool:
    try:
        return file_digest(path) == digest
    except ImageError:
        return False
